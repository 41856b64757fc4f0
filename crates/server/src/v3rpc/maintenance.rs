//! The Maintenance service: what an operator asks of one member.

use api::encoded::etcdserverpb::maintenance_server::Maintenance;
use api::etcdserverpb::alarm_request::AlarmAction as WireAction;
use api::etcdserverpb::{
    AlarmMember, AlarmRequest, AlarmResponse, AlarmType, DefragmentRequest, DefragmentResponse,
    DowngradeInfo, DowngradeRequest, DowngradeResponse, HashKvRequest, HashKvResponse, HashRequest,
    HashResponse, MoveLeaderRequest, MoveLeaderResponse, SnapshotRequest, SnapshotResponse,
    StatusRequest, StatusResponse,
};
use api::rpctypes::ErrorCode;
use api::version::ETCD_VERSION;
use apply::{Access, Alarm, AlarmAction, AlarmKind, AlarmReply, Command, Quota, Reply};
use futures_util::StreamExt;
use mvcc::HashKv;
use raft::MoveLeaderError;
use tonic::codegen::BoxStream;
use tonic::{Request, Response, Status, async_trait};
use types::MemberId;

use super::Credentials;
use crate::serving::Defragmenting;
use crate::{EtcdServer, RequestError};

/// Serves what an operator asks.
pub(crate) struct MaintenanceService {
    server: EtcdServer,
}

impl MaintenanceService {
    /// Serves questions about the member.
    pub(crate) fn new(server: EtcdServer) -> Self {
        Self { server }
    }
}

#[async_trait]
impl Maintenance for MaintenanceService {
    async fn status(
        &self,
        _request: Request<StatusRequest>,
    ) -> Result<Response<StatusResponse>, Status> {
        let mut response = Response::new(self.server.member_status());
        // etcd says nothing of its clock; `kvorum check cluster` compares those of all members by this.
        let date = httpdate::fmt_http_date(self.server.config().clock.wall());
        if let Ok(date) = date.parse() {
            response.metadata_mut().insert("date", date);
        }
        Ok(response)
    }

    async fn alarm(
        &self,
        request: Request<AlarmRequest>,
    ) -> Result<Response<AlarmResponse>, Status> {
        let credentials = Credentials::beside(&request);
        let reply = self.server.execute_alarm(&credentials, request.get_ref());
        let reply = reply.await?;
        let alarms = reply
            .alarms
            .iter()
            .map(|alarm| wire_alarm(*alarm))
            .collect();
        Ok(Response::new(AlarmResponse {
            header: Some(self.server.header()),
            alarms,
        }))
    }

    async fn defragment(
        &self,
        _request: Request<DefragmentRequest>,
    ) -> Result<Response<DefragmentResponse>, Status> {
        let _until_it_is_done = Defragmenting::begin(&self.server);
        // Differs from etcd: reads and writes go on meanwhile.
        tracing::info!("starting defragment");
        let clock = &self.server.config().clock;
        let begun = clock.now();
        if let Err(error) = self.server.persister().defragment().await {
            tracing::warn!(%error, "failed to defragment");
            return Err(Status::unknown(format!("etcdserver: {error}")));
        }
        let took = clock.now().saturating_duration_since(begun);
        self.server.metrics().upkeep().defragmented(took);
        tracing::info!("finished defragment");
        Ok(Response::new(DefragmentResponse { header: None }))
    }

    async fn snapshot(
        &self,
        _request: Request<SnapshotRequest>,
    ) -> Result<Response<BoxStream<SnapshotResponse>>, Status> {
        Ok(Response::new(self.server.snapshot().await?.boxed()))
    }

    async fn move_leader(
        &self,
        request: Request<MoveLeaderRequest>,
    ) -> Result<Response<MoveLeaderResponse>, Status> {
        self.server
            .move_leader(MemberId(request.get_ref().target_id))
            .await?;
        // etcd's has no header.
        Ok(Response::new(MoveLeaderResponse { header: None }))
    }

    async fn downgrade(
        &self,
        request: Request<DowngradeRequest>,
    ) -> Result<Response<DowngradeResponse>, Status> {
        let credentials = Credentials::beside(&request);
        let answer = self.server.downgrade(&credentials, request.get_ref());
        Ok(Response::new(answer.await?))
    }

    async fn hash(&self, _request: Request<HashRequest>) -> Result<Response<HashResponse>, Status> {
        let hash = self.server.hash_kv(None).await?;
        let header = Some(self.server.header_at(hash.current_revision));
        Ok(Response::new(HashResponse {
            header,
            hash: hash.hash,
        }))
    }

    async fn hash_kv(
        &self,
        request: Request<HashKvRequest>,
    ) -> Result<Response<HashKvResponse>, Status> {
        let hash = self
            .server
            .hash_kv(Some(request.get_ref().revision))
            .await?;
        Ok(Response::new(HashKvResponse {
            header: Some(self.server.header_at(hash.current_revision)),
            hash: hash.hash,
            compact_revision: hash.compact_revision,
            hash_revision: hash.hash_revision,
        }))
    }
}

