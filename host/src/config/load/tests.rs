//! What is understood, what is refused, and in which words.

use proptest::prelude::*;

use super::*;
use crate::config::{
    Compression, DeadLetterConfig, HdfsProtocol, OnNewField, OnTombstone, PartitionTransform, Secret, SinkConfig,
    SinkKind, SourceKind, ValueFormat,
};

mod dead_letter;
mod grants;
mod plugin;
mod redis;
mod start;
mod tenants;

/// Header of an empty component.
const COMPONENT: &[u8] = b"\0asm\x0d\0\x01\0";

/// A folder with `orders.yaml` and the plugin files `p.wasm`, `core.wasm` and `text.wasm`.
fn folder_with(text: &str) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("p.wasm"), COMPONENT).unwrap();
    std::fs::write(folder.path().join("core.wasm"), b"\0asm\x01\0\0\0").unwrap();
    std::fs::write(folder.path().join("text.wasm"), b"(module)").unwrap();
    std::fs::write(folder.path().join("orders.yaml"), text).unwrap();
    folder
}

/// Loads paths of a folder; messages without the folder's name.
fn load_paths(
    folder: &Path,
    paths: &[&str],
    variables: &[(&str, &str)],
    flags: &[(&str, &str)],
) -> Result<Config, String> {
    let flag = |(key, value): &(&str, &str)| Override {
        key: (*key).to_owned(),
        value: (*value).to_owned(),
        flag: format!("--set {key}"),
    };
    let inputs = Inputs {
        paths: paths.iter().map(|path| folder.join(path)).collect(),
        overrides: flags.iter().map(flag).collect(),
        environment: variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect(),
    };
    let prefix = format!("{}/", folder.display());
    load(&inputs).map_err(|faults| faults.to_string().replace(&prefix, ""))
}

/// Loads one text as `orders.yaml`.
fn load_text(text: &str, variables: &[(&str, &str)], flags: &[(&str, &str)]) -> Result<Config, String> {
    load_paths(folder_with(text).path(), &["orders.yaml"], variables, flags)
}

/// The faults of a text, a line each.
fn faults(text: &str) -> String {
    load_text(text, &[], &[]).unwrap_err()
}

/// A pipeline that is right, in two lines.
const RIGHT: &str = "source: {type: kafka, bootstrap_servers: [localhost:9092], topics: [orders]}\n\
                     sink: {type: local, base_path: lake}\n";

/// The faults of a pipeline that is right but for a third line.
fn faults_of_line(line: &str) -> String {
    faults(&format!("{RIGHT}{line}\n"))
}

/// The faults of a pipeline whose source has these keys besides, without what they all begin with.
fn faults_of_source(keys: &str) -> String {
    let source = format!("source: {{type: kafka, bootstrap_servers: [localhost:9092], topics: [orders], {keys}}}");
    faults(&format!("{source}\nsink: {{type: local, base_path: lake}}\n")).replace("orders.yaml:1: ", "")
}

/// The faults of a pipeline with these keys of an S3 sink besides, and with a schema.
fn faults_of_sink(keys: &str) -> String {
    let text = format!(
        "sink: {{type: s3, bucket: lake, {keys}}}\nschema: {{fields: [{{name: country, type: string}}, {{name: ts, type: \
         timestamp}}, {{name: price, type: double}}, {{name: tags, type: list<string>}}]}}\nsource: {{type: file, paths: ['-']}}\n"
    );
    faults(&text).replace("orders.yaml:1: ", "")
}

/// The sink of a configuration with one pipeline.
fn sink(config: &Config) -> &SinkConfig {
    &config.pipelines[0].sink
}

#[test]
fn the_least_that_is_right_gets_the_documented_defaults() {
    let folder = folder_with(RIGHT);
    let config = load_paths(folder.path(), &["orders.yaml"], &[], &[]).unwrap();
    let pipeline = &config.pipelines[0];
    assert_eq!((&*pipeline.name, &*pipeline.tenant), ("orders", "default"));
    let SourceKind::Kafka(kafka) = &pipeline.source.kind else { panic!("kafka") };
    assert_eq!(kafka.group_id, "fs-data-sink-group");
    assert_eq!((pipeline.source.batch_rows_max, pipeline.source.batch_timeout.as_millis()), (8_192, 250));
    assert_eq!(pipeline.decode.format, ValueFormat::Json);
    assert_eq!(pipeline.decode.on_new_field, OnNewField::Add);
    assert_eq!(pipeline.sink.parquet.compression, Compression::Snappy);
    assert_eq!(pipeline.sink.retry_timeout.as_secs(), 600);
    let SinkKind::Local(local) = &pipeline.sink.kind else { panic!("local") };
    assert_eq!(local.base_path, folder.path().join("lake"));
    let run = &pipeline.run;
    assert_eq!((run.commit_interval.as_secs(), run.target_file_size_bytes, run.open_files_max), (60, 128 << 20, 256));
    assert_eq!((run.memory_bytes, run.lanes, run.shutdown_timeout.as_secs()), (512 << 20, None, 30));
    assert_eq!((run.batches_max, run.commit_interval_batches, run.until_end), (None, None, false));
    assert!(matches!(pipeline.dead_letter, DeadLetterConfig::Store));
    assert_eq!(config.telemetry.listen.unwrap().to_string(), "127.0.0.1:9464");
    assert_eq!(config.telemetry.log_level, "INFO");
}

