//! The Election service (`server/etcdserver/api/v3election`): whoever has the oldest key of an election leads,
//! and the key's value says what the leader wants to be known for.

use api::encoded::v3electionpb::LeaderResponse;
use api::encoded::v3electionpb::election_server::Election;
use api::etcdserverpb::request_op::Request as Op;
use api::etcdserverpb::{ResponseHeader, TxnRequest, TxnResponse, WatchCreateRequest};
use api::mvccpb::KeyValue;
use api::mvccpb::event::EventType;
use api::rpctypes::ErrorCode;
use api::v3electionpb::{
    CampaignRequest, CampaignResponse, LeaderKey, LeaderRequest, ProclaimRequest, ProclaimResponse,
    ResignRequest, ResignResponse,
};
use futures_util::{StreamExt, stream};
use tonic::codegen::BoxStream;
use tonic::{Request, Response, Status, async_trait};

use super::concurrency;
use super::undo::Undo;
use super::v3client::{Caller, CallersClient, V3Client, WatchEnd, Watcher};
use crate::EtcdServer;

const NOT_LEADER: &str = "election: not leader";
const NO_LEADER: &str = "election: no leader";
const LEADER_MISSING: &str = "\"leader\" field must be provided";

/// Serves elections.
pub(crate) struct ElectionService {
    server: EtcdServer,
    client: V3Client,
}

impl ElectionService {
    /// Serves elections with what this client asks.
    pub(crate) const fn new(server: EtcdServer, client: V3Client) -> Self {
        Self { server, client }
    }

    /// Queues up, and waits until nobody is before this lease.
    async fn elect(
        &self,
        client: &mut CallersClient,
        request: CampaignRequest,
    ) -> Result<CampaignResponse, Status> {
        let CampaignRequest { name, lease, value } = request;
        let lease = concurrency::session(client, lease).await?;
        let prefix = concurrency::prefix_of(&name);
        let key = concurrency::key_of(&prefix, lease);
        let queue_up = concurrency::if_then_else(
            concurrency::created_at(&key, 0),
            [concurrency::put(&key, &value, lease)],
            [Op::RequestRange(concurrency::get(&key))],
        );
        let queued = client.txn(queue_up).await?;
        let header = queued.header.unwrap_or_default();
        let own = concurrency::found(&queued.responses, 0);
        let leader = LeaderKey {
            name,
            key,
            rev: own.map_or(header.revision, |own| own.create_revision),
            lease,
        };
        let undo = self.step_back(client, &leader);
        if own.is_some_and(|own| own.value != value) {
            announce(client, &leader, &value).await?;
        }
        let waited = concurrency::wait_deletes(client, &prefix, leader.rev - 1).await;
        // As in etcd, who waited and failed keeps the place; only who goes away gives it up.
        undo.forget();
        waited?;
        Ok(CampaignResponse {
            header: Some(header),
            leader: Some(leader),
        })
    }

    /// Resigns, unless that is forgotten.
    fn step_back(&self, client: &CallersClient, leader: &LeaderKey) -> Undo {
        let (mut client, resign) = (client.clone(), resignation(leader));
        Undo::unless_forgotten(&self.server, async move {
            client.txn(resign).await.map(|_resigned| ())
        })
    }
}

/// If it leads, it leads no more.
fn resignation(leader: &LeaderKey) -> TxnRequest {
    let leads = concurrency::created_at(&leader.key, leader.rev);
    concurrency::if_then_else(leads, [concurrency::delete(&leader.key)], [])
}

/// Shows another value, if it leads.
async fn announce(
    client: &mut CallersClient,
    leader: &LeaderKey,
    value: &[u8],
) -> Result<TxnResponse, Status> {
    let leads = concurrency::created_at(&leader.key, leader.rev);
    let put = concurrency::put(&leader.key, value, leader.lease);
    let announced = client
        .txn(concurrency::if_then_else(leads, [put], []))
        .await?;
    if announced.succeeded {
        Ok(announced)
    } else {
        Err(Status::unknown(NOT_LEADER))
    }
}

fn leader_of(leader: Option<LeaderKey>) -> Result<LeaderKey, Status> {
    leader.ok_or_else(|| Status::unknown(LEADER_MISSING))
}

fn shown(header: ResponseHeader, kv: &KeyValue) -> LeaderResponse {
    LeaderResponse {
        header: Some(header),
        kv: Some(kv.into()),
    }
}

#[async_trait]
impl Election for ElectionService {
    async fn campaign(
        &self,
        request: Request<CampaignRequest>,
    ) -> Result<Response<CampaignResponse>, Status> {
        let (caller, request) = Caller::of(request);
        let mut client = self.client.on_behalf_of(caller);
        tokio::select! {
            biased;
            elected = self.elect(&mut client, request) => Ok(Response::new(elected?)),
            () = self.server.stopping().cancelled() => Err(ErrorCode::Stopped.into()),
        }
    }

    async fn proclaim(
        &self,
        request: Request<ProclaimRequest>,
    ) -> Result<Response<ProclaimResponse>, Status> {
        let (caller, request) = Caller::of(request);
        let mut leader = leader_of(request.leader)?;
        let mut client = self.client.on_behalf_of(caller);
        leader.lease = concurrency::session(&mut client, leader.lease).await?;
        let announced = announce(&mut client, &leader, &request.value).await?;
        Ok(Response::new(ProclaimResponse {
            header: announced.header,
        }))
    }

