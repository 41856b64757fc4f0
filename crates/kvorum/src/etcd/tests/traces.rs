//! Spans of requests, as a collector gets them.

use std::collections::BTreeMap;

use api::etcdserverpb::PutRequest;
use api::etcdserverpb::kv_client::KvClient;
use opentelemetry_proto::tonic::collector::trace::v1::trace_service_server::{
    TraceService, TraceServiceServer,
};
use opentelemetry_proto::tonic::collector::trace::v1::{
    ExportTraceServiceRequest, ExportTraceServiceResponse,
};
use opentelemetry_proto::tonic::common::v1::{KeyValue, any_value::Value};
use opentelemetry_proto::tonic::trace::v1::Span;
use parking_lot::Mutex;
use tokio_stream::wrappers::TcpListenerStream;
use tokio_util::task::TaskTracker;
use tonic::{Request, Response, Status};

use super::*;

/// Keeps what it gets.
#[derive(Clone, Debug, Default)]
struct Collector(Arc<Mutex<Vec<ExportTraceServiceRequest>>>);

#[tonic::async_trait]
impl TraceService for Collector {
    async fn export(
        &self,
        request: Request<ExportTraceServiceRequest>,
    ) -> Result<Response<ExportTraceServiceResponse>, Status> {
        self.0.lock().push(request.into_inner());
        Ok(Response::new(ExportTraceServiceResponse::default()))
    }
}

impl Collector {
    /// Listens on an address of the system's choice.
    async fn start() -> (Self, String) {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let collector = Self::default();
        let service = TraceServiceServer::new(collector.clone());
        let serving = tonic::transport::Server::builder()
            .add_service(service)
            .serve_with_incoming(TcpListenerStream::new(listener));
        TaskTracker::new().spawn(serving);
        (collector, address)
    }

    /// What the resource of the spans says, and the spans.
    fn got(&self) -> (BTreeMap<String, String>, Vec<Span>) {
        let (mut resource, mut spans) = (BTreeMap::new(), Vec::new());
        for request in self.0.lock().drain(..) {
            for of_resource in request.resource_spans {
                let attributes = of_resource.resource.unwrap_or_default().attributes;
                resource.extend(texts(&attributes));
                let scopes = of_resource.scope_spans.into_iter();
                spans.extend(scopes.flat_map(|scope| scope.spans));
            }
        }
        (resource, spans)
    }
}

fn texts(attributes: &[KeyValue]) -> BTreeMap<String, String> {
    let text = |attribute: &KeyValue| {
        let value = attribute.value.clone().and_then(|value| value.value);
        let value = match value {
            Some(Value::StringValue(text)) => text,
            Some(Value::IntValue(number)) => number.to_string(),
            other => format!("{other:?}"),
        };
        (attribute.key.clone(), value)
    };
    attributes.iter().map(text).collect()
}

/// Puts a key over a connection, as part of the client's own trace if it has one.
async fn put(member: &Kvorum, key: &str, trace: Option<&str>) -> Result<(), Status> {
    let url = member.client_urls()[0].to_string();
    let mut client = KvClient::connect(url).await.unwrap();
    let mut request = Request::new(PutRequest {
        key: key.to_owned().into(),
        ..PutRequest::default()
    });
    if let Some(trace) = trace {
        let trace = trace.parse().unwrap();
        request.metadata_mut().insert("traceparent", trace);
    }
    client.put(request).await.map(drop)
}

async fn traced(dir: &TempDir, address: &str, rate: i64) -> Kvorum {
    let mut options = options(dir);
    options.tracing.is_enabled = true;
    options.tracing.address = address.to_owned();
    options.tracing.service_name = "a service".to_owned();
    options.tracing.instance_id = "the first".to_owned();
    options.tracing.sampling_rate_per_million = rate;
    start(options).await
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_are_traced_at_a_collector() {
    let dir = tempfile::tempdir().unwrap();
    let (collector, address) = Collector::start().await;
    let member = traced(&dir, &address, 1_000_000).await;
    put(&member, "key", None).await.unwrap();
    put(&member, "", None).await.unwrap_err();
    // What is left is sent at the end.
    member.stop().await;
    let (resource, spans) = collector.got();
    assert_eq!(resource["service.name"], "a service");
    assert_eq!(resource["service.instance.id"], "the first");
    let puts: Vec<&Span> = spans
        .iter()
        .filter(|span| span.name == "etcdserverpb.KV/Put")
        .collect();
    assert_eq!(puts.len(), 2, "{spans:?}");
    for (span, code) in puts.into_iter().zip(["0", "3"]) {
        let attributes = texts(&span.attributes);
        assert_eq!(attributes["rpc.system"], "grpc");
        assert_eq!(attributes["rpc.service"], "etcdserverpb.KV");
        assert_eq!(attributes["rpc.method"], "Put");
        assert_eq!(attributes["rpc.grpc.status_code"], code);
        assert_eq!(attributes["net.sock.peer.addr"], "127.0.0.1");
        // A server's.
        assert_eq!(span.kind, 2);
        assert!(span.end_time_unix_nano >= span.start_time_unix_nano);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_sampling_rate_only_clients_traces_go_on() {
    let dir = tempfile::tempdir().unwrap();
    let (collector, address) = Collector::start().await;
    let member = traced(&dir, &address, 0).await;
    let trace = "0af7651916cd43dd8448eb211c80319c";
    let parent = |flags: &str| format!("00-{trace}-b7ad6b7169203331-{flags}");
    put(&member, "key", None).await.unwrap();
    put(&member, "key", Some(&parent("00"))).await.unwrap();
    put(&member, "key", Some(&parent("01"))).await.unwrap();
    member.stop().await;
    let (_resource, spans) = collector.got();
    assert_eq!(spans.len(), 1, "{spans:?}");
    let hex = |bytes: &[u8]| -> String { bytes.iter().map(|it| format!("{it:02x}")).collect() };
    assert_eq!(hex(&spans[0].trace_id), trace);
    assert_eq!(hex(&spans[0].parent_span_id), "b7ad6b7169203331");
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_waits_for_a_collector_that_is_not_there() {
    let dir = tempfile::tempdir().unwrap();
    let member = traced(&dir, "127.0.0.1:1", 1_000_000).await;
    put(&member, "key", None).await.unwrap();
    member.stop().await;
    let mut options = options(&dir);
    options.tracing.is_enabled = true;
    options.tracing.address = "no address".to_owned();
    let error = Kvorum::start(options.validate().unwrap())
        .await
        .unwrap_err();
    let text = "cannot send traces to --distributed-tracing-address=no address";
    assert!(error.to_string().starts_with(text), "{error}");
}
