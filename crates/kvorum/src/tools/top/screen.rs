//! `kvorum top` on a terminal.

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use ratatui::crossterm::event::{self, Event, KeyCode, KeyEvent, KeyEventKind, KeyModifiers};
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Color, Modifier, Style};
use ratatui::text::Line;
use ratatui::widgets::{Block, Cell, Paragraph, Row, Sparkline, Table};
use ratatui::{DefaultTerminal, Frame};
use tokio::runtime::Runtime;
use types::{Clock, SystemClock};

use super::view::{MEMBER_HEADS, PREFIX_HEADS, View};
use super::{Sample, sample};
use crate::tools::Failure;
use crate::tools::asked::Asking;

/// How long a key waits to be seen.
const KEY_TIME: Duration = Duration::from_millis(100);
/// Rates that are kept: more than a terminal is wide.
const RATES_MAX: usize = 400;
/// Lines of problems that are shown.
const PROBLEMS_MAX: usize = 4;

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
            screen.take(View::between(before.as_ref(), &sample));
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
    fn take(&mut self, view: View) {
        for (rates, rate) in [
            (&mut self.reads, view.reads_per_s),
            (&mut self.writes, view.writes_per_s),
        ] {
            if rates.len() == RATES_MAX {
                rates.pop_front();
            }
            rates.push_back(whole(rate));
        }
        self.view = view;
    }

    fn draw(&self, frame: &mut Frame<'_>) {
        let view = &self.view;
        let lines = |count: usize| Constraint::Length(u16::try_from(count).unwrap_or(u16::MAX));
        let problems = view.problems.len().min(PROBLEMS_MAX);
        let [title, said, members, rates, prefixes] = Layout::vertical([
            lines(1),
            lines(problems),
            lines(view.members.len() + 3),
            Constraint::Length(6),
            Constraint::Min(3),
        ])
        .areas(frame.area());
        let shown = if view.title.is_empty() {
            "asking ..."
        } else {
            &view.title
        };
        frame.render_widget(Paragraph::new(shown).style(Modifier::BOLD), title);
        let problem = |text: &String| {
            let colour = match text.split(':').next() {
                Some("error") => Color::Red,
                Some("warning") => Color::Yellow,
                _ => Color::Reset,
            };
            Line::styled(text.clone(), Style::new().fg(colour))
        };
        let problems: Vec<Line<'_>> = view
            .problems
            .iter()
            .take(PROBLEMS_MAX)
            .map(problem)
            .collect();
        frame.render_widget(Paragraph::new(problems), said);
        draw_members(view, frame, members);
        let [reads, writes] = Layout::horizontal([Constraint::Fill(1); 2]).areas(rates);
        draw_rate("reads", view.reads_per_s, &self.reads, frame, reads);
        draw_rate("writes", view.writes_per_s, &self.writes, frame, writes);
        draw_prefixes(view, frame, prefixes);
    }
}

fn head(names: &[&'static str]) -> Row<'static> {
    Row::new(names.to_vec()).style(Modifier::BOLD)
}

fn draw_members(view: &View, frame: &mut Frame<'_>, area: Rect) {
    let row = |member: &super::view::Row| {
        let style = match (member.answers, member.cells[1].as_str()) {
            (false, _) => Style::new().fg(Color::Red),
            (true, "leader") => Style::new().fg(Color::Green),
            (true, _) => Style::new(),
        };
        Row::new(member.cells.iter().map(|cell| Cell::new(cell.clone()))).style(style)
    };
    let mut widths = [Constraint::Length(9); 14];
    widths[0] = Constraint::Min(8);
    widths[2] = Constraint::Length(11);
    widths[6] = Constraint::Length(6);
    let table = Table::new(view.members.iter().map(row), widths)
        .header(head(&MEMBER_HEADS))
        .block(Block::bordered().title("members"));
    frame.render_widget(table, area);
}

fn draw_rate(name: &str, now: f64, rates: &VecDeque<u64>, frame: &mut Frame<'_>, area: Rect) {
    let room = usize::from(area.width.saturating_sub(2));
    let shown: Vec<u64> = rates
        .iter()
        .skip(rates.len().saturating_sub(room))
        .copied()
        .collect();
    let title = format!(
        "{name}: {now:.0}/s, at most {}/s",
        rates.iter().max().unwrap_or(&0)
    );
    let line = Sparkline::default()
        .data(&shown)
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
    let mut widths = [Constraint::Length(10); 5];
    widths[0] = Constraint::Min(20);
    let rows = view.prefixes.iter().map(|row| Row::new(row.clone()));
    let table = Table::new(rows, widths)
        .header(head(&PREFIX_HEADS))
        .block(block);
    frame.render_widget(table, area);
}

/// Whole requests a second, for a line of bars.
fn whole(rate: f64) -> u64 {
    Duration::try_from_secs_f64(rate).map_or(0, |rate| rate.as_secs())
}

#[cfg(test)]
mod tests {
    use ratatui::Terminal;
    use ratatui::backend::TestBackend;

    use super::*;

    fn drawn(width: u16, height: u16) -> String {
        let mut screen = Screen::default();
        for _ in 0..30 {
            screen.take(super::super::view::tests::view());
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
        // What has no room is cut, and nothing fails.
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
