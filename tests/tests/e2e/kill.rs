//! `kill -9` again and again.

use std::{thread, time::Duration};

use anyhow::Context as _;
use fs_data_sink_tests::{
    lake::{Expected, Lake, Reader},
    program::{Configuration, Workspace, kafka_source, local_sink, s3_sink},
    records::{PARTITIONS, Random, Records},
    wait::{self, Look},
};

use crate::shared::{Feed, LONG, SHORT, ensure_all_there, kafka, s3, say, scenario, seed, unique};

/// Records a second: so many that each run has work, so few that the last run is short.
const RATE: u64 = 4_000;

/// A run that works is killed at most so long after its first files: within the first, second or third commit.
const WORK_MS_MAX: u64 = 1_500;

/// A run that is killed blindly lives at most so long: some before they joined the group, some while they join.
const BLIND_MS_MAX: u64 = 2_500;

/// A pipeline to be killed.
struct Victim<'a> {
    /// Its sink.
    sink: String,
    /// What it writes.
    lake: Lake<'a>,
    /// Columns of its directories.
    partition_columns: &'static [&'static str],
    /// How often it commits.
    commit_interval: &'static str,
    /// How often it is killed.
    kills: u32,
    /// What it promises.
    delivery: &'static str,
}

/// Scenario: a pipeline to S3 is killed at 20 random moments while records keep coming, and started again each time.
/// Guarantees: no row is lost (some may come twice), and a second process never sees a Parquet file that does not open.
#[test]
fn twenty_kills_lose_no_row_on_s3() -> anyhow::Result<()> {
    scenario("kill-s3", |workspace| {
        let prefix = unique("kill");
        let victim = Victim {
            sink: s3_sink(s3()?.access(), &prefix),
            lake: Lake::S3(s3()?, &prefix),
            partition_columns: &["country", "level"],
            commit_interval: "1s",
            kills: 20,
            delivery: "at_least_once",
        };
        survive(workspace, &victim)
    })
}

/// Scenario: the same on a local folder, with fewer kills and so many commits that kills fall into them.
/// Guarantees: the same for files that are renamed into place.
#[test]
fn twelve_kills_lose_no_row_on_a_local_folder() -> anyhow::Result<()> {
    scenario("kill-local", |workspace| {
        let folder = workspace.path().join("lake");
        std::fs::create_dir_all(&folder)?;
        let victim = Victim {
            sink: local_sink(&folder),
            lake: Lake::Local(&folder),
            partition_columns: &["level"],
            commit_interval: "50ms",
            kills: 12,
            delivery: "at_least_once",
        };
        survive(workspace, &victim)
    })
}

/// Scenario: a pipeline to S3 under exactly once is killed at 24 random moments while records keep coming.
/// Guarantees: every row is there exactly once, every file opens at any time, and the ledger agrees with the store.
#[test]
fn kills_double_no_row_on_s3() -> anyhow::Result<()> {
    scenario("once-s3", |workspace| {
        let prefix = unique("once");
        let victim = Victim {
            sink: s3_sink(s3()?.access(), &prefix),
            lake: Lake::S3(s3()?, &prefix),
            partition_columns: &["country", "level"],
            commit_interval: "500ms",
            kills: 24,
            delivery: "exactly_once",
        };
        survive(workspace, &victim)
    })
}

/// Scenario: the same on a local folder, with so many commits that kills fall into them.
/// Guarantees: the same for files that are renamed into place.
#[test]
fn kills_double_no_row_on_a_local_folder() -> anyhow::Result<()> {
    scenario("once-local", |workspace| {
        let folder = workspace.path().join("lake");
        std::fs::create_dir_all(&folder)?;
        let victim = Victim {
            sink: local_sink(&folder),
            lake: Lake::Local(&folder),
            partition_columns: &["level"],
            commit_interval: "50ms",
            kills: 24,
            delivery: "exactly_once",
        };
        survive(workspace, &victim)
    })
}

/// Kills, starts again, reads to the end, and compares.
fn survive(workspace: &Workspace, victim: &Victim<'_>) -> anyhow::Result<()> {
    let Victim { sink, lake, partition_columns, commit_interval, kills, delivery } = victim;
    let (kafka, seed) = (kafka()?, seed());
    let records = Records { seed, topic: unique("kill") };
    kafka.create_topic(&records.topic, PARTITIONS)?;
    let source = kafka_source(kafka.bootstrap(), &records.topic, &unique("group"));
    let sink = format!("{sink}  partition_by: [{}]\n", partition_columns.join(", "));
    let mut configuration = Configuration::new("kill", source, sink).with_records_schema_and_plugins();
    configuration.pipeline = format!("  commit_interval: {commit_interval}\n  delivery: {delivery}\n");
    workspace.write("pipeline.yaml", configuration.yaml())?;
    let observer = lake.observe(workspace.path())?;
    let feed = Feed::start(kafka, &records, 0, RATE)?;
    let mut random = Random::new(seed);
    for kill in 0..*kills {
        live_and_die(workspace, *lake, &mut random).with_context(|| format!("seed {seed}, run {kill}"))?;
    }
    let count = feed.finish()?;
    ensure_all_there(kafka, &records, count)?;
    workspace.run(&["run", "pipeline.yaml", "--until-end"], LONG)?.expect(0, &[])?;
    let (looks, opened) = observer.finish()?;
    let seen = lake.read(Reader::PyArrow, partition_columns, workspace.path())?;
    let difference = seen.compare(&Expected::of_records(&records, count))?;
    if *delivery == "exactly_once" {
        difference.expect_exact().with_context(|| format!("seed {seed}"))?;
        workspace
            .run(&["ledger", "verify", "pipeline.yaml"], SHORT)?
            .expect(0, &["the store is as the ledger says"])?;
    } else {
        difference.expect_none_lost().with_context(|| format!("seed {seed}"))?;
    }
    say(&format!(
        "{kills} kills (seed {seed}): {count} records, {} rows and {} doubled; the observer looked {looks} times and opened {opened} files",
        difference.right, difference.doubled
    ));
    anyhow::ensure!(looks > 20 && opened > 100, "the observer saw too little: {looks} looks, {opened} files");
    Ok(())
}

/// One run: one in four is killed wherever it is, the others once they have written files.
fn live_and_die(workspace: &Workspace, lake: Lake<'_>, random: &mut Random) -> anyhow::Result<()> {
    let before = lake.parquet_files()?.len();
    let mut process = workspace.start(&["run", "pipeline.yaml"])?;
    let life_ms = if random.once_in(4) {
        random.below(BLIND_MS_MAX)
    } else {
        let working = wait::until("the first files of a run", SHORT, || {
            process.ensure_running()?;
            let files = lake.parquet_files()?.len();
            Ok(Look::when(files > before, format!("{files} files")))
        });
        working.with_context(|| process.log_tail())?;
        random.below(WORK_MS_MAX)
    };
    thread::sleep(Duration::from_millis(life_ms));
    process.ensure_running()?;
    process.kill()?;
    Ok(())
}
