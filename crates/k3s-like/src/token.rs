//! k3s's join token: `K10<hash of the CA>::<user>:<password>`, or the password alone.
//!
//! What this is not: kubeadm's bootstrap tokens (`abcdef.0123456789abcdef`), which only agents use.

use anyhow::{Result, bail};
use ring::rand::{SecureRandom, SystemRandom};
use ring::{digest, hmac};

const PREFIX: &str = "K10";
/// SHA-256, in hexadecimal digits.
const HASH_LEN: usize = 64;
/// Who may have everything that servers share.
pub(crate) const SERVER_USER: &str = "server";
/// Bytes of a password that nobody has chosen.
const PASSWORD_BYTES: usize = 16;

/// A token taken apart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Token {
    /// Of the authority that the servers' certificates come from; what is not given is not checked.
    pub(crate) ca_hash: Option<String>,
    pub(crate) username: String,
    pub(crate) password: String,
}

impl Token {
    pub(crate) fn parse(text: &str) -> Result<Self> {
        let text = text.trim_end_matches('\n');
        if text.is_empty() {
            bail!("token must not be empty");
        }
        let Some(rest) = text.strip_prefix(PREFIX) else {
            return Ok(Self {
                ca_hash: None,
                username: String::new(),
                password: text.to_owned(),
            });
        };
        let (ca_hash, credentials) = match rest.split_once("::") {
            Some(("", credentials)) => (None, credentials),
            Some((hash, _)) if hash.len() != HASH_LEN => bail!("invalid token CA hash length"),
            Some((hash, credentials)) => (Some(hash.to_owned()), credentials),
            None => (None, rest),
        };
        match credentials.split_once(':') {
            Some((username, password)) if !password.is_empty() => Ok(Self {
                ca_hash,
                username: username.to_owned(),
                password: password.to_owned(),
            }),
            _ => bail!("invalid token format"),
        }
    }

    /// Whether it names the authority that is in this file.
    pub(crate) fn check_ca(&self, ca_pem: &str) -> Result<()> {
        let found = hash_ca(ca_pem);
        match &self.ca_hash {
            Some(given) if *given != found => bail!(
                "token CA hash does not match the Cluster CA certificate hash: {given} != {found}"
            ),
            Some(_same) => {}
            None => tracing::warn!(
                "Cluster CA certificate is not trusted by the host CA bundle, but the token does not \
                 include a CA hash. Use the full token from the server's node-token file to enable \
                 Cluster CA validation."
            ),
        }
        Ok(())
    }
}

/// The token by which servers join.
pub(crate) fn format(password: &str, ca_pem: &str) -> String {
    format!("{PREFIX}{}::{SERVER_USER}:{password}", hash_ca(ca_pem))
}

/// k3s hashes the file as it is, when one certificate is in it.
fn hash_ca(ca_pem: &str) -> String {
    hex(digest::digest(&digest::SHA256, ca_pem.as_bytes()).as_ref())
}

/// A password that nobody guesses.
pub(crate) fn random_password() -> Result<String> {
    Ok(hex(&random::<PASSWORD_BYTES>()?))
}

/// Bytes that nobody guesses.
pub(crate) fn random<const N: usize>() -> Result<[u8; N]> {
    let mut bytes = [0; N];
    if SystemRandom::new().fill(&mut bytes).is_err() {
        bail!("the system has no random numbers");
    }
    Ok(bytes)
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Whether two passwords are the same; how long it takes says nothing about where they differ.
pub(crate) fn is_same(one: &str, other: &str) -> bool {
    let key = hmac::Key::new(hmac::HMAC_SHA256, b"comparison");
    let tag = hmac::sign(&key, one.as_bytes());
    hmac::verify(&key, other.as_bytes(), tag.as_ref()).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_are_read_as_k3s_reads_them() {
        let hash = "ab".repeat(32);
        let full = Token::parse(&format!("K10{hash}::server:secret\n")).unwrap();
        assert_eq!(full.ca_hash, Some(hash));
        assert_eq!(
            (full.username.as_str(), full.password.as_str()),
            ("server", "secret")
        );
        let bare = Token::parse("secret").unwrap();
        assert_eq!((bare.ca_hash, bare.password.as_str()), (None, "secret"));
        for (text, refusal) in [
            ("", "token must not be empty"),
            ("K10ab::server:secret", "invalid token CA hash length"),
            ("K10::server:", "invalid token format"),
            ("K10::server", "invalid token format"),
        ] {
            assert_eq!(Token::parse(text).unwrap_err().to_string(), refusal);
        }
    }

    #[test]
    fn a_token_is_for_one_authority() {
        let token = Token::parse(&format("secret", "one")).unwrap();
        assert!(token.check_ca("one").is_ok());
        let refusal = token.check_ca("other").unwrap_err().to_string();
        assert!(
            refusal.starts_with("token CA hash does not match the Cluster CA certificate hash: ")
        );
    }

    #[test]
    fn passwords_are_compared_whole() {
        assert!(is_same("secret", "secret"));
        assert!(!is_same("secret", "secre"));
        assert!(!is_same("secret", ""));
        assert_ne!(random_password().unwrap(), random_password().unwrap());
    }
}
