//! A member's face to its clients: gRPC services, validation, error mapping, and HTTP endpoints on
//! one port.
//!
//! What this is not: a way to the data. Services read through views and write by proposing; nothing
//! in here holds a writer.

mod admission;
mod body;
mod call;
pub mod compactor;
pub mod corrupt;
mod etcd_server;
mod framing;
mod gateway;
mod http;
mod id_generator;
mod in_process;
mod limits;
mod metrics;
mod recent;
mod serve;
mod serving;
mod space_alarm;
mod traces;
mod traffic;
mod v3rpc;
mod version_monitor;

pub use corrupt::CorruptConfig;
pub use etcd_server::{Config, EtcdServer, RequestError};
pub use http::access::HttpOptions;
pub use in_process::InProcess;
pub use limits::{GrpcLimits, SlowRequests};
pub use metrics::{Features, Metrics, MetricsConfig};
pub use traces::Traces;
pub use v3rpc::{LoggedError, logged_request};
pub use version_monitor::ShownVersions;

pub use serve::{ClientService, serve};
