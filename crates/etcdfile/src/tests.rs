//! What leaves as an etcd's file comes back from it, and what is damaged is refused.

mod versions;

use std::io::Write;
use std::path::Path;
use std::sync::Arc;

use api::leasepb::Lease;
use apply::{
    Alarm, AlarmKind, Command, Import, LogPosition, Member, Persister, Record, Registers,
    StateMachine,
};
use backend::{Backend, Bucket};
use bytes::Bytes;
use mvcc::{EventKind, KvParts, StoredKv, VersionRecord};
use types::{LeaseId, MemberId, Revision, SystemClock, Version};

use crate::schema::ConfState;
use crate::{EtcdFile, FileError, HashCheck, Image, Sha256Sink, Status};

/// Files that are damaged.
const DAMAGED: usize = 200;

const AT: LogPosition = LogPosition {
    term: 3,
    leader: 0,
    index: 41,
};

fn put(main: i64, sub: i64, key: &[u8], value: &[u8]) -> VersionRecord {
    let revision = Revision::new(main, sub);
    let kv = StoredKv::new(&KvParts {
        key,
        value,
        mod_revision: revision,
        create_revision: main,
        version: 1,
        lease: Some(LeaseId(7)),
    });
    VersionRecord {
        revision,
        kind: EventKind::Put,
        stored: Bytes::copy_from_slice(kv.encoded()),
    }
}

fn versions() -> Vec<VersionRecord> {
    let mut versions: Vec<_> = (2..800)
        .map(|main| put(main, 0, format!("key{}", main % 90).as_bytes(), &[9; 100]))
        .collect();
    versions.push(VersionRecord {
        revision: Revision::new(800, 3),
        kind: EventKind::Delete,
        // Field 1, four bytes.
        stored: Bytes::from_static(b"\x0a\x04key1"),
    });
    versions.push(put(801, 0, b"large", &vec![1; 200_000]));
    versions
}

fn registers() -> Registers {
    let member = |id, is_learner| Member {
        id: MemberId(id),
        name: format!("m{id}"),
        peer_urls: vec![format!("http://m{id}:2380")],
        client_urls: Vec::new(),
        is_learner,
    };
    let lease = |id, remaining_ttl| Lease {
        id,
        ttl: 60,
        remaining_ttl,
    };
    let record = |bucket, key: &'static [u8], value: &'static [u8]| Record {
        bucket,
        key: Bytes::from_static(key),
        value: Bytes::from_static(value),
    };
    Registers {
        revision: Some(801),
        scheduled_compaction: Some(50),
        finished_compaction: Some(50),
        leases: vec![lease(7, 0), lease(8, 30)],
        auth: vec![
            record(Bucket::Auth, b"authEnabled", b"\0"),
            record(Bucket::Auth, b"authRevision", b"\0\0\0\0\0\0\0\x05"),
            // Field 1: the name.
            record(Bucket::AuthUsers, b"user", b"\x0a\x04user"),
            record(Bucket::AuthRoles, b"role", b"\x0a\x04role"),
        ],
        alarms: vec![Alarm {
            member: MemberId(2),
            kind: AlarmKind::NoSpace,
        }],
        members: vec![member(1, false), member(2, true)],
        removed: vec![MemberId(9)],
        cluster_version: None,
    }
}

fn state() -> (StateMachine, Persister) {
    let mut import = Import::begin(Backend::in_memory()).unwrap();
    for version in versions() {
        import.version(&version).unwrap();
    }
    let backend = import
        .finish(&registers(), AT, Bytes::from_static(b"raw"))
        .unwrap();
    let clock = Arc::new(SystemClock);
    let config = apply::Config {
        quota: apply::Quota::Unlimited,
        clock: clock.clone(),
        tokens: auth::Tokens::simple(clock),
        mvcc: mvcc::Config {
            event_log_bytes_max: 1 << 20,
        },
        scrub: apply::ScrubSteps::UNLIMITED,
        workers: apply::Workers::Threads,
    };
    let (machine, _views, persister) = apply::open(backend, &config).unwrap();
    (machine, persister)
}

/// A snapshot, checksum and all.
fn snapshot() -> Vec<u8> {
    let (mut machine, _persister) = state();
    let pinned = machine.pin().unwrap().unwrap();
    written(&Image::measure(pinned).unwrap())
}

fn written(image: &Image) -> Vec<u8> {
    let mut out = Sha256Sink::new(Vec::new());
    image.write(&mut out).unwrap();
    let (mut bytes, digest) = out.finish();
    assert_eq!(bytes.len() as u64, image.bytes());
    bytes.extend_from_slice(&digest);
    bytes
}

fn open(bytes: &[u8], hash: HashCheck) -> Result<EtcdFile, FileError> {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(bytes).unwrap();
    EtcdFile::open(file.path(), hash)
}

#[test]
fn a_database_is_of_the_clusters_version() {
    let told = |cluster: Option<Version>| {
        let (mut machine, _persister) = state();
        if let Some(version) = cluster {
            let at = LogPosition {
                index: AT.index + 1,
                ..AT
            };
            let set = Command::ClusterVersionSet { version }.by_member();
            machine.apply(at, &set).unwrap().unwrap();
        }
        let image = Image::measure(machine.pin().unwrap().unwrap()).unwrap();
        let told = image.storage_version();
        let contents = open(&written(&image), HashCheck::Required)
            .unwrap()
            .contents();
        let held = contents.unwrap().storage_version.unwrap_or_default();
        assert_eq!(told, held, "{cluster:?}");
        told
    };
    let v3 = |minor| Some(Version { major: 3, minor });
    assert_eq!(told(None), "3.6.0");
    assert_eq!(told(v3(0)), "3.6.0");
    assert_eq!(told(v3(7)), "3.6.0");
    assert_eq!(told(v3(5)), "", "databases of 3.5 do not say");
}

