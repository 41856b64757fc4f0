//! The texts are compared with etcd 3.5.30's.

use super::super::flags::{Action, parse};
use transport::{ClientAuth, ClientVerification, TlsConfig, TlsVersion};

use super::*;
use crate::config::LogOutput;
use crate::config::{ClientTls, PeerTls};

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

const PEER_TLS: [&str; 5] = [
    "--listen-peer-urls=https://10.0.0.1:2380",
    "--initial-advertise-peer-urls=https://10.0.0.1:2380",
    "--peer-cert-file=pc",
    "--peer-key-file=pk",
    "--peer-trusted-ca-file=pca",
];

fn with<'a>(arguments: &[&'a str], more: &[&'a str]) -> Vec<&'a str> {
    [arguments, more].concat()
}

fn required(tls: &TlsConfig) -> &ClientVerification {
    match &tls.client_auth {
        ClientAuth::Required(verification) => verification,
        ClientAuth::None => panic!("nobody is asked"),
    }
}

#[test]
fn a_trusted_authority_means_that_clients_show_certificates() {
    let tls = |more: &[&str]| {
        let arguments = [
            "--listen-client-urls=https://127.0.0.1:1",
            "--advertise-client-urls=https://a:1",
            "--cert-file=c",
            "--key-file=k",
        ];
        let config = validate(&with(&arguments, more))?;
        match config.client_tls.unwrap() {
            ClientTls::Files(tls) => Ok::<_, Vec<String>>(tls),
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(tls(&[]).unwrap().client_auth, ClientAuth::None);
    for more in [
        &["--trusted-ca-file=ca"][..],
        &["--trusted-ca-file=ca", "--client-cert-auth"],
    ] {
        let tls = tls(more).unwrap();
        assert_eq!(required(&tls).trusted_ca_file, PathBuf::from("ca"));
        assert!(!required(&tls).verify_san);
    }
    assert!(tls(&["--client-cert-auth"]).is_err());
    let tls = tls(&[
        "--trusted-ca-file=ca",
        "--client-crl-file=crl",
        "--client-cert-allowed-hostname=a.b,c.d",
    ])
    .unwrap();
    assert_eq!(required(&tls).crl_file, Some(PathBuf::from("crl")));
    assert_eq!(required(&tls).allowed_hostnames, ["a.b", "c.d"]);
}

#[test]
fn peers_have_certificates_of_their_own() {
    let tls = |more: &[&str]| match validate(&with(&PEER_TLS, more)).unwrap().peer_tls {
        Some(PeerTls::Files(files)) => (files.server, files.client),
        other => panic!("{other:?}"),
    };
    let (server, client) = tls(&["--peer-client-cert-auth", "--peer-cert-allowed-cn=a,b"]);
    assert_eq!(required(&server).trusted_ca_file, PathBuf::from("pca"));
    assert_eq!(required(&server).allowed_common_names, ["a", "b"]);
    assert!(required(&server).verify_san);
    assert_eq!(client.cert_file, PathBuf::from("pc"));
    assert_eq!(client.trusted_ca_file, Some(PathBuf::from("pca")));
    let (server, client) = tls(&[
        "--experimental-peer-skip-client-san-verification",
        "--peer-crl-file=crl",
        "--peer-client-cert-file=cc",
        "--peer-client-key-file=ck",
        "--tls-min-version=TLS1.3",
    ]);
    assert!(!required(&server).verify_san);
    assert_eq!(required(&server).crl_file, Some(PathBuf::from("crl")));
    assert_eq!(server.cert_file, PathBuf::from("pc"));
    assert_eq!(client.cert_file, PathBuf::from("cc"));
    assert_eq!(client.parameters.min_version, Some(TlsVersion::Tls13));
}

#[test]
fn certificates_are_made_where_none_are_given() {
    let config = validate(&[
        "--data-dir=/d",
        "--listen-client-urls=https://127.0.0.1:1",
        "--advertise-client-urls=https://127.0.0.1:1",
        "--auto-tls",
        "--listen-peer-urls=https://10.0.0.1:2380",
        "--peer-auto-tls",
        "--self-signed-cert-validity=3",
    ])
    .unwrap();
    let Some(ClientTls::Auto(client)) = config.client_tls else {
        panic!("{:?}", config.client_tls);
    };
    assert_eq!(client.directory, PathBuf::from("/d/fixtures/client"));
    assert_eq!(
        (&client.hosts[..], client.validity_years),
        (&["127.0.0.1".to_owned()][..], 3)
    );
    let Some(PeerTls::Auto(peer)) = config.peer_tls else {
        panic!("{:?}", config.peer_tls);
    };
    assert_eq!(peer.directory, PathBuf::from("/d/fixtures/peer"));
    let given = validate(&with(&PEER_TLS, &["--peer-auto-tls"])).unwrap();
    let ignored = Warning::AutoTlsIgnored { whose: "peer" };
    assert!(given.warnings.contains(&ignored), "{:?}", given.warnings);
}

#[test]
fn wrong_tls_flags_are_told_in_etcds_words() {
    let cases: [(Vec<&str>, &str); 9] = [
        (
            vec!["--listen-peer-urls=https://127.0.0.1:42380"],
            "cannot listen on TLS for 127.0.0.1:42380: KeyFile and CertFile are not presented \
             (--peer-cert-file, --peer-key-file)",
        ),
        (
            vec!["--peer-cert-file=x"],
            "KeyFile and CertFile must both be present[key: , cert: x]",
        ),
        (
            with(&PEER_TLS, &["--peer-client-key-file=x"]),
            "ClientKeyFile and ClientCertFile must both be present or both absent: key: x, cert: ]",
        ),
        (
            with(
                &PEER_TLS,
                &[
                    "--peer-cert-allowed-cn=a,b",
                    "--peer-cert-allowed-hostname=c",
                ],
            ),
            "AllowedCNs and AllowedHostnames are mutually exclusive (cns=[\"a\" \"b\"], \
             hostnames=[\"c\"])",
        ),
        (
            vec!["--tls-min-version=TLS1.4"],
            "unexpected TLS version \"TLS1.4\" (must be one of: TLS1.2, TLS1.3)",
        ),
        (
            vec!["--tls-min-version=TLS1.3", "--tls-max-version=TLS1.2"],
            "min version (TLS1.3) is greater than max version (TLS1.2)",
        ),
        (
            vec![
                "--watch-progress-notify-interval=1s",
                "--experimental-watch-progress-notify-interval=1s",
            ],
            "cannot set --experimental-watch-progress-notify-interval and \
             --watch-progress-notify-interval at the same time, please use \
             --watch-progress-notify-interval only",
        ),
        (
            vec![
                "--experimental-initial-corrupt-check",
                "--feature-gates=InitialCorruptCheck=true",
            ],
            "cannot specify both flags: --experimental-initial-corrupt-check=true and \
             --feature-gates=InitialCorruptCheck=true at the same time, please just use \
             --feature-gates=InitialCorruptCheck=true",
        ),
        (
            vec!["--feature-gates=LeaseCheckpointPersist=true"],
            "enabling feature gate LeaseCheckpointPersist requires enabling feature gate \
             LeaseCheckpoint",
        ),
    ];
    for (arguments, text) in cases {
        assert_eq!(one_problem(&arguments), text);
    }
}

#[test]
fn http_has_its_own_urls() {
    let listen = "--listen-client-urls=http://127.0.0.1:1";
    let advertise = "--advertise-client-urls=http://127.0.0.1:1";
    let config = validate(&[
        listen,
        advertise,
        "--listen-client-http-urls=http://127.0.0.1:2",
    ]);
    assert_eq!(
        join(&config.unwrap().listen_client_http_urls),
        "http://127.0.0.1:2"
    );
    assert_eq!(
        one_problem(&[
            listen,
            advertise,
            "--listen-client-http-urls=http://127.0.0.1:1"
        ]),
        "cannot bind both --listen-client-urls and --listen-client-http-urls on the same url \
         http://127.0.0.1:1"
    );
}

#[test]
fn peers_can_be_dialled_from_the_advertised_address() {
    let address = |urls: &str| {
        let urls = format!("--initial-advertise-peer-urls={urls}");
        let config = validate(&["--name=a", "--feature-gates=SetMemberLocalAddr=true", &urls]);
        let config = config.unwrap();
        (config.local_address, config.warnings)
    };
    let (found, _) = address("http://127.0.0.1:1,http://10.0.0.7:1,http://b:1");
    assert_eq!(found, Some([10, 0, 0, 7].into()));
    let (found, warnings) = address("http://localhost:1");
    assert_eq!(found, None);
    assert!(
        matches!(&warnings[..], [Warning::NoLocalAddress { .. }]),
        "{warnings:?}"
    );
    assert_eq!(validate(&[]).unwrap().local_address, None);
}

#[test]
fn what_has_no_effect_is_told_and_accepted() {
    let config = validate(&[
        "--name=a",
        "--max-wals=3",
        "--max-snapshots=3",
        "-v",
        "--snapshot=9",
    ]);
    let warnings = config.unwrap().warnings;
    assert_eq!(warnings.len(), 3, "{warnings:?}");
    assert!(matches!(warnings[0], Warning::Deprecated { .. }));
}

/// The command lines of `kubeadm init` and `join`, of before and after etcd 3.6, and the flags that
/// stand for what k3s writes into its file.
#[test]
fn command_lines_of_kubernetes_distributions_are_accepted() {
    let kubeadm = [
        "--advertise-client-urls=https://10.0.0.1:2379",
        "--cert-file=/etc/kubernetes/pki/etcd/server.crt",
        "--client-cert-auth=true",
        "--data-dir=/var/lib/etcd",
        "--initial-advertise-peer-urls=https://10.0.0.1:2380",
        "--initial-cluster=a=https://10.0.0.1:2380",
        "--key-file=/etc/kubernetes/pki/etcd/server.key",
        "--listen-client-urls=https://127.0.0.1:2379,https://10.0.0.1:2379",
        "--listen-metrics-urls=http://127.0.0.1:2381",
        "--listen-peer-urls=https://10.0.0.1:2380",
        "--name=a",
        "--peer-cert-file=/etc/kubernetes/pki/etcd/peer.crt",
        "--peer-client-cert-auth=true",
        "--peer-key-file=/etc/kubernetes/pki/etcd/peer.key",
        "--peer-trusted-ca-file=/etc/kubernetes/pki/etcd/ca.crt",
        "--snapshot-count=10000",
        "--trusted-ca-file=/etc/kubernetes/pki/etcd/ca.crt",
    ];
    for more in [
        &[
            "--experimental-initial-corrupt-check=true",
            "--experimental-watch-progress-notify-interval=5s",
        ][..],
        &[
            "--feature-gates=InitialCorruptCheck=true",
            "--watch-progress-notify-interval=5s",
            "--initial-cluster-state=existing",
        ],
    ] {
        let config = validate(&with(&kubeadm, more)).unwrap();
        assert!(config.features.enabled(Gate::InitialCorruptCheck));
        assert_eq!(
            config.watch_progress_notify_interval,
            Duration::from_secs(5)
        );
    }
    let k3s = [
        "--name=node-1a2b3c4d",
        "--data-dir=/var/lib/rancher/k3s/server/db/etcd",
        "--listen-client-urls=https://127.0.0.1:2379,https://10.0.0.1:2379",
        "--listen-client-http-urls=https://127.0.0.1:2382",
        "--listen-metrics-urls=http://127.0.0.1:2381",
        "--listen-peer-urls=https://127.0.0.1:2380,https://10.0.0.1:2380",
        "--advertise-client-urls=https://10.0.0.1:2379",
        "--initial-advertise-peer-urls=https://10.0.0.1:2380",
        "--initial-cluster=node-1a2b3c4d=https://10.0.0.1:2380",
        "--initial-cluster-state=new",
        "--cert-file=s.crt",
        "--key-file=s.key",
        "--client-cert-auth",
        "--trusted-ca-file=s-ca.crt",
        "--peer-cert-file=p.crt",
        "--peer-key-file=p.key",
        "--peer-client-cert-auth",
        "--peer-trusted-ca-file=p-ca.crt",
        "--snapshot-count=10000",
        "--election-timeout=5000",
        "--heartbeat-interval=500",
        "--logger=zap",
        "--log-outputs=stderr",
        "--max-snapshots=5",
        "--max-wals=5",
        "--experimental-initial-corrupt-check",
        "--experimental-watch-progress-notify-interval=5s",
        "--force-new-cluster",
    ];
    assert!(validate(&k3s).unwrap().force_new_cluster);
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

#[test]
fn the_old_discovery_service_is_refused_with_a_reason() {
    for set in [
        |options: &mut Options| options.discovery.url = "http://127.0.0.1:1/token".to_owned(),
        |options: &mut Options| options.discovery.proxy = "http://127.0.0.1:1".to_owned(),
    ] {
        let mut options = Options::default();
        set(&mut options);
        let error = options.validate().unwrap_err().to_string();
        assert!(error.contains("choose --discovery-token and"), "{error}");
    }
}

#[test]
fn the_checks_of_data_have_two_names_each() {
    for prefix in ["", "experimental-"] {
        let arguments = [
            format!("--{prefix}corrupt-check-time=3h"),
            format!("--{prefix}compact-hash-check-time=5m"),
        ];
        let config = validate(&arguments.each_ref().map(String::as_str)).unwrap();
        let hours = Duration::from_secs(3 * 60 * 60);
        assert_eq!(config.checks.corrupt_check_time, hours);
        let minutes = Duration::from_secs(5 * 60);
        assert_eq!(config.checks.compact_hash_check_time, minutes);
    }
    // Comparing what compactions leave is on by default, and so is the repair; both can be switched off.
    let by_default = validate(&[]).unwrap();
    assert!(by_default.features.enabled(Gate::CompactHashCheck));
    assert!(!by_default.features.enabled(Gate::InitialCorruptCheck));
    assert!(by_default.checks.corrupt_repair);
    let off = [
        "--feature-gates=CompactHashCheck=false",
        "--corrupt-repair=false",
    ];
    let off = validate(&off).unwrap();
    assert!(!off.features.enabled(Gate::CompactHashCheck) && !off.checks.corrupt_repair);
}
