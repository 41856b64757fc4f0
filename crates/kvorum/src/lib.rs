//! kvorum as a library: a member of an etcd-v3-compatible replicated key-value store in your own
//! process.
//!
//! ```
//! use kvorum::{Config, Kvorum};
//! # async fn run() -> Result<(), Box<dyn std::error::Error>> {
//! # let dir = tempfile::tempdir()?;
//! # let data_dir = dir.path().join("data");
//! let config = Config::builder().name("m1").data_dir(data_dir).any_ports().build()?;
//! let member = Kvorum::start(config).await?;
//! member.wait_ready().await?;
//! println!("clients are welcome at {:?}", member.client_urls());
//!
//! // The program itself needs no connection, and passes the same checks.
//! let client = member.client();
//! client.put("greeting", "hello").await?;
//! assert!(member.status().is_leader());
//! member.stop().await;
//! # Ok(())
//! # }
//! # tokio::runtime::Runtime::new().unwrap().block_on(run()).unwrap();
//! ```
//!
//! Several members can run in one process. The library installs no logger, no metrics and no signal
//! handlers, and knows no globals; the `kvorum` binary does that on top of it.

pub mod bucket;
pub mod certs;
pub mod client;
pub mod config;
pub mod error;
mod etcd;
pub mod logging;
pub mod memory;
pub mod migrate;
pub mod restore;
mod snapshot_file;
pub mod tools;

/// The program of the README, compiled and run.
#[cfg(doctest)]
#[doc = include_str!("../../../README.md")]
pub struct Readme;

pub use api;
pub use client::Client;
pub use config::{Config, ConfigBuilder, ConfigError, Options};
pub use error::{Fatal, StartError};
pub use etcd::{Kvorum, MemberStatus, MetricsError};
pub use types::{ClusterId, MemberId, Url, UrlError};
