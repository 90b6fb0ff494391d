//! Components that are made to keep a compiler busy, to fill its memory, or to bring it down: it ends in words, and alone.

use std::{
    fmt::Write as _,
    sync::Arc,
    time::{Duration, Instant},
};

use fs_data_sink::{config::PluginConfig, plugin::PluginEngine, telemetry::metrics::Metrics};
use tempfile::TempDir;

use crate::{
    made::{Made, file},
    support::{ENGINE, compiler, limit_hits, open},
};

/// A function of many values that all live across many loops: what connects them is the product of both.
pub(crate) fn locals_times_loops(locals: usize, loops: usize) -> String {
    let mut text = String::from("(func (param i32) (result i64) (local");
    text.push_str(&" i64".repeat(locals));
    text.push(')');
    for number in 0..loops {
        let _ = write!(
            text,
            " loop local.get {0} i64.const {number} i64.add local.set {0} local.get 0 br_if 0 end",
            1 + number % locals
        );
    }
    text.push_str(" i64.const 0");
    for number in 1..=locals {
        let _ = write!(text, " local.get {number} i64.xor");
    }
    text.push(')');
    text
}

/// A component with more in its module.
fn bomb(more: String) -> (PluginConfig, TempDir) {
    // The text of a test may live as long as the test.
    Made { more: Box::leak(more.into_boxed_str()), ..Made::default() }.plugin()
}

/// Every one of them: with a name, and the component.
fn bombs() -> Vec<(&'static str, String)> {
    let deep = 300_000;
    let targets = " 0".repeat(50_000);
    let table = format!("block local.get 0 br_table{targets} end ");
    let additions = "local.get 0 i32.const 77 i32.mul local.get 0 i32.rotl local.set 0 ".repeat(300_000);
    vec![
        ("deep blocks", format!("(func {} {})", "block ".repeat(deep), "end ".repeat(deep))),
        ("deep ifs", format!("(func (param i32) {} {})", "local.get 0 if ".repeat(deep), "end ".repeat(deep))),
        ("a huge function", format!("(func (param i32) {additions})")),
        ("jump tables", format!("(func (param i32) {})", table.repeat(100))),
        ("many functions", "(func)".repeat(900_000)),
        ("values across loops", locals_times_loops(20_000, 5_000)),
    ]
}

#[test]
fn bombs_end_within_the_limits_and_in_words() {
    let time = Duration::from_secs(3);
    for (name, text) in bombs() {
        let (mut plugin, _folder) = bomb(text);
        plugin.limits.compile_time = time;
        plugin.limits.compile_memory_bytes = 256 << 20;
        let began = Instant::now();
        // Without a cache, so that one that is taken is taken again in the next run.
        let engine = PluginEngine::with_compiler(None, compiler()).unwrap();
        let loaded = engine.load(&Arc::new(plugin));
        let lasted = began.elapsed();
        assert!(lasted < time + Duration::from_secs(5), "{name}: {lasted:?}");
        let message = loaded.map_or_else(|error| error.full_message(), |_| "compiled".to_owned());
        let _ = std::io::Write::write_fmt(&mut std::io::stderr(), format_args!("{name}: {lasted:?}: {message}\n"));
        let wanted = [
            "takes more than 3s to compile, and was stopped (limits.compile_time)",
            "takes more than 256 MiB of memory to compile, and was stopped (limits.compile_memory)",
            "cannot be compiled; it is damaged or cut short",
            "made the compiler fail",
            "compiled",
        ];
        assert!(wanted.iter().any(|words| message.contains(words)), "{name}: {message}");
    }
}

#[tokio::test]
async fn time_and_memory_of_a_compiler_are_limited_and_counted() {
    let (mut plugin, _folder) = bomb(locals_times_loops(20_000, 5_000));
    plugin.limits.compile_time = Duration::from_millis(300);
    let message = ENGINE.load(&Arc::new(plugin.clone())).unwrap_err().full_message();
    assert!(message.contains("takes more than 300ms to compile, and was stopped (limits.compile_time)"), "{message}");
    plugin.limits.compile_time = Duration::from_secs(60);
    plugin.limits.compile_memory_bytes = 64 << 20;
    // So that the meters are there.
    open(&[]).await.unwrap();
    let metrics = Metrics::new("compiles", "test", "test", "test");
    let message = ENGINE.load_counted(&Arc::new(plugin), &metrics).unwrap_err().full_message();
    assert!(
        message.contains("takes more than 64 MiB of memory to compile, and was stopped (limits.compile_memory)"),
        "{message}"
    );
    assert_eq!(limit_hits("compiles", "compile_memory"), 1);
}

#[test]
fn no_more_than_two_compile_at_once_and_all_have_their_turn() {
    let engine = PluginEngine::with_compiler(None, compiler()).unwrap();
    let (plugin, _folder) = Made::default().plugin();
    let plugin = Arc::new(plugin);
    std::thread::scope(|scope| {
        let all: Vec<_> = (0..6).map(|_| scope.spawn(|| engine.load(&plugin).map(drop))).collect();
        for one in all {
            one.join().unwrap().unwrap();
        }
    });
}

#[test]
fn a_component_that_this_host_cannot_run_is_told_so() {
    // Compiled without complaint, but no place has a memory of that size.
    let component =
        wat::parse_str("(component (core module $m (memory 20000)) (core instance (instantiate $m)))").unwrap();
    let (plugin, _folder) = file(&component);
    let message = ENGINE.load(&Arc::new(plugin)).unwrap_err().full_message();
    assert!(message.contains("cannot be run by this host: "), "{message}");
}
