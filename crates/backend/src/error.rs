//! What can go wrong with a store.

/// A store could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {}

/// A record could not be read. Reading it again will not help.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {}

/// A write or flush failed. The store refuses every write from then on.
#[derive(Debug, thiserror::Error)]
pub enum WriteError {}
