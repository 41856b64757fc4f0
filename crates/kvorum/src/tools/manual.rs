//! `kvorum completion` and `kvorum man`: what a shell and a reader know of the program, made from the tables that it
//! reads its command lines by.
//!
//! What this is not: a second list of flags.

use std::path::PathBuf;

use clap::{Arg, ArgAction, Command};
use clap_complete::Shell;

use super::{EXIT_ERROR, Failure, command, say};
use crate::config::flags::{self, Section};

/// Generates the completion script for a shell
///
/// For example: source <(kvorum completion bash)
#[derive(Clone, Debug, clap::Args)]
pub(super) struct CompletionArguments {
    /// The shell
    #[arg(value_name = "SHELL")]
    shell: Shell,
}

/// Writes the manual pages of the program and its commands into a directory
#[derive(Clone, Debug, clap::Args)]
pub(super) struct ManArguments {
    /// The directory; made if it is not there
    #[arg(value_name = "DIR")]
    directory: PathBuf,
}

pub(super) fn completion(arguments: &CompletionArguments) {
    say(&script(arguments.shell));
}

fn script(shell: Shell) -> String {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut whole(), "kvorum", &mut script);
    String::from_utf8_lossy(&script).into_owned()
}

pub(super) fn man(arguments: &ManArguments) -> Result<(), Failure> {
    let directory = &arguments.directory;
    let made = std::fs::create_dir_all(directory);
    let written = made.and_then(|()| clap_mangen::generate_to(whole(), directory));
    written.map_err(|error| Failure {
        status: EXIT_ERROR,
        text: format!("cannot write into {}: {error}", directory.display()),
    })
}

/// The commands, and the flags of a member beside them.
fn whole() -> Command {
    let flags = flags::all().filter(|flag| flag.is_current());
    let flags = flags.map(|flag| {
        let arg = Arg::new(flag.name)
            .long(flag.name)
            .help(flag.effect)
            .help_heading(heading(flag.section));
        match flag.is_switch() {
            true => arg.action(ArgAction::SetTrue),
            false if flag.default.is_empty() => arg.value_name("VALUE"),
            false => arg.value_name("VALUE").default_value(flag.default),
        }
    });
    let version = Arg::new("version")
        .long("version")
        .help("Print the version and exit.")
        .action(ArgAction::SetTrue);
    command()
        .about("A replicated key-value store that speaks etcd v3: a member of a cluster, and the commands of whoever looks after one")
        .version(api::version::KVORUM_VERSION)
        .subcommand_required(false)
        .arg_required_else_help(false)
        .arg(version)
        .args(flags)
}

/// As `--help` calls them.
const fn heading(section: Section) -> &'static str {
    match section {
        Section::Member => "Member",
        Section::Clustering => "Clustering",
        Section::Discovery => "Discovery",
        Section::Security => "Security",
        Section::Auth => "Auth",
        Section::Monitoring => "Profiling and monitoring",
        Section::Tracing => "Distributed tracing",
        Section::Logging => "Logging",
        Section::Features => "Features",
        Section::Backup => "Backup",
        Section::Unsafe => "Unsafe",
        Section::NoEffect => "Without effect",
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::process::{Command, Stdio};

    use super::*;

    #[test]
    fn a_shell_completes_commands_and_the_flags_of_a_member() {
        for shell in [Shell::Bash, Shell::Zsh, Shell::Fish, Shell::PowerShell] {
            let script = script(shell);
            for word in ["listen-client-urls", "snapshot", "restore", "cluster"] {
                assert!(script.contains(word), "{word} for {shell}");
            }
            assert!(!script.contains("experimental-"), "{shell}");
        }
    }

    #[test]
    fn bash_reads_its_script() {
        let mut bash = Command::new("bash")
            .arg("-s")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("there is a bash");
        let asks = "\nCOMP_WORDS=(kvorum --listen-cl); COMP_CWORD=1; _kvorum kvorum --listen-cl kvorum\n\
                    echo \"${COMPREPLY[@]}\"\n";
        let script = script(Shell::Bash) + asks;
        let mut input = bash.stdin.take().expect("it is piped");
        input.write_all(script.as_bytes()).expect("bash reads");
        drop(input);
        let said = bash.wait_with_output().expect("bash ends");
        let said = String::from_utf8_lossy(&said.stdout).into_owned();
        assert_eq!(
            said.trim(),
            "--listen-client-urls --listen-client-http-urls"
        );
    }

    #[test]
    fn every_command_has_a_page_and_the_first_has_the_flags() {
        let dir = tempfile::tempdir().unwrap();
        let directory = dir.path().join("man1");
        man(&ManArguments {
            directory: directory.clone(),
        })
        .unwrap();
        let page = |name: &str| std::fs::read_to_string(directory.join(name)).unwrap();
        for name in [
            "kvorum-snapshot-restore.1",
            "kvorum-migrate.1",
            "kvorum-check-machine.1",
            "kvorum-top.1",
        ] {
            assert!(page(name).contains(".TH"), "{name}");
        }
        let first = page("kvorum.1");
        for flag in flags::all().filter(|flag| flag.is_current()) {
            let escaped = flag.name.replace('-', "\\-");
            assert!(first.contains(&escaped), "{} is not in the page", flag.name);
        }
    }
}
