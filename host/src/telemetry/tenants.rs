//! What tenants use of their budgets, as metrics with the label `tenant`. Read when somebody asks.

use std::time::Duration;

use opentelemetry::{KeyValue, global};

use crate::{
    config::TenantConfig,
    tenant::{Tenant, TenantLimit, TenantUse, Tenants},
};

/// What is in use now: a name, its value, and its limit, which has the name and `_limit`.
type Gauge = (&'static str, &'static str, fn(&TenantUse) -> usize, fn(&TenantConfig) -> Option<usize>);

/// What was counted since the process began.
type Count = (&'static str, fn(&TenantUse) -> u64);

/// In use now.
const GAUGES: [Gauge; 3] = [
    (
        "fs_data_sink.tenant_memory_bytes",
        "fs_data_sink.tenant_memory_bytes_limit",
        |usage| usage.plugin_bytes.saturating_add(usage.flight_bytes),
        |budget| budget.memory_bytes,
    ),
    (
        "fs_data_sink.tenant_open_files",
        "fs_data_sink.tenant_open_files_limit",
        |usage| usage.open_files,
        |budget| budget.open_files,
    ),
    (
        "fs_data_sink.tenant_plugin_instances",
        "fs_data_sink.tenant_plugin_instances_limit",
        |usage| usage.instances,
        |budget| budget.plugin_instances,
    ),
];

/// Counted since the process began.
const COUNTERS: [Count; 2] = [
    ("fs_data_sink.tenant_source_bytes", |usage| usage.read_bytes),
    ("fs_data_sink.tenant_egress_bytes", |usage| usage.sent_bytes),
];

/// A time since the process began.
type Time = (&'static str, fn(&TenantUse) -> Duration);

/// Seconds since the process began.
const TIMES: [Time; 2] = [
    ("fs_data_sink.tenant_plugin_cpu_seconds", |usage| usage.plugin_computed),
    ("fs_data_sink.tenant_plugin_cpu_wait_seconds", |usage| usage.plugin_waited),
];

/// Makes the metrics of tenants known, once a process, behind [`super::start`].
pub fn observe(tenants: &Tenants) {
    let meter = global::meter("fs_data_sink");
    let label = |tenant: &Tenant| KeyValue::new("tenant", tenant.name().to_string());
    for (name, limit_name, value, limit) in GAUGES {
        let known = tenants.clone();
        let in_use = meter.u64_observable_gauge(name).with_callback(move |observer| {
            known.all().iter().for_each(|one| observer.observe(value(&one.usage()) as u64, &[label(one)]));
        });
        let known = tenants.clone();
        let limits = meter.u64_observable_gauge(limit_name).with_callback(move |observer| {
            for one in known.all() {
                if let Some(most) = limit(&one.limits()) {
                    observer.observe(most as u64, &[label(&one)]);
                }
            }
        });
        // They live in the meter.
        let _ = (in_use.build(), limits.build());
    }
    for (name, value) in COUNTERS {
        let known = tenants.clone();
        let counter = meter.u64_observable_counter(name).with_callback(move |observer| {
            known.all().iter().for_each(|one| observer.observe(value(&one.usage()), &[label(one)]));
        });
        let _ = counter.build();
    }
    for (name, value) in TIMES {
        let known = tenants.clone();
        let counter = meter.f64_observable_counter(name).with_callback(move |observer| {
            known.all().iter().for_each(|one| observer.observe(value(&one.usage()).as_secs_f64(), &[label(one)]));
        });
        let _ = counter.build();
    }
    let known = tenants.clone();
    let hits = meter.u64_observable_counter("fs_data_sink.tenant_limit_hits").with_callback(move |observer| {
        for one in known.all() {
            // Those that were ever hit: five series for each of hundreds of tenants would say nothing.
            for limit in TenantLimit::ALL.into_iter().filter(|limit| one.hits(*limit) > 0) {
                observer.observe(one.hits(limit), &[label(&one), KeyValue::new("limit", limit.as_str())]);
            }
        }
    });
    let _ = hits.build();
}
