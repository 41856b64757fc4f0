//! Where a store is, and where one that is to take its place grows.
//!
//! The state's store of a member is `member/state` at first. One that was received from another member
//! grows beside it, as `state.1`, `state.2` and so on, and the file `state.current` says which one is
//! in use: it is replaced in one step, so that after a crash it is either the old one or the new one,
//! whole. (Renaming the directories would be no way: sled does not let an open store be moved.)
//!
//! Whatever is not in use is a leftover. The newest one may be taken up again; the others go when the
//! member starts.

use std::fmt;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use crate::{Backend, Config, OpenError};

/// What the name of the file that says which store is in use ends with.
const CURRENT: &str = "current";

/// Where a store is, and where the one after it goes.
pub trait Site: fmt::Debug + Send + Sync + 'static {
    /// A new, empty store beside this one. Leftovers go.
    fn begin(&self) -> Result<Backend, OpenError>;

    /// The store that was begun last and has not taken the place of this one, if there is one.
    fn resume(&self) -> Result<Option<Backend>, OpenError>;

    /// Makes this store, which was begun beside another one, the one in use; survives a loss of
    /// power on return.
    fn take_over(&self) -> io::Result<()>;

    /// Removes what was begun beside this store and is not open.
    fn clear(&self) -> io::Result<()>;

    /// Bytes that another store beside this one may take; `None`: nobody knows.
    fn available(&self) -> io::Result<Option<u64>>;
}

/// Stores in memory: nothing is left of them, so there is nothing to take up again.
#[derive(Debug)]
pub(crate) struct MemorySite;

impl Site for MemorySite {
    fn begin(&self) -> Result<Backend, OpenError> {
        Ok(Backend::in_memory())
    }

    fn resume(&self) -> Result<Option<Backend>, OpenError> {
        Ok(None)
    }

    fn take_over(&self) -> io::Result<()> {
        Ok(())
    }

    fn clear(&self) -> io::Result<()> {
        Ok(())
    }

    fn available(&self) -> io::Result<Option<u64>> {
        Ok(None)
    }
}

/// Directories beside each other.
#[derive(Debug)]
pub(crate) struct Directories {
    /// The store that is here.
    config: Config,
    names: Names,
}

/// How the directories of one store are named.
#[derive(Debug)]
struct Names {
    parent: PathBuf,
    base: String,
}

impl Directories {
    pub(crate) fn around(config: &Config) -> Self {
        Self {
            config: config.clone(),
            names: Names::of(&config.path),
        }
    }

    fn open(&self, number: u64) -> Result<Backend, OpenError> {
        Backend::open(&Config {
            path: self.names.path(number),
            cache_bytes: self.config.cache_bytes,
        })
    }

    fn number(&self) -> u64 {
        self.names.number_of(&self.config.path).unwrap_or_default()
    }

    fn in_path(&self) -> impl Fn(io::Error) -> OpenError {
        let path = self.config.path.clone();
        move |source| OpenError::Io {
            path: path.clone(),
            source,
        }
    }
}

impl Site for Directories {
    fn begin(&self) -> Result<Backend, OpenError> {
        let found = self.names.numbers().map_err(self.in_path())?;
        let last = found.into_iter().max().unwrap_or_default();
        self.clear().map_err(self.in_path())?;
        self.open(last.max(self.number()) + 1)
    }

    fn resume(&self) -> Result<Option<Backend>, OpenError> {
        let found = self.names.numbers().map_err(self.in_path())?;
        let last = found.into_iter().max();
        let begun = last.filter(|last| *last > self.number());
        begun.map(|number| self.open(number)).transpose()
    }

    fn take_over(&self) -> io::Result<()> {
        let current = self.names.current_file();
        let new = current.with_extension("new");
        let mut file = OpenOptions::new()
            .create(true)
            .truncate(true)
            .write(true)
            .open(&new)?;
        writeln!(file, "{}", self.number())?;
        file.sync_all()?;
        fs::rename(&new, &current)?;
        File::open(&self.names.parent)?.sync_all()
    }

    fn clear(&self) -> io::Result<()> {
        let own = self.number();
        self.names.remove(|number| number > own)
    }

    fn available(&self) -> io::Result<Option<u64>> {
        let disk = rustix::fs::statvfs(&self.names.parent)?;
        Ok(Some(disk.f_bavail.saturating_mul(disk.f_frsize)))
    }
}

