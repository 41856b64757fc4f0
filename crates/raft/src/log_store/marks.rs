//! The marks of the Raft log: vote, committed, purged and reserved ids (bucket `RaftMeta`).

use bytes::Bytes;

use crate::codec::{DecodeError, Reader, Writer};
use crate::type_config::{LogId, Vote, log_id};

const MARK_VERSION: u8 = 1;

pub(crate) fn encode_vote(vote: &Vote) -> Bytes {
    let mut out = Writer::default();
    out.u8(MARK_VERSION);
    out.u64(vote.leader_id.term);
    out.u64(vote.leader_id.voted_for);
    out.u8(u8::from(vote.committed));
    out.finish()
}

pub(super) fn decode_vote(bytes: &[u8]) -> Result<Vote, DecodeError> {
    let mut input = Reader::new(bytes);
    input.version(MARK_VERSION)?;
    let (term, voted_for, committed) = (input.u64()?, input.u64()?, input.u8()?);
    input.end()?;
    Ok(if committed == 0 {
        Vote::new(term, voted_for)
    } else {
        Vote::new_committed(term, voted_for)
    })
}

pub(super) fn encode_log_id(id: LogId) -> Bytes {
    let mut out = Writer::default();
    out.u8(MARK_VERSION);
    out.u64(id.leader_id.term);
    out.u64(id.index);
    out.finish()
}

pub(super) fn decode_log_id(bytes: &[u8]) -> Result<LogId, DecodeError> {
    let mut input = Reader::new(bytes);
    input.version(MARK_VERSION)?;
    let id = log_id(input.u64()?, input.u64()?);
    input.end()?;
    Ok(id)
}

pub(super) fn encode_ids(upto: u64) -> Bytes {
    let mut out = Writer::default();
    out.u8(MARK_VERSION);
    out.u64(upto);
    out.finish()
}

pub(super) fn decode_ids(bytes: &[u8]) -> Result<u64, DecodeError> {
    let mut input = Reader::new(bytes);
    input.version(MARK_VERSION)?;
    let upto = input.u64()?;
    input.end()?;
    Ok(upto)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn marks_survive_their_bytes(term in any::<u64>(), other in any::<u64>(), committed in any::<bool>()) {
            let vote = if committed { Vote::new_committed(term, other) } else { Vote::new(term, other) };
            prop_assert_eq!(decode_vote(&encode_vote(&vote)).unwrap(), vote);
            let id = log_id(term, other);
            prop_assert_eq!(decode_log_id(&encode_log_id(id)).unwrap(), id);
            prop_assert_eq!(decode_ids(&encode_ids(term)).unwrap(), term);
        }
    }
}
