//! TLS as it is asked for (`TlsOptions`), and as it is used: files, or certificates that the member
//! makes for itself. No file is opened here.

use std::path::PathBuf;

use transport::{
    CipherSuite, ClientAuth, ClientVerification, EndpointKind, TlsClientConfig, TlsConfig,
    TlsParameters, TlsVersion,
};
use types::Url;

use super::validate::Check;
use super::{Options, Warning};

/// The TLS flags of one side: clients, or, with `--peer-`, peers.
///
/// ```
/// use kvorum::Options;
/// use kvorum::config::TlsOptions;
///
/// let file = |name: &str| format!("/etc/mine/{name}");
/// let data_dir = "/var/lib/mine".to_owned();
/// let peer_tls = TlsOptions { cert_file: file("peer.crt"), key_file: file("peer.key"), ..TlsOptions::default() };
/// let whole = Options { data_dir, peer_tls, ..Options::default() };
/// assert!(whole.clone().validate()?.peer_tls.is_some());
///
/// let peer_tls = TlsOptions { key_file: String::new(), ..whole.peer_tls.clone() };
/// let refused = Options { peer_tls, ..whole }.validate().expect_err("the key is missing");
/// let text = "KeyFile and CertFile must both be present[key: , cert: /etc/mine/peer.crt]";
/// assert_eq!(refused.to_string(), text);
/// # Ok::<(), kvorum::ConfigError>(())
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TlsOptions {
    /// `--cert-file`
    pub cert_file: String,
    /// `--key-file`
    pub key_file: String,
    /// `--client-cert-file`
    pub client_cert_file: String,
    /// `--client-key-file`
    pub client_key_file: String,
    /// `--client-cert-auth`
    pub client_cert_auth: bool,
    /// `--trusted-ca-file`
    pub trusted_ca_file: String,
    /// `--client-crl-file`, `--peer-crl-file`
    pub crl_file: String,
    /// `--peer-cert-allowed-cn`
    pub allowed_common_names: Vec<String>,
    /// `--client-cert-allowed-hostname`
    pub allowed_hostnames: Vec<String>,
    /// `--auto-tls`
    pub auto_tls: bool,
    /// `--peer-skip-client-san-verification`
    pub skip_client_san_verification: bool,
}

/// A certificate that the member makes for itself when it starts (`--auto-tls`, `--peer-auto-tls`).
///
/// ```
/// use std::path::Path;
///
/// use kvorum::Config;
/// use kvorum::config::{AutoCertificates, PeerTls};
///
/// let url = "https://10.0.0.1:2380";
/// let builder = Config::builder().data_dir("/var/lib/mine").listen_peer_urls(url);
/// let builder = builder.initial_advertise_peer_urls(url).flag("peer-auto-tls", "true");
/// let Some(PeerTls::Auto(AutoCertificates { directory, hosts, .. })) = builder.build()?.peer_tls else {
///     panic!("no files were given");
/// };
/// assert_eq!(directory, Path::new("/var/lib/mine/fixtures/peer"));
/// assert_eq!(hosts, ["10.0.0.1"]);
/// # Ok::<(), kvorum::ConfigError>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AutoCertificates {
    /// Where it is kept.
    pub directory: PathBuf,
    /// Whom it is for.
    pub hosts: Vec<String>,
    /// How long it is valid.
    pub validity_years: u64,
    /// What is spoken with it.
    pub parameters: TlsParameters,
}

/// The identity shown to clients.
///
/// ```
/// use kvorum::Config;
/// use kvorum::config::ClientTls;
///
/// let url = "https://127.0.0.1:2379";
/// let builder = Config::builder().data_dir("/var/lib/mine").listen_client_urls(url);
/// let builder = builder.flag("advertise-client-urls", url);
/// let builder = builder.flag("cert-file", "server.crt").flag("key-file", "server.key");
/// assert!(matches!(builder.build()?.client_tls, Some(ClientTls::Files(_))));
/// # Ok::<(), kvorum::ConfigError>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ClientTls {
    /// From these files.
    Files(TlsConfig),
    /// Made by the member.
    Auto(AutoCertificates),
}

/// A peer's two identities. [`PeerTls`] has an example.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerFiles {
    /// Shown to those who dial.
    pub server: TlsConfig,
    /// Shown when dialling.
    pub client: TlsClientConfig,
}

