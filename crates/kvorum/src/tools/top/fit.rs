//! What of a table or a text has room on a terminal.
//!
//! Nothing is cut in the middle of a number: a column is there as a whole, or not at all.

/// Where a line is too long it goes on in the next one; a word longer than a line is cut.
pub(super) fn wrap(text: &str, width: usize) -> Vec<String> {
    let mut lines = vec![String::new()];
    for word in text.split(' ') {
        let length = |text: &str| text.chars().count();
        let line = lines.last_mut().expect("there is always a line");
        if line.is_empty() {
            line.push_str(word);
        } else if length(line) + 1 + length(word) <= width {
            line.push(' ');
            line.push_str(word);
        } else {
            lines.push(word.to_owned());
        }
    }
    lines
}

/// Columns that have room, with how wide they are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Fitted {
    /// Which, from left to right, and how wide each is.
    pub(super) columns: Vec<(usize, usize)>,
    pub(super) gap: usize,
}

/// Chooses columns so wide as `wanted` says: two spaces apart, or one; and without those in `spare`, the first
/// of them first, as far as has to be.
pub(super) fn fit(wanted: &[usize], spare: &[usize], width: usize) -> Fitted {
    let mut columns: Vec<(usize, usize)> = wanted.iter().copied().enumerate().collect();
    let room = |columns: &[(usize, usize)], gap: usize| {
        let all: usize = columns.iter().map(|(_at, width)| width).sum();
        all + gap * columns.len().saturating_sub(1)
    };
    let mut spare = spare.iter();
    loop {
        if let Some(gap) = [2, 1].into_iter().find(|gap| room(&columns, *gap) <= width) {
            return Fitted { columns, gap };
        }
        let Some(unneeded) = spare.next() else {
            return Fitted { columns, gap: 1 };
        };
        columns.retain(|(at, _width)| at != unneeded);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_goes_on_in_the_next_line() {
        assert_eq!(wrap("one two three", 7), ["one two", "three"]);
        assert_eq!(wrap("one two three", 40), ["one two three"]);
        assert_eq!(wrap("muchtoolong a", 4), ["muchtoolong", "a"]);
        assert_eq!(wrap("", 4), [""]);
    }

    #[test]
    fn columns_go_as_a_whole_and_the_least_needed_first() {
        let of = |width| {
            let fitted = fit(&[5, 5, 5, 5], &[2, 1], width);
            let columns = fitted.columns.into_iter().map(|(at, _width)| at);
            (columns.collect::<Vec<_>>(), fitted.gap)
        };
        assert_eq!(of(26), (vec![0, 1, 2, 3], 2));
        assert_eq!(of(23), (vec![0, 1, 2, 3], 1));
        assert_eq!(of(22), (vec![0, 1, 3], 2));
        assert_eq!(of(16), (vec![0, 3], 2));
        // What is left is cut by whoever draws it.
        assert_eq!(of(3), (vec![0, 3], 1));
    }
}
