//! Defragmenting: the store is written anew, beside the one in use, while that one goes on.
//!
//! The engine gives no space back: what it has once written stays, and its files only grow. So every
//! record is copied into a new store, a bounded step at a time, and each batch that is committed
//! meanwhile goes into both. When the copy has come to the end the new store has everything, is made
//! durable, takes the place of the old one in one step (`backend::Site`), and reads of the past go on
//! there. After a crash the one or the other is in use, whole.
//!
//! The place beside the store is also where a state that comes from another member grows
//! (`crate::snapshot`). Whoever receives one takes the place away from a copy, which begins anew later.
//!
//! What this is not: on anybody's path. It rests as long as it has worked; then it has the persister's thread, and
//! batches that wait there come after its turn, which is the longer the later it came. Without one it would never end on
//! a busy server.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use backend::schema::meta::{self, MetaKey};
use backend::{Backend, Batch, Bucket, ReadError, Reader, Site, WriteError};
use bytes::Bytes;
use tokio::time::Instant;

/// Bytes and records of one step. A batch of many records stops all who read or write any store, one of a single record
/// nobody.
const STEP_BYTES: usize = 64 * 1024;
const STEP_RECORDS: usize = 64;

/// What is copied is made durable after so many bytes: the engine's writes are not longer than that, behind which another
/// store's have to wait. (With 16 MiB, the requests' p99 was nine times as long; with twice as much where a flush takes
/// long, three times.)
const FLUSH_BYTES: usize = 256 * 1024;

/// How long to rest between two turns, at least and at most: as long as the one before took, without its flushes.
const REST_MIN: Duration = Duration::from_micros(200);
const REST_MAX: Duration = Duration::from_millis(50);

/// How long a turn takes at most. It has one step, and as many more as have time in what it came too late.
const TURN_MAX: Duration = Duration::from_millis(20);

/// How soon to look again whether the place beside the store is free.
const PLACE_RETRY_INTERVAL: Duration = Duration::from_secs(1);

/// Free space that has to be left beside twice what is in use.
const SPARE_BYTES: u64 = 32 << 20;

/// Room is taken back while records come when the files are so many times what is in use, and so much more.
const RECLAIM_FACTOR: u64 = 2;
const RECLAIM_SPARE_BYTES: u64 = 64 << 20;
const RECLAIM_INTERVAL: Duration = Duration::from_secs(1);

/// A store is written anew by itself when its files are so many times what is in use, and so much
/// more.
const FILES_FACTOR: u64 = 3;
const FILES_SPARE_BYTES: u64 = 96 << 20;

/// The same for what is allocated, as etcd counts it: its users are alerted at half.
const ALLOCATED_FACTOR: u64 = 2;
const ALLOCATED_SPARE_BYTES: u64 = 16 << 20;

/// Not more often than this by itself.
const SELF_INTERVAL_MIN: Duration = Duration::from_secs(60);

