//! The server's side: which certificate is shown, and which clients are believed.

use std::fmt;
use std::sync::Arc;

use rustls::ServerConfig;
use rustls::server::danger::ClientCertVerifier;
use rustls::server::{NoServerSessionStorage, WebPkiClientVerifier};
use rustls::sign::SingleCertAndKey;
use types::Clock;

use crate::tls::files::{AuthorityFile, PairFiles, RevocationFile};
use crate::tls::parameters::Spoken;
use crate::tls::reload::{Followed, NamedFile};
use crate::tls::verify::{AllowedNames, ClientChecker, Refusal};
use crate::tls::{CertificateStatus, ClientAuth, ClientVerification, TlsConfig, WallTime, alpn};
use crate::{EndpointKind, TlsError};

/// A loaded TLS identity; notices when its files change. Cheap to clone.
///
/// No session is ever resumed: a resumed one would not be checked again, neither its certificate's
/// end nor the authorities and revocation lists of today. (Go's clients do not ask for it anyway.)
#[derive(Clone, Debug)]
pub struct TlsServer {
    files: Arc<Files>,
}

struct Files {
    pair: Followed<PairFiles>,
    clients: Option<Clients>,
    spoken: Spoken,
    clock: Arc<WallTime>,
}

/// Which clients are believed.
struct Clients {
    authorities: Followed<AuthorityFile>,
    revoked: Option<Followed<RevocationFile>>,
    allowed: Arc<AllowedNames>,
    verify_san: bool,
}

/// What one handshake is made with.
pub(crate) struct ServerHandshake {
    pub(crate) config: Arc<ServerConfig>,
    /// Why the client was refused, when it was.
    pub(crate) refusal: Arc<Refusal>,
    /// Whether its certificate has to fit its address.
    pub(crate) verify_san: bool,
}

/// How the files are called.
struct Flags {
    cert: &'static str,
    key: &'static str,
    ca: &'static str,
    crl: &'static str,
}

impl Flags {
    const fn of(kind: EndpointKind) -> Self {
        match kind {
            EndpointKind::Client | EndpointKind::Metrics => Self {
                cert: "--cert-file",
                key: "--key-file",
                ca: "--trusted-ca-file",
                crl: "--client-crl-file",
            },
            EndpointKind::Peer => Self {
                cert: "--peer-cert-file",
                key: "--peer-key-file",
                ca: "--peer-trusted-ca-file",
                crl: "--peer-crl-file",
            },
        }
    }
}

impl TlsServer {
    /// Reads and checks the files. The clock says whether clients' certificates are valid.
    ///
    /// # Errors
    ///
    /// The flag and file that cannot be used.
    pub fn load(config: &TlsConfig, clock: Arc<dyn Clock>) -> Result<Self, TlsError> {
        let flags = Flags::of(config.kind);
        let spoken = config.parameters.spoken()?;
        let clock = Arc::new(WallTime(clock));
        let pair = PairFiles {
            cert: NamedFile::new(flags.cert, &config.cert_file),
            key: NamedFile::new(flags.key, &config.key_file),
            provider: Arc::clone(&spoken.provider),
        };
        let pair = Followed::load(pair, Arc::clone(&clock))?;
        let clients = match &config.client_auth {
            ClientAuth::None => None,
            ClientAuth::Required(verification) => {
                Some(Clients::load(verification, &flags, &spoken, &clock)?)
            }
        };
        Ok(Self {
            files: Arc::new(Files {
                pair,
                clients,
                spoken,
                clock,
            }),
        })
    }

    /// The certificates in use now. Looks at the files, so it blocks on the disk.
    #[must_use]
    pub fn certificates(&self) -> Vec<CertificateStatus> {
        let mut status: Vec<_> = self.files.pair.status().into_iter().collect();
        if let Some(clients) = &self.files.clients {
            status.extend(clients.authorities.status());
            status.extend(clients.revoked.as_ref().and_then(Followed::status));
        }
        status
    }

    /// What the next handshake is made with. Looks at the files, so it blocks on the disk.
    pub(crate) fn current(&self) -> ServerHandshake {
        let files = &self.files;
        let refusal = Arc::new(Refusal::default());
        let verifier = files
            .clients
            .as_ref()
            .map_or_else(WebPkiClientVerifier::no_client_auth, |clients| {
                clients.checker(&refusal)
            });
        let key = Arc::clone(&files.pair.current().key);
        let provider = Arc::clone(&files.spoken.provider);
        let clock = Arc::clone(&files.clock);
        let mut config = ServerConfig::builder_with_details(provider, clock)
            .with_protocol_versions(&files.spoken.versions)
            .expect("every version has cipher suites, or there would be no `Spoken`")
            .with_client_cert_verifier(verifier)
            .with_cert_resolver(Arc::new(SingleCertAndKey::from(key)));
        config.alpn_protocols = alpn();
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.send_tls13_tickets = 0;
        ServerHandshake {
            config: Arc::new(config),
            refusal,
            verify_san: files
                .clients
                .as_ref()
                .is_some_and(|clients| clients.verify_san),
        }
    }
}

impl Clients {
    fn load(
        verification: &ClientVerification,
        flags: &Flags,
        spoken: &Spoken,
        clock: &Arc<WallTime>,
    ) -> Result<Self, TlsError> {
        let authorities = AuthorityFile {
            file: NamedFile::new(flags.ca, &verification.trusted_ca_file),
            provider: Arc::clone(&spoken.provider),
        };
        let revoked = verification.crl_file.as_ref().map(|path| {
            let file = NamedFile::new(flags.crl, path);
            Followed::load(RevocationFile { file }, Arc::clone(clock))
        });
        Ok(Self {
            authorities: Followed::load(authorities, Arc::clone(clock))?,
            revoked: revoked.transpose()?,
            allowed: Arc::new(AllowedNames::new(verification)),
            verify_san: verification.verify_san,
        })
    }

    fn checker(&self, refusal: &Arc<Refusal>) -> Arc<dyn ClientCertVerifier> {
        Arc::new(ClientChecker {
            authorities: self.authorities.current(),
            revoked: self.revoked.as_ref().map(Followed::current),
            allowed: Arc::clone(&self.allowed),
            refusal: Arc::clone(refusal),
        })
    }
}

impl fmt::Debug for Files {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Files").field(&self.pair).finish()
    }
}
