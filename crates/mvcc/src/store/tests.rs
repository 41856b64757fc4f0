//! The store against a model that keeps everything, through reopening at random points.

use std::collections::BTreeMap;
use std::sync::Arc;

use proptest::prelude::*;
use types::KeyRange;

use crate::fixture::{Fixture, all, put};
use crate::{
    CompactError, CompactionHash, EventKind, HashKv, PrevKv, Range, RangeError, RevisionEvents,
    StoredKv,
};

/// One key in the model; what a [`StoredKv`] says.
#[derive(Clone, Debug, PartialEq, Eq)]
struct ModelKv {
    value: String,
    create: i64,
    modified: i64,
    version: i64,
    lease: Option<i64>,
}

impl ModelKv {
    fn of(kv: &StoredKv) -> (String, Self) {
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
        let model = Self {
            value: text(kv.value()),
            create: kv.create_revision(),
            modified: kv.mod_revision().main,
            version: kv.version(),
            lease: kv.lease().map(|lease| lease.0),
        };
        (text(kv.key()), model)
    }
}

type State = BTreeMap<String, ModelKv>;

/// An event: key, what is there now, what was there at the revision before (never for one that
/// creates its key).
type ModelEvent = (String, Option<ModelKv>, Option<ModelKv>);

/// Every state that ever was.
#[derive(Debug)]
struct Model {
    /// `states[r]` is the state at revision `r`.
    states: Vec<State>,
    events: Vec<Vec<ModelEvent>>,
    compact_revision: i64,
    /// What compactions are to leave, as far as it is known.
    left: Vec<CompactionHash>,
}

#[derive(Clone, Debug)]
enum Change {
    Put(String, String, Option<i64>),
    Delete(KeyRange),
}

#[derive(Clone, Debug)]
enum Action {
    Txn(Vec<Change>),
    Publish,
    Stage,
    Settle,
    /// Make the hashes of compactions.
    Hash,
    Reopen,
    /// Compact at this share of the way from the compacted revision to the current one.
    Compact(f64),
}

impl Model {
    fn new() -> Self {
        let empty = || vec![State::new(), State::new()];
        Self {
            states: empty(),
            events: vec![vec![], vec![]],
            compact_revision: -1,
            left: Vec::new(),
        }
    }

    fn revision(&self) -> i64 {
        i64::try_from(self.states.len()).unwrap() - 1
    }

    fn at(&self, revision: i64) -> &State {
        &self.states[usize::try_from(revision).unwrap()]
    }

    fn txn(&mut self, changes: &[Change]) {
        let last = self.states.last().unwrap();
        let mut state = last.clone();
        let revision = self.revision() + 1;
        let mut events = Vec::new();
        for change in changes {
            match change {
                Change::Put(key, value, lease) => {
                    let before = state.get(key).cloned();
                    let kv = ModelKv {
                        value: value.clone(),
                        create: before.as_ref().map_or(revision, |kv| kv.create),
                        modified: revision,
                        version: before.as_ref().map_or(1, |kv| kv.version + 1),
                        lease: *lease,
                    };
                    state.insert(key.clone(), kv.clone());
                    let shown = last.get(key).filter(|_| kv.create < revision).cloned();
                    events.push((key.clone(), Some(kv), shown));
                }
                Change::Delete(keys) => {
                    let gone: Vec<String> = state
                        .keys()
                        .filter(|key| keys.contains(key.as_bytes()))
                        .cloned()
                        .collect();
                    for key in gone {
                        state.remove(&key);
                        let shown = last.get(&key).cloned();
                        events.push((key, None, shown));
                    }
                }
            }
        }
        if !events.is_empty() {
            self.states.push(state);
            self.events.push(events);
        }
    }
}

fn key() -> impl Strategy<Value = String> {
    "[a-d]{1,2}"
}

