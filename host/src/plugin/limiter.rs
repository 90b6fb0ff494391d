//! One budget over all memories of an instance, and one over all its tables; both are part of what the plugins of its tenant may
//! have together.
//!
//! wasmtime's own `StoreLimits` count per memory, so that a plugin with many memories would have many budgets.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use wasmtime::ResourceLimiter;

use crate::tenant::Tenant;

/// Bytes of one table slot.
const SLOT_BYTES: usize = size_of::<usize>();
/// Core instances, memories and tables of one component; componentize-py, the largest producer known, makes about 30
/// core instances.
const PARTS_MAX: usize = 64;

/// What all instances of a plugin hold together, for its gauges.
#[derive(Debug, Default)]
pub(super) struct MemoryUse {
    /// Bytes now, of all instances.
    bytes: AtomicUsize,
    /// Most bytes that one instance ever held.
    peak_bytes: AtomicUsize,
}

impl MemoryUse {
    /// Bytes now, of all instances, and the most that one ever held.
    pub(super) fn read(&self) -> (usize, usize) {
        (self.bytes.load(Ordering::Relaxed), self.peak_bytes.load(Ordering::Relaxed))
    }

    /// An instance that held `from` bytes holds `to`.
    fn change(&self, from: usize, to: usize) {
        self.bytes.fetch_add(to, Ordering::Relaxed);
        self.bytes.fetch_sub(from, Ordering::Relaxed);
        self.peak_bytes.fetch_max(to, Ordering::Relaxed);
    }
}

/// What an instance holds, and may hold.
#[derive(Debug)]
pub(super) struct Limiter {
    /// Where it is added up.
    total: Arc<MemoryUse>,
    /// Whose it is.
    tenant: Tenant,
    /// Most bytes of all memories together, and again of all tables.
    limit_bytes: usize,
    /// Bytes of all memories.
    memory_bytes: usize,
    /// Bytes of all tables.
    table_bytes: usize,
    /// What the growth that was allowed last added, in case it fails.
    last_growth: usize,
    /// Whose limit refused a growth since the last call began.
    refused: Option<Refused>,
}

/// Whose limit a growth was above.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Refused {
    /// The plugin's own, or that of the machine.
    Own,
    /// That of all plugins of its tenant.
    Tenant,
}

impl Limiter {
    /// Nothing held yet.
    pub(super) fn new(limit_bytes: usize, total: Arc<MemoryUse>, tenant: Tenant) -> Self {
        Self { total, tenant, limit_bytes, memory_bytes: 0, table_bytes: 0, last_growth: 0, refused: None }
    }

    /// Bytes of memories and tables.
    fn bytes(&self) -> usize {
        self.memory_bytes + self.table_bytes
    }

    /// A call begins.
    pub(super) fn start_call(&mut self) {
        self.refused = None;
    }

    /// Whose limit refused a growth since the call began, if one was.
    pub(super) fn refused(&self) -> Option<Refused> {
        self.refused
    }

    /// Whether so many bytes more fit, where one kind of them has come to `grown`; takes them from the tenant's.
    fn takes(&mut self, growth: usize, grown: usize) -> bool {
        if grown > self.limit_bytes {
            self.refused = Some(Refused::Own);
        } else if !self.tenant.take_plugin_bytes(growth) {
            self.refused = Some(Refused::Tenant);
        } else {
            return true;
        }
        false
    }
}

impl ResourceLimiter for Limiter {
    fn memory_growing(&mut self, current: usize, desired: usize, _: Option<usize>) -> wasmtime::Result<bool> {
        let growth = desired.saturating_sub(current);
        let grown = self.memory_bytes.saturating_add(growth);
        if !self.takes(growth, grown) {
            return Ok(false);
        }
        let before = self.bytes();
        self.memory_bytes = grown;
        self.last_growth = growth;
        self.total.change(before, self.bytes());
        Ok(true)
    }

    fn memory_grow_failed(&mut self, _: wasmtime::Error) -> wasmtime::Result<()> {
        let before = self.bytes();
        self.memory_bytes = self.memory_bytes.saturating_sub(self.last_growth);
        self.tenant.give_plugin_bytes(self.last_growth);
        self.last_growth = 0;
        self.total.change(before, self.bytes());
        self.refused = Some(Refused::Own);
        Ok(())
    }

    fn table_growing(&mut self, current: usize, desired: usize, _: Option<usize>) -> wasmtime::Result<bool> {
        let growth = desired.saturating_sub(current).saturating_mul(SLOT_BYTES);
        let grown = self.table_bytes.saturating_add(growth);
        if !self.takes(growth, grown) {
            return Ok(false);
        }
        let before = self.bytes();
        self.table_bytes = grown;
        self.total.change(before, self.bytes());
        Ok(true)
    }

    fn instances(&self) -> usize {
        PARTS_MAX
    }

    fn tables(&self) -> usize {
        PARTS_MAX
    }

    fn memories(&self) -> usize {
        PARTS_MAX
    }
}

impl Drop for Limiter {
    fn drop(&mut self) {
        self.total.change(self.bytes(), 0);
        self.tenant.give_plugin_bytes(self.bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::TenantConfig;

    #[test]
    fn many_memories_share_one_budget_and_a_failed_growth_is_given_back() {
        let mut limiter = Limiter::new(100, Arc::default(), "shop".into());
        assert!(limiter.memory_growing(0, 60, None).unwrap());
        assert!(!limiter.memory_growing(0, 60, None).unwrap());
        assert_eq!(limiter.refused(), Some(Refused::Own));
        limiter.start_call();
        assert!(limiter.memory_growing(0, 40, None).unwrap());
        limiter.memory_grow_failed(wasmtime::Error::msg("no room")).unwrap();
        assert!(limiter.memory_growing(60, 100, None).unwrap());
        assert!(limiter.table_growing(0, 12, None).unwrap());
        assert!(!limiter.table_growing(12, 13, None).unwrap());
    }

    #[test]
    fn plugins_of_a_tenant_share_a_budget_and_give_back_what_they_had() {
        let limits = TenantConfig { memory_bytes: Some(200), ..TenantConfig::default() };
        let tenant = Tenant::alone("shop", limits);
        let mut limiters = [(); 2].map(|()| Limiter::new(100, Arc::default(), tenant.clone()));
        assert!(limiters[0].memory_growing(0, 90, None).unwrap());
        assert!(limiters[1].table_growing(0, 7, None).unwrap());
        assert!(!limiters[1].memory_growing(0, 60, None).unwrap());
        assert_eq!(limiters[1].refused(), Some(Refused::Tenant));
        limiters[0].memory_grow_failed(wasmtime::Error::msg("no room")).unwrap();
        assert!(limiters[1].memory_growing(0, 60, None).unwrap());
        drop(limiters);
        assert_eq!(tenant.usage().plugin_bytes, 0);
    }

    #[test]
    fn what_all_instances_hold_is_added_up_and_goes_with_them() {
        let total: Arc<MemoryUse> = Arc::default();
        let mut limiters = [(); 2].map(|()| Limiter::new(100, Arc::clone(&total), "shop".into()));
        for limiter in &mut limiters {
            assert!(limiter.memory_growing(0, 60, None).unwrap());
            assert!(limiter.table_growing(0, 2, None).unwrap());
        }
        assert!(!limiters[0].memory_growing(0, 60, None).unwrap());
        assert_eq!(total.read(), (152, 76));
        limiters[1].memory_grow_failed(wasmtime::Error::msg("no room")).unwrap();
        assert_eq!(total.read(), (92, 76));
        drop(limiters);
        assert_eq!(total.read(), (0, 76));
    }
}
