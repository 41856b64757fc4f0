//! A real Kubernetes API server (k8s.io/apiextensions-apiserver, built by `tests/fetch-apiserver`)
//! on a kvorum member: Kubernetes' own storage layer, watch cache and compactor decide whether
//! kvorum is an etcd.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};
use futures_util::{StreamExt, TryStreamExt, stream};
use kvorum_tests::takeover::take_place;
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use testkit::process::Process;
use testkit::{Port, Server, Spec, certs, eventually, note};

const OBJECTS: usize = 2_000;
/// Those that an etcd holds when kvorum takes its place.
const MIGRATED_OBJECTS: usize = 300;
const PAGE: usize = 300;
/// Requests under way at once while objects are made.
const CONCURRENCY: usize = 32;
/// Short, so that a test sees history expire.
const COMPACTION_INTERVAL: &str = "3s";
/// `tests/fetch-apiserver`'s word for "the packages cannot be had or built today".
const NOT_TO_BE_HAD: i32 = 3;
const CRDS: &str = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";
const WIDGETS: &str = "/apis/kvorum.test/v1/namespaces/default/widgets";
/// The admission plugins that need a core API, which this server has not.
const DISABLED_PLUGINS: &str = "NamespaceLifecycle,MutatingAdmissionWebhook,\
    ValidatingAdmissionWebhook,ValidatingAdmissionPolicy,MutatingAdmissionPolicy";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kubernetes_stores_lists_watches_and_expires_through_restarts() -> Result<()> {
    let Some(binary) = api_server_binary()? else {
        note("NOT RUN: the Kubernetes API server could not be built on this machine today");
        return Ok(());
    };
    let mut member = Spec::kvorum().start().await?;
    let mut api = ApiServer::start(&binary, &member).await?;
    define_widgets(&api).await?;
    let first_page = create_and_page_through(&api).await?;
    conflicting_updates_are_refused(&api).await?;
    watch_sees_every_change_in_order(&api).await?;
    deleted_objects_are_gone(&api).await?;
    old_pages_expire(&api, &first_page).await?;
    api = survives_its_own_restart(api, &binary, &member).await?;
    watch_goes_on(&api, &mut member, Interruption::Crash).await?;
    drop(api);
    member.stop().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kubernetes_goes_on_when_kvorum_takes_the_place_of_its_etcd() -> Result<()> {
    let Some(binary) = api_server_binary()? else {
        note("NOT RUN: the Kubernetes API server could not be built on this machine today");
        return Ok(());
    };
    let mut member = Spec::etcd().start().await?;
    let mut api = ApiServer::start(&binary, &member).await?;
    define_widgets(&api).await?;
    create(&api, MIGRATED_OBJECTS).await?;
    api.ok(Method::DELETE, &format!("{WIDGETS}/w00001"), None)
        .await?;
    let before = objects(&api).await?;
    watch_goes_on(&api, &mut member, Interruption::Migration).await?;
    conflicting_updates_are_refused(&api).await?;
    api = survives_its_own_restart(api, &binary, &member).await?;
    let mut after = objects(&api).await?;
    after.retain(|name, _object| before.contains_key(name));
    // Only that one was written to.
    let changed: Vec<&String> = before
        .keys()
        .filter(|name| before.get(*name) != after.get(*name))
        .collect();
    ensure!(changed == ["w00000"], "{changed:?} are not what they were");
    watch_sees_every_change_in_order(&api).await?;
    drop(api);
    member.stop().await
}

/// All objects by their names, with their resource versions and all.
async fn objects(api: &ApiServer) -> Result<BTreeMap<String, Value>> {
    let list = api.get(WIDGETS).await?;
    let items = list["items"].as_array().context("no items")?;
    items
        .iter()
        .map(|item| Ok((text(item, "/metadata/name")?, item.clone())))
        .collect()
}

/// `tests/run` builds it, or says `none`; without `tests/run` it is built here.
fn api_server_binary() -> Result<Option<PathBuf>> {
    match std::env::var("KVORUM_TEST_APISERVER") {
        Ok(none) if none == "none" => return Ok(None),
        Ok(path) => return Ok(Some(path.into())),
        Err(_not_set) => {}
    }
    let script = testkit::binaries::checkout().join("tests/fetch-apiserver");
    let output = Command::new(script)
        .output()
        .context("running tests/fetch-apiserver")?;
    match output.status.code() {
        Some(0) => Ok(Some(PathBuf::from(
            String::from_utf8(output.stdout)?.trim(),
        ))),
        Some(NOT_TO_BE_HAD) => Ok(None),
        _ => bail!(
            "tests/fetch-apiserver: {}",
            String::from_utf8_lossy(&output.stderr)
        ),
    }
}

/// The API server as a process, and an administrator's client of it.
struct ApiServer {
    client: reqwest::Client,
    base: String,
    _process: Process,
    _port: Port,
    _dir: tempfile::TempDir,
}

impl ApiServer {
    async fn start(binary: &Path, member: &Server) -> Result<Self> {
        let dir = tempfile::tempdir()?;
        let certs = certs::generate(dir.path(), "admin")?;
        let port = Port::reserve()?;
        let kubeconfig = dir.path().join("kubeconfig");
        std::fs::write(&kubeconfig, kubeconfig_to_nowhere())?;
        let kubeconfig = kubeconfig.display();
        let args = [
            format!("--etcd-servers={}", member.client_url()),
            format!("--etcd-compaction-interval={COMPACTION_INTERVAL}"),
            "--bind-address=127.0.0.1".to_owned(),
            format!("--secure-port={}", port.number()),
            format!("--cert-dir={}", dir.path().join("own").display()),
            format!("--kubeconfig={kubeconfig}"),
            format!("--authentication-kubeconfig={kubeconfig}"),
            format!("--authorization-kubeconfig={kubeconfig}"),
            "--authentication-skip-lookup".to_owned(),
            format!("--client-ca-file={}", certs.ca.display()),
            "--authorization-always-allow-paths=*".to_owned(),
            "--enable-priority-and-fairness=false".to_owned(),
            format!("--disable-admission-plugins={DISABLED_PLUGINS}"),
        ];
        let log = dir.path().join("log");
        let process = Process::start(binary, &args, &log)?;
        let mut identity = std::fs::read(&certs.client.cert)?;
        identity.extend(std::fs::read(&certs.client.key)?);
        let client = reqwest::Client::builder()
            .use_rustls_tls()
            .identity(reqwest::Identity::from_pem(&identity)?)
            // The server makes its own certificate; who it is does not matter here.
            .danger_accept_invalid_certs(true)
            .build()?;
        let base = format!("https://127.0.0.1:{}", port.number());
        let server = Self {
            client,
            base,
            _process: process,
            _port: port,
            _dir: dir,
        };
        eventually("the API server reaches its etcd", || async {
            let (status, _) = server.request(Method::GET, "/livez/etcd", None).await?;
            ensure!(status == StatusCode::OK, "/livez/etcd: {status}");
            Ok(())
        })
        .await
        .with_context(|| testkit::process::tail(&log, 40))?;
        Ok(server)
    }

    async fn request(
        &self,
        method: Method,
        path: &str,
        body: Option<&Value>,
    ) -> Result<(StatusCode, Value)> {
        let mut request = self.client.request(method, format!("{}{path}", self.base));
        if let Some(body) = body {
            request = request
                .header("content-type", "application/json")
                .body(body.to_string());
        }
        let response = request.send().await?;
        let status = response.status();
        let text = response.text().await?;
        // /livez answers plain text.
        Ok((
            status,
            serde_json::from_str(&text).unwrap_or(Value::String(text)),
        ))
    }

    async fn ok(&self, method: Method, path: &str, body: Option<&Value>) -> Result<Value> {
        let (status, answer) = self.request(method.clone(), path, body).await?;
        ensure!(status.is_success(), "{method} {path}: {status} {answer}");
        Ok(answer)
    }

    async fn get(&self, path: &str) -> Result<Value> {
        self.ok(Method::GET, path, None).await
    }

    async fn watch(&self, from: &str) -> Result<Watch> {
        let url = format!("{}{WIDGETS}?watch=1&resourceVersion={from}", self.base);
        let response = self.client.get(url).send().await?;
        ensure!(
            response.status() == StatusCode::OK,
            "watch: {}",
            response.status()
        );
        Ok(Watch {
            response,
            buffered: Vec::new(),
        })
    }
}

/// A watch as Kubernetes clients hold it: one JSON object a line.
struct Watch {
    response: reqwest::Response,
    buffered: Vec<u8>,
}

impl Watch {
    /// The next event, or `None` when the server has ended the watch.
    async fn next(&mut self) -> Result<Option<Value>> {
        loop {
            if let Some(end) = self.buffered.iter().position(|&byte| byte == b'\n') {
                let line: Vec<u8> = self.buffered.drain(..=end).collect();
                return Ok(Some(serde_json::from_slice(&line)?));
            }
            match tokio::time::timeout(testkit::patience::patience(), self.response.chunk()).await?
            {
                Ok(Some(chunk)) => self.buffered.extend_from_slice(&chunk),
                Ok(None) | Err(_) => return Ok(None),
            }
        }
    }
}

async fn define_widgets(api: &ApiServer) -> Result<()> {
    let definition = json!({
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": "widgets.kvorum.test"},
        "spec": {
            "group": "kvorum.test",
            "names": {"kind": "Widget", "plural": "widgets", "singular": "widget"},
            "scope": "Namespaced",
            "versions": [{
                "name": "v1", "served": true, "storage": true,
                "schema": {"openAPIV3Schema": {
                    "type": "object", "x-kubernetes-preserve-unknown-fields": true,
                }},
            }],
        },
    });
    api.ok(Method::POST, CRDS, Some(&definition)).await?;
    eventually("widgets are served", || async {
        api.get(WIDGETS).await.map(|_list| ())
    })
    .await
}

fn widget(name: &str, n: usize) -> Value {
    json!({
        "apiVersion": "kvorum.test/v1", "kind": "Widget",
        "metadata": {"name": name, "namespace": "default"},
        "spec": {"n": n, "filler": "x".repeat(500)},
    })
}

async fn create(api: &ApiServer, objects: usize) -> Result<()> {
    stream::iter(0..objects)
        .map(|n| async move {
            let object = widget(&format!("w{n:05}"), n);
            api.ok(Method::POST, WIDGETS, Some(&object))
                .await
                .map(|_created| ())
        })
        .buffer_unordered(CONCURRENCY)
        .try_collect()
        .await
}

/// Returns the token with which the second page can be asked for.
async fn create_and_page_through(api: &ApiServer) -> Result<String> {
    create(api, OBJECTS).await?;
    let mut names = BTreeSet::new();
    let mut token = String::new();
    let mut first = None;
    loop {
        let page = api
            .get(&format!("{WIDGETS}?limit={PAGE}&continue={token}"))
            .await?;
        for item in page["items"].as_array().context("no items")? {
            let name = text(item, "/metadata/name")?;
            ensure!(names.insert(name.clone()), "{name} is on two pages");
        }
        token = page
            .pointer("/metadata/continue")
            .and_then(Value::as_str)
            .unwrap_or("")
            .to_owned();
        if token.is_empty() {
            break;
        }
        let left = page
            .pointer("/metadata/remainingItemCount")
            .and_then(Value::as_u64);
        ensure!(
            left == Some((OBJECTS - names.len()) as u64),
            "{left:?} left at {}",
            names.len()
        );
        first.get_or_insert(token.clone());
    }
    ensure!(
        names.len() == OBJECTS,
        "{} of {OBJECTS} objects are listed",
        names.len()
    );
    first.context("one page held everything")
}

async fn conflicting_updates_are_refused(api: &ApiServer) -> Result<()> {
    let path = format!("{WIDGETS}/w00000");
    let read = api.get(&path).await?;
    let mut update = read.clone();
    update["spec"]["n"] = json!(4711);
    api.ok(Method::PUT, &path, Some(&update)).await?;
    let (status, answer) = api.request(Method::PUT, &path, Some(&update)).await?;
    ensure!(
        status == StatusCode::CONFLICT,
        "an update of an old version: {status} {answer}"
    );
    ensure!(
        api.get(&path).await?["spec"]["n"] == json!(4711),
        "the first update is not there"
    );
    let (status, _) = api
        .request(Method::POST, WIDGETS, Some(&widget("w00000", 1)))
        .await?;
    ensure!(
        status == StatusCode::CONFLICT,
        "creating what exists: {status}"
    );
    Ok(())
}

async fn watch_sees_every_change_in_order(api: &ApiServer) -> Result<()> {
    let from = text(
        &api.get(&format!("{WIDGETS}?limit=1")).await?,
        "/metadata/resourceVersion",
    )?;
    let mut watch = api.watch(&from).await?;
    let mut expected = Vec::new();
    for n in 0..50 {
        let name = format!("watched-{n}");
        let created = api
            .ok(Method::POST, WIDGETS, Some(&widget(&name, n)))
            .await?;
        expected.push(("ADDED".to_owned(), name.clone(), version(&created)?));
        if n % 2 == 0 {
            let path = format!("{WIDGETS}/{name}");
            api.ok(Method::DELETE, &path, None).await?;
            expected.push(("DELETED".to_owned(), name, 0));
        }
    }
    let mut last = 0;
    for (kind, name, at) in expected {
        let event = watch.next().await?.context("the watch ended early")?;
        let seen = (
            text(&event, "/type")?,
            text(&event, "/object/metadata/name")?,
        );
        ensure!(
            seen == (kind.clone(), name.clone()),
            "{seen:?} instead of {kind} {name}"
        );
        let seen_at = version(&event["object"])?;
        ensure!(
            at == 0 || at == seen_at,
            "{name} at {seen_at} instead of {at}"
        );
        ensure!(seen_at > last, "{seen_at} comes after {last}");
        last = seen_at;
    }
    Ok(())
}

async fn deleted_objects_are_gone(api: &ApiServer) -> Result<()> {
    let path = format!("{WIDGETS}/w00001");
    api.ok(Method::DELETE, &path, None).await?;
    let (status, _) = api.request(Method::GET, &path, None).await?;
    ensure!(
        status == StatusCode::NOT_FOUND,
        "reading what was deleted: {status}"
    );
    Ok(())
}

/// Kubernetes' own compactor must have dropped the history that an old page needs.
async fn old_pages_expire(api: &ApiServer, token: &str) -> Result<()> {
    eventually("an old page has expired", || async {
        let path = format!("{WIDGETS}?limit={PAGE}&continue={token}");
        let (status, answer) = api.request(Method::GET, &path, None).await?;
        ensure!(status == StatusCode::GONE, "{status}");
        ensure!(text(&answer, "/reason")? == "Expired", "{answer}");
        Ok(())
    })
    .await
}

async fn survives_its_own_restart(
    api: ApiServer,
    binary: &Path,
    member: &Server,
) -> Result<ApiServer> {
    let before = names(&api).await?;
    drop(api);
    let api = ApiServer::start(binary, member).await?;
    eventually("widgets are served again", || async {
        api.get(WIDGETS).await.map(|_list| ())
    })
    .await?;
    ensure!(names(&api).await? == before, "the restart changed the list");
    Ok(api)
}

/// What happens to the member while a watch is open.
#[derive(Clone, Copy)]
enum Interruption {
    /// kill -9, and a new start.
    Crash,
    /// It is an etcd, and kvorum takes its place.
    Migration,
}

impl Interruption {
    async fn happen(self, member: &mut Server) -> Result<()> {
        match self {
            Self::Crash => member.kill()?,
            Self::Migration => {
                member.terminate().await?;
                return take_place(member).await;
            }
        }
        member.restart().await
    }
}

async fn watch_goes_on(
    api: &ApiServer,
    member: &mut Server,
    interruption: Interruption,
) -> Result<()> {
    let list = api.get(&format!("{WIDGETS}?limit=1")).await?;
    let mut from = text(&list, "/metadata/resourceVersion")?;
    let mut watch = api.watch(&from).await?;
    let mut seen = Vec::new();
    api.ok(Method::POST, WIDGETS, Some(&widget("before", 0)))
        .await?;
    interruption.happen(member).await?;
    for n in 0..20 {
        let object = widget(&format!("after-{n:02}"), n);
        eventually("a write after the interruption", || async {
            let (status, answer) = api.request(Method::POST, WIDGETS, Some(&object)).await?;
            // An earlier try may have got through although its answer was lost.
            ensure!(
                status.is_success() || status == StatusCode::CONFLICT,
                "{status} {answer}"
            );
            Ok(())
        })
        .await?;
    }
    // Like any informer: goes on where it was, when the API server ends a watch.
    while seen.len() < 21 {
        match watch.next().await? {
            Some(event) => {
                from = text(&event, "/object/metadata/resourceVersion")?;
                seen.push(text(&event, "/object/metadata/name")?);
            }
            None => watch = api.watch(&from).await?,
        }
    }
    let mut expected = vec!["before".to_owned()];
    expected.extend((0..20).map(|n| format!("after-{n:02}")));
    ensure!(seen == expected, "the watch saw {seen:?}");
    Ok(())
}

async fn names(api: &ApiServer) -> Result<BTreeSet<String>> {
    let list = api.get(WIDGETS).await?;
    let items = list["items"].as_array().context("no items")?;
    items
        .iter()
        .map(|item| text(item, "/metadata/name"))
        .collect()
}

fn text(value: &Value, pointer: &str) -> Result<String> {
    let found = value.pointer(pointer).and_then(Value::as_str);
    Ok(found
        .with_context(|| format!("no {pointer} in {value}"))?
        .to_owned())
}

fn version(object: &Value) -> Result<u64> {
    Ok(text(object, "/metadata/resourceVersion")?.parse()?)
}

/// The server insists on a kubeconfig of a core API. There is none, and nothing asks for it.
fn kubeconfig_to_nowhere() -> String {
    json!({
        "apiVersion": "v1", "kind": "Config", "current-context": "none",
        "clusters": [{"name": "none", "cluster": {"server": "https://127.0.0.1:1"}}],
        "contexts": [{"name": "none", "context": {"cluster": "none", "user": "none"}}],
        "users": [{"name": "none", "user": {"token": "none"}}],
    })
    .to_string()
}
