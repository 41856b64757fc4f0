//! What clients did to a cluster and what they were told: operations with the times between which
//! each took effect, and what watchers received.
//!
//! What this is not: a judgement. [`crate::check`] judges.

use std::time::Duration;

use api::mvccpb::{Event, KeyValue};
use bytes::Bytes;

/// What a client was told in the end.
#[derive(Debug, Clone, PartialEq)]
pub enum Outcome {
    /// It was done.
    Done {
        /// The revision in the answer's header.
        revision: i64,
        /// The rest of the answer.
        reply: Reply,
    },
    /// It was refused by an answer, so it must not have had any effect.
    Refused,
    /// No answer: it may have had its effect, or have it any time later.
    Unknown,
}

/// Keys from one to another, as a request has them: without an end, one key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Range {
    /// The first key.
    pub key: Bytes,
    /// The key behind the last; empty for a single key.
    pub end: Bytes,
}

impl Range {
    /// One key.
    #[must_use]
    pub fn single(key: impl Into<Bytes>) -> Range {
        Range {
            key: key.into(),
            end: Bytes::new(),
        }
    }

    /// All keys that start so.
    #[must_use]
    pub fn prefix(prefix: &str) -> Range {
        let mut end = prefix.as_bytes().to_vec();
        if let Some(last) = end.last_mut() {
            *last += 1;
        }
        Range {
            key: prefix.to_owned().into(),
            end: end.into(),
        }
    }

    /// All keys.
    #[must_use]
    pub fn all() -> Range {
        Range {
            key: Bytes::from_static(&[0]),
            end: Bytes::from_static(&[0]),
        }
    }

    /// Whether a key is in it.
    #[must_use]
    pub fn contains(&self, key: &[u8]) -> bool {
        if self.end.is_empty() {
            return key == self.key;
        }
        key >= &self.key[..] && (self.end[..] == [0] || key < &self.end[..])
    }
}

/// How current a read has to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// It shows everything that was done before it began.
    Linearizable,
    /// What the asked member has.
    Serializable,
}

/// What a client asked for. Values are unique in a history: a value says who wrote it.
#[derive(Debug, Clone, PartialEq)]
pub enum Request {
    /// Writes keys, in one revision.
    Put {
        /// Keys and their values, in the order of the request.
        pairs: Vec<(Bytes, Bytes)>,
        /// The lease they are attached to, or 0.
        lease: i64,
    },
    /// Deletes a key.
    Delete {
        /// The key.
        key: Bytes,
    },
    /// Writes a key if it is still as it was seen, or else reads it: a compare-and-swap by
    /// `mod_revision`.
    Swap {
        /// The key.
        key: Bytes,
        /// What it was seen as; none for a key that must not exist.
        expected: Option<KeyValue>,
        /// The new value.
        value: Bytes,
    },
    /// Reads keys.
    Read {
        /// Which.
        range: Range,
        /// How current.
        mode: Mode,
    },
    /// Makes a lease.
    Grant {
        /// Its id.
        lease: i64,
        /// Seconds that it lives without being kept alive.
        ttl: i64,
    },
    /// Ends a lease and deletes its keys.
    Revoke {
        /// Its id.
        lease: i64,
    },
    /// Makes a lease live its full time again.
    KeepAlive {
        /// Its id.
        lease: i64,
    },
}

/// What an answer says besides its header.
#[derive(Debug, Clone, PartialEq)]
pub enum Reply {
    /// The keys were written.
    Put,
    /// Whether there was something to delete.
    Deleted(bool),
    /// The key was written.
    Swapped,
    /// The key was not as expected, but so.
    NotSwapped(Option<KeyValue>),
    /// The keys that were there, in order.
    Read(Vec<KeyValue>),
    /// The lease was made, with so many seconds.
    Granted(i64),
    /// The lease was ended.
    Revoked,
    /// The lease lives at least so many seconds more; 0 if there is no such lease.
    KeptAlive(i64),
}

/// One request of one client and its end.
#[derive(Debug, Clone, PartialEq)]
pub struct Operation {
    /// Who asked; a client asks for one thing after the other.
    pub client: usize,
    /// Which member was asked.
    pub member: usize,
    /// Which life of the member answered; none if it was restarted meanwhile.
    pub incarnation: Option<u64>,
    /// Just before the request was sent.
    pub invoked: Duration,
    /// Just after the answer came, or after the client gave up.
    pub returned: Duration,
    /// What was asked.
    pub request: Request,
    /// What came of it.
    pub outcome: Outcome,
}

impl Operation {
    /// The answer, if there was one.
    #[must_use]
    pub fn done(&self) -> Option<(i64, &Reply)> {
        match &self.outcome {
            Outcome::Done { revision, reply } => Some((*revision, reply)),
            _ => None,
        }
    }

    /// Whether the header's revision is that of the store as this operation left or saw it. The
    /// answers of grants and keep-alives have some revision of some moment.
    #[must_use]
    pub fn is_about_keys(&self) -> bool {
        !matches!(
            self.request,
            Request::Grant { .. } | Request::KeepAlive { .. }
        )
    }

    /// Whether it made the revision that it returned.
    #[must_use]
    pub fn wrote(&self) -> bool {
        matches!(
            self.done(),
            Some((_, Reply::Put | Reply::Deleted(true) | Reply::Swapped))
        )
    }

    /// Whether everything that ended before it has to be seen by it.
    #[must_use]
    pub fn is_linearizable(&self) -> bool {
        match &self.request {
            Request::Read { mode, .. } => *mode == Mode::Linearizable,
            _ => self.is_about_keys(),
        }
    }
}

/// What a watcher got on one stream.
#[derive(Debug, Clone, PartialEq)]
pub struct Session {
    /// Which member was asked.
    pub member: usize,
    /// From which revision on it asked.
    pub start_revision: i64,
    /// The answers, in order, without the one that says that the watch was made.
    pub answers: Vec<Answer>,
}

/// One message of a watch.
#[derive(Debug, Clone, PartialEq)]
pub struct Answer {
    /// When it came.
    pub received: Duration,
    /// The revision in its header.
    pub revision: i64,
    /// What happened; nothing in a notification of progress.
    pub events: Vec<Event>,
}

impl Answer {
    /// Whether it says that everything up to its revision has been sent.
    #[must_use]
    pub fn is_progress(&self) -> bool {
        self.events.is_empty()
    }
}

/// Everything one watcher got. When a stream ends, the watcher goes on with the next from the
/// revision behind the last that it knows of.
#[derive(Debug, Clone, PartialEq)]
pub struct Watcher {
    /// Which keys it watches.
    pub range: Range,
    /// Its streams, one after the other.
    pub sessions: Vec<Session>,
}

impl Watcher {
    /// All events with the stream they came on, in order.
    pub fn events(&self) -> impl Iterator<Item = &Event> {
        let answers = self.sessions.iter().flat_map(|session| &session.answers);
        answers.flat_map(|answer| &answer.events)
    }
}

/// The revision of an event.
#[must_use]
pub fn revision(event: &Event) -> i64 {
    event.kv.as_ref().map_or(0, |kv| kv.mod_revision)
}

/// The key of an event.
#[must_use]
pub fn key(event: &Event) -> &[u8] {
    event.kv.as_ref().map_or(&[], |kv| &kv.key)
}
