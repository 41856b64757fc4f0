//! Which versions of its layout a database may have (`server/storage/schema`).
//!
//! Since 3.6 a database says it, in `meta/storageVersion`; what 3.5 has more than 3.4 is not counted. 3.7
//! has the layout of 3.6. What is newer may hold what we would lose.

/// The layouts that are known, as minor versions of 3.
const KNOWN_MINORS: std::ops::RangeInclusive<u64> = 5..=7;

/// A database is of a version that cannot be taken, in etcd's words.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StorageVersionError {
    /// It is of another etcd altogether.
    #[error("changing major storage version is not supported")]
    Major,
    /// It is newer, or older than databases say their version.
    #[error("version {version:?} is not supported")]
    Unsupported {
        /// The version.
        version: String,
    },
}

/// Major and minor version of a text; none if it is no version, which etcd takes for none at all.
pub(crate) fn parse(text: &str) -> Option<(u64, u64)> {
    let mut numbers = text.split(['-', '+']).next()?.split('.');
    let mut number = || numbers.next()?.parse().ok();
    let (major, minor, _patch): (u64, u64, u64) = (number()?, number()?, number()?);
    numbers.next().is_none().then_some((major, minor))
}

/// Whether a database of this version can be taken.
pub(crate) fn check(text: &str) -> Result<(), StorageVersionError> {
    let Some((major, minor)) = parse(text) else {
        return Ok(());
    };
    if major != 3 {
        return Err(StorageVersionError::Major);
    }
    let (first, last) = (*KNOWN_MINORS.start(), *KNOWN_MINORS.end());
    let missing = match minor {
        minor if minor > last => minor,
        // The step that there is not, from this version to the next.
        minor if minor < first => minor + 1,
        _ => return Ok(()),
    };
    let version = format!("{major}.{missing}.0");
    Err(StorageVersionError::Unsupported { version })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_newer_than_we_know_is_refused_in_etcds_words() {
        for known in ["3.5.0", "3.6.0", "3.7.0", "3.7.0-alpha.1", "", "x", "3.9"] {
            assert_eq!(check(known), Ok(()), "{known}");
        }
        for (text, words) in [
            ("3.8.0", "version \"3.8.0\" is not supported"),
            ("3.12.3", "version \"3.12.0\" is not supported"),
            ("3.3.0", "version \"3.4.0\" is not supported"),
            ("4.0.0", "changing major storage version is not supported"),
        ] {
            assert_eq!(check(text).unwrap_err().to_string(), words);
        }
    }
}
