//! Commands as the log holds them (`proto/internalpb.proto`), and back.
//!
//! Total in one direction, strict in the other: every command can be written, and whatever is not a
//! command of this version is an error, never half a command. A log is only ever as trustworthy as
//! the weakest reader of it.

use api::internalpb as pb;
use bytes::Bytes;
use pb::command::Kind;
use prost::Message;
use types::{KeyRange, LeaseId, MemberId, Version};

use super::auth_codec::{auth_from, auth_to};
use crate::{
    AlarmAction, AlarmKind, Command, Compare, CompareOperator, CompareTarget, DecodeError,
    DeleteRange, Member, Op, Put, PutLease, PutValue, RangeOp, SortOrder, SortTarget, Txn,
};

/// Transactions within one another. A client's are fewer: protobuf's own limit of 100 messages counts
/// two for each. Here they are bytes within bytes, which that limit does not see.
const TXN_DEPTH_MAX: usize = 128;

/// The command of a message of the log. Keys and values are slices of its bytes.
pub(super) fn command_from(message: pb::Command) -> Result<Command, DecodeError> {
    let kind = message
        .kind
        .ok_or_else(|| bad("a command of no known kind"))?;
    Ok(match kind {
        Kind::Put(put) => Command::Put(put_from(put)?),
        Kind::DeleteRange(delete) => Command::DeleteRange(delete_range_from(delete)?),
        Kind::Txn(txn) => Command::Txn(txn_from(txn, 1)?),
        Kind::Compact(compact) => Command::Compact {
            revision: compact.revision,
        },
        Kind::LeaseGrant(grant) => Command::LeaseGrant {
            id: LeaseId(grant.id),
            ttl_s: grant.ttl_s,
        },
        Kind::LeaseRevoke(revoke) => Command::LeaseRevoke {
            id: LeaseId(revoke.id),
        },
        Kind::LeaseCheckpoint(checkpoint) => Command::LeaseCheckpoint {
            leases: checkpoint
                .leases
                .iter()
                .map(|left| (LeaseId(left.id), left.remaining_s))
                .collect(),
        },
        Kind::Alarm(alarm) => Command::Alarm {
            action: action_from(alarm.action)?,
            member: MemberId(alarm.member),
            alarm: alarm_kind_from(alarm.alarm)?,
        },
        Kind::PublishMember(member) => Command::PublishMember(member_from(member)),
        Kind::Auth(auth) => Command::Auth(auth_from(auth)?),
        Kind::ClusterVersionSet(version) => Command::ClusterVersionSet {
            version: version_from(&version),
        },
        Kind::DowngradeInfoSet(downgrade) => Command::DowngradeInfoSet {
            target: downgrade.target.as_ref().map(version_from),
        },
    })
}

pub(super) fn bad(reason: impl Into<String>) -> DecodeError {
    DecodeError {
        reason: reason.into(),
    }
}

pub(super) fn command_to_message(command: &Command) -> pb::Command {
    let kind = match command {
        Command::Put(put) => Kind::Put(put_to(put)),
        Command::DeleteRange(delete) => Kind::DeleteRange(delete_range_to(delete)),
        Command::Txn(txn) => Kind::Txn(txn_to(txn)),
        Command::Compact { revision } => Kind::Compact(pb::Compact {
            revision: *revision,
        }),
        Command::LeaseGrant { id, ttl_s } => Kind::LeaseGrant(pb::LeaseGrant {
            id: id.0,
            ttl_s: *ttl_s,
        }),
        Command::LeaseRevoke { id } => Kind::LeaseRevoke(pb::LeaseRevoke { id: id.0 }),
        Command::LeaseCheckpoint { leases } => {
            let left = |(id, remaining_s): &(LeaseId, i64)| pb::lease_checkpoint::Left {
                id: id.0,
                remaining_s: *remaining_s,
            };
            let leases = leases.iter().map(left).collect();
            Kind::LeaseCheckpoint(pb::LeaseCheckpoint { leases })
        }
        Command::Alarm {
            action,
            member,
            alarm,
        } => Kind::Alarm(pb::Alarm {
            action: action_to(*action).into(),
            member: member.0,
            alarm: alarm_kind_to(*alarm).into(),
        }),
        Command::PublishMember(member) => Kind::PublishMember(member_to(member)),
        Command::Auth(auth) => Kind::Auth(auth_to(auth)),
        Command::ClusterVersionSet { version } => Kind::ClusterVersionSet(version_to(*version)),
        Command::DowngradeInfoSet { target } => Kind::DowngradeInfoSet(pb::DowngradeInfo {
            target: target.map(version_to),
        }),
    };
    pb::Command {
        kind: Some(kind),
        asker: None,
    }
}

