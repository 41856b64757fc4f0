//! The server like k3s (`crates/k3s-like`) as a k3s user runs it: real processes, mTLS throughout, and
//! a proxy that can fail in front of every member. The proxies are the tests' own tasks: they need threads
//! beside the one that waits for a command.

#[path = "k3s_server/conversion.rs"]
mod conversion;
#[path = "k3s_server/five.rs"]
mod five;
#[path = "k3s_server/old_server.rs"]
mod old_server;
#[path = "k3s_server/site.rs"]
mod site;

use anyhow::{Context as _, Result, ensure};
use testkit::certs::Leaf;
use testkit::eventually;
use testkit::network::Fault;

use old_server::OldServer;
use site::{Site, names_in};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_servers_survive_a_kill_of_any_and_take_a_removed_one_back() -> Result<()> {
    let mut site = Site::new(3).await?;
    site.init(&[]).await?;
    site.ready(0, 1, &[0]).await?;
    site.operator(&[0]).put("kept", "yes").await?;
    site.join(1, &[]).await?;
    site.servers[0]
        .says("an even number of servers buys nothing")
        .await?;
    site.join(2, &[]).await?;
    site.ready(2, 3, &[0, 1, 2]).await?;
    all_are_voters(&site).await?;
    for at in 0..3 {
        survives_a_kill(&mut site, at).await?;
    }
    survives_a_partition(&mut site).await?;
    a_removed_server_comes_back_clean(&mut site).await?;
    site.fine().await
}

async fn all_are_voters(site: &Site) -> Result<()> {
    let members = site.operator(&[0, 1, 2]).members().await?;
    ensure!(members.len() == 3, "{members:?}");
    for (server, at) in site.servers.iter().zip(0..) {
        let url = server.peer_url();
        let member = members
            .iter()
            .find(|member| member.peer_ur_ls == [url.as_str()]);
        let member = member.with_context(|| format!("{at}: {members:?}"))?;
        ensure!(
            !member.is_learner && member.name.starts_with(&server.name),
            "{member:?}"
        );
    }
    Ok(())
}

/// The others go on, and it comes back with the flags it had, of which those of its datastore do not
/// matter any more.
async fn survives_a_kill(site: &mut Site, at: usize) -> Result<()> {
    let others: Vec<usize> = (0..3).filter(|other| *other != at).collect();
    let (key, flags) = (
        format!("without {at}"),
        ["--datastore-endpoint=mysql://nowhere"],
    );
    site.servers[at].kill()?;
    site.operator(&others).put(&key, "yes").await?;
    if at == 0 {
        site.servers[0].start(&[&flags[..], &["--cluster-init"]].concat())?;
    } else {
        site.start_joining(at, &flags)?;
    }
    site.servers[at].is_up().await?;
    let log = site.servers[at].log()?;
    ensure!(
        log.contains("Managed etcd cluster bootstrap already complete and initialized"),
        "{log}"
    );
    ensure!(
        log.contains("--datastore-endpoint, --cluster-init and --server are ignored"),
        "{log}"
    );
    ensure!(site.get(at, &key).await?.is_some(), "{key}");
    site.ready(at, 3, &[0, 1, 2]).await
}

/// Who is cut off is not ready, and is again when the links heal.
async fn survives_a_partition(site: &mut Site) -> Result<()> {
    site.network.between(&[1], &[0, 2], Fault::Drop);
    site.operator(&[0, 2]).put("without links", "yes").await?;
    site.ready(0, 3, &[0, 2]).await?;
    site.network.heal();
    site.ready(1, 3, &[0, 1, 2]).await?;
    ensure!(
        site.get(1, "without links").await?.is_some(),
        "it has not caught up"
    );
    Ok(())
}

