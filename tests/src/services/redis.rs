//! Real Redis servers: one with a password, with TLS and access control, watched by Sentinels, or three as a cluster.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use anyhow::{Context as _, ensure};
use redis::{Connection, ConnectionLike, Value};

use super::{
    certificates::Authority,
    folder::TestFolder,
    free_port,
    process::{Ended, Process},
};
use crate::wait::{self, Look};

/// A start on a busy machine.
const START_LIMIT: Duration = Duration::from_mins(1);

/// Commands of a pipeline that are sent together.
const PIPELINE: usize = 1_000;

/// The password of every server of ours.
pub const PASSWORD: &str = "geheim-4711";

/// What the Sentinels call the master.
pub const MASTER_NAME: &str = "lake";

/// One server: ours, or one that the environment names.
#[derive(Debug)]
pub struct Redis {
    /// `redis://:password@127.0.0.1:6379`.
    url: String,
    /// Host and port.
    address: (String, u16),
    /// Its password.
    password: Option<String>,
    /// Ours; `None` where it was given.
    server: Option<Mutex<(Process, TestFolder)>>,
}

impl Redis {
    /// The server that `REDIS_URL` names, else a new one.
    pub fn given_or_started() -> anyhow::Result<Self> {
        match std::env::var("REDIS_URL") {
            Ok(url) if !url.trim().is_empty() => Self::given(url),
            _ => Self::start(&[]),
        }
    }

    /// A server that runs already.
    fn given(url: String) -> anyhow::Result<Self> {
        let parsed = reqwest::Url::parse(&url).context("REDIS_URL is no address")?;
        let host = parsed.host_str().context("REDIS_URL has no host")?.to_owned();
        let address = (host, parsed.port().unwrap_or(6379));
        let password = parsed.password().map(str::to_owned);
        Ok(Self { url, address, password, server: None })
    }

    /// Starts a server with a password and these options.
    pub fn start(options: &[&str]) -> anyhow::Result<Self> {
        let (process, folder, port) = start_server(options)?;
        let redis = Self {
            url: format!("redis://:{PASSWORD}@127.0.0.1:{port}"),
            address: ("127.0.0.1".to_owned(), port),
            password: Some(PASSWORD.to_owned()),
            server: Some(Mutex::new((process, folder))),
        };
        redis.wait_until_it_answers()?;
        Ok(redis)
    }

    /// Waits until it answers.
    fn wait_until_it_answers(&self) -> anyhow::Result<()> {
        wait::until("Redis to answer", START_LIMIT, || {
            if let Some(mut server) = self.server() {
                server.0.ensure_running()?;
            }
            Ok(match self.connection().and_then(|mut link| Ok(redis::cmd("PING").query::<String>(&mut link)?)) {
                Ok(_) => Look::Done(()),
                Err(error) => Look::NotYet(format!("{error:#}")),
            })
        })
    }

    /// Our server.
    fn server(&self) -> Option<MutexGuard<'_, (Process, TestFolder)>> {
        self.server.as_ref().map(|server| server.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// A connection.
    pub fn connection(&self) -> anyhow::Result<Connection> {
        Ok(redis::Client::open(self.url.as_str())?.get_connection()?)
    }

    /// Its port.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.address.1
    }

    /// Its folder, where it is ours.
    pub fn folder(&self) -> anyhow::Result<PathBuf> {
        Ok(self.server().context("a server of ours")?.1.path().to_owned())
    }

    /// `source` for this server, without keys.
    #[must_use]
    pub fn source(&self) -> String {
        let (host, port) = &self.address;
        let password = self.password.as_ref().map(|password| format!("  password: {password}\n")).unwrap_or_default();
        format!(
            "  type: redis\n  host: {host}\n  port: {port}\n{password}  batch_size: 2000\n  session_timeout: 1500ms\n"
        )
    }

    /// Ends it, as `kill -9` does.
    pub fn kill(&self) -> anyhow::Result<()> {
        self.server().context("a server of ours")?.0.kill().map(|_| ())
    }
}

/// Starts a server process with a password and these options.
fn start_server(options: &[&str]) -> anyhow::Result<(Process, TestFolder, u16)> {
    let (folder, port) = (TestFolder::new("redis")?, free_port()?);
    let mut command = Command::new("redis-server");
    command.args(["--port", &port.to_string()]);
    command.args(["--bind", "127.0.0.1", "--save", "", "--appendonly", "no", "--requirepass", PASSWORD]);
    command.args(["--masterauth", PASSWORD]).arg("--dir").arg(folder.path());
    command.args(options);
    let process = Process::start("Redis", command, &folder.path().join("redis.log"))
        .context("redis-server is missing; on Debian it is in the package redis-server")?;
    Ok((process, folder, port))
}

