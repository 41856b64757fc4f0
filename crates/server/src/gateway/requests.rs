//! The requests of a stream: JSON values become messages as they come in.

use bytes::Bytes;
use futures_util::Stream;
use http_body::Frame;
use http_body_util::BodyExt;
use prost_reflect::MessageDescriptor;
use tokio::sync::oneshot;
use tonic::Status;
use tonic::codegen::StdError;

use super::call::frame;
use super::json::{self, Input, Values};
use super::too_large;

/// Turns a body of JSON values into a body of messages.
pub(super) struct Requests<B> {
    body: B,
    input: MessageDescriptor,
    values: Values,
    json_bytes_max: usize,
    /// Told why, when what comes is not a request. Taken then, or with the last request.
    refuse: Option<oneshot::Sender<Status>>,
    ended: Input,
}

impl<B> Requests<B>
where
    B: http_body::Body<Data = Bytes> + Send + Unpin + 'static,
    B::Error: Into<StdError>,
{
    pub(super) fn new(
        body: B,
        input: MessageDescriptor,
        refuse: oneshot::Sender<Status>,
        json_bytes_max: usize,
    ) -> Self {
        Self {
            body,
            input,
            values: Values::new(),
            json_bytes_max,
            refuse: Some(refuse),
            ended: Input::MayGoOn,
        }
    }

    /// The body of a call.
    pub(super) fn into_frames(self) -> impl Stream<Item = Result<Frame<Bytes>, Status>> + Send {
        futures_util::stream::unfold(self, async |mut requests| {
            let message = requests.next().await?;
            Some((Ok(Frame::data(frame(&message))), requests))
        })
    }

    /// The next message; none after the last, or after something that is none.
    async fn next(&mut self) -> Option<Vec<u8>> {
        self.refuse.as_ref()?;
        match self.read().await {
            Ok(Some(message)) => Some(message),
            Ok(None) => {
                self.refuse = None;
                None
            }
            Err(status) => {
                // Nobody listens: the call is over already.
                let _unheard = self.refuse.take().map(|refuse| refuse.send(status));
                None
            }
        }
    }

    async fn read(&mut self) -> Result<Option<Vec<u8>>, Status> {
        let refused =
            |error| Status::invalid_argument(format!("Failed to decode request: {error}"));
        loop {
            if let Some(value) = self.values.next(self.ended).map_err(refused)? {
                return json::decode(&self.input, &value).map(Some).map_err(refused);
            }
            if self.ended == Input::Ended {
                return Ok(None);
            }
            if self.values.pending() > self.json_bytes_max {
                return Err(too_large(self.json_bytes_max));
            }
            match self.body.frame().await {
                Some(Ok(frame)) => {
                    if let Ok(data) = frame.into_data() {
                        self.values.feed(&data);
                    }
                }
                // Broken off is an end too.
                Some(Err(_)) | None => self.ended = Input::Ended,
            }
        }
    }
}
