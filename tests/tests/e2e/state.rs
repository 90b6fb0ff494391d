//! Plugins that keep state: totals are right whatever happens to the processes that count.

use std::{
    collections::BTreeMap,
    io::BufRead as _,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Duration,
};

use anyhow::{Context as _, ensure};
use fs_data_sink_tests::{
    lake::{Lake, Reader},
    program::{Configuration, Workspace, end, kafka_source, local_sink, plugin, s3_sink},
    records::Random,
    services::{
        kafka::{NewRecord, Producer},
        process::{Process, Signal},
    },
};
use serde_json::{Value, json};

use crate::{
    kill::kills,
    shared::{FAIL_POINT, LONG, SHORT, kafka, s3, say, scenario, seed, unique},
};

/// Partitions of the topic: more than lanes, so that some move whenever a process comes or goes.
pub(crate) const PARTITIONS: u64 = 6;

/// Keys that are counted.
const COUNTRIES: [&str; 5] = ["DE", "FR", "JP", "US", "größe 名"];

/// Records a second.
const RATE: u64 = 2_000;

/// Time from record to record: a second of the test is 40 s of theirs, so windows close all the time.
const STEP_MS: u64 = 20;

/// Length of a window.
const WINDOW_MS: u64 = 10_000;

/// When the first record happened: 2026-01-01.
const BEGIN_MS: u64 = 1_767_225_600_000;

/// Two processes at most, so that partitions move whenever one comes or goes.
const PROCESSES: usize = 2;

/// Moments of a commit at which a process can end.
const POINTS: [&str; 4] = ["claimed", "staged", "recorded", "published"];

/// Record `number`.
fn record(number: u64) -> NewRecord {
    let value = json!({"country": country(number), "ts": BEGIN_MS + number * STEP_MS, "n": number}).to_string();
    let partition = i32::try_from(number % PARTITIONS).unwrap_or_default();
    NewRecord { partition, value: Some(value.into_bytes()), ..NewRecord::default() }
}

/// Its key, which does not go along with its partition.
fn country(number: u64) -> &'static str {
    let at = usize::try_from(number / PARTITIONS % 5).unwrap_or_default();
    COUNTRIES.get(at).copied().unwrap_or_default()
}

/// Counts by key and first moment of the window, in milliseconds.
pub(crate) type Counts = BTreeMap<(String, u64), u64>;

/// The counts of the records up to a number.
pub(crate) fn counts_of(count: u64) -> Counts {
    let mut counts = Counts::new();
    for number in 0..count {
        let time = BEGIN_MS + number * STEP_MS;
        *counts.entry((country(number).to_owned(), time - time % WINDOW_MS)).or_default() += 1;
    }
    counts
}

/// The counts in a lake, those of a window added up; and the rows.
pub(crate) fn counts_in(lake: Lake<'_>, scratch: &Path) -> anyhow::Result<(Counts, usize)> {
    let seen = lake.read(Reader::DuckDb, &[], scratch)?;
    let (mut counts, mut rows) = (Counts::new(), 0);
    for line in std::io::BufReader::new(std::fs::File::open(&seen.rows)?).lines() {
        let row: Value = serde_json::from_str(&line?)?;
        let text = |name: &str| row.get(name).and_then(Value::as_str).with_context(|| format!("no {name} in {row}"));
        let start: u64 = text("window_start")?.trim_start_matches("us:").parse()?;
        let count = row.get("count").and_then(Value::as_u64).context("no count")?;
        *counts.entry((text("country")?.to_owned(), start / 1_000)).or_default() += count;
        rows += 1;
    }
    Ok((counts, rows))
}

/// Fails where the counts differ, with some that do.
pub(crate) fn compare(found: &Counts, wanted: &Counts) -> anyhow::Result<()> {
    let keys = found.keys().chain(wanted.keys());
    let differ: BTreeMap<_, _> = keys
        .filter(|key| found.get(*key) != wanted.get(*key))
        .map(|key| (key, (found.get(key).copied(), wanted.get(key).copied())))
        .collect();
    let samples: Vec<_> = differ.iter().take(5).collect();
    ensure!(differ.is_empty(), "{} windows of {} differ (found, wanted): {samples:?}", differ.len(), wanted.len());
    Ok(())
}

