//! How long a client waits (`grpc-timeout`): after that, nothing is done for its request any more.

use std::time::Duration;

use tonic::Status;

use super::metadata::CallMetadata;

/// Digits of a timeout.
const DIGITS_MAX: usize = 8;

/// How long the client waits; `None` if it does not say.
pub(super) fn timeout(metadata: &CallMetadata<'_>) -> Result<Option<Duration>, Status> {
    let Some(value) = metadata.grpc_timeout else {
        return Ok(None);
    };
    let text = String::from_utf8_lossy(value.as_bytes());
    let decoded = decode(&text);
    decoded.map(Some).map_err(|why| malformed(&why))
}

/// What a client is told whose timeout cannot be read.
fn malformed(why: &str) -> Status {
    Status::internal(format!("malformed grpc-timeout: {why}"))
}

/// grpc-go's reading of a timeout, and its words.
fn decode(text: &str) -> Result<Duration, String> {
    if text.len() < 2 {
        return Err(format!("transport: timeout string is too short: {text:?}"));
    }
    if text.len() > DIGITS_MAX + 1 {
        return Err(format!("transport: timeout string is too long: {text:?}"));
    }
    let (digits, unit) = text.split_at(text.len() - 1);
    let unit = match unit {
        "H" => Duration::from_secs(3600),
        "M" => Duration::from_secs(60),
        "S" => Duration::from_secs(1),
        "m" => Duration::from_millis(1),
        "u" => Duration::from_micros(1),
        "n" => Duration::from_nanos(1),
        _ => {
            return Err(format!(
                "transport: timeout unit is not recognized: {text:?}"
            ));
        }
    };
    match digits.parse::<u32>() {
        Ok(count) => Ok(unit.saturating_mul(count)),
        Err(_) => Err(format!(
            "strconv.ParseUint: parsing {digits:?}: invalid syntax"
        )),
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderMap;

    use super::*;

    #[test]
    fn timeouts_are_read_as_grpc_go_reads_them() {
        for (text, timeout) in [
            ("1H", Duration::from_secs(3600)),
            ("2M", Duration::from_secs(120)),
            ("3S", Duration::from_secs(3)),
            ("99999999m", Duration::from_millis(99_999_999)),
            ("5u", Duration::from_micros(5)),
            ("0n", Duration::ZERO),
        ] {
            assert_eq!(decode(text), Ok(timeout));
        }
        for (text, words) in [
            ("", "transport: timeout string is too short: \"\""),
            ("S", "transport: timeout string is too short: \"S\""),
            (
                "123456789S",
                "transport: timeout string is too long: \"123456789S\"",
            ),
            ("12s", "transport: timeout unit is not recognized: \"12s\""),
            ("-1S", "strconv.ParseUint: parsing \"-1\": invalid syntax"),
        ] {
            assert_eq!(decode(text), Err(words.to_owned()));
        }
    }

    #[test]
    fn who_says_nothing_waits_for_ever() {
        let mut headers = HeaderMap::new();
        assert!(matches!(timeout(&CallMetadata::of(&headers)), Ok(None)));
        headers.insert("grpc-timeout", "x".parse().expect("ASCII"));
        let refused = timeout(&CallMetadata::of(&headers)).expect_err("too short");
        assert_eq!(refused.code(), tonic::Code::Internal);
    }
}