/// Adds entries to streams, many at a time: the stream, and the fields of each.
pub fn add_entries(
    link: &mut impl ConnectionLike,
    entries: impl Iterator<Item = (String, Vec<(&'static str, String)>)>,
) -> anyhow::Result<()> {
    send(
        link,
        entries.map(|(key, fields)| {
            let mut command = redis::cmd("XADD");
            command.arg(key).arg("*");
            for (name, value) in fields {
                command.arg(name).arg(value);
            }
            command
        }),
    )
}

/// Pushes items to lists, many at a time.
pub fn push_items(link: &mut impl ConnectionLike, items: impl Iterator<Item = (String, String)>) -> anyhow::Result<()> {
    send(
        link,
        items.map(|(key, item)| {
            let mut command = redis::cmd("RPUSH");
            command.arg(key).arg(item);
            command
        }),
    )
}

/// Sends commands, many at a time.
fn send(link: &mut impl ConnectionLike, commands: impl Iterator<Item = redis::Cmd>) -> anyhow::Result<()> {
    let mut commands = commands.peekable();
    while commands.peek().is_some() {
        let mut pipeline = redis::pipe();
        for command in commands.by_ref().take(PIPELINE) {
            pipeline.add_command(command).ignore();
        }
        pipeline.exec(link)?;
    }
    Ok(())
}

/// How many entries a group was given and has not acknowledged.
pub fn pending(link: &mut impl ConnectionLike, stream: &str, group: &str) -> anyhow::Result<i64> {
    let answer: Value = redis::cmd("XPENDING").arg(stream).arg(group).query(link)?;
    match answer {
        Value::Array(parts) => match parts.first() {
            Some(Value::Int(count)) => Ok(*count),
            other => anyhow::bail!("XPENDING said {other:?}"),
        },
        other => anyhow::bail!("XPENDING said {other:?}"),
    }
}

/// A server that speaks TLS only, wants certificates of clients, and has the user `lake` with the password [`PASSWORD`], who may do what
/// README.md says and nothing else.
#[derive(Debug)]
pub struct SecureRedis {
    /// Its folder holds the certificates.
    folder: TestFolder,
    /// Its port.
    port: u16,
    /// The process.
    process: Mutex<Process>,
}

impl SecureRedis {
    /// Starts it. `rules` are those of the user `lake`.
    pub fn start(rules: &str) -> anyhow::Result<Self> {
        let (folder, port) = (TestFolder::new("redis-tls")?, free_port()?);
        let authority = Authority::new(folder.path(), "ca")?;
        authority.sign("server", 2)?;
        authority.sign("client", 2)?;
        let config = format!(
            "port 0\ntls-port {port}\nbind 127.0.0.1\nsave \"\"\nappendonly no\ntls-cert-file server.crt\ntls-key-file server.key\n\
             tls-ca-cert-file ca.crt\ntls-auth-clients yes\nrequirepass {PASSWORD}\nuser lake on >{PASSWORD} {rules}\ndir {}\n",
            folder.path().display()
        );
        fs::write(folder.path().join("redis.conf"), config)?;
        let mut command = Command::new("redis-server");
        command.arg("redis.conf").current_dir(folder.path());
        let process = Process::start("Redis with TLS", command, &folder.path().join("redis.log"))?;
        let secure = Self { folder, port, process: Mutex::new(process) };
        wait::until("Redis with TLS to answer", START_LIMIT, || {
            secure.process.lock().unwrap_or_else(PoisonError::into_inner).ensure_running()?;
            Ok(match secure.cli(&["PING"], "") {
                Ok(answer) => Look::when(answer.contains("PONG"), answer),
                Err(error) => Look::NotYet(format!("{error:#}")),
            })
        })?;
        Ok(secure)
    }

    /// Where the certificates are.
    #[must_use]
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Its port.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Runs `redis-cli` as the administrator, with commands as input where there are any; what it said.
    pub fn cli(&self, arguments: &[&str], input: &str) -> anyhow::Result<String> {
        let mut command = Command::new("redis-cli");
        command.args(["-h", "127.0.0.1", "-p", &self.port.to_string(), "--tls", "--cacert", "ca.crt"]);
        command
            .args(["--cert", "client.crt", "--key", "client.key", "--no-auth-warning", "-a", PASSWORD])
            .args(arguments);
        run_with_input(command.current_dir(self.folder.path()), input)
    }
}

/// Runs a command to its end with an input.
fn run_with_input(command: &mut Command, input: &str) -> anyhow::Result<String> {
    use std::io::Write as _;
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
    if let Some(mut pipe) = child.stdin.take() {
        pipe.write_all(input.as_bytes())?;
    }
    let output = child.wait_with_output()?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{text}");
    Ok(text)
}

/// What a Sentinel says of the master.
fn facts(port: u16) -> anyhow::Result<std::collections::HashMap<String, String>> {
    let mut link = redis::Client::open(format!("redis://127.0.0.1:{port}"))?.get_connection()?;
    Ok(redis::cmd("SENTINEL").arg("MASTER").arg(MASTER_NAME).query(&mut link)?)
}

/// A master, a replica, and three Sentinels.
#[derive(Debug)]
pub struct Watched {
    /// The two servers; which of them is the master changes.
    pub servers: [Redis; 2],
    /// The Sentinels with their ports.
    sentinels: Vec<(Mutex<Process>, TestFolder, u16)>,
}

impl Watched {
    /// Starts them, and waits until the Sentinels know each other and the replica.
    pub fn start() -> anyhow::Result<Self> {
        let master = Redis::start(&[])?;
        let port = master.port().to_string();
        let replica = Redis::start(&["--replicaof", "127.0.0.1", &port])?;
        let mut sentinels = Vec::new();
        for _ in 0..3 {
            let (folder, own) = (TestFolder::new("sentinel")?, free_port()?);
            let config = format!(
                "port {own}\nbind 127.0.0.1\ndir {}\nsentinel monitor {MASTER_NAME} 127.0.0.1 {port} 2\n\
                 sentinel auth-pass {MASTER_NAME} {PASSWORD}\nsentinel down-after-milliseconds {MASTER_NAME} 1000\n\
                 sentinel failover-timeout {MASTER_NAME} 5000\n",
                folder.path().display()
            );
            let path = folder.path().join("sentinel.conf");
            fs::write(&path, config)?;
            let mut command = Command::new("redis-server");
            command.arg(&path).arg("--sentinel");
            let process = Process::start("Sentinel", command, &folder.path().join("sentinel.log"))?;
            sentinels.push((Mutex::new(process), folder, own));
        }
        let watched = Self { servers: [master, replica], sentinels };
        for (_, _, own) in &watched.sentinels {
            wait::until("the Sentinels to know all", START_LIMIT, || {
                let facts = facts(*own).unwrap_or_default();
                let fact = |name: &str| facts.get(name).cloned().unwrap_or_default();
                let (others, replicas) = (fact("num-other-sentinels"), fact("num-slaves"));
                Ok(Look::when(others == "2" && replicas == "1", format!("{others} others, {replicas} replicas")))
            })?;
        }
        Ok(watched)
    }

    /// The port of the master, as most Sentinels have it.
    pub fn master_port(&self) -> anyhow::Result<u16> {
        let ports: Vec<u16> =
            self.sentinels.iter().filter_map(|(_, _, port)| facts(*port).ok()?.get("port")?.parse().ok()).collect();
        let most = ports.iter().max_by_key(|port| ports.iter().filter(|other| other == port).count());
        most.copied().context("no Sentinel knows the master")
    }

    /// A connection to the master.
    pub fn connection(&self) -> anyhow::Result<Connection> {
        let port = self.master_port()?;
        let server =
            self.servers.iter().find(|server| server.port() == port).context("a master that is none of ours")?;
        server.connection()
    }

    /// Kills the master once the replica has all, and waits until there is another one.
    pub fn fail_over(&self) -> anyhow::Result<()> {
        let old = self.master_port()?;
        let master =
            self.servers.iter().find(|server| server.port() == old).context("a master that is none of ours")?;
        let mut link = master.connection()?;
        // It waits for what this connection wrote, and so for all before it.
        redis::cmd("SET").arg("failover").arg(1).exec(&mut link)?;
        let told: i64 = redis::cmd("WAIT").arg(1).arg(10_000).query(&mut link)?;
        ensure!(told == 1, "the replica is behind");
        master.kill()?;
        wait::until("another master", START_LIMIT, || {
            let port = self.master_port()?;
            if port == old {
                return Ok(Look::NotYet(format!("still {port}")));
            }
            let role = self.connection().and_then(|mut link| Ok(redis::cmd("ROLE").query::<Value>(&mut link)?));
            Ok(Look::when(format!("{role:?}").contains("master"), format!("{role:?}")))
        })
    }

    /// `sentinel`, as a source and a bucket have it.
    #[must_use]
    pub fn sentinel(&self) -> String {
        let nodes: Vec<_> = self.sentinels.iter().map(|(_, _, port)| format!("\"127.0.0.1:{port}\"")).collect();
        format!("{{master_name: {MASTER_NAME}, nodes: [{}]}}", nodes.join(", "))
    }

    /// `source` for these, without keys.
    #[must_use]
    pub fn source(&self) -> String {
        format!(
            "  type: redis\n  sentinel: {}\n  password: {PASSWORD}\n  batch_size: 2000\n  session_timeout: 1500ms\n",
            self.sentinel()
        )
    }
}

/// Three masters as a cluster.
#[derive(Debug)]
pub struct Cluster {
    /// The nodes.
    nodes: Vec<(Mutex<Process>, TestFolder, u16)>,
}

impl Cluster {
    /// Starts it, and waits until it serves.
    pub fn start() -> anyhow::Result<Self> {
        let mut nodes = Vec::new();
        for _ in 0..3 {
            let (process, folder, port) =
                start_server(&["--cluster-enabled", "yes", "--cluster-node-timeout", "3000"])?;
            nodes.push((Mutex::new(process), folder, port));
        }
        let cluster = Self { nodes };
        for (_, _, port) in &cluster.nodes {
            wait::until("a node to answer", START_LIMIT, || {
                let link = redis::Client::open(format!("redis://:{PASSWORD}@127.0.0.1:{port}"))?.get_connection();
                Ok(link.map_or_else(|error| Look::NotYet(error.to_string()), |_| Look::Done(())))
            })?;
        }
        let mut command = Command::new("redis-cli");
        command.args(["--no-auth-warning", "-a", PASSWORD, "--cluster", "create"]);
        command.args(cluster.nodes.iter().map(|(_, _, port)| format!("127.0.0.1:{port}"))).arg("--cluster-yes");
        run_with_input(&mut command, "")?;
        wait::until("the cluster to serve", START_LIMIT, || {
            let set = cluster.connection().and_then(|mut link| {
                // One key for each third of the slots.
                for key in ["a", "b", "c", "d", "e", "f"] {
                    redis::cmd("SET").arg(key).arg(1).exec(&mut link)?;
                }
                Ok(())
            });
            Ok(set.map_or_else(|error| Look::NotYet(format!("{error:#}")), Look::Done))
        })?;
        Ok(cluster)
    }

    /// A connection.
    pub fn connection(&self) -> anyhow::Result<redis::cluster::ClusterConnection> {
        let nodes: Vec<_> =
            self.nodes.iter().map(|(_, _, port)| format!("redis://:{PASSWORD}@127.0.0.1:{port}")).collect();
        Ok(redis::cluster::ClusterClient::new(nodes)?.get_connection()?)
    }

    /// `source` for these, without keys. One node is named; it tells the others.
    #[must_use]
    pub fn source(&self) -> String {
        let port = self.nodes.first().map_or(0, |(_, _, port)| *port);
        format!(
            "  type: redis\n  cluster: true\n  nodes: [\"127.0.0.1:{port}\"]\n  password: {PASSWORD}\n  batch_size: 2000\n  \
             session_timeout: 1500ms\n"
        )
    }

    /// Runs `redis-cli` on the cluster as a whole.
    pub fn cli(&self, arguments: &[&str]) -> anyhow::Result<String> {
        run_with_input(Command::new("redis-cli").args(["--no-auth-warning", "-a", PASSWORD]).args(arguments), "")
    }

    /// Addresses of the nodes.
    #[must_use]
    pub fn addresses(&self) -> Vec<String> {
        self.nodes.iter().map(|(_, _, port)| format!("127.0.0.1:{port}")).collect()
    }

    /// Whether all nodes run.
    pub fn ensure_running(&self) -> anyhow::Result<()> {
        for (process, _, _) in &self.nodes {
            let ended = process.lock().unwrap_or_else(PoisonError::into_inner).ended()?;
            ensure!(ended.is_none(), "a node has ended: {:?}", ended.unwrap_or(Ended::Code(0)));
        }
        Ok(())
    }
}
