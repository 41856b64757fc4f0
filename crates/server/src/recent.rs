//! The last minutes of a member, a point every two seconds, for those who look at it by hand.
//!
//! What this is not: a time series database. What is older is forgotten, and a restart forgets everything.

use std::collections::VecDeque;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;
use types::Buckets;

use crate::EtcdServer;

/// How often a point is taken.
pub(crate) const INTERVAL: Duration = Duration::from_secs(2);
/// Points that are kept: five minutes.
const POINTS_MAX: usize = 150;

/// What has happened since the point before, and how it was then.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Point {
    /// Milliseconds since 1970.
    pub(crate) at_ms: u64,
    /// Of this member's clients.
    pub(crate) reads_per_s: f64,
    /// Puts and deletes that this member has applied, whoever was asked for them.
    pub(crate) writes_per_s: f64,
    /// Sent to watchers.
    pub(crate) events_per_s: f64,
    pub(crate) read: Latency,
    pub(crate) write: Latency,
    /// Of the log.
    pub(crate) fsync: Latency,
    /// Of the state.
    pub(crate) commit: Latency,
    pub(crate) db_bytes: u64,
    pub(crate) db_in_use_bytes: u64,
    pub(crate) watchers: usize,
    pub(crate) leases: usize,
    /// Entries that are committed and not yet applied here.
    pub(crate) behind: u64,
    /// Whether somebody led.
    pub(crate) has_leader: bool,
}

/// How long something took; nothing if it has not happened.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Latency {
    pub(crate) mean_s: Option<f64>,
    pub(crate) p99_s: Option<f64>,
}

/// What only ever grows.
#[derive(Clone, Debug, Default)]
struct Counts {
    changes: u64,
    events: u64,
    read: Buckets,
    write: Buckets,
    fsync: Buckets,
    commit: Buckets,
}

/// The last minutes.
#[derive(Default)]
pub(crate) struct Recent {
    points: Mutex<VecDeque<Point>>,
}

impl Recent {
    /// All points, the oldest first.
    pub(crate) fn points(&self) -> Vec<Point> {
        self.points.lock().iter().cloned().collect()
    }

    fn add(&self, point: Point) {
        let mut points = self.points.lock();
        if points.len() == POINTS_MAX {
            points.pop_front();
        }
        points.push_back(point);
    }

    /// Takes points, for ever.
    pub(crate) async fn follow(&self, server: &EtcdServer) {
        let mut before = (Instant::now(), Counts::of(server));
        loop {
            tokio::time::sleep(INTERVAL).await;
            let (then, earlier) = &before;
            let (now, counts) = (Instant::now(), Counts::of(server));
            let mut point = Point::now(server);
            counts.since(earlier, now - *then, &mut point);
            self.add(point);
            before = (now, counts);
        }
    }
}

impl Point {
    fn now(server: &EtcdServer) -> Self {
        let views = server.views();
        let raft = server.node().status();
        let wall = server.config().clock.wall();
        let since_1970 = wall.duration_since(std::time::UNIX_EPOCH);
        Self {
            at_ms: since_1970.map_or(0, |since| {
                u64::try_from(since.as_millis()).unwrap_or_default()
            }),
            db_bytes: server.db_size(),
            db_in_use_bytes: server.db_size_in_use(),
            watchers: views.store.watch_counts().watchers,
            leases: views.leases.len(),
            behind: raft.committed_index.saturating_sub(raft.applied_index),
            has_leader: raft.leader.is_some(),
            ..Self::default()
        }
    }
}

impl Counts {
    fn of(server: &EtcdServer) -> Self {
        let applied = server.node().applications();
        let (read, write) = server.traffic().latencies();
        let (_written, fsync) = server.node().log_durations();
        Self {
            changes: applied.puts + applied.deletes,
            events: server.metrics().events().get(),
            read,
            write,
            fsync,
            commit: server.persister().commit_durations(),
        }
    }

