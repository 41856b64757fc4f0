//! JSON web tokens: signed by whoever has the private key, this member or another program.

use std::fmt;
use std::fs;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use arc_swap::ArcSwap;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use parking_lot::Mutex;
use serde_json::{Map, Value, json};
use types::Clock;

use super::keys::{Key, KeyFiles, SignMethod};
use super::{TokenError, TokenInfo};
use crate::{AuthError, AuthInfo};

/// What follows `jwt,` in `--auth-token`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JwtOptions {
    /// `sign-method`.
    pub method: SignMethod,
    /// `pub-key`: a file.
    pub public_key: Option<PathBuf>,
    /// `priv-key`: a file. Without it, tokens can only be verified.
    pub private_key: Option<PathBuf>,
    /// `ttl`: how long a token is valid.
    pub ttl: Duration,
}

/// Signs tokens and verifies them.
pub(super) struct Jwt {
    options: JwtOptions,
    clock: Arc<dyn Clock>,
    key: ArcSwap<Key>,
    /// What the key was read from.
    files: Mutex<KeyFiles>,
}

impl fmt::Debug for Jwt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Jwt")
            .field("options", &self.options)
            .finish_non_exhaustive()
    }
}

impl Jwt {
    pub(super) fn load(options: JwtOptions, clock: Arc<dyn Clock>) -> Result<Self, TokenError> {
        let files = read(&options)?;
        let key = Key::read(options.method, &files)?;
        Ok(Self {
            options,
            clock,
            key: ArcSwap::from_pointee(key),
            files: Mutex::new(files),
        })
    }

    pub(super) fn reload(&self) -> Result<bool, TokenError> {
        let files = read(&self.options)?;
        if *self.files.lock() == files {
            return Ok(false);
        }
        let key = Key::read(self.options.method, &files)?;
        *self.files.lock() = files;
        self.key.store(Arc::new(key));
        Ok(true)
    }

    pub(super) fn sign(&self, info: &AuthInfo) -> Result<String, AuthError> {
        let expires_at = seconds(self.clock.wall() + self.options.ttl);
        self.sign_claims(&json!({
            "exp": expires_at,
            "revision": info.revision,
            "username": info.user,
        }))
    }

    fn sign_claims(&self, claims: &Value) -> Result<String, AuthError> {
        let header = json!({ "alg": self.options.method.name(), "typ": "JWT" });
        let signed = format!("{}.{}", encode(&header), encode(claims));
        let signature = self.key.load().sign(signed.as_bytes());
        let signature = signature.ok_or(AuthError::VerifyOnly)?;
        Ok(format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature)))
    }

    pub(super) fn info(&self, token: &str) -> TokenInfo {
        match self.verified(token) {
            Ok(info) => TokenInfo::User(info),
            Err(reason) => {
                tracing::warn!(error = reason, "failed to parse a JWT token");
                TokenInfo::Invalid
            }
        }
    }

    fn verified(&self, token: &str) -> Result<AuthInfo, &'static str> {
        let malformed = "token is malformed";
        let (signed, signature) = token.rsplit_once('.').ok_or(malformed)?;
        let (header, claims) = signed.split_once('.').ok_or(malformed)?;
        let header = decode(header).ok_or(malformed)?;
        // The method is ours and never the token's own choice.
        if header.get("alg").and_then(Value::as_str) != Some(self.options.method.name()) {
            return Err("invalid signing method");
        }
        let signature = URL_SAFE_NO_PAD.decode(signature);
        let signature = signature.map_err(|_not_base64| malformed)?;
        if !self.key.load().verify(signed.as_bytes(), &signature) {
            return Err("signature is invalid");
        }
        let claims = decode(claims).ok_or(malformed)?;
        self.check_times(&claims)?;
        let user = claims.get("username").and_then(Value::as_str);
        let revision = claims.get("revision").and_then(Value::as_f64);
        Ok(AuthInfo {
            user: user.ok_or("failed to obtain user claims")?.to_owned(),
            revision: whole(revision.ok_or("failed to obtain revision claims")?),
        })
    }

    /// A token without times is valid for ever, as in etcd.
    fn check_times(&self, claims: &Map<String, Value>) -> Result<(), &'static str> {
        let now = Duration::from_secs(seconds(self.clock.wall())).as_secs_f64();
        let time = |claim: &str| match claims.get(claim) {
            None | Some(Value::Null) => Ok(None),
            Some(value) => value.as_f64().map(Some).ok_or("token has invalid claims"),
        };
        if time("exp")?.is_some_and(|expires_at| now >= expires_at) {
            return Err("token is expired");
        }
        if time("nbf")?.is_some_and(|begins_at| now < begins_at) {
            return Err("token is not valid yet");
        }
        Ok(())
    }
}

fn read(options: &JwtOptions) -> Result<KeyFiles, TokenError> {
    let read = |path: &Option<PathBuf>| match path {
        None => Ok(Vec::new()),
        Some(path) => fs::read(path).map_err(|source| TokenError::Read {
            path: path.clone(),
            source,
        }),
    };
    Ok(KeyFiles {
        public: read(&options.public_key)?,
        private: read(&options.private_key)?,
    })
}

fn encode(value: &Value) -> String {
    URL_SAFE_NO_PAD.encode(value.to_string())
}

fn decode(part: &str) -> Option<Map<String, Value>> {
    let json = URL_SAFE_NO_PAD.decode(part).ok()?;
    match serde_json::from_slice(&json).ok()? {
        Value::Object(object) => Some(object),
        _ => None,
    }
}

fn seconds(at: SystemTime) -> u64 {
    at.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}

/// A revision; a number below 0 is none.
fn whole(number: f64) -> u64 {
    format!("{:.0}", number.trunc()).parse().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use types::SystemClock;

    use super::*;

    #[test]
    fn a_token_without_user_or_revision_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let secret = dir.path().join("secret");
        fs::write(&secret, "secret").unwrap();
        let options = JwtOptions {
            method: SignMethod::HS256,
            public_key: None,
            private_key: Some(secret),
            ttl: Duration::from_secs(60),
        };
        let jwt = Jwt::load(options, Arc::new(SystemClock)).unwrap();
        let info = |claims: &Value| jwt.info(&jwt.sign_claims(claims).unwrap());
        for claims in [
            json!({}),
            json!({ "revision": 1 }),
            json!({ "username": "root" }),
            json!({ "username": 1, "revision": 1 }),
            json!({ "username": null, "revision": 1 }),
            json!({ "username": "root", "revision": "1" }),
            json!({ "username": "root", "revision": null }),
        ] {
            assert_eq!(info(&claims), TokenInfo::Invalid, "{claims}");
        }
        let user = AuthInfo {
            user: "root".to_owned(),
            revision: 1,
        };
        let whole = json!({ "username": "root", "revision": 1 });
        assert_eq!(info(&whole), TokenInfo::User(user));
    }
}
