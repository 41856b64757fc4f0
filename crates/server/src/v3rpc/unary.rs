//! The calls of KV that are one message and one answer, which is nearly all that a member is asked. What tonic's generated
//! service does for them (a body read as a stream, metadata into maps and out of them, an answer that is a stream
//! again) costs more than a read itself, and there is nothing in it that they need.
//!
//! What this is not: for what is unusual. A message that is compressed, broken or missing is left to tonic's service,
//! which has the words for it.

use api::encoded::etcdserverpb::{
    DeleteRangeRequest, PutRequest, RangeRequest, RangeResponse, TxnRequest,
};
use api::etcdserverpb::CompactionRequest;
use bytes::Bytes;
use http_body::Body as HttpBody;
use http2::Reply;
use prost::Message;
use tonic::Status;
use tonic::body::Body;
use tonic::codegen::StdError;

use super::Credentials;
use super::kv::KvService;
use super::large_range::LargeRange;
use super::methods::{Method, MethodKind};
use crate::body::RequestBody;
use crate::call;
use crate::framing::{framed, only_message};

/// What is asked.
enum Asked {
    Range(RangeRequest),
    Put(PutRequest),
    DeleteRange(DeleteRangeRequest),
    Txn(TxnRequest),
    Compact(CompactionRequest),
}

/// Whether calls of this method are answered here.
pub(super) fn is_one(method: &Method) -> bool {
    method.kind == MethodKind::Unary && method.names().0 == "etcdserverpb.KV"
}

/// Answers a call, if this [`is_one`]; if it is unusual, it is left as it is.
pub(super) async fn answer<B>(
    kv: &KvService,
    method: &Method,
    credentials: &Credentials,
    body: &mut RequestBody<B>,
) -> Option<Reply<Body>>
where
    B: HttpBody<Data = Bytes, Error: Into<StdError>> + Unpin,
{
    let message = body.message().await?;
    let Some(asked) = Asked::decode(method, &message) else {
        body.put_back(message);
        return None;
    };
    call::asked_for(message);
    let reply = match asked {
        Asked::Range(range) => kv.answer_range(credentials, range).await.and_then(ranged),
        Asked::Put(put) => kv.answer_put(credentials, put).await.and_then(whole),
        Asked::DeleteRange(range) => {
            let deleted = kv.answer_delete_range(credentials, range).await;
            deleted.and_then(whole)
        }
        Asked::Txn(txn) => kv.answer_txn(credentials, txn).await.and_then(whole),
        Asked::Compact(compaction) => {
            let compacted = kv.answer_compact(credentials, compaction).await;
            compacted.and_then(whole)
        }
    };
    Some(reply.unwrap_or_else(|status| Reply::Response(status.into_http())))
}

impl Asked {
    fn decode(method: &Method, framed: &Bytes) -> Option<Self> {
        let message = only_message(framed)?;
        let asked = match method.names().1 {
            "Range" => RangeRequest::decode(message).map(Self::Range),
            "Put" => PutRequest::decode(message).map(Self::Put),
            "DeleteRange" => DeleteRangeRequest::decode(message).map(Self::DeleteRange),
            "Txn" => TxnRequest::decode(message).map(Self::Txn),
            "Compact" => CompactionRequest::decode(message).map(Self::Compact),
            _ => return None,
        };
        asked.ok()
    }
}

fn whole(response: impl Message) -> Result<Reply<Body>, Status> {
    framed(&response).map(Reply::Message)
}

fn ranged(response: RangeResponse) -> Result<Reply<Body>, Status> {
    match LargeRange::of(response) {
        Ok(large) => Ok(Reply::Response(large.into_response())),
        Err(small) => whole(small),
    }
}
