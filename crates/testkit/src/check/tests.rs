//! The checkers can fail: a good history passes, and every way of breaking it is noticed by the
//! property that it breaks.

use std::time::Duration;

use api::mvccpb::{Event, KeyValue, event::EventType};
use bytes::Bytes;

use super::Run;
use super::linearizable::{Act, Step, Verdict, search};
use crate::history::{
    Answer, Mode, Operation, Outcome, Range, Reply, Request, Session, Watcher, revision,
};
use crate::model::Model;

const LEASE: i64 = 7;
const TTL: i64 = 3;

/// A history in the making: every operation takes from one second to the next.
#[derive(Default)]
struct Tale {
    events: Vec<Event>,
    operations: Vec<Operation>,
    watchers: Vec<Watcher>,
}

fn at(second: u64) -> Duration {
    Duration::from_secs(second)
}

fn bytes(text: &str) -> Bytes {
    Bytes::copy_from_slice(text.as_bytes())
}

impl Tale {
    fn newest(&self) -> i64 {
        self.events.last().map_or(1, revision)
    }

    fn value(&self, key: &str) -> Option<KeyValue> {
        let of_key = |event: &&Event| event.kv.as_ref().is_some_and(|kv| kv.key == key);
        let last = self.events.iter().rev().find(of_key)?;
        let kv = last.kv.clone();
        kv.filter(|_| last.r#type() == EventType::Put)
    }

    fn event(&mut self, revision: i64, key: &str, value: Option<&str>, lease: i64) {
        let before = self.value(key);
        let kv = match value {
            Some(value) => KeyValue {
                key: bytes(key),
                value: bytes(value),
                create_revision: before.as_ref().map_or(revision, |b| b.create_revision),
                mod_revision: revision,
                version: before.as_ref().map_or(0, |b| b.version) + 1,
                lease,
            },
            None => KeyValue {
                key: bytes(key),
                mod_revision: revision,
                ..Default::default()
            },
        };
        let kind = if value.is_some() {
            EventType::Put
        } else {
            EventType::Delete
        };
        self.events.push(Event {
            r#type: kind.into(),
            kv: Some(kv),
            prev_kv: before,
        });
    }

    fn operation(&mut self, request: Request, reply: Reply) -> &mut Operation {
        let second = self.operations.len() as u64;
        let revision = self.newest();
        self.operations.push(Operation {
            client: 0,
            member: 0,
            incarnation: Some(1),
            invoked: at(second),
            returned: at(second) + Duration::from_millis(500),
            request,
            outcome: Outcome::Done { revision, reply },
        });
        self.operations.last_mut().expect("just pushed")
    }

    fn put(&mut self, pairs: &[(&str, &str)], lease: i64) -> &mut Operation {
        let revision = self.newest() + 1;
        for (key, value) in pairs {
            self.event(revision, key, Some(value), lease);
        }
        let pairs = pairs.iter().map(|(key, value)| (bytes(key), bytes(value)));
        let pairs = pairs.collect();
        self.operation(Request::Put { pairs, lease }, Reply::Put)
    }

    fn delete(&mut self, key: &str) -> &mut Operation {
        let existed = self.value(key).is_some();
        if existed {
            self.event(self.newest() + 1, key, None, 0);
        }
        let key = bytes(key);
        self.operation(Request::Delete { key }, Reply::Deleted(existed))
    }

    fn swap(&mut self, key: &str, expected: Option<KeyValue>, value: &str) -> &mut Operation {
        let before = self.value(key);
        let reply = if before == expected {
            self.event(self.newest() + 1, key, Some(value), 0);
            Reply::Swapped
        } else {
            Reply::NotSwapped(before)
        };
        let (key, value) = (bytes(key), bytes(value));
        let request = Request::Swap {
            key,
            expected,
            value,
        };
        self.operation(request, reply)
    }

    fn read(&mut self, mode: Mode) -> &mut Operation {
        let range = Range::all();
        let model = Model::of(self.events.clone()).expect("a tale is consistent");
        let kvs = model.range_at(&range, self.newest());
        let reply = Reply::Read(kvs.into_iter().cloned().collect());
        self.operation(Request::Read { range, mode }, reply)
    }

    fn run(&self) -> Run {
        let model = Model::of(self.events.clone()).expect("a tale is consistent");
        Run::new(model, self.operations.clone(), self.watchers.clone())
    }

    /// Watches everything: on one stream up to a revision, on another from there.
    fn watch(&mut self, split: i64) {
        let (mut sessions, mut answers) = (Vec::new(), Vec::new());
        let mut start_revision = 2;
        for revision_at in 2..=self.newest() {
            let here = self.events.iter().filter(|e| revision(e) == revision_at);
            answers.push(Answer {
                received: at(1000),
                revision: revision_at,
                events: here.cloned().collect(),
            });
            answers.push(progress(revision_at));
            if revision_at == split || revision_at == self.newest() {
                sessions.push(Session {
                    member: 0,
                    start_revision,
                    answers: std::mem::take(&mut answers),
                });
                start_revision = revision_at + 1;
            }
        }
        self.watchers.push(Watcher {
            range: Range::all(),
            sessions,
        });
    }

    fn last(&mut self) -> &mut Operation {
        self.operations.last_mut().expect("there are some")
    }

    /// The answers of the watcher's first stream.
    fn answers(&mut self) -> &mut Vec<Answer> {
        &mut self.watchers[0].sessions[0].answers
    }
}

fn progress(revision: i64) -> Answer {
    Answer {
        received: at(1000),
        revision,
        events: Vec::new(),
    }
}

/// Revisions: a 2, b and c 3, a 4, b deleted 5, l 6, l gone 7, b 8.
fn good() -> Tale {
    let mut tale = Tale::default();
    tale.put(&[("a", "1")], 0);
    tale.put(&[("b", "2"), ("c", "3")], 0);
    tale.read(Mode::Linearizable);
    let seen = tale.value("a");
    tale.swap("a", seen.clone(), "4");
    tale.swap("a", seen, "5");
    tale.delete("b");
    tale.delete("b");
    let request = Request::Grant {
        lease: LEASE,
        ttl: TTL,
    };
    tale.operation(request, Reply::Granted(TTL));
    tale.put(&[("l", "6")], LEASE);
    let request = Request::KeepAlive { lease: LEASE };
    tale.operation(request, Reply::KeptAlive(TTL));
    tale.read(Mode::Serializable);
    while tale.operations.len() < 15 {
        tale.read(Mode::Linearizable);
    }
    tale.event(7, "l", None, 0);
    tale.put(&[("b", "7")], 0);
    tale.read(Mode::Linearizable);
    tale.watch(4);
    tale
}

/// Breaks the good history, and says which properties notice.
fn noticed(break_it: impl FnOnce(&mut Tale)) -> Vec<&'static str> {
    let mut tale = good();
    break_it(&mut tale);
    tale.run().violated()
}

