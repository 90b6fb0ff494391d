//! State: what one instance says the next one goes on from, and plugins that lie, loop or trap about it.

use std::{sync::Arc, time::Duration};

use arrow_array::{Int64Array, RecordBatch};
use bytes::Bytes;
use fs_data_sink::{
    batch::PluginState,
    config::PluginConfig,
    error::{PipelineError, Verdict},
    plugin::{FlushReason, check_ledger, check_readers},
};
use serde_json::{Value, json};

use crate::support::{ENGINE, batch, built, hostile, open, rows};

/// `hostile_state.wasm` with a crime.
fn with_state(config: &Value) -> PluginConfig {
    PluginConfig { name: "counter".into(), path: built("hostile_state.wasm"), ..hostile(config) }
}

/// The column that the plugin adds.
fn seen(rows: &RecordBatch) -> Vec<i64> {
    let column = rows.column_by_name("seen").unwrap();
    column.as_any().downcast_ref::<Int64Array>().unwrap().values().to_vec()
}

/// What becomes of a batch, a flush and a snapshot.
async fn snapshot(plugin: &PluginConfig) -> Result<Vec<PluginState>, PipelineError> {
    let mut chain = open(std::slice::from_ref(plugin)).await.unwrap();
    chain.process(batch()).await.unwrap();
    chain.flush(FlushReason::Checkpoint).await.unwrap();
    chain.snapshot().await
}

