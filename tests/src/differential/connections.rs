//! Several connections at once, each with keys, leases, locks, elections, users and roles of its own, and each
//! with a stream of requests of its own, to kvorum and to a real etcd.
//!
//! In which order the requests of different connections are carried out is chance, so revisions are. What is
//! compared are the answers of each connection by itself: a revision counts as the number of the connection's
//! own changes up to it. With authentication on, each connection is another user, and now and then asks for
//! what is not its own.

mod localise;
mod services;

use std::fmt::Debug;
use std::sync::Arc;

use anyhow::{Context as _, Result, ensure};
use api::etcdserverpb as pb;
use api::mvccpb::{Event, KeyValue};
use api::v3electionpb::LeaderKey;
use pb::request_op::Request as Op;
use pb::response_op::Response as OpAnswer;
use prost::Message;
use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};
use testkit::{Server, note};
use tokio::sync::Mutex;

use super::caller::{Caller, Method, Outcome, Watch, Wire};
use super::generate::{Generator, Request};
use super::{exchange, normalise};
use localise::{Place, prefix_end};

/// Over the gateway a request of this size is refused in other words, by other limits.
const JSON_REQUEST_BYTES_MAX: usize = 1 << 20;

pub(super) const RANGE: Method = Method("/etcdserverpb.KV/Range", "/v3/kv/range");
const PUT: Method = Method("/etcdserverpb.KV/Put", "/v3/kv/put");
const DELETE_RANGE: Method = Method("/etcdserverpb.KV/DeleteRange", "/v3/kv/deleterange");
const TXN: Method = Method("/etcdserverpb.KV/Txn", "/v3/kv/txn");
const GRANT: Method = Method("/etcdserverpb.Lease/LeaseGrant", "/v3/lease/grant");
const REVOKE: Method = Method("/etcdserverpb.Lease/LeaseRevoke", "/v3/lease/revoke");
const KEEP_ALIVE: Method = Method("/etcdserverpb.Lease/LeaseKeepAlive", "/v3/lease/keepalive");
const TIME_TO_LIVE: Method = Method(
    "/etcdserverpb.Lease/LeaseTimeToLive",
    "/v3/lease/timetolive",
);
const LEASES: Method = Method("/etcdserverpb.Lease/LeaseLeases", "/v3/lease/leases");

/// Whether there are users.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Users {
    /// Authentication is off.
    None,
    /// Every connection is a user with rights to its own keys.
    OneEach,
}

/// What is run.
#[derive(Debug, Clone, Copy)]
pub struct Plan {
    /// How many connections.
    pub connections: u64,
    /// How many requests on each.
    pub requests: u64,
    /// How they are sent.
    pub wire: Wire,
    /// By whom.
    pub users: Users,
}

/// Runs all connections of a plan at once.
///
/// # Errors
/// At the first answer that differs: with the seed, the connection, the request and both answers.
pub async fn run(kvorum: &Server, etcd: &Server, seed: u64, plan: Plan) -> Result<()> {
    let servers = [kvorum, etcd];
    if plan.users == Users::OneEach {
        for server in servers {
            services::set_up(server, plan.connections).await?;
        }
    }
    let mut all = Vec::new();
    let member_change = Arc::new(Mutex::new(()));
    for number in 0..plan.connections {
        let alone = Arc::clone(&member_change);
        let connection = Connection::open(servers, seed, number, plan, alone).await?;
        all.push(connection.run(plan));
    }
    let counts = futures_util::future::try_join_all(all).await;
    note(format_args!("seed {seed}, {plan:?}: {:?}", counts?));
    Ok(())
}

/// One connection to each server.
struct Connection {
    number: u64,
    users: Users,
    rng: StdRng,
    generator: Generator,
    place: Place,
    sides: [Side; 2],
    /// What the last campaign has said.
    leader: Option<LeaderKey>,
    /// Who changes members: an etcd never answers the second of two that overlap, because its raft drops a change
    /// that is proposed while another one is not applied.
    member_change: Arc<Mutex<()>>,
    counts: Counts,
}

/// How much of what came of it.
#[derive(Debug, Default)]
struct Counts {
    refused: u64,
    changes: usize,
    events: usize,
}

/// What is known of one server.
struct Side {
    caller: Caller,
    watch: Watch,
    /// The revisions of the connection's changes.
    changes: Vec<i64>,
    /// The revision of the last answer that did not say whether it was of a change.
    answered_at: i64,
}

