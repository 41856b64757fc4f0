//! `grpc.health.v1`: whether the member serves. There is one service to ask about, "".

use futures_util::{StreamExt, stream};
use tonic::codegen::BoxStream;
use tonic::{Request, Response, Status, async_trait};
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_server::Health;
use tonic_health::pb::{HealthCheckRequest, HealthCheckResponse};

use crate::EtcdServer;

/// Answers health checks. The port is not served before the member is ready, so that whoever can ask
/// is served, but for those who asked that nobody be while the store is defragmented.
pub(crate) struct HealthService {
    server: EtcdServer,
}

impl HealthService {
    /// Tells how this member is.
    pub(crate) const fn new(server: EtcdServer) -> Self {
        Self { server }
    }
}

#[async_trait]
impl Health for HealthService {
    async fn check(
        &self,
        request: Request<HealthCheckRequest>,
    ) -> Result<Response<HealthCheckResponse>, Status> {
        match request.get_ref().service.as_str() {
            "" => Ok(Response::new(answer(status(
                *self.server.serving().borrow(),
            )))),
            _ => Err(Status::not_found("unknown service")),
        }
    }

    type WatchStream = BoxStream<HealthCheckResponse>;

    /// The status now and whenever it changes, until the stream ends with the member.
    async fn watch(
        &self,
        request: Request<HealthCheckRequest>,
    ) -> Result<Response<BoxStream<HealthCheckResponse>>, Status> {
        if !request.get_ref().service.is_empty() {
            let unknown = stream::once(async { Ok(answer(ServingStatus::ServiceUnknown)) });
            return Ok(Response::new(unknown.chain(stream::pending()).boxed()));
        }
        let mut serving = self.server.serving();
        serving.mark_changed();
        let statuses = stream::unfold(serving, |mut serving| async move {
            serving.changed().await.ok()?;
            let is_serving = *serving.borrow_and_update();
            Some((Ok(answer(status(is_serving))), serving))
        });
        Ok(Response::new(statuses.boxed()))
    }
}

const fn status(is_serving: bool) -> ServingStatus {
    if is_serving {
        ServingStatus::Serving
    } else {
        ServingStatus::NotServing
    }
}

fn answer(status: ServingStatus) -> HealthCheckResponse {
    HealthCheckResponse {
        status: status.into(),
    }
}