#[test]
fn a_good_history_passes() {
    good().run().check().unwrap();
}

#[test]
fn an_acknowledged_write_that_is_lost_is_noticed() {
    let noticed = noticed(|tale| {
        tale.put(&[("a", "lost")], 0);
        tale.events.pop();
    });
    assert!(
        noticed.contains(&"acknowledged writes are there"),
        "{noticed:?}"
    );
}

#[test]
fn an_acknowledged_write_with_another_value_is_noticed() {
    let noticed = noticed(|tale| {
        let event = tale.events.last_mut().unwrap();
        event.kv.as_mut().unwrap().value = bytes("4");
    });
    assert!(
        noticed.contains(&"acknowledged writes are there"),
        "{noticed:?}"
    );
}

#[test]
fn a_write_without_an_answer_may_be_there_or_not() {
    let noticed = noticed(|tale| {
        tale.put(&[("a", "there")], 0).outcome = Outcome::Unknown;
        tale.delete("c").outcome = Outcome::Unknown;
        tale.put(&[("a", "not there")], 0).outcome = Outcome::Unknown;
        tale.events.pop();
        tale.delete("a").outcome = Outcome::Unknown;
        tale.events.pop();
        tale.read(Mode::Linearizable);
    });
    assert!(noticed.is_empty(), "{noticed:?}");
}

#[test]
fn a_write_that_took_effect_twice_is_noticed() {
    let noticed = noticed(|tale| {
        tale.put(&[("a", "twice")], 0).outcome = Outcome::Unknown;
        tale.event(tale.newest() + 1, "a", Some("twice"), 0);
    });
    assert!(
        noticed.contains(&"every change has one cause"),
        "{noticed:?}"
    );
}

