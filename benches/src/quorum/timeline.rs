//! The timelines of all faults as one page without anything from elsewhere: for each fault the two
//! programs one above the other, on the same scales.

use std::fmt::Write as _;
use std::time::Duration;

use super::Outcome;

const WIDTH: f64 = 900.0;
const HEIGHT: f64 = 110.0;
/// The vertical scale is logarithmic, from a tenth of a millisecond to ten seconds.
const FASTEST_S: f64 = 1e-4;
const SLOWEST_S: f64 = 10.0;

const STYLE: &str = "body{font:14px sans-serif;margin:2em;color:#222;background:#fff}\
h2{font-size:16px;margin:1.5em 0 .3em}svg{display:block}text{font-size:11px;fill:#555}\
.broken{fill:#c0392b22}.unwell{fill:#e67e2222}.ok{fill:#2471a3}.bad{fill:#c0392b}.grid{stroke:#ddd}\
@media(prefers-color-scheme:dark){body{color:#ddd;background:#181818}text{fill:#aaa}.grid{stroke:#333}.ok{fill:#5dade2}}";

/// The page.
pub(super) fn page(outcomes: &[Outcome]) -> String {
    let mut page = format!(
        "<!doctype html><html lang=\"en\"><meta charset=\"utf-8\"><title>Faults</title><style>{STYLE}</style>\
         <h1>Writes while clusters break</h1><p>Every dot is a write: across when it was sent, upwards how long it \
         took, red on the upper edge if it failed. Red ground: the fault; orange: until all members are well.</p>"
    );
    let mut last = None;
    for outcome in outcomes {
        if last != Some(outcome.fault) {
            write_to(&mut page, format_args!("<h2>{}</h2>", outcome.fault.name()));
            last = Some(outcome.fault);
        }
        // The two of one fault share the longer one's scale.
        let scale = outcomes
            .iter()
            .filter(|other| other.fault == outcome.fault)
            .map(|other| other.marks.end)
            .max()
            .unwrap_or(outcome.marks.end);
        chart(&mut page, outcome, scale);
    }
    page.push_str("</html>\n");
    page
}

fn chart(page: &mut String, outcome: &Outcome, scale: Duration) {
    let x = |moment: Duration| moment.as_secs_f64() / scale.as_secs_f64() * WIDTH;
    let y = |took: Duration| {
        let share = (took.as_secs_f64().max(FASTEST_S) / FASTEST_S).log10()
            / (SLOWEST_S / FASTEST_S).log10();
        HEIGHT - share.min(1.0) * HEIGHT
    };
    write_to(
        page,
        format_args!(
            "<svg width=\"{:.0}\" height=\"{:.0}\" role=\"img\"><g transform=\"translate(60,5)\">",
            WIDTH + 70.0,
            HEIGHT + 20.0
        ),
    );
    let marks = outcome.marks;
    for (class, from, to) in [
        ("broken", marks.broken, marks.mended),
        ("unwell", marks.mended, marks.healthy),
    ] {
        let width = x(to) - x(from);
        write_to(
            page,
            format_args!(
                "<rect class=\"{class}\" x=\"{:.1}\" width=\"{width:.1}\" height=\"{HEIGHT}\"/>",
                x(from)
            ),
        );
    }
    for (label, took) in [
        ("1 ms", Duration::from_millis(1)),
        ("100 ms", Duration::from_millis(100)),
        ("10 s", Duration::from_secs(10)),
    ] {
        let at = y(took);
        write_to(
            page,
            format_args!(
                "<line class=\"grid\" x2=\"{WIDTH}\" y1=\"{at:.1}\" y2=\"{at:.1}\"/>\
                 <text x=\"-6\" y=\"{:.1}\" text-anchor=\"end\">{label}</text>",
                at + 4.0
            ),
        );
    }
    for write in &outcome.record.writes {
        let (class, height) = match write.acknowledged {
            true => ("ok", y(write.answered - write.sent)),
            false => ("bad", 0.0),
        };
        write_to(
            page,
            format_args!(
                "<rect class=\"{class}\" x=\"{:.1}\" y=\"{height:.1}\" width=\"1.5\" height=\"1.5\"/>",
                x(write.sent)
            ),
        );
    }
    write_to(
        page,
        format_args!(
            "<text y=\"{:.0}\">{}: no writes for {:.0} ms, {} errors</text></g></svg>",
            HEIGHT + 13.0,
            outcome.server,
            outcome.without_writes_ms,
            outcome.errors
        ),
    );
}

fn write_to(page: &mut String, text: std::fmt::Arguments<'_>) {
    page.write_fmt(text).expect("a string takes any text");
}
