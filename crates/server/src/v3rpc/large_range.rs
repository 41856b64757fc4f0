//! The response to a range, if it is large: encoded piece by piece while it is sent.
//!
//! As a whole it would be in memory once more, and nothing of it would leave, nor anything else on its connection,
//! before all of it is encoded. A piece is still in the processor's cache when it is written to the socket.
//!
//! What this is not: several messages (`range_stream`). A client sees the bytes that the codec would have written.

use std::convert::Infallible;
use std::vec;

use api::encoded::etcdserverpb::RangeResponse;
use api::encoded::mvccpb::KeyValue;
use bytes::{Bytes, BytesMut};
use futures_util::stream;
use http_body::Frame;
use http_body_util::StreamBody;
use prost::Message as _;
use prost::encoding::{WireType, encode_key, encode_varint};
use tokio::sync::mpsc;
use tokio_util::task::AbortOnDropHandle;
use tonic::Response;
use tonic::body::Body;

use super::own_body;
use crate::framing;

/// A message that is smaller is encoded at once.
const LARGE_BYTES: u32 = 128 * 1024;
/// Bytes of a piece, at most. With small ones two tasks would wake each other all the time.
const PIECE_BYTES: usize = 256 * 1024;
/// Pieces that are made before they can be sent.
const PIECES_AHEAD_MAX: usize = 4;
/// A key-value of so many bytes is sent as it lies in the store.
const SHARED_BYTES: usize = 16 * 1024;
/// Room for a key-value that is not, or for what comes after all of them.
const FIELD_BYTES: usize = SHARED_BYTES + 100;
/// The number of the field `kvs` of a `RangeResponse`.
const KVS: u32 = 2;

/// The response to a range that is large.
#[derive(Debug)]
pub(super) struct LargeRange {
    response: RangeResponse,
    message_bytes: u32,
}

/// The response as it goes over the wire.
struct Pieces {
    kvs: vec::IntoIter<KeyValue>,
    /// What is made next.
    piece: BytesMut,
    /// Comes after the piece that was made last.
    shared: Option<Bytes>,
    /// What comes after the key-values, until it is encoded.
    end: Option<RangeResponse>,
}

/// The answer to a range. A large one has a body of its own ([`own_body`]).
pub(super) fn answer(response: RangeResponse) -> Response<RangeResponse> {
    match LargeRange::of(response) {
        Ok(large) => own_body::answer(RangeResponse::default(), large.into_body()),
        Err(small) => Response::new(small),
    }
}

impl LargeRange {
    /// The response, if it is large. What gRPC cannot send is not: who encodes it refuses it.
    pub(super) fn of(response: RangeResponse) -> Result<Self, RangeResponse> {
        match u32::try_from(response.encoded_len()) {
            Ok(message_bytes) if message_bytes >= LARGE_BYTES => Ok(Self {
                response,
                message_bytes,
            }),
            _ => Err(response),
        }
    }

    /// All of the answer.
    pub(super) fn into_response(self) -> http::Response<Body> {
        framing::response(self.into_body())
    }

    /// The pieces are made by a task of their own: their connection's has others to answer.
    fn into_body(self) -> Body {
        let (made, mut frames) = mpsc::channel(PIECES_AHEAD_MAX);
        let making = AbortOnDropHandle::new(tokio::spawn(async move {
            let mut pieces = Pieces::new(self);
            while let Some(piece) = pieces.next() {
                if made.send(Frame::data(piece)).await.is_err() {
                    return;
                }
            }
            // Only what is whole is said to be well. Nobody waits for it any more if this fails.
            made.send(Frame::trailers(framing::ok_trailers()))
                .await
                .ok();
        }));
        let frames = stream::poll_fn(move |cx| {
            // It ends with the body, whichever is first.
            let _making = &making;
            frames
                .poll_recv(cx)
                .map(|frame| frame.map(Ok::<_, Infallible>))
        });
        Body::new(StreamBody::new(frames))
    }
}

