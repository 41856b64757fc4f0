//! Certificates and keys are put into their place whole: whoever reads them never sees half of one.

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

/// Writes a file as a whole, or not at all, with this mode (less the umask's bits).
///
/// # Errors
///
/// When its directory is not there or cannot be written, or the disk fails. What was there before stays.
pub fn write_whole(path: &Path, contents: &str, mode: u32) -> io::Result<()> {
    let unfinished = path.with_extension("tmp");
    // One of another mode may have been left behind.
    match fs::remove_file(&unfinished) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _gone => {}
    }
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(mode)
        .open(&unfinished)?;
    file.write_all(contents.as_bytes())?;
    file.sync_all()?;
    fs::rename(&unfinished, path)
}
