//! Messages out of JSON, as `protojson` makes them: names as in `proto/` or in camel case, unknown ones
//! passed over, numbers as numbers or strings, enums by name or number, bytes in either base64.
//!
//! What this is not: a check of JSON. What comes here has been found to be JSON by the scanner, so
//! that commas and colons can be taken as blank.

use base64::Engine as _;
use base64::alphabet::{Alphabet, STANDARD, URL_SAFE};
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use bytes::Bytes;
use prost::Message as _;
use prost_reflect::{DynamicMessage, FieldDescriptor, Kind, MessageDescriptor, Value};

use super::number::whole;

/// Messages in messages: what decoding them from the wire allows.
// Differs from etcd: it allows 10,000, more than any request that it then takes can have.
const DEPTH_MAX: usize = 100;

/// The message of this type that a JSON value says, encoded. An error is in `protojson`'s words.
pub(in super::super) fn decode(
    descriptor: &MessageDescriptor,
    json: &[u8],
) -> Result<Vec<u8>, String> {
    let mut decoder = Decoder { json, at: 0 };
    let message = decoder.message(descriptor, 0);
    message
        .map(|message| message.encode_to_vec())
        .map_err(|error| format!("proto: {error}"))
}

struct Decoder<'a> {
    json: &'a [u8],
    at: usize,
}

struct Token<'a> {
    kind: TokenKind,
    at: usize,
    raw: &'a [u8],
}

#[derive(Debug, PartialEq, Eq)]
enum TokenKind {
    Null,
    Bool(bool),
    Number,
    String(String),
    ObjectOpen,
    ArrayOpen,
    Close,
}

impl Token<'_> {
    fn raw(&self) -> String {
        String::from_utf8_lossy(self.raw).into_owned()
    }
}

impl<'a> Decoder<'a> {
    fn message(
        &mut self,
        descriptor: &MessageDescriptor,
        depth: usize,
    ) -> Result<DynamicMessage, String> {
        if depth > DEPTH_MAX {
            return Err("exceeded max recursion depth".to_owned());
        }
        let open = self.read()?;
        if open.kind != TokenKind::ObjectOpen {
            return Err(self.unexpected(&open));
        }
        let mut message = DynamicMessage::new(descriptor.clone());
        let mut seen = Seen::default();
        loop {
            let name = self.read()?;
            let TokenKind::String(text) = &name.kind else {
                return Ok(message);
            };
            let field = descriptor
                .get_field_by_json_name(text)
                .or_else(|| descriptor.get_field_by_name(text));
            match field {
                Some(field) => {
                    self.check_seen(&mut seen, &field, &name)?;
                    self.field(&mut message, &field, (depth, &mut seen, &name))?;
                }
                None => self.skip()?,
            }
        }
    }

    fn check_seen(
        &self,
        seen: &mut Seen,
        field: &FieldDescriptor,
        name: &Token<'_>,
    ) -> Result<(), String> {
        if seen.fields.contains(&field.number()) {
            let words = format!("duplicate field {}", name.raw());
            return Err(self.refused(name.at, &words));
        }
        seen.fields.push(field.number());
        Ok(())
    }

