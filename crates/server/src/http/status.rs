//! `/status`, a page for a person who wants to see how the member is, and `/status.json`, which the page reads.
//!
//! What this is not: an interface to build on, or a way to change anything. What it shows that metrics do not, the
//! beginnings of keys, is shown only to those who may read keys; see [`Audience`].

mod problems;

use std::net::IpAddr;
use std::sync::Arc;

use api::version::{ETCD_VERSION, KVORUM_VERSION};
use apply::Quota;
use http::header::{
    CACHE_CONTROL, CONTENT_SECURITY_POLICY, REFERRER_POLICY, X_CONTENT_TYPE_OPTIONS,
};
use http::{HeaderValue, Request, Response, StatusCode};
use serde_json::{Value, json};
use transport::{PeerInfo, RemoteAddr};
use types::MemberId;

use self::problems::{Standing, problems};
use super::{Body, Endpoints, HTML, JSON_UTF8, NO_SNIFF, error, respond};
use crate::EtcdServer;
use crate::recent::{INTERVAL, Latency, Point};

/// The page, with all that belongs to it.
const PAGE: &str = include_str!("status/page.html");
/// Prefixes shown by time spent, and as many by requests.
const PREFIXES_SHOWN: usize = 10;
/// Nothing from elsewhere, nothing sent elsewhere, no other script than the page's own.
const POLICY: HeaderValue = HeaderValue::from_static(
    "default-src 'none'; style-src 'unsafe-inline'; img-src data:; connect-src 'self'; \
     script-src 'sha256-5UG2Yly2/baxv2Muw7vn05BulGT4xYfxYX0p5c0CSyE='; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
);

/// Who looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Audience {
    /// Somebody who may read every key, or sits on the machine.
    Trusted,
    /// Somebody who may see metrics: keys are a matter of users' permissions.
    WithoutPermission,
    /// Somebody who may see metrics: clients have to show a certificate, and this one has not.
    WithoutCertificate,
}

impl Audience {
    fn of(server: &EtcdServer, peer: Option<&PeerInfo>) -> Self {
        if server.views().auth.is_enabled() {
            return Self::WithoutPermission;
        }
        Self::by_certificate(server.config().client_cert_auth, peer)
    }

    /// `is_needed` says whether clients have to show one.
    fn by_certificate(is_needed: bool, peer: Option<&PeerInfo>) -> Self {
        let proves = |peer: &PeerInfo| peer.certificate.is_some() || is_local(peer.remote);
        if is_needed && !peer.is_some_and(proves) {
            return Self::WithoutCertificate;
        }
        Self::Trusted
    }

    /// Why prefixes are not shown.
    const fn hides(self) -> Option<&'static str> {
        match self {
            Self::Trusted => None,
            Self::WithoutPermission => {
                Some("authentication is on: keys are for those who may read them")
            }
            Self::WithoutCertificate => {
                Some("clients have to show a certificate, and this connection has none")
            }
        }
    }
}

fn is_local(remote: RemoteAddr) -> bool {
    match remote {
        RemoteAddr::Unix => true,
        RemoteAddr::Tcp(address) => match address.ip() {
            IpAddr::V4(ip) => ip.is_loopback(),
            IpAddr::V6(ip) => ip.to_canonical().is_loopback(),
        },
    }
}

