//! Memberships: their bytes in the log and in the state, and their members as `apply` knows them.

use std::collections::{BTreeMap, BTreeSet};

use apply::Member;
use bytes::Bytes;
use types::MemberId;

use crate::codec::{DecodeError, Reader, Writer};
use crate::type_config::{Membership, PeerNode, StoredMembership, log_id};

/// Bytes of a [`StoredMembership`]: what `apply` keeps beside the applied index.
const STORED_VERSION: u8 = 1;

/// The members of a membership, as clients see them: a voter that is still catching up is a voter.
pub(crate) fn members(membership: &Membership) -> Vec<Member> {
    membership
        .nodes()
        .map(|(id, node)| Member {
            id: MemberId(*id),
            name: node.name.clone(),
            peer_urls: node.peer_urls.clone(),
            client_urls: Vec::new(),
            is_learner: node.is_learner,
        })
        .collect()
}

/// Who has a vote; in a joint membership the voters of either side.
pub(crate) fn voters(membership: &Membership) -> BTreeSet<u64> {
    membership.voter_ids().collect()
}

/// Whether nobody else has a vote.
pub(crate) fn has_only_vote(member: u64, membership: &Membership) -> bool {
    voters(membership).iter().eq([&member])
}

/// Whether this is the only member, and has nobody to send anything to; learners count.
pub(crate) fn is_alone(member: u64, membership: &Membership) -> bool {
    membership.nodes().map(|(id, _)| *id).eq([member])
}

/// How many of so many voters are a quorum.
pub(crate) const fn quorum(voters: usize) -> usize {
    voters / 2 + 1
}

/// Whether these are a quorum; in a joint membership of either side.
pub(crate) fn are_quorum(members: BTreeSet<u64>, membership: &Membership) -> bool {
    let sides = membership.get_joint_config();
    let is_enough =
        |voters: &BTreeSet<u64>| members.intersection(voters).count() >= quorum(voters.len());
    !sides.is_empty() && sides.iter().all(is_enough)
}

pub(crate) fn encode_stored(stored: &StoredMembership) -> Bytes {
    let mut out = Writer::default();
    out.u8(STORED_VERSION);
    out.u8(u8::from(stored.log_id().is_some()));
    if let Some(id) = stored.log_id() {
        out.u64(id.leader_id.term);
        out.u64(id.index);
    }
    encode(stored.membership(), &mut out);
    out.finish()
}

pub(crate) fn decode_stored(bytes: &[u8]) -> Result<StoredMembership, DecodeError> {
    let mut input = Reader::new(bytes);
    input.version(STORED_VERSION)?;
    let id = match input.u8()? {
        0 => None,
        _ => Some(log_id(input.u64()?, input.u64()?)),
    };
    let membership = decode(&mut input)?;
    input.end()?;
    Ok(StoredMembership::new(id, membership))
}

pub(crate) fn encode(membership: &Membership, out: &mut Writer) {
    let configs = membership.get_joint_config();
    out.len(configs.len());
    for config in configs {
        out.len(config.len());
        for id in config {
            out.u64(*id);
        }
    }
    out.len(membership.nodes().count());
    for (id, node) in membership.nodes() {
        out.u64(*id);
        out.bytes(node.name.as_bytes());
        encode_urls(&node.peer_urls, out);
        out.u8(u8::from(node.is_learner));
    }
}

pub(crate) fn decode(input: &mut Reader<'_>) -> Result<Membership, DecodeError> {
    let mut configs = Vec::new();
    for _ in 0..input.len()? {
        let mut config = BTreeSet::new();
        for _ in 0..input.len()? {
            config.insert(input.u64()?);
        }
        configs.push(config);
    }
    let mut nodes = BTreeMap::new();
    for _ in 0..input.len()? {
        let id = input.u64()?;
        let node = PeerNode {
            name: input.string()?,
            peer_urls: decode_urls(input)?,
            is_learner: input.u8()? != 0,
        };
        nodes.insert(id, node);
    }
    Membership::new(configs, nodes).map_err(|source| DecodeError::Membership { source })
}

