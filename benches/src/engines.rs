//! What the log costs on its way to the disk: groups of entries, each one made durable before the next,
//! through sled as kvorum's log does it, and through a plain file behind the same trait. The
//! difference is sled's share of a put.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use backend::engine::{Change, Engine, EngineError, EngineScan, MemoryEngine};
use backend::schema::raft::encode_log;
use backend::{Backend, Batch, Bucket, Config};
use bytes::Bytes;
use parking_lot::Mutex;
use serde::Serialize;

use crate::measure::{Figures, Latencies, Meter, now};

/// What the file is filled with before anything is measured, as etcd does with its WAL: a write into a file
/// that does not grow costs no change of the file's metadata.
const FILLED_BYTES: u64 = 256 << 20;
/// What sled may keep in memory, as kvorum's log gives it.
const CACHE_BYTES: u64 = 4 << 20;

/// What `engines` is told.
#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// Bytes of an entry.
    #[arg(long, default_value_t = 300)]
    entry: usize,
    /// Entries in a group (may be repeated).
    #[arg(long, default_values_t = [1, 16, 128])]
    group: Vec<usize>,
    /// How long each measurement lasts.
    #[arg(long, default_value_t = 3)]
    seconds: u64,
    /// How often each engine takes its turn; the medians are reported.
    #[arg(long, default_value_t = 5)]
    rounds: usize,
}

/// What one engine did with groups of one size.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Groups {
    engine: &'static str,
    entries: usize,
    runs: Vec<Run>,
}

#[derive(Clone, Debug, Serialize)]
struct Run {
    figures: Figures,
    /// Bytes that reached the device for each byte of entries.
    amplification: f64,
}

#[derive(Clone, Copy, Debug)]
enum Kind {
    Sled,
    File,
}

impl Kind {
    const fn name(self) -> &'static str {
        match self {
            Self::Sled => "sled",
            Self::File => "plain file",
        }
    }

    fn open(self, path: &Path) -> anyhow::Result<Backend> {
        Ok(match self {
            Self::Sled => Backend::open(&Config {
                path: path.to_owned(),
                cache_bytes: CACHE_BYTES,
            })?,
            Self::File => Backend::with_engine(Arc::new(PlainFile::create(path)?))?,
        })
    }
}

/// Measures both engines, by turns.
pub(crate) fn run(options: &Options) -> anyhow::Result<Vec<Groups>> {
    let mut all = Vec::new();
    for &entries in &options.group {
        let mut both = [Kind::Sled, Kind::File].map(|kind| {
            let groups = Groups {
                engine: kind.name(),
                entries,
                runs: Vec::new(),
            };
            (kind, groups)
        });
        for _ in 0..options.rounds {
            for (kind, groups) in &mut both {
                groups.runs.push(measure(*kind, entries, options)?);
            }
        }
        all.extend(both.map(|(_, groups)| groups));
    }
    Ok(all)
}

/// As Markdown.
pub(crate) fn table(all: &[Groups]) -> String {
    let mut table =
        "| entries | engine | groups/s | p50 µs | p99 µs | CPU µs/group | written/byte |\n\
                     |---:|---|---:|---:|---:|---:|---:|\n"
            .to_owned();
    for groups in all {
        let median =
            |figure: fn(&Run) -> f64| crate::report::median(groups.runs.iter().map(figure));
        table += &format!(
            "| {} | {} | {:.0} | {:.0} | {:.0} | {:.1} | {:.1} |\n",
            groups.entries,
            groups.engine,
            median(|run| run.figures.throughput),
            median(|run| micros(run.figures.p50_us)),
            median(|run| micros(run.figures.p99_us)),
            median(|run| run.figures.server_cpu_us),
            median(|run| run.amplification),
        );
    }
    table
}

fn micros(micros: u64) -> f64 {
    Duration::from_micros(micros).as_secs_f64() * 1e6
}

fn measure(kind: Kind, entries: usize, options: &Options) -> anyhow::Result<Run> {
    // Where the servers' data directories are, too: the disk is a part of what is measured.
    let directory = tempfile::tempdir()?;
    let mut writer = kind.open(&directory.path().join("log"))?.writer;
    let group = Bytes::from(vec![b'e'; entries * options.entry]);
    let meter = Meter::start(&[std::process::id()])?;
    let mut latencies = Latencies::new();
    let until = now() + Duration::from_secs(options.seconds);
    let mut index = 1_u64;
    while now() < until {
        let began = now();
        let mut batch = Batch::new();
        let key = Bytes::copy_from_slice(&encode_log(index));
        batch.put(Bucket::RaftLog, key, group.clone());
        writer.commit(batch)?;
        writer.flush_durable()?;
        latencies.record(began.elapsed());
        index += entries as u64;
    }
    let figures = meter.stop(latencies)?;
    Ok(Run {
        amplification: figures.written_bytes / f64::from(u32::try_from(group.len())?),
        figures,
    })
}

/// A file that batches are appended to, and the records in memory. It cannot be opened again: nothing of
/// what a real one needs for that would cost a put anything but its checksum, which is there.
#[derive(Debug)]
struct PlainFile {
    records: MemoryEngine,
    file: File,
    end: Mutex<u64>,
}

impl PlainFile {
    fn create(path: &Path) -> anyhow::Result<Self> {
        let file = OpenOptions::new().write(true).create_new(true).open(path)?;
        let zeroes = vec![0; 1 << 20];
        for at in (0..FILLED_BYTES).step_by(zeroes.len()) {
            file.write_all_at(&zeroes, at)?;
        }
        file.sync_all()?;
        Ok(Self {
            records: MemoryEngine::new(),
            file,
            end: Mutex::new(0),
        })
    }

    fn append(&self, changes: &[Change]) -> io::Result<()> {
        let mut bytes = Vec::new();
        for (key, value) in changes {
            let value = value.as_deref();
            // Lengths of a few bytes; -1 stands for a record that goes.
            let value_len =
                value.map_or(-1, |value| i64::try_from(value.len()).unwrap_or(i64::MAX));
            bytes.extend((key.len() as u64).to_le_bytes());
            bytes.extend(value_len.to_le_bytes());
            bytes.extend_from_slice(key);
            bytes.extend_from_slice(value.unwrap_or_default());
        }
        let checksum = crc32c::crc32c(&bytes);
        bytes.extend(checksum.to_le_bytes());
        let mut end = self.end.lock();
        self.file.write_all_at(&bytes, *end)?;
        *end += bytes.len() as u64;
        Ok(())
    }
}

impl Engine for PlainFile {
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, EngineError> {
        self.records.get(key)
    }

    fn scan(&self, from: &[u8], to: &[u8]) -> EngineScan {
        self.records.scan(from, to)
    }

    fn apply(&self, changes: Vec<Change>) -> Result<(), EngineError> {
        self.append(&changes)
            .map_err(|error| EngineError::new("append", error))?;
        self.records.apply(changes)
    }

    fn flush_durable(&self) -> Result<(), EngineError> {
        self.file
            .sync_data()
            .map_err(|error| EngineError::new("sync its file", error))
    }

    fn size_on_disk(&self) -> Result<u64, EngineError> {
        Ok(*self.end.lock())
    }
}
