//! Endless loops wherever the host can be made to wait, and memory without end.

use std::time::Duration;

use serde_json::json;

use crate::{
    made::{Made, SPIN},
    support::{assert_refused, batch, commit, hostile, hostile_has_wasi, numbers, open, rows, run},
};

/// Copies 60 MiB for ever.
const COPY: &str = "(loop $l (memory.copy (i32.const 0) (i32.const 65536) (i32.const 62914560)) br $l) unreachable";
/// Fills 60 MiB for ever.
const FILL: &str = "(loop $l (memory.fill (i32.const 0) (i32.const 7) (i32.const 62914560)) br $l) unreachable";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_loop_in_process_costs_the_batch_and_not_the_pipeline() {
    let mut chain = open(&[hostile(&json!({"crime": "loop-in-process"}))]).await.unwrap();
    for _ in 0..2 {
        let output = chain.process(batch()).await.unwrap();
        assert_refused(&output, "plugin-timeout", "did not return from `process` within 500 ms (limits.call_timeout)");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bulk_operations_and_sleeps_end_at_the_deadline_as_well() {
    for crime in ["fill-memory-for-ever", "sleep-in-process", "read-for-ever"] {
        let output = commit(json!({"crime": crime})).await;
        let [(_, rejection)] = output.rejected.as_slice() else { panic!("{crime}: {output:?}") };
        // On a fast machine reading for ever comes to the end of its reads, or of its calls, before the deadline.
        let ends = ["plugin-timeout", "plugin-trap", "plugin-host-calls"];
        assert!(ends.contains(&rejection.code.as_str()), "{crime}: {rejection:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_loop_at_the_start_stops_the_pipeline_in_words() {
    let open_loop = run(hostile(&json!({"crime": "loop-in-open"}))).await.unwrap_err().to_string();
    assert!(open_loop.ends_with("cannot start: it did not return from `open` within 500 ms (limits.call_timeout)"));
    let made = [
        ("describe", Made { describe: SPIN, ..Made::default() }),
        ("start", Made { start: SPIN, ..Made::default() }),
        // The host calls it to hand `open` its arguments.
        ("open", Made { realloc: SPIN, ..Made::default() }),
        // The host calls it to give an answer back that it has read.
        ("describe", Made { post_return: SPIN, ..Made::default() }),
        // Bulk operations over all of its memory.
        ("describe", Made { describe: COPY, pages: 1000, ..Made::default() }),
        ("describe", Made { describe: FILL, pages: 1000, ..Made::default() }),
    ];
    for (function, made) in made {
        let (plugin, _folder) = made.plugin();
        let message = run(plugin).await.unwrap_err().to_string();
        assert!(message.contains(&format!("did not return from `{function}` within 500 ms")), "{message}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn loops_in_flush_and_close_end_too() {
    for crime in ["loop-in-flush", "trap-in-flush", "loop-in-close", "trap-in-close"] {
        let mut chain = open(&[hostile(&json!({"crime": crime}))]).await.unwrap();
        assert_eq!(rows(&chain.process(batch()).await.unwrap()).num_rows(), 10);
        // The plugin says that it holds no rows, so nothing is lost.
        let flushed = chain.flush(fs_data_sink::plugin::FlushReason::Checkpoint).await.unwrap();
        assert!(flushed.batches.is_empty() && flushed.rejected.is_empty());
        assert_eq!(rows(&chain.process(batch()).await.unwrap()).num_rows(), 10, "a fresh instance works");
        chain.close().await;
    }
}

#[tokio::test]
async fn a_plugin_that_computes_gives_way_to_other_tasks() {
    // One thread for everything: without yielding, the timer below could only run after the deadline.
    let mut plugin = hostile(&json!({"crime": "loop-in-process"}));
    plugin.limits.call_timeout = Duration::from_secs(3);
    plugin.on_trap.retries = 0;
    let mut chain = open(&[plugin]).await.unwrap();
    let looping = tokio::spawn(async move { chain.process(batch()).await });
    for _ in 0..5 {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert!(!looping.is_finished());
    let output = looping.await.unwrap().unwrap();
    assert_refused(&output, "plugin-timeout", "did not return");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dropped_call_leaves_a_chain_that_works() {
    let crime = if hostile_has_wasi() { "sleep-in-process" } else { "loop-in-process" };
    let mut chain = open(&[hostile(&json!({"crime": crime}))]).await.unwrap();
    let dropped = tokio::time::timeout(Duration::from_millis(50), chain.process(batch())).await;
    assert!(dropped.is_err());
    let output = chain.process(batch()).await.unwrap();
    assert_refused(&output, "plugin-timeout", "did not return");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn memory_without_end_is_refused() {
    let mut plugin = hostile(&json!({"crime": "allocate-for-ever"}));
    plugin.limits.call_timeout = Duration::from_secs(20);
    let output = run(plugin).await.unwrap();
    assert_refused(&output, "plugin-memory", "needed more memory than it may have (limits.memory) in `process`");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn memory_above_the_limit_at_the_start_is_refused() {
    // 1025 pages are 64 KiB more than the limit of these tests.
    let (plugin, _folder) = Made { pages: 1025, ..Made::default() }.plugin();
    let message = run(plugin).await.unwrap_err().to_string();
    assert!(message.contains("needed more memory than it may have (limits.memory) in `start`"), "{message}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_neighbour_of_a_looping_plugin_goes_on() {
    let mut chain = open(&[hostile(&json!({"crime": "keep-even", "column": 0}))]).await.unwrap();
    let looping = tokio::spawn(async { commit(json!({"crime": "loop-in-process"})).await });
    let mut batches = 0;
    while !looping.is_finished() {
        assert_eq!(numbers(rows(&chain.process(batch()).await.unwrap())), [0, 2, 4, 6, 8]);
        batches += 1;
        tokio::task::yield_now().await;
    }
    assert!(batches > 0);
    assert_refused(&looping.await.unwrap(), "plugin-timeout", "did not return");
}
