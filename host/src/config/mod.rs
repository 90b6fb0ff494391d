//! The checked configuration: what the rest of the host sees. No code behind this border validates again.
//!
//! Comes in: YAML files, environment variables, `.env`, command-line flags (`config/load.rs`). Goes out: [`Config`],
//! or every fault at once with its file, line and path (`config/fault.rs`).

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use arrow_schema::Schema;
use serde::{Deserialize, Serialize};

mod address;
mod alone;
mod check;
mod download;
mod environment;
pub mod fault;
mod grants;
mod hints;
mod limits;
pub mod load;
mod node;
mod oauth;
mod places;
mod print;
mod properties;
mod reader;
mod redis;
mod schema;
mod secret;
mod topics;
mod value;
mod variables;
mod yaml;

pub use address::PrivateAddresses;
pub(crate) use download::sha256;
pub use download::{Artifact, Credentials, Download, Location};
pub use grants::{
    Access, BucketGrant, BucketStore, FolderGrant, Grants, HttpGrant, HttpScheme, RedisBucket, TableBucket,
};
pub use hints::{BinaryEncoding, JsonHints, json_pointer};
pub use limits::PluginLimits;
pub use oauth::{AssertionConfig, Grant, JWT_BEARER, OauthConfig, OidcConfig, librdkafka_properties};
pub use places::{ConfigPlaces, Step};
pub use print::schema_yaml;
pub use redis::{
    ClientTls, RedisAddress, RedisConfig, RedisConnection, RedisEntry, RedisListRead, RedisServers, RedisStart,
};
pub use secret::Secret;

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

/// Where records come from, with what all sources share.
#[derive(Clone, Debug, PartialEq)]
pub struct SourceConfig {
    /// The source itself.
    pub kind: SourceKind,
    /// Most records in one batch.
    pub batch_rows_max: usize,
    /// A batch that is not full goes on after this.
    pub batch_timeout: Duration,
}

/// The closed set of sources.
#[derive(Clone, Debug, PartialEq)]
pub enum SourceKind {
    /// Topics of a Kafka cluster, read as a consumer group.
    Kafka(KafkaConfig),
    /// Files of newline-delimited records, or standard input.
    File(FileConfig),
    /// Streams and lists of Redis.
    Redis(Box<RedisConfig>),
    /// The dead letters of the pipeline itself; no configuration says so, but a command.
    Letters(LettersConfig),
}

impl SourceKind {
    /// The name used in `source.type` and as a metric label.
    #[must_use]
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::Kafka(_) => "kafka",
            Self::File(_) => "file",
            Self::Redis(_) => "redis",
            Self::Letters(_) => "dead_letters",
        }
    }
}

/// Which dead letters to read.
#[derive(Clone, Debug, PartialEq)]
pub struct LettersConfig {
    /// The store that they are in.
    pub sink: SinkConfig,
    /// Whether all records are of one dataset, which has the pipeline's name: those of files are.
    pub is_one_dataset: bool,
}

/// How to read Kafka.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KafkaConfig {
    /// `host:port`, at least one.
    pub bootstrap_servers: Vec<String>,
    /// Topic names; one that begins with `^` is a regular expression. At least one.
    pub topics: Vec<String>,
    /// The consumer group.
    pub group_id: String,
    /// librdkafka properties that the user set, checked against those that delivery depends on. Values may be secret.
    pub extra_config: Vec<(String, Secret)>,
    /// Where a partition begins that neither the ledger nor the group knows; `None`: by `auto.offset.reset`.
    pub start: Option<KafkaStart>,
    /// The same for single partitions: topic, partition, offset.
    pub start_offsets: Vec<(String, i32, i64)>,
    /// Whether the cluster is asked for the ids of topics. No key of a file: every broker answers, librdkafka's mock cluster
    /// does not.
    pub has_topic_ids: bool,
}

/// Where a partition of a topic begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KafkaStart {
    /// At the first record.
    Earliest,
    /// Behind the last one.
    Latest,
    /// At the first record of this time or later, in milliseconds since 1970.
    At(i64),
}

/// Which files to read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileConfig {
    /// Paths and glob patterns, relative ones resolved against the configuration file's folder; `-` is standard input.
    pub paths: Vec<String>,
}

