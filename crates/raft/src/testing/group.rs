//! A group of members in one process, on disks and links that can be told to fail.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use backend::engine::Loss;
use types::MemberId;

use super::net::{Link, Net, url};
use super::{Disks, Member, backend, config};
use crate::{Config, Peer};

/// How long anything may take on a machine that is busy.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

pub(crate) struct Group {
    pub(crate) net: Arc<Net>,
    members: Vec<Option<Member>>,
    pub(crate) disks: Vec<Disks>,
    pub(crate) adjust: fn(&mut Config),
}

pub(crate) fn id(number: usize) -> MemberId {
    MemberId(0x8e9e_05c5_2164_0000 + number as u64 + 1)
}

/// Waits until something holds.
pub(crate) async fn eventually<T, F: Future<Output = Option<T>>>(
    what: &str,
    mut check: impl FnMut() -> F,
) -> T {
    let holds = async {
        loop {
            if let Some(found) = check().await {
                return found;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    let held = tokio::time::timeout(PATIENCE, holds).await;
    held.unwrap_or_else(|_elapsed| panic!("not in time: {what}"))
}

impl Group {
    /// So many members of a new cluster, none of which runs.
    pub(crate) fn prepare(members: usize, seed: u64, adjust: fn(&mut Config)) -> Self {
        let disks = (0..members)
            .map(|number| Disks::new(seed * 16 + number as u64))
            .collect();
        Self {
            net: Arc::default(),
            members: (0..members).map(|_| None).collect(),
            disks,
            adjust,
        }
    }

    /// Starts so many members of a new cluster.
    pub(crate) async fn start(members: usize, seed: u64) -> Self {
        Self::start_with(members, seed, |_config| {}).await
    }

    pub(crate) async fn start_with(members: usize, seed: u64, adjust: fn(&mut Config)) -> Self {
        let mut group = Self::prepare(members, seed, adjust);
        for number in 0..members {
            group.begin(number).await;
        }
        group
    }

    /// Starts a member on its disks.
    pub(crate) async fn begin(&mut self, number: usize) {
        self.begin_with(number, |_config| {}).await;
    }

    /// Starts a member that is or will be added, on the disks it has or on new ones.
    pub(crate) async fn join(&mut self, number: usize) {
        while self.disks.len() <= number {
            self.disks.push(Disks::new(1000 + self.disks.len() as u64));
            self.members.push(None);
        }
        self.begin_with(number, |config| config.initial_members = Vec::new())
            .await;
    }

    pub(crate) async fn begin_with(&mut self, number: usize, change: impl FnOnce(&mut Config)) {
        let mut config = Config {
            member: id(number),
            initial_members: (0..self.members.len())
                .map(|number| Peer {
                    id: id(number),
                    name: format!("member-{number}"),
                    peer_urls: vec![url(number)],
                })
                .collect(),
            ..config()
        };
        (self.adjust)(&mut config);
        change(&mut config);
        let disks = &self.disks[number];
        let (log, state) = (backend(&disks.log), disks.state.open().unwrap());
        let member = Member::among(log, state, config, self.net.dialer(number)).await;
        self.net.serve(number, member.node.peer_service());
        self.members[number] = Some(member);
    }

    /// The power of a member fails.
    pub(crate) fn kill(&mut self, number: usize, loss: Loss) {
        self.net.unplug(number);
        self.disks[number] = self.disks[number].crash(loss);
        self.members[number] = None;
    }

    pub(crate) fn len(&self) -> usize {
        self.members.len()
    }

    pub(crate) fn member(&self, number: usize) -> &Member {
        self.members[number].as_ref().expect("it is running")
    }

    pub(crate) fn running(&self) -> impl Iterator<Item = (usize, &Member)> {
        self.members
            .iter()
            .enumerate()
            .filter_map(|(number, member)| Some((number, member.as_ref()?)))
    }

    /// Cuts a member off, or connects it again.
    pub(crate) fn isolate(&self, number: usize, link: Link) {
        self.net.set_all(number, self.len(), link);
    }

    /// Waits until all of these agree on one leader among them.
    pub(crate) async fn leader_among(&self, numbers: &[usize]) -> usize {
        eventually("a leader", || async {
            let mut seen = numbers
                .iter()
                .map(|number| self.member(*number).node.status());
            let first = seen.next()?;
            let agreed = seen.all(|other| (other.leader, other.term) == (first.leader, first.term));
            let leader = numbers
                .iter()
                .find(|number| Some(id(**number)) == first.leader);
            leader.copied().filter(|_| agreed)
        })
        .await
    }

    pub(crate) async fn leader(&self) -> usize {
        let running: Vec<usize> = self.running().map(|(number, _)| number).collect();
        self.leader_among(&running).await
    }

    pub(crate) async fn stop(self) {
        for (_, member) in self.running() {
            member.node.stop().await;
        }
    }
}
