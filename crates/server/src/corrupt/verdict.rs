//! Who is right, when members do not say the same.

use std::collections::BTreeMap;

use types::MemberId;

use crate::metrics::Checked;

/// What members have said comes to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// All that were compared have the same.
    Agreed,
    /// A majority of all members has the same; these have something else.
    Corrupt(Vec<MemberId>),
    /// There is no such majority.
    Undecided,
}

impl Checked {
    /// `is_complete`: all members were compared.
    pub(super) const fn of(verdict: &Verdict, is_complete: bool) -> Self {
        match verdict {
            Verdict::Agreed if is_complete => Self::Passed,
            Verdict::Agreed => Self::Skipped,
            Verdict::Corrupt(_) => Self::Corrupt,
            Verdict::Undecided => Self::Undecided,
        }
    }
}

/// Compares hashes of one revision. `members`: how many members there are, whether they have said
/// something or not, learners too.
pub(super) fn judge(hashes: &[(MemberId, u32)], members: usize) -> Verdict {
    let mut by_hash: BTreeMap<u32, Vec<MemberId>> = BTreeMap::new();
    for (member, hash) in hashes {
        by_hash.entry(*hash).or_default().push(*member);
    }
    if by_hash.len() <= 1 {
        return Verdict::Agreed;
    }
    let quorum = members / 2 + 1;
    let most = by_hash.iter().find(|(_, those)| those.len() >= quorum);
    let Some(right) = most.map(|(hash, _)| *hash) else {
        return Verdict::Undecided;
    };
    let mut corrupt: Vec<MemberId> = by_hash
        .into_iter()
        .filter(|(hash, _)| *hash != right)
        .flat_map(|(_, those)| those)
        .collect();
    corrupt.sort_unstable();
    Verdict::Corrupt(corrupt)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judged(hashes: &[u32], members: usize) -> Verdict {
        let ids = (1..).map(MemberId);
        let hashes: Vec<_> = ids.zip(hashes.iter().copied()).collect();
        judge(&hashes, members)
    }

    #[test]
    fn a_majority_of_all_members_is_right_whoever_asks() {
        let corrupt = |ids: &[u64]| Verdict::Corrupt(ids.iter().copied().map(MemberId).collect());
        assert_eq!(judged(&[7, 7, 8], 3), corrupt(&[3]));
        assert_eq!(judged(&[8, 7, 7], 3), corrupt(&[1]));
        assert_eq!(judged(&[7, 8, 7, 9, 7], 5), corrupt(&[2, 4]));
        assert_eq!(judged(&[7, 7, 7, 8], 5), corrupt(&[4]));
    }

    #[test]
    fn without_a_majority_nobody_is_right() {
        assert_eq!(judged(&[7, 8], 2), Verdict::Undecided);
        assert_eq!(judged(&[7, 8, 9], 3), Verdict::Undecided);
        // The others do not answer: they may be on either side.
        assert_eq!(judged(&[7, 8], 3), Verdict::Undecided);
        assert_eq!(judged(&[7, 7, 8], 5), Verdict::Undecided);
        assert_eq!(judged(&[7, 7, 8, 8], 4), Verdict::Undecided);
    }

    #[test]
    fn those_who_cannot_be_compared_are_no_reason_for_an_alarm() {
        assert_eq!(judged(&[7], 3), Verdict::Agreed);
        assert_eq!(judged(&[7, 7], 5), Verdict::Agreed);
        assert_eq!(judged(&[], 3), Verdict::Agreed);
    }
}
