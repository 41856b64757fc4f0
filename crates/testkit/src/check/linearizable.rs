//! A Porcupine-style search: is there an order of all operations on a key that fits the times at
//! which they began and ended, and in which every answer is right? Wing and Gong's algorithm with
//! Lowe's memory of what was tried; keys are independent of each other, so each is searched alone.
//!
//! What this is not: aware of revisions. An operation whose outcome is unknown takes part if its
//! unique value was ever seen, and then ended no later than that; other deletions without an answer
//! are shared out as [`super::cause`] has them. Keys that ever had a lease are left out: the end of
//! a lease is nobody's operation.
//!
//! The crates that do this were looked at: porcupine-rs 0.3 depends on a benchmark harness and
//! calls a search that ran out of time illegal; todc-utils 0.1 is unkept and knows no operations
//! without an end; stateright's tester tries all orders without memory.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::time::Duration;

use bytes::Bytes;

use super::Run;
use crate::history::{Mode, Operation, Outcome, Reply, Request};

/// Steps after which a search is given up: many more than any history here takes.
const STEPS_MAX: u64 = 20_000_000;

/// The state of a key: its value.
type State = Option<Bytes>;

/// What one operation did to one key, as its client was told.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Act {
    /// It became this.
    Write(State),
    /// It was this.
    Read(State),
    /// It was the first and became the second.
    Swap(State, Bytes),
    /// It was not this.
    Differs(State),
    /// It was there, and is not any more.
    Delete,
}

/// An act, and the times between which it took effect.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Step {
    pub(crate) invoked: Duration,
    pub(crate) returned: Duration,
    pub(crate) act: Act,
}

/// What a search found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// There is an order.
    Linearizable,
    /// There is none; so many operations fit at most.
    Not(usize),
    /// Not known: it took too long.
    Undecided,
}

pub(super) fn violations(run: &Run) -> Vec<String> {
    let mut violations = Vec::new();
    for (key, steps) in steps(run) {
        let count = steps.len();
        match search(steps) {
            Verdict::Linearizable => {}
            Verdict::Not(fit) => violations.push(format!(
                "{key:?} is not linearizable: {fit} of {count} operations fit"
            )),
            Verdict::Undecided => violations.push(format!(
                "{key:?}: {count} operations are too many to search"
            )),
        }
    }
    violations
}

/// What happened to each key.
fn steps(run: &Run) -> BTreeMap<Bytes, Vec<Step>> {
    let mut leased = BTreeSet::new();
    for operation in &run.operations {
        if let Request::Put { pairs, lease } = &operation.request
            && *lease != 0
        {
            leased.extend(pairs.iter().map(|(key, _)| key.clone()));
        }
    }
    let made: BTreeMap<usize, i64> = run.causes.made().map(|(rev, at)| (at, rev)).collect();
    let mut steps: BTreeMap<Bytes, Vec<Step>> = BTreeMap::new();
    let keys: BTreeSet<Bytes> = written_keys(run);
    for (at, operation) in run.operations.iter().enumerate() {
        let returned = match operation.outcome {
            Outcome::Refused => continue,
            Outcome::Done { .. } => operation.returned,
            Outcome::Unknown => match made.get(&at) {
                Some(&revision) => run.causes.seen(revision).unwrap_or(Duration::MAX),
                None => continue,
            },
        };
        for (key, act) in acts(operation, &keys) {
            if !leased.contains(&key) {
                let invoked = operation.invoked;
                steps.entry(key).or_default().push(Step {
                    invoked,
                    returned,
                    act,
                });
            }
        }
    }
    steps
}

fn written_keys(run: &Run) -> BTreeSet<Bytes> {
    let mut keys = BTreeSet::new();
    for operation in &run.operations {
        match &operation.request {
            Request::Put { pairs, .. } => keys.extend(pairs.iter().map(|(key, _)| key.clone())),
            Request::Swap { key, .. } | Request::Delete { key } => {
                keys.insert(key.clone());
            }
            _ => {}
        }
    }
    keys
}

