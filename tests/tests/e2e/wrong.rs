//! Wrong configurations: one message that a person can act on, and the exit code that says whose turn it is.

use std::{fs, time::Duration};

use anyhow::Context as _;
use fs_data_sink_tests::{
    lake::{Expected, Lake, Reader},
    program::{Configuration, PARTITION_BY, end, kafka_source, local_sink, plugin, s3_sink},
    records::{PARTITIONS, Records},
    services::{free_port, process::Signal, s3::S3Access},
};

use crate::shared::{LONG, SHORT, kafka, s3, scenario, unique};

/// A wrong configuration and what must be said of it.
struct Wrong {
    /// The configuration.
    yaml: String,
    /// Arguments besides the file.
    arguments: &'static [&'static str],
    /// 2: the configuration is wrong. 1: a server says no.
    code: i32,
    /// Words without which nobody could act.
    words: Vec<String>,
}

/// A sound configuration of the records.
fn sound() -> Configuration {
    let source = kafka_source("127.0.0.1:9", "nothing", "group");
    Configuration::new("wrong", source, local_sink(std::path::Path::new("lake")) + PARTITION_BY)
        .with_records_schema_and_plugins()
}

/// Runs it in a folder of its own.
fn refused(name: &str, wrong: &Wrong) -> anyhow::Result<()> {
    scenario(&format!("wrong-{name}"), |workspace| {
        workspace.write("pipeline.yaml", &wrong.yaml)?;
        workspace.write("core.wasm", b"\0asm\x01\0\0\0")?;
        let component = fs::read(plugin("keep_values")).context("make plugins")?;
        // Broken in the middle, so that the header is good.
        let mut corrupt = component;
        let middle = corrupt.len() / 2;
        corrupt.iter_mut().skip(middle).take(64).for_each(|byte| *byte ^= 0xff);
        workspace.write("corrupt.wasm", corrupt)?;
        let arguments: Vec<&str> = wrong.arguments.iter().copied().chain(["pipeline.yaml"]).collect();
        let words: Vec<&str> = wrong.words.iter().map(String::as_str).collect();
        let finished = workspace.run(&arguments, SHORT)?;
        finished.expect(wrong.code, &words).with_context(|| wrong.yaml.clone())
    })
}

/// Words as owned text.
fn words(words: &[&str]) -> Vec<String> {
    words.iter().map(|word| (*word).to_owned()).collect()
}

/// Scenario: a key is misspelt.
/// Guarantees: file, line and path are named, and the key that was meant.
#[test]
fn unknown_key_with_a_near_miss() -> anyhow::Result<()> {
    let yaml = sound().yaml().replace("group_id:", "grup_id:");
    let said = words(&["pipeline.yaml", "source.grup_id", "group_id"]);
    refused("unknown-key", &Wrong { yaml, arguments: &["validate"], code: 2, words: said })
}

/// Scenario: a value has the wrong type, and another key is unknown: two faults.
/// Guarantees: both are said at once, with their lines.
#[test]
fn wrong_type_and_all_faults_at_once() -> anyhow::Result<()> {
    let yaml = sound().yaml().replace("batch_size: 2000", "batch_size: many").replace("  base_path:", "  base_pth:");
    let said = words(&["pipeline.yaml", "source.batch_size", "many", "sink.base_pth", "base_path"]);
    refused("wrong-type", &Wrong { yaml, arguments: &["validate"], code: 2, words: said })
}

/// Scenario: the topic is not on the broker, and `--connect` asks.
/// Guarantees: the topic is named.
#[test]
fn missing_topic() -> anyhow::Result<()> {
    let mut configuration = sound();
    let topic = unique("absent");
    configuration.source = kafka_source(kafka()?.bootstrap(), &topic, "group");
    let said = vec![topic, "topic".to_owned()];
    let arguments = &["validate", "--connect"];
    refused("missing-topic", &Wrong { yaml: configuration.yaml(), arguments, code: 1, words: said })
}

/// Scenario: the plugin's file is not there; the run is tried.
/// Guarantees: the path is named before anything is read.
#[test]
fn missing_plugin_file() -> anyhow::Result<()> {
    let mut configuration = sound();
    configuration.plugins = "plugins:\n  - name: gone\n    path: no/such.wasm\n".to_owned();
    let said = words(&["pipeline.yaml:", "plugins[0].path", "no/such.wasm"]);
    refused("missing-plugin", &Wrong { yaml: configuration.yaml(), arguments: &["run"], code: 2, words: said })
}

/// Scenario: the plugin's file is a core module.
/// Guarantees: it is said that a component is wanted.
#[test]
fn core_module_in_place_of_a_component() -> anyhow::Result<()> {
    let mut configuration = sound();
    configuration.plugins = "plugins:\n  - name: module\n    path: core.wasm\n".to_owned();
    let said = words(&["module", "core.wasm", "core module", "expected a component", "component"]);
    refused("core-module", &Wrong { yaml: configuration.yaml(), arguments: &["run"], code: 2, words: said })
}

