//! A host program that starts and stops a cluster of three members in its process again and again:
//! nothing may be left of them, neither tasks nor threads, files or memory.
//!
//! Alone in its file, because it counts what is in the whole process. `KVORUM_ROUNDS` says how often.

use std::fs;
use std::net::TcpListener;
use std::path::Path;
use std::time::Duration;

use kvorum::{Config, Kvorum};
use tokio::runtime::{Builder, Handle};

const ROUNDS: usize = 20;
/// Rounds after which all that is kept for good has been made.
const WARM_UP: usize = 4;
/// What a round may leave in memory: allocators keep some of what they were given back.
const BYTES_A_ROUND_MAX: u64 = 256 * 1024;
/// What memory differs by from one moment to another.
const BYTES_NOISE: u64 = 24 * 1024 * 1024;
/// Threads that sled keeps waiting for work, for all stores of a process, once there was one.
const SLED_THREADS: usize = 7;
/// A thread for blocking work that has none ends after this, so that threads can be counted.
const THREAD_KEEP_ALIVE: Duration = Duration::from_millis(100);
const PATIENCE: Duration = Duration::from_secs(60);

/// What a process has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Holdings {
    tasks: usize,
    threads: usize,
    files: usize,
}

impl Holdings {
    fn now() -> Self {
        let count = |dir: &str| fs::read_dir(dir).expect("procfs").count();
        Self {
            tasks: Handle::current().metrics().num_alive_tasks(),
            threads: count("/proc/self/task"),
            files: count("/proc/self/fd"),
        }
    }

    fn is_within(self, other: Self) -> bool {
        let threads = other.threads + SLED_THREADS;
        self.tasks <= other.tasks && self.threads <= threads && self.files <= other.files
    }
}

fn resident_bytes() -> u64 {
    let status = fs::read_to_string("/proc/self/status").expect("procfs");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib = line.and_then(|rest| rest.split_whitespace().next());
    let kib: u64 = kib
        .expect("a process has memory")
        .parse()
        .expect("a number");
    kib * 1024
}

fn config(dir: &Path, peers: &[String], at: usize) -> Config {
    let members: Vec<String> = (0..)
        .zip(peers)
        .map(|(at, url)| format!("m{at}={url}"))
        .collect();
    Config::builder()
        .any_ports()
        .name(&format!("m{at}"))
        .data_dir(dir.join(format!("m{at}")))
        .listen_peer_urls(&peers[at])
        .initial_advertise_peer_urls(&peers[at])
        .initial_cluster(&members.join(","))
        .flag("heartbeat-interval", "50")
        .flag("election-timeout", "500")
        .build()
        .expect("a configuration")
}

/// Starts three members, has each of them do something, and stops them.
async fn round(dir: &Path, peers: &[String], round: usize) {
    let start = |at| Kvorum::start(config(dir, peers, at));
    let (one, two, three) = tokio::try_join!(start(0), start(1), start(2)).expect("they start");
    let members = [one, two, three];
    for member in &members {
        member.wait_ready().await.expect("it runs");
    }
    for member in &members {
        let (key, client) = (format!("{}", member.member_id()), member.client());
        put(&client, &key, &round.to_string()).await;
        let read = client
            .get(key.as_str())
            .await
            .expect("there is a leader")
            .expect("it was put");
        assert_eq!(read.value, round.to_string().as_bytes());
    }
    let [one, two, three] = members;
    tokio::join!(one.stop(), two.stop(), three.stop());
}

/// A leader may change on a slow machine.
async fn put(client: &kvorum::Client, key: &str, value: &str) {
    let put = async {
        while client.put(key, value).await.is_err() {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(PATIENCE, put)
        .await
        .expect("it is put in time");
}

/// Waits until the process has no more than before.
async fn settle(before: Holdings) {
    let settled = async {
        while !Holdings::now().is_within(before) {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    if tokio::time::timeout(PATIENCE, settled).await.is_err() {
        panic!("{:?} are left, and there were {before:?}", Holdings::now());
    }
}

#[test]
fn three_members_start_and_stop_and_leave_nothing() {
    let rounds =
        std::env::var("KVORUM_ROUNDS").map_or(ROUNDS, |text| text.parse().expect("a number"));
    let runtime = Builder::new_multi_thread()
        .enable_all()
        .thread_keep_alive(THREAD_KEEP_ALIVE)
        .build()
        .expect("a runtime");
    let dir = tempfile::tempdir().expect("a directory");
    let ports = [(); 3].map(|()| TcpListener::bind("127.0.0.1:0").expect("a port"));
    let peers = ports.map(|port| format!("http://{}", port.local_addr().expect("an address")));
    runtime.block_on(async {
        let before = Holdings::now();
        let mut warm = 0;
        for at in 0..rounds {
            round(dir.path(), &peers, at).await;
            settle(before).await;
            if at + 1 == WARM_UP {
                warm = resident_bytes();
            }
        }
        let grown = resident_bytes().saturating_sub(warm);
        let rounds = u64::try_from(rounds.saturating_sub(WARM_UP)).expect("a small number");
        let allowed = BYTES_NOISE + rounds * BYTES_A_ROUND_MAX;
        assert!(
            warm == 0 || grown <= allowed,
            "{grown} bytes more after {rounds} rounds"
        );
    });
}
