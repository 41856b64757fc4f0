//! Simple tokens: random letters, and the entry of the log that made them known to all members.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use types::Clock;

use super::TokenInfo;
use crate::AuthInfo;

/// How long one is valid after its last use, if nothing is said.
pub(super) const TTL_DEFAULT: Duration = Duration::from_secs(300);

/// How often those that are not valid any more are thrown away.
const SWEEP_INTERVAL: Duration = Duration::from_secs(1);

/// Tokens that are kept. When there are so many, one goes for each that comes, and its user has to log in
/// again; a member cannot check so many passwords while one is valid, unless they are made cheap.
const TOKENS_MAX: usize = 1 << 18;

/// The tokens that are valid here.
pub(super) struct SimpleTokens {
    ttl: Duration,
    clock: Arc<dyn Clock>,
    tokens: Mutex<Table>,
}

#[derive(Default)]
struct Table {
    tokens: BTreeMap<String, Entry>,
    swept_at: Option<Instant>,
}

struct Entry {
    user: String,
    valid_until: Instant,
}

impl std::fmt::Debug for SimpleTokens {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SimpleTokens")
            .field("ttl", &self.ttl)
            .finish_non_exhaustive()
    }
}

/// A token.
pub(super) fn token(prefix: &str, index: u64) -> String {
    format!("{prefix}.{index}")
}

impl SimpleTokens {
    pub(super) fn new(ttl: Duration, clock: Arc<dyn Clock>) -> Self {
        let ttl = if ttl.is_zero() { TTL_DEFAULT } else { ttl };
        Self {
            ttl,
            clock,
            tokens: Mutex::default(),
        }
    }

    pub(super) fn info(&self, token: &str, revision: u64, applied: u64) -> TokenInfo {
        let index = match token.split('.').collect::<Vec<_>>()[..] {
            [_, index] => go_parse_uint(index),
            _ => None,
        };
        let Some(index) = index else {
            return TokenInfo::Invalid;
        };
        if index > applied {
            return TokenInfo::NotYet { index };
        }
        let now = self.clock.now();
        let mut table = self.tokens.lock();
        match table.tokens.get_mut(token) {
            Some(entry) if now <= entry.valid_until => {
                entry.valid_until = now + self.ttl;
                TokenInfo::User(AuthInfo {
                    user: entry.user.clone(),
                    revision,
                })
            }
            _ => TokenInfo::Invalid,
        }
    }

    pub(super) fn assign(&self, user: &str, token: String) {
        let now = self.clock.now();
        let mut table = self.tokens.lock();
        let is_due = |at: Instant| now.saturating_duration_since(at) >= SWEEP_INTERVAL;
        if table.swept_at.is_none_or(is_due) {
            table.tokens.retain(|_, entry| now <= entry.valid_until);
            table.swept_at = Some(now);
        }
        if table.tokens.len() >= TOKENS_MAX {
            table.tokens.pop_first();
        }
        let entry = Entry {
            user: user.to_owned(),
            valid_until: now + self.ttl,
        };
        table.tokens.insert(token, entry);
    }

    pub(super) fn invalidate_user(&self, user: &str) {
        self.tokens
            .lock()
            .tokens
            .retain(|_, entry| entry.user != user);
    }

    pub(super) fn clear(&self) {
        self.tokens.lock().tokens.clear();
    }
}

/// Digits only: Go takes no sign here, and Rust would take a plus.
fn go_parse_uint(text: &str) -> Option<u64> {
    let is_digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    is_digits.then(|| text.parse().ok()).flatten()
}
