//! A real HDFS, one namenode and one datanode, and what tests ask of it.

use std::{
    fmt::Write as _,
    fs,
    path::Path,
    process::Command,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use anyhow::{Context as _, ensure};
use fs_data_sink::{
    config::{HdfsConfig, HdfsProtocol, MergeConfig, ParquetConfig, SinkConfig, SinkKind},
    store::Store,
    telemetry::metrics::Metrics,
};
use serde_json::Value;

use super::{
    download,
    folder::TestFolder,
    free_port,
    process::{Ended, Process},
    runtime,
};
use crate::{
    http,
    wait::{self, Look},
};

/// The JVM: small, and fast to start rather than fast in an hour. The two packages are opened for WebHDFS.
pub(super) const JVM: [&str; 7] = [
    "-Xmx128m",
    "-XX:+UseSerialGC",
    "-XX:TieredStopAtLevel=1",
    "-Xss512k",
    "-Djava.net.preferIPv4Stack=true",
    "--add-opens=java.base/java.lang=ALL-UNNAMED",
    "--add-opens=java.base/java.util=ALL-UNNAMED",
];

/// A JVM start on a busy machine.
pub(super) const START_LIMIT: Duration = Duration::from_secs(90);

/// One request to servers that run.
const REQUEST_LIMIT: Duration = Duration::from_secs(60);

/// Warnings and errors only.
const LOG_SETTINGS: &str = "log4j.rootLogger=WARN,c
log4j.appender.c=org.apache.log4j.ConsoleAppender
log4j.appender.c.layout=org.apache.log4j.PatternLayout
log4j.appender.c.layout.ConversionPattern=%d{ISO8601} %p %c{1}: %m%n
";

/// Main class of the namenode.
pub(super) const NAMENODE: &str = "org.apache.hadoop.hdfs.server.namenode.NameNode";

/// Main class of the datanode.
pub(super) const DATANODE: &str = "org.apache.hadoop.hdfs.server.datanode.DataNode";

/// One of the two servers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Daemon {
    /// Knows the names.
    NameNode,
    /// Has the bytes.
    DataNode,
}

impl Daemon {
    /// Name of its log and its process.
    fn as_str(self) -> &'static str {
        match self {
            Self::NameNode => "namenode",
            Self::DataNode => "datanode",
        }
    }

    /// Its main class.
    fn class(self) -> &'static str {
        match self {
            Self::NameNode => NAMENODE,
            Self::DataNode => DATANODE,
        }
    }
}

/// Which way into HDFS.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// Hadoop's RPC.
    Native,
    /// The REST interface.
    Web,
}

/// A cluster of ours.
#[derive(Debug)]
pub struct Hdfs {
    /// Data, settings, logs.
    folder: Mutex<TestFolder>,
    /// Port of the RPC.
    rpc_port: u16,
    /// Port of WebHDFS.
    web_port: u16,
    /// The JVMs; `None` while one is stopped.
    daemons: [Mutex<Option<Process>>; 2],
}

impl Hdfs {
    /// Starts a cluster and waits until it takes files.
    pub fn start() -> anyhow::Result<Self> {
        let folder = TestFolder::new("hdfs")?;
        let (rpc_port, web_port) = (free_port()?, free_port()?);
        let own = [
            ("dfs.namenode.name.dir", at(folder.path(), "names")),
            ("dfs.namenode.http-address", format!("127.0.0.1:{web_port}")),
        ];
        settings(folder.path(), "conf", &format!("hdfs://127.0.0.1:{rpc_port}"), &own)?;
        let format = java(folder.path(), "conf")?;
        run_tool(format, folder.path(), &[NAMENODE, "-format", "-nonInteractive", "-force"])?;
        let hdfs =
            Self { folder: Mutex::new(folder), rpc_port, web_port, daemons: [Mutex::new(None), Mutex::new(None)] };
        hdfs.launch(Daemon::NameNode)?;
        hdfs.launch(Daemon::DataNode)?;
        hdfs.wait_until_ready()?;
        Ok(hdfs)
    }

    /// Its address, for `sink.url`.
    #[must_use]
    pub fn url(&self, way: Way) -> String {
        match way {
            Way::Native => format!("hdfs://127.0.0.1:{}", self.rpc_port),
            Way::Web => format!("http://127.0.0.1:{}", self.web_port),
        }
    }

