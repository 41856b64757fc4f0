//! What servers share: the authorities with their keys, and the key of service accounts.
//!
//! A server that joins gets it from another one (`supervisor`). In the datastore it lies encrypted with
//! the token, as k3s does it, so that a snapshot and the token are enough to begin a cluster again.

use std::collections::BTreeMap;

use anyhow::{Context, Result, bail};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use kvorum::Client;
use kvorum::client::{Compare, Op, Txn};
use ring::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use ring::{digest, pbkdf2};
use serde::{Deserialize, Serialize};

use crate::layout::{Layout, read_if_there, write_private};
use crate::log::rfc3339;
use crate::pki::SERVICE_KEY;
use crate::token::{hex, random};

/// Under this the datastore has it.
pub(crate) const PREFIX: &str = "/bootstrap/";
/// Digits of the token's hash that a key's name ends with.
const KEY_HASH_LEN: usize = 12;
const SALT_BYTES: usize = 8;
/// k3s's.
const ITERATIONS: std::num::NonZeroU32 = std::num::NonZeroU32::new(4096).expect("it is not zero");
const DIFFERENT_TOKEN: &str = "bootstrap data already found and encrypted with different token";

/// k3s's names, and the files they stand for.
const FILES: [(&str, &str); 11] = [
    ("ServerCA", "server-ca.crt"),
    ("ServerCAKey", "server-ca.key"),
    ("ClientCA", "client-ca.crt"),
    ("ClientCAKey", "client-ca.key"),
    ("RequestHeaderCA", "request-header-ca.crt"),
    ("RequestHeaderCAKey", "request-header-ca.key"),
    ("ETCDServerCA", "etcd/server-ca.crt"),
    ("ETCDServerCAKey", "etcd/server-ca.key"),
    ("ETCDPeerCA", "etcd/peer-ca.crt"),
    ("ETCDPeerCAKey", "etcd/peer-ca.key"),
    ("ServiceKey", SERVICE_KEY),
];

/// A file as k3s's JSON has it.
#[derive(Serialize, Deserialize)]
struct File {
    #[serde(rename = "Timestamp")]
    timestamp: String,
    /// Base 64.
    #[serde(rename = "Content")]
    content: String,
}

/// What this server has on its disk.
pub(crate) fn collect(layout: &Layout) -> Result<Vec<u8>> {
    let mut files = BTreeMap::new();
    for (name, file) in FILES {
        let path = layout.tls_file(file);
        let content =
            std::fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?;
        let changed = std::fs::metadata(&path).and_then(|metadata| metadata.modified());
        files.insert(
            name,
            File {
                timestamp: rfc3339(changed.unwrap_or(std::time::UNIX_EPOCH)),
                content: BASE64.encode(content),
            },
        );
    }
    Ok(serde_json::to_vec(&files)?)
}

/// Writes what another server, or the datastore, has; says which files have changed.
pub(crate) fn write(layout: &Layout, data: &[u8]) -> Result<Vec<&'static str>> {
    let files: BTreeMap<String, File> =
        serde_json::from_slice(data).context("the bootstrap data cannot be read")?;
    let mut decoded = Vec::new();
    for (name, file) in FILES {
        let Some(content) = files.get(name) else {
            bail!("the bootstrap data has no {name}");
        };
        let content = BASE64.decode(&content.content).ok();
        let Some(content) = content.and_then(|content| String::from_utf8(content).ok()) else {
            bail!("the bootstrap data's {name} is no text");
        };
        decoded.push((file, content));
    }
    let mut changed = Vec::new();
    for (file, content) in decoded {
        let path = layout.tls_file(file);
        if read_if_there(&path)?.as_ref() != Some(&content) {
            write_private(&path, &content)?;
            changed.push(file);
        }
    }
    Ok(changed)
}

/// Puts what this server has into the datastore, if it is not there.
pub(crate) async fn save(client: &Client, password: &str, layout: &Layout) -> Result<()> {
    if load(client, password).await?.is_some() {
        return Ok(());
    }
    let key = storage_key(password);
    let sealed = encrypt(password, &collect(layout)?)?;
    let txn = Txn::new()
        .when(Compare::missing(key.as_str()))
        .then(Op::put(key.as_str(), sealed));
    client
        .txn(txn)
        .await
        .context("cannot save bootstrap data")?;
    Ok(())
}

