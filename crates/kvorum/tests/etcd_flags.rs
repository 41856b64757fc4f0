//! Every flag of etcd 3.5, 3.6 and 3.7 is known, under its name in the environment too, with etcd's
//! default, and something is done with it: a test is named, or it is warned of.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use kvorum::config::flags::{self, Action};
use kvorum::config::{Options, Warning, env};

/// A line of the list.
struct Row {
    name: &'static str,
    does: &'static str,
    default: &'static str,
}

fn rows() -> Vec<Row> {
    include_str!("etcd_flags.txt")
        .lines()
        .filter(|line| !line.is_empty() && !line.starts_with('#'))
        .map(|line| {
            let mut words = line.splitn(4, ' ');
            let mut word = || words.next().unwrap_or_default();
            let (name, _releases, does, default) = (word(), word(), word(), word());
            Row {
                name,
                does,
                default,
            }
        })
        .collect()
}

fn default(row: &Row) -> &'static str {
    let ours = flags::all().find(|flag| flag.name == row.name);
    ours.expect(row.name).default
}

/// A value for it: its default, or some text.
fn value(row: &Row) -> &'static str {
    match (row.name, default(row)) {
        ("feature-gates", _) => "SetMemberLocalAddr=true",
        (_, "") => "http://127.0.0.1:1",
        (_, default) => default,
    }
}

fn options(row: &Row) -> Options {
    let argument = format!("--{}={}", row.name, value(row));
    match flags::parse(&[argument]) {
        Ok(Action::Run { options, .. }) => *options,
        _other => unreachable!("a flag and its value run a member"),
    }
}

/// Whether it is accepted by itself, with a warning.
fn is_warned(row: &Row) -> bool {
    let Ok(config) = options(row).validate() else {
        return false;
    };
    config
        .warnings
        .iter()
        .any(|warning| matches!(warning, Warning::NoEffect { flag } if *flag == row.name))
}

#[test]
fn every_flag_has_etcds_default() {
    for row in rows() {
        if row.name == "version" || row.does == "silent" {
            continue;
        }
        assert_eq!(default(&row), row.default, "--{}", row.name);
    }
}

#[test]
fn every_flag_can_be_given_in_the_environment() {
    for row in rows() {
        if ["version", "config-file"].contains(&row.name) {
            continue;
        }
        let variable = env::variable(row.name);
        let (notices, _) = env::fill(
            &mut Options::default(),
            &[],
            [(variable.clone(), value(&row).to_owned())],
        );
        let is_unknown = notices
            .iter()
            .any(|notice| matches!(notice, env::Notice::Unrecognized { .. }));
        assert!(!is_unknown, "{variable}");
    }
}

#[test]
fn every_flag_is_honoured_by_a_test_or_warned_of() {
    let tests = test_names();
    for row in rows() {
        match row.does {
            "silent" => assert!(!is_warned(&row), "--{}", row.name),
            "warned" => assert!(is_warned(&row), "--{} is not warned of", row.name),
            "pending" => {
                let is_refused = options(&row).validate().is_err();
                assert!(
                    is_warned(&row) || is_refused,
                    "--{} is not pending",
                    row.name
                );
            }
            test => assert!(tests.contains(test), "--{}: no test {test}", row.name),
        }
        let has_no_test = ["silent", "warned", "pending"].contains(&row.does);
        let is_ours = row.name != "version" && !has_no_test;
        assert!(!(is_ours && is_warned(&row)), "--{} is warned of", row.name);
    }
}

#[test]
fn flags_that_etcd_does_not_have_are_few() {
    let etcds: BTreeSet<&str> = rows().iter().map(|row| row.name).collect();
    let ours: Vec<&str> = flags::all()
        .map(|flag| flag.name)
        .filter(|name| !etcds.contains(name) && !name.starts_with("backup-"))
        .collect();
    // Spellings that some release of etcd had or its configuration files have.
    let spellings = [
        "experimental-snapshot-catch-up-entries",
        "experimental-max-learners",
    ];
    for flag in ours {
        let is_known = spellings.contains(&flag) || KVORUMS_OWN.contains(&flag);
        assert!(is_known, "--{flag} is in no list");
    }
}

/// Flags of features that etcd does not have.
const KVORUMS_OWN: &[&str] = &["corrupt-repair", "grpc-reflection", "nospace-auto-disarm"];

/// The names of all functions in the workspace's sources that are called like tests.
fn test_names() -> BTreeSet<String> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let mut names = BTreeSet::new();
    let mut directories: Vec<PathBuf> = vec![root.join("crates"), root.join("tests")];
    while let Some(directory) = directories.pop() {
        for entry in fs::read_dir(directory).expect("sources") {
            let path = entry.expect("sources").path();
            if path.is_dir() {
                directories.push(path);
            } else if path.extension().is_some_and(|end| end == "rs") {
                let text = fs::read_to_string(path).expect("text");
                names.extend(text.lines().filter_map(function_name));
            }
        }
    }
    names
}

fn function_name(line: &str) -> Option<String> {
    let (_, rest) = line.split_once("fn ")?;
    let (name, _) = rest.split_once('(')?;
    Some(name.to_owned())
}
