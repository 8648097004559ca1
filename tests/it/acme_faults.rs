//! The issuer when the disk, the files below `state` or the CA are not as they should be, in a
//! place of its own and by the test's clock.

mod answers;
mod challenges;
mod clock;
mod damage;
mod disk;
mod stage;
mod warnings;
