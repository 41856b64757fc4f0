//! RangeStream gives what Range gives, and costs the member less; its clients' limits are kept.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use api::etcdserverpb::{CompactionRequest, PutRequest, RangeRequest, RangeResponse};
use api::v3lockpb::LockRequest;
use api::v3lockpb::lock_client::LockClient;
use http_body_util::Full;
use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo};
use prost::Message as _;
use testkit::{Client, Server, Spec, eventually, note};
use tokio::net::TcpStream;
use tonic::Code;
use tonic::codegen::http;
use tonic::transport::Channel;

const MIB: u64 = 1024 * 1024;

async fn started() -> Result<(Server, Client)> {
    let server = Spec::kvorum().start().await?;
    let client = server.client().await?;
    Ok((server, client))
}

async fn put(client: &Client, key: String, value: Vec<u8>) -> Result<()> {
    let put = PutRequest {
        key: key.into(),
        value,
        ..PutRequest::default()
    };
    client.kv.clone().put(put).await?;
    Ok(())
}

fn everything() -> RangeRequest {
    RangeRequest {
        key: vec![0],
        range_end: vec![0],
        ..RangeRequest::default()
    }
}

/// All chunks, as clients put them together, and how many there were.
async fn streamed(client: &Client, request: &RangeRequest) -> Result<(RangeResponse, usize)> {
    let mut chunks = client
        .kv
        .clone()
        .range_stream(request.clone())
        .await?
        .into_inner();
    let (mut merged, mut count) = (RangeResponse::default(), 0);
    while let Some(chunk) = chunks.message().await? {
        let chunk = chunk.range_response.context("a chunk has a response")?;
        ensure!(merged.header.is_none(), "a chunk came after the last one");
        merged.merge(chunk.encode_to_vec().as_slice())?;
        count += 1;
    }
    Ok((merged, count))
}

#[tokio::test]
async fn chunks_put_together_are_the_range() -> Result<()> {
    let (server, client) = started().await?;
    for number in 0..300 {
        put(&client, format!("k/{number:04}"), vec![b'v'; 20_000]).await?;
    }
    for number in 0..50 {
        put(&client, format!("k/{number:04}"), b"again".to_vec()).await?;
    }
    let all = everything();
    let single = RangeRequest {
        key: b"k/0007".to_vec(),
        range_end: vec![],
        ..all.clone()
    };
    let prefix = RangeRequest {
        key: b"k/01".to_vec(),
        range_end: b"k/02".to_vec(),
        ..all.clone()
    };
    let none = RangeRequest {
        key: b"z".to_vec(),
        ..all.clone()
    };
    let (limited, limit_1, exact, before, keys, count) = (
        RangeRequest {
            limit: 123,
            ..all.clone()
        },
        RangeRequest {
            limit: 1,
            ..all.clone()
        },
        RangeRequest {
            limit: 300,
            ..all.clone()
        },
        RangeRequest {
            revision: 320,
            ..all.clone()
        },
        RangeRequest {
            keys_only: true,
            ..all.clone()
        },
        RangeRequest {
            count_only: true,
            ..all.clone()
        },
    );
    for request in [
        &all, &single, &prefix, &none, &limited, &limit_1, &exact, &before, &keys, &count,
    ] {
        let plain = client.kv.clone().range(request.clone()).await?.into_inner();
        let (merged, chunks) = streamed(&client, request).await?;
        ensure!(merged == plain, "{request:?}: {merged:?}\n{plain:?}");
        note(format_args!("{} keys in {chunks} chunks", merged.kvs.len()));
    }
    let (_, chunks) = streamed(&client, &all).await?;
    ensure!((5..=20).contains(&chunks), "{chunks} chunks");
    server.stop().await
}

