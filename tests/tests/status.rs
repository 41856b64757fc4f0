//! The status page: what it reads says how members and cluster are, to whom it may, and the page understands it.

#[path = "status/browser.rs"]
mod browser;
#[path = "status/made_up.rs"]
mod made_up;

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use api::etcdserverpb as pb;
use api::etcdserverpb::auth_client::AuthClient;
use serde_json::Value;
use testkit::{Client, ClusterSpec, Server, Spec, binaries, eventually, http};

use made_up::MadeUp;

async fn status(port: u16) -> Result<Value> {
    let answer = http::get(port, "/status.json").await?;
    ensure!(answer.status == 200, "{answer:?}");
    Ok(serde_json::from_str(&answer.body)?)
}

async fn put(client: &mut Client, key: &str) -> Result<()> {
    let put = pb::PutRequest {
        key: key.into(),
        value: b"value".to_vec(),
        ..Default::default()
    };
    client.kv.put(put).await?;
    Ok(())
}

async fn served() -> Result<Server> {
    let server = Spec::kvorum()
        .metrics_listener()
        .arg("--quota-backend-bytes=1073741824")
        .start()
        .await?;
    let mut client = server.client().await?;
    for n in 0..20 {
        put(&mut client, &format!("/registry/pods/default/web-{n}")).await?;
    }
    put(&mut client, "secret").await?;
    let range = pb::RangeRequest {
        key: b"/registry/leases/a/b".to_vec(),
        ..Default::default()
    };
    client.kv.range(range).await?;
    Ok(server)
}

#[tokio::test]
async fn a_member_shows_itself_and_what_it_is_asked() -> Result<()> {
    let server = served().await?;
    for port in [server.metrics_port(), server.client_port()] {
        let status = status(port).await?;
        ensure!(status["member"]["name"] == "m1" && status["member"]["isLeader"] == true);
        ensure!(status["cluster"]["leader"] == status["member"]["id"]);
        ensure!(status["cluster"]["voters"] == 1 && status["cluster"]["margin"] == 0);
        ensure!(status["problems"][0]["level"] == "info", "{status}");
        ensure!(status["store"]["revision"] == 22 && status["store"]["quotaBytes"] == 1 << 30);
        let top = status["prefixes"]["top"].as_array().context("prefixes")?;
        let shown: BTreeSet<&str> = top.iter().filter_map(|it| it["prefix"].as_str()).collect();
        // No key is there as a whole.
        ensure!(shown == BTreeSet::from(["", "/registry/leases/", "/registry/pods/"]));
        ensure!(!status.to_string().contains("secret"));
    }
    eventually("the points tell of the puts", || async {
        let status = status(server.metrics_port()).await?;
        let writes = status["recent"]["writesPerSecond"].as_array();
        let writes = writes.context("points")?;
        ensure!(
            writes.iter().any(|it| it.as_f64() > Some(0.0)),
            "{writes:?}"
        );
        let p99 = status["recent"]["writeP99Ms"].to_string();
        ensure!(p99.contains('.'), "{p99}");
        Ok(())
    })
    .await?;
    server.stop().await
}

#[tokio::test]
async fn users_keys_are_shown_to_nobody_who_has_not_said_who_it_is() -> Result<()> {
    let server = served().await?;
    let mut client = AuthClient::connect(server.client_url()).await?;
    let user = pb::AuthUserAddRequest {
        name: "root".to_owned(),
        password: "pass".to_owned(),
        ..Default::default()
    };
    client.user_add(user).await?;
    let role = pb::AuthRoleAddRequest {
        name: "root".to_owned(),
    };
    client.role_add(role).await?;
    let grant = pb::AuthUserGrantRoleRequest {
        user: "root".to_owned(),
        role: "root".to_owned(),
    };
    client.user_grant_role(grant).await?;
    client.auth_enable(pb::AuthEnableRequest {}).await?;
    for path in ["/status", "/status.json"] {
        let refused = http::get(server.client_port(), path).await?;
        ensure!(refused.status == 403, "{refused:?}");
        ensure!(
            refused.body.contains("--listen-metrics-urls"),
            "{refused:?}"
        );
    }
    let status = status(server.metrics_port()).await?;
    ensure!(status["prefixes"]["hidden"].is_string(), "{status}");
    ensure!(!status.to_string().contains("/registry"));
    server.stop().await
}

