//! Keys of JWTs, in the forms in which files hold them, and signatures made with them.

use std::fmt;

use p256::ecdsa::signature::{Signer, Verifier};
use ring::rand::SystemRandom;
use ring::signature::{Ed25519KeyPair, KeyPair, RsaKeyPair, UnparsedPublicKey};
use ring::{hmac, signature};
use x509_parser::prelude::{FromDer, SubjectPublicKeyInfo, X509Certificate};

/// How a JWT is signed, by its name in the token's header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SignMethod {
    /// HMAC with SHA-256.
    HS256,
    /// HMAC with SHA-384.
    HS384,
    /// HMAC with SHA-512.
    HS512,
    /// RSA, PKCS #1 v1.5, with SHA-256.
    RS256,
    /// RSA, PKCS #1 v1.5, with SHA-384.
    RS384,
    /// RSA, PKCS #1 v1.5, with SHA-512.
    RS512,
    /// RSA, PSS, with SHA-256.
    PS256,
    /// RSA, PSS, with SHA-384.
    PS384,
    /// RSA, PSS, with SHA-512.
    PS512,
    /// ECDSA with SHA-256.
    ES256,
    /// ECDSA with SHA-384.
    ES384,
    /// ECDSA with SHA-512.
    ES512,
    /// Ed25519.
    EdDSA,
}

impl SignMethod {
    /// All of them.
    pub const ALL: [Self; 13] = [
        Self::HS256,
        Self::HS384,
        Self::HS512,
        Self::RS256,
        Self::RS384,
        Self::RS512,
        Self::PS256,
        Self::PS384,
        Self::PS512,
        Self::ES256,
        Self::ES384,
        Self::ES512,
        Self::EdDSA,
    ];

    /// Its name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::HS256 => "HS256",
            Self::HS384 => "HS384",
            Self::HS512 => "HS512",
            Self::RS256 => "RS256",
            Self::RS384 => "RS384",
            Self::RS512 => "RS512",
            Self::PS256 => "PS256",
            Self::PS384 => "PS384",
            Self::PS512 => "PS512",
            Self::ES256 => "ES256",
            Self::ES384 => "ES384",
            Self::ES512 => "ES512",
            Self::EdDSA => "EdDSA",
        }
    }

    /// The one of this name.
    #[must_use]
    pub fn by_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|method| method.name() == name)
    }
}

impl fmt::Display for SignMethod {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A key of `--auth-token=jwt` is of no use.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// There is none.
    #[error("missing key data")]
    Missing,
    /// It is not one for this method.
    #[error("the {which} key is not one for {method}")]
    Unusable {
        /// `public` or `private`.
        which: &'static str,
        /// The method.
        method: SignMethod,
    },
    /// The public key is another one's.
    #[error("public and private keys don't match")]
    Mismatch,
}

/// What is in the files.
#[derive(Clone, Default, PartialEq, Eq)]
pub(super) struct KeyFiles {
    pub(super) public: Vec<u8>,
    pub(super) private: Vec<u8>,
}

