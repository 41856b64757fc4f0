//! A span of OpenTelemetry for every gRPC call, with the name and the attributes that etcd's have
//! (`otelgrpc`'s server handler).
//!
//! What this is not: an exporter. Whoever makes the tracer says what is sampled, and where spans go.

use http::HeaderMap;
use opentelemetry::propagation::{Extractor, TextMapPropagator};
use opentelemetry::trace::{Span as _, SpanBuilder, SpanKind, Status, Tracer as _};
use opentelemetry::{Context, KeyValue};
use opentelemetry_sdk::propagation::TraceContextPropagator;
use opentelemetry_sdk::trace::{SdkTracer, Span};
use tonic::Code;
use transport::{PeerInfo, RemoteAddr};

use crate::v3rpc::Method;

/// Begins spans. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Traces {
    tracer: SdkTracer,
}

/// The span of a call that is traced.
#[derive(Debug)]
pub(crate) struct CallSpan(Span);

/// A request's metadata, in which its client may say which trace it belongs to.
struct Metadata<'a>(&'a HeaderMap);

impl Extractor for Metadata<'_> {
    fn get(&self, key: &str) -> Option<&str> {
        self.0.get(key).and_then(|value| value.to_str().ok())
    }

    fn keys(&self) -> Vec<&str> {
        self.0.keys().map(http::HeaderName::as_str).collect()
    }
}

impl Traces {
    /// Begins spans with this tracer.
    #[must_use]
    pub const fn new(tracer: SdkTracer) -> Self {
        Self { tracer }
    }

    /// The span of a call that begins; none if it is not sampled.
    pub(crate) fn begin(
        &self,
        method: &Method,
        metadata: &HeaderMap,
        peer: Option<&PeerInfo>,
    ) -> Option<CallSpan> {
        let parent = TraceContextPropagator::new()
            .extract_with_context(&Context::new(), &Metadata(metadata));
        let (service, name) = method.names();
        let mut attributes = vec![
            KeyValue::new("rpc.system", "grpc"),
            KeyValue::new("rpc.service", service),
            KeyValue::new("rpc.method", name),
        ];
        if let Some(RemoteAddr::Tcp(remote)) = peer.map(|peer| &peer.remote) {
            attributes.push(KeyValue::new("net.sock.peer.addr", remote.ip().to_string()));
            attributes.push(KeyValue::new(
                "net.sock.peer.port",
                i64::from(remote.port()),
            ));
        }
        let builder = SpanBuilder::from_name(&method.path[1..])
            .with_kind(SpanKind::Server)
            .with_attributes(attributes);
        let span = self.tracer.build_with_context(builder, &parent);
        span.is_recording().then_some(CallSpan(span))
    }
}

impl CallSpan {
    /// The call has ended.
    pub(crate) fn end(mut self, code: Code) {
        self.0
            .set_attribute(KeyValue::new("rpc.grpc.status_code", code as i64));
        // Those for which the server is to blame.
        let is_error = matches!(
            code,
            Code::Unknown
                | Code::DeadlineExceeded
                | Code::Unimplemented
                | Code::Internal
                | Code::Unavailable
                | Code::DataLoss
        );
        if is_error {
            self.0.set_status(Status::error(code.description()));
        }
        self.0.end();
    }
}
