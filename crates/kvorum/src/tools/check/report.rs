//! What a check has found.

use serde::Serialize;

/// How bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Level {
    Ok,
    /// It works, and somebody should do something.
    Warning,
    /// It does not work, or not for long.
    Error,
}

/// One thing that was looked at.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) struct Finding {
    pub(super) check: &'static str,
    pub(super) level: Level,
    pub(super) text: String,
}

/// Everything that was looked at, in this order.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub(super) struct Report {
    findings: Vec<Finding>,
}

impl Report {
    pub(super) fn add(&mut self, check: &'static str, (level, text): (Level, String)) {
        self.findings.push(Finding { check, level, text });
    }

    pub(super) fn ok(&mut self, check: &'static str, text: String) {
        self.add(check, (Level::Ok, text));
    }

    pub(super) fn warning(&mut self, check: &'static str, text: String) {
        self.add(check, (Level::Warning, text));
    }

    pub(super) fn error(&mut self, check: &'static str, text: String) {
        self.add(check, (Level::Error, text));
    }

    pub(super) fn worst(&self) -> Level {
        let levels = self.findings.iter().map(|finding| finding.level);
        levels.max().unwrap_or(Level::Ok)
    }

    /// How many of what kind there are.
    pub(super) fn summary(&self) -> String {
        let count = |level| {
            let of_level = self.findings.iter().filter(|it| it.level == level);
            of_level.count()
        };
        let words = |count: usize, word: &str| match count {
            1 => format!("1 {word}"),
            _ => format!("{count} {word}s"),
        };
        format!(
            "{}, {}",
            words(count(Level::Error), "error"),
            words(count(Level::Warning), "warning")
        )
    }

    /// A line for each finding.
    pub(super) fn text(&self) -> String {
        let line = |finding: &Finding| {
            let level = match finding.level {
                Level::Ok => "ok",
                Level::Warning => "warning",
                Level::Error => "error",
            };
            format!("{level:<8} {}: {}\n", finding.check, finding.text)
        };
        let lines: String = self.findings.iter().map(line).collect();
        match self.worst() {
            // The error that follows says it.
            Level::Error => lines,
            Level::Ok | Level::Warning => format!("{lines}{}\n", self.summary()),
        }
    }
}

/// What so many voters are good for.
pub(super) fn of_voters(voters: usize) -> (Level, String) {
    let may_be_lost = voters.saturating_sub(1) / 2;
    match voters {
        1 => (
            Level::Ok,
            "1 voter: there is no other copy, take backups".to_owned(),
        ),
        _ if voters.is_multiple_of(2) => (
            Level::Warning,
            format!(
                "{voters} voters: an even number of members buys nothing, {may_be_lost} may be lost as with {}",
                voters - 1
            ),
        ),
        9.. => (
            Level::Warning,
            format!(
                "{voters} voters: every write waits for {} of them; 3 or 5 are enough",
                voters / 2 + 1
            ),
        ),
        _ => (
            Level::Ok,
            format!("{voters} voters, of which {may_be_lost} may be lost"),
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_even_number_of_voters_is_warned_about() {
        let levels = [1, 2, 3, 4, 5, 9].map(|voters| of_voters(voters).0);
        let (ok, warning) = (Level::Ok, Level::Warning);
        assert_eq!(levels, [ok, warning, ok, warning, ok, warning]);
        assert!(of_voters(4).1.contains("1 may be lost as with 3"));
    }

    #[test]
    fn a_report_counts_what_is_wrong() {
        let mut report = Report::default();
        assert_eq!(
            (report.worst(), report.summary()),
            (Level::Ok, "0 errors, 0 warnings".to_owned())
        );
        report.ok("a", "fine".to_owned());
        report.warning("b", "not so".to_owned());
        assert_eq!(report.worst(), Level::Warning);
        assert_eq!(
            report.text(),
            "ok       a: fine\nwarning  b: not so\n0 errors, 1 warning\n"
        );
        report.error("c", "bad".to_owned());
        assert_eq!(report.worst(), Level::Error);
        assert_eq!(
            serde_json::to_string(&report).unwrap(),
            r#"{"findings":[{"check":"a","level":"ok","text":"fine"},{"check":"b","level":"warning","text":"not so"},{"check":"c","level":"error","text":"bad"}]}"#
        );
    }
}