impl Connection {
    async fn open(
        servers: [&Server; 2],
        seed: u64,
        number: u64,
        plan: Plan,
        member_change: Arc<Mutex<()>>,
    ) -> Result<Connection> {
        let seed = seed.wrapping_add(number);
        let place = Place::new(number);
        let mut sides = Vec::new();
        for server in servers {
            let mut caller = Caller::connect(server, plan.wire).await?;
            if plan.users == Users::OneEach {
                caller.log_in(&services::user(number), "pass").await?;
            }
            let create = pb::WatchCreateRequest {
                key: place.prefix().to_vec(),
                range_end: prefix_end(place.prefix()),
                prev_kv: true,
                ..Default::default()
            };
            let mut watch = caller.watch(create).await?;
            ensure!(watch.next().await?.created, "the watcher was not made");
            sides.push(Side {
                caller,
                watch,
                changes: Vec::new(),
                answered_at: 0,
            });
        }
        let sides = sides.try_into().ok().context("two servers")?;
        Ok(Connection {
            number,
            users: plan.users,
            rng: StdRng::seed_from_u64(seed),
            generator: Generator::new(seed),
            place,
            sides,
            leader: None,
            member_change,
            counts: Counts::default(),
        })
    }

    async fn run(mut self, plan: Plan) -> Result<Counts> {
        for at in 0..plan.requests {
            let stepped = self.step(plan.wire).await;
            stepped.with_context(|| format!("connection {}, request {at}", self.number))?;
        }
        let events = self.compare_events().await;
        events.with_context(|| format!("connection {}, its events", self.number))?;
        self.counts.changes = self.sides[0].changes.len();
        Ok(self.counts)
    }

    async fn step(&mut self, wire: Wire) -> Result<()> {
        let place = match self.users {
            // Of somebody else.
            Users::OneEach if self.rng.random_ratio(1, 12) => {
                self.place.with_keys_of(self.number + 1)
            }
            _ => self.place.clone(),
        };
        if self.rng.random_ratio(1, 8) {
            let request = services::pick(&mut self.rng, &place, self.users);
            let text = format!("{request:?}");
            return self.service(request).await.context(text);
        }
        let mut request = self.generator.next();
        if wire == Wire::Json && size(&request) > JSON_REQUEST_BYTES_MAX {
            return Ok(());
        }
        place.localise(&mut request);
        let text = format!("{request:?}");
        let shown: String = text.chars().take(super::REQUEST_SHOWN).collect();
        self.keys_or_leases(request).await.context(shown)
    }

    async fn keys_or_leases(&mut self, request: Request) -> Result<()> {
        match request {
            Request::Range(it) => self
                .both(RANGE, &it, Side::range_at, Side::range)
                .await
                .map(drop),
            Request::Put(it) => self
                .both(PUT, &it, Side::as_it_is, Side::put)
                .await
                .map(drop),
            Request::DeleteRange(it) => {
                let deleted = self.both(DELETE_RANGE, &it, Side::as_it_is, Side::delete_range);
                deleted.await.map(drop)
            }
            Request::Txn(it) => self.both(TXN, &it, Side::txn_at, Side::txn).await.map(drop),
            other => self.leases(other).await,
        }
    }

    async fn leases(&mut self, request: Request) -> Result<()> {
        match request {
            Request::LeaseGrant(it) => {
                let granted = |side: &mut Side, _: &_, answer: &mut pb::LeaseGrantResponse| {
                    side.header(&mut answer.header)
                };
                self.both(GRANT, &it, Side::as_it_is, granted)
                    .await
                    .map(drop)
            }
            Request::LeaseTimeToLive(it) => {
                let asked = self.both(TIME_TO_LIVE, &it, Side::as_it_is, Side::time_to_live);
                asked.await.map(drop)
            }
            Request::LeaseKeepAlive(id) => {
                let kept = |side: &mut Side, _: &_, answer: &mut pb::LeaseKeepAliveResponse| {
                    side.header(&mut answer.header)
                };
                let it = pb::LeaseKeepAliveRequest { id };
                self.both(KEEP_ALIVE, &it, Side::as_it_is, kept)
                    .await
                    .map(drop)
            }
            Request::LeaseRevoke(it) => self.revoke(it).await,
            // With users, it depends on what others have attached to theirs.
            Request::LeaseLeases if self.users == Users::None => {
                let place = self.place.clone();
                let own = move |side: &mut Side, _: &_, answer: &mut pb::LeaseLeasesResponse| {
                    answer.leases.retain(|lease| place.has_lease(lease.id));
                    answer.leases.sort_by_key(|lease| lease.id);
                    side.header(&mut answer.header)
                };
                let it = pb::LeaseLeasesRequest {};
                self.both(LEASES, &it, Side::as_it_is, own).await.map(drop)
            }
            // What concerns everybody is the other test's.
            _ => Ok(()),
        }
    }

