//! How long the disk takes to make something durable, against what a heartbeat leaves time for, and how much room there is.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::sys::statfs::{NFS_SUPER_MAGIC, OVERLAYFS_SUPER_MAGIC, TMPFS_MAGIC, statfs};
use nix::sys::statvfs::statvfs;
use types::Clock;

use super::report::{Level, Report};
use crate::tools::print;

/// As much as a few requests of Kubernetes in the log; what etcd's guide has a disk measured with.
const WRITE_BYTES: usize = 2300;
/// A disk that is too slow for all syncs is slow enough to know.
const TIME_MAX: Duration = Duration::from_secs(20);
/// A sync may take this part of a heartbeat: 10 ms of the default 100 ms, as etcd's guide has it.
const SHARE_OF_HEARTBEAT: u32 = 10;

/// What the disk has to keep up with.
#[derive(Clone, Copy, Debug)]
pub(super) struct Due {
    pub(super) heartbeat: Duration,
    pub(super) election: Duration,
    pub(super) quota_bytes: Option<u64>,
}

/// How long syncs took.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Syncs {
    count: usize,
    median: Duration,
    p99: Duration,
    slowest: Duration,
}

/// A file that goes when it is dropped.
struct Scratch {
    path: PathBuf,
    file: File,
}

impl Scratch {
    fn create(directory: &Path) -> io::Result<Self> {
        let path = directory.join(format!(".kvorum-check-{}", std::process::id()));
        let file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .open(&path)?;
        Ok(Self { path, file })
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_file(&self.path) {
            tracing::warn!(path = %self.path.display(), %error, "cannot remove");
        }
    }
}

/// Checks the disk under a directory, which need not be there yet.
pub(super) fn check(
    directory: &Path,
    due: &Due,
    rounds: u32,
    clock: &dyn Clock,
    report: &mut Report,
) {
    let present = present(directory);
    let shown = present.display();
    match measure(&present, rounds, clock) {
        Ok(syncs) => report.add("disk", judge(&syncs, due, &shown.to_string())),
        Err(error) => report.error("disk", format!("cannot write in {shown}: {error}")),
    }
    match statfs(&present).map(|it| it.filesystem_type()) {
        Ok(TMPFS_MAGIC) => report.warning(
            "disk",
            format!("{shown} is in memory (tmpfs): a restart of the machine loses it"),
        ),
        Ok(NFS_SUPER_MAGIC) => report.warning(
            "disk",
            format!("{shown} is on the network (NFS): the member depends on it for every write"),
        ),
        Ok(OVERLAYFS_SUPER_MAGIC) => report.warning(
            "disk",
            format!(
                "{shown} is in a container's own layer (overlayfs): it goes with the container"
            ),
        ),
        Ok(_) => {}
        Err(error) => report.warning("disk", format!("cannot see what {shown} is on: {error}")),
    }
    match statvfs(&present) {
        Ok(it) => {
            let free = it.blocks_available() * it.fragment_size();
            report.add("space", room(free, due.quota_bytes));
        }
        Err(error) => report.warning(
            "space",
            format!("cannot see how much room there is in {shown}: {error}"),
        ),
    }
}

/// The directory, or the first one above it that is there.
fn present(directory: &Path) -> PathBuf {
    let absolute = std::path::absolute(directory).unwrap_or_else(|_| directory.to_owned());
    let mut above = absolute.ancestors();
    let found = above.find(|path| path.is_dir());
    found.map_or_else(|| PathBuf::from("/"), Path::to_owned)
}

fn measure(directory: &Path, rounds: u32, clock: &dyn Clock) -> io::Result<Syncs> {
    let mut scratch = Scratch::create(directory)?;
    let bytes = [0x6b; WRITE_BYTES];
    let begun = clock.now();
    let mut took = Vec::new();
    for _ in 0..rounds {
        scratch.file.write_all(&bytes)?;
        let before = clock.now();
        scratch.file.sync_data()?;
        let now = clock.now();
        took.push(now.saturating_duration_since(before));
        if now.saturating_duration_since(begun) > TIME_MAX {
            break;
        }
    }
    Ok(Syncs::of(took))
}

