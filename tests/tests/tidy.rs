//! Style as a test: what the map says and the compiler does not check.
//!
//! Arrows between crates, who may name which library, length of files, and the number of lint
//! exceptions, which may only fall (`tidy/exceptions.txt`).

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use cargo_metadata::{DependencyKind, Metadata, MetadataCommand, Package};

/// Lines of the longest source file.
const FILE_LINES_MAX: usize = 800;

/// Libraries that one crate wraps, and no other may name.
const WRAPPED: [(&str, &str); 4] = [
    ("sled", "backend"),
    ("openraft", "raft"),
    ("rustls", "transport"),
    ("tokio-rustls", "transport"),
];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .expect("tests/ is in the repository")
        .to_owned()
}

fn metadata() -> Metadata {
    let manifest = root().join("Cargo.toml");
    MetadataCommand::new()
        .manifest_path(manifest)
        .no_deps()
        .exec()
        .expect("cargo metadata works")
}

/// The name of a crate in the map: without the prefix that its package has.
fn short(name: &str) -> &str {
    name.strip_prefix("kvorum-").unwrap_or(name)
}

/// The packages under `crates/`.
fn crates(metadata: &Metadata) -> impl Iterator<Item = &Package> {
    let directory = root().join("crates");
    metadata
        .packages
        .iter()
        .filter(move |package| package.manifest_path.starts_with(&directory))
}

/// Which crates each crate may use, from the table in the map.
fn allowed_arrows() -> BTreeMap<String, BTreeSet<String>> {
    let map = fs::read_to_string(root().join("crates/ARCHITECTURE.md")).expect("the map is there");
    let mut allowed = BTreeMap::<String, BTreeSet<String>>::new();
    for line in map.lines() {
        let cells: Vec<&str> = line.split('|').map(str::trim).collect();
        let [_, layer, name, _what, uses, _] = cells[..] else {
            continue;
        };
        if !(layer == "–" || layer.parse::<u8>().is_ok()) {
            continue;
        }
        let above: BTreeSet<String> = allowed.keys().cloned().collect();
        let uses = uses.split('(').next().unwrap_or_default();
        let uses = match uses {
            "all of the above" => above,
            list => list.split(',').map(|name| name.trim().to_owned()).collect(),
        };
        allowed.insert(name.trim_matches('`').to_owned(), uses);
    }
    assert!(
        allowed.len() > 5,
        "the table of crates in the map was not understood"
    );
    allowed
}

/// Whether `upper` stands on `lower`, if only by way of others.
fn is_below(allowed: &BTreeMap<String, BTreeSet<String>>, upper: &str, lower: &str) -> bool {
    let uses = allowed.get(upper);
    let reaches = |used: &String| used == lower || is_below(allowed, used, lower);
    uses.is_some_and(|uses| uses.iter().any(reaches))
}

/// Every file under the directories of code, with its path from the root.
fn files() -> Vec<(String, PathBuf)> {
    let root = root();
    let mut found = Vec::new();
    let mut directories: Vec<PathBuf> = ["crates", "tests", "benches", "proto"]
        .map(|name| root.join(name))
        .to_vec();
    while let Some(directory) = directories.pop() {
        for entry in fs::read_dir(&directory).expect("a directory of the repository") {
            let path = entry.expect("an entry of it").path();
            let name = path
                .file_name()
                .unwrap_or_default()
                .to_string_lossy()
                .into_owned();
            if path.is_dir() && name != "target" && !name.starts_with('.') {
                directories.push(path);
            } else if path.is_file() {
                let from_root = path.strip_prefix(&root).expect("it is under the root");
                found.push((from_root.to_string_lossy().into_owned(), path));
            }
        }
    }
    found.sort();
    found
}

/// Every Rust source file: its path from the root, and its text.
fn sources() -> Vec<(String, String)> {
    let is_source = |(name, _): &(String, PathBuf)| name.ends_with(".rs");
    let read = |(name, path): (String, PathBuf)| {
        (
            name,
            fs::read_to_string(path).expect("a source file is text"),
        )
    };
    files().into_iter().filter(is_source).map(read).collect()
}

fn assert_none(what: &str, found: &[String]) {
    assert!(found.is_empty(), "{what}:\n  {}\n", found.join("\n  "));
}

