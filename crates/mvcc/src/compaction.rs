//! Dropping history.
