//! Input that no client should send, and clients that do not read: errors for them, and nothing for
//! anybody else to notice.
//!
//! `KVORUM_CONNECTIONS` says how many idle connections, `KVORUM_EVENTS` how many events pass a
//! watcher that does not read.

use std::hash::{BuildHasher as _, RandomState};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::{Context as _, Result, ensure};
use api::etcdserverpb as pb;
use kvorum_tests::hostile::{HTTP2_PREFACE, idle, send, send_and_hang_up};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use pb::request_op::Request as Op;
use pb::watch_request::RequestUnion;
use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};
use testkit::patience::parameter;
use testkit::{Client, Server, Spec, certs, eventually, note};
use tokio_stream::wrappers::ReceiverStream;
use tonic::Code;

const MIB: u64 = 1024 * 1024;
/// What the allocator and the runtime may keep after an attack is over.
const RSS_KEPT_MAX: u64 = 64 * MIB;

const RANDOM_CONNECTIONS: usize = 400;
const RANDOM_BYTES_MAX: usize = 64 * 1024;

const CONNECTIONS: u64 = 10_000;
/// File descriptors that the test needs besides.
const DESCRIPTORS_SPARE: u64 = 512;

const EVENTS: u64 = 1_000_000;
const EVENTS_PER_TXN: u64 = 100;
const KEYS: u64 = 1_000;
const VALUE_BYTES: usize = 256;
const WRITERS: u64 = 8;
/// How much more memory a server may use with a watcher that does not read than the same server
/// with the same load and no watcher. What was written is a multiple of it: it cannot be held for
/// the watcher.
const SLOW_WATCHER_RSS_MAX: u64 = 96 * MIB;
/// The same for catching up, which reads the history through the store's page cache.
const CATCH_UP_RSS_MAX: u64 = 192 * MIB;
/// Waves of idle connections, one after the other.
const WAVES: usize = 5;

/// The server answers as if nothing were the matter.
async fn still_serves(server: &mut Server) -> Result<()> {
    ensure!(server.alive()?, "the server is gone");
    let mut client = server.client().await?;
    let put = pb::PutRequest {
        key: b"alive".to_vec(),
        value: b"yes".to_vec(),
        ..Default::default()
    };
    client.kv.put(put).await?;
    let get = pb::RangeRequest {
        key: b"alive".to_vec(),
        ..Default::default()
    };
    ensure!(
        client.kv.range(get).await?.into_inner().count == 1,
        "the key is not there"
    );
    Ok(())
}

/// Memory goes back to near what it was, as soon as the allocator gives it back.
async fn rss_returns(server: &Server, before: u64, what: &str) -> Result<()> {
    let peak = server.rss_peak()?;
    let after = eventually("memory is given back", || async {
        let now = server.rss()?;
        ensure!(
            now < before + RSS_KEPT_MAX,
            "{} MiB, before {} MiB",
            now / MIB,
            before / MIB
        );
        Ok(now)
    })
    .await?;
    let [before, peak, after] = [before / MIB, peak / MIB, after / MIB];
    note(format_args!(
        "{what}: RSS {before} MiB before, {peak} MiB at most, {after} MiB after"
    ));
    Ok(())
}

#[tokio::test]
async fn random_bytes_are_refused() -> Result<()> {
    let seed = parameter("KVORUM_SEED", RandomState::new().hash_one("seed"))?;
    note(format_args!("KVORUM_SEED={seed}"));
    let mut rng = StdRng::seed_from_u64(seed);
    let mut server = Spec::kvorum().start().await?;
    still_serves(&mut server).await?;
    let before = server.rss()?;
    for i in 0..RANDOM_CONNECTIONS {
        let len = rng.random_range(0..RANDOM_BYTES_MAX);
        let random = (0..len).map(|_| rng.random::<u8>());
        // Pure noise, noise after the start of HTTP/2, of HTTP/1 and of TLS.
        let start: &[u8] = match i % 4 {
            0 => b"",
            1 => HTTP2_PREFACE,
            2 => b"POST /etcdserverpb.KV/Range HTTP/1.1\r\nHost: x\r\n",
            _ => b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        };
        let bytes: Vec<u8> = start.iter().copied().chain(random).collect();
        for port in [server.client_port(), server.peer_port()] {
            let sent = send_and_hang_up(port, &bytes).await;
            sent.with_context(|| format!("seed {seed}, connection {i}"))?;
        }
    }
    still_serves(&mut server).await?;
    rss_returns(&server, before, "random bytes").await?;
    server.stop().await
}