/// A pipeline that counts.
pub(crate) fn counting(source: String, sink: String) -> Configuration {
    let mut configuration = Configuration::new("counts", source, sink);
    "schema:\n  fields:\n    - {name: country, type: string}\n    - {name: ts, type: \"timestamp[ms, UTC]\"}\n"
        .clone_into(&mut configuration.schema);
    configuration.plugins = windows();
    configuration
}

/// `plugins` with the one that counts.
fn windows() -> String {
    format!(
        "plugins:\n  - name: windows\n    path: {}\n    config: {{key: country, time: ts, window_seconds: {}}}\n",
        plugin("count_windows").display(),
        WINDOW_MS / 1_000
    )
}

/// Records that keep coming until they are stopped; how many there were.
pub(crate) fn feed(producer: &Producer, topic: &str, stopped: &AtomicBool) -> anyhow::Result<u64> {
    let mut next = 0;
    while !stopped.load(Ordering::Relaxed) {
        for number in next..next + RATE / 20 {
            producer.send(topic, &record(number))?;
        }
        next += RATE / 20;
        producer.flush()?;
        thread::sleep(Duration::from_millis(50));
    }
    Ok(next)
}

/// How processes ended.
#[derive(Default)]
struct Ends {
    /// By `kill -9`.
    killed: u32,
    /// Between two steps of a commit.
    at_points: u32,
    /// When they were asked to.
    left: u32,
}

/// Lets processes come and go until so many were killed; none is left running.
fn come_and_go(workspace: &mut Workspace, kills: u32, random: &mut Random) -> anyhow::Result<Ends> {
    let mut ends = Ends::default();
    let mut running: Vec<Process> = Vec::new();
    while ends.killed + ends.at_points < kills {
        while running.len() < PROCESSES && (running.is_empty() || random.below(3) > 0) {
            let point =
                POINTS.get(usize::try_from(random.below(POINTS.len() as u64))?).filter(|_| random.below(2) == 0);
            let point = point.map_or_else(|| "none".to_owned(), |point| format!("{point}:{}", 1 + random.below(4)));
            workspace.set("FS_DATA_SINK_FAIL_POINT", &point);
            running.push(workspace.start(&["run", "pipeline.yaml"])?);
        }
        thread::sleep(Duration::from_millis(200 + random.below(3_000)));
        let mut process = running.swap_remove(usize::try_from(random.below(running.len() as u64))?);
        match process.ended()? {
            Some(ended) => {
                ensure!(ended == FAIL_POINT, "{ended:?} instead of an end between two steps\n{}", process.log_tail());
                ends.at_points += 1;
            }
            // Before that it does not hear signals yet.
            None if random.below(4) == 0 && process.log().contains("pipeline runs") => {
                process.signal(Signal::Terminate)?;
                let ended = process.wait(SHORT)?;
                ensure!(
                    ended == FAIL_POINT || ended == fs_data_sink_tests::services::process::Ended::Code(0),
                    "{ended:?} when it was asked to end\n{}",
                    process.log_tail()
                );
                ends.left += 1;
            }
            None => {
                process.kill()?;
                ends.killed += 1;
            }
        }
    }
    for mut process in running {
        process.kill()?;
    }
    Ok(ends)
}

