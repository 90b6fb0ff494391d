//! Each limit of a plugin, hit: the message names its key, and `fs_data_sink.plugin_limit_hits` counts it.

use std::{fmt::Write as _, sync::Arc, time::Duration};

use arrow_array::{ArrayRef, DictionaryArray, RecordBatch, types::Int32Type};
use fs_data_sink::{
    config::{PluginConfig, PluginLimits},
    error::Verdict,
    plugin::{FlushReason, LanePauses, Pauses},
    telemetry::{Health, PipelineState, metrics::Metrics},
};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use crate::{
    made::{Made, WASI, file},
    support::{
        ENGINE, assert_refused, batch, hostile, limit_hits, metric, numbers, open, open_in, rows, run, schema,
        schema_stream, stream,
    },
};

/// A crime under changed limits.
fn limited(crime: &Value, change: impl FnOnce(&mut PluginLimits)) -> PluginConfig {
    let mut plugin = hostile(crime);
    plugin.limits.call_timeout = Duration::from_secs(20);
    change(&mut plugin.limits);
    plugin
}

/// Runs a plugin over one batch in a pipeline of its own; the batch is refused in these words, and the limit is counted.
async fn hits(limit: &str, plugin: PluginConfig, code: &str, words: &str) {
    let pipeline = format!("limit-{limit}");
    let mut chain = open_in(&pipeline, &[plugin], schema(), LanePauses::detached()).await.unwrap();
    assert_refused(&chain.process(batch()).await.unwrap(), code, words);
    // Once a try.
    assert!(limit_hits(&pipeline, limit) >= 2, "{limit}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_million_calls_of_the_host_end_the_call() {
    let many = json!({"crime": "many-metrics", "times": 1_000_000});
    let words = "called the host more than 100000 times (limits.host_calls) in `process`";
    hits("host_calls", limited(&many, |_| {}), "plugin-host-calls", words).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn calls_of_wasi_are_counted_as_well() {
    let imports = r#"(import "wasi:clocks/monotonic-clock@0.2.12" "now" (func $now (result i64)))"#;
    let describe = "(loop $l (drop (call $now)) br $l) unreachable";
    let made = Made { describe, imports, wit: WASI, world: "with-wasi", ..Made::default() };
    let (mut plugin, _folder) = made.plugin();
    plugin.limits.call_timeout = Duration::from_secs(20);
    let message = run(plugin).await.unwrap_err().to_string();
    assert!(message.contains("called the host more than 100000 times (limits.host_calls) in `describe`"), "{message}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bytes_that_the_host_copies_are_counted_over_the_whole_call() {
    let words = "made the host copy more than 1000000 bytes (limits.host_call_bytes) in `process`";
    let log = json!({"crime": "log-for-ever", "times": 10_000});
    let few = |limits: &mut PluginLimits| limits.host_call_bytes = 1_000_000;
    hits("host_call_bytes", limited(&log, few), "plugin-host-calls", words).await;
    let read = json!({"crime": "read-for-ever"});
    hits("host_call_bytes", limited(&read, few), "plugin-host-calls", words).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn answers_are_bounded_in_rows_bytes_and_what_dictionaries_stand_for() {
    let answer = |rows: &RecordBatch| {
        json!({"crime": "answer", "output_schema": schema_stream(rows.schema_ref()), "payload": "replace",
               "stream": stream(rows)})
    };
    let few = answer(&batch().rows);
    let words = "answered more than 9 rows (limits.output_rows)";
    hits("output_rows", limited(&few, |limits| limits.output_rows = 9), "plugin-bad-output", words).await;
    let words = "answered more than 100 bytes (limits.output_bytes)";
    hits("output_bytes", limited(&few, |limits| limits.output_bytes = 100), "plugin-bad-output", words).await;
    // 100 keys of 10,000 bytes: 10 KB as sent, 1 MB unpacked.
    let value = "x".repeat(10_000);
    let keys: DictionaryArray<Int32Type> = (0..100).map(|_| Some(value.as_str())).collect();
    let packed = answer(&RecordBatch::try_from_iter([("d", Arc::new(keys) as ArrayRef)]).unwrap());
    let words = "answered more than 999999 bytes, with dictionaries and views unpacked (limits.output_logical_bytes)";
    let tight = limited(&packed, |limits| limits.output_logical_bytes = 999_999);
    hits("output_logical_bytes", tight, "plugin-bad-output", words).await;
    let wide = limited(&packed, |limits| limits.output_logical_bytes = 1_000_000);
    assert_eq!(rows(&run(wide).await.unwrap()).num_rows(), 100);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rejections_and_the_rows_in_them_are_bounded() {
    let all = json!({"crime": "reject-every-row"});
    let words = "answered 10 rejections; it may answer 9 (limits.rejections)";
    hits("rejections", limited(&all, |limits| limits.rejections = 9), "plugin-bad-output", words).await;
    let words = "refused 10 of 10 rows; it may refuse 9 (limits.rejected_rows)";
    hits("rejected_rows", limited(&all, |limits| limits.rejected_rows = 9), "plugin-bad-output", words).await;
    let output = run(limited(&all, |_| {})).await.unwrap();
    assert_eq!(output.rejected.len(), 10);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_error_of_100_mb_ends_the_call() {
    let long = json!({"crime": "long-error", "times": 10 << 20});
    let plugin = limited(&long, |limits| limits.memory_bytes = 512 << 20);
    hits("output_bytes", plugin, "plugin-bad-output", "handed the host more than 2097152 bytes in `process`").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn memory_in_use_and_its_peak_are_gauges() {
    let mut chain = open_in("memory", &[hostile(&json!({}))], schema(), LanePauses::detached()).await.unwrap();
    assert_eq!(rows(&chain.process(batch()).await.unwrap()).num_rows(), 10);
    let gauge = |name: &str| metric(name, "memory", ("plugin", "hostile")).unwrap();
    let (now, peak) = (gauge("fs_data_sink_plugin_memory_bytes"), gauge("fs_data_sink_plugin_memory_peak_bytes"));
    assert!((65_536..64_000_000).contains(&now) && peak >= now, "{now} now, {peak} at most");
    let hoarder = limited(&json!({"crime": "allocate-for-ever"}), |_| {});
    hits("memory", hoarder, "plugin-memory", "needed more memory than it may have (limits.memory) in `process`").await;
    let gauge = |name: &str| metric(name, "limit-memory", ("plugin", "hostile")).unwrap();
    assert!(gauge("fs_data_sink_plugin_memory_peak_bytes") > 60_000_000);
    assert!(gauge("fs_data_sink_plugin_memory_bytes") < 1_000_000, "it is gone");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_logged_too_much_is_counted_once_in_a_row() {
    let log = json!({"crime": "log-for-ever", "times": 1000});
    let plugin = limited(&log, |limits| limits.log_bytes_per_second = 2000);
    let mut chain = open_in("logs", &[plugin], schema(), LanePauses::detached()).await.unwrap();
    assert_eq!(rows(&chain.process(batch()).await.unwrap()).num_rows(), 10);
    assert!((1..100).contains(&limit_hits("logs", "log_bytes_per_second")));
    let names = json!({"crime": "many-metrics", "times": 100});
    let mut chain = open_in("names", &[hostile(&names)], schema(), LanePauses::detached()).await.unwrap();
    assert_eq!(rows(&chain.process(batch()).await.unwrap()).num_rows(), 10);
    // 36 names too many, and 100 that are none.
    assert_eq!(limit_hits("names", "metric_names"), 136);
}

#[test]
fn a_component_that_is_too_large_is_refused_before_it_is_compiled() {
    let (mut plugin, _folder) = file(&Made::default().component());
    plugin.limits.component_bytes = 1000;
    let message = ENGINE.load(&Arc::new(plugin)).unwrap_err().full_message();
    assert!(message.ends_with("made.wasm has more than 1000 bytes (limits.component_bytes)"), "{message}");
}

/// Says that it holds rows, takes a batch, and answers nothing to `flush`.
fn holder() -> (PluginConfig, tempfile::TempDir) {
    let imports = r#"(import "fs-data-sink:plugin/batches@0.1.0" "[resource-drop]batch" (func $drop (param i32)))"#;
    let process = "(call $drop (local.get 0)) i32.const 0";
    let made = Made {
        describe: "i32.const 512",
        open: "i32.const 0",
        process,
        flush: "i32.const 0",
        imports,
        ..Made::default()
    };
    made.plugin()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_instance_too_many_takes_the_place_of_an_idle_one() {
    let mut plugin = hostile(&json!({"crime": "keep-even", "column": 0}));
    plugin.limits.instances = 2;
    let loaded = Arc::new(ENGINE.load(&Arc::new(plugin)).unwrap());
    let mut chains = Vec::new();
    for _ in 0..5 {
        let context = context("idle", LanePauses::detached());
        chains.push(fs_data_sink::plugin::Chain::open(&[Arc::clone(&loaded)], schema(), context).await.unwrap());
    }
    for _ in 0..3 {
        for chain in &mut chains {
            assert_eq!(numbers(rows(&chain.process(batch()).await.unwrap())), [0, 2, 4, 6, 8]);
        }
    }
    assert_eq!(limit_hits("idle", "instances"), 0, "nobody had to wait");
}

/// Where a chain runs that shares its plugin with others.
fn context(pipeline: &str, pauses: LanePauses) -> fs_data_sink::plugin::ChainContext {
    let metrics = Metrics::new(pipeline, "test", "test", "test");
    fs_data_sink::plugin::ChainContext { pipeline: pipeline.into(), tenant: "test".into(), lane: 0, metrics, pauses }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_instance_too_many_waits_in_words_while_all_hold_rows() {
    let (mut plugin, _folder) = holder();
    plugin.limits.instances = 1;
    drop(open(&[]).await);
    let loaded = Arc::new(ENGINE.load(&Arc::new(plugin)).unwrap());
    let health = Health::default();
    health.set_pipeline("full", PipelineState::Running);
    let pauses = Pauses::new("full".into(), health.clone(), Metrics::new("full", "test", "test", "test"));
    for is_stopped in [false, true] {
        let open = |stop: &CancellationToken| {
            let (plugins, context) = ([Arc::clone(&loaded)], context("full", pauses.lane(stop.clone())));
            async move { fs_data_sink::plugin::Chain::open(&plugins, schema(), context).await }
        };
        let stop = CancellationToken::new();
        let mut first = open(&stop).await.unwrap();
        assert_eq!(rows(&first.process(batch()).await.unwrap()).num_rows(), 10);
        let second = tokio::spawn(open(&stop));
        while health.is_ready() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        let states = health.states();
        let PipelineState::Waiting(words) = &states["full"] else { panic!("{states:?}") };
        assert!(words.starts_with("plugin hostile waits for a place: 1 instances of it (limits.instances)"), "{words}");
        assert!(!second.is_finished());
        assert!(limit_hits("full", "instances") >= 1);
        if is_stopped {
            stop.cancel();
            let error = second.await.unwrap().unwrap_err();
            assert_eq!(error.verdict(), Verdict::Restart);
            assert_eq!(error.to_string(), "stopped while plugin hostile had no place for an instance");
        } else {
            // A commit brings the rows out, and then the place is free.
            first.flush(FlushReason::Checkpoint).await.unwrap();
            second.await.unwrap().unwrap();
        }
        assert!(health.is_ready());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn more_chains_than_the_process_has_places_work_in_turns() {
    let (plugin, _folder) = holder();
    let loaded = Arc::new(ENGINE.load(&Arc::new(plugin)).unwrap());
    let mut chains = Vec::new();
    for _ in 0..600 {
        let context = context("pool", LanePauses::detached());
        chains.push(fs_data_sink::plugin::Chain::open(&[Arc::clone(&loaded)], schema(), context).await.unwrap());
    }
    for chain in &mut chains {
        assert_eq!(rows(&chain.process(batch()).await.unwrap()).num_rows(), 10);
        chain.flush(FlushReason::Checkpoint).await.unwrap();
    }
}

/// A component with so many core modules of one memory each.
fn many_memories(count: u32, pages: u32) -> Vec<u8> {
    let mut text = String::from("(component");
    for number in 0..count {
        let _ = write!(text, "(core module $m{number} (memory {pages})) (core instance (instantiate $m{number}))");
    }
    text.push(')');
    wat::parse_str(text).unwrap()
}

#[test]
fn more_memories_than_a_component_may_have_are_refused_at_load() {
    let (plugin, _folder) = file(&many_memories(5, 1));
    let message = ENGINE.load(&Arc::new(plugin)).unwrap_err().full_message();
    assert!(message.contains("memor") && message.contains('4'), "{message}");
}