/// The identity shown to peers.
///
/// ```
/// use std::path::Path;
///
/// use kvorum::Config;
/// use kvorum::config::{PeerFiles, PeerTls};
///
/// let url = "https://10.0.0.1:2380";
/// let builder = Config::builder().data_dir("/var/lib/mine").listen_peer_urls(url);
/// let builder = builder.initial_advertise_peer_urls(url);
/// let builder = builder.flag("peer-cert-file", "peer.crt").flag("peer-key-file", "peer.key");
/// let Some(PeerTls::Files(files)) = builder.build()?.peer_tls else {
///     panic!("files were given");
/// };
/// let PeerFiles { server, client } = *files;
/// assert_eq!(server.cert_file, Path::new("peer.crt"));
/// assert_eq!(client.cert_file, server.cert_file, "no other one was given");
/// # Ok::<(), kvorum::ConfigError>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PeerTls {
    /// From files.
    Files(Box<PeerFiles>),
    /// Made by the member; nobody's certificate is checked.
    Auto(AutoCertificates),
}

impl TlsOptions {
    const fn is_empty(&self) -> bool {
        self.cert_file.is_empty() && self.key_file.is_empty()
    }

    fn server(&self, kind: EndpointKind, parameters: TlsParameters) -> TlsConfig {
        let client_auth = if self.trusted_ca_file.is_empty() {
            ClientAuth::None
        } else {
            ClientAuth::Required(ClientVerification {
                trusted_ca_file: PathBuf::from(&self.trusted_ca_file),
                crl_file: path(&self.crl_file),
                allowed_common_names: self.allowed_common_names.clone(),
                allowed_hostnames: self.allowed_hostnames.clone(),
                verify_san: kind == EndpointKind::Peer && !self.skip_client_san_verification,
            })
        };
        TlsConfig {
            kind,
            cert_file: PathBuf::from(&self.cert_file),
            key_file: PathBuf::from(&self.key_file),
            client_auth,
            parameters,
        }
    }

    fn client(&self, parameters: TlsParameters) -> TlsClientConfig {
        let (cert_file, key_file) = if self.client_cert_file.is_empty() {
            (&self.cert_file, &self.key_file)
        } else {
            (&self.client_cert_file, &self.client_key_file)
        };
        TlsClientConfig {
            cert_file: PathBuf::from(cert_file),
            key_file: PathBuf::from(key_file),
            trusted_ca_file: path(&self.trusted_ca_file),
            insecure_skip_verify: false,
            parameters,
        }
    }
}

impl Check {
    /// Versions and cipher suites, for clients and peers.
    pub(super) fn tls_parameters(&mut self, options: &Options) -> TlsParameters {
        let min_version = self.tls_version(&options.tls_min_version);
        let max_version = self.tls_version(&options.tls_max_version);
        if let (Some(min), Some(max)) = (min_version, max_version)
            && min > max
        {
            let (min, max) = (&options.tls_min_version, &options.tls_max_version);
            self.problem(format!(
                "min version ({min}) is greater than max version ({max})"
            ));
        }
        if min_version == Some(TlsVersion::Tls13) && !options.cipher_suites.is_empty() {
            self.problem("cipher suites cannot be configured when only TLS1.3 is enabled");
        }
        let mut cipher_suites = Vec::new();
        for name in &options.cipher_suites {
            match CipherSuite::named(name) {
                Some(suite) => cipher_suites.push(suite),
                None => self.problem(format!("unexpected TLS cipher suite {name:?}")),
            }
        }
        TlsParameters {
            min_version,
            max_version,
            cipher_suites,
        }
    }

    fn tls_version(&mut self, text: &str) -> Option<TlsVersion> {
        match text {
            "" => None,
            "TLS1.2" => Some(TlsVersion::Tls12),
            "TLS1.3" => Some(TlsVersion::Tls13),
            _ => {
                self.problem(format!(
                    "unexpected TLS version {text:?} (must be one of: TLS1.2, TLS1.3)"
                ));
                None
            }
        }
    }

    pub(super) fn peer_tls(
        &mut self,
        options: &Options,
        parameters: &TlsParameters,
        urls: &[Url],
    ) -> Option<PeerTls> {
        let tls = &options.peer_tls;
        for url in urls.iter().filter(|url| !url.scheme().is_tls()) {
            self.ignored_on_plain_url(tls, "peer", url);
        }
        if tls.is_empty() {
            if tls.auto_tls {
                return Some(PeerTls::Auto(auto(options, "peer", urls, parameters)));
            }
            for url in urls.iter().filter(|url| url.scheme().is_tls()) {
                self.problem(format!(
                    "cannot listen on TLS for {}: KeyFile and CertFile are not presented \
                     (--peer-cert-file, --peer-key-file)",
                    url.authority()
                ));
            }
            return None;
        }
        if tls.auto_tls {
            self.warn(Warning::AutoTlsIgnored { whose: "peer" });
        }
        self.files(tls, "--peer-client-cert-auth needs --peer-trusted-ca-file");
        Some(PeerTls::Files(Box::new(PeerFiles {
            server: tls.server(EndpointKind::Peer, parameters.clone()),
            client: tls.client(parameters.clone()),
        })))
    }

