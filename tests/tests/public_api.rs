//! What the library promises to a program that embeds it: the list in `crates/kvorum/public-api.txt`.
//!
//! A change of it is seen here, and accepted with
//!
//! ```text
//! KVORUM_ACCEPT_API=1 cargo test --workspace --test public_api
//! ```
//!
//! And each struct and enum of the list has an example; `public_api/examples.rs` says what counts as one.

#[path = "public_api/examples.rs"]
mod examples;
#[path = "public_api/listing.rs"]
mod listing;
#[path = "public_api/sources.rs"]
mod sources;

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, ensure};

use sources::Sources;

const ACCEPT: &str = "KVORUM_ACCEPT_API";
const HEAD: &str = "# What a program that embeds kvorum can see of it, without documentation. See \"Stability\" in\n\
                    # src/lib.rs. Made by: KVORUM_ACCEPT_API=1 cargo test --workspace --test public_api\n";

#[test]
fn the_public_api_is_the_one_that_is_listed() -> Result<()> {
    let crates = crates()?;
    let mut sources = Sources::new(&crates);
    let found = format!("{HEAD}{}", listing::list(&mut sources, "kvorum")?);
    let path = crates.join("kvorum/public-api.txt");
    if std::env::var_os(ACCEPT).is_some() {
        fs::write(&path, found)?;
        return Ok(());
    }
    let listed = fs::read_to_string(&path)?;
    let (gone, new) = (missing(&listed, &found), missing(&found, &listed));
    ensure!(
        listed == found,
        "the public API is not the one in crates/kvorum/public-api.txt. Gone or changed, which breaks \
         programs:\n{gone}\nNew:\n{new}\nTo accept that: {ACCEPT}=1 cargo test --workspace --test public_api"
    );
    Ok(())
}

#[test]
fn every_public_type_has_an_example() -> Result<()> {
    let crates = crates()?;
    let mut sources = Sources::new(&crates);
    let without = examples::types_without(&mut sources, "kvorum")?;
    ensure!(
        without.is_empty(),
        "these have no example, and link to none that names them:\n  {}",
        without.join("\n  ")
    );
    Ok(())
}

/// Of a library of a few types, those are named that have no example.
#[test]
fn a_type_without_an_example_is_named() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let src = dir.path().join("small/src");
    fs::create_dir_all(&src)?;
    fs::write(
        src.join("lib.rs"),
        "mod inner;\npub use inner::*;\n".replace('*', LISTED),
    )?;
    fs::write(src.join("inner.rs"), SMALL)?;
    let without = examples::types_without(&mut Sources::new(dir.path()), "small")?;
    let names = ["Alone", "Elsewhere", "Hidden", "NotRust"];
    let expected = names.map(|name| format!("{name} in small/src/inner.rs"));
    assert_eq!(without, expected);
    Ok(())
}

fn crates() -> Result<PathBuf> {
    let tests = Path::new(env!("CARGO_MANIFEST_DIR"));
    let root = tests.parent().context("tests/ is in the repository")?;
    Ok(root.join("crates"))
}

/// What the small library exports.
const LISTED: &str = "{Alone, Elsewhere, Hidden, Linked, NotRust, Own, Used}";

/// Its types: with and without examples. `Unseen` is not exported.
const SMALL: &str = r"
/// Neither an example nor a link.
pub struct Alone;
/// See [`Own`], whose example does not name it.
pub enum Elsewhere {}
/// See [`Own`], whose example names it in a line that is not shown.
pub struct Hidden;
/// See [`crate::Own`].
pub struct Linked;
/// ```text
/// let it = NotRust;
/// ```
pub struct NotRust;
/// ```
/// let it = (Own, Linked);
/// # drop(Hidden);
/// ```
pub struct Own;
/// What its method shows.
pub struct Used;
impl Used {
    /// ```no_run
    /// use_it();
    /// ```
    pub fn used(&self) {}
}
pub struct Unseen;
";

/// The lines of one that the other does not have.
fn missing(of: &str, from: &str) -> String {
    let there: std::collections::BTreeSet<&str> = from.lines().collect();
    let lines = of.lines().filter(|line| !there.contains(line));
    lines.map(|line| format!("  {line}\n")).collect()
}
