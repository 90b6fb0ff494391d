//! Exactly once where it is hardest: between every two steps of a commit, with a sleeper that wakes up, and with uploads that
//! are gone.

use std::{collections::BTreeSet, thread, time::Duration};

use anyhow::{Context as _, ensure};
use fs_data_sink_tests::{
    lake::{Expected, Lake, Reader},
    program::{Configuration, PARTITION_BY, Workspace, end, hdfs_sink, kafka_source, local_sink, s3_sink},
    records::{PARTITIONS, Records},
    requests::small_requests_a_commit,
    services::{
        hdfs::{Way, superuser},
        process::{Ended, Signal},
        s3::S3,
    },
    wait::{self, Look},
};
use serde_json::Value;

use crate::shared::{
    FAIL_POINT, Feed, LONG, SHORT, end_at, ensure_all_there, filled_topic, hdfs, kafka, s3, say, scenario, unique,
};

/// Enough for several commits in a run.
const RECORDS: u64 = 30_000;

/// Requests of a commit besides those of its files.
const SMALL_REQUESTS_MAX: f64 = 3.0;

/// Moments of a commit, in their order, and how often each is passed before the process ends there.
const POINTS: [&str; 12] = [
    "claimed:1",
    "staged:1",
    "recorded:1",
    "published_one:1",
    "published_one:3",
    "published:1",
    "claimed:2",
    "staged:2",
    "recorded:2",
    "published_one:9",
    "published:2",
    "recorded:1",
];

/// A configuration that commits often.
fn configuration(name: &str, source: String, sink: String) -> Configuration {
    let pipeline = "  commit_interval: 200ms\n  flush_interval_batches: 3\n".to_owned();
    Configuration { pipeline, ..Configuration::new(name, source, sink + PARTITION_BY) }
        .with_records_schema_and_plugins()
}

/// Ends a process at every point, reads to the end, and compares.
fn crash_at_every_point(workspace: &mut Workspace, sink: String, lake: Lake<'_>) -> anyhow::Result<()> {
    let kafka = kafka()?;
    let records = filled_topic(kafka, "points", 12, RECORDS)?;
    let source = kafka_source(kafka.bootstrap(), &records.topic, &unique("group"));
    workspace.write("pipeline.yaml", configuration("points", source, sink).yaml())?;
    let mut met = BTreeSet::new();
    for point in POINTS {
        workspace.set("FS_DATA_SINK_FAIL_POINT", point);
        let ended = workspace.run(&["run", "pipeline.yaml", "--until-end"], LONG)?.ended;
        if ended == FAIL_POINT {
            met.insert(point);
        } else {
            ensure!(ended == Ended::Code(0), "{point}: {ended:?}");
        }
    }
    ensure!(met.len() > 6, "few points were met, so little was shown: {met:?}");
    workspace.set("FS_DATA_SINK_FAIL_POINT", "none");
    workspace.run(&["run", "pipeline.yaml", "--until-end"], LONG)?.expect(0, &[])?;
    let seen = lake.read(Reader::DuckDb, &["country", "level"], workspace.path())?;
    seen.compare(&Expected::of_records(&records, RECORDS))?.expect_exact()?;
    workspace.run(&["ledger", "verify", "pipeline.yaml"], SHORT)?.expect(0, &["the store is as the ledger says"])
}

/// Scenario: the process ends between every two steps of a commit to S3.
/// Guarantees: every row exactly once, and the ledger agrees with the store.
#[test]
fn a_crash_between_any_two_steps_on_s3() -> anyhow::Result<()> {
    scenario("points-s3", |workspace| {
        let prefix = unique("points");
        crash_at_every_point(workspace, s3_sink(s3()?.access(), &prefix), Lake::S3(s3()?, &prefix))
    })
}

/// Scenario: the process ends between every two steps of a commit to a local folder.
/// Guarantees: the same.
#[test]
fn a_crash_between_any_two_steps_on_a_local_folder() -> anyhow::Result<()> {
    scenario("points-local", |workspace| {
        let folder = workspace.path().join("lake");
        std::fs::create_dir_all(&folder)?;
        crash_at_every_point(workspace, local_sink(&folder), Lake::Local(&folder))
    })
}

/// Scenario: the process ends between every two steps of a commit to HDFS, by RPC.
/// Guarantees: the same.
#[test]
fn a_crash_between_any_two_steps_on_hdfs() -> anyhow::Result<()> {
    scenario("points-hdfs", |workspace| {
        let (hdfs, folder) = (hdfs()?, format!("/lakes/{}", unique("points")));
        let sink = hdfs_sink(&hdfs.url(Way::Native), &folder, &superuser());
        crash_at_every_point(workspace, sink, Lake::Hdfs(hdfs, &folder))
    })
}