    /// `kill -9`; its data and ports stay.
    pub fn kill(&self, daemon: Daemon) -> anyhow::Result<()> {
        if let Some(mut process) = self.process(daemon).take() {
            process.kill()?;
        }
        Ok(())
    }

    /// Ends it cleanly; its data and ports stay.
    pub fn stop(&self, daemon: Daemon) -> anyhow::Result<()> {
        if let Some(mut process) = self.process(daemon).take() {
            process.stop()?;
        }
        Ok(())
    }

    /// Starts it again on the same ports with the same data, and waits until the cluster takes files.
    pub fn start_again(&self, daemon: Daemon) -> anyhow::Result<()> {
        self.launch(daemon)?;
        self.wait_until_ready()
    }

    /// Leaves its folder on disk, for whoever looks into a failure; returns where the logs are.
    pub fn keep_log(&self) -> String {
        let mut folder = self.folder.lock().unwrap_or_else(PoisonError::into_inner);
        folder.keep();
        folder.path().display().to_string()
    }

    /// The product's own store in a folder of this cluster.
    pub fn store(&self, way: Way, base_path: &str, user: &str) -> anyhow::Result<Store> {
        let protocol = match way {
            Way::Native => HdfsProtocol::Native { url: self.url(way), conf_dir: Some(self.conf_dir()) },
            Way::Web => HdfsProtocol::Web { urls: vec![self.url(way)], delegation_token: None, ca_file: None },
        };
        let kind =
            SinkKind::Hdfs(HdfsConfig { protocol, base_path: base_path.to_owned(), user: Some(user.to_owned()) });
        store(kind)
    }

    /// Every file in a folder, relative to it, with its length, sorted. Asks the namenode's REST interface directly.
    pub fn list(&self, folder: &str) -> anyhow::Result<Vec<(String, u64)>> {
        let mut found = Vec::new();
        let mut folders = vec![String::new()];
        while let Some(below) = folders.pop() {
            let path = format!("{}/{below}", folder.trim_end_matches('/'));
            for entry in self.entries(&path)? {
                let name = entry.get("pathSuffix").and_then(Value::as_str).unwrap_or_default();
                let name = if below.is_empty() { name.to_owned() } else { format!("{below}/{name}") };
                match entry.get("type").and_then(Value::as_str) {
                    Some("DIRECTORY") => folders.push(name),
                    _ => found.push((name, entry.get("length").and_then(Value::as_u64).unwrap_or_default())),
                }
            }
        }
        found.sort();
        Ok(found)
    }

    /// All bytes of a file.
    pub fn read(&self, path: &str) -> anyhow::Result<Vec<u8>> {
        let answer = self.ask("GET", path, "OPEN", "")?;
        // The datanode has the bytes.
        let location = answer.location.with_context(|| format!("no datanode for {path}: {}", answer.status))?;
        let (address, rest) = location.strip_prefix("http://").and_then(|url| url.split_once('/')).context("no URL")?;
        let answer = http::ask("GET", address, &format!("/{rest}"))?;
        ensure!(answer.status == 200, "the datanode answers {} to {path}", answer.status);
        Ok(answer.body)
    }

    /// Makes a folder with an owner and rights.
    pub fn make_folder(&self, path: &str, permission: &str) -> anyhow::Result<()> {
        let answer = self.ask("PUT", path, "MKDIRS", &format!("&permission={permission}"))?;
        ensure!(answer.status == 200, "cannot make {path}: {}", answer.status);
        Ok(())
    }

    /// Where the settings are, as `hadoop_conf_dir` takes them.
    #[must_use]
    pub fn conf_dir(&self) -> std::path::PathBuf {
        self.folder.lock().unwrap_or_else(PoisonError::into_inner).path().join("conf")
    }

    /// The namenode's answer to an operation of the superuser.
    fn ask(&self, method: &str, path: &str, operation: &str, more: &str) -> anyhow::Result<http::Answer> {
        let path = path.trim_matches('/').bytes().fold(String::new(), |mut text, byte| {
            match byte {
                b'/' | b'-' | b'_' | b'.' | b'=' => text.push(char::from(byte)),
                _ if byte.is_ascii_alphanumeric() => text.push(char::from(byte)),
                // Writing to a String cannot fail.
                _ => drop(write!(text, "%{byte:02X}")),
            }
            text
        });
        let path = format!("/webhdfs/v1/{path}?op={operation}&user.name={}{more}", superuser());
        http::ask(method, &format!("127.0.0.1:{}", self.web_port), &path)
    }

