//! kvorum's vocabulary: the words every other crate uses, by etcd's names. No I/O, no async.

mod clock;
mod histogram;
mod ids;
mod key_range;
mod revision;
mod urls;
mod version;

pub use clock::{Clock, SystemClock};
pub use histogram::{Buckets, Histogram};
pub use ids::{ClusterId, LeaseId, MemberId, WatchId, cluster_id, member_id};
pub use key_range::KeyRange;
pub use revision::Revision;
pub use urls::{Fault as UrlFault, Scheme, Url, UrlError};
pub use version::Version;
