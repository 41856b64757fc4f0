//! The texts are compared with etcd 3.5.30's.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;

use futures_util::future::BoxFuture;
use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};
use tokio_util::task::TaskTracker;
use transport::{Dial, Dialed};

use super::*;
use crate::config::flags::{Action, parse};

/// Peers that answer what they are told to, by their url.
#[derive(Clone, Debug, Default)]
struct Peers(BTreeMap<String, Answer>);

#[derive(Clone, Debug)]
struct Answer {
    members: String,
    version: String,
    downgrade: &'static str,
    is_kvorum: bool,
}

impl Peers {
    fn with(mut self, url: &str, members: &str) -> Self {
        let answer = Answer {
            members: members.to_owned(),
            version: "3.6.0".to_owned(),
            downgrade: "false",
            is_kvorum: true,
        };
        self.0.insert(url.to_owned(), answer);
        self
    }

    fn change(mut self, url: &str, change: impl FnOnce(&mut Answer)) -> Self {
        change(self.0.get_mut(url).unwrap());
        self
    }

    fn client(self) -> PeerClient {
        PeerClient::new(Arc::new(self))
    }
}

impl Dial for Peers {
    fn dial(&self, url: &Url) -> BoxFuture<'static, io::Result<Dialed>> {
        let answer = self.0.get(url.as_str()).cloned();
        Box::pin(async move {
            let answer = answer.ok_or(io::ErrorKind::ConnectionRefused)?;
            let (ours, mut theirs) = duplex(1 << 16);
            TaskTracker::new().spawn(async move {
                let mut request = vec![0; 1024];
                let read = theirs.read(&mut request).await.unwrap();
                let request = String::from_utf8_lossy(&request[..read]);
                let body = if request.starts_with("GET /members ") {
                    answer.members
                } else if request.starts_with("GET /downgrade/enabled ") {
                    answer.downgrade.to_owned()
                } else {
                    format!(
                        "{{\"etcdserver\":\"3.6.14\",\"etcdcluster\":\"{}\"}}",
                        answer.version
                    )
                };
                let kvorum = if answer.is_kvorum {
                    "X-Kvorum-Version: 0\r\n"
                } else {
                    ""
                };
                let response = format!(
                    "HTTP/1.1 200 OK\r\nX-Etcd-Cluster-ID: cd11e86392339c47\r\n{kvorum}\
                     Content-Length: {}\r\n\r\n{body}",
                    body.len()
                );
                theirs.write_all(response.as_bytes()).await.unwrap();
            });
            Ok(Box::new(ours) as Dialed)
        })
    }
}

fn config(arguments: &[&str]) -> Config {
    let Action::Run { options, .. } = parse(arguments).unwrap() else {
        panic!("no options in {arguments:?}");
    };
    options.validate().unwrap()
}

async fn alone(arguments: &[&str]) -> Result<Identity, String> {
    among(arguments, Peers::default()).await
}

async fn among(arguments: &[&str], peers: Peers) -> Result<Identity, String> {
    bootstrap(&config(arguments), &peers.client())
        .await
        .map_err(|error| error.to_string())
}

#[tokio::test]
async fn a_member_with_nothing_given_has_the_ids_of_stock_etcd() {
    let identity = alone(&[]).await.unwrap();
    assert_eq!(identity.member.to_string(), "8e9e05c52164694d");
    assert_eq!(identity.cluster.to_string(), "cdf818194e3a8c32");
}

#[tokio::test]
async fn an_initial_cluster_that_does_not_fit_is_refused_in_etcds_words() {
    let cluster = "--initial-cluster=default=http://127.0.0.1:42380";
    let advertise = "--initial-advertise-peer-urls=http://127.0.0.1:42380";
    let refusal = async |arguments: &[&str]| alone(arguments).await.unwrap_err();
    for other in ["foo=http://127.0.0.1:42380", ""] {
        assert_eq!(
            refusal(&[&format!("--initial-cluster={other}")]).await,
            "couldn't find local name \"default\" in the initial cluster configuration"
        );
    }
    assert_eq!(
        refusal(&[cluster]).await,
        "--initial-cluster has default=http://127.0.0.1:42380 but missing from \
         --initial-advertise-peer-urls=http://localhost:2380 \
         (resolved urls: \"http://localhost:2380\" != \"http://127.0.0.1:42380\")"
    );
    assert_eq!(
        refusal(&[cluster, &format!("{advertise},http://127.0.0.1:42381")]).await,
        "--initial-advertise-peer-urls has http://127.0.0.1:42381 but missing from \
         --initial-cluster=default=http://127.0.0.1:42380,default=http://127.0.0.1:42381"
    );
    assert_eq!(
        refusal(&[&format!("{cluster},b=http://127.0.0.1:42380"), advertise]).await,
        "initial cluster b=http://127.0.0.1:42380,default=http://127.0.0.1:42380 has duplicate url"
    );
}

