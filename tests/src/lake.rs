//! What was written, seen by others: DuckDB, pyarrow, and plain listings.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    fs::{self, File},
    hash::{DefaultHasher, Hash as _, Hasher as _},
    io::{BufRead as _, BufReader},
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context as _, ensure};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde_json::{Value, json};

use crate::{
    program::repository,
    records::Records,
    services::{
        download,
        hdfs::{Hdfs, Way, superuser},
        hdfs_secure::HdfsSecure,
        process::{Ended, Process, Signal},
        s3::S3,
    },
};

/// A reader makes tens of thousands of rows and some hundred files a second; half an hour is far beyond the largest test,
/// which is `make soak`.
const READ_LIMIT: std::time::Duration = std::time::Duration::from_mins(30);

/// How many rows of a difference are shown.
const SAMPLES_MAX: usize = 3;

/// Where a sink wrote to.
#[derive(Clone, Copy, Debug)]
pub enum Lake<'a> {
    /// A folder.
    Local(&'a Path),
    /// A prefix in a bucket.
    S3(&'a S3, &'a str),
    /// A folder of HDFS, seen by its REST interface.
    Hdfs(&'a Hdfs, &'a str),
    /// The same of a cluster with two namenodes: only for reading at the end, through this REST interface.
    HdfsAt(&'a str, &'a str),
    /// The same of a cluster with Kerberos, by HTTPS and with a token.
    HdfsSecure(&'a HdfsSecure, &'a str),
}

/// A program that is not ours and reads Parquet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reader {
    /// DuckDB.
    DuckDb,
    /// pyarrow.
    PyArrow,
}

impl Reader {
    /// Its name.
    fn as_str(self) -> &'static str {
        match self {
            Self::DuckDb => "duckdb",
            Self::PyArrow => "pyarrow",
        }
    }
}

/// What a reader saw.
#[derive(Debug)]
pub struct Seen {
    /// Column by column, as the reader names types; partition columns are text.
    pub types: BTreeMap<String, String>,
    /// Number of files.
    pub files: u64,
    /// One canonical line a row.
    pub rows: PathBuf,
}

/// Where expected rows come from, as often as they are asked for.
type Rows = Box<dyn Fn() -> Box<dyn Iterator<Item = String>>>;

/// The rows that should be there, as a multiset.
pub struct Expected {
    /// How often each.
    counts: HashMap<u128, u32>,
    /// All of them, once more.
    rows: Rows,
}

impl std::fmt::Debug for Expected {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "Expected({} different rows)", self.counts.len())
    }
}

impl Expected {
    /// The rows that the records up to a number must become.
    #[must_use]
    pub fn of_records(records: &Records, count: u64) -> Self {
        let records = records.clone();
        Self::new(Box::new(move || {
            let records = records.clone();
            Box::new((0..count).filter_map(move |number| records.expected_row(number)))
        }))
    }

    /// Rows from anywhere.
    #[must_use]
    pub fn new(rows: Rows) -> Self {
        let mut counts = HashMap::new();
        for row in rows() {
            *counts.entry(fingerprint(&row)).or_default() += 1;
        }
        Self { counts, rows }
    }

    /// How many rows.
    #[must_use]
    pub fn rows(&self) -> u64 {
        self.counts.values().map(|count| u64::from(*count)).sum()
    }
}

/// How the rows that are there differ from those that should be.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Difference {
    /// Rows that are there and should be.
    pub right: u64,
    /// Rows that should be there and are not.
    pub missing: u64,
    /// Rows that are there and should not be.
    pub unexpected: u64,
    /// Rows that are there more often than they should be.
    pub doubled: u64,
    /// Some of the missing and unexpected ones.
    pub samples: Vec<String>,
}

/// A line of a dead-letter file.
#[derive(Clone, Debug)]
pub struct DeadLetter {
    /// All of it.
    pub line: Value,
    /// `topic`, `partition`, `offset`.
    pub position: (String, i32, i64),
    /// The original bytes.
    pub value: Option<Vec<u8>>,
    /// `stage`, `code`.
    pub reason: (String, String),
}

