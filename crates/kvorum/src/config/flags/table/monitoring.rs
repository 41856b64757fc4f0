//! Flags about how a member is watched: metrics, profiles, traces.

use super::flags;
use crate::config::flags::value::{metrics_level, signed, switch, text};
use crate::config::flags::{Flag, Kind, Section};

pub(super) static FLAGS: &[Flag] = flags! {
    Monitoring Value "metrics" "basic"
        "'extensive' tells how long every gRPC request takes, by its method; anything else does not."
        => |o, v| metrics_level(&mut o.metrics, v);
    Monitoring Switch "enable-pprof" "false"
        "Whether profiles are served under /debug/pprof/."
        => |o, v| switch(&mut o.http.is_pprof_enabled, v);
    Tracing Switch "enable-distributed-tracing" "false"
        "Whether requests are traced with OpenTelemetry."
        => |o, v| switch(&mut o.tracing.is_enabled, v);
    Tracing Switch "experimental-enable-distributed-tracing" "false"
        "The name of --enable-distributed-tracing before etcd 3.6."
        deprecated "--experimental-enable-distributed-tracing is deprecated in 3.6 and will be decommissioned in 3.7. Use --enable-distributed-tracing instead."
        => |o, v| switch(&mut o.tracing.is_enabled, v);
    Tracing Value "distributed-tracing-address" "localhost:4317"
        "Where the collector of traces is."
        => |o, v| text(&mut o.tracing.address, v);
    Tracing Value "experimental-distributed-tracing-address" "localhost:4317"
        "The name of --distributed-tracing-address before etcd 3.6."
        deprecated "--experimental-distributed-tracing-address is deprecated in 3.6 and will be decommissioned in 3.7. Use --distributed-tracing-address instead."
        => |o, v| text(&mut o.tracing.address, v);
    Tracing Value "distributed-tracing-service-name" "etcd"
        "The service's name in traces; the same on every member."
        => |o, v| text(&mut o.tracing.service_name, v);
    Tracing Value "experimental-distributed-tracing-service-name" "etcd"
        "The name of --distributed-tracing-service-name before etcd 3.6."
        deprecated "--experimental-distributed-tracing-service-name is deprecated in 3.6 and will be decommissioned in 3.7. Use --distributed-tracing-service-name instead."
        => |o, v| text(&mut o.tracing.service_name, v);
    Tracing Value "distributed-tracing-instance-id" ""
        "This member's id in traces; another on every member."
        => |o, v| text(&mut o.tracing.instance_id, v);
    Tracing Value "experimental-distributed-tracing-instance-id" ""
        "The name of --distributed-tracing-instance-id before etcd 3.6."
        deprecated "--experimental-distributed-tracing-instance-id is deprecated in 3.6 and will be decommissioned in 3.7. Use --distributed-tracing-instance-id instead."
        => |o, v| text(&mut o.tracing.instance_id, v);
    Tracing Value "distributed-tracing-sampling-rate" "0"
        "Of a million requests, the number that is traced."
        => |o, v| signed(&mut o.tracing.sampling_rate_per_million, v);
    Tracing Value "experimental-distributed-tracing-sampling-rate" "0"
        "The name of --distributed-tracing-sampling-rate before etcd 3.6."
        deprecated "--experimental-distributed-tracing-sampling-rate is deprecated in 3.6 and will be decommissioned in 3.7. Use --distributed-tracing-sampling-rate instead."
        => |o, v| signed(&mut o.tracing.sampling_rate_per_million, v);
    Logging Switch "enable-log-rotation" "false"
        "Whether the one file of --log-outputs is begun anew when it is large."
        => |o, v| switch(&mut o.enable_log_rotation, v);
    Logging Value "log-rotation-config-json" "{\"maxsize\": 100, \"maxage\": 0, \"maxbackups\": 0, \"localtime\": false, \"compress\": false}"
        "When a log file is begun anew (maxsize, MB), and how long (maxage, days) and how many (maxbackups) old ones are kept; 0 is no limit."
        => |o, v| text(&mut o.log_rotation_config_json, v);
};
