//! A watcher: streams at one member after the other, each going on where the last ended.

use std::time::Duration;

use anyhow::{Result, ensure};
use api::etcdserverpb as pb;
use pb::watch_request::RequestUnion;
use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};
use testkit::history::{Answer, Range, Session, Watcher, revision};
use testkit::patience::patience;
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_stream::wrappers::ReceiverStream;

use super::{Stage, Target};

/// A stream is left after so long, also if it is well.
const STREAM_LIFE: std::ops::Range<Duration> = Duration::from_secs(1)..Duration::from_secs(12);
/// How often progress is asked for.
const PROGRESS_INTERVAL: Duration = Duration::from_millis(500);
/// Before the next member is tried.
const PAUSE: Duration = Duration::from_millis(50);

pub(super) struct Spectator {
    stage: Stage,
    rng: StdRng,
    /// The first revision that it does not know of.
    next_revision: i64,
    watcher: Watcher,
}

impl Spectator {
    pub(super) fn new(range: Range, stage: Stage, seed: u64) -> Spectator {
        let sessions = Vec::new();
        Spectator {
            stage,
            rng: StdRng::seed_from_u64(seed),
            next_revision: 2,
            watcher: Watcher { range, sessions },
        }
    }

    /// Watches until the last revision is known and seen, and returns what came.
    ///
    /// # Errors
    /// When the last revision does not come in time.
    pub(super) async fn look(mut self) -> Result<Watcher> {
        let mut deadline = None;
        while !self.is_done() {
            let last = *self.stage.last_revision.borrow();
            if last > 0 {
                let deadline = *deadline.get_or_insert(Instant::now() + patience());
                ensure!(
                    Instant::now() < deadline,
                    "a watch of {:?} does not get from {} to {last}",
                    self.watcher.range,
                    self.next_revision
                );
            }
            let target = self.stage.any_target(&mut self.rng);
            let start_revision = self.next_revision;
            let mut answers = Vec::new();
            // How a stream ends is the member's affair; what it showed until then is ours.
            self.stream(&target, &mut answers).await.ok();
            if !answers.is_empty() {
                self.watcher.sessions.push(Session {
                    member: target.member,
                    start_revision,
                    answers,
                });
            }
            tokio::time::sleep(PAUSE).await;
        }
        Ok(self.watcher)
    }

    fn is_done(&self) -> bool {
        let last = *self.stage.last_revision.borrow();
        last > 0 && self.next_revision > last
    }

    async fn stream(&mut self, target: &Target, answers: &mut Vec<Answer>) -> Result<()> {
        let end = Instant::now() + self.rng.random_range(STREAM_LIFE);
        let (requests, queue) = mpsc::channel(4);
        requests.send(self.create()).await?;
        let mut client = target.client.watch.clone();
        let opening = client.watch(ReceiverStream::new(queue));
        let opened = tokio::time::timeout_at(end, opening);
        let mut stream = opened.await??.into_inner();
        let mut progress = tokio::time::interval(PROGRESS_INTERVAL);
        while !self.is_done() && Instant::now() < end {
            tokio::select! {
                biased;
                message = stream.message() => match message? {
                    Some(message) if message.canceled => return Ok(()),
                    Some(message) if message.created => {}
                    Some(message) => answers.push(self.answer(message)),
                    None => return Ok(()),
                },
                _ = progress.tick() => {
                    let request = pb::WatchProgressRequest {};
                    let request_union = Some(RequestUnion::ProgressRequest(request));
                    // A full queue: the stream does not move, and will be asked again.
                    requests.try_send(pb::WatchRequest { request_union }).ok();
                }
            }
        }
        Ok(())
    }

    fn create(&self) -> pb::WatchRequest {
        let create = pb::WatchCreateRequest {
            key: self.watcher.range.key.to_vec(),
            range_end: self.watcher.range.end.to_vec(),
            start_revision: self.next_revision,
            prev_kv: true,
            progress_notify: true,
            ..Default::default()
        };
        let request_union = Some(RequestUnion::CreateRequest(create));
        pb::WatchRequest { request_union }
    }

    fn answer(&mut self, message: pb::WatchResponse) -> Answer {
        let header = message.header.unwrap_or_default();
        let newest = message.events.iter().map(revision).max();
        let known = newest.unwrap_or(header.revision);
        self.next_revision = self.next_revision.max(known + 1);
        Answer {
            received: self.stage.now(),
            revision: header.revision,
            events: message.events,
        }
    }
}
