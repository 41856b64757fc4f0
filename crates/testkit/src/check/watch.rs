//! What a watch promises, one property in each file.

pub(super) mod atomic;
pub(super) mod complete;
pub(super) mod ordered;
pub(super) mod previous;
pub(super) mod progress;
pub(super) mod resumable;
pub(super) mod unique;
