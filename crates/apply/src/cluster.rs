//! The members of the cluster, as the log has made them, and the ids of those that were removed.
//!
//! An id that was removed stays so for ever: its member is told so when it calls, and nobody else
//! gets the id.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use arc_swap::ArcSwap;
use backend::{Batch, Bucket, Reader, schema};
use bytes::Bytes;
use prost::Message;
use types::MemberId;

use crate::OpenError;
use crate::command::codec;

/// A member.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Member {
    /// Its id.
    pub id: MemberId,
    /// Its name; empty until it has started and published itself.
    pub name: String,
    /// Where its peers reach it.
    pub peer_urls: Vec<String>,
    /// Where clients reach it; empty until it has published itself.
    pub client_urls: Vec<String>,
    /// Whether it has no vote, as clients see it.
    pub is_learner: bool,
}

impl Member {
    /// Whether it has ever started: it has told its name then.
    #[must_use]
    pub fn is_started(&self) -> bool {
        !self.name.is_empty()
    }
}

/// Who is a member, and who was.
#[derive(Clone, Debug, Default)]
struct Members {
    present: BTreeMap<MemberId, Member>,
    removed: BTreeSet<MemberId>,
}

/// Reads the members. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Cluster {
    published: Arc<ArcSwap<Members>>,
}

impl Cluster {
    /// All of them, by id.
    #[must_use]
    pub fn members(&self) -> Vec<Member> {
        self.published.load().present.values().cloned().collect()
    }

    /// Whether it is a member and has no vote.
    #[must_use]
    pub fn is_learner(&self, id: MemberId) -> bool {
        let members = self.published.load();
        let member = members.present.get(&id);
        member.is_some_and(|member| member.is_learner)
    }

    /// One of them.
    #[must_use]
    pub fn member(&self, id: MemberId) -> Option<Member> {
        self.published.load().present.get(&id).cloned()
    }

    /// Whether it was a member and has been removed.
    #[must_use]
    pub fn is_removed(&self, id: MemberId) -> bool {
        self.published.load().removed.contains(&id)
    }
}

/// The members, and the right to change them.
#[derive(Debug)]
pub(crate) struct MemberStore {
    members: Members,
    published: Arc<ArcSwap<Members>>,
    is_published: bool,
    unstaged: BTreeSet<MemberId>,
}

impl MemberStore {
    pub(crate) fn open(reader: &Reader) -> Result<Self, OpenError> {
        let mut members = Members::default();
        for record in reader.scan(Bucket::Members, &[], None) {
            let (key, value) = record?;
            let id = schema::members::decode(&key)?;
            let message =
                api::internalpb::Member::decode(value).map_err(|source| OpenError::Decode {
                    bucket: Bucket::Members,
                    key,
                    source,
                })?;
            members.present.insert(id, codec::member_from(message));
        }
        for record in reader.scan(Bucket::MembersRemoved, &[], None) {
            let (key, _removed) = record?;
            members.removed.insert(schema::members::decode(&key)?);
        }
        let published = Arc::new(ArcSwap::from_pointee(members.clone()));
        Ok(Self {
            members,
            published,
            is_published: true,
            unstaged: BTreeSet::new(),
        })
    }

    pub(crate) fn view(&self) -> Cluster {
        Cluster {
            published: Arc::clone(&self.published),
        }
    }

    /// A member tells its name and client urls.
    pub(crate) fn publish_member(&mut self, attributes: &Member) {
        let Some(member) = self.members.present.get_mut(&attributes.id) else {
            tracing::warn!(member = %attributes.id, "a member that is not there published itself");
            return;
        };
        member.name.clone_from(&attributes.name);
        member.client_urls.clone_from(&attributes.client_urls);
        self.note(attributes.id);
    }

    /// Exactly these are the members now. Of those that were there, name and client urls stay; who
    /// is not among them any more has been removed for ever.
    pub(crate) fn set(&mut self, members: Vec<Member>) {
        let mut before = std::mem::take(&mut self.members.present);
        for mut member in members {
            if let Some(known) = before.remove(&member.id) {
                if !known.name.is_empty() {
                    member.name = known.name;
                }
                if !known.client_urls.is_empty() {
                    member.client_urls = known.client_urls;
                }
            }
            self.note(member.id);
            // Only an operator who forces a new cluster on a removed member brings an id back.
            self.members.removed.remove(&member.id);
            self.members.present.insert(member.id, member);
        }
        for gone in before.into_keys() {
            tracing::info!(member = %gone, "removed member");
            self.note(gone);
            self.members.removed.insert(gone);
        }
    }

    fn note(&mut self, id: MemberId) {
        self.unstaged.insert(id);
        self.is_published = false;
    }

    /// Shows the members to readers.
    pub(crate) fn publish(&mut self) {
        if !self.is_published {
            self.published.store(Arc::new(self.members.clone()));
            self.is_published = true;
        }
    }

    /// Other members take the place of these.
    pub(crate) fn install(&mut self, other: Self) {
        self.members = other.members;
        self.unstaged.clear();
        self.is_published = false;
        self.publish();
    }

    /// Everything is to be staged, not only what has changed.
    pub(crate) fn restage(&mut self) {
        let Members { present, removed } = &self.members;
        self.unstaged = present.keys().chain(removed).copied().collect();
    }

    /// Adds to `batch` all that has changed since the last call.
    pub(crate) fn stage(&mut self, batch: &mut Batch) {
        for id in std::mem::take(&mut self.unstaged) {
            let key = Bytes::copy_from_slice(&schema::members::encode(id));
            match self.members.present.get(&id) {
                Some(member) => {
                    let message = codec::member_to(member);
                    batch.put(Bucket::Members, key.clone(), message.encode_to_vec());
                }
                None => batch.delete(Bucket::Members, key.clone()),
            }
            if self.members.removed.contains(&id) {
                batch.put(Bucket::MembersRemoved, key, schema::members::REMOVED);
            } else {
                batch.delete(Bucket::MembersRemoved, key);
            }
        }
    }
}