/// The page.
pub(super) fn page(server: &EtcdServer, endpoints: Endpoints) -> Response<Body> {
    if let Some(refusal) = refuse(server, endpoints) {
        return refusal;
    }
    let mut response = respond(StatusCode::OK, HTML, PAGE);
    let headers = response.headers_mut();
    headers.insert(CONTENT_SECURITY_POLICY, POLICY);
    headers.insert(REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    private(response)
}

/// What the page shows.
pub(super) fn json<B>(
    server: &EtcdServer,
    endpoints: Endpoints,
    request: &Request<B>,
) -> Response<Body> {
    if let Some(refusal) = refuse(server, endpoints) {
        return refusal;
    }
    let peer = request.extensions().get::<Arc<PeerInfo>>();
    let shown = shown(server, Audience::of(server, peer.map(Arc::as_ref)));
    private(respond(StatusCode::OK, JSON_UTF8, shown.to_string()))
}

/// Where clients ask, they are asked who they are once authentication is on, and nobody asks here.
fn refuse(server: &EtcdServer, endpoints: Endpoints) -> Option<Response<Body>> {
    let is_for_users = endpoints == Endpoints::Client && server.views().auth.is_enabled();
    is_for_users.then(|| {
        let words = "authentication is on: the status is shown on --listen-metrics-urls only";
        error(StatusCode::FORBIDDEN, words)
    })
}

fn private(mut response: Response<Body>) -> Response<Body> {
    let headers = response.headers_mut();
    headers.insert(X_CONTENT_TYPE_OPTIONS, NO_SNIFF);
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

fn shown(server: &EtcdServer, audience: Audience) -> Value {
    let (config, views, raft) = (server.config(), server.views(), server.node().status());
    let points = server.recent().points();
    let members = members(server, raft.leader);
    let standing = standing(server, &members, points.last());
    let store = views.store.view();
    let watch = views.store.watch_counts();
    let this = views.cluster.member(config.member).unwrap_or_default();
    let quota = match config.quota {
        Quota::Bytes(bytes) => Some(bytes),
        Quota::Unlimited => None,
    };
    let shown = members.iter().map(|member| member.shown.clone());
    json!({
        "member": {
            "id": config.member.to_string(),
            "name": this.name,
            "isLeader": raft.leader == Some(config.member),
            "isLearner": server.is_learner(),
        },
        "versions": { "kvorum": KVORUM_VERSION, "etcd": ETCD_VERSION },
        "cluster": {
            "id": config.cluster.to_string(),
            "leader": raft.leader.map(|leader| leader.to_string()),
            "term": raft.term,
            "voters": standing.voters,
            "reachableVoters": standing.reachable_voters,
            "quorum": standing.quorum(),
            "margin": standing.margin(),
        },
        "problems": problems(&standing),
        "members": shown.collect::<Vec<Value>>(),
        "raft": { "committedIndex": raft.committed_index, "appliedIndex": raft.applied_index },
        "store": {
            "revision": store.revision(),
            "compactRevision": store.compact_revision(),
            "dbBytes": server.db_size(),
            "dbInUseBytes": server.db_size_in_use(),
            "quotaBytes": quota,
        },
        "watch": {
            "streams": watch.streams,
            "watchers": watch.watchers,
            "slowWatchers": watch.slow_watchers,
        },
        "leases": views.leases.len(),
        "prefixes": prefixes(server, audience),
        "recent": recent(&points),
    })
}

/// A member, as this one sees it.
struct Seen {
    is_voter: bool,
    is_reachable: bool,
    shown: Value,
}

fn members(server: &EtcdServer, leader: Option<MemberId>) -> Vec<Seen> {
    let now = server.config().clock.now();
    let peers = server.node().peers();
    let see = |member: apply::Member| {
        let is_self = member.id == server.config().member;
        let peer = peers.iter().find(|peer| peer.id == member.id);
        let since = peer.and_then(|peer| peer.active_since);
        let is_reachable = is_self || since.is_some();
        let round_trip = peer.and_then(|peer| peer.round_trip);
        let version = match peer {
            Some(peer) => peer.version.clone(),
            None if is_self => ETCD_VERSION.to_owned(),
            None => String::new(),
        };
        Seen {
            is_voter: !member.is_learner,
            is_reachable,
            shown: json!({
                "id": member.id.to_string(),
                "name": member.name,
                "isSelf": is_self,
                "isLeader": leader == Some(member.id),
                "isLearner": member.is_learner,
                "isReachable": is_reachable,
                "reachableForSeconds": since.map(|since| now.saturating_duration_since(since).as_secs()),
                "roundTripMs": round_trip.filter(|_| is_reachable).map(|took| ms(took.as_secs_f64())),
                "version": version,
                "clientUrls": member.client_urls,
                "peerUrls": member.peer_urls,
            }),
        }
    };
    server
        .views()
        .cluster
        .members()
        .into_iter()
        .map(see)
        .collect()
}

fn standing(server: &EtcdServer, members: &[Seen], last: Option<&Point>) -> Standing {
    let voters = || members.iter().filter(|member| member.is_voter);
    let quota = match server.config().quota {
        Quota::Bytes(bytes) => Some(bytes),
        Quota::Unlimited => None,
    };
    Standing {
        has_leader: server.node().status().leader.is_some(),
        voters: voters().count(),
        reachable_voters: voters().filter(|member| member.is_reachable).count(),
        unreachable_learners: members
            .iter()
            .filter(|member| !member.is_voter && !member.is_reachable)
            .count(),
        alarms: server.views().alarms.list(),
        db_bytes: server.db_size(),
        quota_bytes: quota,
        fsync_p99_s: last.and_then(|point| point.fsync.p99_s),
        heartbeat_s: server.config().heartbeat_interval.as_secs_f64(),
    }
}

fn prefixes(server: &EtcdServer, audience: Audience) -> Value {
    if let Some(why) = audience.hides() {
        return json!({ "hidden": why, "spanSeconds": 0, "top": [] });
    }
    let by_prefix = server.traffic().by_prefix(PREFIXES_SHOWN);
    let span_s = by_prefix.span.as_secs_f64().max(1.0);
    let rate = |count: u64| round(f64::from(u32::try_from(count).unwrap_or(u32::MAX)) / span_s);
    let top = by_prefix.prefixes.into_iter().map(|(prefix, asked)| {
        let count = u32::try_from(asked.reads + asked.writes).unwrap_or(u32::MAX);
        json!({
            "prefix": prefix,
            "readsPerSecond": rate(asked.reads),
            "writesPerSecond": rate(asked.writes),
            "spentSeconds": round(asked.took.as_secs_f64()),
            "meanMs": ms(asked.took.as_secs_f64() / f64::from(count.max(1))),
            "slowestMs": ms(asked.slowest.as_secs_f64()),
        })
    });
    json!({ "hidden": null, "spanSeconds": round(span_s), "top": top.collect::<Vec<Value>>() })
}

/// The points, by column.
fn recent(points: &[Point]) -> Value {
    let column = |of: fn(&Point) -> Value| points.iter().map(of).collect::<Vec<Value>>();
    json!({
        "intervalSeconds": INTERVAL.as_secs(),
        "atMs": column(|point| point.at_ms.into()),
        "readsPerSecond": column(|point| round(point.reads_per_s).into()),
        "writesPerSecond": column(|point| round(point.writes_per_s).into()),
        "eventsPerSecond": column(|point| round(point.events_per_s).into()),
        "readMeanMs": column(|point| mean_ms(point.read)),
        "readP99Ms": column(|point| p99_ms(point.read)),
        "writeMeanMs": column(|point| mean_ms(point.write)),
        "writeP99Ms": column(|point| p99_ms(point.write)),
        "fsyncMeanMs": column(|point| mean_ms(point.fsync)),
        "fsyncP99Ms": column(|point| p99_ms(point.fsync)),
        "commitMeanMs": column(|point| mean_ms(point.commit)),
        "commitP99Ms": column(|point| p99_ms(point.commit)),
        "dbBytes": column(|point| point.db_bytes.into()),
        "dbInUseBytes": column(|point| point.db_in_use_bytes.into()),
        "watchers": column(|point| point.watchers.into()),
        "leases": column(|point| point.leases.into()),
        "behind": column(|point| point.behind.into()),
        "hasLeader": column(|point| point.has_leader.into()),
    })
}

fn mean_ms(latency: Latency) -> Value {
    latency.mean_s.map(ms).into()
}

fn p99_ms(latency: Latency) -> Value {
    latency.p99_s.map(ms).into()
}

fn ms(seconds: f64) -> f64 {
    round(seconds * 1000.0)
}

/// Three digits behind the point: more says nothing.
fn round(value: f64) -> f64 {
    (value * 1000.0).round() / 1000.0
}

#[cfg(test)]
mod tests;
