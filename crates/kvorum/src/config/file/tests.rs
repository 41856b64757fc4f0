//! The texts are compared with etcd 3.5.30's.

use std::time::Duration;

use super::*;
use crate::config::ClientTls;

fn options(text: &str) -> Options {
    parse(text).unwrap()
}

fn problems(text: &str) -> Vec<String> {
    parse(text)
        .unwrap_err()
        .iter()
        .map(ToString::to_string)
        .collect()
}

/// As k3s writes it, and RKE2 for its static pod.
const K3S: &str = "
advertise-client-urls: https://10.0.0.5:2379
client-transport-security:
  cert-file: /var/lib/rancher/k3s/server/tls/etcd/server-client.crt
  client-cert-auth: true
  key-file: /var/lib/rancher/k3s/server/tls/etcd/server-client.key
  trusted-ca-file: /var/lib/rancher/k3s/server/tls/etcd/server-ca.crt
data-dir: /var/lib/rancher/k3s/server/db/etcd
election-timeout: 5000
experimental-initial-corrupt-check: true
experimental-watch-progress-notify-interval: 5000000000
heartbeat-interval: 500
initial-advertise-peer-urls: https://10.0.0.5:2380
initial-cluster: server-1-6c3a8f21=https://10.0.0.5:2380
initial-cluster-state: new
listen-client-http-urls: https://127.0.0.1:2382
listen-client-urls: https://127.0.0.1:2379,https://10.0.0.5:2379
listen-metrics-urls: http://127.0.0.1:2381
listen-peer-urls: https://127.0.0.1:2380,https://10.0.0.5:2380
log-outputs:
- stderr
logger: zap
name: server-1-6c3a8f21
peer-transport-security:
  cert-file: /var/lib/rancher/k3s/server/tls/etcd/peer-server-client.crt
  client-cert-auth: true
  key-file: /var/lib/rancher/k3s/server/tls/etcd/peer-server-client.key
  trusted-ca-file: /var/lib/rancher/k3s/server/tls/etcd/peer-ca.crt
snapshot-count: 10000
";

#[test]
fn the_file_that_k3s_writes_is_understood() {
    let config = options(K3S).validate().unwrap();
    assert_eq!(config.name, "server-1-6c3a8f21");
    assert_eq!(config.heartbeat_interval, Duration::from_millis(500));
    assert_eq!(
        config.watch_progress_notify_interval,
        Duration::from_secs(5)
    );
    assert_eq!(config.listen_client_urls.len(), 2);
    assert_eq!(config.listen_client_http_urls.len(), 1);
    let Some(ClientTls::Files(tls)) = config.client_tls else {
        panic!("{:?}", config.client_tls)
    };
    assert!(tls.cert_file.ends_with("server-client.crt"));
    assert!(config.peer_tls.is_some());
    assert_eq!(config.initial_cluster.members.len(), 1);
}

#[test]
fn unknown_keys_are_ignored_and_capitals_do_not_matter() {
    let read =
        options("Name: a\nbogus: [1, {x: y}]\ncert-file: /ignored\nELECTION-TIMEOUT: 0x3e8\n");
    assert_eq!((read.name.as_str(), read.election_timeout_ms), ("a", 1000));
    // TLS has blocks of its own; the flags' names mean nothing here.
    assert_eq!(read.client_tls.cert_file, "");
    assert_eq!(options(""), options("# nothing\n"));
    assert_eq!(options("name:\n").name, "default");
}

#[test]
fn nobody_has_to_say_where_clients_find_the_member() {
    let config = options("listen-client-urls: http://127.0.0.1:1\nname: a\n")
        .validate()
        .unwrap();
    assert_eq!(
        config.advertise_client_urls[0].as_str(),
        "http://localhost:2379"
    );
}

#[test]
fn discovery_and_sockets_have_blocks() {
    let read = options(
        "discovery-config:\n  token: t\n  client:\n    endpoints: [a:1, b:2]\n    \
         dial-timeout: 1000000000\n    secure: {cacert: ca, insecure-transport: false}\n    \
         auth: {username: u, password: p}\nsocket-options: {reuse-port: true}\n",
    );
    assert_eq!(read.discovery.endpoints, ["a:1", "b:2"]);
    assert_eq!(read.discovery.dial_timeout, Duration::from_secs(1));
    assert!(!read.discovery.is_insecure_transport);
    assert_eq!(read.discovery.user, "u");
    assert!(read.sockets.reuse_port);
}

#[test]
#[expect(clippy::too_many_lines, reason = "one list of values")]
fn values_of_another_type_are_refused_in_etcds_words() {
    let json = "error unmarshaling JSON: while decoding JSON: json: cannot unmarshal";
    let config = "into Go struct field configYAML.Config";
    for (text, problem) in [
        (
            "heartbeat-interval: abc",
            format!("{json} string {config}.heartbeat-interval of type uint"),
        ),
        (
            "heartbeat-interval: -1",
            format!("{json} number -1 {config}.heartbeat-interval of type uint"),
        ),
        (
            "snapshot-count: 1.5",
            format!("{json} number 1.5 {config}.snapshot-count of type uint64"),
        ),
        (
            "experimental-corrupt-check-time: 5s",
            format!("{json} string {config}.experimental-corrupt-check-time of type time.Duration"),
        ),
        (
            "log-outputs: stderr",
            format!("{json} string {config}.log-outputs of type []string"),
        ),
        (
            "name: [a]",
            format!("{json} array {config}.name of type string"),
        ),
        (
            "name: 5",
            format!("{json} number {config}.name of type string"),
        ),
        (
            "name: yes",
            format!("{json} bool {config}.name of type string"),
        ),
        (
            "pre-vote: 'true'",
            format!("{json} string {config}.pre-vote of type bool"),
        ),
        (
            "- a",
            format!("{json} array into Go value of type embed.configYAML"),
        ),
        (
            "client-transport-security: 5",
            format!(
                "{json} number into Go struct field \
                 configYAML.configJSON.client-transport-security of type embed.securityConfig"
            ),
        ),
        (
            "client-transport-security:\n  cert-file: [x]",
            format!(
                "{json} array into Go struct field \
                 securityConfig.configJSON.client-transport-security.cert-file of type string"
            ),
        ),
        (
            "listen-client-urls: foo",
            "unexpected error setting up listen-client-urls: URL scheme must be http, https, \
             unix, or unixs: foo"
                .to_owned(),
        ),
        (
            "initial-cluster-state: foo",
            "unexpected clusterState \"foo\"".to_owned(),
        ),
        (
            "feature-gates: Foo=true",
            "unrecognized feature gate: Foo".to_owned(),
        ),
    ] {
        assert_eq!(problems(text), [problem], "{text}");
    }
}

#[test]
fn what_is_no_yaml_is_refused() {
    for text in ["a: b: c", "{"] {
        let problems = problems(text);
        assert!(
            problems[0].starts_with("error converting YAML to JSON: "),
            "{problems:?}"
        );
    }
}

#[test]
fn every_key_stands_for_a_flag() {
    fn check(block: &Block) {
        for key in block.keys() {
            let flag = match key.target {
                Target::Flag => key.name,
                Target::OtherFlag(name) => name,
                Target::Set(_) | Target::Nothing => continue,
            };
            assert!(flags::find(flag).is_some(), "{flag}");
        }
        block.blocks.iter().for_each(check);
    }
    check(&keys::ROOT);
}

#[test]
fn the_same_mistake_in_two_places_is_told_twice() {
    assert_eq!(problems("name: 5\npre-vote: 1\n").len(), 2);
}
