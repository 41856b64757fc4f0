//! Alarms: what stops a cluster from taking writes.

use types::MemberId;

/// An alarm's kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum AlarmKind {
    /// The quota is used up.
    NoSpace,
    /// Members disagree.
    Corrupt,
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
pub struct Alarms {}

impl Alarms {
    /// All of them, sorted.
    #[must_use]
    pub fn list(&self) -> Vec<Alarm> {
        todo!()
    }
}
