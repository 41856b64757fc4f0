//! Requests to the services that the common generator knows nothing of: locks, elections, members,
//! maintenance, users and roles.

use std::sync::Arc;

use anyhow::{Context as _, Result};
use api::authpb::Permission;
use api::etcdserverpb as pb;
use api::mvccpb::KeyValue;
use api::{v3electionpb as election, v3lockpb as lock};
use rand::Rng as _;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom as _;
use testkit::Server;

use super::super::caller::{Caller, Method, Outcome, Wire};
use super::localise::{Place, prefix_end};
use super::{Connection, Side, Users};

const LOCK: Method = Method("/v3lockpb.Lock/Lock", "/v3/lock/lock");
const UNLOCK: Method = Method("/v3lockpb.Lock/Unlock", "/v3/lock/unlock");
const CAMPAIGN: Method = Method("/v3electionpb.Election/Campaign", "/v3/election/campaign");
const PROCLAIM: Method = Method("/v3electionpb.Election/Proclaim", "/v3/election/proclaim");
const LEADER: Method = Method("/v3electionpb.Election/Leader", "/v3/election/leader");
const OBSERVE: Method = Method("/v3electionpb.Election/Observe", "/v3/election/observe");
const RESIGN: Method = Method("/v3electionpb.Election/Resign", "/v3/election/resign");
const MEMBER_LIST: Method = Method(
    "/etcdserverpb.Cluster/MemberList",
    "/v3/cluster/member/list",
);
const MEMBER_ADD: Method = Method("/etcdserverpb.Cluster/MemberAdd", "/v3/cluster/member/add");
const MEMBER_REMOVE: Method = Method(
    "/etcdserverpb.Cluster/MemberRemove",
    "/v3/cluster/member/remove",
);
const MEMBER_PROMOTE: Method = Method(
    "/etcdserverpb.Cluster/MemberPromote",
    "/v3/cluster/member/promote",
);
const STATUS: Method = Method("/etcdserverpb.Maintenance/Status", "/v3/maintenance/status");
const ALARM: Method = Method("/etcdserverpb.Maintenance/Alarm", "/v3/maintenance/alarm");
const HASH_KV: Method = Method("/etcdserverpb.Maintenance/HashKV", "/v3/maintenance/hashkv");
const MOVE_LEADER: Method = Method(
    "/etcdserverpb.Maintenance/MoveLeader",
    "/v3/maintenance/transfer-leadership",
);
const AUTH_ENABLE: Method = Method("/etcdserverpb.Auth/AuthEnable", "/v3/auth/enable");
const AUTH_STATUS: Method = Method("/etcdserverpb.Auth/AuthStatus", "/v3/auth/status");
const USER_ADD: Method = Method("/etcdserverpb.Auth/UserAdd", "/v3/auth/user/add");
const USER_GET: Method = Method("/etcdserverpb.Auth/UserGet", "/v3/auth/user/get");
const USER_DELETE: Method = Method("/etcdserverpb.Auth/UserDelete", "/v3/auth/user/delete");
const USER_PASSWORD: Method = Method(
    "/etcdserverpb.Auth/UserChangePassword",
    "/v3/auth/user/changepw",
);
const USER_GRANT: Method = Method("/etcdserverpb.Auth/UserGrantRole", "/v3/auth/user/grant");
const USER_REVOKE: Method = Method("/etcdserverpb.Auth/UserRevokeRole", "/v3/auth/user/revoke");
const ROLE_ADD: Method = Method("/etcdserverpb.Auth/RoleAdd", "/v3/auth/role/add");
const ROLE_GET: Method = Method("/etcdserverpb.Auth/RoleGet", "/v3/auth/role/get");
const ROLE_DELETE: Method = Method("/etcdserverpb.Auth/RoleDelete", "/v3/auth/role/delete");
const ROLE_GRANT: Method = Method(
    "/etcdserverpb.Auth/RoleGrantPermission",
    "/v3/auth/role/grant",
);
const ROLE_REVOKE: Method = Method(
    "/etcdserverpb.Auth/RoleRevokePermission",
    "/v3/auth/role/revoke",
);

