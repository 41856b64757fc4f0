//! When snapshots are taken: five cron fields, `@hourly` and its like, or `@every 90s`. In UTC.
//!
//! What this is not: all of cron. Months and days of the week are numbers.

use std::str::FromStr;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::log::date_of;

const MINUTE: Duration = Duration::from_secs(60);
/// Minutes after which a schedule that has not come up never will: leap days are eight years apart at most.
const MINUTES_SEARCHED_MAX: u64 = 8 * 366 * 24 * 60;

/// A schedule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Schedule {
    Every(Duration),
    Cron(Fields),
}

/// The values that each field allows, as bits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Fields {
    minutes: u64,
    hours: u64,
    days: u64,
    months: u64,
    weekdays: u64,
    /// If both days are restricted, either is enough.
    either_day: bool,
}

impl FromStr for Schedule {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let fields = match text {
            "@yearly" | "@annually" => "0 0 1 1 *",
            "@monthly" => "0 0 1 * *",
            "@weekly" => "0 0 * * 0",
            "@daily" | "@midnight" => "0 0 * * *",
            "@hourly" => "0 * * * *",
            other => match other.strip_prefix("@every ") {
                Some(interval) => return every(interval).map(Self::Every),
                None => other,
            },
        };
        let parts: Vec<&str> = fields.split_whitespace().collect();
        let [minute, hour, day, month, weekday] = parts[..] else {
            return Err(format!(
                "expected exactly 5 fields, found {}: [{text}]",
                parts.len()
            ));
        };
        // Sunday is 0 and 7.
        let weekdays = field(weekday, 0, 7)?;
        Ok(Self::Cron(Fields {
            minutes: field(minute, 0, 59)?,
            hours: field(hour, 0, 23)?,
            days: field(day, 1, 31)?,
            months: field(month, 1, 12)?,
            weekdays: weekdays | weekdays >> 7,
            either_day: !day.starts_with('*') && !weekday.starts_with('*'),
        }))
    }
}

/// Go's `90s`, `10m`, `12h`.
fn every(text: &str) -> Result<Duration, String> {
    let bad = || format!("failed to parse duration @every {text}");
    let unit = text.chars().last().ok_or_else(bad)?;
    let seconds = match unit {
        's' => 1,
        'm' => 60,
        'h' => 3600,
        _ => return Err(bad()),
    };
    let count: u64 = text[..text.len() - 1].parse().map_err(|_no_number| bad())?;
    let interval = count.checked_mul(seconds).filter(|interval| *interval > 0);
    interval.map(Duration::from_secs).ok_or_else(bad)
}

/// `*`, `*/5`, `1-5`, `1-5/2`, `3`, and lists of those.
fn field(text: &str, min: u64, max: u64) -> Result<u64, String> {
    let mut allowed = 0;
    for part in text.split(',') {
        let bad = || format!("failed to parse {part:?}: a number of {min} to {max} is needed");
        let number = |text: &str| text.parse::<u64>().map_err(|_no_number| bad());
        let (range, step) = match part.split_once('/') {
            Some((range, step)) => (range, number(step)?),
            None => (part, 1),
        };
        let (first, last) = match range.split_once('-') {
            _ if range == "*" => (min, max),
            Some((first, last)) => (number(first)?, number(last)?),
            // `5/10` goes on to the end.
            None if part.contains('/') => (number(range)?, max),
            None => (number(range)?, number(range)?),
        };
        if step == 0 || first < min || last > max || first > last {
            return Err(bad());
        }
        let mut value = first;
        while value <= last {
            allowed |= 1 << value;
            value += step;
        }
    }
    Ok(allowed)
}

impl Schedule {
    /// The next moment after this one, if there ever is one.
    pub(crate) fn after(&self, now: SystemTime) -> Option<SystemTime> {
        let fields = match self {
            Self::Every(interval) => return Some(now + *interval),
            Self::Cron(fields) => fields,
        };
        let minute = now.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs() / 60 + 1;
        (minute..minute + MINUTES_SEARCHED_MAX)
            .find(|minute| fields.allow(*minute))
            .and_then(|minute| u32::try_from(minute).ok())
            .map(|minute| UNIX_EPOCH + MINUTE * minute)
    }
}

impl Fields {
    /// Whether they allow a minute, counted from 1970.
    fn allow(&self, minute: u64) -> bool {
        let has = |allowed: u64, value: u64| allowed >> value & 1 == 1;
        if !has(self.minutes, minute % 60) || !has(self.hours, minute / 60 % 24) {
            return false;
        }
        let days = minute / (24 * 60);
        let (_year, month, day) = date_of(days);
        // 1970 began on a Thursday.
        let (day, weekday) = (has(self.days, day), has(self.weekdays, (days + 4) % 7));
        let is_day = match self.either_day {
            true => day || weekday,
            false => day && weekday,
        };
        is_day && has(self.months, month)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log::rfc3339;

    fn next(schedule: &str, seconds: u64) -> String {
        let schedule: Schedule = schedule.parse().unwrap();
        let next = schedule.after(UNIX_EPOCH + Duration::from_secs(seconds));
        next.map(rfc3339).unwrap_or_default()
    }

    #[test]
    fn the_next_moment_is_crons() {
        // 2026-03-05T20:00:01Z, a Thursday.
        let now = 1_772_740_801;
        for (schedule, moment) in [
            ("0 */12 * * *", "2026-03-06T00:00:00Z"),
            ("*/5 * * * *", "2026-03-05T20:05:00Z"),
            ("30 20 * * *", "2026-03-05T20:30:00Z"),
            ("0 20 * * *", "2026-03-06T20:00:00Z"),
            ("0 0 * * 7", "2026-03-08T00:00:00Z"),
            ("0 0 13 * 5", "2026-03-06T00:00:00Z"),
            ("0 0 1 1-6/5 *", "2026-06-01T00:00:00Z"),
            ("0 0 29 2 *", "2028-02-29T00:00:00Z"),
            ("0 0 31 2 *", ""),
            ("@hourly", "2026-03-05T21:00:00Z"),
            ("@every 90s", "2026-03-05T20:01:31Z"),
        ] {
            assert_eq!(next(schedule, now), moment, "{schedule}");
        }
    }

    #[test]
    fn what_is_no_schedule_is_refused() {
        for text in [
            "",
            "* * * *",
            "60 * * * *",
            "* 24 * * *",
            "5-1 * * * *",
            "*/0 * * * *",
            "@every 0s",
            "@every x",
        ] {
            assert!(text.parse::<Schedule>().is_err(), "{text}");
        }
    }
}
