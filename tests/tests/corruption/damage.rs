//! Damage to a stopped member's data.

use std::path::Path;

use anyhow::{Context as _, Result, ensure};
use backend::{Backend, Batch, Bucket, DataDir};

/// What is put into the place of a byte.
const FLIPPED: u8 = b'~';

fn position(of: &[u8], within: &[u8]) -> Option<usize> {
    within.windows(of.len()).position(|window| window == of)
}

/// Changes the first byte of a value in the member's store, with the checksum that goes with it: what a fault in
/// memory before the write leaves, or a defect in the state machine.
///
/// # Errors
/// When the value is not there.
pub(crate) fn flip_value(data_dir: &Path, value: &[u8]) -> Result<()> {
    let data_dir = DataDir::lock(data_dir)?;
    let mut store = Backend::open(&backend::Config {
        path: data_dir.state_path(),
        cache_bytes: 1 << 20,
    })?;
    let mut batch = Batch::new();
    for record in store.reader.scan(Bucket::Key, &[], None) {
        let (key, segment) = record?;
        if let Some(at) = position(value, &segment) {
            let mut segment = segment.to_vec();
            segment[at] = FLIPPED;
            batch.put(Bucket::Key, key, segment);
        }
    }
    ensure!(!batch.is_empty(), "there is no such value");
    store.writer.commit(batch)?;
    store.writer.flush_durable()?;
    Ok(())
}

/// Changes the first byte of a value in the file, behind the store's back: what a disk does.
///
/// # Errors
/// When the value is in no file.
pub(crate) fn flip_in_file(data_dir: &Path, value: &[u8]) -> Result<()> {
    let state = DataDir::lock(data_dir)?.state_path();
    let file = state.join("db");
    let mut bytes = std::fs::read(&file).with_context(|| file.display().to_string())?;
    let (mut from, mut flipped) = (0, 0);
    while let Some(at) = position(value, &bytes[from..]) {
        bytes[from + at] = FLIPPED;
        from += at + 1;
        flipped += 1;
    }
    ensure!(flipped > 0, "the value is not in {}", file.display());
    std::fs::write(&file, bytes)?;
    Ok(())
}
