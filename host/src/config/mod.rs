//! The checked configuration: what the rest of the host sees. No code behind this border validates again.
//!
//! Comes in: YAML files, environment variables, `.env`, command-line flags (`config/load.rs`). Goes out: [`Config`],
//! or every fault at once with its file, line and path (`config/fault.rs`).

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    sync::Arc,
    time::Duration,
};

mod address;
mod alone;
mod check;
mod decode;
mod download;
mod environment;
pub mod fault;
mod grants;
mod hints;
mod limits;
pub mod load;
mod node;
mod oauth;
mod parquet;
mod places;
mod plugin;
mod print;
mod properties;
mod reader;
mod redis;
mod schema;
mod secret;
mod sink;
mod source;
mod topics;
mod value;
mod variables;
mod yaml;

pub use address::PrivateAddresses;
pub use decode::{
    DecodeConfig, MetadataColumn, OnNewField, OnTombstone, OnTypeChange, RegistryConfig, SchemaSources, ValueFormat,
};
pub(crate) use download::sha256;
pub use download::{Artifact, Credentials, Download, Location};
pub use grants::{
    Access, BucketGrant, BucketStore, FolderGrant, Grants, HttpGrant, HttpScheme, RedisBucket, TableBucket,
};
pub use hints::{BinaryEncoding, JsonHints, json_pointer};
pub use limits::PluginLimits;
pub use oauth::{AssertionConfig, Grant, JWT_BEARER, OauthConfig, OidcConfig, librdkafka_properties};
pub use parquet::{ColumnConfig, Compression, Encoding, ParquetConfig, SortColumn, Statistics};
pub use places::{ConfigPlaces, Step};
pub use plugin::{OnReject, OnTrap, PluginConfig, Signature};
pub use print::schema_yaml;
pub use redis::{
    ClientTls, RedisAddress, RedisConfig, RedisConnection, RedisEntry, RedisListRead, RedisServers, RedisStart,
};
pub use secret::Secret;
pub use sink::{
    AzureConfig, AzureCredentials, GcsConfig, GcsCredentials, HdfsConfig, HdfsProtocol, LocalConfig, MergeConfig,
    MergePeriod, MergeVisibility, PartitionColumn, PartitionTransform, S3Config, SinkConfig, SinkKind,
};
pub use source::{FileConfig, KafkaConfig, KafkaStart, LettersConfig, SourceConfig, SourceKind};

/// Everything one process runs.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// The pipelines; at least one, names are unique.
    pub pipelines: Vec<PipelineConfig>,
    /// What the pipelines of each tenant may use together, by its name; empty where nothing was said.
    pub tenants: BTreeMap<Arc<str>, TenantConfig>,
    /// Logs, metrics and traces of the process.
    pub telemetry: TelemetryConfig,
}

impl Config {
    /// All that is in force as YAML that can be loaded again, with secrets masked.
    #[must_use]
    pub fn to_yaml(&self) -> String {
        print::yaml(self)
    }
}

/// `cpu_share` of a tenant that says nothing, and the most, as those of `cpu.weight` of Linux' control groups.
pub const CPU_SHARE_DEFAULT: u32 = 100;
/// See [`CPU_SHARE_DEFAULT`].
pub const CPU_SHARE_MAX: u32 = 10_000;

/// What the pipelines of one tenant may use together. `None` is no limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TenantConfig {
    /// Bytes of records in flight and of plugins' memories and tables.
    pub memory_bytes: Option<usize>,
    /// Files that are written at the same time, besides one for each lane.
    pub open_files: Option<usize>,
    /// Instances of plugins.
    pub plugin_instances: Option<usize>,
    /// What its plugins get of the processors where there is not enough for all, beside [`CPU_SHARE_DEFAULT`] for a tenant that
    /// says nothing.
    pub cpu_share: Option<u32>,
    /// Bytes that its sources read; what is above waits.
    pub bytes_per_second: Option<usize>,
    /// Bytes that its plugins send away; what is above is refused.
    pub egress_bytes_per_second: Option<usize>,
    /// What each of its plugins may have at most.
    pub plugin_limits: Option<PluginLimits>,
    /// Whether its plugins must be pinned by their digests.
    pub is_untrusted: bool,
}

