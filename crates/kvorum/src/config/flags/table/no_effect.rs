//! Flags that are accepted so that etcd's command lines work, and change nothing here: they are about
//! parts that etcd has and kvorum has not.

use super::flags;
use crate::config::Options;
use crate::config::features::Gate;
use crate::config::flags::value::{ValueError, choice, signed, time, truth, unsigned};
use crate::config::flags::{Flag, Kind, Section};

pub(super) static FLAGS: &[Flag] = flags! {
    NoEffect Switch "initial-election-tick-advance" "true"
        "Elections at the start are fast in any case."
        => boolean;
    NoEffect Value "max-snapshots" "5"
        "The state is not kept in snapshot files."
        deprecated "--max-snapshots is deprecated in 3.6 and will be decommissioned in 3.8."
        => natural;
    NoEffect Value "max-wals" "5"
        "The log is not kept in many files."
        => natural;
    NoEffect Value "backend-bbolt-freelist-type" "map"
        "There is no bbolt."
        => any;
    NoEffect Value "backend-batch-interval" "0s"
        "The state is written behind the log in batches of its own."
        => duration;
    NoEffect Value "backend-batch-limit" "0"
        "The state is written behind the log in batches of its own."
        => integer;
    NoEffect Value "bootstrap-defrag-threshold-megabytes" "0"
        "There is nothing to defragment at the start."
        => natural;
    NoEffect Value "experimental-bootstrap-defrag-threshold-megabytes" "0"
        "There is nothing to defragment at the start."
        deprecated "--experimental-bootstrap-defrag-threshold-megabytes is deprecated in v3.6 and will be decommissioned in v3.7. Use '--bootstrap-defrag-threshold-megabytes' instead."
        => natural;
    NoEffect Value "v2-deprecation" "write-only"
        "There is no v2 store."
        deprecated "--v2-deprecation is deprecated and scheduled for removal in v3.8. The default value is enforced, ignoring user input."
        => |_, v| choice(&["not-yet", "write-only", "write-only-drop-data", "gone"], v);
    NoEffect Switch "unsafe-no-fsync" "false"
        "Whatever is acknowledged is on the disk, always."
        => boolean;
    NoEffect Value "experimental-enable-v2v3" ""
        "There is no v2 API."
        deprecated "--experimental-enable-v2v3 is deprecated in 3.5 and will be decommissioned in 3.6."
        => any;
    NoEffect Switch "enable-v2" "false"
        "There is no v2 API."
        deprecated "--enable-v2 is deprecated in 3.5 and will be decommissioned in 3.6."
        => boolean;
    NoEffect Value "proxy" "off"
        "There is no v2 proxy."
        deprecated "--proxy is deprecated in 3.5 and will be decommissioned in 3.6."
        => |_, v| choice(&["off"], v);
    NoEffect Value "proxy-dial-timeout" "1000"
        "There is no v2 proxy."
        deprecated "--proxy-dial-timeout is deprecated in 3.5 and will be decommissioned in 3.6."
        => natural;
    NoEffect Value "proxy-failure-wait" "5000"
        "There is no v2 proxy."
        deprecated "--proxy-failure-wait is deprecated in 3.5 and will be decommissioned in 3.6."
        => natural;
    NoEffect Value "proxy-read-timeout" "0"
        "There is no v2 proxy."
        deprecated "--proxy-read-timeout is deprecated in 3.5 and will be decommissioned in 3.6."
        => natural;
    NoEffect Value "proxy-refresh-interval" "30000"
        "There is no v2 proxy."
        deprecated "--proxy-refresh-interval is deprecated in 3.5 and will be decommissioned in 3.6."
        => natural;
    NoEffect Value "proxy-write-timeout" "5000"
        "There is no v2 proxy."
        deprecated "--proxy-write-timeout is deprecated in 3.5 and will be decommissioned in 3.6."
        => natural;
    NoEffect Switch "experimental-initial-corrupt-check" "false"
        "The name of --feature-gates=InitialCorruptCheck=true before etcd 3.6."
        => |o, v| gate(o, Gate::InitialCorruptCheck, v);
    NoEffect Switch "experimental-compact-hash-check-enabled" "false"
        "The name of --feature-gates=CompactHashCheck=true before etcd 3.6."
        deprecated "--experimental-compact-hash-check-enabled is deprecated in 3.6 and will be decommissioned in 3.7. Use '--feature-gates=CompactHashCheck=true' instead."
        => |o, v| gate(o, Gate::CompactHashCheck, v);
    NoEffect Switch "experimental-txn-mode-write-with-shared-buffer" "true"
        "The name of --feature-gates=TxnModeWriteWithSharedBuffer=true before etcd 3.6."
        deprecated "--experimental-txn-mode-write-with-shared-buffer is deprecated in v3.6 and will be decommissioned in v3.7. Use '--feature-gates=TxnModeWriteWithSharedBuffer=true' instead."
        => |o, v| gate(o, Gate::TxnModeWriteWithSharedBuffer, v);
    NoEffect Switch "experimental-stop-grpc-service-on-defrag" "false"
        "The name of --feature-gates=StopGRPCServiceOnDefrag=true before etcd 3.6."
        => |o, v| gate(o, Gate::StopGRPCServiceOnDefrag, v);
    NoEffect Switch "experimental-enable-lease-checkpoint" "false"
        "The name of --feature-gates=LeaseCheckpoint=true before etcd 3.6."
        => |o, v| gate(o, Gate::LeaseCheckpoint, v);
    NoEffect Switch "experimental-enable-lease-checkpoint-persist" "false"
        "The name of --feature-gates=LeaseCheckpointPersist=true before etcd 3.6."
        => |o, v| gate(o, Gate::LeaseCheckpointPersist, v);
    NoEffect Legacy "cluster-active-size" "" "" => any;
    NoEffect Legacy "cluster-remove-delay" "" "" => any;
    NoEffect Legacy "cluster-sync-interval" "" "" => any;
    NoEffect Legacy "config" "" "" => any;
    NoEffect Legacy "force" "" "" => any;
    NoEffect Legacy "max-result-buffer" "" "" => any;
    NoEffect Legacy "max-retry-attempts" "" "" => any;
    NoEffect Legacy "peer-heartbeat-interval" "" "" => any;
    NoEffect Legacy "peer-election-timeout" "" "" => any;
    NoEffect Legacy "retry-interval" "" "" => any;
    NoEffect Legacy "snapshot" "" "" => any;
    NoEffect Legacy "test.coverprofile" "" "" => any;
    NoEffect Legacy "test.outputdir" "" "" => any;
    NoEffect Legacy "v" "" "" => any;
    NoEffect Legacy "vv" "" "" => any;
};

fn any(_options: &mut Options, _value: &str) -> Result<(), ValueError> {
    Ok(())
}

fn boolean(_options: &mut Options, value: &str) -> Result<(), ValueError> {
    truth(value).map(drop)
}

fn natural(_options: &mut Options, value: &str) -> Result<(), ValueError> {
    unsigned(&mut 0, value)
}

fn integer(_options: &mut Options, value: &str) -> Result<(), ValueError> {
    signed(&mut 0, value)
}

fn duration(_options: &mut Options, value: &str) -> Result<(), ValueError> {
    let mut unused = std::time::Duration::ZERO;
    time(&mut unused, value)
}

fn gate(options: &mut Options, gate: Gate, value: &str) -> Result<(), ValueError> {
    options.feature_gates.set_one(gate, truth(value)?);
    Ok(())
}
