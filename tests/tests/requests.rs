//! What clients are held to, and what is said of slow ones: as with a real etcd.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use api::etcdserverpb::kv_client::KvClient;
use api::etcdserverpb::{DefragmentRequest, PutRequest, RangeRequest, StatusRequest};
use prost::Message as _;
use testkit::{Server, Spec, eventually};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tonic::Code;
use tonic::codec::CompressionEncoding;
use tonic::codegen::http;
use tonic::transport::Channel;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;
use tonic_reflection::pb::v1::ServerReflectionRequest;
use tonic_reflection::pb::v1::server_reflection_client::ServerReflectionClient;
use tonic_reflection::pb::v1::server_reflection_request::MessageRequest;

const ANSWER_TIMEOUT: Duration = Duration::from_secs(60);
/// So many pings no server takes.
const PINGS_MAX: usize = 20;

/// How many pings without a request are answered, and what is said in the end.
async fn pings(server: &Server) -> Result<(usize, String)> {
    let stream = TcpStream::connect(("127.0.0.1", server.client_port())).await?;
    let (client, mut connection) = h2::client::handshake(stream).await?;
    let mut pings = connection.ping_pong().context("pings of our own")?;
    let connection = tokio::spawn(connection);
    let mut answered = 0;
    while answered < PINGS_MAX {
        let ping = pings.ping(h2::Ping::opaque());
        match timeout(ANSWER_TIMEOUT, ping).await? {
            Ok(_pong) => answered += 1,
            Err(_gone) => break,
        }
    }
    let ended = timeout(ANSWER_TIMEOUT, connection).await??;
    drop(client);
    let goodbye = ended.err().context("the connection ended without a word")?;
    Ok((answered, format!("{:?}", goodbye.reason())))
}

#[tokio::test]
async fn who_pings_too_often_is_disconnected_as_by_etcd() -> Result<()> {
    let (kvorum, etcd) = tokio::try_join!(Spec::kvorum().start(), Spec::etcd().start())?;
    let seen = (pings(&kvorum).await?, pings(&etcd).await?);
    // grpc-go answers the last one before it hangs up, or does not.
    let close = seen.0.0.abs_diff(seen.1.0) <= 1;
    ensure!(close && seen.0.1 == seen.1.1, "{seen:?}");
    ensure!(seen.0.1 == "Some(ENHANCE_YOUR_CALM)", "{seen:?}");
    kvorum.stop().await?;
    etcd.stop().await
}

#[tokio::test]
async fn a_connection_may_have_as_many_requests_open_as_is_configured() -> Result<()> {
    let server = Spec::kvorum()
        .arg("--max-concurrent-streams=7")
        .start()
        .await?;
    let stream = TcpStream::connect(("127.0.0.1", server.client_port())).await?;
    let (client, connection) = h2::client::handshake(stream).await?;
    let connection = tokio::spawn(connection);
    eventually("the limit is told", || async {
        let streams = client.current_max_send_streams();
        ensure!(streams == 7, "{streams}");
        Ok(())
    })
    .await?;
    connection.abort();
    server.stop().await
}

#[tokio::test]
async fn a_client_that_does_not_answer_is_disconnected() -> Result<()> {
    const GREETING: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";
    const PING: &[u8] = b"\0\0\x08\x06\0\0\0\0\0";
    let server = Spec::kvorum()
        .arg("--grpc-keepalive-interval=1s")
        .arg("--grpc-keepalive-timeout=1s")
        .start()
        .await?;
    let mut stream = TcpStream::connect(("127.0.0.1", server.client_port())).await?;
    stream.write_all(GREETING).await?;
    let mut heard = Vec::new();
    timeout(ANSWER_TIMEOUT, stream.read_to_end(&mut heard)).await??;
    let pings = heard.windows(PING.len()).filter(|bytes| *bytes == PING);
    ensure!(pings.count() == 1, "{heard:?}");
    server.stop().await
}

/// What becomes of a put whose client does not say that this was all, and of one that says too much.
async fn unended(server: &Server) -> Result<Vec<String>> {
    let stream = TcpStream::connect(("127.0.0.1", server.client_port())).await?;
    let (mut client, connection) = h2::client::handshake(stream).await?;
    let connection = tokio::spawn(connection);
    let put = PutRequest {
        key: b"key".to_vec(),
        value: b"value".to_vec(),
        ..PutRequest::default()
    };
    let put = put.encode_to_vec();
    let length = u32::try_from(put.len())?.to_be_bytes();
    let message = [&[0][..], &length, &put].concat();
    let mut seen = Vec::new();
    for sent in [
        vec![&message[..]],
        vec![&message[..9], &message[9..], b"more"],
    ] {
        let request = http::Request::post(format!(
            "http://127.0.0.1:{}/etcdserverpb.KV/Put",
            server.client_port()
        ))
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .body(())?;
        let (response, mut body) = client.send_request(request, false)?;
        for piece in sent {
            body.send_data(piece.to_vec().into(), false)?;
        }
        let response = timeout(ANSWER_TIMEOUT, response).await??;
        let mut answer = response.into_body();
        while let Some(data) = timeout(ANSWER_TIMEOUT, answer.data()).await? {
            answer.flow_control().release_capacity(data?.len())?;
        }
        let trailers = answer.trailers().await?.context("no trailers")?;
        seen.push(format!("{:?}", trailers.get("grpc-status")));
    }
    connection.abort();
    Ok(seen)
}

#[tokio::test]
async fn one_message_is_all_that_a_unary_request_needs() -> Result<()> {
    let (kvorum, etcd) = tokio::try_join!(Spec::kvorum().start(), Spec::etcd().start())?;
    let seen = (unended(&kvorum).await?, unended(&etcd).await?);
    ensure!(seen.0 == seen.1 && seen.0[0] == "Some(\"0\")", "{seen:?}");
    kvorum.stop().await?;
    etcd.stop().await
}

