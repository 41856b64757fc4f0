//! The timelines of all faults for each fault the two programs one above the other, on the same scales.

use std::time::Duration;

use super::Outcome;
use crate::plot::{Plots, level, put};

const WIDTH: f64 = 900.0;
const HEIGHT: f64 = 110.0;
/// For the words on the left and below.
const LEFT: f64 = 60.0;
const FOOT: f64 = 22.0;
/// The vertical scale is logarithmic, from a tenth of a millisecond to ten seconds.
const FASTEST_S: f64 = 1e-4;
const SLOWEST_S: f64 = 10.0;

/// The plots.
pub(super) fn plots(outcomes: &[Outcome]) -> Plots {
    let mut plots = Plots::new(
        "Writes while clusters break",
        "Every dot is a write: across when it was sent, upwards how long it took, red on the upper edge if it failed. \
         Red ground: the fault; orange: until all members are well.",
        WIDTH + LEFT,
    );
    let mut last = None;
    for outcome in outcomes {
        if last != Some(outcome.fault) {
            plots.heading(outcome.fault.name());
            last = Some(outcome.fault);
        }
        // The two of one fault share the longer one's scale.
        let scale = outcomes
            .iter()
            .filter(|other| other.fault == outcome.fault)
            .map(|other| other.marks.end)
            .max()
            .unwrap_or(outcome.marks.end);
        plots.add(HEIGHT + FOOT, chart(outcome, scale));
    }
    plots
}

fn chart(outcome: &Outcome, scale: Duration) -> String {
    let x = |moment: Duration| moment.as_secs_f64() / scale.as_secs_f64() * WIDTH;
    let y = |took: Duration| {
        let share = (took.as_secs_f64().max(FASTEST_S) / FASTEST_S).log10()
            / (SLOWEST_S / FASTEST_S).log10();
        HEIGHT - share.min(1.0) * HEIGHT
    };
    let mut svg = format!("<g transform=\"translate({LEFT},5)\">");
    let marks = outcome.marks;
    for (class, from, to) in [
        ("broken", marks.broken, marks.mended),
        ("unwell", marks.mended, marks.healthy),
    ] {
        let width = x(to) - x(from);
        put(
            &mut svg,
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
        level(&mut svg, y(took), WIDTH, label);
    }
    for write in &outcome.record.writes {
        let (class, height) = match write.acknowledged {
            true => ("ok", y(write.answered - write.sent)),
            false => ("bad", 0.0),
        };
        put(
            &mut svg,
            format_args!(
                "<rect class=\"{class}\" x=\"{:.1}\" y=\"{height:.1}\" width=\"1.5\" height=\"1.5\"/>",
                x(write.sent)
            ),
        );
    }
    put(
        &mut svg,
        format_args!(
            "<text y=\"{:.0}\">{}: no writes for {:.0} ms, {} errors</text></g>",
            HEIGHT + 13.0,
            outcome.server,
            outcome.without_writes_ms,
            outcome.errors
        ),
    );
    svg
}
