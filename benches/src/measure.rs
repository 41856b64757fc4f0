//! What is measured of a run: latencies in the client; CPU time and memory of all processes of the server; what came
//! to the disk.

use std::os::unix::fs::MetadataExt as _;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::Context;
use serde::Serialize;

/// Latencies in microseconds, every one of them: histograms of a thousand clients do not fit into a processor's caches,
/// and clients would spend more on them than on requests.
pub(crate) struct Latencies(Vec<u32>);

impl Latencies {
    pub(crate) const fn new() -> Self {
        Self(Vec::new())
    }

    pub(crate) fn record(&mut self, took: Duration) {
        self.0
            .push(u32::try_from(took.as_micros()).unwrap_or(u32::MAX));
    }

    pub(crate) fn add(&mut self, other: Self) {
        self.0.extend(other.0);
    }

    pub(crate) const fn count(&self) -> usize {
        self.0.len()
    }

    /// What so many of a thousand did not exceed: 500 is the median, 1,000 the worst. 0 if there are none.
    pub(crate) fn quantile_us(&mut self, per_mille: usize) -> u64 {
        let rank = (self.0.len() * per_mille).div_ceil(1000);
        match self.0.is_empty() {
            true => 0,
            false => (*self.0.select_nth_unstable(rank.max(1) - 1).1).into(),
        }
    }

    /// The same in milliseconds.
    pub(crate) fn quantile_ms(&mut self, per_mille: usize) -> f64 {
        Duration::from_micros(self.quantile_us(per_mille)).as_secs_f64() * 1e3
    }
}

/// The figures of one load on one server, one run.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Figures {
    /// Requests (or events) that were answered.
    pub(crate) operations: u64,
    /// How long the load ran.
    pub(crate) seconds: f64,
    /// Operations per second.
    pub(crate) throughput: f64,
    /// Median latency.
    pub(crate) p50_us: u64,
    /// 99th percentile latency.
    pub(crate) p99_us: u64,
    /// 99.9th percentile latency.
    pub(crate) p999_us: u64,
    /// CPU time of the server, user and system, for each operation; of a cluster: of all members.
    pub(crate) server_cpu_us: f64,
    /// The server's largest resident set meanwhile; of a cluster: of all members together.
    pub(crate) peak_rss_mib: f64,
    /// How much larger that is than when the load began.
    pub(crate) rss_growth_mib: f64,
    /// Bytes that came to the disk, for each operation: of everybody, so that nobody else should write meanwhile.
    pub(crate) written_bytes: f64,
}

/// CPU time and memory of one or more processes, from `/proc`.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct ProcessUse {
    cpu: Duration,
    rss_kib: u64,
    peak_rss_kib: u64,
}

impl ProcessUse {
    /// All of these together.
    pub(crate) fn read(pids: &[u32]) -> anyhow::Result<Self> {
        let mut sum = Self::default();
        for &pid in pids {
            let one = Self::of(pid)?;
            sum.cpu += one.cpu;
            sum.rss_kib += one.rss_kib;
            sum.peak_rss_kib += one.peak_rss_kib;
        }
        Ok(sum)
    }

    fn of(pid: u32) -> anyhow::Result<Self> {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"))
            .context("the server is not running any more")?;
        // The command's name may hold spaces: fields are counted from behind its bracket.
        let fields: Vec<&str> = stat
            .rsplit_once(')')
            .context("no command in stat")?
            .1
            .split_whitespace()
            .collect();
        let ticks = |at: usize| -> anyhow::Result<u64> {
            Ok(fields.get(at).context("short stat")?.parse()?)
        };
        // Linux reports these in hundredths of a second on every architecture Rust runs on.
        let cpu = Duration::from_millis((ticks(11)? + ticks(12)?) * 10);
        let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
        Ok(Self {
            cpu,
            rss_kib: named(&status, "VmRSS:")?,
            peak_rss_kib: named(&status, "VmHWM:")?,
        })
    }

    /// CPU time spent between two readings.
    pub(crate) fn cpu_since(&self, before: &Self) -> Duration {
        self.cpu.saturating_sub(before.cpu)
    }

