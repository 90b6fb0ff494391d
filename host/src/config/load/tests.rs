//! What is understood, what is refused, and in which words.

use super::*;
use crate::config::{OnNewField, SinkKind, SourceKind};

/// A folder with a pipeline file and a plugin file, loaded with some variables and flags.
fn load_text(text: &str, variables: &[(&str, &str)], flags: &[(&str, &str)]) -> Result<Config, String> {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("p.wasm"), "").unwrap();
    let file = folder.path().join("orders.yaml");
    std::fs::write(&file, text).unwrap();
    let inputs = Inputs {
        paths: vec![file],
        overrides: flags
            .iter()
            .map(|(key, value)| ((*key).to_owned(), (*value).to_owned(), "--set".to_owned()))
            .collect(),
        environment: variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect(),
    };
    let prefix = format!("{}/", folder.path().display());
    load(&inputs).map_err(|faults| faults.to_string().replace(&prefix, ""))
}

/// A pipeline that is right.
const RIGHT: &str = "source: {type: kafka, bootstrap_servers: [localhost:9092], topics: [orders]}\nsink: {type: local, base_path: lake}\n";

#[test]
fn the_least_that_is_right_gets_the_documented_defaults() {
    let config = load_text(RIGHT, &[], &[]).unwrap();
    let pipeline = &config.pipelines[0];
    assert_eq!((&*pipeline.name, &*pipeline.tenant), ("orders", "default"));
    let SourceKind::Kafka(kafka) = &pipeline.source.kind else { panic!("kafka") };
    assert_eq!(kafka.group_id, "fs-data-sink-group");
    assert_eq!(pipeline.run.commit_interval.as_secs(), 60);
    assert_eq!(pipeline.decode.on_new_field, OnNewField::Add);
    assert_eq!(config.telemetry.listen.unwrap().port(), 9464);
}

#[test]
fn every_fault_comes_at_once_with_its_line_and_the_likely_key() {
    let text = "source:
  type: kafka
  bootstrap_server: [localhost:9092]
  topics: [orders]
  batch_size: many
sink:
  type: s3
  bucket: lake
  aws_access_key_id: key
  partition_by: [county]
  compression: zstd(99)
  merge_enabled: true
schema:
  fields: [{name: country, type: string}, {name: ts, type: 'timestamp[min]'}]
pipeline: {delivery: exactly_once, commit_interval: 1s, flush_interval_seconds: 2}
colour: blue
";
    let expected = "orders.yaml:2: source.bootstrap_servers: is missing: a list of host:port
orders.yaml:3: source.bootstrap_server: unknown key; did you mean \"bootstrap_servers\"?
orders.yaml:5: source.batch_size: expected a whole number such as 1000 or 1_000_000, found \"many\"
orders.yaml:7: sink.aws_secret_access_key: is missing: key id and secret come together, or neither for the usual AWS chain
orders.yaml:10: sink.partition_by: the schema has no column \"county\"; did you mean \"country\"? it has: country
orders.yaml:11: sink.compression: the level of zstd is from 1 to 22, found 99
orders.yaml:12: sink.merge_enabled: this version does not serve compaction
orders.yaml:14: schema.fields[1].type: unknown unit \"min\" of a timestamp; known: s, ms, us, ns
orders.yaml:15: pipeline.delivery: this version serves at_least_once only
orders.yaml:15: pipeline.flush_interval_seconds: means the same as commit_interval and says something else; leave one out
orders.yaml:16: colour: unknown key; known here: dead_letter, name, pipeline, pipelines, plugins, schema, sink, source, telemetry, tenant";
    assert_eq!(load_text(text, &[], &[]).unwrap_err(), expected);
}

#[test]
fn faults_of_plugins_are_told_at_their_lines() {
    let text = format!(
        "{RIGHT}plugins:\n  - path: missing.wasm\n  - {{path: p.wasm, name: a, sha256: abc}}\n  - {{path: p.wasm, name: a, grants: {{http: [x]}}}}\n"
    );
    let message = load_text(&text, &[], &[]).unwrap_err();
    assert!(message.contains("orders.yaml:4: plugins[0].path: the file missing.wasm does not exist"), "{message}");
    assert!(
        message.contains("orders.yaml:5: plugins[1].sha256: expected 64 hexadecimal digits, found \"abc\""),
        "{message}"
    );
    assert!(message.contains("orders.yaml:6: plugins[2].grants: this version grants plugins nothing"), "{message}");
    assert!(message.contains("two plugins are called \"a\""), "{message}");
}

