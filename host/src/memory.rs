//! The memory budget of one pipeline: raw, decoded and encoded bytes in flight.
//!
//! Whoever holds bytes holds a [`MemoryGuard`] over them; dropping the guard gives them back. The budget never blocks
//! the stages behind the source, since they are what frees memory: it only tells the source to wait, so the real
//! peak may pass the budget by what is already on its way.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use tokio::sync::Notify;

/// Shared count of bytes in flight against a limit. Cloning shares it.
#[derive(Clone, Debug)]
pub struct MemoryBudget(Arc<Shared>);

/// What all clones share.
#[derive(Debug)]
struct Shared {
    /// Bytes in flight now.
    used_bytes: AtomicUsize,
    /// At this many the source waits.
    limit_bytes: usize,
    /// Woken when bytes are given back.
    freed: Notify,
}

impl MemoryBudget {
    /// A budget of so many bytes.
    #[must_use]
    pub fn new(limit_bytes: usize) -> Self {
        Self(Arc::new(Shared { used_bytes: AtomicUsize::new(0), limit_bytes, freed: Notify::new() }))
    }

    /// Counts `bytes` as in flight until the guard is dropped. Never waits.
    #[must_use]
    pub fn hold(&self, bytes: usize) -> MemoryGuard {
        self.0.used_bytes.fetch_add(bytes, Ordering::Relaxed);
        MemoryGuard { budget: self.clone(), bytes }
    }

    /// Bytes in flight now.
    #[must_use]
    pub fn used_bytes(&self) -> usize {
        self.0.used_bytes.load(Ordering::Relaxed)
    }

    /// The limit.
    #[must_use]
    pub fn limit_bytes(&self) -> usize {
        self.0.limit_bytes
    }

    /// Whether the source must wait.
    #[must_use]
    pub fn is_exhausted(&self) -> bool {
        self.used_bytes() >= self.0.limit_bytes
    }

    /// Returns once there is room. Cancel-safe.
    pub async fn room(&self) {
        loop {
            let freed = self.0.freed.notified();
            if !self.is_exhausted() {
                return;
            }
            freed.await;
        }
    }
}

/// Bytes counted against a budget; given back on drop.
#[derive(Debug)]
pub struct MemoryGuard {
    /// Where they are counted.
    budget: MemoryBudget,
    /// How many.
    bytes: usize,
}

impl MemoryGuard {
    /// How many bytes are counted.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Counts so many bytes more.
    pub fn grow(&mut self, bytes: usize) {
        self.resize(self.bytes.saturating_add(bytes));
    }

    /// Changes how many bytes are counted, as a buffer grows or shrinks.
    pub fn resize(&mut self, bytes: usize) {
        let shared = &self.budget.0;
        if bytes >= self.bytes {
            shared.used_bytes.fetch_add(bytes - self.bytes, Ordering::Relaxed);
        } else {
            shared.used_bytes.fetch_sub(self.bytes - bytes, Ordering::Relaxed);
            shared.freed.notify_waiters();
        }
        self.bytes = bytes;
    }
}

impl Drop for MemoryGuard {
    fn drop(&mut self) {
        self.resize(0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_source_waits_at_the_limit_and_goes_on_when_bytes_are_given_back() {
        let budget = MemoryBudget::new(100);
        let mut guard = budget.hold(60);
        budget.room().await;
        guard.resize(140);
        assert!(budget.is_exhausted());
        let waiting = tokio::spawn({
            let budget = budget.clone();
            async move { budget.room().await }
        });
        tokio::task::yield_now().await;
        assert!(!waiting.is_finished());
        drop(guard);
        waiting.await.unwrap();
        assert_eq!(budget.used_bytes(), 0);
    }
}
