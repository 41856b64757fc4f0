//! What members show over HTTP beside gRPC: their metrics, read for a person.
//!
//! What this is not: a parser of everything that Prometheus may send; it reads what etcd and kvorum write.

use std::collections::HashMap;
use std::io;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, StatusCode};
use http_body_util::{BodyExt, Empty, Limited};
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use transport::Dial;
use types::Url;

/// Bytes of an answer that are read; more is no answer of a member's.
const ANSWER_BYTES_MAX: usize = 16 << 20;

/// There was no answer.
#[derive(Debug, thiserror::Error)]
pub(super) enum GetError {
    #[error("cannot connect")]
    Dial(#[from] io::Error),
    #[error("cannot ask")]
    Http(#[from] hyper::Error),
    #[error("cannot read the answer")]
    Body(#[source] Box<dyn std::error::Error + Send + Sync>),
    #[error("the answer is {0}")]
    Status(StatusCode),
    #[error("no answer within {0:?}")]
    Timeout(Duration),
    #[error("no url")]
    Url(#[from] http::Error),
}

/// `GET path`, within a time.
pub(super) async fn get(
    dialer: &dyn Dial,
    url: &Url,
    path: &str,
    time: Duration,
) -> Result<Bytes, GetError> {
    let asked = ask(dialer, url, path);
    let answer = tokio::time::timeout(time, asked).await;
    answer.unwrap_or(Err(GetError::Timeout(time)))
}

async fn ask(dialer: &dyn Dial, url: &Url, path: &str) -> Result<Bytes, GetError> {
    let stream = TokioIo::new(dialer.dial(url).await?);
    let is_tls = url.scheme().is_tls();
    let scheme = if is_tls { "https" } else { "http" };
    let authority = match url.socket_path() {
        Some(_) => "localhost",
        None => url.authority(),
    };
    let request = Request::builder();
    // With TLS, HTTP/2 is agreed on; without, gRPC has it for itself.
    if is_tls {
        let request = request
            .uri(format!("{scheme}://{authority}{path}"))
            .body(Empty::<Bytes>::new())?;
        let (mut sender, connection) = http2::handshake(TokioExecutor::new(), stream).await?;
        let answer = async { read(sender.send_request(request).await?).await };
        return tokio::select! {
            answer = answer => answer,
            Err(error) = connection => Err(error.into()),
        };
    }
    let request = request
        .uri(path)
        .header(http::header::HOST, authority)
        .body(Empty::<Bytes>::new())?;
    let (mut sender, connection) = http1::handshake(stream).await?;
    let answer = async { read(sender.send_request(request).await?).await };
    tokio::select! {
        answer = answer => answer,
        Err(error) = connection => Err(error.into()),
    }
}

async fn read(answer: http::Response<hyper::body::Incoming>) -> Result<Bytes, GetError> {
    if answer.status() != StatusCode::OK {
        return Err(GetError::Status(answer.status()));
    }
    let body = Limited::new(answer.into_body(), ANSWER_BYTES_MAX);
    let body = body.collect().await.map_err(GetError::Body)?;
    Ok(body.to_bytes())
}

/// Metrics, as they were at one moment.
#[derive(Clone, Debug, Default)]
pub(super) struct Scrape {
    /// By name: labels as they are written, and the value.
    samples: HashMap<String, Vec<(String, f64)>>,
}

impl Scrape {
    pub(super) fn parse(text: &str) -> Self {
        let mut samples = HashMap::<String, Vec<(String, f64)>>::new();
        for line in text.lines().filter(|line| !line.starts_with('#')) {
            let Some((head, value)) = line.rsplit_once(' ') else {
                continue;
            };
            let Ok(value) = value.parse() else { continue };
            let (name, labels) = match head.split_once('{') {
                Some((name, labels)) => (name, labels.trim_end_matches('}')),
                None => (head, ""),
            };
            let named = samples.entry(name.to_owned()).or_default();
            named.push((labels.to_owned(), value));
        }
        Self { samples }
    }

    /// All samples of a name, whose labels hold this text.
    pub(super) fn all<'a>(
        &'a self,
        name: &str,
        label: &'a str,
    ) -> impl Iterator<Item = &'a (String, f64)> {
        let samples = self.samples.get(name).into_iter().flatten();
        samples.filter(move |(labels, _)| labels.contains(label))
    }

    /// Their sum; nothing if there are none.
    pub(super) fn sum(&self, name: &str, label: &str) -> Option<f64> {
        let values = self.all(name, label).map(|(_, value)| *value);
        values.reduce(|sum, value| sum + value)
    }

    /// How much it has grown since then, in a second.
    pub(super) fn rate(
        &self,
        earlier: &Self,
        time: Duration,
        name: &str,
        label: &str,
    ) -> Option<f64> {
        let now = self.sum(name, label)?;
        let then = earlier.sum(name, label).unwrap_or_default();
        Some((now - then).max(0.0) / time.as_secs_f64().max(0.001))
    }

    /// A quantile, in seconds, of what a histogram has counted since then; nothing if that is nothing.
    pub(super) fn quantile(
        &self,
        earlier: &Self,
        name: &str,
        label: &str,
        quantile: f64,
    ) -> Option<f64> {
        let bucket = format!("{name}_bucket");
        let grown = self.bounds(&bucket, label);
        let before: HashMap<u64, f64> = earlier
            .bounds(&bucket, label)
            .into_iter()
            .map(|(bound, count)| (bound.to_bits(), count))
            .collect();
        let grown: Vec<(f64, f64)> = grown
            .into_iter()
            .map(|(bound, count)| {
                let then = before.get(&bound.to_bits()).copied();
                (bound, count - then.unwrap_or_default())
            })
            .collect();
        let all = grown.last().map(|(_, count)| *count)?;
        if all <= 0.0 {
            return None;
        }
        let rank = quantile * all;
        let (mut low, mut below) = (0.0, 0.0);
        for (bound, count) in grown {
            if count >= rank && bound.is_finite() {
                let share = (rank - below) / (count - below).max(f64::MIN_POSITIVE);
                return Some(low + (bound - low) * share.clamp(0.0, 1.0));
            }
            if bound.is_finite() {
                (low, below) = (bound, count);
            }
        }
        Some(low)
    }

    /// The buckets of a histogram, those of all labels together, by their bounds.
    fn bounds(&self, bucket: &str, label: &str) -> Vec<(f64, f64)> {
        let mut bounds = Vec::<(f64, f64)>::new();
        for (labels, count) in self.all(bucket, label) {
            let Some(bound) = value_of(labels, "le").and_then(|bound| bound.parse().ok()) else {
                continue;
            };
            match bounds.iter_mut().find(|(other, _)| *other == bound) {
                Some((_, sum)) => *sum += count,
                None => bounds.push((bound, *count)),
            }
        }
        bounds.sort_by(|(one, _), (other, _)| one.total_cmp(other));
        bounds
    }
}

/// The value of a label.
pub(super) fn value_of<'a>(labels: &'a str, name: &str) -> Option<&'a str> {
    let (_, rest) = labels.split_once(&format!("{name}=\""))?;
    rest.split('"').next()
}

