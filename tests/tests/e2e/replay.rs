//! Refused records that go through their pipeline once more.

use anyhow::ensure;
use fs_data_sink_tests::{
    lake::{Expected, Lake, Reader},
    program::{Configuration, Workspace, kafka_source, local_sink, s3_sink},
    services::kafka::NewRecord,
};
use serde_json::json;

use crate::shared::{FAIL_POINT, LONG, SHORT, kafka, s3, scenario, unique};

/// Records of the topic, in two partitions.
const RECORDS: u64 = 1_000;

/// What a record says, and its row.
fn record(id: u64) -> (String, String) {
    // Every tenth amount needs more than 32 bits.
    let amount = if id.is_multiple_of(10) { id + 5_000_000_000 } else { id };
    let (partition, offset) = (id % 2, id / 2);
    let row = json!({"_key": null, "_offset": offset, "_partition": partition, "amount": amount, "id": id});
    (json!({"id": id, "amount": amount}).to_string(), row.to_string())
}

/// Whether a record is no JSON and never will be.
fn is_hopeless(id: u64) -> bool {
    id % 100 == 7
}

/// Writes the configuration, with this type of `amount`.
fn configure(workspace: &Workspace, source: &str, sink: &str, amount: &str) -> anyhow::Result<()> {
    let mut configuration = Configuration::new("replayed", source.to_owned(), sink.to_owned());
    "  commit_interval: 1s\n".clone_into(&mut configuration.pipeline);
    configuration.schema = format!(
        "schema:\n  metadata_columns: [partition, offset, key]\n  fields: [{{name: id, type: int64}}, {{name: amount, type: {amount}}}]\n"
    );
    workspace.write("pipeline.yaml", configuration.yaml()).map(drop)
}

/// Feeds the letters through the pipeline, and is ended at a point of the commit.
fn replay_until(workspace: &mut Workspace, point: &str) -> anyhow::Result<()> {
    workspace.set("FS_DATA_SINK_FAIL_POINT", point);
    let ended = workspace.run(&["dead-letter", "replay", "pipeline.yaml"], LONG)?.ended;
    ensure!(ended == FAIL_POINT, "{point} was not met: {ended:?}");
    workspace.set("FS_DATA_SINK_FAIL_POINT", "none");
    Ok(())
}

/// All rows but the hopeless ones are in the lake, once, as they would have been at first.
fn check(workspace: &Workspace, lake: Lake<'_>) -> anyhow::Result<()> {
    let rows = || (0..RECORDS).filter(|id| !is_hopeless(*id)).map(|id| record(id).1);
    let expected = Expected::new(Box::new(move || Box::new(rows())));
    lake.read(Reader::DuckDb, &[], workspace.path())?.compare(&expected)?.expect_exact()?;
    workspace.run(&["ledger", "verify", "pipeline.yaml"], SHORT)?.expect(0, &["the store is as the ledger says"])
}

/// Scenario: a tenth of the records is refused, since a column is too narrow; the column is widened, and the letters are replayed by a
/// command that ends before and after its commit is recorded; on a local folder and on S3.
/// Guarantees: each row is there once, with the partition and offset of its own record; what is refused again is a letter again; one
/// more replay adds no row, and neither does the pipeline.
#[test]
fn dead_letters_are_replayed_exactly_once() -> anyhow::Result<()> {
    for place in ["local", "s3"] {
        scenario(&format!("replay-{place}"), |workspace| {
            let (kafka, s3) = (kafka()?, s3()?);
            let (topic, prefix) = (unique("replayed"), unique("replayed"));
            kafka.create_topic(&topic, 2)?;
            let value = |id: u64| if is_hopeless(id) { format!("no JSON: {id}") } else { record(id).0 };
            kafka.produce(
                &topic,
                (0..RECORDS).map(|id| NewRecord {
                    partition: i32::from(id % 2 == 1),
                    value: Some(value(id).into_bytes()),
                    ..NewRecord::default()
                }),
            )?;
            let folder = workspace.path().join("lake");
            let (lake, sink) = match place {
                "s3" => (Lake::S3(s3, &prefix), s3_sink(s3.access(), &prefix)),
                _ => (Lake::Local(&folder), local_sink(&folder)),
            };
            let source = kafka_source(kafka.bootstrap(), &topic, &unique("replayed"));
            configure(workspace, &source, &sink, "int32")?;
            workspace.run(&["run", "pipeline.yaml", "--until-end"], LONG)?.expect(0, &[])?;
            let shown = workspace.run(&["dead-letter", "show", "pipeline.yaml"], SHORT)?;
            shown.expect(
                0,
                &["pipeline replayed: 110 dead letters in", "decode  number-out-of-range  such as: amount"],
            )?;
            configure(workspace, &source, &sink, "int64")?;
            for point in ["staged", "recorded"] {
                replay_until(workspace, point)?;
            }
            workspace.run(&["dead-letter", "replay", "pipeline.yaml"], LONG)?.expect(0, &[])?;
            check(workspace, lake)?;
            let letters = lake.dead_letters("replayed")?.len();
            ensure!((120..=130).contains(&letters), "{letters} letters");
            workspace.run(&["dead-letter", "replay", "pipeline.yaml"], LONG)?.expect(0, &["records_read=10 "])?;
            workspace.run(&["run", "pipeline.yaml", "--until-end"], LONG)?.expect(0, &[])?;
            check(workspace, lake)
        })?;
    }
    Ok(())
}

/// Scenario: somebody has written into a file of dead letters; a pipeline has none.
/// Guarantees: the line is named, and nothing of the file is replayed before; no letters are no failure.
#[test]
fn damaged_dead_letters_are_named() -> anyhow::Result<()> {
    scenario("replay-damaged", |workspace| {
        workspace.write("in.ndjson", "{\"id\": 1}\n")?;
        let sink = local_sink(&workspace.path().join("lake"));
        configure(workspace, "  type: file\n  paths: [in.ndjson]\n", &sink, "int64")?;
        workspace.run(&["dead-letter", "replay", "pipeline.yaml"], SHORT)?.expect(0, &[])?;
        let name = "dead_letters/20261124T120000Z-l00-g000000-00000000.jsonl";
        workspace.write(&format!("lake/_fs_data_sink/replayed/{name}"), "{\"topic\": \"t\"}\n")?;
        let words = format!("{name}: line 1 is no dead letter of this program");
        workspace.run(&["dead-letter", "replay", "pipeline.yaml"], SHORT)?.expect(1, &[&words])?;
        workspace.run(&["dead-letter", "show", "pipeline.yaml"], SHORT)?.expect(1, &[&words])
    })
}
