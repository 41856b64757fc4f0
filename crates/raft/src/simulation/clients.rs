//! Clients: one request after the other, each to any member.

use std::rc::Rc;
use std::time::Duration;

use apply::{
    Command, Compare, CompareOperator, CompareTarget, DeleteRange, Op, Put, PutLease, PutValue,
    RangeOp, Reply, SortOrder, SortTarget, Txn, Views,
};
use bytes::Bytes;
use types::KeyRange;

use super::history::{Answer, Operation, Request};
use super::run::{Broken, TROUBLE, World, number};
use crate::{Node, ProposeError};

/// Keys; few, so that clients meet.
const KEYS: usize = 4;

pub(super) async fn run(client: usize, world: Rc<World>) {
    let mut written = 0;
    let mut seen = [0; KEYS];
    while world.now() < TROUBLE {
        tokio::time::sleep(Duration::from_millis(world.draw(150) as u64)).await;
        let member = world.draw(world.len());
        let Some((node, views)) = world.member(member) else {
            continue;
        };
        written += 1;
        let value = (client as u64) << 32 | written;
        let request = choose(&world, value, &seen);
        let invoked = world.now();
        let life = world.life(member);
        let mut answer = ask(&world, &node, &views, &request).await;
        drop((node, views));
        if world.life(member) != life {
            // What is left of a member that died reaches no client.
            answer = Answer::Unknown;
        }
        if let (Request::Read { key }, Answer::Found { found, .. }) = (&request, &answer) {
            seen[usize::from(*key)] = found.map_or(0, |(_, mod_revision)| mod_revision);
        }
        let returned = world.now();
        world.done(Operation {
            client,
            member,
            request,
            invoked,
            returned,
            answer,
        });
    }
}

fn choose(world: &World, value: u64, seen: &[i64; KEYS]) -> Request {
    let place = world.draw(KEYS);
    let key = u8::try_from(place).unwrap();
    match world.draw(10) {
        0..3 => Request::Put { key, value },
        3..5 => Request::Guarded {
            key,
            mod_revision: seen[place],
            value,
        },
        5 => Request::Delete { key },
        _ => Request::Read { key },
    }
}

async fn ask(world: &World, node: &Node, views: &Views, request: &Request) -> Answer {
    if let Request::Read { key } = request {
        if world.broken != Broken::ReadIndex && node.read_index().await.is_err() {
            return Answer::Unknown;
        }
        let view = views.store.view();
        let found = view.get(&[*key]);
        return Answer::Found {
            revision: view.revision(),
            found: found.map(|kv| (number(kv.value()), kv.mod_revision().main)),
        };
    }
    match node.propose(command(request)).await {
        Ok(applied) => answer(applied.outcome.unwrap()),
        Err(ProposeError::TooManyRequests | ProposeError::TooLarge) => Answer::NotDone,
        Err(_unknown) => Answer::Unknown,
    }
}

fn put(key: u8, value: u64) -> Put {
    Put {
        key: Bytes::copy_from_slice(&[key]),
        value: PutValue::New(Bytes::copy_from_slice(&value.to_be_bytes())),
        lease: PutLease::Detach,
        prev_kv: false,
    }
}

fn single(key: u8) -> KeyRange {
    KeyRange::Single(Bytes::copy_from_slice(&[key]))
}

fn command(request: &Request) -> Command {
    match *request {
        Request::Put { key, value } => Command::Put(put(key, value)),
        Request::Delete { key } => Command::DeleteRange(DeleteRange {
            keys: single(key),
            prev_kv: false,
        }),
        Request::Guarded {
            key,
            mod_revision,
            value,
        } => Command::Txn(Txn {
            compare: vec![Compare {
                keys: single(key),
                operator: CompareOperator::Equal,
                target: CompareTarget::Mod(mod_revision),
            }],
            success: vec![Op::Put(put(key, value))],
            failure: vec![Op::Range(read(key))],
        }),
        Request::Read { .. } => unreachable!("reads are not proposed"),
    }
}

fn read(key: u8) -> RangeOp {
    RangeOp {
        keys: single(key),
        at: None,
        limit: None,
        sort_target: SortTarget::Key,
        sort_order: SortOrder::None,
        keys_only: false,
        count_only: false,
        min_mod_revision: None,
        max_mod_revision: None,
        min_create_revision: None,
        max_create_revision: None,
    }
}

fn answer(reply: Reply) -> Answer {
    match reply {
        Reply::Put { revision, .. } => Answer::Written { revision },
        Reply::DeleteRange {
            revision,
            delete_range,
        } => Answer::Deleted {
            revision,
            count: delete_range.deleted,
        },
        Reply::Txn { revision, txn } if txn.succeeded => Answer::Written { revision },
        Reply::Txn { revision, .. } => Answer::Refused { revision },
        other => unreachable!("nothing else is asked for: {other:?}"),
    }
}

/// Writes through a member until it works; counts as an operation.
pub(super) async fn write_until_done(world: &World, member: usize) {
    for attempt in 0.. {
        let value = 1 << 60 | (member as u64) << 32 | attempt;
        let request = Request::Put { key: 0, value };
        let invoked = world.now();
        let (node, views) = world.member(member).expect("all run at the end");
        let answer = ask(world, &node, &views, &request).await;
        let is_done = matches!(answer, Answer::Written { .. });
        let returned = world.now();
        world.done(Operation {
            client: usize::MAX,
            member,
            request,
            invoked,
            returned,
            answer,
        });
        if is_done {
            return;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}
