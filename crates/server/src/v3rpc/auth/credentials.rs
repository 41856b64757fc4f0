//! Who sends a call: what its metadata and its connection say, and what that is worth.

use std::time::Duration;

use apply::{Access, Asker, Guard, permit};
use auth::{AuthError, AuthInfo, TokenInfo};
use transport::PeerInfo;

use crate::v3rpc::metadata::CallMetadata;
use crate::{EtcdServer, RequestError, call};

/// How long a token may be ahead of what this member has applied; then it counts as invalid. etcd waits
/// for as long as the client does.
const TOKEN_PATIENCE: Duration = Duration::from_secs(7);
/// How often it is looked whether the token's entry has been applied.
const TOKEN_LOOK_INTERVAL: Duration = Duration::from_millis(10);
/// What may stand before it.
const BEARER: &str = "Bearer ";

/// On whose behalf something is asked for. Nothing of it is checked yet.
#[derive(Clone)]
pub(crate) enum Credentials {
    /// A client's.
    Client {
        token: Option<String>,
        /// The name in the verified certificate of its connection; empty if there is none in it.
        common_name: Option<String>,
    },
    /// This member asks for itself.
    Member,
}

impl Credentials {
    /// What a call's metadata and connection say. `with_certificates`: whether certificates stand for
    /// users (`--client-cert-auth`).
    pub(crate) fn of(
        metadata: &CallMetadata<'_>,
        peer: Option<&PeerInfo>,
        with_certificates: bool,
    ) -> Self {
        let token = metadata.token.or(metadata.authorization);
        let token = token.map(|token| {
            let token = String::from_utf8_lossy(token.as_bytes());
            token.strip_prefix(BEARER).unwrap_or(&token).to_owned()
        });
        let is_usable = with_certificates && !metadata.is_of_a_gateway();
        let peer = peer.filter(|_| is_usable);
        let certificate = peer.and_then(|peer| peer.certificate.as_ref());
        let common_name = certificate.map(|it| it.common_name.clone().unwrap_or_default());
        Self::Client { token, common_name }
    }

    /// What the interceptor has put beside a request. Nobody's, if it did not come that way.
    pub(crate) fn beside<M>(request: &tonic::Request<M>) -> Self {
        let credentials = request.extensions().get::<Self>();
        credentials.cloned().unwrap_or(Self::Client {
            token: None,
            common_name: None,
        })
    }
}

impl EtcdServer {
    /// Who asks. With authentication off nobody has to say.
    ///
    /// # Errors
    ///
    /// When it is said with a token that is not valid.
    pub(crate) async fn asker(&self, credentials: &Credentials) -> Result<Asker, RequestError> {
        let (token, common_name) = match credentials {
            Credentials::Member => return Ok(Asker::Member),
            Credentials::Client { token, common_name } => (token, common_name),
        };
        if !self.views().auth.is_enabled() {
            return Ok(Asker::default());
        }
        if let Some(token) = token {
            // Larger, and only with authentication on.
            let info = Box::pin(self.user_of(token)).await?;
            call::asked_by(&info.user);
            return Ok(Asker::Client(info));
        }
        let Some(user) = common_name.clone() else {
            return Ok(Asker::default());
        };
        let revision = self.views().auth.revision();
        Ok(Asker::Client(AuthInfo { user, revision }))
    }

    /// Whose token it is.
    async fn user_of(&self, token: &str) -> Result<AuthInfo, RequestError> {
        let auth = &self.views().auth;
        let deadline = tokio::time::Instant::now() + TOKEN_PATIENCE;
        loop {
            let applied = self.node().status().applied_index;
            let is_late = tokio::time::Instant::now() >= deadline;
            match auth.tokens().info(token, auth.revision(), applied) {
                TokenInfo::User(info) => return Ok(info),
                TokenInfo::NotYet { .. } if !is_late => {
                    tokio::time::sleep(TOKEN_LOOK_INTERVAL).await;
                }
                TokenInfo::NotYet { .. } | TokenInfo::Invalid => {
                    tracing::warn!("invalid auth token");
                    return Err(AuthError::InvalidAuthToken.into());
                }
            }
        }
    }

    /// Allows something, if who asks may have it now.
    ///
    /// # Errors
    ///
    /// When it may not.
    pub(crate) async fn allow(
        &self,
        access: Access<'_>,
        credentials: &Credentials,
    ) -> Result<(), RequestError> {
        let asker = self.asker(credentials).await?;
        let views = self.views();
        permit(access, &asker, &views.auth.state(), &views.leases)?;
        Ok(())
    }

    /// Allows a read beside the log, if who asks may have it now. What was read may be handed out when
    /// [`Guard::check_again`] has said so.
    ///
    /// # Errors
    ///
    /// When it may not.
    pub(crate) async fn guard(
        &self,
        access: Access<'_>,
        credentials: &Credentials,
    ) -> Result<Guard, RequestError> {
        let asker = self.asker(credentials).await?;
        let views = self.views();
        Ok(Guard::new(access, asker, &views.auth, &views.leases)?)
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderMap;
    use transport::{ClientCertificate, RemoteAddr};

    use super::*;

    fn of(
        metadata: &[(&'static str, &'static str)],
        common_name: Option<&str>,
        with_certificates: bool,
    ) -> (Option<String>, Option<String>) {
        let mut headers = HeaderMap::new();
        for (name, value) in metadata {
            headers.append(*name, value.parse().unwrap());
        }
        let peer = PeerInfo {
            remote: RemoteAddr::Unix,
            tls: true,
            certificate: common_name.map(|name| ClientCertificate {
                common_name: Some(name.to_owned()).filter(|name| !name.is_empty()),
            }),
        };
        let metadata = CallMetadata::of(&headers);
        match Credentials::of(&metadata, Some(&peer), with_certificates) {
            Credentials::Client { token, common_name } => (token, common_name),
            Credentials::Member => panic!("no client is a member"),
        }
    }

    #[test]
    fn a_token_is_where_clients_and_gateways_have_it() {
        let token = |metadata: &[_]| of(metadata, None, true).0;
        assert_eq!(token(&[]), None);
        assert_eq!(token(&[("token", "t")]), Some("t".to_owned()));
        assert_eq!(token(&[("authorization", "t")]), Some("t".to_owned()));
        assert_eq!(token(&[("token", "Bearer t")]), Some("t".to_owned()));
        let both = [("authorization", "a"), ("token", "t")];
        assert_eq!(token(&both), Some("t".to_owned()));
    }

    #[test]
    fn a_certificate_stands_for_a_user_only_if_it_is_the_clients_own() {
        let name = |metadata: &[_], with| of(metadata, Some("u"), with).1;
        assert_eq!(name(&[], true), Some("u".to_owned()));
        assert_eq!(name(&[], false), None);
        assert_eq!(name(&[("grpcgateway-accept", "*/*")], true), None);
        assert_eq!(of(&[], None, true).1, None);
        assert_eq!(of(&[], Some(""), true).1, Some(String::new()));
    }
}
