//! `tests/appendix_a.md` lists etcd's fixes and the tests that keep us from the same mistakes: every one of them
//! exists, and where there is none it says why.

use std::collections::BTreeMap;

use anyhow::{Context as _, Result, ensure};
use testkit::binaries::checkout;

const TABLE: &str = "tests/appendix_a.md";
/// Rows of the table.
const ROWS: usize = 100;

#[test]
fn every_fix_of_etcds_has_a_test_or_a_reason() -> Result<()> {
    let table = std::fs::read_to_string(checkout().join(TABLE))?;
    let rows: Vec<&str> = table
        .lines()
        .filter(|line| line.starts_with("| ") && !line.starts_with("| fix |"))
        .collect();
    ensure!(rows.len() == ROWS, "{} rows", rows.len());
    let mut sources = BTreeMap::new();
    for row in rows {
        let cells: Vec<&str> = row.trim_matches('|').split(" | ").map(str::trim).collect();
        let [fix, what, answer] = cells[..] else {
            anyhow::bail!("three columns: {row}");
        };
        ensure!(!fix.is_empty() && !what.is_empty(), "{row}");
        let tests: Vec<&str> = answer.split('`').skip(1).step_by(2).collect();
        for test in &tests {
            exists(test, &mut sources).with_context(|| fix.to_owned())?;
        }
        if tests.is_empty() {
            ensure!(answer.starts_with("Cannot: "), "{row}");
        }
    }
    Ok(())
}

/// Whether there is such a test: `file::name`.
fn exists(test: &str, sources: &mut BTreeMap<String, String>) -> Result<()> {
    let (file, name) = test.split_once("::").context("file::name")?;
    if !sources.contains_key(file) {
        let source = std::fs::read_to_string(checkout().join(file));
        sources.insert(file.to_owned(), source.with_context(|| file.to_owned())?);
    }
    let source = &sources[file];
    // Transcripts and random tests are made by macros, with the name on a line of its own.
    let is_there = [
        format!("fn {name}("),
        format!("    {name}"),
        format!("\n{name}"),
    ]
    .iter()
    .any(|form| source.contains(form));
    ensure!(is_there, "there is no test {test}");
    Ok(())
}