    /// What has happened since then, in this time.
    fn since(&self, earlier: &Self, time: Duration, point: &mut Point) {
        let per_s = |now: u64, then: u64| {
            let count = u32::try_from(now.saturating_sub(then)).unwrap_or(u32::MAX);
            f64::from(count) / time.as_secs_f64().max(0.001)
        };
        point.reads_per_s = per_s(self.read.count, earlier.read.count);
        point.writes_per_s = per_s(self.changes, earlier.changes);
        point.events_per_s = per_s(self.events, earlier.events);
        point.read = Latency::between(&earlier.read, &self.read);
        point.write = Latency::between(&earlier.write, &self.write);
        point.fsync = Latency::between(&earlier.fsync, &self.fsync);
        point.commit = Latency::between(&earlier.commit, &self.commit);
    }
}

impl Latency {
    /// Of what was counted between the two.
    fn between(earlier: &Buckets, later: &Buckets) -> Self {
        let count = later.count.saturating_sub(earlier.count);
        let Ok(count @ 1..) = u32::try_from(count) else {
            return Self::default();
        };
        Self {
            mean_s: Some(((later.sum - earlier.sum) / f64::from(count)).max(0.0)),
            p99_s: Some(quantile(earlier, later, 0.99 * f64::from(count))),
        }
    }
}

/// Where the value of this rank would be if those of a bucket were spread evenly.
fn quantile(earlier: &Buckets, later: &Buckets, rank: f64) -> f64 {
    let (mut low, mut below) = (0.0, 0.0);
    for (place, (bound, count)) in later.cumulative.iter().enumerate() {
        let then = earlier.cumulative.get(place).map_or(0, |(_, then)| *then);
        let up_to = f64::from(u32::try_from(count.saturating_sub(then)).unwrap_or(u32::MAX));
        if up_to >= rank {
            let share = (rank - below) / (up_to - below).max(f64::MIN_POSITIVE);
            return low + (bound - low) * share.clamp(0.0, 1.0);
        }
        (low, below) = (*bound, up_to);
    }
    // Above every bound: at least the last.
    low
}

#[cfg(test)]
mod tests {
    use types::Histogram;

    use super::*;

    #[test]
    fn latencies_are_those_since_the_point_before() {
        let histogram = Histogram::doubling(0.001, 14);
        (0..100).for_each(|_| histogram.observe(Duration::from_secs(1)));
        let before = histogram.read();
        assert_eq!(Latency::between(&before, &before), Latency::default());
        (0..98).for_each(|_| histogram.observe(Duration::from_micros(1500)));
        (0..2).for_each(|_| histogram.observe(Duration::from_millis(60)));
        let latency = Latency::between(&before, &histogram.read());
        let mean = latency.mean_s.unwrap();
        assert!((0.0026..0.0028).contains(&mean), "{mean}");
        let p99 = latency.p99_s.unwrap();
        assert!((0.032..=0.064).contains(&p99), "{p99}");
        let fast = Latency::between(&Buckets::default(), &before);
        assert!(fast.p99_s.is_some_and(|p99| (0.512..=1.024).contains(&p99)));
    }

    #[test]
    fn what_is_above_every_bound_is_shown_as_the_last() {
        let histogram = Histogram::doubling(1.0, 2);
        histogram.observe(Duration::from_secs(100));
        let latency = Latency::between(&Buckets::default(), &histogram.read());
        assert_eq!(latency.p99_s, Some(2.0));
    }

    #[test]
    fn only_the_last_minutes_are_kept() {
        let recent = Recent::default();
        for at_ms in 0..1000 {
            recent.add(Point {
                at_ms,
                ..Point::default()
            });
        }
        let points = recent.points();
        assert_eq!(points.len(), POINTS_MAX);
        assert_eq!((points[0].at_ms, points[149].at_ms), (850, 999));
    }
}
