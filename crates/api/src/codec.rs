//! How servers write messages: into a buffer that is large enough from the beginning, so that a response of
//! 100 MB is copied once, and not again and again while the buffer grows.
//!
//! What this is not: another encoding.

use std::marker::PhantomData;

use prost::Message;
use tonic::Status;
use tonic::codec::{BufferSettings, Codec, EncodeBuf, Encoder};
use tonic_prost::ProstDecoder;

/// prost's codec, with one copy per message sent.
#[derive(Clone, Debug)]
pub struct OneCopyCodec<T, U> {
    messages: PhantomData<(T, U)>,
}

/// Writes messages.
#[derive(Clone, Debug)]
pub struct OneCopyEncoder<T> {
    message: PhantomData<T>,
}

impl<T, U> Default for OneCopyCodec<T, U> {
    fn default() -> Self {
        Self {
            messages: PhantomData,
        }
    }
}

impl<T, U> Codec for OneCopyCodec<T, U>
where
    T: Message + Send + 'static,
    U: Message + Default + Send + 'static,
{
    type Encode = T;
    type Decode = U;
    type Encoder = OneCopyEncoder<T>;
    type Decoder = ProstDecoder<U>;

    fn encoder(&mut self) -> Self::Encoder {
        OneCopyEncoder {
            message: PhantomData,
        }
    }

    fn decoder(&mut self) -> Self::Decoder {
        ProstDecoder::new(BufferSettings::default())
    }
}

impl<T: Message> Encoder for OneCopyEncoder<T> {
    type Item = T;
    type Error = Status;

    fn encode(&mut self, message: T, buffer: &mut EncodeBuf<'_>) -> Result<(), Status> {
        buffer.reserve(message.encoded_len());
        let encoded = message.encode(buffer);
        encoded.map_err(|error| Status::internal(error.to_string()))
    }
}
