//! Who gets in over TLS, on the client port and on the peer port: every wrong certificate is
//! refused with a log line that says why, every right one is taken, as by a real etcd.

#[path = "tls/desk.rs"]
mod desk;
#[path = "tls/group.rs"]
mod group;
#[path = "tls/load.rs"]
mod load;

use anyhow::{Context as _, Result, ensure};
use kvorum_tests::flows::{Caller, Operator};
use rustls::CipherSuite;
use rustls::version::{TLS12, TLS13};
use testkit::certs::{Authority, Leaf, Usage};
use testkit::{Program, eventually, http, note};

use desk::{Desk, Port, Row};
use group::{Group, GroupPki};
use load::Load;

/// Go's words for what is wrong.
const NONE: &str = "tls: client didn't provide a certificate";
const FOREIGN: &str = "x509: certificate signed by unknown authority";
const NOT_NOW: &str = "x509: certificate has expired or is not yet valid";
const WRONG_USE: &str = "x509: certificate specifies an incompatible key usage";
const NOT_TLS: &str = "tls: first record does not look like a TLS handshake";
/// etcd's words for a certificate whose names are not among those that are allowed.
const NOT_ALLOWED: &str = "client certificate authentication failed";

/// Certificates, and what has to become of whoever shows them on either port.
fn rows_of_mutual_tls(desk: &Desk) -> Result<Vec<Row>> {
    let showing = |what: &str, leaf: Leaf| desk.showing(what, &leaf);
    let no_hosts = |usages: &[Usage]| Leaf::client("kube-apiserver").usages(usages);
    let good = showing("good", Leaf::default())?;
    let nobody = desk.caller();
    let foreign = desk.foreign()?;
    let taken = [
        ("TLS 1.2", good.clone().speaking(&TLS12)),
        ("a good certificate", good),
        (
            "for clients only",
            showing("client-only", no_hosts(&[Usage::ClientAuth]))?,
        ),
        (
            "for any use",
            showing("any-usage", no_hosts(&[Usage::Any]))?,
        ),
        (
            "that says nothing of its use",
            showing("no-usage", no_hosts(&[]))?,
        ),
    ];
    let refused = [
        ("none", nobody.clone(), NONE),
        ("none, TLS 1.2", nobody.speaking(&TLS12), NONE),
        ("of another authority", foreign.clone(), FOREIGN),
        (
            "of another authority, TLS 1.2",
            foreign.speaking(&TLS12),
            FOREIGN,
        ),
        (
            "expired",
            showing("expired", Leaf::default().expired())?,
            NOT_NOW,
        ),
        (
            "not yet valid",
            showing("early", Leaf::default().not_yet_valid())?,
            NOT_NOW,
        ),
        (
            "for servers only",
            showing("server-only", no_hosts(&[Usage::ServerAuth]))?,
            WRONG_USE,
        ),
        ("revoked", desk.revoked()?, "revoked"),
    ];
    let mut rows = Vec::new();
    for port in [Port::Client, Port::Peer] {
        rows.extend(
            taken
                .iter()
                .map(|(what, caller)| Row::taken(port, what, caller)),
        );
        rows.extend(
            refused
                .iter()
                .map(|(what, caller, why)| Row::refused(port, what, caller, why)),
        );
        rows.push(Row::refused_plain(port, NOT_TLS));
    }
    // Clients may come from anywhere; of a member it is asked that its address fits.
    for (what, host) in [
        ("another address", "192.0.2.1"),
        ("another host", "elsewhere.invalid"),
    ] {
        let elsewhere = showing(host, Leaf::default().sans(&[host]))?;
        rows.push(Row::taken(Port::Client, what, &elsewhere));
        rows.push(Row::refused(Port::Peer, what, &elsewhere, host));
    }
    Ok(rows)
}

fn programs() -> Vec<Program> {
    if std::env::var_os("KVORUM_ONLY_ETCD").is_some() {
        return vec![Program::Etcd];
    }
    vec![Program::Etcd, Program::Kvorum]
}

