//! Requests of the common generator, moved to the keys and leases of one connection.

use api::etcdserverpb as pb;
use pb::compare::TargetUnion;
use pb::request_op::Request as Op;

use super::super::generate::{Request, TTL_LONG};

/// Leases that a connection uses.
const LEASES: i64 = 24;

/// What belongs to one connection.
#[derive(Debug, Clone)]
pub(super) struct Place {
    number: i64,
    prefix: Vec<u8>,
}

impl Place {
    pub(super) fn new(number: u64) -> Place {
        Place {
            number: i64::try_from(number).expect("there are few connections"),
            prefix: format!("/c{number}/").into_bytes(),
        }
    }

    /// The same leases, but another connection's keys.
    pub(super) fn with_keys_of(&self, number: u64) -> Place {
        Place {
            number: self.number,
            ..Place::new(number)
        }
    }

    /// What all keys begin with.
    pub(super) fn prefix(&self) -> &[u8] {
        &self.prefix
    }

    /// One of the connection's leases.
    pub(super) fn lease(&self, id: i64) -> i64 {
        match id {
            0 => 0,
            id => (self.number + 1) * 1000 + id.rem_euclid(LEASES) + 1,
        }
    }

    pub(super) fn has_lease(&self, id: i64) -> bool {
        id / 1000 == self.number + 1
    }

    /// A key; an empty one stays what it is, an error.
    pub(super) fn key(&self, key: &[u8]) -> Vec<u8> {
        match key {
            [] => Vec::new(),
            key => [&self.prefix, key].concat(),
        }
    }

    fn range(&self, key: &mut Vec<u8>, range_end: &mut Vec<u8>) {
        *key = self.key(key);
        *range_end = match range_end.as_slice() {
            [] => Vec::new(),
            [0] => prefix_end(&self.prefix),
            end => self.key(end),
        };
    }

    pub(super) fn localise(&self, request: &mut Request) {
        match request {
            Request::Range(it) => self.range(&mut it.key, &mut it.range_end),
            Request::Put(it) => self.put(it),
            Request::DeleteRange(it) => self.range(&mut it.key, &mut it.range_end),
            Request::Txn(it) => self.txn(it),
            // 0 is an id like any other. No lease ends by itself here: no answer would tell of that change.
            Request::LeaseGrant(it) => {
                it.id = self.lease(it.id.max(1));
                it.ttl = it.ttl.max(TTL_LONG);
            }
            Request::LeaseRevoke(it) => it.id = self.lease(it.id),
            Request::LeaseTimeToLive(it) => it.id = self.lease(it.id),
            Request::LeaseKeepAlive(id) => *id = self.lease(*id),
            Request::Compact(_)
            | Request::HashKv(_)
            | Request::LeaseLeases
            | Request::LeaseExpiry(_)
            | Request::ServerChosenLease(_)
            | Request::Watch(_) => {}
        }
    }

    fn put(&self, put: &mut pb::PutRequest) {
        put.key = self.key(&put.key);
        put.lease = self.lease(put.lease);
    }

    fn txn(&self, txn: &mut pb::TxnRequest) {
        for compare in &mut txn.compare {
            self.range(&mut compare.key, &mut compare.range_end);
            if let Some(TargetUnion::Lease(id)) = &mut compare.target_union {
                *id = self.lease(*id);
            }
        }
        for op in txn.success.iter_mut().chain(&mut txn.failure) {
            match &mut op.request {
                Some(Op::RequestRange(it)) => self.range(&mut it.key, &mut it.range_end),
                Some(Op::RequestPut(it)) => self.put(it),
                Some(Op::RequestDeleteRange(it)) => self.range(&mut it.key, &mut it.range_end),
                Some(Op::RequestTxn(it)) => self.txn(it),
                None => {}
            }
        }
    }
}

/// The end of the range of all keys with this prefix, whose last byte is not the last there is.
pub(super) fn prefix_end(prefix: &[u8]) -> Vec<u8> {
    let mut end = prefix.to_vec();
    *end.last_mut().expect("no prefix is empty") += 1;
    end
}
