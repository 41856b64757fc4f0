//! A pinned state becomes a backup: written beside its place, made durable, read back, put in its place, read
//! back again, and told of. Old ones go only after that.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, BufWriter, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::SystemTime;

use apply::Pinned;
use etcdfile::{EtcdFile, HashCheck, Image, Sha256Sink, Within};
use types::{Clock, ClusterId, MemberId};

use crate::archive::{Position, tip};
use crate::compression::{Compression, Packer, unpack};
use crate::error::BackupError;
use crate::metadata::Metadata;
use crate::name::{Named, backup_name, metadata_name, unix_ms};
use crate::store::Store;

/// Only its owner reads a snapshot, as in etcd.
const FILE_MODE: u32 = 0o600;
/// Bytes that go to the system at a time.
const WRITE_BYTES: usize = 1 << 20;

/// Whose backups they are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Origin {
    /// The cluster.
    pub cluster: ClusterId,
    /// The member that takes them.
    pub member: MemberId,
    /// Its name.
    pub member_name: String,
    /// The version of this program.
    pub version: &'static str,
}

/// What is to be backed up, and how.
#[derive(Debug)]
pub struct Request<'a> {
    /// The state.
    pub pinned: Pinned,
    /// When it was held.
    pub taken: SystemTime,
    /// When the backup was due.
    pub due: SystemTime,
    /// What its name begins with.
    pub prefix: &'a str,
    /// How it is compressed.
    pub form: Compression,
    /// The archive that it belongs to.
    pub chain: Option<u64>,
    /// Whose it is.
    pub origin: &'a Origin,
    /// Where files may be written before they are uploaded.
    pub staging: &'a Path,
    /// Breaks it off when it becomes true.
    pub is_stopping: &'a AtomicBool,
}

/// Takes a backup.
///
/// # Errors
/// When there is none: what was written of it is removed, and what was there stays.
pub fn take(
    store: &Store,
    request: &Request<'_>,
    clock: &dyn Clock,
) -> Result<Metadata, BackupError> {
    let started = clock.now();
    let origin = request.origin;
    let directory = store.staging(request.staging)?;
    let part = Part::new(directory.join(format!(".kvorum-{}.part", origin.member)));
    let image = Image::measure(request.pinned.clone())?;
    let written = write(&image, &part.path, request.form, request.is_stopping)?;
    check(&part.path, &part.unpacked(), request.form)?;
    let name = backup_name(
        request.prefix,
        &origin.member_name,
        request.taken,
        request.form,
    );
    store.put_file(&part.path, &name)?;
    check_digest(store, &name, &written.sha256)?;
    let revision = image.revision();
    let at = request.pinned.applied();
    let metadata = Metadata {
        cluster_id: origin.cluster.to_string(),
        member_id: origin.member.to_string(),
        member_name: origin.member_name.clone(),
        taken_unix_ms: unix_ms(request.taken),
        due_unix_ms: unix_ms(request.due),
        took_ms: u64::try_from(clock.now().saturating_duration_since(started).as_millis())
            .unwrap_or(u64::MAX),
        revision,
        tip: format!("{:08x}", tip(&request.pinned, revision)?),
        chain: request
            .chain
            .map_or_else(String::new, |chain| format!("{chain:016x}")),
        // etcd counts entries from 1.
        raft_index: at.index + 1,
        raft_term: at.term,
        snapshot_bytes: image.bytes(),
        file_bytes: written.bytes,
        sha256: written.sha256,
        kvorum_version: origin.version.to_owned(),
        name: name.clone(),
    };
    let text = serde_json::to_vec_pretty(&metadata).expect("texts and numbers are JSON");
    store.put_bytes(&metadata_name(&name), text)?;
    Ok(metadata)
}

impl Metadata {
    /// Where an archive goes on after this backup.
    #[must_use]
    pub fn position(&self) -> Option<Position> {
        Some(Position {
            chain: self.chain()?,
            revision: self.revision,
            tip: self.tip()?,
        })
    }
}

