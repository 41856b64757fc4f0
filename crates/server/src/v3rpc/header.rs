//! The header that every response begins with.

use api::etcdserverpb::ResponseHeader;

use crate::EtcdServer;

impl EtcdServer {
    /// The header of a response that shows the store at `revision`.
    #[must_use]
    pub fn header_at(&self, revision: i64) -> ResponseHeader {
        ResponseHeader {
            revision,
            ..self.header_without_revision()
        }
    }

    /// The header of a response that shows the store as it is now.
    #[must_use]
    pub fn header(&self) -> ResponseHeader {
        self.header_at(self.views().store.view().revision())
    }

    /// The header of a response about the cluster; etcd puts no revision there.
    #[must_use]
    pub fn header_without_revision(&self) -> ResponseHeader {
        ResponseHeader {
            cluster_id: self.config().cluster.0,
            member_id: self.config().member.0,
            revision: 0,
            raft_term: self.node().status().term,
        }
    }
}
