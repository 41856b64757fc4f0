//! Flags about clients: their connections, HTTP, users, and how slow requests may be.

use super::flags;
use crate::config::flags::value::{
    origins, switch, text, time, unique_list, unsigned, unsigned_32,
};
use crate::config::flags::{Flag, Kind, Section};

pub(super) static FLAGS: &[Flag] = flags! {
    Member Value "grpc-keepalive-min-time" "5s"
        "How often a client may ping; one that pings more often is disconnected."
        => |o, v| time(&mut o.grpc.keepalive_min_time, v);
    Member Value "grpc-keepalive-interval" "2h"
        "How often an idle client is pinged (0 is never)."
        => |o, v| time(&mut o.grpc.keepalive_interval, v);
    Member Value "grpc-keepalive-timeout" "20s"
        "How long a client may take to answer a ping before it is disconnected."
        => |o, v| time(&mut o.grpc.keepalive_timeout, v);
    Member Value "max-concurrent-streams" "4294967295"
        "Number of requests that a client's connection may have open."
        => |o, v| unsigned_32(&mut o.grpc.max_concurrent_streams, v);
    Member Switch "grpc-reflection" "false"
        "Whether clients may ask which gRPC services and messages there are, as grpcurl does."
        => |o, v| switch(&mut o.grpc.is_reflection_enabled, v);
    Member Switch "enable-grpc-gateway" "true"
        "Whether clients may speak JSON over HTTP."
        => |o, v| switch(&mut o.http.is_gateway_enabled, v);
    Security Value "cors" "*"
        "Comma-separated origins from which browsers may ask (* is all)."
        => |o, v| origins(&mut o.http.cors, v);
    Security Value "host-whitelist" "*"
        "Comma-separated host names by which clients may address a listener without TLS (* is all)."
        => |o, v| unique_list(&mut o.http.host_whitelist, v);
    Auth Value "auth-token" "simple"
        "The kind of users' tokens: 'simple', or 'jwt' with its options, as in jwt,pub-key=..,priv-key=..,sign-method=RS512,ttl=10m."
        => |o, v| text(&mut o.auth.token, v);
    Auth Value "auth-token-ttl" "300"
        "Time (in seconds) that a simple token lives without being used."
        => |o, v| unsigned(&mut o.auth.token_ttl_seconds, v);
    Auth Value "bcrypt-cost" "10"
        "How much work the hash of a password is: 4 to 31."
        => |o, v| unsigned(&mut o.auth.bcrypt_cost, v);
    Logging Value "warning-apply-duration" "100ms"
        "Applying a request that takes longer is logged."
        => |o, v| time(&mut o.slow.apply, v);
    Logging Value "experimental-warning-apply-duration" "100ms"
        "The name of --warning-apply-duration before etcd 3.6."
        deprecated "--experimental-warning-apply-duration is deprecated in v3.6 and will be decommissioned in v3.7. Use '--warning-apply-duration' instead."
        => |o, v| time(&mut o.slow.apply, v);
    Logging Value "warning-unary-request-duration" "300ms"
        "A request that takes longer is logged."
        => |o, v| time(&mut o.slow.unary_request, v);
    Logging Value "experimental-warning-unary-request-duration" "300ms"
        "The name of --warning-unary-request-duration before etcd 3.6."
        deprecated "--experimental-warning-unary-request-duration is deprecated, and will be decommissioned in v3.7. Use --warning-unary-request-duration instead."
        => |o, v| time(&mut o.slow.unary_request, v);
};
