//! How many instructions a request takes: not time, so that a slow or a busy machine changes nothing.
//!
//! A test program runs itself under valgrind, once with and once without the requests of one kind: its work is a test
//! that is ignored unless it is asked for by name.
//!
//! What this is not: a measurement of the shipped build (`benches` makes those). The numbers are those of the build
//! for development.

use std::env;
use std::process::Command;

use anyhow::{Context as _, Result, ensure};

use crate::{binaries, note};

/// The environment of the program that is counted: `<kind> <how often>`.
const WORK: &str = "KVORUM_COUNTED_WORK";

/// A kind of requests, how often one is made, and the instructions that one may take: a fifth more than on the day
/// they were counted. Whoever makes one cheaper lowers its limit.
pub type Limit = (&'static str, usize, u64);

/// Counts each kind. The program has a test `work` that does what [`asked`] says.
///
/// # Errors
/// When one takes more than it may, or valgrind or the work fails.
pub fn check(limits: &[Limit]) -> Result<()> {
    if !cfg!(target_arch = "x86_64") {
        note("the limits are those of x86_64");
        return Ok(());
    }
    let (first, ..) = limits.first().context("nothing is counted")?;
    let without = count(first, 0)?;
    let mut dearer = Vec::new();
    for &(name, times, limit) in limits {
        let each = count(name, times)?.saturating_sub(without) / u64::try_from(times)?;
        let line = format!("{name}: {each} instructions, of {limit}");
        note(&line);
        if each > limit {
            dearer.push(line);
        }
    }
    ensure!(dearer.is_empty(), "{dearer:?}");
    Ok(())
}

/// What the program that is counted has to do: requests of which kind, and how many.
///
/// # Errors
/// When it does not run under [`check`].
pub fn asked() -> Result<(String, usize)> {
    let work = env::var(WORK)?;
    let (name, times) = work.split_once(' ').context("a kind and a number")?;
    Ok((name.to_owned(), times.parse()?))
}

/// The instructions of a program that does so much.
fn count(name: &str, times: usize) -> Result<u64> {
    let output = Command::new(binaries::valgrind()?)
        .args(["--tool=cachegrind", "--cache-sim=no"])
        .arg("--cachegrind-out-file=/dev/null")
        .arg(env::current_exe()?)
        .args(["--exact", "work", "--ignored", "--test-threads=1"])
        .env(WORK, format!("{name} {times}"))
        .output()?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(
        output.status.success(),
        "{said}{}",
        String::from_utf8_lossy(&output.stdout)
    );
    let counted = said
        .lines()
        .find_map(|line| line.split_once("refs:"))
        .with_context(|| said.to_string())?;
    Ok(counted.1.trim().replace(',', "").parse()?)
}
