//! `kill -9` again and again.

use std::{thread, time::Duration};

use anyhow::Context as _;
use fs_data_sink_tests::{
    lake::{Expected, Lake, Reader},
    program::{Configuration, PARTITION_BY, Workspace, kafka_source, local_sink, s3_sink},
    records::{PARTITIONS, Random, Records},
};

use crate::shared::{Feed, LONG, ensure_all_there, kafka, s3, say, scenario, seed, unique};

/// Records a second: so many that each run has work, so few that the last run is short.
const RATE: u64 = 4_000;

/// A run is killed after at most this: some before they joined the group, most between or within commits.
const LIFE_MS_MAX: u64 = 4_500;

/// Scenario: a pipeline to S3 is killed at 20 random moments while records keep coming, and started again each time.
/// Guarantees: no row is lost (some may come twice), and a second process never sees a Parquet file that does not open.
#[test]
fn twenty_kills_lose_no_row_on_s3() -> anyhow::Result<()> {
    scenario("kill-s3", |workspace| {
        let prefix = unique("kill");
        let sink = s3_sink(s3()?.access(), &prefix);
        survive(workspace, &sink, Lake::S3(s3()?, &prefix), 20)
    })
}

/// Scenario: the same on a local folder, with fewer kills.
/// Guarantees: the same for files that are renamed into place.
#[test]
fn eight_kills_lose_no_row_on_a_local_folder() -> anyhow::Result<()> {
    scenario("kill-local", |workspace| {
        let lake = workspace.path().join("lake");
        std::fs::create_dir_all(&lake)?;
        survive(workspace, &local_sink(&lake), Lake::Local(&lake), 8)
    })
}

/// Kills, starts again, reads to the end, and compares.
fn survive(workspace: &Workspace, sink: &str, lake: Lake<'_>, kills: u32) -> anyhow::Result<()> {
    let (kafka, seed) = (kafka()?, seed());
    say(&format!("kill: seed {seed}"));
    let records = Records { seed, topic: unique("kill") };
    kafka.create_topic(&records.topic, PARTITIONS)?;
    let source = kafka_source(kafka.bootstrap(), &records.topic, &unique("group"));
    let configuration =
        Configuration::new("kill", source, sink.to_owned() + PARTITION_BY).with_records_schema_and_plugins();
    workspace.write("pipeline.yaml", configuration.yaml())?;
    let observer = lake.observe(workspace.path())?;
    let feed = Feed::start(kafka, &records, 0, RATE)?;
    let mut random = Random::new(seed);
    for kill in 0..kills {
        let life = Duration::from_millis(random.below(LIFE_MS_MAX));
        let mut process = workspace.start(&["run", "pipeline.yaml"])?;
        thread::sleep(life);
        process.ensure_running().with_context(|| format!("seed {seed}, run {kill}"))?;
        process.kill()?;
    }
    let count = feed.finish()?;
    ensure_all_there(kafka, &records, count)?;
    workspace.run(&["run", "pipeline.yaml", "--until-end"], LONG)?.expect(0, &[])?;
    let (looks, opened) = observer.finish()?;
    let seen = lake.read(Reader::PyArrow, &["country", "level"], workspace.path())?;
    let difference = seen.compare(&Expected::of_records(&records, count))?;
    difference.expect_none_lost().with_context(|| format!("seed {seed}"))?;
    say(&format!(
        "kill: {kills} kills, {count} records, {} rows and {} doubled; the observer looked {looks} times and opened {opened} files",
        difference.right, difference.doubled
    ));
    anyhow::ensure!(looks > 20 && opened >= seen.files, "the observer saw too little: {looks} looks, {opened} files");
    Ok(())
}
