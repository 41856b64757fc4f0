//! etcd's gRPC services.

mod auth;
mod cluster;
mod header;
mod health;
mod interceptor;
mod kv;
mod lease;
mod maintenance;
mod methods;
mod reply;
mod status;
mod validate;
mod watch;

pub(crate) use interceptor::GrpcServices;
pub(crate) use methods::{METHODS, Method};
pub(crate) use validate::Consistency;
