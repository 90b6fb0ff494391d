//! Many more directories than files may be open.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::File,
    io::{BufWriter, Write as _},
    path::Path,
    time::{Duration, Instant},
};

use anyhow::{Context as _, ensure};
use fs_data_sink_tests::{
    lake::{Expected, Lake, Reader},
    program::{Configuration, Workspace, finish, local_sink, s3_sink},
    services::process::peak_memory,
};
use serde_json::json;

use crate::shared::{LONG, SHORT, s3, say, scenario, unique};

/// Directories in all.
const DIRECTORIES: u64 = 10_000;

/// Directories in one batch.
const BATCH: u64 = 2_000;

/// Rows of each directory.
const ROUNDS: u64 = 32;

/// `pipeline.memory`.
const MEMORY_BYTES: u64 = 512 << 20;

/// Text of a row, so that all rows together are more than the memory.
fn text(number: u64) -> String {
    format!("{number:016x}").repeat(110)
}

/// The directory of a record: each batch has its own 2,000, and each comes again after five batches.
fn key(number: u64) -> String {
    format!("k{:05}", number % DIRECTORIES)
}

/// Writes the records as lines.
fn write_records(path: &Path, count: u64) -> anyhow::Result<()> {
    let mut file = BufWriter::new(File::create(path)?);
    for number in 0..count {
        writeln!(file, "{}", json!({"id": number, "key": key(number), "text": text(number)}))?;
    }
    file.flush().context("cannot write the records")
}

/// Scenario: 10,000 values of the partition column, 2,000 in each batch, in rows that take more than the memory budget;
/// 256 files may be open.
/// Guarantees: every row arrives once; the process stays within the budget and a quarter; no directory has two files of one
/// commit, and there are no more commits than the memory asks for.
#[test]
fn ten_thousand_directories_in_bounded_memory() -> anyhow::Result<()> {
    scenario("many", |workspace| {
        let folder = workspace.path().join("lake");
        ten_thousand_directories(workspace, &local_sink(&folder), Lake::Local(&folder))
    })
}

/// Scenario: the same into S3, where each file is an upload of its own.
/// Guarantees: the same.
#[test]
#[ignore = "twenty thousand uploads: `make soak`"]
fn ten_thousand_directories_on_s3_in_bounded_memory() -> anyhow::Result<()> {
    scenario("many-s3", |workspace| {
        let (s3, prefix) = (s3()?, unique("many"));
        ten_thousand_directories(workspace, &s3_sink(s3.access(), &prefix), Lake::S3(s3, &prefix))
    })
}

/// Writes all of it to a sink, and looks at memory, files and rows.
fn ten_thousand_directories(workspace: &Workspace, sink: &str, lake: Lake<'_>) -> anyhow::Result<()> {
    let count = DIRECTORIES * ROUNDS;
    write_records(&workspace.path().join("in.ndjson"), count)?;
    let source = format!("  type: file\n  paths: [in.ndjson]\n  batch_size: {BATCH}\n");
    let pipeline = "  commit_interval: 1h\n  open_files_max: 256\n  memory: 512MiB\n  lanes: 1\n".to_owned();
    let sink = format!("{sink}  partition_by: [key]\n");
    let configuration = Configuration { pipeline, ..Configuration::new("many", source, sink) };
    workspace.write("pipeline.yaml", configuration.yaml())?;
    let mut process = workspace.start(&["run", "pipeline.yaml", "--until-end"])?;
    let (began, mut peak) = (Instant::now(), 0);
    while process.ended()?.is_none() && began.elapsed() < LONG {
        peak = peak_memory(process.id()).unwrap_or(peak);
        std::thread::sleep(Duration::from_millis(20));
    }
    let finished = finish(process, SHORT)?;
    finished.expect(0, &[])?;
    let seconds = began.elapsed().as_secs();
    let commits = finished.output.matches("generation committed").count() as u64;
    let files = lake.parquet_files()?;
    say(&format!("many: {count} rows, {} files, {commits} commits, peak {} MiB, {seconds} s", files.len(), peak >> 20));
    ensure!(peak < MEMORY_BYTES / 4 * 5, "{peak} bytes were resident");
    // Rows as Arrow has them, of which a commit can hold four fifths of the memory.
    let bytes = count * (text(0).len() as u64 + 40);
    ensure!(commits <= bytes.div_ceil(MEMORY_BYTES / 4 * 3), "{commits} commits for {bytes} bytes");
    let mut of_commit: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for file in &files {
        let (directory, name) = file.rsplit_once('/').context("a file without a directory")?;
        let generation = name.split('-').find(|part| part.starts_with('g')).context("no generation in a name")?;
        ensure!(of_commit.entry(generation).or_default().insert(directory), "a second file: {file}");
    }
    ensure!(of_commit.values().any(|directories| directories.len() as u64 == DIRECTORIES), "no commit has all");
    ensure!(of_commit.len() as u64 <= commits, "{} generations in names", of_commit.len());
    std::fs::remove_file(workspace.path().join("in.ndjson"))?;
    let row = |number| json!({"id": number, "key": key(number), "text": text(number)}).to_string();
    let expected = Expected::new(Box::new(move || Box::new((0..count).map(row))));
    lake.read(Reader::DuckDb, &["key"], workspace.path())?.compare(&expected)?.expect_exact()?;
    workspace.run(&["ledger", "verify", "pipeline.yaml"], SHORT)?.expect(0, &[])
}
