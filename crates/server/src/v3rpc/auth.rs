//! The Auth service (`server/etcdserver/api/v3rpc/auth.go`).
//!
//! Changes go through the log, where it is decided whether who asks may make them. What is only read is
//! read here, after everything that was committed before.

mod credentials;
mod passwords;

use api::authpb::permission::Type;
use api::authpb::{Permission, Role};
use api::encoded::etcdserverpb::auth_server::Auth;
use api::etcdserverpb::{
    AuthDisableRequest, AuthDisableResponse, AuthEnableRequest, AuthEnableResponse,
    AuthRoleAddRequest, AuthRoleAddResponse, AuthRoleDeleteRequest, AuthRoleDeleteResponse,
    AuthRoleGetRequest, AuthRoleGetResponse, AuthRoleGrantPermissionRequest,
    AuthRoleGrantPermissionResponse, AuthRoleListRequest, AuthRoleListResponse,
    AuthRoleRevokePermissionRequest, AuthRoleRevokePermissionResponse, AuthStatusRequest,
    AuthStatusResponse, AuthUserAddRequest, AuthUserAddResponse, AuthUserChangePasswordRequest,
    AuthUserChangePasswordResponse, AuthUserDeleteRequest, AuthUserDeleteResponse,
    AuthUserGetRequest, AuthUserGetResponse, AuthUserGrantRoleRequest, AuthUserGrantRoleResponse,
    AuthUserListRequest, AuthUserListResponse, AuthUserRevokeRoleRequest,
    AuthUserRevokeRoleResponse, AuthenticateRequest, AuthenticateResponse, ResponseHeader,
};
use apply::{Access, AuthCommand, Command, Reply, permit};
use auth::{AuthError, AuthInfo, ROOT_ROLE, State};
use tonic::{Request, Response, Status, async_trait};

use crate::{EtcdServer, RequestError};

pub(crate) use credentials::Credentials;
pub(crate) use passwords::Passwords;

/// Serves authentication.
pub(crate) struct AuthService {
    server: EtcdServer,
}

impl AuthService {
    /// Serves the member's authentication.
    pub(crate) fn new(server: EtcdServer) -> Self {
        Self { server }
    }

    /// Makes a change, and says with which header it is answered.
    async fn change(
        &self,
        credentials: &Credentials,
        command: AuthCommand,
    ) -> Result<Option<ResponseHeader>, RequestError> {
        let asker = self.server.asker(credentials).await?;
        let request = Command::Auth(command).asked_by(asker);
        match self.server.propose(request).await? {
            Reply::Done { revision } => Ok(Some(self.server.header_at(revision))),
            other => unreachable!("a change of users is answered with a revision, not {other:?}"),
        }
    }

    /// Reads users and roles as they are after everything that was committed before.
    async fn read<T>(
        &self,
        access: Access<'_>,
        credentials: &Credentials,
        read: impl FnOnce(&State) -> Result<T, AuthError>,
    ) -> Result<(Option<ResponseHeader>, T), RequestError> {
        let server = &self.server;
        let asker = server.asker(credentials).await?;
        server.read_index().await?;
        // One state: what is allowed by it is what is read of it.
        let state = server.views().auth.state();
        permit(access, &asker, &state, &server.views().leases)?;
        Ok((Some(server.header()), read(&state)?))
    }

    async fn hash(
        &self,
        credentials: &Credentials,
        password: String,
    ) -> Result<String, RequestError> {
        // The log decides; but nobody else makes this member hash.
        self.server.allow(Access::Admin, credentials).await?;
        self.server.passwords().hash(password).await
    }
}

#[async_trait]
impl Auth for AuthService {
    async fn auth_enable(
        &self,
        request: Request<AuthEnableRequest>,
    ) -> Result<Response<AuthEnableResponse>, Status> {
        let credentials = Credentials::beside(&request);
        let header = self.change(&credentials, AuthCommand::Enable).await?;
        Ok(Response::new(AuthEnableResponse { header }))
    }

    async fn auth_disable(
        &self,
        request: Request<AuthDisableRequest>,
    ) -> Result<Response<AuthDisableResponse>, Status> {
        let credentials = Credentials::beside(&request);
        let header = self.change(&credentials, AuthCommand::Disable).await?;
        Ok(Response::new(AuthDisableResponse { header }))
    }

    async fn auth_status(
        &self,
        request: Request<AuthStatusRequest>,
    ) -> Result<Response<AuthStatusResponse>, Status> {
        let credentials = Credentials::beside(&request);
        // As etcd 3.7: everybody may ask; but not with a token that is not valid.
        self.server.asker(&credentials).await?;
        self.server.read_index().await?;
        let state = self.server.views().auth.state();
        Ok(Response::new(AuthStatusResponse {
            header: Some(self.server.header()),
            enabled: state.is_enabled(),
            auth_revision: state.revision(),
        }))
    }

