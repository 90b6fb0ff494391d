//! `kill -9` again and again. `FS_DATA_SINK_KILLS` says how often each pipeline under exactly once is killed (`make soak`).

use std::{
    thread,
    time::{Duration, Instant},
};

use anyhow::Context as _;
use fs_data_sink_tests::{
    lake::{Expected, Lake, Reader},
    program::{Configuration, Workspace, hdfs_sink, kafka_source, local_sink, s3_sink},
    records::{PARTITIONS, Random, Records},
    services::{
        hdfs::{Way, superuser},
        process::Process,
    },
    wait::{self, Look},
};

use crate::shared::{FAIL_POINT, Feed, LONG, SHORT, ensure_all_there, hdfs, kafka, s3, say, scenario, seed, unique};

/// Records a second: so many that each run has work, so few that the last run is short.
const RATE: u64 = 4_000;

/// A run that works is killed at most so long after its first files: within the first, second or third commit.
const WORK_MS_MAX: u64 = 1_500;

/// A run that is killed blindly lives at most so long: some before they joined the group, some while they join.
const BLIND_MS_MAX: u64 = 2_500;

/// Moments of a commit at which a process can end.
const POINTS: [&str; 6] = ["claimed", "staged", "recorded", "published_one", "published", "repaired"];

/// A run that never comes to its moment is killed after so long.
const POINT_LIMIT: Duration = Duration::from_secs(6);

/// How often a pipeline under exactly once is killed: fewer times in the test suite than where time does not count.
pub(crate) fn kills(in_suite: u32) -> u32 {
    let given = std::env::var("FS_DATA_SINK_KILLS").ok().and_then(|kills| kills.parse().ok());
    given.unwrap_or(in_suite)
}

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

/// Scenario: a pipeline to S3 under exactly once is killed at random moments and between the steps of a commit, while
/// records keep coming.
/// Guarantees: every row is there exactly once at the end, no row is there twice at any time, every file opens at any time,
/// and the ledger agrees with the store.
#[test]
fn kills_double_no_row_on_s3() -> anyhow::Result<()> {
    scenario("once-s3", |workspace| {
        let prefix = unique("once");
        let victim = Victim {
            sink: s3_sink(s3()?.access(), &prefix),
            lake: Lake::S3(s3()?, &prefix),
            partition_columns: &["country", "level"],
            commit_interval: "500ms",
            kills: kills(24),
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
            kills: kills(24),
            delivery: "exactly_once",
        };
        survive(workspace, &victim)
    })
}

/// The same on HDFS.
fn kills_on_hdfs(name: &str, way: Way, in_suite: u32) -> anyhow::Result<()> {
    scenario(name, |workspace| {
        let (hdfs, folder) = (hdfs()?, format!("/lakes/{}", unique("once")));
        let victim = Victim {
            sink: hdfs_sink(&hdfs.url(way), &folder, &superuser()),
            lake: Lake::Hdfs(hdfs, &folder),
            partition_columns: &["level"],
            commit_interval: "200ms",
            kills: kills(in_suite),
            delivery: "exactly_once",
        };
        survive(workspace, &victim)
    })
}

/// Scenario: the same on HDFS by RPC.
/// Guarantees: the same.
#[test]
fn kills_double_no_row_on_hdfs_by_rpc() -> anyhow::Result<()> {
    kills_on_hdfs("once-hdfs-native", Way::Native, 12)
}

/// Scenario: the same on HDFS by WebHDFS.
/// Guarantees: the same.
#[test]
fn kills_double_no_row_on_hdfs_by_web() -> anyhow::Result<()> {
    kills_on_hdfs("once-hdfs-web", Way::Web, 8)
}

/// Kills, starts again, reads to the end, and compares.
fn survive(workspace: &mut Workspace, victim: &Victim<'_>) -> anyhow::Result<()> {
    let Victim { sink, lake, partition_columns, commit_interval, kills, delivery } = victim;
    let (kafka, seed) = (kafka()?, seed());
    let records = Records { seed, topic: unique("kill") };
    kafka.create_topic(&records.topic, PARTITIONS)?;
    let source = kafka_source(kafka.bootstrap(), &records.topic, &unique("group"));
    let sink = format!("{sink}  partition_by: [{}]\n", partition_columns.join(", "));
    let mut configuration = Configuration::new("kill", source, sink).with_records_schema_and_plugins();
    configuration.pipeline = format!("  commit_interval: {commit_interval}\n  delivery: {delivery}\n");
    workspace.write("pipeline.yaml", configuration.yaml())?;
    let once = *delivery == "exactly_once";
    let observer = lake.observe(once, workspace.path())?;
    let feed = Feed::start(kafka, &records, 0, RATE)?;
    let mut random = Random::new(seed);
    for kill in 0..*kills {
        live_and_die(workspace, *lake, once, &mut random).with_context(|| format!("seed {seed}, run {kill}"))?;
    }
    workspace.set("FS_DATA_SINK_FAIL_POINT", "none");
    let count = feed.finish()?;
    ensure_all_there(kafka, &records, count)?;
    workspace.run(&["run", "pipeline.yaml", "--until-end"], LONG)?.expect(0, &[])?;
    let (looks, opened) = observer.finish()?;
    let seen = lake.read(Reader::PyArrow, partition_columns, workspace.path())?;
    let difference = seen.compare(&Expected::of_records(&records, count))?;
    if once {
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

/// One run: one in four is killed wherever it is; under exactly once another one in four ends between two steps of a
/// commit; the others are killed once they have written files.
pub(crate) fn live_and_die(
    workspace: &mut Workspace,
    lake: Lake<'_>,
    once: bool,
    random: &mut Random,
) -> anyhow::Result<()> {
    let way = random.below(4);
    let at_point = once && way == 1;
    let point = POINTS.get(usize::try_from(random.below(POINTS.len() as u64))?).filter(|_| at_point);
    let point = point.map_or_else(|| "none".to_owned(), |point| format!("{point}:{}", 1 + random.below(8)));
    workspace.set("FS_DATA_SINK_FAIL_POINT", &point);
    let before = lake.parquet_files()?.len();
    let mut process = workspace.start(&["run", "pipeline.yaml"])?;
    let life_ms = match way {
        0 => random.below(BLIND_MS_MAX),
        1 if once => return die_at_point(process),
        _ => {
            let working = wait::until("the first files of a run", SHORT, || {
                process.ensure_running()?;
                let files = lake.parquet_files()?.len();
                Ok(Look::when(files > before, format!("{files} files")))
            });
            working.with_context(|| process.log_tail())?;
            random.below(WORK_MS_MAX)
        }
    };
    thread::sleep(Duration::from_millis(life_ms));
    process.ensure_running()?;
    process.kill()?;
    Ok(())
}

/// Waits until a process has ended at its moment; one that does not come there is killed.
fn die_at_point(mut process: Process) -> anyhow::Result<()> {
    let start = Instant::now();
    while start.elapsed() < POINT_LIMIT {
        if let Some(ended) = process.ended()? {
            anyhow::ensure!(
                ended == FAIL_POINT,
                "{ended:?} instead of an end between two steps\n{}",
                process.log_tail()
            );
            return Ok(());
        }
        thread::sleep(Duration::from_millis(10));
    }
    process.kill()?;
    Ok(())
}