#[test]
fn every_fault_comes_at_once_with_its_line_and_the_likely_key() {
    let text = r#"source:
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
  merge_min_files: 1
schema:
  fields:
    - {name: country, type: string}
    - {name: ts, type: "timestamp[min]"}
pipeline: {delivery: exactly_once, commit_interval: 1s, flush_interval_seconds: 2}
commit_interval: 5s
colour: blue
"#;
    let expected = "\
orders.yaml:1: source.bootstrap_servers: is missing: a list of host:port
orders.yaml:3: source.bootstrap_server: unknown key; did you mean `bootstrap_servers`?
orders.yaml:5: source.batch_size: expected a whole number such as 1000 or 1_000_000, found \"many\"
orders.yaml:6: sink.aws_secret_access_key: is missing: key id and secret come together, or neither for the usual AWS chain
orders.yaml:10: sink.partition_by: the schema has no column \"county\"; did you mean country? There are: country, ts
orders.yaml:11: sink.compression: the level of zstd is from 1 to 22, found 99
orders.yaml:12: sink.merge_min_files: must be at least 2: one file alone has nothing to be merged with
orders.yaml:16: schema.fields[1].type: expected the unit s, ms, us or ns, at character 11 of \"timestamp[min]\"
orders.yaml:17: pipeline.flush_interval_seconds: means the same as commit_interval, which says 1s and not 2s; leave one out
orders.yaml:18: commit_interval: unknown key here; did you mean `pipeline.commit_interval`?
orders.yaml:19: colour: unknown key; known here: dead_letter, name, pipeline, pipelines, plugins, schema, sink, source, telemetry, tenant, tenants";
    assert_eq!(faults(text), expected);
}

#[test]
fn sections_that_are_missing_or_something_else() {
    assert_eq!(
        faults("name: a"),
        "orders.yaml:1: sink: the section is missing: where do rows go?\n\
         orders.yaml:1: source: the section is missing: where do records come from?"
    );
    assert_eq!(
        faults("source: kafka\nsink: [s3]\nplugins: p.wasm"),
        "orders.yaml:1: source: expected keys and values, found one value\n\
         orders.yaml:2: sink: expected keys and values, found a list\n\
         orders.yaml:3: plugins: expected a list or keys and values, found one value"
    );
    assert_eq!(
        faults("just text"),
        "orders.yaml:1: expected keys and values such as `source:` and `sink:`, found one value"
    );
    assert_eq!(
        faults(&format!("{RIGHT}source: {{}}\n")),
        "orders.yaml:3: `source` is here a second time; the first is at line 1"
    );
}

#[test]
fn names_become_folders() {
    let rule = "expected 1 to 100 letters, digits, `-`, `_` and `.`, not first a `.`";
    assert_eq!(faults_of_line("name: a/b"), format!("orders.yaml:3: name: \"a/b\" names folders and metrics: {rule}"));
    assert_eq!(
        faults_of_line("tenant: ..."),
        format!("orders.yaml:3: tenant: \"...\" names folders and metrics: {rule}")
    );
    let folder = folder_with(RIGHT);
    std::fs::copy(folder.path().join("orders.yaml"), folder.path().join("my orders.yaml")).unwrap();
    assert_eq!(
        load_paths(folder.path(), &["my orders.yaml"], &[], &[]).unwrap_err(),
        format!(
            "my orders.yaml:1: name: \"my orders\" names folders and metrics (it comes from the file's name; set `name`): {rule}"
        )
    );
}

#[test]
fn a_source_says_what_it_needs() {
    let of_type = |source: &str| faults(&format!("source: {source}\nsink: {{type: local, base_path: lake}}\n"));
    assert_eq!(of_type("{topics: [a]}"), "orders.yaml:1: source.type: is missing: kafka, redis or file");
    assert_eq!(
        of_type("{type: kafak}"),
        "orders.yaml:1: source.type: expected one of kafka, redis, file, found \"kafak\"; did you mean kafka?"
    );
    assert_eq!(
        of_type("{type: kafka, topics: [], bootstrap_servers: ''}"),
        "orders.yaml:1: source.bootstrap_servers: is missing: a list of host:port\n\
         orders.yaml:1: source.topics: is missing: a list of topics, or of patterns that begin with ^"
    );
    assert_eq!(
        of_type("{type: file, topics: [a]}"),
        "orders.yaml:1: source.paths: is missing: a list of files, patterns such as data/*.ndjson, or - for standard input\n\
         orders.yaml:1: source.topics: has no meaning here; it belongs to `type: kafka`"
    );
    assert_eq!(
        of_type("{type: file, paths: [data/***]}"),
        "orders.yaml:1: source.paths: the pattern \"data/***\" cannot be used: wildcards are either regular `*` or recursive `**`"
    );
}

#[test]
fn values_of_a_source_are_checked() {
    assert_eq!(
        faults_of_source("stream_keys: [a]"),
        "source.stream_keys: has no meaning here; it belongs to `type: redis`"
    );
    assert_eq!(faults_of_source("paths: [a]"), "source.paths: has no meaning here; it belongs to `type: file`");
    assert_eq!(faults_of_source("batch_size: 0"), "source.batch_size: must be more than 0");
    assert_eq!(faults_of_source("batch_size: 2000000"), "source.batch_size: 2000000 is too much; at most 1000000");
    assert_eq!(faults_of_source("batch_timeout: 0"), "source.batch_timeout: must be more than 0");
    assert_eq!(
        faults_of_source("value_format: protobuf"),
        "source.value_format: protobuf needs `schema_registry: {url: ...}` or `protobuf: {descriptor_file: ..., message: ...}`"
    );
    assert_eq!(
        faults_of_source("group_id: ''"),
        "source.group_id: must not be empty; leave it out for fs-data-sink-group"
    );
    assert_eq!(faults_of_source("group_id: [a]"), "source.group_id: expected one value, found a list");
    let text = "source:\n  type: kafka\n  bootstrap_servers: ['localhost:x', 'http://b:1']\n  topics:\n  - orders\n  - orders*\n  \
                - '^a('\n  - [b]\nsink: {type: local, base_path: lake}\n";
    assert_eq!(
        faults(text),
        "orders.yaml:3: source.bootstrap_servers: expected host:port, found \"http://b:1\"\n\
         orders.yaml:3: source.bootstrap_servers: expected host:port, found \"localhost:x\"\n\
         orders.yaml:6: source.topics: \"orders*\" cannot be a topic: expected 1 to 249 letters, digits, `.`, `_` and `-`, or a \
         pattern that begins with ^, such as ^orders-.*\n\
         orders.yaml:7: source.topics: the pattern \"^a(\" cannot be used: a `(` without `)`\n\
         orders.yaml:8: source.topics[3]: expected a text, found a list"
    );
}

