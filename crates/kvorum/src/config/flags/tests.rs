//! The texts and the syntax are compared with etcd 3.5.30's.

use super::*;
use crate::config::FeatureGates;

fn options(arguments: &[&str]) -> Options {
    match parse(arguments).unwrap() {
        Action::Run { options, .. } => *options,
        other => panic!("{other:?}"),
    }
}

fn error(arguments: &[&str]) -> String {
    parse(arguments).unwrap_err().to_string()
}

#[test]
fn a_flag_has_one_dash_or_two_and_its_value_behind_a_space_or_an_equals_sign() {
    for arguments in [
        &["--name", "a"][..],
        &["-name", "a"],
        &["--name=a"],
        &["-name=a"],
        &["--name=b", "--name=a"],
    ] {
        assert_eq!(options(arguments).name, "a", "{arguments:?}");
    }
    assert_eq!(options(&["--name="]).name, "");
    assert_eq!(options(&["--name", "--x"]).name, "--x");
}

#[test]
fn a_switch_takes_its_value_only_behind_an_equals_sign() {
    assert!(options(&["--client-cert-auth"]).client_tls.client_cert_auth);
    assert!(
        !options(&["--client-cert-auth=false"])
            .client_tls
            .client_cert_auth
    );
    assert_eq!(
        error(&["--client-cert-auth", "false"]),
        "'false' is not a valid flag"
    );
    assert_eq!(
        error(&["--client-cert-auth=maybe"]),
        "invalid boolean value \"maybe\" for -client-cert-auth: parse error"
    );
}

#[test]
fn what_is_no_flag_is_refused_by_name() {
    assert_eq!(error(&["--bogus"]), "flag provided but not defined: -bogus");
    assert_eq!(
        error(&["-bogus=1", "--other"]),
        "flag provided but not defined: -bogus\nflag provided but not defined: -other"
    );
    assert_eq!(error(&["--name"]), "flag needs an argument: -name");
    assert_eq!(error(&["---x"]), "bad flag syntax: ---x");
    assert_eq!(error(&["--=x"]), "bad flag syntax: --=x");
    assert_eq!(error(&["foo"]), "'foo' is not a valid flag");
    assert!(parse(&["--bogus"]).unwrap_err().is_usage());
    assert!(!parse(&["foo"]).unwrap_err().is_usage());
}

#[test]
fn wrong_values_are_refused_in_etcds_words() {
    let cases: [(&[&str], &str); 7] = [
        (
            &["--heartbeat-interval", "abc"],
            "invalid value \"abc\" for flag -heartbeat-interval: parse error",
        ),
        (
            &["--heartbeat-interval", "99999999999999999999999"],
            "invalid value \"99999999999999999999999\" for flag -heartbeat-interval: \
             value out of range",
        ),
        (
            &["--snapshot-count", "-1"],
            "invalid value \"-1\" for flag -snapshot-count: parse error",
        ),
        (
            &["--initial-cluster-state", "foo"],
            "invalid value \"foo\" for flag -initial-cluster-state: invalid value",
        ),
        (
            &["--experimental-watch-progress-notify-interval", "5"],
            "invalid value \"5\" for flag -experimental-watch-progress-notify-interval: parse error",
        ),
        (
            &["--listen-client-urls", "http://127.0.0.1"],
            "invalid value \"http://127.0.0.1\" for flag -listen-client-urls: \
             URL address does not have the form \"host:port\": http://127.0.0.1",
        ),
        (
            &["--advertise-client-urls", "foo"],
            "invalid value \"foo\" for flag -advertise-client-urls: \
             URL scheme must be http, https, unix, or unixs: foo",
        ),
    ];
    for (arguments, text) in cases {
        assert_eq!(error(arguments), text);
    }
}

#[test]
fn the_defaults_that_help_shows_are_the_ones_in_use() {
    let defaults = Options::default();
    for flag in all() {
        let mut options = Options::default();
        if flag.default.contains("${") || flag.default.contains("localhost") {
            continue;
        }
        flag.set(&mut options, flag.default).unwrap();
        options.given.clear();
        if flag.name.starts_with("experimental-") {
            // Some of them are feature gates, and remember that they were given.
            options.feature_gates = FeatureGates::default();
        }
        assert_eq!(options, defaults, "--{}", flag.name);
    }
}

#[test]
fn help_names_every_flag() {
    let help = help();
    for flag in all() {
        let is_named = help.contains(&format!("--{} '", flag.name));
        assert_eq!(is_named, flag.kind != Kind::Legacy, "{}", flag.name);
    }
    assert_eq!(parse(&["-h"]), Ok(Action::Help));
    assert_eq!(parse(&["--version"]), Ok(Action::Version));
}

#[test]
fn numbers_are_read_as_go_reads_them() {
    assert_eq!(
        options(&["--quota-backend-bytes=-1"]).quota_backend_bytes,
        -1
    );
    assert_eq!(
        options(&["--quota-backend-bytes=0x10"]).quota_backend_bytes,
        16
    );
}

#[test]
fn every_mistake_is_told_at_once_and_the_rest_is_read() {
    let errors = parse(&[
        "--snapshot-count=x",
        "--bogus",
        "1",
        "--name",
        "a",
        "--client-cert-auth=maybe",
        "--heartbeat-interval",
    ])
    .unwrap_err();
    assert_eq!(
        errors.to_string().lines().collect::<Vec<_>>(),
        [
            "invalid value \"x\" for flag -snapshot-count: parse error",
            "flag provided but not defined: -bogus",
            "invalid boolean value \"maybe\" for -client-cert-auth: parse error",
            "flag needs an argument: -heartbeat-interval",
        ]
    );
    assert_eq!(
        (errors.options.name.as_str(), errors.given),
        ("a", vec!["name"])
    );
}