/// How the bytes of a record become a typed row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DecodeConfig {
    /// How values are encoded.
    pub format: ValueFormat,
    /// The way from a JSON record to the part of it that becomes rows; empty for the whole.
    pub payload_pointer: Vec<String>,
    /// Where schemas come from that values are written with.
    pub schemas: SchemaSources,
    /// What to do with a record without a value.
    pub on_tombstone: OnTombstone,
    /// `None`: inferred from the first records.
    pub declared_schema: Option<Arc<Schema>>,
    /// What to do with a JSON field that the schema lacks.
    pub on_new_field: OnNewField,
    /// What to do with a value of another type than the schema's, in inferred mode.
    pub on_type_change: OnTypeChange,
    /// Facts about the record that become columns, named with a leading `_`.
    pub metadata_columns: Vec<MetadataColumn>,
}

impl DecodeConfig {
    /// How JSON is read of which nothing is declared.
    #[must_use]
    pub fn inferred_json() -> Self {
        Self {
            format: ValueFormat::Json,
            payload_pointer: Vec::new(),
            schemas: SchemaSources::default(),
            on_tombstone: OnTombstone::Reject,
            declared_schema: None,
            on_new_field: OnNewField::Add,
            on_type_change: OnTypeChange::Widen,
            metadata_columns: Vec::new(),
        }
    }

    /// Whether records can bring columns.
    #[must_use]
    pub fn infers(&self) -> bool {
        let is_open = self.declared_schema.is_none() || self.on_new_field == OnNewField::Add;
        self.format != ValueFormat::Raw && is_open
    }
}

/// How values are encoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ValueFormat {
    /// One JSON object a record, or a list of objects.
    Json,
    /// One Arrow IPC stream or file a record, with any number of rows.
    ArrowIpc,
    /// One Avro record a record, behind the number of its schema or all of one schema; or an Avro file.
    Avro,
    /// One message a record, behind the number of its schema or all of one type.
    Protobuf,
    /// JSON behind the number of its schema.
    JsonSchema,
    /// The envelope goes on as it is, for a decoder plugin.
    Raw,
}

/// Where schemas come from that values are written with.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SchemaSources {
    /// A registry, where each value has the number of its schema ahead.
    pub registry: Option<RegistryConfig>,
    /// The Avro schema of all values, where they have no number ahead.
    pub avro_file: Option<PathBuf>,
    /// A file of descriptors and the name of the type of all values, where they have no number ahead.
    pub protobuf_file: Option<(PathBuf, String)>,
}

/// Where a schema registry is, and who we are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RegistryConfig {
    /// `https://host:8081`, at least one; without a slash at the end.
    pub urls: Vec<String>,
    /// For basic authentication.
    pub username: Option<String>,
    /// Belongs to the user.
    pub password: Option<Secret>,
    /// In place of both.
    pub bearer_token: Option<Secret>,
    /// How the server and we know each other.
    pub tls: ClientTls,
    /// An answer that takes longer is none.
    pub timeout: Duration,
}

/// What to do with a record without a value: a tombstone of a compacted topic, or a delete in an envelope.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnTombstone {
    /// It is passed over, and counted.
    Skip,
    /// It becomes a row of nulls, with the metadata columns.
    NullRow,
    /// It is refused.
    Reject,
}

/// What to do with a JSON field that the schema lacks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnNewField {
    /// It becomes a column; the default where the schema is inferred.
    Add,
    /// It is left out; the default where the schema is declared.
    Ignore,
    /// The record is refused.
    Reject,
}

/// What to do in inferred mode with a value of another type than the column's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnTypeChange {
    /// int to float where nothing is lost; other records are refused.
    Widen,
    /// As `Widen`, and other mixtures of scalars become strings.
    String,
    /// The record is refused.
    Reject,
}

/// A fact about a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MetadataColumn {
    /// `_topic`, utf8.
    Topic,
    /// `_partition`, int32.
    Partition,
    /// `_offset`, int64.
    Offset,
    /// `_timestamp`, timestamp(ms, UTC).
    Timestamp,
    /// `_key`, binary.
    Key,
}

