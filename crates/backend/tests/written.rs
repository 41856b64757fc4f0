//! How much comes to the disk for what is appended, and for what fills a store. In a process of its own, because it counts
//! what the process writes.

use std::error::Error;

use kvorum_backend::{Backend, Batch, Bucket, Config, WriteError, Writer};
use parking_lot::Mutex;
use tempfile::TempDir;

const GROUPS: u64 = 400;
const GROUP_BYTES: usize = 24_000;

/// One count at a time.
static COUNTED: Mutex<()> = Mutex::new(());

#[test]
fn what_is_appended_is_written_little_more_than_once() -> Result<(), Box<dyn Error>> {
    let written = counted(|writer| append(writer, alike))?;
    let appended = GROUPS * GROUP_BYTES as u64;
    // It is 1.05 times as much; without places it would be 3.4 times.
    assert!(
        written * 10 < appended * 14,
        "{written} bytes were written for {appended}"
    );
    Ok(())
}

#[test]
fn a_gap_and_nearer_records_are_appended_as_well() -> Result<(), Box<dyn Error>> {
    let written = counted(|writer| append(writer, with_a_gap))?;
    let appended = GROUPS * GROUP_BYTES as u64;
    // It is 1.33 times as much; with places laid as before the gap, 2.8 times.
    assert!(
        written * 10 < appended * 15,
        "{written} bytes were written for {appended}"
    );
    Ok(())
}

#[test]
fn what_fills_a_store_is_written_little_more_than_once() -> Result<(), Box<dyn Error>> {
    let written = counted(|writer| fill(writer, alike))?;
    let filled = 2 * GROUPS * GROUP_BYTES as u64;
    // It is 1.08 times as much; without places it would be 3.6 times, and with none but their own 5.4.
    assert!(
        written * 10 < filled * 14,
        "{written} bytes were written for {filled}"
    );
    Ok(())
}

#[test]
fn a_gap_and_nearer_records_fill_a_store_as_well() -> Result<(), Box<dyn Error>> {
    let written = counted(|writer| fill(writer, with_a_gap))?;
    let filled = 2 * GROUPS * GROUP_BYTES as u64;
    // It is 1.21 times as much; with places laid as before the gap, 2.7 times.
    assert!(
        written * 10 < filled * 15,
        "{written} bytes were written for {filled}"
    );
    Ok(())
}

/// As a busy member's log: one group of entries after the other, each made durable, each with another distance
/// to the one before it; old ones are purged in large steps.
fn append(writer: &mut Writer, distance: fn(u64) -> u64) -> Result<(), WriteError> {
    let (mut index, mut kept) = (1_u64, Vec::new());
    for group in 0..GROUPS {
        let mut batch = Batch::new();
        let key = index.to_be_bytes().to_vec();
        kept.push(key.clone());
        batch.put(Bucket::RaftLog, key, value(group));
        if group % 100 == 99 {
            for old in kept.drain(..80) {
                batch.delete(Bucket::RaftLog, old);
            }
        }
        writer.commit(batch)?;
        writer.flush_durable()?;
        index += distance(group);
    }
    Ok(())
}

/// As a copy of a store that is written to: two records of its history at once, one after the other, and behind the end
/// what comes meanwhile.
fn fill(writer: &mut Writer, distance: fn(u64) -> u64) -> Result<(), WriteError> {
    let (mut revision, mut newest) = (1_u64, 10_000_000_u64);
    for group in 0..GROUPS {
        let mut batch = Batch::new();
        for _ in 0..2 {
            batch.put(Bucket::Key, revision.to_be_bytes().to_vec(), value(group));
            revision += distance(group);
        }
        writer.fill(batch)?;
        if group % 8 == 0 {
            let mut batch = Batch::new();
            batch.put(Bucket::Key, newest.to_be_bytes().to_vec(), vec![1; 2000]);
            writer.commit(batch)?;
            newest += 7;
        }
        writer.flush_durable()?;
    }
    Ok(())
}

fn value(group: u64) -> Vec<u8> {
    vec![group.to_le_bytes()[0]; GROUP_BYTES]
}

/// Between two records.
fn alike(group: u64) -> u64 {
    40 + group * 7919 % 50
}

/// The same, but once there is a gap, and many come near each other.
fn with_a_gap(group: u64) -> u64 {
    match group {
        100 => 1_000_000,
        250.. => 1 + group % 3,
        _ => alike(group),
    }
}

/// Bytes that this process hands to write calls for what `write` does to a new store.
fn counted(
    write: impl FnOnce(&mut Writer) -> Result<(), WriteError>,
) -> Result<u64, Box<dyn Error>> {
    let _counted = COUNTED.lock();
    let dir = TempDir::new()?;
    let config = Config {
        path: dir.path().join("store"),
        cache_bytes: 16 << 20,
    };
    let mut writer = Backend::open(&config)?.writer;
    let before = written()?;
    write(&mut writer)?;
    Ok(written()? - before)
}

/// Bytes that this process has handed to write calls.
fn written() -> Result<u64, Box<dyn Error>> {
    let io = std::fs::read_to_string("/proc/self/io")?;
    let bytes = io.lines().find_map(|line| line.strip_prefix("wchar: "));
    Ok(bytes.ok_or("no wchar")?.parse()?)
}
