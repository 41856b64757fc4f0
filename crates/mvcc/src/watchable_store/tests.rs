//! Each rule of watching by itself; `tests/random.rs` has them all at once.

mod model;
mod random;

use std::time::Duration;

use types::KeyRange;

use self::model::{World, keys_of, poll_now, request};
use super::queue::{QUEUE_BYTES_MAX, QUEUE_ENTRIES_MAX};
use super::*;
use crate::EventKind::{Delete, Put};

/// The revisions and keys of an events batch, or a panic that says what came instead.
fn events(batch: WatchBatch) -> (i64, Vec<(i64, Vec<String>)>) {
    match batch {
        WatchBatch::Events(events) => {
            let last = events.revisions.last().unwrap().0.revision;
            assert!(events.revision >= last, "not before its last event");
            (events.id.0, keys_of(&events))
        }
        other => panic!("not events: {other:?}"),
    }
}

fn progress(batch: WatchBatch) -> i64 {
    match batch {
        WatchBatch::Progress { revision } => revision,
        other => panic!("not progress: {other:?}"),
    }
}

#[tokio::test]
async fn a_new_watcher_gets_what_comes_after_the_current_revision() {
    let world = World::new();
    world.put(&["a"]);
    let mut stream = world.stream();
    let id = stream.create(request("a", "")).unwrap();
    assert!(poll_now(&mut stream).is_none());
    world.put(&["b"]);
    world.put(&["a"]);
    assert_eq!(
        events(stream.next().await),
        (id.0, vec![(4, vec!["a".into()])])
    );
    assert_eq!(stream.revision(), 4);
}

#[tokio::test]
async fn a_past_start_is_read_from_history_and_then_goes_on_live() {
    let world = World::new();
    for _ in 0..3 {
        world.put(&["a", "b"]);
    }
    let mut stream = world.stream();
    let past = WatchRequest {
        start_revision: Some(3),
        ..request("a", "c")
    };
    stream.create(past).unwrap();
    let ab = || vec!["a".to_owned(), "b".to_owned()];
    assert_eq!(events(stream.next().await), (0, vec![(3, ab()), (4, ab())]));
    world.put(&["a", "b"]);
    assert_eq!(events(stream.next().await), (0, vec![(5, ab())]));
    assert!(poll_now(&mut stream).is_none());
}

#[tokio::test]
async fn a_future_start_gives_nothing_before_it_and_no_progress() {
    let world = World::new();
    let mut stream = world.stream();
    let future = WatchRequest {
        start_revision: Some(4),
        ..request("a", "")
    };
    let id = stream.create(future).unwrap();
    world.put(&["a"]);
    assert_eq!(stream.synced_revision(id), None);
    stream.request_progress();
    world.put(&["a"]);
    assert!(poll_now(&mut stream).is_none());
    world.put(&["a"]);
    assert_eq!(events(stream.next().await).1, [(4, vec!["a".into()])]);
    assert_eq!(stream.synced_revision(id), Some(4));
    assert!(
        poll_now(&mut stream).is_none(),
        "the request of then is not answered now"
    );
}

#[tokio::test]
async fn filters_and_ranges_leave_out_what_is_not_wanted() {
    let world = World::new();
    let mut stream = world.stream();
    let create = |stream: &mut WatchStream, filter| {
        let keys = KeyRange::from_wire("b", &b"\0"[..]);
        let filters = vec![filter];
        stream
            .create(WatchRequest {
                filters,
                keys,
                ..request("", "")
            })
            .unwrap()
    };
    let no_put = create(&mut stream, EventFilter::NoPut).0;
    let no_delete = create(&mut stream, EventFilter::NoDelete).0;
    world.publish(&[(Put, "a"), (Put, "b"), (Delete, "c"), (Put, "d")]);
    let mut both = [events(stream.next().await), events(stream.next().await)];
    both.sort();
    assert_eq!(both[0], (no_put, vec![(2, vec!["c".into()])]));
    assert_eq!(
        both[1],
        (no_delete, vec![(2, vec!["b".into(), "d".into()])])
    );
    world.publish(&[(Put, "a"), (Delete, "a")]);
    assert!(poll_now(&mut stream).is_none());
}

