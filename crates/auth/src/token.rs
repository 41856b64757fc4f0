//! Tokens: what a client shows instead of a password (`server/auth/simple_token.go`, `jwt.go`).
//!
//! Simple tokens are random, and every member keeps them, with the time until which each is valid. JWTs
//! are signed; a member needs nothing but the key.

mod jwt;
mod keys;
mod simple;

use std::sync::Arc;
use std::time::Duration;

use ring::rand::{SecureRandom, SystemRandom};
use types::Clock;

pub use jwt::JwtOptions;
pub use keys::{KeyError, SignMethod};

use crate::{AuthError, AuthInfo};
use jwt::Jwt;
use simple::SimpleTokens;

const LETTERS: &[u8; 52] = b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ";
const PREFIX_LETTERS: usize = 16;

/// Which kind of token (`--auth-token`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TokenConfig {
    /// Random ones, valid for so long after their last use (`--auth-token-ttl`).
    Simple {
        /// How long.
        ttl: Duration,
    },
    /// Signed ones.
    Jwt(JwtOptions),
    /// None: nobody can log in with a password.
    None,
}

/// The tokens could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum TokenError {
    /// A key's file cannot be read.
    #[error("cannot read {}", path.display())]
    Read {
        /// The file.
        path: std::path::PathBuf,
        /// Why not.
        #[source]
        source: std::io::Error,
    },
    /// A key is of no use.
    #[error(transparent)]
    Key(#[from] KeyError),
}

/// What a token says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TokenInfo {
    /// Who asks.
    User(AuthInfo),
    /// Nothing: it is not valid.
    Invalid,
    /// It is known when this entry (counted from 1) has been applied here: ask again then.
    NotYet {
        /// The entry.
        index: u64,
    },
}

/// This member's tokens. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Tokens {
    provider: Provider,
}

#[derive(Clone, Debug)]
enum Provider {
    Simple(Arc<SimpleTokens>),
    Jwt(Arc<Jwt>),
    None,
}

impl Tokens {
    /// Sets them up. Reads files.
    ///
    /// # Errors
    ///
    /// When a key cannot be used.
    pub fn new(config: TokenConfig, clock: Arc<dyn Clock>) -> Result<Self, TokenError> {
        let provider = match config {
            TokenConfig::Simple { ttl } => {
                Provider::Simple(Arc::new(SimpleTokens::new(ttl, clock)))
            }
            TokenConfig::Jwt(options) => Provider::Jwt(Arc::new(Jwt::load(options, clock)?)),
            TokenConfig::None => Provider::None,
        };
        Ok(Self { provider })
    }

    /// Simple tokens with etcd's default TTL.
    #[must_use]
    pub fn simple(clock: Arc<dyn Clock>) -> Self {
        let tokens = SimpleTokens::new(simple::TTL_DEFAULT, clock);
        Self {
            provider: Provider::Simple(Arc::new(tokens)),
        }
    }

    /// What a token says. `revision` is the one of users and roles now, and `applied` the entry that was
    /// applied last, counted from 1. A simple token that is valid is so for its whole time again.
    #[must_use]
    pub fn info(&self, token: &str, revision: u64, applied: u64) -> TokenInfo {
        match &self.provider {
            Provider::Simple(tokens) => tokens.info(token, revision, applied),
            Provider::Jwt(jwt) => jwt.info(token),
            Provider::None => TokenInfo::Invalid,
        }
    }

    /// The token of a user who was authenticated: `prefix` and `index` make the simple one, which
    /// [`crate::Writer::authenticate`] has assigned.
    ///
    /// # Errors
    ///
    /// When there are no tokens to be had here.
    pub fn token(&self, info: &AuthInfo, prefix: &str, index: u64) -> Result<String, AuthError> {
        match &self.provider {
            Provider::Simple(_) => Ok(simple::token(prefix, index)),
            Provider::Jwt(jwt) => jwt.sign(info),
            Provider::None => Err(AuthError::AuthFailed),
        }
    }

    /// Reads the keys again, if there are any, and says whether they have changed. What is of no use is
    /// not taken. Blocks on the disk.
    ///
    /// # Errors
    ///
    /// When the keys that are there cannot be used.
    pub fn reload(&self) -> Result<bool, TokenError> {
        match &self.provider {
            Provider::Jwt(jwt) => jwt.reload(),
            Provider::Simple(_) | Provider::None => Ok(false),
        }
    }

    /// Whether [`Tokens::reload`] may ever find something.
    #[must_use]
    pub const fn has_keys(&self) -> bool {
        matches!(self.provider, Provider::Jwt(_))
    }

    pub(crate) fn assign(&self, user: &str, prefix: &str, index: u64) {
        if let Provider::Simple(tokens) = &self.provider {
            tokens.assign(user, simple::token(prefix, index));
        }
    }

    pub(crate) fn invalidate_user(&self, user: &str) {
        if let Provider::Simple(tokens) = &self.provider {
            tokens.invalidate_user(user);
        }
    }

    pub(crate) fn clear(&self) {
        if let Provider::Simple(tokens) = &self.provider {
            tokens.clear();
        }
    }
}

/// What a new simple token begins with: 16 random letters.
#[must_use]
pub fn simple_token_prefix() -> String {
    let mut prefix = String::with_capacity(PREFIX_LETTERS);
    while prefix.len() < PREFIX_LETTERS {
        let mut byte = [0];
        fill_random(&mut byte);
        // Each letter as often as any other: 208 is the last multiple of 52.
        let place = usize::from(byte[0]);
        if place < 4 * LETTERS.len() {
            prefix.push(char::from(LETTERS[place % LETTERS.len()]));
        }
    }
    prefix
}

pub(crate) fn fill_random(bytes: &mut [u8]) {
    SystemRandom::new()
        .fill(bytes)
        .expect("the system has random numbers");
}
