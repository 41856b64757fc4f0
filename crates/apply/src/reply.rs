//! What a command answers. Becomes protobuf only in `server`.

use mvcc::StoredKv;

use crate::Alarm;

/// The answer to a command that was carried out. `revision` is the store's after it: what the
/// response header shows.
#[derive(Clone, Debug)]
pub enum Reply {
    /// To a put.
    Put {
        /// For the header.
        revision: i64,
        /// The answer.
        put: PutReply,
    },
    /// To a delete.
    DeleteRange {
        /// For the header.
        revision: i64,
        /// The answer.
        delete_range: DeleteRangeReply,
    },
    /// To a transaction.
    Txn {
        /// For the header.
        revision: i64,
        /// The answer.
        txn: TxnReply,
    },
    /// To a compaction, a lease's grant or revoke, a publication: nothing but the revision.
    Done {
        /// For the header.
        revision: i64,
    },
    /// To an alarm request.
    Alarm(AlarmReply),
    /// To a user who has shown a password.
    Authenticated {
        /// For the header.
        revision: i64,
        /// The revision of users and roles.
        auth_revision: u64,
        /// The entry, counted from 1: what a simple token ends with.
        index: u64,
    },
}

/// The answer to a put.
#[derive(Clone, Debug, Default)]
pub struct PutReply {
    /// The key-value that was replaced, if asked for.
    pub prev_kv: Option<StoredKv>,
}

/// The answer to a delete.
#[derive(Clone, Debug, Default)]
pub struct DeleteRangeReply {
    /// How many.
    pub deleted: usize,
    /// Those, if asked for.
    pub prev_kvs: Vec<StoredKv>,
}

/// The answer to a range.
#[derive(Clone, Debug, Default)]
pub struct RangeReply {
    /// The key-values, sorted, filtered, cut.
    pub kvs: Vec<StoredKv>,
    /// Whether `kvs` is without values.
    pub keys_only: bool,
    /// Whether the limit cut some off.
    pub more: bool,
    /// How many keys the range holds.
    pub count: usize,
}

/// The answer to a transaction.
#[derive(Clone, Debug, Default)]
pub struct TxnReply {
    /// Which branch ran.
    pub succeeded: bool,
    /// One answer an operation, each with the revision its own header shows.
    pub responses: Vec<(i64, OpReply)>,
}

/// The answer to an operation of a transaction.
#[derive(Clone, Debug)]
pub enum OpReply {
    /// To a range.
    Range(RangeReply),
    /// To a put.
    Put(PutReply),
    /// To a delete.
    DeleteRange(DeleteRangeReply),
    /// To a transaction.
    Txn(TxnReply),
}

/// The answer to an alarm request.
#[derive(Clone, Debug, Default)]
pub struct AlarmReply {
    /// The alarms concerned.
    pub alarms: Vec<Alarm>,
}
