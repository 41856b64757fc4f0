//! Flags about how a member that begins a cluster finds the others.

use super::flags;
use crate::config::flags::value::{choice, switch, text, time, unique_list};
use crate::config::flags::{Flag, Kind, Section};

pub(super) static FLAGS: &[Flag] = flags! {
    Discovery Value "discovery-srv" ""
        "The DNS domain whose SRV records name the members that begin the cluster."
        => |o, v| text(&mut o.discovery.srv, v);
    Discovery Value "discovery-srv-name" ""
        "What the service's name in DNS ends with: etcd-server-ssl-<name>."
        => |o, v| text(&mut o.discovery.srv_name, v);
    Discovery Value "discovery-token" ""
        "The cluster's name at the service that --discovery-endpoints names."
        => |o, v| text(&mut o.discovery.token, v);
    Discovery Value "discovery-endpoints" ""
        "Comma-separated endpoints of an etcd cluster at which the members that begin this one find each other."
        => |o, v| unique_list(&mut o.discovery.endpoints, v);
    Discovery Value "discovery-dial-timeout" "2s"
        "How long connecting to it may take."
        => |o, v| time(&mut o.discovery.dial_timeout, v);
    Discovery Value "discovery-request-timeout" "5s"
        "How long it may take to answer."
        => |o, v| time(&mut o.discovery.request_timeout, v);
    Discovery Value "discovery-keepalive-time" "2s"
        "How often its connection is pinged."
        => |o, v| time(&mut o.discovery.keepalive_time, v);
    Discovery Value "discovery-keepalive-timeout" "6s"
        "How long it may take to answer a ping."
        => |o, v| time(&mut o.discovery.keepalive_timeout, v);
    Discovery Switch "discovery-insecure-transport" "true"
        "Whether it is asked without TLS."
        => |o, v| switch(&mut o.discovery.is_insecure_transport, v);
    Discovery Switch "discovery-insecure-skip-tls-verify" "false"
        "Whether anybody's certificate will do (for tests only)."
        => |o, v| switch(&mut o.discovery.is_insecure_skip_tls_verify, v);
    Discovery Value "discovery-cert" ""
        "Path to the certificate shown to it."
        => |o, v| text(&mut o.discovery.cert_file, v);
    Discovery Value "discovery-key" ""
        "Path to its key."
        => |o, v| text(&mut o.discovery.key_file, v);
    Discovery Value "discovery-cacert" ""
        "Path to the authorities of its certificate."
        => |o, v| text(&mut o.discovery.cacert_file, v);
    Discovery Value "discovery-user" ""
        "Its user, as name or name:password."
        => |o, v| text(&mut o.discovery.user, v);
    Discovery Value "discovery-password" ""
        "The user's password."
        => |o, v| text(&mut o.discovery.password, v);
    Discovery Value "discovery-fallback" "exit"
        "What to do when discovery fails: only 'exit'."
        => |o, v| { choice(&["exit", "proxy"], v)?; text(&mut o.discovery.fallback, v) };
    Discovery Value "discovery" ""
        "The url of etcd's old discovery service."
        => |o, v| text(&mut o.discovery.url, v);
    Discovery Value "discovery-proxy" ""
        "An HTTP proxy to it."
        => |o, v| text(&mut o.discovery.proxy, v);
};
