//! TLS files that are followed: certificates, keys, authorities and revocation lists.
//!
//! Whoever renews a certificate writes the files and tells nobody. etcd therefore reads certificate,
//! key and revocation list at every handshake (`client/pkg/transport/listener.go`); this asks the
//! system at every handshake whether they are still the same files, which is cheaper, and reads
//! them when they are not. Nothing is polled: without handshakes there is nothing to check, and
//! whoever asks for the certificates' status makes the same look.
//!
//! Differs from etcd: the authorities follow their file too (etcd-io/etcd#11555). And a file that
//! cannot be used, because it is half-written, or because only the certificate or only its key has
//! been replaced yet, changes nothing: what was in use stays in use, with one warning.
//!
//! ```text
//!  stat of each file ── same as last time, and not written just then ──> what is in use
//!        │ else
//!  read them ── contents as last time ──> what is in use
//!        │ else
//!  parse ── no good ──> warning, what is in use
//!        │ good
//!  in use from now on, for the next handshake; those that are done are not touched
//! ```
//!
//! No connection resumes the session of another one (`tls::TlsServer`): a client that the new
//! files refuse has no way back in.
//!
//! What this is not: what the files mean (`tls::files`).

use std::fmt;
use std::fs;
use std::hash::{DefaultHasher, Hasher};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use parking_lot::Mutex;
use rustls_pki_types::UnixTime;

use crate::tls::{CertificateStatus, WallTime};
use crate::{TlsError, words};

/// How long before its end a certificate is complained about.
const SOON: Duration = Duration::from_secs(30 * 24 * 60 * 60);

/// A file that was written so shortly before it was looked at may be written once more without a
/// change in its time: clocks of file systems are coarse.
const SETTLED_AFTER: Duration = Duration::from_secs(2);

/// A file and the flag that names it.
#[derive(Clone, Debug)]
pub(super) struct NamedFile {
    pub(super) flag: &'static str,
    pub(super) path: PathBuf,
}

impl NamedFile {
    pub(super) fn new(flag: &'static str, path: &Path) -> Self {
        Self {
            flag,
            path: path.to_owned(),
        }
    }

    /// The file does not hold what it should.
    pub(super) fn bad(&self, reason: impl Into<String>) -> TlsError {
        TlsError::Content {
            flag: self.flag,
            path: self.path.clone(),
            reason: reason.into(),
        }
    }

    fn read(&self) -> Result<Vec<u8>, TlsError> {
        fs::read(&self.path).map_err(|source| TlsError::Read {
            flag: self.flag,
            path: self.path.clone(),
            source,
        })
    }
}

/// What can be made of some files.
pub(super) trait Source: fmt::Debug {
    type Value;

    /// The files, always the same ones. The first is the one whose end counts.
    fn files(&self) -> Vec<&NamedFile>;

    /// What the contents of the files mean, in their order.
    fn parse(&self, contents: &[Vec<u8>]) -> Result<Self::Value, TlsError>;

    /// When the first file should have been replaced.
    fn ends(&self, value: &Self::Value) -> Option<SystemTime>;

    /// What the first file is used as.
    fn usage(&self) -> Usage;
}

/// What a file is used as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Usage {
    Cert,
    Ca,
    Crl,
}

impl Usage {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Cert => "cert",
            Self::Ca => "ca",
            Self::Crl => "crl",
        }
    }
}

/// Some files and what they mean, always the newest that could be used.
pub(super) struct Followed<S: Source> {
    source: S,
    clock: Arc<WallTime>,
    state: Mutex<State<S::Value>>,
}

struct State<V> {
    current: Arc<V>,
    /// The contents that `current` was made of.
    in_use: Vec<u64>,
    /// The files when they were last looked into, whether or not they could be used.
    seen: Vec<Seen>,
    warned: Warned,
}

/// How far the end of this version of the file has been complained about.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Warned {
    Nothing,
    EndsSoon,
    Ended,
}

/// A file as it was last seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Seen {
    stamp: Option<Stamp>,
    /// The file may have been written again since, without a change in its stamp.
    settled: bool,
    /// Of its contents, or of the error that reading it gave.
    digest: u64,
}

/// What tells one version of a file from the next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Stamp {
    inode: u64,
    length: u64,
    changed: (i64, i64),
}

impl<S: Source> Followed<S> {
    /// Reads the files for the first time.
    pub(super) fn load(source: S, clock: Arc<WallTime>) -> Result<Self, TlsError> {
        // Before reading: a change in between is then seen as one.
        let stamps = stamps(&source);
        let contents = source
            .files()
            .into_iter()
            .map(NamedFile::read)
            .collect::<Result<Vec<_>, _>>()?;
        let current = source.parse(&contents)?;
        let in_use: Vec<u64> = contents.iter().map(|bytes| digest(bytes)).collect();
        let seen = seen(&stamps, &in_use, clock.0.wall());
        let followed = Self {
            source,
            clock,
            state: Mutex::new(State {
                current: Arc::new(current),
                in_use,
                seen,
                warned: Warned::Nothing,
            }),
        };
        followed.current();
        Ok(followed)
    }