#[test]
fn a_state_comes_back_from_its_snapshot() {
    let file = open(&snapshot(), HashCheck::Required).unwrap();
    let contents = file.contents().unwrap();
    let expected = Registers {
        revision: None,
        ..registers()
    };
    assert_eq!(contents.registers, expected);
    assert_eq!((contents.consistent_index, contents.term), (42, 3));
    let state = ConfState {
        voters: vec![1],
        learners: vec![2],
        ..ConfState::default()
    };
    assert_eq!(contents.conf_state, Some(state));
    let mut import = Import::begin(Backend::in_memory()).unwrap();
    let mut seen = 0;
    let imported = file
        .import(&mut import, |versions| seen = versions)
        .unwrap();
    assert_eq!((imported.revision, imported.versions), (801, seen));
    let status = file.status().unwrap();
    assert_eq!((status.revision, status.total_key), (801, 90));
    assert_eq!(status.version, "3.6.0");
}

/// What a client of the file could not tell apart is damaged too.
#[test]
fn every_damaged_snapshot_is_refused() {
    let whole = snapshot();
    for round in 0..DAMAGED {
        let at = (whole.len() / DAMAGED * round) ^ 5;
        let mut bytes = whole.clone();
        match round % 4 {
            0 => bytes[at] ^= 1 << (round % 8),
            1 => bytes.truncate(at),
            2 => {
                let end = (at + 4096).min(bytes.len());
                bytes[at..end].fill(0x55);
            }
            _ => bytes.extend_from_slice(&whole[..at.max(1)]),
        }
        let refused = open(&bytes, HashCheck::Required);
        assert!(refused.is_err(), "round {round}");
    }
}

#[test]
fn without_its_checksum_a_file_is_taken_only_if_that_was_asked_for() {
    let whole = snapshot();
    let database = &whole[..whole.len() - 32];
    assert!(matches!(
        open(database, HashCheck::Required),
        Err(FileError::NoHash)
    ));
    let expected = open(&whole, HashCheck::Required).unwrap().status().unwrap();
    for hash in [HashCheck::IfThere, HashCheck::Skipped] {
        assert_eq!(open(database, hash).unwrap().status().unwrap(), expected);
    }
    let mut other = whole.clone();
    *other.last_mut().unwrap() ^= 1;
    assert!(matches!(
        open(&other, HashCheck::IfThere),
        Err(FileError::Hash { .. })
    ));
    assert_eq!(
        open(&other, HashCheck::Skipped).unwrap().status().unwrap(),
        expected
    );
}

/// Without a checksum only the form of a file can be checked; whatever it holds then, it is an error or
/// a state, and not a panic.
#[test]
fn a_damaged_database_is_a_state_or_an_error() {
    let whole = snapshot();
    let database = &whole[..whole.len() - 32];
    let read = |bytes: &[u8]| -> Result<Status, FileError> {
        let file = open(bytes, HashCheck::Skipped)?;
        file.contents()?;
        let mut import = Import::begin(Backend::in_memory())?;
        file.import(&mut import, |_| ())?;
        file.status()
    };
    let mut refused = 0;
    for round in 0..DAMAGED {
        let mut bytes = database.to_vec();
        let at = (bytes.len() / DAMAGED * round) ^ (round % 64);
        bytes[at] ^= 1 << (round % 8);
        refused += usize::from(read(&bytes).is_err());
    }
    assert!(refused > 10, "{refused}");
}

#[test]
fn what_is_no_database_of_etcd_is_named() {
    let plan = boltfile::Writer::measure().finish().unwrap();
    let mut bytes = Vec::new();
    boltfile::Writer::new(&mut bytes, plan)
        .unwrap()
        .finish()
        .unwrap();
    let file = open(&bytes, HashCheck::IfThere).unwrap();
    assert!(matches!(file.contents(), Err(FileError::NoBucket { .. })));
    assert!(matches!(
        EtcdFile::open(Path::new("/nonexistent"), HashCheck::IfThere),
        Err(FileError::Io(_))
    ));
}

#[test]
fn what_is_made_of_a_file_counts_only_when_all_of_it_is_whole() {
    let whole = snapshot();
    let beside = |bytes: &[u8], work: fn(&EtcdFile) -> Result<u64, FileError>| {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(bytes).unwrap();
        EtcdFile::open_beside(file.path(), HashCheck::Required, work)
    };
    let count = |file: &EtcdFile| {
        let counted = file.versions(crate::Within::ALL, |_version, _so_far| Ok(()));
        Ok(counted?.versions)
    };
    let counted = beside(&whole, count).unwrap().unwrap();
    assert_eq!(counted, versions().len() as u64);
    // Everywhere, also where nobody but the checksum looks.
    for at in (0..whole.len()).step_by(whole.len() / 40) {
        let mut damaged = whole.clone();
        damaged[at] ^= 0x20;
        let refused = beside(&damaged, |_file| Ok(0));
        assert!(matches!(refused, Err(FileError::Hash { .. })), "{at}");
        let refused = beside(&damaged, count);
        assert!(matches!(refused, Err(FileError::Hash { .. })), "{at}");
    }
}
