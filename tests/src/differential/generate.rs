//! The stream of requests that a seed stands for. Mostly sensible ones over few keys, so that they
//! have to do with each other, and some of every invalid kind.

use std::collections::VecDeque;

use api::etcdserverpb as pb;
use pb::compare::{CompareResult, CompareTarget, TargetUnion};
use pb::request_op::Request as Op;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom as _;
use rand::{Rng as _, SeedableRng as _};

use super::exchange::Answer;

/// Leases of the stream live longer than any run, except those that are waited for.
pub(super) const TTL_LONG: i64 = 1_000_000;
/// Lease ids that are used again and again.
const LEASE_IDS: i64 = 24;
/// What etcd takes in one request, and what its gRPC takes in one message.
const REQUEST_BYTES_MAX: usize = 3 * 512 * 1024;
const MESSAGE_BYTES_MAX: usize = REQUEST_BYTES_MAX + 512 * 1024;
/// How deep transactions are nested.
const TXN_DEPTH_MAX: u32 = 3;
const TXN_OPS_MAX: usize = 128;
/// Streams on which watchers are made. Stream 0 is not one of them: it watches everything.
pub(super) const WATCH_STREAMS: usize = 4;
/// One more stream, for watchers from future revisions: while it has one, a stream does not answer
/// progress requests, so nobody can know there when a watcher has caught up.
pub(super) const FUTURE_STREAM: usize = WATCH_STREAMS + 1;

/// One request.
#[derive(Debug, Clone)]
pub(super) enum Request {
    Range(pb::RangeRequest),
    Put(pb::PutRequest),
    DeleteRange(pb::DeleteRangeRequest),
    Txn(pb::TxnRequest),
    Compact(pb::CompactionRequest),
    HashKv(i64),
    LeaseGrant(pb::LeaseGrantRequest),
    LeaseRevoke(pb::LeaseRevokeRequest),
    LeaseTimeToLive(pb::LeaseTimeToLiveRequest),
    LeaseLeases,
    LeaseKeepAlive(i64),
    /// Waits until this lease has expired.
    LeaseExpiry(i64),
    /// Grants and revokes a lease without choosing its id.
    ServerChosenLease(i64),
    Watch(WatchOp),
}

/// Something on one of the watch streams.
#[derive(Debug, Clone)]
pub(super) struct WatchOp {
    /// 1 to [`WATCH_STREAMS`], or [`FUTURE_STREAM`].
    pub(super) stream: usize,
    pub(super) action: WatchAction,
}

#[derive(Debug, Clone)]
pub(super) enum WatchAction {
    Create(pb::WatchCreateRequest),
    Cancel(i64),
    /// Closes the stream and opens another.
    Reopen,
}

impl Request {
    /// Whether watchers have to have seen everything before it, so that what they see does not
    /// depend on how far they are. etcd reads previous values when it sends an event, not when it
    /// happens, and a compaction takes them away.
    pub(super) fn wants_settled_watches(&self) -> bool {
        matches!(self, Request::Compact(_) | Request::Watch(_))
    }
}

/// Makes requests; the same seed and the same answers make the same requests.
#[derive(Debug)]
pub(super) struct Generator {
    rng: StdRng,
    revision: i64,
    compact_revision: i64,
    compactions: VecDeque<Compaction>,
    /// Whether the last request for a compaction was to wait for its end.
    is_waited_for: bool,
    /// Requests that belong together come out one after the other.
    queue: VecDeque<Request>,
    /// Short leases have ids of their own, never used twice.
    short_leases: i64,
}

/// A compaction that was carried out.
#[derive(Debug, Clone, Copy)]
struct Compaction {
    revision: i64,
    is_waited_for: bool,
    /// Its hash is remembered, by etcd too, which does not when the compaction before is still going on.
    is_remembered: bool,
}

/// Compactions whose hashes are asked for: etcd remembers ten.
const COMPACTIONS_REMEMBERED: usize = 10;

impl Generator {
    pub(super) fn new(seed: u64) -> Generator {
        Generator {
            rng: StdRng::seed_from_u64(seed),
            revision: 1,
            compact_revision: 0,
            compactions: VecDeque::new(),
            is_waited_for: false,
            queue: VecDeque::new(),
            short_leases: 0,
        }
    }

    /// The newest revision that an answer has shown.
    pub(super) fn revision(&self) -> i64 {
        self.revision
    }

    pub(super) fn compact_revision(&self) -> i64 {
        self.compact_revision
    }

