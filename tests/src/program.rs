//! The real binary as a child process.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Duration,
};

use anyhow::{Context as _, ensure};

use crate::services::{
    folder::TestFolder,
    process::{Ended, Process, Signal},
    s3::S3Access,
};

/// Where `make plugins` puts components.
#[must_use]
pub fn plugin(name: &str) -> PathBuf {
    repository().join("plugins/dist").join(format!("{name}.wasm"))
}

/// The top of the repository.
#[must_use]
pub fn repository() -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.parent().unwrap_or(here).to_owned()
}

/// The binary: `FS_DATA_SINK_BIN`, else the one that cargo put beside this test.
pub fn binary() -> anyhow::Result<PathBuf> {
    let path = if let Some(path) = std::env::var_os("FS_DATA_SINK_BIN") {
        PathBuf::from(path)
    } else {
        let test = std::env::current_exe().context("where this test is")?;
        test.ancestors().nth(2).context("the folder above this test")?.join("fs-data-sink")
    };
    ensure!(path.is_file(), "{} is missing: cargo build -p fs-data-sink, or set FS_DATA_SINK_BIN", path.display());
    Ok(path)
}

/// A folder in which the program runs, with its configuration and its logs.
#[derive(Debug)]
pub struct Workspace {
    /// The folder.
    folder: TestFolder,
    /// Variables for the program, besides the few that every program gets.
    variables: Vec<(String, String)>,
    /// Numbers the logs.
    runs: std::cell::Cell<u32>,
}

/// What a program that ended said.
#[derive(Debug)]
pub struct Finished {
    /// How it ended.
    pub ended: Ended,
    /// Its standard output and error, as they came.
    pub output: String,
}

impl Finished {
    /// Fails unless the exit code is the wanted one and the output has all the words.
    pub fn expect(&self, code: i32, words: &[&str]) -> anyhow::Result<()> {
        ensure!(self.ended == Ended::Code(code), "exit code {code} wanted, got {:?}\n{}", self.ended, self.output);
        for word in words {
            ensure!(self.output.contains(word), "the output lacks {word:?}:\n{}", self.output);
        }
        ensure!(!self.output.contains("panicked at"), "the program panicked:\n{}", self.output);
        Ok(())
    }
}

impl Workspace {
    /// A new, empty one.
    pub fn new(name: &str) -> anyhow::Result<Self> {
        Ok(Self { folder: TestFolder::new(name)?, variables: Vec::new(), runs: std::cell::Cell::new(0) })
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        self.folder.path()
    }

    /// Leaves it on disk, for whoever looks into a failure.
    pub fn keep(&mut self) {
        self.folder.keep();
    }

    /// Sets a variable of the program.
    pub fn set(&mut self, name: &str, value: &str) {
        self.variables.push((name.to_owned(), value.to_owned()));
    }

    /// Writes a file and returns its path.
    pub fn write(&self, name: &str, content: impl AsRef<[u8]>) -> anyhow::Result<PathBuf> {
        let path = self.path().join(name);
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder)?;
        }
        fs::write(&path, content).with_context(|| format!("cannot write {}", path.display()))?;
        Ok(path)
    }

    /// Starts the program.
    pub fn start(&self, arguments: &[&str]) -> anyhow::Result<Process> {
        self.start_with_input(arguments, Stdio::null())
    }

    /// Starts the program with a standard input.
    pub fn start_with_input(&self, arguments: &[&str], input: Stdio) -> anyhow::Result<Process> {
        self.start_command(Command::new(binary()?), arguments, input)
    }

    /// Runs the program to its end under another one, which is given the program as its last argument.
    pub fn run_under(&self, other: &[&str], arguments: &[&str], limit: Duration) -> anyhow::Result<Finished> {
        let (first, rest) = other.split_first().context("no other program")?;
        let mut command = Command::new(first);
        command.args(rest).arg(binary()?);
        finish(self.start_command(command, arguments, Stdio::null())?, limit)
    }

    /// Starts a command in this folder, with the variables of the program.
    fn start_command(&self, mut command: Command, arguments: &[&str], input: Stdio) -> anyhow::Result<Process> {
        command.args(arguments).current_dir(self.path()).env_clear();
        // Only what any program may need: what is set at the desk for servers must not reach a configuration.
        for name in ["PATH", "HOME", "TMPDIR", "LANG", "FS_DATA_SINK_CACHE", "XDG_CACHE_HOME"] {
            if let Some(value) = std::env::var_os(name) {
                command.env(name, value);
            }
        }
        command.envs(self.variables.iter().map(|(name, value)| (name, value)));
        self.runs.set(self.runs.get() + 1);
        let log = self.path().join(format!("program-{}.log", self.runs.get()));
        Process::start_with_input("fs-data-sink", command, &log, input)
    }

    /// Runs the program to its end.
    pub fn run(&self, arguments: &[&str], limit: Duration) -> anyhow::Result<Finished> {
        finish(self.start(arguments)?, limit)
    }
}