    /// Asks both servers at the same time, and compares. `ask` makes the request of one server out of the one
    /// of both; `answered` makes an answer comparable.
    async fn both<Q, R>(
        &mut self,
        method: Method,
        request: &Q,
        ask: impl Fn(&Side, &Q) -> Q,
        answered: impl Fn(&mut Side, &Q, &mut R) -> Result<()>,
    ) -> Result<Outcome<R>>
    where
        Q: Message + Clone + 'static,
        R: Message + Default + Debug + PartialEq + 'static,
    {
        let [kvorum, etcd] = &self.sides;
        let requests = [ask(kvorum, request), ask(etcd, request)];
        let answers: (Outcome<R>, Outcome<R>) = tokio::try_join!(
            async {
                timed(kvorum.caller.call(method, &requests[0]))
                    .await
                    .context("kvorum")
            },
            async {
                timed(etcd.caller.call(method, &requests[1]))
                    .await
                    .context("etcd")
            }
        )?;
        let mut seen = Vec::new();
        for (side, mut answer) in self.sides.iter_mut().zip([answers.0, answers.1]) {
            if let Ok(answer) = &mut answer {
                answered(side, request, answer).with_context(|| format!("{answer:?}"))?;
            }
            seen.push(answer);
        }
        if let Err(error) = &mut seen[1] {
            *error = as_since_3_6(error);
        }
        ensure!(
            seen[0] == seen[1],
            "answers differ\nkvorum: {:?}\netcd:   {:?}",
            seen[0],
            seen[1]
        );
        self.counts.refused += u64::from(seen[0].is_err());
        self.learn()?;
        Ok(seen.swap_remove(0))
    }

    /// The generator counts in changes, too.
    fn learn(&mut self) -> Result<()> {
        let [kvorum, etcd] = &self.sides;
        let changes = kvorum.changes.len();
        ensure!(changes == etcd.changes.len(), "not as many changes");
        self.generator.learn(&exchange::Answer {
            revision: Some(ordinal(changes)),
            ..Default::default()
        });
        Ok(())
    }

    /// Whether keys go with a lease, its answer does not say.
    async fn revoke(&mut self, request: pb::LeaseRevokeRequest) -> Result<()> {
        let before = self.own_keys().await?;
        let leased = move |kv: &KeyValue| kv.lease == request.id;
        let deletes: Vec<bool> = before.iter().map(|kvs| kvs.iter().any(leased)).collect();
        ensure!(deletes[0] == deletes[1], "keys of the lease differ");
        let deletes = deletes[0];
        let answered = |side: &mut Side, _: &_, answer: &mut pb::LeaseRevokeResponse| {
            if deletes {
                side.changed(answer.header.as_ref())?;
            }
            side.header(&mut answer.header)
        };
        let revoked = self.both(REVOKE, &request, Side::as_it_is, answered);
        revoked.await.map(drop)
    }

    /// All keys of the connection, as each server has them.
    async fn own_keys(&self) -> Result<Vec<Vec<KeyValue>>> {
        let request = pb::RangeRequest {
            key: self.place.prefix().to_vec(),
            range_end: prefix_end(self.place.prefix()),
            ..Default::default()
        };
        let mut all = Vec::new();
        for side in &self.sides {
            let answer: Outcome<pb::RangeResponse> = side.caller.call(RANGE, &request).await?;
            all.push(answer.map_err(anyhow::Error::msg)?.kvs);
        }
        Ok(all)
    }

    /// Every change made events, and both servers have sent the same ones.
    async fn compare_events(&mut self) -> Result<()> {
        let mut seen = Vec::new();
        for side in &mut self.sides {
            let last = side.changes.last().copied().unwrap_or(0);
            let mut events = Vec::new();
            let mut reached = 0;
            while reached < last {
                reached = side.take_events(&mut events).await?.max(reached);
            }
            seen.push(events);
        }
        let same = seen[0].iter().zip(&seen[1]).position(|(a, b)| a != b);
        if let Some(at) = same {
            let (kvorum, etcd) = (&seen[0][at], &seen[1][at]);
            anyhow::bail!("event {at} differs\nkvorum: {kvorum:?}\netcd:   {etcd:?}");
        }
        ensure!(seen[0].len() == seen[1].len(), "not as many events");
        self.counts.events = seen[0].len();
        Ok(())
    }
}

