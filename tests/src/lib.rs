//! What several test files share: the same request against kvorum and a real etcd, and models to
//! compare with.

pub mod contents;
pub mod differential;
pub mod etcdctl;
pub mod flows;
pub mod history;
pub mod hostile;
pub mod kine;
pub mod large;
pub mod raw_http;
pub mod surface;
pub mod takeover;
pub mod torture;