#[tokio::test]
async fn messages_may_be_compressed() -> Result<()> {
    for server in [Spec::kvorum(), Spec::etcd()] {
        let server = server.start().await?;
        let channel = Channel::from_shared(server.client_url())?.connect().await?;
        let mut kv = KvClient::new(channel)
            .send_compressed(CompressionEncoding::Gzip)
            .accept_compressed(CompressionEncoding::Gzip);
        let value = vec![b'v'; 100_000];
        let put = PutRequest {
            key: b"key".to_vec(),
            value: value.clone(),
            ..PutRequest::default()
        };
        kv.put(put.clone()).await?;
        let read = RangeRequest {
            key: b"key".to_vec(),
            ..RangeRequest::default()
        };
        let read = kv.range(read).await?.into_inner();
        ensure!(read.kvs[0].value == value);
        // It is large when it is unpacked.
        let value = vec![b'v'; 3_000_000];
        let refused = kv.put(PutRequest { value, ..put }).await;
        let refused = refused.err().context("it was taken")?;
        ensure!(refused.code() == Code::ResourceExhausted, "{refused:?}");
        server.stop().await?;
    }
    Ok(())
}

#[tokio::test]
async fn services_are_told_to_those_who_may_ask() -> Result<()> {
    for (flag, may_ask) in [
        ("--grpc-reflection=true", true),
        ("--grpc-reflection=false", false),
    ] {
        let server = Spec::kvorum().arg(flag).start().await?;
        let channel = Channel::from_shared(server.client_url())?.connect().await?;
        let list = ServerReflectionRequest {
            host: String::new(),
            message_request: Some(MessageRequest::ListServices(String::new())),
        };
        let mut reflection = ServerReflectionClient::new(channel);
        let answer = reflection
            .server_reflection_info(tokio_stream::iter([list]))
            .await;
        match answer {
            Ok(answer) => {
                let told = answer.into_inner().message().await?;
                let told = format!("{told:?}");
                ensure!(may_ask && told.contains("etcdserverpb.KV"), "{told}");
            }
            Err(refused) => {
                let words = "unknown service grpc.reflection.v1.ServerReflection";
                ensure!(!may_ask && refused.message() == words, "{refused:?}");
            }
        }
        server.stop().await?;
    }
    Ok(())
}

#[tokio::test]
async fn health_is_told_as_by_etcd_also_while_the_store_is_defragmented() -> Result<()> {
    let mut answers = Vec::new();
    // etcd 3.5 has no feature gates; kvorum has both spellings.
    for spec in [Spec::kvorum(), Spec::etcd()] {
        let flag = "--experimental-stop-grpc-service-on-defrag=true";
        let server = spec.arg(flag).start().await?;
        let channel = Channel::from_shared(server.client_url())?.connect().await?;
        let mut health = HealthClient::new(channel);
        let check = |service: &str| HealthCheckRequest {
            service: service.to_owned(),
        };
        let known = health.check(check("")).await?.into_inner().status();
        let unknown = health.check(check("etcdserverpb.KV")).await.err();
        let unknown = unknown.map(|status| (status.code(), status.message().to_owned()));
        let mut watch = health.watch(check("")).await?.into_inner();
        let first = watch.message().await?.context("a status")?.status();
        let mut maintenance = server.client().await?.maintenance;
        // It may be over before the watch has looked: then once more.
        let mut seen = first;
        while seen != ServingStatus::NotServing {
            maintenance.defragment(DefragmentRequest {}).await?;
            if let Ok(next) = timeout(Duration::from_millis(100), watch.message()).await {
                seen = next?.context("a status")?.status();
            }
        }
        let last = timeout(ANSWER_TIMEOUT, watch.message()).await??;
        let last = last.context("a status")?.status();
        answers.push(format!("{known:?} {unknown:?} {first:?} {last:?}"));
        drop(watch);
        server.stop().await?;
    }
    ensure!(answers[0] == answers[1], "{answers:#?}");
    Ok(())
}

#[tokio::test]
async fn a_slow_request_is_logged_with_who_asked_what_and_its_stages() -> Result<()> {
    let server = Spec::kvorum()
        .arg("--warning-apply-duration=1ns")
        .arg("--warning-unary-request-duration=1ns")
        .arg("--quota-backend-bytes=123456789")
        .start()
        .await?;
    let mut client = server.client().await?;
    let put = PutRequest {
        key: b"prefix/key".to_vec(),
        value: b"secret".to_vec(),
        ..PutRequest::default()
    };
    client.kv.put(put).await?;
    let range = RangeRequest {
        key: b"prefix/".to_vec(),
        range_end: b"prefix0".to_vec(),
        ..RangeRequest::default()
    };
    client.kv.range(range).await?;
    eventually("the requests are in the log", || async {
        let log = server.log()?;
        for told in [
            "apply request took too long",
            "request stats",
            "/etcdserverpb.KV/Put",
            "/etcdserverpb.KV/Range",
            "read-only range ",
            "range_response_count:1",
            "value_size:6",
            "prefix/key",
            "127.0.0.1:",
            "propose and apply",
            "read index",
            "response count",
            "expected-duration",
        ] {
            ensure!(log.contains(told), "nothing about {told:?}: {log}");
        }
        ensure!(!log.contains("secret"), "a value is in the log: {log}");
        Ok(())
    })
    .await?;
    let status = client.maintenance.status(StatusRequest {}).await?;
    ensure!(status.get_ref().db_size_quota == 123_456_789);
    server.stop().await
}
