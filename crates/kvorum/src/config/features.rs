//! Feature gates (`--feature-gates`), as etcd 3.6 and 3.7 have them (`server/features`, `pkg/featuregate`).

use std::collections::BTreeMap;

use super::flags::truth;

/// A feature that can be switched.
///
/// ```
/// use kvorum::Config;
/// use kvorum::config::Gate;
///
/// let builder = Config::builder().data_dir("/var/lib/mine");
/// let features = builder.flag("feature-gates", "SetMemberLocalAddr=true").build()?.features;
/// for (gate, is_on) in features.given() {
///     println!("{} is {}", gate.name(), if is_on { "on" } else { "off" });
/// }
/// assert!(features.enabled(Gate::SetMemberLocalAddr) && !features.enabled(Gate::PriorityRequest));
/// # Ok::<(), kvorum::ConfigError>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Gate {
    /// Health checks fail while a member is defragmented.
    StopGRPCServiceOnDefrag,
    /// A member compares its data with its peers' before it serves anybody.
    InitialCorruptCheck,
    /// The leader compares the members' data after compactions.
    CompactHashCheck,
    /// How etcd's transactions read what they have written.
    TxnModeWriteWithSharedBuffer,
    /// Members learn how long leases still live.
    LeaseCheckpoint,
    /// They keep it over restarts.
    LeaseCheckpointPersist,
    /// Peers are dialled from the address that this member advertises.
    SetMemberLocalAddr,
    /// Leases are renewed without waiting for what is not applied yet (3.7).
    FastLeaseKeepAlive,
    /// Lease revocations pass a member that has too much to do (3.7).
    PriorityRequest,
}

/// What a gate is when nobody says.
struct Row {
    gate: Gate,
    name: &'static str,
    is_alpha: bool,
    default: bool,
}

const fn alpha(gate: Gate, name: &'static str) -> Row {
    Row {
        gate,
        name,
        is_alpha: true,
        default: false,
    }
}

const TABLE: [Row; 9] = [
    alpha(Gate::StopGRPCServiceOnDefrag, "StopGRPCServiceOnDefrag"),
    alpha(Gate::InitialCorruptCheck, "InitialCorruptCheck"),
    // Differs from etcd, where it is off: the hashes are there anyway, and comparing them is a question to each
    // member a minute.
    Row {
        gate: Gate::CompactHashCheck,
        name: "CompactHashCheck",
        is_alpha: true,
        default: true,
    },
    Row {
        gate: Gate::TxnModeWriteWithSharedBuffer,
        name: "TxnModeWriteWithSharedBuffer",
        is_alpha: false,
        default: true,
    },
    alpha(Gate::LeaseCheckpoint, "LeaseCheckpoint"),
    alpha(Gate::LeaseCheckpointPersist, "LeaseCheckpointPersist"),
    alpha(Gate::SetMemberLocalAddr, "SetMemberLocalAddr"),
    Row {
        gate: Gate::FastLeaseKeepAlive,
        name: "FastLeaseKeepAlive",
        is_alpha: false,
        default: true,
    },
    alpha(Gate::PriorityRequest, "PriorityRequest"),
];

/// A list of feature gates was refused, in etcd's words.
///
/// ```
/// use kvorum::config::features::FeatureGateError;
/// use kvorum::config::flags::{self, FlagError, ValueError};
///
/// let refused = flags::parse(&["--feature-gates=Foo=true"]).expect_err("there is no such gate");
/// let FlagError::Value { source: ValueError::FeatureGate(error), .. } = &refused.errors[0] else {
///     panic!("{refused}");
/// };
/// assert!(matches!(error, FeatureGateError::Unknown { gate } if gate == "Foo"));
/// assert_eq!(error.to_string(), "unrecognized feature gate: Foo");
/// ```
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FeatureGateError {
    /// A name without `=`.
    #[error("missing bool value for {gate}")]
    NoValue {
        /// The name.
        gate: String,
    },
    /// Neither true nor false.
    #[error(
        "invalid value of {gate}={value}, err: strconv.ParseBool: parsing {value:?}: invalid syntax"
    )]
    NotBoolean {
        /// The name.
        gate: String,
        /// What was given.
        value: String,
    },
    /// There is no such gate.
    #[error("unrecognized feature gate: {gate}")]
    Unknown {
        /// The name.
        gate: String,
    },
}

