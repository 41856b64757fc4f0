//! Members in this process: start, stop, restart, and what is refused.

mod flags;
mod traces;

use tempfile::TempDir;
use testkit::Port;

use super::*;
use crate::Options;
use crate::client::WatchOptions;

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

/// What a host shares between its tasks: the list of the public API does not say it.
#[test]
fn what_is_shared_may_be_sent_and_shared() {
    const fn is_shared<T: Send + Sync + 'static>() {}
    is_shared::<Kvorum>();
    is_shared::<Client>();
    is_shared::<Config>();
    is_shared::<Fatal>();
    is_shared::<StartError>();
    is_shared::<crate::client::Lease>();
    is_shared::<crate::client::Txn>();
    is_shared::<crate::client::Watcher>();
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

/// Three members of one cluster, in this process.
async fn cluster(dir: &TempDir) -> Vec<Kvorum> {
    let ports = [(); 3].map(|()| Port::reserve().unwrap());
    let peers = ports.each_ref();
    let peers = peers.map(|port| format!("http://127.0.0.1:{}", port.number()));
    let members: Vec<String> = peers
        .iter()
        .enumerate()
        .map(|(at, url)| format!("m{at}={url}"))
        .collect();
    let starts = peers.iter().enumerate().map(|(at, url)| {
        let name = format!("m{at}");
        let config = Config::builder()
            .data_dir(dir.path().join(&name))
            .name(&name)
            .any_ports()
            .flag("listen-peer-urls", url)
            .initial_advertise_peer_urls(url)
            .initial_cluster(&members.join(","))
            .build();
        Kvorum::start(config.unwrap())
    });
    let members = futures_util::future::try_join_all(starts).await.unwrap();
    for member in &members {
        member.wait_ready().await.unwrap();
    }
    members
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cluster_in_one_process_answers_without_connections() {
    let dir = tempfile::tempdir().unwrap();
    let members = cluster(&dir).await;
    let revision = members[0].client().put("key", "value").await.unwrap();
    for member in &members {
        let pair = member.client().get("key").await.unwrap().unwrap();
        assert_eq!(
            (&pair.value[..], pair.mod_revision),
            (&b"value"[..], revision)
        );
        assert!(member.status().is_ready);
    }
    assert_eq!(members[1].client().members().await.unwrap().len(), 3);
    let leader = members.iter().find(|it| it.status().is_leader()).unwrap();
    let follower = members.iter().find(|it| !it.status().is_leader()).unwrap();
    let to = follower.member_id();
    let statuses = follower.watch_status();
    leader.client().move_leader(to).await.unwrap();
    let mut leading = Box::pin(futures_util::StreamExt::skip_while(statuses, |status| {
        let still_follows = !status.is_leader();
        async move { still_follows }
    }));
    let status = futures_util::StreamExt::next(&mut leading).await.unwrap();
    assert_eq!((status.member, status.leader), (to, Some(to)));
    assert!(
        leader
            .metrics()
            .unwrap()
            .contains("etcd_server_has_leader 1")
    );
    for member in members {
        member.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_outlives_its_member_is_told() {
    let dir = tempfile::tempdir().unwrap();
    let member = start(options(&dir)).await;
    let client = member.client();
    let mut watcher = client.watch(WatchOptions::prefix("")).await.unwrap();
    member.stop().await;
    let stopped = "etcdserver: server stopped";
    assert_eq!(
        client.put("key", "value").await.unwrap_err().message(),
        stopped
    );
    assert_eq!(watcher.next().await.unwrap_err().message(), stopped);
}

#[tokio::test(flavor = "multi_thread")]
async fn calls_in_the_process_keep_the_limits_of_calls_from_outside() {
    let dir = tempfile::tempdir().unwrap();
    let member = start(options(&dir)).await;
    let client = member.client();
    let error = client.put("", "value").await.unwrap_err();
    assert_eq!(error.message(), "etcdserver: key is not provided");
    let error = client.put("key", vec![0; 1_600_000]).await.unwrap_err();
    assert_eq!(error.message(), "etcdserver: request is too large");
    let error = client.put("key", vec![0; 2_200_000]).await.unwrap_err();
    assert_eq!(error.code(), tonic::Code::ResourceExhausted);
    // The other way there is no limit.
    for at in 0..5 {
        client
            .put(format!("large/{at}"), vec![at; 1_500_000])
            .await
            .unwrap();
    }
    assert_eq!(client.get_prefix("large/").await.unwrap().len(), 5);
    let revision = client.put("key", "1").await.unwrap();
    client.compact(revision).await.unwrap();
    let compacted = client
        .watch(WatchOptions::key("key").from_revision(1))
        .await;
    let error = match compacted {
        Ok(mut watcher) => watcher.next().await.unwrap_err(),
        Err(error) => error,
    };
    assert_eq!(error.code(), tonic::Code::OutOfRange);
    member.stop().await;
}

#[test]
fn profiles_are_served_when_asked_for_or_at_debug() {
    let is_served = |change: fn(&mut Options)| {
        let mut options = Options::default();
        change(&mut options);
        http_options(&options.validate().unwrap()).pprof
    };
    assert!(!is_served(|_| {}));
    assert!(is_served(|options| options.http.is_pprof_enabled = true));
    assert!(is_served(|options| options.log_level = "debug".to_owned()));
}