/// Scenario: the component's bytes are damaged.
/// Guarantees: the plugin and the file are named.
#[test]
fn corrupt_component() -> anyhow::Result<()> {
    let mut configuration = sound();
    configuration.plugins = "plugins:\n  - name: damaged\n    path: corrupt.wasm\n".to_owned();
    let said = words(&["damaged", "corrupt.wasm"]);
    refused("corrupt", &Wrong { yaml: configuration.yaml(), arguments: &["run"], code: 2, words: said })
}

/// Scenario: nobody listens where the broker should, and `--connect` asks.
/// Guarantees: the address is named, within a bounded time.
#[test]
fn unreachable_broker() -> anyhow::Result<()> {
    let mut configuration = sound();
    let address = format!("127.0.0.1:{}", free_port()?);
    configuration.source = kafka_source(&address, "orders", "group");
    let arguments = &["validate", "--connect"];
    refused("unreachable", &Wrong { yaml: configuration.yaml(), arguments, code: 1, words: vec![address] })
}

/// A configuration whose S3 access was changed.
fn with_access(change: impl FnOnce(&mut S3Access)) -> anyhow::Result<String> {
    let mut access = s3()?.access().clone();
    change(&mut access);
    let mut configuration = sound();
    configuration.source = "  type: file\n  paths: [pipeline.yaml]\n".into();
    configuration.sink = s3_sink(&access, "wrong") + PARTITION_BY;
    Ok(configuration.yaml())
}

/// Scenario: the bucket does not exist.
/// Guarantees: the bucket is named; none is made.
#[test]
fn a_bucket_that_does_not_exist() -> anyhow::Result<()> {
    let yaml = with_access(|access| "no-such-bucket".clone_into(&mut access.bucket))?;
    let said = words(&["no-such-bucket", "exist"]);
    refused("bucket", &Wrong { yaml, arguments: &["validate", "--connect"], code: 1, words: said })
}

/// Scenario: the secret is wrong.
/// Guarantees: it is said that access is denied, and the secret is not part of the message.
#[test]
fn wrong_credentials() -> anyhow::Result<()> {
    let yaml = with_access(|access| "Wr0ngS3cret".clone_into(&mut access.secret))?;
    let said = words(&["credentials"]);
    scenario("wrong-credentials", |workspace| {
        workspace.write("pipeline.yaml", &yaml)?;
        let finished = workspace.run(&["validate", "--connect", "pipeline.yaml"], SHORT)?;
        finished.expect(1, &said.iter().map(String::as_str).collect::<Vec<_>>())?;
        anyhow::ensure!(!finished.output.contains("Wr0ngS3cret"), "a secret was said: {}", finished.output);
        // The same without asking first: the run must not go on for ever.
        workspace.run(&["run", "pipeline.yaml"], SHORT)?.expect(1, &["credentials"])
    })
}

/// Scenario: `partition_by` names a column that the schema lacks.
/// Guarantees: the column and those that are there are named.
#[test]
fn a_partition_column_that_the_schema_lacks() -> anyhow::Result<()> {
    let yaml = sound().yaml().replace("partition_by: [country,", "partition_by: [contry,");
    let said = words(&["contry", "country", "partition_by"]);
    refused("partition-column", &Wrong { yaml, arguments: &["run"], code: 2, words: said })
}

/// Scenario: a pipeline starts before its topic exists.
/// Guarantees: it waits and says so, as Kafka's own clients do, and reads the topic once it is there.
#[test]
fn an_unknown_topic_is_waited_for() -> anyhow::Result<()> {
    scenario("unknown-topic", |workspace| {
        let (kafka, count) = (kafka()?, 400);
        let records = Records { seed: 11, topic: unique("later") };
        let group = unique("group");
        let source = kafka_source(kafka.bootstrap(), &records.topic, &group);
        let lake = workspace.path().join("lake");
        let configuration = Configuration::new("later", source, local_sink(&lake) + PARTITION_BY);
        workspace.write("pipeline.yaml", configuration.with_records_schema_and_plugins().yaml())?;
        let mut process = workspace.start(&["run", "pipeline.yaml"])?;
        process.wait_for_text("the topic does not exist (yet)", SHORT)?;
        let log = process.log();
        let said = log.lines().any(|line| line.contains("does not exist (yet)") && line.contains(&records.topic));
        anyhow::ensure!(said, "the topic is not named: {log}");
        std::thread::sleep(Duration::from_secs(1));
        process.ensure_running()?;
        kafka.create_topic(&records.topic, PARTITIONS)?;
        kafka.produce(&records.topic, (0..count).map(|number| records.record(number)))?;
        let committed = kafka.wait_until_committed(&group, &records.topic, LONG);
        committed.with_context(|| process.log_tail())?;
        end(process, Signal::Terminate, SHORT)?.expect(0, &[])?;
        let seen = Lake::Local(&lake).read(Reader::DuckDb, &["country", "level"], workspace.path())?;
        seen.compare(&Expected::of_records(&records, count))?.expect_exact()
    })
}
