//! How long to wait before a plugin that failed gets its next instance. Pure arithmetic on the clock.

use std::time::{Duration, Instant};

/// The pause before the next instance.
#[derive(Clone, Copy, Debug)]
pub(super) struct Backoff {
    /// The first pause.
    from: Duration,
    /// The longest.
    to: Duration,
    /// The next one.
    next: Duration,
    /// When the running one ends.
    until: Option<Instant>,
}

impl Backoff {
    /// No failure yet.
    pub(super) fn new(from: Duration, to: Duration) -> Self {
        Self { from, to, next: from.min(to), until: None }
    }

    /// After a failure: the pause from now; the next one is twice as long.
    pub(super) fn failed(&mut self) -> Duration {
        let pause = self.next;
        self.next = pause.saturating_mul(2).min(self.to);
        self.until = Some(Instant::now() + pause);
        pause
    }

    /// What is left of the running pause.
    pub(super) fn remaining(&self) -> Duration {
        self.until.map_or(Duration::ZERO, |until| until.saturating_duration_since(Instant::now()))
    }

    /// The next instance may start at once.
    pub(super) fn skip(&mut self) {
        self.until = None;
    }

    /// A batch went well.
    pub(super) fn reset(&mut self) {
        self.next = self.from.min(self.to);
        self.until = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pause_doubles_to_its_limit_and_starts_again_after_a_good_batch() {
        let mut backoff = Backoff::new(Duration::from_millis(100), Duration::from_millis(350));
        let pauses = [backoff.failed(), backoff.failed(), backoff.failed(), backoff.failed()];
        assert_eq!(pauses.map(|pause| pause.as_millis()), [100, 200, 350, 350]);
        backoff.reset();
        assert_eq!(backoff.remaining(), Duration::ZERO);
        assert_eq!(backoff.failed().as_millis(), 100);
    }
}