impl Lake<'_> {
    /// As the Python programs are told it.
    fn to_json(self) -> Value {
        match self {
            Lake::Local(folder) => json!({"folder": folder}),
            Lake::S3(s3, prefix) => {
                let access = s3.access();
                json!({
                    "endpoint": access.endpoint, "region": access.region, "key_id": access.key_id,
                    "secret": access.secret, "bucket": access.bucket, "prefix": prefix,
                })
            }
            Lake::Hdfs(hdfs, folder) => Lake::HdfsAt(&hdfs.url(Way::Web), folder).to_json(),
            Lake::HdfsAt(url, folder) => {
                json!({"webhdfs": url, "who": format!("user.name={}", superuser()), "base_path": folder})
            }
            Lake::HdfsSecure(hdfs, folder) => json!({
                "webhdfs": hdfs.web_url(), "who": format!("delegation={}", hdfs.token()), "ca_file": hdfs.ca_file(),
                "base_path": folder,
            }),
        }
    }

    /// Every file and object, relative to the root, sorted.
    pub fn list(self) -> anyhow::Result<Vec<String>> {
        match self {
            Lake::Local(folder) => {
                let mut names = Vec::new();
                walk(folder, folder, &mut names)?;
                names.sort();
                Ok(names)
            }
            Lake::S3(s3, prefix) => {
                let strip = |key: String| key.strip_prefix(prefix).map(|rest| rest.trim_start_matches('/').to_owned());
                Ok(s3.list(prefix)?.into_iter().filter_map(strip).collect())
            }
            Lake::Hdfs(hdfs, folder) => Ok(hdfs.list(folder)?.into_iter().map(|(name, _)| name).collect()),
            Lake::HdfsAt(..) | Lake::HdfsSecure(..) => anyhow::bail!("nobody lists this cluster"),
        }
    }

    /// The bytes of a file.
    pub fn get(self, name: &str) -> anyhow::Result<Vec<u8>> {
        match self {
            Lake::Local(folder) => fs::read(folder.join(name)).with_context(|| format!("cannot read {name}")),
            Lake::S3(s3, prefix) => s3.get(&format!("{prefix}/{name}")),
            Lake::Hdfs(hdfs, folder) => hdfs.read(&format!("{folder}/{name}")),
            Lake::HdfsAt(..) | Lake::HdfsSecure(..) => anyhow::bail!("nobody reads {name} of this cluster one by one"),
        }
    }

    /// The visible Parquet files.
    pub fn parquet_files(self) -> anyhow::Result<Vec<String>> {
        Ok(self.list()?.into_iter().filter(|name| is_parquet(name)).collect())
    }

    /// Reads all `**/*.parquet`; the rows go to a file in `scratch`.
    pub fn read(self, reader: Reader, partition_columns: &[&str], scratch: &Path) -> anyhow::Result<Seen> {
        let rows = scratch.join(format!("rows-{}.jsonl", reader.as_str()));
        let order = json!({
            "lake": self.to_json(), "reader": reader.as_str(), "partition_columns": partition_columns, "rows": rows,
        });
        let log = scratch.join(format!("read-{}.log", reader.as_str()));
        let mut process = python("read_back.py", &order, &log)?;
        let ended = process.wait(READ_LIMIT)?;
        ensure!(ended == Ended::Code(0), "{reader:?} does not read what was written\n{}", process.log_tail());
        let output = process.log();
        let last = output.lines().last().context("read_back.py said nothing")?;
        let summary: Value = serde_json::from_str(last).with_context(|| format!("read_back.py said {last:?}"))?;
        let types = summary.get("types").and_then(Value::as_object).context("no types")?;
        let types = types.iter().map(|(name, kind)| (name.clone(), kind.as_str().unwrap_or_default().to_owned()));
        let files = summary.get("files").and_then(Value::as_u64).context("no number of files")?;
        Ok(Seen { types: types.collect(), files, rows })
    }

    /// All dead letters of a pipeline.
    pub fn dead_letters(self, pipeline: &str) -> anyhow::Result<Vec<DeadLetter>> {
        let folder = format!("_fs_data_sink/{pipeline}/dead_letters/");
        let mut letters = Vec::new();
        for name in self.list()?.iter().filter(|name| name.starts_with(&folder)) {
            let extension = Path::new(name).extension();
            ensure!(extension.is_some_and(|it| it == "jsonl"), "a dead-letter file with a strange name: {name}");
            let text = String::from_utf8(self.get(name)?).with_context(|| format!("{name} is not text"))?;
            for line in text.lines() {
                letters.push(dead_letter(line).with_context(|| format!("{name}: {line}"))?);
            }
        }
        Ok(letters)
    }

    /// Starts a process that lists and opens every Parquet file again and again until it is stopped; with `once` it also
    /// looks for records in two files.
    pub fn observe(self, once: bool, scratch: &Path) -> anyhow::Result<Observer> {
        let log = scratch.join("observer.log");
        let mut process = python("observer.py", &json!({"lake": self.to_json(), "once": once}), &log)?;
        process.wait_for_text("observing", std::time::Duration::from_mins(1))?;
        Ok(Observer { process })
    }
}

