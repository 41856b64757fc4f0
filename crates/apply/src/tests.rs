//! What the crate promises, rule by rule, and the same under random logs.

mod access;
mod alarms;
mod defragment;
pub(crate) mod hand_clock;
mod members;
mod persistence;
mod random;
mod ranges;
mod snapshots;
mod txns;
mod users;
mod writes;

use std::sync::Arc;

use types::{KeyRange, LeaseId, MemberId, SystemClock, Version};

use crate::*;

pub(super) const MEMBER: MemberId = MemberId(7);

/// A state machine with its views, and the log's next index.
pub(super) struct Bench {
    pub(super) machine: StateMachine,
    pub(super) views: Views,
    pub(super) persister: Persister,
    pub(super) next: u64,
}

pub(super) fn config(quota: Quota) -> Config {
    let mvcc = mvcc::Config {
        event_log_bytes_max: 1 << 20,
    };
    Config {
        quota,
        clock: Arc::new(SystemClock),
        tokens: auth::Tokens::simple(Arc::new(SystemClock)),
        mvcc,
        scrub: ScrubSteps::UNLIMITED,
        workers: Workers::Threads,
    }
}

pub(super) fn open_on(backend: backend::Backend, quota: Quota) -> Bench {
    open_with(backend, &config(quota))
}

pub(super) fn open_with(backend: backend::Backend, config: &Config) -> Bench {
    let (machine, views, persister) = open(backend, config).unwrap();
    let next = machine.applied().0.map_or(0, |at| at.index + 1);
    Bench {
        machine,
        views,
        persister,
        next,
    }
}

pub(super) fn bench() -> Bench {
    open_on(backend::Backend::in_memory(), Quota::Unlimited)
}

impl Bench {
    /// Waits until nothing is left of what the compaction at `revision` takes away.
    async fn compacted(&mut self, revision: i64) {
        let store = self.views.store.clone();
        let mut compacted = std::pin::pin!(store.compacted(revision));
        for _ in 0..10_000 {
            let look = std::time::Duration::from_millis(1);
            if tokio::time::timeout(look, compacted.as_mut()).await.is_ok() {
                return;
            }
            self.persister.room().await;
            self.machine.tick().unwrap();
            self.persister.written().await.unwrap();
        }
        panic!("a compaction does not end");
    }

    /// Applies without showing it.
    pub(super) fn apply(&mut self, command: &Command) -> Result<Reply, Rejection> {
        let at = LogPosition {
            term: 1,
            leader: 0,
            index: self.next,
        };
        self.next += 1;
        self.apply_request(at, &command.clone().into())
    }

    pub(super) fn apply_request(
        &mut self,
        at: LogPosition,
        request: &Request,
    ) -> Result<Reply, Rejection> {
        let outcome = self.machine.apply(at, request).unwrap();
        // What is in the log must read back as what was proposed.
        let encoded = request.encode();
        assert_eq!(request.encoded_len(), encoded.len());
        assert_eq!(&Request::decode(&encoded).unwrap(), request);
        outcome
    }

    pub(super) fn run(&mut self, command: &Command) -> Result<Reply, Rejection> {
        let outcome = self.apply(command);
        self.machine.finish_batch().unwrap();
        outcome
    }

    pub(super) fn put(&mut self, key: &str, value: &str) -> i64 {
        match self.run(&Command::Put(put(key, value))) {
            Ok(Reply::Put { revision, .. }) => revision,
            other => panic!("{other:?}"),
        }
    }

    pub(super) fn txn(&mut self, txn: Txn) -> Result<(i64, TxnReply), Rejection> {
        match self.run(&Command::Txn(txn))? {
            Reply::Txn { revision, txn } => Ok((revision, txn)),
            other => panic!("{other:?}"),
        }
    }

    pub(super) fn grant(&mut self, id: i64) {
        self.run(&Command::LeaseGrant {
            id: LeaseId(id),
            ttl_s: 60,
        })
        .unwrap();
    }

    /// Everything replicated, as one text: equal exactly if the states are.
    pub(super) fn fingerprint(&mut self) -> String {
        format!("{:?} {}", self.machine.applied(), self.state())
    }

    /// The same without the position in the log.
    pub(super) fn state(&mut self) -> String {
        self.machine.finish_batch().unwrap();
        let view = self.views.store.view();
        let mut kvs = Vec::new();
        view.for_each(|kv| kvs.push(kv.encoded().to_vec()));
        let leases: Vec<_> = self
            .views
            .leases
            .list()
            .into_iter()
            .map(|id| self.views.leases.get(id))
            .collect();
        format!(
            "{:?} {kvs:?} {leases:?} {:?} {:?} {:?} {:?} {:?}",
            self.views.store.hash_kv(None).unwrap(),
            self.views.alarms.list(),
            self.views.cluster.members(),
            self.machine.usage(),
            self.views.auth.state(),
            self.views.versions.get(),
        )
    }
}

pub(super) fn put(key: &str, value: &str) -> Put {
    Put {
        key: key.to_owned().into(),
        value: PutValue::New(value.to_owned().into()),
        lease: PutLease::Detach,
        prev_kv: false,
    }
}

pub(super) fn one(key: &str) -> KeyRange {
    KeyRange::Single(key.to_owned().into())
}

pub(super) fn span(start: &str, end: &str) -> KeyRange {
    KeyRange::Range {
        start: start.to_owned().into(),
        end: end.to_owned().into(),
    }
}

pub(super) fn range(keys: KeyRange) -> RangeOp {
    RangeOp {
        keys,
        at: None,
        limit: None,
        sort_target: SortTarget::Key,
        sort_order: SortOrder::None,
        keys_only: false,
        count_only: false,
        min_mod_revision: None,
        max_mod_revision: None,
        min_create_revision: None,
        max_create_revision: None,
    }
}

pub(super) fn delete(keys: KeyRange) -> DeleteRange {
    DeleteRange {
        keys,
        prev_kv: false,
    }
}

pub(super) fn keys(kvs: &[mvcc::StoredKv]) -> Vec<String> {
    kvs.iter()
        .map(|kv| String::from_utf8_lossy(kv.key()).into_owned())
        .collect()
}
