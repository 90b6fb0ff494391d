//! Every option of the Parquet writer, as pyarrow finds it in the files.

use std::path::Path;

use anyhow::ensure;
use fs_data_sink_tests::{
    lake::run_python,
    program::{Configuration, Workspace, local_sink},
};
use serde_json::json;

use crate::shared::{LONG, scenario};

/// How the files are to be written.
const OPTIONS: &str = "  compression: zstd(5)
  parquet:
    row_group_rows: 4000
    row_group_bytes: 64MiB
    data_page_bytes: 4KiB
    dictionary: true
    statistics: chunk
    bloom_filter: [user.name]
    sort_by: [country desc nulls first, user.name]
    columns:
      id: {dictionary: false, encoding: delta_binary_packed, statistics: page}
      text: {dictionary: false, encoding: delta_byte_array, compression: none, data_page_bytes: 1KiB, statistics: none}
      amount: {dictionary: false, encoding: byte_stream_split, compression: gzip(6)}
";

/// What the rows are.
const SCHEMA: &str = "schema:
  fields:
    - {name: id, type: int64, nullable: false}
    - {name: country, type: string}
    - {name: text, type: string}
    - {name: amount, type: float64}
    - {name: user, type: \"struct<name: string, age: int32>\"}
";

/// Some records, some of them with nulls.
fn lines(count: u64) -> String {
    let line = |id: u64| {
        let country = ["DE", "FR", "IT", "PL", "SE"].get(usize::try_from(id % 6).unwrap_or(9));
        let user = (!id.is_multiple_of(11)).then(
            || json!({"name": (!id.is_multiple_of(7)).then(|| format!("u{}", id * 7919 % 1000)), "age": id % 90}),
        );
        let amount = f64::from(u32::try_from(id).unwrap_or_default()) / 3.0;
        let row = json!({"id": id, "country": country, "text": format!("text {id}").repeat(4), "amount": amount, "user": user});
        row.to_string() + "\n"
    };
    (0..count).map(line).collect()
}

/// Has pyarrow and DuckDB look at the files.
fn look(workspace: &Workspace, files: u64) -> anyhow::Result<()> {
    let order = json!({"lake": workspace.path().join("lake"), "input": workspace.path().join("in.ndjson")});
    let said = run_python("parquet_options.py", &order, workspace.path())?;
    ensure!(said.contains(&format!("{{\"files\": {files}, \"rows\": 20000}}")), "{said}");
    Ok(())
}

/// Scenario: files are written with every option there is, by a process that is ended between its commits; then merged.
/// Guarantees: pyarrow finds codec, encodings, pages, statistics, bloom filters and the order in each row group, both before and
/// after merging, and DuckDB the same rows as in the input.
#[test]
fn every_option_of_the_writer_is_in_the_files() -> anyhow::Result<()> {
    scenario("parquet-options", |workspace| {
        workspace.write("in.ndjson", lines(20_000))?;
        let source = "  type: file\n  paths: [in.ndjson]\n  batch_size: 700\n".to_owned();
        let mut configuration = Configuration::new("options", source, local_sink(Path::new("lake")));
        "  flush_interval_batches: 10\n  lanes: 1\n".clone_into(&mut configuration.pipeline);
        configuration.sink.push_str(OPTIONS);
        let text = format!("{}{SCHEMA}", configuration.yaml());
        workspace.write("pipeline.yaml", text.clone())?;
        crate::shared::run_after_ends_at(workspace, &["recorded", "published"])?;
        look(workspace, 3)?;
        workspace.run(&["compact", "pipeline.yaml", "--all"], LONG)?.expect(0, &[])?;
        look(workspace, 1)?;
        let wrong = text.replace("user.name]\n    columns", "user, ids]\n    columns");
        workspace.write("wrong.yaml", wrong)?;
        workspace.run(&["validate", "wrong.yaml"], LONG)?.expect(
            2,
            &[
                "sink.parquet.sort_by: \"user\" has parts; name one of them: user.name, user.age",
                "sink.parquet.sort_by: the files have no column \"ids\"; did you mean id?",
            ],
        )
    })
}