/// Which features are on.
///
/// ```
/// use kvorum::Config;
/// use kvorum::config::Gate;
///
/// let builder = Config::builder().data_dir("/var/lib/mine");
/// let config = builder.flag("feature-gates", "InitialCorruptCheck=true").build()?;
/// assert!(config.features.enabled(Gate::InitialCorruptCheck));
/// # Ok::<(), kvorum::ConfigError>(())
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FeatureGates {
    given: BTreeMap<Gate, bool>,
    /// Those that `--feature-gates` has named, not an `--experimental-` flag.
    named: Vec<Gate>,
}

impl Gate {
    /// Its name.
    #[must_use]
    pub fn name(self) -> &'static str {
        row(self).name
    }
}

fn row(gate: Gate) -> &'static Row {
    TABLE
        .iter()
        .find(|row| row.gate == gate)
        .expect("the table has every gate")
}

impl FeatureGates {
    /// Whether the feature is on.
    #[must_use]
    pub fn enabled(&self, gate: Gate) -> bool {
        let default = row(gate).default;
        self.given.get(&gate).copied().unwrap_or(default)
    }

    /// Every gate's name and stage, and whether it is open; for the metric of them.
    pub fn all(&self) -> impl Iterator<Item = (&'static str, &'static str, bool)> {
        TABLE.iter().map(|row| {
            let stage = if row.is_alpha { "ALPHA" } else { "BETA" };
            (row.name, stage, self.enabled(row.gate))
        })
    }

    /// The gates that were given a value.
    pub fn given(&self) -> impl Iterator<Item = (Gate, bool)> {
        self.given.iter().map(|(gate, on)| (*gate, *on))
    }

    /// Whether `--feature-gates` has named it.
    pub(super) fn is_named(&self, gate: Gate) -> bool {
        self.named.contains(&gate)
    }

    /// Sets one gate.
    pub(super) fn set_one(&mut self, gate: Gate, on: bool) {
        self.given.insert(gate, on);
    }

    /// Reads `Name=true,Name=false`. `AllAlpha` and `AllBeta` stand for those that are not named.
    pub(super) fn set(&mut self, text: &str) -> Result<(), FeatureGateError> {
        let mut groups = Vec::new();
        for pair in text.split(',').filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').unzip();
            let name = name.unwrap_or(pair).trim();
            let gate = || name.to_owned();
            let value = value.ok_or_else(|| FeatureGateError::NoValue { gate: gate() })?;
            let value = value.trim();
            let on = truth(value).map_err(|_neither| FeatureGateError::NotBoolean {
                gate: gate(),
                value: value.to_owned(),
            })?;
            match TABLE.iter().find(|row| row.name == name) {
                Some(row) => {
                    self.given.insert(row.gate, on);
                    self.named.push(row.gate);
                }
                None if name == "AllAlpha" => groups.push((true, on)),
                None if name == "AllBeta" => groups.push((false, on)),
                None => return Err(FeatureGateError::Unknown { gate: gate() }),
            }
        }
        for (is_alpha, on) in groups {
            for row in TABLE.iter().filter(|row| row.is_alpha == is_alpha) {
                self.given.entry(row.gate).or_insert(on);
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gates(text: &str) -> Result<FeatureGates, String> {
        let mut gates = FeatureGates::default();
        gates
            .set(text)
            .map(|()| gates)
            .map_err(|error| error.to_string())
    }

    #[test]
    fn gates_are_read_and_the_others_have_their_default() {
        let read = gates("InitialCorruptCheck=true, SetMemberLocalAddr = t,").unwrap();
        assert!(read.enabled(Gate::InitialCorruptCheck));
        assert!(read.enabled(Gate::SetMemberLocalAddr));
        assert!(read.enabled(Gate::TxnModeWriteWithSharedBuffer));
        assert!(!read.enabled(Gate::LeaseCheckpoint));
        let read = gates("AllAlpha=true,LeaseCheckpoint=false").unwrap();
        assert!(read.enabled(Gate::CompactHashCheck) && !read.enabled(Gate::LeaseCheckpoint));
    }

    #[test]
    fn wrong_gates_are_refused_in_etcds_words() {
        for (text, refusal) in [
            ("Foo=true", "unrecognized feature gate: Foo"),
            (
                "InitialCorruptCheck",
                "missing bool value for InitialCorruptCheck",
            ),
            (
                "InitialCorruptCheck=yes",
                "invalid value of InitialCorruptCheck=yes, err: strconv.ParseBool: parsing \"yes\": invalid syntax",
            ),
        ] {
            assert_eq!(gates(text).unwrap_err(), refusal);
        }
    }
}
