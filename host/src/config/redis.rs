//! How to read Redis: what `source` of `type: redis` becomes once it is checked.

use std::{path::PathBuf, time::Duration};

use super::Secret;

/// How to read Redis. It has a stream or a list, and lists only under `at_least_once`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RedisConfig {
    /// Where it is, and who we are.
    pub connection: RedisConnection,
    /// Streams, each once.
    pub stream_keys: Vec<String>,
    /// Lists, each once; none of them is a stream's key.
    pub list_keys: Vec<String>,
    /// What becomes of an item of a list when it is read.
    pub list_read: RedisListRead,
    /// The consumer group of the streams. `None` leaves a default to `at_least_once`, and `exactly_once` without any.
    pub consumer_group: Option<String>,
    /// The consumer in that group; `None` takes a name of this machine that no other process has.
    pub consumer_name: Option<String>,
    /// Whether reading goes on for ever; otherwise it ends at what was there at start.
    pub is_continuous: bool,
    /// What of a stream's entry is the record.
    pub entry: RedisEntry,
    /// Where a stream begins that neither the ledger nor the group knows.
    pub start: RedisStart,
    /// A process of ours that was not heard of for so long is dead, and others take its streams and what it had read.
    pub session_timeout: Duration,
    /// Any other consumer of the group that was not heard of for so long is dead, and what it had is read by us.
    pub claim_idle: Duration,
    /// An entry that was delivered more often becomes a dead letter.
    pub deliveries_max: Option<u64>,
    /// Tells pipelines of one name apart that write to different places: they do not share streams under `exactly_once`.
    pub scope: String,
}

/// Where a Redis is, and who we are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RedisConnection {
    /// Where the servers are.
    pub servers: RedisServers,
    /// The user of the access control list; without one Redis takes the user `default`.
    pub username: Option<String>,
    /// Belongs to the user.
    pub password: Option<Secret>,
    /// The number of the database; 0 in a cluster.
    pub db: i64,
    /// `None`: no TLS.
    pub tls: Option<ClientTls>,
}

/// The ways in which Redis is run. Addresses are host and port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RedisServers {
    /// One server.
    Single(RedisAddress),
    /// A server and its replicas, watched by Sentinels, which say which is the master.
    Sentinel {
        /// What the Sentinels call the master.
        master_name: String,
        /// At least one.
        nodes: Vec<RedisAddress>,
        /// For the Sentinels themselves.
        username: Option<String>,
        /// For the Sentinels themselves.
        password: Option<Secret>,
    },
    /// A cluster; any of its nodes tells the others. At least one.
    Cluster(Vec<RedisAddress>),
}

impl std::fmt::Display for RedisServers {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let list = |nodes: &[RedisAddress]| nodes.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
        match self {
            Self::Single(address) => write!(formatter, "{address}"),
            Self::Cluster(nodes) => formatter.write_str(&list(nodes)),
            Self::Sentinel { master_name, nodes, .. } => {
                write!(formatter, "{master_name} by the Sentinels {}", list(nodes))
            }
        }
    }
}

/// A host and a port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RedisAddress {
    /// A name or an IP address, IPv6 without brackets.
    pub host: String,
    /// Its port.
    pub port: u16,
}

impl std::fmt::Display for RedisAddress {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { host, port } = self;
        if host.contains(':') { write!(formatter, "[{host}]:{port}") } else { write!(formatter, "{host}:{port}") }
    }
}

/// TLS of a client, also of a schema registry's. Certificates and names of servers are always checked.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ClientTls {
    /// Certificates that are believed: by Redis' client in place of those of the system, by a registry's besides them.
    pub ca_file: Option<PathBuf>,
    /// Who we are, where the server asks for it: a certificate and its key.
    pub identity: Option<(PathBuf, PathBuf)>,
}

/// What of a stream's entry is the record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RedisEntry {
    /// The value of this field; the other fields become headers.
    Field(String),
    /// All fields, as one JSON object of texts.
    Record,
}

/// What becomes of an item of a list when it is read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum RedisListRead {
    /// It moves to a list of this consumer's own until its files are durable.
    #[default]
    Move,
    /// It is gone, as with `BLPOP`: what is not durable when the process is killed is lost.
    Pop,
}

/// Where a stream begins that neither the ledger nor the group knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RedisStart {
    /// At its first entry.
    Earliest,
    /// Behind what is there.
    Latest,
}