/// The store was not written anew; the one in use is as it was.
#[derive(Debug, thiserror::Error)]
pub enum DefragmentError {
    /// The disk is too full.
    #[error("it may take {needed} bytes of the disk for a while, and {available} are free")]
    NoRoom {
        /// Bytes that may be needed.
        needed: u64,
        /// Bytes that are free.
        available: u64,
    },
    /// Nobody knows how full the disk is.
    #[error("cannot tell how much of the disk is free")]
    Available(#[source] io::Error),
    /// The new store could not be made.
    #[error("cannot make a new store")]
    Begin(#[from] backend::OpenError),
    /// The store in use could not be read.
    #[error("cannot read the store")]
    Read(#[from] ReadError),
    /// The new store could not be written.
    #[error("cannot write the new store")]
    Write(#[from] WriteError),
}

/// Keeps the place beside the store for whoever has it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Beside(Arc<()>);

impl Beside {
    fn is_free(&self) -> bool {
        Arc::strong_count(&self.0) == 1
    }
}

/// Copies: the one that goes on, and whether another one is asked for.
#[derive(Debug, Default)]
pub(super) struct Rewrites {
    place: Beside,
    current: Option<Rewrite>,
    is_wanted: bool,
    /// When the last turn ended.
    rests_since: Option<Instant>,
    /// How many have begun and were not given up for a state that came.
    begun: u64,
}

/// How the last copy ended.
#[derive(Clone, Debug, Default)]
pub(super) struct Ended {
    /// Its number.
    pub(super) number: u64,
    pub(super) failure: Option<Arc<DefragmentError>>,
}

/// A copy that goes on.
#[derive(Debug)]
struct Rewrite {
    new: Backend,
    /// Where it goes on: a place in [`Bucket::ALL`], and a key.
    bucket: usize,
    from: Vec<u8>,
    /// The last key that is to be copied in this bucket, once it is known: what is written behind it comes with the
    /// batches.
    last: Option<Bytes>,
    bytes: u64,
    /// In the last turn, without flushes.
    worked: Duration,
    unflushed: usize,
}

/// What a step came to.
enum Step {
    More,
    Complete,
}

/// The store in use.
pub(super) struct Old<'a> {
    pub(super) reader: &'a Reader,
    pub(super) site: &'a dyn Site,
    pub(super) store: &'a mvcc::Store,
}

impl Rewrites {
    /// Asks for a copy; says its number.
    pub(super) fn want(&mut self) -> u64 {
        if self.current.is_some() {
            return self.begun;
        }
        self.is_wanted = true;
        self.begun + 1
    }

    /// Gives the place beside the store to a state that comes.
    pub(super) fn give_way(&mut self) -> Beside {
        self.give_up();
        self.place.clone()
    }

    /// Ends the copy that goes on; it begins anew when the place is free.
    pub(super) fn give_up(&mut self) {
        if let Some(rewrite) = self.current.take() {
            rewrite.discard();
            self.begun -= 1;
            self.is_wanted = true;
        }
    }

    /// Whether a copy goes on.
    pub(super) fn is_copying(&self) -> bool {
        self.current.is_some()
    }

    /// Whether something is made in the place beside the store.
    pub(super) fn is_place_in_use(&self) -> bool {
        self.is_copying() || !self.place.is_free()
    }

    /// How long to rest until the next turn, from now; `None`: there is none.
    pub(super) fn rest(&self) -> Option<Duration> {
        let (rest, rested) = self.rests()?;
        Some(rest.saturating_sub(rested))
    }

    /// How long to rest between two turns, and how long it was until now.
    fn rests(&self) -> Option<(Duration, Duration)> {
        let rest = match &self.current {
            Some(rewrite) => rewrite.worked.clamp(REST_MIN, REST_MAX),
            None if !self.is_wanted => return None,
            None if self.place.is_free() => REST_MIN,
            None => PLACE_RETRY_INTERVAL,
        };
        let rested = self.rests_since.map(|since| since.elapsed());
        Some((rest, rested.unwrap_or(rest)))
    }

    /// A batch was committed to the store in use.
    pub(super) fn commit(&mut self, batch: &Batch) -> Result<(), DefragmentError> {
        let Some(rewrite) = &mut self.current else {
            return Ok(());
        };
        rewrite.unflushed += batch.bytes();
        Ok(rewrite.new.writer.commit(batch.clone())?)
    }

    /// Drops what has failed.
    pub(super) fn fail(&mut self, error: DefragmentError) -> Ended {
        tracing::warn!(
            error = &error as &dyn std::error::Error,
            "failed to defragment"
        );
        if let Some(rewrite) = self.current.take() {
            rewrite.discard();
        }
        Ended {
            number: self.begun,
            failure: Some(Arc::new(error)),
        }
    }

    /// The copy has taken over.
    pub(super) const fn end(&self) -> Ended {
        Ended {
            number: self.begun,
            failure: None,
        }
    }

    /// Begins, or goes on. Returns a store that is to take over: until it has, nobody else may have the
    /// place beside.
    pub(super) fn step(&mut self, old: &Old<'_>) -> Result<Option<Backend>, DefragmentError> {
        let late = self
            .rests()
            .map(|(rest, rested)| rested.saturating_sub(rest));
        let late = late.unwrap_or_default().min(TURN_MAX);
        if let Some(rewrite) = &mut self.current {
            rewrite.worked = Duration::ZERO;
        }
        let began = Instant::now();
        let taken = loop {
            match self.take_step(old) {
                Ok(None) if self.current.is_some() && began.elapsed() < late => {}
                taken => break taken,
            }
        };
        self.rests_since = Some(Instant::now());
        taken
    }

    fn take_step(&mut self, old: &Old<'_>) -> Result<Option<Backend>, DefragmentError> {
        let Some(rewrite) = &mut self.current else {
            if self.is_wanted && self.place.is_free() {
                self.is_wanted = false;
                self.begun += 1;
                self.current = Some(Rewrite::begin(old)?);
            }
            return Ok(None);
        };
        match rewrite.step(old.reader)? {
            Step::More => return Ok(None),
            // A state that was installed a moment ago is not yet what is read.
            Step::Complete if !old.store.reads_from(old.reader) => {
                self.give_up();
                return Ok(None);
            }
            Step::Complete => rewrite.complete()?,
        }
        Ok(self.current.take().map(|rewrite| {
            tracing::info!(bytes = rewrite.bytes, "finished defragmenting directory");
            rewrite.new
        }))
    }
}

impl Rewrite {
    fn begin(old: &Old<'_>) -> Result<Self, DefragmentError> {
        let needed = 2 * old.store.size_in_use() + SPARE_BYTES;
        let available = old.site.available().map_err(DefragmentError::Available)?;
        if let Some(available) = available.filter(|available| *available < needed) {
            return Err(DefragmentError::NoRoom { needed, available });
        }
        tracing::info!(
            "current-db-size-bytes" = old.store.size(),
            "current-db-size-in-use-bytes" = old.store.size_in_use(),
            "defragmenting"
        );
        let mut new = old.site.begin()?;
        let mut batch = Batch::new();
        // Until it is complete, nobody opens it.
        batch.put(
            Bucket::Meta,
            meta::encode(MetaKey::Incoming),
            Bytes::from_static(b"defragmenting"),
        );
        new.writer.commit(batch)?;
        Ok(Self {
            new,
            bucket: 0,
            from: Vec::new(),
            last: None,
            bytes: 0,
            worked: Duration::ZERO,
            unflushed: 0,
        })
    }

    fn step(&mut self, old: &Reader) -> Result<Step, DefragmentError> {
        let began = Instant::now();
        let step = self.copy(old)?;
        self.worked += began.elapsed();
        if self.unflushed >= FLUSH_BYTES {
            self.new.writer.flush_durable()?;
            self.unflushed = 0;
        }
        Ok(step)
    }

    fn copy(&mut self, old: &Reader) -> Result<Step, DefragmentError> {
        let (mut batch, mut records, mut bytes) = (Batch::new(), 0, 0);
        while let Some(bucket) = Bucket::ALL.get(self.bucket).copied() {
            let last = match self.last.take() {
                Some(last) => last,
                None => match old.scan(bucket, &[], None).next_back() {
                    Some(record) => record?.0,
                    None => Bytes::new(),
                },
            };
            for record in old.scan(bucket, &self.from, Some(&after(&last))) {
                let (key, value) = record?;
                records += 1;
                bytes += key.len() + value.len();
                if records >= STEP_RECORDS || bytes >= STEP_BYTES {
                    self.from = after(&key);
                    self.last = Some(last);
                    batch.put(bucket, key, value);
                    self.write(batch, bytes)?;
                    return Ok(Step::More);
                }
                batch.put(bucket, key, value);
            }
            self.from.clear();
            self.bucket += 1;
        }
        self.write(batch, bytes)?;
        Ok(Step::Complete)
    }

    fn write(&mut self, batch: Batch, bytes: usize) -> Result<(), WriteError> {
        self.new.writer.fill(batch)?;
        self.bytes += bytes as u64;
        self.unflushed += bytes;
        Ok(())
    }

    /// Everything is in it.
    fn complete(&mut self) -> Result<(), WriteError> {
        let mut batch = Batch::new();
        batch.delete(Bucket::Meta, meta::encode(MetaKey::Incoming));
        // What is not in use is not allocated any more.
        batch.delete(Bucket::Meta, meta::encode(MetaKey::Allocated));
        self.new.writer.commit(batch)?;
        self.new.writer.flush_durable()
    }

    fn discard(self) {
        self.new.reader.retire();
    }
}

/// The next key that there can be.
fn after(key: &[u8]) -> Vec<u8> {
    [key, &[0]].concat()
}

/// What is done about a store's files though nobody asks.
#[derive(Debug, Default)]
pub(super) struct Keeper {
    rewritten: Option<Instant>,
    /// When it was looked last whether room is to be taken back, and whether it is.
    reclaims: Option<(Instant, bool)>,
}

impl Keeper {
    /// Whether it is time to write the store anew.
    pub(super) fn wants_rewrite(&mut self, reader: &Reader, store: &mvcc::Store) -> bool {
        let rewritten = self.rewritten;
        if rewritten.is_some_and(|rewritten| rewritten.elapsed() < SELF_INTERVAL_MIN) {
            return false;
        }
        let is_fragmented = is_sparse(reader, store, FILES_FACTOR, FILES_SPARE_BYTES)
            || store.size() > ALLOCATED_FACTOR * store.size_in_use() + ALLOCATED_SPARE_BYTES;
        if is_fragmented {
            self.rewritten = Some(Instant::now());
        }
        is_fragmented
    }

    /// Whether to take back room now that something was written.
    pub(super) fn wants_reclaim(&mut self, reader: &Reader, store: &mvcc::Store) -> bool {
        match self.reclaims {
            Some((looked, reclaims)) if looked.elapsed() < RECLAIM_INTERVAL => reclaims,
            _ => {
                let reclaims = is_sparse(reader, store, RECLAIM_FACTOR, RECLAIM_SPARE_BYTES);
                self.reclaims = Some((Instant::now(), reclaims));
                reclaims
            }
        }
    }
}

/// Whether the files are so many times what is in use, and so much more.
fn is_sparse(reader: &Reader, store: &mvcc::Store, factor: u64, spare_bytes: u64) -> bool {
    let files = reader.size_on_disk().unwrap_or(0);
    files > factor * store.size_in_use() + spare_bytes
}
