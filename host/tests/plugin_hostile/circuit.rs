//! Batch after batch on which a plugin fails: the lane waits with the last of them, and goes on by itself. And batches
//! that are split, so that only the rows are refused on which it fails.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use arrow_array::{Int64Array, RecordBatch};
use fs_data_sink::{
    batch::{DecodedBatch, Origin, Rejection},
    config::{OnReject, PluginConfig},
    error::Verdict,
    plugin::{ChainOutput, LanePauses, Pauses},
    telemetry::{Health, PipelineState, metrics::Metrics},
};
use serde_json::json;
use tokio_util::sync::CancellationToken;

use crate::{
    made::Made,
    support::{assert_refused, batch, hostile, limit_hits, metric, numbers, open, open_in, rows, run, schema},
};

/// Fails on the batches 0 to 4, up to the sixth try of each; the circuit opens at the fifth batch.
fn fails_for_a_while() -> PluginConfig {
    hostile(&json!({"crime": "trap-up-to", "batch": 4, "attempt": 7}))
}

/// Pauses of a pipeline of its own.
fn pauses(pipeline: &str) -> (Health, CancellationToken, LanePauses) {
    let (health, stop) = (Health::default(), CancellationToken::new());
    health.set_pipeline(pipeline, PipelineState::Running);
    let pauses = Pauses::new(pipeline.into(), health.clone(), Metrics::new(pipeline, "test", "test", "test"));
    (health, stop.clone(), pauses.lane(stop))
}