/// One request.
#[derive(Debug)]
pub(super) enum Service {
    Lock(lock::LockRequest),
    Unlock(lock::UnlockRequest),
    Campaign(election::CampaignRequest),
    /// Of the leader that the last campaign has made.
    Proclaim(Vec<u8>),
    Resign,
    Leader(election::LeaderRequest),
    Observe(election::LeaderRequest),
    MemberList(pb::MemberListRequest),
    MemberAdd(pb::MemberAddRequest),
    MemberRemove(pb::MemberRemoveRequest),
    MemberPromote(pb::MemberPromoteRequest),
    Status,
    Alarm(pb::AlarmRequest),
    HashKv(pb::HashKvRequest),
    MoveLeader(pb::MoveLeaderRequest),
    AuthEnable,
    AuthStatus,
    UserAdd(pb::AuthUserAddRequest),
    UserGet(pb::AuthUserGetRequest),
    UserDelete(pb::AuthUserDeleteRequest),
    UserPassword(pb::AuthUserChangePasswordRequest),
    UserGrant(pb::AuthUserGrantRoleRequest),
    UserRevoke(pb::AuthUserRevokeRoleRequest),
    RoleAdd(pb::AuthRoleAddRequest),
    RoleGet(pb::AuthRoleGetRequest),
    RoleDelete(pb::AuthRoleDeleteRequest),
    RoleGrant(pb::AuthRoleGrantPermissionRequest),
    RoleRevoke(pb::AuthRoleRevokePermissionRequest),
}

/// The user whom a connection's requests are from.
pub(super) fn user(number: u64) -> String {
    format!("user{number}")
}

/// Makes the users of all connections, each with a role that allows it its own keys, and switches
/// authentication on.
pub(super) async fn set_up(server: &Server, connections: u64) -> Result<()> {
    let caller = Caller::connect(server, Wire::Grpc).await?;
    let names = (0..connections).map(user).chain(["root".to_owned()]);
    for (name, number) in names.zip(0..) {
        let add = pb::AuthUserAddRequest {
            name: name.clone(),
            password: "pass".to_owned(),
            ..Default::default()
        };
        done::<_, pb::AuthUserAddResponse>(&caller, USER_ADD, add).await?;
        let role = pb::AuthRoleAddRequest { name: name.clone() };
        done::<_, pb::AuthRoleAddResponse>(&caller, ROLE_ADD, role).await?;
        let place = Place::new(number);
        let own = Permission {
            perm_type: 2,
            key: place.prefix().to_vec(),
            range_end: prefix_end(place.prefix()),
        };
        let grant = pb::AuthRoleGrantPermissionRequest {
            name: name.clone(),
            perm: Some(own),
        };
        done::<_, pb::AuthRoleGrantPermissionResponse>(&caller, ROLE_GRANT, grant).await?;
        let role = pb::AuthUserGrantRoleRequest {
            user: name.clone(),
            role: name,
        };
        done::<_, pb::AuthUserGrantRoleResponse>(&caller, USER_GRANT, role).await?;
    }
    let enable = pb::AuthEnableRequest {};
    done::<_, pb::AuthEnableResponse>(&caller, AUTH_ENABLE, enable).await
}

async fn done<Q, R>(caller: &Caller, method: Method, request: Q) -> Result<()>
where
    Q: prost::Message + Clone + 'static,
    R: prost::Message + Default + 'static,
{
    let answer: Outcome<R> = caller.call(method, &request).await?;
    answer.map_err(anyhow::Error::msg)?;
    Ok(())
}