fn key_range() -> impl Strategy<Value = KeyRange> {
    prop_oneof![
        3 => key().prop_map(|key| KeyRange::Single(key.into())),
        1 => key().prop_map(|key| KeyRange::From(key.into())),
        2 => (key(), key()).prop_map(|(start, end)| {
            KeyRange::Range { start: start.into(), end: end.into() }
        }),
        1 => Just(KeyRange::all()),
    ]
}

fn change() -> impl Strategy<Value = Change> {
    prop_oneof![
        4 => (key(), "[x-z]{0,3}", prop::option::of(1..5i64))
            .prop_map(|(key, value, lease)| Change::Put(key, value, lease)),
        1 => key_range().prop_map(Change::Delete),
    ]
}

fn action() -> impl Strategy<Value = Action> {
    prop_oneof![
        20 => prop::collection::vec(change(), 1..4).prop_map(Action::Txn),
        5 => Just(Action::Publish),
        4 => Just(Action::Stage),
        1 => Just(Action::Settle),
        2 => Just(Action::Hash),
        2 => Just(Action::Reopen),
        2 => (0.0..=1.0).prop_map(Action::Compact),
    ]
}

fn act(store: &mut Fixture, model: &mut Model, action: &Action) {
    match action {
        Action::Txn(changes) => {
            model.txn(changes);
            let mut txn = store.writer.begin();
            for change in changes {
                match change {
                    Change::Put(key, value, lease) => {
                        txn.put(put(key, value, *lease));
                    }
                    Change::Delete(keys) => {
                        txn.delete_range(keys);
                    }
                }
            }
            let within = txn.range(&all()).unwrap();
            assert_eq!(&state_of(&within.kvs), model.at(model.revision()));
            assert_eq!(txn.revision(), model.revision());
            assert_eq!(txn.end(), model.revision());
        }
        Action::Publish => store.writer.publish(),
        Action::Stage => store.stage(),
        Action::Settle => store.settle(),
        Action::Hash => store.hash(),
        Action::Reopen => {
            store.writer.publish();
            store.stage();
            let before = hashes(store, model);
            store.reopen();
            assert_eq!(hashes(store, model), before);
        }
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_precision_loss,
            reason = "a test's choice"
        )]
        Action::Compact(share) => {
            let from = model.compact_revision.max(0);
            let revision = from + ((model.revision() - from) as f64 * share).round() as i64;
            let left = hash_to_be_left(store, model, revision);
            let done = store.writer.compact(revision);
            if revision <= model.compact_revision {
                assert_eq!(done, Err(CompactError::Compacted));
            } else {
                assert_eq!(done, Ok(()));
                model.compact_revision = revision;
                model.left.extend(left);
            }
        }
    }
    assert_eq!(
        store.writer.index.count_live(),
        store.writer.index.live_len()
    );
}

fn state_of(kvs: &[StoredKv]) -> State {
    kvs.iter().map(ModelKv::of).collect()
}

/// The hash that a compaction at `revision` leaves, if it can be had before.
fn hash_to_be_left(store: &Fixture, model: &Model, revision: i64) -> Option<CompactionHash> {
    let view = store.reads.view();
    let is_published =
        revision <= view.revision() && view.compact_revision() == model.compact_revision;
    // There etcd's two ways to say what is kept differ; who is new may have been deleted by the same transaction.
    let is_emptied = model
        .at(revision)
        .values()
        .all(|kv| kv.modified == revision)
        && !model.events[usize::try_from(revision).unwrap()].is_empty();
    // Asked for at 0, it is the newest.
    let is_old = revision <= model.compact_revision.max(0);
    if !is_published || is_emptied || is_old {
        return None;
    }
    let hash = store.reads.hash_kv(Some(revision)).unwrap();
    Some(CompactionHash {
        hash: hash.hash,
        revision,
        compact_revision: hash.compact_revision,
    })
}