/// Reads the metadata of a backup.
pub(crate) fn metadata(store: &Store, backup: &str) -> Result<Metadata, BackupError> {
    let name = metadata_name(backup);
    let text = store.get_bytes(&name)?;
    serde_json::from_slice(&text).map_err(|source| BackupError::Metadata { name, source })
}

/// The backups of a cluster, or of all, oldest first, as far as their metadata can be read.
pub(crate) fn backups(
    store: &Store,
    names: &[String],
    cluster: Option<ClusterId>,
) -> Result<Vec<Metadata>, BackupError> {
    let cluster = cluster.map(|cluster| cluster.to_string());
    let mut found = Vec::new();
    for name in names {
        let Named::Metadata(backup) = Named::read(name) else {
            continue;
        };
        match metadata(store, &backup) {
            Ok(metadata) => {
                let is_wanted = cluster.as_ref().is_none_or(|id| *id == metadata.cluster_id);
                let is_its = metadata.name == backup;
                found.extend((is_wanted && is_its).then_some(metadata));
            }
            // Somebody else's, or removed meanwhile.
            Err(BackupError::Metadata { .. } | BackupError::NotFound { .. }) => {}
            Err(error) => return Err(error),
        }
    }
    found.sort_by_key(|metadata| (metadata.taken_unix_ms, metadata.revision));
    Ok(found)
}

/// The newest backup of a cluster.
///
/// # Errors
/// When its place cannot be read.
pub fn newest(store: &Store, cluster: ClusterId) -> Result<Option<Metadata>, BackupError> {
    let names = store.list()?;
    Ok(backups(store, &names, Some(cluster))?.pop())
}

/// Removes all but the last `kept` backups of a cluster, and what of its archive leads from those that are
/// removed; 0 keeps all. To be called after a new one. Returns how many backups were removed.
///
/// # Errors
/// When something cannot be removed; it is tried again next time.
pub fn retain(store: &Store, cluster: ClusterId, kept: usize) -> Result<usize, BackupError> {
    if kept == 0 {
        return Ok(0);
    }
    let names = store.list()?;
    let mut backups = backups(store, &names, Some(cluster))?;
    let old = backups.len().saturating_sub(kept);
    let kept = backups.split_off(old);
    let removed = backups;
    // Of each archive, what follows the oldest backup that is left.
    let mut needed: BTreeMap<u64, i64> = removed
        .iter()
        .filter_map(|backup| Some((backup.chain()?, i64::MAX)))
        .collect();
    for backup in &kept {
        if let Some(from) = backup.chain().and_then(|chain| needed.get_mut(&chain)) {
            *from = backup.revision.min(*from);
        }
    }
    for backup in &removed {
        // The metadata last: with it, this is done again after a crash.
        store.delete(&backup.name)?;
    }
    for name in &names {
        if let Named::Segment(segment) = Named::read(name)
            && needed
                .get(&segment.chain)
                .is_some_and(|from| segment.to <= *from)
        {
            store.delete(name)?;
        }
    }
    for backup in &removed {
        store.delete(&metadata_name(&backup.name))?;
    }
    Ok(removed.len())
}

/// Files that go unless they were given a name.
pub(crate) struct Part {
    pub(crate) path: PathBuf,
}

impl Part {
    pub(crate) const fn new(path: PathBuf) -> Self {
        Self { path }
    }

    /// Where it is unpacked to be looked at.
    pub(crate) fn unpacked(&self) -> PathBuf {
        let mut name = self.path.clone().into_os_string();
        name.push(".unpacked");
        name.into()
    }
}

impl Drop for Part {
    fn drop(&mut self) {
        for path in [self.path.clone(), self.unpacked()] {
            if let Err(error) = fs::remove_file(&path)
                && error.kind() != io::ErrorKind::NotFound
            {
                tracing::warn!(path = %path.display(), %error, "cannot remove what was begun");
            }
        }
    }
}