    async fn authenticate(
        &self,
        request: Request<AuthenticateRequest>,
    ) -> Result<Response<AuthenticateResponse>, Status> {
        Ok(Response::new(
            self.server.authenticate(request.into_inner()).await?,
        ))
    }

    async fn user_add(
        &self,
        request: Request<AuthUserAddRequest>,
    ) -> Result<Response<AuthUserAddResponse>, Status> {
        let credentials = Credentials::beside(&request);
        let request = request.into_inner();
        let no_password = request.options.is_some_and(|options| options.no_password);
        let hashed_password = match no_password {
            true => String::new(),
            false => self.hash(&credentials, request.password).await?,
        };
        let add = AuthCommand::UserAdd {
            name: request.name,
            hashed_password,
            no_password,
        };
        let header = self.change(&credentials, add).await?;
        Ok(Response::new(AuthUserAddResponse { header }))
    }

    async fn user_get(
        &self,
        request: Request<AuthUserGetRequest>,
    ) -> Result<Response<AuthUserGetResponse>, Status> {
        let credentials = Credentials::beside(&request);
        let name = request.into_inner().name;
        let get = |state: &State| {
            let user = state.user(&name).ok_or(AuthError::UserNotFound)?;
            Ok(user.roles.clone())
        };
        let access = Access::UserGet(&name);
        let (header, roles) = self.read(access, &credentials, get).await?;
        Ok(Response::new(AuthUserGetResponse { header, roles }))
    }

    async fn user_list(
        &self,
        request: Request<AuthUserListRequest>,
    ) -> Result<Response<AuthUserListResponse>, Status> {
        let credentials = Credentials::beside(&request);
        let list = |state: &State| Ok(state.users().map(|user| text(&user.name)).collect());
        let (header, users) = self.read(Access::Admin, &credentials, list).await?;
        Ok(Response::new(AuthUserListResponse { header, users }))
    }

    async fn user_delete(
        &self,
        request: Request<AuthUserDeleteRequest>,
    ) -> Result<Response<AuthUserDeleteResponse>, Status> {
        let credentials = Credentials::beside(&request);
        let name = request.into_inner().name;
        let delete = AuthCommand::UserDelete { name };
        let header = self.change(&credentials, delete).await?;
        Ok(Response::new(AuthUserDeleteResponse { header }))
    }

    async fn user_change_password(
        &self,
        request: Request<AuthUserChangePasswordRequest>,
    ) -> Result<Response<AuthUserChangePasswordResponse>, Status> {
        let credentials = Credentials::beside(&request);
        let request = request.into_inner();
        // As etcd: without a password the hash may come from the client.
        let hashed_password = match request.password.is_empty() {
            true => request.hashed_password,
            false => self.hash(&credentials, request.password).await?,
        };
        let change = AuthCommand::UserChangePassword {
            name: request.name,
            hashed_password,
        };
        let header = self.change(&credentials, change).await?;
        Ok(Response::new(AuthUserChangePasswordResponse { header }))
    }

    async fn user_grant_role(
        &self,
        request: Request<AuthUserGrantRoleRequest>,
    ) -> Result<Response<AuthUserGrantRoleResponse>, Status> {
        let credentials = Credentials::beside(&request);
        let AuthUserGrantRoleRequest { user, role } = request.into_inner();
        let grant = AuthCommand::UserGrantRole { user, role };
        let header = self.change(&credentials, grant).await?;
        Ok(Response::new(AuthUserGrantRoleResponse { header }))
    }

    async fn user_revoke_role(
        &self,
        request: Request<AuthUserRevokeRoleRequest>,
    ) -> Result<Response<AuthUserRevokeRoleResponse>, Status> {
        let credentials = Credentials::beside(&request);
        let AuthUserRevokeRoleRequest { name, role } = request.into_inner();
        let revoke = AuthCommand::UserRevokeRole { user: name, role };
        let header = self.change(&credentials, revoke).await?;
        Ok(Response::new(AuthUserRevokeRoleResponse { header }))
    }

    async fn role_add(
        &self,
        request: Request<AuthRoleAddRequest>,
    ) -> Result<Response<AuthRoleAddResponse>, Status> {
        let credentials = Credentials::beside(&request);
        let name = request.into_inner().name;
        let add = AuthCommand::RoleAdd { name };
        let header = self.change(&credentials, add).await?;
        Ok(Response::new(AuthRoleAddResponse { header }))
    }

