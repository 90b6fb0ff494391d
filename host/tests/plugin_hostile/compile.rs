//! Components that are made to keep a compiler busy, to fill its memory, or to bring it down: it ends in words, and alone.

use std::{
    fmt::Write as _,
    fs,
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
    let message = ENGINE.load_counted(&Arc::new(plugin), "test", &metrics).unwrap_err().full_message();
    assert!(
        message.contains("takes more than 64 MiB of memory to compile, and was stopped (limits.compile_memory)"),
        "{message}"
    );
    assert_eq!(limit_hits("compiles", "compile_memory"), 1);
}

/// What the kernel says about a compiler of this process that has set its limits: status and limits.
fn look_at_compiler() -> Option<(String, String)> {
    let own = format!("PPid:\t{}", std::process::id());
    fs::read_dir("/proc").unwrap().flatten().find_map(|entry| {
        let read = |name: &str| fs::read_to_string(entry.path().join(name)).unwrap_or_default();
        let status = read("status");
        // Others compile beside it; this one has a limit that no other has.
        let is_ours =
            read("cmdline").contains("internal-compile-plugin\x00") && read("cmdline").contains("\x00234881024\x00");
        let is_set = status.lines().any(|line| line == own) && status.contains("Seccomp:\t2");
        (is_ours && is_set).then(|| (status, read("limits")))
    })
}

#[test]
fn a_compiler_that_runs_is_cut_off_and_limited_by_the_kernel() {
    let (mut plugin, _folder) =
        bomb("(func (param i32) ".to_owned() + &"local.get 0 i32.const 7 i32.mul local.set 0 ".repeat(300_000) + ")");
    plugin.limits.compile_time = Duration::from_secs(20);
    plugin.limits.compile_memory_bytes = 224 << 20;
    let loading = std::thread::spawn(move || ENGINE.load(&Arc::new(plugin)).map(drop));
    let began = Instant::now();
    let (status, limits) = loop {
        if let Some(found) = look_at_compiler() {
            break found;
        }
        assert!(began.elapsed() < Duration::from_secs(60) && !loading.is_finished(), "no compiler was seen");
        std::thread::sleep(Duration::from_millis(1));
    };
    assert!(status.contains("NoNewPrivs:\t1"), "{status}");
    let limit = |name: &str| limits.lines().find(|line| line.starts_with(name)).unwrap().to_owned();
    assert!(limit("Max core file size").contains(" 0 "), "{limits}");
    assert!(limit("Max cpu time").contains(" 84 "), "{limits}");
    assert!(limit("Max open files").contains(" 16 "), "{limits}");
    assert!(!limit("Max data size").contains("unlimited"), "{limits}");
    // It ends one way or the other, and nothing of it stays.
    let _ = loading.join().unwrap();
    assert!(look_at_compiler().is_none());
}

#[test]
fn who_compiles_much_at_once_has_all_of_it_in_turn() {
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
