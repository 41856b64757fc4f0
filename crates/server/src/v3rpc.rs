//! etcd's gRPC services.

mod auth;
mod cluster;
mod concurrency;
mod deadline;
mod downgrade;
mod election;
mod header;
mod health;
mod interceptor;
mod kv;
mod large_range;
mod lease;
mod lock;
mod logged;
mod maintenance;
mod metadata;
mod methods;
mod own_body;
mod range_stream;
mod reflection;
mod reply;
mod snapshot;
mod status;
mod unary;
mod undo;
mod v3client;
mod validate;
mod watch;

pub(crate) use auth::{Credentials, Passwords};
pub(crate) use interceptor::GrpcServices;
pub use logged::{LoggedError, logged_request};
pub(crate) use methods::{METHODS, Method, MethodKind};
pub(crate) use validate::Consistency;
