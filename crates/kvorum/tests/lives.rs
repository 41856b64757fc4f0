//! A host program that starts and stops clusters in its own process keeps nothing of them: no task, no file, no
//! thread and no memory. Alone in its process, so that nobody else's are counted. `KVORUM_ROUNDS` says how
//! many times.

use std::error::Error;
use std::fs;
use std::path::Path;
use std::time::Duration;

use kvorum::{Config, Kvorum};
use testkit::Port;

type Result<T> = std::result::Result<T, Box<dyn Error>>;

/// How many times: the second half of them has to leave nothing.
const ROUNDS: usize = 6;
/// What the allocator may hold more at one moment than at another without a leak. Its arenas grow for some fifty rounds
/// (173 MiB after 10, 213 after 50) and not after that (215 after 120).
const MEMORY_SLACK_MIB: u64 = 64;
/// How long what has been told to end may take.
const PATIENCE: Duration = Duration::from_secs(30);

/// What the process holds.
#[derive(Clone, Copy, Debug)]
struct Held {
    tasks: usize,
    files: usize,
    threads: usize,
    memory_mib: u64,
}

impl Held {
    fn now() -> Result<Self> {
        let status = fs::read_to_string("/proc/self/status")?;
        let memory = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let kib: u64 = memory
            .and_then(|memory| memory.trim().strip_suffix(" kB"))
            .ok_or("no VmRSS in kB")?
            .trim()
            .parse()?;
        Ok(Self {
            tasks: tokio::runtime::Handle::current()
                .metrics()
                .num_alive_tasks(),
            files: fs::read_dir("/proc/self/fd")?.count(),
            threads: fs::read_dir("/proc/self/task")?.count(),
            memory_mib: kib / 1024,
        })
    }

    fn is_no_more_than(self, before: Self) -> bool {
        self.tasks <= before.tasks
            && self.files <= before.files
            && self.threads <= before.threads
            && self.memory_mib <= before.memory_mib + MEMORY_SLACK_MIB
    }
}

fn configs(directory: &Path, peers: &[Port; 3]) -> Result<Vec<Config>> {
    let member = |at: usize| format!("m{at}=http://127.0.0.1:{}", peers[at].number());
    let cluster = [member(0), member(1), member(2)].join(",");
    let config = |at: usize| {
        let peer = peers[at].number();
        Config::builder()
            .name(&format!("m{at}"))
            .data_dir(directory.join(format!("m{at}")))
            .initial_cluster(&cluster)
            .listen_peer_urls(&format!("http://127.0.0.1:{peer}"))
            .initial_advertise_peer_urls(&format!("http://127.0.0.1:{peer}"))
            .listen_client_urls("http://127.0.0.1:0")
            .flag("heartbeat-interval", "50")
            .flag("election-timeout", "500")
            .build()
            .map_err(Into::into)
    };
    (0..3).map(config).collect()
}

/// Starts three members, writes through one and reads through another, and stops them.
async fn live() -> Result<()> {
    let directory = tempfile::tempdir()?;
    let peers = [Port::reserve()?, Port::reserve()?, Port::reserve()?];
    let configs = configs(directory.path(), &peers)?;
    let starts = configs.into_iter().map(Kvorum::start);
    let members = futures_util::future::try_join_all(starts).await?;
    for member in &members {
        let ready = member.wait_ready().await;
        ready.map_err(|fatal| fatal.to_string())?;
    }
    members[0].client().put("key", "value").await?;
    let read = members[2].client().get("key").await?;
    assert_eq!(read.ok_or("the key is not there")?.value, &b"value"[..]);
    futures_util::future::join_all(members.into_iter().map(Kvorum::stop)).await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_members_come_and_go_and_leave_nothing() -> Result<()> {
    let rounds = match std::env::var("KVORUM_ROUNDS") {
        Ok(rounds) => rounds.parse()?,
        Err(_) => ROUNDS,
    };
    let first = rounds / 2;
    for _ in 0..first {
        live().await?;
    }
    let before = Held::now()?;
    for _ in first..rounds {
        live().await?;
    }
    // Threads of the storage engine's that have nothing to do end after a while.
    let deadline = tokio::time::Instant::now() + PATIENCE;
    loop {
        let after = Held::now()?;
        if after.is_no_more_than(before) {
            println!("{before:?} after {first} rounds, {after:?} after {rounds}");
            return Ok(());
        }
        assert!(
            tokio::time::Instant::now() < deadline,
            "{before:?} after {first} rounds, {after:?} after {rounds}"
        );
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}
