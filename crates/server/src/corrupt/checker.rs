//! The three checks.
//!
//! Revisions are matched like this: whoever checks takes a hash at its own revision, and the others make theirs at
//! the same one, for which they wait a little. Hashes are compared only if both were made with the same history gone: a
//! member that is behind, does not answer, or has compacted meanwhile is left out, and is no reason for an alarm.

use std::time::Duration;

use futures_util::future::join_all;
use mvcc::{CompactionHash, HashKv};
use raft::{HashWanted, PeerHash, PeerHashError};
use types::MemberId;

use super::verdict::{Verdict, judge};
use super::{Accused, Inconsistent, members, raise};
use crate::metrics::{Check, Checked};
use crate::{EtcdServer, RequestError};

/// How long a member may take for its hash: it may have to read all it has.
// Differs from etcd: there it is the timeout of requests, in which a large store is not read.
const HASH_TIMEOUT: Duration = Duration::from_secs(60);

/// What a peer has said.
struct Answer {
    peer: MemberId,
    hash: Result<PeerHash, PeerHashError>,
}

/// Asks all peers at the same time.
async fn ask_peers(server: &EtcdServer, revision: i64, wanted: HashWanted) -> Vec<Answer> {
    let (me, others) = members(server);
    let ask = |peer| async move {
        let asked = server
            .node()
            .hash_of_peer(peer, revision, wanted, HASH_TIMEOUT);
        let hash = asked.await;
        if let Err(error) = &hash {
            tracing::warn!(
                "local-member-id" = %me,
                "requested-revision" = revision,
                "remote-peer-id" = %peer,
                %error,
                "failed hash kv request"
            );
        }
        Answer { peer, hash }
    };
    join_all(others.into_iter().map(ask)).await
}

/// Those that can be compared with our own hash, and our own.
fn comparable(
    me: MemberId,
    own: (u32, i64),
    answers: &[Answer],
) -> impl Iterator<Item = (MemberId, u32)> {
    let (hash, compact_revision) = own;
    let others = answers.iter().filter_map(move |answer| {
        let answered = answer.hash.as_ref().ok()?;
        (answered.compact_revision == compact_revision).then_some((answer.peer, answered.hash))
    });
    std::iter::once((me, hash)).chain(others)
}

/// See [`super::check_at_start`].
pub(super) async fn check_at_start(server: &EtcdServer) -> Result<(), Inconsistent> {
    let (me, others) = members(server);
    tracing::info!(
        "local-member-id" = %me,
        timeout = ?HASH_TIMEOUT,
        "starting initial corruption check"
    );
    let own = match server.hash_kv(None).await {
        Ok(own) => own,
        Err(error) => {
            tracing::error!("local-member-id" = %me, %error, "failed to fetch hash");
            return Err(Inconsistent { member: me });
        }
    };
    let answers = ask_peers(server, own.hash_revision, HashWanted::Now).await;
    for answer in &answers {
        log_at_start(me, &own, answer);
    }
    let hashes: Vec<_> = comparable(me, (own.hash, own.compact_revision), &answers).collect();
    let verdict = judge(&hashes, others.len() + 1);
    let checked = Checked::of(&verdict, hashes.len() == others.len() + 1);
    server.metrics().corruption_checked(Check::Initial, checked);
    match verdict {
        Verdict::Agreed => {}
        Verdict::Corrupt(corrupt) if server.config().corrupt.repairs => {
            for member in corrupt {
                raise(server, Accused::Alone(member)).await;
            }
            server.wait_repaired().await;
        }
        Verdict::Corrupt(_) | Verdict::Undecided => return Err(Inconsistent { member: me }),
    }
    tracing::info!(
        "local-member-id" = %me,
        "initial corruption checking passed; no corruption"
    );
    Ok(())
}

