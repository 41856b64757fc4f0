//! An engine that behaves like one on a bad disk: it loses what was not flushed, tears it, fails
//! when told to, and flips bits; all of it the same again for the same seed. It is no model of sled:
//! it keeps the engine's contract in the least helpful way the contract allows.
//!
//! The disk is a log of frames, one for each batch, with a checksum. What [`FaultyEngine::crash`]
//! leaves is read as a log is read after a loss of power: up to the first frame that is not whole.
//! So a batch that a crash tears is gone as a whole, as the contract has it, together with every
//! batch behind it.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use parking_lot::{Condvar, Mutex};

use crate::Bucket;
use crate::engine::{Change, Engine, EngineError, EngineScan, MemoryEngine};
use crate::record::record_key;

/// The disk loses or keeps what was not flushed in units of this many bytes.
const SECTOR_BYTES: usize = 512;

/// The log is folded into the base at a flush when it is longer than this.
const LOG_BYTES_MAX: usize = 1 << 20;

/// What a crash does to the bytes that were written and not flushed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Loss {
    /// Keeps them all: only the process died.
    Nothing,
    /// Loses them all.
    All,
    /// Keeps a random number of them, up to any byte in the middle of any record.
    Torn,
    /// Keeps or loses each sector by itself: the disk wrote them in an order of its own. A lost
    /// sector reads as zeroes.
    Scattered,
}

impl Loss {
    /// All kinds.
    pub const ALL: [Self; 4] = [Self::Nothing, Self::All, Self::Torn, Self::Scattered];
}

/// What every engine promises, and one can be told not to keep: for tests that prove that other tests
/// would notice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Promise {
    /// A flush makes durable.
    Durability,
    /// A batch is there or not: broken, half of it is durable at once and half of it is not.
    Atomicity,
}

/// An engine on a disk that can be told what to do wrong.
///
/// Hold it in an `Arc`, give one clone to [`crate::Backend::with_engine`], and use the other to make
/// trouble.
#[derive(Debug)]
pub struct FaultyEngine {
    /// What reads see: everything applied.
    seen: MemoryEngine,
    disk: Mutex<Disk>,
    flush_takes: Mutex<Duration>,
    /// It takes another time from now on.
    flush_time_changed: Condvar,
}

#[derive(Debug)]
struct Disk {
    random: Random,
    /// The records before the log begins; durable.
    base: BTreeMap<Bytes, Bytes>,
    log: Vec<u8>,
    /// How much of the log is durable.
    flushed: usize,
    applies_left: Option<u64>,
    flushes_left: Option<u64>,
    has_failed: bool,
    applies: u64,
    flushes: u64,
    reclaims: u64,
    /// What its files are said to have.
    claimed_bytes: Option<u64>,
    broken: Option<Promise>,
}

