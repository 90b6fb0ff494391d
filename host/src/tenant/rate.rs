//! Bytes per second: what was spent, and how long to wait until that is earned. Pure: whoever asks brings the clock.

use std::{
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

/// What may be spent at once by who spent nothing before: the bytes of so long.
const BURST: Duration = Duration::from_secs(1);

/// Longest debt of one go: a limit may be far too small for what comes, and is then no reason to wait for days.
const DEBT_MAX: Duration = Duration::from_hours(1);

/// Bytes that go by.
#[derive(Debug, Default)]
pub(super) struct Rate {
    /// All of them.
    bytes: AtomicU64,
    /// When all of them are earned.
    earned_at: Mutex<Option<Instant>>,
}

impl Rate {
    /// All bytes so far.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }

    /// Bytes went by that may not be more than so many in a second.
    pub(super) fn spend(&self, bytes: usize, per_second: Option<usize>, now: Instant) {
        self.bytes.fetch_add(bytes as u64, Ordering::Relaxed);
        let Some(per_second) = per_second else {
            *self.earned_at() = None;
            return;
        };
        #[expect(clippy::cast_precision_loss, reason = "a pause to a millionth of its length")]
        let seconds = bytes as f64 / per_second.max(1) as f64;
        let cost = Duration::try_from_secs_f64(seconds).unwrap_or(DEBT_MAX).min(DEBT_MAX);
        let mut earned_at = self.earned_at();
        // Whoever was silent has earned a burst, and no more.
        let earliest = now.checked_sub(BURST).unwrap_or(now);
        *earned_at = earned_at.unwrap_or(earliest).max(earliest).checked_add(cost);
    }

    /// How long to wait before more may go by.
    pub(super) fn pause(&self, now: Instant) -> Duration {
        self.earned_at().map_or(Duration::ZERO, |earned_at| earned_at.saturating_duration_since(now))
    }

    /// When all bytes are earned; a panic elsewhere leaves it usable.
    fn earned_at(&self) -> MutexGuard<'_, Option<Instant>> {
        self.earned_at.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_above_the_rate_is_waited_for_and_a_silent_second_is_a_burst() {
        let (rate, start) = (Rate::default(), Instant::now());
        let after = |millis| start + Duration::from_millis(millis);
        rate.spend(1000, Some(1000), after(0));
        assert_eq!(rate.pause(after(0)), Duration::ZERO);
        rate.spend(500, Some(1000), after(0));
        assert_eq!(rate.pause(after(0)), Duration::from_millis(500));
        assert_eq!(rate.pause(after(600)), Duration::ZERO);
        // An hour of silence earns no more than a second.
        rate.spend(1500, Some(1000), after(3_600_000));
        assert_eq!(rate.pause(after(3_600_000)), Duration::from_millis(500));
        assert_eq!(rate.bytes(), 3000);
    }

    #[test]
    fn ten_seconds_of_spending_as_allowed_pass_exactly_what_is_allowed() {
        let (rate, start) = (Rate::default(), Instant::now());
        let (mut now, mut spent) = (start, 0_u64);
        while now.duration_since(start) < Duration::from_secs(10) {
            rate.spend(64 << 10, Some(1 << 20), now);
            spent += 64 << 10;
            now += rate.pause(now) + Duration::from_micros(10);
        }
        assert!((10 << 20..12 << 20).contains(&spent), "{spent}");
    }

    #[test]
    fn without_a_limit_nothing_is_owed() {
        let (rate, now) = (Rate::default(), Instant::now());
        rate.spend(1 << 30, Some(1), now);
        assert_eq!(rate.pause(now) + BURST, DEBT_MAX);
        rate.spend(1, None, now);
        assert_eq!(rate.pause(now), Duration::ZERO);
    }
}
