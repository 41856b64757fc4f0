//! Metrics as etcd's alerts and dashboards want them: the same names, types, labels and buckets as a
//! real etcd's after the same requests.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Result, ensure};
use api::etcdserverpb::{DeleteRangeRequest, LeaseGrantRequest, PutRequest, RangeRequest};
use testkit::{Server, Spec, eventually, http};

/// The expressions of the alerts that etcd publishes, and what its dashboards show.
const EXPRESSIONS: &[&str] = &[
    r#"sum(rate(etcd_server_leader_changes_seen_total{job=~".*etcd.*"}[15m]))"#,
    r#"etcd_server_has_leader{job=~".*etcd.*"} == 0"#,
    r#"rate(grpc_server_handled_total{grpc_code=~"Unknown|FailedPrecondition"}[5m])"#,
    r#"histogram_quantile(0.99, sum(rate(grpc_server_handling_seconds_bucket{grpc_method!="Defragment",grpc_type="unary"}[5m])) without(grpc_type))"#,
    r#"rate(etcd_server_proposals_failed_total{job=~".*etcd.*"}[15m]) > 5"#,
    r#"histogram_quantile(0.99, rate(etcd_disk_wal_fsync_duration_seconds_bucket[5m])) > 0.5"#,
    r#"histogram_quantile(0.99, rate(etcd_disk_backend_commit_duration_seconds_bucket[5m])) > 0.25"#,
    r#"(last_over_time(etcd_mvcc_db_total_size_in_bytes[5m]) / last_over_time(etcd_server_quota_backend_bytes[5m])) * 100 > 95"#,
    r#"(last_over_time(etcd_mvcc_db_total_size_in_use_in_bytes[5m]) / last_over_time(etcd_mvcc_db_total_size_in_bytes[5m])) < 0.5"#,
    r#"sum(grpc_server_started_total{grpc_service="etcdserverpb.Watch",grpc_type="bidi_stream"})"#,
    r#"rate(etcd_network_client_grpc_received_bytes_total[5m]) + rate(etcd_network_client_grpc_sent_bytes_total[5m])"#,
    r#"rate(etcd_server_proposals_applied_total[5m]) - rate(etcd_server_proposals_committed_total[5m])"#,
    r#"sum(etcd_server_proposals_pending) + process_resident_memory_bytes"#,
    r#"rate(etcd_server_client_requests_total[5m]) + etcd_server_is_leader"#,
];

/// What a real etcd shows and this one does not, by the beginnings of the names.
const LEFT_OUT: &[&str] = &[
    // Go's runtime, its library for metrics, and the second version of etcd's API.
    "go_",
    "promhttp_",
    "etcd_server_go_version",
    "etcd_debugging_store_",
    // No part of a member.
    "etcd_grpc_proxy_",
    // bbolt's pages and transactions; the state here is in memory and is written behind.
    "etcd_debugging_disk_backend_commit_",
    "etcd_mvcc_db_open_read_transactions",
    // Files of snapshots that etcd writes for itself.
    "etcd_snap_",
    "etcd_debugging_snap_",
    // Removed in 3.6; the real one here is 3.5.
    "etcd_debugging_mvcc_range_total",
    // Events do not wait for a watcher anywhere: it reads them from the one log when its client can take them.
    "etcd_debugging_mvcc_pending_events_total",
];

type Labels = BTreeMap<String, String>;

/// One scrape: types by family, and samples by name.
#[derive(Default)]
struct Scrape {
    types: BTreeMap<String, String>,
    samples: BTreeMap<String, Vec<(Labels, f64)>>,
}

impl Scrape {
    async fn of(server: &Server) -> Result<Self> {
        let answer = http::get(server.client_port(), "/metrics").await?;
        ensure!(answer.status == 200, "{}", answer.status);
        let mut scrape = Self::default();
        for line in answer.body.lines() {
            if let Some(rest) = line.strip_prefix("# TYPE ") {
                let (name, kind) = rest.split_once(' ').unwrap_or((rest, ""));
                scrape.types.insert(name.to_owned(), kind.to_owned());
            } else if !line.starts_with('#') {
                let (name, labels, value) = sample(line)?;
                scrape
                    .samples
                    .entry(name)
                    .or_default()
                    .push((labels, value));
            }
        }
        Ok(scrape)
    }

    fn label_names(&self, name: &str) -> BTreeSet<Vec<&str>> {
        let samples = self.samples.get(name).into_iter().flatten();
        samples
            .map(|(labels, _)| labels.keys().map(String::as_str).collect())
            .collect()
    }

    fn bounds(&self, name: &str) -> BTreeSet<String> {
        let samples = self.samples.get(name).into_iter().flatten();
        samples
            .filter_map(|(labels, _)| labels.get("le")?.parse::<f64>().ok())
            .map(|bound| format!("{bound:.6}"))
            .collect()
    }

