//! Who asks whom, and whether they belong to one cluster: metadata of every call between members.
//!
//! Names and texts are etcd's (`server/etcdserver/api/rafthttp/{peer,stream,http}.go`):
//!
//! ```text
//! x-etcd-cluster-id      the cluster of the asking member, lower hex
//! x-server-from          the asking member, lower hex
//! x-raft-to              the member that is meant, lower hex
//! x-server-version       the etcd version that the asking member announces
//! x-min-cluster-version  the oldest one that it can talk to
//! ```
//! What does not fit is refused with `FailedPrecondition`. What this is not: proof of identity, which
//! is TLS's.

use api::version::{ETCD_VERSION, MIN_CLUSTER_VERSION};
use http::HeaderMap;
use tonic::metadata::AsciiMetadataValue;
use tonic::service::Interceptor;
use tonic::{Request, Status};
use types::{ClusterId, MemberId};

const CLUSTER: &str = "x-etcd-cluster-id";
const FROM: &str = "x-server-from";
const TO: &str = "x-raft-to";
const VERSION: &str = "x-server-version";
const MIN_VERSION: &str = "x-min-cluster-version";

/// What a member that was removed is told.
const REMOVED: &str = "the member has been permanently removed from the cluster";

/// A member and its cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Identity {
    pub(crate) member: MemberId,
    pub(crate) cluster: ClusterId,
}

/// Puts the metadata on every call to one peer.
#[derive(Clone, Debug)]
pub(crate) struct Introduction {
    cluster: AsciiMetadataValue,
    from: AsciiMetadataValue,
    to: AsciiMetadataValue,
}

impl Introduction {
    pub(crate) fn new(me: Identity, to: MemberId) -> Self {
        let hex = |text: String| {
            AsciiMetadataValue::try_from(text).expect("hexadecimal digits are metadata")
        };
        Self {
            cluster: hex(me.cluster.to_string()),
            from: hex(me.member.to_string()),
            to: hex(to.to_string()),
        }
    }
}

impl Interceptor for Introduction {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        let metadata = request.metadata_mut();
        metadata.insert(CLUSTER, self.cluster.clone());
        metadata.insert(FROM, self.from.clone());
        metadata.insert(TO, self.to.clone());
        metadata.insert(VERSION, AsciiMetadataValue::from_static(ETCD_VERSION));
        metadata.insert(
            MIN_VERSION,
            AsciiMetadataValue::from_static(MIN_CLUSTER_VERSION),
        );
        Ok(request)
    }
}

/// Checks who asks. `is_removed` says which members the cluster has removed.
pub(crate) fn check(
    headers: &HeaderMap,
    me: Identity,
    is_removed: impl Fn(MemberId) -> bool,
) -> Result<MemberId, Status> {
    let header = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    let hex = |name: &str| header(name).and_then(|text| u64::from_str_radix(text, 16).ok());
    if !is_compatible(header(VERSION), header(MIN_VERSION)) {
        return Err(Status::failed_precondition("incompatible version"));
    }
    if hex(CLUSTER) != Some(me.cluster.0) {
        return Err(Status::failed_precondition("cluster ID mismatch"));
    }
    if hex(TO) != Some(me.member.0) {
        return Err(Status::failed_precondition("to field mismatch"));
    }
    let from = hex(FROM).map(MemberId);
    let from = from.ok_or_else(|| Status::failed_precondition("sender not found"))?;
    if is_removed(from) {
        return Err(Status::failed_precondition(REMOVED));
    }
    Ok(from)
}

/// Who says to ask; 0 if nobody.
pub(crate) fn sender(headers: &HeaderMap) -> MemberId {
    let from = headers.get(FROM).and_then(|value| value.to_str().ok());
    let from = from.and_then(|text| u64::from_str_radix(text, 16).ok());
    MemberId(from.unwrap_or_default())
}

/// Whether an answer says that this member was removed.
pub(crate) fn says_removed(status: &Status) -> bool {
    status.code() == tonic::Code::FailedPrecondition && status.message() == REMOVED
}

/// Whether both can talk to each other: neither is older than the oldest that the other one
/// knows. Who says nothing is taken for the oldest.
fn is_compatible(version: Option<&str>, min_version: Option<&str>) -> bool {
    let theirs = version.map_or(Some((2, 0)), major_minor);
    let their_oldest = min_version.map_or(Some((2, 0)), major_minor);
    let ours = major_minor(ETCD_VERSION);
    let our_oldest = major_minor(MIN_CLUSTER_VERSION);
    match (theirs, their_oldest) {
        (Some(theirs), Some(their_oldest)) => {
            Some(theirs) >= our_oldest && ours >= Some(their_oldest)
        }
        _ => false,
    }
}

fn major_minor(version: &str) -> Option<(u32, u32)> {
    let mut parts = version.split('.');
    let major = parts.next()?.parse().ok()?;
    let minor = parts.next()?.parse().ok()?;
    Some((major, minor))
}

#[cfg(test)]
mod tests {
    use super::*;

    const ME: Identity = Identity {
        member: MemberId(0xa),
        cluster: ClusterId(0xc),
    };

    fn headers(me: Identity, to: u64) -> HeaderMap {
        let mut introduction = Introduction::new(me, MemberId(to));
        let request = introduction.call(Request::new(())).unwrap();
        request.into_parts().0.into_headers()
    }

    fn refusal(headers: &HeaderMap) -> String {
        let status = check(headers, ME, |id| id == MemberId(0xdead)).unwrap_err();
        assert_eq!(status.code(), tonic::Code::FailedPrecondition);
        assert_eq!(says_removed(&status), status.message() == REMOVED);
        status.message().to_owned()
    }

    #[test]
    fn who_belongs_to_the_cluster_is_known_and_others_are_told_why_not() {
        let peer = |member, cluster| Identity {
            member: MemberId(member),
            cluster: ClusterId(cluster),
        };
        let good = headers(peer(0xb, 0xc), 0xa);
        assert_eq!(check(&good, ME, |_| false).unwrap(), MemberId(0xb));
        assert_eq!(
            refusal(&headers(peer(0xb, 0xcc), 0xa)),
            "cluster ID mismatch"
        );
        assert_eq!(refusal(&headers(peer(0xb, 0xc), 0xaa)), "to field mismatch");
        assert_eq!(refusal(&headers(peer(0xdead, 0xc), 0xa)), REMOVED);
        assert_eq!(refusal(&HeaderMap::new()), "incompatible version");
        let with = |name, value: &'static str| {
            let mut headers = headers(peer(0xb, 0xc), 0xa);
            headers.insert(name, http::HeaderValue::from_static(value));
            headers
        };
        assert_eq!(refusal(&with(VERSION, "2.3.8")), "incompatible version");
        assert_eq!(refusal(&with(VERSION, "rubbish")), "incompatible version");
        assert_eq!(refusal(&with(MIN_VERSION, "4.0.0")), "incompatible version");
        assert!(check(&with(VERSION, "3.4.0"), ME, |_| false).is_ok());
    }
}
