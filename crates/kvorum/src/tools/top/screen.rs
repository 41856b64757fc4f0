//! `kvorum top` on a terminal.

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use ratatui::crossterm::event::{self, Event, KeyCode, KeyEvent, KeyEventKind, KeyModifiers};
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Color, Modifier, Style};
use ratatui::text::Line;
use ratatui::widgets::{Block, Paragraph, RenderDirection, Row, Sparkline, Table};
use ratatui::{DefaultTerminal, Frame};
use tokio::runtime::Runtime;
use types::{Clock, SystemClock};

use super::fit::{Fitted, fit, wrap};
use super::view::{MEMBER_HEADS, MEMBER_TEXTS, PREFIX_HEADS, PREFIX_TEXTS, View};
use super::{Sample, sample};
use crate::tools::Failure;
use crate::tools::asked::Asking;

/// How long a key waits to be seen.
const KEY_TIME: Duration = Duration::from_millis(100);
/// Rates that are kept: more than a terminal is wide.
const RATES_MAX: usize = 400;
/// Lines of problems that are shown.
const PROBLEM_LINES_MAX: usize = 6;
/// Lines that rates take, and that prefixes need: borders, heads and two of them.
const RATE_LINES: usize = 6;
const PREFIX_LINES_MIN: usize = 5;
/// Columns of members that a narrow terminal does without, the first of them first: what others say as
/// well, or what changes least.
const MEMBER_SPARE: [usize; 9] = [3, 5, 13, 12, 9, 6, 4, 8, 7];
/// The same of prefixes.
const PREFIX_SPARE: [usize; 2] = [3, 4];
/// A name is cut behind so many characters.
const TEXT_MAX: usize = 32;
/// The column of health.
const HEALTH: usize = 2;

/// What is on the screen.
#[derive(Default)]
struct Screen {
    view: View,
    reads: VecDeque<u64>,
    writes: VecDeque<u64>,
}

/// Shows it until a key ends it.
pub(super) fn run(
    runtime: &Runtime,
    asking: &Arc<Asking>,
    interval: Duration,
) -> Result<(), Failure> {
    let mut terminal = ratatui::init();
    let done = follow(&mut terminal, runtime, asking, interval);
    ratatui::restore();
    done
}

fn follow(
    terminal: &mut DefaultTerminal,
    runtime: &Runtime,
    asking: &Arc<Asking>,
    interval: Duration,
) -> Result<(), Failure> {
    let broken = |error: io::Error| Failure::of(&error);
    let ask = || {
        let asking = Arc::clone(asking);
        runtime.spawn(async move { sample(&asking).await })
    };
    let mut screen = Screen::default();
    let mut before: Option<Sample> = None;
    let mut asked_at = SystemClock.now();
    let mut asked = Some(ask());
    loop {
        terminal.draw(|frame| screen.draw(frame)).map_err(broken)?;
        if event::poll(KEY_TIME).map_err(broken)?
            && let Event::Key(key) = event::read().map_err(broken)?
            && is_end(&key)
        {
            return Ok(());
        }
        if let Some(asking) = asked.take_if(|asking| asking.is_finished()) {
            let sample = runtime.block_on(asking);
            let sample = sample.map_err(|error| Failure::of(&error))??;
            let view = View::between(before.as_ref(), &sample);
            screen.take(view, before.is_some());
            before = Some(sample);
        }
        let now = SystemClock.now();
        if asked.is_none() && now.saturating_duration_since(asked_at) >= interval {
            asked_at = now;
            asked = Some(ask());
        }
    }
}

fn is_end(key: &KeyEvent) -> bool {
    let is_interrupt =
        key.modifiers.contains(KeyModifiers::CONTROL) && key.code == KeyCode::Char('c');
    key.kind == KeyEventKind::Press
        && (is_interrupt || matches!(key.code, KeyCode::Char('q') | KeyCode::Esc))
}

impl Screen {
    /// The first look has no rates.
    fn take(&mut self, view: View, has_rates: bool) {
        let rates = [
            (&mut self.reads, view.reads_per_s),
            (&mut self.writes, view.writes_per_s),
        ];
        for (rates, rate) in rates.into_iter().filter(|_| has_rates) {
            if rates.len() == RATES_MAX {
                rates.pop_front();
            }
            rates.push_back(whole(rate));
        }
        self.view = view;
    }

