//! The entries of a log that its database does not have yet.