fn log_at_start(me: MemberId, own: &HashKv, answer: &Answer) {
    let peer = answer.peer;
    let text = match &answer.hash {
        Ok(hash) if hash.hash == own.hash => return,
        Ok(hash) if hash.compact_revision == own.compact_revision => {
            "found different hash values from remote peer"
        }
        Ok(_) => "found different compact revision values from remote peer",
        Err(PeerHashError::FutureRevision) => "cannot fetch hash from slow remote peer",
        Err(PeerHashError::Compacted) => {
            "cannot fetch hash from remote peer; local member is behind"
        }
        Err(PeerHashError::Busy | PeerHashError::NoAnswer { .. }) => return,
    };
    let remote = answer.hash.as_ref().ok();
    tracing::warn!(
        "local-member-id" = %me,
        "local-member-revision" = own.hash_revision,
        "local-member-compact-revision" = own.compact_revision,
        "local-member-hash" = own.hash,
        "remote-peer-id" = %peer,
        "remote-peer-revision" = remote.map(|remote| remote.revision),
        "remote-peer-compact-revision" = remote.map(|remote| remote.compact_revision),
        "remote-peer-hash" = remote.map(|remote| remote.hash),
        "{text}"
    );
}

/// Compares the members' data from time to time while this one leads. Goes on for ever.
pub(super) async fn check_periodically(server: &EtcdServer) {
    let interval = server.config().corrupt.check_interval;
    if interval.is_zero() {
        return std::future::pending().await;
    }
    tracing::info!(
        "local-member-id" = %server.config().member,
        ?interval,
        "enabled corruption checking"
    );
    loop {
        tokio::time::sleep(interval).await;
        if !server.is_leader() {
            continue;
        }
        if let Err(error) = check_now(server).await {
            tracing::warn!(%error, "failed to check hash KV");
        }
    }
}

async fn check_now(server: &EtcdServer) -> Result<(), RequestError> {
    let (me, others) = members(server);
    let own = server.hash_kv(None).await?;
    let answers = ask_peers(server, own.hash_revision, HashWanted::Now).await;
    // What this member has from here on is not less than what any of them had when they answered.
    server.read_index().await?;
    let again = server.hash_kv(None).await?;
    let accused = judge_now(me, &own, &again, &answers);
    let checked = answers.iter().filter(|answer| answer.hash.is_ok()).count();
    let outcome = match accused.first() {
        Some(Accused::Alone(_)) => Checked::Corrupt,
        Some(Accused::Doubtful(_)) => Checked::Undecided,
        None if checked == others.len() => Checked::Passed,
        None => Checked::Skipped,
    };
    server
        .metrics()
        .corruption_checked(Check::Periodic, outcome);
    for accused in accused {
        raise(server, accused).await;
    }
    tracing::info!(
        "number-of-peers-checked" = checked,
        "finished peer corruption check"
    );
    Ok(())
}

/// What the leader makes of two hashes of its own and of its peers' in between.
// Differs from etcd: it takes whoever differs from the leader for corrupt, also when all others agree with that one.
fn judge_now(me: MemberId, own: &HashKv, again: &HashKv, answers: &[Answer]) -> Vec<Accused> {
    if again.hash != own.hash
        && again.hash_revision == own.hash_revision
        && again.compact_revision == own.compact_revision
    {
        tracing::warn!(
            revision = own.hash_revision,
            "compact-revision" = own.compact_revision,
            "hash-1" = own.hash,
            "hash-2" = again.hash,
            "found hash mismatch"
        );
        return vec![Accused::Doubtful(me)];
    }
    let mut ahead = Vec::new();
    for answer in answers {
        let Ok(hash) = &answer.hash else { continue };
        if hash.revision > again.current_revision || hash.compact_revision > again.compact_revision
        {
            tracing::warn!(
                "leader-revision" = again.current_revision,
                "leader-compact-revision" = again.compact_revision,
                "follower-revision" = hash.revision,
                "follower-compact-revision" = hash.compact_revision,
                "follower-peer-id" = %answer.peer,
                "revision from follower must be less than or equal to leader's"
            );
            ahead.push(Accused::Doubtful(answer.peer));
        }
    }
    if !ahead.is_empty() {
        return ahead;
    }
    let hashes: Vec<_> = comparable(me, (own.hash, own.compact_revision), answers).collect();
    let verdict = judge(&hashes, answers.len() + 1);
    if verdict != Verdict::Agreed {
        log_mismatch(
            me,
            own.hash_revision,
            own.compact_revision,
            &hashes,
            &verdict,
        );
    }
    accuse(verdict)
}