#[tokio::test]
async fn ids_count_up_skip_what_is_taken_and_are_refused_twice() {
    let world = World::new();
    let mut stream = world.stream();
    let with = |id| WatchRequest {
        id: Some(WatchId(id)),
        ..request("a", "")
    };
    assert_eq!(stream.create(with(1)).unwrap(), WatchId(1));
    assert!(matches!(
        stream.create(with(1)),
        Err(CreateWatchError::DuplicateId)
    ));
    assert_eq!(stream.create(request("a", "")).unwrap(), WatchId(0));
    assert_eq!(stream.create(request("a", "")).unwrap(), WatchId(2));
    assert!(stream.cancel(WatchId(0)) && !stream.cancel(WatchId(0)));
    assert_eq!(stream.create(request("a", "")).unwrap(), WatchId(3));
    assert_eq!(stream.create(with(0)).unwrap(), WatchId(0));
    for (key, end) in [("b", "a"), ("b", "b")] {
        assert!(matches!(
            stream.create(request(key, end)),
            Err(CreateWatchError::EmptyRange)
        ));
    }
}

#[tokio::test]
async fn a_compacted_start_is_told_where_to_start_again() {
    let world = World::new();
    for _ in 0..9 {
        world.put(&["a"]);
    }
    world.compact(7);
    let mut stream = world.stream();
    let start = |at| WatchRequest {
        start_revision: Some(at),
        ..request("a", "")
    };
    let gone = stream.create(start(6)).unwrap();
    let batch = stream.next().await;
    assert!(
        matches!(batch, WatchBatch::Compacted { id, compact_revision: 7 } if id == gone),
        "{batch:?}"
    );
    let again = WatchRequest {
        id: Some(gone),
        ..request("a", "")
    };
    let refused = stream.create(again);
    assert!(matches!(refused, Err(CreateWatchError::DuplicateId)));
    stream.request_progress();
    assert!(poll_now(&mut stream).is_none(), "nobody is left");
    assert!(stream.cancel(gone) && !stream.cancel(gone));
    stream.create(start(7)).unwrap();
    assert_eq!(events(stream.next().await).1.first().unwrap().0, 7);
}

#[tokio::test]
async fn events_after_a_cancel_do_not_come_even_if_the_id_is_used_again() {
    let world = World::new();
    world.put(&["a"]);
    let mut stream = world.stream();
    let id = Some(WatchId(7));
    stream
        .create(WatchRequest {
            id,
            ..request("a", "")
        })
        .unwrap();
    let past = WatchRequest {
        start_revision: Some(1),
        ..request("a", "")
    };
    let lagging = stream.create(past).unwrap();
    world.put(&["a"]);
    assert!(stream.cancel(WatchId(7)) && stream.cancel(lagging));
    stream
        .create(WatchRequest {
            id,
            ..request("a", "")
        })
        .unwrap();
    assert!(poll_now(&mut stream).is_none());
    world.put(&["a"]);
    assert_eq!(
        events(stream.next().await),
        (7, vec![(4, vec!["a".into()])])
    );
}

#[tokio::test]
async fn who_lags_has_a_turn_however_busy_the_others_are() {
    let world = World::new();
    world.put(&["past"]);
    let mut stream = world.stream();
    stream.create(request("a", "")).unwrap();
    stream.create(request("b", "")).unwrap();
    let lagging = stream
        .create(WatchRequest {
            start_revision: Some(1),
            ..request("past", "")
        })
        .unwrap();
    world.put(&["a"]);
    // One more is always there, of somebody else: the queue is never empty.
    let caught_up = async {
        for busy in ["b", "a"].iter().cycle() {
            world.put(&[busy]);
            if events(stream.next().await).0 == lagging.0 {
                break;
            }
            tokio::task::yield_now().await;
        }
    };
    let in_time = tokio::time::timeout(Duration::from_secs(20), caught_up).await;
    assert!(in_time.is_ok(), "its history was read and never looked at");
}

#[tokio::test]
async fn dropping_a_stream_removes_its_watchers() {
    let world = World::new();
    let mut stream = world.stream();
    for start_revision in [None, None, Some(1), Some(9)] {
        stream
            .create(WatchRequest {
                start_revision,
                ..request("a", "b")
            })
            .unwrap();
    }
    let counts = WatchCounts {
        streams: 1,
        watchers: 4,
        slow_watchers: 1,
    };
    assert_eq!(world.hub.counts(), counts);
    drop(stream);
    assert_eq!(world.hub.counts(), WatchCounts::default());
    assert!(world.hub.synced().index.is_empty());
}

