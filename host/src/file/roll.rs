//! When a generation ends. Pure rules over plain values.

use std::time::{Duration, Instant};

/// Above this share of the memory budget lanes relieve it.
const PRESSURE: f64 = 0.8;

/// A generation that holds less than this share of the budget is not what fills it.
const OWN_SHARE_MIN: f64 = 0.1;

/// The limits of a generation.
#[derive(Clone, Copy, Debug)]
pub(super) struct RollRules {
    /// Its age from the first record on.
    pub(super) interval: Duration,
    /// Its batches.
    pub(super) batches_max: Option<u64>,
}

impl RollRules {
    /// Whether a generation of this age and size is due.
    pub(super) fn is_due(&self, began: Option<Instant>, now: Instant, batches: u64) -> bool {
        let old = began.is_some_and(|began| now.saturating_duration_since(began) >= self.interval);
        old || self.batches_max.is_some_and(|most| batches >= most)
    }

    /// When it will be due by age.
    pub(super) fn deadline(&self, began: Option<Instant>) -> Option<Instant> {
        began.and_then(|began| began.checked_add(self.interval))
    }
}

/// Whether memory is short and this lane's open files are part of the reason.
#[expect(clippy::cast_precision_loss, reason = "a share of a budget needs no more than 52 bits")]
pub(super) fn is_under_pressure(used_bytes: usize, limit_bytes: usize, own_bytes: usize) -> bool {
    let limit = limit_bytes as f64;
    used_bytes as f64 > PRESSURE * limit && own_bytes as f64 > OWN_SHARE_MIN * limit
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_generation_ends_by_age_or_by_batches_and_never_before_it_began() {
        let rules = RollRules { interval: Duration::from_secs(60), batches_max: Some(10) };
        let began = Instant::now();
        assert!(!rules.is_due(None, began + Duration::from_secs(999), 0));
        assert!(!rules.is_due(Some(began), began + Duration::from_secs(59), 9));
        assert!(rules.is_due(Some(began), began + Duration::from_secs(60), 0));
        assert!(rules.is_due(Some(began), began, 10));
        assert_eq!(rules.deadline(Some(began)), Some(began + Duration::from_secs(60)));
    }

    #[test]
    fn pressure_is_felt_by_those_who_make_it() {
        assert!(is_under_pressure(90, 100, 50));
        assert!(!is_under_pressure(70, 100, 50));
        assert!(!is_under_pressure(90, 100, 5));
    }
}
