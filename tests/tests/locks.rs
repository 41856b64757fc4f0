//! Locks and elections: the services, and clients that follow the recipes themselves, on the same keys, each
//! answer as a real etcd's.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use api::etcdserverpb::{
    DeleteRangeRequest, LeaseGrantRequest, LeaseRevokeRequest, PutRequest, RangeRequest,
    ResponseHeader,
};
use api::v3electionpb::election_client::ElectionClient;
use api::v3electionpb::{
    CampaignRequest, LeaderKey, LeaderRequest, LeaderResponse, ProclaimRequest, ResignRequest,
};
use api::v3lockpb::lock_client::LockClient;
use api::v3lockpb::{LockRequest, UnlockRequest};
use kvorum_tests::etcdctl::Pair;
use testkit::{Client, Server, Spec, eventually};
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tonic::transport::Channel;
use tonic::{Request, Status, Streaming};

/// Nothing that is not waited for takes longer.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(60);
const TTL_S: i64 = 600;
const A: i64 = 0x1001;
const B: i64 = 0x1002;
const C: i64 = 0x1003;
const D: i64 = 0x7fff_ffff_ffff_fff4;

/// One server, and what it has answered so far.
struct Asked {
    client: Client,
    lock: LockClient<Channel>,
    election: ElectionClient<Channel>,
    answers: Vec<String>,
}

/// Runs the script against kvorum and a real etcd, and compares what it noted.
async fn same(script: impl AsyncFn(&mut Asked) -> Result<()>) -> Result<()> {
    let run = async |spec: Spec| {
        let server = spec.start().await?;
        let mut asked = Asked::of(&server).await?;
        let outcome = script(&mut asked).await;
        outcome.with_context(|| format!("{:?}: {:#?}", server.program(), asked.answers))?;
        server.stop().await?;
        anyhow::Ok(asked.answers)
    };
    let (kvorum, etcd) = (run(Spec::kvorum()).await?, run(Spec::etcd()).await?);
    let differs: Vec<String> = kvorum
        .iter()
        .zip(&etcd)
        .filter(|(kvorum, etcd)| kvorum != etcd)
        .map(|(kvorum, etcd)| format!("kvorum {kvorum}\netcd   {etcd}"))
        .collect();
    ensure!(differs.is_empty(), "{}", differs.join("\n"));
    ensure!(kvorum.len() == etcd.len(), "{kvorum:#?}\n{etcd:#?}");
    Ok(())
}

impl Asked {
    async fn of(server: &Server) -> Result<Self> {
        let channel = Channel::from_shared(server.client_url())?.connect().await?;
        let mut asked = Self {
            client: Client::over(&channel),
            lock: LockClient::new(channel.clone()),
            election: ElectionClient::new(channel),
            answers: Vec::new(),
        };
        for id in [A, B, C, D] {
            let grant = LeaseGrantRequest { ttl: TTL_S, id };
            asked.client.lease.lease_grant(grant).await?;
        }
        Ok(asked)
    }

    fn note(&mut self, what: &str, answer: &str) {
        self.answers.push(format!("{what}: {answer}"));
    }

    /// Locks, and notes the answer.
    async fn lock(&mut self, name: &str, lease: i64) -> Result<()> {
        let locking = self.locking(name, lease);
        self.locked(&format!("lock {name} {lease:x}"), locking)
            .await
    }

    /// Begins to lock.
    fn locking(&self, name: &str, lease: i64) -> JoinHandle<String> {
        let (mut lock, name) = (self.lock.clone(), name.into());
        tokio::spawn(async move {
            let answer = lock.lock(LockRequest { name, lease }).await;
            shown(answer, |answer| {
                let key = String::from_utf8_lossy(&answer.key).into_owned();
                (answer.header, without_new_lease(lease, &key))
            })
        })
    }

    async fn locked(&mut self, what: &str, locking: JoinHandle<String>) -> Result<()> {
        let answer = timeout(ANSWER_TIMEOUT, locking).await;
        let answer = answer.with_context(|| format!("no answer to {what}"))??;
        self.note(what, &answer);
        Ok(())
    }