#[test]
fn arrows_between_crates_are_those_of_the_map() {
    let allowed = allowed_arrows();
    let mut wrong = Vec::new();
    for package in crates(&metadata()) {
        let name = short(&package.name);
        let Some(may_use) = allowed.get(name) else {
            wrong.push(format!("crate {name} is not in crates/ARCHITECTURE.md"));
            continue;
        };
        for dependency in package.dependencies.iter().filter(|d| d.path.is_some()) {
            let used = short(&dependency.name);
            // Tests may look through the layers that their crate stands on.
            let is_for_tests = dependency.kind == DependencyKind::Development;
            let below = || used == "testkit" || is_below(&allowed, name, used);
            if !(may_use.contains(used) || is_for_tests && below()) {
                wrong.push(format!("{name} -> {used}"));
            }
        }
    }
    assert_none(
        "arrows that the table in crates/ARCHITECTURE.md does not allow",
        &wrong,
    );
}

#[test]
fn wrapped_libraries_are_named_by_their_crate_only() {
    let mut wrong = Vec::new();
    for package in crates(&metadata()) {
        let name = short(&package.name);
        for dependency in &package.dependencies {
            let owner = WRAPPED
                .iter()
                .find(|(library, _)| *library == dependency.name);
            if let Some((library, owner)) = owner
                && *owner != name
            {
                wrong.push(format!("{name} names {library}, which only {owner} may"));
            }
        }
    }
    assert_none("libraries in the wrong crate", &wrong);
}

#[test]
fn every_package_has_the_lints_of_the_workspace() {
    let has_lints = |package: &Package| {
        let manifest = fs::read_to_string(&package.manifest_path).expect("a manifest is text");
        manifest.contains("[lints]\nworkspace = true")
    };
    let metadata = metadata();
    let without: Vec<String> = metadata
        .packages
        .iter()
        .filter(|package| !has_lints(package))
        .map(|package| package.name.to_string())
        .collect();
    assert_none("packages without [lints] workspace = true", &without);
}

#[test]
fn no_file_is_too_long_and_none_is_called_mod() {
    let mut wrong = Vec::new();
    for (name, text) in sources() {
        let lines = text.lines().count();
        if lines > FILE_LINES_MAX {
            wrong.push(format!(
                "{name} has {lines} lines, more than {FILE_LINES_MAX}"
            ));
        }
        if name.ends_with("/mod.rs") {
            wrong.push(format!(
                "{name} should be named as its directory, beside it"
            ));
        }
    }
    assert_none("files out of shape", &wrong);
}

#[test]
fn every_note_of_work_left_names_an_issue() {
    // In pieces, so that this file does not find itself.
    let marks = [concat!("TO", "DO"), concat!("FIX", "ME")];
    let mut wrong = Vec::new();
    for (name, path) in files() {
        let Ok(text) = fs::read_to_string(path) else {
            continue;
        };
        for (at, line) in text.lines().enumerate() {
            let names_issue = |rest: &str| {
                rest.strip_prefix("(#")
                    .is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_digit()))
            };
            let found = marks.iter().filter_map(|mark| line.split_once(mark));
            if found.into_iter().any(|(_, rest)| !names_issue(rest)) {
                wrong.push(format!("{name}:{}: {}", at + 1, line.trim()));
            }
        }
    }
    assert_none("notes of work left without the number of an issue", &wrong);
}

#[test]
fn lint_exceptions_are_listed_and_only_fall() {
    let mut counts = BTreeMap::new();
    for (name, text) in sources() {
        let is_exception = |line: &&str| {
            let line = line.trim_start();
            ["#[expect(", "#![expect(", "#[allow(", "#![allow("]
                .iter()
                .any(|attribute| line.starts_with(attribute))
        };
        let count = text.lines().filter(is_exception).count();
        if count > 0 {
            counts.insert(name, count);
        }
    }
    let mut listed = BTreeMap::new();
    for line in include_str!("tidy/exceptions.txt")
        .lines()
        .filter(|line| !line.starts_with('#'))
    {
        let (name, count) = line.split_once(' ').expect("a line is a file and a number");
        listed.insert(
            name.to_owned(),
            count.trim().parse::<usize>().expect("a number"),
        );
    }
    let listed = |name: &String| listed.get(name).copied().unwrap_or_default();
    let risen: Vec<String> = counts
        .iter()
        .filter(|(name, count)| **count > listed(name))
        .map(|(name, count)| format!("{name} {count} (listed: {})", listed(name)))
        .collect();
    assert_none(
        "more lint exceptions than tests/tests/tidy/exceptions.txt lists (do without, or list them \
         and say in the commit why)",
        &risen,
    );
}
