//! The dialler's side: which certificate is shown, and which servers are believed.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use rustls::client::danger::ServerCertVerifier;
use rustls::client::{Resumption, WebPkiServerVerifier};
use rustls::crypto::CryptoProvider;
use rustls::sign::SingleCertAndKey;
use rustls::{ClientConfig, RootCertStore};
use types::Clock;

use crate::TlsError;
use crate::tls::files::{AuthorityFile, PairFiles};
use crate::tls::parameters::Spoken;
use crate::tls::reload::{Followed, NamedFile};
use crate::tls::verify::{Believed, ServerChecker};
use crate::tls::{
    AnonymousTls, CertificateStatus, TlsCallerConfig, TlsClientConfig, WallTime, alpn,
};

/// A loaded identity to dial with; follows its files. Cheap to clone. Never resumes a session, so
/// every server is checked by the files of today.
#[derive(Clone, Debug)]
pub struct TlsClient {
    files: Arc<Files>,
}

struct Files {
    /// Without one no certificate is shown.
    pair: Option<Followed<PairFiles>>,
    servers: Servers,
    spoken: Spoken,
    clock: Arc<WallTime>,
}

/// Which servers are believed.
enum Servers {
    OfFile(Followed<AuthorityFile>),
    Fixed(Believed),
}

impl TlsClient {
    /// Reads and checks the files.
    ///
    /// # Errors
    ///
    /// The flag and file that cannot be used.
    pub fn load(config: &TlsClientConfig, clock: Arc<dyn Clock>) -> Result<Self, TlsError> {
        let pair = (config.cert_file.clone(), config.key_file.clone());
        let caller = TlsCallerConfig {
            pair: Some(pair),
            trusted_ca_file: config.trusted_ca_file.clone(),
            insecure_skip_verify: config.insecure_skip_verify,
            parameters: config.parameters.clone(),
            flags: [
                "--peer-client-cert-file/--peer-cert-file",
                "--peer-client-key-file/--peer-key-file",
                "--peer-trusted-ca-file",
            ],
        };
        Self::load_caller(&caller, clock)
    }

    /// One that shows no certificate.
    ///
    /// # Errors
    ///
    /// The file that cannot be used.
    pub fn anonymous(config: &AnonymousTls, clock: Arc<dyn Clock>) -> Result<Self, TlsError> {
        let caller = TlsCallerConfig {
            pair: None,
            trusted_ca_file: config.trusted_ca_file.clone(),
            insecure_skip_verify: config.insecure_skip_verify,
            parameters: config.parameters.clone(),
            flags: ["--cert", "--key", "--cacert"],
        };
        Self::load_caller(&caller, clock)
    }

    /// As [`TlsClient::load`], for somebody who is no peer.
    ///
    /// # Errors
    ///
    /// The flag and file that cannot be used.
    pub fn load_caller(config: &TlsCallerConfig, clock: Arc<dyn Clock>) -> Result<Self, TlsError> {
        let spoken = config.parameters.spoken()?;
        let clock = Arc::new(WallTime(clock));
        let [cert_flag, key_flag, authority_flag] = config.flags;
        let load_pair = |(cert, key): &(PathBuf, PathBuf)| {
            let pair = PairFiles {
                cert: NamedFile::new(cert_flag, cert),
                key: NamedFile::new(key_flag, key),
                provider: Arc::clone(&spoken.provider),
            };
            Followed::load(pair, Arc::clone(&clock))
        };
        let pair = config.pair.as_ref().map(load_pair).transpose()?;
        let authorities = config
            .trusted_ca_file
            .as_ref()
            .map(|path| NamedFile::new(authority_flag, path));
        let servers = match config.insecure_skip_verify {
            true => Servers::Fixed(Believed::Everybody),
            false => Servers::load(authorities, &spoken.provider, &clock)?,
        };
        Ok(Self {
            files: Arc::new(Files {
                pair,
                servers,
                spoken,
                clock,
            }),
        })
    }

    /// The certificates in use now. Looks at the files, so it blocks on the disk.
    #[must_use]
    pub fn certificates(&self) -> Vec<CertificateStatus> {
        let pair = self.files.pair.as_ref();
        let mut status: Vec<_> = pair.into_iter().flat_map(Followed::status).collect();
        if let Servers::OfFile(authorities) = &self.files.servers {
            status.extend(authorities.status());
        }
        status
    }

    /// What the next handshake is made with. Looks at the files, so it blocks on the disk.
    pub(crate) fn current(&self) -> Arc<ClientConfig> {
        let files = &self.files;
        let believed = match &files.servers {
            Servers::OfFile(authorities) => Believed::Of(authorities.current()),
            Servers::Fixed(believed) => believed.clone(),
        };
        let provider = Arc::clone(&files.spoken.provider);
        let checker = ServerChecker {
            believed,
            provider: Arc::clone(&provider),
        };
        let clock = Arc::clone(&files.clock);
        let config = ClientConfig::builder_with_details(provider, clock)
            .with_protocol_versions(&files.spoken.versions)
            .expect("every version has cipher suites, or there would be no `Spoken`")
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(checker));
        let mut config = match &files.pair {
            None => config.with_no_client_auth(),
            Some(pair) => {
                let key = Arc::clone(&pair.current().key);
                config.with_client_cert_resolver(Arc::new(SingleCertAndKey::from(key)))
            }
        };
        config.alpn_protocols = alpn();
        config.resumption = Resumption::disabled();
        Arc::new(config)
    }
}

impl Servers {
    fn load(
        authorities: Option<NamedFile>,
        provider: &Arc<CryptoProvider>,
        clock: &Arc<WallTime>,
    ) -> Result<Self, TlsError> {
        let Some(file) = authorities else {
            return Ok(Self::Fixed(Believed::System(system_authorities(provider))));
        };
        let provider = Arc::clone(provider);
        let followed = Followed::load(AuthorityFile { file, provider }, Arc::clone(clock))?;
        Ok(Self::OfFile(followed))
    }
}

/// The authorities that this system believes, read once; `None` when it has none.
fn system_authorities(provider: &Arc<CryptoProvider>) -> Option<Arc<dyn ServerCertVerifier>> {
    let found = rustls_native_certs::load_native_certs();
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(found.certs);
    WebPkiServerVerifier::builder_with_provider(Arc::new(roots), Arc::clone(provider))
        .build()
        .inspect_err(|error| tracing::warn!(%error, "this system has no authorities to believe"))
        .ok()
        .map(|verifier| verifier as _)
}

impl fmt::Debug for Files {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Files").field(&self.pair).finish()
    }
}