/// What compactions have left is what could be had before them; and it is the answer at their revisions.
fn check_left(store: &Fixture, model: &Model) {
    let found = store.reads.compaction_hashes();
    assert!(found.is_sorted_by_key(|hash| hash.revision) && found.len() <= 10);
    for hash in &found {
        let left = model
            .left
            .iter()
            .find(|left| left.revision == hash.revision);
        if let Some(left) = left {
            assert_eq!(hash, left);
        }
        let answer = store.reads.hash_kv(Some(hash.revision)).unwrap();
        let answered = (answer.hash, answer.compact_revision, answer.hash_revision);
        assert_eq!(answered, (hash.hash, hash.compact_revision, hash.revision));
    }
}

/// Not at the compacted revision: a hash that is remembered is not there any more after a restart.
fn hashes(store: &Fixture, model: &Model) -> Vec<HashKv> {
    let readable = (model.compact_revision + 1).max(1)..=model.revision();
    readable
        .map(|revision| store.reads.hash_kv(Some(revision)).unwrap())
        .collect()
}

/// Everything that can be read is what the model says.
fn check(store: &Fixture, model: &Model, ranges: &[KeyRange]) {
    let view = store.reads.view();
    assert_eq!(view.revision(), model.revision());
    assert_eq!(view.compact_revision(), model.compact_revision);
    for at in 1..=model.revision() {
        for keys in ranges {
            let range = Range {
                keys: keys.clone(),
                at: Some(at),
                limit: None,
                count_only: false,
            };
            let found = view.range(&range);
            if at < model.compact_revision {
                assert!(matches!(found, Err(RangeError::Compacted { .. })));
                continue;
            }
            let found = found.unwrap();
            let expected: State = model
                .at(at)
                .iter()
                .filter(|(key, _)| keys.contains(key.as_bytes()))
                .map(|(key, kv)| (key.clone(), kv.clone()))
                .collect();
            assert_eq!(state_of(&found.kvs), expected);
            assert_eq!(found.count, expected.len());
            let limited = view
                .range(&Range {
                    limit: Some(2),
                    ..range.clone()
                })
                .unwrap();
            assert_eq!(
                (limited.kvs.len(), limited.count),
                (expected.len().min(2), expected.len())
            );
            let counted = view
                .range(&Range {
                    count_only: true,
                    ..range
                })
                .unwrap();
            assert_eq!((counted.kvs.len(), counted.count), (0, expected.len()));
        }
    }
    let future = view.range(&Range {
        at: Some(model.revision() + 1),
        ..all()
    });
    assert!(matches!(future, Err(RangeError::FutureRevision)));
    check_history(store, model);
}

fn check_history(store: &Fixture, model: &Model) {
    let mut from = model.compact_revision.max(1);
    if from > 1 {
        let refused = store.reads.history(from - 1, i64::MAX, 1, PrevKv::Omit);
        assert!(matches!(refused, Err(RangeError::Compacted { .. })));
    }
    while from <= model.revision() {
        let history = store
            .reads
            .history(from, i64::MAX, 400, PrevKv::Include)
            .unwrap();
        assert!(history.next > from);
        let mut found = history.revisions.iter();
        for revision in from..history.next {
            // A key changed twice by a transaction that is exactly the compacted revision has only
            // its last change left; nothing else is missing.
            let expected = &model.events[usize::try_from(revision).unwrap()];
            if revision > model.compact_revision && !expected.is_empty() {
                check_events(found.next().unwrap(), expected);
            } else if found
                .as_slice()
                .first()
                .is_some_and(|events| events.revision == revision)
            {
                found.next();
            }
        }
        assert!(found.next().is_none());
        from = history.next;
    }
    assert_eq!(from, model.revision() + 1);
}

fn check_events(found: &Arc<RevisionEvents>, expected: &[ModelEvent]) {
    assert_eq!(found.events.len(), expected.len());
    for (event, (key, kv, prev)) in found.events.iter().zip(expected) {
        assert_eq!(event.kv.key(), key.as_bytes());
        assert_eq!(event.kv.mod_revision().main, found.revision);
        match kv {
            Some(kv) => assert_eq!(&ModelKv::of(&event.kv).1, kv),
            None => assert_eq!((event.kind, event.kv.version()), (EventKind::Delete, 0)),
        }
        let found_prev = event.prev.as_ref().map(|prev| ModelKv::of(prev).1);
        assert_eq!(&found_prev, prev);
    }
}