    /// What is resident now.
    pub(crate) fn rss_bytes(&self) -> u64 {
        self.rss_kib << 10
    }
}

/// The number behind a name, in a file of `/proc` that has one of each in a line.
fn named(lines: &str, name: &str) -> anyhow::Result<u64> {
    let number = lines
        .lines()
        .find_map(|line| line.strip_prefix(name))
        .and_then(|rest| rest.split_whitespace().next())
        .with_context(|| format!("/proc has no {name}"))?;
    Ok(number.parse()?)
}

/// The disk under the directory where every server has its data. What a process is said to have written
/// (`/proc/PID/io`) is too much: a page counts as a whole, and a large one as many.
#[derive(Clone, Debug)]
pub(crate) struct Disk(Option<PathBuf>);

impl Disk {
    pub(crate) fn find() -> anyhow::Result<Self> {
        let device = std::fs::metadata(std::env::temp_dir())?.dev();
        let (major, minor) = (nix::sys::stat::major(device), nix::sys::stat::minor(device));
        let stat = PathBuf::from(format!("/sys/dev/block/{major}:{minor}/stat"));
        // A directory in memory has none.
        Ok(Self(stat.exists().then_some(stat)))
    }

    /// Bytes that have come to it, after all that is on its way.
    pub(crate) fn written(&self) -> anyhow::Result<u64> {
        let Some(stat) = &self.0 else { return Ok(0) };
        nix::unistd::sync();
        let stat = std::fs::read_to_string(stat)?;
        let sectors = stat.split_whitespace().nth(6).context("a short stat")?;
        Ok(sectors.parse::<u64>()? * 512)
    }
}

/// Measures a load from its start to its end.
pub(crate) struct Meter {
    pids: Vec<u32>,
    disk: Disk,
    written_before: u64,
    before: ProcessUse,
    started: Instant,
}

impl Meter {
    pub(crate) fn start(pids: &[u32]) -> anyhow::Result<Self> {
        let disk = Disk::find()?;
        for pid in pids {
            // From now on its peak is that of the load (proc_pid_clear_refs(5)).
            std::fs::write(format!("/proc/{pid}/clear_refs"), "5")?;
        }
        Ok(Self {
            pids: pids.to_vec(),
            written_before: disk.written()?,
            disk,
            before: ProcessUse::read(pids)?,
            started: now(),
        })
    }

    #[expect(clippy::cast_precision_loss, reason = "figures for people")]
    pub(crate) fn stop(self, mut latencies: Latencies) -> anyhow::Result<Figures> {
        let seconds = self.started.elapsed().as_secs_f64();
        let after = ProcessUse::read(&self.pids)?;
        let operations = latencies.count();
        let cpu = after.cpu_since(&self.before);
        let written = self.disk.written()? - self.written_before;
        Ok(Figures {
            operations: operations as u64,
            seconds,
            throughput: operations as f64 / seconds,
            p50_us: latencies.quantile_us(500),
            p99_us: latencies.quantile_us(990),
            p999_us: latencies.quantile_us(999),
            server_cpu_us: cpu.as_secs_f64() * 1e6 / operations.max(1) as f64,
            peak_rss_mib: after.peak_rss_kib as f64 / 1024.0,
            rss_growth_mib: after.peak_rss_kib.saturating_sub(self.before.rss_kib) as f64 / 1024.0,
            written_bytes: written as f64 / operations.max(1) as f64,
        })
    }
}

/// The one place of the benchmarks that asks the machine for the time.
#[expect(clippy::disallowed_methods, reason = "a benchmark measures real time")]
pub(crate) fn now() -> Instant {
    Instant::now()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_latencies_that_were_there() {
        let mut latencies = Latencies::new();
        assert_eq!(latencies.quantile_us(500), 0);
        for micros in (1..=1000).rev() {
            latencies.record(Duration::from_micros(micros));
        }
        let found = [0, 500, 990, 999, 1000].map(|at| latencies.quantile_us(at));
        assert_eq!(found, [1, 500, 990, 999, 1000]);
    }
}