/// The next one of a connection.
pub(super) fn pick(rng: &mut StdRng, place: &Place, users: Users) -> Service {
    let lease = place.lease(rng.random_range(1..=24));
    let name = |what: &str| place.key(format!("{what}{lease}").as_bytes());
    match rng.random_range(0..if users == Users::None { 29 } else { 20 }) {
        0 | 1 => Service::Lock(lock::LockRequest {
            name: name("lock"),
            lease,
        }),
        2 => Service::Unlock(lock::UnlockRequest {
            key: [name("lock"), format!("/{lease:x}").into_bytes()].concat(),
        }),
        3 | 4 => Service::Campaign(election::CampaignRequest {
            name: name("race"),
            lease,
            value: vec![b'0' + rng.random_range(0..3)],
        }),
        5 => Service::Proclaim(b"proclaimed".to_vec()),
        6 => Service::Resign,
        7 | 8 => Service::Leader(election::LeaderRequest { name: name("race") }),
        9 => Service::Observe(election::LeaderRequest { name: name("race") }),
        10 => Service::MemberList(pb::MemberListRequest {
            linearizable: rng.random(),
        }),
        11 => Service::MemberRemove(pb::MemberRemoveRequest { id: 77 }),
        12 => Service::MemberPromote(pb::MemberPromoteRequest { id: 77 }),
        // Who may not do it at all is not told what would be wrong with it, other than in etcd.
        13 if users == Users::None => Service::MemberAdd(pb::MemberAddRequest {
            peer_ur_ls: vec!["no url".to_owned()],
            is_learner: rng.random(),
        }),
        // Every user may ask this since etcd 3.6.14.
        14 if users == Users::None => Service::Status,
        13..=15 => Service::Alarm(pb::AlarmRequest {
            action: *[0, 2].choose(rng).expect("two"),
            member_id: 0,
            alarm: rng.random_range(0..3),
        }),
        16 => Service::HashKv(pb::HashKvRequest { revision: 1 << 40 }),
        17 => Service::MoveLeader(pb::MoveLeaderRequest { target_id: 77 }),
        // Everybody may ask this since etcd 3.7.
        18 if users == Users::None => Service::AuthStatus,
        18 | 19 => Service::AuthEnable,
        _ => pick_of_auth(rng, place),
    }
}

/// Only without authentication: a change of users or roles makes what others have just asked an old request.
fn pick_of_auth(rng: &mut StdRng, place: &Place) -> Service {
    let mine = |what: &str| String::from_utf8_lossy(&place.key(what.as_bytes())).into_owned();
    let name = mine(["u", "v", "missing"].choose(rng).expect("three"));
    let role = mine(["r", "s", "missing"].choose(rng).expect("three"));
    let key = place.key(b"k");
    match rng.random_range(0..12) {
        0 | 1 => Service::UserAdd(pb::AuthUserAddRequest {
            name,
            password: "p".to_owned(),
            ..Default::default()
        }),
        2 => Service::UserDelete(pb::AuthUserDeleteRequest { name }),
        3 => Service::UserGet(pb::AuthUserGetRequest { name }),
        4 => Service::UserPassword(pb::AuthUserChangePasswordRequest {
            name,
            password: "q".to_owned(),
            ..Default::default()
        }),
        5 => Service::UserGrant(pb::AuthUserGrantRoleRequest { user: name, role }),
        6 => Service::UserRevoke(pb::AuthUserRevokeRoleRequest { name, role }),
        7 | 8 => Service::RoleAdd(pb::AuthRoleAddRequest { name: role }),
        9 => Service::RoleDelete(pb::AuthRoleDeleteRequest { role }),
        10 => Service::RoleGrant(pb::AuthRoleGrantPermissionRequest {
            name: role,
            perm: Some(Permission {
                perm_type: rng.random_range(0..3),
                range_end: prefix_end(&key),
                key,
            }),
        }),
        _ if rng.random() => Service::RoleRevoke(pb::AuthRoleRevokePermissionRequest {
            role,
            range_end: prefix_end(&key),
            key,
        }),
        _ => Service::RoleGet(pb::AuthRoleGetRequest { role }),
    }
}

/// Answers that say nothing but a header.
macro_rules! header_only {
    ($connection:ident, $method:expr, $request:expr, $answer:ident) => {{
        let answered =
            |side: &mut Side, _: &_, answer: &mut pb::$answer| side.header(&mut answer.header);
        $connection
            .both($method, &$request, Side::as_it_is, answered)
            .await
            .map(drop)
    }};
}

impl Connection {
    pub(super) async fn service(&mut self, request: Service) -> Result<()> {
        match request {
            Service::Lock(_)
            | Service::Unlock(_)
            | Service::Campaign(_)
            | Service::Proclaim(_)
            | Service::Resign
            | Service::Leader(_)
            | Service::Observe(_) => self.with_changes(request).await,
            Service::MemberAdd(_) | Service::MemberRemove(_) | Service::MemberPromote(_) => {
                let alone = Arc::clone(&self.member_change).lock_owned().await;
                let compared = self.operator(request).await;
                drop(alone);
                compared
            }
            Service::MemberList(_)
            | Service::Status
            | Service::Alarm(_)
            | Service::HashKv(_)
            | Service::MoveLeader(_) => self.operator(request).await,
            auth => self.auth(auth).await,
        }
    }

