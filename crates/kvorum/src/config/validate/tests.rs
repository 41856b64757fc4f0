//! The texts are compared with etcd 3.5.30's.

use super::super::flags::{Action, parse};
use super::*;

fn validate(arguments: &[&str]) -> Result<Config, Vec<String>> {
    let Action::Run { options, .. } = parse(arguments).unwrap() else {
        panic!("no options in {arguments:?}");
    };
    options
        .validate()
        .map_err(|error| error.problems.iter().map(ToString::to_string).collect())
}

fn one_problem(arguments: &[&str]) -> String {
    let problems = validate(arguments).unwrap_err();
    assert_eq!(problems.len(), 1, "{problems:?}");
    problems.into_iter().next().unwrap()
}

#[test]
fn nothing_given_is_etcds_defaults() {
    let config = validate(&[]).unwrap();
    assert_eq!(config.name, "default");
    assert_eq!(config.data_dir, PathBuf::from("default.etcd"));
    assert_eq!(join(&config.listen_client_urls), "http://localhost:2379");
    assert_eq!(join(&config.advertise_client_urls), "http://localhost:2379");
    assert_eq!(
        config.initial_cluster.to_string(),
        "default=http://localhost:2380"
    );
    assert_eq!(
        config.initial_cluster.cluster_id().to_string(),
        "cdf818194e3a8c32"
    );
    assert_eq!(config.quota, apply::Quota::Bytes(2 << 30));
    assert_eq!(config.auto_compaction, AutoCompaction::Off);
    assert_eq!(config.log.outputs, [LogOutput::Stderr]);
    assert!(config.client_tls.is_none());
}

#[test]
fn the_initial_cluster_and_the_data_directory_follow_the_name() {
    let config = validate(&[
        "--name=a",
        "--initial-advertise-peer-urls=http://10.0.0.1:2380",
    ])
    .unwrap();
    assert_eq!(config.initial_cluster.to_string(), "a=http://10.0.0.1:2380");
    assert_eq!(config.data_dir, PathBuf::from("a.etcd"));
}

#[test]
fn single_problems_are_told_in_etcds_words() {
    let listen = "--listen-client-urls=http://127.0.0.1:1";
    let cases: [(&[&str], &str); 13] = [
        (
            &[listen],
            "--advertise-client-urls is required when --listen-client-urls is set explicitly",
        ),
        (
            &[
                "--listen-client-urls=http://foo:1",
                "--advertise-client-urls=http://foo:1",
            ],
            "expected IP in URL for binding (http://foo:1)",
        ),
        (
            &[listen, "--advertise-client-urls=http://:42379"],
            "--advertise-client-urls \"http://:42379\" must be \"host:port\" \
             (unexpected empty host (http://:42379))",
        ),
        (
            &["--initial-advertise-peer-urls=http://:42380"],
            "--initial-advertise-peer-urls \"http://:42380\" must be \"host:port\" \
             (unexpected empty host (http://:42380))",
        ),
        (
            &["--heartbeat-interval=0"],
            "--heartbeat-interval must be >0 (set to 0ms)",
        ),
        (
            &["--election-timeout=200"],
            "--election-timeout[200ms] should be at least as 5 times as --heartbeat-interval[100ms]",
        ),
        (
            &["--election-timeout=60000"],
            "--election-timeout[60000ms] is too long, and should be set less than 50000ms",
        ),
        (
            &["--auto-compaction-mode=foo"],
            "unknown auto-compaction-mode \"foo\"",
        ),
        (
            &["--auto-compaction-retention=foo"],
            "error parsing CompactionRetention: time: invalid duration \"foo\"",
        ),
        (
            &["--initial-cluster=abc"],
            "error setting up initial cluster: URL scheme must be http, https, unix, or unixs: ",
        ),
        (
            &[
                "--listen-client-urls=https://127.0.0.1:1",
                "--advertise-client-urls=https://a:1",
            ],
            "TLS key/cert (--cert-file, --key-file) must be provided for client url \
             https://127.0.0.1:1 with HTTPS scheme",
        ),
        (
            &["--listen-metrics-urls=https://127.0.0.1:1"],
            "client TLS key/cert (--cert-file, --key-file) must be provided for metrics secure url",
        ),
        (
            &["--log-level=foo"],
            "--log-level: unrecognized level: \"foo\"",
        ),
    ];
    for (arguments, text) in cases {
        assert_eq!(one_problem(arguments), text);
    }
}

#[test]
fn all_problems_are_told_at_once() {
    let problems = validate(&[
        "--listen-client-urls=http://foo:1",
        "--heartbeat-interval=0",
        "--log-format=xml",
        "--auto-compaction-mode=foo",
    ])
    .unwrap_err();
    assert_eq!(problems.len(), 5, "{problems:?}");
}

#[test]
fn retention_is_hours_revisions_or_a_time() {
    let retention = |mode: &str, retention: &str| {
        let mode = format!("--auto-compaction-mode={mode}");
        let retention = format!("--auto-compaction-retention={retention}");
        validate(&[&mode, &retention]).unwrap().auto_compaction
    };
    let hours = |hours: u64| AutoCompaction::Periodic(Duration::from_secs(hours * 3600));
    assert_eq!(retention("periodic", "2"), hours(2));
    assert_eq!(retention("periodic", "1h"), hours(1));
    assert_eq!(
        retention("revision", "1000"),
        AutoCompaction::Revision(1000)
    );
    assert_eq!(retention("revision", "0"), AutoCompaction::Off);
}

#[test]
fn a_trusted_authority_means_that_clients_show_certificates() {
    let tls = |more: &[&str]| {
        let mut arguments = vec![
            "--listen-client-urls=https://127.0.0.1:1",
            "--advertise-client-urls=https://a:1",
            "--cert-file=c",
            "--key-file=k",
        ];
        arguments.extend(more);
        validate(&arguments).map(|config| config.client_tls.unwrap().client_auth)
    };
    let required = ClientAuth::Required {
        trusted_ca_file: PathBuf::from("ca"),
    };
    assert_eq!(tls(&[]), Ok(ClientAuth::None));
    assert_eq!(tls(&["--trusted-ca-file=ca"]), Ok(required.clone()));
    assert_eq!(
        tls(&["--trusted-ca-file=ca", "--client-cert-auth"]),
        Ok(required)
    );
    assert!(tls(&["--client-cert-auth"]).is_err());
}

#[test]
fn a_negative_quota_is_none() {
    let quota = |bytes: i64| {
        validate(&[&format!("--quota-backend-bytes={bytes}")])
            .unwrap()
            .quota
    };
    assert_eq!(quota(-1), apply::Quota::Unlimited);
    assert_eq!(quota(7), apply::Quota::Bytes(7));
}
