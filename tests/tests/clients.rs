//! Clients in other languages, and another client in this one, against a kvorum member.
//!
//! Their tests are in `tests/clients/`; here they are given a member and run.

use std::path::Path;
use std::process::{Command, Output, Stdio};

use anyhow::{Context as _, Result, ensure};
use api::etcdserverpb as pb;
use api::etcdserverpb::auth_client::AuthClient;
use testkit::certs::{self, Certs};
use testkit::process::command;
use testkit::{Spec, binaries};

/// What of `etcd-client`'s own tests needs several members, one of which is started later.
const CLUSTER_TESTS: &str = "test_cluster";

#[tokio::test]
async fn python_etcd3() -> Result<()> {
    let server = Spec::kvorum().start().await?;
    let mut python = command(&binaries::python()?);
    python
        .arg("-B")
        .arg(binaries::checkout().join("tests/clients/python/test_etcd3.py"));
    python.env("KVORUM_TEST_PORT", server.client_port().to_string());
    // The client's generated code is older than the C++ implementation of protobuf that it meets.
    python.env("PROTOCOL_BUFFERS_PYTHON_IMPLEMENTATION", "python");
    passes(python.stdin(Stdio::null()).output()?)?;
    server.stop().await
}

#[tokio::test]
async fn rust_etcd_client() -> Result<()> {
    let server = Spec::kvorum().start().await?;
    let mut cargo = command(Path::new(env!("CARGO")));
    let manifest = binaries::checkout().join("tests/clients/rust/Cargo.toml");
    cargo
        .args(["test", "--locked", "--manifest-path"])
        .arg(manifest);
    // Its own build directory: this test runs under a cargo that holds the other's lock.
    cargo.env("CARGO_TARGET_DIR", binaries::cache()?.join("rust-target"));
    cargo.env("PROTOC", binaries::protoc()?);
    cargo.env("KVORUM_TEST_ENDPOINT", server.client_url());
    passes(cargo.stdin(Stdio::null()).output()?)?;
    server.stop().await
}

/// The tests that `etcd-client` is published with; `tests/fetch-clients` has copied them. Also those that its
/// authors do not run by default because they ask for an etcd 3.7, which this is as far as they go.
#[tokio::test]
async fn rust_etcd_clients_own_tests() -> Result<()> {
    let suite = binaries::cache()?.join("etcd-client/Cargo.toml");
    ensure!(suite.is_file(), "tests/fetch-clients was not run");
    // They wait four seconds for a token to expire.
    let server = Spec::kvorum().arg("--auth-token-ttl=2").start().await?;
    let mut auth = AuthClient::connect(server.client_url()).await?;
    root(&mut auth, "rootpwd").await?;
    let mut cargo = command(Path::new(env!("CARGO")));
    cargo
        .args(["test", "--locked", "--manifest-path"])
        .arg(suite);
    cargo.args(["--test", "client", "--test", "namespace"]);
    cargo.args(["--", "--include-ignored", "--skip", CLUSTER_TESTS]);
    cargo.env("CARGO_TARGET_DIR", binaries::cache()?.join("rust-target"));
    cargo.env("PROTOC", binaries::protoc()?);
    let endpoint = format!("127.0.0.1:{}", server.client_port());
    cargo.env("KVORUM_TEST_ENDPOINT", endpoint);
    passes(cargo.stdin(Stdio::null()).output()?)?;
    server.stop().await
}

/// The user root with the role root, while authentication is off.
async fn root(auth: &mut AuthClient<tonic::transport::Channel>, password: &str) -> Result<()> {
    let (user, role) = ("root".to_owned(), "root".to_owned());
    let add = pb::AuthUserAddRequest {
        name: user.clone(),
        password: password.to_owned(),
        ..pb::AuthUserAddRequest::default()
    };
    auth.user_add(add).await?;
    let name = role.clone();
    auth.role_add(pb::AuthRoleAddRequest { name }).await?;
    auth.user_grant_role(pb::AuthUserGrantRoleRequest { user, role })
        .await?;
    Ok(())
}

#[tokio::test]
async fn node_etcd3() -> Result<()> {
    let server = Spec::kvorum().arg("--bcrypt-cost=4").start().await?;
    let mut mocha = mocha()?;
    mocha.arg(binaries::checkout().join("tests/clients/node/test_etcd3.js"));
    mocha.env("KVORUM_TEST_ENDPOINT", server.client_url());
    passes(mocha.stdin(Stdio::null()).output()?)?;
    server.stop().await
}

/// The tests that the Node client's authors have published with its release 1.0.2; later ones come without.
#[tokio::test]
async fn node_etcd3s_own_tests() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let certs = certs::generate(dir.path(), "client")?;
    // Clients of theirs have no certificate.
    let server = Spec::kvorum()
        .mutual_tls(certs.clone())
        .arg("--client-cert-auth=false")
        .arg("--trusted-ca-file=")
        .arg("--bcrypt-cost=4")
        .start()
        .await?;
    lay_out(&certs, dir.path())?;
    let suite = binaries::cache()?.join("node/node_modules/etcd3-suite/lib/test");
    let mut mocha = mocha()?;
    mocha.arg("--require").arg(suite.join("_setup.js"));
    mocha.arg(suite.join("*.test.js"));
    // Some of them mock the time and count on what is fast: with a real etcd one in 140 fails now and then.
    mocha.args(["--retries", "3"]);
    mocha.env("KVORUM_TEST_CERTS", dir.path());
    mocha.env("ETCD_ADDR", format!("127.0.0.1:{}", server.client_port()));
    mocha.env("ETCD_VERSION", "3.5.30");
    passes(mocha.stdin(Stdio::null()).output()?)?;
    server.stop().await
}

/// Puts the certificates where the tests look for them.
fn lay_out(certs: &Certs, dir: &Path) -> Result<()> {
    let below = dir.join("src/test/certs");
    for (from, to) in [
        (&certs.ca, "certs/ca.crt"),
        (&certs.server.cert, "certs/etcd0.localhost.crt"),
        (&certs.server.key, "private/etcd0.localhost.key"),
    ] {
        let to = below.join(to);
        std::fs::create_dir_all(to.parent().context("it is in a directory")?)?;
        std::fs::copy(from, to)?;
    }
    Ok(())
}

/// The Node client's test runner.
fn mocha() -> Result<Command> {
    let packages = binaries::cache()?.join("node/node_modules");
    let runner = packages.join("mocha/bin/mocha.js");
    ensure!(runner.is_file(), "tests/fetch-clients was not run");
    let mut mocha = command(&binaries::node()?);
    mocha.env("NODE_PATH", packages);
    mocha.arg(runner).args(["--exit", "--timeout", "60000"]);
    Ok(mocha)
}

fn passes(output: Output) -> Result<()> {
    let (stdout, stderr) = (
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr),
    );
    ensure!(
        output.status.success(),
        "{}\n{stdout}\n{stderr}",
        output.status
    );
    Ok(())
}
