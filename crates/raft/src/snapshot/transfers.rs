//! The states that are held for peers, and what the log has to keep for them.

use std::collections::BTreeMap;
use std::time::Duration;

use apply::{Pinned, Place};
use parking_lot::Mutex;
use tokio::time::Instant;
use types::MemberId;

use super::KEPT_FOR;
use crate::type_config::{LogId, SnapshotMeta};

/// How long the log is kept for a member that has got a state: openraft holds on to what it sends, but
/// has to have begun.
const HANDED_OVER_FOR: Duration = Duration::from_secs(5);

/// A state on its way to one peer.
#[derive(Debug)]
pub(super) struct Transfer {
    /// Names it to the receiver.
    pub(super) id: u64,
    pub(super) pinned: Pinned,
    pub(super) meta: SnapshotMeta,
    /// Where each chunk begins, as far as it is known, and how many records are before it.
    pub(super) starts: Vec<Start>,
    /// The number of the last chunk, once it was read.
    pub(super) last: Option<u64>,
}

/// Where a chunk begins.
#[derive(Clone, Debug)]
pub(super) struct Start {
    pub(super) place: Place,
    pub(super) records: u64,
}

impl Transfer {
    /// A transfer of a state that was just pinned.
    pub(super) fn new(id: u64, pinned: Pinned, meta: SnapshotMeta) -> Self {
        let start = Start {
            place: Place::default(),
            records: 0,
        };
        Self {
            id,
            pinned,
            meta,
            starts: vec![start],
            last: None,
        }
    }

    /// Whether a leader of this term, whose peer needs this entry, can go on with it.
    fn serves(&self, term: u64, needed: Option<LogId>) -> bool {
        self.meta.last_log_id >= needed
            && self
                .meta
                .last_log_id
                .is_none_or(|id| id.leader_id.term <= term)
    }
}

/// What is kept for one peer.
#[derive(Debug)]
struct Kept {
    /// The state that is sent, or was.
    meta: SnapshotMeta,
    /// The log is needed after this entry.
    needed: Option<u64>,
    /// Not here while it goes on.
    transfer: Option<Transfer>,
    /// `None` while it goes on.
    until: Option<Instant>,
    /// The log has been cut behind it: nobody can go on with it.
    is_stale: bool,
}

/// The states that are held for peers.
#[derive(Debug, Default)]
pub(crate) struct Transfers {
    kept: Mutex<BTreeMap<MemberId, Kept>>,
}

impl Transfers {
    /// What broke off and can go on.
    pub(super) fn take(
        &self,
        peer: MemberId,
        term: u64,
        needed: Option<LogId>,
    ) -> Option<Transfer> {
        let mut kept = self.kept.lock();
        let entry = kept.get_mut(&peer)?;
        let transfer = entry.transfer.take()?;
        if entry.is_stale || !transfer.serves(term, needed) {
            kept.remove(&peer);
            return None;
        }
        entry.needed = needed.map(|id| id.index);
        entry.until = None;
        Some(transfer)
    }

    /// Notes that a state is on its way to a peer that openraft will take to have `needed` then.
    pub(super) fn begin(&self, peer: MemberId, meta: &SnapshotMeta, needed: Option<LogId>) {
        let entry = Kept {
            meta: meta.clone(),
            needed: needed.map(|id| id.index),
            transfer: None,
            until: None,
            is_stale: false,
        };
        self.kept.lock().insert(peer, entry);
    }

    /// It broke off.
    pub(super) fn put_back(&self, peer: MemberId, transfer: Transfer) {
        if let Some(entry) = self.kept.lock().get_mut(&peer)
            && !entry.is_stale
        {
            entry.transfer = Some(transfer);
            entry.until = Some(Instant::now() + KEPT_FOR);
        }
    }

    /// It came to an end, or cannot go on.
    pub(super) fn end(&self, peer: MemberId, is_installed: bool) {
        let mut kept = self.kept.lock();
        match kept.get_mut(&peer) {
            Some(entry) if is_installed => {
                entry.transfer = None;
                entry.until = Some(Instant::now() + HANDED_OVER_FOR);
            }
            _ => drop(kept.remove(&peer)),
        }
    }

    /// The oldest state that can go on being sent, if it is older than `last`: a member that gets it
    /// needs the log from there, so nobody may be promised more.
    pub(crate) fn oldest(&self, last: &SnapshotMeta) -> Option<SnapshotMeta> {
        let kept = self.kept.lock();
        let going = kept
            .values()
            .filter(|entry| !entry.is_stale && entry.transfer.is_some());
        let oldest = going.min_by_key(|entry| entry.meta.last_log_id)?;
        (oldest.meta.last_log_id < last.last_log_id).then(|| oldest.meta.clone())
    }

    /// The entry after which the log is needed.
    pub(crate) fn needed(&self) -> Option<u64> {
        let kept = self.kept.lock();
        let live = kept.values().filter(|entry| !entry.is_stale);
        live.filter_map(|entry| entry.needed).min()
    }

    /// The log is cut up to `index`, whoever needs it.
    pub(crate) fn cut(&self, index: u64) {
        for entry in self.kept.lock().values_mut() {
            entry.is_stale |= entry.needed.is_none_or(|needed| needed < index);
        }
    }

    /// Lets go of what was kept for long enough.
    pub(crate) fn tidy(&self) {
        let now = Instant::now();
        self.kept
            .lock()
            .retain(|_, entry| entry.until.is_none_or(|until| now < until));
    }
}
