//! Sending a state to a member that is too far behind for the log, in chunks that are checked one by
//! one (`peerpb.Raft/Snapshot`).
//!
//! ```text
//!  leader                                     member that is behind
//!    pin, offer ──────────────────────────────>  a store beside its own: begun, or taken up again
//!               <──────────────── next: chunk 7
//!    chunk 7, 8, 9 (a few ahead) ─────────────>  checked, written
//!               <──────────────── next: chunk 8 …
//!    last chunk ──────────────────────────────>  made durable, loaded, installed through openraft
//!               <──────────────────────── vote
//! ```
//!
//! [`send`]: openraft asks for the state that was durable last; what is sent is the state of now, held
//! still ([`apply::Pinned`]) while its chunks are read. When the connection breaks it is held for a
//! while, and the same transfer goes on with the chunk that the receiver says. A transfer that cannot
//! go on begins anew. [`receive`]: one transfer at a time, whoever sends; a later offer ends the one
//! before.
//!
//! Meanwhile the log is kept from the state's entry on, within bounds ([`Transfers`]): a member that has
//! got a state goes on with the log.

pub(crate) mod receive;
pub(crate) mod send;
#[cfg(test)]
mod tests;
mod transfers;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use api::peerpb;
use backend::Bucket;
use parking_lot::Mutex;
use types::MemberId;

pub(crate) use transfers::Transfers;

/// How long a side waits for a sign of life of the other before it gives a transfer up.
const STALL_TIMEOUT: Duration = Duration::from_secs(30);

/// How often the receiver gives one while it works.
const SIGN_OF_LIFE_INTERVAL: Duration = Duration::from_secs(1);

/// How long a transfer that broke off can go on: so long the sender holds its state, which keeps
/// compactions from the disk, and the receiver what has come.
const KEPT_FOR: Duration = Duration::from_secs(60);

/// How often a transfer says in the log how far it is.
const REPORT_INTERVAL: Duration = Duration::from_secs(5);

/// The bounds, in seconds, that [`Durations`] counts by: etcd's (`rafthttp/metrics.go`).
pub const DURATION_BOUNDS_S: [f64; 10] = [0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 6.4, 12.8, 25.6, 51.2];

/// How long transfers took.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Durations {
    /// How many took at most the bound of the same place in [`DURATION_BOUNDS_S`].
    pub buckets: [u64; DURATION_BOUNDS_S.len()],
    /// All of them.
    pub count: u64,
    /// The sum, in seconds.
    pub sum_s: f64,
}

impl Durations {
    fn note(&mut self, took: Duration) {
        let took = took.as_secs_f64();
        for (bucket, bound) in self.buckets.iter_mut().zip(DURATION_BOUNDS_S) {
            *bucket += u64::from(took <= bound);
        }
        self.count += 1;
        self.sum_s += took;
    }
}

/// Transfers to or from one member (`etcd_network_snapshot_{send,receive}_*`).
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct TransferMetrics {
    /// Those that go on now.
    pub inflights: u64,
    /// Those that were installed.
    pub success: u64,
    /// Those that broke off; they may have gone on later.
    pub failures: u64,
    /// How long those that were installed took, since they began or went on.
    pub durations: Durations,
    /// Bytes of records, of all together.
    pub bytes: u64,
}

/// What was sent to and received from one member.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct SnapshotMetrics {
    /// Sent to it.
    pub sent: TransferMetrics,
    /// Received from it.
    pub received: TransferMetrics,
}

/// Counts transfers.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    by_peer: Mutex<BTreeMap<MemberId, SnapshotMetrics>>,
    installing: AtomicU64,
}

/// Counts an installation while it lives.
#[derive(Debug)]
struct Installing(Arc<Counters>);

impl Installing {
    fn begin(counters: &Arc<Counters>) -> Self {
        counters.installing.fetch_add(1, Ordering::Relaxed);
        Self(Arc::clone(counters))
    }
}