#[tokio::test]
async fn a_stream_shows_one_revision_until_that_is_compacted() -> Result<()> {
    let (server, client) = started().await?;
    for number in 0..200 {
        put(&client, format!("k/{number:04}"), vec![b'v'; 100_000]).await?;
    }
    let began = client.kv.clone().range_stream(everything()).await?;
    let mut stream = began.into_inner();
    let first = stream.message().await?.context("a chunk")?;
    ensure!(first.range_response.context("a response")?.kvs.len() == 10);
    for number in 0..200 {
        put(&client, format!("k/{number:04}"), b"new".to_vec()).await?;
    }
    let mut kvs = 10;
    while let Some(chunk) = stream.message().await? {
        let response = chunk.range_response.context("a response")?;
        ensure!(response.kvs.iter().all(|kv| kv.value.len() == 100_000));
        kvs += response.kvs.len();
        if let Some(header) = response.header {
            ensure!(
                (header.revision, response.count) == (201, 200),
                "{header:?}"
            );
        }
    }
    ensure!(kvs == 200);
    let at_start = RangeRequest {
        revision: 201,
        ..everything()
    };
    let mut stream = client
        .kv
        .clone()
        .range_stream(at_start.clone())
        .await?
        .into_inner();
    stream.message().await?.context("a chunk")?;
    let compact = CompactionRequest {
        revision: 301,
        physical: true,
    };
    client.kv.clone().compact(compact).await?;
    let refused = loop {
        match stream.message().await {
            Ok(Some(_chunk_that_was_on_its_way)) => {}
            Ok(None) => anyhow::bail!("the stream went on over a compaction"),
            Err(status) => break status,
        }
    };
    ensure!(refused.code() == Code::OutOfRange, "{refused:?}");
    let refused = client.kv.clone().range_stream(at_start).await;
    let refused = match refused {
        Ok(mut stream) => stream.get_mut().message().await.err(),
        Err(status) => Some(status),
    };
    let refused = refused.context("what is compacted cannot be streamed")?;
    ensure!(refused.message() == "etcdserver: mvcc: required revision has been compacted");
    server.stop().await
}

#[tokio::test]
async fn a_list_of_100_mb_is_copied_once_and_a_stream_hardly() -> Result<()> {
    const VALUE_BYTES: usize = 1024 * 1024;
    let (server, client) = started().await?;
    for number in 0..100 {
        put(&client, format!("k/{number:04}"), vec![b'v'; VALUE_BYTES]).await?;
    }
    let before = server.rss()?.max(server.rss_peak()?);
    let (merged, chunks) = streamed(&client, &everything()).await?;
    ensure!(merged.kvs.len() == 100);
    let by_stream = server.rss_peak()? - before;
    let plain = client.kv.clone().range(everything()).await?.into_inner();
    ensure!(plain.kvs.len() == 100);
    let by_range = server.rss_peak()? - before;
    note(format_args!(
        "100 MiB: {} MiB more for a stream of {chunks} chunks, {} MiB for a range",
        by_stream / MIB,
        by_range / MIB
    ));
    ensure!(by_stream < 40 * MIB, "{by_stream} bytes for a stream");
    // Once: 100 MiB. Twice would be 200.
    ensure!(by_range < 150 * MIB, "{by_range} bytes for a range");
    server.stop().await
}

#[tokio::test]
async fn a_deadline_is_kept_by_the_member() -> Result<()> {
    let (server, client) = started().await?;
    let channel = Channel::from_shared(server.client_url())?.connect().await?;
    let held = LockRequest {
        name: b"l".to_vec(),
        lease: 0,
    };
    LockClient::new(channel).lock(held.clone()).await?;
    for (timeout, status) in [("300m", "4"), ("soon", "13"), ("0n", "4")] {
        let seen = status_of(&server, timeout, &held).await?;
        ensure!(seen == status, "{timeout}: {seen}");
    }
    let locks = RangeRequest {
        key: b"l/".to_vec(),
        range_end: b"l0".to_vec(),
        ..RangeRequest::default()
    };
    eventually("who waits no longer is not in the queue", || async {
        let found = client.kv.clone().range(locks.clone()).await?.into_inner();
        ensure!(found.count == 1, "{found:?}");
        Ok(())
    })
    .await?;
    server.stop().await
}

/// The status of a lock request with this timeout. tonic's own client would end the wait by itself.
async fn status_of(server: &Server, timeout: &str, request: &LockRequest) -> Result<String> {
    let stream = TcpStream::connect(("127.0.0.1", server.client_port())).await?;
    let (mut sender, connection) =
        http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await?;
    let connection = tokio::spawn(connection);
    let message = request.encode_to_vec();
    let mut body = vec![0];
    body.extend(u32::try_from(message.len())?.to_be_bytes());
    body.extend(message);
    let request = http::Request::post(format!("{}/v3lockpb.Lock/Lock", server.client_url()))
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .header("grpc-timeout", timeout)
        .body(Full::new(bytes::Bytes::from(body)))?;
    let answer = tokio::time::timeout(Duration::from_secs(60), sender.send_request(request));
    let answer = answer.await.context("no answer")??;
    connection.abort();
    let status = answer.headers().get("grpc-status").context("a status")?;
    Ok(status.to_str()?.to_owned())
}
