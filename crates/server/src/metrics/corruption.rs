//! Comparisons of the members' data, and repairs. Ours: etcd counts none of it; its alarms are beside
//! (`etcd_debugging_server_alarms`).

use prometheus::IntCounterVec;

use super::Registrar;

/// Which comparison.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Check {
    /// When the member starts.
    Initial,
    /// From time to time.
    Periodic,
    /// Of the hashes that compactions leave.
    CompactHash,
}

/// What came of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Checked {
    /// All members have the same.
    Passed,
    /// All that could be compared have the same.
    Skipped,
    /// A majority has the same, others have not.
    Corrupt,
    /// Members differ, and nobody knows who is right.
    Undecided,
}

/// What came of a repair.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Repaired {
    /// The member has what the others have.
    Success,
    /// It is tried again.
    Failure,
}

impl Check {
    const ALL: [Self; 3] = [Self::Initial, Self::Periodic, Self::CompactHash];

    const fn name(self) -> &'static str {
        match self {
            Self::Initial => "initial",
            Self::Periodic => "periodic",
            Self::CompactHash => "compact_hash",
        }
    }
}

impl Checked {
    const ALL: [Self; 4] = [Self::Passed, Self::Skipped, Self::Corrupt, Self::Undecided];

    const fn name(self) -> &'static str {
        match self {
            Self::Passed => "passed",
            Self::Skipped => "skipped",
            Self::Corrupt => "corrupt",
            Self::Undecided => "undecided",
        }
    }
}

impl Repaired {
    const ALL: [Self; 2] = [Self::Success, Self::Failure];

    const fn name(self) -> &'static str {
        match self {
            Self::Success => "success",
            Self::Failure => "failure",
        }
    }
}

pub(super) struct CorruptionMetrics {
    checks: IntCounterVec,
    repairs: IntCounterVec,
}

impl CorruptionMetrics {
    pub(super) fn register(registrar: &Registrar<'_>) -> prometheus::Result<Self> {
        let checks = registrar.counters(
            "kvorum_corruption_checks_total",
            "Comparisons of the members' data.",
            &["check", "result"],
        )?;
        let repairs = registrar.counters(
            "kvorum_corruption_repairs_total",
            "Repairs of this member from the leader.",
            &["result"],
        )?;
        // Shown from the beginning: an alert on an increase must see the first one.
        for check in Check::ALL {
            for checked in Checked::ALL {
                checks
                    .with_label_values(&[check.name(), checked.name()])
                    .reset();
            }
        }
        for repaired in Repaired::ALL {
            repairs.with_label_values(&[repaired.name()]).reset();
        }
        Ok(Self { checks, repairs })
    }
}

impl super::Metrics {
    /// Counts a comparison.
    pub(crate) fn corruption_checked(&self, check: Check, checked: Checked) {
        let checks = &self.all.corruption.checks;
        checks
            .with_label_values(&[check.name(), checked.name()])
            .inc();
    }

    /// Counts a repair of this member.
    pub(crate) fn corrupt_member_repaired(&self, repaired: Repaired) {
        let repairs = &self.all.corruption.repairs;
        repairs.with_label_values(&[repaired.name()]).inc();
    }
}
