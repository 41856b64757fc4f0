//! Whole numbers in every form that JSON has for them: `3`, `3.0`, `0.3e1`, `30e-1`
//! (protobuf-go's `internal/encoding/json/decode_number.go`).

/// The longest number there is, `u64::MAX`, has this many digits.
const DIGITS_MAX: usize = 20;

/// The whole number that this text is, if it is one, and JSON from its first to its last byte.
pub(super) fn whole(text: &str) -> Option<i128> {
    let (negative, text) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text),
    };
    let (integer, text) = digits(text);
    let leading_zero = integer.len() > 1 && integer.starts_with('0');
    if integer.is_empty() || leading_zero {
        return None;
    }
    let (fraction, text) = match text.strip_prefix('.') {
        Some(rest) => some_digits(rest)?,
        None => ("", text),
    };
    let exponent = match text.strip_prefix(['e', 'E']) {
        Some(rest) => exponent(rest)?,
        None if text.is_empty() => 0,
        None => return None,
    };
    let integer = integer.trim_start_matches('0');
    let magnitude = shifted(integer, fraction.trim_end_matches('0'), exponent)?;
    Some(if negative { -magnitude } else { magnitude })
}

fn digits(text: &str) -> (&str, &str) {
    let end = text.find(|c: char| !c.is_ascii_digit());
    text.split_at(end.unwrap_or(text.len()))
}

fn some_digits(text: &str) -> Option<(&str, &str)> {
    let (digits, rest) = digits(text);
    (!digits.is_empty()).then_some((digits, rest))
}

fn exponent(text: &str) -> Option<i32> {
    let unsigned = text.strip_prefix(['+', '-']).unwrap_or(text);
    match some_digits(unsigned)? {
        (_, "") => text.parse().ok(),
        _ => None,
    }
}

/// The digits with the point moved by `exponent`, if nothing is left behind it.
fn shifted(integer: &str, fraction: &str, exponent: i32) -> Option<i128> {
    if integer.is_empty() && fraction.is_empty() {
        return Some(0);
    }
    let by = usize::try_from(exponent.unsigned_abs()).ok()?;
    if exponent >= 0 {
        let zeros = by.checked_sub(fraction.len())?;
        if integer.len().saturating_add(by) > DIGITS_MAX {
            return None;
        }
        let digits = format!("{integer}{fraction}{}", "0".repeat(zeros));
        return digits.parse().ok();
    }
    let (kept, lost) = integer.split_at_checked(integer.len().checked_sub(by)?)?;
    if !fraction.is_empty() || lost.bytes().any(|digit| digit != b'0') {
        return None;
    }
    match kept {
        "" => Some(0),
        kept => kept.parse().ok(),
    }
}
