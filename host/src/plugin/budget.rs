//! What a plugin may make the host do in one call: calls of its functions, and bytes that it copies.
//!
//! The deadline bounds how long a call takes, and this how much of that time is the host's, which no epoch interrupts.
//! Both are counted anew when a call begins. What is above ends the call, whichever function was asked for.

use std::sync::atomic::{AtomicUsize, Ordering};

use super::failure::Limit;
use crate::config::PluginLimits;

/// The budget of the call that runs now. Shared by all imports of one instance; used by one call at a time.
#[derive(Debug)]
pub(super) struct CallBudget {
    /// Calls of the host.
    calls_max: usize,
    /// Bytes that it copies.
    bytes_max: usize,
    /// Calls so far.
    calls: AtomicUsize,
    /// Bytes so far.
    bytes: AtomicUsize,
}

/// A budget is spent; in words that go with the trap.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Spent {
    /// All calls.
    #[error("called the host more than {0} times (limits.host_calls)")]
    Calls(usize),
    /// All bytes.
    #[error("made the host copy more than {0} bytes (limits.host_call_bytes)")]
    Bytes(usize),
}

impl Spent {
    /// The limit that was hit.
    pub(super) fn limit(self) -> Limit {
        match self {
            Self::Calls(_) => Limit::HostCalls,
            Self::Bytes(_) => Limit::HostCallBytes,
        }
    }
}

impl CallBudget {
    /// The budget of a plugin.
    pub(super) fn new(limits: &PluginLimits) -> Self {
        let (calls, bytes) = (AtomicUsize::new(0), AtomicUsize::new(0));
        Self { calls_max: limits.host_calls, bytes_max: limits.host_call_bytes, calls, bytes }
    }

    /// A call begins.
    pub(super) fn start_call(&self) {
        self.calls.store(0, Ordering::Relaxed);
        self.bytes.store(0, Ordering::Relaxed);
    }

    /// The plugin calls the host.
    pub(super) fn call(&self) -> Result<(), Spent> {
        self.calls.fetch_add(1, Ordering::Relaxed);
        self.check()
    }

    /// The host copies bytes for it.
    pub(super) fn copy(&self, bytes: usize) -> Result<(), Spent> {
        // It cannot wrap: each step is what fits into memory, and the first one above ends the call.
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
        self.check()
    }

    /// What is spent, if anything.
    pub(super) fn check(&self) -> Result<(), Spent> {
        if self.calls.load(Ordering::Relaxed) > self.calls_max {
            Err(Spent::Calls(self.calls_max))
        } else if self.bytes.load(Ordering::Relaxed) > self.bytes_max {
            Err(Spent::Bytes(self.bytes_max))
        } else {
            Ok(())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_and_bytes_are_counted_until_the_next_call_begins() {
        let limits = PluginLimits { host_calls: 2, host_call_bytes: 10, ..PluginLimits::default() };
        let budget = CallBudget::new(&limits);
        assert_eq!([budget.call(), budget.call(), budget.call()], [Ok(()), Ok(()), Err(Spent::Calls(2))]);
        assert_eq!(budget.check(), Err(Spent::Calls(2)));
        budget.start_call();
        assert_eq!([budget.copy(10), budget.copy(1)], [Ok(()), Err(Spent::Bytes(10))]);
        assert_eq!(Spent::Bytes(10).limit().as_str(), "host_call_bytes");
    }
}
