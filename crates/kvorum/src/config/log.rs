//! How to log: `--log-level`, `--log-format`, `--log-outputs` and the rotation of files.

use std::path::PathBuf;
use std::time::Duration;

use serde::Deserialize;

use super::validate::Check;
use super::{LogConfig, LogFormat, LogLevel, LogOutput, LogRotation, Options};

/// A file's size where none is given, in MB.
const SIZE_DEFAULT_MB: i64 = 100;
const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// `--log-rotation-config-json`, as lumberjack reads it.
#[derive(Default, Deserialize)]
#[serde(default)]
struct RawRotation {
    maxsize: i64,
    maxage: i64,
    maxbackups: i64,
    compress: bool,
    #[serde(rename = "localtime")]
    _local_time: bool,
}

impl Check {
    pub(super) fn log(&mut self, options: &Options) -> LogConfig {
        let level = match options.log_level.as_str() {
            "debug" | "DEBUG" => LogLevel::Debug,
            "info" | "INFO" | "" => LogLevel::Info,
            "warn" | "WARN" => LogLevel::Warn,
            "error" | "ERROR" => LogLevel::Error,
            "panic" | "PANIC" => LogLevel::Panic,
            "fatal" | "FATAL" => LogLevel::Fatal,
            other => {
                self.problem(format!("--log-level: unrecognized level: {other:?}"));
                LogLevel::Info
            }
        };
        let format = match options.log_format.as_str() {
            "json" => LogFormat::Json,
            "console" => LogFormat::Console,
            other => {
                self.problem(format!(
                    "unknown log format: {other}, supported values json, console"
                ));
                LogFormat::Json
            }
        };
        LogConfig {
            level,
            format,
            outputs: self.log_outputs(&options.log_outputs),
            rotation: self.log_rotation(options),
        }
    }

    fn log_outputs(&mut self, text: &str) -> Vec<LogOutput> {
        let mut names: Vec<&str> = text
            .split(',')
            .map(str::trim)
            .filter(|name| !name.is_empty())
            .collect();
        names.sort_unstable();
        names.dedup();
        if names.len() > 1 && names.contains(&"default") {
            self.problem("multi logoutput for \"default\" is not supported yet");
        }
        if names.len() > 1 && names.contains(&"systemd/journal") {
            let quoted: Vec<String> = names.iter().map(|name| format!("{name:?}")).collect();
            self.problem(format!(
                "running with systemd/journal but other '--log-outputs' values ([{}]) are \
                 configured with 'default'; override 'default' value with something else",
                quoted.join(" ")
            ));
        }
        if names.contains(&"/dev/null") {
            return vec![LogOutput::File(PathBuf::from("/dev/null"))];
        }
        let output = |name: &&str| match *name {
            "default" | "stderr" => LogOutput::Stderr,
            "stdout" => LogOutput::Stdout,
            "systemd/journal" => LogOutput::Journal,
            path => LogOutput::File(PathBuf::from(path)),
        };
        if names.is_empty() {
            return vec![LogOutput::Stderr];
        }
        names.iter().map(output).collect()
    }

    fn log_rotation(&mut self, options: &Options) -> Option<LogRotation> {
        if !options.enable_log_rotation {
            return None;
        }
        let names: Vec<&str> = options.log_outputs.split(',').collect();
        let no_files = ["default", "stderr", "stdout"];
        let files = names.iter().filter(|name| !no_files.contains(name)).count();
        if files > 1 || names.len() == 1 && files == 0 {
            self.problem(
                "--log-outputs requires a single file path when --log-rotate-config-json is defined",
            );
        }
        let raw = match serde_json::from_str(&options.log_rotation_config_json) {
            Ok(raw) => raw,
            Err(error) => {
                let what = if error.is_data() {
                    "invalid log rotation config"
                } else {
                    "improperly formatted log rotation config"
                };
                self.problem(format!("{what}: {error}"));
                RawRotation::default()
            }
        };
        let megabytes = if raw.maxsize > 0 {
            raw.maxsize
        } else {
            SIZE_DEFAULT_MB
        };
        let days = u32::try_from(raw.maxage).unwrap_or_default();
        Some(LogRotation {
            bytes_max: megabytes.unsigned_abs().saturating_mul(1 << 20),
            age_max: (days > 0).then(|| DAY * days),
            backups_max: usize::try_from(raw.maxbackups).unwrap_or_default(),
            is_compressed: raw.compress,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(outputs: &str, rotation: &str) -> Options {
        Options {
            log_outputs: outputs.to_owned(),
            enable_log_rotation: true,
            log_rotation_config_json: rotation.to_owned(),
            ..Options::default()
        }
    }

    fn problems(outputs: &str, rotation: &str) -> Vec<String> {
        let error = options(outputs, rotation).validate().unwrap_err();
        error.problems.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn rotation_is_read_as_lumberjack_reads_it() {
        let read = |text| {
            options("/tmp/log", text)
                .validate()
                .unwrap()
                .log
                .rotation
                .unwrap()
        };
        let default = LogRotation {
            bytes_max: 100 << 20,
            age_max: None,
            backups_max: 0,
            is_compressed: false,
        };
        assert_eq!(read("{}"), default);
        let etcds = Options::default().log_rotation_config_json;
        assert_eq!(read(&etcds), default);
        let given = read(r#"{"maxsize":1,"maxage":2,"maxbackups":3,"compress":true,"x":1}"#);
        assert_eq!(given.age_max, Some(DAY * 2));
        assert_eq!((given.bytes_max, given.backups_max), (1 << 20, 3));
        assert!(given.is_compressed);
    }

    #[test]
    fn rotation_needs_one_file() {
        let text =
            "--log-outputs requires a single file path when --log-rotate-config-json is defined";
        for outputs in ["default", "stderr", "/tmp/a,/tmp/b"] {
            assert_eq!(problems(outputs, "{}"), [text], "{outputs}");
        }
        assert!(options("stderr,/tmp/a", "{}").validate().is_ok());
        let [problem] = &problems("/tmp/a", "{")[..] else {
            panic!()
        };
        assert!(
            problem.starts_with("improperly formatted log rotation config: "),
            "{problem}"
        );
        let [problem] = &problems("/tmp/a", r#"{"maxsize":"1"}"#)[..] else {
            panic!()
        };
        assert!(
            problem.starts_with("invalid log rotation config: "),
            "{problem}"
        );
    }

    #[test]
    fn outputs_are_streams_the_journal_and_files() {
        let outputs = |text: &str| {
            let options = Options {
                log_outputs: text.to_owned(),
                ..Options::default()
            };
            options.validate().map(|config| config.log.outputs)
        };
        let file = |path: &str| LogOutput::File(PathBuf::from(path));
        assert_eq!(outputs("default").unwrap(), [LogOutput::Stderr]);
        assert_eq!(
            outputs("stdout,/tmp/a,stdout").unwrap(),
            [file("/tmp/a"), LogOutput::Stdout]
        );
        assert_eq!(outputs("systemd/journal").unwrap(), [LogOutput::Journal]);
        assert_eq!(outputs("stderr,/dev/null").unwrap(), [file("/dev/null")]);
        let error = outputs("systemd/journal,stderr").unwrap_err().to_string();
        assert!(
            error.starts_with("running with systemd/journal but other"),
            "{error}"
        );
        let error = outputs("default,stdout").unwrap_err().to_string();
        assert_eq!(
            error,
            "multi logoutput for \"default\" is not supported yet"
        );
    }
}
