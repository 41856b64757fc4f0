//! Users, roles and tokens through running members: the same calls to three members of kvorum and to three of
//! a real etcd, with simple tokens and with JWTs; certificates in the place of tokens; and what becomes of tokens
//! when members fail.

#[path = "auth_cluster/certificates.rs"]
mod certificates;
#[path = "auth_cluster/desk.rs"]
mod desk;

use anyhow::{Context as _, Result, ensure};
use kvorum_tests::surface::{Asked, compare_with};
use testkit::cluster::ClusterSpec;
use testkit::network::Fault;
use testkit::{Spec, binaries, eventually};

use desk::Desk;

/// Passwords are cheap to hash here.
const CHEAP: &str = "--bcrypt-cost=4";
/// Many more than `--snapshot-count` and `--snapshot-catchup-entries` of the test that is away.
const AWAY_ENTRIES: usize = 150;
const INVALID: &str = "Unauthenticated: etcdserver: invalid auth token";
/// Who says which name, and what is asked for.
const KEYS: [&str; 2] = ["k/mine", "other"];

fn desks(asked: &Asked) -> Result<Vec<Desk>> {
    (0..3).map(|at| Ok(Desk::new(asked.channel(at)?))).collect()
}

/// What every member answers to each of these tokens, as a table.
async fn table(asked: &mut Asked, what: &str, tokens: &[(&str, &str)]) -> Result<()> {
    for (at, desk) in desks(asked)?.iter().enumerate() {
        for (whose, token) in tokens {
            for key in KEYS {
                let answer = desk.get(token, key).await;
                asked.note(format!("{what}: {whose} gets {key} from {at}"), answer);
            }
            let users = desk.users(token).await;
            asked.note(format!("{what}: {whose} lists users at {at}"), users);
        }
    }
    Ok(())
}

/// A member that is behind knows a token until it has applied the end of it.
async fn until_refused(desk: &Desk, token: &str) -> Result<String> {
    eventually("the token is refused", || async {
        let answer = desk.get(token, KEYS[0]).await;
        ensure!(!answer.starts_with("OK"), "{answer}");
        ensure!(!answer.contains("revision in header is old"), "{answer}");
        Ok(answer)
    })
    .await
}

async fn simple_tokens(asked: &mut Asked) -> Result<()> {
    let leader = asked.cluster.leader().await?;
    let desks = desks(asked)?;
    desks[0].set_up().await?;
    // Each is from another member.
    let alice = desks[0].log_in("alice", "pass").await?;
    let root = desks[1].log_in("root", "pass").await?;
    let nobody = desks[2].log_in("nobody", "pass").await?;
    let forged = format!("abcdefghijklmnop.{}", 5);
    let tokens = [
        ("alice", alice.as_str()),
        ("root", root.as_str()),
        ("nobody", nobody.as_str()),
        ("who says no name", ""),
        ("a forger", forged.as_str()),
        ("one who writes anything", "anything"),
    ];
    table(asked, "at first", &tokens).await?;
    for (at, desk) in desks.iter().enumerate() {
        for key in KEYS {
            asked.note(
                format!("alice puts {key} at {at}"),
                desk.put(&alice, key).await,
            );
        }
        asked.note(
            format!("wrong password at {at}"),
            desk.refused_log_in("alice", "no").await,
        );
        asked.note(
            format!("no such user at {at}"),
            desk.refused_log_in("eve", "no").await,
        );
    }
    // What she may is what all members let her, as soon as it is granted.
    desks[2].grant(&root, "other", "").await?;
    table(asked, "more is granted", &tokens).await?;
    desks[1].change_password(&root, "alice", "new").await?;
    for (at, desk) in desks.iter().enumerate() {
        let answer = until_refused(desk, &alice).await?;
        asked.note(format!("another password: the old token at {at}"), answer);
    }
    let alice = desks[0].log_in("alice", "new").await?;
    asked.cluster.member_mut(leader).kill()?;
    let left: Vec<usize> = asked.cluster.running();
    for &at in &left {
        // Until there is a leader again.
        eventually("alice writes again", || async {
            let answer = desks[at].put(&alice, KEYS[0]).await;
            ensure!(answer == "OK", "{answer}");
            Ok(())
        })
        .await?;
    }
    asked.cluster.member_mut(leader).start().await?;
    // Which tokens it still knows is chance; whom it lets in is not.
    let again = desks[leader].log_in("alice", "new").await?;
    for key in KEYS {
        let answer = desks[leader].get(&again, key).await;
        asked.note(format!("after a restart: alice gets {key}"), answer);
        let answer = desks[leader].get("", key).await;
        asked.note(format!("after a restart: nobody gets {key}"), answer);
    }
    off_and_on_again(asked, &desks).await
}

