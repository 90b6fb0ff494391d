//! A place for the next instance; while there is none the lane waits, in words, and no batch is lost for it.

use std::{future::Future, sync::Arc, time::Instant};

use crate::plugin::{
    ChainContext,
    component::LoadedPlugin,
    failure::{CallError, Limit},
    instance::Instance,
    pause::PauseKind,
    places::Place,
};

/// A place for an instance of a plugin.
pub(in crate::plugin) async fn place(
    context: &ChainContext,
    plugin: &Arc<LoadedPlugin>,
) -> Result<Place<Instance>, CallError> {
    let shared = plugin.shared();
    match shared.places.try_take(shared.owner, &context.tenant) {
        Some(place) => Ok(place),
        None => wait_for(context, plugin, shared.places.take(shared.owner, &context.tenant)).await,
    }
}

/// Waits until something else has gone, after a place alone was not enough.
pub(super) async fn wait_for_room(context: &ChainContext, plugin: &Arc<LoadedPlugin>) -> Result<(), CallError> {
    wait_for(context, plugin, plugin.shared().places.wait_for_room()).await
}

/// Waits for room, and says so.
async fn wait_for<T>(
    context: &ChainContext,
    plugin: &Arc<LoadedPlugin>,
    room: impl Future<Output = T>,
) -> Result<T, CallError> {
    let config = plugin.config();
    let of_tenant = context.tenant.limits().plugin_instances.map_or_else(String::new, |most| {
        format!("{most} of its tenant (tenants.{}.plugin_instances), ", &*context.tenant)
    });
    let words = format!(
        "waits for a place: {} instances of it (limits.instances), {of_tenant}or all that the process can hold are at work \
         or hold rows",
        config.limits.instances
    );
    context.metrics.plugin_limit_hit(&config.name, Limit::Instances.as_str());
    tracing::warn!(
        plugin = &*config.name,
        pipeline = &*context.pipeline,
        tenant = &*context.tenant,
        lane = context.lane,
        "the plugin {words}"
    );
    let since = Instant::now();
    let _pause = context.pauses.begin(&config.name, PauseKind::Place, &words).await;
    let stop = context.pauses.stop();
    let found = tokio::select! {
        biased;
        found = room => Ok(found),
        () = stop.cancelled() => {
            Err(CallError::Stopped(format!("stopped while plugin {} had no place for an instance", config.name)))
        }
    };
    context.metrics.waited("plugin-instances", since.elapsed().as_secs_f64());
    found
}
