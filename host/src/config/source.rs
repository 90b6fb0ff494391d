//! Where records come from: `source`.

use std::time::Duration;

use super::{RedisConfig, Secret, SinkConfig};

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
