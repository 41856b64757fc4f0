//! Ids, and how etcd computes them (`server/etcdserver/api/membership/{member,cluster}.go`).

use std::fmt;

use sha1::{Digest, Sha1};

macro_rules! id {
    ($(#[$doc:meta])* $name:ident($inner:ty)) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $name(pub $inner);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{:x}", self.0)
            }
        }
    };
}

id!(
    /// A member of the cluster. Printed as etcd prints it: lower hex, no padding.
    MemberId(u64)
);
id!(
    /// A cluster. Printed as etcd prints it: lower hex, no padding.
    ClusterId(u64)
);
id!(
    /// A lease; never 0 once granted. Printed as etcd prints it: lower hex, no padding.
    LeaseId(i64)
);
id!(
    /// A watcher on one watch stream.
    WatchId(i64)
);

/// The id of a member of the initial cluster: the start of the SHA-1 of its sorted peer urls and
/// the cluster's token. `added_at_unix_s` is set for a member that joins a running cluster, which
/// then passes an empty token, as etcd does.
#[must_use]
pub fn member_id(peer_urls: &[String], token: &str, added_at_unix_s: Option<u64>) -> MemberId {
    let mut sorted: Vec<&str> = peer_urls.iter().map(String::as_str).collect();
    sorted.sort_unstable();
    let mut hash = Sha1::new();
    for url in sorted {
        hash.update(url);
    }
    hash.update(token);
    if let Some(seconds) = added_at_unix_s {
        hash.update(seconds.to_string());
    }
    MemberId(first_eight_bytes(hash))
}

/// The id of the cluster that these members begin.
#[must_use]
pub fn cluster_id(members: &[MemberId]) -> ClusterId {
    let mut sorted = members.to_vec();
    sorted.sort_unstable();
    let mut hash = Sha1::new();
    for member in sorted {
        hash.update(member.0.to_be_bytes());
    }
    ClusterId(first_eight_bytes(hash))
}

fn first_eight_bytes(hash: Sha1) -> u64 {
    let mut first = [0; 8];
    first.copy_from_slice(&hash.finalize()[..8]);
    u64::from_be_bytes(first)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_member_gets_the_ids_that_stock_etcd_prints() {
        let member = member_id(&["http://localhost:2380".to_owned()], "etcd-cluster", None);
        assert_eq!(member.to_string(), "8e9e05c52164694d");
        assert_eq!(cluster_id(&[member]).to_string(), "cdf818194e3a8c32");
    }

    #[test]
    fn three_members_get_etcds_ids() {
        let members: Vec<MemberId> = (1..=3)
            .map(|i| member_id(&[format!("http://10.0.0.{i}:2380")], "etcd-cluster", None))
            .collect();
        let printed: Vec<String> = members.iter().map(ToString::to_string).collect();
        assert_eq!(cluster_id(&members).to_string(), "cd11e86392339c47");
        for id in ["3ebc01aec68d6d70", "ee274cacce804b21", "fe9c64eaf3991d47"] {
            assert!(printed.iter().any(|p| p == id), "{id} not in {printed:?}");
        }
    }
}