fn accuse(verdict: Verdict) -> Vec<Accused> {
    match verdict {
        Verdict::Agreed => Vec::new(),
        Verdict::Corrupt(corrupt) => corrupt.into_iter().map(Accused::Alone).collect(),
        Verdict::Undecided => vec![Accused::Doubtful(MemberId(0))],
    }
}

fn log_mismatch(
    me: MemberId,
    revision: i64,
    compact_revision: i64,
    hashes: &[(MemberId, u32)],
    verdict: &Verdict,
) {
    let hashes: Vec<String> = hashes
        .iter()
        .map(|(member, hash)| format!("{member}:{hash:08x}"))
        .collect();
    let hashes = hashes.join(" ");
    match verdict {
        Verdict::Undecided => tracing::error!(
            "leader-id" = %me,
            "leader-revision" = revision,
            "leader-compact-revision" = compact_revision,
            hashes,
            "Detected compaction hash mismatch but cannot identify the corrupted members, so \
             intentionally set the memberID as 0"
        ),
        Verdict::Agreed | Verdict::Corrupt(_) => {
            let corrupt: Vec<String> = match verdict {
                Verdict::Corrupt(corrupt) => corrupt.iter().map(MemberId::to_string).collect(),
                _ => Vec::new(),
            };
            tracing::error!(
                "leader-id" = %me,
                "leader-revision" = revision,
                "leader-compact-revision" = compact_revision,
                hashes,
                "peer-ids" = corrupt.join(" "),
                "quorum-exist" = true,
                "Detected compaction hash mismatch"
            );
        }
    }
}

/// Compares the hashes that compactions have left while this member leads. Goes on for ever.
pub(super) async fn check_compactions(server: &EtcdServer) {
    let Some(interval) = server.config().corrupt.compact_hash_interval else {
        return std::future::pending().await;
    };
    // The newest revision at which all members were compared.
    let mut checked = 0;
    loop {
        tokio::time::sleep(interval).await;
        if server.is_leader() {
            check_last_compactions(server, &mut checked).await;
        }
    }
}

async fn check_last_compactions(server: &EtcdServer, checked: &mut i64) {
    let (me, others) = members(server);
    let hashes = server.views().store.compaction_hashes();
    let mut unchecked: Vec<CompactionHash> = hashes
        .into_iter()
        .filter(|hash| hash.revision > *checked)
        .collect();
    if others.is_empty() || unchecked.is_empty() {
        return;
    }
    tracing::info!(
        "local-member-id" = %me,
        timeout = ?HASH_TIMEOUT,
        "starting compact hash check"
    );
    unchecked.sort_unstable_by_key(|hash| std::cmp::Reverse(hash.revision));
    let mut looked_at = 0;
    for hash in unchecked {
        looked_at += 1;
        if is_checked(server, hash, checked).await {
            break;
        }
    }
    tracing::info!(
        "number-of-hashes-checked" = looked_at,
        "finished compaction hash check"
    );
}

/// Says whether older ones need not be looked at.
async fn is_checked(server: &EtcdServer, own: CompactionHash, checked: &mut i64) -> bool {
    let me = server.config().member;
    let answers = ask_peers(server, own.revision, HashWanted::OfCompaction).await;
    let hashes: Vec<_> = comparable(me, (own.hash, own.compact_revision), &answers).collect();
    let verdict = judge(&hashes, answers.len() + 1);
    let peers = answers.len();
    let is_complete = hashes.len() == peers + 1;
    let outcome = Checked::of(&verdict, is_complete);
    server
        .metrics()
        .corruption_checked(Check::CompactHash, outcome);
    if verdict != Verdict::Agreed {
        log_mismatch(me, own.revision, own.compact_revision, &hashes, &verdict);
        for accused in accuse(verdict) {
            raise(server, accused).await;
        }
        return true;
    }
    let peers_checked = hashes.len() - 1;
    if is_complete {
        tracing::info!(
            "number-of-peers-checked" = peers_checked,
            revision = own.revision,
            "compactRevision" = own.compact_revision,
            "successfully checked hash on whole cluster"
        );
        *checked = own.revision.max(*checked);
    } else {
        tracing::warn!(
            "number-of-peers-checked" = peers_checked,
            "number-of-peers" = peers,
            revision = own.revision,
            "compactRevision" = own.compact_revision,
            "skipped revision in compaction hash check; was not able to check all peers"
        );
    }
    is_complete
}