/// What an operation that took effect did to which keys.
fn acts(operation: &Operation, keys: &BTreeSet<Bytes>) -> Vec<(Bytes, Act)> {
    let reply = operation.done().map(|(_, reply)| reply);
    match (&operation.request, reply) {
        (Request::Put { pairs, .. }, _) => pairs
            .iter()
            .map(|(key, value)| (key.clone(), Act::Write(Some(value.clone()))))
            .collect(),
        (Request::Delete { key }, Some(Reply::Deleted(false))) => {
            vec![(key.clone(), Act::Read(None))]
        }
        (Request::Delete { key }, _) => vec![(key.clone(), Act::Delete)],
        (Request::Swap { key, expected, .. }, Some(Reply::NotSwapped(kv))) => {
            let value = kv.as_ref().map(|kv| kv.value.clone());
            let expected = expected.as_ref().map(|kv| kv.value.clone());
            let act = if value == expected {
                Act::Differs(expected)
            } else {
                Act::Read(value)
            };
            vec![(key.clone(), act)]
        }
        (
            Request::Swap {
                key,
                expected,
                value,
            },
            _,
        ) => {
            let expected = expected.as_ref().map(|kv| kv.value.clone());
            vec![(key.clone(), Act::Swap(expected, value.clone()))]
        }
        (
            Request::Read {
                range,
                mode: Mode::Linearizable,
            },
            Some(Reply::Read(kvs)),
        ) => {
            let in_range = keys.iter().filter(|key| range.contains(key));
            let value = |key: &Bytes| kvs.iter().find(|kv| kv.key == key);
            in_range
                .map(|key| {
                    (
                        key.clone(),
                        Act::Read(value(key).map(|kv| kv.value.clone())),
                    )
                })
                .collect()
        }
        _ => Vec::new(),
    }
}

/// The state behind an act, if the act can be in this state.
fn apply(state: &State, act: &Act) -> Option<State> {
    match act {
        Act::Write(value) => Some(value.clone()),
        Act::Read(value) => (state == value).then(|| state.clone()),
        Act::Differs(value) => (state != value).then(|| state.clone()),
        Act::Swap(expected, value) => (state == expected).then(|| Some(value.clone())),
        Act::Delete => state.is_some().then_some(None),
    }
}

/// Looks for an order.
pub(crate) fn search(steps: Vec<Step>) -> Verdict {
    Search::of(steps).run()
}

/// Calls and returns in the order of their times, as a linked list from which operations that
/// have their place are taken out.
struct Search {
    steps: Vec<Step>,
    /// Calls are `2 * step`, returns `2 * step + 1`; the last entry is the list's head.
    next: Vec<usize>,
    before: Vec<usize>,
    /// Operations that have their place, in that order, with the state before each.
    placed: Vec<(usize, State)>,
    state: State,
    /// The set of placed operations, as the exclusive or of a random number for each.
    set: u128,
    tried: HashSet<(u128, State)>,
}

impl Search {
    fn of(steps: Vec<Step>) -> Search {
        let mut entries: Vec<usize> = (0..2 * steps.len()).collect();
        // At the same moment calls come first: then the two operations overlap.
        entries.sort_by_key(|&entry| {
            let step = &steps[entry / 2];
            match entry % 2 {
                0 => (step.invoked, 0),
                _ => (step.returned, 1),
            }
        });
        let head = 2 * steps.len();
        let mut next = vec![head; head + 1];
        let mut before = vec![head; head + 1];
        let mut last = head;
        for entry in entries {
            next[last] = entry;
            before[entry] = last;
            last = entry;
        }
        before[head] = last;
        Search {
            steps,
            next,
            before,
            placed: Vec::new(),
            state: None,
            set: 0,
            tried: HashSet::new(),
        }
    }

    fn run(mut self) -> Verdict {
        let head = 2 * self.steps.len();
        let mut entry = self.next[head];
        let mut fit = 0;
        for _ in 0..STEPS_MAX {
            if entry == head {
                return Verdict::Linearizable;
            }
            if entry.is_multiple_of(2) {
                entry = match self.try_place(entry / 2) {
                    true => self.next[head],
                    false => self.next[entry],
                };
            } else {
                // An operation ended before it found its place: an earlier choice was wrong.
                fit = fit.max(self.placed.len());
                match self.take_back() {
                    Some(step) => entry = self.next[2 * step],
                    None => return Verdict::Not(fit),
                }
            }
        }
        Verdict::Undecided
    }

    fn try_place(&mut self, step: usize) -> bool {
        let Some(state) = apply(&self.state, &self.steps[step].act) else {
            return false;
        };
        let set = self.set ^ number(step);
        if !self.tried.insert((set, state.clone())) {
            return false;
        }
        let before = std::mem::replace(&mut self.state, state);
        self.placed.push((step, before));
        self.set = set;
        for entry in [2 * step, 2 * step + 1] {
            let (before, next) = (self.before[entry], self.next[entry]);
            self.next[before] = next;
            self.before[next] = before;
        }
        true
    }

    fn take_back(&mut self) -> Option<usize> {
        let (step, state) = self.placed.pop()?;
        self.state = state;
        self.set ^= number(step);
        for entry in [2 * step + 1, 2 * step] {
            let (before, next) = (self.before[entry], self.next[entry]);
            self.next[before] = entry;
            self.before[next] = entry;
        }
        Some(step)
    }
}

/// A random number that belongs to a step: two rounds of `SplitMix64`.
fn number(step: usize) -> u128 {
    let mix = |seed: u64| {
        let mut z = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15);
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        u128::from(z ^ (z >> 31))
    };
    let step = step as u64;
    mix(2 * step + 1) << 64 | mix(2 * step + 2)
}