#[test]
fn a_refused_write_that_took_effect_is_noticed() {
    let noticed = noticed(|tale| tale.put(&[("a", "no")], 0).outcome = Outcome::Refused);
    assert!(
        noticed.contains(&"every change has one cause"),
        "{noticed:?}"
    );
}

#[test]
fn half_of_a_transaction_is_noticed() {
    let noticed = noticed(|tale| {
        tale.put(&[("a", "half"), ("c", "other half")], 0).outcome = Outcome::Unknown;
        tale.events.pop();
    });
    assert!(
        noticed.contains(&"every change has one cause"),
        "{noticed:?}"
    );
}

#[test]
fn a_change_that_nobody_made_is_noticed() {
    let put = noticed(|tale| tale.event(9, "a", Some("whose?"), 0));
    assert!(put.contains(&"every change has one cause"), "{put:?}");
    let deletion = noticed(|tale| tale.event(9, "a", None, 0));
    assert!(
        deletion.contains(&"every change has one cause"),
        "{deletion:?}"
    );
}

#[test]
fn a_stale_linearizable_read_is_noticed() {
    let noticed = noticed(|tale| {
        let mut stale = tale.operations[2].clone();
        (stale.invoked, stale.returned) = (at(50), at(51));
        tale.operations.push(stale);
    });
    assert!(
        noticed.contains(&"the order of revisions fits real time"),
        "{noticed:?}"
    );
    assert!(
        noticed.contains(&"every key is linearizable"),
        "{noticed:?}"
    );
    assert!(noticed.contains(&"no client goes back"), "{noticed:?}");
}

#[test]
fn a_stale_serializable_read_is_excused_unless_its_member_showed_more_before() {
    let stale = |member| {
        noticed(move |tale| {
            let mut stale = tale.operations[10].clone();
            (stale.invoked, stale.returned) = (at(50), at(51));
            stale.member = member;
            tale.operations.push(stale);
        })
    };
    assert!(stale(1).is_empty(), "{:?}", stale(1));
    assert_eq!(stale(0), ["no client goes back"]);
}

#[test]
fn a_read_from_the_future_is_noticed() {
    let noticed = noticed(|tale| {
        tale.last().invoked = at(1);
        tale.last().returned = at(2);
        tale.last().incarnation = None;
    });
    assert!(
        noticed.contains(&"the order of revisions fits real time"),
        "{noticed:?}"
    );
    assert!(
        noticed.contains(&"every key is linearizable"),
        "{noticed:?}"
    );
}

#[test]
fn a_dirty_read_is_noticed() {
    let noticed = noticed(|tale| {
        if let Outcome::Done {
            reply: Reply::Read(kvs),
            ..
        } = &mut tale.last().outcome
        {
            kvs[0].value = bytes("dirty");
        }
    });
    assert!(
        noticed.contains(&"reads show the store at their revision"),
        "{noticed:?}"
    );
    assert!(
        noticed.contains(&"every key is linearizable"),
        "{noticed:?}"
    );
}

#[test]
fn a_swap_on_a_changed_key_is_noticed() {
    let noticed = noticed(|tale| {
        let stale = tale.events[0].kv.clone();
        let seen = tale.value("a");
        let swap = tale.swap("a", seen, "swapped");
        if let Request::Swap { expected, .. } = &mut swap.request {
            *expected = stale;
        }
    });
    assert!(
        noticed.contains(&"reads show the store at their revision"),
        "{noticed:?}"
    );
    assert!(
        noticed.contains(&"every key is linearizable"),
        "{noticed:?}"
    );
}

#[test]
fn a_lease_that_ends_too_early_is_noticed() {
    let noticed = noticed(|tale| {
        // Kept alive again, just before its end was seen.
        let mut kept = tale.operations[9].clone();
        (kept.invoked, kept.returned) = (at(13), at(14));
        tale.operations.push(kept);
    });
    assert_eq!(noticed, ["leases live as long as promised"]);
}

#[test]
fn a_revoked_lease_that_keeps_its_keys_is_noticed() {
    let noticed = noticed(|tale| {
        tale.put(&[("l", "8")], LEASE + 1);
        tale.operation(Request::Revoke { lease: LEASE + 1 }, Reply::Revoked);
    });
    assert_eq!(noticed, ["leases live as long as promised"]);
}