/// A key, with which tokens can be verified, and, if it is a private one, signed.
pub(super) enum Key {
    Hmac(hmac::Key),
    Rsa(Pair<RsaKeyPair, Vec<u8>>, &'static RsaMethod),
    Es256(Pair<p256::ecdsa::SigningKey, p256::ecdsa::VerifyingKey>),
    Es384(Pair<p384::ecdsa::SigningKey, p384::ecdsa::VerifyingKey>),
    Es512(Pair<p521::ecdsa::SigningKey, p521::ecdsa::VerifyingKey>),
    Ed(Pair<Ed25519KeyPair, Vec<u8>>),
}

pub(super) struct Pair<S, V> {
    private: Option<S>,
    public: V,
}

pub(super) struct RsaMethod {
    padding: &'static dyn signature::RsaEncoding,
    verification: &'static signature::RsaParameters,
}

macro_rules! rsa_methods {
    ($($name:ident: $padding:ident, $verification:ident;)*) => {
        $(static $name: RsaMethod = RsaMethod {
            padding: &signature::$padding,
            verification: &signature::$verification,
        };)*
    };
}

rsa_methods! {
    RS256: RSA_PKCS1_SHA256, RSA_PKCS1_2048_8192_SHA256;
    RS384: RSA_PKCS1_SHA384, RSA_PKCS1_2048_8192_SHA384;
    RS512: RSA_PKCS1_SHA512, RSA_PKCS1_2048_8192_SHA512;
    PS256: RSA_PSS_SHA256, RSA_PSS_2048_8192_SHA256;
    PS384: RSA_PSS_SHA384, RSA_PSS_2048_8192_SHA384;
    PS512: RSA_PSS_SHA512, RSA_PSS_2048_8192_SHA512;
}

/// A pair of whatever the files hold, of which at least one has to be there.
fn pair<S, V>(
    private: Option<S>,
    public: Option<V>,
    public_of: impl FnOnce(&S) -> V,
    bytes_of: impl Fn(&V) -> Vec<u8>,
) -> Result<Pair<S, V>, KeyError> {
    let own = private.as_ref().map(public_of);
    let public = match (own, public) {
        (Some(own), Some(public)) if bytes_of(&own) != bytes_of(&public) => {
            return Err(KeyError::Mismatch);
        }
        (Some(own), _) => own,
        (None, Some(public)) => public,
        (None, None) => return Err(KeyError::Missing),
    };
    Ok(Pair { private, public })
}

/// Reads a pair of keys of an elliptic curve.
macro_rules! ec_pair {
    ($curve:ident, $reader:expr) => {{
        let reader: &Reader<'_> = &$reader;
        let private = reader.private(|der| {
            use $curve::pkcs8::DecodePrivateKey;
            let secret = $curve::SecretKey::from_pkcs8_der(der).ok();
            secret.or_else(|| $curve::SecretKey::from_sec1_der(der).ok())
        })?;
        let private = private.map(|secret| {
            let secret = secret.to_bytes();
            $curve::ecdsa::SigningKey::from_bytes(&secret)
                .expect("a secret key of this curve is one to sign with")
        });
        let public = reader.public("1.2.840.10045.2.1", |point| {
            $curve::ecdsa::VerifyingKey::from_sec1_bytes(point).ok()
        })?;
        pair(
            private,
            public,
            |key| $curve::ecdsa::VerifyingKey::from(key),
            |key| key.to_encoded_point(false).as_bytes().to_vec(),
        )
    }};
}

impl Key {
    pub(super) fn read(method: SignMethod, files: &KeyFiles) -> Result<Self, KeyError> {
        let reader = Reader { method, files };
        Ok(match method {
            SignMethod::HS256 => reader.hmac(hmac::HMAC_SHA256)?,
            SignMethod::HS384 => reader.hmac(hmac::HMAC_SHA384)?,
            SignMethod::HS512 => reader.hmac(hmac::HMAC_SHA512)?,
            SignMethod::RS256 => Self::Rsa(reader.rsa()?, &RS256),
            SignMethod::RS384 => Self::Rsa(reader.rsa()?, &RS384),
            SignMethod::RS512 => Self::Rsa(reader.rsa()?, &RS512),
            SignMethod::PS256 => Self::Rsa(reader.rsa()?, &PS256),
            SignMethod::PS384 => Self::Rsa(reader.rsa()?, &PS384),
            SignMethod::PS512 => Self::Rsa(reader.rsa()?, &PS512),
            SignMethod::ES256 => Self::Es256(ec_pair!(p256, reader)?),
            SignMethod::ES384 => Self::Es384(ec_pair!(p384, reader)?),
            SignMethod::ES512 => Self::Es512(ec_pair!(p521, reader)?),
            SignMethod::EdDSA => Self::Ed(reader.ed25519()?),
        })
    }

    /// The signature; `None` with a key that can only verify.
    pub(super) fn sign(&self, message: &[u8]) -> Option<Vec<u8>> {
        Some(match self {
            Self::Hmac(key) => hmac::sign(key, message).as_ref().to_vec(),
            Self::Rsa(pair, method) => {
                let key = pair.private.as_ref()?;
                let mut signature = vec![0; key.public().modulus_len()];
                key.sign(
                    method.padding,
                    &SystemRandom::new(),
                    message,
                    &mut signature,
                )
                .expect("the signature has the length of the key");
                signature
            }
            Self::Es256(pair) => {
                let signature: p256::ecdsa::Signature = pair.private.as_ref()?.sign(message);
                signature.to_vec()
            }
            Self::Es384(pair) => {
                let signature: p384::ecdsa::Signature = pair.private.as_ref()?.sign(message);
                signature.to_vec()
            }
            Self::Es512(pair) => {
                let signature: p521::ecdsa::Signature = pair.private.as_ref()?.sign(message);
                signature.to_vec()
            }
            Self::Ed(pair) => pair.private.as_ref()?.sign(message).as_ref().to_vec(),
        })
    }

