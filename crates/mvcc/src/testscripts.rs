//! Histories as text: `src/testscripts/` holds requests, each line after a `>`, and the answers below them.
//!
//! | request | what |
//! |---|---|
//! | `put KEY VALUE [lease=N]` | a transaction of one put |
//! | `delete KEY [END]` | of one delete; `..` as END is open |
//! | `txn CHANGE; CHANGE` | of several |
//! | `get KEY [END] [rev=N] [limit=N] [count]` | a range |
//! | `events FROM` | history with the values before |
//! | `compact REVISION` | all of it, the disk too |
//! | `hashes` | HashKV at every revision that can be read |
//! | `hash REVISION` | HashKV at one |
//! | `stage` | everything so far goes to the disk |
//! | `reopen` | that, and then reads it back |
//! | `size` | bytes in use |
//!
//! To write down new answers, run the tests with `KVORUM_UPDATE_TESTSCRIPTS=1`, and read the diff.

use std::fmt::Write;
use std::path::Path;

use bytes::Bytes;
use types::KeyRange;

use crate::fixture::{Fixture, put};
use crate::{PrevKv, Range, StoredKv, WriteTxn};

#[test]
fn hashes_of_etcd_3_5_30() {
    run("hashes_of_etcd_3_5_30");
}

#[test]
fn hashes_that_compactions_leave() {
    run("hashes_that_compactions_leave");
}

#[test]
fn generations() {
    run("generations");
}

#[test]
fn compaction() {
    run("compaction");
}

#[test]
fn transactions() {
    run("transactions");
}

/// Runs a script as it is written, and again with everything persisted and scrubbed after each
/// request, which must not make a difference.
fn run(name: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("src/testscripts")
        .join(name);
    let script = std::fs::read_to_string(&path).unwrap();
    let answered = answer(&script, false);
    if std::env::var_os("KVORUM_UPDATE_TESTSCRIPTS").is_some() {
        std::fs::write(&path, &answered).unwrap();
        return;
    }
    assert_eq!(answered, script, "other answers than in {name}");
    assert_eq!(
        answer(&script, true),
        script,
        "other answers than in {name} when all is settled"
    );
}

fn answer(script: &str, settle: bool) -> String {
    let mut store = Fixture::new(0);
    let mut out = String::new();
    for line in script.lines() {
        match line.strip_prefix("> ") {
            Some(request) => {
                writeln!(out, "{line}").unwrap();
                request_one(&mut store, request, &mut out);
                if settle {
                    store.settle();
                }
            }
            None if line.is_empty() || line.starts_with('#') => writeln!(out, "{line}").unwrap(),
            None => {}
        }
    }
    out
}

fn request_one(store: &mut Fixture, request: &str, out: &mut String) {
    let words: Vec<&str> = request.split_whitespace().collect();
    match words[0] {
        "put" | "delete" => txn(store, &[request], out),
        "txn" => txn(store, &request[3..].split(';').collect::<Vec<_>>(), out),
        "get" => get(store, &words[1..], out),
        "events" => events(store, words[1].parse().unwrap(), out),
        "compact" => match store.writer.compact(words[1].parse().unwrap()) {
            Ok(()) => {
                store.settle();
                writeln!(out, "ok").unwrap();
            }
            Err(error) => writeln!(out, "{error}").unwrap(),
        },
        "hashes" => hashes(store, out),
        "hash" => hash(store, words[1].parse().unwrap(), out),
        "stage" => store.stage(),
        "reopen" => {
            store.stage();
            store.reopen();
        }
        "size" => writeln!(out, "{} bytes in use", store.live_bytes()).unwrap(),
        other => panic!("there is no request {other}"),
    }
}

fn key_range(words: &[&str]) -> KeyRange {
    let end = words
        .get(1)
        .filter(|word| !word.contains('=') && **word != "count");
    let key = Bytes::copy_from_slice(words[0].as_bytes());
    match end {
        None => KeyRange::Single(key),
        Some(&"..") => KeyRange::From(key),
        Some(end) => KeyRange::Range {
            start: key,
            end: Bytes::copy_from_slice(end.as_bytes()),
        },
    }
}

fn option<T: std::str::FromStr>(words: &[&str], name: &str) -> Option<T> {
    words
        .iter()
        .find_map(|word| word.strip_prefix(name)?.strip_prefix('=')?.parse().ok())
}

fn txn(store: &mut Fixture, changes: &[&str], out: &mut String) {
    let mut txn = store.writer.begin();
    for change in changes {
        let words: Vec<&str> = change.split_whitespace().collect();
        apply(&mut txn, &words);
    }
    writeln!(out, "revision={}", txn.end()).unwrap();
    store.writer.publish();
}

fn apply(txn: &mut WriteTxn<'_>, words: &[&str]) {
    match words[0] {
        "put" => drop(txn.put(put(words[1], words[2], option(words, "lease")))),
        "delete" => drop(txn.delete_range(&key_range(&words[1..]))),
        other => panic!("there is no change {other}"),
    }
}

fn describe(kv: &StoredKv) -> String {
    let lease = kv
        .lease()
        .map(|lease| format!(" lease={lease}"))
        .unwrap_or_default();
    format!(
        "{}={} mod={} create={} version={}{lease}",
        kv.key().escape_ascii(),
        kv.value().escape_ascii(),
        kv.mod_revision(),
        kv.create_revision(),
        kv.version(),
    )
}

fn get(store: &Fixture, words: &[&str], out: &mut String) {
    let range = Range {
        keys: key_range(words),
        at: option(words, "rev"),
        limit: option(words, "limit"),
        count_only: words.contains(&"count"),
    };
    match store.reads.view().range(&range) {
        Err(error) => writeln!(out, "{error}").unwrap(),
        Ok(found) => {
            for kv in &found.kvs {
                writeln!(out, "{}", describe(kv)).unwrap();
            }
            writeln!(out, "count={}", found.count).unwrap();
        }
    }
}

fn events(store: &Fixture, from: i64, out: &mut String) {
    match store
        .reads
        .history(from, i64::MAX, usize::MAX, PrevKv::Include)
    {
        Err(error) => writeln!(out, "{error}").unwrap(),
        Ok(history) => {
            for event in history.revisions.iter().flat_map(|events| &events.events) {
                let prev = event.prev.as_ref().map(describe);
                let prev = prev
                    .map(|prev| format!("  before: {prev}"))
                    .unwrap_or_default();
                writeln!(out, "{:?} {}{prev}", event.kind, describe(&event.kv)).unwrap();
            }
        }
    }
}

fn hash(store: &Fixture, revision: i64, out: &mut String) {
    match store.reads.hash_kv(Some(revision)) {
        Err(error) => writeln!(out, "{error}").unwrap(),
        Ok(hash) => {
            let (hash, compact_revision) = (hash.hash, hash.compact_revision);
            writeln!(
                out,
                "{revision}: hash={hash:08x} compact_revision={compact_revision}"
            )
            .unwrap();
        }
    }
}

fn hashes(store: &Fixture, out: &mut String) {
    let current = store.reads.revision();
    for revision in store.reads.compact_revision().max(1)..=current {
        let hash = store.reads.hash_kv(Some(revision)).unwrap();
        assert_eq!(
            (hash.hash_revision, hash.current_revision),
            (revision, current)
        );
        let compact_revision = hash.compact_revision;
        writeln!(
            out,
            "{revision}: hash={:08x} compact_revision={compact_revision}",
            hash.hash
        )
        .unwrap();
    }
}
