//! What of a call's metadata is of use here, found in one pass: each look for a name in a map of headers costs more
//! than to look at the few that there are.

use http::{HeaderMap, HeaderValue};

/// What a call's metadata says, unchecked; of a name that comes again the first value.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct CallMetadata<'a> {
    /// How long the client waits.
    pub(super) grpc_timeout: Option<&'a HeaderValue>,
    /// How its messages are compressed.
    pub(super) grpc_encoding: Option<&'a HeaderValue>,
    /// Where a client has its token.
    pub(super) token: Option<&'a HeaderValue>,
    /// Where a gateway has it.
    pub(super) authorization: Option<&'a HeaderValue>,
    pub(super) client_api_version: Option<&'a HeaderValue>,
    /// Whether it wants to be answered only while there is a leader.
    hasleader: Option<&'a HeaderValue>,
    /// What a gateway says of itself: the certificate of its connection is not the client's.
    grpcgateway_accept: Option<&'a HeaderValue>,
}

impl<'a> CallMetadata<'a> {
    pub(super) fn of(headers: &'a HeaderMap) -> Self {
        let mut metadata = Self::default();
        for (name, value) in headers {
            let place = match name.as_str() {
                "grpc-timeout" => &mut metadata.grpc_timeout,
                "grpc-encoding" => &mut metadata.grpc_encoding,
                "token" => &mut metadata.token,
                "authorization" => &mut metadata.authorization,
                "client-api-version" => &mut metadata.client_api_version,
                "hasleader" => &mut metadata.hasleader,
                "grpcgateway-accept" => &mut metadata.grpcgateway_accept,
                _ => continue,
            };
            place.get_or_insert(value);
        }
        metadata
    }

    pub(super) fn requires_leader(&self) -> bool {
        self.hasleader.is_some_and(|value| value == "true")
    }

    pub(super) fn is_of_a_gateway(&self) -> bool {
        self.grpcgateway_accept.is_some()
    }
}
