//! Flags that are read and kept, and that nothing acts on yet. Whoever makes one work takes it out.
//!
//! Most are warned of when they are given. Refused are those that would do harm by doing nothing: who asks
//! for discovery would begin a cluster alone.

/// These are warned of.
pub(in crate::config) static WARNED: &[&str] = &[
    // Checks.
    "corrupt-check-time",
    "experimental-corrupt-check-time",
    "compact-hash-check-time",
    "experimental-compact-hash-check-time",
    "downgrade-check-time",
    "experimental-downgrade-check-time",
    // Compaction.
    "compaction-batch-limit",
    "experimental-compaction-batch-limit",
    "compaction-sleep-interval",
    "experimental-compaction-sleep-interval",
    // Monitoring.
    "enable-distributed-tracing",
    "experimental-enable-distributed-tracing",
    "distributed-tracing-address",
    "experimental-distributed-tracing-address",
    "distributed-tracing-service-name",
    "experimental-distributed-tracing-service-name",
    "distributed-tracing-instance-id",
    "experimental-distributed-tracing-instance-id",
    "distributed-tracing-sampling-rate",
    "experimental-distributed-tracing-sampling-rate",
    // Discovery.
    "discovery-srv-name",
    "discovery-dial-timeout",
    "discovery-request-timeout",
    "discovery-keepalive-time",
    "discovery-keepalive-timeout",
    "discovery-insecure-transport",
    "discovery-insecure-skip-tls-verify",
    "discovery-cert",
    "discovery-key",
    "discovery-cacert",
    "discovery-user",
    "discovery-password",
    "discovery-proxy",
    "discovery-fallback",
    // Sockets and directories.
    "socket-reuse-port",
    "socket-reuse-address",
    "wal-dir",
];

/// These are refused.
pub(in crate::config) static REFUSED: &[&str] =
    &["discovery", "discovery-srv", "discovery-endpoints"];
