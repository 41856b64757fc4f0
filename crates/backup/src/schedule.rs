//! When backups are due: every so often, or as a line of cron says, in UTC.

use std::str::FromStr;
use std::time::{Duration, SystemTime};

use chrono::{DateTime, Utc};
use croner::Cron;

/// The shortest time between two backups.
const INTERVAL_MIN: Duration = Duration::from_secs(1);

/// When backups are due.
#[derive(Clone, Debug, PartialEq)]
pub enum Schedule {
    /// So long after the last one.
    Every(Duration),
    /// At the times of five fields: minute, hour, day of month, month, day of week.
    Cron(Box<Cron>),
}

/// The text is no schedule.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ScheduleError {
    /// It is too often.
    #[error("it is more often than every second")]
    TooOften,
    /// Neither an interval nor cron.
    #[error("it is neither an interval such as 6h nor five fields of cron: {0}")]
    Cron(String),
}

impl Schedule {
    /// Every `interval`.
    ///
    /// # Errors
    /// When that is too often.
    pub fn every(interval: Duration) -> Result<Self, ScheduleError> {
        match interval >= INTERVAL_MIN {
            true => Ok(Self::Every(interval)),
            false => Err(ScheduleError::TooOften),
        }
    }

    /// A line of cron.
    ///
    /// # Errors
    /// When it is none.
    pub fn cron(line: &str) -> Result<Self, ScheduleError> {
        let cron = Cron::from_str(line).map_err(|error| ScheduleError::Cron(error.to_string()))?;
        Ok(Self::Cron(Box::new(cron)))
    }

    /// When the next one is due after the `last`; without one, seen from `now`. `None` if never.
    #[must_use]
    pub fn due(&self, last: Option<SystemTime>, now: SystemTime) -> Option<SystemTime> {
        match (self, last) {
            (Self::Every(_), None) => Some(now),
            (Self::Every(interval), Some(last)) => last.checked_add(*interval),
            (Self::Cron(cron), last) => {
                let after: DateTime<Utc> = last.unwrap_or(now).into();
                let next = cron.find_next_occurrence(&after, false).ok()?;
                Some(next.into())
            }
        }
    }
}

/// Reads a time: RFC 3339 (`2026-11-21T10:00:00Z`), or seconds since 1970.
#[must_use]
pub fn read_time(text: &str) -> Option<SystemTime> {
    if let Ok(time) = DateTime::parse_from_rfc3339(text) {
        return Some(time.into());
    }
    let seconds = text.parse().ok()?;
    let since = Duration::try_from_secs_f64(seconds).ok()?;
    SystemTime::UNIX_EPOCH.checked_add(since)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)
    }

    #[test]
    fn an_interval_counts_from_the_last_one() {
        let schedule = Schedule::every(Duration::from_secs(60)).unwrap();
        assert_eq!(schedule.due(None, at(5)), Some(at(5)));
        assert_eq!(schedule.due(Some(at(5)), at(1000)), Some(at(65)));
        assert!(Schedule::every(Duration::from_millis(1)).is_err());
    }

    #[test]
    fn k3ss_schedule_is_every_twelve_hours() {
        let schedule = Schedule::cron("0 */12 * * *").unwrap();
        let half_day = 12 * 60 * 60;
        assert_eq!(schedule.due(None, at(5)), Some(at(half_day)));
        let due = schedule.due(Some(at(half_day)), at(half_day + 9));
        assert_eq!(due, Some(at(2 * half_day)));
        // One that was missed is due at once.
        let due = schedule.due(Some(at(half_day)), at(9 * half_day));
        assert_eq!(due, Some(at(2 * half_day)));
    }

    #[test]
    fn times_are_read_in_two_forms() {
        assert_eq!(read_time("1970-01-01T00:01:00Z"), Some(at(60)));
        assert_eq!(read_time("1970-01-01T01:01:00+01:00"), Some(at(60)));
        let half = at(60) + Duration::from_millis(500);
        assert_eq!(read_time("60.5"), Some(half));
        for text in ["", "now", "-1", "1970-01-01"] {
            assert_eq!(read_time(text), None, "{text}");
        }
    }

    #[test]
    fn what_is_no_cron_is_refused() {
        for line in ["", "often", "61 * * * *", "* * * *"] {
            assert!(Schedule::cron(line).is_err(), "{line}");
        }
    }
}