async fn off_and_on_again(asked: &mut Asked, desks: &[Desk]) -> Result<()> {
    let root = desks[1].log_in("root", "pass").await?;
    desks[1].disable(&root).await?;
    for (at, desk) in desks.iter().enumerate() {
        asked.note(
            format!("off: a token that was valid, at {at}"),
            desk.get(&root, "other").await,
        );
        asked.note(
            format!("off: no token, at {at}"),
            desk.get("", "other").await,
        );
    }
    desks[2].enable().await?;
    for (at, desk) in desks.iter().enumerate() {
        let answer = until_refused(desk, &root).await?;
        asked.note(format!("on again: the old token at {at}"), answer);
    }
    Ok(())
}

#[tokio::test]
async fn tokens_of_one_member_are_every_members() -> Result<()> {
    compare_with(&[CHEAP], simple_tokens).await
}

/// The flag for tokens that are signed with one of the keys of crate `auth`'s tests.
fn jwt(key: &str, method: &str) -> String {
    let keys = binaries::checkout().join("crates/auth/src/tests/keys");
    let (public, private) = (format!("{key}.pub.pem"), format!("{key}.pem"));
    format!(
        "--auth-token=jwt,pub-key={},priv-key={},sign-method={method},ttl=10m",
        keys.join(public).display(),
        keys.join(private).display()
    )
}

/// A token that another cluster has signed.
async fn foreign_token() -> Result<String> {
    let server = Spec::kvorum().arg(CHEAP).arg(jwt("p521", "ES512"));
    let server = server.start().await?;
    let desk = Desk::connect(server.client_url()).await?;
    desk.set_up().await?;
    let token = desk.log_in("root", "pass").await?;
    server.stop().await?;
    Ok(token)
}

#[tokio::test]
async fn signed_tokens_are_every_members_until_users_change() -> Result<()> {
    let foreign = foreign_token().await?;
    let flag = jwt("rsa", "RS256");
    compare_with(&[CHEAP, &flag], async |asked: &mut Asked| {
        let desks = desks(asked)?;
        desks[0].set_up().await?;
        let alice = desks[0].log_in("alice", "pass").await?;
        let root = desks[1].log_in("root", "pass").await?;
        let cut = alice.rsplit_once('.').context("a signature")?.0;
        let unsigned = format!("{cut}.");
        let tokens = [
            ("alice", alice.as_str()),
            ("root", root.as_str()),
            ("another cluster's root", foreign.as_str()),
            ("unsigned", unsigned.as_str()),
            ("a simple token", "abcdefghijklmnop.5"),
        ];
        table(asked, "at first", &tokens).await?;
        desks[2].grant(&root, "other", "").await?;
        table(asked, "more is granted", &tokens).await?;
        let alice = desks[1].log_in("alice", "pass").await?;
        table(asked, "alice anew", &[("alice", &alice)]).await
    })
    .await
}