impl Drop for Installing {
    fn drop(&mut self) {
        self.0.installing.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Which way a transfer goes.
#[derive(Clone, Copy, Debug)]
enum Way {
    Out,
    In,
}

impl Counters {
    /// Everything that was counted.
    pub(crate) fn all(&self) -> Vec<(MemberId, SnapshotMetrics)> {
        let by_peer = self.by_peer.lock();
        by_peer
            .iter()
            .map(|(id, counted)| (*id, *counted))
            .collect()
    }

    /// States that are being installed.
    pub(crate) fn installing(&self) -> u64 {
        self.installing.load(Ordering::Relaxed)
    }

    /// Forgets those that are no members: ids that were only claimed do not add up.
    fn forget_others(&self, is_member: impl Fn(MemberId) -> bool) {
        let mut by_peer = self.by_peer.lock();
        by_peer.retain(|id, counted| {
            let goes_on = counted.sent.inflights + counted.received.inflights > 0;
            goes_on || is_member(*id)
        });
    }

    fn count(&self, peer: MemberId, way: Way, change: impl FnOnce(&mut TransferMetrics)) {
        let mut by_peer = self.by_peer.lock();
        let counted = by_peer.entry(peer).or_default();
        change(match way {
            Way::Out => &mut counted.sent,
            Way::In => &mut counted.received,
        });
    }
}

/// One transfer in the metrics and in the log; dropped unfinished it has failed.
#[derive(Debug)]
struct Report {
    counters: Arc<Counters>,
    peer: MemberId,
    way: Way,
    began: tokio::time::Instant,
    reported: tokio::time::Instant,
    /// Bytes of this transfer, as far as it has come, and about how many it has.
    bytes: u64,
    bytes_in_all: u64,
    is_done: bool,
}

impl Report {
    fn begin(counters: &Arc<Counters>, peer: MemberId, way: Way, bytes_in_all: u64) -> Self {
        counters.count(peer, way, |counted| counted.inflights += 1);
        let now = tokio::time::Instant::now();
        Self {
            counters: Arc::clone(counters),
            peer,
            way,
            began: now,
            reported: now,
            bytes: 0,
            bytes_in_all,
            is_done: false,
        }
    }

    const fn verb(&self) -> &'static str {
        match self.way {
            Way::Out => "sending",
            Way::In => "receiving",
        }
    }

    fn chunk(&mut self, bytes: usize) {
        self.bytes += bytes as u64;
        self.counters
            .count(self.peer, self.way, |counted| counted.bytes += bytes as u64);
        if self.reported.elapsed() >= REPORT_INTERVAL {
            self.reported = tokio::time::Instant::now();
            tracing::info!(
                peer = %self.peer,
                bytes = self.bytes,
                of_about = self.bytes_in_all,
                "{} a database snapshot",
                self.verb()
            );
        }
    }

    fn done(&mut self) {
        self.is_done = true;
        let took = self.began.elapsed();
        self.counters.count(self.peer, self.way, |counted| {
            counted.success += 1;
            counted.durations.note(took);
        });
        tracing::info!(
            peer = %self.peer,
            bytes = self.bytes,
            took_ms = took.as_millis(),
            "finished {} a database snapshot",
            self.verb()
        );
    }

    /// There was nothing to do.
    fn not_needed(&mut self) {
        self.is_done = true;
    }
}

impl Drop for Report {
    fn drop(&mut self) {
        self.counters.count(self.peer, self.way, |counted| {
            counted.inflights -= 1;
            counted.failures += u64::from(!self.is_done);
        });
    }
}

/// What a chunk is checked by.
fn checksum(records: &[peerpb::snapshot_chunk::Record]) -> u32 {
    let part = |crc, bytes: &[u8]| {
        let len = (bytes.len() as u64).to_be_bytes();
        crc32c::crc32c_append(crc32c::crc32c_append(crc, &len), bytes)
    };
    records.iter().fold(0, |crc, record| {
        let crc = part(crc, &record.bucket.to_be_bytes());
        part(part(crc, &record.key), &record.value)
    })
}

/// Which bucket has this number.
fn bucket(number: u32) -> Option<Bucket> {
    let of_the_state = |bucket: &Bucket| !matches!(bucket, Bucket::RaftLog | Bucket::RaftMeta);
    let mut all = Bucket::ALL.into_iter().filter(of_the_state);
    all.find(|bucket| *bucket as u32 == number)
}
