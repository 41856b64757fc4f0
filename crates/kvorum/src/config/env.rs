//! The environment: every flag can be given as `ETCD_` and its name in capitals.

use super::flags::{self, ValueError};
use super::{Options, Problem};

/// Variables that etcd or its tools look at and that are no flags.
const NO_FLAGS: [&str; 3] = ["ETCD_UNSUPPORTED_ARCH", "ETCD_VERIFY", CONFIG_FILE];

/// Names the configuration file. Not one of the others, because it decides whether they count.
pub const CONFIG_FILE: &str = "ETCD_CONFIG_FILE";

/// Something about the environment that whoever set it should know.
///
/// ```
/// use kvorum::Options;
/// use kvorum::config::env::{self, Notice};
///
/// let mut options = Options::default();
/// let variables = [("ETCD_NAME", "m1"), ("ETCD_DATA_DRI", "/var/lib/mine")];
/// let variables = variables.map(|(name, value)| (name.to_owned(), value.to_owned()));
/// let (notices, problems) = env::fill(&mut options, &[], variables);
/// assert!(options.name == "m1" && problems.is_empty());
/// let Some(Notice::Unrecognized { variable, .. }) = notices.first() else { panic!("{notices:?}") };
/// assert_eq!(variable, "ETCD_DATA_DRI");
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Notice {
    /// The variable has been used.
    Used {
        /// Its name.
        variable: String,
        /// Its value.
        value: String,
    },
    /// The flag of the same meaning was given too, and counts.
    Shadowed {
        /// The variable's name.
        variable: String,
    },
    /// It looks like one of ours and is none.
    Unrecognized {
        /// Its name.
        variable: String,
        /// Its value.
        value: String,
    },
}

/// The variable that stands for a flag.
#[must_use]
pub fn variable(flag: &str) -> String {
    format!("ETCD_{}", flag.to_ascii_uppercase().replace('-', "_"))
}

/// Fills in what the environment says and the flags in `given` do not.
///
/// Differs from etcd: a variable beside its flag is a warning; etcd refuses to start.
pub fn fill(
    options: &mut Options,
    given: &[&str],
    environment: impl IntoIterator<Item = (String, String)>,
) -> (Vec<Notice>, Vec<Problem>) {
    let mut notices = Vec::new();
    let mut problems = Vec::new();
    let mut ours: Vec<(String, String)> = environment
        .into_iter()
        .filter(|(name, _)| name.starts_with("ETCD_"))
        .collect();
    ours.sort_unstable();
    for (variable_name, value) in ours {
        if NO_FLAGS.contains(&variable_name.as_str()) {
            continue;
        }
        let Some(flag) = flags::all().find(|flag| variable(flag.name) == variable_name) else {
            notices.push(Notice::Unrecognized {
                variable: variable_name,
                value,
            });
            continue;
        };
        if given.contains(&flag.name) {
            notices.push(Notice::Shadowed {
                variable: variable_name,
            });
            continue;
        }
        // As in etcd, an empty variable is one that is not set.
        if value.is_empty() {
            continue;
        }
        match flag.set(options, &value) {
            Ok(()) => notices.push(Notice::Used {
                variable: variable_name,
                value,
            }),
            Err(source) => problems.push(invalid(&variable_name, &value, &source)),
        }
    }
    (notices, problems)
}

fn invalid(variable: &str, value: &str, source: &ValueError) -> Problem {
    Problem::new(format!("invalid value {value:?} for {variable}: {source}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filled(
        given: &[&str],
        environment: &[(&str, &str)],
    ) -> (Options, Vec<Notice>, Vec<Problem>) {
        let mut options = Options::default();
        let environment = environment
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        let (notices, problems) = fill(&mut options, given, environment);
        (options, notices, problems)
    }

    #[test]
    fn a_variable_stands_for_its_flag() {
        let (options, notices, problems) = filled(&[], &[("ETCD_NAME", "a"), ("PATH", "/bin")]);
        assert_eq!(options.name, "a");
        assert_eq!(notices.len(), 1);
        assert!(problems.is_empty());
    }

    #[test]
    fn a_flag_counts_more_than_its_variable() {
        let (options, notices, _) = filled(&["name"], &[("ETCD_NAME", "a")]);
        assert_eq!(options.name, "default");
        assert_eq!(
            notices,
            [Notice::Shadowed {
                variable: "ETCD_NAME".to_owned()
            }]
        );
    }

    #[test]
    fn unknown_variables_are_told_and_ignored() {
        let (options, notices, problems) = filled(
            &[],
            &[("ETCD_BOGUS", "1"), ("ETCD_UNSUPPORTED_ARCH", "arm")],
        );
        assert_eq!(options, Options::default());
        assert!(matches!(&notices[..], [Notice::Unrecognized { .. }]));
        assert!(problems.is_empty());
    }

    #[test]
    fn every_wrong_variable_is_told() {
        let (_, _, problems) = filled(
            &[],
            &[("ETCD_SNAPSHOT_COUNT", "x"), ("ETCD_CLIENT_CERT_AUTH", "y")],
        );
        let texts: Vec<String> = problems.iter().map(ToString::to_string).collect();
        assert_eq!(
            texts,
            [
                "invalid value \"y\" for ETCD_CLIENT_CERT_AUTH: parse error",
                "invalid value \"x\" for ETCD_SNAPSHOT_COUNT: parse error",
            ]
        );
    }
}