/// A second process that looks at everything all the time.
#[derive(Debug)]
pub struct Observer {
    /// The process.
    process: Process,
}

impl Observer {
    /// Ends it: how often it looked, and how many files it opened. Fails if one was wrong.
    pub fn finish(mut self) -> anyhow::Result<(u64, u64)> {
        self.process.ensure_running()?;
        self.process.signal(Signal::Terminate)?;
        let ended = self.process.wait(std::time::Duration::from_mins(1))?;
        let output = self.process.log();
        ensure!(ended == Ended::Code(0), "the observer failed\n{}", self.process.log_tail());
        let summary: Value = serde_json::from_str(output.lines().last().context("the observer said nothing")?)?;
        let failures = summary.get("failures").and_then(Value::as_array).context("no failures")?;
        ensure!(failures.is_empty(), "what was visible was wrong: {failures:#?}");
        let number = |name: &str| summary.get(name).and_then(Value::as_u64).with_context(|| format!("no {name}"));
        Ok((number("looks")?, number("opened")?))
    }
}

impl Seen {
    /// How many rows there are, where each differs from the others.
    pub fn distinct_rows(&self) -> anyhow::Result<usize> {
        let text = fs::read_to_string(&self.rows)?;
        let different: BTreeSet<_> = text.lines().collect();
        ensure!(different.len() == text.lines().count(), "a row is there twice");
        Ok(different.len())
    }

    /// Compares the rows with those that should be there, as multisets.
    pub fn compare(&self, expected: &Expected) -> anyhow::Result<Difference> {
        let mut counts = expected.counts.clone();
        let mut difference = Difference::default();
        let rows = File::open(&self.rows).with_context(|| format!("cannot open {}", self.rows.display()))?;
        for row in BufReader::new(rows).lines() {
            let row = row?;
            match counts.get_mut(&fingerprint(&row)) {
                None => {
                    difference.unexpected += 1;
                    difference.sample("unexpected", &row);
                }
                Some(0) => difference.doubled += 1,
                Some(left) => {
                    *left -= 1;
                    difference.right += 1;
                }
            }
        }
        difference.missing = counts.values().map(|left| u64::from(*left)).sum();
        let lost = |row: &String| counts.get(&fingerprint(row)).is_some_and(|left| *left > 0);
        if difference.missing > 0 {
            (expected.rows)().filter(lost).take(SAMPLES_MAX).for_each(|row| difference.sample("missing", &row));
        }
        Ok(difference)
    }

    /// Fails unless each column has the type that it should have, and there is no other column.
    pub fn expect_types(&self, wanted: &[(&str, &str)]) -> anyhow::Result<()> {
        let wanted: BTreeMap<String, String> =
            wanted.iter().map(|(name, kind)| ((*name).to_owned(), (*kind).to_owned())).collect();
        ensure!(self.types == wanted, "the types differ\n is: {:#?}\nwanted: {wanted:#?}", self.types);
        Ok(())
    }
}

