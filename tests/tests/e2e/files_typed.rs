//! Files of all kinds, and records of Arrow IPC, written by pyarrow; what became of them is compared by DuckDB.

use std::{
    fs,
    io::{Read as _, Write as _},
    path::Path,
    process::Stdio,
};

use anyhow::{Context as _, ensure};
use fs_data_sink_tests::{
    lake::{Lake, run_python},
    program::{Configuration, Workspace, finish, kafka_source, local_sink},
    services::kafka::NewRecord,
};
use serde_json::json;

use crate::shared::{LONG, kafka, run_after_ends_at, scenario, unique};

/// Has pyarrow write files of a kind into `in/`, and all their rows into `expected.parquet`.
fn write(workspace: &Workspace, kind: &str, rows: u64) -> anyhow::Result<()> {
    let order = json!({"do": "write", "kind": kind, "rows": rows, "folder": workspace.path()});
    run_python("typed_files.py", &order, workspace.path()).map(drop)
}

/// A pipeline from these files to a local folder, with many commits.
fn configure(workspace: &Workspace, name: &str, paths: &str) -> anyhow::Result<()> {
    let source = format!("  type: file\n  paths: [\"{paths}\"]\n  batch_size: 500\n");
    let mut configuration = Configuration::new(name, source, local_sink(Path::new("lake")));
    "  flush_interval_batches: 3\n  lanes: 2\n".clone_into(&mut configuration.pipeline);
    workspace.write("pipeline.yaml", configuration.yaml()).map(drop)
}

/// The lake has exactly the expected rows, with their types, and no dead letter.
fn check(workspace: &Workspace, name: &str, rows: u64) -> anyhow::Result<()> {
    let found = workspace.path().join(format!("lake/{name}/**/*.parquet"));
    let expected = workspace.path().join("expected.parquet");
    let said = run_python(
        "typed_files.py",
        &json!({"do": "compare", "expected": expected, "found": found}),
        workspace.path(),
    )?;
    ensure!(said.contains(&format!("{{\"rows\": {rows}}}")), "{said}");
    let letters = Lake::Local(&workspace.path().join("lake")).dead_letters(name)?;
    ensure!(letters.is_empty(), "{letters:?}");
    Ok(())
}

/// A record of some bytes.
fn record(partition: i32, value: Vec<u8>) -> NewRecord {
    NewRecord { partition, key: None, value: Some(value), headers: Vec::new(), timestamp_ms: None }
}

/// Scenario: one glob finds a Parquet file, an Arrow file, an Arrow stream and a zstd-packed one, of twenty types.
/// Guarantees: DuckDB reads the same rows of the same types as from what pyarrow wrote.
#[test]
fn files_of_mixed_kinds() -> anyhow::Result<()> {
    scenario("files-mixed", |workspace| {
        write(workspace, "mixed", 20_000)?;
        configure(workspace, "mixed", "in/*")?;
        workspace.run(&["run", "pipeline.yaml", "--until-end"], LONG)?.expect(0, &[])?;
        check(workspace, "mixed", 20_000)
    })
}

/// Scenario: a Parquet file of three row groups is read by a process that ends six times in the middle of a commit.
/// Guarantees: under exactly once each row is there once: reading goes on at the recorded row.
#[test]
fn files_of_parquet_go_on_at_their_row() -> anyhow::Result<()> {
    scenario("files-parquet", |workspace| {
        write(workspace, "parquet", 20_000)?;
        configure(workspace, "rows", "in/*.parquet")?;
        run_after_ends_at(workspace, &["staged", "recorded", "published_one", "published", "recorded", "staged"])?;
        check(workspace, "rows", 20_000)
    })
}

/// Scenario: the same with lines in a gzip file of two members that meet in the middle of a line.
/// Guarantees: the same; the schema is inferred.
#[test]
fn files_of_packed_lines_go_on_at_their_line() -> anyhow::Result<()> {
    scenario("files-lines", |workspace| {
        write(workspace, "lines", 20_000)?;
        configure(workspace, "lines", "in/*")?;
        run_after_ends_at(workspace, &["staged", "recorded", "published_one", "published", "recorded", "staged"])?;
        check(workspace, "lines", 20_000)
    })
}

