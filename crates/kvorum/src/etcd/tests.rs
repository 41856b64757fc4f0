//! Members in this process: start, stop, restart, and what is refused.

use tempfile::TempDir;

use super::*;
use crate::Options;

fn urls(text: &str) -> Option<Vec<Url>> {
    Some(Url::parse_list(text).unwrap())
}

/// A member on ports of the system's choice.
fn options(dir: &TempDir) -> Options {
    Options {
        data_dir: dir.path().join("data").to_string_lossy().into_owned(),
        listen_client_urls: urls("http://127.0.0.1:0"),
        advertise_client_urls: urls("http://127.0.0.1:2379"),
        listen_peer_urls: urls("http://127.0.0.1:0"),
        ..Options::default()
    }
}

async fn start(options: Options) -> Kvorum {
    let member = Kvorum::start(options.validate().unwrap()).await.unwrap();
    member.wait_ready().await.unwrap();
    member
}

#[tokio::test(flavor = "multi_thread")]
async fn several_members_live_in_one_process() {
    let (one, two) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let other = Options {
        initial_cluster_token: "other".to_owned(),
        ..options(&two)
    };
    let (one, two) = (start(options(&one)).await, start(other).await);
    assert_eq!(one.member_id().to_string(), "8e9e05c52164694d");
    assert_ne!(one.member_id(), two.member_id());
    assert_ne!(one.client_urls(), two.client_urls());
    one.stop().await;
    two.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_member_keeps_its_ids_when_it_starts_again_with_other_flags() {
    let dir = tempfile::tempdir().unwrap();
    let member = start(options(&dir)).await;
    let ids = (member.member_id(), member.cluster_id());
    member.stop().await;
    let changed = Options {
        initial_cluster: Some("a=http://10.0.0.1:1,b=http://10.0.0.2:1".to_owned()),
        initial_cluster_token: "other".to_owned(),
        ..options(&dir)
    };
    let member = start(changed).await;
    assert_eq!((member.member_id(), member.cluster_id()), ids);
    member.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_data_directory_has_one_member_at_a_time() {
    let dir = tempfile::tempdir().unwrap();
    let member = start(options(&dir)).await;
    let error = Kvorum::start(options(&dir).validate().unwrap())
        .await
        .unwrap_err();
    assert!(matches!(error, StartError::DataDir(_)), "{error}");
    member.stop().await;
    start(options(&dir)).await.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_port_in_use_is_told_before_anything_is_written() {
    let (one, two) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let member = start(options(&one)).await;
    let taken = member.client_urls()[0].clone();
    let same = Options {
        listen_client_urls: Some(vec![taken.clone()]),
        ..options(&two)
    };
    let error = Kvorum::start(same.validate().unwrap()).await.unwrap_err();
    let address = taken.authority();
    assert_eq!(
        error.to_string(),
        format!("listen tcp {address}: bind: address already in use")
    );
    assert!(!two.path().join("data").exists());
    member.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dropped_member_gives_its_ports_up() {
    let dir = tempfile::tempdir().unwrap();
    let member = start(options(&dir)).await;
    let url = member.client_urls()[0].clone();
    let (ip, port) = url.bind_address().unwrap().unwrap();
    drop(member);
    let freed = async {
        while std::net::TcpListener::bind((ip, port)).is_err() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), freed)
        .await
        .expect("the port is free in time");
}