#[test]
fn flags_go_over_the_environment_and_the_environment_over_the_file() {
    let variables =
        [("KAFKA_TOPICS", "a, b"), ("KAFKA_GROUP_ID", "from-env"), ("S3_BUCKET", "unused"), ("LOG_LEVEL", "DEBUG")];
    let config = load_text(RIGHT, &variables, &[("source.group_id", "from-flag")]).unwrap();
    let SourceKind::Kafka(kafka) = &config.pipelines[0].source.kind else { panic!("kafka") };
    assert_eq!((kafka.topics.clone(), kafka.group_id.as_str()), (vec!["a".to_owned(), "b".to_owned()], "from-flag"));
    assert_eq!(config.telemetry.log_level, "DEBUG");
    let message = load_text(RIGHT, &[("SOURCE_TYPE", "carrier-pigeon")], &[]).unwrap_err();
    assert_eq!(
        message,
        "environment variable SOURCE_TYPE: source.type: expected one of kafka, file, found \"carrier-pigeon\""
    );
}

#[test]
fn the_environment_alone_is_enough() {
    let environment = [
        ("SOURCE_TYPE", "kafka"),
        ("KAFKA_BOOTSTRAP_SERVERS", "localhost:9092"),
        ("KAFKA_TOPICS", "orders"),
        ("SINK_TYPE", "s3"),
        ("S3_BUCKET", "lake"),
        ("S3_ENDPOINT_URL", "http://127.0.0.1:9000"),
        ("AWS_ACCESS_KEY_ID", "key"),
        ("AWS_SECRET_ACCESS_KEY", "geheim"),
        ("PIPELINE_FLUSH_INTERVAL_SECONDS", "5"),
    ];
    let environment: Variables =
        environment.into_iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
    let inputs = Inputs { environment, ..Inputs::default() };
    let config = load(&inputs).unwrap();
    let SinkKind::S3(s3) = &config.pipelines[0].sink.kind else { panic!("s3") };
    assert_eq!(s3.endpoint_url.as_deref(), Some("http://127.0.0.1:9000"));
    assert_eq!(config.pipelines[0].run.commit_interval.as_secs(), 5);
    let shown = show(&inputs).unwrap();
    assert!(shown.contains("aws_secret_access_key: \"***\"") && !shown.contains("geheim"), "{shown}");
    assert!(!format!("{config:?}").contains("geheim"));
    let nothing = load(&Inputs::default()).unwrap_err().to_string();
    assert!(nothing.starts_with("environment: no configuration: name a YAML file"), "{nothing}");
}

#[test]
fn several_pipelines_in_one_file_and_variables() {
    let text = "pipelines:
  a: {source: {type: file, paths: [\"${DATA:-x}/*.ndjson\"]}, sink: {type: local, base_path: lake}}
  b: {source: {type: file, paths: ['-']}, sink: {type: local, base_path: \"${MISSING}\"}}
";
    let message = load_text(text, &[], &[]).unwrap_err();
    assert!(
        message.contains("orders.yaml:3: pipelines.b.sink.base_path: the variable MISSING is not set"),
        "{message}"
    );
    let config = load_text(text, &[("MISSING", "there")], &[]).unwrap();
    assert_eq!(config.pipelines.iter().map(|pipeline| &*pipeline.name).collect::<Vec<_>>(), ["a", "b"]);
}

#[test]
fn text_that_is_not_a_configuration() {
    assert!(load_text("a: [", &[], &[]).unwrap_err().contains("not valid YAML"));
    assert_eq!(load_text("", &[], &[]).unwrap_err(), "orders.yaml:1: the file is empty");
    assert_eq!(
        load_text("just text", &[], &[]).unwrap_err(),
        "orders.yaml:1: expected keys and values such as `source:` and `sink:`"
    );
    let message = load_text(&format!("{RIGHT}source: {{}}\n"), &[], &[]).unwrap_err();
    assert!(message.contains("orders.yaml:"), "{message}");
}

#[test]
fn properties_that_break_delivery_are_refused() {
    let text = "source: {type: kafka, bootstrap_servers: [b:1], topics: [t], extra_config: {enable.auto.commit: true, fetch.min.bytes: 1}}
sink: {type: local, base_path: lake}";
    let message = load_text(text, &[], &[]).unwrap_err();
    assert!(
        message.starts_with(
            "orders.yaml:1: source.extra_config.enable.auto.commit: enable.auto.commit cannot be set here"
        ),
        "{message}"
    );
}