    /// The entries of a folder; none where it is not there.
    fn entries(&self, path: &str) -> anyhow::Result<Vec<Value>> {
        let answer = self.ask("GET", path, "LISTSTATUS", "")?;
        let text = String::from_utf8_lossy(&answer.body).into_owned();
        ensure!(matches!(answer.status, 200 | 404), "HDFS answers {} to {path}: {text}", answer.status);
        let listing: Value = serde_json::from_str(&text)?;
        Ok(listing.pointer("/FileStatuses/FileStatus").and_then(Value::as_array).cloned().unwrap_or_default())
    }

    /// One of the processes.
    fn process(&self, daemon: Daemon) -> MutexGuard<'_, Option<Process>> {
        let [namenode, datanode] = &self.daemons;
        let process = if daemon == Daemon::NameNode { namenode } else { datanode };
        process.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Starts a process and does not wait for it.
    pub fn launch(&self, daemon: Daemon) -> anyhow::Result<()> {
        let folder = self.folder.lock().unwrap_or_else(PoisonError::into_inner).path().to_owned();
        let mut command = java(&folder, "conf")?;
        command.arg(daemon.class());
        let log = folder.join(format!("{}.log", daemon.as_str()));
        *self.process(daemon) = Some(Process::start(daemon.as_str(), command, &log)?);
        Ok(())
    }

    /// Waits until the datanode is known, safe mode is off, and a file is taken.
    fn wait_until_ready(&self) -> anyhow::Result<()> {
        let bean = |name: &str| -> anyhow::Result<Value> {
            let path = format!("/jmx?qry=Hadoop:service=NameNode,name={name}");
            let answer: Value =
                serde_json::from_slice(&http::ask("GET", &format!("127.0.0.1:{}", self.web_port), &path)?.body)?;
            answer.pointer("/beans/0").cloned().context("no such bean")
        };
        let look = || -> anyhow::Result<bool> {
            let alive = bean("FSNamesystemState")?.get("NumLiveDataNodes").and_then(Value::as_u64) >= Some(1);
            let safe_mode = bean("NameNodeInfo")?.get("Safemode").and_then(Value::as_str).map(str::to_owned);
            Ok(alive && safe_mode.as_deref() == Some(""))
        };
        wait::until("HDFS to be ready", START_LIMIT, || {
            for daemon in [Daemon::NameNode, Daemon::DataNode] {
                if let Some(process) = &mut *self.process(daemon) {
                    process.ensure_running()?;
                }
            }
            let what = look();
            Ok(Look::when(matches!(what, Ok(true)), format!("{what:?}")))
        })?;
        // The port of the datanode answers a little later.
        let store = self.store(Way::Web, "ready", &superuser())?;
        wait::until("HDFS to take a file", START_LIMIT, || {
            Ok(match runtime()?.block_on(async { tokio::time::timeout(REQUEST_LIMIT, store.check()).await }) {
                Ok(Ok(())) => Look::Done(()),
                other => Look::NotYet(format!("{other:?}")),
            })
        })
    }
}

/// Whether a file is not whole yet, or was given up by a writer that could not reach the cluster.
#[must_use]
pub fn is_staged(name: &str) -> bool {
    name.starts_with("_fs_data_sink/") && name.contains("/staging/")
}

/// Who owns everything and may do everything: whoever starts the namenode.
#[must_use]
pub fn superuser() -> String {
    let named = ["USER", "LOGNAME"].into_iter().find_map(|name| std::env::var(name).ok());
    named.filter(|name| !name.is_empty()).unwrap_or_else(|| "root".to_owned())
}

/// The product's own store of a sink.
pub fn store(kind: SinkKind) -> anyhow::Result<Store> {
    let sink = SinkConfig {
        kind,
        partition_by: Vec::new(),
        keep_partition_columns: false,
        parquet: ParquetConfig::default(),
        retry_timeout: Duration::from_secs(180),
        merge: MergeConfig::default(),
    };
    let io = runtime()?.handle().clone();
    Store::open(&sink, "suite", Metrics::detached(), io, &fs_data_sink::store::HttpClients::default())
        .map_err(|error| anyhow::anyhow!(error.full_message()))
}

