//! Members as orchestrators run them: exact command lines, certificates in files, probes over
//! HTTP, and an operator with client certificates.
//!
//! What this is not: a way to start a cluster in one call. Here every step is the test's own.

pub mod caller;
pub mod node;
pub mod operator;
pub mod transcript;

pub use caller::Caller;
pub use node::Node;
pub use operator::Operator;
pub use transcript::Transcript;