impl Difference {
    /// Keeps a row for the message.
    fn sample(&mut self, what: &str, row: &str) {
        if self.samples.iter().filter(|sample| sample.starts_with(what)).count() < SAMPLES_MAX {
            self.samples.push(format!("{what}: {row}"));
        }
    }

    /// Fails unless exactly the wanted rows are there.
    pub fn expect_exact(&self) -> anyhow::Result<()> {
        self.expect_none_lost()?;
        ensure!(self.doubled == 0, "{} rows are there more often than they should be", self.doubled);
        Ok(())
    }

    /// Fails unless every wanted row is there, and no other; more than once is allowed.
    pub fn expect_none_lost(&self) -> anyhow::Result<()> {
        let Self { right, missing, unexpected, doubled, samples } = self;
        ensure!(
            *missing == 0 && *unexpected == 0,
            "{right} rows right, {missing} missing, {unexpected} unexpected, {doubled} doubled\n{}",
            samples.join("\n")
        );
        Ok(())
    }
}

/// 128 bits of a row: a clash among a million rows is out of reach.
fn fingerprint(row: &str) -> u128 {
    let half = |salt: u8| {
        let mut hasher = DefaultHasher::new();
        (salt, row).hash(&mut hasher);
        u128::from(hasher.finish())
    };
    (half(1) << 64) | half(2)
}

/// Runs one of the Python programs; what it says goes to the log.
pub(crate) fn python(program: &str, order: &Value, log: &Path) -> anyhow::Result<Process> {
    start_python(&download::python()?, program, order, log)
}

/// The same by any interpreter.
fn start_python(interpreter: &Path, program: &str, order: &Value, log: &Path) -> anyhow::Result<Process> {
    let mut command = Command::new(interpreter);
    command.arg(repository().join("tests/python").join(program)).arg(order.to_string());
    command.env("PYTHONDONTWRITEBYTECODE", "1").env("AWS_EC2_METADATA_DISABLED", "true");
    Process::start_with_input(program, command, log, Stdio::null())
}

/// Has a Python program do what it is told, to its end; what it said.
pub fn run_python(program: &str, order: &Value, scratch: &Path) -> anyhow::Result<String> {
    run_python_of(&download::python()?, program, order, scratch)
}

/// The same by another interpreter than the one of all readers.
pub fn run_python_of(interpreter: &Path, program: &str, order: &Value, scratch: &Path) -> anyhow::Result<String> {
    let mut process = start_python(interpreter, program, order, &scratch.join(format!("{program}.log")))?;
    let ended = process.wait(READ_LIMIT)?;
    ensure!(ended == Ended::Code(0), "{program} failed\n{}", process.log_tail());
    Ok(process.log())
}

/// Whether readers of the lake take it for data.
fn is_parquet(name: &str) -> bool {
    Path::new(name).extension().is_some_and(|extension| extension == "parquet")
}

/// All files below a folder, relative to a root.
fn walk(root: &Path, folder: &Path, names: &mut Vec<String>) -> anyhow::Result<()> {
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error).with_context(|| format!("cannot list {}", folder.display())),
    };
    for entry in entries {
        let path = entry?.path();
        if path.is_dir() {
            walk(root, &path, names)?;
        } else {
            names.push(path.strip_prefix(root)?.to_string_lossy().into_owned());
        }
    }
    Ok(())
}

/// A line of a dead-letter file.
fn dead_letter(line: &str) -> anyhow::Result<DeadLetter> {
    let line: Value = serde_json::from_str(line)?;
    let text = |name: &str| line.get(name).and_then(Value::as_str).map(str::to_owned);
    let number = |name: &str| line.get(name).and_then(Value::as_i64);
    let value = text("value").map(|value| STANDARD.decode(value)).transpose()?;
    let position = (
        text("topic").context("no topic")?,
        number("partition").context("no partition")?.try_into()?,
        number("offset").context("no offset")?,
    );
    let reason = (text("stage").context("no stage")?, text("code").context("no code")?);
    ensure!(text("message").is_some_and(|message| !message.is_empty()), "no message");
    ensure!(text("time").is_some(), "no time");
    Ok(DeadLetter { line, position, value, reason })
}
