//! Tenants: whose pipelines run in this process, and what they may use together.
//!
//! Comes in: the budgets of `tenants:`, and who uses what. Goes out: whether there is room, and how long to wait. Promises: a
//! pipeline draws on the budget of its tenant and on no other; what is given back is free at once; budgets may change while
//! pipelines run, and hold from then on. Nothing here waits or blocks: whoever asks decides what to do without room.

use std::{
    collections::BTreeMap,
    fmt,
    ops::Deref,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use tokio::sync::Notify;

use crate::config::{CPU_SHARE_DEFAULT, TenantConfig};
use rate::Rate;

mod rate;

/// The part of a tenant's memory that plugins may hold: the rest is left for records, so that those which wait for plugins are
/// not kept out by them for ever. In quarters.
const PLUGIN_QUARTERS: usize = 3;

/// All tenants of a process. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Tenants(Arc<Mutex<BTreeMap<Arc<str>, Tenant>>>);

/// One tenant: its name, and what all its pipelines use together. Cheap to clone.
#[derive(Clone)]
pub struct Tenant(Arc<Inner>);

/// What all clones share.
struct Inner {
    /// Its name.
    name: Arc<str>,
    /// What it may use.
    limits: Mutex<TenantConfig>,
    /// Bytes of memories and tables of its plugins.
    plugin_bytes: AtomicUsize,
    /// Bytes of its records in flight.
    flight_bytes: AtomicUsize,
    /// Files that are written now.
    open_files: AtomicUsize,
    /// Instances of plugins.
    instances: AtomicUsize,
    /// Nanoseconds that its plugins computed.
    computed: AtomicU64,
    /// Nanoseconds that calls of its plugins waited for a processor.
    waited: AtomicU64,
    /// What its sources read.
    read: Rate,
    /// What its plugins send away.
    sent: Rate,
    /// How often each limit was hit.
    hits: [AtomicU64; TenantLimit::ALL.len()],
    /// Told when bytes in flight are given back.
    freed: Notify,
}

/// A budget of a tenant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TenantLimit {
    /// Bytes in flight and of plugins.
    Memory,
    /// Files that are written at the same time.
    OpenFiles,
    /// Instances of plugins.
    PluginInstances,
    /// Bytes that sources read.
    BytesPerSecond,
    /// Bytes that plugins send away.
    EgressBytesPerSecond,
}

impl TenantLimit {
    /// All of them, in the order of their counters.
    pub const ALL: [Self; 5] =
        [Self::Memory, Self::OpenFiles, Self::PluginInstances, Self::BytesPerSecond, Self::EgressBytesPerSecond];

    /// The key in the configuration, and the metric label.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Memory => "memory",
            Self::OpenFiles => "open_files",
            Self::PluginInstances => "plugin_instances",
            Self::BytesPerSecond => "bytes_per_second",
            Self::EgressBytesPerSecond => "egress_bytes_per_second",
        }
    }
}

/// What a tenant uses at a moment, for its metrics.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TenantUse {
    /// Bytes of memories and tables of its plugins.
    pub plugin_bytes: usize,
    /// Bytes of its records in flight.
    pub flight_bytes: usize,
    /// Files that are written now.
    pub open_files: usize,
    /// Instances of plugins.
    pub instances: usize,
    /// How long its plugins have computed since the process began.
    pub plugin_computed: Duration,
    /// How long calls of its plugins have waited for a processor since, all together.
    pub plugin_waited: Duration,
    /// Bytes that its sources have read since the process began.
    pub read_bytes: u64,
    /// Bytes that its plugins have sent away since.
    pub sent_bytes: u64,
}

impl Tenants {
    /// What is known; a panic elsewhere leaves it usable.
    fn known(&self) -> MutexGuard<'_, BTreeMap<Arc<str>, Tenant>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The tenant of a name; one without limits where nothing was said of it.
    #[must_use]
    pub fn get(&self, name: &Arc<str>) -> Tenant {
        let mut known = self.known();
        known.entry(Arc::clone(name)).or_insert_with(|| Tenant::new(Arc::clone(name), TenantConfig::default())).clone()
    }

    /// Sets the budgets from now on. Who is not named has none.
    pub fn set(&self, budgets: &BTreeMap<Arc<str>, TenantConfig>) {
        for name in budgets.keys() {
            let _ = self.get(name);
        }
        for (name, tenant) in &*self.known() {
            *tenant.limits_mut() = budgets.get(name).copied().unwrap_or_default();
            // Who waits may have room now.
            tenant.0.freed.notify_waiters();
        }
    }

    /// All tenants.
    #[must_use]
    pub fn all(&self) -> Vec<Tenant> {
        self.known().values().cloned().collect()
    }
}

