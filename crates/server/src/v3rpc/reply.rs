//! Replies become protobuf again. Stored key-values are passed on as the bytes they are.

use api::encoded::etcdserverpb::response_op::Response;
use api::encoded::etcdserverpb::{
    DeleteRangeResponse, PutResponse, RangeResponse, ResponseOp, TxnResponse,
};
use api::encoded::mvccpb::KeyValue;
use api::etcdserverpb::ResponseHeader;
use apply::{DeleteRangeReply, OpReply, PutReply, RangeReply, TxnReply};
use mvcc::StoredKv;

/// The response to a range.
pub(crate) fn range(header: ResponseHeader, reply: RangeReply) -> RangeResponse {
    let kvs = if reply.keys_only {
        let kvs = reply.kvs.iter();
        kvs.map(StoredKv::to_message_without_value).collect()
    } else {
        reply.kvs.into_iter().map(KeyValue::from).collect()
    };
    RangeResponse {
        header: Some(header),
        kvs,
        more: reply.more,
        count: wire_count(reply.count),
    }
}

/// The response to a put.
pub(crate) fn put(header: ResponseHeader, reply: PutReply) -> PutResponse {
    PutResponse {
        header: Some(header),
        prev_kv: reply.prev_kv.map(KeyValue::from),
    }
}

/// The response to a delete.
pub(crate) fn delete_range(header: ResponseHeader, reply: DeleteRangeReply) -> DeleteRangeResponse {
    DeleteRangeResponse {
        header: Some(header),
        deleted: wire_count(reply.deleted),
        prev_kvs: reply.prev_kvs.into_iter().map(KeyValue::from).collect(),
    }
}

/// The response to a transaction.
pub(crate) fn txn(header: ResponseHeader, reply: TxnReply) -> TxnResponse {
    let responses = reply
        .responses
        .into_iter()
        .map(|(revision, reply)| op(revision, reply))
        .collect();
    TxnResponse {
        header: Some(header),
        succeeded: reply.succeeded,
        responses,
    }
}

/// Headers inside a transaction carry a revision and nothing else.
fn op(revision: i64, reply: OpReply) -> ResponseOp {
    let header = ResponseHeader {
        revision,
        ..ResponseHeader::default()
    };
    let response = match reply {
        OpReply::Range(reply) => Response::ResponseRange(range(header, reply)),
        OpReply::Put(reply) => Response::ResponsePut(put(header, reply)),
        OpReply::DeleteRange(reply) => Response::ResponseDeleteRange(delete_range(header, reply)),
        OpReply::Txn(reply) => Response::ResponseTxn(txn(header, reply)),
    };
    ResponseOp {
        response: Some(response),
    }
}

fn wire_count(count: usize) -> i64 {
    i64::try_from(count).expect("a store holds fewer keys than fit into an i64")
}