/// Asks both with the same certificates.
async fn on_both(
    flags: impl Fn(&Desk) -> Vec<String>,
    rows: impl Fn(&Desk) -> Result<Vec<Row>>,
) -> Result<()> {
    let run = async |program| {
        let mut desk = Desk::new(program)?;
        desk.open(&flags(&desk)).await?;
        let rows = rows(&desk)?;
        let seen = desk.ask(&rows).await;
        let seen = seen.with_context(|| format!("{program:?}"))?;
        desk.close(&rows)
            .await
            .with_context(|| format!("{program:?}"))?;
        Ok::<_, anyhow::Error>(seen)
    };
    if std::env::var_os("KVORUM_ONLY_ETCD").is_some() {
        for line in run(Program::Etcd).await? {
            note(format!("{line:?}"));
        }
        return Ok(());
    }
    let (etcd, kvorum) = tokio::try_join!(run(Program::Etcd), run(Program::Kvorum))?;
    for (etcd, kvorum) in etcd.iter().zip(&kvorum) {
        ensure!(etcd == kvorum, "\n  etcd:   {etcd}\n  kvorum: {kvorum}");
    }
    Ok(())
}

#[tokio::test]
async fn mutual_tls_on_both_ports() -> Result<()> {
    on_both(Desk::mutual_tls, rows_of_mutual_tls).await
}

#[tokio::test]
async fn names_that_are_allowed() -> Result<()> {
    let flags = |desk: &Desk| {
        let mut flags = desk.mutual_tls();
        flags.push("--client-cert-allowed-hostname=client.invalid,more.invalid".to_owned());
        flags.push("--peer-cert-allowed-cn=member,more".to_owned());
        flags.push(desk.skip_client_san_verification());
        flags
    };
    on_both(flags, |desk| {
        let leaf = |common_name: &str, host: &str| Leaf::named(common_name).sans(&[host]);
        let client = desk.showing("client", &leaf("anybody", "client.invalid"))?;
        let member = desk.showing("member", &leaf("member", "192.0.2.1"))?;
        let more = desk.showing("more", &leaf("more", "more.invalid"))?;
        let other = desk.showing("other", &leaf("other", "other.invalid"))?;
        let unnamed = desk.showing("unnamed", &Leaf::client(""))?;
        Ok(vec![
            Row::taken(Port::Client, "an allowed host", &client),
            Row::taken(Port::Client, "another allowed host", &more),
            Row::refused(
                Port::Client,
                "a host that is not allowed",
                &other,
                NOT_ALLOWED,
            ),
            Row::refused(Port::Client, "no host", &unnamed, NOT_ALLOWED),
            Row::taken(Port::Peer, "an allowed common name", &member),
            Row::taken(Port::Peer, "another allowed common name", &more),
            Row::refused(
                Port::Peer,
                "a common name that is not allowed",
                &other,
                NOT_ALLOWED,
            ),
            Row::refused(Port::Peer, "no common name", &unnamed, NOT_ALLOWED),
        ])
    })
    .await
}

#[tokio::test]
async fn hosts_that_members_may_have() -> Result<()> {
    let flags = |desk: &Desk| {
        let mut flags = desk.mutual_tls();
        flags.push("--peer-cert-allowed-hostname=member.invalid".to_owned());
        flags.push(desk.skip_client_san_verification());
        flags
    };
    on_both(flags, |desk| {
        let leaf = |host: &str| Leaf::default().sans(&[host]);
        let member = desk.showing("member", &leaf("member.invalid"))?;
        let other = desk.showing("other", &leaf("other.invalid"))?;
        Ok(vec![
            Row::taken(Port::Peer, "an allowed host", &member),
            Row::refused(
                Port::Peer,
                "a host that is not allowed",
                &other,
                NOT_ALLOWED,
            ),
        ])
    })
    .await
}

/// Without authorities nobody is asked for a certificate.
#[tokio::test]
async fn versions_and_cipher_suites() -> Result<()> {
    const ASKED_FOR: CipherSuite = CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256;
    const OTHER: CipherSuite = CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384;
    let with = |more: &'static [&'static str]| {
        move |desk: &Desk| {
            let mut flags = desk.one_sided_tls();
            flags.extend(more.iter().map(|flag| (*flag).to_owned()));
            flags
        }
    };
    on_both(
        with(&["--cipher-suites=TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256"]),
        |desk| {
            let nobody = || desk.caller();
            let mut rows = Vec::new();
            for port in [Port::Client, Port::Peer] {
                let old = || nobody().speaking(&TLS12);
                rows.extend([
                    Row::taken(port, "TLS 1.3", &nobody().speaking(&TLS13)),
                    Row::taken(
                        port,
                        "the suite that was asked for",
                        &old().offering(ASKED_FOR),
                    ),
                    Row::refused(
                        port,
                        "another suite",
                        &old().offering(OTHER),
                        "no cipher suite",
                    ),
                ]);
            }
            Ok(rows)
        },
    )
    .await?;
    on_both(with(&["--tls-min-version=TLS1.3"]), |desk| {
        Ok(vec![
            Row::taken(Port::Client, "TLS 1.3", &desk.caller().speaking(&TLS13)),
            Row::refused(
                Port::Client,
                "TLS 1.2",
                &desk.caller().speaking(&TLS12),
                "client offered only unsupported versions",
            ),
        ])
    })
    .await?;
    on_both(with(&["--tls-max-version=TLS1.2"]), |desk| {
        Ok(vec![
            Row::taken(Port::Client, "TLS 1.2", &desk.caller().speaking(&TLS12)),
            Row::refused(
                Port::Client,
                "TLS 1.3",
                &desk.caller().speaking(&TLS13),
                "client offered only unsupported versions",
            ),
        ])
    })
    .await
}