impl Tenant {
    /// A tenant that uses nothing yet.
    fn new(name: Arc<str>, limits: TenantConfig) -> Self {
        Self(Arc::new(Inner {
            name,
            limits: Mutex::new(limits),
            plugin_bytes: AtomicUsize::new(0),
            flight_bytes: AtomicUsize::new(0),
            open_files: AtomicUsize::new(0),
            instances: AtomicUsize::new(0),
            computed: AtomicU64::new(0),
            waited: AtomicU64::new(0),
            read: Rate::default(),
            sent: Rate::default(),
            hits: Default::default(),
            freed: Notify::new(),
        }))
    }

    /// A tenant that no other pipeline is of.
    #[must_use]
    pub fn alone(name: impl Into<Arc<str>>, limits: TenantConfig) -> Self {
        Self::new(name.into(), limits)
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &Arc<str> {
        &self.0.name
    }

    /// What it may use.
    #[must_use]
    pub fn limits(&self) -> TenantConfig {
        *self.limits_mut()
    }

    /// The same, to change it; a panic elsewhere leaves it usable.
    fn limits_mut(&self) -> MutexGuard<'_, TenantConfig> {
        self.0.limits.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What it uses now.
    #[must_use]
    pub fn usage(&self) -> TenantUse {
        let inner = &*self.0;
        TenantUse {
            plugin_bytes: inner.plugin_bytes.load(Ordering::Relaxed),
            flight_bytes: inner.flight_bytes.load(Ordering::Relaxed),
            open_files: inner.open_files.load(Ordering::Relaxed),
            instances: inner.instances.load(Ordering::Relaxed),
            plugin_computed: Duration::from_nanos(inner.computed.load(Ordering::Relaxed)),
            plugin_waited: Duration::from_nanos(inner.waited.load(Ordering::Relaxed)),
            read_bytes: inner.read.bytes(),
            sent_bytes: inner.sent.bytes(),
        }
    }

    /// A limit was hit.
    pub fn hit(&self, limit: TenantLimit) {
        if let Some(count) = self.0.hits.get(limit as usize) {
            count.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// How often a limit was hit.
    #[must_use]
    pub fn hits(&self, limit: TenantLimit) -> u64 {
        self.0.hits.get(limit as usize).map_or(0, |count| count.load(Ordering::Relaxed))
    }

    /// A plugin wants to hold so many bytes more; `false` when its tenant has no more for plugins.
    #[must_use]
    pub fn take_plugin_bytes(&self, bytes: usize) -> bool {
        let most = self.limits().memory_bytes.map_or(usize::MAX, |most| most / 4 * PLUGIN_QUARTERS);
        let fits = |held: usize| held.checked_add(bytes).filter(|held| *held <= most);
        let is_taken = self.0.plugin_bytes.fetch_update(Ordering::Relaxed, Ordering::Relaxed, fits).is_ok();
        if !is_taken {
            self.hit(TenantLimit::Memory);
        }
        is_taken
    }

    /// A plugin holds so many bytes less.
    pub fn give_plugin_bytes(&self, bytes: usize) {
        self.0.plugin_bytes.fetch_sub(bytes, Ordering::Relaxed);
        self.0.freed.notify_waiters();
    }

    /// Bytes in flight became more or fewer.
    pub(crate) fn flight_changed(&self, from: usize, to: usize) {
        if to >= from {
            self.0.flight_bytes.fetch_add(to - from, Ordering::Relaxed);
        } else {
            self.0.flight_bytes.fetch_sub(from - to, Ordering::Relaxed);
            self.0.freed.notify_waiters();
        }
    }

    /// Bytes in flight, and how many there may be; `None` where there is no limit.
    #[must_use]
    pub fn flight(&self) -> Option<(usize, usize)> {
        let most = self.limits().memory_bytes?;
        let used = self.0.flight_bytes.load(Ordering::Relaxed);
        Some((used, most.saturating_sub(self.0.plugin_bytes.load(Ordering::Relaxed))))
    }

    /// Returns when bytes were given back. Cancel-safe: what is given back after this call counts, not only what is after the
    /// first poll.
    pub(crate) fn freed(&self) -> impl Future<Output = ()> + Send {
        self.0.freed.notified()
    }

    /// Its sources have read so many bytes.
    pub(crate) fn note_read(&self, bytes: usize) {
        self.0.read.spend(bytes, self.limits().bytes_per_second, Instant::now());
    }

    /// How long its sources have to wait before they read more.
    #[must_use]
    pub fn read_pause(&self) -> Duration {
        self.0.read.pause(Instant::now())
    }

    /// A plugin wants to send bytes away: `false` when those before them have used up what may leave now. What is sent is sent
    /// whole, so one large message is possible, and the next one waits for it to be earned.
    #[must_use]
    pub fn send(&self, bytes: usize) -> bool {
        let (most, now) = (self.limits().egress_bytes_per_second, Instant::now());
        if most.is_some() && !self.0.sent.pause(now).is_zero() {
            self.hit(TenantLimit::EgressBytesPerSecond);
            return false;
        }
        self.0.sent.spend(bytes, most, now);
        true
    }

    /// What its plugins get of the processors where there is not enough for all.
    #[must_use]
    pub fn cpu_share(&self) -> u32 {
        self.limits().cpu_share.unwrap_or(CPU_SHARE_DEFAULT)
    }

    /// A plugin has computed for so long.
    pub(crate) fn computed(&self, took: Duration) {
        self.0.computed.fetch_add(u64::try_from(took.as_nanos()).unwrap_or(0), Ordering::Relaxed);
    }

    /// A call of a plugin has waited so long for a processor.
    pub(crate) fn waited_for_turn(&self, waited: Duration) {
        self.0.waited.fetch_add(u64::try_from(waited.as_nanos()).unwrap_or(0), Ordering::Relaxed);
    }

    /// Whether one more file may be opened, besides the one that each lane may always have.
    #[must_use]
    pub fn may_open_file(&self) -> bool {
        let most = self.limits().open_files.unwrap_or(usize::MAX);
        let may = self.0.open_files.load(Ordering::Relaxed) < most;
        if !may {
            self.hit(TenantLimit::OpenFiles);
        }
        may
    }

    /// A file is written from now on, until what is returned is dropped.
    #[must_use]
    pub fn open_file(&self) -> OpenFileGuard {
        self.0.open_files.fetch_add(1, Ordering::Relaxed);
        OpenFileGuard(self.clone())
    }

    /// Whether one more instance of a plugin may be started.
    #[must_use]
    pub fn may_start_instance(&self) -> bool {
        self.0.instances.load(Ordering::Relaxed) < self.limits().plugin_instances.unwrap_or(usize::MAX)
    }

    /// An instance was started (1) or is gone (-1).
    pub(crate) fn instances_changed(&self, by: isize) {
        if by >= 0 {
            self.0.instances.fetch_add(by.unsigned_abs(), Ordering::Relaxed);
        } else {
            self.0.instances.fetch_sub(by.unsigned_abs(), Ordering::Relaxed);
        }
    }
}

/// A file that is being written, in the count of its tenant.
#[derive(Debug)]
pub struct OpenFileGuard(Tenant);

impl Drop for OpenFileGuard {
    fn drop(&mut self) {
        self.0.0.open_files.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Deref for Tenant {
    type Target = str;

    fn deref(&self) -> &str {
        &self.0.name
    }
}

impl From<&str> for Tenant {
    fn from(name: &str) -> Self {
        Self::alone(name, TenantConfig::default())
    }
}

impl fmt::Debug for Tenant {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_tuple("Tenant").field(&self.0.name).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plugins_leave_a_quarter_of_the_memory_to_records_and_records_what_plugins_hold() {
        let limits = TenantConfig { memory_bytes: Some(400), ..TenantConfig::default() };
        let tenant = Tenant::alone("shop", limits);
        assert!(tenant.take_plugin_bytes(300));
        assert!(!tenant.take_plugin_bytes(1));
        assert_eq!(tenant.flight(), Some((0, 100)));
        tenant.flight_changed(0, 70);
        tenant.give_plugin_bytes(100);
        assert_eq!(tenant.flight(), Some((70, 200)));
        assert_eq!(tenant.hits(TenantLimit::Memory), 1);
        assert!(Tenant::from("free").take_plugin_bytes(usize::MAX));
    }

    #[test]
    fn budgets_change_while_pipelines_run_and_go_with_the_configuration() {
        let (tenants, name) = (Tenants::default(), Arc::from("shop"));
        let tenant = tenants.get(&name);
        let files: Vec<_> = (0..3).map(|_| tenant.open_file()).collect();
        assert!(tenant.may_open_file());
        let limits = TenantConfig { open_files: Some(3), plugin_instances: Some(1), ..TenantConfig::default() };
        tenants.set(&BTreeMap::from([(Arc::clone(&name), limits)]));
        assert!(!tenant.may_open_file() && tenant.may_start_instance());
        tenant.instances_changed(1);
        assert!(!tenant.may_start_instance());
        drop(files);
        assert!(tenant.may_open_file());
        tenants.set(&BTreeMap::new());
        assert!(tenant.may_start_instance());
        assert_eq!(tenant.usage(), TenantUse { instances: 1, ..TenantUse::default() });
    }

    #[test]
    fn a_message_leaves_whole_and_the_next_one_waits_for_it_to_be_earned() {
        let limits = TenantConfig { egress_bytes_per_second: Some(1000), ..TenantConfig::default() };
        let tenant = Tenant::alone("shop", limits);
        assert!(tenant.send(5000));
        assert!(!tenant.send(1));
        assert_eq!((tenant.usage().sent_bytes, tenant.hits(TenantLimit::EgressBytesPerSecond)), (5000, 1));
        assert!(Tenant::from("free").send(usize::MAX / 2));
    }
}
