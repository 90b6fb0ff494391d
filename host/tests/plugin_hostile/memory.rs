//! Memory taken in other ways than by growing one: many memories, tables, handles, lists that are not there.

use std::time::Duration;

use crate::{
    made::{Made, WASI, file, with_modules},
    support::{assert_refused, batch, open, rows, run},
};

/// Drops the batch that `process` was lent, as it must before it answers.
const DROP: &str = r#"(import "fs-data-sink:plugin/batches@0.1.0" "[resource-drop]batch" (func $drop (param i32)))"#;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_memories_share_the_budget() {
    // Three memories of 25 MiB, each under the limit of 64 MiB.
    let (plugin, _folder) = file(&with_modules(Made::default().component(), "(module (memory 400))", 3));
    let message = run(plugin).await.unwrap_err().to_string();
    assert!(message.contains("needed more memory than it may have (limits.memory) in `start`"), "{message}");
    let (mut plugin, _folder) = file(&with_modules(Made::default().component(), "(module (memory 400))", 3));
    plugin.limits.memory_bytes = 128 << 20;
    let message = run(plugin).await.unwrap_err().to_string();
    assert!(message.contains("trapped in `open`"), "it starts: {message}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tables_share_a_budget_too() {
    let grow = "(if (i32.eq (table.grow 0 (ref.null func) (i32.const 90000)) (i32.const -1)) (then unreachable))
        (if (i32.eq (table.grow 1 (ref.null func) (i32.const 90000)) (i32.const -1)) (then unreachable))
        i32.const 0";
    let more = "(table 0 funcref) (table 0 funcref)";
    let (mut plugin, _folder) = Made { describe: grow, more, ..Made::default() }.plugin();
    // 90,000 slots are 0.7 MB.
    plugin.limits.memory_bytes = 1 << 20;
    let message = run(plugin.clone()).await.unwrap_err().to_string();
    assert!(message.contains("needed more memory than it may have (limits.memory) in `describe`"), "{message}");
    plugin.limits.memory_bytes = 2 << 20;
    let message = run(plugin).await.unwrap_err().to_string();
    assert!(message.contains("trapped in `open`"), "it starts: {message}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn answers_that_point_past_the_memory_or_beside_a_word_end_the_call() {
    // At 600: an answer of `process` that keeps the rows of a bitmap of 4 GiB; at 700: a name of 4 GiB that begins at the
    // end of memory; at 800: an output schema whose end is past the end of the address space.
    let more = r#"(data (i32.const 604) "\02\00\00\00\00\04\00\00\ff\ff\ff\ff")
        (data (i32.const 700) "\ff\ff\01\00\ff\ff\ff\7f")
        (data (i32.const 804) "\01\00\00\00\f0\ff\ff\ff\f0\ff\ff\ff")"#;
    for (describe, open, words) in [
        ("i32.const 700", "unreachable", "trapped in `describe`: "),
        ("i32.const 3", "unreachable", "trapped in `describe`: return pointer not aligned"),
        ("i32.const 0", "i32.const 800", "trapped in `open`: "),
        ("i32.const 0", "i32.const -8", "trapped in `open`: "),
    ] {
        let (plugin, _folder) = Made { describe, open, more, ..Made::default() }.plugin();
        let message = run(plugin).await.unwrap_err().to_string();
        assert!(message.contains(words), "{message}");
    }
    let process = "(call $drop (local.get 0)) i32.const 600";
    let (plugin, _folder) = Made { open: "i32.const 0", process, imports: DROP, more, ..Made::default() }.plugin();
    assert_refused(&run(plugin).await.unwrap(), "plugin-trap", "trapped in `process`: ");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn handles_that_are_never_dropped_end_the_call() {
    let imports =
        r#"(import "wasi:clocks/monotonic-clock@0.2.12" "subscribe-duration" (func $wait (param i64) (result i32)))"#;
    let describe = "(loop $l (drop (call $wait (i64.const 1))) br $l) unreachable";
    let made = Made { describe, imports, wit: WASI, world: "with-wasi", ..Made::default() };
    let (mut plugin, _folder) = made.plugin();
    plugin.limits.call_timeout = Duration::from_secs(20);
    let message = run(plugin).await.unwrap_err().to_string();
    assert!(message.contains("holds more than 10000 handles of the host"), "{message}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn random_bytes_are_given_in_small_portions_only() {
    let imports = r#"(import "wasi:random/random@0.2.12" "get-random-bytes" (func $random (param i64 i32)))"#;
    let describe = "(call $random (i64.const 4294967296) (i32.const 1024)) i32.const 0";
    let made = Made { describe, imports, wit: WASI, world: "with-wasi", ..Made::default() };
    let (plugin, _folder) = made.plugin();
    let message = run(plugin).await.unwrap_err().to_string();
    assert!(message.contains("trapped in `describe`: requested len 4294967296 exceeds limit 65536"), "{message}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn memory_that_another_instance_has_left_is_zero() {
    // Grows by 32 MiB, traps if a word of it is not zero, and fills it with ones.
    let process = "(local $at i32) (local $end i32)
        (call $drop (local.get 0))
        (local.set $at (i32.mul (memory.grow (i32.const 512)) (i32.const 65536)))
        (local.set $end (i32.add (local.get $at) (i32.const 33554432)))
        (loop $l
            (if (i64.ne (i64.load (local.get $at)) (i64.const 0)) (then unreachable))
            (i64.store (local.get $at) (i64.const -1))
            (br_if $l (i32.lt_u (local.tee $at (i32.add (local.get $at) (i32.const 8))) (local.get $end))))
        i32.const 0";
    let made = Made { open: "i32.const 0", process, imports: DROP, ..Made::default() };
    let (mut plugin, _folder) = made.plugin();
    plugin.limits.call_timeout = Duration::from_secs(20);
    for _ in 0..10 {
        let mut chain = open(std::slice::from_ref(&plugin)).await.unwrap();
        assert_eq!(rows(&chain.process(batch()).await.unwrap()).num_rows(), 10);
        // Gone without a word: its place in the pool is the next one's.
        drop(chain);
    }
}