#[tokio::test]
async fn a_lost_member_is_seen_with_what_is_left_of_the_quorum() -> Result<()> {
    let mut cluster = ClusterSpec::kvorum(3).start().await?;
    let port = cluster.member(0).client_port();
    eventually("all three are reachable", || async {
        let status = status(port).await?;
        ensure!(
            status["cluster"]["reachableVoters"] == 3,
            "{}",
            status["members"]
        );
        ensure!(
            status["problems"] == Value::Array(Vec::new()),
            "{}",
            status["problems"]
        );
        Ok(())
    })
    .await?;
    cluster.member_mut(2).kill()?;
    eventually("one is lost", || async {
        let status = status(port).await?;
        ensure!(status["cluster"]["margin"] == 0, "{}", status["cluster"]);
        let members = status["members"].as_array().context("members")?;
        let lost = members.iter().filter(|it| it["isReachable"] == false);
        let lost: Vec<&Value> = lost.map(|it| &it["name"]).collect();
        ensure!(lost == ["m3"], "{lost:?}");
        let problems = status["problems"].to_string();
        ensure!(
            problems.contains("losing one more stops all writes"),
            "{problems}"
        );
        Ok(())
    })
    .await?;
    cluster.member_mut(1).kill()?;
    eventually("no quorum is left", || async {
        let status = status(port).await?;
        ensure!(
            status["problems"][0]["level"] == "error",
            "{}",
            status["problems"]
        );
        ensure!(status["cluster"]["margin"] == -1, "{}", status["cluster"]);
        Ok(())
    })
    .await?;
    cluster.stop().await
}

/// What a page without a browser can be held to: it is HTML, every element that the script asks for is there, and
/// everything that it reads is in the answer.
#[tokio::test]
async fn the_page_is_html_and_its_script_reads_what_is_there() -> Result<()> {
    let server = served().await?;
    let page = http::get(server.metrics_port(), "/status").await?;
    ensure!(page.status == 200);
    let parsed = scraper::Html::parse_document(&page.body);
    ensure!(parsed.errors.is_empty(), "{:?}", parsed.errors);
    let select = |selector: &str| {
        let selector = scraper::Selector::parse(selector).expect("a selector");
        parsed.select(&selector).count()
    };
    let (_, script) = page.body.split_once("<script>").context("no script")?;
    for (call, selector) in [("at(\"", "#"), ("show(\"", "#")] {
        let asked = script.split(call).skip(1);
        let ids: BTreeSet<&str> = asked.filter_map(|it| it.split('"').next()).collect();
        ensure!(ids.len() > 3, "{ids:?}");
        for id in ids {
            ensure!(select(&format!("{selector}{id}")) == 1, "no element {id}");
        }
    }
    for wanted in [
        "html[lang]",
        "meta[name=viewport]",
        "h1",
        "main",
        "noscript",
        "th[scope]",
    ] {
        ensure!(select(wanted) > 0, "no {wanted}");
    }
    ensure!(select("table") == select("[role=region][aria-labelledby][tabindex] > table"));

    let status = status(server.metrics_port()).await?;
    let objects = [
        "member", "cluster", "store", "watch", "raft", "prefixes", "recent",
    ];
    for object in objects {
        let begin = format!("{object}.");
        let reads = script.split(&begin).skip(1);
        for field in reads.filter_map(|it| it.split(|c: char| !c.is_ascii_alphanumeric()).next()) {
            let value = match object {
                "member" if status[object].get(field).is_none() => status["members"][0].get(field),
                _ => status[object].get(field),
            };
            ensure!(value.is_some(), "{object}.{field} is not in {status}");
        }
    }
    let (_, charts) = script.split_once("const CHARTS").context("no charts")?;
    let (charts, _) = charts.split_once("];\n").context("no end of the charts")?;
    let pairs = charts.split("[\"").skip(1);
    let columns: BTreeSet<&str> = pairs.filter_map(|it| it.split('"').nth(2)).collect();
    ensure!(columns.len() > 8, "{columns:?}");
    for column in columns {
        let points = &status["recent"][column];
        ensure!(points.is_array(), "recent.{column} is not in {status}");
    }
    server.stop().await
}