/// etcdctl with some of the same certificates.
#[tokio::test]
async fn etcdctl_gets_in_with_the_right_certificate_only() -> Result<()> {
    for program in programs() {
        let mut desk = Desk::new(program)?;
        let flags = desk.mutual_tls();
        desk.open(&flags).await?;
        let good = desk.showing("good", &Leaf::client("client"))?;
        let put = |caller: &Caller| desk.etcdctl(caller, &["put", "key", "value"]);
        let taken = put(&good)?;
        ensure!(taken.status.success(), "{program:?}: {taken:?}");
        for wrong in [desk.caller(), desk.foreign()?, desk.revoked()?] {
            let refused = put(&wrong)?;
            ensure!(!refused.status.success(), "{program:?}: {wrong:?} got in");
        }
        desk.close_without_count().await?;
    }
    Ok(())
}

/// Certificates that members make themselves: nobody is asked for one, and nobody can check it.
#[tokio::test]
async fn certificates_that_members_make_themselves() -> Result<()> {
    for program in programs() {
        let mut group = Group::new(program, 3)?;
        let flags = ["--auto-tls", "--peer-auto-tls"].map(str::to_owned);
        group.start_all(&|_| flags.to_vec()).await?;
        let believing = Operator::new(Caller::credulous(), &group.client_urls());
        ensure!(
            believing.etcdctl(&["put", "key", "value"])?.contains("OK"),
            "{program:?}"
        );
        // A restarted member shows the certificate that it has made before.
        let fixtures = group.nodes[0].data_dir().join("fixtures");
        let certificate = fixtures.join("client/cert.pem");
        let before = std::fs::read(&certificate).context("no client certificate")?;
        ensure!(
            fixtures.join("peer/cert.pem").is_file(),
            "no peer certificate"
        );
        group.nodes[0].terminate().await?;
        group.start(0, &flags)?;
        group.nodes[0].answers("/readyz", 200).await?;
        ensure!(
            std::fs::read(&certificate)? == before,
            "it has made another"
        );
        let here = Operator::new(Caller::credulous(), &group.client_urls()[..1]);
        ensure!(
            here.etcdctl(&["get", "key"])?.contains("value"),
            "{program:?}"
        );
        for port in [group.nodes[0].client, group.nodes[0].peer] {
            let plain = http::get(port, "/version").await;
            ensure!(
                !plain.is_ok_and(|answer| answer.status == 200),
                "plain text got in"
            );
        }
        if program == Program::Kvorum {
            for port in [group.nodes[0].client, group.nodes[0].peer] {
                let answer = Caller::credulous().get(port, "/version").await?;
                ensure!(answer.status == 200, "{answer:?}");
            }
        }
        group.stop_all().await?;
    }
    Ok(())
}

/// Two members agree; the third has a certificate that they refuse, until it gets a right one.
#[tokio::test]
async fn a_member_with_the_wrong_certificate_stays_outside() -> Result<()> {
    for program in programs() {
        let mut group = Group::new(program, 3)?;
        let pki = GroupPki::new(&group)?;
        let outsider = Authority::new("other")?;
        let foreign = outsider.issue(&Leaf::default())?;
        foreign.write(group.nodes[2].dir(), "peer")?;
        for at in 0..3 {
            let flags = GroupPki::flags(&group.nodes[at]);
            group.start(at, &flags)?;
        }
        group.nodes[0].answers("/readyz", 200).await?;
        group.nodes[1].answers("/readyz", 200).await?;
        eventually("both sides tell", || async {
            let (inside, outside) = (group.nodes[0].log()?, group.nodes[2].log()?);
            let refusal = "certificate signed by unknown authority";
            let told = |line: &&str| line.contains("rejected connection") && line.contains(refusal);
            ensure!(inside.lines().any(|line| told(&line)), "the members do not");
            // rustls's clients say what is wrong; Go's do not.
            let alert = match program {
                Program::Etcd => "remote error: tls: bad certificate",
                Program::Kvorum => "remote error: tls: unknown certificate authority",
            };
            ensure!(outside.contains(alert), "the outsider does not");
            Ok(())
        })
        .await?;
        let operator = Operator::new(pki.client(&group, "operator")?, &group.client_urls());
        operator.put("without", "the outsider").await?;
        ensure!(
            group.nodes[2].probe("/readyz").await.ok() != Some(200),
            "it is in"
        );
        // The leaf is read again for every connection: no restart is needed.
        pki.issue_peer(&group.nodes[2])?;
        group.nodes[2].answers("/readyz", 200).await?;
        let value = operator
            .get(&group.nodes[2].client_url(), "without")
            .await?;
        ensure!(value.as_deref() == Some("the outsider"), "{value:?}");
        group.stop_all().await?;
    }
    Ok(())
}

