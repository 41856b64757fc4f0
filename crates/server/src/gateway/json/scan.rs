//! Finds where a JSON value ends and whether it is one (Go's `encoding/json/scanner.go`), a byte at a time.

/// Values in values; more is an attack.
const DEPTH_MAX: usize = 10_000;

/// What a byte was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// A part of the value, or blank before it.
    Continue,
    /// Its last byte.
    EndAfter,
    /// The first behind it.
    EndBefore,
}

/// What a container expects.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Inside {
    ObjectKey,
    ObjectValue,
    Array,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    BeginValue,
    BeginValueOrClose,
    BeginKey,
    BeginKeyOrClose,
    EndValue,
    EndTop,
    String,
    Escape,
    /// So many digits of `\u` are to come.
    Hex(u8),
    Minus,
    Zero,
    Digits,
    Point,
    Fraction,
    E,
    ESign,
    Exponent,
    /// So many bytes of this word have been.
    Word(&'static str, usize),
}

/// The state between two bytes.
pub(super) struct Scanner {
    state: State,
    inside: Vec<Inside>,
}

type Outcome = Result<Step, String>;

impl Scanner {
    pub(super) const fn new() -> Self {
        Self {
            state: State::BeginValue,
            inside: Vec::new(),
        }
    }

    /// Looks at the next byte.
    pub(super) fn step(&mut self, byte: u8) -> Outcome {
        match self.state {
            State::BeginValue => self.begin_value(byte),
            State::BeginValueOrClose if byte == b']' => self.end_value(byte),
            State::BeginValueOrClose => self.begin_value(byte),
            State::BeginKey => self.begin_key(byte),
            State::BeginKeyOrClose if byte == b'}' => {
                self.set_inside(Inside::ObjectValue);
                self.end_value(byte)
            }
            State::BeginKeyOrClose => self.begin_key(byte),
            State::EndValue => self.end_value(byte),
            State::EndTop => Ok(Step::EndBefore),
            State::String | State::Escape | State::Hex(_) => self.string(byte),
            State::Word(word, seen) => self.word(word, seen, byte),
            _ => self.number(byte),
        }
    }

    fn begin_value(&mut self, byte: u8) -> Outcome {
        let state = match byte {
            b' ' | b'\t' | b'\r' | b'\n' => return Ok(Step::Continue),
            b'{' => {
                self.inside.push(Inside::ObjectKey);
                State::BeginKeyOrClose
            }
            b'[' => {
                self.inside.push(Inside::Array);
                State::BeginValueOrClose
            }
            b'"' => State::String,
            b'-' => State::Minus,
            b'0' => State::Zero,
            b'1'..=b'9' => State::Digits,
            b't' => State::Word("true", 1),
            b'f' => State::Word("false", 1),
            b'n' => State::Word("null", 1),
            _ => return Err(invalid(byte, "looking for beginning of value")),
        };
        if self.inside.len() > DEPTH_MAX {
            return Err("exceeded max depth".to_owned());
        }
        self.go(state)
    }

    fn begin_key(&mut self, byte: u8) -> Outcome {
        match byte {
            b' ' | b'\t' | b'\r' | b'\n' => Ok(Step::Continue),
            b'"' => self.go(State::String),
            _ => Err(invalid(byte, "looking for beginning of object key string")),
        }
    }

    fn end_value(&mut self, byte: u8) -> Outcome {
        let Some(&inside) = self.inside.last() else {
            return Ok(Step::EndBefore);
        };
        match (inside, byte) {
            (_, b' ' | b'\t' | b'\r' | b'\n') => self.go(State::EndValue),
            (Inside::ObjectKey, b':') => {
                self.set_inside(Inside::ObjectValue);
                self.go(State::BeginValue)
            }
            (Inside::ObjectKey, _) => Err(invalid(byte, "after object key")),
            (Inside::ObjectValue, b',') => {
                self.set_inside(Inside::ObjectKey);
                self.go(State::BeginKey)
            }
            (Inside::Array, b',') => self.go(State::BeginValue),
            (Inside::ObjectValue, b'}') | (Inside::Array, b']') => self.close(),
            (Inside::ObjectValue, _) => Err(invalid(byte, "after object key:value pair")),
            (Inside::Array, _) => Err(invalid(byte, "after array element")),
        }
    }

