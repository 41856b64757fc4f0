//! Durations as Go writes and reads them (`time.ParseDuration`): `1h30m`, `2.5s`, `100ms`.

use std::time::Duration;

/// The text is no duration, or a negative one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct NotADuration;

const UNITS: [(&str, f64); 8] = [
    ("ns", 1e-9),
    ("us", 1e-6),
    ("µs", 1e-6),
    ("μs", 1e-6),
    ("ms", 1e-3),
    ("s", 1.0),
    ("m", 60.0),
    ("h", 3600.0),
];

/// The duration that `text` stands for. Like Go's, it needs a unit, except for 0.
pub(crate) fn parse(text: &str) -> Result<Duration, NotADuration> {
    let mut rest = text.strip_prefix('+').unwrap_or(text);
    if rest == "0" {
        return Ok(Duration::ZERO);
    }
    if rest.is_empty() {
        return Err(NotADuration);
    }
    let mut total = Duration::ZERO;
    while !rest.is_empty() {
        let end = rest
            .find(|c: char| !c.is_ascii_digit() && c != '.')
            .ok_or(NotADuration)?;
        let number: f64 = rest[..end].parse().or(Err(NotADuration))?;
        let after = &rest[end..];
        let end = after
            .find(|c: char| c.is_ascii_digit() || c == '.')
            .unwrap_or(after.len());
        let unit = UNITS
            .iter()
            .find(|(name, _)| *name == &after[..end])
            .ok_or(NotADuration)?;
        let part = Duration::try_from_secs_f64(number * unit.1).or(Err(NotADuration))?;
        total = total.checked_add(part).ok_or(NotADuration)?;
        rest = &after[end..];
    }
    Ok(total)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_read_as_go_reads_them() {
        for (text, ms) in [
            ("10m", 600_000),
            ("1h30m", 5_400_000),
            ("2.5s", 2500),
            ("100ms", 100),
            ("0", 0),
        ] {
            assert_eq!(parse(text), Ok(Duration::from_millis(ms)), "{text}");
        }
        for text in ["", "5", "m", "5x", "-5s", "1h30", "."] {
            assert_eq!(parse(text), Err(NotADuration), "{text}");
        }
    }
}