    fn field(
        &mut self,
        message: &mut DynamicMessage,
        field: &FieldDescriptor,
        (depth, seen, name): (usize, &mut Seen, &Token<'_>),
    ) -> Result<(), String> {
        if self.peek_null() {
            self.read()?;
            return Ok(());
        }
        if field.is_list() {
            let list = self.list(field, depth)?;
            message.set_field(field, Value::List(list));
            return Ok(());
        }
        if let Some(oneof) = field.containing_oneof() {
            if seen.oneofs.contains(&oneof.full_name().to_owned()) {
                let (raw, oneof) = (name.raw(), oneof.full_name());
                let words = format!("error parsing {raw}, oneof {oneof} is already set");
                return Err(self.refused(name.at, &words));
            }
            seen.oneofs.push(oneof.full_name().to_owned());
        }
        if let Some(value) = self.single(field, depth)? {
            message.set_field(field, value);
        }
        Ok(())
    }

    fn single(&mut self, field: &FieldDescriptor, depth: usize) -> Result<Option<Value>, String> {
        if let Kind::Message(descriptor) = field.kind() {
            let message = self.message(&descriptor, depth + 1)?;
            return Ok(Some(Value::Message(message)));
        }
        let token = self.read()?;
        let Some(value) = scalar(&field.kind(), &token) else {
            let (kind, name, raw) = (kind_name(&field.kind()), field.json_name(), token.raw());
            let words = format!("invalid value for {kind} field {name}: {raw}");
            return Err(self.refused(token.at, &words));
        };
        Ok(value.known())
    }

    fn list(&mut self, field: &FieldDescriptor, depth: usize) -> Result<Vec<Value>, String> {
        let open = self.read()?;
        if open.kind != TokenKind::ArrayOpen {
            return Err(self.unexpected(&open));
        }
        let mut list = Vec::new();
        while self.peek() != Some(b']') {
            list.extend(self.single(field, depth)?);
        }
        self.read()?;
        Ok(list)
    }

    /// Passes over a value of whatever kind.
    fn skip(&mut self) -> Result<(), String> {
        let mut open = 0_usize;
        loop {
            match self.read()?.kind {
                TokenKind::ObjectOpen | TokenKind::ArrayOpen => open += 1,
                TokenKind::Close => open = open.saturating_sub(1),
                _ => {}
            }
            if open == 0 {
                return Ok(());
            }
        }
    }

    /// The first byte of the next token.
    fn peek(&mut self) -> Option<u8> {
        let blank = |byte: &&u8| b" \t\r\n,:".contains(byte);
        let rest = self.json.get(self.at..).unwrap_or_default();
        self.at += rest.iter().take_while(blank).count();
        self.json.get(self.at).copied()
    }

    fn peek_null(&mut self) -> bool {
        self.peek() == Some(b'n')
    }

    fn read(&mut self) -> Result<Token<'a>, String> {
        let first = self.peek();
        let at = self.at;
        let kind = match first {
            Some(b'{') => TokenKind::ObjectOpen,
            Some(b'[') => TokenKind::ArrayOpen,
            Some(b'n') => TokenKind::Null,
            Some(b't') => TokenKind::Bool(true),
            Some(b'f') => TokenKind::Bool(false),
            Some(b'-' | b'0'..=b'9') => TokenKind::Number,
            Some(b'"') => return self.string(),
            // The scanner has seen that every container is closed.
            _ => TokenKind::Close,
        };
        let length = match kind {
            TokenKind::ObjectOpen | TokenKind::ArrayOpen | TokenKind::Close => 1,
            _ => {
                let part = |byte: &&u8| byte.is_ascii_alphanumeric() || b"+-.".contains(byte);
                self.json[at..].iter().take_while(part).count()
            }
        };
        self.at = (at + length).min(self.json.len());
        let raw = &self.json[at..self.at];
        Ok(Token { kind, at, raw })
    }

    fn string(&mut self) -> Result<Token<'a>, String> {
        let at = self.at;
        let rest = &self.json[at..];
        let mut escaped = false;
        let end = rest.iter().skip(1).position(|&byte| {
            let closes = byte == b'"' && !escaped;
            escaped = byte == b'\\' && !escaped;
            closes
        });
        let raw = &rest[..end.map_or(rest.len(), |end| end + 2)];
        self.at += raw.len();
        let text = std::str::from_utf8(raw)
            .map_err(|_not_utf8| self.syntax(at, "invalid UTF-8 in string"))?;
        // What the scanner let through is a string of serde_json's but for half a surrogate pair.
        let text = serde_json::from_str(text)
            .map_err(|_half_a_pair| surrogate_error(text, |words| self.syntax(at, words)))?;
        let kind = TokenKind::String(text);
        Ok(Token { kind, at, raw })
    }

    fn unexpected(&self, token: &Token<'_>) -> String {
        self.syntax(token.at, &format!("unexpected token {}", token.raw()))
    }

    fn syntax(&self, at: usize, words: &str) -> String {
        format!("syntax error {}", self.refused(at, words))
    }

    fn refused(&self, at: usize, words: &str) -> String {
        let before = &self.json[..at];
        let line = before.iter().filter(|&&byte| byte == b'\n').count() + 1;
        let line_start = before.iter().rposition(|&byte| byte == b'\n');
        let in_line = &before[line_start.map_or(0, |at| at + 1)..];
        let column = String::from_utf8_lossy(in_line).chars().count() + 1;
        format!("(line {line}:{column}): {words}")
    }
}

/// What a message has been given already.
#[derive(Default)]
struct Seen {
    fields: Vec<u32>,
    oneofs: Vec<String>,
}

/// A value, or the name of an enum's value that is not known, which is passed over.
enum Scalar {
    Known(Value),
    Unknown,
}

