//! `/debug/vars`, and what of `/debug/pprof/` has a meaning here.
//!
//! What this is not: Go's profiler. A process of another runtime has no goroutines to show; its command
//! line it has.

use http::Response;

use super::{Body, HTML, JSON_UTF8, respond, text};

/// Go's `expvar`: the variables that etcd publishes and a few of `memstats`.
pub(super) fn vars(raft: &raft::Status, member: types::MemberId) -> Response<Body> {
    let string = |value: &str| serde_json::Value::from(value).to_string();
    let cmdline: Vec<String> = std::env::args().collect();
    let cmdline = serde_json::Value::from(cmdline).to_string();
    let limit = rlimit_nofile();
    let sys = resident_bytes();
    let leader = raft.leader.map_or(0, |leader| leader.0);
    let state = if raft.leader == Some(member) {
        "StateLeader"
    } else {
        "StateFollower"
    };
    let raft = format!(
        "{{\"id\":{},\"term\":{},\"lead\":{},\"raftState\":{}}}",
        string(&format!("{member}")),
        raft.term,
        string(&format!("{leader:x}")),
        string(state),
    );
    let body = format!(
        "{{\n\"cmdline\": {cmdline},\n\"file_descriptor_limit\": {limit},\n\"memstats\": \
         {{\"Alloc\":{sys},\"Sys\":{sys}}},\n\"raft.status\": {raft}\n}}\n"
    );
    respond(http::StatusCode::OK, JSON_UTF8, body)
}

/// What is under `/debug/pprof/`, if there is something at this path.
pub(super) fn pprof(path: &str) -> Option<Response<Body>> {
    match path.strip_prefix("/debug/pprof/")? {
        "" => {
            let body = "<html><head><title>/debug/pprof/</title></head><body>\n\
                        <a href=\"cmdline\">cmdline</a>\n</body></html>\n";
            Some(respond(http::StatusCode::OK, HTML, body))
        }
        "cmdline" => {
            let arguments: Vec<String> = std::env::args().collect();
            Some(text(arguments.join("\0")))
        }
        _ => None,
    }
}

fn rlimit_nofile() -> u64 {
    let limits = std::fs::read_to_string("/proc/self/limits").unwrap_or_default();
    let line = limits
        .lines()
        .find(|line| line.starts_with("Max open files"));
    let soft = line.and_then(|line| line.split_whitespace().nth(3));
    soft.and_then(|soft| soft.parse().ok()).unwrap_or_default()
}

fn resident_bytes() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find(|line| line.starts_with("VmRSS:"));
    let kib = line.and_then(|line| line.split_whitespace().nth(1));
    let kib: Option<u64> = kib.and_then(|kib| kib.parse().ok());
    kib.unwrap_or_default() * 1024
}