#[test]
fn events_out_of_order_are_noticed() {
    let noticed = noticed(|tale| tale.answers().swap(0, 2));
    assert!(noticed.contains(&"watch: ordered"), "{noticed:?}");
    let within = self::noticed(|tale| tale.answers()[2].events.swap(0, 1));
    assert!(within.contains(&"watch: ordered"), "{within:?}");
}

#[test]
fn an_event_that_comes_twice_is_noticed() {
    let noticed = noticed(|tale| {
        let again = tale.answers()[4].clone();
        tale.watchers[0].sessions[1].answers.insert(0, again);
    });
    assert!(noticed.contains(&"watch: unique"), "{noticed:?}");
    assert!(noticed.contains(&"watch: resumable"), "{noticed:?}");
}

#[test]
fn a_gap_is_noticed_also_where_only_progress_tells() {
    let middle = noticed(|tale| {
        tale.answers().remove(2);
    });
    assert!(middle.contains(&"watch: no gap"), "{middle:?}");
    let end = noticed(|tale| {
        let answers = &mut tale.watchers[0].sessions[1].answers;
        answers.remove(answers.len() - 2);
    });
    assert_eq!(end, ["watch: no gap"]);
}

#[test]
fn a_torn_revision_is_noticed() {
    let noticed = noticed(|tale| {
        let mut first = tale.answers()[2].clone();
        let second = &mut tale.answers()[2];
        second.events.remove(0);
        first.events.pop();
        tale.answers().insert(2, first);
    });
    assert_eq!(noticed, ["watch: atomic"]);
}

#[test]
fn an_event_lost_between_two_streams_is_noticed() {
    let noticed = noticed(|tale| {
        let second = &mut tale.watchers[0].sessions[1];
        second.start_revision += 1;
        second.answers.drain(..2);
    });
    assert_eq!(noticed, ["watch: resumable"]);
}

#[test]
fn a_wrong_previous_value_is_noticed() {
    let noticed = noticed(|tale| tale.answers()[4].events[0].prev_kv = None);
    assert_eq!(noticed, ["watch: previous values"]);
}

#[test]
fn progress_before_its_events_is_noticed() {
    let noticed = noticed(|tale| {
        tale.answers().insert(2, progress(3));
    });
    assert_eq!(noticed, ["watch: truthful progress"]);
}

#[test]
fn a_version_that_does_not_follow_is_no_model() {
    let mut tale = good();
    tale.events[3].kv.as_mut().unwrap().version += 1;
    assert!(Model::of(tale.events).is_err());
    let mut gap = good();
    gap.events.remove(0);
    assert!(Model::of(gap.events).is_err());
}

fn step(invoked: u64, returned: u64, act: Act) -> Step {
    Step {
        invoked: at(invoked),
        returned: at(returned),
        act,
    }
}

fn value(text: &str) -> Option<Bytes> {
    Some(bytes(text))
}

#[test]
fn the_search_finds_an_order_that_needs_going_back() {
    let steps = vec![
        step(0, 10, Act::Write(value("a"))),
        step(1, 9, Act::Write(value("b"))),
        step(2, 8, Act::Write(value("c"))),
        step(3, 4, Act::Read(value("b"))),
        step(5, 6, Act::Read(value("a"))),
        step(7, 12, Act::Swap(value("c"), bytes("d"))),
        step(13, 14, Act::Read(value("d"))),
    ];
    assert_eq!(search(steps), Verdict::Linearizable);
}

#[test]
fn the_search_notices_two_readers_that_disagree() {
    let steps = vec![
        step(0, 10, Act::Write(value("a"))),
        step(0, 10, Act::Write(value("b"))),
        step(1, 2, Act::Read(value("a"))),
        step(3, 4, Act::Read(value("b"))),
        step(5, 6, Act::Read(value("a"))),
    ];
    assert_eq!(search(steps), Verdict::Not(4));
}

#[test]
fn the_search_leaves_out_nothing_that_has_ended() {
    let steps = vec![
        step(0, 1, Act::Write(value("a"))),
        step(2, 3, Act::Read(None)),
    ];
    assert_eq!(search(steps), Verdict::Not(1));
    let open = vec![
        step(0, u64::MAX, Act::Write(value("a"))),
        step(2, 3, Act::Read(None)),
        step(4, 5, Act::Read(value("a"))),
    ];
    assert_eq!(search(open), Verdict::Linearizable);
}
