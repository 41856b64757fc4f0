//! The flags, variables and file that a member is to be started with.

use std::io;
use std::sync::Arc;

use parking_lot::Mutex;
use tracing_subscriber::fmt::MakeWriter;

use super::report::Report;
use crate::config::env::Notice;
use crate::config::flags::{self, Action};
use crate::config::{Warning, env, file};
use crate::{Config, Options};

const CHECK: &str = "configuration";

/// Reads them as the member would; nothing if it would not start.
pub(super) fn read(flags: &[String], report: &mut Report) -> Option<Config> {
    let mut mistakes = Vec::new();
    let (options, given) = match flags::parse(flags) {
        Ok(Action::Run { options, given }) => (options, given),
        Ok(Action::Help | Action::Version) => {
            report.error(CHECK, "--help and --version start no member".to_owned());
            return None;
        }
        Err(errors) => {
            mistakes.extend(errors.errors.iter().map(ToString::to_string));
            (errors.options, errors.given)
        }
    };
    let options = complete(*options, &given, &mut mistakes, report);
    let config = options.and_then(|options| match options.validate() {
        Ok(config) => Some(config),
        Err(error) => {
            mistakes.extend(error.problems.iter().map(ToString::to_string));
            None
        }
    });
    let is_right = mistakes.is_empty();
    mistakes.into_iter().for_each(|it| report.error(CHECK, it));
    let config = config.filter(|_| is_right)?;
    report.ok(
        CHECK,
        format!("a member {:?} would start with it", config.name),
    );
    for warning in &config.warnings {
        report.warning(CHECK, said(warning));
    }
    Some(config)
}

/// The options with what the environment, or a file in their place, says.
fn complete(
    mut options: Options,
    given: &[&'static str],
    mistakes: &mut Vec<String>,
    report: &mut Report,
) -> Option<Options> {
    let path = match options.config_file.as_str() {
        "" => std::env::var(env::CONFIG_FILE).unwrap_or_default(),
        path => path.to_owned(),
    };
    if path.is_empty() {
        let (notices, problems) = env::fill(&mut options, given, std::env::vars());
        for notice in notices {
            if let Notice::Unrecognized { variable, .. } = notice {
                report.warning(CHECK, format!("{variable} is no variable of a member"));
            }
        }
        mistakes.extend(problems.iter().map(ToString::to_string));
        return Some(options);
    }
    let text = match std::fs::read_to_string(&path) {
        Ok(text) => text,
        Err(error) => {
            mistakes.push(format!("--config-file: cannot read {path}: {error}"));
            return None;
        }
    };
    match file::parse(&text) {
        Ok(options) => Some(options),
        Err(problems) => {
            mistakes.extend(problems.iter().map(ToString::to_string));
            None
        }
    }
}

/// Keeps what is written.
#[derive(Clone, Default)]
struct Kept(Arc<Mutex<Vec<u8>>>);

impl io::Write for Kept {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for Kept {
    type Writer = Self;

    fn make_writer(&'a self) -> Self {
        self.clone()
    }
}

/// What the member would log about it.
fn said(warning: &Warning) -> String {
    let kept = Kept::default();
    let subscriber = tracing_subscriber::fmt()
        .with_writer(kept.clone())
        .without_time()
        .with_level(false)
        .with_target(false)
        .with_ansi(false)
        .finish();
    tracing::subscriber::with_default(subscriber, || warning.log());
    let text = kept.0.lock().clone();
    String::from_utf8_lossy(&text).trim().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn checked(flags: &[&str]) -> (Option<Config>, String) {
        let flags: Vec<String> = flags.iter().map(|&flag| flag.to_owned()).collect();
        let mut report = Report::default();
        let config = read(&flags, &mut report);
        (config, report.text())
    }

    #[test]
    fn every_mistake_is_told_at_once() {
        let (config, text) = checked(&[
            "--heartbeat-interval=5000",
            "--no-such-flag",
            "--auto-compaction-mode=sometimes",
        ]);
        assert!(config.is_none());
        for part in ["-no-such-flag", "sometimes", "--election-timeout"] {
            assert!(text.contains(part), "{part} in {text}");
        }
    }

    #[test]
    fn what_a_member_would_warn_about_is_told() {
        let (config, text) = checked(&["--unsafe-no-fsync"]);
        assert!(config.is_some(), "{text}");
        assert!(text.contains("warning  configuration: "), "{text}");
        assert!(text.contains("default name"), "{text}");
        let (_, text) = checked(&["--config-file=/nowhere/at/all"]);
        assert!(text.contains("cannot read /nowhere/at/all"), "{text}");
    }
}
