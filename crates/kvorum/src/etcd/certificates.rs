//! The member's TLS identities, loaded from files or made by itself.
//!
//! What this is not: TLS. `transport` reads the files, follows them, and does the handshakes.

use std::fs::DirBuilder;
use std::os::unix::fs::DirBuilderExt;
use std::sync::Arc;

use transport::{
    AutoTls, ClientAuth, Dialer, EndpointKind, SharedDial, TlsClient, TlsClientConfig, TlsConfig,
    TlsServer,
};
use types::Clock;

use crate::config::{AutoCertificates, ClientTls, Config, PeerTls};
use crate::error::StartError;

/// A data directory is its owner's, as in etcd.
const DIR_MODE: u32 = 0o700;

/// What the member shows to whom.
#[derive(Clone, Debug, Default)]
pub(super) struct Certificates {
    /// To clients.
    pub(super) client: Option<TlsServer>,
    /// To peers that dial it.
    pub(super) peer: Option<TlsServer>,
    /// To peers that it dials.
    pub(super) dialer: Option<TlsClient>,
}

impl Certificates {
    /// Reads the files, and makes what the member has to make. Blocks on the disk.
    pub(super) fn load(config: &Config, clock: &Arc<dyn Clock>) -> Result<Self, StartError> {
        let mut certificates = Self::default();
        match &config.peer_tls {
            None => {}
            Some(PeerTls::Files(files)) => {
                certificates.peer = Some(TlsServer::load(&files.server, Arc::clone(clock))?);
                certificates.dialer = Some(TlsClient::load(&files.client, Arc::clone(clock))?);
            }
            Some(PeerTls::Auto(auto)) => {
                let made = make(config, auto, clock)?;
                let server = made_server(EndpointKind::Peer, &made, auto);
                let client = TlsClientConfig {
                    cert_file: made.cert_file,
                    key_file: made.key_file,
                    trusted_ca_file: None,
                    insecure_skip_verify: true,
                    parameters: auto.parameters.clone(),
                };
                certificates.peer = Some(TlsServer::load(&server, Arc::clone(clock))?);
                certificates.dialer = Some(TlsClient::load(&client, Arc::clone(clock))?);
            }
        }
        certificates.client = match &config.client_tls {
            None => None,
            Some(ClientTls::Files(server)) => Some(TlsServer::load(server, Arc::clone(clock))?),
            Some(ClientTls::Auto(auto)) => {
                let made = make(config, auto, clock)?;
                let server = made_server(EndpointKind::Client, &made, auto);
                Some(TlsServer::load(&server, Arc::clone(clock))?)
            }
        };
        Ok(certificates)
    }

    /// Dials the peers.
    pub(super) fn dial(&self, config: &Config) -> SharedDial {
        if let Some(address) = config.local_address {
            tracing::info!(LocalAddr = %address, "setting member local address");
        }
        // As in etcd, members that DNS names may all show the certificate of its domain.
        let domain = &config.discovery.srv;
        let has_authority = match &config.peer_tls {
            Some(PeerTls::Files(files)) => files.client.trusted_ca_file.is_some(),
            _ => false,
        };
        let name = (!domain.is_empty() && !has_authority).then(|| domain.clone());
        let dialer = Dialer::new(self.dialer.clone(), config.local_address);
        let dialer = dialer.with_write_timeout(config.raft_write_timeout);
        Arc::new(dialer.with_server_name(name))
    }
}

fn make(
    config: &Config,
    auto: &AutoCertificates,
    clock: &Arc<dyn Clock>,
) -> Result<AutoTls, StartError> {
    let mut private = DirBuilder::new();
    private.recursive(true).mode(DIR_MODE);
    private
        .create(&config.data_dir)
        .map_err(|source| backend::DataDirError::Io {
            operation: "create",
            path: config.data_dir.clone(),
            source,
        })?;
    let (directory, hosts) = (&auto.directory, &auto.hosts);
    let made = AutoTls::ensure(directory, hosts, auto.validity_years, &**clock)?;
    Ok(made)
}

fn made_server(kind: EndpointKind, made: &AutoTls, auto: &AutoCertificates) -> TlsConfig {
    TlsConfig {
        kind,
        cert_file: made.cert_file.clone(),
        key_file: made.key_file.clone(),
        client_auth: ClientAuth::None,
        parameters: auto.parameters.clone(),
    }
}
