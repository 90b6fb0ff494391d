//! From a real broker through both plugins to a real S3 server, and back through other people's readers.

use std::{collections::BTreeMap, path::Path};

use anyhow::{Context as _, ensure};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use fs_data_sink_tests::{
    lake::{DeadLetter, Expected, Lake, Reader},
    program::{Configuration, PARTITION_BY, kafka_source, s3_sink},
    records::{DUCKDB_TYPES, Fate, PYARROW_TYPES, Records},
};

use crate::shared::{LONG, filled_topic, kafka, s3, scenario, seed, unique};

/// Enough for many batches, files, and generations.
const RECORDS: u64 = 500_000;

/// Scenario: 500,000 records in 4 partitions, 0.2 % of them malformed in 14 ways, go through a filter and an enricher to S3.
/// Guarantees: DuckDB and pyarrow read exactly the expected rows and types; each malformed record is a dead letter with its reason.
#[test]
fn half_a_million_records_arrive_exactly() -> anyhow::Result<()> {
    scenario("whole-path", |workspace| {
        let (kafka, s3, seed) = (kafka()?, s3()?, seed());
        let records = filled_topic(kafka, "events", seed, RECORDS)?;
        let (group, prefix) = (unique("group"), unique("whole-path"));
        let source = kafka_source(kafka.bootstrap(), &records.topic, &group);
        let configuration = Configuration::new("whole-path", source, s3_sink(s3.access(), &prefix) + PARTITION_BY)
            .with_records_schema_and_plugins();
        workspace.write("pipeline.yaml", configuration.yaml())?;
        workspace.run(&["run", "pipeline.yaml", "--until-end"], LONG)?.expect(0, &[])?;
        let lake = Lake::S3(s3, &prefix);
        check_rows(lake, &records, workspace.path()).with_context(|| format!("seed {seed}"))?;
        check_dead_letters(&lake.dead_letters("whole-path")?, &records).with_context(|| format!("seed {seed}"))?;
        ensure!(
            kafka.group_offsets(&group, &records.topic)? == kafka.end_offsets(&records.topic)?,
            "the group's offsets are not at the end"
        );
        Ok(())
    })
}

/// Both readers see exactly the expected rows, with their types.
fn check_rows(lake: Lake<'_>, records: &Records, scratch: &Path) -> anyhow::Result<()> {
    let files = lake.parquet_files()?;
    let home = format!("{}/country=", records.topic);
    ensure!(
        files.iter().all(|name| name.starts_with(&home) && name.contains("/level=")),
        "files outside their directories: {files:#?}"
    );
    let expected = Expected::of_records(records, RECORDS);
    for (reader, types) in [(Reader::DuckDb, DUCKDB_TYPES), (Reader::PyArrow, PYARROW_TYPES)] {
        let seen = lake.read(reader, &["country", "level"], scratch)?;
        seen.compare(&expected)?.expect_exact().with_context(|| format!("as {reader:?} reads it"))?;
        seen.expect_types(&types).with_context(|| format!("as {reader:?} reads it"))?;
    }
    Ok(())
}

/// Each malformed record is there once, with its position, its bytes and the right reason, and no other record.
fn check_dead_letters(letters: &[DeadLetter], records: &Records) -> anyhow::Result<()> {
    let mut wanted: BTreeMap<(String, i32, i64), (u64, &str)> = BTreeMap::new();
    for number in 0..RECORDS {
        if let Fate::Rejected(code) = records.fate(number) {
            let (partition, offset) = Records::position(number);
            wanted.insert((records.topic.clone(), partition, offset), (number, code));
        }
    }
    ensure!(wanted.len() as u64 == RECORDS / 500, "the generator made {} malformed records", wanted.len());
    for letter in letters {
        let Some((number, code)) = wanted.remove(&letter.position) else {
            anyhow::bail!("a dead letter too many: {}", letter.line);
        };
        let record = records.record(number);
        ensure!(letter.reason == ("decode".to_owned(), code.to_owned()), "{code} wanted: {}", letter.line);
        ensure!(letter.value == record.value, "other bytes than produced: {}", letter.line);
        let key = letter.line.get("key").and_then(serde_json::Value::as_str).map(|key| STANDARD.decode(key));
        ensure!(key.transpose()? == record.key, "another key than produced: {}", letter.line);
        let headers = letter.line.get("headers").and_then(serde_json::Value::as_array).context("no headers")?;
        ensure!(headers.len() == record.headers.len(), "other headers than produced: {}", letter.line);
    }
    ensure!(wanted.is_empty(), "{} malformed records are not in the dead letters: {wanted:?}", wanted.len());
    Ok(())
}