    async fn leader(
        &self,
        request: Request<LeaderRequest>,
    ) -> Result<Response<LeaderResponse>, Status> {
        let (caller, request) = Caller::of(request);
        let prefix = concurrency::prefix_of(&request.name);
        let mut client = self.client.on_behalf_of(caller);
        let range = client.range(concurrency::first_created(&prefix)).await?;
        match range.kvs.first() {
            Some(kv) => Ok(Response::new(shown(range.header.unwrap_or_default(), kv))),
            None => Err(Status::unknown(NO_LEADER)),
        }
    }

    async fn observe(
        &self,
        request: Request<LeaderRequest>,
    ) -> Result<Response<BoxStream<LeaderResponse>>, Status> {
        let (caller, request) = Caller::of(request);
        let observer = Observer {
            client: self.client.on_behalf_of(caller),
            prefix: concurrency::prefix_of(&request.name),
            followed: None,
        };
        let leaders = stream::unfold(observer, |mut observer| async move {
            // As in etcd, who cannot observe any longer is told no error.
            let leader = observer.next().await.ok()?;
            Some((Ok(leader), observer))
        });
        Ok(Response::new(leaders.boxed()))
    }

    async fn resign(
        &self,
        request: Request<ResignRequest>,
    ) -> Result<Response<ResignResponse>, Status> {
        let (caller, request) = Caller::of(request);
        let leader = leader_of(request.leader)?;
        let mut client = self.client.on_behalf_of(caller);
        concurrency::session(&mut client, leader.lease).await?;
        let resigned = client.txn(resignation(&leader)).await?;
        Ok(Response::new(ResignResponse {
            header: resigned.header,
        }))
    }
}

/// Follows who leads.
struct Observer {
    client: CallersClient,
    prefix: Vec<u8>,
    /// The leader that was shown last.
    followed: Option<Followed>,
}

/// A leader's key, as long as it is there.
struct Followed {
    watcher: Watcher,
    /// What has happened and was not shown yet, newest first.
    unseen: Vec<(ResponseHeader, KeyValue)>,
    /// The key was deleted after that.
    gone: bool,
}

impl Observer {
    /// The next value of a leader, of the same or of another one.
    async fn next(&mut self) -> Result<LeaderResponse, Status> {
        loop {
            if let Some(followed) = &mut self.followed {
                if let Some((header, kv)) = followed.next().await? {
                    return Ok(shown(header, &kv));
                }
                self.followed = None;
            }
            let Some((header, kv)) = self.find().await? else {
                continue;
            };
            let watch = WatchCreateRequest {
                key: kv.key.to_vec(),
                start_revision: header.revision + 1,
                ..WatchCreateRequest::default()
            };
            self.followed = Some(Followed {
                watcher: self.client.watch(watch).await?,
                unseen: Vec::new(),
                gone: false,
            });
            return Ok(shown(header, &kv));
        }
    }

    /// Who leads; waits until somebody does. `None`: it has to be looked again.
    async fn find(&mut self) -> Result<Option<(ResponseHeader, KeyValue)>, Status> {
        let first = concurrency::first_created(&self.prefix);
        let mut range = self.client.range(first).await?;
        let header = range.header.unwrap_or_default();
        if let Some(kv) = range.kvs.pop() {
            return Ok(Some((header, kv)));
        }
        let watch = WatchCreateRequest {
            key: self.prefix.clone(),
            range_end: concurrency::prefix_end(&self.prefix),
            start_revision: header.revision,
            ..WatchCreateRequest::default()
        };
        let mut watcher = self.client.watch(watch).await?;
        loop {
            let response = match watcher.next().await {
                Ok(response) => response,
                Err(WatchEnd::Compacted) => return Ok(None),
                Err(WatchEnd::Refused(status)) => return Err(status),
            };
            let header = response.header.unwrap_or_default();
            let mut events = response.events.into_iter();
            let put = events.find(|event| event.r#type() == EventType::Put);
            if let Some(kv) = put.and_then(|event| event.kv) {
                // Others may have come after it in the same response.
                let revision = kv.mod_revision;
                return Ok(Some((ResponseHeader { revision, ..header }, kv)));
            }
        }
    }
}

impl Followed {
    /// The leader's next value; `None` when it leads no more.
    async fn next(&mut self) -> Result<Option<(ResponseHeader, KeyValue)>, Status> {
        loop {
            if let Some(next) = self.unseen.pop() {
                return Ok(Some(next));
            }
            if self.gone {
                return Ok(None);
            }
            let response = match self.watcher.next().await {
                Ok(response) => response,
                Err(WatchEnd::Compacted) => return Ok(None),
                Err(WatchEnd::Refused(status)) => return Err(status),
            };
            let header = response.header.unwrap_or_default();
            for event in response.events {
                if event.r#type() == EventType::Delete {
                    self.gone = true;
                    break;
                }
                self.unseen.extend(event.kv.map(|kv| (header, kv)));
            }
            self.unseen.reverse();
        }
    }
}
