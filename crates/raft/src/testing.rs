//! What the tests of this crate share.

use apply::{Command, Put, PutLease, PutValue};
use bytes::Bytes;

use crate::type_config::Proposed;

pub(crate) fn put_command(key: &[u8], value: &[u8]) -> Command {
    Command::Put(Put {
        key: Bytes::copy_from_slice(key),
        value: PutValue::New(Bytes::copy_from_slice(value)),
        lease: PutLease::Detach,
        prev_kv: false,
    })
}

pub(crate) fn put(key: &[u8], value: &[u8]) -> Proposed {
    let command = put_command(key, value);
    Proposed {
        encoded: command.encode(),
        command,
    }
}
