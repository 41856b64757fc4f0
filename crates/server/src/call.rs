//! One gRPC call, for the log of slow requests: who asks what, and where the time goes.
//!
//! What this is not: tracing. What is noted costs a clone of what came over the wire, and is
//! put into words only for a request that was slow.

mod words;

use std::fmt::Write as _;
use std::future::Future;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use parking_lot::Mutex;
use smallvec::SmallVec;
use transport::PeerInfo;
use types::Clock;

use crate::SlowRequests;
use crate::framing::PREFIX_BYTES;

tokio::task_local! {
    /// The call that the current task works on.
    static CALL: Arc<Call>;
}

/// Bytes of a request that are kept for the log; of a larger one only the size is told.
const REQUEST_BYTES_MAX: usize = 64 * 1024;

/// A call that is being answered.
pub(crate) struct Call {
    path: &'static str,
    started: Instant,
    clock: Arc<dyn Clock>,
    peer: Option<Arc<PeerInfo>>,
    noted: Mutex<Noted>,
}

#[derive(Default)]
struct Noted {
    /// The request as it came, framed. Nothing, if it is none for keys, or a large one.
    request: Bytes,
    request_bytes: usize,
    response_count: i64,
    /// Who asks, once that is known.
    user: String,
    /// Nearly always one.
    stages: SmallVec<[(&'static str, Duration); 1]>,
    /// From the beginning to the answer, without sending it.
    took: Duration,
}

/// What is said of a call.
#[derive(Default)]
pub(crate) struct Described {
    pub(crate) remote: String,
    pub(crate) user: String,
    pub(crate) request: String,
    pub(crate) request_count: i64,
    pub(crate) request_size: i64,
    pub(crate) response_count: i64,
    pub(crate) stages: String,
}

impl Call {
    pub(crate) fn begin(
        path: &'static str,
        peer: Option<Arc<PeerInfo>>,
        clock: Arc<dyn Clock>,
    ) -> Arc<Self> {
        Arc::new(Self {
            path,
            started: clock.now(),
            clock,
            peer,
            noted: Mutex::new(Noted::default()),
        })
    }

    /// Works on the call: whatever is noted meanwhile is noted for it.
    pub(crate) async fn work<T>(self: Arc<Self>, work: impl Future<Output = T>) -> T {
        CALL.scope(self, work).await
    }

    /// The answer is there. Whether something is to be said about it.
    pub(crate) fn is_to_be_told(&self, limits: &SlowRequests) -> bool {
        let took = self.clock.now().saturating_duration_since(self.started);
        self.noted.lock().took = took;
        took > limits.unary || tracing::enabled!(tracing::Level::DEBUG)
    }

    /// Tells about the call, as a warning if it has taken long, in etcd's words.
    pub(crate) fn tell(&self, response_size: usize, limits: &SlowRequests) {
        let took = self.noted.lock().took;
        let Described {
            remote,
            user,
            request,
            request_count,
            request_size,
            response_count,
            stages,
        } = self.describe();
        let known = request_count >= 0;
        let response_size = i64::try_from(response_size).unwrap_or(i64::MAX);
        let response_size = if known { response_size } else { -1 };
        macro_rules! log {
            ($level:ident) => {
                tracing::$level!(
                    "time spent" = ?took,
                    remote,
                    "response type" = self.path,
                    "request count" = request_count,
                    "request size" = request_size,
                    "response count" = response_count,
                    "response size" = response_size,
                    "request content" = request,
                    user,
                    stages,
                    "request stats"
                )
            };
        }
        if took > limits.unary {
            log!(warn);
        } else {
            log!(debug);
        }
    }

    fn describe(&self) -> Described {
        let noted = self.noted.lock();
        let said = words::request(self.path, &noted.request);
        let mut user = noted.user.clone();
        if user.is_empty()
            && let Some(peer) = &self.peer
            && let Some(certificate) = &peer.certificate
        {
            user = certificate.common_name.clone().unwrap_or_default();
        }
        let mut stages = String::new();
        for (name, took) in &noted.stages {
            let comma = if stages.is_empty() { "" } else { ", " };
            // Writing into a string does not fail.
            write!(stages, "{comma}{name} {took:?}").ok();
        }
        let size = i64::try_from(noted.request_bytes.saturating_sub(PREFIX_BYTES));
        Described {
            remote: self.peer.as_ref().map_or_else(
                || "No remote client info.".to_owned(),
                |peer| peer.remote.to_string(),
            ),
            user,
            request_count: said.as_ref().map_or(-1, |said| said.count),
            request_size: said.as_ref().map_or(-1, |_said| size.unwrap_or(i64::MAX)),
            response_count: said.as_ref().map_or(-1, |_said| noted.response_count),
            request: said.map(|said| said.text).unwrap_or_default(),
            stages,
        }
    }
}

/// The call that is being worked on; `None` outside of calls.
pub(crate) fn described() -> Option<Described> {
    CALL.try_with(|call| call.describe()).ok()
}

/// Notes for the current call, if there is one, what a stage of it took.
pub(crate) fn spent(stage: &'static str, took: Duration) {
    // Outside of a call nobody wants to know.
    CALL.try_with(|call| call.noted.lock().stages.push((stage, took)))
        .ok();
}

/// Notes what is asked for, framed.
pub(crate) fn asked_for(request: Bytes) {
    CALL.try_with(|call| {
        let mut noted = call.noted.lock();
        noted.request_bytes = request.len();
        if request.len() <= REQUEST_BYTES_MAX {
            noted.request = request;
        }
    })
    .ok();
}

/// Notes who asks: a user who has shown that it is this one.
pub(crate) fn asked_by(user: &str) {
    CALL.try_with(|call| user.clone_into(&mut call.noted.lock().user))
        .ok();
}

/// Notes how many key-values the answer is about.
pub(crate) fn answered_with(count: usize) {
    let count = i64::try_from(count).unwrap_or(i64::MAX);
    CALL.try_with(|call| call.noted.lock().response_count = count)
        .ok();
}
