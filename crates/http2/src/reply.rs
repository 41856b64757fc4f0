//! What a request is answered with.

use bytes::Bytes;
use http::Response;

/// What a request is answered with.
#[derive(Debug)]
pub enum Reply<B> {
    /// A head, and a body that comes as it comes.
    Response(Response<B>),
    /// The one message of a gRPC call that went well, with its flag and length before it. The fields before and after
    /// it are always the same, so that there is nothing to make of them.
    Message(Bytes),
}

impl<B> From<Response<B>> for Reply<B> {
    fn from(response: Response<B>) -> Self {
        Self::Response(response)
    }
}