/// One plugin in a pipeline.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PluginConfig {
    /// Its name in this pipeline: metric label, log field, dead letters.
    pub name: Arc<str>,
    /// The component; where it is downloaded, its address, for messages.
    pub path: PathBuf,
    /// Where it is downloaded from, if it is.
    pub download: Option<Download>,
    /// What the file's SHA-256 must be.
    pub sha256: Option<[u8; 32]>,
    /// Who has to have signed it.
    pub signature: Option<Signature>,
    /// JSON text for the plugin's `open`.
    pub config_json: String,
    /// Where its values stand.
    pub config_places: ConfigPlaces,
    /// What it may reach besides its rows.
    pub grants: Grants,
    /// What it may use.
    pub limits: PluginLimits,
    /// What happens to rows that it refuses.
    pub on_reject: OnReject,
    /// What happens when it traps or runs out of time.
    pub on_trap: OnTrap,
}

impl PluginConfig {
    /// The files of this machine that it is loaded from.
    pub fn files(&self) -> impl Iterator<Item = &Path> {
        let component = self.download.is_none().then_some(self.path.as_path());
        component.into_iter().chain(self.signature.as_ref().map(|signature| signature.path.as_path()))
    }
}

/// Who has to have signed a component, and where the signature is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Signature {
    /// The public key of minisign, without its comment.
    pub public_key: String,
    /// The signature's file.
    pub path: PathBuf,
}

/// What happens to rows that a plugin refuses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnReject {
    /// They become dead letters.
    DeadLetter,
    /// They are counted and dropped.
    Drop,
    /// The pipeline stops.
    Fail,
}

/// What happens when a plugin traps or runs out of time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OnTrap {
    /// Tries in a fresh instance before `then`.
    pub retries: u32,
    /// What happens to the batch after the last try.
    pub then: OnReject,
    /// Whether a batch that fails to the last try is split, so that only the rows that do it are refused.
    pub bisect: bool,
    /// Batches in a row that may fail before the pipeline waits with the last of them; 0: it never waits.
    pub open_circuit_after: u32,
    /// Pause before the first new instance.
    pub backoff_from: Duration,
    /// Longest pause; it doubles from trap to trap and starts again after a good batch.
    pub backoff_to: Duration,
}

impl Default for OnTrap {
    fn default() -> Self {
        Self {
            retries: 1,
            then: OnReject::DeadLetter,
            bisect: false,
            open_circuit_after: 5,
            backoff_from: Duration::from_millis(100),
            backoff_to: Duration::from_secs(60),
        }
    }
}

/// Where rows go, with what all sinks share.
#[derive(Clone, Debug, PartialEq)]
pub struct SinkConfig {
    /// The store.
    pub kind: SinkKind,
    /// Directories by value, outermost first.
    pub partition_by: Vec<PartitionColumn>,
    /// Whether the partition columns are also stored in the files.
    pub keep_partition_columns: bool,
    /// How Parquet is written.
    pub parquet: ParquetConfig,
    /// How long a request that fails for a reason that may pass is tried again before the pipeline stops.
    pub retry_timeout: Duration,
    /// Merging of small files.
    pub merge: MergeConfig,
}

/// When small files of one directory are merged into one, and what readers may see meanwhile.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MergeConfig {
    /// Whether a running pipeline does it; the command `compact` does it whenever it is called.
    pub is_enabled: bool,
    /// Only files of the same period are merged, by the time in their names, in UTC.
    pub period: MergePeriod,
    /// Fewer files than this are left as they are.
    pub files_min: usize,
    /// Whether the period that is still running is merged too, after commits.
    pub on_flush: bool,
    /// What a reader that lists files may see for a moment.
    pub visibility: MergeVisibility,
}

impl Default for MergeConfig {
    fn default() -> Self {
        Self {
            is_enabled: false,
            period: MergePeriod::Hour,
            files_min: 2,
            on_flush: false,
            visibility: MergeVisibility::Doubled,
        }
    }
}

/// A stretch of time; all begin at midnight UTC or a full hour, a week on Monday.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MergePeriod {
    /// An hour.
    Hour,
    /// A day.
    Day,
    /// A week.
    Week,
    /// A month.
    Month,
}

