//! What is done to a cluster: each fault begins, lasts and ends by itself.

use std::time::Duration;

use nix::sys::signal::Signal;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use serde::Serialize;
use testkit::cluster::Role;
use testkit::network::Fault as Link;
use testkit::{Cluster, Program};

/// How long most faults last: several election timeouts.
const LASTS: Duration = Duration::from_secs(10);
const SLOW_DISK: Duration = Duration::from_millis(100);
const SLOW_LINK_MS: std::ops::Range<u64> = 100..300;
/// How often a link's delay is drawn anew.
const LINK_INTERVAL: Duration = Duration::from_millis(200);
/// What TCP makes of one lost packet in twenty: now and then a link stands still until it sends again.
const LOSS: f64 = 0.05;

/// A fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Fault {
    /// kill -9 of the leader; it is started again at the end.
    LeaderKilled,
    /// SIGSTOP of the leader.
    LeaderStopped,
    /// kill -9 of a follower.
    FollowerKilled,
    /// Nothing that the leader sends arrives.
    LeaderNotHeard,
    /// The leader is alone on its side.
    LeaderCutOff,
    /// A minority is cut off, the leader is in the majority.
    MinorityCutOff,
    /// Every flush of the leader's disk takes 100 ms longer.
    SlowDiskOfLeader,
    /// The same at a follower.
    SlowDiskOfFollower,
    /// A follower's disk is full.
    FullDiskOfFollower,
    /// All links take 200 ms, more or less.
    SlowLinks,
    /// All links lose one packet in twenty.
    LossyLinks,
    /// SIGTERM and a new start, one member after the other.
    RollingRestart,
    /// A dead follower is removed, and another machine added.
    MemberReplaced,
    /// kill -9 of a majority.
    QuorumLost,
}

impl Fault {
    /// What people call it.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::LeaderKilled => "leader kill -9",
            Self::LeaderStopped => "leader SIGSTOP 10 s",
            Self::FollowerKilled => "follower kill -9",
            Self::LeaderNotHeard => "leader not heard",
            Self::LeaderCutOff => "leader cut off",
            Self::MinorityCutOff => "minority cut off",
            Self::SlowDiskOfLeader => "slow disk, leader",
            Self::SlowDiskOfFollower => "slow disk, follower",
            Self::FullDiskOfFollower => "full disk, follower",
            Self::SlowLinks => "links 200 ± 100 ms",
            Self::LossyLinks => "links lose 5 %",
            Self::RollingRestart => "rolling restart",
            Self::MemberReplaced => "member replaced",
            Self::QuorumLost => "quorum lost",
        }
    }

    /// The disk's faults come from a preloaded library, which a Go program does not load.
    pub(super) fn can_be_done_to(self, program: Program) -> bool {
        program == Program::Kvorum || !self.needs_faulty_disks()
    }

    pub(super) fn needs_faulty_disks(self) -> bool {
        matches!(
            self,
            Self::SlowDiskOfLeader | Self::SlowDiskOfFollower | Self::FullDiskOfFollower
        )
    }

    /// Does it, and ends it.
    pub(super) async fn run(self, cluster: &mut Cluster) -> anyhow::Result<()> {
        let leader = cluster.leader().await?;
        let followers: Vec<usize> = cluster
            .present()
            .into_iter()
            .filter(|&at| at != leader)
            .collect();
        let minority = &followers[..cluster.present().len().div_ceil(2) - 1];
        match self {
            Self::LeaderKilled => killed(cluster, &[leader]).await,
            Self::FollowerKilled => killed(cluster, &minority[..1]).await,
            Self::QuorumLost => {
                let majority: Vec<usize> = minority.iter().copied().chain([leader]).collect();
                killed(cluster, &majority).await
            }
            Self::LeaderStopped => {
                cluster.member(leader).signal(Signal::SIGSTOP)?;
                tokio::time::sleep(LASTS).await;
                cluster.member(leader).signal(Signal::SIGCONT)
            }
            Self::LeaderNotHeard => {
                for &follower in &followers {
                    cluster.network()?.set(leader, follower, Link::Drop);
                }
                end_of_links(cluster).await
            }
            Self::LeaderCutOff => {
                cluster
                    .network()?
                    .between(&[leader], &followers, Link::Drop);
                end_of_links(cluster).await
            }
            Self::MinorityCutOff => {
                let majority: Vec<usize> = followers[minority.len()..]
                    .iter()
                    .copied()
                    .chain([leader])
                    .collect();
                cluster.network()?.between(minority, &majority, Link::Drop);
                end_of_links(cluster).await
            }
            Self::SlowDiskOfLeader => slow_disk(cluster, leader).await,
            Self::SlowDiskOfFollower => slow_disk(cluster, minority[0]).await,
            Self::FullDiskOfFollower => full_disk(cluster, minority[0]).await,
            Self::SlowLinks | Self::LossyLinks => self.weather(cluster).await,
            Self::RollingRestart => rolling_restart(cluster).await,
            Self::MemberReplaced => replaced(cluster, leader, minority[0]).await,
        }
    }

    /// Every link gets worse and better by chance, each for itself.
    async fn weather(self, cluster: &Cluster) -> anyhow::Result<()> {
        let mut rng = StdRng::seed_from_u64(1);
        let end = tokio::time::Instant::now() + LASTS;
        let present = cluster.present();
        while tokio::time::Instant::now() < end {
            for &from in &present {
                for &to in present.iter().filter(|&&to| to != from) {
                    let link = match self {
                        Self::LossyLinks if rng.random_bool(LOSS) => Link::Hold,
                        Self::LossyLinks => Link::None,
                        _slow => Link::Delay(Duration::from_millis(rng.random_range(SLOW_LINK_MS))),
                    };
                    cluster.network()?.set(from, to, link);
                }
            }
            tokio::time::sleep(LINK_INTERVAL).await;
        }
        cluster.network()?.heal();
        Ok(())
    }
}

