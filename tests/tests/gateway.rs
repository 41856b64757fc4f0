//! The JSON gateway and the other HTTP of the client port: the same requests to kvorum and to a real
//! etcd; status, headers and body are equal.
//!
//! etcd's gateway is that of 3.6 (grpc-gateway v2), which the etcd of these tests has as well. Masked are ids,
//! sizes, hashes and what only one of the two versions has; and the blank that protobuf-go puts
//! at random, by the hash of its own binary, so that nobody relies on it.

#[path = "gateway/auth.rs"]
mod auth;
#[path = "gateway/tls.rs"]
mod tls;
#[path = "gateway/websocket.rs"]
mod websocket;

use anyhow::{Context as _, Result, ensure};
use kvorum_tests::raw_http::{Ask, Told, ask, ask_on, open};
use serde_json::Value;
use testkit::patience::eventually;
use testkit::{Server, Spec};
use tokio::net::UnixStream;

/// Differs between two servers in the same state.
const MASKED: [&str; 15] = [
    "ID",
    "cluster_id",
    "dbSize",
    "dbSizeInUse",
    "hash",
    "clientURLs",
    "leader",
    "memberID",
    "member_id",
    "peerURLs",
    "raftAppliedIndex",
    "raftIndex",
    "raftTerm",
    "raft_term",
    "token",
];
/// What etcd 3.5 does not have.
const NEWER: [&str; 5] = [
    "dbSizeQuota",
    "downgradeInfo",
    "hash_revision",
    "storageVersion",
    "version",
];
const COMPARED_HEADERS: [&str; 10] = [
    "access-control-allow-headers",
    "access-control-allow-methods",
    "access-control-allow-origin",
    "allow",
    "content-type",
    "grpc-metadata-content-type",
    "location",
    "trailer",
    "transfer-encoding",
    "www-authenticate",
];

fn shown(told: &Told) -> String {
    let mut shown = format!("{}\n", told.status);
    for name in COMPARED_HEADERS {
        if let Some(value) = told.header(name) {
            shown.push_str(&format!("{name}: {value}\n"));
        }
    }
    shown + &shown_body(&told.body)
}

fn shown_body(body: &str) -> String {
    let lines = body.lines().map(|line| match serde_json::from_str(line) {
        Ok(mut json @ Value::Object(_)) => {
            mask(&mut json);
            json.to_string()
        }
        // Not JSON, or a line of something that is.
        _ => line.to_owned(),
    });
    let mut lines: Vec<String> = lines.collect();
    // etcd runs its checks in the order of a Go map: in any.
    if lines
        .iter()
        .any(|line| line.starts_with("[-]") || line.starts_with("[+]"))
    {
        lines.sort_unstable();
    }
    lines.join("\n")
}

fn mask(json: &mut Value) {
    match json {
        Value::Object(fields) => {
            fields.retain(|name, _| !NEWER.contains(&name.as_str()));
            for (name, value) in fields.iter_mut() {
                let is_lease = name == "ID" && value.as_str().is_some_and(|id| id.len() < 6);
                if MASKED.contains(&name.as_str()) && !is_lease {
                    *value = Value::from("masked");
                }
                mask(value);
            }
        }
        Value::Array(values) => values.iter_mut().for_each(mask),
        // The other blank of protobuf-go.
        Value::String(text) => *text = text.replace('\u{a0}', " "),
        _ => {}
    }
}

/// Asks both, and adds to `differences` when they do not answer the same.
async fn compare(servers: &[Server; 2], ask_for: &Ask, differences: &mut String) -> Result<()> {
    let [kvorum, etcd] = servers;
    let ours = ask(kvorum.client_port(), ask_for).await;
    let theirs = ask(etcd.client_port(), ask_for).await;
    let (ours, theirs) = (ours.context("kvorum")?, theirs.context("etcd")?);
    let (ours, theirs) = (shown(&ours), shown(&theirs));
    if ours != theirs {
        let Ask {
            method,
            path,
            headers,
            body,
        } = ask_for;
        let body = String::from_utf8_lossy(&body[..body.len().min(200)]);
        differences.push_str(&format!(
            "\n=== {method} {path} {headers:?} {body}\n--- kvorum: {ours}\n--- etcd: {theirs}\n"
        ));
    }
    Ok(())
}