    pub(super) fn learn(&mut self, answer: &Answer) {
        self.revision = self.revision.max(answer.revision.unwrap_or(0));
        self.compact_revision = self.compact_revision.max(answer.compacted.unwrap_or(0));
        self.compactions.extend(answer.compacted.map(|revision| {
            let before = self.compactions.back();
            Compaction {
                revision,
                is_waited_for: self.is_waited_for,
                is_remembered: self.is_waited_for
                    && before.is_none_or(|before| before.is_waited_for),
            }
        }));
        while self.compactions.len() > COMPACTIONS_REMEMBERED {
            self.compactions.pop_front();
        }
    }

    /// Revisions to compare hashes at: what can be read, what compactions have left, and beyond both. At the
    /// revision of a compaction nobody has waited for it is a matter of time which it is.
    pub(super) fn hash_revisions(&mut self) -> Vec<i64> {
        let (compacted, newest) = (self.compact_revision, self.revision);
        let mut revisions = vec![0, newest + 1, -1];
        let remembered = self.compactions.iter().filter(|it| it.is_remembered);
        revisions.extend(remembered.map(|it| it.revision));
        let is_compaction = |revision| self.compactions.iter().any(|it| it.revision == revision);
        // Older than the compaction, and not remembered.
        let forgotten = (1..compacted)
            .rev()
            .find(|revision| !is_compaction(*revision));
        revisions.extend(forgotten.filter(|_| self.compactions.len() < COMPACTIONS_REMEMBERED));
        if compacted < newest {
            revisions.push(newest);
            revisions.push(self.rng.random_range(compacted + 1..=newest));
        }
        revisions
    }

    pub(super) fn next(&mut self) -> Request {
        if let Some(request) = self.queue.pop_front() {
            if let Request::Compact(compact) = &request {
                self.is_waited_for = compact.physical;
            }
            return request;
        }
        match self.rng.random_range(0..10_000) {
            0..3_000 => Request::Put(self.put()),
            3_000..5_500 => Request::Range(self.range()),
            5_500..6_400 => Request::DeleteRange(self.delete_range()),
            6_400..8_400 => Request::Txn(self.survivable_txn()),
            8_400..8_440 => self.compact(),
            8_440..9_500 => self.lease(),
            9_500..9_985 => self.watch(),
            9_985..9_993 => self.oversize(),
            9_993..9_996 => self.too_many_ops(),
            9_996..9_998 => self.expiring_lease(),
            _ => Request::ServerChosenLease(*self.pick(&[TTL_LONG, 0, -1, 9_000_000_001])),
        }
    }

    fn one_in(&mut self, n: u32) -> bool {
        self.rng.random_ratio(1, n)
    }

