//! Clients in other languages, and another client in this one, against a kvorum member.
//!
//! Their tests are in `tests/clients/`; here they are given a member and run.

use std::path::Path;
use std::process::{Output, Stdio};

use anyhow::{Result, ensure};
use testkit::process::command;
use testkit::{Spec, binaries};

/// What `etcd-client`'s own tests are called that need authentication.
const AUTH_TESTS: [&str; 3] = ["test_auth", "test_role", "test_user"];

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

/// The tests that `etcd-client` is published with, for one member; `tests/fetch-clients` has copied them.
/// Those that ask for an etcd 3.7 or for several members are not run by its authors by default either.
#[tokio::test]
async fn rust_etcd_clients_own_tests() -> Result<()> {
    let suite = binaries::cache()?.join("etcd-client/Cargo.toml");
    ensure!(suite.is_file(), "tests/fetch-clients was not run");
    let server = Spec::kvorum().start().await?;
    let mut cargo = command(Path::new(env!("CARGO")));
    cargo
        .args([
            "test",
            "--locked",
            "--test",
            "client",
            "--test",
            "namespace",
        ])
        .arg("--manifest-path")
        .arg(suite);
    cargo
        .arg("--")
        .args(AUTH_TESTS.map(|name| format!("--skip={name}")));
    cargo.env("CARGO_TARGET_DIR", binaries::cache()?.join("rust-target"));
    cargo.env("PROTOC", binaries::protoc()?);
    let endpoint = format!("127.0.0.1:{}", server.client_port());
    cargo.env("KVORUM_TEST_ENDPOINT", endpoint);
    passes(cargo.stdin(Stdio::null()).output()?)?;
    server.stop().await
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