/// A member that was cut off while rights were taken away gets the state of another, and with it goes whatever
/// it knew of tokens.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_gets_the_whole_state_forgets_tokens() -> Result<()> {
    let spec = ClusterSpec::kvorum(3).arg(CHEAP).proxied();
    let spec = spec.arg("--snapshot-count=5");
    let cluster = spec.arg("--snapshot-catchup-entries=5").start().await?;
    let away = (cluster.leader().await? + 1) % 3;
    let others = [(away + 1) % 3, (away + 2) % 3];
    let desk = |at: usize| Desk::connect(cluster.member(at).client_url());
    let (gone, desk) = (desk(away).await?, desk(others[0]).await?);
    desk.set_up().await?;
    let alice = desk.log_in("alice", "pass").await?;
    let root = desk.log_in("root", "pass").await?;
    eventually("the token is known everywhere", || async {
        let answer = gone.get(&alice, KEYS[0]).await;
        ensure!(answer.starts_with("OK"), "{answer}");
        Ok(())
    })
    .await?;
    cluster.network()?.between(&[away], &others, Fault::Reset);
    desk.change_password(&root, "alice", "new").await?;
    desk.revoke_role(&root, "alice").await?;
    // Members do not keep so many entries for one that is away.
    for _ in 0..AWAY_ENTRIES {
        let put = desk.put(&root, "other").await;
        ensure!(put == "OK", "{put}");
    }
    cluster.network()?.heal();
    eventually("the token is refused", || async {
        let answer = gone.get(&alice, KEYS[0]).await;
        ensure!(answer == INVALID, "{answer}");
        Ok(())
    })
    .await?;
    let alice = gone.log_in("alice", "new").await?;
    let refused = gone.get(&alice, KEYS[0]).await;
    let denied = "PermissionDenied: etcdserver: permission denied";
    ensure!(refused == denied, "{refused}");
    // Else this was a test of the log.
    let received = cluster.member(away).data_dir().join("member/state.1");
    ensure!(received.exists(), "no state was transferred");
    cluster.stop().await
}

/// One that is not used; and one that is, which lives on.
#[tokio::test]
async fn a_simple_token_ends_some_time_after_its_last_use() -> Result<()> {
    let server = Spec::kvorum().arg(CHEAP).arg("--auth-token-ttl=1");
    let server = server.start().await?;
    let desk = Desk::connect(server.client_url()).await?;
    desk.set_up().await?;
    let mut unused = Vec::new();
    for _ in 0..200 {
        unused.push(desk.log_in("alice", "pass").await?);
    }
    let unused = std::cell::RefCell::new(unused);
    // Each is used once: whoever asks again keeps it alive.
    let refused = eventually("a token has ended", || async {
        let token = unused.borrow_mut().pop().context("all were valid")?;
        let answer = desk.get(&token, KEYS[0]).await;
        ensure!(!answer.starts_with("OK"), "{answer}");
        Ok(answer)
    })
    .await?;
    ensure!(refused == INVALID, "{refused}");
    server.stop().await
}

#[tokio::test]
async fn slow_requests_are_logged_with_the_name_of_who_sent_them() -> Result<()> {
    let cluster = ClusterSpec::kvorum(1).arg(CHEAP);
    let cluster = cluster
        .arg("--warning-unary-request-duration=1ns")
        .start()
        .await?;
    let member = cluster.member(0);
    let desk = Desk::connect(member.client_url()).await?;
    desk.set_up().await?;
    let alice = desk.log_in("alice", "pass").await?;
    ensure!(desk.put(&alice, KEYS[0]).await == "OK", "alice may put it");
    eventually("the request was logged", || async {
        let log = member.log()?;
        let mut lines = log.lines().filter(|line| line.contains("request stats"));
        let is_hers = |line: &str| line.contains("KV/Put") && line.contains("\"user\":\"alice\"");
        ensure!(lines.any(is_hers), "no line names her");
        ensure!(!log.contains(&alice), "a token is nobody's to read");
        Ok(())
    })
    .await?;
    cluster.stop().await
}
