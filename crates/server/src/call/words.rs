//! What a request says, as etcd logs it: protobuf's text without values.
//!
//! What this is not: a protobuf printer. Only requests for keys are told, and what matters of them.

use std::fmt::Write as _;

use api::etcdserverpb::compare::{CompareResult, CompareTarget};
use api::etcdserverpb::range_request::{SortOrder, SortTarget};
use api::etcdserverpb::request_op::Request;
use api::etcdserverpb::{
    Compare, DeleteRangeRequest, PutRequest, RangeRequest, RequestOp, TxnRequest,
};
use bytes::Bytes;
use prost::Message;

use crate::framing::only_message;

/// Bytes of the text; the rest of a long one is left out.
const TEXT_BYTES_MAX: usize = 2 * 1024;
/// Bytes of one key.
const KEY_BYTES_MAX: usize = 256;

/// A request in words.
pub(super) struct Said {
    pub(super) text: String,
    /// How many writes it is, as etcd counts.
    pub(super) count: i64,
}

/// Says what a request is; `None` for a method that is not about keys, and for one that is not kept.
pub(super) fn request(path: &str, framed: &Bytes) -> Option<Said> {
    let message = only_message(framed)?;
    let mut text = String::new();
    let count = match path.rsplit('/').next()? {
        "Range" => {
            range(&mut text, &RangeRequest::decode(message).ok()?);
            0
        }
        "Put" => {
            put(&mut text, &PutRequest::decode(message).ok()?);
            1
        }
        "DeleteRange" => {
            delete_range(&mut text, &DeleteRangeRequest::decode(message).ok()?);
            0
        }
        "Txn" => {
            let request = TxnRequest::decode(message).ok()?;
            txn(&mut text, &request);
            i64::try_from(request.success.len().max(request.failure.len())).ok()?
        }
        _ => return None,
    };
    let end = (0..=TEXT_BYTES_MAX.min(text.len())).rev();
    let end = end.into_iter().find(|&end| text.is_char_boundary(end));
    text.truncate(end.unwrap_or(0));
    Some(Said {
        text: text.trim_end().to_owned(),
        count,
    })
}

fn range(text: &mut String, request: &RangeRequest) {
    bytes(text, "key", &request.key);
    bytes(text, "range_end", &request.range_end);
    number(text, "limit", request.limit);
    number(text, "revision", request.revision);
    if request.sort_order() != SortOrder::None {
        word(text, "sort_order", request.sort_order().as_str_name());
    }
    if request.sort_target() != SortTarget::Key {
        word(text, "sort_target", request.sort_target().as_str_name());
    }
    flag(text, "serializable", request.serializable);
    flag(text, "keys_only", request.keys_only);
    flag(text, "count_only", request.count_only);
    number(text, "min_mod_revision", request.min_mod_revision);
    number(text, "max_mod_revision", request.max_mod_revision);
    number(text, "min_create_revision", request.min_create_revision);
    number(text, "max_create_revision", request.max_create_revision);
}

fn put(text: &mut String, request: &PutRequest) {
    bytes(text, "key", &request.key);
    let size = i64::try_from(request.value.len()).unwrap_or(i64::MAX);
    number(text, "value_size", size);
    number(text, "lease", request.lease);
    flag(text, "prev_kv", request.prev_kv);
    flag(text, "ignore_value", request.ignore_value);
    flag(text, "ignore_lease", request.ignore_lease);
}

fn delete_range(text: &mut String, request: &DeleteRangeRequest) {
    bytes(text, "key", &request.key);
    bytes(text, "range_end", &request.range_end);
    flag(text, "prev_kv", request.prev_kv);
}

fn txn(text: &mut String, request: &TxnRequest) {
    for one in &request.compare {
        group(text, "compare", |text| compare(text, one));
    }
    for (name, branch) in [("success", &request.success), ("failure", &request.failure)] {
        for one in branch {
            group(text, name, |text| op(text, one));
        }
    }
}

fn compare(text: &mut String, compare: &Compare) {
    if compare.result() != CompareResult::Equal {
        word(text, "result", compare.result().as_str_name());
    }
    if compare.target() != CompareTarget::Version {
        word(text, "target", compare.target().as_str_name());
    }
    bytes(text, "key", &compare.key);
    bytes(text, "range_end", &compare.range_end);
}

