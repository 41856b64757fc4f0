//! Alarms: what stops a cluster from taking writes (`server/etcdserver/api/v3alarm`).
//!
//! A CORRUPT alarm may be a *quarantine*: a majority of the members agrees, this one does not, and it is going
//! to take the others' state. Clients of the others need not suffer for it, so nothing is refused over such an
//! alarm; the member itself answers nobody until it is over (`server/corrupt`).
// Differs from etcd: there every CORRUPT alarm stops the whole cluster.

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

/// The value of an alarm that is a quarantine; others have none.
const QUARANTINE: &[u8] = b"q";

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
    published: Arc<ArcSwap<Standing>>,
}

/// The alarms that stand, and whether each is a quarantine.
type Standing = BTreeMap<Alarm, bool>;

impl Alarms {
    /// All of them, sorted.
    #[must_use]
    pub fn list(&self) -> Vec<Alarm> {
        self.published.load().keys().copied().collect()
    }

    /// Those that are not the affair of one member alone.
    #[must_use]
    pub fn of_the_cluster(&self) -> Vec<Alarm> {
        let standing = self.published.load();
        let all = standing
            .iter()
            .filter(|(_, is_quarantine)| !**is_quarantine);
        all.map(|(alarm, _)| *alarm).collect()
    }

    /// Whether this member is known to be corrupt, and is going to take the others' state.
    #[must_use]
    pub fn is_quarantined(&self, member: MemberId) -> bool {
        let kind = AlarmKind::Corrupt;
        self.published.load().get(&Alarm { member, kind }) == Some(&true)
    }
}

/// The alarms, and the right to change them.
#[derive(Debug)]
pub(crate) struct AlarmStore {
    standing: Standing,
    published: Arc<ArcSwap<Standing>>,
    is_published: bool,
    /// Raised or cleared since the last batch.
    unstaged: BTreeSet<Alarm>,
}

impl AlarmStore {
    pub(crate) fn open(reader: &Reader) -> Result<Self, OpenError> {
        let mut standing = Standing::new();
        for record in reader.scan(Bucket::Alarm, &[], None) {
            let (key, value) = record?;
            standing.insert(decode(&key)?, value[..] == *QUARANTINE);
        }
        let published = Arc::new(ArcSwap::from_pointee(standing.clone()));
        Ok(Self {
            standing,
            published,
            is_published: true,
            unstaged: BTreeSet::new(),
        })
    }

    pub(crate) fn view(&self) -> Alarms {
        Alarms {
            published: Arc::clone(&self.published),
        }
    }

    /// Whether any member has raised this alarm for all.
    pub(crate) fn stands(&self, kind: AlarmKind) -> bool {
        let mut standing = self.standing.iter();
        standing.any(|(alarm, is_quarantine)| alarm.kind == kind && !is_quarantine)
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
                .keys()
                .filter(|alarm| kind.is_none_or(|kind| alarm.kind == kind))
                .copied()
                .collect(),
            (AlarmAction::Activate, Some(alarm)) => {
                self.raise(alarm, false);
                vec![alarm]
            }
            (AlarmAction::Quarantine, Some(alarm)) => {
                debug_assert_eq!(alarm.kind, AlarmKind::Corrupt, "only that is one");
                self.raise(alarm, true);
                vec![alarm]
            }
            (AlarmAction::Deactivate, Some(alarm)) if self.standing.contains_key(&alarm) => {
                self.clear(alarm);
                vec![alarm]
            }
            (AlarmAction::Activate | AlarmAction::Deactivate | AlarmAction::Quarantine, _) => {
                Vec::new()
            }
        };
        AlarmReply { alarms }
    }

    fn raise(&mut self, alarm: Alarm, is_quarantine: bool) {
        let is_first = is_quarantine || !self.stands(alarm.kind);
        if self.standing.insert(alarm, is_quarantine) == Some(is_quarantine) {
            return;
        }
        self.note(alarm);
        if is_first {
            tracing::warn!(alarm = alarm.kind.name(), from = %alarm.member, "alarm raised");
        }
    }

    fn clear(&mut self, alarm: Alarm) {
        self.standing.remove(&alarm);
        self.note(alarm);
        if !self.stands(alarm.kind) {
            tracing::warn!(alarm = alarm.kind.name(), from = %alarm.member, "alarm disarmed");
        }
    }

    fn note(&mut self, alarm: Alarm) {
        self.unstaged.insert(alarm);
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
        self.unstaged = self.standing.keys().copied().collect();
    }

    /// Adds to `batch` all that has changed since the last call.
    pub(crate) fn stage(&mut self, batch: &mut Batch) {
        for alarm in std::mem::take(&mut self.unstaged) {
            let key = encode(alarm);
            match self.standing.get(&alarm) {
                Some(true) => batch.put(Bucket::Alarm, key, Bytes::from_static(QUARANTINE)),
                Some(false) => batch.put(Bucket::Alarm, key, Bytes::new()),
                None => batch.delete(Bucket::Alarm, key),
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
