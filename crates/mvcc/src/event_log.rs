//! The last revisions' events, shared and bounded.
