//! Streams and lists of Redis, from real servers through the binary into files.

use std::{
    sync::{
        Arc, LazyLock,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use anyhow::Context as _;
use fs_data_sink_tests::{
    lake::{Difference, Expected, Lake, Reader},
    program::{Configuration, Workspace, local_sink},
    services::redis::{Redis, add_entries, push_items},
};
use redis::ConnectionLike;
use serde_json::json;

use crate::shared::{SHORT, unique};

mod buckets;
mod kills;
mod once;
mod servers;
mod sharing;

/// The server of all scenarios that do not stop one.
pub(crate) fn redis() -> anyhow::Result<&'static Redis> {
    static SHARED: LazyLock<anyhow::Result<Redis>> = LazyLock::new(Redis::given_or_started);
    SHARED.as_ref().map_err(|error| anyhow::anyhow!("no Redis: {error:#}"))
}

/// Names of so many keys that no other test has.
fn keys(name: &str, count: u64) -> Vec<String> {
    let name = unique(name);
    (0..count).map(|number| format!("{name}-{number}")).collect()
}

/// A list of keys as YAML.
fn listed(name: &str, keys: &[String]) -> String {
    format!("  {name}: [{}]\n", keys.join(", "))
}

/// Row `number`, as its JSON and as it is read back.
fn row(number: u64) -> String {
    let text = ["plain", "größer", "日本語", "👩‍👩‍👧", "quote \" and \\ back", "line\nbreak"];
    let text = usize::try_from(number).ok().and_then(|number| text.get(number % text.len()));
    json!({"id": number, "text": text}).to_string()
}

/// Adds rows to streams by turns.
fn add_rows(link: &mut impl ConnectionLike, streams: &[String], rows: std::ops::Range<u64>) -> anyhow::Result<()> {
    add_entries(
        link,
        rows.map(|number| (key_of(streams, number), vec![("value", row(number)), ("trace", number.to_string())])),
    )
}

/// Pushes rows to lists by turns.
fn push_rows(link: &mut impl ConnectionLike, lists: &[String], rows: std::ops::Range<u64>) -> anyhow::Result<()> {
    push_items(link, rows.map(|number| (key_of(lists, number), row(number))))
}

/// The key of a row.
fn key_of(keys: &[String], number: u64) -> String {
    let at = usize::try_from(number).unwrap_or_default() % keys.len().max(1);
    keys.get(at).cloned().unwrap_or_default()
}

/// The rows up to a number.
fn expected(count: u64) -> Expected {
    Expected::new(Box::new(move || Box::new((0..count).map(row))))
}

/// A pipeline from Redis into the folder `lake`.
fn configure(workspace: &Workspace, source: &str, pipeline: &str) -> anyhow::Result<()> {
    let folder = workspace.path().join("lake");
    std::fs::create_dir_all(&folder)?;
    let mut configuration = Configuration::new("fromredis", source.to_owned(), local_sink(&folder));
    configuration.schema = String::from(
        "schema:\n  mode: declared\n  fields:\n    - {name: id, type: int64}\n    - {name: text, type: string}\n",
    );
    configuration.pipeline = format!("  commit_interval: 200ms\n{pipeline}");
    workspace.write("pipeline.yaml", configuration.yaml())?;
    Ok(())
}

/// How what is in the folder `lake` differs from the rows up to a number.
fn compare(workspace: &Workspace, count: u64) -> anyhow::Result<Difference> {
    let folder = workspace.path().join("lake");
    Lake::Local(&folder).read(Reader::DuckDb, &[], workspace.path())?.compare(&expected(count))
}

/// Whether exactly these rows are there, and the ledger agrees.
fn expect_exact(workspace: &Workspace, count: u64) -> anyhow::Result<()> {
    compare(workspace, count)?.expect_exact()?;
    workspace.run(&["ledger", "verify", "pipeline.yaml"], SHORT)?.expect(0, &["the store is as the ledger says"])
}

/// How many rows there are; none while a file is just appearing.
fn rows_so_far(workspace: &Workspace) -> u64 {
    let folder = workspace.path().join("lake");
    let seen = Lake::Local(&folder).read(Reader::DuckDb, &[], workspace.path());
    let compared = seen.and_then(|seen| seen.compare(&expected(0)));
    compared.map_or(0, |difference| difference.unexpected)
}

/// Rows that keep coming.
struct Feed {
    /// Ends it.
    stopped: Arc<AtomicBool>,
    /// Gives the number of rows.
    thread: JoinHandle<anyhow::Result<u64>>,
}

impl Feed {
    /// Goes on after `from` rows, so many a second. `add` adds a stretch of rows, and is asked again where it fails before anything was added.
    fn start(
        from: u64,
        per_second: u64,
        mut add: impl FnMut(std::ops::Range<u64>) -> anyhow::Result<()> + Send + 'static,
    ) -> Self {
        let stopped = Arc::new(AtomicBool::new(false));
        let flag = Arc::clone(&stopped);
        let thread = thread::spawn(move || {
            let (start, mut next) = (Instant::now(), from);
            while !flag.load(Ordering::SeqCst) {
                let due = from + u64::try_from(start.elapsed().as_millis())? * per_second / 1_000;
                if due > next {
                    add(next..due)?;
                    next = due;
                }
                thread::sleep(Duration::from_millis(10));
            }
            Ok(next)
        });
        Self { stopped, thread }
    }

    /// Ends it: how many rows there are now in all.
    fn finish(self) -> anyhow::Result<u64> {
        self.stopped.store(true, Ordering::SeqCst);
        self.thread.join().ok().context("the feed panicked")?
    }
}
