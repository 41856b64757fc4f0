//! A disk with more than one store on it: the one in use, and one that is to take its place.

use std::io;
use std::sync::Arc;

use parking_lot::Mutex;

use crate::engine::{Engine, FaultyEngine, Loss};
use crate::site::Site;
use crate::{Backend, OpenError};

/// A disk on which one store can take the place of another, as directories do.
#[derive(Clone, Debug)]
pub struct FaultyDisk {
    stores: Arc<Mutex<Stores>>,
}

#[derive(Debug)]
struct Stores {
    seed: u64,
    in_use: Arc<FaultyEngine>,
    begun: Option<Arc<FaultyEngine>>,
}

/// One store of the disk.
#[derive(Debug)]
struct Place {
    disk: FaultyDisk,
    engine: Arc<FaultyEngine>,
}

impl FaultyDisk {
    /// A disk with an empty store. `seed` decides everything that is left to chance.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self::holding(FaultyEngine::new(seed), None, seed)
    }

    fn holding(in_use: FaultyEngine, begun: Option<FaultyEngine>, seed: u64) -> Self {
        let stores = Stores {
            seed,
            in_use: Arc::new(in_use),
            begun: begun.map(Arc::new),
        };
        Self {
            stores: Arc::new(Mutex::new(stores)),
        }
    }

    /// The store in use, to make trouble for it.
    #[must_use]
    pub fn in_use(&self) -> Arc<FaultyEngine> {
        Arc::clone(&self.stores.lock().in_use)
    }

    /// The store that has been begun, if there is one.
    #[must_use]
    pub fn begun(&self) -> Option<Arc<FaultyEngine>> {
        self.stores.lock().begun.clone()
    }

    /// Opens the store in use.
    pub fn open(&self) -> Result<Backend, OpenError> {
        self.open_at(self.in_use())
    }

    fn open_at(&self, engine: Arc<FaultyEngine>) -> Result<Backend, OpenError> {
        let place = Place {
            disk: self.clone(),
            engine: Arc::clone(&engine),
        };
        Backend::with_site(engine as Arc<dyn Engine>, Arc::new(place))
    }

    /// The disk as a loss of power now would leave it; see [`FaultyEngine::crash`].
    #[must_use]
    pub fn crash(&self, loss: Loss) -> Self {
        let stores = self.stores.lock();
        let begun = stores.begun.as_ref().map(|begun| begun.crash(loss));
        Self::holding(stores.in_use.crash(loss), begun, stores.seed)
    }
}

impl Site for Place {
    fn begin(&self) -> Result<Backend, OpenError> {
        let engine = {
            let mut stores = self.disk.stores.lock();
            stores.seed = stores.seed.wrapping_add(0x9e37_79b9);
            let engine = Arc::new(FaultyEngine::new(stores.seed));
            engine.break_promise(stores.in_use.broken_promise());
            stores.begun = Some(Arc::clone(&engine));
            engine
        };
        self.disk.open_at(engine)
    }

    fn resume(&self) -> Result<Option<Backend>, OpenError> {
        let begun = self.disk.begun();
        begun.map(|engine| self.disk.open_at(engine)).transpose()
    }

    fn take_over(&self) -> io::Result<()> {
        let mut stores = self.disk.stores.lock();
        stores.in_use = Arc::clone(&self.engine);
        stores.begun = None;
        Ok(())
    }

    fn clear(&self) -> io::Result<()> {
        self.disk.stores.lock().begun = None;
        Ok(())
    }

    fn available(&self) -> io::Result<Option<u64>> {
        Ok(None)
    }
}
