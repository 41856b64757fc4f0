//! The same calls to a cluster of kvorum and to one of a real etcd, and what each of them answers.

use std::fmt::Display;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use testkit::cluster::{Cluster, ClusterSpec};
use testkit::{http, note};
use tokio::time::timeout;
use tonic::client::Grpc;
use tonic::codegen::http::uri::PathAndQuery;
use tonic::metadata::MetadataValue;
use tonic::transport::{Channel, Endpoint};
use tonic::{Request, Response, Status, Streaming};
use tonic_prost::ProstCodec;

/// Nothing here takes longer: two rounds of 7 s, on a slow machine.
pub const ANSWER_TIMEOUT: Duration = Duration::from_secs(120);
/// What stands for an answer that did not come in time.
const NO_ANSWER: &str = "no answer";
/// How often etcd is asked. A change of its members that is under way when it loses its leader, as it does on a
/// machine with too much to do, has no answer ever, and no deadline of its own.
const ETCD_TRIES: usize = 3;

/// A cluster, and what it has answered so far.
pub struct Asked {
    /// The cluster.
    pub cluster: Cluster,
    answers: Vec<(String, String)>,
}

/// Whether a request asks for a leader.
#[derive(Clone, Copy, Debug)]
pub enum Leader {
    /// It does.
    Required,
    /// It does not.
    Any,
}

/// Runs the script on both clusters, and compares.
///
/// # Errors
/// When one does not run as the script expects, and when answers differ: those.
pub async fn compare(script: impl AsyncFn(&mut Asked) -> Result<()>) -> Result<()> {
    compare_with(&[], script).await
}

/// The same, with flags for all members.
///
/// # Errors
/// See [`compare`].
pub async fn compare_with(
    flags: &[&str],
    script: impl AsyncFn(&mut Asked) -> Result<()>,
) -> Result<()> {
    let ask = async |spec: ClusterSpec| {
        let spec = flags.iter().fold(spec, |spec, flag| spec.arg(*flag));
        let mut asked = Asked {
            cluster: spec.start().await?,
            answers: Vec::new(),
        };
        script(&mut asked).await?;
        let Asked { cluster, answers } = asked;
        cluster.stop().await?;
        anyhow::Ok(answers)
    };
    let mut etcd = ask(ClusterSpec::etcd(3)).await.context("etcd")?;
    for _ in 1..ETCD_TRIES {
        if etcd.iter().all(|(_, answer)| answer != NO_ANSWER) {
            break;
        }
        note("etcd did not answer, and is asked again");
        etcd = ask(ClusterSpec::etcd(3)).await.context("etcd")?;
    }
    let kvorum = ask(ClusterSpec::kvorum(3)).await.context("kvorum")?;
    ensure!(etcd.len() == kvorum.len(), "{etcd:#?}\n{kvorum:#?}");
    let differs: Vec<String> = etcd
        .iter()
        .zip(&kvorum)
        .filter(|(etcd, kvorum)| etcd != kvorum)
        .map(|(etcd, kvorum)| format!("{}\n  etcd   {}\n  kvorum {}", etcd.0, etcd.1, kvorum.1))
        .collect();
    ensure!(differs.is_empty(), "{}", differs.join("\n"));
    Ok(())
}

impl Asked {
    /// Notes an answer.
    pub fn note(&mut self, what: impl Display, answer: impl Into<String>) {
        self.answers.push((what.to_string(), answer.into()));
    }

    /// A connection to a member.
    ///
    /// # Errors
    /// Never, as long as its url is one.
    pub fn channel(&self, at: usize) -> Result<Channel> {
        let url = self.cluster.member(at).client_url();
        Ok(Endpoint::from_shared(url)?.connect_lazy())
    }

    /// Makes a call, and notes its answer.
    ///
    /// # Errors
    /// See [`Asked::channel`].
    pub async fn ask<M>(
        &mut self,
        what: &str,
        at: usize,
        path: &'static str,
        message: M,
    ) -> Result<()>
    where
        M: prost::Message + 'static,
    {
        let answer = call(&self.channel(at)?, path, message, Leader::Any).await;
        self.note(what, answer);
        Ok(())
    }

    /// Notes the answer of an HTTP endpoint. etcd runs the checks in any order.
    ///
    /// # Errors
    /// When it does not answer.
    pub async fn get(&mut self, at: usize, path: &str) -> Result<()> {
        let answer = http::get(self.cluster.member(at).client_port(), path).await?;
        let mut lines: Vec<&str> = answer.body.lines().collect();
        lines.sort_unstable();
        self.note(path, format!("{} {lines:?}", answer.status));
        Ok(())
    }
}

/// An answer, as it is compared. Of a learner's refusal only the words: its code is another one from 3.6
/// on, which kvorum announces.
pub fn shown(status: &Status) -> String {
    match status.message() {
        words @ "etcdserver: rpc not supported for learner" => words.to_owned(),
        words => format!("{:?}: {words}", status.code()),
    }
}

/// Makes a call whose answer matters only when it is a refusal.
pub async fn call<M>(channel: &Channel, path: &'static str, message: M, leader: Leader) -> String
where
    M: prost::Message + 'static,
{
    let mut grpc = Grpc::new(channel.clone());
    if let Err(error) = grpc.ready().await {
        return format!("not connected: {error}");
    }
    let codec: ProstCodec<M, ()> = ProstCodec::default();
    let request = with_metadata(message, leader);
    let path = PathAndQuery::from_static(path);
    match timeout(ANSWER_TIMEOUT, grpc.unary(request, path, codec)).await {
        Ok(Ok(_answer)) => "OK".to_owned(),
        Ok(Err(status)) => shown(&status),
        Err(_elapsed) => NO_ANSWER.to_owned(),
    }
}

/// A request that asks for a leader, or does not.
pub fn with_metadata<M>(message: M, leader: Leader) -> Request<M> {
    let mut request = Request::new(message);
    if let Leader::Required = leader {
        let metadata = request.metadata_mut();
        metadata.insert("hasleader", MetadataValue::from_static("true"));
    }
    request
}

/// How a stream goes on: with a message, an error, or its end.
pub async fn next<M>(stream: Result<Response<Streaming<M>>, Status>) -> String {
    let mut stream = match stream {
        Ok(stream) => stream.into_inner(),
        Err(status) => return shown(&status),
    };
    match stream.message().await {
        Ok(Some(_message)) => "a message".to_owned(),
        Ok(None) => "the end".to_owned(),
        Err(status) => shown(&status),
    }
}
