//! Passwords: hashed with bcrypt, in the form in which etcd stores them.
//!
//! Both functions take long on purpose: not on a thread that others wait for.

use bcrypt::Version;

/// The least work that may be asked for.
pub const BCRYPT_COST_MIN: u32 = 4;
/// The most.
pub const BCRYPT_COST_MAX: u32 = 31;
/// What a password costs if nothing is said.
pub const BCRYPT_COST_DEFAULT: u32 = 10;

/// bcrypt looks at so many bytes. Go's refuses to hash more, so that nobody believes in the rest.
const PASSWORD_BYTES_MAX: usize = 72;
const SALT_BYTES: usize = 16;

/// The password has more bytes than bcrypt looks at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("bcrypt: password length exceeds 72 bytes")]
pub struct PasswordTooLong;

/// Hashes a password. A cost that bcrypt does not have is the default one.
///
/// # Errors
///
/// When the password is too long.
pub fn hash_password(password: &str, cost: u32) -> Result<String, PasswordTooLong> {
    if password.len() > PASSWORD_BYTES_MAX {
        return Err(PasswordTooLong);
    }
    let mut salt = [0; SALT_BYTES];
    crate::token::fill_random(&mut salt);
    let cost = match cost {
        BCRYPT_COST_MIN..=BCRYPT_COST_MAX => cost,
        _ => BCRYPT_COST_DEFAULT,
    };
    let parts = bcrypt::hash_with_salt(password.as_bytes(), cost, salt)
        .expect("the cost is one of bcrypt's and the salt has its length");
    Ok(parts.format_for_version(Version::TwoA))
}

/// Whether it is the password that was hashed.
#[must_use]
pub fn verify_password(password: &str, hash: &[u8]) -> bool {
    let Ok(hash) = std::str::from_utf8(hash) else {
        return false;
    };
    bcrypt::verify(password.as_bytes(), hash).unwrap_or(false)
}
