use apply::{Alarm, AlarmKind};
use base64::Engine as _;
use transport::ClientCertificate;

use super::*;

fn standing(voters: usize, reachable_voters: usize) -> Standing {
    Standing {
        has_leader: true,
        voters,
        reachable_voters,
        heartbeat_s: 0.1,
        ..Standing::default()
    }
}

fn said(standing: &Standing) -> Vec<(String, String)> {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let problems = problems(standing);
    let said = problems
        .iter()
        .map(|it| (text(&it["level"]), text(&it["text"])));
    said.collect()
}

fn levels(standing: &Standing) -> Vec<String> {
    said(standing).into_iter().map(|(level, _)| level).collect()
}

#[test]
fn a_whole_cluster_of_three_has_nothing_to_say() {
    assert_eq!(said(&standing(3, 3)), []);
    assert_eq!((standing(3, 3).quorum(), standing(3, 3).margin()), (2, 1));
}

#[test]
fn what_is_left_of_the_quorum_is_said() {
    let one_lost = said(&standing(3, 2));
    assert_eq!(one_lost.len(), 1);
    assert_eq!(
        one_lost[0].1,
        "2 of 3 voters can be reached: losing one more stops all writes."
    );
    assert_eq!(levels(&standing(5, 4)), ["warning"]);
    assert!(!said(&standing(5, 4))[0].1.contains("losing"));
    assert_eq!(levels(&standing(3, 1)), ["error"]);
    assert_eq!(standing(3, 1).margin(), -1);
    assert_eq!(levels(&standing(4, 4)), ["info"]);
    assert_eq!(levels(&standing(1, 1)), ["info"]);
}

#[test]
fn alarms_sizes_and_slow_disks_are_said() {
    let mut standing = standing(3, 3);
    standing.has_leader = false;
    standing.alarms = vec![Alarm {
        member: MemberId(0xab),
        kind: AlarmKind::NoSpace,
    }];
    standing.db_bytes = 900 << 20;
    standing.quota_bytes = Some(1 << 30);
    standing.fsync_p99_s = Some(0.4);
    assert_eq!(levels(&standing), ["error", "error", "warning", "warning"]);
    let said = said(&standing);
    assert!(said[1].1.contains("NOSPACE at member ab"), "{said:?}");
    assert!(said[2].1.contains("88 %"), "{said:?}");
    assert!(said[3].1.contains("400 ms"), "{said:?}");
}

#[test]
fn keys_are_for_those_who_could_read_them() {
    let peer = |remote: &str, certificate: Option<ClientCertificate>| PeerInfo {
        remote: RemoteAddr::Tcp(remote.parse().unwrap()),
        tls: certificate.is_some(),
        certificate,
    };
    let certificate = || Some(ClientCertificate { common_name: None });
    for local in [
        "127.0.0.1:1",
        "127.1.2.3:1",
        "[::1]:1",
        "[::ffff:127.0.0.1]:1",
    ] {
        let peer = peer(local, None);
        assert_eq!(
            Audience::by_certificate(true, Some(&peer)),
            Audience::Trusted
        );
    }
    for other in ["10.0.0.1:1", "[fe80::1]:1", "[::ffff:10.0.0.1]:1"] {
        let without = peer(other, None);
        let refused = Audience::by_certificate(true, Some(&without));
        assert_eq!(refused, Audience::WithoutCertificate);
        assert_eq!(
            Audience::by_certificate(false, Some(&without)),
            Audience::Trusted
        );
        let with = peer(other, certificate());
        assert_eq!(
            Audience::by_certificate(true, Some(&with)),
            Audience::Trusted
        );
    }
    assert_eq!(
        Audience::by_certificate(true, None),
        Audience::WithoutCertificate
    );
}

/// The text between `<script>` and `</script>`.
fn script() -> &'static str {
    let (_, rest) = PAGE.split_once("<script>").expect("there is a script");
    let (script, rest) = rest.split_once("</script>").expect("it ends");
    assert!(!rest.contains("<script"), "there is only one");
    script
}

#[test]
fn the_policy_allows_the_pages_own_script_and_no_other() {
    let hash = ring::digest::digest(&ring::digest::SHA256, script().as_bytes());
    let hash = base64::engine::general_purpose::STANDARD.encode(hash);
    let policy = POLICY.to_str().unwrap().to_owned();
    assert!(
        policy.contains(&format!("'sha256-{hash}'")),
        "the script's hash is {hash}"
    );
}

#[test]
fn the_page_needs_nothing_from_elsewhere() {
    for word in [
        "http://", "https://", "//cdn", "@import", "src=", "<link", "url(",
    ] {
        // A name, and an icon that is none.
        let found = PAGE.replace("http://www.w3.org/2000/svg", "");
        let found = found.replace(r#"<link rel="icon" href="data:,">"#, "");
        assert!(!found.contains(word), "{word}");
    }
    // Text that comes from members is never read as markup.
    for word in [
        "innerHTML",
        "outerHTML",
        "insertAdjacentHTML",
        "document.write",
        "eval(",
    ] {
        assert!(!script().contains(word), "{word}");
    }
}
