//! What a plugin sees of the machine, and how much it can say.

use serde_json::json;

use crate::support::{assert_refused, commit, hostile, rows, run};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn there_is_nothing_to_see() {
    let output = commit(json!({"crime": "look-around"})).await;
    assert_refused(
        &output,
        "plugin-failed",
        "environment=0 arguments=0 input=0 secrets=0 read=denied list=denied write=denied tcp=denied udp=denied \
         dns=denied",
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn talking_without_end_does_no_harm() {
    for crime in [
        json!({"crime": "log-for-ever", "times": 10_000}),
        json!({"crime": "huge-log-line", "bytes": 1 << 20}),
        json!({"crime": "many-metrics", "times": 40_000}),
        json!({"crime": "print-for-ever", "times": 10_000}),
    ] {
        let mut plugin = hostile(&crime);
        plugin.limits.call_timeout = std::time::Duration::from_mins(1);
        assert_eq!(rows(&run(plugin).await.unwrap()).num_rows(), 10, "{crime}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_log_line_larger_than_an_answer_may_be_ends_the_call() {
    let output = commit(json!({"crime": "huge-log-line", "bytes": 40 << 20})).await;
    assert_refused(&output, "plugin-bad-output", "handed the host more than 2097152 bytes in `process`");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_column_cannot_be_asked_for_twice_in_one_read() {
    let output = commit(json!({"crime": "read-column-twice"})).await;
    assert_refused(&output, "plugin-trap", "asked for column 0 twice in one read");
}
