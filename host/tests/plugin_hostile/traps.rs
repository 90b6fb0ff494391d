//! Traps and errors: a fresh instance, one more try, then the dead letters.

use fs_data_sink::{config::OnReject, error::Verdict, plugin::FlushReason};
use serde_json::json;

use crate::{
    made::Made,
    support::{assert_refused, batch, commit, hex, hostile, hostile_has_wasi, numbers, open, rows, run, whole_batch},
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_way_to_trap_costs_the_batch_only() {
    for (how, words) in [
        ("unreachable", "trapped in `process`"),
        ("out-of-bounds", "out of bounds memory access"),
        ("stack-overflow", "call stack exhausted"),
        ("exit", "left `process` through `exit`"),
    ] {
        // Without WASI there is no exit but a trap.
        let words = if how == "exit" && !hostile_has_wasi() { "trapped in `process`" } else { words };
        let output = commit(json!({"crime": "trap", "how": how})).await;
        assert_refused(&output, "plugin-trap", words);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn traps_that_compilers_check_for_are_survived_too() {
    for (describe, words) in [
        ("(i32.div_s (i32.const 1) (i32.const 0))", "integer divide by zero"),
        ("(i32.trunc_f32_s (f32.const nan))", "invalid conversion to integer"),
        // Answers that point past the memory, or nowhere.
        ("i32.const -4", "describe"),
        ("i32.const 1", "describe"),
    ] {
        let (plugin, _folder) = Made { describe, ..Made::default() }.plugin();
        let message = run(plugin).await.unwrap_err().to_string();
        assert!(message.contains("cannot start: it trapped") && message.contains(words), "{message}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_trap_on_the_first_try_is_gone_on_the_second() {
    let mut chain = open(&[hostile(&json!({"crime": "trap-once"}))]).await.unwrap();
    for _ in 0..3 {
        assert_eq!(numbers(rows(&chain.process(batch()).await.unwrap())), (0..10).collect::<Vec<_>>());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_batch_that_always_traps_is_refused_once_and_the_next_one_passes() {
    let mut chain = open(&[hostile(&json!({"crime": "trap-on-batch", "batch": 1}))]).await.unwrap();
    assert_eq!(rows(&chain.process(batch()).await.unwrap()).num_rows(), 10);
    let output = chain.process(batch()).await.unwrap();
    assert_refused(&output, "plugin-trap", "plugin hostile trapped in `process`");
    assert_eq!(rows(&chain.process(batch()).await.unwrap()).num_rows(), 10);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_dead_letters_are_the_original_records() {
    let output = commit(json!({"crime": "trap"})).await;
    let [(batch, rejection)] = output.rejected.as_slice() else { panic!("{output:?}") };
    let letters = batch.dead_letters(rejection);
    let offsets: Vec<_> = letters.iter().map(|letter| letter.record.as_ref().unwrap().offset).collect();
    assert_eq!(offsets, (100..110).rev().collect::<Vec<_>>());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_last_words_of_a_panic_are_in_the_dead_letter_without_control_characters() {
    let output = commit(json!({"crime": "panic-with-words", "words": "no such country: \u{1b}[31mXX"})).await;
    assert_refused(&output, "plugin-trap", "no such country:  [31mXX");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failed_batch_is_refused_without_another_try() {
    assert_refused(&commit(json!({"crime": "failed"})).await, "plugin-failed", "this batch can never be processed");
    assert_refused(&commit(json!({"crime": "other"})).await, "plugin-failed", "too-cold: below zero");
    let output = commit(json!({"crime": "long-error", "times": 2000})).await;
    let message = &whole_batch(&output).message;
    assert!(message.len() < 4200 && !message.contains('\u{1b}'), "{message}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_plugin_may_ask_for_the_same_batch_again_five_times() {
    let output = commit(json!({"crime": "retryable", "times": 5})).await;
    assert_eq!(rows(&output).num_rows(), 10);
    let output = commit(json!({"crime": "retryable", "times": 6})).await;
    assert_refused(&output, "plugin-unavailable", "the table is not there yet");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_plugin_that_refuses_to_open_stops_the_pipeline_with_its_own_words() {
    let error = run(hostile(&json!({"crime": "invalid-config"}))).await.unwrap_err();
    assert_eq!(error.to_string(), "plugin hostile refuses its config: `keep` must not be empty");
    assert_eq!(error.verdict(), Verdict::Stop);
    let error = run(hostile(&json!({"crime": "unsupported-schema"}))).await.unwrap_err();
    assert_eq!(
        error.to_string(),
        "plugin hostile cannot work on these rows: no column `user_agent`; it was given (n: Int64, s: Utf8, x: Int32)"
    );
    let message = run(hostile(&json!({"crime": "trap-in-open"}))).await.unwrap_err().to_string();
    assert!(message.contains("cannot start: it trapped in `open`"), "{message}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_configuration_decides_what_happens_after_the_last_try() {
    let mut plugin = hostile(&json!({"crime": "trap"}));
    plugin.on_trap.then = OnReject::Drop;
    let output = run(plugin.clone()).await.unwrap();
    assert!(output.batches.is_empty() && output.rejected.is_empty());
    plugin.on_trap.then = OnReject::Fail;
    let message = run(plugin).await.unwrap_err().to_string();
    assert!(message.starts_with("plugin hostile refused 10 rows and is configured to stop"), "{message}");
    assert!(message.contains("plugin-trap"), "{message}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rows_that_a_lost_instance_held_are_read_again() {
    // It says that it buffers rows, takes the first batch, and traps in the second one and in `flush`.
    let imports = r#"(import "fs-data-sink:plugin/batches@0.1.0" "[resource-drop]batch" (func $drop (param i32)))"#;
    let process = "(call $drop (local.get 0)) (if (i32.wrap_i64 (local.get 1)) (then unreachable)) i32.const 0";
    let made = Made { describe: "i32.const 512", open: "i32.const 0", process, imports, ..Made::default() };
    let (plugin, _folder) = made.plugin();
    for flush in [false, true] {
        let mut chain = open(std::slice::from_ref(&plugin)).await.unwrap();
        assert_eq!(rows(&chain.process(batch()).await.unwrap()).num_rows(), 10);
        let error = if flush {
            chain.flush(FlushReason::Checkpoint).await.unwrap_err()
        } else {
            chain.process(batch()).await.unwrap_err()
        };
        assert_eq!(error.verdict(), Verdict::Restart);
        assert!(error.to_string().contains("everything since the last commit must be read again"), "{error}");
    }
}

/// A line program for the first 10,000 bytes of code: all of it is line 42 of `src/made.rs`.
fn line_program() -> Vec<u8> {
    let mut header = vec![1, 1, 1, 0xfb, 14, 13];
    header.extend([0, 1, 1, 1, 1, 0, 0, 0, 1, 0, 0, 1]);
    header.extend(b"src\0\0made.rs\0\x01\0\0\0");
    // Set the address to 1, advance the line by 41, a row, advance the address by 10,000, the end.
    let program = [0, 5, 2, 1, 0, 0, 0, 3, 41, 1, 2, 0x90, 0x4e, 0, 1, 1];
    let mut unit = vec![4, 0];
    let length = |bytes: &[u8]| u32::try_from(bytes.len()).unwrap().to_le_bytes();
    unit.extend(length(&header));
    unit.extend(header);
    unit.extend(program);
    [length(&unit).to_vec(), unit].concat()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_trap_tells_functions_and_where_the_component_knows_them_lines() {
    let output = commit(json!({"crime": "trap", "how": "stack-overflow"})).await;
    let message = &whole_batch(&output).message;
    assert!(
        message.starts_with("plugin hostile trapped in `process`: wasm trap: call stack exhausted\n  at "),
        "{message}"
    );
    assert!(message.contains("\n  at hostile::crimes::recurse (byte 0x"), "{message}");
    assert!(message.len() < 4200, "{message}");
    let section: String = line_program().iter().flat_map(|byte| ["\\".to_owned(), hex(&[*byte])]).collect();
    let more = format!(r#"(@custom ".debug_line" "{section}")"#).leak();
    let (plugin, _folder) = Made { describe: "unreachable", more, ..Made::default() }.plugin();
    let message = run(plugin).await.unwrap_err().to_string();
    assert!(
        message.ends_with(
            "cannot start: it trapped in `describe`: wasm trap: wasm `unreachable` instruction executed\n  at \
             <function 0> (src/made.rs:42)"
        ),
        "{message}"
    );
}
