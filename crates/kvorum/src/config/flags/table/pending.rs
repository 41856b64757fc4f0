//! Flags that are read and kept, and that nothing acts on yet. Whoever makes one work takes it out.
//!
//! Most are warned of when they are given. Refused are those that would do harm by doing nothing: who
//! asks for backups has none, and who asks for discovery would begin a cluster alone.

/// These are warned of.
pub(in crate::config) static WARNED: &[&str] = &[
    // Checks.
];

/// These are refused.
pub(in crate::config) static REFUSED: &[&str] = &[
    "backup-schedule",
    "backup-destination",
    "backup-retention",
    "backup-compression",
    "backup-age-max",
];
