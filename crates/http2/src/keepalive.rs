//! Whether a silent client is still there: it is pinged, and has to say something in time
//! (`--grpc-keepalive-interval`, `--grpc-keepalive-timeout`).

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::time::{Instant, Sleep};

pub(crate) struct KeepAlive {
    interval: Duration,
    timeout: Duration,
    last_heard: Instant,
    /// A ping was sent, and nothing was heard since.
    is_pinged: bool,
    timer: Pin<Box<Sleep>>,
}

/// What has to be done.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Due {
    Ping,
    GiveUp,
}

impl KeepAlive {
    pub(crate) fn new(interval: Duration, timeout: Duration) -> Self {
        Self {
            interval,
            timeout,
            last_heard: Instant::now(),
            is_pinged: false,
            timer: Box::pin(tokio::time::sleep(interval)),
        }
    }

    /// The client has said something.
    pub(crate) fn heard(&mut self) {
        self.last_heard = Instant::now();
        self.is_pinged = false;
    }

    /// Waits until something has to be done. Called when everything that has come was heard.
    pub(crate) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Due> {
        while self.timer.as_mut().poll(cx).is_ready() {
            let silent_until = self.last_heard + self.interval;
            // Not the timer's own: this machine may have stood still.
            let now = Instant::now();
            if now < silent_until {
                // The timer is not set anew each time that something is heard.
                self.timer.as_mut().reset(silent_until);
            } else if self.is_pinged {
                return Poll::Ready(Due::GiveUp);
            } else {
                self.is_pinged = true;
                self.timer.as_mut().reset(now + self.timeout);
                return Poll::Ready(Due::Ping);
            }
        }
        Poll::Pending
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use super::*;

    const INTERVAL: Duration = Duration::from_secs(10);
    const TIMEOUT: Duration = Duration::from_secs(3);

    #[tokio::test(start_paused = true)]
    async fn a_silent_client_is_pinged_and_given_up() {
        let begin = Instant::now();
        let mut keepalive = KeepAlive::new(INTERVAL, TIMEOUT);
        tokio::time::advance(Duration::from_secs(4)).await;
        keepalive.heard();
        assert_eq!(poll_fn(|cx| keepalive.poll(cx)).await, Due::Ping);
        assert_eq!(begin.elapsed().as_secs(), 14);
        keepalive.heard();
        assert_eq!(poll_fn(|cx| keepalive.poll(cx)).await, Due::Ping);
        assert_eq!(begin.elapsed().as_secs(), 24);
        assert_eq!(poll_fn(|cx| keepalive.poll(cx)).await, Due::GiveUp);
        assert_eq!(begin.elapsed().as_secs(), 27);
    }
}
