//! Members compare what they have, and one whose data is not what the others have is found, told of, and
//! repaired (`server/etcdserver/corrupt.go`).
//!
//! * `checker`: three checks. The first when the member starts (`InitialCorruptCheck`); one from time to time
//!   (`--corrupt-check-time`); and one of the hashes that compactions leave (`CompactHashCheck`), which costs
//!   a question a minute, because those are there anyway.
//! * `verdict`: who is right, when not all say the same: a majority of all members.
//! * `repairer`: a member that is found to be wrong takes the leader's state (`--corrupt-repair`).
//! * `fence`: until then it answers nobody.
//!
//! ```text
//!  the leader compares ─> not all the same ─┬─ a majority says the same: CORRUPT of each other member, alone
//!                                           │    that one answers nobody, hands over if it leads, takes the
//!                                           │    leader's state, is compared again, and disarms
//!                                           └─ none: CORRUPT of member 0: the cluster takes no writes
//! ```
//! What this is not: the hash, which is `mvcc`'s, or the alarm, which is `apply`'s.
// Differs from etcd: there CORRUPT of any member stops the whole cluster until an operator comes. With
// --corrupt-repair=false it does here.

mod checker;
mod fence;
mod repairer;
mod verdict;

use std::time::Duration;

use apply::{AlarmAction, AlarmKind, Command};
use tokio_util::sync::CancellationToken;
use types::MemberId;

use crate::EtcdServer;

pub(crate) use fence::is_fenced;

/// How members are compared, and what comes of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CorruptConfig {
    /// `--corrupt-check-time`: how often the members' data is compared; zero is never.
    pub check_interval: Duration,
    /// `--compact-hash-check-time`: how often the hashes of compactions are; `None` is never.
    pub compact_hash_interval: Option<Duration>,
    /// `--corrupt-repair`: whether a member that a majority does not agree with takes the leader's state.
    pub repairs: bool,
}

/// Compares and repairs until the member stops. To be run once.
pub async fn run(server: EtcdServer, stopping: CancellationToken) {
    tokio::select! {
        biased;
        () = stopping.cancelled() => {}
        () = checker::check_periodically(&server) => {}
        () = checker::check_compactions(&server) => {}
        () = repairer::run(&server) => {}
    }
}

/// The data is not that of the others: the member must not serve it. etcd's words.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{member} found data inconsistency with peers")]
pub struct Inconsistent {
    /// This member.
    pub member: MemberId,
}

/// Compares this member's data with that of all members that answer, before it serves anybody. Returns when
/// it may; that can take until it has been repaired.
///
/// # Errors
///
/// When some data differs, and it is not this member's alone that can be repaired.
pub async fn check_at_start(server: &EtcdServer) -> Result<(), Inconsistent> {
    checker::check_at_start(server).await
}

/// Who is to have an alarm.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Accused {
    /// A majority of the members agrees, and this one does not.
    Alone(MemberId),
    /// Nobody knows who is right; 0 for all.
    Doubtful(MemberId),
}

/// Raises CORRUPT through the log, unless it stands.
async fn raise(server: &EtcdServer, accused: Accused) {
    let alarms = &server.views().alarms;
    let (action, member) = match accused {
        Accused::Alone(member) if server.config().corrupt.repairs => {
            (AlarmAction::Quarantine, member)
        }
        Accused::Alone(member) | Accused::Doubtful(member) => (AlarmAction::Activate, member),
    };
    let kind = AlarmKind::Corrupt;
    let stands = match action {
        AlarmAction::Quarantine => alarms.is_quarantined(member),
        _ => alarms
            .of_the_cluster()
            .contains(&apply::Alarm { member, kind }),
    };
    if stands {
        return;
    }
    let raise = Command::Alarm {
        action,
        member,
        alarm: Some(kind),
    };
    if let Err(error) = server.propose_unchecked(raise.by_member()).await {
        tracing::warn!(%error, %member, "failed to raise the alarm CORRUPT");
    }
}

/// The member's id and the others'.
fn members(server: &EtcdServer) -> (MemberId, Vec<MemberId>) {
    let me = server.config().member;
    let members = server.views().cluster.members();
    let others = members.into_iter().map(|member| member.id);
    (me, others.filter(|id| *id != me).collect())
}