impl Pieces {
    fn new(large: LargeRange) -> Self {
        let RangeResponse {
            header,
            kvs,
            more,
            count,
        } = large.response;
        let beginning = RangeResponse {
            header,
            ..RangeResponse::default()
        };
        let mut piece = BytesMut::with_capacity(PIECE_BYTES);
        framing::put_prefix(large.message_bytes, &mut piece);
        beginning.encode_raw(&mut piece);
        Self {
            kvs: kvs.into_iter(),
            piece,
            shared: None,
            end: Some(RangeResponse {
                more,
                count,
                ..RangeResponse::default()
            }),
        }
    }

    fn next(&mut self) -> Option<Bytes> {
        if let Some(shared) = self.shared.take() {
            return Some(shared);
        }
        self.end.as_ref()?;
        // Between two values that are shared there is little: what is left of the memory is enough for it.
        if self.room() < FIELD_BYTES {
            self.piece = BytesMut::with_capacity(PIECE_BYTES);
        }
        while self.room() >= FIELD_BYTES {
            let Some(kv) = self.kvs.next() else {
                if let Some(end) = self.end.take() {
                    end.encode_raw(&mut self.piece);
                }
                break;
            };
            let length = kv.encoded().len();
            encode_key(KVS, WireType::LengthDelimited, &mut self.piece);
            encode_varint(length as u64, &mut self.piece);
            if length >= SHARED_BYTES {
                self.shared = Some(kv.into());
                break;
            }
            self.piece.extend_from_slice(kv.encoded());
        }
        Some(self.piece.split().freeze())
    }

    /// What the piece can take without more memory.
    fn room(&self) -> usize {
        self.piece.capacity() - self.piece.len()
    }
}

#[cfg(test)]
mod tests {
    use api::etcdserverpb::ResponseHeader;
    use api::mvccpb;
    use http::HeaderValue;
    use http_body_util::BodyExt as _;
    use proptest::prelude::*;

    use super::*;

    fn response(value_lengths: &[usize], count: i64) -> RangeResponse {
        let kvs = value_lengths.iter().map(|&length| {
            KeyValue::from(&mvccpb::KeyValue {
                key: b"key".to_vec().into(),
                value: vec![b'v'; length].into(),
                ..Default::default()
            })
        });
        RangeResponse {
            header: Some(ResponseHeader {
                revision: 7,
                ..ResponseHeader::default()
            }),
            kvs: kvs.collect(),
            more: count % 2 == 1,
            count,
        }
    }

    fn pieces_of(response: &RangeResponse) -> Pieces {
        Pieces::new(LargeRange {
            message_bytes: u32::try_from(response.encoded_len()).unwrap(),
            response: response.clone(),
        })
    }

    proptest! {
        #[test]
        fn the_pieces_are_the_bytes_that_the_codec_writes(
            value_lengths in prop::collection::vec(
                prop_oneof![0..9000usize, SHARED_BYTES - 20..SHARED_BYTES + 20, 60_000..70_000usize],
                0..80,
            ),
            count in 0..4i64,
        ) {
            let response = response(&value_lengths, count);
            let expected = response.encode_to_vec();
            let mut pieces = pieces_of(&response);
            let sent: Vec<Bytes> = std::iter::from_fn(|| pieces.next()).collect();
            let largest = sent.iter().map(Bytes::len).max();
            prop_assert!(largest <= Some(PIECE_BYTES), "{:?}", largest);
            let sent = sent.concat();
            prop_assert_eq!(&sent[..5], &[&[0], &u32::try_from(expected.len()).unwrap().to_be_bytes()[..]].concat());
            prop_assert!(sent[5..] == expected);
        }
    }

    #[tokio::test]
    async fn what_is_large_leaves_in_pieces_and_what_is_small_as_ever() {
        for (values, is_large) in [(1000, true), (10, false)] {
            let response = response(&vec![200; values], 1000);
            let answer = answer(response.clone());
            assert_eq!(answer.get_ref() == &RangeResponse::default(), is_large);
            assert_eq!(answer.get_ref() == &response, !is_large);
            let (_metadata, _message, extensions) = answer.into_parts();
            let mut answer = http::Response::new(Body::empty());
            *answer.extensions_mut() = extensions;
            let answer = own_body::put_in(answer);
            let collected = answer.into_body().collect().await.unwrap();
            let status = collected
                .trailers()
                .map(|trailers| trailers["grpc-status"].clone());
            assert_eq!(status, is_large.then(|| HeaderValue::from_static("0")));
        }
    }
}