    async fn unlock(&mut self, key: &str) {
        let key = key.to_owned();
        let answer = self.lock.unlock(UnlockRequest {
            key: key.clone().into(),
        });
        let answer = shown(answer.await, |answer| (answer.header, String::new()));
        self.note(&format!("unlock {key}"), &answer);
    }

    fn campaigning(&self, name: &str, lease: i64, value: &str) -> JoinHandle<String> {
        let mut election = self.election.clone();
        let campaign = CampaignRequest {
            name: name.into(),
            lease,
            value: value.into(),
        };
        tokio::spawn(async move {
            let answer = election.campaign(campaign).await;
            shown(answer, |answer| {
                let leader = answer.leader.unwrap_or_default();
                (answer.header, shown_leader(lease, &leader))
            })
        })
    }

    async fn campaign(&mut self, name: &str, lease: i64, value: &str) -> Result<()> {
        let campaigning = self.campaigning(name, lease, value);
        self.locked(&format!("campaign {name} {lease:x} {value}"), campaigning)
            .await
    }

    async fn proclaim(&mut self, leader: Option<LeaderKey>, value: &str) {
        let what = format!("proclaim {leader:?} {value}");
        let value = value.into();
        let answer = self.election.proclaim(ProclaimRequest { leader, value });
        let answer = shown(answer.await, |answer| (answer.header, String::new()));
        self.note(&what, &answer);
    }

    async fn resign(&mut self, leader: Option<LeaderKey>) {
        let what = format!("resign {leader:?}");
        let answer = self.election.resign(ResignRequest { leader }).await;
        let answer = shown(answer, |answer| (answer.header, String::new()));
        self.note(&what, &answer);
    }

    async fn leader(&mut self, name: &str) {
        let answer = self.election.leader(LeaderRequest { name: name.into() });
        let answer = shown(answer.await, |answer| {
            (answer.header, format!("{:?}", answer.kv))
        });
        self.note(&format!("leader {name}"), &answer);
    }

    /// Waits until so many keys begin with the prefix, and notes them.
    async fn keys(&mut self, prefix: &str, count: i64) -> Result<()> {
        let mut end = prefix.as_bytes().to_vec();
        *end.last_mut().context("a prefix")? += 1;
        let range = RangeRequest {
            key: prefix.into(),
            range_end: end,
            ..RangeRequest::default()
        };
        let kv = &self.client.kv;
        let what = format!("{count} keys begin with {prefix}");
        let found = eventually(&what, || async {
            let answer = kv.clone().range(range.clone()).await?.into_inner();
            ensure!(answer.count == count, "{answer:?}");
            Ok(answer.kvs)
        })
        .await?;
        self.note(&what, &format!("{found:?}"));
        Ok(())
    }

    async fn delete(&mut self, key: &str) -> Result<()> {
        let delete = DeleteRangeRequest {
            key: key.into(),
            ..DeleteRangeRequest::default()
        };
        self.client.kv.delete_range(delete).await?;
        Ok(())
    }

    async fn put(&mut self, key: &str, value: &str) -> Result<()> {
        let put = PutRequest {
            key: key.into(),
            value: value.into(),
            ..PutRequest::default()
        };
        self.client.kv.put(put).await?;
        Ok(())
    }

    /// Notes the next leader that is observed.
    async fn observed(&mut self, leaders: &mut Streaming<LeaderResponse>) -> Result<()> {
        let next = timeout(ANSWER_TIMEOUT, leaders.message()).await;
        let next = next.context("no leader is observed")??;
        let next = next.context("the observation ended")?;
        let revision = next.header.map(|header| header.revision);
        self.note("observed", &format!("{revision:?} {:?}", next.kv));
        Ok(())
    }
}

