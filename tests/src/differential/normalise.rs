//! What may differ in two right answers, and why.

use std::cmp::Ordering;

use api::etcdserverpb as pb;
use api::mvccpb::KeyValue;
use pb::range_request::SortTarget;
use pb::request_op::Request as Op;
use pb::response_op::Response as OpAnswer;

/// Ids and raft's term belong to the member, not to the answer. Their presence is compared: a
/// response inside a transaction has none.
pub(super) fn header(header: &mut Option<pb::ResponseHeader>) {
    if let Some(header) = header {
        header.cluster_id = header.cluster_id.min(1);
        header.member_id = header.member_id.min(1);
        header.raft_term = header.raft_term.min(1);
    }
}

/// etcd sorts with Go's `sort.Sort`, which is not stable: the order of equals is not defined, and
/// with a limit neither is which of the last equals are in. What is defined is compared: the sort
/// values in order, and which keys have them where no limit cuts.
pub(super) fn range(request: &pb::RangeRequest, response: &mut pb::RangeResponse) {
    header(&mut response.header);
    let target = SortTarget::try_from(request.sort_target).unwrap_or(SortTarget::Key);
    if target == SortTarget::Key {
        return;
    }
    let same = |a: &KeyValue, b: &KeyValue| compare(target, a, b) == Ordering::Equal;
    let mut sorted = Vec::with_capacity(response.kvs.len());
    for equals in response.kvs.chunk_by(same) {
        let mut equals = equals.to_vec();
        equals.sort_by(|a, b| a.key.cmp(&b.key));
        sorted.extend(equals);
    }
    if response.more
        && let Some(last) = sorted.last().cloned()
    {
        for kv in sorted.iter_mut().filter(|kv| same(kv, &last)) {
            *kv = only_sort_value(target, kv);
        }
    }
    response.kvs = sorted;
}

fn compare(target: SortTarget, a: &KeyValue, b: &KeyValue) -> Ordering {
    match target {
        SortTarget::Key => a.key.cmp(&b.key),
        SortTarget::Version => a.version.cmp(&b.version),
        SortTarget::Create => a.create_revision.cmp(&b.create_revision),
        SortTarget::Mod => a.mod_revision.cmp(&b.mod_revision),
        SortTarget::Value => a.value.cmp(&b.value),
    }
}

fn only_sort_value(target: SortTarget, kv: &KeyValue) -> KeyValue {
    let mut out = KeyValue::default();
    match target {
        SortTarget::Key => out.key = kv.key.clone(),
        SortTarget::Version => out.version = kv.version,
        SortTarget::Create => out.create_revision = kv.create_revision,
        SortTarget::Mod => out.mod_revision = kv.mod_revision,
        SortTarget::Value => out.value = kv.value.clone(),
    }
    out
}

/// The ranges inside are sorted like any other.
pub(super) fn txn(request: &pb::TxnRequest, response: &mut pb::TxnResponse) {
    header(&mut response.header);
    let branch = if response.succeeded {
        &request.success
    } else {
        &request.failure
    };
    for (op, answer) in branch.iter().zip(&mut response.responses) {
        match (&op.request, &mut answer.response) {
            (Some(Op::RequestRange(op)), Some(OpAnswer::ResponseRange(answer))) => {
                range(op, answer);
            }
            (Some(Op::RequestTxn(op)), Some(OpAnswer::ResponseTxn(answer))) => txn(op, answer),
            (_, Some(OpAnswer::ResponsePut(answer))) => header(&mut answer.header),
            (_, Some(OpAnswer::ResponseDeleteRange(answer))) => header(&mut answer.header),
            _ => {}
        }
    }
}

/// The time that is left goes by; the keys come out of a Go map.
pub(super) fn time_to_live(response: &mut pb::LeaseTimeToLiveResponse) {
    header(&mut response.header);
    response.ttl = response.ttl.signum();
    response.keys.sort();
}

/// Leases come in the order in which they expire, to the nanosecond.
pub(super) fn leases(response: &mut pb::LeaseLeasesResponse) {
    header(&mut response.header);
    response.leases.sort_by_key(|lease| lease.id);
}

/// The revision that was hashed came with etcd 3.6; the real etcd beside us may be a 3.5.
pub(super) fn hash(response: &mut pb::HashKvResponse) {
    header(&mut response.header);
    response.hash_revision = 0;
}
