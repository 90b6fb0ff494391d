//! Tenants: what their plugins may use together, and that others do not notice.

use fs_data_sink::{
    config::{PluginConfig, TenantConfig},
    plugin::LanePauses,
    tenant::{Tenant, TenantLimit},
};
use serde_json::json;

use crate::support::{assert_refused, batch, commit_of, hostile, limit_hits, numbers, open_of, rows, schema};

/// A plugin that works, with so much memory of its own.
fn honest(memory_bytes: usize) -> PluginConfig {
    let mut plugin = hostile(&json!({"crime": "keep-even", "column": 0}));
    plugin.limits.memory_bytes = memory_bytes;
    plugin
}

#[tokio::test]
async fn plugins_that_need_more_than_their_tenant_has_are_told_so_and_others_work() {
    let budget = TenantConfig { memory_bytes: Some(32 << 20), ..TenantConfig::default() };
    let poor = Tenant::alone("poor", budget);
    let output = commit_of(poor.clone(), "poor", json!({"crime": "allocate-for-ever"})).await;
    assert_refused(&output, "plugin-memory", "more memory than plugins of its tenant may have (tenants.poor.memory)");
    assert!(limit_hits("poor", "tenant_memory") > 0 && poor.hits(TenantLimit::Memory) > 0);
    assert!(poor.usage().plugin_bytes <= 24 << 20, "{:?}", poor.usage());
    let mut chain =
        open_of("rich".into(), "rich", &[honest(64 << 20)], schema(), LanePauses::detached()).await.unwrap();
    assert_eq!(numbers(rows(&chain.process(batch()).await.unwrap())), [0, 2, 4, 6, 8]);
    chain.close().await;
}

#[tokio::test]
async fn a_tenant_with_one_place_serves_three_plugins_in_turn() {
    let budget = TenantConfig { plugin_instances: Some(1), ..TenantConfig::default() };
    let tenant = Tenant::alone("small", budget);
    let mut chains = Vec::new();
    for _ in 0..3 {
        let plugin = [honest(64 << 20)];
        chains.push(open_of(tenant.clone(), "small", &plugin, schema(), LanePauses::detached()).await.unwrap());
    }
    for _ in 0..3 {
        for chain in &mut chains {
            assert_eq!(numbers(rows(&chain.process(batch()).await.unwrap())), [0, 2, 4, 6, 8]);
            assert_eq!(tenant.usage().instances, 1);
        }
    }
    assert!(tenant.hits(TenantLimit::PluginInstances) >= 8);
    assert_eq!(limit_hits("small", "instances"), 0, "nobody had to wait");
    drop(chains);
    assert_eq!((tenant.usage().instances, tenant.usage().plugin_bytes), (0, 0));
}
