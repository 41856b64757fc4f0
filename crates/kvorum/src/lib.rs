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
//!
//! # Stability
//!
//! Versions follow [semver](https://semver.org). What it promises is listed in `public-api.txt` beside this
//! crate's manifest, and a test compares the list with the sources: nothing of it changes by chance; another
//! one sees that each struct and enum of it has an example, its own or one that it links to. Before
//! 1.0 a change that can break a program raises the middle number, and any other one the last; from 1.0 on
//! the first and the middle one. Of the libraries that show through, `tonic`, `bytes`, `tokio` and `clap` belong to
//! the promise, and so do the messages in [`api`], which are etcd's. The causes inside errors do not: what
//! [`StartError`], [`Fatal`] and their like say is for people, and their inner types are this workspace's
//! own. New variants and new fields of configuration can come at any time: build configuration with
//! [`Config::builder`], and end a `match` with `_`. What is on the disk, on the wire and on the command
//! line has promises of its own, which are etcd's.

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
pub use types::{Clock, ClusterId, MemberId, SystemClock, Url, UrlError};
