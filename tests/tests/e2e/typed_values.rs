//! Records of Avro, Protobuf and JSON Schema, by writers that are not ours, with a real schema registry.

use std::{fs, path::Path, sync::LazyLock, thread, time::Duration};

use anyhow::{Context as _, ensure};
use fs_data_sink_tests::{
    lake::{Lake, run_python, run_python_of},
    program::{Configuration, Workspace, kafka_source, local_sink},
    services::{
        download,
        kafka::{Kafka, NewRecord},
        proxy::{Mode, Proxy},
        registry::Registry,
    },
};
use serde_json::{Value, json};

use crate::shared::{LONG, SHORT, kafka, scenario, unique};

/// Records of a topic.
const ROWS: u64 = 4_000;

/// The registry of all scenarios that do not stop one.
fn registry() -> anyhow::Result<&'static Registry> {
    static SHARED: LazyLock<anyhow::Result<Registry>> = LazyLock::new(Registry::start);
    SHARED.as_ref().map_err(|error| anyhow::anyhow!("no registry: {error:#}"))
}

/// Has Python write values and expected rows.
fn write(workspace: &Workspace, mut order: Value) -> anyhow::Result<()> {
    if let Some(order) = order.as_object_mut() {
        order.insert("folder".to_owned(), json!(workspace.path()));
        order.insert("rows".to_owned(), json!(ROWS));
    }
    run_python("typed_values.py", &order, workspace.path()).map(drop)
}

/// The values that Python wrote.
fn values(workspace: &Workspace) -> anyhow::Result<Vec<Vec<u8>>> {
    let bytes = fs::read(workspace.path().join("values.bin"))?;
    let (mut values, mut rest) = (Vec::new(), bytes.as_slice());
    while let Some((length, more)) = rest.split_at_checked(4) {
        let length = usize::try_from(u32::from_be_bytes(length.try_into()?))?;
        let (value, more) = more.split_at_checked(length).context("cut off")?;
        values.push(value.to_vec());
        rest = more;
    }
    Ok(values)
}

/// A topic with these values, and the configuration of a pipeline for it: what `source` says besides.
fn prepare(workspace: &Workspace, kafka: &Kafka, values: Vec<Vec<u8>>, source: &str) -> anyhow::Result<String> {
    let topic = unique("typed");
    kafka.create_topic(&topic, 2)?;
    kafka.produce(&topic, records(values))?;
    configure(workspace, kafka, &topic, source)?;
    Ok(topic)
}

/// The values as records of two partitions.
fn records(values: Vec<Vec<u8>>) -> impl Iterator<Item = NewRecord> {
    let record = |(number, value): (i32, Vec<u8>)| NewRecord {
        partition: number % 2,
        value: Some(value),
        ..NewRecord::default()
    };
    (0..).zip(values).map(record)
}

/// Writes the configuration.
fn configure(workspace: &Workspace, kafka: &Kafka, topic: &str, source: &str) -> anyhow::Result<()> {
    let source = kafka_source(kafka.bootstrap(), topic, &unique("typed")) + source;
    let mut configuration = Configuration::new("typed", source, local_sink(Path::new("lake")));
    "  commit_interval: 1s\n  lanes: 2\n".clone_into(&mut configuration.pipeline);
    workspace.write("pipeline.yaml", configuration.yaml()).map(drop)
}

/// The lake has exactly the expected rows, with their types, and so many dead letters.
fn check(workspace: &Workspace, topic: &str, letters: usize) -> anyhow::Result<()> {
    // First, since they tell why a row is missing.
    let found = Lake::Local(&workspace.path().join("lake")).dead_letters("typed")?;
    ensure!(found.len() == letters, "{} letters: {:?}", found.len(), found.first());
    let found = workspace.path().join(format!("lake/{topic}/**/*.parquet"));
    let order = json!({"do": "compare", "expected": workspace.path().join("expected.parquet"), "found": found});
    let said = run_python("typed_files.py", &order, workspace.path())?;
    ensure!(said.contains(&format!("{{\"rows\": {ROWS}}}")), "{said}");
    Ok(())
}

/// The text of a schema.
fn schema(workspace: &Workspace, name: &str) -> anyhow::Result<String> {
    Ok(fs::read_to_string(workspace.path().join(name))?)
}

