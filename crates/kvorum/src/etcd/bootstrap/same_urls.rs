//! Whether two lists of urls are the same, be it that one has names and the other their addresses
//! (`pkg/netutil`).

use std::io;
use std::time::Duration;

use tokio::net::lookup_host;
use tokio::time::{Instant, sleep};
use types::Url;

/// How long to wait before a name is asked for again.
const RETRY_INTERVAL: Duration = Duration::from_secs(1);

/// Two lists of urls are not the same, in etcd's words.
#[derive(Debug, thiserror::Error)]
pub(super) enum Differ {
    #[error("len({}) != len({})", quoted(one), quoted(other))]
    Lengths { one: Vec<Url>, other: Vec<Url> },
    #[error("resolved urls: {one:?} != {other:?}")]
    Urls { one: String, other: String },
    #[error("failed to resolve {url:?} ({source})")]
    Unresolved { url: String, source: io::Error },
}

/// As Go prints a list of texts with `%q`.
fn quoted(urls: &[Url]) -> String {
    let urls: Vec<String> = urls
        .iter()
        .map(|url| format!("{:?}", url.as_str()))
        .collect();
    format!("[{}]", urls.join(" "))
}

/// Compares without regard to order, and, if need be, by what the names resolve to until `deadline`.
pub(super) async fn same_urls(one: &[Url], other: &[Url], deadline: Instant) -> Result<(), Differ> {
    if one.len() != other.len() {
        return Err(Differ::Lengths {
            one: one.to_vec(),
            other: other.to_vec(),
        });
    }
    let sorted = |urls: &[Url]| {
        let mut texts: Vec<String> = urls.iter().map(Url::to_string).collect();
        texts.sort_unstable();
        texts
    };
    if sorted(one) == sorted(other) {
        return Ok(());
    }
    let (one, other) = (
        resolved(one, deadline).await?,
        resolved(other, deadline).await?,
    );
    match one.into_iter().zip(other).find(|(one, other)| one != other) {
        None => Ok(()),
        Some((one, other)) => Err(Differ::Urls { one, other }),
    }
}

/// The urls with addresses instead of names, sorted.
async fn resolved(urls: &[Url], deadline: Instant) -> Result<Vec<String>, Differ> {
    let mut texts = Vec::new();
    for url in urls {
        texts.push(resolve(url, deadline).await?);
    }
    texts.sort_unstable();
    Ok(texts)
}

async fn resolve(url: &Url, deadline: Instant) -> Result<String, Differ> {
    if url.scheme().is_unix() || url.host() == "localhost" {
        return Ok(url.to_string());
    }
    let unresolved = |source| Differ::Unresolved {
        url: url.to_string(),
        source,
    };
    let port = url
        .port()
        .map_err(|error| unresolved(io::Error::new(io::ErrorKind::InvalidInput, error)))?;
    loop {
        let looked_up = match lookup_host((url.host(), port)).await {
            Ok(mut addresses) => addresses
                .next()
                .ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, "no such host")),
            Err(error) => Err(error),
        };
        match looked_up {
            Ok(address) => return Ok(format!("{}://{address}", url.scheme().as_str())),
            Err(error) if Instant::now() + RETRY_INTERVAL >= deadline => {
                return Err(unresolved(error));
            }
            Err(error) => {
                tracing::warn!(
                    url = %url,
                    host = url.authority(),
                    "retry-interval" = ?RETRY_INTERVAL,
                    %error,
                    "failed to resolve URL Host",
                );
                sleep(RETRY_INTERVAL).await;
            }
        }
    }
}
