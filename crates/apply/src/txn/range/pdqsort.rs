//! The order in which etcd leaves equals.
//!
//! etcd sorts a range by version, revision or value with Go's `sort.Sort`, which is not stable, but
//! always does the same with the same input: clients page through such answers by position, and see
//! one order. So this is that algorithm, pattern-defeating quicksort with Go's own constants and its
//! own source of disorder, on places instead of elements. Up to twelve elements it is an insertion
//! sort, and stable.
//!
//! What this is not: a better sort than the standard library's. For anything that has no ties, or
//! whose ties nobody sees, use that.

/// Ranges up to this are sorted by insertion.
const INSERTION_LEN_MAX: usize = 12;
/// From this on the pivot is a median of medians.
const NINTHER_LEN_MIN: usize = 50;
/// Comparisons that a pivot's choice can turn around at most.
const SWAPS_MAX: u32 = 12;
/// Pairs out of order that are put right in the hope that there are no more.
const REPAIRS_MAX: usize = 5;
/// Shorter ranges are not repaired.
const REPAIR_LEN_MIN: usize = 50;

/// The elements `0..len` as `sort.Sort` would leave them; `less` compares two of them.
pub(super) fn order(len: usize, less: impl Fn(usize, usize) -> bool) -> Vec<usize> {
    let mut sorter = Sorter {
        places: (0..len).collect(),
        less,
    };
    if len > 1 {
        sorter.sort(0, len, bits(len));
    }
    sorter.places
}

/// How many bits a length takes.
const fn bits(len: usize) -> u32 {
    usize::BITS - len.leading_zeros()
}

/// What the choice of the pivot has shown of the range.
#[derive(PartialEq, Eq)]
enum Hint {
    Unknown,
    Increasing,
    Decreasing,
}

/// Ranges are from `a` on and before `b`, all of them in `places`.
struct Sorter<F> {
    places: Vec<usize>,
    less: F,
}

impl<F: Fn(usize, usize) -> bool> Sorter<F> {
    fn less(&self, i: usize, j: usize) -> bool {
        (self.less)(self.places[i], self.places[j])
    }

    fn swap(&mut self, i: usize, j: usize) {
        self.places.swap(i, j);
    }

    /// `bad_pivots` is how many of them may come before it is heapsort.
    fn sort(&mut self, mut a: usize, mut b: usize, mut bad_pivots: u32) {
        let (mut was_balanced, mut was_partitioned) = (true, true);
        loop {
            let len = b - a;
            if len <= INSERTION_LEN_MAX {
                return self.insertion_sort(a, b);
            }
            if bad_pivots == 0 {
                return self.heap_sort(a, b);
            }
            if !was_balanced {
                self.break_patterns(a, b);
                bad_pivots -= 1;
            }
            let (mut pivot, mut hint) = self.choose_pivot(a, b);
            if hint == Hint::Decreasing {
                self.places[a..b].reverse();
                pivot = (b - 1) - (pivot - a);
                hint = Hint::Increasing;
            }
            let looks_sorted = was_balanced && was_partitioned && hint == Hint::Increasing;
            if looks_sorted && self.repair(a, b) {
                return;
            }
            // Many equals: none of this range is less than the one before it.
            if a > 0 && !self.less(a - 1, pivot) {
                a = self.partition_equal(a, b, pivot);
                continue;
            }
            let (mid, had_nothing_to_do) = self.partition(a, b, pivot);
            was_partitioned = had_nothing_to_do;
            let (left, right) = (mid - a, b - mid);
            was_balanced = left.min(right) >= len / 8;
            if left < right {
                self.sort(a, mid, bad_pivots);
                a = mid + 1;
            } else {
                self.sort(mid + 1, b, bad_pivots);
                b = mid;
            }
        }
    }

    fn insertion_sort(&mut self, a: usize, b: usize) {
        for i in a + 1..b {
            self.sink_left(i, a);
        }
    }

    /// Moves the element at `i` to the left while it is less than its neighbour, down to `floor`.
    fn sink_left(&mut self, i: usize, floor: usize) {
        for j in (floor + 1..=i).rev() {
            if !self.less(j, j - 1) {
                return;
            }
            self.swap(j, j - 1);
        }
    }

    fn heap_sort(&mut self, a: usize, b: usize) {
        let len = b - a;
        for root in (0..=(len - 1) / 2).rev() {
            self.sift_down(root, len, a);
        }
        for end in (0..len).rev() {
            self.swap(a, a + end);
            self.sift_down(0, end, a);
        }
    }