impl Syncs {
    fn of(mut took: Vec<Duration>) -> Self {
        took.sort_unstable();
        let rank = |hundredths: usize| {
            let place = (took.len() * hundredths).div_ceil(100).max(1) - 1;
            took.get(place).copied().unwrap_or_default()
        };
        Self {
            count: took.len(),
            median: rank(50),
            p99: rank(99),
            slowest: rank(100),
        }
    }
}

fn judge(syncs: &Syncs, due: &Due, shown: &str) -> (Level, String) {
    let ms = |time: Duration| format!("{:.2} ms", time.as_secs_f64() * 1000.0);
    let wanted = due.heartbeat / SHARE_OF_HEARTBEAT;
    let measured = format!(
        "fdatasync in {shown} takes {} (median), {} (99 of 100), {} (slowest of {})",
        ms(syncs.median),
        ms(syncs.p99),
        ms(syncs.slowest),
        syncs.count,
    );
    if syncs.p99 >= due.heartbeat || syncs.slowest >= due.election {
        let text = format!(
            "{measured}: too slow, a heartbeat is due every {} and members elect another leader after {}",
            ms(due.heartbeat),
            ms(due.election)
        );
        return (Level::Error, text);
    }
    if syncs.p99 > wanted {
        let text = format!(
            "{measured}: slow, with a heartbeat every {} it should be below {}",
            ms(due.heartbeat),
            ms(wanted)
        );
        return (Level::Warning, text);
    }
    (
        Level::Ok,
        format!("{measured}; a heartbeat is due every {}", ms(due.heartbeat)),
    )
}

/// The state is written anew beside the old one, and the log is there too.
fn room(free_bytes: u64, quota_bytes: Option<u64>) -> (Level, String) {
    let free = print::size(free_bytes);
    match quota_bytes {
        Some(quota) if free_bytes < quota.saturating_mul(2) => (
            Level::Warning,
            format!(
                "{free} are free: less than twice the quota of {}",
                print::size(quota)
            ),
        ),
        Some(quota) => (
            Level::Ok,
            format!("{free} are free, and the quota is {}", print::size(quota)),
        ),
        None => (Level::Ok, format!("{free} are free, and there is no quota")),
    }
}

#[cfg(test)]
mod tests {
    use types::SystemClock;

    use super::*;

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    const DUE: Due = Due {
        heartbeat: Duration::from_millis(100),
        election: Duration::from_secs(1),
        quota_bytes: None,
    };

    #[test]
    fn a_disk_is_judged_by_what_a_heartbeat_needs() {
        let level = |times: Vec<Duration>| judge(&Syncs::of(times), &DUE, "/x").0;
        assert_eq!(level(vec![ms(1); 100]), Level::Ok);
        assert_eq!(level(vec![ms(20); 100]), Level::Warning);
        assert_eq!(level(vec![ms(100); 100]), Level::Error);
        // One that is slow is no reason, unless an election begins meanwhile.
        let mut times = vec![ms(1); 199];
        times.push(ms(500));
        assert_eq!(level(times.clone()), Level::Ok);
        times.push(ms(1000));
        assert_eq!(level(times), Level::Error);
    }

    #[test]
    fn percentiles_are_those_of_what_was_measured() {
        let syncs = Syncs::of((1..=100).rev().map(ms).collect());
        assert_eq!(
            (syncs.median, syncs.p99, syncs.slowest),
            (ms(50), ms(99), ms(100))
        );
        let one = Syncs::of(vec![ms(7)]);
        assert_eq!((one.median, one.p99, one.slowest), (ms(7), ms(7), ms(7)));
    }

    #[test]
    fn a_directory_that_is_not_there_is_measured_above_and_left_as_it_was() {
        let dir = tempfile::tempdir().unwrap();
        let mut report = Report::default();
        check(&dir.path().join("a/b"), &DUE, 3, &SystemClock, &mut report);
        let text = report.text();
        assert!(
            text.contains(&format!("fdatasync in {}", dir.path().display())),
            "{text}"
        );
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
    }

    #[test]
    fn room_for_twice_the_quota_is_wanted() {
        assert_eq!(room(3 << 30, Some(2 << 30)).0, Level::Warning);
        assert_eq!(room(5 << 30, Some(2 << 30)).0, Level::Ok);
        assert_eq!(room(0, None).0, Level::Ok);
    }
}
