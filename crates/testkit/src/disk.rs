//! A disk that is slow, full, forgets what was not synced when the power fails, or lies about
//! syncs: for one member, without root and without anything in the member's program.
//!
//! A small library in C (`disk/faulty.c`) is preloaded into the process. It needs a program that
//! does its input and output through the C library: kvorum does, a real etcd does not.
//!
//! What this is not: a device that reorders writes. When the power fails, each file is as it was
//! when its last sync began, which any device allows; others are worse.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Read as _;
use std::os::unix::fs::{FileExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};

const SOURCE: &str = include_str!("disk/faulty.c");
/// The page that the library maps.
const CONTROL_BYTES: usize = 4096;

/// The compiled library.
#[derive(Debug, Clone)]
pub struct Library(PathBuf);

impl Library {
    /// Compiles it into a directory.
    ///
    /// # Errors
    /// When there is no C compiler.
    pub fn compile(dir: &Path) -> Result<Library> {
        let (source, library) = (dir.join("faulty.c"), dir.join("faulty.so"));
        fs::write(&source, SOURCE)?;
        let mut compiler = Command::new("cc");
        compiler.args([
            "-shared", "-fPIC", "-O1", "-Wall", "-Werror", "-pthread", "-o",
        ]);
        compiler.arg(&library).arg(&source).arg("-ldl");
        let compiled = compiler.output().context("cc")?;
        ensure!(
            compiled.status.success(),
            "{}",
            String::from_utf8_lossy(&compiled.stderr)
        );
        Ok(Library(library))
    }
}

/// A member's disk.
#[derive(Debug)]
pub struct Disk {
    library: Library,
    /// What is on it.
    data: PathBuf,
    /// Its control and its records.
    dir: PathBuf,
}

impl Disk {
    /// Makes a disk for what is below `data`; keeps its own files in `dir`.
    ///
    /// # Errors
    /// When the files cannot be written.
    pub fn new(library: Library, data: &Path, dir: &Path) -> Result<Disk> {
        let disk = Disk {
            library,
            data: data.to_owned(),
            dir: dir.to_owned(),
        };
        fs::create_dir_all(disk.undo())?;
        fs::write(disk.control(), [0; CONTROL_BYTES])?;
        Ok(disk)
    }

    /// The environment of a process that is to have this disk.
    #[must_use]
    pub fn environment(&self) -> Vec<(&'static str, PathBuf)> {
        vec![
            ("LD_PRELOAD", self.library.0.clone()),
            ("FAULTY_DISK_DIR", self.data.clone()),
            ("FAULTY_DISK_CONTROL", self.control()),
            ("FAULTY_DISK_UNDO", self.undo()),
        ]
    }

    /// Every sync takes so much longer.
    ///
    /// # Errors
    /// When the control cannot be written.
    pub fn slow(&self, delay: Duration) -> Result<()> {
        let millis = u32::try_from(delay.as_millis())?;
        self.set(0, &millis.to_ne_bytes())
    }

    /// No file grows any more, or again.
    ///
    /// # Errors
    /// When the control cannot be written.
    pub fn fill(&self, full: bool) -> Result<()> {
        self.set(4, &[full.into()])
    }

    /// From now on the disk says that it has synced, and has not.
    ///
    /// # Errors
    /// When the control cannot be written.
    pub fn lie(&self) -> Result<()> {
        self.set(5, &[1])
    }

    /// The power has failed, and the process is dead: every file is again as it was at its last
    /// sync. Returns how many writes were lost.
    ///
    /// # Errors
    /// When a file cannot be written.
    pub fn lose_power(&self) -> Result<usize> {
        let mut files = BTreeMap::new();
        inodes(&self.data, &mut files)?;
        let mut lost = 0;
        for entry in fs::read_dir(self.undo())? {
            let entry = entry?;
            let inode: u64 = entry.file_name().to_string_lossy().parse()?;
            let writes = records(&entry.path())?;
            fs::remove_file(entry.path())?;
            // Files that were deleted stay so.
            let Some(path) = files.get(&inode) else {
                continue;
            };
            let file = File::options().write(true).open(path)?;
            for write in writes.iter().rev() {
                file.write_all_at(&write.old, write.offset)?;
                file.set_len(write.size)?;
            }
            lost += writes.len();
        }
        Ok(lost)
    }