impl EtcdServer {
    fn member_status(&self) -> StatusResponse {
        let status = self.node().status();
        let downgrade = match self.views().versions.get().downgrade {
            Some(target) => DowngradeInfo {
                enabled: true,
                target_version: target.to_string(),
            },
            None => DowngradeInfo::default(),
        };
        let mut errors = Vec::new();
        if status.leader.is_none() {
            errors.push(ErrorCode::NoLeader.text().to_owned());
        }
        errors.extend(self.views().alarms.list().into_iter().map(alarm_text));
        StatusResponse {
            header: Some(self.header()),
            version: ETCD_VERSION.to_owned(),
            db_size: wire_size(self.db_size()),
            leader: status.leader.unwrap_or_default().0,
            raft_index: status.committed_index,
            raft_term: status.term,
            raft_applied_index: status.applied_index,
            errors,
            db_size_in_use: wire_size(self.db_size_in_use()),
            is_learner: self.is_learner(),
            storage_version: self.shown_versions().storage().to_string(),
            db_size_quota: match self.config().quota {
                Quota::Bytes(bytes) => wire_size(bytes),
                Quota::Unlimited => -1,
            },
            downgrade_info: Some(downgrade),
        }
    }

    /// Lets another voter lead, if this member leads.
    async fn move_leader(&self, to: MemberId) -> Result<(), RequestError> {
        if !self.is_leader() {
            return Err(MoveLeaderError::NotLeader.into());
        }
        let target = self.views().cluster.member(to);
        if target.is_none_or(|target| target.is_learner) {
            return Err(MoveLeaderError::BadTransferee.into());
        }
        // Who leads already has nothing to do.
        if to != self.config().member {
            self.node().move_leader(to).await?;
        }
        Ok(())
    }

    /// Lists alarms here; raises and clears them through the log.
    async fn execute_alarm(
        &self,
        credentials: &Credentials,
        request: &AlarmRequest,
    ) -> Result<AlarmReply, RequestError> {
        let alarm = match AlarmType::try_from(request.alarm) {
            Ok(AlarmType::Nospace) => Some(AlarmKind::NoSpace),
            Ok(AlarmType::Corrupt) => Some(AlarmKind::Corrupt),
            Ok(AlarmType::None) | Err(_) => None,
        };
        let action = match WireAction::try_from(request.action) {
            Ok(WireAction::Activate) => AlarmAction::Activate,
            Ok(WireAction::Deactivate) => AlarmAction::Deactivate,
            Ok(WireAction::Get) => AlarmAction::Get,
            // etcd logs such a request and does nothing.
            Err(_) => {
                self.allow(Access::Admin, credentials).await?;
                return Ok(AlarmReply::default());
            }
        };
        let asker = self.asker(credentials).await?;
        let member = MemberId(request.member_id);
        let alarm = Command::Alarm {
            action,
            member,
            alarm,
        };
        match self.propose(alarm.asked_by(asker)).await? {
            Reply::Alarm(reply) => Ok(reply),
            other => unreachable!("an alarm is answered as one, not with {other:?}"),
        }
    }

    /// Hashes the store, off the async threads.
    pub(crate) async fn hash_kv(&self, revision: Option<i64>) -> Result<HashKv, RequestError> {
        let store = self.views().store.clone();
        let begun = self.config().clock.now();
        let hashing = tokio::task::spawn_blocking(move || store.hash_kv(revision));
        let hashed = hashing.await;
        let ended = self.config().clock.now();
        let took = ended.saturating_duration_since(begun);
        self.metrics().hash_took(revision.is_some(), took);
        match hashed {
            Ok(hash) => Ok(hash?),
            // The runtime is going away, and the member with it.
            Err(_) => Err(ErrorCode::Stopped.into()),
        }
    }
}

fn wire_alarm(alarm: Alarm) -> AlarmMember {
    let kind = match alarm.kind {
        AlarmKind::NoSpace => AlarmType::Nospace,
        AlarmKind::Corrupt => AlarmType::Corrupt,
    };
    AlarmMember {
        member_id: alarm.member.0,
        alarm: kind.into(),
    }
}

/// An alarm as Go prints its protobuf.
fn alarm_text(alarm: Alarm) -> String {
    let kind = match alarm.kind {
        AlarmKind::NoSpace => "NOSPACE",
        AlarmKind::Corrupt => "CORRUPT",
    };
    match alarm.member.0 {
        0 => format!("alarm:{kind} "),
        member => format!("memberID:{member} alarm:{kind} "),
    }
}

fn wire_size(bytes: u64) -> i64 {
    i64::try_from(bytes).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn alarms_are_listed_as_go_prints_them() {
        let alarm = Alarm {
            member: MemberId(10_276_657_743_932_975_437),
            kind: AlarmKind::NoSpace,
        };
        assert_eq!(
            alarm_text(alarm),
            "memberID:10276657743932975437 alarm:NOSPACE "
        );
    }
}
