//! Judges a history: one property in each file, all of them against the [`Model`] that a member's
//! own watch gives when everything is over.
//!
//! The store numbers its changes, so the order of all changes is known, and linearizability does
//! not have to be searched for: [`order`] asks whether that order fits the times at which clients
//! asked and were answered, [`reads`] whether every answer shows the store at its revision. Both
//! together are linearizability of the whole store. [`linearizable`] searches nevertheless, in the
//! manner of Porcupine, key by key and by values alone: it does not believe any revision.
//!
//! What this is not: proof that the model is right. That is why acknowledged writes are compared
//! with it ([`acknowledged`]), and why all members have to show the same.

pub mod acknowledged;
pub mod cause;
pub mod leases;
pub mod linearizable;
pub mod monotonic;
pub mod order;
pub mod reads;
pub mod watch;

use anyhow::{Result, ensure};

use crate::history::{Operation, Watcher};
use crate::model::Model;

use cause::Causes;

/// Violations shown of each property.
const SHOWN_MAX: usize = 5;

/// Everything that is known of a run.
#[derive(Debug)]
pub struct Run {
    /// The store's life.
    pub model: Model,
    /// What clients did.
    pub operations: Vec<Operation>,
    /// What watchers got.
    pub watchers: Vec<Watcher>,
    /// Which operation made which revision.
    causes: Causes,
}

/// A property: what is wrong, one sentence each.
type Property = fn(&Run) -> Vec<String>;

const PROPERTIES: [(&str, Property); 14] = [
    ("acknowledged writes are there", acknowledged::violations),
    ("every change has one cause", cause::violations),
    ("the order of revisions fits real time", order::violations),
    ("reads show the store at their revision", reads::violations),
    ("every key is linearizable", linearizable::violations),
    ("no client goes back", monotonic::violations),
    ("leases live as long as promised", leases::violations),
    ("watch: ordered", watch::ordered::violations),
    ("watch: unique", watch::unique::violations),
    ("watch: no gap", watch::complete::violations),
    ("watch: atomic", watch::atomic::violations),
    ("watch: resumable", watch::resumable::violations),
    ("watch: previous values", watch::previous::violations),
    ("watch: truthful progress", watch::progress::violations),
];

impl Run {
    /// Puts together what is known.
    #[must_use]
    pub fn new(model: Model, operations: Vec<Operation>, watchers: Vec<Watcher>) -> Run {
        let causes = Causes::find(&model, &operations, &watchers);
        Run {
            model,
            operations,
            watchers,
            causes,
        }
    }

    /// Checks every property.
    ///
    /// # Errors
    /// When one is violated; the message says which and by what.
    pub fn check(&self) -> Result<()> {
        let mut report = String::new();
        for (name, property) in PROPERTIES {
            let violations = property(self);
            if violations.is_empty() {
                continue;
            }
            report += &format!("{name}: {} violations\n", violations.len());
            for violation in violations.iter().take(SHOWN_MAX) {
                report += &format!("  {violation}\n");
            }
        }
        ensure!(report.is_empty(), "{report}");
        Ok(())
    }

    /// The names of the violated properties.
    #[must_use]
    pub fn violated(&self) -> Vec<&'static str> {
        let violated = PROPERTIES
            .iter()
            .filter(|(_, property)| !property(self).is_empty());
        violated.map(|(name, _)| *name).collect()
    }
}

#[cfg(test)]
mod tests;