    fn sift_down(&mut self, mut root: usize, end: usize, first: usize) {
        loop {
            let mut child = 2 * root + 1;
            if child >= end {
                return;
            }
            if child + 1 < end && self.less(first + child, first + child + 1) {
                child += 1;
            }
            if !self.less(first + root, first + child) {
                return;
            }
            self.swap(first + root, first + child);
            root = child;
        }
    }

    /// Less than the pivot to the left, the others to the right; says where the pivot is, and
    /// whether it had been like that.
    fn partition(&mut self, a: usize, b: usize, pivot: usize) -> (usize, bool) {
        self.swap(a, pivot);
        let (mut i, mut j) = (a + 1, b - 1);
        let mut had_nothing_to_do = true;
        loop {
            while i <= j && self.less(i, a) {
                i += 1;
            }
            while i <= j && !self.less(j, a) {
                j -= 1;
            }
            if i > j {
                self.swap(j, a);
                return (j, had_nothing_to_do);
            }
            had_nothing_to_do = false;
            self.swap(i, j);
            i += 1;
            j -= 1;
        }
    }

    /// Equal to the pivot to the left, greater to the right; says where those begin.
    fn partition_equal(&mut self, a: usize, b: usize, pivot: usize) -> usize {
        self.swap(a, pivot);
        let (mut i, mut j) = (a + 1, b - 1);
        loop {
            while i <= j && !self.less(a, i) {
                i += 1;
            }
            while i <= j && self.less(a, j) {
                j -= 1;
            }
            if i > j {
                return i;
            }
            self.swap(i, j);
            i += 1;
            j -= 1;
        }
    }

    /// Sorts a range that is sorted but for a few pairs; says whether it is sorted now.
    fn repair(&mut self, a: usize, b: usize) -> bool {
        let mut i = a + 1;
        for _ in 0..REPAIRS_MAX {
            while i < b && !self.less(i, i - 1) {
                i += 1;
            }
            if i == b {
                return true;
            }
            if b - a < REPAIR_LEN_MIN {
                return false;
            }
            self.swap(i, i - 1);
            if i - a >= 2 {
                // Down to the very first place, not to `a`: so it is in Go.
                self.sink_left(i - 1, 0);
            }
            if b - i >= 2 {
                self.sink_right(i + 1, b);
            }
        }
        false
    }

    /// Moves the element before `from` to the right while its neighbour is less.
    fn sink_right(&mut self, from: usize, b: usize) {
        for j in from..b {
            if !self.less(j, j - 1) {
                return;
            }
            self.swap(j, j - 1);
        }
    }

    /// Moves three elements about, so that no input is bad for ever.
    fn break_patterns(&mut self, a: usize, b: usize) {
        let len = b - a;
        if len < 8 {
            return;
        }
        let mut random = len as u64;
        let before_middle = a + (len / 4) * 2 - 1;
        for i in 0..3 {
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            let low_bits = random & ((1 << bits(len)) - 1);
            let mut other = usize::try_from(low_bits).expect("no more bits than a length has");
            if other >= len {
                other -= len;
            }
            self.swap(before_middle + i, a + other);
        }
    }

    fn choose_pivot(&self, a: usize, b: usize) -> (usize, Hint) {
        let len = b - a;
        let mut swaps = 0;
        let (mut i, mut j, mut k) = (a + len / 4, a + len / 4 * 2, a + len / 4 * 3);
        if len >= 8 {
            if len >= NINTHER_LEN_MIN {
                i = self.median(i - 1, i, i + 1, &mut swaps);
                j = self.median(j - 1, j, j + 1, &mut swaps);
                k = self.median(k - 1, k, k + 1, &mut swaps);
            }
            j = self.median(i, j, k, &mut swaps);
        }
        let hint = match swaps {
            0 => Hint::Increasing,
            SWAPS_MAX => Hint::Decreasing,
            _ => Hint::Unknown,
        };
        (j, hint)
    }

    fn median(&self, a: usize, b: usize, c: usize, swaps: &mut u32) -> usize {
        let (a, b) = self.ordered(a, b, swaps);
        let (b, _) = self.ordered(b, c, swaps);
        let (_, b) = self.ordered(a, b, swaps);
        b
    }

    fn ordered(&self, a: usize, b: usize, swaps: &mut u32) -> (usize, usize) {
        if self.less(b, a) {
            *swaps += 1;
            return (b, a);
        }
        (a, b)
    }
}