#[test]
fn properties_of_kafka_are_judged_offline() {
    assert_eq!(
        faults_of_source("extra_config: {enable.auto.commit: true, fetch.min.byte: 1, max_poll_records: 5}"),
        "source.extra_config.enable.auto.commit: enable.auto.commit cannot be set here: offsets are committed only after the \
         files that hold the rows are durable\n\
         source.extra_config.fetch.min.byte: librdkafka has no such property; did you mean fetch.min.bytes? Its \
         CONFIGURATION.md has them all\n\
         source.extra_config.max_poll_records: librdkafka has no such property; use source.batch_size"
    );
    assert_eq!(
        faults_of_source("extra_config: {group.protocol: consumer, session_timeout_ms: 1500}"),
        "source.extra_config.session.timeout.ms: has no meaning beside `group.protocol: consumer`, in which it is the broker's \
         group.consumer.session.timeout.ms"
    );
    assert_eq!(
        faults_of_source("extra_config: {client_id: a, client.id: b, sasl: {username: a}}"),
        "source.extra_config.client.id: sets client.id a second time\n\
         source.extra_config.sasl: expected one value, found keys and values"
    );
    let message =
        faults_of_source("extra_config: {sasl.password: geheim, sasl.username: [geheim], ssl.key.pem: {a: geheim}}");
    assert!(!message.contains("geheim"), "{message}");
}

#[test]
fn schemas_are_checked() {
    let of_schema = |schema: &str| faults_of_line(&format!("schema: {schema}")).replace("orders.yaml:3: ", "");
    assert_eq!(of_schema("{mode: declared}"), "schema.fields: is missing: a declared schema needs fields");
    assert_eq!(
        of_schema("{mode: infer, fields: [{name: a, type: int8}]}"),
        "schema.mode: an inferred schema has no `fields`; write `mode: declared`, or leave `fields` out"
    );
    assert_eq!(of_schema("{fields: []}"), "schema.fields: expected at least one field such as {name: id, type: int64}");
    assert_eq!(
        of_schema("{fields: [{nmae: a, type: int8}, {name: b}, c]}"),
        "schema.fields[0].name: is missing: what the field is called\n\
         schema.fields[0].nmae: unknown key; did you mean `name`?\n\
         schema.fields[1].type: is missing: int64, string, timestamp[ms, UTC] and so on\n\
         schema.fields[2]: expected keys and values, found one value"
    );
    assert_eq!(
        of_schema("{fields: [{name: a, type: int8}, {name: a, type: int8}, {name: A, type: int8, nullable: maybe}]}"),
        "schema.fields[1].name: the field \"a\" is there twice\n\
         schema.fields[2].name: \"A\" and \"a\" differ in case only, which most readers of Parquet cannot tell apart\n\
         schema.fields[2].nullable: expected true or false, found \"maybe\""
    );
    assert_eq!(
        of_schema(
            "{metadata_columns: [topic, topic, ofset, _key], fields: [{name: _key, type: int8}], on_new_field: drop}"
        ),
        "schema.metadata_columns: expected one of topic, partition, offset, timestamp, key, found \"ofset\"; did you mean offset?\n\
         schema.metadata_columns: key becomes the column \"_key\", which `fields` has too\n\
         schema.metadata_columns: topic is there twice\n\
         schema.on_new_field: expected one of add, ignore, reject, found \"drop\""
    );
    assert_eq!(
        faults(
            &format!("{RIGHT}schema: {{fields: [{{name: a, type: int8}}]}}\n")
                .replace("topics", "value_format: raw, topics")
        ),
        "orders.yaml:3: schema.fields: has no meaning with `value_format: raw`, whose columns are topic, partition, offset, \
         timestamp, key, value, headers"
    );
}

#[test]
fn nested_fields_may_be_yaml() {
    let text = format!(
        "{RIGHT}schema:\n  fields:\n  - name: device\n    fields: [{{name: os, type: string, nullable: false}}]\n  \
         - {{name: items, type: list<struct>, fields: [{{name: id, type: int64}}], nullable: false}}\n"
    );
    let config = load_text(&text, &[], &[]).unwrap();
    let schema = config.pipelines[0].decode.declared_schema.as_ref().unwrap();
    let types: Vec<_> =
        schema.fields().iter().map(|field| (field.data_type().to_string(), field.is_nullable())).collect();
    let expected =
        [("Struct(\"os\": non-null Utf8)".to_owned(), true), ("List(Struct(\"id\": Int64))".to_owned(), false)];
    assert_eq!(types, expected);
    let mut deep = "{name: a, type: int8}".to_owned();
    for _ in 0..25 {
        deep = format!("{{name: a, fields: [{deep}]}}");
    }
    let message = faults_of_line(&format!("schema: {{fields: [{deep}]}}"));
    assert!(message.contains("types are nested deeper than 16"), "{message}");
}

