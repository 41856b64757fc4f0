//! One event as one line.

use std::fmt;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde_json::Value;
use tracing::field::{Field, Visit};
use tracing::{Event, Level, Metadata};

use crate::config::LogFormat;

/// The line for `event`, with its end.
pub(super) fn format(event: &Event<'_>, format: LogFormat, now: SystemTime) -> Vec<u8> {
    let mut fields = Fields::default();
    event.record(&mut fields);
    let metadata = event.metadata();
    let (level, ts, caller) = (level(*metadata.level()), timestamp(now), caller(metadata));
    match format {
        LogFormat::Json => {
            let head = format!(
                "{{\"level\":\"{level}\",\"ts\":\"{ts}\",\"caller\":{},\"msg\":{}",
                Value::from(caller),
                Value::from(fields.message),
            );
            let mut line = head;
            for (name, value) in &fields.others {
                line.push_str(&format!(",{}:{value}", Value::from(name.as_str())));
            }
            line.push_str("}\n");
            line.into_bytes()
        }
        LogFormat::Console => {
            let mut line = format!("{ts}\t{level}\t{caller}\t{}", fields.message);
            if !fields.others.is_empty() {
                line.push_str(&format!("\t{}", spaced(&fields.others)));
            }
            line.push('\n');
            line.into_bytes()
        }
    }
}

/// An object with a space behind each colon and comma, as zap writes it for people.
fn spaced(fields: &[(String, Value)]) -> String {
    let fields: Vec<String> = fields
        .iter()
        .map(|(name, value)| format!("{}: {value}", Value::from(name.as_str())))
        .collect();
    format!("{{{}}}", fields.join(", "))
}

const fn level(level: Level) -> &'static str {
    match level {
        Level::ERROR => "error",
        Level::WARN => "warn",
        Level::INFO => "info",
        // etcd has nothing below debug.
        Level::DEBUG | Level::TRACE => "debug",
    }
}

/// The last directory and file, as in etcd, and the line. `src` is no directory worth naming, the
/// crate's is.
fn caller(metadata: &Metadata<'_>) -> String {
    let file = metadata.file().unwrap_or_default();
    let mut parts = file.rsplit('/').filter(|part| *part != "src");
    let name = parts.next().unwrap_or_default();
    let line = metadata.line().unwrap_or_default();
    match parts.next() {
        Some(directory) => format!("{directory}/{name}:{line}"),
        None => format!("{name}:{line}"),
    }
}

/// `2006-01-02T15:04:05.000000Z`.
fn timestamp(now: SystemTime) -> String {
    format!("{}Z", date_time(now))
}

/// `2006-01-02T15:04:05.000000`, in UTC.
pub(super) fn date_time(now: SystemTime) -> String {
    let since_epoch = now.duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
    let seconds = since_epoch.as_secs();
    let (year, month, day) = civil(seconds / 86_400);
    let (hour, minute, second) = (seconds / 3600 % 24, seconds / 60 % 60, seconds % 60);
    let micros = since_epoch.subsec_micros();
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{micros:06}")
}

/// Year, month and day of a day counted from 1970-01-01, in the Gregorian calendar. Counts in
/// years that begin in March, so that the leap day is the last one.
fn civil(days_since_epoch: u64) -> (u64, u64, u64) {
    const DAYS_FROM_YEAR_0: u64 = 719_468;
    const DAYS_IN_400_YEARS: u64 = 146_097;
    let days = days_since_epoch + DAYS_FROM_YEAR_0;
    let era = days / DAYS_IN_400_YEARS;
    let day_of_era = days % DAYS_IN_400_YEARS;
    let leap_days = day_of_era / 1460 - day_of_era / 36_524 + day_of_era / 146_096;
    let year_of_era = (day_of_era - leap_days) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 {
        month_from_march + 3
    } else {
        month_from_march - 9
    };
    let year = era * 400 + year_of_era + u64::from(month <= 2);
    (year, month, day)
}

/// The fields of an event, in its order.
#[derive(Default)]
struct Fields {
    message: String,
    others: Vec<(String, Value)>,
}

impl Fields {
    fn record(&mut self, field: &Field, value: Value) {
        match (field.name(), value) {
            ("message", Value::String(message)) => self.message = message,
            (name, value) => {
                // A field called `r#type` is named `type`.
                let name = name.strip_prefix("r#").unwrap_or(name);
                self.others.push((name.to_owned(), value));
            }
        }
    }
}

impl Visit for Fields {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.record(field, Value::from(format!("{value:?}")));
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.record(field, Value::from(value));
    }

    fn record_error(&mut self, field: &Field, value: &(dyn std::error::Error + 'static)) {
        self.record(field, Value::from(crate::error::chain(value)));
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.record(field, Value::from(value));
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.record(field, Value::from(value));
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.record(field, Value::from(value));
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        self.record(field, Value::from(value));
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use parking_lot::Mutex;
    use tracing::Subscriber;
    use tracing_subscriber::layer::{Context, Layer, SubscriberExt};

    use super::*;

    struct Keep(Arc<Mutex<Vec<String>>>, LogFormat);

    impl<S: Subscriber> Layer<S> for Keep {
        fn on_event(&self, event: &Event<'_>, _context: Context<'_, S>) {
            let line = format(event, self.1, UNIX_EPOCH + Duration::from_micros(1_500_000));
            self.0.lock().push(String::from_utf8(line).unwrap());
        }
    }

    fn line(format: LogFormat, log: impl FnOnce()) -> String {
        let lines = Arc::new(Mutex::new(Vec::new()));
        let subscriber = tracing_subscriber::registry().with(Keep(Arc::clone(&lines), format));
        tracing::subscriber::with_default(subscriber, log);
        lines.lock().remove(0)
    }

    #[test]
    fn a_json_line_looks_like_etcds() {
        let line = line(LogFormat::Json, || {
            tracing::info!("local-member-id" = %"8e9e", term = 2_u64, ok = true, "a \"word\"");
        });
        let (head, tail) = line.split_once("line.rs:").unwrap();
        let tail = tail.trim_start_matches(|c: char| c.is_ascii_digit());
        assert_eq!(
            head,
            "{\"level\":\"info\",\"ts\":\"1970-01-01T00:00:01.500000Z\",\"caller\":\"logging/"
        );
        assert_eq!(
            tail,
            "\",\"msg\":\"a \\\"word\\\"\",\"local-member-id\":\"8e9e\",\"term\":2,\"ok\":true}\n"
        );
    }

    #[test]
    fn a_console_line_has_tabs() {
        let line = line(LogFormat::Console, || {
            tracing::warn!(n = 1, b = true, "hello")
        });
        let parts: Vec<&str> = line.trim_end().split('\t').collect();
        assert_eq!(parts[1], "warn");
        assert_eq!(parts[3..], ["hello", "{\"n\": 1, \"b\": true}"]);
    }

    #[test]
    fn days_are_dates() {
        for (day, date) in [
            (0, (1970, 1, 1)),
            (59, (1970, 3, 1)),
            (11_016, (2000, 2, 29)),
            (19_782, (2024, 2, 29)),
            (20_454, (2026, 1, 1)),
            (47_540, (2100, 2, 28)),
            (47_541, (2100, 3, 1)),
        ] {
            assert_eq!(civil(day), date, "{day}");
        }
    }
}