    pub(super) fn verify(&self, message: &[u8], signature: &[u8]) -> bool {
        match self {
            Self::Hmac(key) => hmac::verify(key, message, signature).is_ok(),
            Self::Rsa(pair, method) => UnparsedPublicKey::new(method.verification, &pair.public)
                .verify(message, signature)
                .is_ok(),
            Self::Es256(pair) => p256::ecdsa::Signature::from_slice(signature)
                .is_ok_and(|signature| pair.public.verify(message, &signature).is_ok()),
            Self::Es384(pair) => p384::ecdsa::Signature::from_slice(signature)
                .is_ok_and(|signature| pair.public.verify(message, &signature).is_ok()),
            Self::Es512(pair) => p521::ecdsa::Signature::from_slice(signature)
                .is_ok_and(|signature| pair.public.verify(message, &signature).is_ok()),
            Self::Ed(pair) => UnparsedPublicKey::new(&signature::ED25519, &pair.public)
                .verify(message, signature)
                .is_ok(),
        }
    }
}

/// Reads the files for a method.
struct Reader<'a> {
    method: SignMethod,
    files: &'a KeyFiles,
}

impl Reader<'_> {
    /// The file itself is the secret, with whatever ends its last line.
    fn hmac(&self, algorithm: hmac::Algorithm) -> Result<Key, KeyError> {
        match self.files.private.as_slice() {
            [] => Err(KeyError::Missing),
            secret => Ok(Key::Hmac(hmac::Key::new(algorithm, secret))),
        }
    }

    fn rsa(&self) -> Result<Pair<RsaKeyPair, Vec<u8>>, KeyError> {
        let private = self.private(|der| {
            let key = RsaKeyPair::from_pkcs8(der);
            key.or_else(|_not_pkcs8| RsaKeyPair::from_der(der)).ok()
        })?;
        let public = self.public("1.2.840.113549.1.1.1", |key| Some(key.to_vec()))?;
        pair(
            private,
            public,
            |key| key.public().as_ref().to_vec(),
            Clone::clone,
        )
    }

    fn ed25519(&self) -> Result<Pair<Ed25519KeyPair, Vec<u8>>, KeyError> {
        let private = self.private(|der| Ed25519KeyPair::from_pkcs8_maybe_unchecked(der).ok())?;
        let public = self.public("1.3.101.112", |key| Some(key.to_vec()))?;
        pair(
            private,
            public,
            |key| key.public_key().as_ref().to_vec(),
            Clone::clone,
        )
    }

    fn private<T>(&self, read: impl FnOnce(&[u8]) -> Option<T>) -> Result<Option<T>, KeyError> {
        if self.files.private.is_empty() {
            return Ok(None);
        }
        let key = block(&self.files.private, "PRIVATE KEY").and_then(|(_tag, der)| read(&der));
        key.map(Some).ok_or(KeyError::Unusable {
            which: "private",
            method: self.method,
        })
    }

    /// `read` gets the bits of the key, whose algorithm has this identifier.
    fn public<T>(
        &self,
        algorithm: &str,
        read: impl FnOnce(&[u8]) -> Option<T>,
    ) -> Result<Option<T>, KeyError> {
        if self.files.public.is_empty() {
            return Ok(None);
        }
        let key = public_bits(&self.files.public, algorithm).and_then(|bits| read(&bits));
        key.map(Some).ok_or(KeyError::Unusable {
            which: "public",
            method: self.method,
        })
    }
}

/// The first block whose tag ends so.
fn block(file: &[u8], tag: &str) -> Option<(String, Vec<u8>)> {
    let blocks = pem::parse_many(file).ok()?;
    let block = blocks
        .into_iter()
        .find(|block| block.tag().ends_with(tag))?;
    Some((block.tag().to_owned(), block.into_contents()))
}

/// The public key of a file: by itself or in a certificate.
fn public_bits(file: &[u8], algorithm: &str) -> Option<Vec<u8>> {
    if let Some((_tag, der)) = block(file, "CERTIFICATE") {
        let (_rest, certificate) = X509Certificate::from_der(&der).ok()?;
        return bits(certificate.public_key(), algorithm);
    }
    let (tag, der) = block(file, "PUBLIC KEY")?;
    if tag == "RSA PUBLIC KEY" {
        return Some(der);
    }
    let (_rest, key) = SubjectPublicKeyInfo::from_der(&der).ok()?;
    bits(&key, algorithm)
}

fn bits(key: &SubjectPublicKeyInfo<'_>, algorithm: &str) -> Option<Vec<u8>> {
    let is_of = key.algorithm.algorithm.to_id_string() == algorithm;
    is_of.then(|| key.subject_public_key.data.to_vec())
}
