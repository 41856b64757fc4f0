//! The flags that all servers of a cluster must agree on (k3s's `CriticalControlArgs`).
//!
//! What this is not: their meaning. Two are handed to the API server; the others matter to parts of
//! k3s that are not in here, and are compared all the same.

use std::collections::BTreeMap;

use clap::Args;
use serde::{Deserialize, Serialize};

#[derive(Clone, Debug, Args)]
pub(crate) struct CriticalArgs {
    /// (networking) IPv4/IPv6 network CIDRs to use for pod IPs
    #[arg(long, value_name = "CIDR", default_value = "10.42.0.0/16")]
    cluster_cidr: String,
    /// (networking) IPv4/IPv6 network CIDRs to use for service IPs
    #[arg(long, value_name = "CIDR", default_value = "10.43.0.0/16")]
    pub(crate) service_cidr: String,
    /// (networking) IPv4 Cluster IP for coredns service
    #[arg(long, value_name = "IP", default_value = "10.43.0.10")]
    cluster_dns: String,
    /// (networking) Cluster Domain
    #[arg(long, value_name = "DOMAIN", default_value = "cluster.local")]
    pub(crate) cluster_domain: String,
    /// (networking) Backend
    #[arg(long, value_name = "NAME", default_value = "vxlan")]
    flannel_backend: String,
    /// (networking) Enable IPv6 masquerading for pod
    #[arg(long)]
    flannel_ipv6_masq: bool,
    /// (networking) Use node external IP addresses for Flannel traffic
    #[arg(long)]
    flannel_external_ip: bool,
    /// (networking) One of 'agent', 'cluster', 'pod', 'disabled'
    #[arg(long, value_name = "MODE", default_value = "agent")]
    egress_selector_mode: String,
    /// (components) Do not deploy packaged components
    #[arg(long, value_name = "NAME", value_delimiter = ',')]
    disable: Vec<String>,
    /// (components) Disable k3s default cloud controller manager
    #[arg(long)]
    disable_cloud_controller: bool,
    /// (components) Disable k3s default network policy controller
    #[arg(long)]
    disable_network_policy: bool,
    /// (components) Disable Helm controller
    #[arg(long)]
    disable_helm_controller: bool,
    /// (components) Enable embedded distributed container registry
    #[arg(long)]
    embedded_registry: bool,
    /// Enable secret encryption at rest
    #[arg(long)]
    secrets_encryption: bool,
}

/// Flags by name, as the servers tell each other.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct CriticalValues(BTreeMap<String, String>);

impl CriticalArgs {
    pub(crate) fn values(&self) -> CriticalValues {
        let mut disabled = self.disable.clone();
        disabled.sort();
        let values = [
            ("cluster-cidr", self.cluster_cidr.clone()),
            ("service-cidr", self.service_cidr.clone()),
            ("cluster-dns", self.cluster_dns.clone()),
            ("cluster-domain", self.cluster_domain.clone()),
            ("flannel-backend", self.flannel_backend.clone()),
            ("flannel-ipv6-masq", self.flannel_ipv6_masq.to_string()),
            ("flannel-external-ip", self.flannel_external_ip.to_string()),
            ("egress-selector-mode", self.egress_selector_mode.clone()),
            ("disable", disabled.join(",")),
            (
                "disable-cloud-controller",
                self.disable_cloud_controller.to_string(),
            ),
            (
                "disable-network-policy",
                self.disable_network_policy.to_string(),
            ),
            (
                "disable-helm-controller",
                self.disable_helm_controller.to_string(),
            ),
            ("embedded-registry", self.embedded_registry.to_string()),
            ("secrets-encryption", self.secrets_encryption.to_string()),
        ];
        let named = |(name, value): (&str, String)| (name.to_owned(), value);
        CriticalValues(values.map(named).into())
    }
}

impl CriticalValues {
    /// What differs from another server, if anything, flag by flag.
    pub(crate) fn differences(&self, other: &Self) -> Option<String> {
        const MISSING: &str = "unknown";
        let value = |values: &Self, name: &String| {
            let value = values.0.get(name).map_or(MISSING, String::as_str);
            format!("{value:?}")
        };
        let names = self.0.keys().chain(other.0.keys());
        let mut differences: Vec<String> = names
            .filter(|name| self.0.get(*name) != other.0.get(*name))
            .map(|name| {
                let (here, there) = (value(self, name), value(other, name));
                format!("--{name} is {there} in the cluster and {here} here")
            })
            .collect();
        differences.dedup();
        differences.sort();
        differences.dedup();
        (!differences.is_empty()).then(|| differences.join(", "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Parser)]
    struct Flags {
        #[command(flatten)]
        critical: CriticalArgs,
    }

    fn values(flags: &[&str]) -> CriticalValues {
        let line = ["test"].iter().chain(flags);
        Flags::try_parse_from(line).unwrap().critical.values()
    }

    #[test]
    fn what_differs_is_named() {
        assert_eq!(values(&[]).differences(&values(&[])), None);
        let order = values(&["--disable=traefik,servicelb"]);
        let other_order = values(&["--disable=servicelb", "--disable=traefik"]);
        assert_eq!(order.differences(&other_order), None);
        let here = values(&["--cluster-cidr=10.99.0.0/16", "--secrets-encryption"]);
        assert_eq!(
            here.differences(&values(&[])).unwrap(),
            "--cluster-cidr is \"10.42.0.0/16\" in the cluster and \"10.99.0.0/16\" here, \
             --secrets-encryption is \"false\" in the cluster and \"true\" here"
        );
    }
}
