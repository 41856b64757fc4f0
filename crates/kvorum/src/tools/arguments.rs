//! The arguments of a command, in the syntax of etcdutl's: `--flag value` or `--flag=value`, `-w value`,
//! and flags that are on or off take their value only behind `=`.

use std::collections::BTreeMap;

use super::Failure;

/// Arguments, told apart.
#[derive(Debug, Default)]
pub(super) struct Arguments {
    /// Those that are no flags.
    pub(super) words: Vec<String>,
    flags: BTreeMap<&'static str, String>,
}

/// The flags that a command takes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Known {
    /// Those with a value.
    pub(super) values: &'static [&'static str],
    /// Those that are on or off.
    pub(super) switches: &'static [&'static str],
}

impl Arguments {
    pub(super) fn parse(arguments: &[&str], known: Known) -> Result<Self, Failure> {
        let mut parsed = Self::default();
        let mut rest = arguments.iter();
        while let Some(argument) = rest.next() {
            let Some(flag) = argument.strip_prefix("--").or(short(argument)) else {
                parsed.words.push((*argument).to_owned());
                continue;
            };
            let (name, value) = match flag.split_once('=') {
                Some((name, value)) => (name, Some(value)),
                None => (flag, None),
            };
            let find = |names: &'static [&'static str]| names.iter().find(|it| **it == name);
            let (name, value) = if let Some(name) = find(known.switches) {
                (name, value.unwrap_or("true"))
            } else if let Some(name) = find(known.values) {
                let value = value.or_else(|| rest.next().copied());
                let missing = || format!("flag needs an argument: --{name}");
                (
                    name,
                    value.ok_or_else(|| Failure::bad_arguments(missing()))?,
                )
            } else {
                return Err(Failure::bad_arguments(format!("unknown flag: --{name}")));
            };
            parsed.flags.insert(name, value.to_owned());
        }
        Ok(parsed)
    }

    /// The value of a flag.
    pub(super) fn value(&self, name: &str) -> Option<&str> {
        self.flags.get(name).map(String::as_str)
    }

    /// The value of a flag that has one in any case.
    pub(super) fn value_or<'a>(&'a self, name: &str, default: &'a str) -> &'a str {
        self.value(name).unwrap_or(default)
    }

    /// Whether a flag is on.
    pub(super) fn is_on(&self, name: &str) -> Result<bool, Failure> {
        match self.value(name) {
            None | Some("false" | "0" | "f" | "F" | "FALSE" | "False") => Ok(false),
            Some("true" | "1" | "t" | "T" | "TRUE" | "True") => Ok(true),
            Some(other) => Err(Failure::bad_arguments(format!(
                "invalid argument {other:?} for \"--{name}\" flag"
            ))),
        }
    }
}

/// The only flag with a short name.
fn short(argument: &str) -> Option<&str> {
    match argument.strip_prefix("-w") {
        Some("") => Some("write-out"),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KNOWN: Known = Known {
        values: &["name", "write-out"],
        switches: &["fast"],
    };

    #[test]
    fn both_forms_of_a_flag_are_read() {
        let line = ["file", "--name=a=b", "-w", "json", "--fast", "other"];
        let parsed = Arguments::parse(&line, KNOWN).unwrap();
        assert_eq!(parsed.words, ["file", "other"]);
        assert_eq!(parsed.value("name"), Some("a=b"));
        assert_eq!(parsed.value_or("write-out", "simple"), "json");
        assert!(parsed.is_on("fast").unwrap());
        let parsed = Arguments::parse(&["--fast=false"], KNOWN).unwrap();
        assert!(!parsed.is_on("fast").unwrap());
    }

    #[test]
    fn what_is_no_flag_of_the_command_is_refused() {
        for line in [&["--other"][..], &["--name"], &["--fast=perhaps"]] {
            let parsed = Arguments::parse(line, KNOWN);
            assert!(parsed.is_err() || parsed.unwrap().is_on("fast").is_err());
        }
    }
}