async fn start(flags: &[&str]) -> Result<[Server; 2]> {
    let with_flags = |spec: Spec| {
        flags
            .iter()
            .fold(spec, |spec, flag| spec.arg(*flag))
            .start()
    };
    let etcd = Spec::etcd().arg("--unsafe-no-fsync");
    let (kvorum, etcd) = tokio::try_join!(with_flags(Spec::kvorum()), with_flags(etcd))?;
    Ok([kvorum, etcd])
}

async fn run(flags: &[&str], requests: Vec<Ask>) -> Result<()> {
    let servers = start(flags).await?;
    let mut differences = String::new();
    for request in &requests {
        compare(&servers, request, &mut differences).await?;
    }
    ensure!(differences.is_empty(), "{differences}");
    let [kvorum, etcd] = servers;
    kvorum.stop().await?;
    etcd.stop().await
}

fn posts(requests: &[(&str, &str)]) -> Vec<Ask> {
    let post = |(path, body): &(&str, &str)| Ask::post(path, *body);
    requests.iter().map(post).collect()
}

#[tokio::test]
#[expect(clippy::too_many_lines, reason = "one list of requests")]
async fn every_rpc_answers_as_etcds_does() -> Result<()> {
    let requests = posts(&[
        ("/v3/kv/put", r#"{"key":"YQ==","value":"Yg=="}"#),
        (
            "/v3/kv/put",
            r#"{"key":"YQ==","value":"Yw==","prev_kv":true}"#,
        ),
        ("/v3/kv/put", r#"{"key":"YWI=","value":"/+8=","lease":"0"}"#),
        ("/v3/kv/put", r#"{"key":"YWI=","value":"eA==","lease":77}"#),
        (
            "/v3/kv/put",
            r#"{"key":"YWI=","value":"eA==","ignore_value":true}"#,
        ),
        ("/v3/kv/put", r#"{"value":"eA=="}"#),
        ("/v3/kv/range", r#"{"key":"YQ=="}"#),
        (
            "/v3/kv/range",
            r#"{"key":"YQ==","range_end":"Yg==","sort_order":"DESCEND","sortTarget":"MOD"}"#,
        ),
        (
            "/v3/kv/range",
            r#"{"key":"AA==","range_end":"AA==","limit":"1","keys_only":true}"#,
        ),
        (
            "/v3/kv/range",
            r#"{"key":"AA==","range_end":"AA==","count_only":true}"#,
        ),
        ("/v3/kv/range", r#"{"key":"YQ==","revision":2}"#),
        ("/v3/kv/range", r#"{"key":"YQ==","revision":"200"}"#),
        ("/v3/kv/range", r#"{"key":"YQ==","sort_order":"UPWARDS"}"#),
        (
            "/v3/kv/txn",
            r#"{"compare":[{"result":"EQUAL","target":"VALUE","key":"YQ==","value":"Yw=="}],
            "success":[{"request_put":{"key":"dA==","value":"MQ=="}},{"requestRange":{"key":"dA=="}}],
            "failure":[{"request_delete_range":{"key":"dA=="}}]}"#,
        ),
        (
            "/v3/kv/txn",
            r#"{"compare":[{"target":"CREATE","key":"dA==","createRevision":"0"}],
            "success":[{"request_put":{"key":"dA=="}}],
            "failure":[{"request_txn":{"success":[{"request_range":{"key":"dA=="}}]}}]}"#,
        ),
        (
            "/v3/kv/txn",
            r#"{"success":[{"request_put":{"key":"dA=="}},{"request_put":{"key":"dA=="}}]}"#,
        ),
        ("/v3/kv/txn", r#"{"success":[{}]}"#),
        ("/v3/kv/txn", "{}"),
        ("/v3/kv/deleterange", r#"{"key":"dA==","prev_kv":true}"#),
        ("/v3/kv/deleterange", r#"{"key":"dA=="}"#),
        ("/v3/kv/deleterange", "{}"),
        ("/v3/kv/compaction", r#"{"revision":"3"}"#),
        ("/v3/kv/compaction", r#"{"revision":"3"}"#),
        ("/v3/kv/compaction", r#"{"revision":"3000"}"#),
        ("/v3/kv/range", r#"{"key":"YQ==","revision":2}"#),
        ("/v3/lease/grant", r#"{"TTL":"1000","ID":"77"}"#),
        ("/v3/lease/grant", r#"{"TTL":1000,"ID":77}"#),
        ("/v3/lease/grant", r#"{"TTL":"99999999999"}"#),
        (
            "/v3/kv/put",
            r#"{"key":"bA==","value":"eA==","lease":"77"}"#,
        ),
        ("/v3/lease/timetolive", r#"{"ID":"78"}"#),
        ("/v3/kv/lease/timetolive", r#"{"ID":"78","keys":true}"#),
        ("/v3/lease/leases", "{}"),
        ("/v3/kv/lease/leases", "{}"),
        ("/v3/lease/keepalive", r#"{"ID":"77"}"#),
        ("/v3/lease/keepalive", r#"{"ID":"77"}{"ID":"78"} {"ID":79}"#),
        ("/v3/lease/revoke", r#"{"ID":"77"}"#),
        ("/v3/kv/lease/revoke", r#"{"ID":"77"}"#),
        ("/v3/cluster/member/list", "{}"),
        ("/v3/cluster/member/list", r#"{"linearizable":true}"#),
        ("/v3/cluster/member/add", r#"{"peerURLs":["no url"]}"#),
        ("/v3/cluster/member/add", "{}"),
        ("/v3/cluster/member/remove", r#"{"ID":"5"}"#),
        (
            "/v3/cluster/member/update",
            r#"{"ID":"5","peerURLs":["http://127.0.0.1:1"]}"#,
        ),
        ("/v3/cluster/member/promote", r#"{"ID":"5"}"#),
        ("/v3/maintenance/status", "{}"),
        ("/v3/maintenance/alarm", "{}"),
        (
            "/v3/maintenance/alarm",
            r#"{"action":"ACTIVATE","alarm":"NOSPACE"}"#,
        ),
        (
            "/v3/maintenance/alarm",
            r#"{"action":"GET","alarm":"NONE"}"#,
        ),
        ("/v3/kv/put", r#"{"key":"YQ==","value":"Yg=="}"#),
        ("/v3/maintenance/alarm", r#"{"action":2,"alarm":1}"#),
        ("/v3/maintenance/hash", "{}"),
        ("/v3/maintenance/hashkv", "{}"),
        ("/v3/maintenance/hashkv", r#"{"revision":"3000"}"#),
        ("/v3/maintenance/transfer-leadership", r#"{"targetID":"5"}"#),
        ("/v3/auth/status", "{}"),
    ]);
    run(&[], requests).await
}

#[tokio::test]
#[expect(clippy::too_many_lines, reason = "one list of requests")]
async fn odd_and_bad_json_is_taken_and_refused_as_etcd_does() -> Result<()> {
    let bodies: &[&str] = &[
        "",
        " ",
        "\n\n",
        "{",
        "}",
        "{}",
        "{} trailing",
        "{}{\"key\":",
        "null",
        "true",
        "[]",
        "[{}]",
        "7",
        "\"x\"",
        "{\"key\"",
        "{\"key\":}",
        "{\"key\":\"YQ==\",}",
        "{key:1}",
        "{'key':1}",
        "tru",
        "{\"key\":tru}",
        "{\"key\":nulL}",
        "{\"a\" 1}",
        "{\"a\":1 \"b\":2}",
        "[1 2]",
        "{\"key\":\"a\nb\"}",
        "{\"key\":\"\\x\"}",
        "{\"key\":\"\\u12G4\"}",
        "{\"limit\":01}",
        "{\"limit\":1.}",
        "{\"limit\":1e}",
        "{\"limit\":-}",
        "{\"limit\":+1}",
        "\u{feff}{}",
        "\u{e4}",
        "<html>",
        "key=a&value=b",
        "{\"key\":1}",
        "{\"key\":\"!!\"}",
        "{\"key\":\"YQ\"}",
        "{\"key\":\"YQ=\"}",
        "{\"key\":\"YQ==\\n\"}",
        "{\"key\":\"_-8\"}",
        "{\"key\":\"/+8=\"}",
        "{\"key\":\"_+8=\"}",
        "{\"key\":\"YR==\"}",
        "{\"key\":[\"YQ==\"]}",
        "{\"key\":{\"a\":1}}",
        "{\"key\":null}",
        "{\"key\":true}",
        "{\"Key\":\"YQ==\"}",
        "{\"key\":\"YQ==\",\"key\":\"Yg==\"}",
        "{\"rangeEnd\":\"YQ==\",\"range_end\":\"Yg==\"}",
        "{\"key\":\"YQ==\",\"limit\":\"1\"}",
        "{\"key\":\"YQ==\",\"limit\":1.0}",
        "{\"key\":\"YQ==\",\"limit\":1.5}",
        "{\"key\":\"YQ==\",\"limit\":\"1.0\"}",
        "{\"key\":\"YQ==\",\"limit\":\"1e1\"}",
        "{\"key\":\"YQ==\",\"limit\":1E+1}",
        "{\"key\":\"YQ==\",\"limit\":10e-1}",
        "{\"key\":\"YQ==\",\"limit\":1e-1}",
        "{\"key\":\"YQ==\",\"limit\":\"\"}",
        "{\"key\":\"YQ==\",\"limit\":\" 1\"}",
        "{\"key\":\"YQ==\",\"limit\":\"0x1\"}",
        "{\"key\":\"YQ==\",\"limit\":-0}",
        "{\"key\":\"YQ==\",\"limit\":9223372036854775807}",
        "{\"key\":\"YQ==\",\"limit\":9223372036854775808}",
        "{\"key\":\"YQ==\",\"limit\":\"-9223372036854775808\"}",
        "{\"key\":\"YQ==\",\"limit\":1e400}",
        "{\"key\":\"YQ==\",\"limit\":true}",
        "{\"key\":\"YQ==\",\"limit\":[]}",
        "{\"key\":\"YQ==\",\"serializable\":1}",
        "{\"key\":\"YQ==\",\"serializable\":\"true\"}",
        "{\"key\":\"YQ==\",\"sort_order\":1}",
        "{\"key\":\"YQ==\",\"sort_order\":\"1\"}",
        "{\"key\":\"YQ==\",\"sort_order\":\"ascend\"}",
        "{\"key\":\"YQ==\",\"sort_order\":1.5}",
        "{\"key\":\"YQ==\",\"sort_order\":99999999999}",
        "{\"key\":\"YQ==\",\"sort_order\":true}",
        "{\"key\":\"YQ==\",\"unknown\":{\"deep\":[1,{\"x\":null}]}}",
        "{\"key\":\"YQ==\",\"[ext.name]\":1}",
        "{\"key\":\"\\ud800\"}",
        "{\"key\":\"\\ud800\\u0041\"}",
        "{\"key\":\"\\udc00abcdef\"}",
        "{\"key\":\"\\u0059\\u0051==\"}",
        "{\"x\":\"\\ud83d\\ude00\",\"key\":\"YQ==\"}",
        "\n\n  {\"key\":\n   5}",
        "{\"\u{e4}\u{20ac}\":1,\"key\":5}",
    ];
    let mut requests: Vec<Ask> = bodies
        .iter()
        .map(|it| Ask::post("/v3/kv/range", *it))
        .collect();
    requests.push(Ask::post("/v3/kv/range", b"{\"key\":\"\xff\"}".as_slice()));
    requests.push(Ask::post("/v3/kv/range", b"\xff".as_slice()));
    requests.extend(posts(&[
        ("/v3/kv/txn", r#"{"success":null}"#),
        ("/v3/kv/txn", r#"{"success":[null]}"#),
        ("/v3/kv/txn", r#"{"success":{}}"#),
        (
            "/v3/kv/txn",
            r#"{"success":[{"request_range":{"key":"YQ=="},"request_put":{}}]}"#,
        ),
        (
            "/v3/kv/txn",
            r#"{"success":[{"request_range":null,"request_put":{"key":"YQ=="}}]}"#,
        ),
        (
            "/v3/kv/txn",
            r#"{"compare":[{"key":"YQ==","version":"0","value":"YQ=="}]}"#,
        ),
        (
            "/v3/cluster/member/add",
            r#"{"peerURLs":"http://127.0.0.1:1"}"#,
        ),
        ("/v3/cluster/member/add", r#"{"peerURLs":[1]}"#),
        ("/v3/cluster/member/remove", r#"{"ID":-1}"#),
        (
            "/v3/cluster/member/remove",
            r#"{"ID":18446744073709551616}"#,
        ),
        (
            "/v3/cluster/member/remove",
            r#"{"ID":"18446744073709551615"}"#,
        ),
        ("/v3/cluster/member/remove", r#"{"id":"1"}"#),
        (
            "/v3/maintenance/alarm",
            r#"{"action":"GET","memberID":"x"}"#,
        ),
    ]));
    let large = format!(
        "{{\"key\":\"YQ==\",\"value\":\"{}\"}}",
        "QUFB".repeat(600_000)
    );
    requests.push(Ask::post("/v3/kv/put", large));
    let larger = format!(
        "{{\"key\":\"YQ==\",\"value\":\"{}\"}}",
        "QUFB".repeat(900_000)
    );
    requests.push(Ask::post("/v3/kv/put", larger));
    run(&[], requests).await
}

#[tokio::test]
async fn methods_paths_and_headers_count_as_with_etcd() -> Result<()> {
    let range = || Ask::post("/v3/kv/range", r#"{"key":"YQ=="}"#);
    let at = |path: &str| Ask::post(path, r#"{"key":"YQ=="}"#);
    let mut requests = vec![
        range().with("TE", "trailers"),
        range().with("TE", "gzip, Trailers;q=0.5"),
        range().with("Content-Type", "text/html"),
        range().with("Content-Type", "application/json; charset=utf-8"),
        range().with("Content-Type", "application/grpc"),
        range().with("Accept", "text/plain"),
        range().with("Accept-Encoding", "gzip"),
        range().with("Authorization", "nonsense"),
        range().with("Grpc-Timeout", "1n"),
        range().with("Grpc-Timeout", "100S"),
        range().with("Grpc-Timeout", "0S"),
        range().with("Grpc-Timeout", "-5S"),
        range().with("Grpc-Timeout", "soon"),
        range().with("Grpc-Timeout", "S"),
        range().with("Grpc-Metadata-HasLeader", "true"),
        range().with("Grpc-Metadata-Client-Api-Version", "3.5.0"),
        range().with("Grpc-Metadata-Content-Type", "text/html"),
        range().with("Grpc-Metadata-X", "y"),
        range().with("Origin", "http://page.example"),
        range().with("X-HTTP-Method-Override", "GET"),
        Ask::post("/v3/kv/range", "{}").with("TE", "trailers"),
        at("/v3/kv/range/"),
        at("/v3/kv/range:verb"),
        at("/v3/kv//range"),
        at("/v3/./kv/range?a=b"),
        at("/v3/kv/%72ange"),
        at("/v3/kv/range?key=Yg=="),
        at("/v3/KV/range"),
        at("/v3/nothing"),
        at("/v3/"),
        at("/v3"),
        at("/v3beta/kv/range"),
        at("/v3beta"),
        at("/v3alpha/kv/range"),
        at("/v2/keys/a"),
        at("/etcdserverpb.KV/Range").with("Content-Type", "application/grpc"),
        at("/config/local/log"),
        Ask::get("/"),
        Ask::get("/v3"),
        Ask::get("//health"),
        Ask::get("/a/../version?x=1"),
        Ask::get("/health/"),
        Ask::get("/debug/pprof/"),
        Ask::get("/debug/requests"),
        Ask::get("/debug/events"),
        Ask::new("OPTIONS", "/v3/kv/range"),
        Ask::new("OPTIONS", "/nothing"),
        Ask::get("/v3/watch")
            .with("Connection", "Upgrade")
            .with("Upgrade", "websocket"),
    ];
    for method in ["GET", "HEAD", "PUT", "DELETE", "PATCH", "BREW"] {
        let paths = [
            "/v3/kv/range",
            "/v3/nothing",
            "/v3/watch",
            "/health",
            "/livez",
        ];
        requests.extend(paths.map(|path| Ask::new(method, path)));
    }
    requests.push(Ask::post("/debug/vars", ""));
    requests.push(Ask::post("/readyz", ""));
    run(&[], requests).await
}

#[tokio::test]
async fn cors_and_the_host_whitelist_are_etcds() -> Result<()> {
    let mut requests = Vec::new();
    for ask in [
        Ask::get("/health"),
        Ask::post("/v3/kv/range", r#"{"key":"YQ=="}"#),
        Ask::new("OPTIONS", "/v3/kv/range"),
        Ask::get("/nothing"),
    ] {
        requests.push(ask.clone().with("Origin", "http://a.example:80"));
        requests.push(ask.clone().with("Origin", "http://b.example:80"));
        requests.push(ask.clone());
        for host in [
            "a.example",
            "a.example:2379",
            "evil.example",
            "[::1]:80",
            "127.0.0.1:1",
            "a:b:c",
        ] {
            requests.push(ask.clone().with("Host", host));
        }
    }
    let flags = [
        "--cors=http://a.example:80",
        "--host-whitelist=127.0.0.1,a.example",
    ];
    run(&flags, requests).await
}

#[tokio::test]
async fn there_is_no_gateway_when_it_is_turned_off() -> Result<()> {
    let requests = vec![
        Ask::post("/v3/kv/range", r#"{"key":"YQ=="}"#),
        Ask::post("/v3", ""),
        Ask::get("/v3/watch")
            .with("Connection", "Upgrade")
            .with("Upgrade", "websocket"),
        Ask::get("/health"),
    ];
    run(&["--enable-grpc-gateway=false"], requests).await
}

/// The first lines of a stream, as they come.
async fn lines(server: &Server, request: &Ask, count: usize) -> Result<String> {
    let mut stream = open(server.client_port(), request).await?;
    let mut body = String::new();
    while body.lines().count() < count {
        let piece = stream.piece().await?;
        body.push_str(&piece.with_context(|| format!("ended after {body:?}"))?);
    }
    let told = Told {
        body,
        ..stream.told
    };
    Ok(shown(&told))
}

#[tokio::test]
async fn streams_come_line_by_line() -> Result<()> {
    let servers = start(&[]).await?;
    for server in &servers {
        for value in ["MQ==", "Mg==", "PCY+"] {
            let put = format!(r#"{{"key":"dw==","value":"{value}"}}"#);
            let told = ask(server.client_port(), &Ask::post("/v3/kv/put", put)).await?;
            ensure!(told.status == 200, "{told:?}");
        }
        let compact = Ask::post("/v3/kv/compaction", r#"{"revision":"3"}"#);
        ask(server.client_port(), &compact).await?;
    }
    let [kvorum, etcd] = &servers;
    let watch = |body: &str| Ask::post("/v3/watch", body);
    for (request, count) in [
        (
            watch(r#"{"create_request":{"key":"dw==","start_revision":"3","prev_kv":true}}"#),
            2,
        ),
        (
            watch(r#"{"createRequest":{"key":"dw==","startRevision":4,"watchId":"5"}}"#),
            2,
        ),
        (
            watch(r#"{"create_request":{"key":"dw==","start_revision":"1"}}"#),
            2,
        ),
        (
            watch(
                r#"{"create_request":{"key":"dw==","watch_id":"7"}} {"cancel_request":{"watch_id":"7"}}"#,
            ),
            2,
        ),
        (
            watch(
                r#"{"create_request":{"key":"dw==","watch_id":7}}{"create_request":{"key":"dw==","watch_id":7}}"#,
            ),
            2,
        ),
        (
            watch(r#"{"create_request":{"key":"eA==","range_end":"YQ=="}}"#),
            1,
        ),
    ] {
        let ours = lines(kvorum, &request, count).await;
        let theirs = lines(etcd, &request, count).await;
        assert_eq!(ours?, theirs?, "{request:?}");
    }
    let [kvorum, etcd] = servers;
    kvorum.stop().await?;
    etcd.stop().await
}

/// Better than etcd, which says nothing and waits, or ends without a word.
#[tokio::test]
async fn a_bad_request_in_a_stream_is_told() -> Result<()> {
    let kvorum = Spec::kvorum().start().await?;
    let refused = |words: &str| {
        let message = format!("Failed to decode request: {words}");
        format!(
            "{}\n",
            serde_json::json!({"error": {"code": 3, "message": message}})
        )
    };
    let told = ask(kvorum.client_port(), &Ask::post("/v3/watch", "{bad")).await?;
    let words = "invalid character 'b' looking for beginning of object key string";
    assert_eq!((told.status, told.body), (400, refused(words)));
    let request = Ask::post("/v3/lease/keepalive", r#"{"ID":"1"}{"ID":"x"}"#);
    let told = ask(kvorum.client_port(), &request).await?;
    let words = r#"proto: (line 1:7): invalid value for int64 field ID: "x""#;
    ensure!(told.body.ends_with(&refused(words)), "{}", told.body);
    kvorum.stop().await
}

#[tokio::test]
async fn health_is_told_alike_in_every_state() -> Result<()> {
    let servers = start(&[]).await?;
    let mut differences = String::new();
    let put = Ask::post("/v3/kv/put", r#"{"key":"YQ=="}"#);
    let alarm = |action: &str, alarm: &str| {
        let body = format!(r#"{{"action":"{action}","alarm":"{alarm}"}}"#);
        Ask::post("/v3/maintenance/alarm", body)
    };
    for state in [
        alarm("GET", "NONE"),
        alarm("ACTIVATE", "NOSPACE"),
        put.clone(),
        alarm("DEACTIVATE", "NOSPACE"),
        alarm("ACTIVATE", "CORRUPT"),
        put.clone(),
        alarm("DEACTIVATE", "CORRUPT"),
        put,
    ] {
        compare(&servers, &state, &mut differences).await?;
        for path in [
            "/health",
            "/health?serializable=true",
            "/health?serializable=false",
            "/health?exclude=NOSPACE",
            "/health?exclude=CORRUPT&exclude=NOSPACE",
            "/health?exclude=",
            "/livez",
            "/livez?verbose",
            "/livez?exclude=serializable_read",
            "/livez/serializable_read",
            "/livez/serializable_read?verbose=false",
            "/livez/non_learner",
            "/readyz",
            "/readyz?exclude=nothing",
            "/readyz/data_corruption?exclude=data_corruption",
            "/readyz/linearizable_read?verbose",
            "/readyz/serializable_read",
            "/readyz/non_learner",
            "/readyz/",
        ] {
            compare(&servers, &Ask::get(path), &mut differences).await?;
        }
    }
    ensure!(differences.is_empty(), "{differences}");
    let [kvorum, etcd] = servers;
    kvorum.stop().await?;
    etcd.stop().await
}

#[tokio::test]
async fn http_and_grpc_have_their_own_listeners_when_asked_for() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let path = dir.path().join("http:0");
    let flag = format!("--listen-client-http-urls=unix://{}", path.display());
    let kvorum = Spec::kvorum().arg(&flag).metrics_listener().start().await?;
    let put = Ask::post("/v3/kv/put", r#"{"key":"YQ=="}"#);
    let told = eventually("HTTP is served", || async {
        let stream = UnixStream::connect(&path).await?;
        ask_on(stream, &put).await
    })
    .await?;
    assert_eq!(told.status, 200, "{told:?}");
    // gRPC is where it was, and nothing else is there.
    let mut client = kvorum.client().await?;
    let range = api::etcdserverpb::RangeRequest {
        key: "a".into(),
        ..Default::default()
    };
    assert_eq!(client.kv.range(range).await?.into_inner().count, 1);
    ensure!(
        ask(kvorum.client_port(), &Ask::get("/health"))
            .await
            .is_err(),
        "HTTP is answered"
    );
    kvorum.stop().await
}

#[tokio::test]
async fn locks_and_elections_are_etcds() -> Result<()> {
    let requests = posts(&[
        ("/v3/lease/grant", r#"{"TTL":"1000","ID":"77"}"#),
        ("/v3/lock/lock", r#"{"name":"bG9jaw==","lease":"77"}"#),
        ("/v3/lock/lock", r#"{"name":"bG9jaw==","lease":"78"}"#),
        ("/v3/lock/unlock", r#"{"key":"bG9jay80ZA=="}"#),
        ("/v3/lock/unlock", r#"{"key":"bG9jay80ZA=="}"#),
        ("/v3/election/leader", r#"{"name":"ZWxlY3Q="}"#),
        (
            "/v3/election/campaign",
            r#"{"name":"ZWxlY3Q=","lease":"77","value":"djE="}"#,
        ),
        (
            "/v3/election/campaign",
            r#"{"name":"ZWxlY3Q=","lease":"78","value":"djE="}"#,
        ),
        ("/v3/election/leader", r#"{"name":"ZWxlY3Q="}"#),
        ("/v3/election/proclaim", r#"{"value":"djI="}"#),
        (
            "/v3/election/proclaim",
            r#"{"leader":{"name":"eA==","key":"eQ==","rev":1},"value":"djI="}"#,
        ),
        (
            "/v3/election/resign",
            r#"{"leader":{"name":"eA==","key":"eQ==","rev":1}}"#,
        ),
        ("/v3/election/resign", "{}"),
    ]);
    run(&[], requests).await
}

#[tokio::test]
async fn a_snapshot_comes_in_lines() -> Result<()> {
    let kvorum = Spec::kvorum().start().await?;
    let told = ask(
        kvorum.client_port(),
        &Ask::post("/v3/maintenance/snapshot", "{}"),
    )
    .await?;
    assert_eq!(
        (told.status, told.header("content-type")),
        (200, Some("application/json"))
    );
    for line in told.body.lines() {
        let piece: Value = serde_json::from_str(line)?;
        ensure!(piece["result"]["blob"].is_string(), "{piece}");
    }
    ensure!(told.body.ends_with("}\n"), "it broke off");
    kvorum.stop().await
}
