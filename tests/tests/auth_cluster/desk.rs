//! One member, asked with one token or another.

use anyhow::Result;
use api::authpb::Permission;
use api::etcdserverpb as pb;
use api::etcdserverpb::auth_client::AuthClient;
use kvorum_tests::surface::shown;
use testkit::Client;
use tonic::Request;
use tonic::transport::Channel;

/// A member.
pub(super) struct Desk {
    client: Client,
    auth: AuthClient<Channel>,
}

/// A request with a token; without one if it is empty.
pub(super) fn by<M>(token: &str, message: M) -> Request<M> {
    let mut request = Request::new(message);
    if !token.is_empty() {
        let token = token.parse().expect("a token is ASCII");
        request.metadata_mut().insert("token", token);
    }
    request
}

fn done<T>(answer: Result<T, tonic::Status>) -> String {
    answer.map_or_else(|status| shown(&status), |_answer| "OK".to_owned())
}

impl Desk {
    pub(super) fn new(channel: Channel) -> Desk {
        Desk {
            client: Client::over(&channel),
            auth: AuthClient::new(channel),
        }
    }

    pub(super) async fn connect(url: String) -> Result<Desk> {
        Ok(Desk::new(Channel::from_shared(url)?.connect().await?))
    }

    /// Users root, alice, who may do everything under `k/`, and nobody, who may do nothing; and keys.
    pub(super) async fn set_up(&self) -> Result<()> {
        let mut auth = self.auth.clone();
        for name in ["root", "alice", "nobody"] {
            let add = pb::AuthUserAddRequest {
                name: name.to_owned(),
                password: "pass".to_owned(),
                ..Default::default()
            };
            auth.user_add(add).await?;
        }
        for name in ["root", "reader"] {
            let name = name.to_owned();
            auth.role_add(pb::AuthRoleAddRequest { name }).await?;
        }
        self.grant("", "k/", "k0").await?;
        for (user, role) in [("root", "root"), ("alice", "reader")] {
            let (user, role) = (user.to_owned(), role.to_owned());
            let grant = pb::AuthUserGrantRoleRequest { user, role };
            auth.user_grant_role(grant).await?;
        }
        for key in super::KEYS {
            self.client.kv.clone().put(put(key)).await?;
        }
        self.enable().await
    }

    pub(super) async fn enable(&self) -> Result<()> {
        let enable = pb::AuthEnableRequest {};
        self.auth.clone().auth_enable(enable).await?;
        Ok(())
    }

    pub(super) async fn disable(&self, token: &str) -> Result<()> {
        let disable = by(token, pb::AuthDisableRequest {});
        self.auth.clone().auth_disable(disable).await?;
        Ok(())
    }

    pub(super) async fn log_in(&self, name: &str, password: &str) -> Result<String> {
        let mut auth = self.auth.clone();
        let answer = auth.authenticate(login(name, password)).await?;
        Ok(answer.into_inner().token)
    }

    pub(super) async fn refused_log_in(&self, name: &str, password: &str) -> String {
        done(self.auth.clone().authenticate(login(name, password)).await)
    }

    /// Lets the role of alice do everything with these keys, too.
    pub(super) async fn grant(&self, token: &str, key: &str, range_end: &str) -> Result<()> {
        let grant = pb::AuthRoleGrantPermissionRequest {
            name: "reader".to_owned(),
            perm: Some(Permission {
                perm_type: 2,
                key: key.into(),
                range_end: range_end.into(),
            }),
        };
        let grant = by(token, grant);
        self.auth.clone().role_grant_permission(grant).await?;
        Ok(())
    }

    pub(super) async fn revoke_role(&self, token: &str, name: &str) -> Result<()> {
        let revoke = pb::AuthUserRevokeRoleRequest {
            name: name.to_owned(),
            role: "reader".to_owned(),
        };
        let revoke = by(token, revoke);
        self.auth.clone().user_revoke_role(revoke).await?;
        Ok(())
    }

    pub(super) async fn change_password(
        &self,
        token: &str,
        name: &str,
        password: &str,
    ) -> Result<()> {
        let change = pb::AuthUserChangePasswordRequest {
            name: name.to_owned(),
            password: password.to_owned(),
            ..Default::default()
        };
        let change = by(token, change);
        self.auth.clone().user_change_password(change).await?;
        Ok(())
    }

    pub(super) async fn get(&self, token: &str, key: &str) -> String {
        let range = pb::RangeRequest {
            key: key.into(),
            ..Default::default()
        };
        match self.client.kv.clone().range(by(token, range)).await {
            Ok(answer) => format!("OK: {}", answer.into_inner().count),
            Err(status) => shown(&status),
        }
    }

    pub(super) async fn put(&self, token: &str, key: &str) -> String {
        done(self.client.kv.clone().put(by(token, put(key))).await)
    }

    pub(super) async fn members(&self, token: &str) -> String {
        let list = pb::MemberListRequest { linearizable: true };
        done(
            self.client
                .cluster
                .clone()
                .member_list(by(token, list))
                .await,
        )
    }

    pub(super) async fn users(&self, token: &str) -> String {
        let list = by(token, pb::AuthUserListRequest {});
        match self.auth.clone().user_list(list).await {
            Ok(answer) => format!("OK: {:?}", answer.into_inner().users),
            Err(status) => shown(&status),
        }
    }
}

fn login(name: &str, password: &str) -> pb::AuthenticateRequest {
    pb::AuthenticateRequest {
        name: name.to_owned(),
        password: password.to_owned(),
    }
}

fn put(key: &str) -> pb::PutRequest {
    pb::PutRequest {
        key: key.into(),
        value: b"value".to_vec(),
        ..Default::default()
    }
}
