//! Ids of proposals: a member never gives one twice, and each is higher than those before, over
//! restarts and however its clock is set.
//!
//! ```text
//! | member, its low 16 bits | milliseconds since 1970, low 40 bits | counter, 8 bits |
//! ```
//! As etcd makes its request ids (`pkg/idutil`): the time is that of the start, and the counter runs
//! over into it. Two things hang on their order: whoever waits for a proposal knows it by its id when
//! it is applied, and a leader takes no id that is lower than what it has forgotten
//! ([`forwarded`](crate::peer::forwarded)). A clock may be set back, so it is not trusted: ids are
//! reserved in the log's store, durably and many at a time, before the first of them is given, and a
//! member begins above what it has ever reserved. Also who counts up only, and is seen by others,
//! counts with these: streams.
//!
//! What this is not: unique in the cluster beyond doubt. Two members whose ids end in the same 16 bits
//! are told apart by when they were started, as in etcd.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use types::MemberId;

use crate::log_store::LogHandle;

const SUFFIX_BITS: u32 = 48;
const COUNTER_BITS: u32 = 8;

/// Ids reserved at a time: a minute's worth of the clock, so that a restart hardly runs ahead of it.
const RESERVED: u64 = 1 << 24;

/// How often it is looked whether half of them are given.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);

#[derive(Debug)]
pub(crate) struct ProposalIds {
    prefix: u64,
    /// The last one given, without the prefix, and not cut to its bits.
    last: AtomicU64,
    /// The last one that may be given.
    reserved: watch::Receiver<u64>,
}

/// Reserves more before they run out.
pub(crate) struct Reserving {
    pub(crate) ids: Arc<ProposalIds>,
    pub(crate) log: Arc<LogHandle>,
    pub(crate) reserved: watch::Sender<u64>,
}

/// Reserves the first ids of a member that starts.
pub(crate) async fn reserve(
    member: MemberId,
    started_at: SystemTime,
    log: &LogHandle,
) -> io::Result<(ProposalIds, watch::Sender<u64>)> {
    let given = from_clock(started_at).max(log.reserved_ids());
    let upto = given + RESERVED;
    log.reserve_ids(upto).await?;
    let (reserved, receiver) = watch::channel(upto);
    Ok((ProposalIds::new(member, given, receiver), reserved))
}

fn from_clock(started_at: SystemTime) -> u64 {
    let since = started_at.duration_since(UNIX_EPOCH).unwrap_or_default();
    let millis = since.as_secs() * 1000 + u64::from(since.subsec_millis());
    millis << COUNTER_BITS
}

impl ProposalIds {
    fn new(member: MemberId, given: u64, reserved: watch::Receiver<u64>) -> Self {
        Self {
            prefix: member.0 << SUFFIX_BITS,
            last: AtomicU64::new(given),
            reserved,
        }
    }

    /// The next one. Waits while none is reserved; `None`: the member stops.
    pub(crate) async fn next(&self) -> Option<u64> {
        let next = self.last.fetch_add(1, Ordering::Relaxed) + 1;
        if *self.reserved.borrow() < next {
            let mut reserved = self.reserved.clone();
            reserved.wait_for(|upto| *upto >= next).await.ok()?;
        }
        Some(self.prefix | (next & ((1 << SUFFIX_BITS) - 1)))
    }

    /// Whether a proposal may be this member's.
    pub(crate) const fn may_be_ours(&self, id: u64) -> bool {
        id >> SUFFIX_BITS == self.prefix >> SUFFIX_BITS
    }

    /// All ids are reserved.
    #[cfg(test)]
    pub(crate) fn unbounded(member: MemberId, started_at: SystemTime) -> Self {
        let (_reserved, receiver) = watch::channel(u64::MAX);
        Self::new(member, from_clock(started_at), receiver)
    }
}

impl Reserving {
    /// Runs until the member stops, or its log cannot be written.
    pub(crate) async fn run(self, stop: CancellationToken) {
        loop {
            tokio::select! {
                biased;
                () = stop.cancelled() => return,
                () = tokio::time::sleep(LOOK_INTERVAL) => {}
            }
            let given = self.ids.last.load(Ordering::Relaxed);
            if given + RESERVED / 2 < *self.reserved.borrow() {
                continue;
            }
            let upto = given + RESERVED;
            if self.log.reserve_ids(upto).await.is_err() {
                // The log has said why.
                return;
            }
            self.reserved.send_replace(upto);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn ids_differ_between_members_and_after_a_restart() {
        let start = UNIX_EPOCH + Duration::from_millis(1_763_690_000_123);
        let ids = ProposalIds::unbounded(MemberId(0xabcd_0001), start);
        let (first, second) = (ids.next().await.unwrap(), ids.next().await.unwrap());
        assert_eq!(second, first + 1);
        assert!(ids.may_be_ours(first));
        let other = ProposalIds::unbounded(MemberId(0xabcd_0002), start);
        assert!(!ids.may_be_ours(other.next().await.unwrap()));
        let later = start + Duration::from_millis(2);
        let later = ProposalIds::unbounded(MemberId(0xabcd_0001), later);
        assert!(later.next().await.unwrap() > second);
    }

    #[tokio::test]
    async fn an_id_that_is_not_reserved_is_not_given() {
        let (reserved, receiver) = watch::channel(12);
        let ids = Arc::new(ProposalIds::new(MemberId(1), 10, receiver));
        assert_eq!(ids.next().await, Some(1 << SUFFIX_BITS | 11));
        assert_eq!(ids.next().await, Some(1 << SUFFIX_BITS | 12));
        let waits = Arc::clone(&ids);
        let mut waits = tokio::spawn(async move { waits.next().await });
        let early = tokio::time::timeout(Duration::from_millis(20), &mut waits).await;
        assert!(early.is_err());
        reserved.send_replace(13);
        assert_eq!(waits.await.unwrap(), Some(1 << SUFFIX_BITS | 13));
        drop(reserved);
        assert_eq!(ids.next().await, None);
    }
}
