//! Where a topic is read from: by time and by offset, where nobody has read it yet.

use std::collections::BTreeSet;

use fs_data_sink_tests::{
    program::{Configuration, Workspace, kafka_source, local_sink},
    services::kafka::{Kafka, NewRecord},
};

use crate::{
    shared::{LONG, SHORT, kafka, scenario, unique},
    topics::{compare_rows, record},
};

/// The time of the first record: the 14th of November 2023, 22:13:20 UTC.
const BEGAN_MS: i64 = 1_700_000_000_000;

/// Records a second apart in three partitions: partition 0 has 0, 3, 6 and so on.
fn produce(kafka: &Kafka, topic: &str, rounds: std::ops::Range<i64>) -> anyhow::Result<()> {
    let at = |round: i64| {
        (0..3).map(move |partition| NewRecord {
            timestamp_ms: Some(BEGAN_MS + round * 1_000),
            ..record(u64::try_from(round * 3 + i64::from(partition)).unwrap_or(0), partition)
        })
    };
    kafka.produce(topic, rounds.flat_map(at)).map(|_| ())
}

/// Writes a configuration with these lines in its source.
fn configure(workspace: &Workspace, kafka: &Kafka, topic: &str, delivery: &str, start: &str) -> anyhow::Result<()> {
    let source = kafka_source(kafka.bootstrap(), topic, &unique("group")) + start;
    let mut configuration = Configuration::new("begin", source, local_sink(&workspace.path().join(delivery)));
    configuration.pipeline = format!("  delivery: {delivery}\n");
    workspace.write("pipeline.yaml", configuration.yaml()).map(|_| ())
}

/// Reads to the end, and looks whether exactly these rows are there.
fn run_and_compare(workspace: &Workspace, delivery: &str, ids: &BTreeSet<u64>) -> anyhow::Result<()> {
    workspace.run(&["run", "pipeline.yaml", "--until-end"], SHORT)?.expect(0, &[])?;
    compare_rows(workspace, delivery, ids)
}

/// Scenario: a new pipeline with a time to begin at and an offset for one of its partitions, under both kinds of delivery; more
/// records come and it runs again; another one with an offset that the topic does not have.
/// Guarantees: the first run has what is at least as late, and from the offset on; the second goes on where the first ended; the last
/// ends with 1 and says which offsets there are.
#[test]
fn a_topic_is_read_from_a_time_and_from_an_offset() -> anyhow::Result<()> {
    scenario("begin", |workspace| {
        let kafka = kafka()?;
        for delivery in ["exactly_once", "at_least_once"] {
            let topic = unique("begin");
            kafka.create_topic(&topic, 3)?;
            produce(kafka, &topic, 0..100)?;
            let start = format!("  start: 2023-11-14T22:14:10Z\n  start_offsets: {{\"{topic}[2]\": 90}}\n");
            configure(workspace, kafka, &topic, delivery, &start)?;
            let wanted = |id: &u64| if id % 3 == 2 { id / 3 >= 90 } else { id / 3 >= 50 };
            run_and_compare(workspace, delivery, &(0..300).filter(wanted).collect())?;
            produce(kafka, &topic, 100..120)?;
            run_and_compare(workspace, delivery, &(0..360).filter(wanted).collect())?;
            configure(workspace, kafka, &topic, delivery, &start.replace("90", "121"))?;
            let words = format!("source.start_offsets: {topic}[2] has offsets 0..120, and 121 is none of them");
            workspace
                .run(&["run", "pipeline.yaml", "--until-end", "--set", "name=other"], SHORT)?
                .expect(1, &[&words])?;
        }
        Ok(())
    })
}

/// Scenario: the schema of two topics is asked for while a pipeline has read one of them, of a topic that is empty, and of one that is
/// not there.
/// Guarantees: the block of each topic, from its beginning; the group of the pipeline is where it was; an empty topic has no schema, and one
/// that is missing is named.
#[test]
fn the_schema_of_a_topic_is_printed() -> anyhow::Result<()> {
    scenario("schema-from-topic", |workspace| {
        let kafka = kafka()?;
        let (orders, clicks, group) = (unique("orders"), unique("clicks"), unique("group"));
        kafka.create_topic(&orders, 2)?;
        kafka.create_topic(&clicks, 1)?;
        kafka.produce(&orders, (0..100).map(|id| record(id, i32::from(id % 2 == 1))))?;
        let configure = |topics: &str| {
            let source = kafka_source(kafka.bootstrap(), topics, &group);
            let configuration = Configuration::new("asked", source, local_sink(&workspace.path().join("lake")));
            workspace.write("pipeline.yaml", configuration.yaml())
        };
        configure(&orders)?;
        workspace.run(&["run", "pipeline.yaml", "--until-end"], LONG)?.expect(0, &[])?;
        let before = kafka.group_offsets(&group, &orders)?;
        let asked = workspace.run(&["schema", "infer", "--from-topic", "pipeline.yaml"], SHORT)?;
        asked.expect(0, &["looked at 100 records", &format!("# {orders}"), "schema:", "name: id", "int64"])?;
        anyhow::ensure!(kafka.group_offsets(&group, &orders)? == before, "the group has moved");
        configure(&clicks)?;
        workspace
            .run(&["schema", "infer", "--from-topic", "pipeline.yaml"], SHORT)?
            .expect(1, &["looked at 0 records", "there is no schema"])?;
        let missing = unique("missing");
        configure(&missing)?;
        workspace.run(&["schema", "infer", "--from-topic", "pipeline.yaml"], SHORT)?.expect(1, &[&missing])
    })
}
