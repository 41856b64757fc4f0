//! Users, tokens and permissions through the gateway.

use anyhow::{Context as _, Result, ensure};
use kvorum_tests::raw_http::{Ask, ask};
use serde_json::Value;

use super::{compare, posts, shown, start};

#[tokio::test]
#[expect(clippy::too_many_lines, reason = "one list of requests")]
async fn authentication_is_etcds_through_the_gateway_too() -> Result<()> {
    let servers = start(&[]).await?;
    let mut differences = String::new();
    for request in posts(&[
        ("/v3/auth/status", "{}"),
        ("/v3/auth/enable", "{}"),
        (
            "/v3/auth/user/add",
            r#"{"name":"root","password":"secret"}"#,
        ),
        (
            "/v3/auth/user/add",
            r#"{"name":"root","password":"secret"}"#,
        ),
        ("/v3/auth/user/add", r#"{"name":"ann","password":"word"}"#),
        (
            "/v3/auth/user/add",
            r#"{"name":"bob","options":{"no_password":true}}"#,
        ),
        ("/v3/auth/user/add", "{}"),
        ("/v3/auth/role/add", r#"{"name":"root"}"#),
        ("/v3/auth/role/add", r#"{"name":"reader"}"#),
        (
            "/v3/auth/role/grant",
            r#"{"name":"reader","perm":{"permType":"READ","key":"YQ==","range_end":"Yg=="}}"#,
        ),
        (
            "/v3/auth/role/grant",
            r#"{"name":"nobody","perm":{"key":"YQ=="}}"#,
        ),
        ("/v3/auth/role/get", r#"{"role":"reader"}"#),
        ("/v3/auth/role/list", "{}"),
        ("/v3/auth/user/grant", r#"{"user":"root","role":"root"}"#),
        ("/v3/auth/user/grant", r#"{"user":"ann","role":"reader"}"#),
        ("/v3/auth/user/get", r#"{"name":"ann"}"#),
        ("/v3/auth/user/list", "{}"),
        (
            "/v3/auth/authenticate",
            r#"{"name":"ann","password":"word"}"#,
        ),
        ("/v3/auth/enable", "{}"),
        (
            "/v3/auth/authenticate",
            r#"{"name":"ann","password":"wrong"}"#,
        ),
        ("/v3/kv/range", r#"{"key":"YQ=="}"#),
    ]) {
        compare(&servers, &request, &mut differences).await?;
    }
    ensure!(differences.is_empty(), "{differences}");
    let mut answers = [Vec::new(), Vec::new()];
    for (server, answers) in servers.iter().zip(&mut answers) {
        let login = Ask::post(
            "/v3/auth/authenticate",
            r#"{"name":"ann","password":"word"}"#,
        );
        let told = ask(server.client_port(), &login).await?;
        let token: Value = serde_json::from_str(&told.body)?;
        let token = token["token"].as_str().context("a token")?;
        for request in posts(&[
            ("/v3/kv/range", r#"{"key":"YQ=="}"#),
            ("/v3/kv/range", r#"{"key":"Yg=="}"#),
            ("/v3/kv/put", r#"{"key":"YQ=="}"#),
            ("/v3/auth/user/list", "{}"),
            ("/v3/auth/disable", "{}"),
        ]) {
            for token in [token, "nonsense"] {
                let request = request.clone().with("Authorization", token);
                let told = ask(server.client_port(), &request).await?;
                answers.push(format!("{} {}", request.path, shown(&told)));
            }
        }
        // Asked as root, whoever asks.
        answers.push(shown(
            &ask(server.client_port(), &Ask::get("/health")).await?,
        ));
    }
    let [ours, theirs] = answers;
    assert_eq!(ours, theirs);
    let [kvorum, etcd] = servers;
    kvorum.stop().await?;
    etcd.stop().await
}