/// Waits until a program ends by itself.
pub fn finish(mut process: Process, limit: Duration) -> anyhow::Result<Finished> {
    let ended = process.wait(limit)?;
    Ok(Finished { ended, output: process.log() })
}

/// Sends a signal to a program and waits until it ends.
pub fn end(mut process: Process, signal: Signal, limit: Duration) -> anyhow::Result<Finished> {
    process.ensure_running()?;
    process.signal(signal)?;
    finish(process, limit)
}

/// A pipeline's configuration as YAML, from its sections.
#[derive(Clone, Debug)]
pub struct Configuration {
    /// `name`.
    pub name: String,
    /// `source`, indented by two.
    pub source: String,
    /// `schema`, with its name; may be empty.
    pub schema: String,
    /// `plugins`, with its name; may be empty.
    pub plugins: String,
    /// `sink`, indented by two.
    pub sink: String,
    /// `pipeline`, indented by two.
    pub pipeline: String,
    /// `telemetry`, indented by two.
    pub telemetry: String,
}

impl Configuration {
    /// A pipeline with short commits, logs for people, and no HTTP page.
    #[must_use]
    pub fn new(name: &str, source: String, sink: String) -> Self {
        Self {
            name: name.to_owned(),
            source,
            schema: String::new(),
            plugins: String::new(),
            sink,
            pipeline: "  commit_interval: 1s\n".to_owned(),
            telemetry: "  log_format: text\n  listen: none\n".to_owned(),
        }
    }

    /// The YAML.
    #[must_use]
    pub fn yaml(&self) -> String {
        let Self { name, source, schema, plugins, sink, pipeline, telemetry } = self;
        format!(
            "name: {name}\nsource:\n{source}\n{schema}\n{plugins}\nsink:\n{sink}\npipeline:\n{pipeline}\ntelemetry:\n{telemetry}"
        )
    }

    /// The schema of [`crate::records`] and the two example plugins.
    #[must_use]
    pub fn with_records_schema_and_plugins(mut self) -> Self {
        self.schema = format!(
            "schema:\n  mode: declared\n  metadata_columns: [topic, partition, offset]\n  fields:{}",
            crate::records::SCHEMA_FIELDS
        );
        let kinds = crate::records::KINDS_KEPT.map(|kind| format!("{kind:?}")).join(", ");
        self.plugins = format!(
            "plugins:\n  - name: keep\n    path: {}\n    config: {{column: kind, values: [{kinds}]}}\n  - name: agents\n    path: {}\n    config: {{column: user_agent}}\n",
            plugin("keep_values").display(),
            plugin("parse_user_agent").display()
        );
        self
    }
}

/// `source` for Kafka. A member that was killed is missed after a second and a half.
#[must_use]
pub fn kafka_source(bootstrap: &str, topic: &str, group: &str) -> String {
    format!(
        "  type: kafka
  bootstrap_servers: [\"{bootstrap}\"]
  topics: [\"{topic}\"]
  group_id: {group}
  batch_size: 2000
  extra_config: {{session.timeout.ms: 1500, heartbeat.interval.ms: 300}}
"
    )
}

/// `sink` for S3, partitioned as the records of [`crate::records`] can be.
#[must_use]
pub fn s3_sink(access: &S3Access, prefix: &str) -> String {
    let S3Access { endpoint, bucket, region, key_id, secret } = access;
    format!(
        "  type: s3
  bucket: {bucket}
  prefix: {prefix}
  endpoint_url: {endpoint}
  region_name: {region}
  aws_access_key_id: {key_id}
  aws_secret_access_key: {secret}
"
    )
}

/// `sink` for a local folder.
#[must_use]
pub fn local_sink(folder: &Path) -> String {
    format!("  type: local\n  base_path: {}\n", folder.display())
}

/// `sink` for a folder of an HDFS cluster.
#[must_use]
pub fn hdfs_sink(url: &str, base_path: &str, user: &str) -> String {
    format!("  type: hdfs\n  url: {url}\n  base_path: {base_path}\n  user: {user}\n")
}

/// The directories of the records of [`crate::records`].
pub const PARTITION_BY: &str = "  partition_by: [country, level]\n";
