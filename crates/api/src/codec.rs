//! How servers write messages: into a buffer that is large enough from the beginning, so that a response of
//! 100 MB is copied once, and not again and again while the buffer grows. And out of and into small buffers as long as
//! messages are small: a stream has two of them as long as it is open, and thousands of streams are open and silent.
//!
//! What this is not: another encoding.

use std::marker::PhantomData;

use prost::Message;
use tonic::Status;
use tonic::codec::{BufferSettings, Codec, EncodeBuf, Encoder};
use tonic_prost::ProstDecoder;

/// What the buffers of a stream take before there is a message, in bytes; and how many bytes of messages may wait for each
/// other before they go on, as with tonic's own.
fn buffers() -> BufferSettings {
    BufferSettings::new(1024, 32 * 1024)
}

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
        ProstDecoder::new(buffers())
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

    fn buffer_settings(&self) -> BufferSettings {
        buffers()
    }
}
