//! Where the spans of requests go: to a collector that speaks OTLP over gRPC
//! (`--enable-distributed-tracing`, `server/embed/config_tracing.go` in etcd).

use std::time::Duration;

use opentelemetry::KeyValue;
use opentelemetry::trace::TracerProvider;
use opentelemetry_otlp::{SpanExporter, WithTonicConfig};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::{Sampler, SdkTracerProvider};
use server::Traces;
use tonic::transport::Endpoint;

use crate::config::TracingSettings;
use crate::error::StartError;

/// What a sampling rate is a part of.
const RATE_MAX: f64 = 1_000_000.0;
/// How long what is left may take to be sent at the end.
const FLUSH_TIME_MAX: Duration = Duration::from_secs(5);

/// The exporter, and the thread of it. Spans wait in its queue (2,048 of them; more are dropped), and are
/// sent every few seconds; nobody waits for them.
#[derive(Debug)]
pub(super) struct Exporter(SdkTracerProvider);

impl Exporter {
    /// Begins to export, if it is asked for. Nobody needs to listen yet.
    pub(super) fn start(settings: &TracingSettings) -> Result<Option<Self>, StartError> {
        if !settings.is_enabled {
            return Ok(None);
        }
        let failed = |reason: String| StartError::Tracing {
            address: settings.address.clone(),
            reason,
        };
        let endpoint = Endpoint::from_shared(format!("http://{}", settings.address))
            .map_err(|error| failed(error.to_string()))?;
        let exporter = SpanExporter::builder()
            .with_tonic()
            .with_channel(endpoint.connect_lazy())
            .build()
            .map_err(|error| failed(error.to_string()))?;
        let provider = SdkTracerProvider::builder()
            .with_batch_exporter(exporter)
            .with_sampler(sampler(settings.sampling_rate_per_million))
            .with_resource(resource(settings))
            .build();
        tracing::debug!(
            address = settings.address,
            "service-name" = settings.service_name,
            "service-instance-id" = settings.instance_id,
            "sampling-rate" = settings.sampling_rate_per_million,
            "distributed tracing enabled",
        );
        Ok(Some(Self(provider)))
    }

    /// What begins spans.
    pub(super) fn traces(&self) -> Traces {
        Traces::new(
            self.0.tracer(
                "go.opentelemetry.io/contrib/instrumentation/google.golang.org/grpc/otelgrpc",
            ),
        )
    }

    /// Sends what is left, and ends.
    pub(super) async fn stop(self) {
        let stopped =
            tokio::task::spawn_blocking(move || self.0.shutdown_with_timeout(FLUSH_TIME_MAX));
        if let Ok(Err(error)) = stopped.await {
            tracing::warn!(%error, "cannot send the last traces");
        }
    }
}

/// Requests whose client traces them are traced if the client samples them; of the others, a part is.
fn sampler(rate_per_million: i64) -> Sampler {
    let root = match rate_per_million {
        0 => Sampler::AlwaysOff,
        rate => Sampler::TraceIdRatioBased(rate as f64 / RATE_MAX),
    };
    Sampler::ParentBased(Box::new(root))
}

fn resource(settings: &TracingSettings) -> Resource {
    let mut resource = Resource::builder_empty().with_service_name(settings.service_name.clone());
    if !settings.instance_id.is_empty() {
        let id = KeyValue::new("service.instance.id", settings.instance_id.clone());
        resource = resource.with_attribute(id);
    }
    resource.build()
}