/// An answer without what differs between servers.
fn shown<T>(
    answer: Result<tonic::Response<T>, Status>,
    parts: impl FnOnce(T) -> (Option<ResponseHeader>, String),
) -> String {
    match answer {
        Ok(answer) => {
            let (header, rest) = parts(answer.into_inner());
            let header = header.unwrap_or_default();
            let complete = header.cluster_id != 0 && header.member_id != 0 && header.raft_term > 0;
            format!("revision {} complete {complete} {rest}", header.revision)
        }
        Err(status) => format!("{:?}: {}", status.code(), status.message()),
    }
}

/// Whoever names no lease gets a new one, whose id is random.
fn without_new_lease(lease: i64, key: &str) -> String {
    match key.rsplit_once('/') {
        Some((name, id)) if lease == 0 && i64::from_str_radix(id, 16).is_ok() => {
            format!("{name}/<lease>")
        }
        _ => key.to_owned(),
    }
}

fn shown_leader(asked: i64, leader: &LeaderKey) -> String {
    let key = without_new_lease(asked, &String::from_utf8_lossy(&leader.key));
    let lease = if asked == 0 {
        leader.lease.min(1)
    } else {
        leader.lease
    };
    let name = String::from_utf8_lossy(&leader.name);
    format!("name {name} key {key} rev {} lease {lease:x}", leader.rev)
}

fn leader_key(name: &str, key: &str, rev: i64, lease: i64) -> Option<LeaderKey> {
    Some(LeaderKey {
        name: name.into(),
        key: key.into(),
        rev,
        lease,
    })
}

#[tokio::test]
async fn locks_are_etcds() -> Result<()> {
    same(async |asked| {
        asked.lock("l", 0xdead).await?;
        asked.lock("l", -1).await?;
        asked.lock("l", A).await?;
        asked.lock("l", A).await?;
        asked.lock("", B).await?;
        asked.lock("anonymous", 0).await?;
        asked.unlock("l/nobody").await;
        asked.unlock("").await;
        // Two wait; the second goes away.
        let second = asked.locking("l", B);
        asked.keys("l/", 2).await?;
        let third = asked.locking("l", C);
        asked.keys("l/", 3).await?;
        third.abort();
        asked.keys("l/", 2).await?;
        asked.unlock("l/1001").await;
        asked.locked("the next one's turn", second).await?;
        // The lease of one who waits ends.
        let waiting = asked.locking("l", D);
        asked.keys("l/", 2).await?;
        let revoke = LeaseRevokeRequest { id: D };
        asked.client.lease.lease_revoke(revoke).await?;
        asked.unlock("l/1002").await;
        asked.locked("whose lease has ended", waiting).await?;
        asked.keys("l/", 0).await?;
        // Anything under the name is in the queue.
        asked.put("by hand/anything", "").await?;
        let waiting = asked.locking("by hand", A);
        asked.keys("by hand/", 2).await?;
        asked.put("by hand/younger", "").await?;
        asked.put("by hand/anything", "again").await?;
        asked.delete("by hand/anything").await?;
        asked.locked("after a key of no lock", waiting).await
    })
    .await
}

#[tokio::test]
async fn a_lock_ends_with_its_deadline_and_leaves_no_key() -> Result<()> {
    same(async |asked| {
        asked.lock("l", A).await?;
        let mut request = Request::new(LockRequest {
            name: "l".into(),
            lease: B,
        });
        request.set_timeout(Duration::from_secs(2));
        let refused = asked.lock.lock(request).await;
        asked.note("refused", &format!("{}", refused.is_err()));
        asked.keys("l/", 1).await
    })
    .await
}

