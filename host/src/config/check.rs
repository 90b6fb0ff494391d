//! From a tree to checked types: one file a section, pure but for looking at plugin files.
//!
//! Every function goes on after a fault with a value that keeps the rest readable, so that all faults come at once.

use std::{collections::BTreeSet, path::Path, sync::Arc, time::Duration};

use super::{
    Delivery, ErrorHandling, LISTEN_DEFAULT, LogFormat, PipelineConfig, RunConfig, SourceKind, TENANT_DEFAULT,
    TelemetryConfig,
    fault::Place,
    reader::Section,
    value::{boolean, choice, count, count_up_to, http_url, listen_address, log_level, positive_duration, size},
};

mod cloud;
mod columns;
mod dead_letter;
mod decode;
mod download;
mod grants;
mod hdfs;
mod kafka;
mod plugin;
mod redis;
mod signature;
mod sink;
mod source;
mod tenants;
mod tls;

pub(super) use tenants::{Tenants, check as pipeline_tenant, merge as merge_tenants, read as tenants};

/// Longest time between two commits: a position that is older is hard to reason about after a crash.
const COMMIT_INTERVAL_MAX: Duration = Duration::from_secs(24 * 3_600);

/// Less would not hold one batch of each lane.
const MEMORY_BYTES_MIN: usize = 32 << 20;

/// Lanes are worth as many as there are cores, and a large machine has some hundreds.
const LANES_MAX: usize = 256;

/// One pipeline; its paths are relative to `folder`. `name` is what it is called unless it says so itself.
pub(super) fn pipeline(top: &Section<'_>, name: &str, folder: &Path) -> Option<PipelineConfig> {
    let own_name = top.text("name");
    let is_own = own_name.is_some();
    let name = own_name.unwrap_or_else(|| name.to_owned());
    check_name(top, "name", &name, is_own);
    let tenant = top.text("tenant").unwrap_or_else(|| TENANT_DEFAULT.to_owned());
    check_name(top, "tenant", &tenant, true);
    let pipeline = top.section("pipeline");
    let (mut source, values) = source::read(top.section("source"), &pipeline, folder);
    let decode = decode::read(top.section("schema"), values);
    let plugins: Vec<_> = top
        .sections("plugins")
        .into_iter()
        .enumerate()
        .filter_map(|(at, (key, section))| plugin::read(section, key, at, folder, &tenant))
        .collect();
    let mut names = BTreeSet::new();
    for (place, plugin) in &plugins {
        if !names.insert(Arc::clone(&plugin.name)) {
            let message = format!("a second plugin is called {:?}; give each a `name` of its own", plugin.name);
            top.fault_at(place, "plugins", message);
        }
    }
    // Plugins may add, change and drop columns, so nothing is known behind them.
    let has_plugins = top.node("plugins").is_some_and(|_| !top.sections("plugins").is_empty());
    let columns = if has_plugins { None } else { columns::known(&decode) };
    let sink = sink::read(top.section("sink"), folder, columns.as_ref());
    let mut run = run(pipeline, source.as_ref().and_then(|source| without_positions(&source.kind)));
    if let (Some(SourceKind::Redis(redis)), Some(sink)) = (source.as_mut().map(|source| &mut source.kind), &sink) {
        run.until_end = !redis.is_continuous;
        redis.scope = redis::scope(&sink.kind);
    }
    let kafka = source.as_ref().and_then(|source| match &source.kind {
        SourceKind::Kafka(kafka) => Some(kafka),
        SourceKind::Redis(_) | SourceKind::File(_) | SourceKind::Letters(_) => None,
    });
    let retry_timeout = sink.as_ref().map(|sink| sink.retry_timeout).unwrap_or_default();
    let dead_letter = dead_letter::read(top.section("dead_letter"), kafka, retry_timeout);
    let plugins = plugins.into_iter().map(|(_, plugin)| Arc::new(plugin)).collect();
    Some(PipelineConfig {
        name: name.into(),
        tenant: tenant.into(),
        source: source?,
        decode,
        plugins,
        sink: sink?,
        run,
        dead_letter,
    })
}

/// A name that becomes folders and metric labels.
fn check_name(top: &Section<'_>, key: &str, name: &str, is_own: bool) {
    let is_legal = |character: char| character.is_alphanumeric() || "-_.".contains(character);
    if name.is_empty() || name.len() > 100 || !name.chars().all(is_legal) || name.starts_with('.') {
        let origin = if is_own { "" } else { " (it comes from the file's name; set `name`)" };
        top.fault(
            key,
            format!(
                "{name:?} names folders and metrics{origin}: expected 1 to 100 letters, digits, `-`, `_` and `.`, not \
                 first a `.`"
            ),
        );
    }
}

