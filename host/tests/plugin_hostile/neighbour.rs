//! All crimes in one process, one after the other, beside a plugin that does its work.

use std::{
    io::Write as _,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use arrow_array::{ArrayRef, Int64Array, RecordBatch};
use fs_data_sink::{
    batch::{DecodedBatch, Origin},
    config::{PluginConfig, TenantConfig},
    plugin::{FlushReason, LanePauses, WORKERS_SPARE},
    tenant::Tenant,
};
use serde_json::json;
use tempfile::TempDir;

use crate::{
    compile::locals_times_loops,
    made::{Made, SPIN, WASI, file, with_modules},
    support::{assert_refused, hex, hostile, numbers, open, open_in, open_of, schema},
};

/// Rows of a batch of the neighbour.
const ROWS: i64 = 8192;
/// What a busy machine may add to its time without a fault of ours.
const NOISE: Duration = Duration::from_millis(50);

/// The neighbour's batch.
fn even_and_odd() -> DecodedBatch {
    let column: ArrayRef = Arc::new(Int64Array::from_iter_values(0..ROWS));
    DecodedBatch { rows: RecordBatch::try_from_iter([("n", column)]).unwrap(), origin: Origin::Replaced }
}

/// Runs batches until it is told to stop; how long each took. Every row must come out right.
async fn work(stop: Arc<AtomicBool>) -> Vec<Duration> {
    let mut plugin = hostile(&json!({"crime": "keep-even", "column": 0}));
    plugin.limits.output_rows = 10_000;
    plugin.limits.call_timeout = Duration::from_secs(10);
    let schema = even_and_odd().rows.schema();
    let mut chain = open_in("neighbour", &[plugin], schema, LanePauses::detached()).await.unwrap();
    let mut times = Vec::new();
    while !stop.load(Ordering::Relaxed) {
        let began = Instant::now();
        let output = chain.process(even_and_odd()).await.unwrap();
        times.push(began.elapsed());
        assert!(output.rejected.is_empty(), "{:?}", output.rejected);
        let kept: Vec<_> = output.batches.iter().flat_map(|batch| numbers(&batch.rows)).collect();
        assert!(kept.into_iter().eq((0..ROWS).step_by(2)), "rows are missing");
        // A pipeline has other things to do, too.
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    chain.close().await;
    times
}

/// The time that 99 of 100 batches do not exceed.
fn p99(mut times: Vec<Duration>) -> Duration {
    times.sort_unstable();
    times[(times.len() * 99 / 100).min(times.len() - 1)]
}

/// The work for so long, with nothing beside it.
async fn work_alone(lasts: Duration) -> Vec<Duration> {
    let stop = Arc::new(AtomicBool::new(false));
    let working = tokio::spawn(work(Arc::clone(&stop)));
    tokio::time::sleep(lasts).await;
    stop.store(true, Ordering::Relaxed);
    working.await.unwrap()
}

/// Says what was measured; `beside` may not be slower than twice `quiet`, but for what a busy machine may add.
fn compare(quiet: Vec<Duration>, beside: Vec<Duration>, what: &str, lasted: Duration, noise: Duration) {
    let batches = (quiet.len(), beside.len());
    let (quiet, beside) = (p99(quiet), p99(beside));
    let _ = writeln!(
        std::io::stderr(),
        "p99 of a batch of {ROWS} rows: {quiet:?} quiet ({} batches), {beside:?} beside {what} in {lasted:?} ({} batches)",
        batches.0,
        batches.1
    );
    assert!(beside <= (2 * quiet).max(noise), "{beside:?} beside {what}, {quiet:?} without");
}

/// Every crime that the component knows, and those that only text can commit.
fn crimes() -> Vec<(PluginConfig, Option<TempDir>)> {
    let garbage = hex(b"garbage that is no stream");
    let by_config = [
        "loop-in-open",
        "trap-in-open",
        "invalid-config",
        "unsupported-schema",
        "loop-in-flush",
        "trap-in-flush",
        "loop-in-close",
        "trap-in-close",
        "loop-in-process",
        "sleep-in-process",
        "fill-memory-for-ever",
        "allocate-for-ever",
        "trap",
        "trap-once",
        "failed",
        "other",
        "read-for-ever",
        "read-column-twice",
        "reject-every-row",
        "look-around",
    ]
    .map(|crime| json!({"crime": crime}));
    let with_more = [
        json!({"crime": "trap", "how": "out-of-bounds"}),
        json!({"crime": "trap", "how": "stack-overflow"}),
        json!({"crime": "trap", "how": "exit"}),
        json!({"crime": "trap-on-rows", "values": [5]}),
        json!({"crime": "loop-on-rows", "values": [5]}),
        json!({"crime": "retryable", "times": 9}),
        json!({"crime": "long-error", "times": 1 << 20}),
        json!({"crime": "log-for-ever", "times": 1_000_000}),
        json!({"crime": "huge-log-line", "bytes": 40 << 20}),
        json!({"crime": "many-metrics", "times": 1_000_000}),
        json!({"crime": "print-for-ever", "times": 1_000_000}),
        json!({"crime": "panic-with-words", "words": "at last"}),
        json!({"crime": "answer", "keep": "ffff"}),
        json!({"crime": "answer", "payload": "extend", "stream": garbage}),
        json!({"crime": "answer", "payload": "replace", "stream": garbage}),
        json!({"crime": "answer-in-flush", "payload": "extend", "stream": garbage}),
    ];
    let now = r#"(import "wasi:clocks/monotonic-clock@0.2.12" "now" (func $now (result i64)))"#;
    let ask = "(loop $l (drop (call $now)) br $l) unreachable";
    let made = [
        Made { start: SPIN, ..Made::default() },
        Made { describe: SPIN, ..Made::default() },
        Made { realloc: SPIN, ..Made::default() },
        Made { post_return: SPIN, ..Made::default() },
        Made { describe: "i32.const -4", ..Made::default() },
        Made { pages: 2000, ..Made::default() },
        Made { describe: ask, imports: now, wit: WASI, world: "with-wasi", ..Made::default() },
    ];
    let memories = file(&with_modules(Made::default().component(), "(module (memory 400))", 3));
    let configured = by_config.into_iter().chain(with_more).map(|config| (hostile(&config), None));
    let bomb: &'static str = Box::leak(locals_times_loops(10_000, 2_000).into_boxed_str());
    let bomb = Made { more: bomb, ..Made::default() };
    let made =
        made.iter().chain([&bomb]).map(Made::plugin).chain([memories]).map(|(plugin, folder)| (plugin, Some(folder)));
    configured.chain(made).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_healthy_plugin_beside_all_crimes_loses_no_row_and_little_time() {
    let quiet = work_alone(Duration::from_secs(2)).await;
    let stop = Arc::new(AtomicBool::new(false));
    let working = tokio::spawn(work(Arc::clone(&stop)));
    let crimes = crimes();
    let count = crimes.len();
    let began = Instant::now();
    for (mut plugin, _folder) in crimes {
        plugin.limits.call_timeout = Duration::from_millis(100);
        plugin.limits.compile_time = Duration::from_secs(2);
        plugin.on_trap.retries = 0;
        plugin.on_trap.bisect = true;
        // Compiled beside the lanes, as pipelines do.
        let opened = tokio::spawn(async move { open(&[plugin]).await });
        let Ok(mut chain) = opened.await.unwrap() else { continue };
        let _ = chain.process(crate::support::batch()).await;
        let _ = chain.flush(FlushReason::Checkpoint).await;
        chain.close().await;
    }
    let lasted = began.elapsed();
    stop.store(true, Ordering::Relaxed);
    let beside = working.await.unwrap();
    compare(quiet, beside, &format!("{count} crimes"), lasted, NOISE);
}

/// Plugins of the tenant that computes all the time.
const LOOPS: usize = 30;

#[test]
fn loops_of_one_tenant_leave_another_its_processors() {
    // As the program has it: one worker is left for timers where all processors are in plugins.
    let workers = std::thread::available_parallelism().unwrap().get() + WORKERS_SPARE;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(workers).enable_all().build().unwrap();
    runtime.block_on(async {
        let alone = Duration::from_secs(2);
        let quiet = work_alone(alone).await;
        let stop = Arc::new(AtomicBool::new(false));
        let working = tokio::spawn(work(Arc::clone(&stop)));
        let began = Instant::now();
        let rough = Tenant::alone("rough", TenantConfig::default());
        let loops: Vec<_> = (0..LOOPS)
            .map(|_| {
                let tenant = rough.clone();
                tokio::spawn(async move {
                    let mut plugin = hostile(&json!({"crime": "loop-in-process"}));
                    plugin.limits.call_timeout = Duration::from_millis(300);
                    plugin.on_trap.retries = 0;
                    let opened = open_of(tenant, "loops", &[plugin], schema(), LanePauses::detached()).await;
                    opened.unwrap().process(crate::support::batch()).await.unwrap()
                })
            })
            .collect();
        for one in loops {
            assert_refused(&one.await.unwrap(), "plugin-timeout", "did not return");
        }
        let lasted = began.elapsed();
        stop.store(true, Ordering::Relaxed);
        let beside = working.await.unwrap();
        // In the same time it gets a good part of its work done: three quarters on a quiet machine, a fifth on a busy one, and
        // without turns a twelfth on a quiet one.
        let rate = |batches: &[Duration], lasted: Duration| batches.len() as u128 * 1_000_000 / lasted.as_micros();
        let rates = (rate(&quiet, alone), rate(&beside, lasted));
        // Two processors are in loops all the time, and other tests and programs want them, too.
        compare(quiet, beside, &format!("{LOOPS} loops of another tenant"), lasted, 4 * NOISE);
        assert!(rates.1 * 10 >= rates.0, "{} batches a second without them and {} beside them", rates.0, rates.1);
        // Each of them had its time, of which nothing was taken for what it waited; and all that is in the tenant's account.
        let usage = rough.usage();
        let computed = Duration::from_millis(300) * u32::try_from(LOOPS).unwrap();
        assert!(usage.plugin_computed >= computed * 9 / 10, "{usage:?}");
        assert!(!usage.plugin_waited.is_zero(), "{usage:?}");
    });
}