/// Scenario: a process sleeps in the middle of its work; a second one takes its partitions over; the first one wakes up.
/// Guarantees: the sleeper finds itself fenced off, says so, joins anew, and no row is there twice.
#[test]
fn a_sleeper_that_wakes_up_is_fenced_off() -> anyhow::Result<()> {
    scenario("sleeper", |workspace| {
        let (kafka, prefix, group) = (kafka()?, unique("sleeper"), unique("group"));
        let records = Records { seed: 13, topic: unique("sleeper") };
        kafka.create_topic(&records.topic, PARTITIONS)?;
        let lake = Lake::S3(s3()?, &prefix);
        let source = kafka_source(kafka.bootstrap(), &records.topic, &group);
        let configuration = configuration("sleeper", source, s3_sink(s3()?.access(), &prefix));
        workspace.write("pipeline.yaml", configuration.yaml())?;
        let feed = Feed::start(kafka, &records, 0, 2_000)?;
        let mut sleeper = workspace.start(&["run", "pipeline.yaml"])?;
        wait_for_files(lake, 1)?;
        sleeper.signal(Signal::Stop)?;
        let before = lake.parquet_files()?.len();
        let second = workspace.start(&["run", "pipeline.yaml"])?;
        wait_for_files(lake, before + 40)?;
        sleeper.signal(Signal::Continue)?;
        sleeper.wait_for_text("the lane begins anew", SHORT).with_context(|| sleeper.log_tail())?;
        thread::sleep(Duration::from_secs(3));
        let count = feed.finish()?;
        ensure_all_there(kafka, &records, count)?;
        kafka.wait_until_committed(&group, &records.topic, LONG).with_context(|| sleeper.log_tail())?;
        end(sleeper, Signal::Terminate, SHORT)?.expect(0, &[])?;
        end(second, Signal::Terminate, SHORT)?.expect(0, &[])?;
        let seen = lake.read(Reader::PyArrow, &["country", "level"], workspace.path())?;
        seen.compare(&Expected::of_records(&records, count))?.expect_exact()?;
        workspace.run(&["ledger", "verify", "pipeline.yaml"], SHORT)?.expect(0, &[])
    })
}

/// Waits until there are so many data files.
fn wait_for_files(lake: Lake<'_>, count: usize) -> anyhow::Result<()> {
    wait::until("data files", LONG, || {
        let files = lake.parquet_files()?.len();
        Ok(Look::when(files >= count, format!("{files} files of {count}")))
    })
}

/// Aborts every upload that a pipeline has recorded and not made visible, as a bucket's rule does.
pub(crate) fn abort_recorded_uploads(s3: &S3, prefix: &str, pipeline: &str) -> anyhow::Result<()> {
    let visible: BTreeSet<String> = Lake::S3(s3, prefix).list()?.into_iter().collect();
    let folder = format!("{prefix}/_fs_data_sink/{pipeline}/ledger/");
    let mut aborted = 0;
    for name in s3.list(&folder)?.into_iter().filter(|name| !name.contains("/snapshot/") && !name.contains("/files/")) {
        let record: Value = serde_json::from_slice(&s3.get(&name)?)?;
        for file in record.get("files").and_then(Value::as_array).into_iter().flatten() {
            let text = |pointer: &str| file.pointer(pointer).and_then(Value::as_str);
            let (Some(path), Some(id)) = (text("/path"), text("/staged/upload/id")) else { continue };
            if !visible.contains(path) {
                s3.abort_upload(&format!("{prefix}/{path}"), id)?;
                aborted += 1;
            }
        }
    }
    ensure!(aborted > 0, "no upload was open: nothing was shown");
    Ok(())
}

/// Scenario: between commit and publish the process ends, and another client aborts all its uploads.
/// Guarantees: the next start reads the recorded offsets once more and gives the same rows.
#[test]
fn uploads_that_expired_are_written_once_more() -> anyhow::Result<()> {
    scenario("expired", |workspace| {
        let (kafka, s3, prefix) = (kafka()?, s3()?, unique("expired"));
        let records = filled_topic(kafka, "expired", 14, RECORDS)?;
        let source = kafka_source(kafka.bootstrap(), &records.topic, &unique("group"));
        let configuration = configuration("expired", source, s3_sink(s3.access(), &prefix));
        workspace.write("pipeline.yaml", configuration.yaml())?;
        for point in ["recorded:2", "published_one:4"] {
            end_at(workspace, point)?;
            abort_recorded_uploads(s3, &prefix, "expired")?;
        }
        workspace.set("FS_DATA_SINK_FAIL_POINT", "none");
        let words = ["was lost before it became visible: its records are read and written once more"];
        workspace.run(&["run", "pipeline.yaml", "--until-end"], LONG)?.expect(0, &words)?;
        let seen = Lake::S3(s3, &prefix).read(Reader::DuckDb, &["country", "level"], workspace.path())?;
        seen.compare(&Expected::of_records(&records, RECORDS))?.expect_exact()?;
        workspace.run(&["ledger", "verify", "pipeline.yaml"], SHORT)?.expect(0, &[])
    })
}

/// Scenario: 20 and 220 commits of a file each into S3, through a proxy that counts.
/// Guarantees: besides the requests of the files a commit makes three at most, snapshots of the ledger and all.
#[test]
fn a_commit_makes_few_small_requests() -> anyhow::Result<()> {
    scenario("requests", |workspace| {
        let requests = small_requests_a_commit(workspace, s3()?, &unique("requests"))?;
        say(&format!("{requests:.2} small requests a commit"));
        ensure!(requests > 0.9 && requests <= SMALL_REQUESTS_MAX, "{requests} small requests a commit");
        Ok(())
    })
}
