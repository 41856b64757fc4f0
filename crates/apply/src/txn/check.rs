//! What a transaction can be refused for, before anything of it is written.

use mvcc::{RangeError, ReadView, WriteTxn};

use super::compare::Branch;
use crate::{Op, Put, PutLease, PutValue, Rejection};

/// Which revisions can be read.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bounds {
    pub(crate) compact_revision: i64,
    pub(crate) revision: i64,
}

impl Bounds {
    pub(crate) fn of(view: &ReadView) -> Self {
        Self {
            compact_revision: view.compact_revision(),
            revision: view.revision(),
        }
    }
}

/// Refuses what [`ranges`] or [`puts`] would. Puts are looked at first, at every level: that is the
/// order in which etcd 3.5 and 3.6 find what is wrong.
pub(crate) fn all(
    branch: &Branch<'_>,
    txn: &WriteTxn<'_>,
    leases: &lease::Writer,
    bounds: Bounds,
) -> Result<(), Rejection> {
    puts(branch, txn, leases)?;
    ranges(branch, bounds).map_err(|error| match error {
        RangeError::FutureRevision => Rejection::FutureRevision,
        RangeError::Compacted { .. } | RangeError::Store(_) => Rejection::Compacted,
    })
}

fn puts(branch: &Branch<'_>, txn: &WriteTxn<'_>, leases: &lease::Writer) -> Result<(), Rejection> {
    let mut nested = branch.nested.iter();
    for op in branch.ops {
        match op {
            Op::Put(put) => {
                kept_key_exists(put, txn)?;
                lease_exists(put, leases)?;
            }
            Op::Txn(_) => {
                let branch = nested
                    .next()
                    .expect("there is a branch for every nested txn");
                puts(branch, txn, leases)?;
            }
            Op::Range(_) | Op::DeleteRange(_) => {}
        }
    }
    Ok(())
}

/// A put that keeps something needs a key that has it, before the transaction.
pub(crate) fn kept_key_exists(put: &Put, txn: &WriteTxn<'_>) -> Result<(), Rejection> {
    let keeps = put.value == PutValue::Keep || put.lease == PutLease::Keep;
    if keeps && txn.get(&put.key).is_none() {
        return Err(Rejection::KeyNotFound);
    }
    Ok(())
}

/// A lease to attach to has to be there.
pub(crate) fn lease_exists(put: &Put, leases: &lease::Writer) -> Result<(), Rejection> {
    match put.lease {
        PutLease::Attach(id) if !leases.contains(id) => Err(Rejection::LeaseNotFound),
        _ => Ok(()),
    }
}

/// Refuses ranges at revisions that cannot be read.
pub(crate) fn ranges(branch: &Branch<'_>, bounds: Bounds) -> Result<(), RangeError> {
    let mut nested = branch.nested.iter();
    for op in branch.ops {
        match op {
            Op::Range(range) => match range.at {
                None | Some(0) => {}
                Some(at) if at > bounds.revision => return Err(RangeError::FutureRevision),
                Some(at) if at < bounds.compact_revision => {
                    let compact_revision = bounds.compact_revision;
                    return Err(RangeError::Compacted { compact_revision });
                }
                Some(_) => {}
            },
            Op::Txn(_) => {
                let branch = nested
                    .next()
                    .expect("there is a branch for every nested txn");
                ranges(branch, bounds)?;
            }
            Op::Put(_) | Op::DeleteRange(_) => {}
        }
    }
    Ok(())
}