    fn value(&self, name: &str) -> Option<f64> {
        Some(self.samples.get(name)?.first()?.1)
    }
}

fn sample(line: &str) -> Result<(String, Labels, f64)> {
    let (head, value) = line.rsplit_once(' ').unwrap_or((line, ""));
    let (name, rest) = head.split_once('{').unwrap_or((head, ""));
    let pairs = rest.trim_end_matches('}').split("\",");
    let labels = pairs.filter_map(|pair| {
        let (name, value) = pair.split_once("=\"")?;
        Some((name.to_owned(), value.trim_end_matches('"').to_owned()))
    });
    Ok((name.to_owned(), labels.collect(), value.parse()?))
}

/// The metrics that an expression names.
fn metrics_of(expression: &str) -> impl Iterator<Item = &str> {
    let words = expression.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
    words.filter(|word| {
        let starts = ["etcd_", "process_", "grpc_server_"];
        starts.iter().any(|start| word.starts_with(start))
    })
}

async fn loaded(spec: Spec) -> Result<(Server, Scrape)> {
    let server = spec.arg("--metrics=extensive").start().await?;
    let mut client = server.client().await?;
    let key = || b"key".to_vec();
    let put = PutRequest {
        key: key(),
        value: b"value".to_vec(),
        ..Default::default()
    };
    client.kv.put(put).await?;
    let range = RangeRequest {
        key: key(),
        ..Default::default()
    };
    client.kv.range(range).await?;
    let delete = DeleteRangeRequest {
        key: key(),
        ..Default::default()
    };
    client.kv.delete_range(delete).await?;
    let grant = LeaseGrantRequest {
        ttl: 100,
        ..Default::default()
    };
    client.lease.lease_grant(grant).await?;
    // The leader decides on the cluster's version when it has looked at its members.
    let scrape = eventually("the cluster has a version", || async {
        let scrape = Scrape::of(&server).await?;
        let is_decided = scrape.types.contains_key("etcd_cluster_version");
        ensure!(is_decided, "etcd_cluster_version is not there");
        Ok(scrape)
    })
    .await?;
    Ok((server, scrape))
}

#[tokio::test(flavor = "multi_thread")]
async fn alerts_and_dashboards_find_what_they_look_at() -> Result<()> {
    let (server, scrape) = loaded(Spec::kvorum()).await?;
    for expression in EXPRESSIONS {
        for metric in metrics_of(expression) {
            let is_there = scrape.samples.contains_key(metric);
            ensure!(is_there, "{metric} of {expression} is not there");
        }
    }
    for counted in [
        "etcd_disk_wal_fsync_duration_seconds_count",
        "etcd_disk_wal_write_duration_seconds_count",
        "etcd_server_has_leader",
        "etcd_server_apply_duration_seconds_count",
    ] {
        ensure!(scrape.value(counted) > Some(0.0), "{counted} is 0");
    }
    server.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn metrics_have_etcds_names_types_labels_and_buckets() -> Result<()> {
    let (etcd, theirs) = loaded(Spec::etcd()).await?;
    let (kvorum, ours) = loaded(Spec::kvorum()).await?;
    let is_left_out = |name: &str| LEFT_OUT.iter().any(|start| name.starts_with(start));
    let mut wrong = Vec::new();
    for (name, kind) in theirs.types.iter().filter(|(name, _)| !is_left_out(name)) {
        match ours.types.get(name) {
            Some(ours) if ours == kind => {}
            other => wrong.push(format!("{name}: {kind} is {other:?}")),
        }
    }
    for name in theirs.samples.keys().filter(|name| !is_left_out(name)) {
        let (expected, found) = (theirs.label_names(name), ours.label_names(name));
        if expected != found {
            wrong.push(format!("{name}: {expected:?} is {found:?}"));
        }
        let (expected, found) = (theirs.bounds(name), ours.bounds(name));
        if expected != found {
            wrong.push(format!("{name}: {expected:?} is {found:?}"));
        }
    }
    for name in [
        "etcd_mvcc_put_total",
        "etcd_mvcc_delete_total",
        "etcd_mvcc_txn_total",
        "etcd_debugging_lease_granted_total",
        "etcd_debugging_mvcc_total_put_size_in_bytes",
        "etcd_debugging_mvcc_keys_total",
    ] {
        let (expected, found) = (theirs.value(name), ours.value(name));
        if expected != found {
            wrong.push(format!("{name}: {expected:?} is {found:?}"));
        }
    }
    ensure!(wrong.is_empty(), "{}", wrong.join("\n"));
    etcd.stop().await?;
    kvorum.stop().await
}
