//! The NOSPACE alarm of this member: raised in its name when its quota leaves no room for a write
//! (`server/etcdserver/api/v3rpc/quota.go`).
//!
//! What this is not: the refusal of writes that are in the log; the alarm is that, once it is in the
//! log itself, on all members alike.

use std::time::Duration;

use apply::{Alarm, AlarmAction, AlarmKind, Command, Quota, Rejection};

use crate::{EtcdServer, RequestError};

/// How often the member looks whether something was applied that does not fit its quota. Other
/// members propose such a thing when their quotas are larger, or when much was on its way at once.
const LOOK_INTERVAL: Duration = Duration::from_millis(500);

/// How often, at most, the store is written anew because its quota is used up by what is not in use.
const DEFRAGMENT_INTERVAL_MIN: Duration = Duration::from_secs(30);

/// Raises the alarm. One request at a time does, however many find that there is no room.
#[derive(Debug, Default)]
pub(crate) struct SpaceAlarm {
    raising: tokio::sync::Mutex<()>,
}

/// Why there is no space for a command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NoSpace {
    /// It does not fit the quota.
    Full,
    /// The alarm stands.
    Alarm,
}

impl SpaceAlarm {
    /// Whether there is space for a command. Applying would refuse what there is none for as well; asking here keeps
    /// a full member's log from filling up with what it refuses.
    pub(crate) fn check(&self, server: &EtcdServer, command: &Command) -> Result<(), NoSpace> {
        if !server.views().room.is_for(command) {
            return Err(NoSpace::Full);
        }
        let alarms = server.views().alarms.list();
        let stands = |kind| alarms.iter().any(|alarm| alarm.kind == kind);
        // Where both stand, applying refuses for the graver one.
        if stands(AlarmKind::NoSpace) && !stands(AlarmKind::Corrupt) {
            return Err(NoSpace::Alarm);
        }
        Ok(())
    }

    /// Refuses a command for which there is no space, after the alarm was raised.
    pub(crate) async fn refuse(&self, server: &EtcdServer, why: NoSpace) -> RequestError {
        if why == NoSpace::Full
            && let Err(error) = self.raise(server).await
        {
            // As in etcd the client hears of its own request only.
            tracing::warn!(%error, "failed to raise the alarm NOSPACE");
        }
        Rejection::NoSpace.into()
    }

    /// Raises the alarm over what was applied and does not fit, and sees to it that space comes back.
    /// Goes on for ever.
    pub(crate) async fn watch(&self, server: &EtcdServer) {
        let mut is_due = false;
        let mut defragmented: Option<tokio::time::Instant> = None;
        loop {
            tokio::time::sleep(LOOK_INTERVAL).await;
            is_due |= server.views().room.take_exceeded();
            if is_due {
                is_due = self.raise(server).await.is_err();
            }
            let room = &server.views().room;
            let is_recent = defragmented.is_some_and(|at| at.elapsed() < DEFRAGMENT_INTERVAL_MIN);
            if room.is_worth_defragmenting() && !is_recent {
                defragmented = Some(tokio::time::Instant::now());
                server.persister().want_defragmented();
            }
            if server.config().disarms_nospace && room.is_back() {
                disarm(server).await;
            }
        }
    }

    /// Raises the alarm in this member's name, if it does not stand.
    async fn raise(&self, server: &EtcdServer) -> Result<(), RequestError> {
        let _one_at_a_time = self.raising.lock().await;
        let alarm = own_alarm(server);
        if server.views().alarms.list().contains(&alarm) {
            return Ok(());
        }
        let quota = match server.config().quota {
            Quota::Bytes(bytes) => Some(bytes),
            Quota::Unlimited => None,
        };
        tracing::warn!(
            "quota-size-bytes" = quota,
            "message exceeded backend quota; raising alarm"
        );
        let raise = Command::Alarm {
            action: AlarmAction::Activate,
            member: alarm.member,
            alarm: Some(alarm.kind),
        };
        server
            .propose_unchecked(raise.by_member())
            .await
            .map(|_raised| ())
    }
}

/// Clears this member's alarm, if it stands.
async fn disarm(server: &EtcdServer) {
    let alarm = own_alarm(server);
    if !server.views().alarms.list().contains(&alarm) {
        return;
    }
    tracing::info!("there is space again; disarming NOSPACE");
    let disarm = Command::Alarm {
        action: AlarmAction::Deactivate,
        member: alarm.member,
        alarm: Some(alarm.kind),
    };
    if let Err(error) = server.propose_unchecked(disarm.by_member()).await {
        tracing::warn!(%error, "failed to disarm NOSPACE");
    }
}

fn own_alarm(server: &EtcdServer) -> Alarm {
    Alarm {
        member: server.config().member,
        kind: AlarmKind::NoSpace,
    }
}
