//! How a service of this member asks its other services on behalf of a client
//! (`server/etcdserver/api/v3client`): with generated clients, over no network. A request carries the
//! caller's metadata and connection, so that it may do what the caller may.
//!
//! What this is not: a call of its own. It is not counted as one, and whether this member answers at all
//! was decided when the caller's request came in.

use api::encoded::etcdserverpb::lease_server::LeaseServer;
use api::etcdserverpb::kv_client::KvClient;
use api::etcdserverpb::lease_client::LeaseClient;
use api::etcdserverpb::watch_client::WatchClient;
use api::etcdserverpb::watch_request::RequestUnion;
use api::etcdserverpb::{
    DeleteRangeRequest, DeleteRangeResponse, LeaseGrantRequest, RangeRequest, RangeResponse,
    TxnRequest, TxnResponse, WatchCreateRequest, WatchRequest, WatchResponse,
};
use api::rpctypes::ErrorCode;
use futures_util::{StreamExt, stream};
use tonic::metadata::{KeyRef, MetadataMap};
use tonic::{Extensions, Request, Status, Streaming};

use super::kv::Keys;
use super::lease::LeaseService;
use super::watch::Watches;

/// Metadata of these names is about the caller's call, not about the caller.
const ABOUT_THE_CALL: &str = "grpc-";

/// Errors that a Go client knows by no type; they keep their code on the way through one.
const UNTYPED: [ErrorCode; 6] = [
    ErrorCode::InvalidClientAPIVersion,
    ErrorCode::PermissionNotGiven,
    ErrorCode::WatchCanceled,
    ErrorCode::TimeoutWaitAppliedIndex,
    ErrorCode::Canceled,
    ErrorCode::DeadlineExceeded,
];

/// Asks this member. Cheap to clone.
#[derive(Clone)]
pub(crate) struct V3Client {
    kv: KvClient<Keys>,
    lease: LeaseClient<LeaseServer<LeaseService>>,
    watch: WatchClient<Watches>,
}

/// On whose behalf requests are made.
#[derive(Clone, Debug)]
pub(crate) struct Caller {
    metadata: MetadataMap,
    extensions: Extensions,
}

/// Asks on behalf of one caller.
#[derive(Clone)]
pub(crate) struct CallersClient {
    client: V3Client,
    caller: Caller,
}

impl Caller {
    /// Takes a request apart: who sent it, and what it says.
    pub(crate) fn of<M>(request: Request<M>) -> (Self, M) {
        let (mut metadata, extensions, message) = request.into_parts();
        let names: Vec<String> = metadata
            .keys()
            .map(|name| match name {
                KeyRef::Ascii(name) => name.as_str().to_owned(),
                KeyRef::Binary(name) => name.as_str().to_owned(),
            })
            .collect();
        for name in names {
            if name.starts_with(ABOUT_THE_CALL) {
                metadata.remove(name.as_str());
            }
        }
        let caller = Self {
            metadata,
            extensions,
        };
        (caller, message)
    }
}

impl V3Client {
    /// Asks these services.
    pub(crate) fn new(kv: Keys, lease: LeaseServer<LeaseService>, watch: Watches) -> Self {
        // What the services say is as large as it has to be.
        Self {
            kv: KvClient::new(kv).max_decoding_message_size(usize::MAX),
            lease: LeaseClient::new(lease),
            watch: WatchClient::new(watch).max_decoding_message_size(usize::MAX),
        }
    }

    /// Asks on behalf of this caller.
    pub(crate) fn on_behalf_of(&self, caller: Caller) -> CallersClient {
        CallersClient {
            client: self.clone(),
            caller,
        }
    }
}

impl CallersClient {
    pub(crate) async fn range(&mut self, range: RangeRequest) -> Result<RangeResponse, Status> {
        let request = self.request(range);
        let answered = self.client.kv.range(request).await;
        answered.map_or_else(
            |status| Err(seen(status)),
            |response| Ok(response.into_inner()),
        )
    }

    pub(crate) async fn txn(&mut self, txn: TxnRequest) -> Result<TxnResponse, Status> {
        let request = self.request(txn);
        let answered = self.client.kv.txn(request).await;
        answered.map_or_else(
            |status| Err(seen(status)),
            |response| Ok(response.into_inner()),
        )
    }

