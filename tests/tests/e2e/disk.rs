//! A local folder as the sink: a full disk, and what is on the disk when.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, bail, ensure};
use bytes::Bytes;
use fs_data_sink::{
    config::{LocalConfig, MergeConfig, ParquetConfig, SinkConfig, SinkKind},
    store::{Created, Store},
    telemetry::metrics::Metrics,
};
use fs_data_sink_tests::{
    lake::{Expected, Lake, Reader},
    program::{Configuration, Workspace, finish, local_sink},
    services::runtime,
};
use serde_json::{Value, json};

use crate::shared::{LONG, SHORT, say, scenario};

/// Rows of half a kilobyte each that do not compress: twice what the small disk holds.
const ROWS: u64 = 24_000;

/// A row that does not compress well.
fn row(id: u64) -> String {
    let mut state = id.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let words = (0..30).map(|_| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        format!("{state:016x}")
    });
    let text: String = words.collect();
    json!({"id": id, "text": text}).to_string()
}

/// A disk of its own, in memory; it goes away with this value.
struct Disk(PathBuf);

impl Disk {
    /// Mounts one; `None`, with a word, where that is not allowed.
    fn mount(folder: &Path, size: &str) -> anyhow::Result<Option<Self>> {
        fs::create_dir_all(folder)?;
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o"]).arg(format!("size={size}")).arg("tmpfs").arg(folder);
        match mount.output() {
            Ok(answer) if answer.status.success() => Ok(Some(Self(folder.to_owned()))),
            answer => {
                say(&format!("SKIPPED: no disk can be mounted here, so a full one was not tried: {answer:?}"));
                Ok(None)
            }
        }
    }

    /// Makes it larger.
    fn grow(&self, size: &str) -> anyhow::Result<()> {
        let grown = Command::new("mount").args(["-o", &format!("remount,size={size}")]).arg(&self.0).status()?;
        ensure!(grown.success(), "the disk cannot be made larger");
        Ok(())
    }

