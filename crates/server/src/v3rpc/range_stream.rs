//! `RangeStream` of etcd 3.7: a range in chunks, so that a list of any size costs the member a few MiB.
//!
//! The first chunk has ten keys. The number is doubled while chunks are smaller than half of
//! `--max-request-bytes` and halved when they are larger than twice that. All chunks show the store at
//! one revision; each takes a view of its own, so that a client that reads slowly keeps nothing alive, and is told
//! when that revision has been compacted. The last chunk has the header, the count, and whether there are more.
//!
//! Differs from etcd: a chunk ends also when it is twice as large as aimed at, so that small keys before
//! large ones do not make one that is as large as they come.

use api::encoded::etcdserverpb::{RangeRequest, RangeResponse, RangeStreamResponse};
use api::encoded::mvccpb::KeyValue;
use apply::{Access, Guard, RangeOp, SortOrder, SortTarget};
use bytes::{BufMut, BytesMut};
use futures_util::stream;
use mvcc::StoredKv;
use tonic::Status;
use tonic::codegen::BoxStream;
use types::KeyRange;

use super::Credentials;
use super::validate::{self, Consistency};
use crate::{EtcdServer, RequestError};

/// Keys in the first chunk.
const FIRST_CHUNK_KEYS: usize = 10;

/// What a client wants to have streamed.
pub(crate) struct Wanted {
    range: RangeOp,
    consistency: Consistency,
}

/// A range of which some has been sent.
struct RangeStream {
    server: EtcdServer,
    /// Asked before each chunk is sent.
    guard: Guard,
    /// What is left of it.
    rest: KeyRange,
    /// The revision that is shown.
    at: i64,
    /// The store's revision when it began.
    header_revision: i64,
    keys_only: bool,
    /// Keys that may still be sent.
    left: usize,
    /// Keys of the next chunk.
    chunk_keys: usize,
    sent: usize,
    is_done: bool,
}

/// The keys of one chunk.
struct Chunk {
    kvs: Vec<StoredKv>,
    more: bool,
    /// Keys behind the chunk, if it is the last one.
    behind: usize,
}

/// Checks a request.
pub(crate) fn check(request: RangeRequest) -> Result<Wanted, Status> {
    let (range, consistency) = validate::range(request)?;
    let is_in_key_order = match range.sort_order {
        SortOrder::None => true,
        SortOrder::Ascend => range.sort_target == SortTarget::Key,
        SortOrder::Descend => false,
    };
    if !is_in_key_order {
        return Err(Status::unimplemented(
            "RangeStream does not support custom sort orders",
        ));
    }
    let filters = [
        range.min_mod_revision,
        range.max_mod_revision,
        range.min_create_revision,
        range.max_create_revision,
    ];
    if filters.iter().any(Option::is_some) {
        return Err(Status::unimplemented(
            "RangeStream does not support revision filters",
        ));
    }
    Ok(Wanted { range, consistency })
}

impl EtcdServer {
    /// Streams a range.
    pub(crate) async fn range_stream(
        &self,
        credentials: &Credentials,
        wanted: Wanted,
    ) -> Result<BoxStream<RangeStreamResponse>, RequestError> {
        let Wanted { range, consistency } = wanted;
        if range.count_only {
            let (revision, counted) = self.read_range(credentials, range, consistency).await?;
            let count = RangeResponse {
                header: Some(self.header_at(revision)),
                count: wire_count(counted.count),
                ..RangeResponse::default()
            };
            return Ok(Box::pin(stream::iter([Ok(chunk_of(count))])));
        }
        let access = Access::Keys(&range.keys);
        let (guard, view) = self.read_view(access, credentials, consistency).await?;
        let header_revision = view.revision();
        let left = range.limit.unwrap_or(usize::MAX);
        let stream = RangeStream {
            server: self.clone(),
            guard,
            rest: range.keys,
            at: range.at.filter(|&at| at > 0).unwrap_or(header_revision),
            header_revision,
            keys_only: range.keys_only,
            left,
            chunk_keys: FIRST_CHUNK_KEYS,
            sent: 0,
            is_done: false,
        };
        self.metrics().ranges(1);
        Ok(Box::pin(stream::try_unfold(stream, |mut stream| async {
            Ok(stream.next().await?.map(|chunk| (chunk, stream)))
        })))
    }
}

