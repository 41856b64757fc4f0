//! What tests need: kvorum members and a real etcd as processes behind one interface, alone
//! ([`Server`]) or as a cluster ([`Cluster`]) whose links can be cut ([`network`]), typed gRPC
//! clients ([`Client`]), outside programs ([`binaries`]), certificates ([`certs`]) and waiting on
//! conditions ([`eventually`]).
//!
//! What this is not: an in-process member, or anything that production code may use.
//!
//! Processes listen on 127.0.0.1 with ports given by the kernel ([`Port`]), keep their data in a temporary
//! directory, and are killed when their [`Server`] is dropped, also by a panic. Two test runs
//! can go on at once.

pub mod binaries;
pub mod certs;
pub mod check;
pub mod client;
pub mod cluster;
pub mod disk;
pub mod history;
pub mod http;
pub mod instructions;
pub mod model;
pub mod network;
pub mod patience;
pub mod port;
pub mod process;
pub mod retrying;
pub mod server;

pub use client::Client;
pub use cluster::{Cluster, ClusterSpec};
pub use patience::{eventually, note};
pub use port::Port;
pub use retrying::Retrying;
pub use server::{Program, Server, Spec};
