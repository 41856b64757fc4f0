//! Transactions: which branches run, whether all of it can, and then all of it
//! (`server/etcdserver/txn/txn.go`).
//!
//! Three passes, and the order is the rule: every compare of every level looks at the store as it
//! was before the transaction; then everything that can be refused is; only then the first write
//! happens. So a refused transaction leaves no trace, and a running one cannot fail half way.

pub(crate) mod check;
pub(crate) mod compare;
pub(crate) mod range;
pub(crate) mod write;

use mvcc::{RangeError, ReadView};

use crate::{OpReply, Txn, TxnReply};
use compare::Branch;

/// Carries out a transaction that only reads ([`Txn::is_read_only`]) on a view, outside the log.
pub fn execute_read_only_txn(view: &ReadView, txn: &Txn) -> Result<TxnReply, RangeError> {
    debug_assert!(
        txn.is_read_only(),
        "a transaction that writes belongs into the log"
    );
    let branch = Branch::choose(view, txn)?;
    check::ranges(&branch, check::Bounds::of(view))?;
    let mut responses = Vec::with_capacity(branch.ops.len());
    for op in branch.ops {
        if let crate::Op::Range(op) = op {
            let reply = range::execute_range(view, op)?;
            responses.push((view.revision(), OpReply::Range(reply)));
        }
    }
    Ok(TxnReply {
        succeeded: branch.succeeded,
        responses,
    })
}
