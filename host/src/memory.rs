//! The memory budget of one pipeline: raw, decoded and encoded bytes in flight. It is a part of that of its tenant.
//!
//! Whoever holds bytes holds a [`MemoryGuard`] over them; dropping the guard gives them back. The budget never blocks
//! the stages behind the source, since they are what frees memory: it only tells the source to wait, so the real
//! peak may pass the budget by what is already on its way.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use tokio::sync::Notify;

use crate::{
    config::TenantConfig,
    tenant::{Tenant, TenantLimit},
};

/// Longest time between two looks at what the tenant may read: its budget may have changed.
const RATE_LOOK: Duration = Duration::from_millis(250);

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
    /// Whose budget it is a part of.
    tenant: Tenant,
}

impl MemoryBudget {
    /// A budget of so many bytes, of a tenant that has no other pipeline and no limits.
    #[must_use]
    pub fn new(limit_bytes: usize) -> Self {
        Self::of(Tenant::alone("default", TenantConfig::default()), limit_bytes)
    }

    /// A budget of so many bytes, and of as many as its tenant has left.
    #[must_use]
    pub fn of(tenant: Tenant, limit_bytes: usize) -> Self {
        Self(Arc::new(Shared { used_bytes: AtomicUsize::new(0), limit_bytes, freed: Notify::new(), tenant }))
    }

    /// Whose it is.
    #[must_use]
    pub fn tenant(&self) -> &Tenant {
        &self.0.tenant
    }

    /// Counts `bytes` as in flight until the guard is dropped. Never waits.
    #[must_use]
    pub fn hold(&self, bytes: usize) -> MemoryGuard {
        let mut guard = MemoryGuard { budget: self.clone(), bytes: 0 };
        guard.resize(bytes);
        guard
    }

    /// The same for bytes that the source has just read, which count against what its tenant may read in a second.
    #[must_use]
    pub fn hold_read(&self, bytes: usize) -> MemoryGuard {
        self.0.tenant.note_read(bytes);
        self.hold(bytes)
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

    /// Bytes in flight and the limit: of the pipeline or of its tenant, whichever is nearer to its end.
    #[must_use]
    pub fn pressure(&self) -> (usize, usize) {
        let own = (self.used_bytes(), self.0.limit_bytes);
        let share = |(used, limit): (usize, usize)| used as u128 * 1024 / limit.max(1) as u128;
        self.0.tenant.flight().filter(|of_tenant| share(*of_tenant) > share(own)).unwrap_or(own)
    }

    /// Why the source must wait, as the label of a metric: the pipeline has its bytes in flight, or all pipelines of its tenant have
    /// theirs, or they have read what they may in a second. A pipeline with nothing in flight may always read, whatever plugins
    /// and other pipelines of its tenant hold: so each of them goes on, if slowly.
    #[must_use]
    pub fn why_wait(&self) -> Option<&'static str> {
        let used = self.used_bytes();
        if used >= self.0.limit_bytes {
            return Some("memory");
        }
        if used > 0 && self.0.tenant.flight().is_some_and(|(used, most)| used >= most) {
            return Some("tenant-memory");
        }
        (!self.0.tenant.read_pause().is_zero()).then_some("tenant-bytes-per-second")
    }

    /// Whether the source must wait.
    #[must_use]
    pub fn is_exhausted(&self) -> bool {
        self.why_wait().is_some()
    }

    /// The label of a metric for a wait that begins now; counts it where it is the tenant's budget that makes it.
    #[must_use]
    pub fn begin_wait(&self) -> &'static str {
        let reason = self.why_wait().unwrap_or("memory");
        match reason {
            "tenant-memory" => self.0.tenant.hit(TenantLimit::Memory),
            "tenant-bytes-per-second" => self.0.tenant.hit(TenantLimit::BytesPerSecond),
            _ => {}
        }
        reason
    }

    /// Returns once there is room. Cancel-safe.
    pub async fn room(&self) {
        loop {
            let (own, of_tenant) = (self.0.freed.notified(), self.0.tenant.freed());
            match self.why_wait() {
                None => return,
                Some("memory") => own.await,
                Some("tenant-memory") => of_tenant.await,
                // Time gives it back.
                Some(_) => tokio::time::sleep(self.0.tenant.read_pause().min(RATE_LOOK)).await,
            }
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
        shared.tenant.flight_changed(self.bytes, bytes);
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

    #[tokio::test]
    async fn pipelines_of_a_tenant_share_its_bytes_and_who_holds_none_may_always_read() {
        let tenant = Tenant::alone("shop", TenantConfig { memory_bytes: Some(100), ..TenantConfig::default() });
        let [first, second] = [(); 2].map(|()| MemoryBudget::of(tenant.clone(), 1000));
        let large = first.hold(90);
        let small = second.hold(20);
        assert_eq!((first.why_wait(), second.why_wait()), (Some("tenant-memory"), Some("tenant-memory")));
        assert_eq!(first.pressure(), (110, 100));
        assert_eq!(MemoryBudget::of(tenant.clone(), 1000).why_wait(), None);
        let waiting = tokio::spawn(async move { second.room().await });
        tokio::task::yield_now().await;
        assert!(!waiting.is_finished());
        drop(large);
        waiting.await.unwrap();
        drop(small);
        assert_eq!(tenant.flight(), Some((0, 100)));
    }

    #[tokio::test]
    async fn what_a_tenant_reads_in_a_second_makes_all_its_sources_wait_and_no_other() {
        let limits = TenantConfig { bytes_per_second: Some(1000), ..TenantConfig::default() };
        let tenant = Tenant::alone("shop", limits);
        let [first, second] = [(); 2].map(|()| MemoryBudget::of(tenant.clone(), 1 << 20));
        drop(first.hold_read(1050));
        assert_eq!(second.begin_wait(), "tenant-bytes-per-second");
        assert!(!MemoryBudget::new(1 << 20).is_exhausted());
        second.room().await;
        assert_eq!((second.why_wait(), tenant.hits(TenantLimit::BytesPerSecond)), (None, 1));
    }
}