impl Names {
    /// The names of the store at `path`, which may be any of its directories.
    fn of(path: &Path) -> Self {
        let parent = match path.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent.to_owned(),
            _ => PathBuf::from("."),
        };
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let base = match name.rsplit_once('.') {
            Some((base, number)) if number.parse::<u64>().is_ok() => base,
            _ => &name,
        };
        Self {
            parent,
            base: base.to_owned(),
        }
    }

    fn path(&self, number: u64) -> PathBuf {
        match number {
            0 => self.parent.join(&self.base),
            number => self.parent.join(format!("{}.{number}", self.base)),
        }
    }

    fn current_file(&self) -> PathBuf {
        self.parent.join(format!("{}.{CURRENT}", self.base))
    }

    /// The number of a directory, if it is one of these.
    fn number_of(&self, path: &Path) -> Option<u64> {
        let name = path.file_name()?.to_str()?.strip_prefix(&self.base)?;
        if name.is_empty() {
            return Some(0);
        }
        name.strip_prefix('.')?.parse().ok()
    }

    /// The numbers of the directories that are there.
    fn numbers(&self) -> io::Result<Vec<u64>> {
        let mut numbers = Vec::new();
        for entry in fs::read_dir(&self.parent)? {
            numbers.extend(self.number_of(&entry?.path()));
        }
        Ok(numbers)
    }

    fn remove(&self, which: impl Fn(u64) -> bool) -> io::Result<()> {
        for number in self.numbers()? {
            if which(number) {
                remove_directory(&self.path(number))?;
            }
        }
        Ok(())
    }

    fn current(&self) -> io::Result<u64> {
        let text = match fs::read_to_string(self.current_file()) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(0),
            Err(error) => return Err(error),
        };
        text.trim_end()
            .parse()
            .map_err(|_no_number| io::Error::new(io::ErrorKind::InvalidData, "it names no store"))
    }
}

/// Removes a directory that may have gone.
pub(crate) fn remove_directory(path: &Path) -> io::Result<()> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        removed => removed,
    }
}

/// Which of the stores at `base` and beside it is in use. Removes the others but the newest, which
/// may be taken up again.
pub(crate) fn in_use(base: &Path) -> io::Result<PathBuf> {
    let names = Names::of(base);
    let current = names.current()?;
    let newest = names.numbers()?.into_iter().max();
    names.remove(|number| number != current && (number < current || Some(number) != newest))?;
    Ok(names.path(current))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Batch, Bucket};

    fn open(path: &Path) -> Backend {
        Backend::open(&Config {
            path: path.to_owned(),
            cache_bytes: 1 << 20,
        })
        .unwrap()
    }

    fn names_in(path: &Path) -> Vec<String> {
        let mut names: Vec<String> = fs::read_dir(path)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    #[test]
    fn the_new_store_is_in_use_only_once_it_has_taken_over() {
        let dir = tempfile::tempdir().unwrap();
        let base = dir.path().join("state");
        let old = open(&base);
        let mut new = old.site.begin().unwrap();
        let mut batch = Batch::new();
        batch.put(Bucket::Meta, &b"k"[..], &b"v"[..]);
        new.writer.commit(batch).unwrap();
        new.writer.flush_durable().unwrap();
        assert_eq!(in_use(&base).unwrap(), base);
        new.site.take_over().unwrap();
        old.reader.retire();
        drop(old);
        assert_eq!(names_in(dir.path()), ["state.1", "state.current"]);
        let next = new.site.begin().unwrap();
        assert!(dir.path().join("state.2").is_dir());
        drop((new, next));
        let current = in_use(&base).unwrap();
        assert_eq!(current, dir.path().join("state.1"));
        let found = open(&current).reader.get(Bucket::Meta, b"k").unwrap();
        assert_eq!(found.as_deref(), Some(&b"v"[..]));
    }

    #[test]
    fn the_newest_leftover_can_be_taken_up_and_the_others_go() {
        let dir = tempfile::tempdir().unwrap();
        let base = dir.path().join("state");
        let old = open(&base);
        assert!(old.site.resume().unwrap().is_none());
        drop(old.site.begin().unwrap());
        fs::create_dir(dir.path().join("state.7")).unwrap();
        assert_eq!(in_use(&base).unwrap(), base);
        assert_eq!(names_in(dir.path()), ["state", "state.7"]);
        drop(old.site.resume().unwrap().expect("state.7"));
        drop(old.site.begin().unwrap());
        assert_eq!(names_in(dir.path()), ["state", "state.8"]);
        old.site.clear().unwrap();
        assert_eq!(names_in(dir.path()), ["state"]);
    }

    #[test]
    fn a_file_that_names_no_store_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("state.current"), "x").unwrap();
        assert!(in_use(&dir.path().join("state")).is_err());
    }
}