/// Counts while processes are killed, join and leave; reads to the end, and compares.
fn survive(workspace: &mut Workspace, sink: String, lake: Lake<'_>) -> anyhow::Result<()> {
    let (kafka, topic, seed) = (kafka()?, unique("windows"), seed());
    kafka.create_topic(&topic, i32::try_from(PARTITIONS)?)?;
    let mut configuration = counting(kafka_source(kafka.bootstrap(), &topic, &unique("windows")), sink);
    "  commit_interval: 200ms\n  lanes: 2\n".clone_into(&mut configuration.pipeline);
    workspace.write("pipeline.yaml", configuration.yaml())?;
    let stopped = Arc::new(AtomicBool::new(false));
    let feeding = thread::spawn({
        let (producer, topic, stopped) = (kafka.producer()?, topic.clone(), Arc::clone(&stopped));
        move || feed(&producer, &topic, &stopped)
    });
    let ends = come_and_go(workspace, kills(12), &mut Random::new(seed)).with_context(|| format!("seed {seed}"));
    stopped.store(true, Ordering::Relaxed);
    let count = feeding.join().map_err(|_| anyhow::anyhow!("the feed panicked"))??;
    let Ends { killed, at_points, left } = ends?;
    workspace.set("FS_DATA_SINK_FAIL_POINT", "none");
    // Ends like any other, and what windows are open stays so until the input is at its end.
    let mut last = workspace.start(&["run", "pipeline.yaml"])?;
    last.wait_for_text("generation committed", SHORT)?;
    end(last, Signal::Terminate, SHORT)?.expect(0, &[])?;
    // Killed members still have partitions; other ones are on the move between its two lanes.
    workspace.run(&["run", "pipeline.yaml", "--until-end"], LONG)?.expect(0, &[])?;
    let (found, rows) = counts_in(lake, workspace.path())?;
    compare(&found, &counts_of(count)).with_context(|| format!("seed {seed}"))?;
    let verified = workspace.run(&["ledger", "verify", "pipeline.yaml"], SHORT)?;
    verified.expect(0, &["the store is as the ledger says"])?;
    workspace.run(&["ledger", "show", "pipeline.yaml"], SHORT)?.expect(0, &["state of plugin windows ("])?;
    let objects = lake.list()?.into_iter().filter(|name| name.starts_with("_fs_data_sink/counts/state/")).count();
    say(&format!(
        "state: seed {seed}, {killed} killed, {at_points} ended in a commit, {left} left, {count} records, {rows} rows in {} windows, \
         {objects} objects with state",
        found.len()
    ));
    Ok(())
}

/// Scenario: two processes with two lanes each count records of six partitions by key and time window; again and again one of them
/// is killed, ends between two steps of a commit, or leaves, and another one joins, so that partitions move all the time.
/// Guarantees: the counts of every window add up to exactly the records that there were; the ledger agrees with the store.
#[test]
fn kills_double_no_row_of_counted_windows_on_a_local_folder() -> anyhow::Result<()> {
    scenario("state-local", |workspace| {
        let folder = workspace.path().join("lake");
        std::fs::create_dir_all(&folder)?;
        survive(workspace, local_sink(&folder), Lake::Local(&folder))
    })
}

/// Scenario: the same on S3.
/// Guarantees: the same.
#[test]
fn kills_double_no_row_of_counted_windows_on_s3() -> anyhow::Result<()> {
    scenario("state-s3", |workspace| {
        let prefix = unique("windows");
        survive(workspace, s3_sink(s3()?.access(), &prefix), Lake::S3(s3()?, &prefix))
    })
}

/// A pipeline from files into the folder `lake`.
fn from_files(workspace: &Workspace, configuration: Configuration, pipeline: &str) -> anyhow::Result<()> {
    let configuration = Configuration { pipeline: pipeline.to_owned(), ..configuration };
    workspace.write("pipeline.yaml", configuration.yaml())?;
    Ok(())
}

/// Lines of files.
fn lines(numbers: std::ops::Range<u64>, more: &str) -> String {
    let line = |number: u64| {
        let time = format!("{}", BEGIN_MS + number * STEP_MS);
        format!("{{\"country\":{},\"ts\":{time}{more}}}\n", json!(country(number)))
    };
    numbers.map(line).collect()
}

