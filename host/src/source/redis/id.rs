//! Ids of stream entries, and the offsets that stand for them.
//!
//! An id is a millisecond and a number within it. The rest of the program counts in offsets of 63 bits, half open
//! (`from..to`), so an id becomes `milliseconds * 2^21 + number`: the order stays, the next offset is the next id that
//! can exist, and an offset can be turned back. Redis itself never needs more: a millisecond of the year 2109 has 42 bits,
//! and no server adds two million entries in one. Ids that people make up may; those are an error that says so.

use std::{fmt, str::FromStr};

use crate::error::PipelineError;

/// Bits for the number within a millisecond.
const SEQUENCE_BITS: u32 = 21;

/// Bits for the millisecond.
const MILLISECOND_BITS: u32 = 42;

/// The id of an entry.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct StreamId {
    /// Milliseconds since 1970, where Redis made the id.
    pub(super) milliseconds: u64,
    /// Number within the millisecond.
    pub(super) sequence: u64,
}

impl StreamId {
    /// Before every entry.
    pub(super) const ZERO: Self = Self { milliseconds: 0, sequence: 0 };

    /// Behind every entry.
    pub(super) const MAX: Self = Self { milliseconds: u64::MAX, sequence: u64::MAX };

    /// The offset that stands for it; `None` where it has too many digits.
    pub(super) fn offset(self) -> Option<i64> {
        if self.milliseconds >> MILLISECOND_BITS != 0 || self.sequence >> SEQUENCE_BITS != 0 {
            return None;
        }
        i64::try_from((self.milliseconds << SEQUENCE_BITS) | self.sequence).ok()
    }

    /// The offset that stands for it, for an entry that was read.
    pub(super) fn offset_in(self, stream: &str) -> Result<i64, PipelineError> {
        self.offset().ok_or_else(|| {
            PipelineError::stop(format!(
                "{stream}: the entry {self} has an id that exactly_once cannot count: milliseconds up to {} and numbers up to {} fit. \
                 Use `delivery: at_least_once` for this stream, or ids that Redis makes (XADD with *)",
                (1_u64 << MILLISECOND_BITS) - 1,
                (1_u64 << SEQUENCE_BITS) - 1
            ))
        })
    }

    /// The id that an offset stands for; what is negative is the first.
    pub(super) fn of_offset(offset: i64) -> Self {
        let bits = u64::try_from(offset).unwrap_or(0);
        Self { milliseconds: bits >> SEQUENCE_BITS, sequence: bits & ((1 << SEQUENCE_BITS) - 1) }
    }

    /// The last id before an offset: what `XREAD` begins behind.
    pub(super) fn before_offset(offset: i64) -> Self {
        if offset <= 0 { Self::ZERO } else { Self::of_offset(offset - 1) }
    }

    /// The id that follows; that of the last one is itself.
    pub(super) fn next(self) -> Self {
        let Self { milliseconds, sequence } = self;
        match (sequence.checked_add(1), milliseconds.checked_add(1)) {
            (Some(sequence), _) => Self { milliseconds, sequence },
            (None, Some(milliseconds)) => Self { milliseconds, sequence: 0 },
            (None, None) => self,
        }
    }

    /// When the entry was made, where its id tells a time that there is.
    pub(super) fn timestamp_ms(self) -> Option<i64> {
        i64::try_from(self.milliseconds).ok()
    }
}

impl fmt::Display for StreamId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}-{}", self.milliseconds, self.sequence)
    }
}

impl FromStr for StreamId {
    type Err = PipelineError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let parsed = match text.split_once('-') {
            Some((milliseconds, sequence)) => milliseconds.parse().ok().zip(sequence.parse().ok()),
            None => text.parse().ok().map(|milliseconds| (milliseconds, 0)),
        };
        parsed
            .map(|(milliseconds, sequence)| Self { milliseconds, sequence })
            .ok_or_else(|| PipelineError::stop(format!("Redis said {text:?} where the id of an entry should be")))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn ids_are_read_and_written() {
        let id: StreamId = "1700000000000-7".parse().unwrap();
        assert_eq!((id.to_string().as_str(), id.timestamp_ms()), ("1700000000000-7", Some(1_700_000_000_000)));
        assert_eq!("5".parse::<StreamId>().unwrap(), StreamId { milliseconds: 5, sequence: 0 });
        assert!(
            "5-".parse::<StreamId>().is_err() && "".parse::<StreamId>().is_err() && "a-b".parse::<StreamId>().is_err()
        );
        assert_eq!(StreamId::MAX.next(), StreamId::MAX);
        assert_eq!(StreamId { milliseconds: 3, sequence: u64::MAX }.next(), StreamId { milliseconds: 4, sequence: 0 });
        assert_eq!(StreamId::MAX.timestamp_ms(), None);
    }

    #[test]
    fn an_id_that_does_not_fit_is_told_with_its_stream() {
        let id = StreamId { milliseconds: 1 << 42, sequence: 0 };
        let error = id.offset_in("orders").unwrap_err().to_string();
        assert!(
            error.starts_with("orders: the entry 4398046511104-0 has an id that exactly_once cannot count"),
            "{error}"
        );
        assert!(error.contains("at_least_once"), "{error}");
        assert_eq!(StreamId { milliseconds: 1, sequence: 1 << 21 }.offset(), None);
        let last = StreamId { milliseconds: (1 << 42) - 1, sequence: (1 << 21) - 1 };
        assert_eq!(last.offset(), Some(i64::MAX));
        assert_eq!(StreamId::before_offset(0), StreamId::ZERO);
        assert_eq!(StreamId::of_offset(-5), StreamId::ZERO);
    }

    prop_compose! {
        /// Ids that fit.
        fn fitting()(milliseconds in 0_u64..1 << 42, sequence in 0_u64..1 << 21) -> StreamId {
            StreamId { milliseconds, sequence }
        }
    }

    proptest! {
        #[test]
        fn an_offset_can_be_turned_back(id in fitting()) {
            let offset = id.offset().unwrap();
            prop_assert!(offset >= 0);
            prop_assert_eq!(StreamId::of_offset(offset), id);
            prop_assert_eq!(id.to_string().parse::<StreamId>().unwrap(), id);
        }

        #[test]
        fn offsets_have_the_order_of_ids(one in fitting(), other in fitting()) {
            prop_assert_eq!(one.cmp(&other), one.offset().cmp(&other.offset()));
            prop_assert!(one.next() > one);
        }

        #[test]
        fn what_xread_begins_behind_is_the_id_that_was_read_last(id in fitting()) {
            // `to` of a range is the offset behind the last entry.
            prop_assume!(id.offset() != Some(i64::MAX));
            prop_assert_eq!(StreamId::before_offset(id.offset().unwrap() + 1), id);
        }

        #[test]
        fn no_text_panics(text in "\\PC{0,30}|[0-9-]{0,45}") {
            let _ = text.parse::<StreamId>();
        }
    }
}