    /// What these change, they do not say: what is there before and after does.
    async fn with_changes(&mut self, request: Service) -> Result<()> {
        let before = self.own_keys().await?;
        self.lock_or_election(request).await?;
        let after = self.own_keys().await?;
        for ((side, before), after) in self.sides.iter_mut().zip(before).zip(after) {
            let last = side.changes.last().copied().unwrap_or(0);
            let newest = after.iter().map(|kv| kv.mod_revision).max();
            let is_there = |kv: &KeyValue| after.iter().any(|other| other.key == kv.key);
            if let Some(newest) = newest.filter(|newest| *newest > last) {
                side.changed_at(newest)?;
            } else if !before.iter().all(is_there) {
                // A refusal says no revision: one may come of a lock that is let go of again.
                let revision = match side.answered_at {
                    answered_at if answered_at > last => answered_at,
                    _ => side.change_after(self.place.prefix(), last).await?,
                };
                side.changed_at(revision)?;
            }
        }
        self.learn()
    }

    async fn lock_or_election(&mut self, request: Service) -> Result<()> {
        match request {
            Service::Lock(it) => {
                let answered = |side: &mut Side, _: &_, answer: &mut lock::LockResponse| {
                    side.hidden_header(&mut answer.header)
                };
                self.both(LOCK, &it, Side::as_it_is, answered)
                    .await
                    .map(drop)?;
            }
            Service::Unlock(it) => {
                let answered = |side: &mut Side, _: &_, answer: &mut lock::UnlockResponse| {
                    side.hidden_header(&mut answer.header)
                };
                self.both(UNLOCK, &it, Side::as_it_is, answered)
                    .await
                    .map(drop)?;
            }
            Service::Campaign(it) => self.campaign(it).await?,
            Service::Proclaim(value) => {
                let leader = self.leader.clone();
                let it = election::ProclaimRequest { leader, value };
                let ask = |side: &Side, it: &election::ProclaimRequest| {
                    let mut it = it.clone();
                    side.leader_at(&mut it.leader);
                    it
                };
                let answered = |side: &mut Side, _: &_, answer: &mut election::ProclaimResponse| {
                    side.hidden_header(&mut answer.header)
                };
                self.both(PROCLAIM, &it, ask, answered).await.map(drop)?;
            }
            Service::Resign => {
                let leader = self.leader.clone();
                let it = election::ResignRequest { leader };
                let ask = |side: &Side, it: &election::ResignRequest| {
                    let mut it = it.clone();
                    side.leader_at(&mut it.leader);
                    it
                };
                let answered = |side: &mut Side, _: &_, answer: &mut election::ResignResponse| {
                    side.hidden_header(&mut answer.header)
                };
                self.both(RESIGN, &it, ask, answered).await.map(drop)?;
            }
            Service::Leader(it) => self.leader_of(it).await.map(drop)?,
            Service::Observe(it) => {
                // Who observes an election without a leader waits for one.
                if self.leader_of(it.clone()).await? {
                    self.both(OBSERVE, &it, Side::as_it_is, Side::leader)
                        .await
                        .map(drop)?;
                }
            }
            other => unreachable!("{other:?} is no lock and no election"),
        }
        Ok(())
    }

    async fn campaign(&mut self, request: election::CampaignRequest) -> Result<()> {
        let answered = |side: &mut Side, _: &_, answer: &mut election::CampaignResponse| {
            if let Some(leader) = &mut answer.leader {
                if side.changes.last().is_none_or(|last| leader.rev > *last) {
                    side.changed_at(leader.rev)?;
                }
                leader.rev = side.ordinal_of(leader.rev)?;
            }
            side.hidden_header(&mut answer.header)
        };
        let campaigned = self.both(CAMPAIGN, &request, Side::as_it_is, answered);
        if let Ok(campaigned) = campaigned.await? {
            self.leader = campaigned.leader;
        }
        Ok(())
    }

    /// Whether there is one.
    async fn leader_of(&mut self, request: election::LeaderRequest) -> Result<bool> {
        let leader = self.both(LEADER, &request, Side::as_it_is, Side::leader);
        Ok(leader.await?.is_ok())
    }

