//! `tenants`: what the pipelines of each tenant may use together; and whether pipelines are of tenants that there are.

use std::{collections::BTreeMap, sync::Arc};

use super::{MEMORY_BYTES_MIN, check_name, plugin};
use crate::config::{
    CPU_SHARE_DEFAULT, CPU_SHARE_MAX, PipelineConfig, PluginConfig, PluginLimits, TenantConfig,
    fault::{Collector, Place, hint_or_stop},
    reader::Section,
    value::{boolean, count, size},
};

/// Tenants by name, with the place where each is described.
pub(in crate::config) type Tenants = BTreeMap<Arc<str>, (Place, TenantConfig)>;

/// The tenants that a file describes.
pub(in crate::config) fn read(top: &Section<'_>) -> Tenants {
    let mut tenants = Tenants::new();
    for (name, section) in top.sections("tenants") {
        let Some(name) = name else {
            top.fault("tenants", "expected keys and values, a tenant's budgets under its name, found a list");
            break;
        };
        check_name(top, "tenants", name, true);
        tenants.insert(name.into(), (section.place().clone(), budgets(section)));
    }
    tenants
}

/// The budgets of one tenant.
fn budgets(section: Section<'_>) -> TenantConfig {
    let limits = section.section("limits");
    let budgets = TenantConfig {
        memory_bytes: section.get("memory", |text| match size(text)? {
            bytes if bytes < MEMORY_BYTES_MIN => Err(format!("{text} is too little; at least 32MiB")),
            bytes => Ok(bytes),
        }),
        open_files: section.get("open_files", count),
        plugin_instances: section.get("plugin_instances", count),
        cpu_share: section.get("cpu_share", |text| match count(text)? {
            share if share <= CPU_SHARE_MAX as usize => Ok(u32::try_from(share).unwrap_or(CPU_SHARE_MAX)),
            _ => Err(format!("{text} is too much; 1 to {CPU_SHARE_MAX}, {CPU_SHARE_DEFAULT} for who says nothing")),
        }),
        bytes_per_second: section.get("bytes_per_second", size),
        egress_bytes_per_second: section.get("egress_bytes_per_second", size),
        plugin_limits: section.has("limits").then(|| plugin::limits(limits, PluginLimits::none()).0),
        is_untrusted: section.get_or("untrusted", false, boolean),
    };
    section.finish();
    budgets
}

/// Takes the tenants of one file to those of the files before.
pub(in crate::config) fn merge(known: &mut Tenants, own: &Tenants, faults: &Collector) {
    for (name, (place, budgets)) in own {
        match known.get(name) {
            Some((first, _)) => {
                let message = format!("{name} is described at {first} already; say its budgets once");
                faults.add(place, "tenants", message);
            }
            None => drop(known.insert(Arc::clone(name), (place.clone(), *budgets))),
        }
    }
}

/// Whether a pipeline is of a tenant that there is, and keeps to what is asked of that; what its plugins have not asked for is lowered
/// to what the tenant allows. `unread` is a file that is wrong and describes tenants: without its word a pipeline might run beyond its
/// budget.
pub(in crate::config) fn check(
    place: &Place,
    pipeline: &mut PipelineConfig,
    tenants: &Tenants,
    unread: Option<&str>,
    faults: &Collector,
) {
    // Whether a limit was written matters here for the last time.
    let take = |plugin: &mut Arc<PluginConfig>| std::mem::take(&mut Arc::make_mut(plugin).limits_written);
    let written: Vec<_> = pipeline.plugins.iter_mut().map(take).collect();
    let tenant = Arc::clone(&pipeline.tenant);
    if let (None, Some(file)) = (tenants.get(&tenant), unread) {
        faults.add(place, "tenant", format!("{tenant} may be described in {file}, which is wrong: mend that first"));
        return;
    }
    // Who describes none has labels and no budgets.
    if tenants.is_empty() {
        return;
    }
    let Some((described, budgets)) = tenants.get(&tenant) else {
        let hint = hint_or_stop(&tenant, tenants.keys().map(|name| &**name));
        faults.add(
            place,
            "tenant",
            format!("{tenant} is not among `tenants`, where its budgets belong (`{tenant}: {{}}` sets none){hint}"),
        );
        return;
    };
    if let Some(most) = &budgets.plugin_limits {
        for (plugin, written) in pipeline.plugins.iter_mut().zip(&written) {
            let plugin = Arc::make_mut(plugin);
            for (key, own, allowed) in plugin.limits.keep_within(written, *most) {
                let message = format!("{own} is more than {tenant} may have ({described}: limits.{key}): {allowed}");
                faults.add(place, &format!("plugins: {}: limits.{key}", plugin.name), message);
            }
        }
    }
    if !budgets.is_untrusted {
        return;
    }
    for plugin in pipeline.plugins.iter().filter(|plugin| !plugin.is_pinned()) {
        let digest = match &plugin.download {
            None => format!("the digest of its file, as `sha256sum {}` prints it", plugin.path.display()),
            Some(download) => format!("the digest of what {} gives, or of an oci:// artifact", download.location),
        };
        let message =
            format!("is missing: {tenant} is `untrusted` ({described}), so each of its plugins names {digest}");
        faults.add(place, &format!("plugins: {}: sha256", plugin.name), message);
    }
    for plugin in pipeline.private_downloads() {
        let message = format!(
            "is not for {tenant}, which is `untrusted` ({described}): the host would ask its own network on a stranger's word"
        );
        faults.add(place, &format!("plugins: {plugin}: download: allow_private"), message);
    }
}