/// What becomes of a plugin that is given a state.
async fn restore(config: &Value, bytes: &'static [u8], component: &str) -> PipelineError {
    let mut chain = open(&[with_state(config)]).await.unwrap();
    let state =
        PluginState { plugin: "counter".into(), component: component.to_owned(), bytes: Bytes::from_static(bytes) };
    chain.restore(vec![state]).await.unwrap_err()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_instance_goes_on_from_what_another_one_said_and_plugins_without_state_are_not_asked() {
    let plugins = [hostile(&json!({})), with_state(&json!({}))];
    let mut first = open(&plugins).await.unwrap();
    assert_eq!(seen(rows(&first.process(batch()).await.unwrap())), (0..10).collect::<Vec<_>>());
    first.flush(FlushReason::Checkpoint).await.unwrap();
    let states = first.snapshot().await.unwrap();
    let [PluginState { plugin, component, bytes }] = states.as_slice() else { panic!("{states:?}") };
    assert_eq!((&**plugin, component.len(), bytes.as_ref()), ("counter", 64, [10, 0, 0, 0, 0, 0, 0, 0].as_slice()));
    // What comes after the snapshot is not in it.
    first.process(batch()).await.unwrap();
    let mut second = open(&plugins).await.unwrap();
    second.restore(states).await.unwrap();
    assert_eq!(seen(rows(&second.process(batch()).await.unwrap())), (10..20).collect::<Vec<_>>());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_goes_wrong_with_a_snapshot_the_lane_begins_anew_from_what_is_committed() {
    for (crime, words) in [
        ("loop-in-snapshot", "did not return from `snapshot` within 500 ms (limits.call_timeout)"),
        ("trap-in-snapshot", "trapped in `snapshot`"),
        ("failed-snapshot", "cannot say its state (`snapshot`): I forgot"),
    ] {
        let error = snapshot(&with_state(&json!({"crime": crime}))).await.unwrap_err();
        assert!(error.to_string().starts_with("plugin counter ") && error.to_string().contains(words), "{error}");
        assert!(error.to_string().contains("everything since the last commit must be read again"), "{error}");
        assert_eq!(error.verdict(), Verdict::Restart);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_snapshot_has_a_limit_of_its_own() {
    let huge = |bytes: usize| with_state(&json!({"crime": "huge-snapshot", "bytes": bytes}));
    // More than an answer to a batch may have, since these are the state's own bytes.
    let mut plugin = huge(4 << 20);
    plugin.limits.state_bytes = 4 << 20;
    assert_eq!(snapshot(&plugin).await.unwrap()[0].bytes.len(), 4 << 20);
    plugin.limits.state_bytes = (4 << 20) - 1;
    let error = snapshot(&plugin).await.unwrap_err().to_string();
    assert!(
        error.contains("answered 4194304 bytes to `snapshot`; it may have 4194303 (limits.state_bytes)"),
        "{error}"
    );
    let mut plugin = huge(40 << 20);
    plugin.limits.state_bytes = 1 << 20;
    let error = snapshot(&plugin).await.unwrap_err().to_string();
    assert!(error.contains("handed the host more than 1048576 bytes in `snapshot` (limits.state_bytes)"), "{error}");
    // A gigabyte does not fit into the plugin's own memory.
    let error = snapshot(&huge(1 << 30)).await.unwrap_err().to_string();
    assert!(error.contains("needed more memory than it may have (limits.memory) in `snapshot`"), "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_snapshot_that_changes_is_taken_as_it_is_said() {
    let mut chain = open(&[with_state(&json!({"crime": "changing-snapshot"}))]).await.unwrap();
    let first = chain.snapshot().await.unwrap();
    let second = chain.snapshot().await.unwrap();
    assert_eq!((first[0].bytes[0], second[0].bytes[0]), (1, 2));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_plugin_that_does_not_take_its_state_stops_the_pipeline_with_its_own_words() {
    for (crime, words) in [
        ("loop-in-restore", "did not return from `restore` within 500 ms (limits.call_timeout)"),
        ("trap-in-restore", "trapped in `restore`"),
    ] {
        let error = restore(&json!({"crime": crime}), &[0; 8], "").await;
        assert!(error.to_string().contains(words), "{error}");
        assert_eq!(error.verdict(), Verdict::Stop);
    }
    let error = restore(&json!({}), b"nonsense, and long", "0123456789abcdef").await;
    let message = error.to_string();
    assert!(
        message.starts_with(
            "plugin counter cannot go on from its recorded state of 18 bytes, which another component wrote (SHA-256 \
             0123456789abcdef): a state has eight bytes. Use a component that reads it (this one has SHA-256 "
        ),
        "{message}"
    );
    assert_eq!(error.verdict(), Verdict::Stop);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn state_of_a_plugin_that_is_not_there_is_not_dropped() {
    let state = |bytes| PluginState { plugin: "gone".into(), component: "ab".to_owned(), bytes };
    let mut chain = open(&[with_state(&json!({}))]).await.unwrap();
    chain.restore(vec![state(Bytes::new())]).await.unwrap();
    let error = chain.restore(vec![state(Bytes::from_static(b"x"))]).await.unwrap_err();
    assert!(error.to_string().starts_with("the ledger has 1 bytes of state of plugin gone (component ab)"), "{error}");
    // The name of a plugin without state does not do either, and nothing was said where there are no bytes.
    let plugins = [Arc::new(ENGINE.load(&Arc::new(hostile(&json!({})))).unwrap())];
    check_readers(&plugins, [("hostile", "ab", 0)]).unwrap();
    assert_eq!(check_readers(&plugins, [("hostile", "ab", 1)]).unwrap_err().verdict(), Verdict::Stop);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_trap_between_two_commits_is_never_met_with_an_empty_state() {
    let mut plugin = with_state(&json!({"crime": "trap-at-row", "at": 15}));
    plugin.on_trap.backoff_from = Duration::ZERO;
    let mut chain = open(&[plugin]).await.unwrap();
    chain.process(batch()).await.unwrap();
    let error = chain.process(batch()).await.unwrap_err();
    assert_eq!(error.verdict(), Verdict::Restart);
    let message = error.to_string();
    assert!(message.starts_with("plugin counter trapped in `process`"), "{message}");
    assert!(message.ends_with("everything since the last commit must be read again"), "{message}");
    assert_eq!(chain.snapshot().await.unwrap_err().verdict(), Verdict::Restart);
    assert_eq!(chain.process(batch()).await.unwrap_err().verdict(), Verdict::Restart);
}

#[test]
fn state_needs_a_ledger() {
    let load = |config: PluginConfig| Arc::new(ENGINE.load(&Arc::new(config)).unwrap());
    let (stateless, stateful) = (load(hostile(&json!({}))), load(with_state(&json!({}))));
    check_ledger(&[Arc::clone(&stateless)], false).unwrap();
    check_ledger(&[Arc::clone(&stateful)], true).unwrap();
    let twice = check_ledger(&[Arc::clone(&stateful), Arc::clone(&stateful)], true).unwrap_err();
    assert!(twice.to_string().starts_with("two plugins that keep state are named counter"), "{twice}");
    let error = check_ledger(&[stateless, stateful], false).unwrap_err();
    assert!(error.to_string().starts_with("plugin counter keeps state"), "{error}");
    assert!(error.to_string().contains("`pipeline.delivery: exactly_once`"), "{error}");
    assert_eq!(error.verdict(), Verdict::Stop);
}
