//! How many entries to ask for at once. Redis counts entries, memory counts bytes: so the answer to the last question says how
//! many the next one asks for. Pure.

/// What an answer should be about as large as: enough for thousands of small entries in a round trip, little beside the memory
/// of a pipeline even when several streams answer at once.
const ANSWER_BYTES: usize = 1 << 20;

/// The first question: nothing is known of the entries yet, and each may have megabytes.
const FIRST: usize = 16;

/// An answer grows at most so much from one to the next, so that a stretch of small entries before large ones does no harm.
const GROWTH: usize = 4;

/// How many to ask for.
#[derive(Clone, Copy, Debug)]
pub(super) struct Appetite {
    /// For the next question.
    count: usize,
    /// Never more: the rows of a batch.
    most: usize,
}

impl Appetite {
    /// Nothing is known yet.
    pub(super) fn new(rows_max: usize) -> Self {
        let most = rows_max.max(1);
        Self { count: FIRST.min(most), most }
    }

    /// How many to ask for now.
    pub(super) fn count(self) -> usize {
        self.count
    }

    /// An answer had so many entries and bytes.
    pub(super) fn ate(&mut self, entries: usize, bytes: usize) {
        if entries == 0 {
            return;
        }
        let fitting = ANSWER_BYTES / (bytes / entries).max(1);
        self.count = fitting.clamp(1, self.most).min(self.count.saturating_mul(GROWTH));
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn small_entries_are_asked_for_by_the_thousand_and_large_ones_one_by_one() {
        let mut appetite = Appetite::new(8_192);
        assert_eq!(appetite.count(), 16);
        for _ in 0..10 {
            appetite.ate(appetite.count(), appetite.count() * 200);
        }
        assert_eq!(appetite.count(), 5_242);
        appetite.ate(1, 5 << 20);
        assert_eq!(appetite.count(), 1);
        appetite.ate(1, 10);
        assert_eq!(appetite.count(), 4);
        appetite.ate(0, 0);
        assert_eq!(appetite.count(), 4);
        assert_eq!(Appetite::new(3).count(), 3);
    }

    proptest! {
        #[test]
        fn at_least_one_and_never_more_than_a_batch(answers in proptest::collection::vec((0_usize..10_000, 0_usize..1 << 30), 0..20), most in 1_usize..1_000_000) {
            let mut appetite = Appetite::new(most);
            for (entries, bytes) in answers {
                appetite.ate(entries, bytes);
                prop_assert!((1..=most).contains(&appetite.count()));
            }
        }
    }
}