/// Scenario: fastavro writes records of two versions of a schema with every type, behind their numbers in the registry; among them are
/// records of a number that the registry does not have, and damaged ones.
/// Guarantees: DuckDB reads the same values in the same types; the others are dead letters that name the number.
#[test]
fn avro_with_a_registry() -> anyhow::Result<()> {
    scenario("avro-registry", |workspace| {
        let (kafka, registry) = (kafka()?, registry()?);
        write(workspace, json!({"do": "schemas"}))?;
        let subject = unique("orders");
        let first = registry.register(&subject, "AVRO", &schema(workspace, "order1.avsc")?, &[])?;
        let second = registry.register(&subject, "AVRO", &schema(workspace, "order2.avsc")?, &[])?;
        write(workspace, json!({"do": "avro", "ids": [first, second]}))?;
        let mut all = values(workspace)?;
        let damaged = all.first().and_then(|value| value.get(..40)).context("a value")?.to_vec();
        all.extend([damaged, vec![0, 0, 99, 99, 99, 2], b"{\"id\": 1}".to_vec()]);
        let source = format!("  value_format: avro\n  schema_registry: {{url: \"{}\"}}\n", registry.url());
        let topic = prepare(workspace, kafka, all, &source)?;
        workspace.run(&["validate", "pipeline.yaml", "--connect"], SHORT)?.expect(0, &[])?;
        workspace.run(&["run", "pipeline.yaml", "--until-end"], LONG)?.expect(0, &[])?;
        check(workspace, &topic, 3)?;
        let shown = workspace.run(&["dead-letter", "show", "pipeline.yaml"], SHORT)?;
        let number = u32::from_be_bytes([0, 99, 99, 99]);
        shown.expect(
            0,
            &["bad-avro", "no-schema-id", "unknown-schema", &format!("schema {number}: the schema registry")],
        )
    })
}

/// Scenario: the schema is in a file; and each value is an Avro file of some records with its schema in it.
/// Guarantees: the same.
#[test]
fn avro_without_a_registry() -> anyhow::Result<()> {
    scenario("avro-file", |workspace| {
        let kafka = kafka()?;
        write(workspace, json!({"do": "schemas"}))?;
        write(workspace, json!({"do": "containers"}))?;
        let topic = prepare(workspace, kafka, values(workspace)?, "  value_format: avro\n")?;
        workspace.run(&["run", "pipeline.yaml", "--until-end"], LONG)?.expect(0, &[])?;
        check(workspace, &topic, 0)
    })
}

/// The types of the messages that Python writes, as a registry has them.
const PROTO: &str = r#"
    syntax = "proto3";
    package shop;
    import "google/protobuf/timestamp.proto";
    import "google/protobuf/wrappers.proto";
    import "shop/kind.proto";
    message Unused { int32 a = 1; }
    message Order {
        message Inner { sint64 x = 1; repeated string y = 2; }
        int64 a_int64 = 1; bool a_bool = 2; int32 a_int32 = 3; sint32 a_sint32 = 4; fixed32 a_fixed32 = 5; sfixed64 a_sfixed64 = 6;
        uint32 a_uint32 = 7; uint64 a_uint64 = 8; float a_float = 9; double a_double = 10; string a_string = 11; bytes a_bytes = 12;
        Kind kind = 20; Inner inner = 21; repeated Inner more = 22; repeated int32 numbers = 23; map<string, double> prices = 24;
        google.protobuf.Timestamp at = 25; google.protobuf.Int64Value maybe = 26;
        oneof either { int64 left = 27; string right = 28; }
        optional int32 chosen = 300;
    }
"#;

/// A file that it imports.
const PROTO_KIND: &str = "syntax = \"proto3\"; package shop; enum Kind { NEW = 0; OLD = 1; ODD = 2; }";

/// Scenario: Google's Protobuf writes messages of most kinds of fields; their types are in a registry, in two files of which one imports
/// the other, and then in a file of descriptors. Among them is a damaged one.
/// Guarantees: DuckDB reads the same values in the same types, both ways; the damaged one is a dead letter.
#[test]
fn protobuf_with_a_registry_and_with_descriptors() -> anyhow::Result<()> {
    for has_registry in [true, false] {
        scenario(&format!("protobuf-{has_registry}"), |workspace| {
            let (kafka, registry) = (kafka()?, registry()?);
            let (prefix, source) = if has_registry {
                let (subject, kinds) = (unique("orders"), unique("kinds"));
                registry.register(&kinds, "PROTOBUF", PROTO_KIND, &[])?;
                let id = registry.register(&subject, "PROTOBUF", PROTO, &[("shop/kind.proto", &kinds)])?;
                let source = format!("  schema_registry: {{url: \"{}\"}}\n", registry.url());
                // The second type of the file.
                (format!("00{id:08x}0202"), source)
            } else {
                write(workspace, json!({"do": "schemas"}))?;
                (String::new(), "  protobuf: {descriptor_file: order.desc, message: shop.Order}\n".to_owned())
            };
            write(workspace, json!({"do": "protobuf", "prefix": prefix}))?;
            let mut all = values(workspace)?;
            let damaged = all.last().and_then(|value| value.get(..value.len() - 1)).context("a value")?.to_vec();
            all.push(damaged);
            let topic = prepare(workspace, kafka, all, &format!("  value_format: protobuf\n{source}"))?;
            workspace.run(&["run", "pipeline.yaml", "--until-end"], LONG)?.expect(0, &[])?;
            check(workspace, &topic, 1)
        })?;
    }
    Ok(())
}

