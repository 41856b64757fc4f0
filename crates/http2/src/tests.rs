//! Connections as their clients see them.

mod client;
mod frames;
