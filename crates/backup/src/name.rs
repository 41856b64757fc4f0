//! What files are called: backups as k3s calls them, segments by what is in them, so that a list of names is
//! enough to find a way through the archive.

use std::fmt;
use std::time::{Duration, SystemTime};

use crate::compression::Compression;

/// What the names of segments begin with.
const SEGMENT: &str = "kvorum-archive";
/// What the name of a backup's metadata ends with.
const METADATA: &str = ".json";

/// What a name stands for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Named {
    /// A backup's metadata; the backup has the rest of the name.
    Metadata(String),
    /// A segment of the archive.
    Segment(SegmentName),
    /// Something else, or a backup: whose it is, its metadata says.
    Other,
}

impl Named {
    /// What this name stands for.
    #[must_use]
    pub fn read(name: &str) -> Self {
        if let Some(backup) = name.strip_suffix(METADATA) {
            return Self::Metadata(backup.to_owned());
        }
        SegmentName::read(name).map_or(Self::Other, Self::Segment)
    }
}

/// The name of a backup: a prefix, who took it and when.
#[must_use]
pub fn backup_name(prefix: &str, member: &str, at: SystemTime, form: Compression) -> String {
    let seconds = since_epoch(at).as_secs();
    // A member may be called anything; a slash would make a directory.
    let member: String = member
        .chars()
        .map(|letter| match letter {
            'a'..='z' | 'A'..='Z' | '0'..='9' | '.' | '_' | '-' => letter,
            _ => '_',
        })
        .collect();
    format!("{prefix}-{member}-{seconds}{}", form.suffix())
}

/// The name of a backup's metadata.
pub(crate) fn metadata_name(backup: &str) -> String {
    format!("{backup}{METADATA}")
}

pub(crate) fn since_epoch(at: SystemTime) -> Duration {
    // A clock before 1970 is no clock.
    at.duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or_default()
}

/// Milliseconds since 1970.
pub(crate) fn unix_ms(at: SystemTime) -> i64 {
    i64::try_from(since_epoch(at).as_millis()).unwrap_or(i64::MAX)
}

/// The name of a segment. Sorts by where it begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct SegmentName {
    /// The archive that it belongs to: one unbroken history.
    pub chain: u64,
    /// It holds what came after this revision.
    pub from: i64,
    /// The digest of that revision.
    pub from_tip: u32,
    /// Its last revision.
    pub to: i64,
    /// The digest of that one.
    pub to_tip: u32,
    /// When it ended.
    pub unix_ms: i64,
}

impl fmt::Display for SegmentName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{SEGMENT}-{:016x}-{:016x}.{:08x}-{:016x}.{:08x}-{}{}",
            self.chain,
            self.from,
            self.from_tip,
            self.to,
            self.to_tip,
            self.unix_ms,
            Compression::Zstd.suffix()
        )
    }
}

impl SegmentName {
    fn read(name: &str) -> Option<Self> {
        let rest = name.strip_prefix(SEGMENT)?.strip_prefix('-')?;
        let rest = rest.strip_suffix(Compression::Zstd.suffix())?;
        let [chain, from, to, unix_ms] = rest.split('-').collect::<Vec<_>>()[..] else {
            return None;
        };
        let end = |text: &str| {
            let (revision, tip) = text.split_once('.')?;
            let revision = i64::from_str_radix(revision, 16).ok()?;
            Some((revision, u32::from_str_radix(tip, 16).ok()?))
        };
        let ((from, from_tip), (to, to_tip)) = (end(from)?, end(to)?);
        let read = Self {
            chain: u64::from_str_radix(chain, 16).ok()?,
            from,
            from_tip,
            to,
            to_tip,
            unix_ms: unix_ms.parse().ok()?,
        };
        // Only names that we write ourselves.
        (from < to && read.to_string() == name).then_some(read)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_backup_is_called_as_k3s_calls_it() {
        let at = SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000);
        let name = backup_name("etcd-snapshot", "m1", at, Compression::None);
        assert_eq!(name, "etcd-snapshot-m1-1700000000");
        let name = backup_name("etcd-snapshot", "a/../b c", at, Compression::Gzip);
        assert_eq!(name, "etcd-snapshot-a_.._b_c-1700000000.gz");
        let metadata = Named::Metadata(name.clone());
        assert_eq!(Named::read(&metadata_name(&name)), metadata);
        assert_eq!(Named::read(&name), Named::Other);
    }

    #[test]
    fn a_segments_name_is_read_again() {
        let segment = SegmentName {
            chain: 0x18b_cfe5_6800,
            from: 17,
            from_tip: 0xdead,
            to: 300,
            to_tip: 7,
            unix_ms: 1_700_000_000_123,
        };
        let name = segment.to_string();
        assert_eq!(Named::read(&name), Named::Segment(segment));
        for other in [&name[1..], &name[..name.len() - 1], "kvorum-archive-.zst"] {
            assert_eq!(Named::read(other), Named::Other, "{other}");
        }
        assert_eq!(Named::read(&name.replace("-1700", "-01700")), Named::Other);
    }
}
