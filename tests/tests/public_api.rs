//! What the library promises to a program that embeds it: the list in `crates/kvorum/public-api.txt`.
//!
//! A change of it is seen here, and accepted with
//!
//! ```text
//! KVORUM_ACCEPT_API=1 cargo test --workspace --test public_api
//! ```

#[path = "public_api/listing.rs"]
mod listing;
#[path = "public_api/sources.rs"]
mod sources;

use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result, ensure};

use sources::Sources;

const ACCEPT: &str = "KVORUM_ACCEPT_API";
const HEAD: &str = "# What a program that embeds kvorum can see of it, without documentation. See \"Stability\" in\n\
                    # src/lib.rs. Made by: KVORUM_ACCEPT_API=1 cargo test --workspace --test public_api\n";

#[test]
fn the_public_api_is_the_one_that_is_listed() -> Result<()> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let root = root.parent().context("tests/ is in the repository")?;
    let mut sources = Sources::new(&root.join("crates"));
    let found = format!("{HEAD}{}", listing::list(&mut sources, "kvorum")?);
    let path = root.join("crates/kvorum/public-api.txt");
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

/// The lines of one that the other does not have.
fn missing(of: &str, from: &str) -> String {
    let there: std::collections::BTreeSet<&str> = from.lines().collect();
    let lines = of.lines().filter(|line| !there.contains(line));
    lines.map(|line| format!("  {line}\n")).collect()
}