/// What of a source has no positions to go back to, so that it can be read at least once only, in words.
fn without_positions(kind: &SourceKind) -> Option<&'static str> {
    match kind {
        SourceKind::File(files) if files.paths.iter().any(|path| path == "-") => {
            Some("standard input has no positions to go back to: at_least_once is what it serves")
        }
        SourceKind::Redis(redis) if !redis.list_keys.is_empty() => Some(
            "lists of Redis have no positions to go back to: at_least_once is what they serve; streams can be read \
             exactly_once, in a pipeline without `list_keys`",
        ),
        SourceKind::Kafka(_) | SourceKind::File(_) | SourceKind::Redis(_) | SourceKind::Letters(_) => None,
    }
}

/// When files are finished, and what may be in flight. `without_positions` is why it cannot be exactly once.
fn run(section: Section<'_>, without_positions: Option<&str>) -> RunConfig {
    let deliveries = [("exactly_once", Delivery::ExactlyOnce), ("at_least_once", Delivery::AtLeastOnce)];
    let usual = if without_positions.is_some() { Delivery::AtLeastOnce } else { Delivery::ExactlyOnce };
    let delivery = section.get_or("delivery", usual, |text| match (choice(text, &deliveries)?, without_positions) {
        (Delivery::ExactlyOnce, Some(reason)) => Err(reason.to_owned()),
        (delivery, _) => Ok(delivery),
    });
    let choices = [("log", ErrorHandling::Log), ("raise", ErrorHandling::Raise), ("ignore", ErrorHandling::Ignore)];
    let lanes = section.get("lanes", |text| match text {
        "auto" => Ok(None),
        _ => count_up_to(LANES_MAX)(text).map(Some),
    });
    let run = RunConfig {
        delivery,
        commit_interval: commit_interval(&section),
        commit_interval_batches: section.get("flush_interval_batches", count).map(|batches| batches as u64),
        target_file_size_bytes: section.get_or("target_file_size", 128 << 20, size),
        target_file_rows: section.get("target_file_rows", count).map(|rows| rows as u64),
        open_files_max: section.get_or("open_files_max", 256, count),
        memory_bytes: section.get_or("memory", 512 << 20, |text| match size(text)? {
            bytes if bytes < MEMORY_BYTES_MIN => Err(format!("{text} is too little; at least 32MiB")),
            bytes => Ok(bytes),
        }),
        lanes: lanes.flatten(),
        error_handling: section.get_or("error_handling", ErrorHandling::Log, |text| choice(text, &choices)),
        batches_max: section.get("max_batches", count).map(|batches| batches as u64),
        until_end: false,
        shutdown_timeout: section.get_or("shutdown_timeout", Duration::from_secs(30), positive_duration),
    };
    section.finish();
    run
}

/// `commit_interval`, or its name in the original.
fn commit_interval(section: &Section<'_>) -> Duration {
    let bounded = |text: &str| match positive_duration(text)? {
        interval if interval > COMMIT_INTERVAL_MAX => Err(format!("{text} is too long; at most 24h")),
        interval => Ok(interval),
    };
    let interval = section.get("commit_interval", bounded);
    let old = section.get("flush_interval_seconds", bounded);
    if let (Some(interval), Some(old)) = (interval, old)
        && interval != old
    {
        section.fault(
            "flush_interval_seconds",
            format!("means the same as commit_interval, which says {interval:?} and not {old:?}; leave one out"),
        );
    }
    interval.or(old).unwrap_or(Duration::from_secs(60))
}

/// Logs, metrics and traces, and where they are configured, if they are.
pub(super) fn telemetry(section: Section<'_>) -> (TelemetryConfig, Option<Place>) {
    let place = section.is_there().then(|| section.place().clone());
    let formats = [("json", LogFormat::Json), ("text", LogFormat::Text)];
    let config = TelemetryConfig {
        log_level: section.get_or("log_level", "INFO".to_owned(), log_level),
        log_format: section.get_or("log_format", LogFormat::Json, |text| choice(text, &formats)),
        enabled: section.get_or("enabled", false, boolean),
        service_name: section.text("service_name").unwrap_or_else(|| "fs-data-sink".to_owned()),
        otlp_endpoint: section.get("otlp_endpoint", |text| http_url(text, "http://localhost:4317")),
        trace_enabled: section.get_or("trace_enabled", true, boolean),
        metrics_enabled: section.get_or("metrics_enabled", true, boolean),
        listen: section.get_or("listen", Some(LISTEN_DEFAULT), listen_address),
    };
    section.finish();
    (config, place)
}