impl FaultyEngine {
    /// An empty disk. `seed` decides everything that is left to chance.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self::on_disk(BTreeMap::new(), Random(seed))
    }

    fn on_disk(base: BTreeMap<Bytes, Bytes>, random: Random) -> Self {
        let seen = MemoryEngine::with_records(base.clone());
        let disk = Disk {
            random,
            base,
            log: Vec::new(),
            flushed: 0,
            applies_left: None,
            flushes_left: None,
            has_failed: false,
            applies: 0,
            flushes: 0,
            reclaims: 0,
            claimed_bytes: None,
            broken: None,
        };
        Self {
            seen,
            disk: Mutex::new(disk),
            flush_takes: Mutex::default(),
            flush_time_changed: Condvar::new(),
        }
    }

    /// Lets `applies` more batches succeed and fails the one after them. What a batch that failed
    /// left on the disk is a random part of it, up to the whole.
    pub fn fail_apply_after(&self, applies: u64) {
        self.disk.lock().applies_left = Some(applies);
    }

    /// Lets `flushes` more flushes succeed and fails the one after them. What it was to make
    /// durable is neither durable nor surely lost.
    pub fn fail_flush_after(&self, flushes: u64) {
        self.disk.lock().flushes_left = Some(flushes);
    }

    /// Makes every flush take so long, those too that have begun, from now on.
    pub fn slow_flush(&self, takes: Duration) {
        *self.flush_takes.lock() = takes;
        self.flush_time_changed.notify_all();
    }

    /// From now on, and after crashes, does not keep this promise.
    pub fn break_promise(&self, promise: Option<Promise>) {
        self.disk.lock().broken = promise;
    }

    /// The promise that it does not keep.
    #[must_use]
    pub fn broken_promise(&self) -> Option<Promise> {
        self.disk.lock().broken
    }

    /// How many batches were applied since the engine was made.
    #[must_use]
    pub fn applies(&self) -> u64 {
        self.disk.lock().applies
    }

    /// How many flushes succeeded since the engine was made.
    #[must_use]
    pub fn flushes(&self) -> u64 {
        self.disk.lock().flushes
    }

    /// How often room was to be taken back since the engine was made.
    #[must_use]
    pub fn reclaims(&self) -> u64 {
        self.disk.lock().reclaims
    }

    /// From now on its files are said to have so many bytes.
    pub fn claim_size(&self, bytes: u64) {
        self.disk.lock().claimed_bytes = Some(bytes);
    }

    /// The engine that opens on what a loss of power now would leave. This one goes on as if
    /// nothing had happened; the new one fails only when it is told to.
    #[must_use]
    pub fn crash(&self, loss: Loss) -> Self {
        let mut disk = self.disk.lock();
        let random = Random(disk.random.next());
        let log = disk.lose(loss);
        let mut records = disk.base.clone();
        let kept = replay(&log, &mut records);
        assert!(kept >= disk.flushed, "what was flushed is durable");
        let left = Self::on_disk(records, random);
        left.break_promise(disk.broken);
        left
    }

    /// Flips one random bit in the value of the record at engine key `key`, as seen and on the disk.
    ///
    /// # Panics
    ///
    /// When there is no such record, or its value is empty.
    pub fn flip_bit(&self, key: &[u8]) {
        let mut disk = self.disk.lock();
        let mut value = self
            .seen
            .get(key)
            .ok()
            .flatten()
            .expect("there is a record")
            .to_vec();
        let bit = disk.random.below(value.len() * 8);
        let byte = value.get_mut(bit / 8).expect("the bit is in the value");
        *byte ^= 1 << (bit % 8);
        let value = Bytes::from(value);
        let key = Bytes::copy_from_slice(key);
        // A frame would be found out by its own checksum, which says nothing about ours.
        disk.fold();
        disk.base.insert(key.clone(), value.clone());
        let applied = self.seen.apply(vec![(key, Some(value))]);
        applied.expect("the engine in memory does not fail");
    }

    /// Flips one random bit of the record at `key` of `bucket`: of its checksum or its value, if that
    /// is in one piece.
    ///
    /// # Panics
    ///
    /// When there is no such record.
    pub fn flip_bit_of(&self, bucket: Bucket, key: &[u8]) {
        self.flip_bit(&record_key(bucket, key));
    }

    /// The engine keys of all records.
    #[must_use]
    pub fn keys(&self) -> Vec<Bytes> {
        self.seen.records().into_keys().collect()
    }
}

impl Disk {
    /// What is left of the log.
    fn lose(&mut self, loss: Loss) -> Vec<u8> {
        let unflushed = self.log.len() - self.flushed;
        let mut log = self.log.clone();
        match loss {
            Loss::Nothing => {}
            Loss::All => log.truncate(self.flushed),
            Loss::Torn => log.truncate(self.flushed + self.random.below(unflushed + 1)),
            Loss::Scattered => {
                let flushed = self.flushed;
                let unflushed = log
                    .get_mut(flushed..)
                    .expect("the log is not shorter than that");
                for sector in unflushed.chunks_mut(SECTOR_BYTES) {
                    if self.random.below(2) == 0 {
                        sector.fill(0);
                    }
                }
            }
        }
        log
    }

    /// Makes everything durable and the log empty.
    fn fold(&mut self) {
        let whole = replay(&self.log, &mut self.base);
        debug_assert_eq!(whole, self.log.len(), "only a crash tears the log");
        self.log.clear();
        self.flushed = 0;
    }

    fn fail(&mut self, operation: &'static str) -> EngineError {
        self.has_failed = true;
        EngineError::new(operation, "the disk was told to fail")
    }

    fn refuse_after_failure(&self, operation: &'static str) -> Result<(), EngineError> {
        if self.has_failed {
            return Err(EngineError::new(
                operation,
                "it was called again after it had failed",
            ));
        }
        Ok(())
    }
}

/// Whether this operation is the one that fails; counts it.
fn is_last(left: &mut Option<u64>) -> bool {
    match left {
        Some(0) => true,
        Some(left) => {
            *left -= 1;
            false
        }
        None => false,
    }
}

impl Engine for FaultyEngine {
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, EngineError> {
        self.seen.get(key)
    }

    fn scan(&self, from: &[u8], to: &[u8]) -> EngineScan {
        self.seen.scan(from, to)
    }

