//! Users, roles, what they may do, and the tokens that say who asks (`server/auth/store.go`).
//!
//! Two halves that must not be mixed:
//!
//! - what is replicated ([`Writer`], [`State`]): the switch, the revision, users and roles; the same on
//!   every member, changed only by `apply`, and free of time and chance;
//! - what each member has by itself ([`Tokens`]): which simple tokens are valid here and until when,
//!   and the keys of JWTs. Nothing of it is stored.
//!
//! What this is not: it does not know which requests there are. What a request needs is derived from it in one
//! place, `apply::access`.

mod error;
mod password;
mod range_perm;
mod state;
mod token;
mod writer;

pub use error::{AuthError, OpenError};
pub use password::{BCRYPT_COST_DEFAULT, BCRYPT_COST_MAX, BCRYPT_COST_MIN, PasswordTooLong};
pub use password::{hash_password, verify_password};
pub use state::{Auth, AuthInfo, Loaded, State, UserCheck, load};
pub use token::{
    JwtOptions, KeyError, SignMethod, TokenConfig, TokenError, TokenInfo, Tokens,
    simple_token_prefix,
};
pub use writer::{Writer, open_loaded};

/// The user who may do everything while the role of that name is granted to it.
pub const ROOT_USER: &str = "root";

/// The role that may do everything.
pub const ROOT_ROLE: &str = "root";

#[cfg(test)]
mod tests;