const fn version_from(version: &pb::Version) -> Version {
    Version {
        major: version.major,
        minor: version.minor,
    }
}

const fn version_to(version: Version) -> pb::Version {
    pb::Version {
        major: version.major,
        minor: version.minor,
    }
}

fn keys_to(keys: &KeyRange) -> Option<pb::KeyRange> {
    let kind = match keys {
        KeyRange::Single(key) => pb::key_range::Kind::Single(key.clone()),
        KeyRange::From(start) => pb::key_range::Kind::From(start.clone()),
        KeyRange::Range { start, end } => pb::key_range::Kind::Span(pb::Span {
            start: start.clone(),
            end: end.clone(),
        }),
    };
    Some(pb::KeyRange { kind: Some(kind) })
}

fn keys_from(keys: Option<pb::KeyRange>) -> Result<KeyRange, DecodeError> {
    let kind = keys
        .and_then(|keys| keys.kind)
        .ok_or_else(|| bad("no keys"))?;
    Ok(match kind {
        pb::key_range::Kind::Single(key) => KeyRange::Single(key),
        pb::key_range::Kind::From(start) => KeyRange::From(start),
        pb::key_range::Kind::Span(pb::Span { start, end }) => KeyRange::Range { start, end },
    })
}

fn put_to(put: &Put) -> pb::Put {
    let (value, keep_value) = match &put.value {
        PutValue::New(value) => (value.clone(), false),
        PutValue::Keep => (Bytes::new(), true),
    };
    let (lease, keep_lease) = match put.lease {
        PutLease::Detach => (None, false),
        PutLease::Attach(id) => (Some(id.0), false),
        PutLease::Keep => (None, true),
    };
    let (key, prev_kv) = (put.key.clone(), put.prev_kv);
    pb::Put {
        key,
        value,
        keep_value,
        lease,
        keep_lease,
        prev_kv,
    }
}

fn put_from(put: pb::Put) -> Result<Put, DecodeError> {
    let value = match put.keep_value {
        true if put.value.is_empty() => PutValue::Keep,
        true => return Err(bad("a put that keeps its value and has one")),
        false => PutValue::New(put.value),
    };
    let lease = match (put.keep_lease, put.lease) {
        (true, None) => PutLease::Keep,
        (true, Some(_)) => return Err(bad("a put that keeps its lease and has one")),
        (false, Some(id)) => PutLease::Attach(LeaseId(id)),
        (false, None) => PutLease::Detach,
    };
    Ok(Put {
        key: put.key,
        value,
        lease,
        prev_kv: put.prev_kv,
    })
}

fn delete_range_to(delete: &DeleteRange) -> pb::DeleteRange {
    pb::DeleteRange {
        keys: keys_to(&delete.keys),
        prev_kv: delete.prev_kv,
    }
}

fn delete_range_from(delete: pb::DeleteRange) -> Result<DeleteRange, DecodeError> {
    Ok(DeleteRange {
        keys: keys_from(delete.keys)?,
        prev_kv: delete.prev_kv,
    })
}

fn range_to(range: &RangeOp) -> pb::Range {
    pb::Range {
        keys: keys_to(&range.keys),
        at: range.at,
        limit: range.limit.map(|limit| limit as u64),
        sort_target: sort_target_to(range.sort_target).into(),
        sort_order: sort_order_to(range.sort_order).into(),
        keys_only: range.keys_only,
        count_only: range.count_only,
        min_mod_revision: range.min_mod_revision,
        max_mod_revision: range.max_mod_revision,
        min_create_revision: range.min_create_revision,
        max_create_revision: range.max_create_revision,
    }
}

fn range_from(range: pb::Range) -> Result<RangeOp, DecodeError> {
    // A limit beyond this machine's memory is none.
    let limit = range
        .limit
        .map(|limit| usize::try_from(limit).unwrap_or(usize::MAX));
    Ok(RangeOp {
        keys: keys_from(range.keys)?,
        at: range.at,
        limit,
        sort_target: sort_target_from(range.sort_target)?,
        sort_order: sort_order_from(range.sort_order)?,
        keys_only: range.keys_only,
        count_only: range.count_only,
        min_mod_revision: range.min_mod_revision,
        max_mod_revision: range.max_mod_revision,
        min_create_revision: range.min_create_revision,
        max_create_revision: range.max_create_revision,
    })
}