async fn killed(cluster: &mut Cluster, those: &[usize]) -> anyhow::Result<()> {
    for &at in those {
        cluster.member_mut(at).kill()?;
    }
    tokio::time::sleep(LASTS).await;
    for &at in those {
        cluster.member_mut(at).launch()?;
    }
    Ok(())
}

async fn end_of_links(cluster: &Cluster) -> anyhow::Result<()> {
    tokio::time::sleep(LASTS).await;
    cluster.network()?.heal();
    Ok(())
}

async fn slow_disk(cluster: &Cluster, at: usize) -> anyhow::Result<()> {
    cluster.member(at).disk()?.slow(SLOW_DISK)?;
    tokio::time::sleep(LASTS).await;
    cluster.member(at).disk()?.slow(Duration::ZERO)
}

/// The member stops by itself: it is started again when there is room.
async fn full_disk(cluster: &mut Cluster, at: usize) -> anyhow::Result<()> {
    cluster.member(at).disk()?.fill(true)?;
    cluster.member_mut(at).ended().await?;
    tokio::time::sleep(LASTS).await;
    cluster.member(at).disk()?.fill(false)?;
    cluster.member_mut(at).launch()
}

async fn rolling_restart(cluster: &mut Cluster) -> anyhow::Result<()> {
    for at in cluster.present() {
        cluster.member_mut(at).terminate().await?;
        cluster.restart(at).await?;
    }
    Ok(())
}

async fn replaced(cluster: &mut Cluster, through: usize, dead: usize) -> anyhow::Result<()> {
    cluster.member_mut(dead).kill()?;
    tokio::time::sleep(LASTS).await;
    cluster.remove(through, dead).await?;
    let new = cluster.add(through, Role::Voter).await?;
    cluster.member_mut(new).launch()
}
