//! Values of flags, read as Go's `flag` package and etcd read them.

use std::time::Duration;

use types::{Url, UrlError};

use crate::config::features::FeatureGateError;
use crate::config::{ClusterState, MetricsLevel, duration};
use backup::Compression;

/// A value was refused, in the words of Go's `flag` package and of etcd.
///
/// ```
/// use kvorum::config::flags::{self, FlagError, ValueError};
///
/// let refused = |flag| flags::parse(&[flag]).expect_err("a wrong value").errors.remove(0);
/// let error = refused("--snapshot-count=many");
/// assert!(matches!(error, FlagError::Value { source: ValueError::Parse, .. }));
/// assert_eq!(error.to_string(), "invalid value \"many\" for flag -snapshot-count: parse error");
/// let error = refused("--initial-cluster-state=old");
/// assert!(matches!(error, FlagError::Value { source: ValueError::Choice, .. }));
/// assert_eq!(error.to_string(), "invalid value \"old\" for flag -initial-cluster-state: invalid value");
/// ```
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ValueError {
    /// Not a number, duration or truth value.
    #[error("parse error")]
    Parse,
    /// A number that is too large.
    #[error("value out of range")]
    Range,
    /// Not one of the values there are.
    #[error("invalid value")]
    Choice,
    /// Not a number, in the words of the function of Go that etcd calls itself.
    #[error("strconv.ParseUint: parsing {value:?}: {reason}")]
    Unsigned {
        /// As given.
        value: String,
        /// Why not.
        reason: &'static str,
    },
    /// Not a list of urls.
    #[error(transparent)]
    Url(#[from] UrlError),
    /// Not a list of feature gates.
    #[error(transparent)]
    FeatureGate(#[from] FeatureGateError),
}

pub(super) fn text(option: &mut String, value: &str) -> Result<(), ValueError> {
    value.clone_into(option);
    Ok(())
}

pub(super) fn switch(option: &mut bool, value: &str) -> Result<(), ValueError> {
    *option = truth(value)?;
    Ok(())
}

pub(crate) fn truth(value: &str) -> Result<bool, ValueError> {
    match value {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Ok(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Ok(false),
        _ => Err(ValueError::Parse),
    }
}

/// A whole number as Go reads it: also hexadecimal, octal and binary.
pub(super) fn signed(option: &mut i64, value: &str) -> Result<(), ValueError> {
    *option = number(value)?;
    Ok(())
}

pub(crate) fn unsigned(option: &mut u64, value: &str) -> Result<(), ValueError> {
    if value.starts_with(['-', '+']) {
        return Err(ValueError::Parse);
    }
    *option = number(value)?;
    Ok(())
}

pub(super) fn unsigned_32(option: &mut u32, value: &str) -> Result<(), ValueError> {
    let refused = |reason| ValueError::Unsigned {
        value: value.to_owned(),
        reason,
    };
    if value.starts_with(['-', '+']) {
        return Err(refused("invalid syntax"));
    }
    *option = number(value).map_err(|error| match error {
        ValueError::Range => refused("value out of range"),
        _ => refused("invalid syntax"),
    })?;
    Ok(())
}

fn number<N: TryFrom<i128>>(value: &str) -> Result<N, ValueError> {
    let (negative, digits) = match value.strip_prefix('-') {
        Some(digits) => (true, digits),
        None => (false, value.strip_prefix('+').unwrap_or(value)),
    };
    let (digits, radix) = match digits.get(..2) {
        Some("0x" | "0X") => (&digits[2..], 16),
        Some("0o" | "0O") => (&digits[2..], 8),
        Some("0b" | "0B") => (&digits[2..], 2),
        Some(two) if two.starts_with('0') => (&digits[1..], 8),
        _ => (digits, 10),
    };
    if digits.is_empty() || !digits.chars().all(|c| c.is_digit(radix)) {
        return Err(ValueError::Parse);
    }
    let magnitude = i128::from_str_radix(digits, radix).or(Err(ValueError::Range))?;
    N::try_from(if negative { -magnitude } else { magnitude }).or(Err(ValueError::Range))
}

/// A list of urls; nothing at all leaves the default, as in etcd.
pub(super) fn urls(option: &mut Option<Vec<Url>>, value: &str) -> Result<(), ValueError> {
    *option = if value.is_empty() {
        None
    } else {
        Some(Url::parse_list(value)?)
    };
    Ok(())
}

/// A list of urls; none if nothing is given.
pub(super) fn url_list(option: &mut Vec<Url>, value: &str) -> Result<(), ValueError> {
    *option = if value.is_empty() {
        Vec::new()
    } else {
        Url::parse_list(value)?
    };
    Ok(())
}

/// A list in which nothing is sorted, as etcd's `StringsValue`.
pub(super) fn list(option: &mut Vec<String>, value: &str) -> Result<(), ValueError> {
    *option = value
        .split(',')
        .filter(|item| !item.is_empty())
        .map(str::to_owned)
        .collect();
    Ok(())
}

/// A list in which everything is once, sorted, as etcd's `UniqueStringsValue`.
pub(super) fn unique_list(option: &mut Vec<String>, value: &str) -> Result<(), ValueError> {
    list(option, value)?;
    option.sort_unstable();
    option.dedup();
    Ok(())
}

/// Urls, or `*`.
pub(super) fn origins(option: &mut Vec<String>, value: &str) -> Result<(), ValueError> {
    if value == "*" || value.is_empty() {
        *option = vec!["*".to_owned()];
        return Ok(());
    }
    *option = Url::parse_list(value)?.iter().map(Url::to_string).collect();
    option.sort_unstable();
    option.dedup();
    Ok(())
}

/// As in etcd, what is not `extensive` is basic.
pub(super) fn metrics_level(option: &mut MetricsLevel, value: &str) -> Result<(), ValueError> {
    *option = match value {
        "extensive" => MetricsLevel::Extensive,
        _ => MetricsLevel::Basic,
    };
    Ok(())
}

pub(super) fn time(option: &mut Duration, value: &str) -> Result<(), ValueError> {
    *option = duration::parse(value).or(Err(ValueError::Parse))?;
    Ok(())
}

pub(super) fn compression(option: &mut Compression, value: &str) -> Result<(), ValueError> {
    *option = match value {
        "none" => Compression::None,
        "gzip" => Compression::Gzip,
        "zstd" => Compression::Zstd,
        _ => return Err(ValueError::Choice),
    };
    Ok(())
}

pub(super) fn cluster_state(option: &mut ClusterState, value: &str) -> Result<(), ValueError> {
    *option = match value {
        "new" => ClusterState::New,
        "existing" => ClusterState::Existing,
        _ => return Err(ValueError::Choice),
    };
    Ok(())
}

pub(super) fn choice(choices: &[&str], value: &str) -> Result<(), ValueError> {
    if choices.contains(&value) {
        Ok(())
    } else {
        Err(ValueError::Choice)
    }
}
