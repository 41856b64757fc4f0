//! What only the leader knows of leases: any member may be asked, and asks the leader.

use types::LeaseId;

use crate::ReadIndexError;

impl crate::Node {
    /// Gives a lease its full TTL again, and says how many seconds that is; `None`: there is no such
    /// lease. The leader has confirmed that it leads.
    pub async fn renew_lease(&self, id: LeaseId) -> Result<Option<i64>, ReadIndexError> {
        todo!("{id}")
    }

    /// The seconds a lease has left; `None`: there is no such lease.
    pub async fn remaining_ttl(&self, id: LeaseId) -> Result<Option<i64>, ReadIndexError> {
        todo!("{id}")
    }
}