fn op(text: &mut String, op: &RequestOp) {
    // However deep it nests, no more is written than is shown.
    if text.len() > TEXT_BYTES_MAX {
        return;
    }
    match &op.request {
        Some(Request::RequestRange(request)) => {
            group(text, "request_range", |text| range(text, request));
        }
        Some(Request::RequestPut(request)) => {
            group(text, "request_put", |text| put(text, request));
        }
        Some(Request::RequestDeleteRange(request)) => {
            group(text, "request_delete_range", |text| {
                delete_range(text, request)
            });
        }
        Some(Request::RequestTxn(request)) => {
            group(text, "request_txn", |text| txn(text, request));
        }
        None => {}
    }
}

fn group(text: &mut String, name: &str, inner: impl FnOnce(&mut String)) {
    text.push_str(name);
    text.push_str(":<");
    inner(text);
    text.push_str("> ");
}

fn bytes(text: &mut String, name: &str, value: &[u8]) {
    if value.is_empty() {
        return;
    }
    write_part(text, format_args!("{name}:\""));
    for &byte in value.iter().take(KEY_BYTES_MAX) {
        match byte {
            b'\n' => text.push_str("\\n"),
            b'\r' => text.push_str("\\r"),
            b'\t' => text.push_str("\\t"),
            b'"' => text.push_str("\\\""),
            b'\\' => text.push_str("\\\\"),
            b' '..=b'~' => text.push(char::from(byte)),
            other => write_part(text, format_args!("\\{other:03o}")),
        }
    }
    text.push_str("\" ");
}

fn number(text: &mut String, name: &str, value: i64) {
    if value != 0 {
        write_part(text, format_args!("{name}:{value} "));
    }
}

fn flag(text: &mut String, name: &str, value: bool) {
    if value {
        write_part(text, format_args!("{name}:true "));
    }
}

fn word(text: &mut String, name: &str, value: &str) {
    write_part(text, format_args!("{name}:{value} "));
}

fn write_part(text: &mut String, part: std::fmt::Arguments<'_>) {
    // Writing into a string does not fail.
    text.write_fmt(part).ok();
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(method: &str, message: &impl Message) -> Option<(String, i64)> {
        let framed = crate::framing::framed(message).unwrap();
        request(method, &framed).map(|said| (said.text, said.count))
    }

    #[test]
    fn requests_are_told_without_their_values() {
        let put = PutRequest {
            key: b"a\"\xff".to_vec(),
            value: b"secret".to_vec(),
            lease: 7,
            ..PutRequest::default()
        };
        let words = "key:\"a\\\"\\377\" value_size:6 lease:7";
        assert_eq!(
            said("/etcdserverpb.KV/Put", &put),
            Some((words.to_owned(), 1))
        );
        let range = RangeRequest {
            key: b"a".to_vec(),
            range_end: b"b".to_vec(),
            limit: 500,
            keys_only: true,
            sort_order: SortOrder::Descend.into(),
            ..RangeRequest::default()
        };
        let words = "key:\"a\" range_end:\"b\" limit:500 sort_order:DESCEND keys_only:true";
        assert_eq!(
            said("/etcdserverpb.KV/Range", &range),
            Some((words.to_owned(), 0))
        );
        let txn = TxnRequest {
            compare: vec![Compare {
                key: b"k".to_vec(),
                target: CompareTarget::Mod.into(),
                ..Compare::default()
            }],
            success: vec![RequestOp {
                request: Some(Request::RequestPut(put)),
            }],
            failure: vec![],
        };
        let words = "compare:<target:MOD key:\"k\" > \
                     success:<request_put:<key:\"a\\\"\\377\" value_size:6 lease:7 > >";
        assert_eq!(
            said("/etcdserverpb.KV/Txn", &txn),
            Some((words.to_owned(), 1))
        );
        assert_eq!(said("/etcdserverpb.Lease/LeaseGrant", &range), None);
    }

    #[test]
    fn a_long_request_is_cut() {
        let op = RequestOp {
            request: Some(Request::RequestRange(RangeRequest {
                key: vec![b'k'; 1000],
                ..RangeRequest::default()
            })),
        };
        let txn = TxnRequest {
            success: vec![op; 100],
            ..TxnRequest::default()
        };
        let (text, count) = said("/etcdserverpb.KV/Txn", &txn).expect("a txn");
        assert!(text.len() <= TEXT_BYTES_MAX);
        assert_eq!(count, 100);
    }
}
