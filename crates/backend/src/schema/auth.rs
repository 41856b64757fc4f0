//! Buckets `Auth`, `AuthUsers` and `AuthRoles`: who may do what. Keys and values are etcd's.
//!
//! | bucket | key | value |
//! |---|---|---|
//! | `Auth` | [`ENABLED`] | one byte: 1 or 0 |
//! | `Auth` | [`REVISION`] | the revision, big endian |
//! | `AuthUsers` | the user's name | `authpb.User` |
//! | `AuthRoles` | the role's name | `authpb.Role` |
//!
//! The crate `auth` owns them.

use super::{Bucket, KeyError};

/// Whether authentication is on.
pub const ENABLED: &[u8] = b"authEnabled";

/// How often users, roles or the switch have changed.
pub const REVISION: &[u8] = b"authRevision";

/// What is under a key of bucket `Auth`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AuthKey {
    /// [`ENABLED`].
    Enabled,
    /// [`REVISION`].
    Revision,
}

/// The key of a mark.
#[must_use]
pub const fn encode(key: AuthKey) -> &'static [u8] {
    match key {
        AuthKey::Enabled => ENABLED,
        AuthKey::Revision => REVISION,
    }
}

/// Which mark is at `key`.
pub fn decode(key: &[u8]) -> Result<AuthKey, KeyError> {
    match key {
        ENABLED => Ok(AuthKey::Enabled),
        REVISION => Ok(AuthKey::Revision),
        other => Err(KeyError::new(Bucket::Auth, other)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_keys_are_etcds() {
        for (key, bytes) in [
            (AuthKey::Enabled, b"authEnabled".as_slice()),
            (AuthKey::Revision, b"authRevision"),
        ] {
            assert_eq!(encode(key), bytes);
            assert_eq!(decode(bytes), Ok(key));
        }
        assert!(decode(b"auth").is_err());
    }
}