#[tokio::test]
async fn elections_are_etcds() -> Result<()> {
    same(async |asked| {
        asked.leader("e").await;
        asked.campaign("e", 0xdead, "x").await?;
        asked.resign(None).await;
        asked.proclaim(None, "x").await;
        asked.campaign("e", A, "one").await?;
        asked.campaign("e", A, "one").await?;
        asked.campaign("e", A, "uno").await?;
        asked.leader("e").await;
        asked.campaign("anonymous", 0, "x").await?;
        asked
            .proclaim(leader_key("e", "e/1001", 2, A), "eins")
            .await;
        asked
            .proclaim(leader_key("e", "e/1001", 3, A), "wrong")
            .await;
        asked.proclaim(leader_key("", "", 2, A), "empty").await;
        asked
            .proclaim(leader_key("", "e/1001", 2, A), "no name")
            .await;
        asked
            .proclaim(leader_key("e", "e/1001", 2, 0xdead), "no lease")
            .await;
        asked
            .proclaim(leader_key("e", "missing", 0, A), "as a put")
            .await;
        asked.leader("e").await;
        // The second waits, the third goes away.
        let second = asked.campaigning("e", B, "two");
        asked.keys("e/", 2).await?;
        let third = asked.campaigning("e", C, "three");
        asked.keys("e/", 3).await?;
        third.abort();
        asked.keys("e/", 2).await?;
        asked.resign(leader_key("e", "e/1001", 3, A)).await;
        asked.leader("e").await;
        asked.resign(leader_key("e", "e/1001", 2, A)).await;
        asked.locked("elected", second).await?;
        asked.leader("e").await;
        asked.resign(leader_key("", "", 0, A)).await;
        // Without its key, who waits is elected all the same.
        let waiting = asked.campaigning("e", D, "four");
        asked.keys("e/", 2).await?;
        let revoke = LeaseRevokeRequest { id: D };
        asked.client.lease.lease_revoke(revoke).await?;
        asked.delete("e/1002").await?;
        asked.locked("without its key", waiting).await
    })
    .await
}

#[tokio::test]
async fn who_leads_is_observed_as_with_etcd() -> Result<()> {
    same(async |asked| {
        let request = LeaderRequest { name: "e".into() };
        // A real etcd says nothing at all before there is a leader.
        let (mut election, nobody_yet) = (asked.election.clone(), request.clone());
        let observing = tokio::spawn(async move { election.observe(nobody_yet).await });
        asked.campaign("e", A, "one").await?;
        let mut leaders = timeout(ANSWER_TIMEOUT, observing).await???.into_inner();
        asked.observed(&mut leaders).await?;
        asked.proclaim(leader_key("e", "e/1001", 2, A), "uno").await;
        asked.observed(&mut leaders).await?;
        asked
            .proclaim(leader_key("e", "e/1001", 2, A), "eins")
            .await;
        asked.observed(&mut leaders).await?;
        let second = asked.campaigning("e", B, "two");
        asked.keys("e/", 2).await?;
        asked.resign(leader_key("e", "e/1001", 2, A)).await;
        asked.observed(&mut leaders).await?;
        asked.locked("elected", second).await?;
        let mut late = asked.election.observe(request).await?.into_inner();
        asked.observed(&mut late).await?;
        asked.delete("e/1002").await?;
        asked.campaign("e", C, "three").await?;
        asked.observed(&mut late).await?;
        asked.observed(&mut leaders).await
    })
    .await
}

#[tokio::test]
async fn etcdctls_locks_and_elections() -> Result<()> {
    let mut pair = Pair::start().await?;
    pair.script(
        r#"
        lock the-lock echo held
        lock the-lock --ttl 5 -- sh -c "exit 3"
        lock the-lock etcdctl-of-nobody
        lock
        until "the-lock/" lock the-lock --ttl 2
        elect the-race
        elect -l
    "#,
    )
    .await?;
    let mut holder = pair.spawn("lock the-lock --ttl 2")?;
    pair.printed(&mut holder, "the-lock/").await?;
    let mut waiting = pair.spawn("lock the-lock echo at last")?;
    let mut listening = pair.spawn("elect -l the-race")?;
    let mut leading = pair.spawn("elect the-race second")?;
    pair.printed(&mut leading, "second").await?;
    pair.printed(&mut listening, "second").await?;
    pair.end(leading)?;
    pair.end(listening)?;
    // It is killed: its lease has to end first.
    pair.end(holder)?;
    pair.printed(&mut waiting, "at last").await?;
    pair.end(waiting)?;
    pair.finish().await
}
