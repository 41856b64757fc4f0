//! One server, then three, then five: the number that may be down rises by one each time.

use anyhow::{Context as _, Result, ensure};
use testkit::eventually;

use crate::site::Site;

const ALL: [usize; 5] = [0, 1, 2, 3, 4];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn five_servers_go_on_without_two() -> Result<()> {
    let mut site = Site::new(ALL.len()).await?;
    site.init(&[]).await?;
    site.operator(&[0]).put("with", "1").await?;
    for at in [1, 2] {
        site.join(at, &[]).await?;
    }
    site.ready(1, 3, &ALL[..3]).await?;
    site.operator(&ALL[..3]).put("with", "3").await?;
    site.join(3, &[]).await?;
    tells(
        &site,
        "the cluster has 4 servers and goes down when more than 1 are down, as with 3",
    )
    .await?;
    site.join(4, &[]).await?;
    site.ready(4, 5, &ALL).await?;
    let members = site.operator(&ALL).members().await?;
    ensure!(
        members.len() == 5 && members.iter().all(|member| !member.is_learner),
        "{members:?}"
    );
    let (left, killed) = kill_two(&mut site).await?;
    site.operator(&left).put("without", "2").await?;
    for &at in &left {
        ensure!(site.get(at, "with").await?.as_deref() == Some("3"), "{at}");
        ensure!(site.get(at, "without").await?.is_some(), "{at}");
    }
    for &at in &killed {
        site.servers[at].start(&[])?;
        site.servers[at].is_up().await?;
        ensure!(site.get(at, "without").await?.is_some(), "{at}");
    }
    site.ready(left[0], 5, &ALL).await?;
    site.fine().await
}

/// The leader, and another one: who is left, and who is not.
async fn kill_two(site: &mut Site) -> Result<(Vec<usize>, [usize; 2])> {
    let operator = site.operator(&ALL);
    let leader = eventually("somebody leads", || async {
        let status = operator.status(&operator.endpoints[0]).await?;
        ensure!(status.leader != 0, "nobody leads");
        Ok(status.leader)
    })
    .await?;
    let members = operator.members().await?;
    let led = members.iter().find(|member| member.id == leader);
    let led = led.context("the leader is no member")?;
    let is_it = |at: &&usize| led.peer_ur_ls == [site.servers[**at].peer_url()];
    let leader = *ALL.iter().find(is_it).context("the leader is no server")?;
    let killed = [leader, (leader + 1) % ALL.len()];
    for at in killed {
        site.servers[at].kill()?;
    }
    let left = ALL.into_iter().filter(|at| !killed.contains(at));
    Ok((left.collect(), killed))
}

/// Waits until the leader's server has said it, whichever that is.
async fn tells(site: &Site, words: &str) -> Result<()> {
    eventually(words, || async {
        for server in site.servers.iter().take(4) {
            if server.log()?.contains(words) {
                return Ok(());
            }
        }
        anyhow::bail!("nobody has said it")
    })
    .await
}
