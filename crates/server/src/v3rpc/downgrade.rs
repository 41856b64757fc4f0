//! `Maintenance.Downgrade`: one minor version down, as etcd 3.6 answers it
//! (`server/etcdserver/v3_server.go`, `server/etcdserver/version/version.go`).
//!
//! What this is not: the downgrade itself. The leader carries the cluster's version down and up again
//! ([`crate::version_monitor`]).

use api::etcdserverpb::downgrade_request::DowngradeAction;
use api::etcdserverpb::{DowngradeRequest, DowngradeResponse};
use api::rpctypes::ErrorCode;
use apply::{ClusterVersions, Command};
use types::Version;

use super::Credentials;
use crate::{EtcdServer, RequestError};

impl EtcdServer {
    /// Answers a request; the answer's version is the cluster's.
    pub(super) async fn downgrade(
        &self,
        credentials: &Credentials,
        request: &DowngradeRequest,
    ) -> Result<DowngradeResponse, RequestError> {
        match DowngradeAction::try_from(request.action) {
            Ok(DowngradeAction::Validate) => self.downgrade_validate(&request.version).await,
            Ok(DowngradeAction::Enable) => {
                let enabled = self.downgrade_enable(credentials, &request.version).await;
                enabled.inspect_err(|error| tracing::warn!(%error, "reject downgrade request"))
            }
            Ok(DowngradeAction::Cancel) => self.downgrade_cancel(credentials).await,
            Err(_unknown) => Err(ErrorCode::UnknownMethod.into()),
        }
    }

    async fn downgrade_validate(&self, version: &str) -> Result<DowngradeResponse, RequestError> {
        let target = target(version)?;
        let cluster = self.cluster_version()?;
        self.check_downgrade(target).await?;
        Ok(self.answer(cluster))
    }

    async fn downgrade_enable(
        &self,
        credentials: &Credentials,
        version: &str,
    ) -> Result<DowngradeResponse, RequestError> {
        let target = target(version)?;
        let cluster = self.check_downgrade(target).await?;
        let asker = self.asker(credentials).await?;
        let target = Some(target);
        let enable = Command::DowngradeInfoSet { target };
        self.propose(enable.asked_by(asker)).await?;
        Ok(self.answer(cluster))
    }

    /// Ends a downgrade. As in etcd it is no error if that was not possible, or there was none.
    async fn downgrade_cancel(
        &self,
        credentials: &Credentials,
    ) -> Result<DowngradeResponse, RequestError> {
        if let Err(error) = self.end_downgrade(credentials).await {
            tracing::warn!(%error, "failed to cancel downgrade");
        }
        Ok(self.answer(self.cluster_version()?))
    }

    async fn end_downgrade(&self, credentials: &Credentials) -> Result<(), RequestError> {
        self.read_index().await?;
        if self.views().versions.get().downgrade.is_none() {
            return Err(ErrorCode::NoInflightDowngrade.into());
        }
        let asker = self.asker(credentials).await?;
        let end = Command::DowngradeInfoSet { target: None };
        self.propose(end.asked_by(asker)).await?;
        Ok(())
    }

    /// Whether the cluster can go down to this version; if so, its own.
    async fn check_downgrade(&self, target: Version) -> Result<Version, RequestError> {
        // By what the log says now, not by what this member had when it was asked.
        self.read_index().await?;
        let ClusterVersions { cluster, downgrade } = self.views().versions.get();
        let fits = |cluster: &Version| cluster.before() == Some(target);
        let cluster = cluster.filter(fits);
        let cluster = cluster.ok_or(ErrorCode::InvalidDowngradeTargetVersion)?;
        match downgrade {
            Some(_) => Err(ErrorCode::DowngradeInProcess.into()),
            None => Ok(cluster),
        }
    }

    fn cluster_version(&self) -> Result<Version, RequestError> {
        let cluster = self.views().versions.get().cluster;
        cluster.ok_or_else(|| ErrorCode::ClusterVersionUnavailable.into())
    }

    fn answer(&self, cluster: Version) -> DowngradeResponse {
        DowngradeResponse {
            header: Some(self.header()),
            version: cluster.short(),
        }
    }
}

fn target(version: &str) -> Result<Version, RequestError> {
    Version::parse_short(version).ok_or_else(|| ErrorCode::WrongDowngradeVersionFormat.into())
}
