//! When the call that runs now must have ended.
//!
//! Comes in: how long it may take, and how long it waited for its turn. Goes out: its deadline, which moves by what it waited, so
//! that a plugin does not answer for its neighbours. Shared by the call and by who polls it.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

/// The clock of one instance's calls. Cheap to clone.
#[derive(Clone, Debug)]
pub(super) struct CallClock(Arc<Inner>);

/// What all clones share.
#[derive(Debug)]
struct Inner {
    /// When the clock was made.
    zero: Instant,
    /// Nanoseconds from there to the deadline.
    deadline: AtomicU64,
    /// Whether it computes and gives way to others.
    gives_way: AtomicBool,
}

impl CallClock {
    /// Of calls of which none has begun.
    pub(super) fn new() -> Self {
        Self(Arc::new(Inner { zero: Instant::now(), deadline: AtomicU64::new(0), gives_way: AtomicBool::new(false) }))
    }

    /// A call begins that may take so long.
    pub(super) fn begin(&self, call_timeout: Duration) {
        let deadline = self.0.zero.elapsed().saturating_add(call_timeout);
        self.0.deadline.store(nanoseconds(deadline), Ordering::Relaxed);
    }

    /// The call waited so long for its turn, and may end so much later.
    pub(super) fn put_off(&self, waited: Duration) {
        self.0.deadline.fetch_add(nanoseconds(waited), Ordering::Relaxed);
    }

    /// The call would compute and gives way to others: from now on it waits for its turn.
    pub(super) fn give_way(&self) {
        self.0.gives_way.store(true, Ordering::Relaxed);
    }

    /// Whether it did since this was asked.
    pub(super) fn take_gives_way(&self) -> bool {
        self.0.gives_way.swap(false, Ordering::Relaxed)
    }

    /// The call has to end now.
    pub(super) fn end_now(&self) {
        self.0.deadline.store(0, Ordering::Relaxed);
    }

    /// When the call must have ended.
    pub(super) fn deadline(&self) -> Instant {
        self.0.zero + Duration::from_nanos(self.0.deadline.load(Ordering::Relaxed))
    }

    /// Whether it must have ended.
    pub(super) fn is_over(&self) -> bool {
        Instant::now() >= self.deadline()
    }
}

/// 584 years at most.
fn nanoseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_call_waited_is_not_taken_from_its_time() {
        let clock = CallClock::new();
        assert!(clock.is_over());
        clock.begin(Duration::from_secs(60));
        let first = clock.deadline();
        clock.put_off(Duration::from_secs(5));
        assert_eq!(clock.deadline().duration_since(first), Duration::from_secs(5));
        assert!(!clock.is_over());
        clock.end_now();
        assert!(clock.is_over());
    }
}