impl RangeStream {
    async fn next(&mut self) -> Result<Option<RangeStreamResponse>, RequestError> {
        if self.is_done {
            return Ok(None);
        }
        let chunk = self.read().await?;
        self.guard.check_again()?;
        self.sent += chunk.kvs.len();
        self.left -= chunk.kvs.len();
        self.is_done = !chunk.more || self.left == 0;
        if let Some(last) = chunk.kvs.last() {
            self.rest = behind(&self.rest, last.key());
        }
        let kvs: Vec<KeyValue> = chunk.kvs.into_iter().map(|kv| self.message(kv)).collect();
        let bytes: usize = kvs.iter().map(|kv| kv.encoded().len()).sum();
        self.chunk_keys = next_chunk_keys(self.chunk_keys, bytes, self.bytes_aim());
        let mut response = RangeResponse {
            kvs,
            ..RangeResponse::default()
        };
        if self.is_done {
            response.header = Some(self.server.header_at(self.header_revision));
            response.more = chunk.more;
            response.count = wire_count(self.sent + chunk.behind);
        }
        Ok(Some(chunk_of(response)))
    }

    /// Reads the next chunk, where it holds up nobody.
    async fn read(&self) -> Result<Chunk, RequestError> {
        let view = self.server.views().store.view();
        let (rest, at) = (self.rest.clone(), self.at);
        let page = mvcc::PageSize {
            keys: self.chunk_keys.min(self.left),
            bytes: self.bytes_aim().saturating_mul(2),
        };
        let left = self.left;
        let read = move || {
            let (kvs, more) = view.page(&rest, at, page)?;
            let mut behind_count = 0;
            if let Some(last) = kvs.last().filter(|_| more && kvs.len() == left) {
                let count = mvcc::Range {
                    keys: behind(&rest, last.key()),
                    at: Some(at),
                    limit: None,
                    count_only: true,
                };
                behind_count = view.range(&count)?.count;
            }
            Ok(Chunk {
                kvs,
                more,
                behind: behind_count,
            })
        };
        self.server.read_aside(read).await?
    }

    fn bytes_aim(&self) -> usize {
        self.server.config().request_bytes_max
    }

    fn message(&self, kv: StoredKv) -> KeyValue {
        if self.keys_only {
            kv.to_message_without_value()
        } else {
            kv.into()
        }
    }
}

/// The keys of a range that come after this one.
fn behind(range: &KeyRange, last: &[u8]) -> KeyRange {
    let mut next = BytesMut::with_capacity(last.len() + 1);
    next.put_slice(last);
    next.put_u8(0);
    let start = next.freeze();
    match range {
        KeyRange::Single(_) => KeyRange::Range {
            end: start.clone(),
            start,
        },
        KeyRange::From(_) => KeyRange::From(start),
        KeyRange::Range { end, .. } => KeyRange::Range {
            start,
            end: end.clone(),
        },
    }
}

/// How many keys the next chunk should have.
fn next_chunk_keys(keys: usize, bytes: usize, bytes_aim: usize) -> usize {
    if bytes < bytes_aim / 2 {
        keys.saturating_mul(2)
    } else if bytes > bytes_aim.saturating_mul(2) {
        (keys / 2).max(1)
    } else {
        keys
    }
}

fn chunk_of(response: RangeResponse) -> RangeStreamResponse {
    RangeStreamResponse {
        range_response: Some(response),
    }
}

fn wire_count(count: usize) -> i64 {
    i64::try_from(count).expect("a store holds fewer keys than fit into an i64")
}

#[cfg(test)]
mod tests {
    use api::encoded::etcdserverpb::range_request;
    use tonic::Code;

    use super::*;

    #[test]
    fn what_cannot_be_streamed_is_refused_in_etcds_words() {
        let all = RangeRequest {
            key: "a".into(),
            ..RangeRequest::default()
        };
        assert!(check(all.clone()).is_ok());
        let descending = RangeRequest {
            sort_order: range_request::SortOrder::Descend.into(),
            ..all.clone()
        };
        let by_version = RangeRequest {
            sort_order: range_request::SortOrder::Ascend.into(),
            sort_target: range_request::SortTarget::Version.into(),
            ..all.clone()
        };
        let filtered = RangeRequest {
            min_create_revision: 1,
            ..all.clone()
        };
        let (orders, filters) = (
            "RangeStream does not support custom sort orders",
            "RangeStream does not support revision filters",
        );
        for (request, text) in [
            (descending, orders),
            (by_version, orders),
            (filtered, filters),
        ] {
            let refused = check(request).err().expect("refused");
            assert_eq!(
                (refused.code(), refused.message()),
                (Code::Unimplemented, text)
            );
        }
        let empty = check(RangeRequest::default()).err().expect("refused");
        assert_eq!(empty.message(), "etcdserver: key is not provided");
    }

    #[test]
    fn chunks_come_near_to_their_aim() {
        assert_eq!(next_chunk_keys(10, 49, 100), 20);
        assert_eq!(next_chunk_keys(10, 50, 100), 10);
        assert_eq!(next_chunk_keys(10, 200, 100), 10);
        assert_eq!(next_chunk_keys(10, 201, 100), 5);
        assert_eq!(next_chunk_keys(1, 201, 100), 1);
    }
}