async fn a_removed_server_comes_back_clean(site: &mut Site) -> Result<()> {
    let name = |site: &Site| {
        Ok::<_, anyhow::Error>(std::fs::read_to_string(
            site.servers[2].file("db/etcd/name"),
        )?)
    };
    let before = name(site)?;
    let said = site.servers[0].ok(&["delete", "node", "server-2"])?;
    ensure!(said == "node \"server-2\" deleted\n", "{said}");
    ensure!(
        site.servers[2].ended().await? == Some(0),
        "{}",
        site.servers[2].log()?
    );
    let log = site.servers[2].log()?;
    ensure!(
        log.contains("This node has been removed from the cluster - please restart"),
        "{log}"
    );
    site.ready(0, 2, &[0, 1]).await?;
    // Without saying where, it is not to begin a cluster of its own.
    site.servers[2].start(&["--cluster-init"])?;
    site.servers[2]
        .refuses("this server was removed from its cluster")
        .await?;
    site.join(2, &[]).await?;
    ensure!(name(site)? != before, "it has its old name");
    let databases = names_in(&site.servers[2].file("db"))?;
    ensure!(
        databases
            .iter()
            .any(|name| name.starts_with("etcd-backup-")),
        "{databases:?}"
    );
    ensure!(
        site.get(2, "kept").await?.is_some(),
        "it has not got the data"
    );
    site.ready(2, 3, &[0, 1, 2]).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_must_not_join_is_refused_with_one_line() -> Result<()> {
    let mut site = Site::new(2).await?;
    site.init(&["--disable=traefik"]).await?;
    let (url, token) = (site.servers[0].url(), site.servers[0].token()?);
    let (hash, _credentials) = token.split_once("::").context("the token")?;
    let wrong_password = format!("{hash}::server:wrong");
    let wrong_authority = format!("K10{}::server:wrong", "ab".repeat(32));
    let alike = "--disable=traefik";
    let refused: [(&[&str], &str); 8] = [
        (
            &["--token", &wrong_password, alike],
            "401 Unauthorized: the token is not that of the cluster",
        ),
        (
            &["--token", "wrong", alike],
            "401 Unauthorized: the token is not that of the cluster",
        ),
        (
            &["--token", &wrong_authority, alike],
            "token CA hash does not match the Cluster CA certificate hash: abab",
        ),
        (
            &["--token", "K10ab::server:x", alike],
            "invalid token CA hash length",
        ),
        (&[alike], "K3S_TOKEN is required to join a cluster"),
        (
            &["--token", &token],
            "failed to validate server configuration: critical configuration value mismatch between \
             servers: --disable is \\\"traefik\\\" in the cluster and \\\"\\\" here",
        ),
        (
            &["--token", &token, alike, "--cluster-cidr=10.99.0.0/16"],
            "--cluster-cidr is \\\"10.42.0.0/16\\\" in the cluster and \\\"10.99.0.0/16\\\" here",
        ),
        (
            &["--token", &token, alike, "--node-name=server-0"],
            "duplicate node name found",
        ),
    ];
    for (flags, why) in refused {
        let flags = [&["--server", url.as_str()], flags].concat();
        site.servers[1].start(&flags)?;
        site.servers[1].refuses(why).await?;
    }
    ensure!(
        site.operator(&[0]).members().await?.len() == 1,
        "somebody was added"
    );
    // None of that is in the way of doing it right.
    site.join(1, &[alike]).await?;
    site.fine().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_authority_that_has_expired_is_refused() -> Result<()> {
    let mut site = Site::new(2).await?;
    let authority = Leaf::named("k3s-server-ca").expired().self_signed()?;
    for (at, file) in [(0, "etcd/peer-ca"), (1, "server-ca")] {
        let tls = site.servers[at].file("tls");
        std::fs::create_dir_all(tls.join("etcd"))?;
        authority.write(&tls, file)?;
    }
    // One that a server is to begin with ...
    for at in [0, 1] {
        site.servers[at].start(&["--cluster-init"])?;
        site.servers[at]
            .refuses("has expired on 2021-01-01T00:00:00Z")
            .await?;
    }
    // ... and one of the server that is to be joined.
    let server = OldServer::start(&authority).await?;
    let url = format!("https://127.0.0.1:{}", server.port);
    site.servers[1].start(&["--server", &url, "--token", "any"])?;
    site.servers[1]
        .refuses("CA cert validation failed: certificate authority")
        .await?;
    site.fine().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn snapshots_are_kept_and_clusters_are_reset_and_restored() -> Result<()> {
    let mut site = Site::new(2).await?;
    let often = [
        "--etcd-snapshot-schedule-cron=@every 1s",
        "--etcd-snapshot-retention=2",
    ];
    site.init(&often).await?;
    scheduled_snapshots_stay_so_many(&site).await?;
    site.operator(&[0]).put("before", "the snapshot").await?;
    let said = site.servers[0].ok(&["etcd-snapshot", "save"])?;
    let name = said
        .split_whitespace()
        .nth(1)
        .context("the snapshot's name")?
        .to_owned();
    ensure!(name.starts_with("on-demand-server-0-"), "{said}");
    let listed = site.servers[0].ok(&["etcd-snapshot", "ls"])?;
    let location = format!(
        "file://{}",
        site.servers[0].file("db/snapshots").join(&name).display()
    );
    let mut lines = listed
        .lines()
        .map(|line| line.split_whitespace().collect::<Vec<_>>());
    ensure!(
        lines.next() == Some(vec!["Name", "Location", "Size", "Created"]),
        "{listed}"
    );
    ensure!(
        lines.any(|row| row[0] == name && row[1] == location),
        "{listed}"
    );
    site.operator(&[0]).put("after", "the snapshot").await?;
    site.join(1, &[]).await?;
    reset(&mut site).await?;
    restore(&mut site, &name).await?;
    restore_elsewhere(&mut site, &name).await?;
    site.fine().await
}

async fn scheduled_snapshots_stay_so_many(site: &Site) -> Result<()> {
    let dir = site.servers[0].file("db/snapshots");
    let finished = || {
        let mut names = names_in(&dir).unwrap_or_default();
        names
            .retain(|name| name.starts_with("etcd-snapshot-server-0-") && !name.ends_with(".part"));
        names
    };
    let first = eventually("two snapshots are there", || async {
        let names = finished();
        ensure!(names.len() == 2, "{names:?}");
        Ok(names)
    })
    .await?;
    eventually("the oldest goes", || async {
        let names = finished();
        ensure!(names.len() == 2 && !names.contains(&first[0]), "{names:?}");
        Ok(())
    })
    .await
}

const RESET: &str = "Managed etcd cluster membership has been reset, restart without --cluster-reset flag \
                     now. Backup and delete ${datadir}/server/db on each peer etcd server and rejoin the nodes";

/// The first server goes on alone, with everything; the other one joins again without its data.
async fn reset(site: &mut Site) -> Result<()> {
    for server in &mut site.servers {
        server.kill()?;
    }
    let server = &mut site.servers[0];
    server.start(&["--cluster-reset", "--server=https://127.0.0.1:1"])?;
    server
        .refuses("cannot perform cluster-reset while server URL is set")
        .await?;
    server.start(&["--cluster-reset-restore-path=x"])?;
    server
        .refuses("invalid flag use; --cluster-reset required with --cluster-reset-restore-path")
        .await?;
    server.start(&["--cluster-reset", "--token=wrong"])?;
    server
        .refuses("bootstrap data already found and encrypted with different token")
        .await?;
    server.start(&["--cluster-reset"])?;
    ensure!(server.ended().await? == Some(0), "{}", server.log()?);
    ensure!(server.log()?.contains(RESET), "{}", server.log()?);
    server.start(&["--cluster-reset"])?;
    server
        .refuses("Managed etcd cluster membership was previously reset, please remove")
        .await?;
    server.start(&["--cluster-init"])?;
    server.is_up().await?;
    ensure!(
        !server.file("db/reset-flag").exists(),
        "the flag is still there"
    );
    for key in ["before", "after"] {
        ensure!(site.get(0, key).await?.is_some(), "{key} is lost");
    }
    // The other one is told that it is out; then it is as its messages say.
    site.start_joining(1, &[])?;
    ensure!(
        site.servers[1].ended().await? == Some(0),
        "{}",
        site.servers[1].log()?
    );
    std::fs::remove_dir_all(site.servers[1].file("db"))?;
    site.join(1, &[]).await?;
    site.ready(1, 2, &[0, 1]).await
}

/// What is not a snapshot changes nothing; one brings back what was.
async fn restore(site: &mut Site, name: &str) -> Result<()> {
    for server in &mut site.servers {
        ensure!(server.stop().await? == Some(0), "{}", server.log()?);
    }
    let server = &mut site.servers[0];
    let garbage = server.file("db/snapshots/garbage");
    std::fs::write(&garbage, "no snapshot")?;
    let directory = server.file("db");
    for (path, why) in [
        (
            server.file("nothing"),
            "etcd: snapshot path does not exist: ",
        ),
        (
            directory,
            "etcd: snapshot path must be a file, not a directory: ",
        ),
        (garbage, "cannot restore "),
    ] {
        let path = format!("--cluster-reset-restore-path={}", path.display());
        server.start(&["--cluster-reset", &path])?;
        server.refuses(why).await?;
    }
    server.start(&["--cluster-init"])?;
    site.join(1, &[]).await?;
    ensure!(site.get(0, "after").await?.is_some(), "it is lost");
    for server in &mut site.servers {
        server.stop().await?;
    }
    let server = &mut site.servers[0];
    let path = server.file("db/snapshots").join(name);
    let path = format!("--cluster-reset-restore-path={}", path.display());
    server.start(&["--cluster-reset", &path])?;
    ensure!(server.ended().await? == Some(0), "{}", server.log()?);
    let log = server.log()?;
    ensure!(
        log.contains("Pre-restore etcd database moved to ") && log.contains(RESET),
        "{log}"
    );
    server.start(&[])?;
    server.is_up().await?;
    let (before, after) = (site.get(0, "before").await?, site.get(0, "after").await?);
    ensure!(before.is_some() && after.is_none(), "{before:?} {after:?}");
    Ok(())
}

/// A snapshot and the token are enough for a machine that has nothing.
async fn restore_elsewhere(site: &mut Site, name: &str) -> Result<()> {
    let at = site.add().await?;
    let snapshot = site.servers[0].file("db/snapshots").join(name);
    let path = format!("--cluster-reset-restore-path={}", snapshot.display());
    let token = site.servers[0].token()?;
    let new = &mut site.servers[at];
    new.start(&["--cluster-reset", &path])?;
    new.refuses("K3S_TOKEN is required to reset a cluster")
        .await?;
    new.start(&["--cluster-reset", &path, "--token=wrong"])?;
    new.refuses("bootstrap data already found and encrypted with different token")
        .await?;
    ensure!(!new.file("db/etcd").exists(), "something is left");
    new.start(&["--cluster-reset", &path, "--token", &token])?;
    ensure!(new.ended().await? == Some(0), "{}", new.log()?);
    new.start(&[])?;
    new.is_up().await?;
    let authority = |at: usize| std::fs::read(site.servers[at].file("tls/etcd/peer-ca.crt"));
    ensure!(authority(at)? == authority(0)?, "it has other authorities");
    ensure!(
        site.get(at, "before").await?.is_some(),
        "the data is not there"
    );
    Ok(())
}

/// Writes down what it is called with, and goes on.
const PROGRAM: &str = "#!/bin/sh\nprintf '%s\\n' \"$$ $*\" >> \"$0.calls\"\nexec sleep 600\n";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_api_server_that_is_given_is_kept_running() -> Result<()> {
    let mut site = Site::new(1).await?;
    let program = site.servers[0].dir().join("kube-apiserver");
    let calls = site.servers[0].dir().join("kube-apiserver.calls");
    std::fs::write(&program, PROGRAM)?;
    std::fs::set_permissions(
        &program,
        std::os::unix::fs::PermissionsExt::from_mode(0o700),
    )?;
    let flag = format!("--kube-apiserver={}", program.display());
    let flags = [
        flag.as_str(),
        "--kube-apiserver-arg=v=2",
        "--kube-apiserver-arg=bind-address=-",
    ];
    site.init(&flags).await?;
    let called = async |times: usize| {
        eventually("the API server is started", || async {
            let calls = std::fs::read_to_string(&calls)?;
            let last = calls.lines().nth(times - 1).context("not yet")?;
            let (pid, flags) = last.split_once(' ').context("no process")?;
            Ok((pid.parse::<i32>()?, flags.to_owned()))
        })
        .await
    };
    let (pid, flags) = called(1).await?;
    let etcd = format!("--etcd-servers={}", site.servers[0].client_url());
    for flag in [
        etcd.as_str(),
        "--service-cluster-ip-range=10.43.0.0/16",
        "--v=2",
    ] {
        ensure!(
            flags.split(' ').any(|given| given == flag),
            "{flag}: {flags}"
        );
    }
    ensure!(!flags.contains("--bind-address"), "{flags}");
    let process = nix::unistd::Pid::from_raw(pid);
    nix::sys::signal::kill(process, nix::sys::signal::Signal::SIGKILL)?;
    let (pid, _flags) = called(2).await?;
    site.fine().await?;
    // It ends with its server.
    eventually("the API server has ended", || async {
        ensure!(
            !std::path::Path::new(&format!("/proc/{pid}/exe")).exists(),
            "it runs"
        );
        Ok(())
    })
    .await
}
