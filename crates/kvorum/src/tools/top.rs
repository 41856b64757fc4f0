//! `kvorum top`: how the members of a cluster are, again and again, on a terminal; or once, as a table.
//!
//! What this is not: a record. It keeps what it draws, and asks members what anybody may ask who may ask them at all.

mod fit;
mod screen;
mod view;

use std::io::{self, IsTerminal};
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use serde_json::Value;
use tokio::runtime::Runtime;
use types::{Clock, SystemClock};

use self::view::View;
use super::asked::{Asking, Seen};
use super::connection::Connection;
use super::{Failure, command_line, say};

/// Shows live how the members of a cluster are: health, leader, rates, latencies, sizes, lag, hottest prefixes
///
/// Every member of the cluster is asked, not only those that are named. Keys: q ends it. Prefixes, leases and watchers
/// are shown as far as members show them on the port that is asked.
#[derive(Clone, Debug, clap::Args)]
pub(super) struct Arguments {
    /// Print one table and end; also when the output is no terminal
    #[arg(long)]
    once: bool,
    /// How often members are asked
    #[arg(long, value_name = "TIME", default_value = "2s", value_parser = command_line::duration)]
    interval: Duration,
    #[command(flatten)]
    connection: Connection,
}

/// The shortest `--interval`: whoever asks more often is load.
const INTERVAL_MIN: Duration = Duration::from_millis(200);

/// What was seen at one time.
#[derive(Clone, Debug)]
struct Sample {
    at: Instant,
    seen: Seen,
    /// What members show of themselves on their status pages, beside their answers.
    pages: Vec<Option<Value>>,
}

pub(super) fn run(arguments: &Arguments) -> Result<(), Failure> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::of(&error))?;
    let interval = arguments.interval.max(INTERVAL_MIN);
    let asking = Arc::new(Asking::new(&arguments.connection));
    if !arguments.once && io::stdout().is_terminal() {
        return screen::run(&runtime, &asking, interval);
    }
    let view = once(&runtime, &asking, interval)?;
    say(&view.table());
    if view.members_answering() == 0 {
        let text = "no member answers".to_owned();
        return Err(Failure {
            status: super::EXIT_ERROR,
            text,
        });
    }
    Ok(())
}

/// Two looks, for rates.
fn once(runtime: &Runtime, asking: &Asking, interval: Duration) -> Result<View, Failure> {
    runtime.block_on(async {
        let before = sample(asking).await?;
        tokio::time::sleep(interval).await;
        let now = sample(asking).await?;
        Ok(View::between(Some(&before), &now))
    })
}

async fn sample(asking: &Asking) -> Result<Sample, Failure> {
    let seen = asking.all().await?;
    let page = |endpoint: String| async move {
        let page = asking.get(&endpoint, "/status.json").await?;
        serde_json::from_slice(&page).ok()
    };
    let answers = seen.answers.iter();
    let pages = answers.map(|answer| page(answer.endpoint.clone()));
    let pages = join_all(pages).await;
    Ok(Sample {
        at: SystemClock.now(),
        seen,
        pages,
    })
}
