//! Files and standard input instead of a broker.

use std::{io::Write as _, process::Stdio};

use anyhow::{Context as _, ensure};
use fs_data_sink_tests::{
    lake::{Expected, Lake, Reader},
    program::{Configuration, Workspace, finish, local_sink},
};
use serde_json::json;

use crate::shared::{LONG, scenario};

/// Record `number`, and its row.
fn line(number: u64) -> (String, String) {
    let kind = if number.is_multiple_of(3) { "drei ü" } else { "x" };
    let written = json!({"id": number, "kind": kind, "items": [number, null]});
    let row = json!({"id": number, "items": [number, null], "kind": kind});
    (written.to_string() + "\n", row.to_string())
}

/// The text of some records.
fn lines(numbers: std::ops::Range<u64>) -> String {
    numbers.map(|number| line(number).0).collect()
}

/// The lake has exactly the rows of these records, in the dataset named after the pipeline.
fn check(workspace: &Workspace, name: &str, count: u64) -> anyhow::Result<()> {
    let folder = workspace.path().join("lake");
    let lake = Lake::Local(&folder);
    let files = lake.parquet_files()?;
    let home = format!("{name}/kind=");
    ensure!(files.iter().all(|file| file.starts_with(&home)), "files outside {home}: {files:?}");
    let expected = Expected::new(Box::new(move || Box::new((0..count).map(|number| line(number).1))));
    for reader in [Reader::DuckDb, Reader::PyArrow] {
        let seen = lake.read(reader, &["kind"], workspace.path())?;
        seen.compare(&expected)?.expect_exact().with_context(|| format!("as {reader:?} reads it"))?;
    }
    let letters = lake.dead_letters(name)?;
    ensure!(
        letters.len() == 1 && letters.iter().all(|letter| letter.value.as_deref() == Some(b"not json")),
        "{letters:?}"
    );
    Ok(())
}

/// Scenario: two files found by a glob, without a schema, one bad line among them.
/// Guarantees: the schema is inferred, every row arrives once, the bad line is a dead letter, the process ends by itself.
#[test]
fn files_by_a_glob() -> anyhow::Result<()> {
    scenario("files", |workspace| {
        workspace.write("in/a.ndjson", lines(0..1_000) + "not json\n")?;
        workspace.write("in/b.ndjson", lines(1_000..3_000))?;
        let sink = local_sink(std::path::Path::new("lake")) + "  partition_by: [kind]\n";
        let source = "  type: file\n  paths: [\"in/*.ndjson\"]\n".to_owned();
        workspace.write("pipeline.yaml", Configuration::new("notes", source, sink).yaml())?;
        workspace.run(&["pipeline.yaml"], LONG)?.expect(0, &[])?;
        check(workspace, "notes", 3_000)
    })
}

/// Scenario: records come on standard input, which then ends.
/// Guarantees: every row arrives once, and the process ends by itself.
#[test]
fn standard_input() -> anyhow::Result<()> {
    scenario("stdin", |workspace| {
        let sink = local_sink(std::path::Path::new("lake")) + "  partition_by: [kind]\n";
        let source = "  type: file\n  paths: [\"-\"]\n".to_owned();
        workspace.write("pipeline.yaml", Configuration::new("piped", source, sink).yaml())?;
        let mut process = workspace.start_with_input(&["run", "pipeline.yaml"], Stdio::piped())?;
        let mut input = process.take_input().context("no standard input")?;
        input.write_all((lines(0..500) + "not json\n").as_bytes())?;
        input.write_all(lines(500..2_000).as_bytes())?;
        drop(input);
        finish(process, LONG)?.expect(0, &[])?;
        check(workspace, "piped", 2_000)
    })
}
