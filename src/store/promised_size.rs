//! The size of a blob as it was pushed, kept as an extended attribute of its file: the name of the
//! file promises only a digest, which is too expensive to compute at each pull. File systems without
//! extended attributes and files of other tools promise no size.

use std::fs::File;
use std::io;

use rustix::fs::{XattrFlags, fgetxattr, fsetxattr};

const ATTRIBUTE: &str = "user.moorgate.size";

/// Records the current size of a complete file.
pub(super) fn record(file: &File) -> io::Result<()> {
    let size = file.metadata()?.len().to_string();
    // Without the promise the content is as good: a full disk, or a file system without attributes.
    let _ = fsetxattr(file, ATTRIBUTE, size.as_bytes(), XattrFlags::empty());
    Ok(())
}

/// The recorded size. `None`: there is none.
pub(super) fn read(file: &File) -> Option<u64> {
    let mut digits = [0; 20];
    let length = fgetxattr(file, ATTRIBUTE, &mut digits[..]).ok()?;
    std::str::from_utf8(digits.get(..length)?)
        .ok()?
        .parse()
        .ok()
}
