//! A queue that takes no memory of its own while there is one thing in it. A stream of a unary call has one piece of a
//! request and one of an answer, and there are many thousands of those a second.

use std::collections::VecDeque;

/// First in, first out.
#[derive(Debug)]
pub(crate) struct Fifo<T> {
    first: Option<T>,
    /// Nothing, if there is no first.
    more: VecDeque<T>,
}

impl<T> Default for Fifo<T> {
    fn default() -> Self {
        Self {
            first: None,
            more: VecDeque::new(),
        }
    }
}

impl<T> Fifo<T> {
    pub(crate) fn is_empty(&self) -> bool {
        self.first.is_none()
    }

    pub(crate) fn push_back(&mut self, item: T) {
        match &self.first {
            None => self.first = Some(item),
            Some(_) => self.more.push_back(item),
        }
    }

    /// Puts it before all others.
    pub(crate) fn push_front(&mut self, item: T) {
        if let Some(first) = self.first.replace(item) {
            self.more.push_front(first);
        }
    }

    pub(crate) fn pop_front(&mut self) -> Option<T> {
        std::mem::replace(&mut self.first, self.more.pop_front())
    }

    pub(crate) fn back_mut(&mut self) -> Option<&mut T> {
        self.more.back_mut().or(self.first.as_mut())
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &T> {
        self.first.iter().chain(&self.more)
    }

    pub(crate) fn clear(&mut self) {
        *self = Self::default();
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn it_is_a_queue(steps in prop::collection::vec(0..4u8, 0..100)) {
            let (mut fifo, mut model) = (Fifo::default(), VecDeque::new());
            for (step, item) in steps.into_iter().zip(0..) {
                match step {
                    0 | 1 => {
                        fifo.push_back(item);
                        model.push_back(item);
                    }
                    2 => {
                        fifo.push_front(item);
                        model.push_front(item);
                    }
                    _ => prop_assert_eq!(fifo.pop_front(), model.pop_front()),
                }
                prop_assert_eq!(fifo.is_empty(), model.is_empty());
                prop_assert_eq!(fifo.back_mut(), model.back_mut());
                prop_assert!(fifo.iter().eq(model.iter()));
            }
        }
    }
}