    fn draw(&self, frame: &mut Frame<'_>) {
        let view = &self.view;
        let width = usize::from(frame.area().width);
        let shown = if view.title.is_empty() {
            "asking ..."
        } else {
            &view.title
        };
        let title = wrap(shown, width);
        let problems = problems(view, width);
        let lines = |count: usize| Constraint::Length(u16::try_from(count).unwrap_or(u16::MAX));
        let above = title.len() + problems.len() + view.members.len() + 3;
        let left = usize::from(frame.area().height).saturating_sub(above);
        // Without room for both, prefixes go before rates: they say where load comes from.
        let rates = if left < RATE_LINES + PREFIX_LINES_MIN {
            0
        } else {
            RATE_LINES
        };
        let [head, said, members, rates, prefixes] = Layout::vertical([
            lines(title.len()),
            lines(problems.len()),
            lines(view.members.len() + 3),
            lines(rates),
            Constraint::Min(0),
        ])
        .areas(frame.area());
        let title: Vec<Line<'_>> = title.into_iter().map(Line::from).collect();
        frame.render_widget(Paragraph::new(title).style(Modifier::BOLD), head);
        frame.render_widget(Paragraph::new(problems), said);
        draw_members(view, frame, members);
        let [reads, writes] = Layout::horizontal([Constraint::Fill(1); 2]).areas(rates);
        draw_rate("reads", view.reads_per_s, &self.reads, frame, reads);
        draw_rate("writes", view.writes_per_s, &self.writes, frame, writes);
        draw_prefixes(view, frame, prefixes);
    }
}

/// What somebody should know, and why members are down: there is no room for that in their table.
fn problems(view: &View, width: usize) -> Vec<Line<'static>> {
    let ill = view.members.iter().filter_map(|member| {
        let (name, why) = (&member.cells[0], &member.cells[HEALTH]);
        match short_health(member) {
            health if health == why => None,
            "DOWN" => Some(format!(
                "error: {name} is {}",
                why.replacen("DOWN ", "DOWN: ", 1)
            )),
            health => Some(format!("error: {name} is {health}: {why}")),
        }
    });
    let all = view.problems.iter().cloned().chain(ill);
    let styled = all.flat_map(|text| {
        let colour = match text.split(':').next() {
            Some("error") => Color::Red,
            Some("warning") => Color::Yellow,
            _ => Color::Reset,
        };
        let style = Style::new().fg(colour);
        wrap(&text, width)
            .into_iter()
            .map(move |line| Line::styled(line, style))
    });
    styled.take(PROBLEM_LINES_MAX).collect()
}

/// What a member's health says in the table; why it is bad is said above.
fn short_health(member: &super::view::Row) -> &str {
    let health = member.cells[HEALTH].as_str();
    match member.answers {
        false => "DOWN",
        true if health.starts_with("ok") => health,
        true => "unhealthy",
    }
}

/// How wide columns have to be.
fn widths<'a>(
    heads: &[&str],
    rows: impl Iterator<Item = &'a [String]> + Clone,
    width_max: usize,
) -> Vec<usize> {
    let wanted = heads.iter().enumerate().map(|(at, head)| {
        let cells = rows.clone().map(|row| row[at].chars().count());
        cells
            .max()
            .unwrap_or_default()
            .min(width_max)
            .max(head.len())
    });
    wanted.collect()
}

/// The cells that have room; numbers end below each other.
fn row<'a>(cells: &'a [impl AsRef<str>], fitted: &Fitted, texts: usize) -> Row<'a> {
    Row::new(fitted.columns.iter().map(|&(at, _width)| {
        let line = Line::from(cells[at].as_ref());
        if at < texts {
            line
        } else {
            line.right_aligned()
        }
    }))
}

fn table<'a>(rows: Vec<Row<'a>>, head: Row<'a>, fitted: &Fitted, title: &'a str) -> Table<'a> {
    let length = |width: usize| Constraint::Length(u16::try_from(width).unwrap_or(u16::MAX));
    let widths = fitted.columns.iter().map(|&(_at, width)| length(width));
    Table::new(rows, widths)
        .header(head.style(Modifier::BOLD))
        .column_spacing(u16::try_from(fitted.gap).unwrap_or(1))
        .block(Block::bordered().title(title))
}

fn inner(area: Rect) -> usize {
    usize::from(area.width.saturating_sub(2))
}

