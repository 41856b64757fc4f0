//! JSON as Go reads and writes it: `encoding/json` finds the values in a body, `protojson` makes
//! messages of them and of messages JSON.
//!
//! Writing is `prost-reflect`'s. Reading is our own, because what is taken and what is refused, and in which
//! words, is what clients see of a mistake, and no library here refuses as Go does.

mod decode;
mod number;
mod scan;
mod values;

use bytes::Bytes;
use prost_reflect::{DynamicMessage, MessageDescriptor, SerializeOptions};
use tonic::Status;

pub(super) use decode::decode;
pub(super) use values::{Input, Values};

/// A message as JSON: names as in `proto/`, 64-bit numbers as strings, and nothing that is empty.
pub(super) fn encode(descriptor: &MessageDescriptor, message: &Bytes) -> Result<Vec<u8>, Status> {
    let failed = |error: &dyn std::error::Error| Status::internal(error.to_string());
    let message = DynamicMessage::decode(descriptor.clone(), message.clone())
        .map_err(|error| failed(&error))?;
    let options = SerializeOptions::new().use_proto_field_name(true);
    let mut json = serde_json::Serializer::new(Vec::new());
    message
        .serialize_with_options(&mut json, &options)
        .map_err(|error| failed(&error))?;
    Ok(json.into_inner())
}

#[cfg(test)]
mod tests;
