use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use parking_lot::Mutex;
use types::{Clock, SystemClock};

use crate::{
    AuthError, AuthInfo, JwtOptions, SignMethod, TokenConfig, TokenInfo, Tokens, hash_password,
    simple_token_prefix, verify_password,
};

/// A clock that stands still until it is moved.
struct TestClock(Mutex<(Instant, SystemTime)>);

impl TestClock {
    fn new() -> Arc<Self> {
        let now = (SystemClock.now(), SystemClock.wall());
        Arc::new(Self(Mutex::new(now)))
    }

    fn advance(&self, by: Duration) {
        let mut now = self.0.lock();
        now.0 += by;
        now.1 += by;
    }
}

impl Clock for TestClock {
    fn now(&self) -> Instant {
        self.0.lock().0
    }

    fn wall(&self) -> SystemTime {
        self.0.lock().1
    }
}

fn user(name: &str, revision: u64) -> AuthInfo {
    AuthInfo {
        user: name.to_owned(),
        revision,
    }
}

#[test]
fn a_password_is_hashed_as_etcd_hashes_it() {
    let hash = hash_password("secret", 4).unwrap();
    assert!(hash.starts_with("$2a$04$"), "{hash}");
    assert!(verify_password("secret", hash.as_bytes()));
    assert!(!verify_password("Secret", hash.as_bytes()));
    assert!(!verify_password("secret", b"no hash"));
    assert!(!verify_password("", b""));
    // What golang.org/x/crypto/bcrypt has made of "password".
    let gos = b"$2a$10$N9qo8uLOickgx2ZMRZoMyeIjZAgcfl7p92ldGxad68LJZdL17lhWy";
    assert!(!verify_password("other", gos));
    assert!(hash_password(&"x".repeat(72), 4).is_ok());
    assert!(hash_password(&"x".repeat(73), 4).is_err());
    assert!(hash_password("x", 99).unwrap().starts_with("$2a$10$"));
}

#[test]
fn a_simple_token_is_valid_for_a_time_after_each_use() {
    let clock = TestClock::new();
    let ttl = Duration::from_secs(10);
    let config = TokenConfig::Simple { ttl };
    let tokens = Tokens::new(config, clock.clone()).unwrap();
    let prefix = simple_token_prefix();
    assert_eq!(prefix.len(), 16);
    assert!(prefix.bytes().all(|byte| byte.is_ascii_alphabetic()));
    tokens.assign("u", &prefix, 5);
    let token = tokens.token(&user("u", 3), &prefix, 5).unwrap();
    assert_eq!(token, format!("{prefix}.5"));
    assert_eq!(tokens.info(&token, 3, 4), TokenInfo::NotYet { index: 5 });
    for _ in 0..3 {
        clock.advance(Duration::from_secs(9));
        assert_eq!(tokens.info(&token, 3, 5), TokenInfo::User(user("u", 3)));
    }
    clock.advance(Duration::from_secs(11));
    assert_eq!(tokens.info(&token, 3, 5), TokenInfo::Invalid);
    for nonsense in [
        "",
        "a",
        "a.b",
        "a.+5",
        "a.5.6",
        ".",
        "a.99999999999999999999",
    ] {
        assert_eq!(tokens.info(nonsense, 3, 5), TokenInfo::Invalid);
    }
}

#[test]
fn a_users_tokens_go_with_its_password() {
    let tokens = Tokens::simple(TestClock::new());
    tokens.assign("u", "a", 1);
    tokens.assign("v", "b", 1);
    tokens.invalidate_user("u");
    assert_eq!(tokens.info("a.1", 1, 1), TokenInfo::Invalid);
    assert_eq!(tokens.info("b.1", 1, 1), TokenInfo::User(user("v", 1)));
    tokens.clear();
    assert_eq!(tokens.info("b.1", 1, 1), TokenInfo::Invalid);
}

/// A key made for a method, as files: public and private.
fn key_files(method: SignMethod, dir: &Path) -> (Option<PathBuf>, PathBuf) {
    let private = dir.join("private.pem");
    let public = dir.join("public.pem");
    let algorithm = match method {
        SignMethod::HS256 | SignMethod::HS384 | SignMethod::HS512 => {
            std::fs::write(&private, "a secret\n").unwrap();
            return (None, private);
        }
        SignMethod::RS256
        | SignMethod::RS384
        | SignMethod::RS512
        | SignMethod::PS256
        | SignMethod::PS384
        | SignMethod::PS512 => {
            std::fs::write(&private, include_str!("keys/rsa.pem")).unwrap();
            std::fs::write(&public, include_str!("keys/rsa.pub.pem")).unwrap();
            return (Some(public), private);
        }
        SignMethod::ES512 => {
            std::fs::write(&private, include_str!("keys/p521.pem")).unwrap();
            std::fs::write(&public, include_str!("keys/p521.pub.pem")).unwrap();
            return (Some(public), private);
        }
        SignMethod::ES256 => &rcgen::PKCS_ECDSA_P256_SHA256,
        SignMethod::ES384 => &rcgen::PKCS_ECDSA_P384_SHA384,
        SignMethod::EdDSA => &rcgen::PKCS_ED25519,
    };
    let key = rcgen::KeyPair::generate_for(algorithm).unwrap();
    std::fs::write(&private, key.serialize_pem()).unwrap();
    std::fs::write(&public, key.public_key_pem()).unwrap();
    (Some(public), private)
}