#[test]
fn faults_of_plugins_are_told_at_their_lines() {
    let text = format!(
        "{RIGHT}plugins:
  - path: missing.wasm
  - {{path: core.wasm}}
  - {{path: text.wasm}}
  - {{path: p.wasm, name: a, sha256: abc}}
  - {{path: p.wasm, name: b, grants: {{http: [{{host: x, prot: 1}}]}}}}
  - {{path: p.wasm, name: b, limits: {{memory: 0, instances: 3000}}}}
  - {{path: p.wasm, name: c, on_reject: dorp, on_trap: {{retries: 11, then: fail, open_circuit_after: 3, backoff: {{from: 2m}}}}}}
  - name: d
  - p.wasm
  - {{path: ., name: e, grants: {{http: [], env: {{}}}}}}
"
    );
    let folder = folder_with(&text);
    let message = load_paths(folder.path(), &["orders.yaml"], &[], &[]).unwrap_err();
    let own = "orders.yaml:";
    let expected = [
        (4, "plugins[0].path: plugin missing: the file missing.wasm does not exist"),
        (5, "plugins[1].path: plugin core: the file core.wasm is a core module; expected a component, as `wasm-tools component new` or the \
             target wasm32-wasip2 makes"),
        (6, "plugins[2].path: plugin text: the file text.wasm is not WebAssembly; expected a component"),
        (7, "plugins[3].sha256: expected 64 hexadecimal digits, found \"abc\""),
        (8, "plugins[4].grants.http[0].prot: unknown key; did you mean `port`?"),
        (9, "plugins: a second plugin is called \"b\"; give each a `name` of its own"),
        (9, "plugins[5].limits.instances: 3000 is too much; at most 512"),
        (9, "plugins[5].limits.memory: 0 is not between 1 byte and 1 PB"),
        (10, "plugins[6].on_reject: expected one of dead_letter, drop, fail, found \"dorp\"; did you mean drop?"),
        (10, "plugins[6].on_trap.backoff.from: 120s is longer than `to`, which is 60s"),
        (10, "plugins[6].on_trap.open_circuit_after: never comes to it: with `then: fail` the first batch that fails ends the pipeline; leave \
              one of the two out"),
        (10, "plugins[6].on_trap.retries: expected a number from 0 to 10, found \"11\""),
        (11, "plugins[7].path: is missing: the component's file; or `url`, where it is downloaded from"),
        (12, "plugins[8]: expected keys and values, found one value"),
    ]
    .map(|(line, text)| format!("{own}{line}: {text}"));
    let mut expected = expected.to_vec();
    expected.push(format!("{own}13: plugins[9].path: plugin e: . is a folder; expected a component's file"));
    assert_eq!(message.lines().collect::<Vec<_>>(), expected);
}