fn encode_urls(urls: &[String], out: &mut Writer) {
    out.len(urls.len());
    for url in urls {
        out.bytes(url.as_bytes());
    }
}

fn decode_urls(input: &mut Reader<'_>) -> Result<Vec<String>, DecodeError> {
    let mut urls = Vec::new();
    for _ in 0..input.len()? {
        urls.push(input.string()?);
    }
    Ok(urls)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(name: &str) -> PeerNode {
        PeerNode {
            name: name.to_owned(),
            peer_urls: vec![
                format!("http://{name}:2380"),
                "http://[::1]:2380".to_owned(),
            ],
            is_learner: name == "m4",
        }
    }

    #[test]
    fn a_joint_membership_with_a_learner_survives_its_bytes() {
        let nodes: BTreeMap<u64, PeerNode> =
            (1..=4).map(|id| (id, node(&format!("m{id}")))).collect();
        let configs = vec![BTreeSet::from([1, 2]), BTreeSet::from([2, 3])];
        let membership = Membership::new(configs, nodes).unwrap();
        let stored = StoredMembership::new(Some(log_id(7, 9)), membership);
        let bytes = encode_stored(&stored);
        assert_eq!(decode_stored(&bytes).unwrap(), stored);
        assert_eq!(voters(stored.membership()), BTreeSet::from([1, 2, 3]));
    }

    #[test]
    fn a_voter_that_catches_up_is_a_voter_for_clients() {
        let nodes: BTreeMap<u64, PeerNode> =
            (2..=4).map(|id| (id, node(&format!("m{id}")))).collect();
        let membership = Membership::new(vec![BTreeSet::from([2])], nodes).unwrap();
        let learners: Vec<u64> = members(&membership)
            .into_iter()
            .filter(|member| member.is_learner)
            .map(|member| member.id.0)
            .collect();
        assert_eq!(learners, [4]);
    }

    #[test]
    fn cut_or_longer_bytes_are_an_error_and_not_a_panic() {
        let nodes = BTreeMap::from([(1, node("one"))]);
        let membership = Membership::new(vec![BTreeSet::from([1])], nodes).unwrap();
        let bytes = encode_stored(&StoredMembership::new(None, membership));
        for cut in 0..bytes.len() {
            assert!(decode_stored(&bytes[..cut]).is_err(), "cut at {cut}");
        }
        let mut longer = bytes.to_vec();
        longer.push(0);
        assert!(matches!(
            decode_stored(&longer),
            Err(DecodeError::Trailing { bytes: 1 })
        ));
    }

    #[test]
    fn a_quorum_has_more_than_half_of_the_voters_on_each_side() {
        let nodes: BTreeMap<u64, PeerNode> = (1..=5).map(|id| (id, node("any"))).collect();
        let of = |sides: &[&[u64]]| {
            let sides = sides.iter().map(|side| side.iter().copied().collect());
            Membership::new(sides.collect(), nodes.clone()).unwrap()
        };
        let are = |members: &[u64], membership: &Membership| {
            are_quorum(members.iter().copied().collect(), membership)
        };
        let three = of(&[&[1, 2, 3]]);
        assert!(are(&[1, 3], &three) && are(&[1, 2, 3], &three));
        // One of them has no vote, or is the other one.
        assert!(!are(&[1, 4], &three) && !are(&[1, 1], &three));
        assert!(!are(&[1, 2], &of(&[&[1, 2, 3, 4]])));
        let joint = of(&[&[1, 2, 3], &[1, 4, 5]]);
        assert!(!are(&[1, 2], &joint) && !are(&[1, 4], &joint) && are(&[1, 2, 4], &joint));
        assert!(!are(&[1], &of(&[])));
    }
}