/// Scenario: new fields become columns, and in the middle of a file records have one more.
/// Guarantees: the plugin is opened anew with its state when the schema changes; what is open at the end of a file comes out.
#[test]
fn state_outlives_a_change_of_the_schema() -> anyhow::Result<()> {
    scenario("state-schema", |workspace| {
        let text = lines(0..3_000, "") + &lines(3_000..6_000, ",\"more\":true") + &lines(6_000..9_000, "");
        workspace.write("in/a.ndjson", text)?;
        let source = "  type: file\n  paths: [\"in/*.ndjson\"]\n  batch_size: 500\n".to_owned();
        let mut configuration = counting(source, local_sink(Path::new("lake")));
        configuration.schema += "  on_new_field: add\n";
        from_files(workspace, configuration, "  flush_interval_batches: 2\n")?;
        workspace.run(&["run", "pipeline.yaml"], LONG)?.expect(0, &[])?;
        let folder = workspace.path().join("lake");
        compare(&counts_in(Lake::Local(&folder), workspace.path())?.0, &counts_of(9_000))?;
        // Nothing comes again.
        workspace.run(&["run", "pipeline.yaml"], LONG)?.expect(0, &[])?;
        compare(&counts_in(Lake::Local(&folder), workspace.path())?.0, &counts_of(9_000))
    })
}

/// Scenario: a process ends right after the commit of the last records of a file, before the windows that are open came out; the
/// next one finds no record.
/// Guarantees: it opens the plugin all the same, and gives them out.
#[test]
fn windows_come_out_at_the_end_though_no_record_came() -> anyhow::Result<()> {
    scenario("state-end", |workspace| {
        workspace.write("in/a.ndjson", lines(0..1_000, ""))?;
        let source = "  type: file\n  paths: [\"in/*.ndjson\"]\n  batch_size: 1000\n".to_owned();
        let configuration = counting(source, local_sink(Path::new("lake")));
        from_files(workspace, configuration, "  flush_interval_batches: 1\n")?;
        workspace.set("FS_DATA_SINK_FAIL_POINT", "published:1");
        ensure!(workspace.run(&["run", "pipeline.yaml"], LONG)?.ended == FAIL_POINT);
        workspace.set("FS_DATA_SINK_FAIL_POINT", "none");
        let folder = workspace.path().join("lake");
        let before = counts_in(Lake::Local(&folder), workspace.path())?.0;
        ensure!(before.len() < counts_of(1_000).len(), "no window was open");
        workspace.run(&["run", "pipeline.yaml"], LONG)?.expect(0, &[])?;
        compare(&counts_in(Lake::Local(&folder), workspace.path())?.0, &counts_of(1_000))
    })
}

/// Scenario: a process ends between record and publish of its second commit, and what it has staged is deleted.
/// Guarantees: the next one writes the file again from the records of the commit and the state before it, and goes on from the state
/// after it.
#[test]
fn a_lost_file_of_windows_is_written_again_from_the_state_before_it() -> anyhow::Result<()> {
    scenario("state-lost", |workspace| {
        workspace.write("in/a.ndjson", lines(0..3_000, ""))?;
        let source = "  type: file\n  paths: [\"in/*.ndjson\"]\n  batch_size: 1000\n".to_owned();
        let configuration = counting(source, local_sink(Path::new("lake")));
        from_files(workspace, configuration, "  flush_interval_batches: 1\n")?;
        workspace.set("FS_DATA_SINK_FAIL_POINT", "recorded:2");
        ensure!(workspace.run(&["run", "pipeline.yaml"], LONG)?.ended == FAIL_POINT);
        workspace.set("FS_DATA_SINK_FAIL_POINT", "none");
        let folder = workspace.path().join("lake");
        std::fs::remove_dir_all(folder.join("_fs_data_sink/counts/staging"))?;
        let finished = workspace.run(&["run", "pipeline.yaml"], LONG)?;
        finished.expect(0, &["a committed file was lost before it became visible"])?;
        compare(&counts_in(Lake::Local(&folder), workspace.path())?.0, &counts_of(3_000))?;
        let verified = workspace.run(&["ledger", "verify", "pipeline.yaml"], SHORT)?;
        verified.expect(0, &["the store is as the ledger says"])
    })
}