impl Scalar {
    fn known(self) -> Option<Value> {
        match self {
            Self::Known(value) => Some(value),
            Self::Unknown => None,
        }
    }
}

fn scalar(kind: &Kind, token: &Token<'_>) -> Option<Scalar> {
    let value = match (kind, &token.kind) {
        (Kind::Bool, TokenKind::Bool(value)) => Value::Bool(*value),
        (Kind::String, TokenKind::String(text)) => Value::String(text.clone()),
        (Kind::Bytes, TokenKind::String(text)) => Value::Bytes(base64(text)?),
        (Kind::Enum(values), TokenKind::String(name)) => match values.get_value_by_name(name) {
            Some(value) => Value::EnumNumber(value.number()),
            None => return Some(Scalar::Unknown),
        },
        (Kind::Enum(_), TokenKind::Number) => Value::EnumNumber(number(token)?.try_into().ok()?),
        (Kind::Int32 | Kind::Sint32 | Kind::Sfixed32, _) => {
            Value::I32(number(token)?.try_into().ok()?)
        }
        (Kind::Int64 | Kind::Sint64 | Kind::Sfixed64, _) => {
            Value::I64(number(token)?.try_into().ok()?)
        }
        (Kind::Uint32 | Kind::Fixed32, _) => Value::U32(number(token)?.try_into().ok()?),
        (Kind::Uint64 | Kind::Fixed64, _) => Value::U64(number(token)?.try_into().ok()?),
        // etcd's messages have no fractions.
        _ => return None,
    };
    Some(Scalar::Known(value))
}

fn number(token: &Token<'_>) -> Option<i128> {
    match &token.kind {
        TokenKind::Number => whole(std::str::from_utf8(token.raw).ok()?),
        TokenKind::String(text) => whole(text),
        _ => None,
    }
}

fn kind_name(kind: &Kind) -> &'static str {
    match kind {
        Kind::Bool => "bool",
        Kind::Int32 => "int32",
        Kind::Sint32 => "sint32",
        Kind::Uint32 => "uint32",
        Kind::Int64 => "int64",
        Kind::Sint64 => "sint64",
        Kind::Uint64 => "uint64",
        Kind::Sfixed32 => "sfixed32",
        Kind::Fixed32 => "fixed32",
        Kind::Float => "float",
        Kind::Sfixed64 => "sfixed64",
        Kind::Fixed64 => "fixed64",
        Kind::Double => "double",
        Kind::String => "string",
        Kind::Bytes => "bytes",
        Kind::Message(_) => "message",
        Kind::Enum(_) => "enum",
    }
}

/// Bytes in base64 of either alphabet, with its padding or without, as Go takes them.
fn base64(text: &str) -> Option<Bytes> {
    let alphabet: &Alphabet = match text.contains(['-', '_']) {
        true => &URL_SAFE,
        false => &STANDARD,
    };
    let padding = match text.len() % 4 {
        0 => DecodePaddingMode::RequireCanonical,
        _ => DecodePaddingMode::RequireNone,
    };
    let config = GeneralPurposeConfig::new()
        .with_decode_allow_trailing_bits(true)
        .with_decode_padding_mode(padding);
    // Go passes over the ends of lines.
    let text: String = text.chars().filter(|c| !matches!(c, '\r' | '\n')).collect();
    let bytes = GeneralPurpose::new(alphabet, config).decode(text);
    bytes.ok().map(Bytes::from)
}

/// What Go says of a string in which half of a surrogate pair is missing.
fn surrogate_error(raw: &str, syntax: impl FnOnce(&str) -> String) -> String {
    let halves = raw.match_indices("\\u").map(|(at, _)| &raw[at..]);
    let is_half = |escape: &&str| {
        let code = escape
            .get(2..6)
            .and_then(|hex| u32::from_str_radix(hex, 16).ok());
        let next = escape.get(6..12).unwrap_or_default();
        let low = next
            .strip_prefix("\\u")
            .and_then(|hex| u32::from_str_radix(hex, 16).ok());
        match code {
            Some(0xd800..0xdc00) => !matches!(low, Some(0xdc00..0xe000)),
            Some(0xdc00..0xe000) => true,
            _ => false,
        }
    };
    let mut halves = halves.filter(is_half);
    match halves.next().and_then(|escape| escape.get(6..12)) {
        Some(next) => syntax(&format!("invalid escape code {next:?} in string")),
        None => "unexpected EOF".to_owned(),
    }
}
