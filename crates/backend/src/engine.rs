//! The engines behind one trait.
