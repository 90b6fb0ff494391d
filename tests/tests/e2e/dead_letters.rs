//! Refused records in a Kafka topic.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context as _, ensure};
use fs_data_sink_tests::{
    lake::Lake,
    program::{Configuration, Workspace, kafka_source, local_sink},
    services::kafka::{Kafka, NewRecord},
};

use crate::{
    shared::{LONG, SHORT, end_at, kafka, scenario, unique},
    topics::{compare, record},
};

/// Records of a topic; every tenth is no JSON.
const RECORDS: u64 = 1_000;

/// Whether a record is no JSON.
fn is_bad(id: u64) -> bool {
    id % 10 == 3
}

/// Writes the configuration of a pipeline with a topic for its dead letters, and produces its records.
fn prepare(workspace: &Workspace, kafka: &Kafka, delivery: &str) -> anyhow::Result<(String, String)> {
    let (topic, dead) = (unique("letters"), unique("dead"));
    kafka.create_topic(&topic, 2)?;
    kafka.create_topic_with(&dead, 1, &[("max.message.bytes", "20000")])?;
    let records = (0..RECORDS).map(|id| {
        let good = record(id, i32::from(id % 2 == 1));
        if is_bad(id) {
            NewRecord {
                key: Some(format!("key-{id}").into_bytes()),
                value: Some(format!("no JSON: {id}").into_bytes()),
                headers: vec![("trace".to_owned(), id.to_string().into_bytes())],
                timestamp_ms: Some(1_700_000_000_000 + i64::try_from(id).unwrap_or(0)),
                ..good
            }
        } else {
            good
        }
    });
    kafka.produce(&topic, records)?;
    configure(workspace, kafka, &topic, &dead, delivery)?;
    Ok((topic, dead))
}

/// Writes the configuration.
fn configure(workspace: &Workspace, kafka: &Kafka, topic: &str, dead: &str, delivery: &str) -> anyhow::Result<()> {
    let source = kafka_source(kafka.bootstrap(), topic, &unique("group"));
    let mut configuration = Configuration::new("letters", source, local_sink(&workspace.path().join("lake")));
    configuration.pipeline = format!("  delivery: {delivery}\n");
    let yaml = format!("{}dead_letter: {{type: kafka, topic: {dead}}}\n", configuration.yaml());
    workspace.write("pipeline.yaml", yaml).map(|_| ())
}

/// The letters that are in a topic, by the number of the record that each tells of.
fn letters(kafka: &Kafka, dead: &str) -> anyhow::Result<BTreeMap<u64, Vec<NewRecord>>> {
    let mut found: BTreeMap<u64, Vec<NewRecord>> = BTreeMap::new();
    for (_, letter) in kafka.read_records(dead, 0)? {
        let text = String::from_utf8(letter.value.clone().context("a letter without a value")?)?;
        let id = text.strip_prefix("no JSON: ").context("not the record")?.parse()?;
        found.entry(id).or_default().push(letter);
    }
    Ok(found)
}

/// A header of a letter.
fn header<'a>(letter: &'a NewRecord, name: &str) -> Option<&'a str> {
    let (_, value) = letter.headers.iter().find(|(key, _)| key == name)?;
    std::str::from_utf8(value).ok()
}

/// Scenario: under both kinds of delivery a tenth of the records is refused, and the letters go to a topic; exactly once the process
/// also dies between sending them and recording their offsets.
/// Guarantees: every refused record is in the topic with its key, value, headers, time and Connect's headers: once, or twice after
/// the kill; the other rows are there exactly once, and no letter is in the store.
#[test]
fn dead_letters_go_to_a_topic_as_connects_do() -> anyhow::Result<()> {
    let good: BTreeSet<u64> = (0..RECORDS).filter(|id| !is_bad(*id)).collect();
    for delivery in ["at_least_once", "exactly_once"] {
        scenario(&format!("dead-letters-{delivery}"), |workspace| {
            let kafka = kafka()?;
            let (topic, dead) = prepare(workspace, kafka, delivery)?;
            workspace.run(&["validate", "pipeline.yaml", "--connect"], SHORT)?.expect(0, &[])?;
            let most = if delivery == "exactly_once" { 2 } else { 1 };
            if most == 2 {
                end_at(workspace, "staged:1")?;
                workspace.set("FS_DATA_SINK_FAIL_POINT", "none");
            }
            workspace.run(&["run", "pipeline.yaml", "--until-end"], LONG)?.expect(0, &[])?;
            if most == 2 {
                compare(workspace, &good)?;
            }
            let found = letters(kafka, &dead)?;
            ensure!(found.keys().copied().eq((0..RECORDS).filter(|id| is_bad(*id))), "{:?}", found.keys());
            for (id, copies) in &found {
                ensure!(copies.len() <= most, "record {id} has {} letters", copies.len());
                for letter in copies {
                    let offset = (id / 2).to_string();
                    for (name, expected) in [
                        ("trace", id.to_string().as_str()),
                        ("__connect.errors.topic", &topic),
                        ("__connect.errors.partition", if id % 2 == 1 { "1" } else { "0" }),
                        ("__connect.errors.offset", &offset),
                        ("__connect.errors.connector.name", "letters"),
                        ("__connect.errors.stage", "VALUE_CONVERTER"),
                        ("__connect.errors.exception.class.name", "bad-json"),
                    ] {
                        ensure!(header(letter, name) == Some(expected), "{name} of {id}: {:?}", header(letter, name));
                    }
                    ensure!(
                        header(letter, "__connect.errors.exception.message").is_some_and(|words| !words.is_empty())
                    );
                    ensure!(letter.key == Some(format!("key-{id}").into_bytes()));
                    ensure!(letter.timestamp_ms == Some(1_700_000_000_000 + i64::try_from(*id)?));
                }
            }
            let stored = Lake::Local(&workspace.path().join("lake")).dead_letters("letters")?;
            ensure!(stored.is_empty(), "{} letters in the store", stored.len());
            Ok(())
        })?;
    }
    Ok(())
}

/// Scenario: a letter is larger than its topic takes; then the topic is another one, which does not exist.
/// Guarantees: the large letter is in the store, and the run goes on; `validate --connect` names the topic that is missing.
#[test]
fn a_letter_that_no_topic_takes_goes_to_the_store() -> anyhow::Result<()> {
    scenario("dead-letters-large", |workspace| {
        let kafka = kafka()?;
        let (topic, dead) = prepare(workspace, kafka, "exactly_once")?;
        let mut large = vec![0; 100_000];
        // Bytes that no compression makes smaller.
        let mut state = 1_u32;
        for byte in &mut large {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            *byte = u8::try_from(state >> 24)?;
        }
        kafka.produce(&topic, [NewRecord { value: Some(large.clone()), ..NewRecord::default() }])?;
        let finished = workspace.run(&["run", "pipeline.yaml", "--until-end"], LONG)?;
        finished.expect(0, &["larger than the topic takes"])?;
        compare(workspace, &(0..RECORDS).filter(|id| !is_bad(*id)).collect())?;
        ensure!(letters(kafka, &dead)?.len() == 100);
        let stored = Lake::Local(&workspace.path().join("lake")).dead_letters("letters")?;
        ensure!(stored.len() == 1, "{} letters in the store", stored.len());
        let missing = unique("missing");
        configure(workspace, kafka, &topic, &missing, "exactly_once")?;
        let words = format!("dead_letter.topic: the topic \"{missing}\" does not exist");
        workspace.run(&["validate", "pipeline.yaml", "--connect"], SHORT)?.expect(1, &[&words])
    })
}
