//! Alarms: what stops a cluster from taking writes (`server/etcdserver/api/v3alarm`).

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use api::etcdserverpb::AlarmType;
use arc_swap::ArcSwap;
use backend::{Batch, Bucket, Reader, schema};
use bytes::Bytes;
use types::MemberId;

use crate::{AlarmAction, AlarmReply, OpenError};

/// The kinds as they are stored.
const NOSPACE: u8 = AlarmType::Nospace as u8;
const CORRUPT: u8 = AlarmType::Corrupt as u8;

/// An alarm's kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum AlarmKind {
    /// The quota is used up.
    NoSpace,
    /// Members disagree.
    Corrupt,
}

impl AlarmKind {
    /// As etcd writes it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::NoSpace => "NOSPACE",
            Self::Corrupt => "CORRUPT",
        }
    }
}

/// An alarm that stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Alarm {
    /// Whose.
    pub member: MemberId,
    /// Which.
    pub kind: AlarmKind,
}

/// Reads the alarms that stand. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Alarms {
    published: Arc<ArcSwap<BTreeSet<Alarm>>>,
}

impl Alarms {
    /// All of them, sorted.
    #[must_use]
    pub fn list(&self) -> Vec<Alarm> {
        self.published.load().iter().copied().collect()
    }
}

/// The alarms, and the right to change them.
#[derive(Debug)]
pub(crate) struct AlarmStore {
    standing: BTreeSet<Alarm>,
    published: Arc<ArcSwap<BTreeSet<Alarm>>>,
    is_published: bool,
    /// Raised (`true`) or cleared since the last batch.
    unstaged: BTreeMap<Alarm, bool>,
}

impl AlarmStore {
    pub(crate) fn open(reader: &Reader) -> Result<Self, OpenError> {
        let mut standing = BTreeSet::new();
        for record in reader.scan(Bucket::Alarm, &[], None) {
            standing.insert(decode(&record?.0)?);
        }
        let published = Arc::new(ArcSwap::from_pointee(standing.clone()));
        Ok(Self {
            standing,
            published,
            is_published: true,
            unstaged: BTreeMap::new(),
        })
    }

    pub(crate) fn view(&self) -> Alarms {
        Alarms {
            published: Arc::clone(&self.published),
        }
    }

    /// Whether any member has raised this alarm.
    pub(crate) fn stands(&self, kind: AlarmKind) -> bool {
        self.standing.iter().any(|alarm| alarm.kind == kind)
    }

    /// What etcd does with an alarm request. `None` is its NONE: every kind to a list, and no kind
    /// at all to the other actions. The member has to be the one whose alarm it is.
    pub(crate) fn request(
        &mut self,
        action: AlarmAction,
        member: MemberId,
        kind: Option<AlarmKind>,
    ) -> AlarmReply {
        let alarm = kind.map(|kind| Alarm { member, kind });
        let alarms = match (action, alarm) {
            (AlarmAction::Get, _) => self
                .standing
                .iter()
                .filter(|alarm| kind.is_none_or(|kind| alarm.kind == kind))
                .copied()
                .collect(),
            (AlarmAction::Activate, Some(alarm)) => {
                self.raise(alarm);
                vec![alarm]
            }
            (AlarmAction::Deactivate, Some(alarm)) if self.standing.contains(&alarm) => {
                self.clear(alarm);
                vec![alarm]
            }
            (AlarmAction::Activate | AlarmAction::Deactivate, _) => Vec::new(),
        };
        AlarmReply { alarms }
    }

    pub(crate) fn raise(&mut self, alarm: Alarm) {
        let is_first = !self.stands(alarm.kind);
        if !self.standing.insert(alarm) {
            return;
        }
        self.note(alarm, true);
        if is_first {
            tracing::warn!(alarm = alarm.kind.name(), from = %alarm.member, "alarm raised");
        }
    }

    fn clear(&mut self, alarm: Alarm) {
        self.standing.remove(&alarm);
        self.note(alarm, false);
        if !self.stands(alarm.kind) {
            tracing::warn!(alarm = alarm.kind.name(), from = %alarm.member, "alarm disarmed");
        }
    }

    fn note(&mut self, alarm: Alarm, stands: bool) {
        self.unstaged.insert(alarm, stands);
        self.is_published = false;
    }

    /// Shows the alarms to readers.
    pub(crate) fn publish(&mut self) {
        if !self.is_published {
            self.published.store(Arc::new(self.standing.clone()));
            self.is_published = true;
        }
    }

    /// Other alarms take the place of these.
    pub(crate) fn install(&mut self, other: Self) {
        self.standing = other.standing;
        self.unstaged.clear();
        self.is_published = false;
        self.publish();
    }

    /// Everything is to be staged, not only what has changed.
    pub(crate) fn restage(&mut self) {
        self.unstaged = self.standing.iter().map(|alarm| (*alarm, true)).collect();
    }

    /// Adds to `batch` all that has changed since the last call.
    pub(crate) fn stage(&mut self, batch: &mut Batch) {
        for (alarm, stands) in std::mem::take(&mut self.unstaged) {
            let key = encode(alarm);
            match stands {
                true => batch.put(Bucket::Alarm, key, Bytes::new()),
                false => batch.delete(Bucket::Alarm, key),
            }
        }
    }
}

pub(crate) fn encode(alarm: Alarm) -> Bytes {
    let kind = match alarm.kind {
        AlarmKind::NoSpace => NOSPACE,
        AlarmKind::Corrupt => CORRUPT,
    };
    Bytes::copy_from_slice(&schema::alarm::encode(alarm.member, kind))
}

pub(crate) fn decode(key: &Bytes) -> Result<Alarm, OpenError> {
    let (member, kind) = schema::alarm::decode(key)?;
    let kind = match kind {
        NOSPACE => AlarmKind::NoSpace,
        CORRUPT => AlarmKind::Corrupt,
        kind => return Err(OpenError::AlarmKind { kind }),
    };
    Ok(Alarm { member, kind })
}
