//! Who administers a cluster: a client with a certificate that knows some endpoints, as Go's
//! clientv3 does, and etcdctl.

use std::process::{Command, Output};

use anyhow::{Context as _, Result, ensure};
use api::etcdserverpb as pb;
use testkit::{Client, binaries, eventually};
use tonic::{Code, Status};

use super::Caller;

/// An administrator.
#[derive(Debug, Clone)]
pub struct Operator {
    /// How it calls.
    pub caller: Caller,
    /// Whom it calls: the first that answers.
    pub endpoints: Vec<String>,
}

impl Operator {
    /// Knows these endpoints.
    #[must_use]
    pub fn new(caller: Caller, endpoints: &[String]) -> Operator {
        Operator {
            caller,
            endpoints: endpoints.to_vec(),
        }
    }

    /// Asks one endpoint after the other until one is there to answer.
    ///
    /// # Errors
    /// The answer, when it is an error, or the last reason why nobody answered.
    pub async fn ask<T>(
        &self,
        question: impl AsyncFn(Client) -> Result<tonic::Response<T>, Status>,
    ) -> Result<T, Status> {
        let mut last = Status::unavailable("no endpoints");
        for endpoint in &self.endpoints {
            let client = match self.caller.client(endpoint).await {
                Ok(client) => client,
                Err(error) => {
                    last = Status::unavailable(format!("{error:#}"));
                    continue;
                }
            };
            match question(client).await {
                Ok(response) => return Ok(response.into_inner()),
                // A full answer of the cluster's also has this code; it may be asked again.
                Err(status) if status.code() == Code::Unavailable || broke(&status) => {
                    last = Status::unavailable(status.message());
                }
                Err(status) => return Err(status),
            }
        }
        Err(last)
    }

    /// The members, by the leader's word.
    ///
    /// # Errors
    /// When there is no answer in time.
    pub async fn members(&self) -> Result<Vec<pb::Member>> {
        eventually("MemberList", || async { Ok(self.list().await?.members) }).await
    }

    async fn list(&self) -> Result<pb::MemberListResponse, Status> {
        let request = pb::MemberListRequest { linearizable: true };
        self.ask(async |mut client| client.cluster.member_list(request).await)
            .await
    }

    /// Takes the members' client urls for endpoints, as clientv3's `Sync` does.
    ///
    /// # Errors
    /// When there is no answer in time.
    pub async fn sync(&mut self) -> Result<()> {
        let members = self.members().await?;
        let voters = members.into_iter().filter(|member| !member.is_learner);
        self.endpoints = voters.flat_map(|member| member.client_ur_ls).collect();
        ensure!(!self.endpoints.is_empty(), "nobody has a client url");
        Ok(())
    }

    /// The member with this peer url as its first.
    ///
    /// # Errors
    /// When there is none.
    pub async fn member_at(&self, peer_url: &str) -> Result<pb::Member> {
        let members = self.members().await?;
        let member = members
            .into_iter()
            .find(|member| member.peer_ur_ls.first().is_some_and(|url| url == peer_url));
        member.with_context(|| format!("nobody is at {peer_url}"))
    }

    /// The status of one endpoint.
    ///
    /// # Errors
    /// When it does not answer.
    pub async fn status(&self, endpoint: &str) -> Result<pb::StatusResponse> {
        let mut client = self.caller.client(endpoint).await?;
        let response = client.maintenance.status(pb::StatusRequest {}).await?;
        Ok(response.into_inner())
    }

    /// The status of every endpoint.
    ///
    /// # Errors
    /// When one does not answer in time.
    pub async fn all_status(&self) -> Result<Vec<pb::StatusResponse>> {
        let mut all = Vec::new();
        for endpoint in &self.endpoints {
            let status = eventually("Status", || self.status(endpoint)).await;
            all.push(status.with_context(|| endpoint.clone())?);
        }
        Ok(all)
    }

    /// MemberAdd, once.
    ///
    /// # Errors
    /// When it is refused.
    pub async fn try_add(
        &self,
        peer_url: &str,
        is_learner: bool,
    ) -> Result<pb::MemberAddResponse, Status> {
        let request = pb::MemberAddRequest {
            peer_ur_ls: vec![peer_url.to_owned()],
            is_learner,
        };
        self.ask(async |mut client| client.cluster.member_add(request.clone()).await)
            .await
    }