/// What an operator does once a year, and what a real etcd needs a restart for: new leaves, a new
/// authority, a new revocation list, on both ports of all members, while clients go on.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_file_is_changed_under_load() -> Result<()> {
    let mut group = Group::new(Program::Kvorum, 3)?;
    let old = GroupPki::new(&group)?;
    group.start_all(&GroupPki::flags).await?;
    let first = old.client(&group, "first")?;
    let load = Load::start(&group, first.clone()).await?;

    // The leaves run out.
    old.issue_leaves(&group)?;
    group.show_leaves(&first).await?;
    load.settle().await?;

    // Somebody leaves the company.
    let (leaver, serial) = old.client_with_serial(&group, "leaver")?;
    group.let_in(&leaver).await?;
    group.write_everywhere("ca.crl", &old.ca.crl(2, &[serial])?)?;
    group.keep_out(&leaver, "revoked").await?;
    load.settle().await?;

    // Another authority: members first believe both, then get its leaves, then believe it only.
    let new = GroupPki::of(Authority::new("second")?);
    let second = new.client(&group, "second")?;
    group.write_everywhere("ca.crt", &format!("{}{}", old.ca.pem(), new.ca.pem()))?;
    group.let_in(&second).await?;
    load.call_as(second.clone()).await?;
    // Who has still not been to the office: believes both, but shows the old.
    let late = old.client(&group, "late")?;
    new.issue_leaves(&group)?;
    group.show_leaves(&second).await?;
    load.settle().await?;
    group.write_everywhere("ca.crt", new.ca.pem())?;
    group
        .keep_out(&late, "certificate signed by unknown authority")
        .await?;
    let (leaver, serial) = new.client_with_serial(&group, "another leaver")?;
    group.let_in(&leaver).await?;
    group.write_everywhere("ca.crl", &new.ca.crl(1, &[serial])?)?;
    group.keep_out(&leaver, "revoked").await?;
    load.settle().await?;

    let requests = load.stop().await?;
    note(format!(
        "{requests} requests while the files changed, none failed"
    ));
    // Connections that are made from here on need the new files on both sides.
    group.nodes[2].kill()?;
    let flags = GroupPki::flags(&group.nodes[2]);
    group.start(2, &flags)?;
    group.nodes[2].answers("/readyz", 200).await?;
    let operator = Operator::new(second, &group.client_urls());
    operator.put("after", "the change").await?;
    let value = operator.get(&group.nodes[2].client_url(), "after").await?;
    ensure!(value.as_deref() == Some("the change"), "{value:?}");
    group.stop_all().await
}

/// A pair of files whose halves do not fit is not used; the log says so, and the one before stays.
#[tokio::test]
async fn files_that_cannot_be_used_change_nothing() -> Result<()> {
    let mut group = Group::new(Program::Kvorum, 1)?;
    let pki = GroupPki::new(&group)?;
    group.start_all(&GroupPki::flags).await?;
    let caller = pki.client(&group, "client")?;
    for name in ["server.crt", "peer.key", "ca.crt", "ca.crl"] {
        let path = group.nodes[0].dir().join(name);
        let good = std::fs::read_to_string(&path)?;
        group.write_everywhere(name, "no certificate at all")?;
        eventually("the log tells of the file", || async {
            group.let_in(&caller).await?;
            let log = group.nodes[0].log()?;
            let told = log.lines().any(|line| {
                line.contains("\"level\":\"warn\"") && line.contains(&path.display().to_string())
            });
            ensure!(told, "nothing about {name}");
            Ok(())
        })
        .await?;
        group.write_everywhere(name, &good)?;
    }
    group.let_in(&caller).await?;
    group.stop_all().await
}
