//! A log file that is begun anew when it is large (`--enable-log-rotation`), with the names that
//! etcd's library (lumberjack) gives to old ones: `etcd-2026-01-02T03-04-05.678.log`.
//!
//! Differs from etcd: the time in a name is always UTC, also with `localtime`.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use flate2::Compression;
use flate2::write::GzEncoder;
use types::Clock;

use super::line::date_time;
use crate::config::LogRotation;

/// The end of the name of an old file that was compressed.
const COMPRESSED: &str = ".gz";
/// As many characters as the time in the name of an old file has.
const STAMP_LEN: usize = "2006-01-02T15-04-05.000".len();

/// The file that is written, and where its old ones are.
pub(super) struct RotatingFile {
    path: PathBuf,
    rotation: LogRotation,
    clock: Arc<dyn Clock>,
    file: File,
    len: u64,
}

impl RotatingFile {
    pub(super) fn open(
        path: &Path,
        rotation: LogRotation,
        clock: Arc<dyn Clock>,
    ) -> io::Result<Self> {
        if let Some(directory) = path.parent() {
            fs::create_dir_all(directory)?;
        }
        let file = append(path)?;
        let len = file.metadata()?.len();
        Ok(Self {
            path: path.to_owned(),
            rotation,
            clock,
            file,
            len,
        })
    }

    fn rotate(&mut self) -> io::Result<()> {
        let now = self.clock.wall();
        fs::rename(&self.path, self.old_path(now))?;
        self.file = append(&self.path)?;
        self.len = 0;
        self.clean(now)
    }

    /// The name without its end, and the end.
    fn name(&self) -> (String, String) {
        let text = |part: Option<&std::ffi::OsStr>| {
            part.map(|part| part.to_string_lossy().into_owned())
                .unwrap_or_default()
        };
        let end = text(self.path.extension());
        let end = if end.is_empty() {
            end
        } else {
            format!(".{end}")
        };
        (format!("{}-", text(self.path.file_stem())), end)
    }

    fn old_path(&self, now: SystemTime) -> PathBuf {
        let (stem, end) = self.name();
        let stamp = date_time(now).replace(':', "-");
        let stamp = &stamp[..STAMP_LEN];
        self.path.with_file_name(format!("{stem}{stamp}{end}"))
    }

    /// The old files, oldest first: their names sort by their times.
    fn old_files(&self) -> io::Result<Vec<PathBuf>> {
        let (stem, end) = self.name();
        let directory = match self.path.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent,
            _ => Path::new("."),
        };
        let mut old = Vec::new();
        for entry in fs::read_dir(directory)? {
            let entry = entry?;
            let name = entry.file_name().to_string_lossy().into_owned();
            let plain = name.strip_suffix(COMPRESSED).unwrap_or(&name);
            let stamp = plain
                .strip_prefix(&stem)
                .and_then(|rest| rest.strip_suffix(&end));
            if stamp.is_some_and(|stamp| stamp.len() == STAMP_LEN) {
                old.push(entry.path());
            }
        }
        old.sort_unstable();
        Ok(old)
    }

    /// Removes old files that are too many or too old, and compresses the others.
    fn clean(&self, now: SystemTime) -> io::Result<()> {
        let old = self.old_files()?;
        let kept = match self.rotation.backups_max {
            0 => old.len(),
            max => max,
        };
        let too_many = old.len().saturating_sub(kept);
        for (place, path) in old.iter().enumerate() {
            let age = fs::metadata(path)?.modified()?;
            let age = now.duration_since(age).unwrap_or(Duration::ZERO);
            let is_old = self.rotation.age_max.is_some_and(|max| age > max);
            if place < too_many || is_old {
                fs::remove_file(path)?;
            } else if self.rotation.is_compressed && !is_compressed(path) {
                compress(path)?;
            }
        }
        Ok(())
    }
}

impl Write for RotatingFile {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        let len = line.len() as u64;
        if self.len > 0 && self.len + len > self.rotation.bytes_max {
            // A file that cannot be begun anew goes on being written.
            self.rotate().ok();
        }
        let written = self.file.write(line)?;
        self.len += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

fn append(path: &Path) -> io::Result<File> {
    OpenOptions::new().create(true).append(true).open(path)
}

fn is_compressed(path: &Path) -> bool {
    path.to_string_lossy().ends_with(COMPRESSED)
}

fn compress(path: &Path) -> io::Result<()> {
    let mut name = path.as_os_str().to_owned();
    name.push(COMPRESSED);
    let mut encoder = GzEncoder::new(File::create(&name)?, Compression::default());
    io::copy(&mut File::open(path)?, &mut encoder)?;
    encoder.finish()?.sync_all()?;
    fs::remove_file(path)
}

#[cfg(test)]
mod tests {
    use types::SystemClock;

    use super::*;

    fn log_files(directory: &Path) -> Vec<String> {
        let mut names: Vec<String> = fs::read_dir(directory)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort_unstable();
        names
    }

    fn write(rotation: LogRotation, lines: usize) -> (tempfile::TempDir, Vec<String>) {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("a/etcd.log");
        let mut file = RotatingFile::open(&path, rotation, Arc::new(SystemClock)).unwrap();
        for _ in 0..lines {
            file.write_all(&[b'x'; 60]).unwrap();
            // The names of old files have milliseconds.
            std::thread::park_timeout(Duration::from_millis(3));
        }
        let names = log_files(&directory.path().join("a"));
        (directory, names)
    }

    fn rotation() -> LogRotation {
        LogRotation {
            bytes_max: 100,
            age_max: None,
            backups_max: 0,
            is_compressed: false,
        }
    }

    #[test]
    fn a_large_file_is_begun_anew_and_the_old_one_has_the_time_in_its_name() {
        let (_directory, names) = write(rotation(), 3);
        assert_eq!(names.len(), 3, "{names:?}");
        assert_eq!(names[2], "etcd.log");
        assert_eq!(names[0].len(), "etcd-2006-01-02T15-04-05.000.log".len());
        assert!(names[0].starts_with("etcd-2") && names[0].ends_with(".log"));
    }

    #[test]
    fn old_files_are_removed_and_compressed() {
        let few = LogRotation {
            backups_max: 2,
            is_compressed: true,
            ..rotation()
        };
        let (directory, names) = write(few, 6);
        assert_eq!(names.len(), 3, "{names:?}");
        assert!(names[0].ends_with(".log.gz") && names[1].ends_with(".log.gz"));
        let old = fs::read(directory.path().join("a").join(&names[0])).unwrap();
        let mut text = String::new();
        io::Read::read_to_string(&mut flate2::read::GzDecoder::new(&old[..]), &mut text).unwrap();
        assert_eq!(text, "x".repeat(60));
    }
}