/// Scenario: a packed file is cut in the middle, and read twice.
/// Guarantees: the first run commits the lines before the cut and names it; the second adds nothing; once the file is whole
/// again, each line is there once.
#[test]
fn files_that_are_cut_lose_nothing_before_the_cut() -> anyhow::Result<()> {
    scenario("files-cut", |workspace| {
        write(workspace, "lines", 20_000)?;
        configure(workspace, "cut", "in/*")?;
        let path = workspace.path().join("in/lines.gz");
        let whole = fs::read(&path)?;
        fs::write(&path, &whole[..whole.len() * 2 / 3])?;
        for _ in 0..2 {
            let ended = workspace.run(&["run", "pipeline.yaml"], LONG)?;
            ended.expect(1, &["lines.gz: line 1", "the file cannot be read; the lines before were"])?;
        }
        let before = Lake::Local(&workspace.path().join("lake")).parquet_files()?.len();
        ensure!(before > 3, "{before} files");
        fs::write(&path, whole)?;
        workspace.run(&["run", "pipeline.yaml"], LONG)?.expect(0, &[])?;
        check(workspace, "cut", 20_000)
    })
}

/// Scenario: an Arrow stream, and packed lines, come on standard input.
/// Guarantees: the same rows and types.
#[test]
fn files_on_standard_input() -> anyhow::Result<()> {
    scenario("files-stdin", |workspace| {
        for (kind, file) in [("parquet", ""), ("lines", "in/lines.gz")] {
            write(workspace, kind, 3_000)?;
            let configuration =
                Configuration::new(kind, "  type: file\n  paths: [\"-\"]\n".to_owned(), local_sink(Path::new("lake")));
            workspace.write("pipeline.yaml", configuration.yaml())?;
            let mut bytes = Vec::new();
            if file.is_empty() {
                let order = json!({
                    "do": "records", "records": 1, "rows": 3_000, "folder": workspace.path().join("stream"),
                    "expected": workspace.path().join("expected.parquet"),
                });
                run_python("typed_files.py", &order, workspace.path())?;
                fs::File::open(workspace.path().join("stream/0000.ipc"))?.read_to_end(&mut bytes)?;
            } else {
                fs::File::open(workspace.path().join(file))?.read_to_end(&mut bytes)?;
            }
            let mut process = workspace.start_with_input(&["run", "pipeline.yaml"], Stdio::piped())?;
            let mut input = process.take_input().context("no standard input")?;
            for piece in bytes.chunks(10_000) {
                input.write_all(piece)?;
            }
            drop(input);
            finish(process, LONG)?.expect(0, &[])?;
            check(workspace, kind, 3_000)?;
        }
        Ok(())
    })
}

/// Scenario: a topic whose records are Arrow IPC streams and files of pyarrow, plain and compressed, one of them broken.
/// Guarantees: DuckDB reads the same rows of the same types; the broken record is a dead letter with its bytes.
#[test]
fn files_and_streams_of_arrow_as_records_of_kafka() -> anyhow::Result<()> {
    scenario("arrow-records", |workspace| {
        let order = json!({
            "do": "records", "records": 60, "rows": 3_000, "folder": workspace.path().join("records"),
            "expected": workspace.path().join("expected.parquet"),
        });
        run_python("typed_files.py", &order, workspace.path())?;
        let topic = unique("arrow");
        kafka()?.create_topic(&topic, 3)?;
        let mut records = Vec::new();
        for number in 0..60 {
            let bytes = fs::read(workspace.path().join(format!("records/{number:04}.ipc")))?;
            records.push(record(number % 3, bytes.clone()));
            if number == 31 {
                records.push(record(0, bytes[..bytes.len() / 2].to_vec()));
            }
        }
        kafka()?.produce(&topic, records)?;
        let source = kafka_source(kafka()?.bootstrap(), &topic, &topic) + "  value_format: arrow_ipc\n";
        let configuration = Configuration::new("arrow", source, local_sink(Path::new("lake")));
        workspace.write("pipeline.yaml", configuration.yaml())?;
        workspace.run(&["run", "pipeline.yaml", "--until-end"], LONG)?.expect(0, &[])?;
        let lake = workspace.path().join("lake");
        let letters = Lake::Local(&lake).dead_letters("arrow")?;
        ensure!(letters.len() == 1 && letters[0].reason.1 == "bad-arrow", "{letters:?}");
        let found = lake.join(format!("{topic}/**/*.parquet"));
        let expected = workspace.path().join("expected.parquet");
        let order = json!({"do": "compare", "expected": expected, "found": found});
        let said = run_python("typed_files.py", &order, workspace.path())?;
        ensure!(said.contains("{\"rows\": 3000}"), "{said}");
        Ok(())
    })
}