const fn sort_target_to(target: SortTarget) -> pb::range::SortTarget {
    match target {
        SortTarget::Key => pb::range::SortTarget::Key,
        SortTarget::Version => pb::range::SortTarget::Version,
        SortTarget::Create => pb::range::SortTarget::Create,
        SortTarget::Mod => pb::range::SortTarget::Mod,
        SortTarget::Value => pb::range::SortTarget::Value,
    }
}

fn sort_target_from(target: i32) -> Result<SortTarget, DecodeError> {
    match pb::range::SortTarget::try_from(target) {
        Ok(pb::range::SortTarget::Key) => Ok(SortTarget::Key),
        Ok(pb::range::SortTarget::Version) => Ok(SortTarget::Version),
        Ok(pb::range::SortTarget::Create) => Ok(SortTarget::Create),
        Ok(pb::range::SortTarget::Mod) => Ok(SortTarget::Mod),
        Ok(pb::range::SortTarget::Value) => Ok(SortTarget::Value),
        Err(unknown) => Err(bad(unknown.to_string())),
    }
}

const fn sort_order_to(order: SortOrder) -> pb::range::SortOrder {
    match order {
        SortOrder::None => pb::range::SortOrder::None,
        SortOrder::Ascend => pb::range::SortOrder::Ascend,
        SortOrder::Descend => pb::range::SortOrder::Descend,
    }
}

fn sort_order_from(order: i32) -> Result<SortOrder, DecodeError> {
    match pb::range::SortOrder::try_from(order) {
        Ok(pb::range::SortOrder::None) => Ok(SortOrder::None),
        Ok(pb::range::SortOrder::Ascend) => Ok(SortOrder::Ascend),
        Ok(pb::range::SortOrder::Descend) => Ok(SortOrder::Descend),
        Err(unknown) => Err(bad(unknown.to_string())),
    }
}

fn txn_to(txn: &Txn) -> pb::Txn {
    pb::Txn {
        compare: txn.compare.iter().map(compare_to).collect(),
        success: txn.success.iter().map(op_to).collect(),
        failure: txn.failure.iter().map(op_to).collect(),
    }
}

/// The transaction that lies in `depth - 1` others.
fn txn_from(txn: pb::Txn, depth: usize) -> Result<Txn, DecodeError> {
    if depth > TXN_DEPTH_MAX {
        return Err(bad("transactions nest too deep"));
    }
    Ok(Txn {
        compare: txn
            .compare
            .into_iter()
            .map(compare_from)
            .collect::<Result<_, _>>()?,
        success: txn
            .success
            .into_iter()
            .map(|op| op_from(op, depth))
            .collect::<Result<_, _>>()?,
        failure: txn
            .failure
            .into_iter()
            .map(|op| op_from(op, depth))
            .collect::<Result<_, _>>()?,
    })
}

fn op_to(op: &Op) -> pb::Op {
    use pb::op::Kind;
    let kind = match op {
        Op::Range(range) => Kind::Range(range_to(range)),
        Op::Put(put) => Kind::Put(put_to(put)),
        Op::DeleteRange(delete) => Kind::DeleteRange(delete_range_to(delete)),
        Op::Txn(txn) => Kind::Txn(Bytes::from(txn_to(txn).encode_to_vec())),
    };
    pb::Op { kind: Some(kind) }
}

fn op_from(op: pb::Op, depth: usize) -> Result<Op, DecodeError> {
    use pb::op::Kind;
    Ok(
        match op
            .kind
            .ok_or_else(|| bad("an operation of no known kind"))?
        {
            Kind::Range(range) => Op::Range(range_from(range)?),
            Kind::Put(put) => Op::Put(put_from(put)?),
            Kind::DeleteRange(delete) => Op::DeleteRange(delete_range_from(delete)?),
            Kind::Txn(bytes) => {
                let txn = pb::Txn::decode(bytes).map_err(|error| bad(error.to_string()))?;
                Op::Txn(txn_from(txn, depth + 1)?)
            }
        },
    )
}

fn compare_to(compare: &Compare) -> pb::Compare {
    use pb::compare::{Operator, Target};
    let operator = match compare.operator {
        CompareOperator::Equal => Operator::Equal,
        CompareOperator::Greater => Operator::Greater,
        CompareOperator::Less => Operator::Less,
        CompareOperator::NotEqual => Operator::NotEqual,
    };
    let target = match &compare.target {
        CompareTarget::Version(version) => Target::Version(*version),
        CompareTarget::Create(revision) => Target::CreateRevision(*revision),
        CompareTarget::Mod(revision) => Target::ModRevision(*revision),
        CompareTarget::Value(value) => Target::Value(value.clone()),
        CompareTarget::Lease(lease) => Target::Lease(*lease),
    };
    pb::Compare {
        keys: keys_to(&compare.keys),
        operator: operator.into(),
        target: Some(target),
    }
}