proptest! {
    #[test]
    fn whatever_happens_every_revision_reads_as_it_was(
        actions in prop::collection::vec(action(), 1..60),
        ranges in prop::collection::vec(key_range(), 2),
        event_log_bytes_max in prop_oneof![Just(0usize), Just(2000), Just(1 << 20)],
    ) {
        let (mut store, mut model) = (Fixture::new(event_log_bytes_max), Model::new());
        for action in &actions {
            act(&mut store, &mut model, action);
            if matches!(action, Action::Publish | Action::Reopen | Action::Settle) {
                check(&store, &model, &ranges);
            }
            if let Action::Settle | Action::Hash = action {
                check_left(&store, &model);
            }
        }
        store.writer.publish();
        let before = hashes(&store, &model);
        store.settle();
        check_left(&store, &model);
        prop_assert_eq!(hashes(&store, &model), before, "a hash must not depend on scrubbing");
        check(&store, &model, &ranges);
        store.reopen();
        check(&store, &model, &ranges);
        prop_assert!(!store.writer.is_scrubbing());
    }
}

#[test]
fn a_key_that_is_gone_does_not_come_back_with_a_crash_in_the_middle_of_scrubbing() {
    for crash_after in 0..8 {
        let mut store = Fixture::new(0);
        for i in 0..600 {
            store.put(&format!("other{i}"), "x");
            store.put("gone", "x");
        }
        store.delete("gone");
        let revision = store.put("last", "x");
        store.writer.compact(revision).unwrap();
        store.writer.publish();
        store.hash();
        for _ in 0..crash_after {
            store.stage();
        }
        if crash_after > 0 {
            store.reopen();
            assert_eq!(store.get_at("gone", revision), None);
        }
        store.settle();
        store.reopen();
        assert_eq!(store.get_at("gone", revision), None);
        assert_eq!(store.reads.view().range(&all()).unwrap().count, 601);
    }
}

#[test]
fn compaction_gives_the_space_back() {
    let mut store = Fixture::new(0);
    let value = "v".repeat(1000);
    for _ in 0..2000 {
        store.put("hot", &value);
    }
    store.put("end", "");
    store.settle();
    assert!(store.reads.size_in_use() > 2_000_000);
    store.writer.compact(store.writer.revision()).unwrap();
    store.settle();
    assert!(store.reads.size_in_use() < 30_000);
    assert!(store.reads.size() > 2_000_000, "what was allocated stays");
    let segments = store.backend.reader.scan(backend::Bucket::Key, &[], None);
    let bytes: usize = segments.map(|record| record.unwrap().1.len()).sum();
    assert!(
        bytes <= 70_000,
        "only the open segment may hold dead versions, found {bytes}"
    );
}

#[test]
fn an_old_view_reads_on_until_its_revision_is_scrubbed() {
    let mut store = Fixture::new(0);
    let old = store.put("k", "old");
    for i in 0..300 {
        store.put("k", &i.to_string());
    }
    store.settle();
    let view = store.reads.view();
    let range = Range {
        at: Some(old),
        ..all()
    };
    assert_eq!(view.range(&range).unwrap().kvs[0].value(), b"old");
    store.writer.compact(store.writer.revision()).unwrap();
    store.settle();
    let refused = store.reads.view().range(&range);
    assert!(matches!(refused, Err(RangeError::Compacted { .. })));
}

#[test]
fn changes_of_one_batch_are_readable_at_their_revisions_before_they_are_published() {
    let mut store = Fixture::new(0);
    let first = store.put("k", "first");
    store.put("k", "second");
    let mut txn = store.writer.begin();
    let found = txn
        .range(&Range {
            at: Some(first),
            ..all()
        })
        .unwrap();
    assert_eq!(found.kvs[0].value(), b"first");
    txn.put(put("k", "third", None));
    assert_eq!(txn.range(&all()).unwrap().kvs[0].version(), 3);
    txn.end();
}
