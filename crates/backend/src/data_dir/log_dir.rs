//! The log in a directory of its own (`--wal-dir`), for example on a faster disk.
//!
//! ```text
//!  <data-dir>/member/WAL_DIR   whose log it is, and where it was last
//!  <wal-dir>/FORMAT            whose log it is
//!  <wal-dir>/LOCK              held while it is in use
//!  <wal-dir>/log               the store
//! ```
//!
//! A state without the log that belongs to it has forgotten what it voted for and acknowledged, so the two
//! know each other by a number that is drawn when they are made. Which comes first on the disk: the log's
//! directory, what the data directory says of it, and only then that the data directory is in use.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use super::{DataDirError, FORMAT, LOG, failed, make_private, sync_parent, take_lock, write_whole};

/// What the data directory says of it.
const MARK: &str = "WAL_DIR";
/// What its format file begins with; the number follows.
const MAGIC: &str = "kvorum log directory, layout 1, of data directory ";
/// What the extension of an etcd's log files is.
const ETCD_LOG: &str = "wal";

/// What the data directory says.
struct Mark {
    number: String,
    /// Where the log was last.
    last: PathBuf,
}

/// Where the log's store is or goes, and the lock of its directory if it has one of its own.
pub(super) fn settle(
    path: &Path,
    member: &Path,
    is_new: bool,
    wal_dir: Option<&Path>,
) -> Result<(PathBuf, Option<File>), DataDirError> {
    let mark = read_mark(path, member)?;
    let Some(wal_dir) = wal_dir else {
        return match mark {
            None => Ok((member.join(LOG), None)),
            Some(mark) => Err(DataDirError::LogElsewhere {
                path: path.to_owned(),
                wal_dir: mark.last,
            }),
        };
    };
    let number = read_number(wal_dir)?;
    let here = std::path::absolute(wal_dir).map_err(failed("find", wal_dir))?;
    let lock = match &mark {
        Some(mark) if number.as_ref() == Some(&mark.number) => lock(wal_dir)?,
        Some(mark) => {
            return Err(DataDirError::WrongLog {
                path: path.to_owned(),
                wal_dir: wal_dir.to_owned(),
                last: mark.last.clone(),
            });
        }
        None if !is_new => {
            return Err(DataDirError::LogInside {
                path: path.to_owned(),
                wal_dir: wal_dir.to_owned(),
            });
        }
        None => {
            refuse_others(path, wal_dir)?;
            make_private(wal_dir)?;
            lock(wal_dir)?
        }
    };
    let number = match number {
        Some(number) => number,
        None => begin(wal_dir)?,
    };
    if mark.is_none_or(|mark| mark.last != here) {
        let text = format!("{number} {}\n", here.display());
        write_whole(member, MARK, &text)?;
    }
    Ok((wal_dir.join(LOG), Some(lock)))
}

/// Draws a number and writes it down.
fn begin(wal_dir: &Path) -> Result<String, DataDirError> {
    let number = format!("{:032x}", rand::random::<u128>());
    write_whole(wal_dir, FORMAT, &format!("{MAGIC}{number}\n"))?;
    sync_parent(wal_dir).map_err(failed("make durable", wal_dir))?;
    Ok(number)
}

fn lock(wal_dir: &Path) -> Result<File, DataDirError> {
    take_lock(wal_dir, || DataDirError::LogInUse {
        wal_dir: wal_dir.to_owned(),
    })
}

/// A new member takes a directory without a log. One that a start has left that was broken off has
/// none yet.
fn refuse_others(path: &Path, wal_dir: &Path) -> Result<(), DataDirError> {
    let there = |whose| DataDirError::LogThere {
        path: path.to_owned(),
        wal_dir: wal_dir.to_owned(),
        whose,
    };
    if wal_dir.join(LOG).exists() {
        return Err(there("another member's"));
    }
    let entries = match fs::read_dir(wal_dir) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(failed("read", wal_dir)(error)),
    };
    for entry in entries {
        let name = entry.map_err(failed("read", wal_dir))?.file_name();
        if Path::new(&name)
            .extension()
            .is_some_and(|it| it == ETCD_LOG)
        {
            return Err(there("an etcd's"));
        }
    }
    Ok(())
}

fn read_mark(path: &Path, member: &Path) -> Result<Option<Mark>, DataDirError> {
    let unknown = || DataDirError::Unknown {
        path: path.to_owned(),
    };
    let Some(text) = read(&member.join(MARK))? else {
        return Ok(None);
    };
    let (number, last) = text
        .trim_end_matches('\n')
        .split_once(' ')
        .ok_or_else(unknown)?;
    Ok(Some(Mark {
        number: number.to_owned(),
        last: PathBuf::from(last),
    }))
}

/// The number in a log's directory; none if there is no format file of ours.
fn read_number(wal_dir: &Path) -> Result<Option<String>, DataDirError> {
    let text = read(&wal_dir.join(FORMAT))?;
    Ok(text.and_then(|text| Some(text.trim_end().strip_prefix(MAGIC)?.to_owned())))
}

fn read(path: &Path) -> Result<Option<String>, DataDirError> {
    match fs::read(path) {
        Ok(text) => Ok(Some(String::from_utf8_lossy(&text).into_owned())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(failed("read", path)(error)),
    }
}
