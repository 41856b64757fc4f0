//! What is done to the cluster, in the order that the seed gives.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context as _, Result};
use nix::sys::signal::Signal;
use rand::rngs::StdRng;
use rand::seq::{IndexedRandom as _, SliceRandom as _};
use rand::{Rng as _, SeedableRng as _};
use testkit::Cluster;
use testkit::cluster::Role;
use testkit::network::{Fault, Network};
use tokio::sync::watch;
use tokio::time::Instant;

use super::Target;

/// How long a fault lasts.
const FAULT: std::ops::Range<Duration> = Duration::from_millis(200)..Duration::from_millis(2500);
/// How long the cluster is left alone before the next.
const PEACE: std::ops::Range<Duration> = Duration::from_millis(50)..Duration::from_millis(500);
/// And where acknowledged writes are what is waited for.
const PEACE_FOR_WRITES: std::ops::Range<Duration> = Duration::from_secs(2)..Duration::from_secs(3);
/// A member that hardly runs: it is stopped for most of the time, in turns of so long.
const LIMP: Duration = Duration::from_millis(40);

/// Which faults there are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    /// Links, processes, disks.
    Faults,
    /// And members that are removed, lose their disk, and are added.
    FaultsAndMembers,
    /// Disks that lie about syncs, and power that fails everywhere: acknowledged writes will be
    /// lost, and the checkers have to say so.
    LyingDisks,
}

/// One thing that is done to the cluster.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    CutMinority,
    CutLeader,
    LeaderIsNotHeard,
    LeaderDoesNotHear,
    OneLink,
    Delay,
    Throttle,
    KillLeader,
    KillMinority,
    KillAll,
    /// And it is back before anybody has missed it.
    BounceLeader,
    StopLeader,
    StopMinority,
    Terminate,
    FullDisk,
    SlowMember,
    SlowDisk,
    PowerFails,
    PowerFailsEverywhere,
    ReplaceMember,
}

/// What can be done to any program.
const KINDS: [Kind; 16] = [
    Kind::CutMinority,
    Kind::CutLeader,
    Kind::LeaderIsNotHeard,
    Kind::LeaderDoesNotHear,
    Kind::OneLink,
    Kind::Delay,
    Kind::Throttle,
    Kind::KillLeader,
    Kind::KillMinority,
    Kind::KillAll,
    Kind::BounceLeader,
    Kind::StopLeader,
    Kind::StopMinority,
    Kind::Terminate,
    Kind::FullDisk,
    Kind::SlowMember,
];

/// And what takes a disk that can fail.
const KINDS_OF_DISKS: [Kind; 3] = [Kind::SlowDisk, Kind::PowerFails, Kind::PowerFailsEverywhere];

pub(super) struct Faults {
    cluster: Cluster,
    network: Network,
    rng: StdRng,
    scope: Scope,
    targets: watch::Sender<Vec<Target>>,
    story: Vec<String>,
}

impl Faults {
    pub(super) fn new(cluster: Cluster, seed: u64, scope: Scope) -> Result<Faults> {
        let network = cluster.network()?.clone();
        let faults = Faults {
            cluster,
            network,
            rng: StdRng::seed_from_u64(seed),
            scope,
            targets: watch::Sender::new(Vec::new()),
            story: Vec::new(),
        };
        for at in faults.cluster.present() {
            faults.announce(at)?;
            if scope == Scope::LyingDisks {
                faults.cluster.member(at).disk()?.lie()?;
            }
        }
        Ok(faults)
    }

    pub(super) fn targets(&self) -> watch::Receiver<Vec<Target>> {
        self.targets.subscribe()
    }

    pub(super) fn cluster(&self) -> &Cluster {
        &self.cluster
    }

    pub(super) fn into_cluster(self) -> Cluster {
        self.cluster
    }

    pub(super) fn count(&self) -> usize {
        self.story.len()
    }

    /// What was done, for the report of a failure.
    pub(super) fn story(&self) -> String {
        format!("what was done:\n  {}", self.story.join("\n  "))
    }

    /// One fault after the other; every kind once before any comes again. The cluster has to
    /// recover from each within the tests' patience.
    pub(super) async fn run(&mut self, duration: Duration) -> Result<()> {
        let started = Instant::now();
        let mut left: Vec<Kind> = Vec::new();
        while started.elapsed() < duration {
            let peace = self.rng.random_range(self.peace());
            tokio::time::sleep(peace).await;
            if left.is_empty() {
                left = self.kinds();
                left.shuffle(&mut self.rng);
            }
            let Some(kind) = left.pop() else { continue };
            let lasts = self.rng.random_range(FAULT);
            let victims = self.victims(kind).await?;
            self.story.push(format!(
                "{:?}: {kind:?} {victims:?} for {lasts:?}",
                started.elapsed()
            ));
            let done = self.inflict(kind, &victims, lasts).await;
            done.with_context(|| format!("{kind:?} {victims:?}"))?;
            self.recover()
                .await
                .with_context(|| format!("after {kind:?} {victims:?}"))?;
        }
        Ok(())
    }