const A: &str = "http://10.0.0.1:2380";
const B: &str = "http://10.0.0.2:2380";
const C: &str = "http://10.0.0.3:2380";
const THREE: [&str; 3] = [
    "--name=a",
    "--initial-advertise-peer-urls=http://10.0.0.1:2380",
    "--initial-cluster=a=http://10.0.0.1:2380,b=http://10.0.0.2:2380,c=http://10.0.0.3:2380",
];

fn joining() -> Vec<&'static str> {
    [&THREE[..], &["--initial-cluster-state=existing"]].concat()
}

/// What `/members` says of three members; the first has an id that no computation gives.
fn three(client_urls_of_a: &str) -> String {
    format!(
        "[{{\"id\":7,\"peerURLs\":[\"{A}\"],\"isLearner\":true{client_urls_of_a}}},\
         {{\"id\":8,\"peerURLs\":[\"{B}\"],\"name\":\"b\"}},{{\"id\":9,\"peerURLs\":[\"{C}\"]}}]\n"
    )
}

#[tokio::test]
async fn all_members_compute_the_same_ids() {
    let identity = alone(&THREE).await.unwrap();
    assert_eq!(identity.cluster.to_string(), "cd11e86392339c47");
    let ids = ["3ebc01aec68d6d70", "ee274cacce804b21", "fe9c64eaf3991d47"];
    assert!(ids.contains(&identity.member.to_string().as_str()));
}

#[tokio::test]
async fn a_member_that_its_peers_have_seen_does_not_begin_again() {
    let id = alone(&THREE).await.unwrap().member;
    let seen = |client_urls: &str| {
        let list = format!("[{{\"id\":{},\"peerURLs\":[\"{A}\"]{client_urls}}}]", id.0);
        Peers::default().with(C, &list)
    };
    let refusal = among(&THREE, seen(",\"clientURLs\":[\"http://a:1\"]"))
        .await
        .unwrap_err();
    let text = format!("member {id} has already been bootstrapped");
    assert!(refusal.starts_with(&text), "{refusal}");
    // It was added and has not started yet.
    among(&THREE, seen("")).await.unwrap();
}

#[tokio::test]
async fn a_member_that_joins_is_told_its_ids() {
    // One peer is down, and one has not heard of the new member yet.
    let peers = Peers::default().with(B, "[{\"id\":8,\"peerURLs\":[\"http://10.0.0.2:2380\"]}]");
    let identity = among(&joining(), peers.with(C, &three(""))).await.unwrap();
    assert_eq!(identity.member, MemberId(7));
    assert_eq!(identity.cluster.to_string(), "cd11e86392339c47");
}

#[tokio::test]
async fn a_member_that_has_run_does_not_join_with_an_empty_disk() {
    let peers = Peers::default().with(B, &three(",\"clientURLs\":[\"http://a:1\"]"));
    let refusal = among(&joining(), peers).await.unwrap_err();
    let text = "member 7 has already been bootstrapped";
    assert!(refusal.starts_with(text), "{refusal}");
}

#[tokio::test]
async fn a_cluster_that_cannot_be_joined_is_refused_in_etcds_words() {
    let refusal = async |peers| among(&joining(), peers).await.unwrap_err();
    assert_eq!(
        refusal(Peers::default()).await,
        "cannot fetch cluster info from peer urls: could not retrieve cluster information from the \
         given URLs"
    );
    let one = "[{\"id\":8,\"peerURLs\":[\"http://10.0.0.2:2380\"],\"name\":\"b\",\"clientURLs\":[\"http://b:1\"]}]";
    assert_eq!(
        refusal(Peers::default().with(B, one)).await,
        "error validating peerURLs {ClusterID:cd11e86392339c47 Members:[{ID:8 \
         RaftAttributes:{PeerURLs:[http://10.0.0.2:2380] IsLearner:false} Attributes:{Name:b \
         ClientURLs:[http://b:1]}}] RemovedMemberIDs:[]}: member count is unequal"
    );
    let other = three("").replace(A, "http://10.0.0.4:2380");
    let text = refusal(Peers::default().with(B, &other)).await;
    assert!(
        text.ends_with(
            "PeerURLs: no match found for existing member (7, [http://10.0.0.4:2380]), last \
             resolver error (resolved urls: \"http://10.0.0.4:2380\" != \"http://10.0.0.3:2380\")"
        ),
        "{text}"
    );
    let peers = Peers::default().with(B, &three(""));
    for version in ["3.7.0", "2.9.0", "not_decided"] {
        let peers = peers
            .clone()
            .change(B, |peer| version.clone_into(&mut peer.version));
        let text = refusal(peers).await;
        assert_eq!(
            text, "incompatible with current running cluster",
            "{version}"
        );
    }
    let down = peers.clone().change(B, |peer| peer.downgrade = "true");
    assert_eq!(
        refusal(down).await,
        "incompatible with current running cluster",
        "nobody of this version joins a cluster that goes down from it"
    );
    let text = refusal(peers.change(B, |peer| peer.is_kvorum = false)).await;
    assert!(
        text.starts_with("the member at http://10.0.0.2:2380 is an etcd"),
        "{text}"
    );
}
