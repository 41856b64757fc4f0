//! What goes wrong, and when.

use std::time::Duration;

use backend::engine::Loss;

use super::run::{TROUBLE, World};
use crate::testing::net::Link;

/// Makes trouble, then mends everything.
pub(super) async fn run(world: &World) {
    while world.now() < TROUBLE {
        let pause = 50 + world.draw(1500) as u64;
        tokio::time::sleep(Duration::from_millis(pause)).await;
        let member = world.draw(world.len());
        match world.draw(10) {
            0 | 1 => isolate(world, member),
            2 => one_way(world, member),
            3 => slow_links(world, member),
            4 => {
                world.note(&format!("connections of {member} break"));
                world
                    .net
                    .break_connections(|from, to| from == member || to == member);
            }
            5 => {
                let by = Duration::from_millis(1 + world.draw(400) as u64);
                world.note(&format!("the disk of {member} takes {by:?}"));
                world.slow_disk(member, by);
            }
            6 | 7 => stop_or_start(world, member).await,
            8 => everybody_dies(world).await,
            _ => heal(world),
        }
    }
    world.mend().await;
}

fn isolate(world: &World, member: usize) {
    world.note(&format!("{member} is cut off"));
    world.net.set_all(member, world.len(), Link::Cut);
}

fn one_way(world: &World, member: usize) {
    let other = world.draw(world.len());
    if other != member {
        world.note(&format!("nothing gets from {member} to {other}"));
        world.net.set(member, other, Link::Cut);
    }
}

fn slow_links(world: &World, member: usize) {
    let by = Duration::from_millis(1 + world.draw(300) as u64);
    world.note(&format!("links of {member} take {by:?}"));
    world.net.set_all(member, world.len(), Link::Slow(by));
}

fn heal(world: &World) {
    world.note("the links are open");
    for member in 0..world.len() {
        world.net.set_all(member, world.len(), Link::Open);
        world.slow_disk(member, Duration::from_micros(200));
    }
}

fn loss(world: &World) -> Loss {
    Loss::ALL[world.draw(Loss::ALL.len())]
}

async fn stop_or_start(world: &World, member: usize) {
    if world.is_running(member) {
        let loss = loss(world);
        world.note(&format!("{member} dies and loses {loss:?}"));
        world.kill(member, loss);
    } else {
        world.note(&format!("{member} starts"));
        world.start(member).await;
    }
}

/// The power of all fails at once; they come back one after the other.
async fn everybody_dies(world: &World) {
    world.note("everybody dies");
    for member in 0..world.len() {
        if world.is_running(member) {
            world.kill(member, loss(world));
        }
    }
    for member in 0..world.len() {
        if world.chance(0.8) {
            tokio::time::sleep(Duration::from_millis(world.draw(300) as u64)).await;
            world.start(member).await;
        }
    }
}