    /// Fills it to the last byte.
    fn fill(&self) -> anyhow::Result<PathBuf> {
        let path = self.0.join("filler");
        let mut size = 64 << 20;
        let mut filler = vec![0_u8; size];
        while size > 0 {
            use std::io::Write as _;
            let mut file = fs::OpenOptions::new().create(true).append(true).open(&path)?;
            if file.write_all(&filler).is_err() {
                size /= 2;
                filler.truncate(size);
            }
        }
        Ok(path)
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // A folder that stays mounted is told by the folder's own removal.
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

/// Every file below a folder, also those that the program itself does not list.
fn all_files(folder: &Path, found: &mut Vec<PathBuf>) -> anyhow::Result<()> {
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() {
            all_files(&path, found)?;
        } else {
            found.push(path);
        }
    }
    Ok(())
}

/// Whether every row is there once, the ledger agrees, and no file but those that are staged lies about.
fn compare(workspace: &Workspace, lake: &Path) -> anyhow::Result<()> {
    let seen = Lake::Local(lake).read(Reader::DuckDb, &[], workspace.path())?;
    let expected = Expected::new(Box::new(|| Box::new((0..ROWS).map(row))));
    seen.compare(&expected)?.expect_exact()?;
    workspace.run(&["ledger", "verify", "pipeline.yaml"], SHORT)?.expect(0, &["the store is as the ledger says"])?;
    ensure_nothing_left(lake, "#")
}

/// Whether no file has these words in its name.
fn ensure_nothing_left(lake: &Path, words: &str) -> anyhow::Result<()> {
    let mut files = Vec::new();
    all_files(lake, &mut files)?;
    files.retain(|file| file.to_string_lossy().contains(words));
    ensure!(files.is_empty(), "left behind: {files:?}");
    Ok(())
}

/// Writes what is read, and the configuration.
fn configure(workspace: &Workspace, lake: &Path, retry_timeout: &str) -> anyhow::Result<()> {
    let text: String = (0..ROWS).map(|id| row(id) + "\n").collect();
    workspace.write("in/rows.ndjson", text)?;
    let sink = local_sink(lake) + &format!("  compression: none\n  retry_timeout: {retry_timeout}\n");
    let source = "  type: file\n  paths: [\"in/rows.ndjson\"]\n  batch_size: 500\n".to_owned();
    let pipeline = "  commit_interval: 10s\n  flush_interval_batches: 2\n".to_owned();
    let configuration = Configuration { pipeline, ..Configuration::new("full", source, sink) };
    workspace.write("pipeline.yaml", configuration.yaml())?;
    Ok(())
}

/// Scenario: the disk fills up in the middle of a run, and is made larger while the program waits.
/// Guarantees: the program says what is wrong and where, goes on by itself, and every row is there exactly once.
#[test]
fn a_full_disk_is_waited_for() -> anyhow::Result<()> {
    scenario("full-disk", |workspace| {
        let lake = workspace.path().join("lake");
        let Some(disk) = Disk::mount(&lake, "6m")? else { return Ok(()) };
        configure(workspace, &lake, "5m")?;
        let mut process = workspace.start(&["run", "pipeline.yaml", "--until-end"])?;
        process.wait_for_text("No space left on device", SHORT)?;
        process.ensure_running()?;
        let said = process.log();
        let place = format!("{}", lake.display());
        ensure!(said.lines().any(|line| line.contains("No space left") && line.contains(&place)), "no place: {said}");
        disk.grow("64m")?;
        finish(process, LONG)?.expect(0, &[])?;
        compare(workspace, &lake)?;
        ensure_nothing_left(&lake, "/staging/")
    })
}

/// Scenario: the disk stays full for longer than `retry_timeout`; then the program is started again on a larger one.
/// Guarantees: it ends with exit 1 and the reason; the next run completes, every row exactly once.
#[test]
fn a_disk_that_stays_full_ends_the_run() -> anyhow::Result<()> {
    scenario("stays-full", |workspace| {
        let lake = workspace.path().join("lake");
        let Some(disk) = Disk::mount(&lake, "6m")? else { return Ok(()) };
        configure(workspace, &lake, "2s")?;
        let ended = workspace.run(&["run", "pipeline.yaml", "--until-end"], SHORT)?;
        ended.expect(1, &["the disk is full", &lake.display().to_string()])?;
        disk.grow("64m")?;
        workspace.run(&["run", "pipeline.yaml", "--until-end"], LONG)?.expect(0, &[])?;
        // What the first run had staged is removed when it is a day old.
        compare(workspace, &lake)
    })
}

/// Scenario: the disk is full to the last byte when a record of the ledger is to be created, and when a file is staged.
/// Guarantees: there is no record then, whole or in part, and nothing that takes its place; with room there is one.
#[test]
fn a_full_disk_leaves_no_part_of_a_record() -> anyhow::Result<()> {
    scenario("full-record", |workspace| {
        let lake = workspace.path().join("lake");
        let Some(disk) = Disk::mount(&lake, "2m")? else { return Ok(()) };
        let sink = SinkConfig {
            kind: SinkKind::Local(LocalConfig { base_path: lake.clone() }),
            partition_by: Vec::new(),
            keep_partition_columns: false,
            parquet: ParquetConfig::default(),
            retry_timeout: std::time::Duration::from_secs(1),
            merge: MergeConfig::default(),
        };
        runtime()?.block_on(async {
            let handle = tokio::runtime::Handle::current();
            let store =
                Store::open(&sink, "full", Metrics::detached(), handle, &fs_data_sink::store::HttpClients::default())
                    .map_err(|error| anyhow::anyhow!(error.full_message()))?;
            let error = |error: fs_data_sink::error::PipelineError| anyhow::anyhow!(error.full_message());
            let (first, second) = (store.own_name("ledger/1.json"), store.own_name("ledger/2.json"));
            let record = Bytes::from(vec![b'x'; 10_000]);
            ensure!(matches!(store.create(&first, record.clone()).await.map_err(error)?, Created::New));
            let filler = disk.fill()?;
            match store.create(&second, record.clone()).await.map_err(error)? {
                Created::Unknown(error) => {
                    ensure!(error.full_message().contains("the disk is full"), "{}", error.full_message());
                }
                other => bail!("a record was created on a full disk: {other:?}"),
            }
            ensure!(store.read(&second).await.map_err(error)?.is_none(), "a part of a record is there");
            ensure!(store.list(&store.own_name("ledger")).await.map_err(error)?.len() == 1, "something else is listed");
            let mut files = Vec::new();
            all_files(&lake, &mut files)?;
            ensure!(files.len() == 2, "left behind: {files:?}");
            fs::remove_file(filler)?;
            ensure!(matches!(store.create(&second, record.clone()).await.map_err(error)?, Created::New));
            ensure!(store.read(&second).await.map_err(error)? == Some(record), "the record is not what was created");
            Ok(())
        })
    })
}

/// What the operating system was asked, in order.
#[derive(Debug)]
enum Asked {
    /// A file or a folder is on the disk now.
    Synced(String),
    /// A name is about to be given to a file.
    Linked(String, String),
}

/// Reads what strace wrote: requests of several threads, some in two lines.
fn asked(trace: &str) -> Vec<Asked> {
    let mut begun: BTreeMap<&str, &str> = BTreeMap::new();
    let mut asked = Vec::new();
    for line in trace.lines() {
        let Some((thread, words)) = line.split_once(' ') else { continue };
        let words = words.trim_start();
        let (call, is_begin) = match words.split_once(" <unfinished") {
            Some((call, _)) => (call, true),
            None => (words, false),
        };
        if is_begin {
            begun.insert(thread, call);
        }
        let is_end = words.starts_with("<...");
        let call = if is_end { begun.remove(thread).unwrap_or_default() } else { call };
        let quoted: Vec<&str> = call.split('"').skip(1).step_by(2).collect();
        // A name counts from the begin of its request, the disk from the end.
        match (call.split('(').next(), quoted.as_slice()) {
            (Some("linkat" | "link"), [from, to]) if !is_end => {
                asked.push(Asked::Linked((*from).to_owned(), (*to).to_owned()));
            }
            (Some("fsync" | "fdatasync"), _) if !is_begin && words.ends_with("= 0") => {
                let path = call.split_once('<').and_then(|(_, rest)| rest.split_once('>')).map(|(path, _)| path);
                asked.extend(path.map(|path| Asked::Synced(path.to_owned())));
            }
            _ => {}
        }
    }
    asked
}

/// Scenario: a run into a local folder, seen by strace.
/// Guarantees: when a record of the ledger gets its name, its bytes are on the disk, and so are the bytes and the name of each
/// file that it tells of; and the names of records and of visible files are brought to the disk as well.
#[test]
fn everything_is_on_the_disk_before_the_record() -> anyhow::Result<()> {
    if Command::new("strace").arg("-V").output().is_err() {
        say("SKIPPED: no strace here, so the order of requests to the disk was not looked at");
        return Ok(());
    }
    scenario("fsync", |workspace| {
        let lake = workspace.path().join("lake");
        configure(workspace, &lake, "5m")?;
        let trace = workspace.path().join("trace");
        let calls = "trace=fsync,fdatasync,link,linkat";
        let strace = ["strace", "-f", "-qq", "-y", "-s", "1000", "-e", calls, "-o", &trace.to_string_lossy()];
        workspace.run_under(&strace, &["run", "pipeline.yaml", "--until-end"], LONG)?.expect(0, &[])?;
        let lake = lake.canonicalize()?;
        let (mut synced, mut records, mut files) = (BTreeSet::new(), 0, 0);
        let mut to_sync: Vec<String> = Vec::new();
        let asked = asked(&fs::read_to_string(&trace)?);
        for step in &asked {
            match step {
                Asked::Synced(path) => {
                    to_sync.retain(|folder| folder != path);
                    synced.insert(path.clone());
                }
                // The second of the two of the probe is refused.
                Asked::Linked(_, to) if to.contains("/probe/") => {}
                Asked::Linked(from, to) => {
                    ensure!(synced.contains(from), "{from} became {to} before its bytes were on the disk");
                    let folder = Path::new(to).parent().context("no folder")?;
                    to_sync.push(folder.display().to_string());
                    if !to.contains("/ledger/") {
                        files += usize::from(to.ends_with(".parquet"));
                        continue;
                    }
                    // Few enough that none of them is deleted behind a snapshot.
                    let record: Value = serde_json::from_slice(&fs::read(to).with_context(|| to.clone())?)?;
                    records += 1;
                    for file in record["files"].as_array().into_iter().flatten() {
                        let staged = lake.join(file["staged"]["file"].as_str().context("no staged file")?);
                        for path in [staged.as_path(), staged.parent().context("no folder")?] {
                            let path = path.display().to_string();
                            ensure!(synced.contains(&path), "{to} tells of {path}, which was not on the disk");
                        }
                    }
                }
            }
        }
        ensure!(to_sync.is_empty(), "names that were not brought to the disk: {to_sync:?}");
        ensure!(records >= 24 && files >= 24, "{records} records and {files} files: the trace was not understood");
        let count = asked.iter().filter(|step| matches!(step, Asked::Synced(_))).count();
        say(&format!("fsync: {records} records and {files} files took {count} fsyncs"));
        compare(workspace, &lake)?;
        ensure_nothing_left(&lake, "/staging/")
    })
}
