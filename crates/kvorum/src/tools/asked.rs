//! All members of a cluster, asked at once how they are: what `kvorum check cluster` judges and `kvorum top` shows.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use api::etcdserverpb::cluster_client::ClusterClient;
use api::etcdserverpb::kv_client::KvClient;
use api::etcdserverpb::maintenance_client::MaintenanceClient;
use api::etcdserverpb::{Member, MemberListRequest, RangeRequest, StatusRequest, StatusResponse};
use futures_util::future::join_all;
use tonic::metadata::AsciiMetadataValue;
use tonic::transport::Channel;
use tonic::{Code, Request};
use transport::{Dial, Dialer};
use types::{Clock, SystemClock, Url};

use super::Failure;
use super::connection::Connection;
use super::scrape::{self, Scrape};

/// How long a member may take for all that it is asked.
const TIME_MAX: Duration = Duration::from_secs(5);
/// The key that etcd's own health checks read.
const HEALTH_KEY: &[u8] = b"health";

/// Who asks, and how.
pub(super) struct Asking {
    connection: Connection,
    time: Duration,
}

/// What a member answered.
#[derive(Clone, Debug)]
pub(super) struct Answer {
    /// Where it was asked.
    pub(super) endpoint: String,
    /// What it said of itself, or why it could not be asked.
    pub(super) status: Result<StatusResponse, String>,
    /// Whether a linearizable read went through.
    pub(super) read: Result<(), String>,
    /// How long that took.
    pub(super) took: Duration,
    /// How far its clock is ahead of ours, if it says what time it is; to the second.
    pub(super) clock_ahead_s: Option<f64>,
    /// Nothing where its client port has no metrics.
    pub(super) metrics: Option<Scrape>,
}

/// A cluster as it was seen.
#[derive(Clone, Debug, Default)]
pub(super) struct Seen {
    pub(super) members: Vec<Member>,
    pub(super) answers: Vec<Answer>,
}

impl Asking {
    pub(super) fn new(connection: &Connection) -> Self {
        Self {
            connection: connection.clone(),
            time: connection.command_timeout.unwrap_or(TIME_MAX),
        }
    }

    /// Asks the members that are named and all others that these know of.
    pub(super) async fn all(&self) -> Result<Seen, Failure> {
        let named = self.connection.endpoints();
        let listed = join_all(named.iter().map(|endpoint| self.members(endpoint))).await;
        let mut members = Vec::new();
        for answer in listed {
            if let Some(listed) = answer?
                && members.is_empty()
            {
                members = listed;
            }
        }
        let mut endpoints: Vec<String> = named.iter().map(|&it| it.to_owned()).collect();
        let urls = members.iter().flat_map(|it: &Member| &it.client_ur_ls);
        endpoints.extend(urls.cloned());
        let mut asked = BTreeSet::new();
        endpoints.retain(|it| asked.insert(place(it).to_owned()));
        let answers = join_all(endpoints.into_iter().map(|it| self.ask(it))).await;
        let mut seen = Seen {
            members,
            answers: answers.into_iter().collect::<Result<_, Failure>>()?,
        };
        seen.keep_one_each();
        Ok(seen)
    }

    /// Whom a member knows; nothing if it cannot be asked.
    async fn members(&self, endpoint: &str) -> Result<Option<Vec<Member>>, Failure> {
        let channel = self.connection.channel(endpoint)?;
        let list = async {
            let token = self.connection.token(&channel).await.ok()?;
            let request = with_token(
                MemberListRequest {
                    linearizable: false,
                },
                token.as_ref(),
            );
            let listed = ClusterClient::new(channel.clone())
                .member_list(request)
                .await;
            Some(listed.ok()?.into_inner().members)
        };
        Ok(tokio::time::timeout(self.time, list).await.ok().flatten())
    }

    async fn ask(&self, endpoint: String) -> Result<Answer, Failure> {
        let channel = self.connection.channel(&endpoint)?;
        let metrics = self.metrics(&endpoint);
        let (told, metrics) = tokio::join!(
            tokio::time::timeout(self.time, self.told(&channel)),
            metrics
        );
        let late = || format!("no answer within {:?}", self.time);
        let mut answer = told.unwrap_or_else(|_elapsed| Answer::without(late()));
        answer.endpoint = endpoint;
        answer.metrics = metrics;
        Ok(answer)
    }

