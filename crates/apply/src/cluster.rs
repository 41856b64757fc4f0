//! The members of the cluster, as the log has made them.

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
    /// Whether it has no vote.
    pub is_learner: bool,
}

type Members = BTreeMap<MemberId, Member>;

/// Reads the members. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Cluster {
    published: Arc<ArcSwap<Members>>,
}

impl Cluster {
    /// All of them, by id.
    #[must_use]
    pub fn members(&self) -> Vec<Member> {
        self.published.load().values().cloned().collect()
    }
    /// One of them.
    #[must_use]
    pub fn member(&self, id: MemberId) -> Option<Member> {
        self.published.load().get(&id).cloned()
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
        let mut members = Members::new();
        for record in reader.scan(Bucket::Members, &[], None) {
            let (key, value) = record?;
            let id = schema::members::decode(&key)?;
            let message =
                api::internalpb::Member::decode(value).map_err(|source| OpenError::Decode {
                    bucket: Bucket::Members,
                    key,
                    source,
                })?;
            members.insert(id, codec::member_from(message));
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
        let Some(member) = self.members.get_mut(&attributes.id) else {
            tracing::warn!(member = %attributes.id, "a member that is not there published itself");
            return;
        };
        member.name.clone_from(&attributes.name);
        member.client_urls.clone_from(&attributes.client_urls);
        self.note(attributes.id);
    }

    /// Exactly these are the members now. Of those that were there, name and client urls stay.
    pub(crate) fn set(&mut self, members: Vec<Member>) {
        let mut before = std::mem::take(&mut self.members);
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
            self.members.insert(member.id, member);
        }
        for removed in before.into_keys() {
            self.note(removed);
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

    /// Adds to `batch` all that has changed since the last call.
    pub(crate) fn stage(&mut self, batch: &mut Batch) {
        for id in std::mem::take(&mut self.unstaged) {
            let key = Bytes::copy_from_slice(&schema::members::encode(id));
            match self.members.get(&id) {
                Some(member) => {
                    let message = codec::member_to(member);
                    batch.put(Bucket::Members, key, message.encode_to_vec());
                }
                None => batch.delete(Bucket::Members, key),
            }
        }
    }
}