    pub(crate) async fn delete(&mut self, key: Vec<u8>) -> Result<DeleteRangeResponse, Status> {
        let request = self.request(DeleteRangeRequest {
            key,
            ..DeleteRangeRequest::default()
        });
        let answered = self.client.kv.delete_range(request).await;
        answered.map_or_else(
            |status| Err(seen(status)),
            |response| Ok(response.into_inner()),
        )
    }

    /// Grants a lease, and says its id.
    pub(crate) async fn grant(&mut self, ttl_s: i64) -> Result<i64, Status> {
        let request = self.request(LeaseGrantRequest { ttl: ttl_s, id: 0 });
        let answered = self.client.lease.lease_grant(request).await;
        answered.map_or_else(
            |status| Err(seen(status)),
            |response| Ok(response.into_inner().id),
        )
    }

    /// Watches what is asked for, until the watcher is dropped.
    pub(crate) async fn watch(&mut self, create: WatchCreateRequest) -> Result<Watcher, Status> {
        let create = WatchRequest {
            request_union: Some(RequestUnion::CreateRequest(create)),
        };
        let requests = stream::once(async move { create }).chain(stream::pending());
        let request = self.request(requests);
        let answered = self.client.watch.watch(request).await.map_err(seen)?;
        Ok(Watcher {
            responses: answered.into_inner(),
        })
    }

    fn request<M>(&self, message: M) -> Request<M> {
        let Caller {
            metadata,
            extensions,
        } = self.caller.clone();
        Request::from_parts(metadata, extensions, message)
    }
}

/// One watcher on a stream of its own.
pub(crate) struct Watcher {
    responses: Streaming<WatchResponse>,
}

/// Why a watcher gives no more events.
#[derive(Debug)]
pub(crate) enum WatchEnd {
    /// What it was to see is forgotten.
    Compacted,
    /// It was refused, or the member stops.
    Refused(Status),
}

impl Watcher {
    /// The next response that has events.
    pub(crate) async fn next(&mut self) -> Result<WatchResponse, WatchEnd> {
        loop {
            let response = self.responses.message().await;
            let response = response.map_err(|status| WatchEnd::Refused(seen(status)))?;
            let Some(response) = response else {
                return Err(WatchEnd::Refused(ErrorCode::Stopped.into()));
            };
            if response.canceled {
                return Err(if response.compact_revision > 0 {
                    WatchEnd::Compacted
                } else {
                    WatchEnd::Refused(Status::failed_precondition(response.cancel_reason))
                });
            }
            if !response.events.is_empty() {
                return Ok(response);
            }
        }
    }
}

/// What becomes of an error that has gone through a Go client inside the server, and out again: the client
/// makes it a value of its own, of which gRPC knows no more than the text.
fn seen(status: Status) -> Status {
    let typed = ErrorCode::ALL
        .iter()
        .any(|code| !UNTYPED.contains(code) && code.text() == status.message());
    if typed {
        Status::unknown(status.message())
    } else {
        status
    }
}

#[cfg(test)]
mod tests {
    use tonic::Code;

    use super::*;

    #[test]
    fn an_error_that_a_client_knows_keeps_nothing_but_its_text() {
        let known = seen(ErrorCode::LeaseNotFound.into());
        assert_eq!(known.code(), Code::Unknown);
        assert_eq!(known.message(), "etcdserver: requested lease not found");
        assert_eq!(seen(ErrorCode::Canceled.into()).code(), Code::Cancelled);
        let other = seen(Status::internal("no text of etcd's"));
        assert_eq!(other.code(), Code::Internal);
    }

    #[test]
    fn a_caller_is_known_by_what_is_not_about_its_call() {
        let mut request = Request::new(1);
        for (name, value) in [
            ("token", "abc"),
            ("grpc-timeout", "1S"),
            ("hasleader", "true"),
        ] {
            request
                .metadata_mut()
                .insert(name, value.parse().expect("ASCII"));
        }
        request.extensions_mut().insert("who");
        let (caller, message) = Caller::of(request);
        assert_eq!(message, 1);
        assert!(caller.metadata.get("token").is_some());
        assert!(caller.metadata.get("hasleader").is_some());
        assert!(caller.metadata.get("grpc-timeout").is_none());
        assert_eq!(caller.extensions.get::<&str>(), Some(&"who"));
    }
}