    async fn told(&self, channel: &Channel) -> Answer {
        let token = match self.connection.token(channel).await {
            Ok(token) => token,
            Err(status) => return Answer::without(status.message().to_owned()),
        };
        let request = with_token(StatusRequest {}, token.as_ref());
        let status = match MaintenanceClient::new(channel.clone())
            .status(request)
            .await
        {
            Ok(status) => status,
            Err(status) => return Answer::without(status.message().to_owned()),
        };
        let date = status
            .metadata()
            .get("date")
            .and_then(|date| date.to_str().ok());
        let clock_ahead_s = date.and_then(|date| ahead(date, SystemClock.wall()));
        let range = RangeRequest {
            key: HEALTH_KEY.to_vec(),
            ..Default::default()
        };
        let begun = SystemClock.now();
        let mut kv = KvClient::new(channel.clone());
        let read = match kv.range(with_token(range, token.as_ref())).await {
            // Consensus was reached; that the key is not ours to read says nothing about health.
            Err(status) if status.code() != Code::PermissionDenied => {
                Err(status.message().to_owned())
            }
            _ => Ok(()),
        };
        Answer {
            endpoint: String::new(),
            status: Ok(status.into_inner()),
            read,
            took: SystemClock.now().saturating_duration_since(begun),
            clock_ahead_s,
            metrics: None,
        }
    }

    /// A member's metrics, if its client port has them.
    async fn metrics(&self, endpoint: &str) -> Option<Scrape> {
        let text = self.get(endpoint, "/metrics").await?;
        Some(Scrape::parse(&String::from_utf8_lossy(&text)))
    }

    /// What a member shows over HTTP.
    pub(super) async fn get(&self, endpoint: &str, path: &str) -> Option<bytes::Bytes> {
        let (url, dialer): (Url, Arc<Dialer>) = self.connection.dialer(endpoint).ok()?;
        let dialer: &dyn Dial = &*dialer;
        scrape::get(dialer, &url, path, self.time).await.ok()
    }
}

impl Answer {
    fn without(why: String) -> Self {
        Self {
            endpoint: String::new(),
            read: Err(why.clone()),
            status: Err(why),
            took: Duration::ZERO,
            clock_ahead_s: None,
            metrics: None,
        }
    }

    /// Whose answer it is.
    pub(super) fn member(&self) -> Option<u64> {
        let status = self.status.as_ref().ok()?;
        Some(status.header.as_ref()?.member_id)
    }
}

impl Seen {
    /// A member may have several urls; one answer is enough.
    fn keep_one_each(&mut self) {
        let mut members = BTreeSet::new();
        self.answers
            .retain(|answer| answer.member().is_none_or(|member| members.insert(member)));
        // Where another url of the same member answers, one that does not is no news.
        let silent_urls_of = |member: &Member| member.client_ur_ls.clone();
        let answered: BTreeSet<String> = self
            .members
            .iter()
            .filter(|member| members.contains(&member.id))
            .flat_map(silent_urls_of)
            .map(|url| place(&url).to_owned())
            .collect();
        self.answers
            .retain(|answer| answer.status.is_ok() || !answered.contains(place(&answer.endpoint)));
    }

    /// What this member answered.
    pub(super) fn answer_of(&self, member: u64) -> Option<(&Answer, &StatusResponse)> {
        let answer = self.answers.iter().find(|it| it.member() == Some(member))?;
        Some((answer, answer.status.as_ref().ok()?))
    }
}

/// Host and port of an endpoint, which may have a scheme or not.
fn place(endpoint: &str) -> &str {
    let place = endpoint
        .split_once("://")
        .map_or(endpoint, |(_, rest)| rest);
    place.trim_end_matches('/')
}

/// How far a clock that shows `date` is ahead; it was cut to the second.
fn ahead(date: &str, now: SystemTime) -> Option<f64> {
    let theirs = httpdate::parse_http_date(date).ok()? + Duration::from_millis(500);
    Some(match theirs.duration_since(now) {
        Ok(ahead) => ahead.as_secs_f64(),
        Err(behind) => -behind.duration().as_secs_f64(),
    })
}

fn with_token<T>(message: T, token: Option<&AsciiMetadataValue>) -> Request<T> {
    let mut request = Request::new(message);
    if let Some(token) = token {
        request.metadata_mut().insert("token", token.clone());
    }
    request
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clocks_are_compared_by_what_they_show() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(784_111_777);
        let ahead = |date| ahead(date, now);
        assert_eq!(ahead("Sun, 06 Nov 1994 08:49:37 GMT"), Some(0.5));
        assert_eq!(ahead("Sun, 06 Nov 1994 08:49:47 GMT"), Some(10.5));
        assert_eq!(ahead("Sun, 06 Nov 1994 08:49:27 GMT"), Some(-9.5));
        assert_eq!(ahead("today"), None);
    }

    #[test]
    fn an_endpoint_is_the_same_with_its_scheme() {
        assert_eq!(place("https://10.0.0.1:2379/"), place("10.0.0.1:2379"));
    }
}
