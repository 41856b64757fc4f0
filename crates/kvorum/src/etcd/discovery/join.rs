//! How the members of a new cluster find each other at another etcd, as etcd's do
//! (`server/etcdserver/api/v3discovery`): who wants a cluster has put its size there; every member
//! registers, and waits until as many have.
//!
//! | key | value |
//! |---|---|
//! | `/_etcd/registry/<token>/_config/size` | the size, a number |
//! | `/_etcd/registry/<token>/members/<id>` | `name=url`, `name=url,name=url` |
//!
//! Whoever registers first is in; one too many is told so.

use std::sync::Arc;
use std::time::Duration;

use api::mvccpb::{KeyValue, event::EventType};
use tonic::Status;
use types::{Clock, MemberId};

use super::registry::Registry;
use crate::config::{DiscoverySettings, RawInitialCluster, parse_initial_cluster};
use crate::error::DiscoveryError;

/// Waiting doubles so often when the service does not answer.
const DOUBLINGS_MAX: u32 = 8;

/// Registers a member, and returns the members when all are there.
pub(super) async fn join(
    settings: &DiscoverySettings,
    member: MemberId,
    contents: &str,
    clock: &Arc<dyn Clock>,
) -> Result<RawInitialCluster, DiscoveryError> {
    let mut meeting = Meeting {
        registry: Registry::connect(settings, clock).await?,
        keys: Keys::new(&settings.token),
        retries: 0,
        member,
    };
    meeting.check().await?;
    meeting.register(contents).await;
    let mut seen = meeting.check().await?;
    while seen.members.len() < seen.size {
        meeting.wait(&mut seen).await;
    }
    seen.cluster()
}

/// The keys of a cluster.
struct Keys {
    size: String,
    members: String,
}

impl Keys {
    fn new(token: &str) -> Self {
        Self {
            size: clean(&format!("/_etcd/registry/{token}/_config/size")),
            members: clean(&format!("/_etcd/registry/{token}/members")),
        }
    }

    fn member(&self, member: MemberId) -> String {
        format!("{}/{member}", self.members)
    }

    /// The end of all keys that begin with the one of the members.
    fn members_end(&self) -> Vec<u8> {
        let mut end = self.members.clone().into_bytes();
        // It ends with a letter, which is not the last byte there is.
        if let Some(last) = end.last_mut() {
            *last += 1;
        }
        end
    }
}

/// A path as Go's `path.Join` leaves it, which a token with slashes or dots may need.
fn clean(path: &str) -> String {
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()),
            part => parts.push(part),
        }
    }
    format!("/{}", parts.join("/"))
}

/// A member that has registered.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Registered {
    key: String,
    value: String,
    create_revision: i64,
}

/// Who is there, as of a revision.
#[derive(Debug)]
struct Seen {
    size: usize,
    /// In the order in which they came.
    members: Vec<Registered>,
    revision: i64,
}

impl Seen {
    /// Takes a member in; what cannot be one is told in the log.
    fn add(&mut self, found: &KeyValue) {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().to_owned();
        let member = Registered {
            key: text(&found.key),
            value: text(&found.value),
            create_revision: found.create_revision,
        };
        let (key, value) = (member.key.clone(), member.value.clone());
        let refusal = if !value.contains('=') {
            "invalid peer info returned from discovery service"
        } else if self.members.iter().any(|known| known.key == key) {
            "found duplicate peer from discovery service"
        } else {
            self.members.push(member);
            self.members.sort_by_key(|member| member.create_revision);
            tracing::info!(
                memberKey = key,
                memberInfo = value,
                "found peer from discovery service",
            );
            return;
        };
        tracing::warn!(memberKey = key, memberInfo = value, "{refusal}");
    }

    /// Whether others have taken all places.
    fn is_full_without(&self, key: &str) -> bool {
        self.members
            .iter()
            .take(self.size)
            .filter(|it| it.key != key)
            .count()
            == self.size
    }

    fn cluster(&self) -> Result<RawInitialCluster, DiscoveryError> {
        let members = self.members.iter().take(self.size);
        let values: Vec<&str> = members.map(|member| member.value.as_str()).collect();
        parse_initial_cluster(&values.join(",")).map_err(|_error| DiscoveryError::InvalidUrl)
    }
}

/// Why a look at the service did not show who is there.
enum LookError {
    /// It did not answer; it may later.
    Unanswered(Status),
    /// It did, and that is the end.
    Final(DiscoveryError),
}

struct Meeting {
    registry: Registry,
    keys: Keys,
    retries: u32,
    member: MemberId,
}

impl Meeting {
    /// Who is there, if this member has a place among them. Goes on until the service answers.
    async fn check(&mut self) -> Result<Seen, DiscoveryError> {
        let seen = loop {
            match self.look().await {
                Ok(seen) => break seen,
                Err(LookError::Final(error)) => return Err(error),
                Err(LookError::Unanswered(status)) => {
                    tracing::warn!(
                        error = status.message(),
                        "failed to get cluster members from discovery service",
                    );
                    self.back_off("cluster status check").await;
                }
            }
        };
        self.retries = 0;
        if seen.is_full_without(&self.keys.member(self.member)) {
            return Err(DiscoveryError::Full);
        }
        Ok(seen)
    }