    /// How long the cluster is left alone before a fault.
    fn peace(&self) -> std::ops::Range<Duration> {
        match self.scope {
            Scope::LyingDisks => PEACE_FOR_WRITES,
            _ => PEACE,
        }
    }

    fn kinds(&self) -> Vec<Kind> {
        let mut kinds = KINDS.to_vec();
        if self.cluster.member(0).disk().is_ok() {
            kinds.extend(KINDS_OF_DISKS);
        }
        match self.scope {
            Scope::Faults => {}
            Scope::FaultsAndMembers => kinds.extend([Kind::ReplaceMember; 2]),
            Scope::LyingDisks => kinds = vec![Kind::PowerFailsEverywhere],
        }
        kinds
    }

    /// Who it is done to: the leader, everybody, or a random minority.
    async fn victims(&mut self, kind: Kind) -> Result<Vec<usize>> {
        let mut present = self.cluster.present();
        match kind {
            Kind::CutLeader
            | Kind::LeaderIsNotHeard
            | Kind::LeaderDoesNotHear
            | Kind::KillLeader
            | Kind::BounceLeader
            | Kind::StopLeader => Ok(vec![self.cluster.leader().await?]),
            Kind::KillAll | Kind::PowerFailsEverywhere => Ok(present),
            Kind::OneLink => {
                present.shuffle(&mut self.rng);
                present.truncate(2);
                Ok(present)
            }
            Kind::Delay | Kind::Throttle | Kind::ReplaceMember | Kind::FullDisk => {
                let one = present.choose(&mut self.rng).copied();
                Ok(one.into_iter().collect())
            }
            _ => {
                let minority = (present.len() - 1) / 2;
                let count = self.rng.random_range(1..=minority.max(1));
                present.shuffle(&mut self.rng);
                present.truncate(count);
                Ok(present)
            }
        }
    }

    async fn inflict(&mut self, kind: Kind, victims: &[usize], lasts: Duration) -> Result<()> {
        let present = self.cluster.present();
        let others: Vec<usize> = present
            .into_iter()
            .filter(|at| !victims.contains(at))
            .collect();
        match kind {
            Kind::CutMinority | Kind::CutLeader => {
                let fault = self.cut();
                self.network.between(victims, &others, fault);
            }
            Kind::LeaderIsNotHeard => {
                let fault = self.cut();
                self.one_way(victims, &others, fault);
            }
            Kind::LeaderDoesNotHear => {
                let fault = self.cut();
                self.one_way(&others, victims, fault);
            }
            Kind::OneLink => {
                let fault = self.cut();
                self.network.between(&victims[..1], &victims[1..], fault);
            }
            Kind::Delay => {
                let delay = Duration::from_millis(self.rng.random_range(20..400));
                self.network.between(victims, &others, Fault::Delay(delay));
            }
            Kind::Throttle => {
                let rate = self.rng.random_range(20_000..500_000);
                self.network
                    .between(victims, &others, Fault::Throttle(rate));
            }
            Kind::BounceLeader => return self.kill(victims),
            Kind::KillLeader | Kind::KillMinority | Kind::KillAll => self.kill(victims)?,
            Kind::StopLeader | Kind::StopMinority => self.signal(victims, Signal::SIGSTOP)?,
            Kind::Terminate => self.terminate(victims).await?,
            Kind::FullDisk => {
                for &at in victims {
                    self.cluster.member(at).fill_disk()?;
                }
            }
            Kind::SlowDisk => {
                let delay = Duration::from_millis(self.rng.random_range(20..300));
                for &at in victims {
                    self.cluster.member(at).disk()?.slow(delay)?;
                }
            }
            Kind::PowerFails | Kind::PowerFailsEverywhere => self.fail_power(victims)?,
            Kind::SlowMember => return self.limp(victims, lasts).await,
            Kind::ReplaceMember => return self.replace(victims[0]).await,
        }
        tokio::time::sleep(lasts).await;
        Ok(())
    }

    /// One of the ways in which a link carries nothing.
    fn cut(&mut self) -> Fault {
        let ways = [Fault::Drop, Fault::Drop, Fault::Hold, Fault::Reset];
        ways.choose(&mut self.rng).copied().unwrap_or(Fault::Drop)
    }

    fn one_way(&self, from: &[usize], to: &[usize], fault: Fault) {
        for &from in from {
            for &to in to {
                self.network.set(from, to, fault);
            }
        }
    }