    fn close(&mut self) -> Outcome {
        self.inside.pop();
        if self.inside.is_empty() {
            return Ok(Step::EndAfter);
        }
        self.go(State::EndValue)
    }

    fn string(&mut self, byte: u8) -> Outcome {
        match (self.state, byte) {
            (State::Escape, b'b' | b'f' | b'n' | b'r' | b't' | b'\\' | b'/' | b'"') => {
                self.go(State::String)
            }
            (State::Escape, b'u') => self.go(State::Hex(4)),
            (State::Escape, _) => Err(invalid(byte, "in string escape code")),
            (State::Hex(left), _) if byte.is_ascii_hexdigit() => match left {
                1 => self.go(State::String),
                _ => self.go(State::Hex(left - 1)),
            },
            (State::Hex(_), _) => Err(invalid(byte, "in \\u hexadecimal character escape")),
            (_, b'"') => self.go(match self.inside.is_empty() {
                true => State::EndTop,
                false => State::EndValue,
            }),
            (_, b'\\') => self.go(State::Escape),
            (_, 0..b' ') => Err(invalid(byte, "in string literal")),
            (_, _) => Ok(Step::Continue),
        }
    }

    fn number(&mut self, byte: u8) -> Outcome {
        match (self.state, byte) {
            (State::Minus, b'0') => self.go(State::Zero),
            (State::Minus, b'1'..=b'9') => self.go(State::Digits),
            (State::Minus, _) => Err(invalid(byte, "in numeric literal")),
            (State::Digits, b'0'..=b'9') => Ok(Step::Continue),
            (State::Zero | State::Digits, b'.') => self.go(State::Point),
            (State::Point | State::Fraction, b'0'..=b'9') => self.go(State::Fraction),
            (State::Point, _) => Err(invalid(byte, "after decimal point in numeric literal")),
            (State::Zero | State::Digits | State::Fraction, b'e' | b'E') => self.go(State::E),
            (State::E, b'+' | b'-') => self.go(State::ESign),
            (State::E | State::ESign | State::Exponent, b'0'..=b'9') => self.go(State::Exponent),
            (State::E | State::ESign, _) => Err(invalid(byte, "in exponent of numeric literal")),
            (_, _) => self.end_value(byte),
        }
    }

    fn word(&mut self, word: &'static str, seen: usize, byte: u8) -> Outcome {
        match word.as_bytes().get(seen) {
            Some(&expected) if expected == byte => self.go(State::Word(word, seen + 1)),
            Some(&expected) => {
                let expected = char::from(expected);
                let place = format!("in literal {word} (expecting '{expected}')");
                Err(invalid(byte, &place))
            }
            None => self.end_value(byte),
        }
    }

    fn set_inside(&mut self, inside: Inside) {
        if let Some(last) = self.inside.last_mut() {
            *last = inside;
        }
    }

    fn go(&mut self, state: State) -> Outcome {
        self.state = state;
        Ok(Step::Continue)
    }
}

fn invalid(byte: u8, place: &str) -> String {
    format!("invalid character {} {place}", quoted(byte))
}

/// A byte as Go quotes it: as a character of Latin-1.
fn quoted(byte: u8) -> String {
    match byte {
        b'\'' => r"'\''".to_owned(),
        b'"' => r#"'"'"#.to_owned(),
        b'\\' => r"'\\'".to_owned(),
        0x07 => r"'\a'".to_owned(),
        0x08 => r"'\b'".to_owned(),
        0x0b => r"'\v'".to_owned(),
        0x0c => r"'\f'".to_owned(),
        b'\n' => r"'\n'".to_owned(),
        b'\r' => r"'\r'".to_owned(),
        b'\t' => r"'\t'".to_owned(),
        0..0x20 | 0x7f => format!(r"'\x{byte:02x}'"),
        // Go shows no control character, no soft hyphen and no other space than its own.
        0x80..=0xa0 | 0xad => format!(r"'\u{byte:04x}'"),
        _ => format!("'{}'", char::from(byte)),
    }
}