/// What a reader that lists files may see between the moment in which the merged file appears and that in which the files
/// merged into it are gone: no store can do both at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MergeVisibility {
    /// The merged file comes first: rows may be seen twice.
    Doubled,
    /// The old files go first: rows may not be seen at all.
    Missing,
}

/// The closed set of stores.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SinkKind {
    /// An S3 bucket, or a server that speaks S3.
    S3(S3Config),
    /// A folder of a Hadoop file system.
    Hdfs(HdfsConfig),
    /// A folder on this machine.
    Local(LocalConfig),
    /// A bucket of Google Cloud Storage.
    Gcs(GcsConfig),
    /// A container of Azure Blob Storage.
    Azure(AzureConfig),
}

impl SinkKind {
    /// The name used in `sink.type` and as a metric label.
    #[must_use]
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::S3(_) => "s3",
            Self::Hdfs(_) => "hdfs",
            Self::Local(_) => "local",
            Self::Gcs(_) => "gcs",
            Self::Azure(_) => "azure",
        }
    }
}

/// An S3 bucket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct S3Config {
    /// It must exist.
    pub bucket: String,
    /// Root of everything written, without slashes at its ends; may be empty.
    pub prefix: String,
    /// AWS region.
    pub region: String,
    /// Another server than AWS, for instance `http://127.0.0.1:9000`.
    pub endpoint_url: Option<String>,
    /// Key id; without one the usual AWS chain (environment, web identity, instance) is used.
    pub access_key_id: Option<String>,
    /// Belongs to the key id.
    pub secret_access_key: Option<Secret>,
}

/// A bucket of Google Cloud Storage.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GcsConfig {
    /// It must exist.
    pub bucket: String,
    /// Root of everything written, without slashes at its ends; may be empty.
    pub prefix: String,
    /// Another server than Google's, for instance an emulator.
    pub endpoint_url: Option<String>,
    /// Who writes.
    pub credentials: GcsCredentials,
}

/// Who writes to GCS.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum GcsCredentials {
    /// What Google's own programs take: `GOOGLE_APPLICATION_CREDENTIALS` or gcloud's file, else the machine's account.
    ApplicationDefault,
    /// A service account's key file.
    File(PathBuf),
    /// The text of such a file.
    Key(Secret),
    /// Nobody, for emulators.
    Anonymous,
}

/// A container of Azure Blob Storage.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AzureConfig {
    /// The storage account.
    pub account: String,
    /// It must exist.
    pub container: String,
    /// Root of everything written, without slashes at its ends; may be empty.
    pub prefix: String,
    /// Another address than `https://<account>.blob.core.windows.net`.
    pub endpoint_url: Option<String>,
    /// Who writes.
    pub credentials: AzureCredentials,
}

/// Who writes to Azure.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AzureCredentials {
    /// A key of the account.
    AccessKey(Secret),
    /// A shared access signature.
    Sas(Secret),
    /// What `AZURE_*` variables say (a service principal, a workload's identity), else the machine's managed identity.
    ManagedIdentity {
        /// Which, where the machine has several.
        client_id: Option<String>,
    },
}

/// A folder of a Hadoop file system.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HdfsConfig {
    /// How to get there.
    pub protocol: HdfsProtocol,
    /// Root of everything written, without slashes at its ends; made when missing.
    pub base_path: String,
    /// Who writes; without one Hadoop's own rules: `HADOOP_USER_NAME`, then the user of this process.
    pub user: Option<String>,
}

/// The two ways into HDFS.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HdfsProtocol {
    /// Hadoop's RPC, to a namenode or a name service. Kerberos where the Hadoop configuration asks for it.
    Native {
        /// `hdfs://namenode:8020`, or `hdfs://name` of a name service.
        url: String,
        /// Folder of `core-site.xml` and `hdfs-site.xml`; without one `HADOOP_CONF_DIR` or `HADOOP_HOME` says where it is.
        conf_dir: Option<PathBuf>,
    },
    /// WebHDFS, or HttpFS, which speaks the same.
    Web {
        /// `http://namenode:9870`; several are the namenodes of one name service. At least one.
        urls: Vec<String>,
        /// Shown instead of a user.
        delegation_token: Option<Secret>,
        /// Certificates that are believed besides those of the system.
        ca_file: Option<PathBuf>,
    },
}