    fn kill(&mut self, victims: &[usize]) -> Result<()> {
        for &at in victims {
            self.set_incarnation(at, 0);
            self.cluster.member_mut(at).kill()?;
        }
        Ok(())
    }

    /// Everywhere at the same moment: nobody syncs while others are dead already.
    fn fail_power(&mut self, victims: &[usize]) -> Result<()> {
        self.signal(victims, Signal::SIGSTOP)?;
        for &at in victims {
            self.set_incarnation(at, 0);
            let lost = self.cluster.member_mut(at).lose_power()?;
            self.story.push(format!(
                "  member {at} lost {lost} writes that were not synced"
            ));
        }
        Ok(())
    }

    async fn terminate(&mut self, victims: &[usize]) -> Result<()> {
        for &at in victims {
            self.set_incarnation(at, 0);
            self.cluster.member_mut(at).terminate().await?;
        }
        Ok(())
    }

    fn signal(&self, victims: &[usize], signal: Signal) -> Result<()> {
        for &at in victims {
            self.cluster.member(at).signal(signal)?;
        }
        Ok(())
    }

    /// Stops members for most of the time, as a machine that has too much to do.
    async fn limp(&mut self, victims: &[usize], lasts: Duration) -> Result<()> {
        let end = Instant::now() + lasts;
        while Instant::now() < end {
            self.signal(victims, Signal::SIGSTOP)?;
            tokio::time::sleep(LIMP * self.rng.random_range(1..8)).await;
            self.signal(victims, Signal::SIGCONT)?;
            tokio::time::sleep(LIMP / 4).await;
        }
        Ok(())
    }

    /// Removes a member, takes its disk, and adds a new one.
    async fn replace(&mut self, at: usize) -> Result<()> {
        let present = self.cluster.present();
        let others: Vec<usize> = present.into_iter().filter(|&other| other != at).collect();
        let through = others.choose(&mut self.rng).copied();
        let through = through.context("a cluster of one cannot be changed")?;
        self.cluster.remove(through, at).await.context("removing")?;
        self.targets
            .send_modify(|targets| targets.retain(|target| target.member != at));
        // It stops by itself, sooner or later; its disk goes anyway.
        if self.cluster.member(at).started() {
            self.cluster.member_mut(at).kill()?;
        }
        self.cluster.member_mut(at).wipe()?;
        let new = self
            .cluster
            .add(through, Role::Voter)
            .await
            .context("adding")?;
        self.announce(new)?;
        Ok(())
    }

    /// Ends all faults and waits until the cluster is whole.
    async fn recover(&mut self) -> Result<()> {
        self.network.heal();
        for at in self.cluster.present() {
            if self.cluster.member(at).started() && self.cluster.member_mut(at).exited()?.is_none()
            {
                self.signal(&[at], Signal::SIGCONT)?;
                self.cluster.member(at).free_disk()?;
            }
            if let Ok(disk) = self.cluster.member(at).disk() {
                disk.fill(false)?;
                disk.slow(Duration::ZERO)?;
            }
            self.start(at)?;
        }
        for at in self.cluster.present() {
            // A member may end by what was done to its disk only now.
            let ready = self.cluster.member_mut(at).ready().await;
            if let Err(error) = ready {
                if self.cluster.member(at).started() {
                    return Err(error);
                }
                self.start(at)?;
                self.cluster.member_mut(at).ready().await?;
            }
        }
        self.cluster.leader().await?;
        Ok(())
    }

    /// Starts a member that does not run.
    fn start(&mut self, at: usize) -> Result<()> {
        let member = self.cluster.member_mut(at);
        if member.started() {
            if member.exited()?.is_none() {
                return Ok(());
            }
            let ended = format!("  member {at} had ended: {:?}", member.exited()?);
            member.kill()?;
            self.story.push(ended);
        }
        self.set_incarnation(at, 0);
        self.cluster.member_mut(at).launch()?;
        let incarnation = self.cluster.member(at).incarnation();
        self.set_incarnation(at, incarnation);
        Ok(())
    }

    fn set_incarnation(&self, at: usize, incarnation: u64) {
        for target in self.targets.borrow().iter() {
            if target.member == at {
                target.incarnation.store(incarnation, Ordering::SeqCst);
            }
        }
    }

    /// Tells clients of a member.
    fn announce(&self, at: usize) -> Result<()> {
        let target = Target {
            member: at,
            client: self.cluster.client(at)?,
            incarnation: Arc::new(AtomicU64::new(self.cluster.member(at).incarnation())),
        };
        self.targets.send_modify(|targets| targets.push(target));
        Ok(())
    }
}