    fn apply(&self, changes: Vec<Change>) -> Result<(), EngineError> {
        let mut disk = self.disk.lock();
        disk.refuse_after_failure("apply a batch")?;
        let frame = frame(&changes);
        if is_last(&mut disk.applies_left) {
            let written = disk.random.below(frame.len() + 1);
            disk.log
                .extend_from_slice(frame.get(..written).expect("it is at most the length"));
            return Err(disk.fail("apply a batch"));
        }
        if disk.broken == Some(Promise::Atomicity) {
            let (later, sooner) = changes.split_at(changes.len() / 2);
            disk.log.extend_from_slice(&self::frame(sooner));
            disk.flushed = disk.log.len();
            disk.log.extend_from_slice(&self::frame(later));
        } else {
            disk.log.extend_from_slice(&frame);
        }
        disk.applies += 1;
        self.seen.apply(changes)
    }

    fn flush_durable(&self) -> Result<(), EngineError> {
        let mut takes = self.flush_takes.lock();
        while !takes.is_zero() {
            let left = *takes;
            if self
                .flush_time_changed
                .wait_for(&mut takes, left)
                .timed_out()
            {
                break;
            }
        }
        drop(takes);
        let mut disk = self.disk.lock();
        disk.refuse_after_failure("flush")?;
        if is_last(&mut disk.flushes_left) {
            return Err(disk.fail("flush"));
        }
        disk.flushes += 1;
        if disk.broken == Some(Promise::Durability) {
            return Ok(());
        }
        disk.flushed = disk.log.len();
        if disk.flushed > LOG_BYTES_MAX {
            disk.fold();
        }
        Ok(())
    }

    fn reclaim(&self) -> Result<(), EngineError> {
        self.disk.lock().reclaims += 1;
        Ok(())
    }

    fn size_on_disk(&self) -> Result<u64, EngineError> {
        let claimed = self.disk.lock().claimed_bytes;
        claimed.map_or_else(|| self.seen.size_on_disk(), Ok)
    }
}

/// One batch as it is written: CRC-32C (4) of what follows, length (8) of the rest, then for each
/// change its key and value, each behind its length (8); a length of all ones is no value.
fn frame(changes: &[Change]) -> Vec<u8> {
    let mut body = Vec::new();
    for (key, value) in changes {
        push_bytes(&mut body, Some(key));
        push_bytes(&mut body, value.as_deref());
    }
    let mut sized = (body.len() as u64).to_be_bytes().to_vec();
    sized.append(&mut body);
    let mut frame = crc32c::crc32c(&sized).to_be_bytes().to_vec();
    frame.append(&mut sized);
    frame
}

fn push_bytes(body: &mut Vec<u8>, bytes: Option<&[u8]>) {
    let len = bytes.map_or(u64::MAX, |bytes| bytes.len() as u64);
    body.extend_from_slice(&len.to_be_bytes());
    body.extend_from_slice(bytes.unwrap_or_default());
}

/// Applies the whole frames that `log` begins with, and says how many bytes they are.
fn replay(log: &[u8], records: &mut BTreeMap<Bytes, Bytes>) -> usize {
    let mut rest = log;
    while let Some((changes, behind)) = next_frame(rest) {
        for (key, value) in changes {
            match value {
                Some(value) => records.insert(key, value),
                None => records.remove(&key),
            };
        }
        rest = behind;
    }
    log.len() - rest.len()
}

fn next_frame(log: &[u8]) -> Option<(Vec<Change>, &[u8])> {
    let (crc, sized) = log.split_first_chunk()?;
    let (len, rest) = sized.split_first_chunk()?;
    let len = usize::try_from(u64::from_be_bytes(*len)).ok()?;
    let (mut body, behind) = rest.split_at_checked(len)?;
    if crc32c::crc32c(sized.get(..8 + len)?) != u32::from_be_bytes(*crc) {
        return None;
    }
    let mut changes = Vec::new();
    while !body.is_empty() {
        changes.push((pull_bytes(&mut body)??, pull_bytes(&mut body)?));
    }
    Some((changes, behind))
}

fn pull_bytes(body: &mut &[u8]) -> Option<Option<Bytes>> {
    let (len, rest) = body.split_first_chunk()?;
    let len = u64::from_be_bytes(*len);
    if len == u64::MAX {
        *body = rest;
        return Some(None);
    }
    let (bytes, rest) = rest.split_at_checked(usize::try_from(len).ok()?)?;
    *body = rest;
    Some(Some(Bytes::copy_from_slice(bytes)))
}

/// SplitMix64: a seed in, the same numbers out.
#[derive(Debug)]
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number below `end`, which must not be 0.
    fn below(&mut self, end: usize) -> usize {
        let end = end as u64;
        usize::try_from(self.next() % end).expect("it is below a usize")
    }
}

#[cfg(test)]
mod tests;
