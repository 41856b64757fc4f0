//! What must hold of every run, one file each.

mod acknowledged_writes;
mod at_most_once;
mod equal_states;
mod guards;
mod one_leader;
mod progress;
mod reads;
mod real_time_order;
mod watches;

use super::run::Run;

/// Says what of the run violates the property.
pub(super) type Check = fn(&Run) -> Result<(), String>;

/// All of them, by name. Whether the run came to its end is asked first: without a final history the others
/// have nothing to say.
pub(super) const PROPERTIES: [(&str, Check); 9] = [
    ("progress", progress::check),
    ("one_leader", one_leader::check),
    ("equal_states", equal_states::check),
    ("acknowledged_writes", acknowledged_writes::check),
    ("at_most_once", at_most_once::check),
    ("real_time_order", real_time_order::check),
    ("reads", reads::check),
    ("guards", guards::check),
    ("watches", watches::check),
];
