//! The members that a domain's SRV records name (`client/pkg/srv` and `GetDNSClusterNames` in etcd).

use std::collections::HashMap;
use std::net::SocketAddr;

use types::Url;

use super::dns::{self, NameServers};
use crate::config::Config;

/// `name=url` for every record that could be resolved. Which of them is this member is seen by the
/// addresses that it advertises; the others get numbers for names.
pub(super) async fn names(
    config: &Config,
    name_servers: &NameServers,
) -> Result<Vec<String>, String> {
    let suffix = match config.discovery.srv_name.as_str() {
        "" => String::new(),
        name => format!("-{name}"),
    };
    let mut names = Vec::new();
    let mut failures = Vec::new();
    for (scheme, service) in [("https", "etcd-server-ssl"), ("http", "etcd-server")] {
        let service = format!("{service}{suffix}");
        let found = of_service(config, name_servers, scheme, &service).await;
        tracing::info!(
            "service-scheme" = scheme,
            "service-name" = service,
            "server-name" = config.name,
            "discovery-srv" = config.discovery.srv,
            "found-cluster" = found
                .as_ref()
                .map(|found| found.join(","))
                .unwrap_or_default(),
            error = found.as_ref().err(),
            "get cluster for SRV",
        );
        match found {
            Ok(found) => names.extend(found),
            Err(text) => failures.push(text),
        }
    }
    let failures = failures.join("; ");
    if names.is_empty() {
        return Err(failures);
    }
    if !failures.is_empty() {
        tracing::warn!(error = failures, "failed to resolve during SRV discovery");
    }
    Ok(names)
}

async fn of_service(
    config: &Config,
    name_servers: &NameServers,
    scheme: &str,
    service: &str,
) -> Result<Vec<String>, String> {
    let mut ours: HashMap<SocketAddr, &Url> = HashMap::new();
    for url in &config.advertise_peer_urls {
        let port = url.port().map_err(|error| error.to_string())?;
        ours.insert(dns::address(url.host(), port).await?, url);
    }
    let about = |text: String| format!("error querying DNS SRV records for _{service} {text}");
    let domain = &config.discovery.srv;
    let records = name_servers
        .services(service, domain)
        .await
        .map_err(about)?;
    let mut names = Vec::new();
    let mut failure = String::new();
    let mut nameless = 0;
    for record in records {
        let address = match dns::address(&record.target, record.port).await {
            Ok(address) => address,
            Err(text) => {
                failure = text;
                continue;
            }
        };
        let host = record.target.trim_end_matches('.');
        let url = format!("{scheme}://{host}:{}", record.port);
        match ours.get(&address) {
            Some(our) if our.scheme().as_str() != scheme => {
                failure = format!(
                    "bootstrap at {url} from DNS for {service} has scheme mismatch with expected \
                     peer {our}"
                );
            }
            Some(_) => names.push(format!("{}={url}", config.name)),
            None => {
                names.push(format!("{nameless}={url}"));
                nameless += 1;
            }
        }
    }
    if names.is_empty() {
        return Err(about(failure));
    }
    Ok(names)
}
