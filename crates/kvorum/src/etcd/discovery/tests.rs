//! Members that DNS names, against a DNS server of the test's own. The texts are compared with etcd's.

mod server;

use tempfile::TempDir;
use testkit::Port;

use super::*;
use crate::{ConfigBuilder, Kvorum};
use server::DnsServer;

fn member(dir: &TempDir, name: &str, port: u16) -> ConfigBuilder {
    Config::builder()
        .data_dir(dir.path().join(name))
        .name(name)
        .any_ports()
        .flag("listen-peer-urls", format!("http://127.0.0.1:{port}"))
        .initial_advertise_peer_urls(&format!("http://localhost:{port}"))
        .flag("discovery-srv", "example.test")
}

#[tokio::test(flavor = "multi_thread")]
async fn members_find_each_other_in_dns() {
    let dir = tempfile::tempdir().unwrap();
    let reserved = [(); 3].map(|()| Port::reserve().unwrap());
    let ports = reserved.each_ref().map(Port::number);
    let services = ports.map(|port| ("_etcd-server-blue._tcp.example.test.", "localhost.", port));
    let server = DnsServer::start(&services).await;
    let starts = ports.iter().enumerate().map(|(at, port)| {
        let member = member(&dir, &format!("m{at}"), *port).flag("discovery-srv-name", "blue");
        Kvorum::start_with(member.build().unwrap(), server.name_servers())
    });
    let members = futures_util::future::try_join_all(starts).await.unwrap();
    for member in &members {
        member.wait_ready().await.unwrap();
        assert_eq!(member.cluster_id(), members[0].cluster_id());
    }
    let list = members[0].client().members().await.unwrap();
    let mut urls: Vec<String> = list.into_iter().flat_map(|it| it.peer_ur_ls).collect();
    urls.sort_unstable();
    let mut expected = ports.map(|port| format!("http://localhost:{port}"));
    expected.sort_unstable();
    assert_eq!(urls, expected);
    // With data, DNS is not asked again.
    for member in members {
        member.stop().await;
    }
    server.stop().await;
    let again = member(&dir, "m0", ports[0]).build().unwrap();
    let again = Box::pin(Kvorum::start_with(again, server.name_servers())).await;
    again.unwrap().stop().await;
}

async fn refusal(member: ConfigBuilder, server: &DnsServer) -> String {
    let config = member.build().unwrap();
    from_dns(&config, &server.name_servers())
        .await
        .unwrap_err()
        .to_string()
}

#[tokio::test]
async fn what_dns_does_not_know_is_told_in_etcds_words() {
    let dir = tempfile::tempdir().unwrap();
    let ssl = ("_etcd-server-ssl._tcp.example.test.", "localhost.", 1);
    let server = DnsServer::start(&[ssl]).await;
    let at = server.address();
    let unknown = |service: &str| {
        format!(
            "error querying DNS SRV records for _{service} lookup _{service}._tcp.example.test on \
             {at}: no such host"
        )
    };
    assert_eq!(
        refusal(
            member(&dir, "a", 1).flag("discovery-srv-name", "x"),
            &server
        )
        .await,
        format!(
            "error setting up initial cluster: {}; {}",
            unknown("etcd-server-ssl-x"),
            unknown("etcd-server-x")
        )
    );
    assert_eq!(
        refusal(member(&dir, "a", 2), &server).await,
        "error setting up initial cluster: cannot find local etcd member \"a\" in SRV records"
    );
    assert_eq!(
        refusal(member(&dir, "a", 1), &server).await,
        format!(
            "error setting up initial cluster: error querying DNS SRV records for _etcd-server-ssl \
             bootstrap at https://localhost:1 from DNS for etcd-server-ssl has scheme mismatch with \
             expected peer http://localhost:1; {}",
            unknown("etcd-server")
        )
    );
}

#[tokio::test]
async fn names_that_lead_nowhere_are_left_out() {
    let dir = tempfile::tempdir().unwrap();
    let service = "_etcd-server._tcp.example.test.";
    let records = [
        (service, "nowhere.invalid.", 1),
        (service, "localhost.", 2),
        (service, "localhost.", 3),
    ];
    let server = DnsServer::start(&records).await;
    let config = member(&dir, "a", 2).build().unwrap();
    let found = from_dns(&config, &server.name_servers()).await.unwrap();
    assert_eq!(
        found.unwrap().to_string(),
        "0=http://localhost:3,a=http://localhost:2"
    );
}

#[test]
fn the_token_of_the_meeting_makes_the_ids() {
    let config = Config::builder()
        .flag("discovery-token", "t")
        .flag("discovery-endpoints", "127.0.0.1:1")
        .flag("initial-cluster-token", "other")
        .build()
        .unwrap();
    assert_eq!(config.initial_cluster.token, "t");
}
