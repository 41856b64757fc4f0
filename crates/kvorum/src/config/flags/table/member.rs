//! Flags about the member itself: names, addresses, limits, logs.

use super::flags;
use crate::config::flags::value::{signed, switch, text, time, unsigned, url_list, urls};
use crate::config::flags::{Flag, Kind, Section};

pub(super) static FLAGS: &[Flag] = flags! {
    Member Value "config-file" ""
        "Path to a configuration file (YAML). All other flags and the environment are ignored then."
        => |o, v| text(&mut o.config_file, v);
    Member Value "name" "default"
        "Human-readable name for this member."
        => |o, v| text(&mut o.name, v);
    Member Value "data-dir" "${name}.etcd"
        "Path to the data directory; made, for its owner only, when it is not there."
        => |o, v| text(&mut o.data_dir, v);
    Member Value "wal-dir" ""
        "Path to a directory of its own for the log, for example on a faster disk. Empty: below the data directory."
        => |o, v| text(&mut o.wal_dir, v);
    Member Switch "socket-reuse-port" "false"
        "Whether another process may listen on the same addresses (SO_REUSEPORT)."
        => |o, v| switch(&mut o.sockets.reuse_port, v);
    Member Switch "socket-reuse-address" "false"
        "Whether an address may be listened on that a process before has left in TIME_WAIT (SO_REUSEADDR)."
        => |o, v| switch(&mut o.sockets.reuse_address, v);
    Member Switch "memory-mlock" "false"
        "Whether all memory of the process stays in RAM; it must be allowed to lock as much as it needs."
        => |o, v| switch(&mut o.memory_mlock, v);
    Member Switch "experimental-memory-mlock" "false"
        "The name of --memory-mlock before etcd 3.6."
        deprecated "--experimental-memory-mlock is deprecated in v3.6 and will be decommissioned in v3.7. Use '--memory-mlock' instead."
        => |o, v| switch(&mut o.memory_mlock, v);
    Member Value "raft-read-timeout" "5s"
        "How long a connection with a peer that carries entries may be silent; at least 5s."
        => |o, v| time(&mut o.raft_read_timeout, v);
    Member Value "raft-write-timeout" "5s"
        "How long a peer may leave unconfirmed what was sent to it, before its connection is given up; at least 5s."
        => |o, v| time(&mut o.raft_write_timeout, v);
    Member Value "snapshot-count" "10000"
        "Number of log entries after which the log is cut."
        => |o, v| unsigned(&mut o.snapshot_count, v);
    Member Value "snapshot-catchup-entries" "5000"
        "Number of log entries that stay for members that are a little behind."
        => |o, v| unsigned(&mut o.snapshot_catchup_entries, v);
    Member Value "experimental-snapshot-catchup-entries" "5000"
        "The name of --snapshot-catchup-entries before etcd 3.6."
        deprecated "--experimental-snapshot-catchup-entries is deprecated in v3.6 and will be decommissioned in v3.7. Use '--snapshot-catchup-entries' instead."
        => |o, v| unsigned(&mut o.snapshot_catchup_entries, v);
    Member Value "experimental-snapshot-catch-up-entries" "5000"
        "As etcd's configuration files spell --snapshot-catchup-entries before 3.6."
        => |o, v| unsigned(&mut o.snapshot_catchup_entries, v);
    Member Value "heartbeat-interval" "100"
        "Time (in milliseconds) between a leader's heartbeats; about a round trip between members."
        => |o, v| unsigned(&mut o.heartbeat_interval_ms, v);
    Member Value "election-timeout" "1000"
        "Time (in milliseconds) without a heartbeat after which members elect another leader; at least 5 heartbeats."
        => |o, v| unsigned(&mut o.election_timeout_ms, v);
    Member Value "listen-peer-urls" "http://localhost:2380"
        "Comma-separated urls to listen on for peers. Hosts must be addresses."
        => |o, v| urls(&mut o.listen_peer_urls, v);
    Member Value "listen-client-urls" "http://localhost:2379"
        "Comma-separated urls to listen on for clients' gRPC, and HTTP unless --listen-client-http-urls is given. Hosts must be addresses."
        => |o, v| urls(&mut o.listen_client_urls, v);
    Member Value "listen-client-http-urls" ""
        "Comma-separated urls to listen on for clients' HTTP only."
        => |o, v| url_list(&mut o.listen_client_http_urls, v);
    Member Value "quota-backend-bytes" "0"
        "Bytes that may be stored before writes are refused and an alarm is raised. 0 means 2 GiB, a negative number no limit."
        => |o, v| signed(&mut o.quota_backend_bytes, v);
    Member Value "max-txn-ops" "128"
        "Number of operations a transaction may have."
        => |o, v| unsigned(&mut o.max_txn_ops, v);
    Member Value "max-request-bytes" "1572864"
        "Bytes a client's request may have."
        => |o, v| unsigned(&mut o.max_request_bytes, v);
    Monitoring Value "listen-metrics-urls" ""
        "Comma-separated urls to listen on for /metrics and /health only. https uses the certificate for clients; http asks for none."
        => |o, v| url_list(&mut o.listen_metrics_urls, v);
    Logging Value "logger" "zap"
        "Only 'zap': the form of etcd's log lines."
        => |o, v| text(&mut o.logger, v);
    Logging Value "log-level" "info"
        "Log from this level on: debug, info, warn, error, panic, or fatal."
        => |o, v| text(&mut o.log_level, v);
    Logging Value "log-format" "json"
        "'json' or 'console'."
        => |o, v| text(&mut o.log_format, v);
    Logging Value "log-outputs" "default"
        "Comma-separated: 'stdout', 'stderr' (the default), or paths of files."
        => |o, v| text(&mut o.log_outputs, v);
    Features Value "watch-progress-notify-interval" "10m"
        "How often an idle watch that asked for it hears how far it is."
        => |o, v| time(&mut o.watch_progress_notify_interval, v);
    Features Value "experimental-watch-progress-notify-interval" "10m"
        "The name of --watch-progress-notify-interval before etcd 3.6."
        deprecated "--experimental-watch-progress-notify-interval is deprecated in v3.6 and will be decommissioned in v3.7. Use '--watch-progress-notify-interval' instead."
        => |o, v| time(&mut o.watch_progress_notify_interval, v);
    Features Value "feature-gates" ""
        "Comma-separated Name=true or Name=false: StopGRPCServiceOnDefrag, InitialCorruptCheck, CompactHashCheck, TxnModeWriteWithSharedBuffer, LeaseCheckpoint, LeaseCheckpointPersist, SetMemberLocalAddr, FastLeaseKeepAlive, PriorityRequest."
        => |o, v| Ok(o.feature_gates.set(v)?);
};