/// `plugins` with one that counts rows and traps.
fn trapping(crime: &str, at: u64) -> String {
    format!(
        "plugins:\n  - name: counter\n    path: {}\n    config: {{crime: {crime}, at: {at}}}\n",
        plugin("hostile_state").display()
    )
}

/// Scenario: a plugin traps whenever one instance of it has seen 250 rows; each 100 rows are a commit.
/// Guarantees: the lane begins anew from the last commit, with the state of it, as often as it takes: each row was seen once, in
/// its order.
#[test]
fn a_trap_costs_nothing_that_is_committed() -> anyhow::Result<()> {
    scenario("state-traps", |workspace| {
        workspace.write("in/a.ndjson", lines(0..600, ""))?;
        let source = "  type: file\n  paths: [\"in/*.ndjson\"]\n  batch_size: 100\n".to_owned();
        let mut configuration = counting(source, local_sink(Path::new("lake")));
        configuration.plugins = trapping("trap-after-rows", 250);
        from_files(workspace, configuration, "  flush_interval_batches: 1\n")?;
        let finished = workspace.run(&["run", "pipeline.yaml"], LONG)?;
        finished
            .expect(0, &["what it held of earlier batches is lost", "the lane begins anew from what is committed"])?;
        let folder = workspace.path().join("lake");
        let seen = Lake::Local(&folder).read(Reader::DuckDb, &[], workspace.path())?;
        let mut numbers = Vec::new();
        for line in std::io::BufReader::new(std::fs::File::open(&seen.rows)?).lines() {
            let row: Value = serde_json::from_str(&line?)?;
            numbers.extend(row.get("seen").and_then(Value::as_u64));
        }
        numbers.sort_unstable();
        ensure!(numbers == (0..600).collect::<Vec<_>>(), "{} rows: {numbers:?}", numbers.len());
        Ok(())
    })
}

/// Scenario: a plugin with state under at least once; one whose state is not taken; a pipeline without the plugin whose state the
/// ledger has.
/// Guarantees: each ends the pipeline in words that say what to do.
#[test]
fn state_that_has_no_place_or_no_reader_is_told() -> anyhow::Result<()> {
    scenario("state-wrong", |workspace| {
        workspace.write("in/a.ndjson", lines(0..100, ""))?;
        let source = "  type: file\n  paths: [\"in/*.ndjson\"]\n".to_owned();
        let configuration = counting(source, local_sink(Path::new("lake")));
        from_files(workspace, configuration.clone(), "  delivery: at_least_once\n")?;
        let words = "plugin windows keeps state (it exports fs-data-sink:plugin/state)";
        workspace.run(&["validate", "pipeline.yaml"], SHORT)?.expect(2, &[words])?;
        workspace.run(&["run", "pipeline.yaml"], SHORT)?.expect(2, &[words, "`pipeline.delivery: exactly_once`"])?;
        from_files(workspace, configuration.clone(), "  max_batches: 1\n")?;
        workspace.run(&["run", "pipeline.yaml"], LONG)?.expect(0, &[])?;
        let other = Configuration {
            plugins: windows().replace("window_seconds: 10", "window_seconds: 7"),
            ..configuration.clone()
        };
        workspace.write("in/a.ndjson", lines(0..200, ""))?;
        from_files(workspace, other, "")?;
        let words = "plugin windows cannot go on from its recorded state of ";
        workspace.run(&["run", "pipeline.yaml"], SHORT)?.expect(1, &[words, "set window_seconds back"])?;
        let none = Configuration { plugins: String::new(), ..configuration };
        from_files(workspace, none, "")?;
        let words = "the pipeline has no plugin of this name with state: what it keeps would be lost";
        workspace.run(&["run", "pipeline.yaml"], SHORT)?.expect(1, &[words, "Put it back under this name"])
    })
}