    async fn operator(&mut self, request: Service) -> Result<()> {
        match request {
            Service::MemberList(it) => {
                let answered = |side: &mut Side, _: &_, answer: &mut pb::MemberListResponse| {
                    for member in &mut answer.members {
                        member.id = member.id.min(1);
                        member.peer_ur_ls.clear();
                        member.client_ur_ls.clear();
                    }
                    side.header(&mut answer.header)
                };
                let list = self.both(MEMBER_LIST, &it, Side::as_it_is, answered);
                list.await.map(drop)
            }
            Service::MemberAdd(it) => header_only!(self, MEMBER_ADD, it, MemberAddResponse),
            Service::MemberRemove(it) => {
                header_only!(self, MEMBER_REMOVE, it, MemberRemoveResponse)
            }
            Service::MemberPromote(it) => {
                header_only!(self, MEMBER_PROMOTE, it, MemberPromoteResponse)
            }
            Service::Status => {
                let answered = |side: &mut Side, _: &_, answer: &mut pb::StatusResponse| {
                    *answer = pb::StatusResponse {
                        header: answer.header,
                        errors: std::mem::take(&mut answer.errors),
                        is_learner: answer.is_learner,
                        leader: answer.leader.min(1),
                        ..Default::default()
                    };
                    side.header(&mut answer.header)
                };
                let status = self.both(STATUS, &pb::StatusRequest {}, Side::as_it_is, answered);
                status.await.map(drop)
            }
            Service::Alarm(it) => header_only!(self, ALARM, it, AlarmResponse),
            Service::HashKv(it) => header_only!(self, HASH_KV, it, HashKvResponse),
            Service::MoveLeader(it) => header_only!(self, MOVE_LEADER, it, MoveLeaderResponse),
            other => unreachable!("{other:?} is not the operator's"),
        }
    }

    async fn auth(&mut self, request: Service) -> Result<()> {
        match request {
            Service::AuthEnable => {
                let it = pb::AuthEnableRequest {};
                header_only!(self, AUTH_ENABLE, it, AuthEnableResponse)
            }
            Service::AuthStatus => {
                let answered = |side: &mut Side, _: &_, answer: &mut pb::AuthStatusResponse| {
                    // It counts the changes of all connections.
                    answer.auth_revision = 0;
                    side.header(&mut answer.header)
                };
                let it = pb::AuthStatusRequest {};
                let status = self.both(AUTH_STATUS, &it, Side::as_it_is, answered);
                status.await.map(drop)
            }
            Service::UserAdd(it) => header_only!(self, USER_ADD, it, AuthUserAddResponse),
            Service::UserGet(it) => header_only!(self, USER_GET, it, AuthUserGetResponse),
            Service::UserDelete(it) => header_only!(self, USER_DELETE, it, AuthUserDeleteResponse),
            Service::UserPassword(it) => {
                header_only!(self, USER_PASSWORD, it, AuthUserChangePasswordResponse)
            }
            Service::UserGrant(it) => header_only!(self, USER_GRANT, it, AuthUserGrantRoleResponse),
            Service::UserRevoke(it) => {
                header_only!(self, USER_REVOKE, it, AuthUserRevokeRoleResponse)
            }
            Service::RoleAdd(it) => header_only!(self, ROLE_ADD, it, AuthRoleAddResponse),
            Service::RoleGet(it) => header_only!(self, ROLE_GET, it, AuthRoleGetResponse),
            Service::RoleDelete(it) => header_only!(self, ROLE_DELETE, it, AuthRoleDeleteResponse),
            Service::RoleGrant(it) => {
                header_only!(self, ROLE_GRANT, it, AuthRoleGrantPermissionResponse)
            }
            Service::RoleRevoke(it) => {
                header_only!(self, ROLE_REVOKE, it, AuthRoleRevokePermissionResponse)
            }
            other => unreachable!("{other:?} is not about users"),
        }
    }
}

impl Side {
    /// A header that may say that something has changed; what it is, is looked up afterwards.
    fn hidden_header(&mut self, header: &mut Option<pb::ResponseHeader>) -> Result<()> {
        self.answered_at = header.as_ref().context("a response has a header")?.revision;
        *header = None;
        Ok(())
    }

    fn leader_at(&self, leader: &mut Option<election::LeaderKey>) {
        if let Some(leader) = leader {
            leader.rev = self.at(leader.rev);
        }
    }

    fn leader(
        &mut self,
        _: &election::LeaderRequest,
        answer: &mut election::LeaderResponse,
    ) -> Result<()> {
        answer.kv.iter_mut().try_for_each(|kv| self.kv(kv))?;
        self.header(&mut answer.header)
    }
}