/// One pipeline: a source, what happens to its records, and a sink.
#[derive(Clone, Debug, PartialEq)]
pub struct PipelineConfig {
    /// Names the ledger, the consumer and the metric labels.
    pub name: Arc<str>,
    /// Whose budgets it draws on.
    pub tenant: Arc<str>,
    /// Where records come from.
    pub source: SourceConfig,
    /// How bytes become rows.
    pub decode: DecodeConfig,
    /// In the order in which they run.
    pub plugins: Vec<Arc<PluginConfig>>,
    /// Where rows go.
    pub sink: SinkConfig,
    /// When files are finished, and what may be in flight.
    pub run: RunConfig,
    /// Where refused records go.
    pub dead_letter: DeadLetterConfig,
}

/// When files are finished, and what may be in flight.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RunConfig {
    /// What is promised about each record.
    pub delivery: Delivery,
    /// A generation of files is committed at least this often while there is data.
    pub commit_interval: Duration,
    /// The same counted in batches (`flush_interval_batches` of the original).
    pub commit_interval_batches: Option<u64>,
    /// A file is finished at about so many encoded bytes.
    pub target_file_size_bytes: usize,
    /// The same in rows.
    pub target_file_rows: Option<u64>,
    /// Most files open at once in one lane; at the limit rows of further directories wait in memory.
    pub open_files_max: usize,
    /// Raw, decoded and encoded bytes in flight; at the limit the source waits.
    pub memory_bytes: usize,
    /// Number of lanes; `None` is one per core.
    pub lanes: Option<usize>,
    /// What happens besides the dead letter when a record is refused.
    pub error_handling: ErrorHandling,
    /// Stop after so many batches (`--max-batches`).
    pub batches_max: Option<u64>,
    /// Read to what was there at start, commit, and end (`--until-end`).
    pub until_end: bool,
    /// At shutdown, how long the open files may take to be finished and committed.
    pub shutdown_timeout: Duration,
}

/// What is promised about each record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Delivery {
    /// In a visible file or a dead letter at least once.
    AtLeastOnce,
    /// In exactly one of them: a ledger in the store says what is committed, and fences off who lost the work to another.
    ExactlyOnce,
}

/// What happens besides the dead letter when a record is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ErrorHandling {
    /// Logged, at a bounded rate.
    Log,
    /// The pipeline stops before that record's position is committed.
    Raise,
    /// Nothing.
    Ignore,
}

/// Where refused records go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DeadLetterConfig {
    /// JSON lines in the sink's store, under `_fs_data_sink/<pipeline>/dead_letters/`.
    Store,
    /// A topic.
    Kafka(KafkaLetterConfig),
    /// Nowhere: they are counted and dropped.
    None,
}

/// A topic for refused records.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KafkaLetterConfig {
    /// `host:port`, at least one.
    pub bootstrap_servers: Vec<String>,
    /// Its name.
    pub topic: String,
    /// librdkafka properties. Values may be secret.
    pub extra_config: Vec<(String, Secret)>,
    /// How long a broker that takes nothing is waited for: as long as for the store.
    pub retry_timeout: Duration,
}

/// Whose a pipeline is that does not say so.
pub const TENANT_DEFAULT: &str = "default";

/// Where the page is served where nothing is said: the port that OpenTelemetry's exporter for Prometheus has.
pub const LISTEN_DEFAULT: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 9464);

/// Logs, metrics and traces of the process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TelemetryConfig {
    /// A level, or `tracing` directives such as `INFO,fs_data_sink::source=DEBUG`.
    pub log_level: String,
    /// How a log line looks.
    pub log_format: LogFormat,
    /// Whether anything is pushed by OTLP.
    pub enabled: bool,
    /// `service.name`.
    pub service_name: String,
    /// Where to push, for instance `http://localhost:4317` (gRPC).
    pub otlp_endpoint: Option<String>,
    /// Whether spans are pushed.
    pub trace_enabled: bool,
    /// Whether metrics are pushed.
    pub metrics_enabled: bool,
    /// Address of `/metrics`, `/healthz` and `/readyz`; `None` where switched off.
    pub listen: Option<SocketAddr>,
}

/// How a log line looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// One JSON object a line.
    Json,
    /// For people.
    Text,
}
