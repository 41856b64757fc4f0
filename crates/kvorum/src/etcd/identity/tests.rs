use super::*;
use crate::config::flags::{Action, parse};

fn config(arguments: &[&str]) -> Config {
    let Action::Run { options, .. } = parse(arguments).unwrap() else {
        panic!("no options in {arguments:?}");
    };
    options.validate().unwrap()
}

fn refusal(arguments: &[&str]) -> String {
    bootstrap(&config(arguments)).unwrap_err().to_string()
}

#[test]
fn a_member_with_nothing_given_has_the_ids_of_stock_etcd() {
    let identity = bootstrap(&config(&[])).unwrap();
    assert_eq!(identity.member.to_string(), "8e9e05c52164694d");
    assert_eq!(identity.cluster.to_string(), "cdf818194e3a8c32");
}

#[test]
fn ids_stay_with_the_data() {
    let mut log = Backend::in_memory();
    let first = load_or_create(&mut log, &config(&["--initial-cluster-token=a"])).unwrap();
    let other = config(&[
        "--initial-cluster-token=b",
        "--initial-cluster=x=http://10.0.0.1:1",
    ]);
    assert_eq!(load_or_create(&mut log, &other).unwrap(), first);
}

#[test]
fn an_initial_cluster_that_does_not_fit_is_refused_in_etcds_words() {
    let cluster = "--initial-cluster=default=http://127.0.0.1:42380";
    let advertise = "--initial-advertise-peer-urls=http://127.0.0.1:42380";
    assert_eq!(
        refusal(&["--initial-cluster=foo=http://127.0.0.1:42380"]),
        "couldn't find local name \"default\" in the initial cluster configuration"
    );
    assert_eq!(
        refusal(&["--initial-cluster="]),
        "couldn't find local name \"default\" in the initial cluster configuration"
    );
    assert_eq!(
        refusal(&[cluster]),
        "--initial-cluster has default=http://127.0.0.1:42380 but missing from \
         --initial-advertise-peer-urls=http://localhost:2380"
    );
    assert_eq!(
        refusal(&[cluster, &format!("{advertise},http://127.0.0.1:42381")]),
        "--initial-advertise-peer-urls has http://127.0.0.1:42381 but missing from \
         --initial-cluster=default=http://127.0.0.1:42380"
    );
    assert_eq!(
        refusal(&[&format!("{cluster},b=http://127.0.0.1:42380"), advertise]),
        "initial cluster b=http://127.0.0.1:42380,default=http://127.0.0.1:42380 has duplicate url"
    );
}

#[test]
fn clusters_of_several_members_and_joining_are_refused_by_flag() {
    let several = refusal(&["--initial-cluster=default=http://localhost:2380,b=http://a:1"]);
    assert!(
        several.starts_with("--initial-cluster names 2 members"),
        "{several}"
    );
    let joining = refusal(&["--initial-cluster-state=existing"]);
    assert!(
        joining.starts_with("--initial-cluster-state is \"existing\""),
        "{joining}"
    );
}