#[tokio::test]
async fn progress_comes_behind_the_events_it_speaks_of_and_once_for_requests_that_had_to_wait() {
    let world = World::new();
    world.put(&["a"]);
    let mut stream = world.stream();
    stream.request_progress();
    assert!(poll_now(&mut stream).is_none(), "no watchers, no answer");
    stream.create(request("a", "")).unwrap();
    stream
        .create(WatchRequest {
            start_revision: Some(1),
            ..request("a", "")
        })
        .unwrap();
    world.put(&["a", "b"]);
    for _ in 0..3 {
        stream.request_progress();
    }
    let mut given = [events(stream.next().await), events(stream.next().await)];
    given.sort();
    assert_eq!(given[0], (0, vec![(3, vec!["a".into()])]));
    assert_eq!(
        given[1],
        (1, vec![(2, vec!["a".into()]), (3, vec!["a".into()])])
    );
    assert_eq!(progress(stream.next().await), 3);
    assert!(poll_now(&mut stream).is_none());
    world.put(&["x"]);
    stream.request_progress();
    stream.request_progress();
    assert_eq!(progress(stream.next().await), 4);
    assert_eq!(progress(stream.next().await), 4);
    assert!(poll_now(&mut stream).is_none());
}

#[tokio::test]
async fn a_watcher_made_in_the_past_after_the_request_is_not_passed_over() {
    let world = World::new();
    world.put(&["a"]);
    world.put(&["b"]);
    let mut stream = world.stream();
    stream.create(request("b", "")).unwrap();
    world.put(&["b"]);
    stream.request_progress();
    assert_eq!(events(stream.next().await).1, [(4, vec!["b".into()])]);
    // The mark is in the queue now.
    stream
        .create(WatchRequest {
            start_revision: Some(2),
            ..request("a", "")
        })
        .unwrap();
    assert_eq!(
        events(stream.next().await),
        (1, vec![(2, vec!["a".into()])])
    );
    assert_eq!(progress(stream.next().await), 4);
}

#[tokio::test]
async fn synced_revision_stays_behind_what_waits() {
    let world = World::new();
    let mut stream = world.stream();
    let a = stream.create(request("a", "")).unwrap();
    let b = stream.create(request("b", "")).unwrap();
    assert_eq!(stream.synced_revision(a), Some(1));
    for key in ["c", "a", "b", "c"] {
        world.put(&[key]);
    }
    assert_eq!(
        stream.synced_revision(b),
        Some(2),
        "the event of revision 3 waits"
    );
    assert_eq!(events(stream.next().await).0, a.0);
    assert_eq!(
        (stream.synced_revision(a), stream.synced_revision(b)),
        (Some(3), Some(3))
    );
    assert_eq!(events(stream.next().await).0, b.0);
    assert_eq!(
        (stream.synced_revision(a), stream.synced_revision(b)),
        (Some(5), Some(5))
    );
    assert_eq!(stream.synced_revision(WatchId(9)), None);
}

#[tokio::test]
async fn a_stream_that_does_not_read_holds_bounded_memory_and_catches_up() {
    const REVISIONS: i64 = 100_000;
    let world = World::new();
    let mut stream = world.stream();
    let slow = stream.create(request("a", "")).unwrap();
    stream.create(request("quiet", "")).unwrap();
    for _ in 0..REVISIONS {
        world.put(&["a"]);
    }
    world.put(&["quiet"]);
    let (entries, bytes) = stream.waiting();
    assert!(
        entries <= QUEUE_ENTRIES_MAX + 2 && bytes <= QUEUE_BYTES_MAX,
        "{entries} {bytes}"
    );
    assert_eq!(world.hub.counts().slow_watchers, 2);
    let (mut next, mut quiet) = (2, 0);
    while next < REVISIONS + 2 || quiet == 0 {
        let (id, revisions) = events(stream.next().await);
        if id != slow.0 {
            quiet += 1;
            assert!(
                next < REVISIONS / 2,
                "the slow watcher does not hold up the other: {next}"
            );
            continue;
        }
        for (revision, _) in revisions {
            assert_eq!(revision, next);
            next += 1;
        }
    }
    stream.request_progress();
    assert_eq!(progress(stream.next().await), REVISIONS + 2);
    assert_eq!(world.hub.counts().slow_watchers, 0);
}

