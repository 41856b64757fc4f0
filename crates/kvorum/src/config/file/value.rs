//! YAML as etcd's library understands it: version 1.1's truth values and octal numbers, JSON's types.

use saphyr::{ScalarStyle, ScanError, Yaml, YamlLoader};
use saphyr_parser::{BufferedInput, Parser};

/// A value of JSON. A number keeps its text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Value {
    Null,
    Bool(bool),
    Integer(i128),
    /// Not a whole one.
    Number(String),
    Text(String),
    List(Vec<Value>),
    /// In the order of the file; of keys that come twice the last one counts.
    Map(Vec<(String, Value)>),
}

/// What the first document of `text` says; nothing is [`Value::Null`].
pub(super) fn parse(text: &str) -> Result<Value, ScanError> {
    let mut loader = YamlLoader::<Yaml<'_>>::default();
    loader.early_parse(false);
    loader.allow_duplicate_keys(true);
    Parser::new(BufferedInput::new(text.chars())).load(&mut loader, false)?;
    if let Some(error) = loader.error() {
        return Err(error.clone());
    }
    let first = loader.into_documents().into_iter().next();
    Ok(first.map_or(Value::Null, Value::from))
}

impl From<Yaml<'_>> for Value {
    fn from(yaml: Yaml<'_>) -> Self {
        match yaml {
            Yaml::Representation(text, style, tag) => {
                let is_text = tag.is_some_and(|tag| tag.suffix == "str");
                if is_text || style != ScalarStyle::Plain {
                    Self::Text(text.into_owned())
                } else {
                    plain(&text)
                }
            }
            Yaml::Sequence(items) => Self::List(items.into_iter().map(Self::from).collect()),
            Yaml::Mapping(entries) => Self::Map(
                entries
                    .into_iter()
                    .filter_map(|(key, value)| Some((key_text(key)?, Self::from(value))))
                    .collect(),
            ),
            Yaml::Tagged(_, inner) => Self::from(*inner),
            Yaml::Value(_) | Yaml::Alias(_) | Yaml::BadValue => Self::Null,
        }
    }
}

fn key_text(key: Yaml<'_>) -> Option<String> {
    match key {
        Yaml::Representation(text, ..) => Some(text.into_owned()),
        _ => None,
    }
}

/// What a text without quotes stands for.
fn plain(text: &str) -> Value {
    match text {
        "" | "~" | "null" | "Null" | "NULL" => return Value::Null,
        "y" | "Y" | "yes" | "Yes" | "YES" | "on" | "On" | "ON" | "true" | "True" | "TRUE" => {
            return Value::Bool(true);
        }
        "n" | "N" | "no" | "No" | "NO" | "off" | "Off" | "OFF" | "false" | "False" | "FALSE" => {
            return Value::Bool(false);
        }
        _ => {}
    }
    let is_number = text.starts_with(|c: char| c.is_ascii_digit() || "+-.".contains(c));
    if !is_number {
        return Value::Text(text.to_owned());
    }
    let digits = text.replace('_', "");
    if let Some(integer) = integer(&digits) {
        return Value::Integer(integer);
    }
    let is_decimal = digits
        .chars()
        .all(|c| c.is_ascii_digit() || "+-.eE".contains(c));
    if is_decimal && digits.parse::<f64>().is_ok() {
        return Value::Number(digits);
    }
    Value::Text(text.to_owned())
}

/// As Go reads a number whose first digits say in which base it is.
fn integer(text: &str) -> Option<i128> {
    let (sign, digits) = match text.strip_prefix('-') {
        Some(digits) => (-1, digits),
        None => (1, text.strip_prefix('+').unwrap_or(text)),
    };
    let (digits, radix) = match digits.get(..2) {
        Some("0x" | "0X") => (&digits[2..], 16),
        Some("0o" | "0O") => (&digits[2..], 8),
        Some("0b" | "0B") => (&digits[2..], 2),
        Some(two) if two.starts_with('0') => (&digits[1..], 8),
        _ => (digits, 10),
    };
    let is_unsigned = digits.starts_with(|c: char| c.is_ascii_alphanumeric());
    is_unsigned
        .then(|| i128::from_str_radix(digits, radix).ok())
        .flatten()
        .map(|magnitude| sign * magnitude)
}

impl Value {
    /// What JSON calls it.
    pub(super) const fn kind(&self) -> &'static str {
        match self {
            Self::Null => "null",
            Self::Bool(_) => "bool",
            Self::Integer(_) | Self::Number(_) => "number",
            Self::Text(_) => "string",
            Self::List(_) => "array",
            Self::Map(_) => "object",
        }
    }

    /// What Go calls it when a field cannot take it: a number by its digits, but for a text.
    pub(super) fn as_json_names_it(&self, for_text: bool) -> String {
        match self {
            Self::Integer(number) if !for_text => format!("number {number}"),
            Self::Number(number) if !for_text => format!("number {number}"),
            other => other.kind().to_owned(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scalars_are_what_yaml_1_1_says() {
        for (text, value) in [
            ("5", Value::Integer(5)),
            ("-5", Value::Integer(-5)),
            ("010", Value::Integer(8)),
            ("0x10", Value::Integer(16)),
            ("1_000", Value::Integer(1000)),
            ("1.5", Value::Number("1.5".to_owned())),
            ("yes", Value::Bool(true)),
            ("off", Value::Bool(false)),
            ("~", Value::Null),
            ("", Value::Null),
            ("'5'", Value::Text("5".to_owned())),
            ("\"true\"", Value::Text("true".to_owned())),
            ("!!str 5", Value::Text("5".to_owned())),
            ("10.0.0.1", Value::Text("10.0.0.1".to_owned())),
            ("5s", Value::Text("5s".to_owned())),
            ("-", Value::List(vec![Value::Null])),
        ] {
            assert_eq!(parse(text).unwrap(), value, "{text}");
        }
    }

    #[test]
    fn anchors_are_followed_and_the_last_of_two_keys_counts() {
        let map = parse("a: &x [1]\nb: *x\na: 2\n").unwrap();
        let Value::Map(entries) = map else {
            panic!("{map:?}")
        };
        let last = entries.iter().rfind(|(key, _)| key == "a").unwrap();
        assert_eq!(last.1, Value::Integer(2));
        assert!(entries.contains(&("b".to_owned(), Value::List(vec![Value::Integer(1)]))));
        parse("a: b: c").unwrap_err();
        parse("a: *nowhere").unwrap_err();
    }
}
