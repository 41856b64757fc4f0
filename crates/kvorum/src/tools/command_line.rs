//! The syntax of etcd's tools, whose library is Go's cobra: flags may come before the command, a flag that
//! is on or off takes its value only behind `=`, the last of two counts, any other flag takes whatever comes
//! next as its value. And its words for what cannot be read.

use std::convert::Infallible;
use std::path::PathBuf;

use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{Arg, ArgAction, Command};

use super::{EXIT_ERROR, Failure, say};
use crate::config::flags;

/// Gives this syntax to every command of a tree.
pub(super) fn like_etcds(command: Command) -> Command {
    command.mut_args(flag).mut_subcommands(like_etcds)
}

fn flag(arg: Arg) -> Arg {
    match arg.get_action() {
        ArgAction::SetTrue => {
            let arg = match arg.get_default_values() {
                [] => arg.default_value("false").hide_default_value(true),
                _ => arg,
            };
            arg.action(ArgAction::Set)
                .num_args(0..=1)
                .require_equals(true)
                .default_missing_value("true")
                .value_name("BOOL")
                .value_parser(truth)
        }
        ArgAction::Set if !arg.is_positional() => arg.allow_hyphen_values(true),
        _ => arg,
    }
}

/// The line of a command, its name first and the flags that came before it behind it; nothing if there is
/// no command in it.
pub(super) fn of_a_command(tree: &Command, arguments: &[String]) -> Option<Vec<String>> {
    let mut line = vec![tree.get_name().to_owned()];
    let (mut here, mut rest, mut flags) = (tree, arguments, Vec::new());
    loop {
        let (before, behind) = rest.split_at(first_word(rest));
        let Some((word, behind)) = behind.split_first() else {
            break;
        };
        if line.len() == 1 && word == "help" {
            line.push(word.clone());
            rest = behind;
            break;
        }
        let Some(next) = named(here, word) else {
            break;
        };
        line.push(next.get_name().to_owned());
        flags.extend_from_slice(before);
        (here, rest) = (next, behind);
    }
    if line.len() == 1 {
        return None;
    }
    line.append(&mut flags);
    line.extend_from_slice(rest);
    Some(line)
}

/// Where the first argument is that is neither a flag nor the value of one.
fn first_word(arguments: &[String]) -> usize {
    let is_flag = |argument: &&String| argument.starts_with('-');
    let mut at = 0;
    while let Some(argument) = arguments.get(at).filter(is_flag) {
        at += 1;
        let has_value = argument.contains('=') || is_short_with_value(argument);
        if !has_value && arguments.get(at).is_some_and(|next| !is_flag(&next)) {
            at += 1;
        }
    }
    at
}

/// `-wjson`
fn is_short_with_value(argument: &str) -> bool {
    !argument.starts_with("--") && argument.len() > 2
}

/// The command of this name, or the only one that begins like this.
fn named<'a>(command: &'a Command, word: &str) -> Option<&'a Command> {
    let mut beginning = command
        .get_subcommands()
        .filter(|it| !word.is_empty() && it.get_name().starts_with(word));
    command
        .find_subcommand(word)
        .or_else(|| match (beginning.next(), beginning.next()) {
            (Some(only), None) => Some(only),
            _ => None,
        })
}

/// How the command of a line is used.
fn usage(mut tree: Command, line: &[String]) -> String {
    tree.build();
    let mut here = &tree;
    for word in line.iter().skip(1) {
        match here.find_subcommand(word) {
            Some(next) => here = next,
            None => break,
        }
    }
    here.clone().render_usage().to_string()
}

/// What is to be said of a line that cannot be carried out: its help, or what is wrong.
pub(super) fn refused(error: &clap::Error, line: &[String]) -> Result<(), Failure> {
    let said = |kind| match error.get(kind) {
        Some(ContextValue::String(text)) => text.as_str(),
        _ => "",
    };
    let argument = said(ContextKind::InvalidArg);
    // `--flag <VALUE>`, or `--flag[=<VALUE>]`
    let name = argument.split(['[', '=', ' ']).next().unwrap_or_default();
    let value = said(ContextKind::InvalidValue);
    let text = match error.kind() {
        ErrorKind::DisplayHelp | ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand => {
            say(&error.render().to_string());
            return Ok(());
        }
        ErrorKind::UnknownArgument if argument.starts_with("--") => {
            format!("unknown flag: {name}")
        }
        ErrorKind::UnknownArgument if argument.starts_with('-') => {
            let short = argument.chars().nth(1).unwrap_or('-');
            format!("unknown shorthand flag: {short:?} in {argument}")
        }
        ErrorKind::InvalidValue if name.starts_with('-') && value.is_empty() => {
            format!("flag needs an argument: {name}")
        }
        ErrorKind::ValueValidation if name.starts_with('-') => {
            let why = std::error::Error::source(error).map(ToString::to_string);
            let why = why.unwrap_or_default();
            format!("invalid argument {value:?} for \"{name}\" flag: {why}")
        }
        _ => {
            let text = error.render().to_string();
            let text = text.trim_end().trim_start_matches("error: ");
            return Err(failure(text.to_owned()));
        }
    };
    Err(failure(format!(
        "{text}\n{}",
        usage(super::command(), line)
    )))
}

fn failure(text: String) -> Failure {
    Failure {
        status: EXIT_ERROR,
        text,
    }
}

/// Whether a flag is on, as Go reads it.
fn truth(value: &str) -> Result<bool, String> {
    flags::truth(value)
        .map_err(|_reason| format!("strconv.ParseBool: parsing {value:?}: invalid syntax"))
}

/// A path, which may be empty.
pub(super) fn path(value: &str) -> Result<PathBuf, Infallible> {
    Ok(PathBuf::from(value))
}

/// A number as Go reads it.
pub(super) fn unsigned(value: &str) -> Result<u64, String> {
    let mut number = 0;
    flags::unsigned(&mut number, value).map_err(|error| {
        let why = match error {
            flags::ValueError::Range => "value out of range",
            _ => "invalid syntax",
        };
        format!("strconv.ParseUint: parsing {value:?}: {why}")
    })?;
    Ok(number)
}

/// A time as Go reads it.
pub(super) fn duration(value: &str) -> Result<std::time::Duration, String> {
    crate::config::duration::parse(value)
        .map_err(|_reason| format!("time: invalid duration {value:?}"))
}

#[cfg(test)]
mod tests;