/// Where scales end, asked of the page's own script.
#[test]
fn a_scale_of_latencies_ends_above_the_usual_ones() -> Result<()> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let page = fs::read_to_string(root.join("../crates/server/src/http/status/page.html"))?;
    let begin = page.find("function end(").context("no end of a scale")?;
    let (functions, _) = page[begin..]
        .split_once("function showCharts(")
        .context("no charts")?;
    let asked = r#"
        const usual = Array.from({ length: 99 }, (_, n) => 2 + n % 3);
        const ends = [
            end([...usual, 60000], "ms"), end([...usual, 9], "ms"), end([0, 0, 0, 5], "ms"), end([], "ms"),
            end([...usual, 60000], "/s"),
        ];
        console.log(ends.join(" "));"#;
    let script = format!("{functions}{asked}");
    let done = Command::new(binaries::node()?)
        .args(["--eval", &script])
        .output()?;
    let said = String::from_utf8_lossy(&done.stdout);
    ensure!(said.trim() == "6 10 5 1 60000", "{done:?}");
    Ok(())
}

/// One request that took a minute, among many that took some milliseconds. In a real browser, if there is one.
#[tokio::test]
async fn a_slow_request_leaves_the_others_to_be_seen() -> Result<()> {
    let Some(browser) = browser::Browser::find()? else {
        return Ok(());
    };
    let server = served().await?;
    let page = http::get(server.metrics_port(), "/status").await?.body;
    let mut status = status(server.metrics_port()).await?;
    let recent = status["recent"].as_object_mut().context("points")?;
    for (name, column) in recent.iter_mut().filter(|(_, column)| column.is_array()) {
        *column = (0..POINTS).map(|point| point_of(name, point)).collect();
    }
    let status = status.to_string();
    let url = MadeUp { page, status }.serve().await?;
    let shown = tokio::task::spawn_blocking(move || {
        browser.page(
            "slow",
            browser::Theme::Light,
            1280,
            &format!("{url}/status"),
        )
    })
    .await??;
    let figures = || shown.split("<figure").filter(|it| it.contains("p99"));
    let latencies = figures().next().context("no chart of latencies")?;
    ensure!(latencies.contains("top: 6 ms, ▲ 60 s"), "{latencies}");
    let marks: Vec<&str> = latencies.split("class=\"over ").skip(1).collect();
    ensure!(marks.len() == 1 && marks[0].starts_with("two"), "{marks:?}");
    ensure!(
        marks[0].contains("<title>writes 60 s at "),
        "the mark says what it stands for: {marks:?}"
    );
    // Where no request was that slow, everything is on the scale.
    let disk = figures().nth(1).context("no chart of the disk")?;
    ensure!(
        disk.contains("top: 10 ms<") && !disk.contains("class=\"over"),
        "{disk}"
    );
    server.stop().await
}

/// Points in five minutes.
const POINTS: u64 = 150;

/// A point of a column.
fn point_of(column: &str, point: u64) -> Value {
    match (column, point) {
        ("atMs", _) => (1_795_262_400_000 + 2000 * point).into(),
        ("writeP99Ms", 70) => 60_000.into(),
        ("readP99Ms" | "writeP99Ms", _) => (2 + point % 3).into(),
        // Not far from the others.
        ("fsyncP99Ms", 70) => 9.into(),
        ("fsyncP99Ms", _) => (3 + point % 2).into(),
        _ => 1.into(),
    }
}

/// In a real browser, if there is one: `tests/fetch-chromium`.
#[tokio::test]
async fn a_browser_shows_the_page() -> Result<()> {
    let Some(browser) = browser::Browser::find()? else {
        return Ok(());
    };
    let server = served().await?;
    eventually("there are points", || async {
        let status = status(server.metrics_port()).await?;
        ensure!(
            !status["recent"]["atMs"]
                .as_array()
                .context("points")?
                .is_empty()
        );
        Ok(())
    })
    .await?;
    let url = format!("http://127.0.0.1:{}/status", server.metrics_port());
    for theme in [browser::Theme::Light, browser::Theme::Dark] {
        for width in [360, 1280] {
            browser.shows(&url, theme, width)?;
        }
    }
    server.stop().await
}
