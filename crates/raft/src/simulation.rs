//! A group under faults, in one thread, with a clock, disks and links of its own: the same seed gives the
//! same run, so that a violated property can be looked at again and again.
//!
//! A run: some members, some clients, and a schedule of faults (links cut, one way or both, slowed, broken;
//! members that lose power with what their disks had not flushed; slow disks). Then everything is mended,
//! and the properties are checked, one file each in `properties`: they know the store's final history, and
//! what every client was told and when.
//!
//! `KVORUM_SIMULATION_SEEDS=1000 cargo test --release -p kvorum-raft simulation` runs so many seeds, from
//! `KVORUM_SEED` on.
//!
//! What this is not: real disks, real sockets, real time. Those are in `tests/`.

mod clients;
mod faults;
mod history;
mod properties;
mod run;

use properties::PROPERTIES;
use run::{Broken, Run};

/// Seeds when nothing else is asked for.
const SEEDS: u64 = 8;

fn from_environment(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |text| text.parse().expect("a number"))
}

/// The first property that the run violates.
fn violation(run: &Run) -> Option<String> {
    PROPERTIES.iter().find_map(|(name, check)| {
        let found = check(run).err()?;
        Some(format!("seed {}: {name}: {found}", run.seed))
    })
}

#[test]
fn no_seed_violates_a_property() {
    let first = from_environment("KVORUM_SEED", 1);
    let seeds = from_environment("KVORUM_SIMULATION_SEEDS", SEEDS);
    let mut done = 0;
    for seed in first..first + seeds {
        let run = Run::of(seed, Broken::Nothing);
        if let Some(found) = violation(&run) {
            panic!("{found}\n{}", run.describe());
        }
        done += run.operations.len();
    }
    println!("{seeds} seeds from {first}: {done} operations, no property violated");
}

#[test]
fn the_same_seed_gives_the_same_run() {
    let (first, second) = (Run::of(7, Broken::Nothing), Run::of(7, Broken::Nothing));
    assert_eq!(first.describe(), second.describe());
    assert_ne!(first.describe(), Run::of(8, Broken::Nothing).describe());
}

/// A group that breaks a promise is caught, by a property or by a member that refuses to go on: else
/// neither would prove anything.
fn is_caught(broken: Broken) {
    let caught = (1..200).find_map(|seed| {
        let run = std::panic::catch_unwind(|| violation(&Run::of(seed, broken)));
        run.unwrap_or_else(|_refused| Some(format!("seed {seed}: a member refused")))
    });
    println!("{}", caught.expect("some seed shows it"));
}

#[test]
fn flushes_that_do_nothing_are_caught() {
    is_caught(Broken::Flushes);
}

#[test]
fn reads_without_a_read_index_are_caught() {
    is_caught(Broken::ReadIndex);
}

#[test]
fn an_applied_index_apart_from_its_data_is_caught() {
    is_caught(Broken::Batches);
}
