//! Major and minor of a version: what a cluster agrees on. The patch is each member's own business.

use std::fmt;

/// A version without its patch: that of a cluster, or of what is stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Version {
    /// The major version.
    pub major: u64,
    /// The minor version.
    pub minor: u64,
}

impl Version {
    /// Reads `3.6.14`, also with a pre-release and metadata behind it, and forgets all but the first
    /// two numbers. What is read is what etcd's library for versions takes.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let (rest, metadata) = text.split_once('+').unwrap_or((text, ""));
        let (numbers, pre_release) = rest.split_once('-').unwrap_or((rest, ""));
        let is_identifier = |text: &str| {
            text.bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || b"-.".contains(&byte))
        };
        if !is_identifier(metadata) || !is_identifier(pre_release) {
            return None;
        }
        let mut numbers = numbers.splitn(3, '.').map(number);
        let (major, minor) = (numbers.next()??, numbers.next()??);
        let _patch = numbers.next()??;
        Some(Self { major, minor })
    }

    /// Reads what a person may write: `3.5` as well.
    #[must_use]
    pub fn parse_short(text: &str) -> Option<Self> {
        Self::parse(text).or_else(|| Self::parse(&format!("{text}.0")))
    }

    /// The one minor version before it, if there is one.
    #[must_use]
    pub fn before(self) -> Option<Self> {
        let minor = self.minor.checked_sub(1)?;
        Some(Self { minor, ..self })
    }

    /// `3.6`, where etcd leaves the patch out.
    #[must_use]
    pub fn short(self) -> String {
        format!("{}.{}", self.major, self.minor)
    }
}

/// With a patch of 0, as etcd prints and stores it.
impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.0", self.major, self.minor)
    }
}

/// Digits that Go reads as an `int64`.
fn number(digits: &str) -> Option<u64> {
    let is_digits = digits.bytes().all(|byte| byte.is_ascii_digit());
    let number = digits.parse::<i64>().ok().filter(|_| is_digits)?;
    u64::try_from(number).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const V3_5: Option<Version> = Some(Version { major: 3, minor: 5 });

    #[test]
    fn a_version_is_read_as_etcd_reads_it() {
        for text in [
            "3.5.0",
            "3.5.21",
            "03.05.1",
            "3.5.1-rc.0",
            "3.5.0+abc",
            "3.5.0-",
        ] {
            assert_eq!(Version::parse(text), V3_5, "{text}");
        }
        for text in [
            "",
            "3",
            "3.5",
            "v3.5.0",
            "3.5.0.0",
            "3.5.",
            "3.5.x",
            "3.5.0-rc_1",
            " 3.5.0",
        ] {
            assert_eq!(Version::parse(text), None, "{text}");
        }
        for text in ["3.5-rc", "3.5+x", "3.+5.0", "3.99999999999999999999.0"] {
            assert_eq!(Version::parse_short(text), None, "{text}");
        }
        assert_eq!(Version::parse_short("3.5"), V3_5);
        assert_eq!(Version::parse_short("3.5.7"), V3_5);
    }

    #[test]
    fn it_is_written_as_etcd_writes_it() {
        let version = V3_5.unwrap();
        assert_eq!(version.to_string(), "3.5.0");
        assert_eq!(version.short(), "3.5");
        assert_eq!(version.before().unwrap().to_string(), "3.4.0");
        assert_eq!(Version { major: 4, minor: 0 }.before(), None);
    }
}
