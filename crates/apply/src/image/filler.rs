//! Fills an empty store on a thread of its own, while the next batch is put together. It does not know what
//! is in them.

use std::io;
use std::sync::mpsc::{self, SyncSender};
use std::thread::{self, JoinHandle};

use backend::{Backend, Batch};

use super::ImportError;

/// Batches that may wait for the thread; who has the next one waits then.
const BATCHES_MAX: usize = 2;

/// A store that is being filled. Dropping it waits until the thread has ended.
#[derive(Debug)]
pub(super) struct Filler {
    /// `None` once nothing more comes.
    batches: Option<SyncSender<Batch>>,
    /// `None` once it has ended.
    thread: Option<JoinHandle<Result<Backend, backend::WriteError>>>,
}

impl Filler {
    pub(super) fn start(mut backend: Backend) -> io::Result<Self> {
        let (batches, receiver) = mpsc::sync_channel(BATCHES_MAX);
        let fill = move || {
            for batch in receiver {
                backend.writer.fill(batch)?;
            }
            Ok(backend)
        };
        let thread = thread::Builder::new()
            .name("import".to_owned())
            .spawn(fill)?;
        Ok(Self {
            batches: Some(batches),
            thread: Some(thread),
        })
    }

    /// Hands a batch on; what became of those before may be known only now.
    pub(super) fn fill(&mut self, batch: Batch) -> Result<(), ImportError> {
        let sent = self.batches.as_ref().map(|batches| batches.send(batch));
        match sent {
            Some(Ok(())) => Ok(()),
            // The thread has ended, and says why.
            _ => self.end().map(drop),
        }
    }

    /// Waits until everything has been written.
    pub(super) fn finish(mut self) -> Result<Backend, ImportError> {
        self.end()
    }

    fn end(&mut self) -> Result<Backend, ImportError> {
        self.batches = None;
        let ended = self.thread.take().map(JoinHandle::join);
        match ended {
            Some(Ok(filled)) => Ok(filled?),
            // The panic's own message has been printed.
            _ => Err(backend::WriteError::Interrupted.into()),
        }
    }
}

impl Drop for Filler {
    fn drop(&mut self) {
        if self.thread.is_some()
            && let Err(error) = self.end()
        {
            tracing::debug!(%error, "a store was left while it was filled");
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use backend::Bucket;
    use backend::engine::FaultyEngine;

    use super::*;

    fn batch(number: u64) -> Batch {
        let mut batch = Batch::new();
        batch.put(Bucket::Key, number.to_be_bytes().to_vec(), vec![1; 100]);
        batch
    }

    #[test]
    fn a_write_that_fails_is_told_and_ends_it() {
        let engine = Arc::new(FaultyEngine::new(1));
        let backend = Backend::with_engine(engine.clone()).unwrap();
        let mut filler = Filler::start(backend).unwrap();
        filler.fill(batch(0)).unwrap();
        engine.fail_apply_after(2);
        // The thread may be behind by what its queue holds.
        let refused = (1..100).find_map(|number| filler.fill(batch(number)).err());
        assert!(
            matches!(refused, Some(ImportError::Write(_))),
            "{refused:?}"
        );
        assert!(filler.fill(batch(100)).is_err());
        assert!(filler.finish().is_err());
    }

    #[test]
    fn a_failure_of_the_last_write_is_told_at_the_end() {
        let engine = Arc::new(FaultyEngine::new(2));
        let backend = Backend::with_engine(engine.clone()).unwrap();
        let mut filler = Filler::start(backend).unwrap();
        engine.fail_apply_after(0);
        filler.fill(batch(0)).unwrap();
        assert!(matches!(filler.finish(), Err(ImportError::Write(_))));
    }
}