/// A folder on this machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LocalConfig {
    /// Root of everything written; made when missing.
    pub base_path: PathBuf,
}

/// One level of directories.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PartitionColumn {
    /// The column looked at.
    pub column: String,
    /// What is made of its value.
    pub transform: PartitionTransform,
}

impl PartitionColumn {
    /// The name left of `=` in the directory: the column, or `column_year` and so on.
    #[must_use]
    pub fn directory_name(&self) -> String {
        match self.transform {
            PartitionTransform::Identity => self.column.clone(),
            PartitionTransform::Year => format!("{}_year", self.column),
            PartitionTransform::Month => format!("{}_month", self.column),
            PartitionTransform::Day => format!("{}_day", self.column),
            PartitionTransform::Hour => format!("{}_hour", self.column),
        }
    }
}

/// What is made of a value before it becomes a directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PartitionTransform {
    /// The value itself.
    Identity,
    /// `2026` of a time, in UTC.
    Year,
    /// `2026-11`.
    Month,
    /// `2026-11-23`.
    Day,
    /// `2026-11-23-14`.
    Hour,
}

/// How Parquet is written.
#[derive(Clone, Debug, PartialEq)]
pub struct ParquetConfig {
    /// Codec of every column.
    pub compression: Compression,
    /// A row group ends at so many rows.
    pub row_group_rows: usize,
    /// A row group ends at about so many encoded bytes.
    pub row_group_bytes: usize,
    /// A page ends at about so many bytes.
    pub data_page_bytes: usize,
    /// Whether columns start with a dictionary.
    pub dictionary: bool,
    /// How much statistics are written.
    pub statistics: Statistics,
    /// Columns with a bloom filter.
    pub bloom_filter: Vec<String>,
    /// What the rows of each row group are sorted by.
    pub sort_by: Vec<SortColumn>,
    /// Per column, by dotted path.
    pub columns: Vec<(String, ColumnConfig)>,
}

impl Default for ParquetConfig {
    fn default() -> Self {
        Self {
            compression: Compression::Snappy,
            row_group_rows: 1 << 20,
            row_group_bytes: 128 << 20,
            data_page_bytes: 1 << 20,
            dictionary: true,
            statistics: Statistics::Page,
            bloom_filter: Vec::new(),
            sort_by: Vec::new(),
            columns: Vec::new(),
        }
    }
}

/// What differs for one column.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ColumnConfig {
    /// Overrides the file's setting.
    pub dictionary: Option<bool>,
    /// Encoding of values that are not in the dictionary.
    pub encoding: Option<Encoding>,
    /// Overrides the file's codec.
    pub compression: Option<Compression>,
    /// Overrides the file's setting.
    pub statistics: Option<Statistics>,
    /// Overrides the file's setting.
    pub data_page_bytes: Option<usize>,
}

/// A column that rows are sorted by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SortColumn {
    /// Its dotted path.
    pub column: String,
    /// Whether the largest value comes first.
    pub descending: bool,
    /// Whether nulls come before all values.
    pub nulls_first: bool,
}

/// A Parquet encoding that a user may ask for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Encoding {
    /// Values one after another.
    Plain,
    /// Lengths first, then bytes; strings and binary.
    DeltaLengthByteArray,
    /// Shared prefixes; strings and binary.
    DeltaByteArray,
    /// Differences; integers.
    DeltaBinaryPacked,
    /// Bytes of floats apart.
    ByteStreamSplit,
}

/// A codec with its level, where it has levels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Compression {
    /// No compression.
    None,
    /// Fast, no levels.
    Snappy,
    /// 0 to 10.
    Gzip(u32),
    /// 0 to 11.
    Brotli(u32),
    /// 1 to 22.
    Zstd(i32),
    /// The raw LZ4 block format.
    Lz4,
}

/// How much statistics are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Statistics {
    /// None.
    None,
    /// Per row group.
    Chunk,
    /// Per page as well.
    Page,
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
