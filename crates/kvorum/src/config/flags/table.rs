//! The flags: name, default, effect, and the option that each sets.

mod client;
mod cluster;
mod discovery;
mod member;
mod monitoring;
mod no_effect;
mod security;
mod upkeep;

use super::Flag;

/// Rows of the table: section, kind, name, default, effect, and what it sets.
macro_rules! flags {
    ($($section:ident $kind:ident $name:literal $default:literal $effect:literal
       $(deprecated $deprecated:literal)? => $set:expr;)*) => {
        &[$(Flag {
            name: $name,
            section: Section::$section,
            default: $default,
            effect: $effect,
            deprecated: flags!(@deprecated $($deprecated)?),
            kind: Kind::$kind,
            set: $set,
        }),*]
    };
    (@deprecated) => { None };
    (@deprecated $text:literal) => { Some($text) };
}
use flags;

/// All of them.
pub(super) static TABLE: [&[Flag]; 8] = [
    member::FLAGS,
    cluster::FLAGS,
    discovery::FLAGS,
    client::FLAGS,
    security::FLAGS,
    monitoring::FLAGS,
    upkeep::FLAGS,
    no_effect::FLAGS,
];
