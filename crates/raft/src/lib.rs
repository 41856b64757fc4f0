//! Consensus: a member of a Raft group on openraft, whose state machine is `apply`. The only crate
//! that names openraft.

mod error;
mod node;

pub use error::{Fatal, ProposeError, ReadIndexError, StartError};
pub use node::{Applied, Config, Node, Peer, Status};