    /// MemberAdd until it is done.
    ///
    /// # Errors
    /// When it is not in time.
    pub async fn add_learner(&self, peer_url: &str) -> Result<pb::MemberAddResponse> {
        eventually("MemberAdd", || async {
            Ok(self.try_add(peer_url, true).await?)
        })
        .await
    }

    /// MemberPromote, once.
    ///
    /// # Errors
    /// When it is refused.
    pub async fn try_promote(&self, id: u64) -> Result<pb::MemberPromoteResponse, Status> {
        let request = pb::MemberPromoteRequest { id };
        self.ask(async |mut client| client.cluster.member_promote(request).await)
            .await
    }

    /// MemberPromote until the member is a voter, as kubeadm does: after a refusal it looks whether
    /// it is one already.
    ///
    /// # Errors
    /// When it is not in time.
    pub async fn promote(&self, id: u64) -> Result<()> {
        eventually("MemberPromote", || async {
            let Err(refusal) = self.try_promote(id).await else {
                return Ok(());
            };
            let members = self.list().await?.members;
            let learns = |member: &pb::Member| member.id == id && member.is_learner;
            ensure!(!members.iter().any(learns), "still a learner: {refusal}");
            Ok(())
        })
        .await
    }

    /// MemberRemove, once.
    ///
    /// # Errors
    /// When it is refused.
    pub async fn try_remove(&self, id: u64) -> Result<pb::MemberRemoveResponse, Status> {
        let request = pb::MemberRemoveRequest { id };
        self.ask(async |mut client| client.cluster.member_remove(request).await)
            .await
    }

    /// MemberRemove until it is done.
    ///
    /// # Errors
    /// When it is not in time.
    pub async fn remove(&self, id: u64) -> Result<()> {
        eventually("MemberRemove", || async {
            match self.try_remove(id).await {
                Ok(_) => Ok(()),
                Err(status) if status.code() == Code::NotFound => Ok(()),
                Err(status) => Err(status.into()),
            }
        })
        .await
    }

    /// Puts a key.
    ///
    /// # Errors
    /// When it is not done in time.
    pub async fn put(&self, key: &str, value: &str) -> Result<()> {
        let request = pb::PutRequest {
            key: key.into(),
            value: value.into(),
            ..Default::default()
        };
        eventually("Put", || async {
            let put = async |mut client: Client| client.kv.put(request.clone()).await;
            self.ask(put).await?;
            Ok(())
        })
        .await
    }

    /// What one endpoint has for a key, linearizably.
    ///
    /// # Errors
    /// When it does not answer.
    pub async fn get(&self, endpoint: &str, key: &str) -> Result<Option<String>> {
        let request = pb::RangeRequest {
            key: key.into(),
            ..Default::default()
        };
        let mut client = self.caller.client(endpoint).await?;
        let found = client.kv.range(request).await?.into_inner().kvs.pop();
        Ok(found.map(|kv| String::from_utf8_lossy(&kv.value).into_owned()))
    }

    /// What etcdctl prints when it calls the same way; it has to succeed.
    ///
    /// # Errors
    /// What it says when it does not.
    pub fn etcdctl(&self, args: &[&str]) -> Result<String> {
        let output = self.run_etcdctl(args)?;
        let stderr = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "{args:?}: {stderr}");
        Ok(String::from_utf8(output.stdout)?)
    }

    /// Runs etcdctl.
    ///
    /// # Errors
    /// When it cannot be run.
    pub fn run_etcdctl(&self, args: &[&str]) -> Result<Output> {
        let mut command = Command::new(binaries::etcdctl()?);
        command
            .env_clear()
            .arg(format!("--endpoints={}", self.endpoints.join(",")))
            .args(self.caller.etcdctl_flags())
            .args(args);
        Ok(command.output()?)
    }
}

/// Whether the connection was lost under the question: no member has said this. For clientv3 the
/// endpoint is unavailable then.
fn broke(status: &Status) -> bool {
    std::error::Error::source(status).is_some()
}