/// Whether the circuit of the plugin is open.
fn gauge(pipeline: &str) -> Option<u64> {
    metric("fs_data_sink_plugin_circuit_open", pipeline, ("plugin", "hostile"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_batch_at_which_the_circuit_opens_is_kept_until_it_goes_well() {
    let (health, _stop, pauses) = pauses("heals");
    let mut plugin = fails_for_a_while();
    plugin.on_trap.backoff_to = Duration::from_millis(50);
    let mut chain = open_in("heals", &[plugin], schema(), pauses.clone()).await.unwrap();
    assert_eq!(gauge("heals"), Some(0));
    for _ in 0..4 {
        assert_refused(&chain.process(batch()).await.unwrap(), "plugin-trap", "plugin hostile trapped in `process`");
        assert!(health.is_ready());
    }
    let healing = tokio::spawn(async move {
        let output = chain.process(batch()).await.unwrap();
        (chain, output)
    });
    // The lane is told, and can commit what it has read before.
    pauses.began().await;
    let states = health.states();
    let PipelineState::Waiting(words) = &states["heals"] else { panic!("{states:?}") };
    assert!(words.starts_with("plugin hostile trapped in `process`"), "{words}");
    assert_eq!(gauge("heals"), Some(1));
    let (mut chain, output) = healing.await.unwrap();
    assert_eq!(numbers(rows(&output)), (0..10).collect::<Vec<_>>());
    assert!(health.is_ready());
    assert_eq!(gauge("heals"), Some(0));
    assert_eq!(rows(&chain.process(batch()).await.unwrap()).num_rows(), 10);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stop_ends_the_wait_at_once_and_the_batch_is_read_again() {
    for crime in ["trap", "loop-in-process"] {
        let (health, stop, pauses) = pauses("stops");
        let mut plugin = hostile(&json!({"crime": crime}));
        plugin.on_trap.open_circuit_after = 1;
        plugin.on_trap.retries = 0;
        if crime == "trap" {
            (plugin.on_trap.backoff_from, plugin.on_trap.backoff_to) =
                (Duration::from_hours(1), Duration::from_hours(1));
        }
        let mut chain = open_in("stops", &[plugin], schema(), pauses.clone()).await.unwrap();
        let waiting = tokio::spawn(async move { chain.process(batch()).await.unwrap_err() });
        pauses.began().await;
        // Within a pause of an hour, and within a probe that takes half a second.
        tokio::time::sleep(Duration::from_millis(50)).await;
        let stopped = Instant::now();
        stop.cancel();
        let error = waiting.await.unwrap();
        assert!(stopped.elapsed() < Duration::from_millis(400), "{:?}", stopped.elapsed());
        assert_eq!(error.verdict(), Verdict::Restart);
        assert_eq!(
            error.to_string(),
            "stopped while the circuit of plugin hostile was open; its batch is read again at the next start"
        );
        assert!(health.is_ready(), "nobody waits any more");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_call_that_is_dropped_while_the_circuit_is_open_leaves_nothing_open() {
    let (health, _stop, pauses) = pauses("dropped");
    let mut plugin = hostile(&json!({"crime": "trap"}));
    plugin.on_trap.open_circuit_after = 1;
    let mut chain = open_in("dropped", &[plugin], schema(), pauses).await.unwrap();
    let dropped = tokio::time::timeout(Duration::from_millis(100), chain.process(batch())).await;
    assert!(dropped.is_err());
    assert!(health.is_ready());
    assert_eq!(gauge("dropped"), Some(0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_good_batch_between_bad_ones_keeps_the_circuit_closed_and_so_does_zero() {
    let mut plugin = hostile(&json!({"crime": "trap-on-rows", "values": [3]}));
    plugin.on_trap.open_circuit_after = 2;
    let mut chain = open(&[plugin.clone()]).await.unwrap();
    for _ in 0..3 {
        assert_refused(&chain.process(batch()).await.unwrap(), "plugin-trap", "trapped");
        assert_eq!(rows(&chain.process(part(4, 6)).await.unwrap()).num_rows(), 6);
    }
    plugin.on_trap.open_circuit_after = 0;
    let mut chain = open(&[plugin]).await.unwrap();
    for _ in 0..10 {
        assert_refused(&chain.process(batch()).await.unwrap(), "plugin-trap", "trapped");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_dropped_before_is_not_dropped_at_the_circuit() {
    let mut plugin = fails_for_a_while();
    plugin.on_trap.then = OnReject::Drop;
    let mut chain = open(&[plugin]).await.unwrap();
    for _ in 0..4 {
        let output = chain.process(batch()).await.unwrap();
        assert!(output.batches.is_empty() && output.rejected.is_empty());
    }
    assert_eq!(rows(&chain.process(batch()).await.unwrap()).num_rows(), 10);
}

/// Some rows of [`batch`].
fn part(from: usize, count: usize) -> DecodedBatch {
    let DecodedBatch { rows, origin } = batch();
    let Origin::Records { envelope, rows: records } = origin else { unreachable!() };
    let origin = Origin::Records { envelope, rows: records.slice(from, count) };
    DecodedBatch { rows: rows.slice(from, count), origin }
}

/// A batch of so many rows whose first column counts from 0.
fn long(count: i64) -> DecodedBatch {
    let rows = RecordBatch::try_from_iter([("n", Arc::new(Int64Array::from_iter_values(0..count)) as _)]);
    DecodedBatch { rows: rows.unwrap(), origin: Origin::Replaced }
}

/// A plugin that is asked to find the bad rows, without a retry of the whole batch.
fn bisecting(config: &serde_json::Value) -> PluginConfig {
    let mut plugin = hostile(config);
    plugin.on_trap.bisect = true;
    plugin.on_trap.retries = 0;
    plugin.limits.output_rows = 1_000_000;
    plugin
}

/// The numbers that went on, in their order, and what was refused.
fn outcome(output: &ChainOutput) -> (Vec<i64>, Vec<&Rejection>) {
    let kept = output.batches.iter().flat_map(|batch| numbers(&batch.rows)).collect();
    (kept, output.rejected.iter().map(|(_, rejection)| rejection).collect())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_bad_row_of_8192_is_refused_and_no_other() {
    let schema = long(1).rows.schema();
    for bad in [0_u32, 5000, 8191] {
        let plugin = bisecting(&json!({"crime": "trap-on-rows", "values": [bad]}));
        let mut chain = open_in("bisect", &[plugin], Arc::clone(&schema), LanePauses::detached()).await.unwrap();
        let output = chain.process(long(8192)).await.unwrap();
        let (kept, refused) = outcome(&output);
        assert_eq!(kept, (0..8192).filter(|row| *row != i64::from(bad)).collect::<Vec<_>>());
        let [rejection] = refused.as_slice() else { panic!("{refused:?}") };
        assert_eq!((rejection.code.as_str(), rejection.rows.as_slice()), ("plugin-trap", [bad].as_slice()));
        assert!(rejection.message.starts_with("plugin hostile trapped in `process`"), "{}", rejection.message);
        chain.close().await;
    }
    let tries = metric("fs_data_sink_retries_total", "bisect", ("operation", "plugin-bisect")).unwrap();
    assert!(tries <= 3 * 26, "{tries} calls for three rows");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bad_rows_keep_their_numbers_and_records_beside_rows_that_the_plugin_refuses() {
    // It loops on 3 and 7, and the rest goes well in parts.
    let mut plugin = bisecting(&json!({"crime": "loop-on-rows", "values": [3, 7]}));
    plugin.limits.call_timeout = Duration::from_millis(250);
    let refusing = hostile(&json!({"crime": "reject-rows", "unwanted": [8]}));
    let mut chain = open(&[plugin, refusing]).await.unwrap();
    let output = chain.process(batch()).await.unwrap();
    let (kept, refused) = outcome(&output);
    assert_eq!(kept, [0, 1, 2, 4, 5, 6, 9]);
    let codes: Vec<_> = refused.iter().map(|rejection| rejection.code.as_str()).collect();
    assert_eq!(codes, ["plugin-timeout", "unwanted"]);
    let letters = |at: usize| {
        let (batch, rejection) = &output.rejected[at];
        batch.dead_letters(rejection).iter().map(|letter| letter.record.as_ref().unwrap().offset).collect::<Vec<_>>()
    };
    assert_eq!((letters(0), letters(1)), (vec![106, 102], vec![101]));
    // What the plugin refuses of a part has the numbers of the whole batch, too.
    let output = run(bisecting(&json!({"crime": "trap-on-rows", "values": [3], "unwanted": [1, 8]}))).await.unwrap();
    let (kept, refused) = outcome(&output);
    assert_eq!(kept, [0, 2, 4, 5, 6, 7, 9]);
    let refused: Vec<_> = refused.iter().map(|one| (one.code.as_str(), one.rows.as_slice())).collect();
    assert_eq!(refused, [("unwanted", [1].as_slice()), ("unwanted", &[8]), ("plugin-trap", &[3])]);
    for (batch, rejection) in &output.rejected {
        let letters = batch.dead_letters(rejection);
        assert_eq!(letters[0].record.as_ref().unwrap().offset, 109 - i64::from(rejection.rows[0]));
    }
    // An error that it answers is no failure, and splits nothing.
    let output = run(bisecting(&json!({"crime": "fail-on-rows", "values": [6]}))).await.unwrap();
    assert_refused(&output, "plugin-failed", "a row that it cannot take");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_plugin_that_fails_whatever_it_is_given_fails_as_a_whole_within_bounds() {
    let schema = long(1).rows.schema();
    let plugin = bisecting(&json!({"crime": "trap"}));
    let mut chain = open_in("hopeless", &[plugin], Arc::clone(&schema), LanePauses::detached()).await.unwrap();
    let output = chain.process(long(8192)).await.unwrap();
    let (kept, refused) = outcome(&output);
    assert!(kept.is_empty() && refused.len() == 1 && refused[0].rows.len() == 8192, "{refused:?}");
    let tries = metric("fs_data_sink_retries_total", "hopeless", ("operation", "plugin-bisect"));
    assert_eq!(tries, Some(256));
    // More bad rows than the calls can tell apart: the rest is refused together, in words.
    let bad: Vec<_> = (100..8192).collect();
    let plugin = bisecting(&json!({"crime": "trap-on-rows", "values": bad}));
    let mut chain = open_in("many", &[plugin], schema, LanePauses::detached()).await.unwrap();
    let output = chain.process(long(8192)).await.unwrap();
    let (kept, refused) = outcome(&output);
    assert_eq!(kept, (0..100).collect::<Vec<_>>());
    assert_eq!(refused.iter().map(|rejection| rejection.rows.len()).sum::<usize>(), 8092);
    let words = "256 calls were not enough to tell which of these rows it fails on";
    assert!(refused.iter().any(|rejection| rejection.message.contains(words)), "{refused:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bad_row_ends_the_pipeline_where_it_shall() {
    let mut plugin = bisecting(&json!({"crime": "trap-on-rows", "values": [4]}));
    plugin.on_trap.then = OnReject::Fail;
    let message = run(plugin).await.unwrap_err().to_string();
    assert!(message.starts_with("plugin hostile refused 1 rows and is configured to stop"), "{message}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_plugin_that_holds_rows_cannot_be_bisected() {
    let made = Made { describe: "i32.const 512", open: "i32.const 0", ..Made::default() };
    let (mut plugin, _folder) = made.plugin();
    plugin.on_trap.bisect = true;
    assert_eq!(
        run(plugin).await.unwrap_err().to_string(),
        "plugin hostile holds rows between calls, so a batch on which it fails cannot be split: leave out on_trap.bisect"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn limits_that_were_hit_are_counted_by_their_key() {
    let mut plugin = hostile(&json!({"crime": "loop-in-process"}));
    plugin.limits.call_timeout = Duration::from_millis(20);
    let mut chain = open_in("counted", &[plugin], schema(), LanePauses::detached()).await.unwrap();
    assert_refused(
        &chain.process(batch()).await.unwrap(),
        "plugin-timeout",
        "did not return from `process` within 20 ms",
    );
    assert_eq!(limit_hits("counted", "call_timeout"), 2);
    assert_eq!(limit_hits("counted", "memory"), 0);
}
