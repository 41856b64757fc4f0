//! Bounds of the store.

/// Bounds of the store.
#[derive(Clone, Debug)]
pub struct Config {
    /// Bytes of recent events that are kept in memory for watchers. More are kept only while no
    /// committed segment holds them.
    pub event_log_bytes_max: usize,
}

/// Versions in one segment, at most.
pub(crate) const SEGMENT_VERSIONS_MAX: usize = 256;

/// Bytes of one segment, at most, unless a single version is larger.
pub(crate) const SEGMENT_BYTES_MAX: usize = 64 * 1024;

/// Bytes of decoded segments that are kept for reads of the past.
pub(crate) const SEGMENT_CACHE_BYTES_MAX: usize = 16 * 1024 * 1024;

/// Keys that one step of a compaction looks at: milliseconds where it forgets a version of each of them. Who
/// writes waits for the step that is under way.
pub(crate) const COMPACT_KEYS_PER_STEP: usize = 4000;

/// Bytes of segments that one step of a compaction reads and writes again.
pub(crate) const SCRUB_BYTES_PER_STEP: u64 = 256 * 1024;

/// Segments that one step of a compaction removes or writes again.
pub(crate) const SCRUB_SEGMENTS_PER_STEP: usize = 16;