    fn pick<'a, T>(&mut self, choices: &'a [T]) -> &'a T {
        choices
            .choose(&mut self.rng)
            .expect("there is always a choice")
    }

    fn key(&mut self) -> Vec<u8> {
        match self.rng.random_range(0..200) {
            0 => Vec::new(),
            1 => vec![0],
            2 => vec![0xff, 0xff],
            3..6 => (0..self.rng.random_range(1..6))
                .map(|_| self.rng.random())
                .collect(),
            _ => {
                let prefix = *self.pick(&["a", "b", "registry/pods/", "registry/events/"]);
                format!("{prefix}{}", self.rng.random_range(0..12)).into_bytes()
            }
        }
    }

    /// A key and a range end: one key, a prefix, from a key, everything, upside down.
    fn key_range(&mut self) -> (Vec<u8>, Vec<u8>) {
        let key = self.key();
        match self.rng.random_range(0..20) {
            0..8 => (key, Vec::new()),
            8..13 => {
                let prefix = self
                    .pick(&["a", "b", "r", "registry/pods/", "registry/"])
                    .as_bytes();
                let mut end = prefix.to_vec();
                *end.last_mut().expect("no prefix is empty") += 1;
                (prefix.to_vec(), end)
            }
            13 | 14 => (key, vec![0]),
            15 => (vec![0], vec![0]),
            16 => {
                let end = key.clone();
                (key, end)
            }
            _ => (key, self.key()),
        }
    }

    fn value(&mut self) -> Vec<u8> {
        let len = match self.rng.random_range(0..500) {
            0 => 100_000,
            1..10 => 2_000,
            10..60 => 0,
            _ => self.rng.random_range(1..40),
        };
        if self.one_in(4) {
            return (self.rng.random_range(0..5)).to_string().into_bytes();
        }
        (0..len).map(|_| self.rng.random()).collect()
    }

    /// A revision to ask about: mostly now, else past, future or nonsense.
    fn at_revision(&mut self) -> i64 {
        let (compacted, newest) = (self.compact_revision, self.revision);
        match self.rng.random_range(0..20) {
            0..12 => 0,
            12 => -1,
            13 => newest,
            14 => newest + self.rng.random_range(1..5),
            15 => compacted - self.rng.random_range(0..2),
            16 => self.rng.random_range(0..=newest),
            17 => *self.pick(&[i64::MAX, i64::MIN, 1, 2]),
            _ => self.rng.random_range(compacted.min(newest)..=newest),
        }
    }

    fn lease_id(&mut self) -> i64 {
        match self.rng.random_range(0..40) {
            0 => -7,
            1 => i64::MAX,
            2 => i64::MIN,
            3 => self.rng.random(),
            _ => self.rng.random_range(1..=LEASE_IDS),
        }
    }

    fn put(&mut self) -> pb::PutRequest {
        let mut put = pb::PutRequest {
            key: self.key(),
            value: self.value(),
            lease: if self.one_in(5) { self.lease_id() } else { 0 },
            prev_kv: self.one_in(3),
            ignore_value: self.one_in(15),
            ignore_lease: self.one_in(15),
        };
        if put.ignore_value && !self.one_in(4) {
            put.value.clear();
        }
        if put.ignore_lease && !self.one_in(4) {
            put.lease = 0;
        }
        put
    }

    fn range(&mut self) -> pb::RangeRequest {
        let (key, range_end) = self.key_range();
        let mut range = pb::RangeRequest {
            key,
            range_end,
            ..Default::default()
        };
        range.revision = self.at_revision();
        if self.one_in(2) {
            let few = self.rng.random_range(1..6);
            range.limit = *self.pick(&[0, few, few, few, -1, i64::MAX, i64::MIN]);
        }
        if self.one_in(3) {
            // No unknown orders or targets: etcd 3.5 dies of an unknown target, later ones refuse it.
            range.sort_order = *self.pick(&[0, 1, 2, 1, 2]);
            range.sort_target = *self.pick(&[0, 1, 2, 3, 4]);
        }
        range.serializable = self.one_in(3);
        range.keys_only = self.one_in(6);
        range.count_only = self.one_in(10);
        if self.one_in(12) {
            range.min_mod_revision = self.rng.random_range(-1..=self.revision);
        }
        if self.one_in(12) {
            range.max_mod_revision = self.rng.random_range(-1..=self.revision);
        }
        if self.one_in(12) {
            range.min_create_revision = self.rng.random_range(-1..=self.revision);
        }
        if self.one_in(12) {
            range.max_create_revision = self.rng.random_range(-1..=self.revision);
        }
        range
    }

    fn delete_range(&mut self) -> pb::DeleteRangeRequest {
        let (key, mut range_end) = self.key_range();
        // Mostly single keys, so that something is left.
        if !self.one_in(5) {
            range_end.clear();
        }
        pb::DeleteRangeRequest {
            key,
            range_end,
            prev_kv: self.one_in(2),
        }
    }

    /// etcd's check for duplicate keys does not see what a deletion from a key on (range end
    /// `"\0"`) overlaps with. A put with `ignore_value` or `ignore_lease` that follows one then
    /// misses its key in the middle of the transaction, and etcd dies of that.
    fn survivable_txn(&mut self) -> pb::TxnRequest {
        let mut txn = self.txn(TXN_DEPTH_MAX);
        let mut deletes_from_a_key = false;
        for_each_op(&mut txn, &mut |op| {
            deletes_from_a_key |= matches!(op, Op::RequestDeleteRange(d) if d.range_end == [0]);
        });
        if deletes_from_a_key {
            for_each_op(&mut txn, &mut |op| {
                if let Op::RequestPut(put) = op {
                    (put.ignore_value, put.ignore_lease) = (false, false);
                }
            });
        }
        txn
    }

    fn txn(&mut self, depth: u32) -> pb::TxnRequest {
        let compares = self.rng.random_range(0..4);
        pb::TxnRequest {
            compare: (0..compares).map(|_| self.compare()).collect(),
            success: self.ops(depth),
            failure: self.ops(depth),
        }
    }

    fn ops(&mut self, depth: u32) -> Vec<pb::RequestOp> {
        let ops = *self.pick(&[0, 1, 1, 2, 2, 3, 4, 6]);
        (0..ops).map(|_| self.op(depth)).collect()
    }

    fn op(&mut self, depth: u32) -> pb::RequestOp {
        let request = match self.rng.random_range(0..100) {
            0..40 => Some(Op::RequestPut(self.put())),
            40..70 => Some(Op::RequestRange(self.range_in_txn())),
            70..85 => Some(Op::RequestDeleteRange(self.delete_range())),
            85..99 if depth > 1 => Some(Op::RequestTxn(self.txn(depth - 1))),
            85..99 => Some(Op::RequestPut(self.put())),
            _ => None,
        };
        pb::RequestOp { request }
    }

    /// Old and wrong revisions less often: one of them is enough to refuse the whole transaction.
    fn range_in_txn(&mut self) -> pb::RangeRequest {
        let mut range = self.range();
        if !self.one_in(10) {
            range.revision = 0;
        }
        range
    }

    fn compare(&mut self) -> pb::Compare {
        let (key, mut range_end) = self.key_range();
        if !self.one_in(4) {
            range_end.clear();
        }
        let number = *self.pick(&[0, 1, 2, self.revision, self.revision / 2]);
        let target = *self.pick(&[
            CompareTarget::Version,
            CompareTarget::Create,
            CompareTarget::Mod,
            CompareTarget::Value,
            CompareTarget::Lease,
        ]);
        let mut union = match target {
            CompareTarget::Version => TargetUnion::Version(number),
            CompareTarget::Create => TargetUnion::CreateRevision(number),
            CompareTarget::Mod => TargetUnion::ModRevision(number),
            CompareTarget::Value => TargetUnion::Value(self.value()),
            CompareTarget::Lease => TargetUnion::Lease(self.lease_id()),
        };
        if self.one_in(40) {
            union = TargetUnion::Version(number);
        }
        let results = [
            CompareResult::Equal,
            CompareResult::Greater,
            CompareResult::Less,
        ];
        let mut result = *self.pick(&results) as i32;
        if self.one_in(3) {
            result = CompareResult::NotEqual as i32;
        }
        pb::Compare {
            result: if self.one_in(60) { 8 } else { result },
            target: if self.one_in(60) { 9 } else { target as i32 },
            key,
            range_end,
            target_union: if self.one_in(40) { None } else { Some(union) },
        }
    }

    fn compact(&mut self) -> Request {
        let (compacted, newest) = (self.compact_revision, self.revision);
        let revision = match self.rng.random_range(0..12) {
            0 => newest,
            1 => newest + 3,
            2 => compacted.max(1),
            3 => (compacted - 2).max(1),
            // Not 0: etcd takes that once, and from then on answers HashKV at 0, which asks for
            // the newest revision, with the hash it remembers of revision 0.
            4 => *self.pick(&[-1, i64::MAX, i64::MIN]),
            _ => self
                .rng
                .random_range(compacted.max(newest - 400).max(1)..=newest),
        };
        let physical = !self.one_in(4);
        let compact = pb::CompactionRequest { revision, physical };
        self.queue.push_back(Request::Compact(compact));
        // A new revision right before it: progress to that cannot be an answer to an old question.
        let key = b"before compaction".to_vec();
        Request::Put(pb::PutRequest {
            key,
            ..Default::default()
        })
    }

    fn lease(&mut self) -> Request {
        let id = self.lease_id();
        match self.rng.random_range(0..100) {
            0..45 => {
                let ttl = *self.pick(&[
                    TTL_LONG,
                    TTL_LONG + 5,
                    9_000_000_000,
                    9_000_000_001,
                    i64::MAX,
                ]);
                Request::LeaseGrant(pb::LeaseGrantRequest {
                    ttl,
                    id: if id == 0 { 1 } else { id },
                })
            }
            45..65 => Request::LeaseRevoke(pb::LeaseRevokeRequest { id }),
            65..80 => {
                let keys = self.one_in(2);
                Request::LeaseTimeToLive(pb::LeaseTimeToLiveRequest { id, keys })
            }
            80..90 => Request::LeaseKeepAlive(id),
            90..97 => Request::LeaseLeases,
            _ => self
                .pick(&[
                    Request::LeaseRevoke(pb::LeaseRevokeRequest { id: 0 }),
                    Request::LeaseKeepAlive(0),
                    Request::LeaseTimeToLive(pb::LeaseTimeToLiveRequest { id: 0, keys: true }),
                ])
                .clone(),
        }
    }

    /// A lease with the shortest TTL, keys on it, and the wait for its end.
    fn expiring_lease(&mut self) -> Request {
        self.short_leases += 1;
        let id = 1_000_000 + self.short_leases;
        for i in 0..self.rng.random_range(0..4) {
            let key = format!("registry/pods/short{i}").into_bytes();
            let put = pb::PutRequest {
                key,
                lease: id,
                ..Default::default()
            };
            self.queue.push_back(Request::Put(put));
        }
        self.queue.push_back(Request::LeaseExpiry(id));
        Request::LeaseGrant(pb::LeaseGrantRequest {
            ttl: self.rng.random_range(-1..=2),
            id,
        })
    }

    /// Requests around the two limits of size.
    fn oversize(&mut self) -> Request {
        let near = self.rng.random_range(0..200);
        let len = match self.rng.random_range(0..4) {
            0 => REQUEST_BYTES_MAX - 400 + near,
            1 => REQUEST_BYTES_MAX + 1 + near,
            2 => MESSAGE_BYTES_MAX - 400 + near,
            _ => MESSAGE_BYTES_MAX + 1 + near,
        };
        let key = b"big".to_vec();
        // It must not stay: every later range over everything would carry it.
        self.queue
            .push_back(Request::DeleteRange(pb::DeleteRangeRequest {
                key: key.clone(),
                ..Default::default()
            }));
        Request::Put(pb::PutRequest {
            key,
            value: vec![b'x'; len],
            ..Default::default()
        })
    }

    fn too_many_ops(&mut self) -> Request {
        let ops = self.rng.random_range(TXN_OPS_MAX - 1..TXN_OPS_MAX + 3);
        let put = |i: usize| pb::PutRequest {
            key: format!("many/{i}").into_bytes(),
            ..Default::default()
        };
        let puts = (0..ops).map(|i| pb::RequestOp {
            request: Some(Op::RequestPut(put(i))),
        });
        let mut txn = pb::TxnRequest::default();
        match self.rng.random_range(0..4) {
            0 => txn.success = puts.collect(),
            1 => txn.failure = puts.collect(),
            2 => txn.compare = (0..ops).map(|_| self.compare()).collect(),
            _ => {
                let inner = pb::TxnRequest {
                    success: puts.collect(),
                    ..Default::default()
                };
                txn.success = vec![pb::RequestOp {
                    request: Some(Op::RequestTxn(inner)),
                }];
            }
        }
        Request::Txn(txn)
    }

    fn watch(&mut self) -> Request {
        let mut stream = self.rng.random_range(1..=FUTURE_STREAM);
        let action = match self.rng.random_range(0..20) {
            0 => WatchAction::Reopen,
            1..6 => WatchAction::Cancel(self.rng.random_range(-1..12)),
            _ => WatchAction::Create(self.watch_create()),
        };
        if let WatchAction::Create(create) = &action {
            if create.start_revision > self.revision {
                stream = FUTURE_STREAM;
            } else if create.start_revision > 0 && stream == FUTURE_STREAM {
                stream = WATCH_STREAMS;
            }
        }
        Request::Watch(WatchOp { stream, action })
    }

    fn watch_create(&mut self) -> pb::WatchCreateRequest {
        let (key, range_end) = self.key_range();
        let (compacted, newest) = (self.compact_revision, self.revision);
        let start_revision = match self.rng.random_range(0..20) {
            0..10 => 0,
            10 => -1,
            11 => newest,
            12 => newest + 1,
            13 => newest + self.rng.random_range(2..30),
            14 => compacted,
            15 => compacted - 1,
            _ => self
                .rng
                .random_range(compacted.max(newest - 300).min(newest)..=newest),
        };
        let choices: [&[i32]; 7] = [&[], &[], &[], &[0], &[1], &[0, 1], &[5]];
        let filters = self.pick(&choices).to_vec();
        pb::WatchCreateRequest {
            key,
            range_end,
            start_revision,
            progress_notify: self.one_in(4),
            filters,
            prev_kv: self.one_in(2),
            watch_id: if self.one_in(4) {
                self.rng.random_range(1..12)
            } else {
                0
            },
            fragment: self.one_in(5),
        }
    }
}

/// All operations of a transaction, also of the transactions in it.
fn for_each_op(txn: &mut pb::TxnRequest, visit: &mut impl FnMut(&mut Op)) {
    for op in txn.success.iter_mut().chain(&mut txn.failure) {
        match &mut op.request {
            Some(Op::RequestTxn(inner)) => for_each_op(inner, visit),
            Some(op) => visit(op),
            None => {}
        }
    }
}
