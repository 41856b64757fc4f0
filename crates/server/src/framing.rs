//! How gRPC frames what is said: a flag and a length before each message, and the fields around them.

use bytes::{BufMut, Bytes};
use http::header::CONTENT_TYPE;
use http::{HeaderMap, HeaderValue, Response};
use prost::Message;
use tonic::Status;
use tonic::body::Body;

/// Flag and length before each message.
pub(crate) const PREFIX_BYTES: usize = 5;
/// The content type of every answer.
pub(crate) const CONTENT_TYPE_GRPC: HeaderValue = HeaderValue::from_static("application/grpc");
/// The flag of a message that is not compressed.
const NOT_COMPRESSED: u8 = 0;

/// The message in what is nothing else: not if it is compressed.
pub(crate) fn only_message(framed: &Bytes) -> Option<Bytes> {
    let (&[flag, ref length @ ..], message) = framed.split_first_chunk::<PREFIX_BYTES>()?;
    let is_whole = u32::from_be_bytes(*length) as usize == message.len();
    (flag == NOT_COMPRESSED && is_whole).then(|| framed.slice(PREFIX_BYTES..))
}

/// Writes what comes before a message of this length.
pub(crate) fn put_prefix(length: u32, out: &mut impl BufMut) {
    out.put_u8(NOT_COMPRESSED);
    out.put_u32(length);
}

/// The length of a message of so many bytes, as it stands before it.
///
/// # Errors
///
/// When it is more than gRPC knows a length for; in tonic's words.
pub(crate) fn length(bytes: usize) -> Result<u32, Status> {
    u32::try_from(bytes).map_err(|_too_large| {
        let words = format!("Cannot return body with more than 4GB of data but got {bytes} bytes");
        Status::resource_exhausted(words)
    })
}

/// A message as it goes over the wire.
///
/// # Errors
///
/// As of [`length`].
pub(crate) fn framed(message: &impl Message) -> Result<Bytes, Status> {
    let bytes = message.encoded_len();
    let length = length(bytes)?;
    // A vector, because numbers are written into it byte by byte, which `BytesMut` takes ten times as long for.
    let mut out = Vec::with_capacity(PREFIX_BYTES + bytes);
    put_prefix(length, &mut out);
    message.encode_raw(&mut out);
    Ok(out.into())
}

/// The response that has this body, and begins as every one does.
pub(crate) fn response(body: Body) -> Response<Body> {
    let mut response = Response::new(body);
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, CONTENT_TYPE_GRPC);
    response
}

/// The trailers of what ends like this.
pub(crate) fn trailers(status: &Status) -> HeaderMap {
    let mut trailers = HeaderMap::new();
    if let Err(unfit) = status.add_header(&mut trailers) {
        unreachable!("etcd's texts are valid in headers: {unfit}");
    }
    trailers
}

/// The trailers of what went well.
pub(crate) fn ok_trailers() -> HeaderMap {
    HeaderMap::from_iter([(Status::GRPC_STATUS, HeaderValue::from_static("0"))])
}

#[cfg(test)]
mod tests {
    use api::etcdserverpb::PutRequest;

    use super::*;

    #[test]
    fn a_message_is_found_only_where_it_is_all_there_is() {
        let request = PutRequest {
            key: b"key".to_vec(),
            ..PutRequest::default()
        };
        let framed = framed(&request).unwrap();
        let found = |framed: &[u8]| only_message(&Bytes::copy_from_slice(framed));
        assert_eq!(found(&framed), Some(request.encode_to_vec().into()));
        assert_eq!(found(&framed[..framed.len() - 1]), None);
        assert_eq!(found(&[&framed[..], b"more"].concat()), None);
        assert_eq!(found(&[&[1], &framed[1..]].concat()), None);
        assert_eq!(found(&framed[..PREFIX_BYTES - 1]), None);
        assert_eq!(found(&[0; PREFIX_BYTES]), Some(Bytes::new()));
    }
}