/// The schema of the JSON that Python writes.
fn order_json_schema() -> Value {
    let number = json!({"type": "number"});
    json!({"type": "object", "title": "Order", "properties": {
        "id": {"type": "integer"}, "amount": number, "note": {"type": ["null", "string"]},
        "day": {"type": "string", "format": "date"}, "at": {"type": "string", "format": "date-time"},
        "tags": {"type": "array", "items": {"type": "string"}}, "here": {"type": "object", "properties": {"x": number}},
        "never": {"oneOf": [{"type": "null"}, number]},
    }})
}

/// Scenario: Confluent's own serializers write Avro, Protobuf and JSON, and register the schemas themselves.
/// Guarantees: DuckDB reads the same values in the same types.
#[test]
fn what_confluents_serializers_write() -> anyhow::Result<()> {
    // Without them there is nothing to show; tests/setup.sh has said so.
    let Ok(interpreter) = download::confluent() else {
        return Ok(());
    };
    for (format, schema) in [("avro", None), ("protobuf", None), ("json_schema", Some(order_json_schema().to_string()))]
    {
        scenario(&format!("confluent-{format}"), |workspace| {
            let (kafka, registry) = (kafka()?, registry()?);
            let order = json!({"do": format, "folder": workspace.path(), "rows": ROWS, "registry": registry.url(),
                "topic": unique("orders"), "schema": schema});
            run_python_of(&interpreter, "typed_values.py", &order, workspace.path())?;
            let source = format!("  value_format: {format}\n  schema_registry: {{url: \"{}\"}}\n", registry.url());
            let topic = prepare(workspace, kafka, values(workspace)?, &source)?;
            workspace.run(&["run", "pipeline.yaml", "--until-end"], LONG)?.expect(0, &[])?;
            check(workspace, &topic, 0)
        })?;
    }
    Ok(())
}

/// Scenario: JSON behind the number of a schema, whose types say more than the records do.
/// Guarantees: fields have the schema's types: integers in a field of numbers are floats, dates are dates, a field without a value has
/// a column.
#[test]
fn json_with_a_registry() -> anyhow::Result<()> {
    scenario("json-schema", |workspace| {
        let (kafka, registry) = (kafka()?, registry()?);
        let schema = order_json_schema();
        let id = registry.register(&unique("orders"), "JSON", &schema.to_string(), &[])?;
        write(workspace, json!({"do": "json_schema", "ids": [id]}))?;
        let mut all = values(workspace)?;
        let text_as_number = [&[0][..], &id.to_be_bytes(), b"{\"id\": 1, \"amount\": \"x\"}"].concat();
        all.extend([text_as_number, b"{\"id\": 1}".to_vec()]);
        let source = format!("  value_format: json_schema\n  schema_registry: {{url: \"{}\"}}\n", registry.url());
        let topic = prepare(workspace, kafka, all, &source)?;
        workspace.run(&["run", "pipeline.yaml", "--until-end"], LONG)?.expect(0, &[])?;
        check(workspace, &topic, 2)
    })
}

/// Scenario: the registry is away when the program starts, comes, and goes and comes again in the middle.
/// Guarantees: the program waits, says so, and loses nothing.
///
/// The registry comes back empty, and a number that it does not have is a definite answer: until the schemas are registered again, a
/// proxy in front of it tells clients that it is not ready.
#[test]
fn a_registry_that_is_away_is_waited_for() -> anyhow::Result<()> {
    scenario("avro-away", |workspace| {
        let (kafka, registry) = (kafka()?, Registry::start()?);
        write(workspace, json!({"do": "schemas"}))?;
        let proxy = Proxy::start(&registry.endpoint())?;
        let register = |name: &str| registry.register("orders", "AVRO", &schema(workspace, name)?, &[]);
        let ids = [register("order1.avsc")?, register("order2.avsc")?];
        write(workspace, json!({"do": "avro", "ids": ids}))?;
        let come_back = || -> anyhow::Result<()> {
            proxy.set(Mode::Unavailable);
            registry.start_again()?;
            ensure!([register("order1.avsc")?, register("order2.avsc")?] == ids, "other numbers");
            proxy.set(Mode::Pass);
            Ok(())
        };
        registry.kill()?;
        let mut first = values(workspace)?;
        let second = first.split_off(first.len() / 2);
        let url = Registry::url_at(&proxy.endpoint());
        let source = format!("  value_format: avro\n  schema_registry: {{url: \"{url}\"}}\n");
        let topic = prepare(workspace, kafka, first, &source)?;
        let mut process = workspace.start(&["run", "pipeline.yaml"])?;
        process.wait_for_text("does not answer", SHORT)?;
        come_back()?;
        process.wait_for_text("generation committed", SHORT)?;
        registry.kill()?;
        kafka.produce(&topic, records(second))?;
        // So that the second version is asked for while nobody answers.
        thread::sleep(Duration::from_secs(3));
        come_back()?;
        process.stop()?;
        workspace.run(&["run", "pipeline.yaml", "--until-end"], LONG)?.expect(0, &[])?;
        check(workspace, &topic, 0)
    })
}