    async fn role_get(
        &self,
        request: Request<AuthRoleGetRequest>,
    ) -> Result<Response<AuthRoleGetResponse>, Status> {
        let credentials = Credentials::beside(&request);
        let name = request.into_inner().role;
        let get = |state: &State| {
            let role = state.role(&name).ok_or(AuthError::RoleNotFound)?;
            Ok(permissions(role))
        };
        let access = Access::RoleGet(&name);
        let (header, perm) = self.read(access, &credentials, get).await?;
        Ok(Response::new(AuthRoleGetResponse { header, perm }))
    }

    async fn role_list(
        &self,
        request: Request<AuthRoleListRequest>,
    ) -> Result<Response<AuthRoleListResponse>, Status> {
        let credentials = Credentials::beside(&request);
        let list = |state: &State| Ok(state.roles().map(|role| text(&role.name)).collect());
        let (header, roles) = self.read(Access::Admin, &credentials, list).await?;
        Ok(Response::new(AuthRoleListResponse { header, roles }))
    }

    async fn role_delete(
        &self,
        request: Request<AuthRoleDeleteRequest>,
    ) -> Result<Response<AuthRoleDeleteResponse>, Status> {
        let credentials = Credentials::beside(&request);
        let name = request.into_inner().role;
        let delete = AuthCommand::RoleDelete { name };
        let header = self.change(&credentials, delete).await?;
        Ok(Response::new(AuthRoleDeleteResponse { header }))
    }

    async fn role_grant_permission(
        &self,
        request: Request<AuthRoleGrantPermissionRequest>,
    ) -> Result<Response<AuthRoleGrantPermissionResponse>, Status> {
        let credentials = Credentials::beside(&request);
        let request = request.into_inner();
        let grant = AuthCommand::RoleGrantPermission {
            role: request.name,
            permission: request.perm,
        };
        let header = self.change(&credentials, grant).await?;
        Ok(Response::new(AuthRoleGrantPermissionResponse { header }))
    }

    async fn role_revoke_permission(
        &self,
        request: Request<AuthRoleRevokePermissionRequest>,
    ) -> Result<Response<AuthRoleRevokePermissionResponse>, Status> {
        let credentials = Credentials::beside(&request);
        let request = request.into_inner();
        let revoke = AuthCommand::RoleRevokePermission {
            role: request.role,
            key: request.key.into(),
            range_end: request.range_end.into(),
        };
        let header = self.change(&credentials, revoke).await?;
        Ok(Response::new(AuthRoleRevokePermissionResponse { header }))
    }
}

impl EtcdServer {
    /// A token for who shows the right password. It is compared here, with what it was hashed to after
    /// everything that was committed before; should that change while the token is made, then again.
    async fn authenticate(
        &self,
        request: AuthenticateRequest,
    ) -> Result<AuthenticateResponse, RequestError> {
        let AuthenticateRequest { name, password } = request;
        self.read_index().await?;
        let auth = &self.views().auth;
        loop {
            let checked = self.check_password(&name, &password).await?;
            let token_prefix = auth::simple_token_prefix();
            let authenticate = AuthCommand::Authenticate {
                user: name.clone(),
                token_prefix: token_prefix.clone(),
            };
            let reply = self.propose(Command::Auth(authenticate)).await?;
            let Reply::Authenticated {
                revision,
                auth_revision,
                index,
            } = reply
            else {
                unreachable!("who has shown a password is answered so, not with {reply:?}")
            };
            let info = AuthInfo {
                user: name.clone(),
                revision: auth_revision,
            };
            let token = auth.tokens().token(&info, &token_prefix, index)?;
            if checked == auth.revision() {
                return Ok(AuthenticateResponse {
                    header: Some(self.header_at(revision)),
                    token,
                });
            }
            tracing::info!("revision when password checked became stale; retrying");
        }
    }

    /// Compares a password, and says as of which revision.
    async fn check_password(&self, name: &str, password: &str) -> Result<u64, RequestError> {
        let check = self.views().auth.state().user_check(name);
        let checked = match check {
            Ok(check) => {
                let password = password.to_owned();
                match self.passwords().verify(password, check.hash).await? {
                    true => Ok(check.revision),
                    false => {
                        tracing::info!("user-name" = name, "invalid password");
                        Err(AuthError::AuthFailed)
                    }
                }
            }
            Err(error) => Err(error),
        };
        checked.map_err(|error| {
            if error != AuthError::AuthNotEnabled {
                tracing::warn!(
                    user = name,
                    error = %error,
                    "invalid authentication was requested"
                );
            }
            error.into()
        })
    }
}

/// What a role may do, as it is shown: root's has no permissions, and may do everything.
fn permissions(role: &Role) -> Vec<Permission> {
    if role.name == ROOT_ROLE.as_bytes() {
        return vec![Permission {
            perm_type: Type::Readwrite.into(),
            key: Vec::new(),
            range_end: vec![0],
        }];
    }
    role.key_permission.clone()
}

fn text(name: &[u8]) -> String {
    String::from_utf8_lossy(name).into_owned()
}
