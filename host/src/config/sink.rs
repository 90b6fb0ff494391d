//! Where rows go: `sink`.

use std::{path::PathBuf, time::Duration};

use serde::{Deserialize, Serialize};

use super::{ParquetConfig, Secret};

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
