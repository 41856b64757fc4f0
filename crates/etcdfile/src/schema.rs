//! The buckets of an etcd's database, and what their records look like (`server/storage/schema`).
//!
//! | bucket | key | value |
//! |---|---|---|
//! | `key` | main revision (8, big endian), `_`, sub revision (8, big endian), and `t` for a deletion | `mvccpb.KeyValue`; of a deletion, with only the key; empty where `--bump-revision` has put it |
//! | `meta` | `consistent_index`, `term` | 8 bytes, big endian |
//! | | `confState` | JSON |
//! | | `scheduledCompactRev`, `finishedCompactRev` | a revision as above |
//! | | `storageVersion` | text, since 3.6 |
//! | `lease` | id (8, big endian) | `leasepb.Lease` |
//! | `alarm` | `etcdserverpb.AlarmMember` | empty |
//! | `members` | id, in hex | JSON |
//! | `members_removed` | id, in hex | `removed` |
//! | `cluster` | `clusterVersion`, `downgrade` | text, JSON |
//! | `auth`, `authUsers`, `authRoles` | | users, roles, and whether they count |

use apply::Member;
use backend::Bucket;
use serde::{Deserialize, Serialize};
use types::{MemberId, Revision, Version};

/// The names of the buckets, in their order in a file.
pub const BUCKETS: [&[u8]; 10] = [
    ALARM,
    AUTH,
    AUTH_ROLES,
    AUTH_USERS,
    CLUSTER,
    KEY,
    LEASE,
    MEMBERS,
    MEMBERS_REMOVED,
    META,
];
/// The alarms that stand.
pub const ALARM: &[u8] = b"alarm";
/// Whether users and roles count.
pub const AUTH: &[u8] = b"auth";
/// The roles.
pub const AUTH_ROLES: &[u8] = b"authRoles";
/// The users.
pub const AUTH_USERS: &[u8] = b"authUsers";
/// The version of the cluster.
pub const CLUSTER: &[u8] = b"cluster";
/// History.
pub const KEY: &[u8] = b"key";
/// The leases.
pub const LEASE: &[u8] = b"lease";
/// The members.
pub const MEMBERS: &[u8] = b"members";
/// The ids of those who were members.
pub const MEMBERS_REMOVED: &[u8] = b"members_removed";
/// Single values.
pub const META: &[u8] = b"meta";

/// Single values of bucket `meta`.
pub(crate) const CONSISTENT_INDEX: &[u8] = b"consistent_index";
pub(crate) const TERM: &[u8] = b"term";
pub(crate) const CONF_STATE: &[u8] = b"confState";
pub(crate) const SCHEDULED_COMPACT: &[u8] = b"scheduledCompactRev";
pub(crate) const FINISHED_COMPACT: &[u8] = b"finishedCompactRev";
pub(crate) const STORAGE_VERSION: &[u8] = b"storageVersion";
/// Ours, and only in increments: when revisions were seen.
pub(crate) const TIME_MARKS: &[u8] = b"kvorumTimeMarks";
/// Single values of bucket `cluster`.
pub(crate) const CLUSTER_VERSION: &[u8] = b"clusterVersion";
pub(crate) const DOWNGRADE: &[u8] = b"downgrade";

/// The first version whose databases say of which version they are.
const FIRST_TOLD: Version = Version { major: 3, minor: 6 };
/// The oldest version that a database can be made of.
const OLDEST: Version = Version { major: 3, minor: 5 };

/// The version of databases in a cluster of this version. While the cluster has none, or none that
/// counts, it is the newest that we know.
#[must_use]
pub fn storage_version(cluster: Option<Version>) -> Version {
    let newest = Version::parse(api::version::STORAGE_VERSION).expect("our versions are versions");
    match cluster {
        Some(cluster) if cluster >= OLDEST => cluster.min(newest),
        _ => newest,
    }
}

/// Whether databases of this version say so.
pub(crate) fn is_told(version: Version) -> bool {
    version >= FIRST_TOLD
}

/// The buckets whose records are the same in a state of ours.
pub(crate) const AUTH_BUCKETS: [(&[u8], Bucket); 3] = [
    (AUTH, Bucket::Auth),
    (AUTH_USERS, Bucket::AuthUsers),
    (AUTH_ROLES, Bucket::AuthRoles),
];

/// The value of every record of bucket `members_removed`.
pub(crate) const REMOVED: &[u8] = b"removed";

/// Bytes of a revision.
const REVISION_BYTES: usize = 17;
/// What a revision ends with that is a deletion's.
const TOMBSTONE: u8 = b't';

/// A revision as the key of a record, and whether it is a deletion's.
#[must_use]
pub fn encode_revision(revision: Revision, is_tombstone: bool) -> Vec<u8> {
    let mut key = Vec::with_capacity(REVISION_BYTES + 1);
    key.extend_from_slice(&revision.main.to_be_bytes());
    key.push(b'_');
    key.extend_from_slice(&revision.sub.to_be_bytes());
    if is_tombstone {
        key.push(TOMBSTONE);
    }
    key
}

/// The revision at a key, and whether it is a deletion's.
#[must_use]
pub fn decode_revision(key: &[u8]) -> Option<(Revision, bool)> {
    let (main, rest) = key.split_first_chunk()?;
    let (separator, rest) = rest.split_first()?;
    let (sub, mark) = rest.split_first_chunk()?;
    let revision = Revision::new(i64::from_be_bytes(*main), i64::from_be_bytes(*sub));
    let is_valid = *separator == b'_' && revision.main >= 0 && revision.sub >= 0;
    match mark {
        [] if is_valid => Some((revision, false)),
        [TOMBSTONE] if is_valid => Some((revision, true)),
        _ => None,
    }
}