/// What a revision counts as: 1 before the first change.
fn ordinal(changes: usize) -> i64 {
    i64::try_from(changes).expect("a run is short") + 1
}

impl Side {
    /// Adds the next events, and says up to which revision they are.
    async fn take_events(&mut self, events: &mut Vec<Event>) -> Result<i64> {
        let response = timed(self.watch.next()).await?;
        ensure!(!response.canceled, "canceled: {response:?}");
        let mut reached = 0;
        for mut event in response.events {
            for kv in event.kv.iter_mut().chain(&mut event.prev_kv) {
                reached = reached.max(kv.mod_revision);
                self.kv(kv)?;
            }
            events.push(event);
        }
        Ok(reached)
    }

    /// The first change after `last`, asked of the history.
    async fn change_after(&self, prefix: &[u8], last: i64) -> Result<i64> {
        let create = pb::WatchCreateRequest {
            key: prefix.to_vec(),
            range_end: prefix_end(prefix),
            start_revision: last + 1,
            ..Default::default()
        };
        let mut watch = self.caller.watch(create).await?;
        loop {
            let response = timed(watch.next()).await?;
            ensure!(!response.canceled, "canceled: {response:?}");
            if let Some(kv) = response.events.first().and_then(|event| event.kv.as_ref()) {
                return Ok(kv.mod_revision);
            }
        }
    }

    fn as_it_is<Q: Clone>(&self, request: &Q) -> Q {
        request.clone()
    }

    /// The revision of a change.
    fn at(&self, ordinal: i64) -> i64 {
        /// Later than anything in a run.
        const FUTURE: i64 = 1 << 50;
        match usize::try_from(ordinal) {
            Err(_) | Ok(0) => ordinal,
            Ok(1) => self.changes.first().map_or(1, |first| first - 1),
            Ok(number) => match self.changes.get(number - 2) {
                Some(&revision) => revision,
                None => ordinal.max(FUTURE),
            },
        }
    }

    fn range_at(&self, request: &pb::RangeRequest) -> pb::RangeRequest {
        pb::RangeRequest {
            revision: self.at(request.revision),
            min_mod_revision: self.at(request.min_mod_revision),
            max_mod_revision: self.at(request.max_mod_revision),
            min_create_revision: self.at(request.min_create_revision),
            max_create_revision: self.at(request.max_create_revision),
            ..request.clone()
        }
    }

    fn txn_at(&self, request: &pb::TxnRequest) -> pb::TxnRequest {
        use pb::compare::TargetUnion;
        let mut request = request.clone();
        for compare in &mut request.compare {
            if let Some(TargetUnion::CreateRevision(at) | TargetUnion::ModRevision(at)) =
                &mut compare.target_union
            {
                *at = self.at(*at);
            }
        }
        for op in request.success.iter_mut().chain(&mut request.failure) {
            match &mut op.request {
                Some(Op::RequestRange(range)) => *range = self.range_at(range),
                Some(Op::RequestTxn(txn)) => *txn = self.txn_at(txn),
                _ => {}
            }
        }
        request
    }

    /// Notes a change that the connection has made.
    fn changed(&mut self, header: Option<&pb::ResponseHeader>) -> Result<()> {
        self.changed_at(header.context("a response has a header")?.revision)
    }

    fn changed_at(&mut self, revision: i64) -> Result<()> {
        let last = self.changes.last().copied().unwrap_or(0);
        ensure!(
            revision > last,
            "a change at {revision} after one at {last}"
        );
        self.changes.push(revision);
        Ok(())
    }

    fn header(&self, header: &mut Option<pb::ResponseHeader>) -> Result<()> {
        normalise::header(header);
        if let Some(header) = header
            && header.revision > 0
        {
            let last = self.changes.last().copied().unwrap_or(0);
            ensure!(
                header.revision >= last,
                "at {} after a change at {last}",
                header.revision
            );
            header.revision = ordinal(self.changes.len());
        }
        Ok(())
    }

