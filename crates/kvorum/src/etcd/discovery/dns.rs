//! Questions to DNS, and Go's words for its answers. SRV records are asked for here, since the system's
//! resolver has no call for them; addresses of names are the system's business.

use std::net::SocketAddr;

use hickory_resolver::TokioResolver;
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::proto::rr::RData;
use tokio::net::lookup_host;

/// Which DNS servers are asked.
#[derive(Clone, Debug)]
pub(crate) enum NameServers {
    /// Those of `/etc/resolv.conf`.
    System,
    /// A test's.
    #[cfg(test)]
    At(SocketAddr),
}

/// Where a service is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Service {
    /// A name, often with a dot at its end.
    pub(super) target: String,
    pub(super) port: u16,
}

impl NameServers {
    /// The records of `_service._tcp.domain`, the preferred first.
    pub(super) async fn services(
        &self,
        service: &str,
        domain: &str,
    ) -> Result<Vec<Service>, String> {
        let name = format!("_{service}._tcp.{domain}");
        let failed = |server: &str, why: &str| format!("lookup {name}{server}: {why}");
        let resolver = self
            .resolver()
            .map_err(|error| failed("", &error.to_string()))?;
        let server = resolver.1;
        let found = resolver
            .0
            .srv_lookup(name.as_str())
            .await
            .map_err(|error| {
                let why = match error.to_string() {
                    _ if error.is_nx_domain() || error.is_no_records_found() => {
                        "no such host".to_owned()
                    }
                    text if text.contains("timed out") => "i/o timeout".to_owned(),
                    text => text,
                };
                failed(&server, &why)
            })?;
        let mut records: Vec<_> = found
            .answers()
            .iter()
            .filter_map(|record| match &record.data {
                RData::SRV(srv) => Some(srv),
                _ => None,
            })
            .collect();
        if records.is_empty() {
            return Err(failed(&server, "no such host"));
        }
        records.sort_by_key(|srv| (srv.priority, std::cmp::Reverse(srv.weight)));
        let service = |srv: &hickory_resolver::proto::rr::rdata::SRV| Service {
            target: srv.target.to_utf8(),
            port: srv.port,
        };
        Ok(records.into_iter().map(service).collect())
    }

    /// And what texts say about the server.
    fn resolver(&self) -> Result<(TokioResolver, String), hickory_resolver::net::NetError> {
        let (config, options) = match self {
            Self::System => hickory_resolver::system_conf::read_system_conf()?,
            #[cfg(test)]
            Self::At(address) => only(*address),
        };
        let server = config.name_servers().first().map(|server| {
            let port = server.connections.first().map_or(53, |it| it.port);
            format!(" on {}", SocketAddr::new(server.ip, port))
        });
        let mut builder =
            TokioResolver::builder_with_config(config, TokioRuntimeProvider::default());
        *builder.options_mut() = options;
        Ok((builder.build()?, server.unwrap_or_default()))
    }
}

/// A configuration with this server alone.
#[cfg(test)]
fn only(
    address: SocketAddr,
) -> (
    hickory_resolver::config::ResolverConfig,
    hickory_resolver::config::ResolverOpts,
) {
    use hickory_resolver::config::{ConnectionConfig, NameServerConfig, ResolverConfig};
    let mut connection = ConnectionConfig::udp();
    connection.port = address.port();
    let server = NameServerConfig::new(address.ip(), true, vec![connection]);
    let config = ResolverConfig::from_parts(None, Vec::new(), vec![server]);
    (config, Default::default())
}

/// The address of a host, IPv4 if it has one: how Go resolves an address to listen on or to dial.
pub(super) async fn address(host: &str, port: u16) -> Result<SocketAddr, String> {
    let no_such_host = || format!("lookup {host}: no such host");
    let found = lookup_host((host.trim_end_matches('.'), port)).await;
    let found: Vec<SocketAddr> = found.map_err(|_error| no_such_host())?.collect();
    let first = found.iter().find(|it| it.is_ipv4()).or(found.first());
    first.copied().ok_or_else(no_such_host)
}
