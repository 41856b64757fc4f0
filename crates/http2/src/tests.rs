//! Connections as their clients see them.

mod client;
mod frames;

use std::sync::Arc;
use std::time::Duration;

use types::SystemClock;

use crate::Options;

pub(crate) fn options() -> Options {
    Options {
        max_concurrent_streams: u32::MAX,
        keepalive_interval: Duration::from_secs(3600),
        keepalive_timeout: Duration::from_secs(20),
        ping_min_time: Duration::from_secs(300),
        clock: Arc::new(SystemClock),
    }
}

/// A frame's bytes.
pub(crate) fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    let mut frame = length[1..].to_vec();
    frame.extend([kind, flags]);
    frame.extend(stream.to_be_bytes());
    frame.extend(payload);
    frame
}
