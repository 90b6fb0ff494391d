//! Several processes of one group, signals, and ends.

use std::{thread, time::Duration};

use fs_data_sink_tests::{
    http,
    lake::{Expected, Lake, Reader},
    program::{Configuration, PARTITION_BY, end, kafka_source, local_sink, s3_sink},
    records::{PARTITIONS, Records},
    services::{free_port, process::Signal},
    wait::{self, Look},
};

use crate::shared::{Feed, LONG, SHORT, ensure_all_there, filled_topic, kafka, s3, scenario, unique};

/// Scenario: two processes of one group share a topic; one is stopped by SIGTERM and started again while records come.
/// Guarantees: every row arrives; SIGTERM drains and exits 0, SIGINT drains and exits 130.
#[test]
fn one_of_two_processes_is_stopped_and_started() -> anyhow::Result<()> {
    scenario("group", |workspace| {
        let (kafka, s3) = (kafka()?, s3()?);
        let records = Records { seed: 5, topic: unique("shared") };
        kafka.create_topic(&records.topic, PARTITIONS)?;
        let (group, prefix) = (unique("group"), unique("group"));
        let source = kafka_source(kafka.bootstrap(), &records.topic, &group);
        let configuration = Configuration::new("shared", source, s3_sink(s3.access(), &prefix) + PARTITION_BY);
        workspace.write("pipeline.yaml", configuration.with_records_schema_and_plugins().yaml())?;
        let feed = Feed::start(kafka, &records, 0, 4_000)?;
        let mut first = workspace.start(&["run", "pipeline.yaml"])?;
        let second = workspace.start(&["run", "pipeline.yaml"])?;
        // Moments that do not matter: whatever happens in them, every row arrives.
        thread::sleep(Duration::from_secs(6));
        end(second, Signal::Terminate, SHORT)?.expect(0, &[])?;
        thread::sleep(Duration::from_secs(3));
        let second = workspace.start(&["run", "pipeline.yaml"])?;
        thread::sleep(Duration::from_secs(6));
        first.ensure_running()?;
        let count = feed.finish()?;
        ensure_all_there(kafka, &records, count)?;
        kafka.wait_until_committed(&group, &records.topic, LONG)?;
        end(first, Signal::Terminate, SHORT)?.expect(0, &[])?;
        end(second, Signal::Interrupt, SHORT)?.expect(130, &[])?;
        let seen = Lake::S3(s3, &prefix).read(Reader::DuckDb, &["country", "level"], workspace.path())?;
        seen.compare(&Expected::of_records(&records, count))?.expect_exact()
    })
}

/// Scenario: a pipeline that commits once an hour gets SIGTERM after it has read some records.
/// Guarantees: what was read is finished and committed before the exit, so nothing is doubled by the next run.
#[test]
fn a_drain_commits_what_was_read() -> anyhow::Result<()> {
    scenario("drain", |workspace| {
        let (kafka, count) = (kafka()?, 20_000);
        let records = filled_topic(kafka, "drain", 6, count)?;
        let lake_folder = workspace.path().join("lake");
        let group = unique("group");
        let source = kafka_source(kafka.bootstrap(), &records.topic, &group);
        let mut configuration = Configuration::new("drain", source, local_sink(&lake_folder) + PARTITION_BY)
            .with_records_schema_and_plugins();
        configuration.pipeline = "  commit_interval: 1h\n".to_owned();
        let address = format!("127.0.0.1:{}", free_port()?);
        configuration.telemetry = format!("  log_format: text\n  listen: \"{address}\"\n");
        workspace.write("pipeline.yaml", configuration.yaml())?;
        let mut process = workspace.start(&["run", "pipeline.yaml"])?;
        wait::until("records to be read", SHORT, || {
            process.ensure_running()?;
            let page = http::get(&address, "/metrics").map(|(_, page)| page).unwrap_or_default();
            let read = http::metric(&page, "fs_data_sink_records_processed_total");
            Ok(Look::when(read > Some(5_000.0), format!("{read:?} records")))
        })?;
        end(process, Signal::Terminate, SHORT)?.expect(0, &[])?;
        let committed = kafka.group_offsets(&group, &records.topic)?;
        anyhow::ensure!(committed.values().sum::<i64>() > 0, "the drain committed nothing: {committed:?}");
        workspace.run(&["pipeline.yaml", "--until-end"], LONG)?.expect(0, &[])?;
        let seen = Lake::Local(&lake_folder).read(Reader::DuckDb, &["country", "level"], workspace.path())?;
        seen.compare(&Expected::of_records(&records, count))?.expect_exact()
    })
}

/// Scenario: `--until-end` runs while records keep coming.
/// Guarantees: it ends, having read at least what was there when it started.
#[test]
fn until_end_ends_while_records_keep_coming() -> anyhow::Result<()> {
    scenario("until-end", |workspace| {
        let (kafka, count) = (kafka()?, 8_000);
        let records = filled_topic(kafka, "endless", 8, count)?;
        let lake_folder = workspace.path().join("lake");
        let source = kafka_source(kafka.bootstrap(), &records.topic, &unique("group"));
        let configuration = Configuration::new("endless", source, local_sink(&lake_folder) + PARTITION_BY);
        workspace.write("pipeline.yaml", configuration.with_records_schema_and_plugins().yaml())?;
        let feed = Feed::start(kafka, &records, count, 500)?;
        workspace.run(&["run", "pipeline.yaml", "--until-end"], LONG)?.expect(0, &[])?;
        let all = feed.finish()?;
        let seen = Lake::Local(&lake_folder).read(Reader::PyArrow, &["country", "level"], workspace.path())?;
        let of_start = seen.compare(&Expected::of_records(&records, count))?;
        anyhow::ensure!(of_start.missing == 0 && of_start.doubled == 0, "{of_start:?}");
        let of_all = seen.compare(&Expected::of_records(&records, all))?;
        anyhow::ensure!(of_all.unexpected == 0 && of_all.doubled == 0, "{of_all:?}");
        Ok(())
    })
}
