//! A real HDFS with two namenodes, one active and one standing by, as clusters of production are: a name service.
//!
//! The edits lie in a shared folder in place of journal nodes, and this module says who is active in place of `ZooKeeper`;
//! clients see no difference.

use std::{path::PathBuf, time::Duration};

use anyhow::Context as _;

use super::{
    folder::TestFolder,
    free_port,
    hdfs::{DATANODE, NAMENODE, at, java, run_tool, settings},
    process::Process,
};
use crate::{
    http,
    wait::{self, Look},
};

/// Name of the service.
const SERVICE: &str = "lake";

/// Name of a tool that says which namenode is active.
const ADMIN: &str = "org.apache.hadoop.hdfs.tools.DFSHAAdmin";

/// How long a namenode that was told to be active may take.
const TRANSITION_LIMIT: Duration = Duration::from_secs(60);

/// Two namenodes and a datanode.
#[derive(Debug)]
pub struct HdfsPair {
    /// Data, settings, logs.
    folder: TestFolder,
    /// Ports of WebHDFS.
    web_ports: [u16; 2],
    /// The namenodes; `None` once killed.
    namenodes: [Option<Process>; 2],
    /// Ends with this value.
    _datanode: Process,
}

/// Names of the namenodes.
const NAMES: [&str; 2] = ["one", "two"];

impl HdfsPair {
    /// Starts the cluster, the first namenode active, and waits until it takes files.
    pub fn start() -> anyhow::Result<Self> {
        let folder = TestFolder::new("hdfs-pair")?;
        let rpc_ports = [free_port()?, free_port()?];
        let web_ports = [free_port()?, free_port()?];
        for conf in ["one", "two", "conf"] {
            write_settings(&folder, conf, rpc_ports, web_ports)?;
        }
        tool(&folder, "one", &[NAMENODE, "-format", "-nonInteractive", "-force"])?;
        tool(&folder, "one", &[NAMENODE, "-initializeSharedEdits", "-nonInteractive", "-force"])?;
        let one = daemon(&folder, "one", NAMENODE)?;
        wait_until(web_ports[0], "standby")?;
        tool(&folder, "two", &[NAMENODE, "-bootstrapStandby", "-nonInteractive", "-force"])?;
        let two = daemon(&folder, "two", NAMENODE)?;
        let datanode = daemon(&folder, "conf", DATANODE)?;
        let pair = Self { folder, web_ports, namenodes: [Some(one), Some(two)], _datanode: datanode };
        pair.activate(0)?;
        Ok(pair)
    }

    /// `sink.url` for Hadoop's RPC.
    #[must_use]
    pub fn native_url(&self) -> String {
        format!("hdfs://{SERVICE}")
    }

    /// `sink.url` for WebHDFS: both namenodes.
    #[must_use]
    pub fn web_url(&self) -> String {
        self.web_ports.map(|port| format!("http://127.0.0.1:{port}")).join(";")
    }

    /// The REST interface of the second namenode, the active one after [`HdfsPair::fail_over`].
    #[must_use]
    pub fn second_web_url(&self) -> String {
        format!("http://127.0.0.1:{}", self.web_ports[1])
    }

    /// `sink.hadoop_conf_dir`.
    #[must_use]
    pub fn conf_dir(&self) -> PathBuf {
        self.folder.path().join("conf")
    }

    /// The active namenode dies; for a while there is none; then the other one becomes active.
    pub fn fail_over(&mut self, pause: Duration) -> anyhow::Result<()> {
        if let Some(mut process) = self.namenodes.first_mut().and_then(Option::take) {
            process.kill()?;
        }
        std::thread::sleep(pause);
        self.activate(1)
    }

    /// Leaves its folder on disk, for whoever looks into a failure; returns where the logs are.
    pub fn keep_log(&mut self) -> String {
        self.folder.keep();
        self.folder.path().display().to_string()
    }

