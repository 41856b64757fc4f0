use super::*;

/// A clock that stands still until it is moved.
struct Stopped {
    begun: Instant,
    passed: Mutex<Duration>,
}

impl Stopped {
    fn pass(&self, time: Duration) {
        *self.passed.lock() += time;
    }
}

impl Clock for Stopped {
    fn now(&self) -> Instant {
        self.begun + *self.passed.lock()
    }

    fn wall(&self) -> std::time::SystemTime {
        std::time::UNIX_EPOCH
    }
}

fn traffic() -> (Traffic, Arc<Stopped>) {
    let clock = Arc::new(Stopped {
        begun: types::SystemClock.now(),
        passed: Mutex::default(),
    });
    (Traffic::new(clock.clone()), clock)
}

fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

/// Asks for a key, which takes so long.
fn ask(traffic: &Traffic, clock: &Stopped, kind: Kind, key: &str, took: Duration) {
    let timed = traffic.time(kind, key.as_bytes());
    clock.pass(took);
    drop(timed);
}

fn names(report: &ByPrefix) -> Vec<&str> {
    let names = report.prefixes.iter().map(|(name, _)| name.as_str());
    names.collect()
}

#[test]
fn a_prefix_is_what_comes_before_the_name_of_a_thing() {
    for (key, prefix) in [
        ("/registry/pods/default/web-1", "/registry/pods/"),
        ("/registry/pods/", "/registry/pods/"),
        ("/registry/pods", "/registry/"),
        ("/secret", "/"),
        ("secret", ""),
        ("", ""),
        ("a/b/c/d", "a/b/"),
        ("a/b", "a/"),
        ("//x", "//"),
        ("a\n/\u{0}b", "a\u{fffd}/"),
    ] {
        assert_eq!(Prefix::of(key.as_bytes()).shown(), prefix, "{key}");
    }
    let long = format!("/{}/x/y", "n".repeat(100));
    assert_eq!(Prefix::of(long.as_bytes()).shown(), "/");
    assert_eq!(Prefix::of(&[0xff, b'/', 0xfe]).shown(), "\u{fffd}/");
}

#[test]
fn where_the_time_goes_comes_first_and_what_is_asked_often_is_there_too() {
    let (traffic, clock) = traffic();
    for _ in 0..100 {
        ask(&traffic, &clock, Kind::Read, "/a/often/1", ms(1));
    }
    ask(&traffic, &clock, Kind::Write, "/a/slow/1", ms(300));
    ask(&traffic, &clock, Kind::Read, "/a/slow/2", ms(100));
    ask(&traffic, &clock, Kind::Read, "/a/rare/1", ms(2));
    let report = traffic.by_prefix(1);
    assert_eq!(names(&report), ["/a/slow/", "/a/often/"]);
    assert_eq!(report.span, ms(502));
    let slow = Asked {
        reads: 1,
        writes: 1,
        took: ms(400),
        slowest: ms(300),
    };
    assert_eq!(report.prefixes[0].1, slow);
    let (reads, writes) = traffic.latencies();
    assert_eq!((reads.count, writes.count), (102, 1));
}

#[test]
fn what_was_asked_is_forgotten_after_some_minutes() {
    let (traffic, clock) = traffic();
    ask(&traffic, &clock, Kind::Read, "/a/old/1", ms(1));
    clock.pass(WINDOW * 3);
    ask(&traffic, &clock, Kind::Read, "/a/new/1", ms(1));
    assert_eq!(names(&traffic.by_prefix(9)), ["/a/new/", "/a/old/"]);
    clock.pass(WINDOW * 2);
    let report = traffic.by_prefix(9);
    assert_eq!(names(&report), ["/a/new/"]);
    assert!(
        report.span <= WINDOW * 5 && report.span >= WINDOW * 4,
        "{report:?}"
    );
    clock.pass(WINDOW * 9);
    assert_eq!(traffic.by_prefix(9), ByPrefix::default());
}

#[test]
fn ever_new_prefixes_take_no_memory_and_hide_nobody() {
    let (traffic, clock) = traffic();
    for n in 0..20_000 {
        ask(
            &traffic,
            &clock,
            Kind::Read,
            &format!("/new/{n}/x"),
            Duration::ZERO,
        );
        if n % 20 == 0 {
            ask(&traffic, &clock, Kind::Read, "/a/often/1", Duration::ZERO);
        }
    }
    assert_eq!(
        traffic.all.windows.lock().current.by_prefix.len(),
        PREFIXES_MAX
    );
    assert!(names(&traffic.by_prefix(3)).contains(&"/a/often/"));
}
