//! Servers that go away and return.

use std::{
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, ensure};
use fs_data_sink_tests::{
    lake::{Expected, Lake, Reader},
    program::{Configuration, PARTITION_BY, end, kafka_source, local_sink, s3_sink},
    records::{PARTITIONS, Records},
    services::{
        kafka::Kafka,
        process::{Process, Signal},
        proxy::{Mode, Proxy},
    },
    wait::{self, Look},
};

use crate::shared::{Feed, LONG, SHORT, ensure_all_there, kafka, s3, say, scenario, unique};

/// How long a server is away.
const OUTAGE: Duration = Duration::from_secs(30);

/// Records a second meanwhile.
const RATE: u64 = 1_000;

/// Scenario: a broker is killed, is away for 30 s and returns; then it is frozen for 30 s and thawed.
/// Guarantees: the run goes on and completes by itself, with every row.
#[test]
fn a_broker_goes_away_and_returns() -> anyhow::Result<()> {
    scenario("broker-away", |workspace| {
        let kafka = Kafka::start()?;
        let records = Records { seed: 3, topic: unique("away") };
        kafka.create_topic(&records.topic, PARTITIONS)?;
        let (group, lake_folder) = (unique("group"), workspace.path().join("lake"));
        let lake = Lake::Local(&lake_folder);
        let source = kafka_source(kafka.bootstrap(), &records.topic, &group);
        let configuration = Configuration::new("away", source, local_sink(&lake_folder) + PARTITION_BY);
        workspace.write("pipeline.yaml", configuration.with_records_schema_and_plugins().yaml())?;
        let feed = Feed::start(&kafka, &records, 0, RATE)?;
        let mut process = workspace.start(&["run", "pipeline.yaml"])?;
        wait_for_more_files(&mut process, lake)?;
        kafka.kill()?;
        stay_away(&mut process)?;
        kafka.start_again()?;
        wait_for_more_files(&mut process, lake).context("after the broker returned")?;
        kafka.freeze()?;
        stay_away(&mut process)?;
        kafka.thaw()?;
        wait_for_more_files(&mut process, lake).context("after the broker was thawed")?;
        let count = feed.finish()?;
        complete(&kafka, process, &records, &group, count)?;
        let seen = lake.read(Reader::PyArrow, &["country", "level"], workspace.path())?;
        seen.compare(&Expected::of_records(&records, count))?.expect_exact()
    })
}

/// Scenario: an S3 server answers 503 to everything for 30 s; then it answers nothing for 30 s, with requests under way.
/// Guarantees: the run goes on and completes by itself, with every row.
#[test]
fn an_s3_server_fails_and_hangs_and_returns() -> anyhow::Result<()> {
    scenario("s3-away", |workspace| {
        let (kafka, s3) = (kafka()?, s3()?);
        let proxy = Proxy::start(&s3.access().endpoint)?;
        let records = Records { seed: 4, topic: unique("s3-away") };
        kafka.create_topic(&records.topic, PARTITIONS)?;
        let (group, prefix) = (unique("group"), unique("s3-away"));
        let lake = Lake::S3(s3, &prefix);
        let sink = s3_sink(&s3.access().through(&proxy.endpoint()), &prefix) + PARTITION_BY;
        let source = kafka_source(kafka.bootstrap(), &records.topic, &group);
        let configuration = Configuration::new("s3-away", source, sink).with_records_schema_and_plugins();
        workspace.write("pipeline.yaml", configuration.yaml())?;
        let feed = Feed::start(kafka, &records, 0, RATE)?;
        let mut process = workspace.start(&["run", "pipeline.yaml"])?;
        for mode in [Mode::Unavailable, Mode::Hang] {
            wait_for_more_files(&mut process, lake).with_context(|| format!("before {mode:?}"))?;
            let faults = proxy.faults();
            proxy.set(mode);
            stay_away(&mut process)?;
            ensure!(proxy.faults() > faults, "{mode:?} met no request: nothing was shown");
            proxy.set(Mode::Pass);
        }
        wait_for_more_files(&mut process, lake).context("after the hang")?;
        say(&format!("s3-away: {} requests met a fault", proxy.faults()));
        let count = feed.finish()?;
        complete(kafka, process, &records, &group, count)?;
        let seen = lake.read(Reader::PyArrow, &["country", "level"], workspace.path())?;
        seen.compare(&Expected::of_records(&records, count))?.expect_exact()
    })
}

/// The process lives through an outage.
fn stay_away(process: &mut Process) -> anyhow::Result<()> {
    let start = Instant::now();
    while start.elapsed() < OUTAGE {
        process.ensure_running().context("during the outage")?;
        thread::sleep(Duration::from_millis(200));
    }
    Ok(())
}

/// Work goes on: there are more files than now.
fn wait_for_more_files(process: &mut Process, lake: Lake<'_>) -> anyhow::Result<()> {
    let before = lake.parquet_files()?.len();
    wait::until("more files", SHORT, || {
        process.ensure_running()?;
        let now = lake.parquet_files()?.len();
        Ok(Look::when(now > before, format!("{now} files")))
    })
    .with_context(|| process.log_tail())
}

/// Everything is committed without help, and the process ends well.
fn complete(kafka: &Kafka, process: Process, records: &Records, group: &str, count: u64) -> anyhow::Result<()> {
    ensure_all_there(kafka, records, count)?;
    let committed = kafka.wait_until_committed(group, &records.topic, LONG);
    committed.with_context(|| process.log_tail())?;
    end(process, Signal::Terminate, SHORT)?.expect(0, &[])
}