    /// Makes a namenode the active one, and waits until the cluster takes files.
    fn activate(&self, number: usize) -> anyhow::Result<()> {
        let name = NAMES.get(number).context("no such namenode")?;
        let port = *self.web_ports.get(number).context("no such namenode")?;
        wait_until(port, "standby")?;
        // By force, since the other one may be gone; nobody else decides here.
        tool(&self.folder, "conf", &[ADMIN, "-transitionToActive", "--forceactive", name])?;
        wait_until(port, "active")
    }
}

/// Waits until a namenode says of itself that it is active or standing by; an active one must be out of its safe mode.
fn wait_until(web_port: u16, wanted: &str) -> anyhow::Result<()> {
    wait::until("a namenode to change its state", TRANSITION_LIMIT, || {
        let ask = |bean: &str, key: &str| -> anyhow::Result<String> {
            let path = format!("/jmx?qry=Hadoop:service=NameNode,name={bean}");
            let answer: serde_json::Value =
                serde_json::from_slice(&http::ask("GET", &format!("127.0.0.1:{web_port}"), &path)?.body)?;
            let value = answer.pointer(&format!("/beans/0/{key}")).context("no such bean")?;
            Ok(value.as_str().map_or_else(|| value.to_string(), str::to_owned))
        };
        let state = ask("NameNodeStatus", "State");
        let is_ready = wanted != "active"
            || (ask("NameNodeInfo", "Safemode").is_ok_and(|text| text.is_empty())
                && ask("FSNamesystemState", "NumLiveDataNodes").is_ok_and(|text| text != "0"));
        Ok(Look::when(is_ready && matches!(&state, Ok(state) if state == wanted), format!("{state:?}")))
    })
}

/// Runs one of Hadoop's tools to its end.
fn tool(folder: &TestFolder, conf: &str, arguments: &[&str]) -> anyhow::Result<()> {
    run_tool(java(folder.path(), conf)?, folder.path(), arguments)
}

/// Starts a server.
fn daemon(folder: &TestFolder, conf: &str, class: &str) -> anyhow::Result<Process> {
    let mut command = java(folder.path(), conf)?;
    command.arg(class);
    Process::start(class, command, &folder.path().join(format!("server-{conf}.log")))
}

/// Settings of one namenode, or of the datanode and clients.
fn write_settings(folder: &TestFolder, conf: &str, rpc_ports: [u16; 2], web_ports: [u16; 2]) -> anyhow::Result<()> {
    let root = folder.path();
    let key = |name: &str| format!("{name}.{SERVICE}");
    let proxy = "org.apache.hadoop.hdfs.server.namenode.ha.ConfiguredFailoverProxyProvider";
    let mut own = vec![
        ("dfs.nameservices".to_owned(), SERVICE.to_owned()),
        (key("dfs.ha.namenodes"), NAMES.join(",")),
        (key("dfs.client.failover.proxy.provider"), proxy.to_owned()),
        ("dfs.ha.fencing.methods".to_owned(), "shell(/bin/true)".to_owned()),
        ("dfs.ha.tail-edits.period".to_owned(), "1".to_owned()),
        ("dfs.namenode.shared.edits.dir".to_owned(), at(root, "shared")),
        ("dfs.namenode.name.dir".to_owned(), at(root, &format!("names-{conf}"))),
    ];
    for (name, (rpc, web)) in NAMES.into_iter().zip(rpc_ports.into_iter().zip(web_ports)) {
        own.push((format!("{}.{name}", key("dfs.namenode.rpc-address")), format!("127.0.0.1:{rpc}")));
        own.push((format!("{}.{name}", key("dfs.namenode.http-address")), format!("127.0.0.1:{web}")));
    }
    if NAMES.contains(&conf) {
        own.push(("dfs.ha.namenode.id".to_owned(), conf.to_owned()));
    }
    settings(root, conf, &format!("hdfs://{SERVICE}"), &own)
}
