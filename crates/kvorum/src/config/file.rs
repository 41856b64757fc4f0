//! The configuration file (`--config-file`): YAML, with the flags' names as keys and etcd's rules
//! (`server/embed/config.go`): it stands in place of all flags and variables, and keys that nobody
//! knows are ignored.
//!
//! etcd turns YAML into JSON and reads that into Go's types, so a value of another type is refused in
//! the words of Go's `encoding/json`; durations are whole numbers of nanoseconds.
//!
//! What this is not: reading. The text comes from the caller.

mod keys;
mod value;

use super::flags::{self, ValueError};
use super::{Options, Problem};
use keys::{Block, Form, Key, Target};
use value::Value;

/// The options that a configuration file asks for.
///
/// # Errors
///
/// Everything in it that cannot be used.
pub fn parse(text: &str) -> Result<Options, Vec<Problem>> {
    let root = value::parse(text).map_err(|error| {
        vec![Problem::new(format!(
            "error converting YAML to JSON: {error}"
        ))]
    })?;
    let mut reading = Reading {
        options: Options {
            is_from_file: true,
            ..Options::default()
        },
        problems: Vec::new(),
    };
    reading.block(&keys::ROOT, &root);
    if reading.problems.is_empty() {
        Ok(reading.options)
    } else {
        Err(reading.problems)
    }
}

struct Reading {
    options: Options,
    problems: Vec<Problem>,
}

impl Reading {
    fn block(&mut self, block: &Block, value: &Value) {
        let entries = match value {
            Value::Null => return,
            Value::Map(entries) => entries,
            other => {
                let (kind, place) = (other.kind(), block.place);
                return self.refuse(format!("cannot unmarshal {kind} into Go {place}"));
            }
        };
        for (name, value) in entries {
            // As Go's, names are compared without regard to capitals.
            let is_named = |other: &str| other.eq_ignore_ascii_case(name);
            if let Some(inner) = block.blocks.iter().find(|inner| is_named(inner.name)) {
                self.block(inner, value);
            } else if let Some(key) = block.keys().find(|key| is_named(key.name)) {
                self.key(block, &key, value);
            }
        }
    }

    fn key(&mut self, block: &Block, key: &Key, value: &Value) {
        if *value == Value::Null {
            return;
        }
        let Some(text) = key.form.text_of(value) else {
            let wrong = value.as_json_names_it(key.form == Form::Text);
            let (path, name, form) = (block.path, key.name, key.form.go_type());
            return self.refuse(format!(
                "cannot unmarshal {wrong} into Go struct field {path}.{name} of type {form}"
            ));
        };
        if let Err(problem) = self.set(key, &text) {
            self.problems.push(problem);
        }
    }

    fn set(&mut self, key: &Key, text: &str) -> Result<(), Problem> {
        let invalid = |source: ValueError| match (key.name, source) {
            ("initial-cluster-state", _) => {
                Problem::new(format!("unexpected clusterState {text:?}"))
            }
            (name, ValueError::Url(source)) => {
                Problem::new(format!("unexpected error setting up {name}: {source}"))
            }
            (_, ValueError::FeatureGate(source)) => Problem::new(source.to_string()),
            (name, source) => Problem::new(format!("invalid value {text:?} for {name}: {source}")),
        };
        match key.target {
            Target::Flag if key.name == "initial-cluster-state" && text.is_empty() => Ok(()),
            Target::Flag => self.set_flag(key.name, text).map_err(invalid),
            Target::OtherFlag(name) => self.set_flag(name, text).map_err(invalid),
            Target::Set(set) => set(&mut self.options, text).map_err(invalid),
            Target::Nothing => Ok(()),
        }
    }

    fn set_flag(&mut self, name: &str, text: &str) -> Result<(), ValueError> {
        let flag = flags::find(name).expect("every key stands for a flag, as a test checks");
        flag.set(&mut self.options, text)
    }

    fn refuse(&mut self, reason: String) {
        self.problems.push(Problem::new(format!(
            "error unmarshaling JSON: while decoding JSON: json: {reason}"
        )));
    }
}

#[cfg(test)]
mod tests;
