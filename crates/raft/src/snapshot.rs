//! Sending a state to a member that is too far behind for the log, in chunks that are checked one by
//! one (`peerpb.Raft/Snapshot`).
//!
//! The sender pins the state when a transfer begins and keeps the pin for a while when the connection
//! breaks, so that the same transfer can go on; the receiver says with which chunk. A transfer that
//! cannot go on begins anew.