/// What the datastore has.
pub(crate) async fn load(client: &Client, password: &str) -> Result<Option<Vec<u8>>> {
    let found = client.get_prefix(PREFIX).await?;
    let key = storage_key(password);
    match found.iter().find(|pair| pair.key == key.as_bytes()) {
        Some(pair) => decrypt(password, &pair.value).map(Some),
        None if found.is_empty() => Ok(None),
        None => bail!(DIFFERENT_TOKEN),
    }
}

/// Refuses a password that is not the one that this server has been started with.
pub(crate) fn check_password(given: &str, known: &str) -> Result<()> {
    if !crate::token::is_same(given, known) {
        bail!(DIFFERENT_TOKEN);
    }
    Ok(())
}

fn storage_key(password: &str) -> String {
    let hash = hex(digest::digest(&digest::SHA256, password.as_bytes()).as_ref());
    format!("{PREFIX}{}", &hash[..KEY_HASH_LEN])
}

/// `salt:base64(nonce, ciphertext, tag)`, with AES-256-GCM.
fn encrypt(password: &str, plain: &[u8]) -> Result<Vec<u8>> {
    let salt = hex(&random::<SALT_BYTES>()?);
    let nonce = random::<NONCE_LEN>()?;
    let mut sealed = plain.to_vec();
    cipher(password, &salt)
        .seal_in_place_append_tag(
            Nonce::assume_unique_for_key(nonce),
            Aad::empty(),
            &mut sealed,
        )
        .ok()
        .context("cannot encrypt bootstrap data")?;
    let text = BASE64.encode([&nonce[..], &sealed].concat());
    Ok(format!("{salt}:{text}").into_bytes())
}

fn decrypt(password: &str, sealed: &[u8]) -> Result<Vec<u8>> {
    let text = std::str::from_utf8(sealed).unwrap_or_default();
    let (salt, text) = text
        .split_once(':')
        .context("invalid cipher text, not : delimited")?;
    let bytes = BASE64.decode(text).context("invalid cipher text")?;
    let Some((nonce, sealed)) = bytes.split_first_chunk::<NONCE_LEN>() else {
        bail!("invalid cipher text, too short");
    };
    let mut sealed = sealed.to_vec();
    let opened = cipher(password, salt).open_in_place(
        Nonce::assume_unique_for_key(*nonce),
        Aad::empty(),
        &mut sealed,
    );
    match opened {
        Ok(plain) => Ok(plain.to_vec()),
        Err(_not_it) => bail!("bootstrap data cannot be decrypted with this token"),
    }
}

fn cipher(password: &str, salt: &str) -> LessSafeKey {
    let mut key = [0; digest::SHA256_OUTPUT_LEN];
    pbkdf2::derive(
        pbkdf2::PBKDF2_HMAC_SHA1,
        ITERATIONS,
        salt.as_bytes(),
        password.as_bytes(),
        &mut key,
    );
    let key = UnboundKey::new(&AES_256_GCM, &key).expect("the key has the cipher's length");
    LessSafeKey::new(key)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pki;

    #[test]
    fn what_is_encrypted_is_read_with_the_same_token_only() {
        let sealed = encrypt("secret", b"data").unwrap();
        assert_eq!(decrypt("secret", &sealed).unwrap(), b"data");
        assert!(decrypt("other", &sealed).is_err());
        assert_ne!(encrypt("secret", b"data").unwrap(), sealed);
        assert!(decrypt("secret", b"nothing").is_err());
        assert!(decrypt("secret", b"salt:AAAA").is_err());
    }

    #[test]
    fn the_key_is_k3ss() {
        // `printf secret | sha256sum`
        assert_eq!(storage_key("secret"), "/bootstrap/2bb80d537b1d");
    }

    #[test]
    fn another_server_gets_all_files() {
        let (one, two) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let (one, two) = (Layout::new(one.path()), Layout::new(two.path()));
        pki::ensure_authorities(&one).unwrap();
        let data = collect(&one).unwrap();
        assert_eq!(write(&two, &data).unwrap().len(), FILES.len());
        assert_eq!(write(&two, &data).unwrap(), [""; 0]);
        for (_name, file) in FILES {
            let read = |layout: &Layout| std::fs::read(layout.tls_file(file)).unwrap();
            assert_eq!(read(&one), read(&two));
        }
        assert!(write(&two, b"{}").is_err());
    }
}
