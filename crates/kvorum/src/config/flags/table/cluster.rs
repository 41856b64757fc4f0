//! Flags about the cluster: who begins it, how it elects and changes.

use super::flags;
use crate::config::flags::value::{cluster_state, switch, text, unsigned, urls};
use crate::config::flags::{Flag, Kind, Section};

pub(super) static FLAGS: &[Flag] = flags! {
    Clustering Value "initial-advertise-peer-urls" "http://localhost:2380"
        "Comma-separated urls at which peers reach this member."
        => |o, v| urls(&mut o.initial_advertise_peer_urls, v);
    Clustering Value "initial-cluster" "${name}=${initial-advertise-peer-urls}"
        "The members that begin the cluster, as name=url,name=url. Of no effect once there is data."
        => |o, v| { o.initial_cluster = Some(v.to_owned()); Ok(()) };
    Clustering Value "initial-cluster-state" "new"
        "'new' to begin a cluster, 'existing' to join one. Of no effect once there is data."
        => |o, v| cluster_state(&mut o.initial_cluster_state, v);
    Clustering Value "initial-cluster-token" "etcd-cluster"
        "Keeps clusters apart that begin with the same urls: their ids differ."
        => |o, v| text(&mut o.initial_cluster_token, v);
    Clustering Value "advertise-client-urls" "http://localhost:2379"
        "Comma-separated urls at which clients reach this member. Required when --listen-client-urls is given."
        => |o, v| urls(&mut o.advertise_client_urls, v);
    Clustering Switch "strict-reconfig-check" "true"
        "Whether changes of the members that could cost the quorum are refused."
        => |o, v| switch(&mut o.strict_reconfig_check, v);
    Clustering Switch "pre-vote" "true"
        "Whether a member asks if it could be elected before it stands for election, so that one that returns from a partition disturbs nobody."
        => |o, v| switch(&mut o.pre_vote, v);
    Clustering Value "max-learners" "1"
        "Number of learners that the cluster may have at a time."
        => |o, v| unsigned(&mut o.max_learners, v);
    Clustering Value "experimental-max-learners" "1"
        "The name of --max-learners before etcd 3.6."
        => |o, v| unsigned(&mut o.max_learners, v);
    Clustering Value "auto-compaction-mode" "periodic"
        "What --auto-compaction-retention counts: 'periodic' a time, 'revision' a number of revisions."
        => |o, v| text(&mut o.auto_compaction_mode, v);
    Clustering Value "auto-compaction-retention" "0"
        "How much history is kept; a time without a unit is in hours. 0 keeps all."
        => |o, v| text(&mut o.auto_compaction_retention, v);
    Unsafe Switch "force-new-cluster" "false"
        "Whether this member, with the data it has, becomes the only one of its cluster. The others must never start again with theirs."
        => |o, v| switch(&mut o.force_new_cluster, v);
};
