//! What is logged, by all tests of this process together; each looks for its own addresses and
//! files.

use std::io;
use std::path::Path;
use std::sync::OnceLock;
use std::time::Duration;

use parking_lot::Mutex;
use tracing_subscriber::fmt::MakeWriter;

static LINES: Mutex<Vec<String>> = Mutex::new(Vec::new());

/// Starts keeping what is logged.
pub(super) fn keep() {
    static STARTED: OnceLock<()> = OnceLock::new();
    STARTED.get_or_init(|| {
        tracing_subscriber::fmt()
            .with_ansi(false)
            .with_writer(Writer)
            .init();
    });
}

struct Writer;

impl<'a> MakeWriter<'a> for Writer {
    type Writer = Line;

    fn make_writer(&'a self) -> Line {
        Line
    }
}

struct Line;

impl io::Write for Line {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        LINES
            .lock()
            .push(String::from_utf8_lossy(bytes).into_owned());
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The lines since then that hold this text.
pub(super) fn lines_since(since: usize, text: &str) -> Vec<String> {
    let all = LINES.lock();
    all[since..]
        .iter()
        .filter(|line| line.contains(text))
        .cloned()
        .collect()
}

/// The lines about a file.
pub(super) fn about(file: &Path) -> Vec<String> {
    lines_since(0, &file.display().to_string())
}

/// How much has been logged so far.
pub(super) fn mark() -> usize {
    LINES.lock().len()
}

/// The one line since then that holds this text, when it has come.
pub(super) async fn the_line(since: usize, text: &str) -> String {
    for _ in 0..6000 {
        let lines = lines_since(since, text);
        assert!(lines.len() < 2, "more than once: {lines:?}");
        if let Some(line) = lines.into_iter().next() {
            return line;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("nothing was logged about {text}");
}
