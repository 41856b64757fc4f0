//! The members of the cluster, as the log has made them.

use types::MemberId;

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

/// Reads the members. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Cluster {}

impl Cluster {
    /// All of them, by id.
    #[must_use]
    pub fn members(&self) -> Vec<Member> {
        todo!()
    }
    /// One of them.
    #[must_use]
    pub fn member(&self, _id: MemberId) -> Option<Member> {
        todo!()
    }
}