    fn kv(&self, kv: &mut KeyValue) -> Result<()> {
        for revision in [&mut kv.create_revision, &mut kv.mod_revision] {
            // A delete's event has no create revision.
            if *revision != 0 {
                *revision = self.ordinal_of(*revision)?;
            }
        }
        Ok(())
    }

    fn ordinal_of(&self, revision: i64) -> Result<i64> {
        let place = self.changes.binary_search(&revision);
        let place = place
            .ok()
            .with_context(|| format!("not a change: {revision}"))?;
        Ok(ordinal(place + 1))
    }

    fn range(&mut self, request: &pb::RangeRequest, answer: &mut pb::RangeResponse) -> Result<()> {
        answer.kvs.iter_mut().try_for_each(|kv| self.kv(kv))?;
        self.header(&mut answer.header)?;
        normalise::range(request, answer);
        Ok(())
    }

    fn put(&mut self, _: &pb::PutRequest, answer: &mut pb::PutResponse) -> Result<()> {
        self.changed(answer.header.as_ref())?;
        answer.prev_kv.iter_mut().try_for_each(|kv| self.kv(kv))?;
        self.header(&mut answer.header)
    }

    fn delete_range(
        &mut self,
        _: &pb::DeleteRangeRequest,
        answer: &mut pb::DeleteRangeResponse,
    ) -> Result<()> {
        if answer.deleted > 0 {
            self.changed(answer.header.as_ref())?;
        }
        answer.prev_kvs.iter_mut().try_for_each(|kv| self.kv(kv))?;
        self.header(&mut answer.header)
    }

    fn txn(&mut self, request: &pb::TxnRequest, answer: &mut pb::TxnResponse) -> Result<()> {
        if writes(answer) {
            self.changed(answer.header.as_ref())?;
        }
        self.txn_inside(answer)?;
        self.header(&mut answer.header)?;
        normalise::txn(request, answer);
        Ok(())
    }

    fn txn_inside(&self, answer: &mut pb::TxnResponse) -> Result<()> {
        for op in &mut answer.responses {
            let (kvs, header) = match &mut op.response {
                Some(OpAnswer::ResponseRange(it)) => (it.kvs.as_mut_slice(), &mut it.header),
                Some(OpAnswer::ResponsePut(it)) => (it.prev_kv.as_mut_slice(), &mut it.header),
                Some(OpAnswer::ResponseDeleteRange(it)) => {
                    (it.prev_kvs.as_mut_slice(), &mut it.header)
                }
                Some(OpAnswer::ResponseTxn(it)) => {
                    self.txn_inside(it)?;
                    (&mut [][..], &mut it.header)
                }
                None => continue,
            };
            kvs.iter_mut().try_for_each(|kv| self.kv(kv))?;
            if let Some(header) = header {
                // It says something only of reads.
                header.revision = 0;
            }
        }
        Ok(())
    }

    fn time_to_live(
        &mut self,
        _: &pb::LeaseTimeToLiveRequest,
        answer: &mut pb::LeaseTimeToLiveResponse,
    ) -> Result<()> {
        self.header(&mut answer.header)?;
        normalise::time_to_live(answer);
        Ok(())
    }
}

/// etcd 3.5 lets some errors of its Maintenance service out as they are inside; 3.6 does not.
fn as_since_3_6(error: &str) -> String {
    let inside = "Unknown: auth: permission denied";
    let outside = "PermissionDenied: etcdserver: permission denied";
    error
        .replace(
            &format!("500 Internal Server Error {inside}"),
            &format!("403 Forbidden {outside}"),
        )
        .replace(inside, outside)
}

fn writes(answer: &pb::TxnResponse) -> bool {
    answer.responses.iter().any(|op| match &op.response {
        Some(OpAnswer::ResponsePut(_)) => true,
        Some(OpAnswer::ResponseDeleteRange(answer)) => answer.deleted > 0,
        Some(OpAnswer::ResponseTxn(answer)) => writes(answer),
        Some(OpAnswer::ResponseRange(_)) | None => false,
    })
}

fn size(request: &Request) -> usize {
    match request {
        Request::Put(put) => put.encoded_len(),
        Request::Txn(txn) => txn.encoded_len(),
        _ => 0,
    }
}

async fn timed<T>(asked: impl Future<Output = Result<T>>) -> Result<T> {
    let patience = testkit::patience::patience();
    let answer = tokio::time::timeout(patience, asked).await;
    answer.context("no answer in time")?
}