#[test]
fn plugins_get_their_configuration_as_json() {
    let text = format!(
        "{RIGHT}plugins:\n  keep: {{path: p.wasm, config: {{values: [DE, NO, 1, '1', true], price: 1.5, none: ~}}}}\n  other: {{path: \
         p.wasm}}\n"
    );
    let config = load_text(&text, &[], &[]).unwrap();
    let plugins = &config.pipelines[0].plugins;
    assert_eq!(plugins.iter().map(|plugin| &*plugin.name).collect::<Vec<_>>(), ["keep", "other"]);
    assert_eq!(plugins[0].config_json, r#"{"values":["DE","NO",1,"1",true],"price":1.5,"none":null}"#);
    assert_eq!(plugins[1].config_json, "{}");
}

#[test]
fn a_sink_says_what_it_needs() {
    let of_type = |sink: &str| faults(&format!("sink: {sink}\nsource: {{type: file, paths: ['-']}}\n"));
    assert_eq!(of_type("{bucket: a}"), "orders.yaml:1: sink.type: is missing: s3, hdfs, local, gcs or azure");
    assert_eq!(of_type("{type: s3}"), "orders.yaml:1: sink.bucket: is missing: the bucket's name");
    assert_eq!(of_type("{type: local}"), "orders.yaml:1: sink.base_path: is missing: the folder to write to");
    assert_eq!(of_type("{type: gcs}"), "orders.yaml:1: sink.bucket: is missing: the bucket's name");
    assert_eq!(
        of_type("{type: azure}"),
        "orders.yaml:1: sink.account: is missing: the storage account's name\n\
         orders.yaml:1: sink.container: is missing: the container's name"
    );
    assert_eq!(
        of_type("{type: azure, account: a, container: b, access_key: c, sas_token: d}"),
        "orders.yaml:1: sink: of access_key, sas_token and client_id (of a managed identity) one is enough; leave the \
         others out"
    );
    assert_eq!(
        of_type("{type: gcs, bucket: a, service_account_file: no.json, account: b}"),
        "orders.yaml:1: sink.account: has no meaning here; it belongs to `type: azure`\n\
         orders.yaml:1: sink.service_account_file: expected a file, found nothing such at no.json"
    );
    assert_eq!(
        of_type("{type: local, base_path: a, bucket: b}"),
        "orders.yaml:1: sink.bucket: has no meaning here; it belongs to `type: s3`"
    );
}

#[test]
fn values_of_a_sink_are_checked() {
    assert_eq!(
        faults_of_sink("prefix: a//b"),
        "sink.prefix: expected folders such as raw/orders, found \"a//b\" with an empty \
        part, `.` or `..`"
    );
    assert_eq!(
        faults_of_sink("endpoint_url: 'localhost:9000'"),
        "sink.endpoint_url: expected an address such as https://s3.example.com or http://127.0.0.1:9000, found \"localhost:9000\""
    );
    assert_eq!(
        faults_of_sink(
            "url: x, compression: zsdt, parquet: {sort_by: [ts desc, ts], statistics: all, row_group_rows: 0}"
        ),
        "sink.compression: expected one of snappy, gzip, brotli, zstd, lz4, none, uncompressed, found \"zsdt\"; did you mean zstd?\n\
         sink.parquet.row_group_rows: must be more than 0\n\
         sink.parquet.sort_by: names the column \"ts\" twice\n\
         sink.parquet.statistics: expected one of none, chunk, page, found \"all\"\n\
         sink.url: has no meaning here; it belongs to `type: hdfs`"
    );
    assert_eq!(faults_of_sink("compression: snappy(3)"), "sink.compression: snappy has no levels");
    let bucket = faults("sink: {type: s3, bucket: 's3://lake/raw'}\nsource: {type: file, paths: ['-']}");
    assert_eq!(
        bucket,
        "orders.yaml:1: sink.bucket: expected the bucket's name alone, found \"s3://lake/raw\"; folders go into `prefix`"
    );
    // What the original has as its defaults changes nothing.
    let text = "sink: {type: s3, bucket: lake, prefix: /raw/, merge_enabled: false, merge_period: hour, extra_config: {}}\n\
                source: {type: file, paths: ['-']}";
    let config = load_text(text, &[], &[]).unwrap();
    assert!(matches!(&sink(&config).kind, SinkKind::S3(s3) if s3.prefix == "raw"));
}

#[test]
fn an_hdfs_sink_says_what_it_needs() {
    let of = |keys: &str| {
        faults(&format!("sink: {{type: hdfs{keys}}}\nsource: {{type: file, paths: ['-']}}\n"))
            .replace("orders.yaml:1: ", "")
    };
    assert_eq!(
        of(", bucket: a"),
        "sink.base_path: is missing: the folder to write to, such as /data/lake\n\
         sink.bucket: has no meaning here; it belongs to `type: s3`\n\
         sink.url: is missing: hdfs://namenode:8020, or http://namenode:9870 for WebHDFS"
    );
    let example = "expected an address such as hdfs://namenode:8020 or http://namenode:9870, found";
    assert_eq!(
        of(", url: namenode, base_path: /"),
        format!("sink.base_path: expected a folder such as /data/lake, found \"/\"\nsink.url: {example} \"namenode\"")
    );
    assert_eq!(of(", url: 's3://a', base_path: /a"), format!("sink.url: {example} \"s3://a\""));
    assert_eq!(
        of(", url: 'hdfs://n:8020/data', base_path: '/a/../b'"),
        "sink.base_path: expected a folder such as /data/lake, found \"/a/../b\" with an empty part, `.` or `..`\n\
         sink.url: expected host and port alone, found \"hdfs://n:8020/data\"; folders go into `base_path`"
    );
    assert_eq!(
        of(", url: 'http://me:secret@n:9870', base_path: 'a:b', user: 'a b'"),
        "sink.base_path: HDFS takes no `:` in names, found \"a:b\"\n\
         sink.url: an address must not contain a user or a password; the user goes into `user`\n\
         sink.user: expected a user, found \"a b\""
    );
    assert_eq!(
        of(", url: 'hdfs://n:8020', base_path: /a, delegation_token: t0k, ca_file: no.pem"),
        "sink.ca_file: expected a file of certificates in PEM, found nothing such at no.pem\n\
         sink.ca_file: has no meaning with this `url`; it belongs to https://\n\
         sink.delegation_token: has no meaning with this `url`; it belongs to WebHDFS; here Hadoop's own \
         HADOOP_TOKEN_FILE_LOCATION is read"
    );
    assert_eq!(
        of(", url: 'hdfs://a:1;hdfs://b:1', base_path: /a"),
        "sink.url: several namenodes are one name service here: hdfs://name, with hadoop_conf_dir to say which they are"
    );
    assert_eq!(
        of(", url: 'http://a:1;https://b:1', base_path: /a"),
        "sink.url: expected the same scheme in all addresses"
    );
}

#[test]
fn an_hdfs_sink_is_read_with_its_variables_and_keeps_its_token() {
    let text = "sink: {type: hdfs, url: 'http://x:1', base_path: /data/lake/}\nsource: {type: file, paths: ['-']}\n";
    let variables = [
        ("HDFS_URL", "http://a:9870; http://b:9870/"),
        ("HDFS_USER", "etl"),
        ("HDFS_DELEGATION_TOKEN", "T0ken"),
        ("S3_BUCKET", "no"),
    ];
    let config = load_text(text, &variables, &[]).unwrap();
    let SinkKind::Hdfs(hdfs) = &sink(&config).kind else { panic!("hdfs") };
    assert_eq!((hdfs.base_path.as_str(), hdfs.user.as_deref()), ("data/lake", Some("etl")));
    let HdfsProtocol::Web { urls, delegation_token, .. } = &hdfs.protocol else { panic!("web") };
    assert_eq!(urls, &["http://a:9870", "http://b:9870"]);
    assert_eq!(delegation_token.as_ref().map(Secret::reveal), Some("T0ken"));
    assert!(!config.to_yaml().contains("T0ken") && !format!("{config:?}").contains("T0ken"));
    assert!(config.to_yaml().contains("url: \"http://a:9870;http://b:9870\""), "{}", config.to_yaml());
}

#[test]
fn columns_are_held_against_the_schema() {
    let there_are = "There are: country, ts, price, tags";
    assert_eq!(
        faults_of_sink("partition_by: [county, 'day(country)', tags, _topic, 'week(ts)', 'day(ts', nothing]"),
        format!(
            "sink.partition_by: expected a column, or such as day(ts), found \"day(ts\"\n\
             sink.partition_by: expected one of year, month, day, hour, found \"week\"\n\
             sink.partition_by: the column \"_topic\" needs `metadata_columns: [topic]` in `schema`\n\
             sink.partition_by: the column \"country\" is of type Utf8, which is no time\n\
             sink.partition_by: the column \"tags\" is of type List(Utf8), whose values cannot be directories\n\
             sink.partition_by: the schema has no column \"county\"; did you mean country? {there_are}\n\
             sink.partition_by: the schema has no column \"nothing\". {there_are}"
        )
    );
    assert_eq!(
        faults_of_sink("partition_by: [country, Country]").lines().last().unwrap(),
        format!("sink.partition_by: the schema has no column \"Country\"; did you mean country? {there_are}")
    );
    assert_eq!(
        faults_of_sink("partition_by: [country, country]"),
        "sink.partition_by: a second level would be called \"country\""
    );
    let leaves = "ts, price, tags.list.item";
    assert_eq!(
        faults_of_sink(
            "partition_by: [country], parquet: {bloom_filter: [country, prise, tags], columns: {ts: {encoding: \
             delta_byte_array}, nowhere: {dictionary: false}, price: {encoding: byte_stream_split}}}"
        ),
        format!(
            "sink.parquet.bloom_filter: \"country\" is a partition column, which the files do not hold; see \
             `keep_partition_columns`\n\
             sink.parquet.bloom_filter: \"tags\" has parts; name one of them: tags.list.item\n\
             sink.parquet.bloom_filter: the files have no column \"prise\"; did you mean price? There are: {leaves}\n\
             sink.parquet.columns.nowhere: the files have no column \"nowhere\". There are: {leaves}\n\
             sink.parquet.columns.ts: its encoding cannot hold values of Parquet's type INT64"
        )
    );
    let raw = "source: {type: file, paths: ['-'], value_format: raw}\nsink: {type: local, base_path: a, partition_by: [topics]}";
    assert_eq!(
        faults(raw),
        "orders.yaml:2: sink.partition_by: the schema has no column \"topics\"; did you mean topic? There are: topic, partition, \
         offset, timestamp, key, value, headers"
    );
    // Plugins may add columns, and an inferred schema is not known.
    let with = |more: &str| {
        let text = format!("{RIGHT}{more}").replace("base_path", "partition_by: [new, 'day(ts)'], base_path");
        load_text(&text, &[], &[]).map(|config| sink(&config).partition_by[1].transform)
    };
    let plugin = "schema: {fields: [{name: a, type: int8}]}\nplugins: [{path: p.wasm}]";
    assert_eq!(with(plugin).unwrap(), PartitionTransform::Day);
    assert_eq!(with("").unwrap(), PartitionTransform::Day);
    let everything = format!("{RIGHT}schema: {{fields: [{{name: a, type: int8}}]}}")
        .replace("base_path", "partition_by: a, base_path");
    assert_eq!(
        faults(&everything),
        "orders.yaml:2: sink.partition_by: takes every column, so nothing is left to store; name fewer, or set \
         `keep_partition_columns: true`"
    );
}

#[test]
fn values_of_the_run_are_checked() {
    let of = |keys: &str| faults_of_line(&format!("pipeline: {{{keys}}}")).replace("orders.yaml:3: pipeline.", "");
    assert_eq!(of("commit_interval: 2d"), "commit_interval: 2d is too long; at most 24h");
    assert_eq!(of("flush_interval_seconds: 0"), "flush_interval_seconds: must be more than 0");
    assert_eq!(of("memory: 1MiB"), "memory: 1MiB is too little; at least 32MiB");
    assert_eq!(of("lanes: 0"), "lanes: must be more than 0");
    assert_eq!(of("lanes: 1000"), "lanes: 1000 is too much; at most 256");
    assert_eq!(
        of("target_file_size: big"),
        "target_file_size: expected a size such as 64KiB, 128MiB or 1GiB, found \"big\""
    );
    assert_eq!(
        of("error_handling: riase"),
        "error_handling: expected one of log, raise, ignore, found \"riase\"; did you mean raise?"
    );
    assert_eq!(of("memroy: 1GiB"), "memroy: unknown key; did you mean `memory`?");
    assert_eq!(of("topics: [a]"), "topics: unknown key here; did you mean `source.topics`?");
    assert_eq!(
        of("delivery: at_most_once"),
        "delivery: expected one of exactly_once, at_least_once, found \"at_most_once\"; did you mean at_least_once?"
    );
    let config = load_text(
        &format!("{RIGHT}pipeline: {{batch_timeout_seconds: 3, flush_interval_seconds: 60, commit_interval: 1m}}"),
        &[],
        &[],
    );
    assert_eq!(config.unwrap().pipelines[0].source.batch_timeout.as_secs(), 3);
}

#[test]
fn telemetry_is_checked_and_said_once() {
    let of = |keys: &str| faults_of_line(&format!("telemetry: {{{keys}}}")).replace("orders.yaml:3: telemetry.", "");
    assert_eq!(
        of("listen: '9464', log_format: xml"),
        "listen: expected an IP address and a port such as 127.0.0.1:9464 or 0.0.0.0:9464, or none, found \"9464\"\n\
         log_format: expected one of json, text, found \"xml\""
    );
    assert_eq!(
        of("otlp_endpoint: 'localhost:4317'"),
        "otlp_endpoint: expected an address such as http://localhost:4317, found \"localhost:4317\""
    );
    let config = load_text(&format!("{RIGHT}telemetry: {{listen: off, enabled: yes}}"), &[], &[]).unwrap();
    assert!(config.telemetry.listen.is_none() && config.telemetry.enabled);
    let folder = folder_with(RIGHT);
    let write = |name: &str, more: &str| std::fs::write(folder.path().join(name), format!("{RIGHT}{more}")).unwrap();
    write("b.yaml", "telemetry: {log_level: DEBUG}");
    write("c.yaml", "telemetry: {log_level: DEBUG}");
    let config = load_paths(folder.path(), &["."], &[], &[]).unwrap();
    assert_eq!((config.telemetry.log_level.as_str(), config.pipelines.len()), ("DEBUG", 3));
    write("c.yaml", "telemetry: {log_level: ERROR}");
    assert_eq!(
        load_paths(folder.path(), &["b.yaml", "c.yaml"], &[], &[]).unwrap_err(),
        "c.yaml:3: telemetry: is for the whole process, and b.yaml:3 says something else; say it once"
    );
}

#[test]
fn flags_go_over_the_environment_and_the_environment_over_the_file() {
    let variables =
        [("KAFKA_TOPICS", "a, b"), ("KAFKA_GROUP_ID", "env"), ("S3_BUCKET", "unused"), ("LOG_LEVEL", "DEBUG")];
    let flags = [
        ("source.group_id", "flag"),
        ("source.extra_config.fetch.min.bytes", "7"),
        ("sink.partition_by", "[a, \"day(b)\"]"),
    ];
    let config = load_text(RIGHT, &variables, &flags).unwrap();
    let SourceKind::Kafka(kafka) = &config.pipelines[0].source.kind else { panic!("kafka") };
    assert_eq!((kafka.topics.clone(), kafka.group_id.as_str()), (vec!["a".to_owned(), "b".to_owned()], "flag"));
    assert_eq!((kafka.extra_config[0].0.as_str(), kafka.extra_config[0].1.reveal()), ("fetch.min.bytes", "7"));
    assert_eq!(sink(&config).partition_by.len(), 2);
    assert_eq!(config.telemetry.log_level, "DEBUG");
    assert_eq!(
        load_text(RIGHT, &[("SOURCE_TYPE", "pigeon")], &[]).unwrap_err(),
        "environment variable SOURCE_TYPE: source.type: expected one of kafka, redis, file, found \"pigeon\""
    );
    let flags = [("pipeline.memroy", "1"), ("sink.base_path.x", "1"), ("sink.partition_by", "[a")];
    let message = load_text(RIGHT, &[], &flags).unwrap_err();
    let lines: Vec<_> = message.lines().collect();
    assert!(lines[0].starts_with("--set sink.partition_by:") && lines[0].contains("this is not YAML"), "{message}");
    let expected = [
        "--set pipeline.memroy: pipeline.memroy: unknown key; did you mean `memory`?",
        "--set sink.base_path.x: sink.base_path.x: `x` is asked of one value, which has no keys",
    ];
    assert_eq!(lines[1..], expected);
    // A path in a flag begins where the flag was typed.
    let config = load_text(RIGHT, &[], &[("sink.base_path", "elsewhere")]).unwrap();
    assert!(matches!(&sink(&config).kind, SinkKind::Local(local) if local.base_path == Path::new("elsewhere")));
    // A type in a flag decides which variables count.
    let variables = [("SINK_TYPE", "local"), ("S3_BUCKET", "lake"), ("AWS_REGION", "eu-1")];
    let flags = [("sink.type", "s3"), ("sink", "{type: s3}")];
    let config = load_text(&RIGHT.replace(", base_path: lake", ""), &variables, &flags[..1]).unwrap();
    assert!(matches!(&sink(&config).kind, SinkKind::S3(s3) if s3.bucket == "lake" && s3.region == "eu-1"));
    assert!(load_text(RIGHT, &variables, &flags[1..]).unwrap_err().contains("sink.bucket: is missing"));
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
    let environment = environment.map(|(name, value)| (name.to_owned(), value.to_owned())).into();
    let mut inputs = Inputs { environment, ..Inputs::default() };
    let config = load(&inputs).unwrap();
    let SinkKind::S3(s3) = &sink(&config).kind else { panic!("s3") };
    assert_eq!(s3.endpoint_url.as_deref(), Some("http://127.0.0.1:9000"));
    assert_eq!(s3.secret_access_key.as_ref().unwrap().reveal(), "geheim");
    assert_eq!(config.pipelines[0].run.commit_interval.as_secs(), 5);
    let shown = config.to_yaml();
    assert!(shown.contains("aws_secret_access_key: \"***\"") && !shown.contains("geheim"), "{shown}");
    assert!(!format!("{config:?}").contains("geheim"));
    // Temporary credentials are left to the AWS chain, which knows their third part.
    inputs.environment.insert("AWS_SESSION_TOKEN".to_owned(), "token".to_owned());
    let config = load(&inputs).unwrap();
    assert!(
        matches!(&sink(&config).kind, SinkKind::S3(s3) if s3.access_key_id.is_none() && s3.secret_access_key.is_none())
    );
    assert_eq!(
        load(&Inputs::default()).unwrap_err().to_string(),
        "no configuration: name a YAML file (fs-data-sink run pipeline.yaml), or set SOURCE_TYPE, SINK_TYPE and their variables; \
         fs-data-sink demo shows the whole at work"
    );
}

#[test]
fn several_pipelines_in_one_file() {
    let text = "telemetry: {listen: none}
pipelines:
  a: {source: {type: file, paths: [\"${DATA:-x}/*.ndjson\", '-']}, sink: {type: local, base_path: lake}}
  b: {source: {type: file, paths: ['-']}, sink: {type: local, base_path: \"${MISSING}\"}}
";
    assert_eq!(
        faults(text),
        "orders.yaml:4: pipelines.b.sink.base_path: the variable MISSING is not set; `${MISSING:-default}` gives a default"
    );
    let folder = folder_with(text);
    let flags = [("pipeline.lanes", "2"), ("pipelines.b.pipeline.lanes", "3"), ("telemetry.log_level", "WARN")];
    let config = load_paths(folder.path(), &["orders.yaml"], &[("MISSING", "there")], &flags).unwrap();
    let seen: Vec<_> = config.pipelines.iter().map(|one| (&*one.name, one.run.lanes)).collect();
    assert_eq!(seen, [("a", Some(2)), ("b", Some(3))]);
    assert_eq!((config.telemetry.log_level.as_str(), config.telemetry.listen), ("WARN", None));
    let SourceKind::File(files) = &config.pipelines[0].source.kind else { panic!("file") };
    assert_eq!(files.paths, [format!("{}/x/*.ndjson", folder.path().display()), "-".to_owned()]);
    assert_eq!(
        faults("pipelines: {}\nsource: {type: file}\n"),
        "orders.yaml:1: pipelines: expected at least one pipeline under its name\n\
         orders.yaml:2: source: stands beside `pipelines`; put it into each pipeline that it is for"
    );
    assert_eq!(
        faults("pipelines:\n  a:\n    telemetry: {}\n    surce: {}\n    sink: {type: local, base_path: a}\n"),
        "orders.yaml:2: pipelines.a.source: the section is missing: where do records come from?\n\
         orders.yaml:3: pipelines.a.telemetry: is for the whole process; put it at the top of the file\n\
         orders.yaml:4: pipelines.a.surce: unknown key; did you mean `source`?"
    );
    assert!(faults("pipelines: [{}]").contains("expected keys and values, a pipeline under its name, found a list"));
}

#[test]
fn several_files_and_folders() {
    let folder = folder_with(RIGHT);
    let path = folder.path();
    std::fs::create_dir(path.join("more")).unwrap();
    let load = |paths: &[&str]| load_paths(path, paths, &[], &[]);
    assert_eq!(load(&["more"]).unwrap_err(), "more: the folder has no file that ends in .yaml or .yml");
    assert_eq!(load(&["none.yaml", "orders.yaml"]).unwrap_err(), "none.yaml: the file does not exist");
    std::fs::write(path.join("more/orders.yml"), format!("# A comment.\n{RIGHT}")).unwrap();
    std::fs::write(path.join("more/.hidden.yaml"), "not a pipeline").unwrap();
    assert_eq!(
        load(&["orders.yaml", "more"]).unwrap_err(),
        "more/orders.yml:2: a second pipeline is called \"orders\"; the first is at orders.yaml:1; give each a name of its own"
    );
    std::fs::write(path.join("more/orders.yml"), format!("name: others\n{RIGHT}")).unwrap();
    let config = load(&["orders.yaml", "more"]).unwrap();
    assert_eq!(config.pipelines.iter().map(|one| &*one.name).collect::<Vec<_>>(), ["orders", "others"]);
    std::fs::write(path.join("bytes.yaml"), b"\xff\xfe").unwrap();
    assert_eq!(
        load(&["bytes.yaml"]).unwrap_err(),
        "bytes.yaml: the file cannot be read: stream did not contain valid UTF-8"
    );
}

#[test]
fn what_is_printed_can_be_loaded_again() {
    let text = format!(
        "{RIGHT}schema: {{fields: [{{name: a, type: 'list<struct<b: decimal(5,2), c: map<string, timestamp[ms, UTC]>>>'}}, {{name: \
         'day', type: date, nullable: false}}], metadata_columns: [topic]}}\nplugins: [{{path: p.wasm, sha256: '{}', config: {{a: \
         ['1', 1, null, {{}}], b: '$${{X}}', c: []}}}}]\npipeline: {{commit_interval: 1.5, max_batches: 3}}\n",
        "0a".repeat(32)
    );
    let folder = folder_with(&text);
    let first = load_paths(folder.path(), &["orders.yaml"], &[], &[]).unwrap();
    let printed = first.to_yaml();
    std::fs::write(folder.path().join("printed.yaml"), &printed).unwrap();
    let second =
        load_paths(folder.path(), &["printed.yaml"], &[], &[]).unwrap_or_else(|faults| panic!("{faults}\n{printed}"));
    assert_eq!(format!("{first:#?}"), format!("{second:#?}"));
    let several = format!("pipelines:\n  a: {{{0}}}\n  b: {{{0}}}\n", RIGHT.replace("}\n", "}, "));
    let first = load_text(&several, &[], &[]).unwrap();
    let second = load_text(&first.to_yaml(), &[], &[]).unwrap();
    assert_eq!(first.to_yaml(), second.to_yaml());
}

proptest! {
    #[test]
    fn no_configuration_panics(
        text in "((source|sink|type|kafka|redis|sentinel|tls|stream_keys|file|s3|schema|fields|name|plugins|path|pipelines|pipeline|parquet|columns|extra_config|\
                 limits|bucket|topics|telemetry|listen|lanes|a|0|-1|true)(: ?|, ?|\\n {0,4}|\\{|\\}|\\[|\\]|- |\\$\\{|'|<<: |&a |\\*a)?){0,30}",
        key in "((sink|plugins|source|0|extra_config|a|\\[0\\]|)\\.?){0,4}",
    ) {
        let _ = load_text(&text, &[("SINK_TYPE", "s3")], &[(&key, &text)]);
    }
}

#[test]
fn payloads_tombstones_and_how_json_writes_fields() {
    let text = "source: {type: file, paths: ['-'], payload_pointer: '/a~1b/~0c/0', on_tombstone: null_row}\n\
                sink: {type: local, base_path: a}\n\
                schema: {fields: [{name: t, type: 'timestamp[us, UTC]', epoch: ms}, {name: d, type: time},\n\
                {name: b, type: list<binary>, encoding: hex}]}\n";
    let config = load_text(text, &[], &[]).unwrap();
    let decode = &config.pipelines[0].decode;
    assert_eq!(decode.payload_pointer, ["a/b", "~c", "0"]);
    assert_eq!(decode.on_tombstone, OnTombstone::NullRow);
    let again = load_text(&config.to_yaml(), &[], &[]).unwrap();
    let again = &again.pipelines[0].decode;
    assert_eq!((&again.declared_schema, &again.payload_pointer), (&decode.declared_schema, &decode.payload_pointer));
    assert_eq!(again.on_tombstone, decode.on_tombstone);
    assert_eq!(
        faults_of_source("payload_pointer: a/b"),
        "source.payload_pointer: expected a JSON pointer such as /payload/after, found \"a/b\""
    );
    assert_eq!(
        faults_of_source("payload_pointer: /a~2"),
        "source.payload_pointer: in a JSON pointer `~` is written ~0 and `/` in a name ~1, found \"/a~2\""
    );
    assert_eq!(
        faults_of_source("value_format: arrow_ipc, payload_pointer: /a"),
        "source.payload_pointer: has no meaning without `value_format: json`"
    );
    assert_eq!(
        faults_of_source("value_format: raw, on_tombstone: skip"),
        "source.on_tombstone: has no meaning with `value_format: raw`, where a tombstone is a null in `value`"
    );
    let fields = "schema: {fields: [{name: a, type: string, encoding: hex}, {name: b, type: date, epoch: s}]}";
    let message = faults_of_line(fields);
    assert!(message.contains("encoding: belongs to fields of type binary"), "{message}");
    assert!(message.contains("epoch: belongs to fields of type timestamp"), "{message}");
}

#[test]
fn schemas_of_values_are_checked() {
    let of = |text: &str| faults(&format!("source: {{{text}}}\nsink: {{type: local, base_path: lake}}"));
    let kafka = "type: kafka, bootstrap_servers: [h:9], topics: [t], group_id: g";
    let schemas = of(&format!("{kafka}, value_format: json, schema_registry: {{url: 'http://h:8081'}}"));
    assert_eq!(
        schemas,
        "orders.yaml:1: source.schema_registry: has no meaning without `value_format: avro, protobuf or json_schema`"
    );
    let schemas = of(&format!("{kafka}, value_format: json_schema"));
    assert_eq!(schemas, "orders.yaml:1: source.value_format: json_schema needs `schema_registry: {url: ...}`");
    let schemas = of(&format!("{kafka}, value_format: avro, schema_registry: {{url: 'h:8081', password: x}}"));
    assert!(
        schemas.contains("source.schema_registry.url: expected an address such as http://localhost:8081"),
        "{schemas}"
    );
    assert!(schemas.contains("source.schema_registry.password: is there without `username`"), "{schemas}");
    let schemas = of(&format!("{kafka}, value_format: protobuf, protobuf: {{message: a.B}}"));
    assert!(schemas.contains("source.protobuf.descriptor_file"), "{schemas}");
    let schemas = of("type: file, paths: ['-'], value_format: avro");
    assert!(schemas.contains("source.value_format: avro is for records of Kafka and Redis"), "{schemas}");
}