/// A file that nobody may want any more.
struct Stoppable<'a> {
    file: File,
    is_stopping: &'a AtomicBool,
}

impl Write for Stoppable<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.is_stopping.load(Ordering::Acquire) {
            // Not `Interrupted`, which is tried again.
            return Err(io::Error::other("the member stops"));
        }
        self.file.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

/// A file that was written.
pub(crate) struct Written {
    pub(crate) bytes: u64,
    pub(crate) sha256: String,
}

pub(crate) fn create(path: &Path) -> Result<File, BackupError> {
    OpenOptions::new()
        .create(true)
        .truncate(true)
        .read(true)
        .write(true)
        .mode(FILE_MODE)
        .open(path)
        .map_err(BackupError::io("create", path))
}

/// Writes a database and its checksum; durable on return.
pub(crate) fn write(
    image: &Image,
    path: &Path,
    form: Compression,
    is_stopping: &AtomicBool,
) -> Result<Written, BackupError> {
    let failed = || BackupError::io("write", path);
    let file = Stoppable {
        file: create(path)?,
        is_stopping,
    };
    let file = BufWriter::with_capacity(WRITE_BYTES, file);
    let packer = Packer::new(Sha256Sink::new(file), form).map_err(failed())?;
    let mut database = Sha256Sink::new(BufWriter::with_capacity(WRITE_BYTES, packer));
    image.write(&mut database)?;
    let (mut packer, digest) = database.finish();
    packer.write_all(&digest).map_err(failed())?;
    let packer = packer
        .into_inner()
        .map_err(io::IntoInnerError::into_error)
        .map_err(failed())?;
    let (file, sha256) = packer.finish().map_err(failed())?.finish();
    let file = file
        .into_inner()
        .map_err(io::IntoInnerError::into_error)
        .map_err(failed())?;
    file.file.sync_all().map_err(failed())?;
    let bytes = file.file.metadata().map_err(failed())?.len();
    Ok(Written {
        bytes,
        sha256: hex(&sha256),
    })
}

/// Reads a file back as whoever restores it does: unpacked, its checksum, every page, every version.
pub(crate) fn check(path: &Path, unpacked: &Path, form: Compression) -> Result<(), BackupError> {
    let file = match form {
        Compression::None => open(path)?,
        Compression::Gzip | Compression::Zstd => {
            unpack_to(path, unpacked)?;
            open(unpacked)?
        }
    };
    let damaged = |source| damaged(path, source);
    file.contents().map_err(damaged)?;
    file.versions(Within::ALL, |_version, _so_far| Ok(()))
        .map_err(damaged)?;
    Ok(())
}

/// Unpacks a file.
pub(crate) fn unpack_to(path: &Path, unpacked: &Path) -> Result<(), BackupError> {
    let packed = File::open(path).map_err(BackupError::io("read", path))?;
    let mut out = BufWriter::with_capacity(WRITE_BYTES, create(unpacked)?);
    unpack(packed, &mut out)
        .and_then(|_bytes| out.flush())
        .map_err(BackupError::io("unpack", path))
}

fn open(path: &Path) -> Result<EtcdFile, BackupError> {
    EtcdFile::open(path, HashCheck::Required).map_err(|source| damaged(path, source))
}

fn damaged(path: &Path, source: etcdfile::FileError) -> BackupError {
    BackupError::Damaged {
        name: path.display().to_string(),
        source,
    }
}

/// Reads a file at its place, and compares.
pub(crate) fn check_digest(store: &Store, name: &str, expected: &str) -> Result<(), BackupError> {
    let mut sink = Sha256Sink::new(io::sink());
    store.get(name, &mut sink)?;
    let (_sink, found) = sink.finish();
    let found = hex(&found);
    if found != expected {
        return Err(BackupError::Digest {
            name: name.to_owned(),
            expected: expected.to_owned(),
            found,
        });
    }
    Ok(())
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