fn draw_members(view: &View, frame: &mut Frame<'_>, area: Rect) {
    let members = view.members.iter().map(|member| {
        let mut cells = member.cells.clone();
        cells[HEALTH] = short_health(member).to_owned();
        cells
    });
    let shown: Vec<_> = members.collect();
    let wanted = widths(
        &MEMBER_HEADS,
        shown.iter().map(|cells| &cells[..]),
        TEXT_MAX,
    );
    let fitted = fit(&wanted, &MEMBER_SPARE, inner(area));
    let rows = view.members.iter().zip(&shown).map(|(member, cells)| {
        let style = match (member.answers, member.cells[1].as_str()) {
            (false, _) => Style::new().fg(Color::Red),
            (true, "leader") => Style::new().fg(Color::Green),
            (true, _) => Style::new(),
        };
        row(cells, &fitted, MEMBER_TEXTS).style(style)
    });
    let head = row(&MEMBER_HEADS, &fitted, MEMBER_TEXTS);
    frame.render_widget(table(rows.collect(), head, &fitted, "members"), area);
}

fn draw_rate(name: &str, now: f64, rates: &VecDeque<u64>, frame: &mut Frame<'_>, area: Rect) {
    // From the right: now is at the edge.
    let shown: Vec<u64> = rates.iter().rev().take(inner(area)).copied().collect();
    let title = format!(
        "{name}: {now:.0}/s, at most {}/s",
        rates.iter().max().unwrap_or(&0)
    );
    let line = Sparkline::default()
        .data(&shown)
        .direction(RenderDirection::RightToLeft)
        .style(Color::Cyan)
        .block(Block::bordered().title(title));
    frame.render_widget(line, area);
}

fn draw_prefixes(view: &View, frame: &mut Frame<'_>, area: Rect) {
    let block = Block::bordered().title("hottest prefixes");
    if view.prefixes.is_empty() {
        frame.render_widget(
            Paragraph::new(view.prefixes_note.as_str()).block(block),
            area,
        );
        return;
    }
    let wanted = widths(
        &PREFIX_HEADS,
        view.prefixes.iter().map(|row| &row[..]),
        usize::from(area.width / 2).max(TEXT_MAX),
    );
    let fitted = fit(&wanted, &PREFIX_SPARE, inner(area));
    let rows = view.prefixes.iter();
    let rows = rows.map(|prefix| row(prefix, &fitted, PREFIX_TEXTS));
    let head = row(&PREFIX_HEADS, &fitted, PREFIX_TEXTS);
    frame.render_widget(
        table(rows.collect(), head, &fitted, "hottest prefixes"),
        area,
    );
}

/// Whole requests a second, for a line of bars.
fn whole(rate: f64) -> u64 {
    Duration::try_from_secs_f64(rate.round()).map_or(0, |rate| rate.as_secs())
}

#[cfg(test)]
mod tests {
    use ratatui::Terminal;
    use ratatui::backend::TestBackend;

    use super::*;

    fn drawn(width: u16, height: u16) -> String {
        let mut screen = Screen::default();
        for _ in 0..30 {
            screen.take(super::super::view::tests::view(), true);
        }
        let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
        terminal.draw(|frame| screen.draw(frame)).unwrap();
        terminal.backend().to_string()
    }

    #[test]
    fn a_screen_shows_members_rates_and_prefixes() {
        let wide = drawn(160, 30);
        for text in [
            "leader m1",
            "warning: 2 of 3 voters",
            "FSYNC P99",
            "follower",
            "DOWN",
            "reads: 80/s, at most 80/s",
            "writes: 20/s",
            "hottest prefixes",
            "/registry/pods/",
        ] {
            assert!(wide.contains(text), "{text} not in\n{wide}");
        }
        // No number is cut: what has no room is not there at all.
        let narrow = drawn(80, 24);
        for text in [
            "2.0 MB",
            "follower",
            "ok 1.5ms",
            "2.0ms",
            "error: m3 is DOWN",
        ] {
            assert!(narrow.contains(text), "{text} not in\n{narrow}");
        }
        for head in ["VERSION", "IN USE", "LEASES"] {
            assert!(!narrow.contains(head), "{head} in\n{narrow}");
        }
        // The members are the last to go.
        let low = drawn(80, 12);
        assert!(low.contains("follower") && low.contains("DOWN "), "{low}");
        assert!(!low.contains("writes:"), "{low}");
        // Whatever the size is, nothing fails.
        for (width, height) in [(80, 24), (20, 5), (1, 1)] {
            drawn(width, height);
        }
    }

    #[test]
    fn an_empty_screen_says_that_it_asks() {
        let screen = Screen::default();
        let mut terminal = Terminal::new(TestBackend::new(60, 20)).unwrap();
        terminal.draw(|frame| screen.draw(frame)).unwrap();
        assert!(terminal.backend().to_string().contains("asking ..."));
    }
}