#[tokio::test]
async fn half_a_tls_handshake_holds_nobody_up() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let certs = certs::generate(dir.path(), "client")?;
    let mut server = Spec::kvorum().mutual_tls(certs.clone()).start().await?;
    // The start of a ClientHello that never goes on; also plaintext, and nothing at all.
    let mut open = idle(
        server.client_port(),
        200,
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
    )
    .await?;
    open.extend(idle(server.client_port(), 50, HTTP2_PREFACE).await?);
    open.extend(idle(server.client_port(), 50, b"").await?);
    // Others get through, with a certificate, and not without.
    let etcdctl = |with_certificate: bool| -> Result<_> {
        let mut command = testkit::process::command(&testkit::binaries::etcdctl()?);
        command
            .env_clear()
            .arg(format!("--endpoints={}", server.client_url()));
        command.arg("--cacert").arg(&certs.ca);
        if with_certificate {
            command
                .arg("--cert")
                .arg(&certs.client.cert)
                .arg("--key")
                .arg(&certs.client.key);
        }
        Ok(command.args(["put", "over", "tls"]).output()?)
    };
    let output = etcdctl(true)?;
    ensure!(output.status.success(), "{output:?}");
    let output = etcdctl(false)?;
    ensure!(
        !output.status.success(),
        "a client without a certificate was served"
    );
    drop(open);
    ensure!(server.alive()?, "the server is gone");
    server.stop().await
}

#[tokio::test]
async fn oversize_messages_are_refused() -> Result<()> {
    let mut server = Spec::kvorum().start().await?;
    still_serves(&mut server).await?;
    let before = server.rss()?;
    let mut client = server.client().await?;
    for (mebibytes, code) in [
        (1, None),
        (2, Some(Code::InvalidArgument)),
        (64, Some(Code::ResourceExhausted)),
    ] {
        let len = usize::try_from(mebibytes * MIB)? - 1024;
        let value = vec![b'x'; len];
        let put = pb::PutRequest {
            key: b"big".to_vec(),
            value,
            ..Default::default()
        };
        let answer = client.kv.put(put).await;
        let got = answer.as_ref().err().map(tonic::Status::code);
        ensure!(
            got == code,
            "{mebibytes} MiB: {got:?} instead of {code:?}: {answer:?}"
        );
    }
    // A frame that announces 4 GiB and does not deliver.
    let mut frame = HTTP2_PREFACE.to_vec();
    frame.extend(b"\xff\xff\xff\0\0\0\0\0\x01");
    send_and_hang_up(server.client_port(), &frame).await?;
    still_serves(&mut server).await?;
    rss_returns(&server, before, "oversize messages").await?;
    server.stop().await
}

#[tokio::test]
async fn slow_requests_hold_nobody_up() -> Result<()> {
    let mut server = Spec::kvorum().start().await?;
    let mut open = Vec::new();
    for port in [server.client_port(), server.peer_port()] {
        // A header that never ends, an unfinished HTTP/2 preface, a body that never comes.
        open.extend(idle(port, 100, b"GET /health HTTP/1.1\r\nHost: x\r\nX-Slow: ").await?);
        open.extend(idle(port, 100, &HTTP2_PREFACE[..9]).await?);
        open.extend(
            idle(
                port,
                100,
                b"POST /health HTTP/1.1\r\nHost: x\r\nContent-Length: 999999\r\n\r\n",
            )
            .await?,
        );
        open.push(send(port, b"G").await?);
    }
    still_serves(&mut server).await?;
    server.healthy().await?;
    drop(open);
    server.stop().await
}

#[tokio::test]
async fn ten_thousand_idle_connections_cost_little_and_nothing_afterwards() -> Result<()> {
    let wanted: u64 = parameter("KVORUM_CONNECTIONS", CONNECTIONS)?;
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    // The server inherits the limit.
    setrlimit(Resource::RLIMIT_NOFILE, hard, hard)?;
    let connections = wanted.min(hard.saturating_sub(DESCRIPTORS_SPARE));
    if connections < wanted {
        note(format_args!(
            "only {connections} connections: the limit of descriptors is {hard}"
        ));
    }
    let mut server = Spec::kvorum().start().await?;
    let mut after = vec![server.rss()?];
    for _ in 0..WAVES {
        wave(&mut server, connections).await?;
        after.push(server.rss()?);
    }
    let mebibytes: Vec<_> = after.iter().map(|rss| rss / MIB).collect();
    note(format_args!(
        "RSS before and after {WAVES} waves, in MiB: {mebibytes:?}"
    ));
    // The allocator gives its pages back some seconds after the last wave.
    rss_returns(&server, after[0], "idle connections").await?;
    server.stop().await
}

