use super::*;

const fn v3(minor: u64) -> Version {
    Version { major: 3, minor }
}

fn versions(cluster: u64, downgrade: Option<u64>) -> ClusterVersions {
    ClusterVersions {
        cluster: Some(v3(cluster)),
        downgrade: downgrade.map(v3),
    }
}

fn all(minors: &[u64]) -> Announced {
    Some(minors.iter().copied().map(v3).collect())
}

#[test]
fn the_first_version_is_the_lowest_or_the_oldest_there_is() {
    let undecided = ClusterVersions::default();
    assert_eq!(decide(undecided, &all(&[7, 6, 6])), Step::Set(v3(6)));
    assert_eq!(decide(undecided, &None), Step::Set(v3(0)));
}

#[test]
fn a_new_version_comes_when_all_members_have_it() {
    assert_eq!(decide(versions(5, None), &all(&[6, 5, 6])), Step::Stay);
    assert_eq!(decide(versions(5, None), &None), Step::Stay);
    assert_eq!(
        decide(versions(5, None), &all(&[6, 6, 6])),
        Step::Set(v3(6))
    );
    assert_eq!(decide(versions(0, None), &all(&[6])), Step::Set(v3(6)));
    assert_eq!(decide(versions(6, None), &all(&[6, 5])), Step::Stay);
}

#[test]
fn a_downgrade_goes_down_by_one_and_stays_there() {
    assert_eq!(
        decide(versions(6, Some(5)), &all(&[6, 6])),
        Step::Set(v3(5))
    );
    assert_eq!(decide(versions(5, Some(5)), &all(&[6, 6])), Step::Stay);
    assert_eq!(decide(versions(6, Some(5)), &None), Step::Stay);
    let invalid = |from| Step::Invalid {
        target: v3(5),
        from: v3(from),
    };
    assert_eq!(decide(versions(7, Some(5)), &all(&[6])), invalid(7));
    assert_eq!(decide(versions(6, Some(5)), &all(&[7])), invalid(7));
    // Cancelled: up again.
    assert_eq!(decide(versions(5, None), &all(&[6, 6])), Step::Set(v3(6)));
}

#[test]
fn a_downgrade_has_ended_when_all_members_are_there() {
    assert!(!has_ended(v3(5), &all(&[5, 6, 5])));
    assert!(!has_ended(v3(5), &all(&[6, 6, 6])));
    assert!(!has_ended(v3(5), &None));
    assert!(has_ended(v3(5), &all(&[5, 5, 5])));
}

#[test]
fn versions_are_shown_as_etcd_shows_them() {
    let shown = ShownVersions::new(ClusterVersions::default()).to_string();
    let not_decided = r#"{"etcdserver":"3.6.14","etcdcluster":"not_decided","storage":"3.6.0"}"#;
    assert_eq!(shown, not_decided);
    let shown = ShownVersions::new(versions(5, Some(5))).to_string();
    let down = r#"{"etcdserver":"3.6.14","etcdcluster":"3.5.0","storage":"3.5.0"}"#;
    assert_eq!(shown, down);
}