#[tokio::test]
async fn a_revision_larger_than_the_queue_is_still_given_whole() {
    let world = World::new();
    let mut stream = world.stream();
    stream.create(request("a", "b")).unwrap();
    let large = "v".repeat(QUEUE_BYTES_MAX / 2);
    for _ in 0..3 {
        let puts = [
            (Put, "a1", large.as_str()),
            (Put, "a2", &large),
            (Put, "a3", &large),
        ];
        world.publish_values(&puts);
    }
    for revision in 2..5 {
        let (_, revisions) = events(stream.next().await);
        assert_eq!(
            (revisions[0].0, revisions[0].1.len(), revisions.len()),
            (revision, 3, 1)
        );
    }
}

#[tokio::test]
async fn one_lagging_watcher_does_not_hold_up_the_others() {
    let world = World::new();
    for _ in 0..50_000 {
        world.put(&["far"]);
    }
    let mut stream = world.stream();
    let past = |key| WatchRequest {
        start_revision: Some(1),
        ..request(key, "")
    };
    stream.create(past("far")).unwrap();
    let near = stream
        .create(WatchRequest {
            start_revision: Some(49_990),
            ..request("near", "")
        })
        .unwrap();
    let live = stream.create(request("live", "")).unwrap();
    world.put(&["near"]);
    world.put(&["live"]);
    let mut seen = Vec::new();
    for _ in 0..6 {
        seen.push(events(stream.next().await).0);
    }
    assert!(seen.contains(&near.0) && seen.contains(&live.0), "{seen:?}");
}

#[tokio::test]
async fn compaction_overtakes_a_watcher_that_lags() {
    let world = World::new();
    let mut stream = world.stream();
    stream.create(request("a", "")).unwrap();
    for _ in 0..QUEUE_ENTRIES_MAX + 10 {
        world.put(&["a"]);
    }
    let head = stream.revision();
    world.compact(head);
    let mut given = 1;
    let compact_revision = loop {
        match stream.next().await {
            WatchBatch::Compacted {
                compact_revision, ..
            } => break compact_revision,
            other => given = events(other).1.last().unwrap().0,
        }
    };
    assert_eq!(
        given,
        i64::try_from(QUEUE_ENTRIES_MAX).unwrap() + 1,
        "what waited was given"
    );
    assert_eq!(compact_revision, head);
    assert_eq!(world.hub.counts().watchers, 0);
}

#[tokio::test]
async fn broken_history_fails_the_stream() {
    let world = World::new();
    world.put(&["a"]);
    world.break_history();
    let mut stream = world.stream();
    stream
        .create(WatchRequest {
            start_revision: Some(1),
            ..request("a", "")
        })
        .unwrap();
    assert!(matches!(stream.next().await, WatchBatch::Failed));
}

#[tokio::test]
async fn an_interrupted_next_loses_nothing() {
    let world = World::new();
    for _ in 0..20_000 {
        world.put(&["a"]);
    }
    let mut stream = world.stream();
    stream
        .create(WatchRequest {
            start_revision: Some(1),
            ..request("a", "")
        })
        .unwrap();
    let mut next = 2;
    while next < 20_002 {
        // Every wait is dropped after one poll.
        let Some(batch) = poll_now(&mut stream) else {
            tokio::task::yield_now().await;
            continue;
        };
        for (revision, _) in events(batch).1 {
            assert_eq!(revision, next);
            next += 1;
        }
    }
}

#[tokio::test]
async fn ten_thousand_watchers_are_cheap_to_dispatch_to() {
    let world = World::new();
    let mut streams: Vec<WatchStream> = (0..100).map(|_| world.stream()).collect();
    for (i, stream) in streams.iter_mut().enumerate() {
        for j in 0..100 {
            stream
                .create(request(&format!("own/{}", i * 100 + j), ""))
                .unwrap();
        }
        for _ in 0..10 {
            stream.create(request("all/", "all0")).unwrap();
        }
    }
    for i in 0..10_000 {
        world.put(&[&format!("own/{i}")]);
    }
    world.put(&["all/x"]);
    let mut given = 0;
    for stream in &mut streams {
        while let Some(batch) = poll_now(stream) {
            given += events(batch).1.len();
        }
    }
    assert_eq!(given, 11_000);
}

/// Tens of thousands of watchers are idle nearly all the time: what each takes is what a busy API server costs.
#[test]
fn what_is_kept_for_a_watcher_is_small() {
    assert_eq!(size_of::<Watcher>(), 56);
    assert_eq!(size_of::<Option<SyncedWatcher>>(), 40);
    assert_eq!(size_of::<Option<index::Group>>(), 32);
}