#[cfg(test)]
mod tests {
    use super::*;

    const BEFORE: &str = "# TYPE x histogram\nx_bucket{le=\"0.1\"} 10\nx_bucket{le=\"0.2\"} 10\n\
        x_bucket{le=\"+Inf\"} 10\nx_count 10\nputs 5\n";
    const AFTER: &str = "x_bucket{le=\"0.1\"} 10\nx_bucket{le=\"0.2\"} 20\nx_bucket{le=\"+Inf\"} 20\n\
        puts 25\nhandled{code=\"OK\",kind=\"a\"} 3\nhandled{code=\"Bad\",kind=\"a\"} 4\nnonsense\n";

    #[test]
    fn rates_and_quantiles_are_of_the_time_between() {
        let (before, after) = (Scrape::parse(BEFORE), Scrape::parse(AFTER));
        let time = Duration::from_secs(2);
        assert_eq!(after.rate(&before, time, "puts", ""), Some(10.0));
        assert_eq!(after.rate(&before, time, "others", ""), None);
        let p99 = after.quantile(&before, "x", "", 0.99).unwrap();
        assert!((0.19..=0.2).contains(&p99), "{p99}");
        assert_eq!(before.quantile(&before, "x", "", 0.99), None);
        assert_eq!(after.sum("handled", "kind=\"a\""), Some(7.0));
        assert_eq!(after.sum("handled", "code=\"OK\""), Some(3.0));
        assert_eq!(value_of("code=\"OK\",kind=\"a\"", "kind"), Some("a"));
    }
}