/// Many connections, half of them silent and half idle HTTP/2, opened and closed.
async fn wave(server: &mut Server, connections: u64) -> Result<()> {
    let before = server.rss()?;
    let half = usize::try_from(connections / 2)?;
    let silent = idle(server.client_port(), half, b"").await?;
    let http2 = idle(server.client_port(), half, HTTP2_PREFACE).await?;
    still_serves(server).await?;
    let grown = server.rss()?.saturating_sub(before) / 1024;
    note(format_args!(
        "{connections} idle connections: {} KiB each",
        grown / connections.max(1)
    ));
    drop((silent, http2));
    still_serves(server).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn slow_watcher() -> Result<()> {
    let events = parameter("KVORUM_EVENTS", EVENTS)? / EVENTS_PER_TXN * EVENTS_PER_TXN;
    // What the load itself costs (caches, the index of so many revisions).
    let control = Spec::kvorum().start().await?;
    write(&control, events).await?;
    let without = control.rss_peak()?;
    control.stop().await?;
    let server = Spec::kvorum().start().await?;
    let first = newest_revision(&server).await? + 1;
    let mut watcher = Watcher::start(&server).await?;
    let bytes = write(&server, events).await?;
    let with = server.rss_peak()?;
    let grown = with.saturating_sub(without);
    note(format_args!(
        "{events} events, {} MiB of keys and values, pass a watcher that does not read: \
         RSS at most {} MiB, without it {} MiB; {} MiB more are allowed",
        bytes / MIB,
        with / MIB,
        without / MIB,
        SLOW_WATCHER_RSS_MAX / MIB
    ));
    ensure!(
        grown < SLOW_WATCHER_RSS_MAX,
        "the watcher costs {} MiB",
        grown / MIB
    );
    watcher.catches_up(first, events).await?;
    note(format_args!(
        "it caught up; RSS at most {} MiB",
        server.rss_peak()? / MIB
    ));
    let caught_up = server.rss_peak()?.saturating_sub(without);
    ensure!(
        caught_up < CATCH_UP_RSS_MAX,
        "catching up costs {} MiB",
        caught_up / MIB
    );
    server.stop().await
}

struct Watcher {
    responses: tonic::Streaming<pb::WatchResponse>,
    _requests: tokio::sync::mpsc::Sender<pb::WatchRequest>,
}

impl Watcher {
    /// A watcher on a connection of its own, from which only the first response is read.
    async fn start(server: &Server) -> Result<Watcher> {
        let mut client = server.client().await?;
        let (requests, queue) = tokio::sync::mpsc::channel(1);
        let create = pb::WatchCreateRequest {
            key: vec![0],
            range_end: vec![0],
            ..Default::default()
        };
        let request_union = Some(RequestUnion::CreateRequest(create));
        requests.send(pb::WatchRequest { request_union }).await?;
        let mut responses = client
            .watch
            .watch(ReceiverStream::new(queue))
            .await?
            .into_inner();
        let created = responses.message().await?.context("the watch has ended")?;
        ensure!(created.created, "not created: {created:?}");
        Ok(Watcher {
            responses,
            _requests: requests,
        })
    }

    /// Reads on: every event comes, in order, every revision whole.
    async fn catches_up(&mut self, first: i64, events: u64) -> Result<()> {
        let (mut seen, mut revision, mut of_revision) = (0, first - 1, EVENTS_PER_TXN);
        while seen < events {
            let message =
                tokio::time::timeout(testkit::patience::patience(), self.responses.message());
            let response = message
                .await
                .with_context(|| format!("stuck after {seen} events"))??;
            let response = response.context("the watch has ended")?;
            ensure!(
                !response.canceled,
                "canceled after {seen} events: {response:?}"
            );
            for event in response.events {
                let mod_revision = event.kv.context("an event has a key-value")?.mod_revision;
                if mod_revision != revision {
                    let whole = of_revision == EVENTS_PER_TXN && mod_revision == revision + 1;
                    ensure!(
                        whole,
                        "{mod_revision} after {of_revision} events of {revision}"
                    );
                    (revision, of_revision) = (mod_revision, 0);
                }
                of_revision += 1;
                seen += 1;
            }
        }
        ensure!(seen == events, "{seen} events instead of {events}");
        Ok(())
    }
}

async fn newest_revision(server: &Server) -> Result<i64> {
    let get = pb::RangeRequest {
        key: b"x".to_vec(),
        ..Default::default()
    };
    let header = server
        .client()
        .await?
        .kv
        .range(get)
        .await?
        .into_inner()
        .header;
    Ok(header.context("a response has a header")?.revision)
}

/// Writes so many events, and returns how many bytes of keys and values that is.
async fn write(server: &Server, events: u64) -> Result<u64> {
    let txns = events / EVENTS_PER_TXN;
    let next = Arc::new(AtomicU64::new(0));
    let mut writers = tokio::task::JoinSet::new();
    for _ in 0..WRITERS {
        let (client, next) = (server.client().await?, next.clone());
        writers.spawn(write_txns(client, next, txns));
    }
    let mut bytes = 0;
    while let Some(written) = writers.join_next().await {
        bytes += written??;
    }
    Ok(bytes)
}

async fn write_txns(mut client: Client, next: Arc<AtomicU64>, txns: u64) -> Result<u64> {
    let mut bytes = 0;
    loop {
        let txn = next.fetch_add(1, Ordering::Relaxed);
        if txn >= txns {
            return Ok(bytes);
        }
        let put = |i: u64| {
            let key = format!("slow/{:06}", (txn * EVENTS_PER_TXN + i) % KEYS).into_bytes();
            let value = vec![b'v'; VALUE_BYTES];
            pb::RequestOp {
                request: Some(Op::RequestPut(pb::PutRequest {
                    key,
                    value,
                    ..Default::default()
                })),
            }
        };
        let success: Vec<_> = (0..EVENTS_PER_TXN).map(put).collect();
        client
            .kv
            .txn(pb::TxnRequest {
                success,
                ..Default::default()
            })
            .await?;
        bytes += EVENTS_PER_TXN * u64::try_from("slow/000000".len() + VALUE_BYTES)?;
    }
}
