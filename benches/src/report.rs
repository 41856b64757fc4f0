//! The medians of all runs, and the ratio that matters: kvorum's figure over etcd's.

use serde::Serialize;

use crate::load::Load;
use crate::measure::Figures;

/// Every run of one load with one number of clients.
#[derive(Debug, Serialize)]
pub(crate) struct Row {
    pub(crate) load: Load,
    pub(crate) clients: usize,
    pub(crate) etcd: Vec<Figures>,
    pub(crate) kvorum: Vec<Figures>,
}

/// One figure of a row: a median for each server, and how they compare.
#[derive(Clone, Copy, Debug, Serialize)]
struct Compared {
    etcd: f64,
    kvorum: f64,
    /// kvorum's over etcd's: above 1 is good for throughput, below 1 for all else.
    ratio: f64,
}

/// What the JSON file holds for each row: the medians, and the runs they come from.
#[derive(Serialize)]
struct Summary<'r> {
    throughput: Compared,
    p50_us: Compared,
    p99_us: Compared,
    p999_us: Compared,
    server_cpu_us: Compared,
    peak_rss_mib: Compared,
    rss_growth_mib: Compared,
    written_bytes: Compared,
    runs: &'r Row,
}

impl Row {
    fn compared(&self, figure: impl Fn(&Figures) -> f64) -> Compared {
        let etcd = median(self.etcd.iter().map(&figure));
        let kvorum = median(self.kvorum.iter().map(&figure));
        Compared {
            etcd,
            kvorum,
            ratio: kvorum / etcd,
        }
    }

    #[expect(clippy::cast_precision_loss, reason = "figures for people")]
    fn summary(&self) -> Summary<'_> {
        Summary {
            throughput: self.compared(|f| f.throughput),
            p50_us: self.compared(|f| f.p50_us as f64),
            p99_us: self.compared(|f| f.p99_us as f64),
            p999_us: self.compared(|f| f.p999_us as f64),
            server_cpu_us: self.compared(|f| f.server_cpu_us),
            peak_rss_mib: self.compared(|f| f.peak_rss_mib),
            rss_growth_mib: self.compared(|f| f.rss_growth_mib),
            written_bytes: self.compared(|f| f.written_bytes),
            runs: self,
        }
    }
}

/// The table, as Markdown, so that it can be read here and pasted there.
pub(crate) fn table(rows: &[Row]) -> String {
    let mut table = String::from(
        "| load | clients | throughput/s (etcd → kvorum, ratio) | p50 µs | p99 µs | p99.9 µs | server CPU µs/op | peak RSS MiB | of it growth MiB | written B/op |\n\
         |---|---:|---|---|---|---|---|---|---|---|\n",
    );
    for row in rows {
        let summary = row.summary();
        table += &format!(
            "| {} | {} | {} | {} | {} | {} | {} | {} | {} | {} |\n",
            row.load.name(),
            row.clients,
            cell(summary.throughput, 0),
            cell(summary.p50_us, 0),
            cell(summary.p99_us, 0),
            cell(summary.p999_us, 0),
            cell(summary.server_cpu_us, 1),
            cell(summary.peak_rss_mib, 0),
            cell(summary.rss_growth_mib, 1),
            written(summary.written_bytes),
        );
    }
    table
}

/// Medians and every single run, for tools.
pub(crate) fn json(rows: &[Row]) -> anyhow::Result<String> {
    let summaries: Vec<Summary<'_>> = rows.iter().map(Row::summary).collect();
    Ok(serde_json::to_string_pretty(&summaries)?)
}

/// Nothing where nothing is written: what is left then is what the server writes on its own.
fn written(compared: Compared) -> String {
    match compared.etcd.max(compared.kvorum) {
        few if few < 100.0 => "–".to_owned(),
        _ => cell(compared, 0),
    }
}

fn cell(compared: Compared, decimals: usize) -> String {
    let Compared {
        etcd,
        kvorum,
        ratio,
    } = compared;
    if ratio.is_nan() {
        // Only one of the two was run.
        return format!("{:.decimals$}", if etcd.is_nan() { kvorum } else { etcd });
    }
    format!("{etcd:.decimals$} → {kvorum:.decimals$} (**{ratio:.2}**)")
}

pub(crate) fn median(figures: impl Iterator<Item = f64>) -> f64 {
    let mut sorted: Vec<f64> = figures.collect();
    sorted.sort_by(f64::total_cmp);
    let middle = sorted.len() / 2;
    match sorted.len() {
        0 => f64::NAN,
        len if len % 2 == 1 => sorted[middle],
        _ => f64::midpoint(sorted[middle - 1], sorted[middle]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_the_middle_or_between_the_two_middles() {
        assert!((median([3.0, 1.0, 2.0].into_iter()) - 2.0).abs() < f64::EPSILON);
        assert!((median([4.0, 1.0, 2.0, 3.0].into_iter()) - 2.5).abs() < f64::EPSILON);
    }
}
