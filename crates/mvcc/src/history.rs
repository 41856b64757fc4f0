//! Events of the past, for watchers that are not up to date.

use std::sync::Arc;

use crate::RevisionEvents;

/// A stretch of history.
#[derive(Debug)]
pub(crate) struct History {
    /// Revisions that have events, in order, without gaps between them.
    pub(crate) revisions: Vec<Arc<RevisionEvents>>,
    /// The first revision that was not looked at; everything below it has been returned.
    pub(crate) next: i64,
}
