//! The issuer with a faulty disk, damaged files below `state` or a misbehaving CA, in a sandbox and by
//! the test's clock.

mod answers;
mod challenges;
mod clock;
mod damage;
mod disk;
mod fixture;
mod short_lives;
mod warnings;