    pub(super) fn client_tls(
        &mut self,
        options: &Options,
        parameters: &TlsParameters,
        urls: &[Url],
    ) -> Option<ClientTls> {
        let tls = &options.client_tls;
        for url in urls.iter().filter(|url| !url.scheme().is_tls()) {
            self.ignored_on_plain_url(tls, "client", url);
        }
        let mut secure = urls.iter().filter(|url| url.scheme().is_tls());
        let secure_client = secure.next();
        let metrics = &options.listen_metrics_urls;
        if secure_client.is_none() && !metrics.iter().any(|url| url.scheme().is_tls()) {
            return None;
        }
        if tls.is_empty() && tls.auto_tls {
            return Some(ClientTls::Auto(auto(options, "client", urls, parameters)));
        }
        if tls.is_empty() {
            self.problem(match secure_client {
                Some(url) => format!(
                    "TLS key/cert (--cert-file, --key-file) must be provided for client url {url} \
                     with HTTPS scheme"
                ),
                None => "client TLS key/cert (--cert-file, --key-file) must be provided for \
                         metrics secure url"
                    .to_owned(),
            });
            return None;
        }
        if tls.auto_tls {
            self.warn(Warning::AutoTlsIgnored { whose: "client" });
        }
        self.files(tls, "--client-cert-auth needs --trusted-ca-file");
        Some(ClientTls::Files(
            tls.server(EndpointKind::Client, parameters.clone()),
        ))
    }

    fn ignored_on_plain_url(&mut self, tls: &TlsOptions, whose: &'static str, url: &Url) {
        if !tls.is_empty() {
            let url = url.clone();
            self.warn(Warning::PlainWithCertificate { whose, url });
        }
        if tls.client_cert_auth {
            let url = url.clone();
            self.warn(Warning::PlainWithClientAuth { whose, url });
        }
    }

    /// What is wrong with files that are given (`TLSInfo.baseConfig`).
    fn files(&mut self, tls: &TlsOptions, no_authority: &str) {
        let (key, cert) = (&tls.key_file, &tls.cert_file);
        if key.is_empty() || cert.is_empty() {
            self.problem(format!(
                "KeyFile and CertFile must both be present[key: {key}, cert: {cert}]"
            ));
        }
        let (key, cert) = (&tls.client_key_file, &tls.client_cert_file);
        if key.is_empty() != cert.is_empty() {
            self.problem(format!(
                "ClientKeyFile and ClientCertFile must both be present or both absent: key: {key}, \
                 cert: {cert}]"
            ));
        }
        let (names, hosts) = (&tls.allowed_common_names, &tls.allowed_hostnames);
        if !names.is_empty() && !hosts.is_empty() {
            self.problem(format!(
                "AllowedCNs and AllowedHostnames are mutually exclusive (cns={}, hostnames={})",
                quoted(names),
                quoted(hosts)
            ));
        }
        if tls.client_cert_auth && tls.trusted_ca_file.is_empty() {
            // Differs from etcd: it would believe every authority that the machine believes.
            self.problem(no_authority);
        }
    }
}

fn auto(
    options: &Options,
    whose: &str,
    urls: &[Url],
    parameters: &TlsParameters,
) -> AutoCertificates {
    AutoCertificates {
        directory: super::validate::data_dir(options)
            .join("fixtures")
            .join(whose),
        hosts: urls.iter().map(|url| url.host().to_owned()).collect(),
        validity_years: options.self_signed_cert_validity_years,
        parameters: parameters.clone(),
    }
}

fn path(text: &str) -> Option<PathBuf> {
    (!text.is_empty()).then(|| PathBuf::from(text))
}

/// As Go prints a list of texts with `%q`.
fn quoted(texts: &[String]) -> String {
    let texts: Vec<String> = texts.iter().map(|text| format!("{text:?}")).collect();
    format!("[{}]", texts.join(" "))
}