    fn set(&self, offset: u64, bytes: &[u8]) -> Result<()> {
        let control = File::options().write(true).open(self.control())?;
        Ok(control.write_all_at(bytes, offset)?)
    }

    fn control(&self) -> PathBuf {
        self.dir.join("control")
    }

    fn undo(&self) -> PathBuf {
        self.dir.join("undo")
    }
}

/// What a write that was not synced has changed.
struct Write {
    offset: u64,
    /// The file's size before.
    size: u64,
    old: Vec<u8>,
}

fn records(path: &Path) -> Result<Vec<Write>> {
    let mut file = std::io::BufReader::new(File::open(path)?);
    let mut writes = Vec::new();
    loop {
        let mut head = [0; 24];
        // The process may have been killed in the middle of a record: that write was not done.
        if file.read_exact(&mut head).is_err() {
            return Ok(writes);
        }
        let number = |at: usize| {
            let mut bytes = [0; 8];
            bytes.copy_from_slice(&head[8 * at..8 * at + 8]);
            u64::from_ne_bytes(bytes)
        };
        let mut old = vec![0; usize::try_from(number(2))?];
        if file.read_exact(&mut old).is_err() {
            return Ok(writes);
        }
        writes.push(Write {
            offset: number(0),
            size: number(1),
            old,
        });
    }
}

fn inodes(dir: &Path, files: &mut BTreeMap<u64, PathBuf>) -> Result<()> {
    let entries = match fs::read_dir(dir) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        other => other?,
    };
    for entry in entries {
        let entry = entry?;
        let metadata = entry.metadata()?;
        if metadata.is_dir() {
            inodes(&entry.path(), files)?;
        } else {
            files.insert(metadata.ino(), entry.path());
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A process that writes a file, syncs it, writes more, and says when it has.
    const WRITER: &str = "dd if=/dev/zero of=$0/data/file bs=10 count=1 conv=fsync 2>/dev/null && \
                          dd if=/dev/zero of=$0/data/file bs=4 count=1 conv=notrunc oflag=append \
                          2>/dev/null";

    fn written(disk: &Disk, dir: &Path) -> Vec<u8> {
        let mut shell = Command::new("bash");
        let environment = disk.environment();
        shell.args(["-c", WRITER]).arg(dir).envs(environment);
        assert!(shell.status().unwrap().success());
        fs::read(dir.join("data/file")).unwrap()
    }

    fn new() -> (tempfile::TempDir, Disk) {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("data")).unwrap();
        let library = Library::compile(dir.path()).unwrap();
        let (data, own) = (dir.path().join("data"), dir.path().join("disk"));
        let disk = Disk::new(library, &data, &own).unwrap();
        (dir, disk)
    }

    #[test]
    fn what_was_not_synced_is_lost_with_the_power() {
        let (dir, disk) = new();
        assert_eq!(written(&disk, dir.path()).len(), 14);
        assert_eq!(disk.lose_power().unwrap(), 1);
        assert_eq!(fs::read(dir.path().join("data/file")).unwrap(), [0; 10]);
    }

    #[test]
    fn a_disk_that_lies_loses_everything_with_the_power() {
        let (dir, disk) = new();
        disk.lie().unwrap();
        assert_eq!(written(&disk, dir.path()).len(), 14);
        assert_eq!(disk.lose_power().unwrap(), 2);
        assert_eq!(fs::read(dir.path().join("data/file")).unwrap(), b"");
    }

    #[test]
    fn nothing_can_be_written_to_a_full_disk() {
        let (dir, disk) = new();
        disk.fill(true).unwrap();
        let mut shell = Command::new("bash");
        shell.args(["-c", WRITER]).arg(dir.path());
        let status = shell.envs(disk.environment()).status();
        assert!(!status.unwrap().success());
    }
}
