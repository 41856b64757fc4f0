//! Flags about directories and sockets.

use tokio::io::AsyncReadExt;
use tokio::net::{TcpSocket, TcpStream};

use super::*;

#[tokio::test(flavor = "multi_thread")]
async fn the_log_goes_to_a_directory_of_its_own() {
    let dir = tempfile::tempdir().unwrap();
    let wal = dir.path().join("disk").join("wal");
    let apart = || Options {
        wal_dir: wal.to_string_lossy().into_owned(),
        ..options(&dir)
    };
    let member = start(apart()).await;
    let id = member.member_id();
    member.client().put("key", "value").await.unwrap();
    // Killed: nothing is durable but the log.
    drop(member);
    assert!(wal.join("log").is_dir());
    assert!(!dir.path().join("data/member/log").exists());
    let refused = loop {
        let error = Kvorum::start(options(&dir).validate().unwrap())
            .await
            .unwrap_err();
        // It takes a moment until the dropped one has gone.
        if !error.to_string().contains("in use") {
            break error.to_string();
        }
    };
    assert!(
        refused.contains("start the member with --wal-dir"),
        "{refused}"
    );
    assert!(refused.contains(&wal.display().to_string()), "{refused}");
    let member = start(apart()).await;
    assert_eq!(member.member_id(), id);
    let pair = member.client().get("key").await.unwrap().unwrap();
    assert_eq!(&pair.value[..], b"value");
    member.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_state_without_its_log_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let member = start(options(&dir)).await;
    member.client().put("key", "value").await.unwrap();
    member.stop().await;
    let log = dir.path().join("data/member/log");
    std::fs::rename(&log, dir.path().join("lost")).unwrap();
    let error = Kvorum::start(options(&dir).validate().unwrap())
        .await
        .unwrap_err();
    assert!(matches!(error, StartError::NoIdentity { .. }), "{error}");
    std::fs::remove_dir_all(&log).unwrap();
    std::fs::rename(dir.path().join("lost"), &log).unwrap();
    let member = start(options(&dir)).await;
    assert!(member.client().get("key").await.unwrap().is_some());
    member.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_port_is_shared_only_when_asked_for() {
    for reuse_port in [true, false] {
        let dir = tempfile::tempdir().unwrap();
        let mut options = options(&dir);
        options.sockets.reuse_port = reuse_port;
        options.listen_metrics_urls = urls("http://127.0.0.1:0").unwrap();
        let member = start(options).await;
        let all = [
            member.client_urls(),
            member.peer_urls(),
            member.metrics_urls(),
        ];
        for url in all.into_iter().flatten() {
            let socket = TcpSocket::new_v4().unwrap();
            socket.set_reuseport(true).unwrap();
            let bound = socket.bind(url.bind_address().unwrap().unwrap().into());
            assert_eq!(bound.is_ok(), reuse_port, "{url}");
        }
        member.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_address_in_time_wait_is_listened_on_again() {
    let dir = tempfile::tempdir().unwrap();
    let mut first = options(&dir);
    first.sockets.reuse_address = true;
    let member = start(first.clone()).await;
    let url = member.client_urls()[0].clone();
    let address = url.bind_address().unwrap().unwrap();
    let mut client = TcpStream::connect(address).await.unwrap();
    member.stop().await;
    // Who closes first keeps the address for a while.
    let mut rest = Vec::new();
    client.read_to_end(&mut rest).await.ok();
    drop(client);
    first.listen_client_urls = Some(vec![url]);
    start(first).await.stop().await;
}
