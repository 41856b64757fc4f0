//! The server's side of HTTP/2 (RFC 9113), for gRPC: many short requests on a connection, and streams that last.
//!
//! A connection is one task. It takes all frames that have come, polls the answers that can go on, and writes what
//! they said with one call of the system; a request that is answered at once costs no other task, no queue between
//! tasks and no lock that anybody else holds. [`Connection`] is all there is to call; requests are
//! [`http::Request`]s, so that tonic's services answer them.
//!
//! * `wire`: what a connection knows, and what it does about each frame; `hpack`: its headers.
//! * `stream`: what a stream's sides have in common; `answer`: the future of one answer; `body`: a request's body;
//!   `reply`: what it is answered with.
//! * `pings`, `keepalive`: grpc-go's rules about pings, theirs and ours.
//!
//! What this is not: a client, HTTP/1, TLS, pushes, priorities, or CONNECT.

mod answer;
mod body;
mod connection;
mod fifo;
mod frame;
mod hpack;
mod keepalive;
mod outbox;
mod pings;
mod reply;
mod request;
mod shared;
mod stream;
mod wire;

#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Duration;

use types::Clock;

pub use body::{Incomplete, RequestBody};
pub use connection::{Connection, Error};
pub use frame::PREFACE;
pub use reply::Reply;

/// What clients' connections are held to.
#[derive(Clone)]
pub struct Options {
    /// Streams that a client may have open at once.
    pub max_concurrent_streams: u32,
    /// How long a connection is silent before its client is pinged.
    pub keepalive_interval: Duration,
    /// How long the answer may take.
    pub keepalive_timeout: Duration,
    /// How often a client may ping while it has streams open.
    pub ping_min_time: Duration,
    /// The time by which its pings are judged.
    pub clock: Arc<dyn Clock>,
}