fn options(method: SignMethod, public: Option<PathBuf>, private: Option<PathBuf>) -> TokenConfig {
    TokenConfig::Jwt(JwtOptions {
        method,
        public_key: public,
        private_key: private,
        ttl: Duration::from_secs(60),
    })
}

#[test]
fn every_method_of_etcd_signs_and_verifies() {
    for method in SignMethod::ALL {
        let dir = tempfile::tempdir().unwrap();
        let (public, private) = key_files(method, dir.path());
        let clock = TestClock::new();
        let new =
            |public, private| Tokens::new(options(method, public, private), clock.clone()).unwrap();
        let both = new(public.clone(), Some(private.clone()));
        let signer = new(None, Some(private.clone()));
        let token = signer.token(&user("u", 7), "", 0).unwrap();
        let expected = TokenInfo::User(user("u", 7));
        // What the store is at does not matter: the token says it.
        assert_eq!(both.info(&token, 99, 0), expected, "{method}");
        assert_eq!(signer.info(&token, 99, 0), expected, "{method}");
        if let Some(public) = public {
            let verifier = new(Some(public), None);
            assert_eq!(verifier.info(&token, 99, 0), expected, "{method}");
            let refused = verifier.token(&user("u", 7), "", 0);
            assert_eq!(refused, Err(AuthError::VerifyOnly), "{method}");
        }
        for place in [0, token.len() / 2, token.len() - 2] {
            let mut forged = token.clone().into_bytes();
            forged[place] = if forged[place] == b'A' { b'B' } else { b'A' };
            let forged = String::from_utf8(forged).unwrap();
            assert_eq!(both.info(&forged, 99, 0), TokenInfo::Invalid, "{method}");
        }
        clock.advance(Duration::from_secs(61));
        assert_eq!(both.info(&token, 99, 0), TokenInfo::Invalid, "{method}");
    }
}

/// A token's own choice of method must not count: neither none at all, nor a public key as a secret.
#[test]
fn the_method_is_not_the_tokens_choice() {
    let dir = tempfile::tempdir().unwrap();
    let (public, private) = key_files(SignMethod::RS256, dir.path());
    let clock = TestClock::new();
    let config = options(SignMethod::RS256, public.clone(), Some(private));
    let tokens = Tokens::new(config, clock.clone()).unwrap();
    let claims = r#"{"username":"root","revision":9}"#;
    let part = |json: &str| URL_SAFE_NO_PAD.encode(json);
    let none = format!("{}.{}.", part(r#"{"alg":"none"}"#), part(claims));
    assert_eq!(tokens.info(&none, 9, 0), TokenInfo::Invalid);
    let secret = options(SignMethod::HS256, None, public);
    let secret = Tokens::new(secret, clock).unwrap();
    let confused = secret.token(&user("root", 9), "", 0).unwrap();
    assert_eq!(tokens.info(&confused, 9, 0), TokenInfo::Invalid);
}

#[test]
fn keys_are_read_again_when_they_change() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("secret");
    std::fs::write(&path, "one").unwrap();
    let config = options(SignMethod::HS256, None, Some(path.clone()));
    let tokens = Tokens::new(config, TestClock::new()).unwrap();
    let old = tokens.token(&user("u", 1), "", 0).unwrap();
    assert!(!tokens.reload().unwrap());
    std::fs::write(&path, "").unwrap();
    assert!(tokens.reload().is_err());
    assert_ne!(
        tokens.info(&old, 1, 0),
        TokenInfo::Invalid,
        "the old key stays"
    );
    std::fs::write(&path, "two").unwrap();
    assert!(tokens.reload().unwrap());
    assert_eq!(tokens.info(&old, 1, 0), TokenInfo::Invalid);
    let new = tokens.token(&user("u", 1), "", 0).unwrap();
    assert_eq!(tokens.info(&new, 1, 0), TokenInfo::User(user("u", 1)));
}

#[test]
fn keys_of_no_use_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let other = tempfile::tempdir().unwrap();
    let clock = TestClock::new();
    let (public, private) = key_files(SignMethod::ES256, dir.path());
    let (other_public, _) = key_files(SignMethod::ES256, other.path());
    for (method, public, private, why) in [
        (SignMethod::ES256, None, None, "missing key data"),
        (SignMethod::HS256, public.clone(), None, "missing key data"),
        (
            SignMethod::RS256,
            None,
            Some(private.clone()),
            "the private key is not one for RS256",
        ),
        (
            SignMethod::ES384,
            public.clone(),
            None,
            "the public key is not one for ES384",
        ),
        (
            SignMethod::ES256,
            other_public,
            Some(private),
            "public and private keys don't match",
        ),
    ] {
        let refused = Tokens::new(options(method, public, private), clock.clone());
        assert_eq!(refused.unwrap_err().to_string(), why);
    }
}