fn compare_from(compare: pb::Compare) -> Result<Compare, DecodeError> {
    use pb::compare::{Operator, Target};
    let operator = match Operator::try_from(compare.operator) {
        Ok(Operator::Equal) => CompareOperator::Equal,
        Ok(Operator::Greater) => CompareOperator::Greater,
        Ok(Operator::Less) => CompareOperator::Less,
        Ok(Operator::NotEqual) => CompareOperator::NotEqual,
        Err(unknown) => return Err(bad(unknown.to_string())),
    };
    let target = match compare
        .target
        .ok_or_else(|| bad("a compare of no known target"))?
    {
        Target::Version(version) => CompareTarget::Version(version),
        Target::CreateRevision(revision) => CompareTarget::Create(revision),
        Target::ModRevision(revision) => CompareTarget::Mod(revision),
        Target::Value(value) => CompareTarget::Value(value),
        Target::Lease(lease) => CompareTarget::Lease(lease),
    };
    Ok(Compare {
        keys: keys_from(compare.keys)?,
        operator,
        target,
    })
}

const fn action_to(action: AlarmAction) -> pb::alarm::Action {
    match action {
        AlarmAction::Get => pb::alarm::Action::Get,
        AlarmAction::Activate => pb::alarm::Action::Activate,
        AlarmAction::Deactivate => pb::alarm::Action::Deactivate,
        AlarmAction::Quarantine => pb::alarm::Action::Quarantine,
    }
}

fn action_from(action: i32) -> Result<AlarmAction, DecodeError> {
    match pb::alarm::Action::try_from(action) {
        Ok(pb::alarm::Action::Get) => Ok(AlarmAction::Get),
        Ok(pb::alarm::Action::Activate) => Ok(AlarmAction::Activate),
        Ok(pb::alarm::Action::Deactivate) => Ok(AlarmAction::Deactivate),
        Ok(pb::alarm::Action::Quarantine) => Ok(AlarmAction::Quarantine),
        Err(unknown) => Err(bad(unknown.to_string())),
    }
}

pub(crate) const fn alarm_kind_to(kind: Option<AlarmKind>) -> pb::alarm::Kind {
    match kind {
        None => pb::alarm::Kind::None,
        Some(AlarmKind::NoSpace) => pb::alarm::Kind::NoSpace,
        Some(AlarmKind::Corrupt) => pb::alarm::Kind::Corrupt,
    }
}

pub(crate) fn alarm_kind_from(kind: i32) -> Result<Option<AlarmKind>, DecodeError> {
    match pb::alarm::Kind::try_from(kind) {
        Ok(pb::alarm::Kind::None) => Ok(None),
        Ok(pb::alarm::Kind::NoSpace) => Ok(Some(AlarmKind::NoSpace)),
        Ok(pb::alarm::Kind::Corrupt) => Ok(Some(AlarmKind::Corrupt)),
        Err(unknown) => Err(bad(unknown.to_string())),
    }
}

pub(crate) fn member_to(member: &Member) -> pb::Member {
    pb::Member {
        id: member.id.0,
        name: member.name.clone(),
        peer_urls: member.peer_urls.clone(),
        client_urls: member.client_urls.clone(),
        is_learner: member.is_learner,
    }
}

pub(crate) fn member_from(member: pb::Member) -> Member {
    Member {
        id: MemberId(member.id),
        name: member.name,
        peer_urls: member.peer_urls,
        client_urls: member.client_urls,
        is_learner: member.is_learner,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Request;

    /// A command whose transactions lie in one another, as bytes.
    fn nested(depth: usize) -> Bytes {
        let mut txn = pb::Txn::default();
        for _ in 1..depth {
            let inner = pb::op::Kind::Txn(Bytes::from(txn.encode_to_vec()));
            txn = pb::Txn {
                success: vec![pb::Op { kind: Some(inner) }],
                ..pb::Txn::default()
            };
        }
        let message = pb::Command {
            kind: Some(Kind::Txn(txn)),
            asker: None,
        };
        Bytes::from(message.encode_to_vec())
    }

    #[test]
    fn transactions_that_nest_too_deep_are_refused() {
        assert!(Request::decode(&nested(TXN_DEPTH_MAX)).is_ok());
        for depth in [TXN_DEPTH_MAX + 1, 10_000] {
            let refusal = Request::decode(&nested(depth)).unwrap_err();
            assert_eq!(refusal.reason, "transactions nest too deep");
        }
    }
}