/// `java` with the settings of a folder and the jars.
pub(super) fn java(folder: &Path, conf: &str) -> anyhow::Result<Command> {
    let mut command = Command::new("java");
    let jars = download::hdfs_jars()?;
    command.args(JVM).arg("-cp").arg(format!("{}:{}/*", folder.join(conf).display(), jars.display()));
    command.current_dir(folder);
    Ok(command)
}

/// Runs one of Hadoop's tools to its end.
pub(super) fn run_tool(mut command: Command, folder: &Path, arguments: &[&str]) -> anyhow::Result<()> {
    command.args(arguments);
    let mut process = Process::start("one of HDFS's tools", command, &folder.join("tools.log"))?;
    let ended = process.wait(START_LIMIT)?;
    ensure!(ended == Ended::Code(0), "{arguments:?} failed\n{}", process.log_tail());
    Ok(())
}

/// A file of Hadoop's settings.
pub(super) fn write_site(path: &Path, properties: &[(impl AsRef<str>, String)]) -> anyhow::Result<()> {
    let mut text = "<configuration>\n".to_owned();
    for (name, value) in properties {
        let name = name.as_ref();
        writeln!(text, "<property><name>{name}</name><value>{value}</value></property>")?;
    }
    text.push_str("</configuration>\n");
    fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))
}

/// A folder of settings: everything on loopback, fast to notice what goes and what comes. `own` are those of this cluster.
pub(super) fn settings(
    folder: &Path,
    conf: &str,
    default_fs: &str,
    own: &[(impl AsRef<str>, String)],
) -> anyhow::Result<()> {
    let path = folder.join(conf);
    for web in ["hdfs", "datanode", "static", "secondary"] {
        // The servers look for the folders of their pages, which the jars do not have.
        let inside = path.join("webapps").join(web).join("WEB-INF");
        fs::create_dir_all(&inside)?;
        fs::write(inside.join("web.xml"), "<web-app/>")?;
    }
    fs::write(path.join("log4j.properties"), LOG_SETTINGS)?;
    let local = |port: u16| format!("127.0.0.1:{port}");
    let yes = || "true".to_owned();
    write_site(
        &path.join("core-site.xml"),
        &[
            ("fs.defaultFS", default_fs.to_owned()),
            ("hadoop.tmp.dir", folder.join(format!("tmp-{conf}")).display().to_string()),
        ],
    )?;
    let mut properties = vec![
        ("dfs.replication", "1".to_owned()),
        ("dfs.blocksize", "16777216".to_owned()),
        ("dfs.permissions.enabled", yes()),
        ("dfs.namenode.rpc-bind-host", "127.0.0.1".to_owned()),
        ("dfs.namenode.http-bind-host", "127.0.0.1".to_owned()),
        ("dfs.namenode.safemode.extension", "0".to_owned()),
        ("dfs.namenode.heartbeat.recheck-interval", "1000".to_owned()),
        ("dfs.namenode.handler.count", "4".to_owned()),
        ("dfs.namenode.datanode.registration.ip-hostname-check", "false".to_owned()),
        ("dfs.heartbeat.interval", "1".to_owned()),
        ("dfs.client.use.datanode.hostname", yes()),
        ("dfs.datanode.data.dir", at(folder, "blocks")),
        ("dfs.datanode.address", local(free_port()?)),
        ("dfs.datanode.http.address", local(free_port()?)),
        ("dfs.datanode.ipc.address", local(free_port()?)),
        ("dfs.datanode.hostname", "127.0.0.1".to_owned()),
        ("dfs.datanode.handler.count", "4".to_owned()),
        ("dfs.datanode.du.reserved", "0".to_owned()),
        // So that a listing of few files is one of several batches.
        ("dfs.ls.limit", "20".to_owned()),
    ];
    properties.extend(own.iter().map(|(name, value)| (name.as_ref(), value.clone())));
    write_site(&path.join("hdfs-site.xml"), &properties)
}

/// A folder as Hadoop's settings name it.
pub(super) fn at(folder: &Path, name: &str) -> String {
    format!("file://{}", folder.join(name).display())
}
