//! Uploads that dead processes left open on S3.

use std::time::Duration;

use anyhow::{Context as _, ensure};
use fs_data_sink_tests::{
    lake::{Expected, Lake, Reader},
    program::{Configuration, PARTITION_BY, kafka_source, s3_sink},
    records::PARTITIONS,
    wait::{self, Look},
};

use crate::shared::{LONG, SHORT, end_at, filled_topic, kafka, s3, say, scenario, unique};

/// Enough for several commits in a run.
const RECORDS: u64 = 30_000;

/// Scenario: processes die when their files are staged and not recorded, recorded and not visible, half visible, and by
/// `kill -9` while they upload; another program has an upload open in the same folder.
/// Guarantees: once a later process has claimed the partitions and ended, no upload of the dead is open, the other program's
/// is, every row is there once, and no note of a writer is left.
#[test]
fn uploads_of_dead_writers_are_aborted() -> anyhow::Result<()> {
    scenario("uploads", |workspace| {
        let (kafka, s3, prefix) = (kafka()?, s3()?, unique("uploads"));
        let records = filled_topic(kafka, "uploads", 17, RECORDS)?;
        let source = kafka_source(kafka.bootstrap(), &records.topic, &unique("group"));
        let sink = s3_sink(s3.access(), &prefix) + PARTITION_BY;
        let mut configuration = Configuration::new("uploads", source, sink).with_records_schema_and_plugins();
        configuration.pipeline = "  commit_interval: 200ms\n  flush_interval_batches: 3\n".to_owned();
        workspace.write("pipeline.yaml", configuration.yaml())?;
        let foreign = format!("{prefix}/{}/20260101T000000Z-l00-g000000-f00000-00000000.parquet", records.topic);
        s3.begin_upload(&foreign)?;
        let mut left = 0;
        for point in ["staged:1", "recorded:1", "staged:1", "published_one:3", "staged:2"] {
            end_at(workspace, point)?;
            left = left.max(s3.open_uploads(&prefix)?.len());
        }
        ensure!(left > 1, "no upload was left open: nothing was shown");
        workspace.set("FS_DATA_SINK_FAIL_POINT", "none");
        let mut process = workspace.start(&["run", "pipeline.yaml"])?;
        wait::until("uploads to kill it with", LONG, || {
            process.ensure_running()?;
            let open = s3.open_uploads(&prefix)?.len();
            let done = Lake::S3(s3, &prefix).parquet_files()?.len();
            Ok(Look::when(open > 1 || done > 100, format!("{open} uploads, {done} files")))
        })?;
        process.kill()?;
        // The group forgets the dead member.
        std::thread::sleep(Duration::from_secs(2));
        let finished = workspace.run(&["run", "pipeline.yaml", "--until-end"], LONG)?;
        finished.expect(0, &[])?;
        let open = s3.open_uploads(&prefix)?;
        ensure!(open == [foreign.as_str()], "open uploads: {open:?}\n{}", finished.output);
        let notes = s3.list(&format!("{prefix}/_fs_data_sink/uploads/writers"))?;
        ensure!(notes.is_empty(), "notes of writers: {notes:?}");
        say(&format!("uploads: at most {left} were open, of {PARTITIONS} partitions"));
        let seen = Lake::S3(s3, &prefix).read(Reader::DuckDb, &["country", "level"], workspace.path())?;
        seen.compare(&Expected::of_records(&records, RECORDS))?.expect_exact().context("after the last run")?;
        workspace.run(&["ledger", "verify", "pipeline.yaml"], SHORT)?.expect(0, &[])
    })
}