/// A number of bucket `meta`.
pub(crate) fn decode_number(value: &[u8]) -> Option<u64> {
    value.try_into().ok().map(u64::from_be_bytes)
}

/// The key of a member.
pub(crate) fn member_key(id: MemberId) -> Vec<u8> {
    id.to_string().into_bytes()
}

/// The id of the member at a key.
pub(crate) fn decode_member_key(key: &[u8]) -> Option<MemberId> {
    let text = std::str::from_utf8(key).ok()?;
    u64::from_str_radix(text, 16).ok().map(MemberId)
}

/// A member, in etcd's JSON.
#[derive(Debug, Deserialize, Serialize)]
struct JsonMember {
    id: u64,
    #[serde(rename = "peerURLs", default, deserialize_with = "or_empty")]
    peer_urls: Vec<String>,
    #[serde(
        rename = "isLearner",
        default,
        skip_serializing_if = "std::ops::Not::not"
    )]
    is_learner: bool,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    name: String,
    #[serde(
        rename = "clientURLs",
        default,
        deserialize_with = "or_empty",
        skip_serializing_if = "Vec::is_empty"
    )]
    client_urls: Vec<String>,
}

/// Go writes `null` for a list that is not there.
fn or_empty<'de, D: serde::Deserializer<'de>>(from: D) -> Result<Vec<String>, D::Error> {
    Ok(Option::<Vec<String>>::deserialize(from)?.unwrap_or_default())
}

pub(crate) fn encode_member(member: &Member) -> Vec<u8> {
    let json = JsonMember {
        id: member.id.0,
        peer_urls: member.peer_urls.clone(),
        is_learner: member.is_learner,
        name: member.name.clone(),
        client_urls: member.client_urls.clone(),
    };
    to_json(&json)
}

/// A member of bucket `members`, or of the log (there without its name).
pub fn decode_member(value: &[u8]) -> Result<Member, serde_json::Error> {
    let json: JsonMember = serde_json::from_slice(value)?;
    Ok(Member {
        id: MemberId(json.id),
        name: json.name,
        peer_urls: json.peer_urls,
        client_urls: json.client_urls,
        is_learner: json.is_learner,
    })
}

/// Whether a cluster is going back to an earlier version, in etcd's JSON.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case", default)]
pub struct Downgrade {
    /// To which.
    pub target_version: String,
    /// Whether it is.
    pub enabled: bool,
}

/// Who has a vote, in etcd's JSON.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Eq, Serialize)]
pub struct ConfState {
    /// Those who have one.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub voters: Vec<u64>,
    /// Those who have none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub learners: Vec<u64>,
    /// Those who had one before a change that is going on.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub voters_outgoing: Vec<u64>,
    /// Those who will have none after it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub learners_next: Vec<u64>,
    /// Whether such a change ends by itself.
    #[serde(default)]
    pub auto_leave: bool,
}

pub(crate) fn encode_conf_state(members: &[Member]) -> Vec<u8> {
    let ids = |is_learner| {
        let ids = members.iter().filter(|it| it.is_learner == is_learner);
        ids.map(|member| member.id.0).collect()
    };
    to_json(&ConfState {
        voters: ids(false),
        learners: ids(true),
        ..ConfState::default()
    })
}

fn to_json(value: &impl Serialize) -> Vec<u8> {
    serde_json::to_vec(value).expect("numbers, texts and lists of them can always be written")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn revisions_are_the_documented_bytes() {
        let key = encode_revision(Revision::new(0x0102, 3), true);
        assert_eq!(&key, b"\0\0\0\0\0\0\x01\x02_\0\0\0\0\0\0\0\x03t");
        assert_eq!(
            decode_revision(&key),
            Some((Revision::new(0x0102, 3), true))
        );
        assert_eq!(
            decode_revision(&key[..17]),
            Some((Revision::new(0x0102, 3), false))
        );
        for broken in [
            &key[..16],
            b"",
            b"12345678-12345678",
            &[key.as_slice(), b"t"].concat(),
        ] {
            assert_eq!(decode_revision(broken), None);
        }
    }

    #[test]
    fn a_member_is_written_as_etcd_writes_it() {
        let member = Member {
            id: MemberId(10_276_657_743_932_975_437),
            name: "n".to_owned(),
            peer_urls: vec!["http://localhost:2380".to_owned()],
            client_urls: Vec::new(),
            is_learner: true,
        };
        let json = encode_member(&member);
        let text = r#"{"id":10276657743932975437,"peerURLs":["http://localhost:2380"],"isLearner":true,"name":"n"}"#;
        assert_eq!(std::str::from_utf8(&json).unwrap(), text);
        assert_eq!(decode_member(&json).unwrap(), member);
        assert_eq!(member_key(member.id), b"8e9e05c52164694d");
        assert_eq!(decode_member_key(b"8e9e05c52164694d"), Some(member.id));
        let state = encode_conf_state(&[member]);
        let text = r#"{"learners":[10276657743932975437],"auto_leave":false}"#;
        assert_eq!(std::str::from_utf8(&state).unwrap(), text);
    }
}
