//! Where the programs are that the tests run: kvorum as built here, and the outside programs
//! that `tests/fetch-clients` put into a cache. A missing program is an error, never a skip.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, ensure};

/// The kvorum binary: `KVORUM_BIN`, else the one that was built with the test or benchmark that asks.
///
/// # Errors
/// When there is none.
pub fn kvorum() -> Result<PathBuf> {
    match std::env::var_os("KVORUM_BIN") {
        Some(path) => existing(PathBuf::from(path), "KVORUM_BIN"),
        None => built("kvorum"),
    }
}

/// The server like k3s, as it was built with the test that asks.
///
/// # Errors
/// When there is none.
pub fn k3s_like() -> Result<PathBuf> {
    built("k3s-like")
}

/// A program of this workspace, of the same build as the program that runs: a release's tests run the
/// release, and others the build for development.
fn built(name: &str) -> Result<PathBuf> {
    let running = std::env::current_exe().context("which program this is")?;
    let folder = running.parent().context("a program is in a folder")?;
    // Tests are one folder deeper.
    let folder = match folder.file_name() {
        Some(deps) if deps == "deps" => folder.parent().unwrap_or(folder),
        _ => folder,
    };
    existing(folder.join(name), "it was not built: use tests/run")
}

/// A real etcd.
///
/// # Errors
/// When it was not fetched.
pub fn etcd() -> Result<PathBuf> {
    fetched("KVORUM_TEST_ETCD", "etcd/usr/bin/etcd")
}

/// An older etcd, by the first two numbers of its version, as in `3.4`; `None` when it cannot be had here.
///
/// # Errors
/// When there is no place for it.
pub fn older_etcd(version: &str) -> Result<Option<PathBuf>> {
    let variable = format!("KVORUM_TEST_ETCD_{}", version.replace('.', "_"));
    let path = match std::env::var_os(variable) {
        Some(path) => PathBuf::from(path),
        None => cache()?.join(format!("etcd-{version}/usr/bin/etcd")),
    };
    Ok(path.is_file().then_some(path))
}

/// etcd's command line client.
///
/// # Errors
/// When it was not fetched.
pub fn etcdctl() -> Result<PathBuf> {
    fetched("KVORUM_TEST_ETCDCTL", "etcd/usr/bin/etcdctl")
}

/// etcd's command line tool for data directories.
///
/// # Errors
/// When it was not fetched.
pub fn etcdutl() -> Result<PathBuf> {
    fetched("KVORUM_TEST_ETCDUTL", "etcd/usr/bin/etcdutl")
}

/// The Python interpreter of the environment that holds the Python client.
///
/// # Errors
/// When it was not made.
pub fn python() -> Result<PathBuf> {
    fetched("KVORUM_TEST_PYTHON", "python/bin/python3")
}

/// The JavaScript runtime that runs the Node client.
///
/// # Errors
/// When it was neither found nor fetched.
pub fn node() -> Result<PathBuf> {
    fetched("KVORUM_TEST_NODE", "nodejs/node")
}

/// The protobuf compiler that the Rust client's build asks for.
///
/// # Errors
/// When it was not fetched.
pub fn protoc() -> Result<PathBuf> {
    fetched("KVORUM_TEST_PROTOC", "protoc/protoc")
}

/// valgrind, which counts instructions.
///
/// # Errors
/// When it was not fetched.
pub fn valgrind() -> Result<PathBuf> {
    fetched("KVORUM_TEST_VALGRIND", "valgrind/valgrind")
}

/// Where fetched programs and outside builds live: never inside the checkout.
///
/// # Errors
/// When the environment names neither a cache nor a home directory.
pub fn cache() -> Result<PathBuf> {
    if let Some(path) = std::env::var_os("KVORUM_TEST_CACHE") {
        return Ok(path.into());
    }
    let base = match std::env::var_os("XDG_CACHE_HOME") {
        Some(path) => PathBuf::from(path),
        None => PathBuf::from(std::env::var_os("HOME").context("HOME is not set")?).join(".cache"),
    };
    Ok(base.join("kvorum-tests"))
}

/// The root of the checkout.
#[must_use]
pub fn checkout() -> PathBuf {
    let manifest = Path::new(env!("CARGO_MANIFEST_DIR"));
    manifest.ancestors().nth(2).unwrap_or(manifest).to_owned()
}

fn fetched(variable: &str, below_cache: &str) -> Result<PathBuf> {
    match std::env::var_os(variable) {
        Some(path) => existing(PathBuf::from(path), variable),
        None => existing(
            cache()?.join(below_cache),
            "tests/fetch-clients was not run",
        ),
    }
}

fn existing(path: PathBuf, origin: &str) -> Result<PathBuf> {
    ensure!(path.is_file(), "{} is missing ({origin})", path.display());
    Ok(path)
}
