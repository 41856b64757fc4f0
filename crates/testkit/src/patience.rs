//! Waiting on conditions instead of for an amount of time, and telling what goes on.

use std::io::Write as _;
use std::time::Duration;

use anyhow::{Context as _, Result};
use tokio::time::Instant;

/// How long [`eventually`] waits unless `KVORUM_PATIENCE` (seconds) says otherwise.
const PATIENCE_DEFAULT: Duration = Duration::from_secs(30);
const POLL_INTERVAL_MIN: Duration = Duration::from_millis(2);
const POLL_INTERVAL_MAX: Duration = Duration::from_millis(100);

/// The one patience of all tests; a slow machine sets `KVORUM_PATIENCE` to more seconds.
#[must_use]
pub fn patience() -> Duration {
    std::env::var("KVORUM_PATIENCE")
        .ok()
        .and_then(|seconds| seconds.parse().ok())
        .map_or(PATIENCE_DEFAULT, Duration::from_secs)
}

/// Probes until it answers `Ok`, and returns that.
///
/// # Errors
/// The last probe's error when [`patience`] has run out.
pub async fn eventually<T, F, P>(what: &str, mut probe: P) -> Result<T>
where
    F: Future<Output = Result<T>>,
    P: FnMut() -> F,
{
    let patience = patience();
    let deadline = Instant::now() + patience;
    let mut interval = POLL_INTERVAL_MIN;
    loop {
        let error = match tokio::time::timeout_at(deadline, probe()).await {
            Ok(Ok(value)) => return Ok(value),
            Ok(Err(error)) => error,
            Err(elapsed) => anyhow::Error::new(elapsed).context("the probe itself did not end"),
        };
        if Instant::now() >= deadline {
            return Err(error).with_context(|| format!("waited {patience:?} in vain: {what}"));
        }
        tokio::time::sleep(interval).await;
        interval = (interval * 2).min(POLL_INTERVAL_MAX);
    }
}

/// A number from the environment: how the long tests get their parameters.
///
/// # Errors
/// When the variable is set to something that is no number.
pub fn parameter<T>(name: &str, default: T) -> Result<T>
where
    T: std::str::FromStr,
    T::Err: std::error::Error + Send + Sync + 'static,
{
    match std::env::var(name) {
        Ok(text) => text.parse().with_context(|| format!("{name}={text}")),
        Err(std::env::VarError::NotPresent) => Ok(default),
        Err(error) => Err(error).context(name.to_owned()),
    }
}

/// Prints a line that is seen also when the test passes (seeds, figures).
pub fn note(line: impl std::fmt::Display) {
    // Nobody reads stderr any more when this fails; the test goes on.
    writeln!(std::io::stderr(), "{line}").ok();
}
