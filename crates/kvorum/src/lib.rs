//! kvorum as a library: a member of an etcd-v3-compatible replicated key-value store in your own
//! process.
//!
//! ```no_run
//! # async fn run() -> Result<(), Box<dyn std::error::Error>> {
//! let options = kvorum::Options { data_dir: "/var/lib/mine".to_owned(), ..Default::default() };
//! let member = kvorum::Kvorum::start(options.validate()?).await?;
//! member.wait_ready().await?;
//! println!("clients are welcome at {:?}", member.client_urls());
//! member.stop().await;
//! # Ok(())
//! # }
//! ```
//!
//! Several members can run in one process. The library installs no logger, no metrics and no signal
//! handlers, and knows no globals; the `kvorum` binary does that on top of it.

pub mod certs;
pub mod client;
pub mod config;
pub mod error;
mod etcd;
pub mod logging;
pub mod migrate;
pub mod restore;
pub mod tools;

pub use api;
pub use client::Client;
pub use config::{Config, ConfigBuilder, ConfigError, Options};
pub use error::{Fatal, StartError};
pub use etcd::{Kvorum, MemberStatus, MetricsError};