    async fn look(&mut self) -> Result<Seen, LookError> {
        let size = self.registry.get(&self.keys.size, Vec::new()).await;
        let size = size.map_err(LookError::Unanswered)?;
        let size = size.kvs.first().ok_or(DiscoveryError::SizeNotFound);
        let size = size.map_err(LookError::Final)?;
        let size = std::str::from_utf8(&size.value).ok();
        let size: Option<i64> = size.and_then(|text| text.parse().ok());
        let size = size.filter(|size| *size > 0);
        let size = size.and_then(|size| usize::try_from(size).ok());
        let size = size.ok_or(LookError::Final(DiscoveryError::BadSize))?;
        let (key, end) = (&self.keys.members, self.keys.members_end());
        let found = self.registry.get(key, end).await;
        let found = found.map_err(LookError::Unanswered)?;
        let mut seen = Seen {
            size,
            members: Vec::new(),
            revision: found.header.map_or(0, |header| header.revision),
        };
        for kv in &found.kvs {
            seen.add(kv);
        }
        Ok(seen)
    }

    /// Registers this member. Goes on until the service answers.
    async fn register(&mut self, contents: &str) {
        let key = self.keys.member(self.member);
        while let Err(status) = self.registry.put(&key, contents).await {
            tracing::warn!(
                memberKey = key,
                error = status.message(),
                "failed to register members itself to the discovery service",
            );
            self.back_off("register member itself").await;
        }
        self.retries = 0;
        tracing::info!(
            memberKey = key,
            memberInfo = contents,
            "register member itself successfully",
        );
    }

    /// Waits for others, until all are there or the connection breaks. In that case, and when history
    /// has been compacted away, it looks again.
    async fn wait(&mut self, seen: &mut Seen) {
        tracing::info!(
            "cluster-size" = seen.size,
            "found-peers" = seen.members.len(),
            "waiting for peers from discovery service",
        );
        let (key, end) = (&self.keys.members, self.keys.members_end());
        if let Ok(mut changes) = self.registry.watch(key, end, seen.revision + 1).await {
            while let Some(response) = changes.next().await {
                let put = i32::from(EventType::Put);
                let events = response.events.iter().filter(|event| event.r#type == put);
                events
                    .filter_map(|event| event.kv.as_ref())
                    .for_each(|kv| seen.add(kv));
                if seen.members.len() >= seen.size {
                    tracing::info!(
                        "cluster-size" = seen.size,
                        "found-peers" = seen.members.len(),
                        "found all needed peers from discovery service",
                    );
                    return;
                }
            }
        }
        self.back_off("waiting for peers").await;
        if let Ok(again) = self.look().await {
            self.retries = 0;
            *seen = again;
        }
    }

    /// Waits, longer every time, and goes on with the next endpoint.
    async fn back_off(&mut self, reason: &str) {
        self.retries = (self.retries + 1).min(DOUBLINGS_MAX);
        let backoff = Duration::from_secs(1 << self.retries);
        tracing::warn!(reason, ?backoff, "retry connecting to discovery service");
        self.registry.turn();
        tokio::time::sleep(backoff).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(size: usize, members: &[(&str, i64)]) -> Seen {
        let mut seen = Seen {
            size,
            members: Vec::new(),
            revision: 0,
        };
        for (key, create_revision) in members {
            seen.add(&KeyValue {
                key: key.as_bytes().to_vec().into(),
                value: format!("{key}=http://127.0.0.1:1").into_bytes().into(),
                create_revision: *create_revision,
                ..KeyValue::default()
            });
        }
        seen
    }

    #[test]
    fn who_came_first_is_in() {
        let three = seen(2, &[("b", 5), ("a", 9), ("c", 7), ("b", 5)]);
        let order: Vec<&str> = three.members.iter().map(|it| it.key.as_str()).collect();
        assert_eq!(order, ["b", "c", "a"]);
        let cluster = three.cluster().unwrap();
        assert_eq!(cluster.keys().collect::<Vec<_>>(), ["b", "c"]);
        assert!(three.is_full_without("a") && three.is_full_without("new"));
        assert!(!three.is_full_without("b") && !three.is_full_without("c"));
        assert!(!seen(3, &[("b", 5), ("c", 7)]).is_full_without("new"));
    }

    #[test]
    fn keys_are_etcds() {
        let keys = Keys::new("token");
        assert_eq!(keys.size, "/_etcd/registry/token/_config/size");
        assert_eq!(
            keys.member(MemberId(0xab)),
            "/_etcd/registry/token/members/ab"
        );
        assert_eq!(keys.members_end(), b"/_etcd/registry/token/membert");
        assert_eq!(
            Keys::new("a/../b//c/.").members,
            "/_etcd/registry/b/c/members"
        );
    }
}
