//! Keeps a log readable: at most one line an interval, which tells how many were left out.

use std::{
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

/// Shared by all who log the same thing.
#[derive(Debug)]
pub struct RateLimited {
    /// At most one line in this.
    interval: Duration,
    /// When the last line was allowed, and how many were left out since.
    state: Mutex<(Option<Instant>, u64)>,
}

impl RateLimited {
    /// At most one line an interval.
    #[must_use]
    pub fn new(interval: Duration) -> Self {
        Self { interval, state: Mutex::new((None, 0)) }
    }

    /// `Some` with the number left out since the last line when a line may be written now.
    pub fn allow(&self) -> Option<u64> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let (last, suppressed) = *state;
        if last.is_some_and(|last| last.elapsed() < self.interval) {
            state.1 = suppressed.saturating_add(1);
            return None;
        }
        *state = (Some(Instant::now()), 0);
        Some(suppressed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_line_an_interval_and_the_rest_is_counted() {
        let limited = RateLimited::new(Duration::from_secs(3600));
        assert_eq!(limited.allow(), Some(0));
        assert_eq!(limited.allow(), None);
        assert_eq!(limited.allow(), None);
        let always = RateLimited::new(Duration::ZERO);
        assert_eq!((always.allow(), always.allow()), (Some(0), Some(0)));
    }
}