    /// What the files mean now. Blocks on the disk.
    pub(super) fn current(&self) -> Arc<S::Value> {
        let mut state = self.state.lock();
        let stamps = stamps(&self.source);
        let unchanged = state
            .seen
            .iter()
            .zip(&stamps)
            .all(|(seen, stamp)| seen.settled && seen.stamp == *stamp);
        if !unchanged {
            self.look_into(&mut state, &stamps);
        }
        self.warn_of_end(&mut state);
        Arc::clone(&state.current)
    }

    /// The status of the first file, if it has an end.
    pub(super) fn status(&self) -> Option<CertificateStatus> {
        let current = self.current();
        Some(CertificateStatus {
            file: self.source.files().first()?.path.clone(),
            usage: self.source.usage().as_str(),
            not_after: self.source.ends(&current)?,
        })
    }

    fn look_into(&self, state: &mut State<S::Value>, stamps: &[Option<Stamp>]) {
        let read: Vec<_> = self
            .source
            .files()
            .into_iter()
            .map(NamedFile::read)
            .collect();
        let digests: Vec<u64> = read
            .iter()
            .map(|file| match file {
                Ok(bytes) => digest(bytes),
                Err(error) => digest(format!("{error:?}").as_bytes()),
            })
            .collect();
        let known = state
            .seen
            .iter()
            .map(|seen| seen.digest)
            .eq(digests.iter().copied());
        state.seen = seen(stamps, &digests, self.clock.0.wall());
        if known || digests == state.in_use {
            return;
        }
        let parsed = read
            .into_iter()
            .collect::<Result<Vec<_>, _>>()
            .and_then(|contents| self.source.parse(&contents));
        match parsed {
            Ok(value) => {
                self.log_reload(&state.in_use, &digests);
                state.current = Arc::new(value);
                state.in_use = digests;
                state.warned = Warned::Nothing;
            }
            Err(error) => tracing::warn!(
                error = with_cause(&error),
                "cannot use a TLS file that changed, keeping what is in use",
            ),
        }
    }

    fn log_reload(&self, before: &[u64], after: &[u64]) {
        let digests = before.iter().zip(after);
        for (file, (before, after)) in self.source.files().into_iter().zip(digests) {
            if before != after {
                tracing::info!(
                    flag = file.flag,
                    file = %file.path.display(),
                    "reloaded a TLS file that changed",
                );
            }
        }
    }

    fn warn_of_end(&self, state: &mut State<S::Value>) {
        let Some(end) = self.source.ends(&state.current) else {
            return;
        };
        let warn = match end.duration_since(self.clock.0.wall()) {
            Err(_it_is_over) => Warned::Ended,
            // A list of revoked certificates never lives long; it is only missed when it is late.
            Ok(left) if left < SOON && self.source.usage() != Usage::Crl => Warned::EndsSoon,
            Ok(_time_left) => return,
        };
        if state.warned >= warn {
            return;
        }
        state.warned = warn;
        let Some(file) = self.source.files().into_iter().next() else {
            return;
        };
        let since_epoch = end.duration_since(UNIX_EPOCH).unwrap_or_default();
        let not_after = words::rfc3339(UnixTime::since_unix_epoch(since_epoch));
        let (flag, file) = (file.flag, file.path.display());
        if warn == Warned::Ended {
            tracing::warn!(flag, %file, "not-after" = not_after, "a TLS file in use has expired");
        } else {
            tracing::warn!(flag, %file, "not-after" = not_after, "a TLS file in use expires soon");
        }
    }
}

impl<S: Source> fmt::Debug for Followed<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Followed").field(&self.source).finish()
    }
}

fn stamps<S: Source>(source: &S) -> Vec<Option<Stamp>> {
    let files = source.files();
    files.iter().map(|file| stamp(&file.path)).collect()
}

/// `None` when there is no such file.
fn stamp(path: &Path) -> Option<Stamp> {
    let metadata = fs::metadata(path).ok()?;
    Some(Stamp {
        inode: metadata.ino(),
        length: metadata.len(),
        changed: (metadata.ctime(), metadata.ctime_nsec()),
    })
}

fn seen(stamps: &[Option<Stamp>], digests: &[u64], now: SystemTime) -> Vec<Seen> {
    let settled = |stamp: &Option<Stamp>| {
        stamp.is_none_or(|stamp| {
            let changed = Duration::from_secs(u64::try_from(stamp.changed.0).unwrap_or(0));
            now.duration_since(UNIX_EPOCH + changed)
                .is_ok_and(|age| age > SETTLED_AFTER)
        })
    };
    stamps
        .iter()
        .zip(digests)
        .map(|(stamp, digest)| Seen {
            stamp: *stamp,
            settled: settled(stamp),
            digest: *digest,
        })
        .collect()
}

/// Tells contents apart; nobody who could forge a collision may write these files.
fn digest(contents: &[u8]) -> u64 {
    let mut hasher = DefaultHasher::new();
    hasher.write(contents);
    hasher.finish()
}

fn with_cause(error: &TlsError) -> String {
    match std::error::Error::source(error) {
        Some(cause) => format!("{error}: {cause}"),
        None => error.to_string(),
    }
}
