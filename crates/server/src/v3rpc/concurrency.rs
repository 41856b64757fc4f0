//! etcd's recipe for queueing up on keys (`client/v3/concurrency`): whoever has the oldest key under a prefix
//! has the lock or leads, and everybody else waits for the key before theirs. Clients that follow the recipe
//! themselves queue up with those that ask the Lock and Election services, because the keys are the same:
//! `<name>/<lease in hex>`.
//!
//! What this is not: fair beyond the order of the keys, or safe beyond what leases are. Nothing here is
//! state of the member: whatever a service has in hand is a key with a lease.

use api::etcdserverpb::compare::{CompareResult, CompareTarget, TargetUnion};
use api::etcdserverpb::range_request::{SortOrder, SortTarget};
use api::etcdserverpb::request_op::Request as Op;
use api::etcdserverpb::response_op::Response as OpResponse;
use api::etcdserverpb::{
    Compare, DeleteRangeRequest, PutRequest, RangeRequest, RangeResponse, RequestOp, ResponseOp,
    TxnRequest, WatchCreateRequest,
};
use api::mvccpb::KeyValue;
use api::mvccpb::event::EventType;
use tonic::Status;

use super::v3client::{CallersClient, WatchEnd};

/// The TTL of a lease that is granted because the caller named none.
const SESSION_TTL_S: i64 = 60;

/// The caller's lease, or a new one if it names none.
pub(crate) async fn session(client: &mut CallersClient, lease: i64) -> Result<i64, Status> {
    match lease {
        0 => client.grant(SESSION_TTL_S).await,
        lease => Ok(lease),
    }
}

/// What all keys of a lock or election begin with.
pub(crate) fn prefix_of(name: &[u8]) -> Vec<u8> {
    [name, b"/"].concat()
}

/// The key of whoever has this lease. A negative lease is written as Go writes it.
pub(crate) fn key_of(prefix: &[u8], lease: i64) -> Vec<u8> {
    let sign = if lease < 0 { "-" } else { "" };
    let hex = format!("{sign}{:x}", lease.unsigned_abs());
    [prefix, hex.as_bytes()].concat()
}

/// Whether the key was created at this revision; 0 if it has to be missing.
pub(crate) fn created_at(key: &[u8], revision: i64) -> Compare {
    Compare {
        result: CompareResult::Equal.into(),
        target: CompareTarget::Create.into(),
        key: key.to_vec(),
        target_union: Some(TargetUnion::CreateRevision(revision)),
        ..Compare::default()
    }
}

/// If that is so then do this, else that.
pub(crate) fn if_then_else(
    condition: Compare,
    then: impl IntoIterator<Item = Op>,
    otherwise: impl IntoIterator<Item = Op>,
) -> TxnRequest {
    let ops = |op| RequestOp { request: Some(op) };
    TxnRequest {
        compare: vec![condition],
        success: then.into_iter().map(ops).collect(),
        failure: otherwise.into_iter().map(ops).collect(),
    }
}

pub(crate) fn put(key: &[u8], value: &[u8], lease: i64) -> Op {
    Op::RequestPut(PutRequest {
        key: key.to_vec(),
        value: value.to_vec(),
        lease,
        ..PutRequest::default()
    })
}

pub(crate) fn delete(key: &[u8]) -> Op {
    Op::RequestDeleteRange(DeleteRangeRequest {
        key: key.to_vec(),
        ..DeleteRangeRequest::default()
    })
}

pub(crate) fn get(key: &[u8]) -> RangeRequest {
    RangeRequest {
        key: key.to_vec(),
        ..RangeRequest::default()
    }
}

/// The oldest key under the prefix.
pub(crate) fn first_created(prefix: &[u8]) -> RangeRequest {
    RangeRequest {
        range_end: prefix_end(prefix),
        sort_order: SortOrder::Ascend.into(),
        sort_target: SortTarget::Create.into(),
        limit: 1,
        ..get(prefix)
    }
}

/// The end of the range of all keys with this prefix, which has to have one.
pub(crate) fn prefix_end(prefix: &[u8]) -> Vec<u8> {
    let mut end = prefix.to_vec();
    while let Some(last) = end.pop() {
        if last < u8::MAX {
            end.push(last + 1);
            return end;
        }
    }
    vec![0]
}

/// What a transaction's nth op found; nothing if it was no range.
pub(crate) fn found(responses: &[ResponseOp], op: usize) -> Option<&KeyValue> {
    match responses.get(op)?.response.as_ref()? {
        OpResponse::ResponseRange(RangeResponse { kvs, .. }) => kvs.first(),
        _ => None,
    }
}

/// Waits until no key under the prefix is left that was created at or before `revision`.
pub(crate) async fn wait_deletes(
    client: &mut CallersClient,
    prefix: &[u8],
    revision: i64,
) -> Result<(), Status> {
    let last_created = RangeRequest {
        sort_order: SortOrder::Descend.into(),
        max_create_revision: revision,
        ..first_created(prefix)
    };
    loop {
        let mut response = client.range(last_created.clone()).await?;
        let Some(last) = response.kvs.pop() else {
            return Ok(());
        };
        let at = response.header.unwrap_or_default().revision;
        wait_delete(client, &last.key, at).await?;
    }
}

/// Waits until the key is deleted, at `revision` or later.
async fn wait_delete(client: &mut CallersClient, key: &[u8], revision: i64) -> Result<(), Status> {
    let watch = WatchCreateRequest {
        key: key.to_vec(),
        start_revision: revision,
        ..WatchCreateRequest::default()
    };
    let mut watcher = client.watch(watch).await?;
    loop {
        match watcher.next().await {
            Ok(response) => {
                let mut events = response.events.iter();
                if events.any(|event| event.r#type() == EventType::Delete) {
                    return Ok(());
                }
            }
            // Differs from etcd: the caller looks again instead of giving up.
            Err(WatchEnd::Compacted) => return Ok(()),
            Err(WatchEnd::Refused(status)) => return Err(status),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_named_as_the_recipes_of_go_clients_name_them() {
        let prefix = prefix_of(b"lock");
        assert_eq!(key_of(&prefix, 0x694d_81a2), b"lock/694d81a2");
        assert_eq!(key_of(&prefix, -1), b"lock/-1");
        assert_eq!(key_of(&prefix, i64::MIN), b"lock/-8000000000000000");
        assert_eq!(prefix_end(&prefix), b"lock0");
        assert_eq!(prefix_end(b"a\xff"), b"b");
        assert_eq!(prefix_end(b"\xff"), [0]);
    }
}
