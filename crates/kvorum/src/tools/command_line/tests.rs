use clap::FromArgMatches;

use super::*;
use crate::tools::{self, Snapshot, Tool};

fn words(line: &str) -> Vec<String> {
    line.split_whitespace().map(str::to_owned).collect()
}

fn read(line: &str) -> Result<tools::Command, String> {
    let line = of_a_command(&tools::command(), &words(line)).ok_or("no command")?;
    tools::command()
        .try_get_matches_from(&line)
        .and_then(|matches| Tool::from_arg_matches(&matches))
        .map(|tool| tool.command)
        .map_err(|error| refused(&error, &line).unwrap_err().text)
}

fn restore(line: &str) -> Result<Box<tools::snapshot::RestoreArguments>, String> {
    match read(&format!("snapshot restore {line}"))? {
        tools::Command::Snapshot(Snapshot::Restore(arguments)) => Ok(arguments),
        other => Err(format!("{other:?}")),
    }
}

#[test]
fn the_tree_is_sound() {
    tools::command().debug_assert();
}

#[test]
fn both_forms_of_a_flag_are_read_and_the_last_counts() {
    let read = restore("file --name=a=b --name -c --skip-hash-check --data-dir= other").unwrap();
    assert_eq!(read.words, ["file", "other"]);
    assert_eq!(
        (read.member.name.as_str(), read.data_dir.as_str()),
        ("-c", "")
    );
    assert!(read.skip_hash_check);
    for off in ["false", "0", "f", "F", "FALSE", "False"] {
        let line = format!("--skip-hash-check --skip-hash-check={off}");
        assert!(!restore(&line).unwrap().skip_hash_check, "{off}");
    }
    assert_eq!(
        restore("--bump-revision 0x10").unwrap().bump_revision,
        Some(16)
    );
}

#[test]
fn flags_may_come_before_the_command_and_commands_may_be_short() {
    for line in [
        "-w json snapshot status file",
        "--write-out=json snapshot status file",
        "snapshot -w json status file",
        "snapshot status file -wjson",
        "snap stat file -w=json",
    ] {
        match read(line) {
            Ok(tools::Command::Snapshot(Snapshot::Status(status))) => {
                assert_eq!(status.output.write_out, "json", "{line}");
                assert_eq!(status.words, ["file"], "{line}");
            }
            other => panic!("{line}: {other:?}"),
        }
    }
    for line in [
        "",
        "--name snapshot",
        "--name=x --force-new-cluster --data-dir snapshot",
        "--data-dir x",
        "s3",
    ] {
        let found = of_a_command(&tools::command(), &words(line));
        assert_eq!(found, None, "{line} is a member's");
    }
}

#[test]
fn what_cannot_be_read_is_told_in_cobras_words() {
    for (line, text) in [
        ("--other", "unknown flag: --other"),
        ("-x", "unknown shorthand flag: 'x' in -x"),
        ("--name", "flag needs an argument: --name"),
        (
            "--skip-hash-check=perhaps",
            "invalid argument \"perhaps\" for \"--skip-hash-check\" flag: \
             strconv.ParseBool: parsing \"perhaps\": invalid syntax",
        ),
        (
            "--bump-revision -5",
            "invalid argument \"-5\" for \"--bump-revision\" flag: \
             strconv.ParseUint: parsing \"-5\": invalid syntax",
        ),
    ] {
        let said = restore(line).unwrap_err();
        assert_eq!(said.lines().next(), Some(text), "{line}");
        assert!(said.contains("Usage: kvorum snapshot restore"), "{said}");
    }
    let said = read("certs nobody").unwrap_err();
    assert!(said.contains("give a name and its hosts"), "{said}");
    assert!(read("snapshot other").unwrap_err().contains("'other'"));
}
