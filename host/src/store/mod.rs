//! The store: `object_store`'s trait, and on top of it stage, publish and abort.
//!
//! Comes in: bytes and paths below the sink's root. Goes out: files that no reader can see (staged), then whole files
//! (published). Promises: no reader ever sees a part of a file; publishing never replaces another file and may be
//! repeated; every request that fails for a reason that may pass is tried again, within a limit, counted and logged.
//!
//! Stores differ only here, and only in how they stage: S3, GCS and Azure keep the parts of an uncompleted upload, a local
//! disk and HDFS a file under `_fs_data_sink/<pipeline>/staging/` without the suffix `.parquet`. That file grows part by
//! part, each part by a request that can be repeated.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use futures::TryStreamExt;
pub use object_store::path::Path;
use object_store::{
    ObjectStore, ObjectStoreExt, PutPayload, RenameOptions, RenameTargetMode, multipart::MultipartStore,
};
use tokio::runtime::Handle;

use crate::{
    config::{HdfsConfig, HdfsProtocol, SinkConfig, SinkKind},
    error::PipelineError,
    telemetry::metrics::Metrics,
};

#[cfg(any(test, feature = "conformance"))]
pub mod conformance;
mod clients;
mod cloud;
mod failure;
mod files;
mod hadoop;
mod hdfs;
mod local;
mod objects;
mod retry;
mod s3;
mod staging;
mod uploads;
mod webhdfs;

pub use clients::HttpClients;
pub use objects::{Created, Published};
pub use staging::{StagedAt, StagedFile, StagingWriter};
pub use uploads::OpenUpload;

use failure::is_not_found;
use hadoop::AppendStore;
use retry::RetryPolicy;
use staging::StagedKind;
use uploads::Lister;

/// Staging files of a dead process are removed at start once they are this old; a living one never keeps a file open
/// for a day, since `commit_interval` is checked to be shorter.
const STALE_STAGING_AGE: Duration = Duration::from_secs(24 * 3600);

/// A place for files. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Store(Arc<Inner>);

/// What all clones share.
#[derive(Debug)]
struct Inner {
    /// The store itself.
    objects: Arc<dyn ObjectStore>,
    /// How files are kept from readers until they are published.
    staging: Staging,
    /// Root below which everything is written; empty for a local folder, which is the root already.
    root: Path,
    /// Name for messages, for instance `s3://lake/raw`.
    location: String,
    /// Folder of ours, `_fs_data_sink/<pipeline>`.
    own_folder: String,
    /// How long to go on trying.
    retry: RetryPolicy,
    /// Where uploads run, so that they go on while a lane computes.
    io: Handle,
}

/// The two ways to stage.
#[derive(Clone, Debug)]
enum Staging {
    /// Parts of an uncompleted multipart upload.
    Multipart(MultipartHandle),
    /// A file of ours, growing by requests that can be repeated, renamed at publish.
    Append(Arc<dyn AppendStore>),
}

/// A store of multipart uploads.
#[derive(Clone)]
struct MultipartHandle {
    /// Begins, completes and aborts them.
    uploads: Arc<dyn MultipartStore>,
    /// Lists them, where that can be done.
    lister: Option<Lister>,
    /// Whether one that was aborted cannot be completed any more. Azure keeps blocks until it forgets them.
    #[cfg_attr(not(any(test, feature = "conformance")), expect(dead_code, reason = "the suite of the stores asks"))]
    gives_up: bool,
}

impl MultipartHandle {
    /// For a store that cannot list uploads.
    fn new(uploads: Arc<dyn MultipartStore>) -> Self {
        Self { uploads, lister: None, gives_up: true }
    }
}

impl std::fmt::Debug for MultipartHandle {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("MultipartHandle")
    }
}

impl Store {
    /// The store of a sink. No request is made yet.
    pub fn open(
        sink: &SinkConfig,
        pipeline: &str,
        metrics: Metrics,
        io: Handle,
        clients: &HttpClients,
    ) -> Result<Self, PipelineError> {
        let (objects, staging, root, location) = match &sink.kind {
            SinkKind::S3(config) => {
                let (client, lister, root, location) = s3::open(config, clients)?;
                let objects: Arc<dyn ObjectStore> = Arc::<object_store::aws::AmazonS3>::clone(&client);
                let handle = MultipartHandle { lister: Some(lister), ..MultipartHandle::new(client) };
                (objects, Staging::Multipart(handle), root, location)
            }
            SinkKind::Local(config) => {
                let local::LocalFolder { objects, staging, location } = local::open(config)?;
                (objects, Staging::Append(staging), Path::default(), location)
            }
            SinkKind::Hdfs(config) => open_hdfs(config, pipeline, io.clone())?,
            SinkKind::Gcs(config) => {
                let (client, root, location) = cloud::open_gcs(config, clients)?;
                let objects: Arc<dyn ObjectStore> = Arc::<object_store::gcp::GoogleCloudStorage>::clone(&client);
                (objects, Staging::Multipart(MultipartHandle::new(client)), root, location)
            }
            SinkKind::Azure(config) => {
                let (client, root, location) = cloud::open_azure(config, clients)?;
                let objects: Arc<dyn ObjectStore> = Arc::<object_store::azure::MicrosoftAzure>::clone(&client);
                let handle = MultipartHandle { gives_up: false, ..MultipartHandle::new(client) };
                (objects, Staging::Multipart(handle), root, location)
            }
        };
        let retry = RetryPolicy::new(sink.retry_timeout, location.clone(), metrics);
        Ok(Self::assemble(objects, staging, root, location, pipeline, retry, io))
    }

    /// All parts together.
    fn assemble(
        objects: Arc<dyn ObjectStore>,
        staging: Staging,
        root: Path,
        location: String,
        pipeline: &str,
        retry: RetryPolicy,
        io: Handle,
    ) -> Self {
        let own_folder = format!("_fs_data_sink/{pipeline}");
        Self(Arc::new(Inner { objects, staging, root, location, own_folder, retry, io }))
    }

    /// Asks whether the store can be used: the bucket is there and the credentials are good, or the folder can be
    /// written. Creates no bucket. Tries once.
    pub async fn check(&self) -> Result<(), PipelineError> {
        let own = self.own_path("staging");
        let Inner { objects, staging, location, .. } = &*self.0;
        match staging {
            Staging::Multipart(_) => {
                objects.list(Some(&own)).try_next().await.map_err(|error| failure::explain(location, "list", error))?;
            }
            Staging::Append(_) => {
                let probe = own.clone().join(format!("probe-{}", uuid::Uuid::new_v4()));
                let explain = |error| failure::explain(location, "write", error);
                objects.put(&probe, PutPayload::from_static(b"probe")).await.map_err(explain)?;
                objects.delete(&probe).await.map_err(explain)?;
            }
        }
        Ok(())
    }

    /// Removes staging files that a process left behind when it was killed.
    async fn sweep(&self, own: &Path, needed: &[&Path]) {
        let found: Result<Vec<_>, _> = self.0.objects.list(Some(own)).try_collect().await;
        for object in found.unwrap_or_default() {
            let age = chrono::Utc::now().signed_duration_since(object.last_modified).to_std().unwrap_or_default();
            if age > STALE_STAGING_AGE && !needed.contains(&&object.location) {
                match self.0.objects.delete(&object.location).await {
                    Ok(()) => tracing::info!(file = %object.location, "removed a staging file of a dead process"),
                    Err(error) => tracing::warn!(file = %object.location, %error, "cannot remove a staging file"),
                }
            }
        }
    }

    /// Begins a file that will be visible at `path`, below the root, once it is published. No request is made yet. Small
    /// files may stay in memory until then, which is one request instead of three.
    #[must_use]
    pub fn stage(&self, path: Path) -> StagingWriter {
        StagingWriter::new(self.clone(), path, matches!(self.0.staging, Staging::Multipart(_)))
    }

    /// The same, with every byte in the store before the file counts as staged: what a ledger records must outlive the
    /// process.
    #[must_use]
    pub fn stage_durably(&self, path: Path) -> StagingWriter {
        StagingWriter::new(self.clone(), path, false)
    }

    /// Makes a staged file visible, whole. Answers of "exists" and "gone" are questions, not answers: what lies at the
    /// path decides, so that a repeated publish succeeds and another file is never replaced.
    pub async fn publish(&self, file: &StagedFile) -> Result<(), PipelineError> {
        let target = self.full_path(&file.path);
        self.0.retry.run("publish", &file.path, || self.publish_once(file, &target)).await
    }

    /// One try.
    async fn publish_once(&self, file: &StagedFile, target: &Path) -> Result<(), object_store::Error> {
        let Inner { objects, staging, .. } = &*self.0;
        let answer = match (&file.kind, staging) {
            // The name is unique to this process and generation: an overwrite can only repeat the same bytes.
            (StagedKind::Inline(payload), _) => objects.put(target, payload.clone()).await.map(|_| ()),
            (StagedKind::Upload { id, parts }, Staging::Multipart(MultipartHandle { uploads, .. })) => {
                uploads.complete_multipart(target, id, parts.clone()).await.map(|_| ())
            }
            (StagedKind::File { staged }, _) => {
                let create = RenameOptions::new().with_target_mode(RenameTargetMode::Create);
                objects.rename_opts(staged, target, create).await
            }
            (StagedKind::Upload { .. }, Staging::Append(_)) => {
                Err(object_store::Error::NotSupported { source: "a multipart upload in a store without them".into() })
            }
        };
        match answer {
            Ok(()) => Ok(()),
            Err(error) => match objects.head(target).await {
                Ok(there) if there.size == file.bytes => Ok(()),
                _ => Err(failure::or_not_found(target, error)),
            },
        }
    }

    /// Gives up a staged file; what cannot be removed is left to the sweep or to the bucket's lifecycle rule.
    pub async fn abort(&self, file: &StagedFile) {
        let Inner { objects, staging, .. } = &*self.0;
        let answer = match (&file.kind, staging) {
            (StagedKind::Upload { id, .. }, Staging::Multipart(MultipartHandle { uploads, .. })) => {
                uploads.abort_multipart(&self.full_path(&file.path), id).await
            }
            (StagedKind::File { staged }, _) => objects.delete(staged).await,
            (StagedKind::Inline(_) | StagedKind::Upload { .. }, _) => Ok(()),
        };
        if let Err(error) = answer
            && !is_not_found(&error)
        {
            tracing::warn!(file = %file.path, %error, "cannot remove a staged file");
        }
    }

    /// Writes a small object whole.
    pub async fn put(&self, path: &Path, bytes: Bytes) -> Result<(), PipelineError> {
        let target = self.full_path(path);
        self.0
            .retry
            .run("put", path, || async {
                self.0.objects.put(&target, PutPayload::from_bytes(bytes.clone())).await.map(|_| ())
            })
            .await
    }

    /// A path in the folder that is ours, below the root: `_fs_data_sink/<pipeline>/<name>`. Not for data files.
    #[must_use]
    pub fn own_name(&self, name: &str) -> Path {
        self.0.own_folder.split('/').chain(name.split('/')).collect()
    }

    /// A new name for a staged file, from the root of the store.
    fn staged_name(&self) -> Path {
        self.own_path(&format!("staging/{}", uuid::Uuid::now_v7()))
    }

    /// A path in our folder, from the root of the store.
    fn own_path(&self, name: &str) -> Path {
        self.full_path(&self.own_name(name))
    }

    /// A path below the root, from the bucket's root. Keeps each part as it is: Hive's escapes stay escapes.
    fn full_path(&self, path: &Path) -> Path {
        if self.0.root.as_ref().is_empty() {
            return path.clone();
        }
        // Both parts were parsed before; joining them by a slash cannot make an invalid path.
        Path::parse(format!("{}/{path}", self.0.root)).unwrap_or_else(|_| path.clone())
    }
}

/// A store, how it stages, the root in it, and its name for messages.
type Opened = (Arc<dyn ObjectStore>, Staging, Path, String);

/// HDFS by the protocol that the configuration asks for.
fn open_hdfs(config: &HdfsConfig, pipeline: &str, io: Handle) -> Result<Opened, PipelineError> {
    let HdfsConfig { protocol, base_path, user } = config;
    let root = Path::parse(base_path)
        .map_err(|error| PipelineError::stop(format!("sink.base_path {base_path:?} is not a path")).because(error))?;
    let scratch = root.parts().chain(["_fs_data_sink", pipeline, "staging"].map(Into::into)).collect();
    let user = user.as_deref();
    match protocol {
        HdfsProtocol::Native { url, conf_dir } => {
            let store = Arc::new(hdfs::NativeHdfs::open(url, conf_dir.as_deref(), user, scratch, io)?);
            let objects: Arc<dyn ObjectStore> = Arc::<hdfs::NativeHdfs>::clone(&store);
            Ok((objects, Staging::Append(store), root, format!("{url}/{base_path}")))
        }
        HdfsProtocol::Web { urls, delegation_token, ca_file } => {
            let (token, ca_file) = (delegation_token.as_ref(), ca_file.as_ref());
            let store = Arc::new(webhdfs::WebHdfs::open(urls, user, token, ca_file, scratch)?);
            let objects: Arc<dyn ObjectStore> = Arc::<webhdfs::WebHdfs>::clone(&store);
            Ok((objects, Staging::Append(store), root, format!("{}/{base_path}", urls.join(";"))))
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use object_store::memory::InMemory;

    use super::*;
    use crate::config::LocalConfig;

    /// A store in memory that stages by multipart upload, as S3 does.
    pub(crate) fn in_memory() -> (Store, Arc<InMemory>) {
        let objects = Arc::new(InMemory::new());
        let uploads: Arc<dyn MultipartStore> = Arc::<InMemory>::clone(&objects);
        (over(Arc::<InMemory>::clone(&objects), uploads, Duration::from_millis(300)), objects)
    }

    /// The same over objects of any kind; a request that fails is tried again for so long.
    pub(crate) fn over(objects: Arc<dyn ObjectStore>, uploads: Arc<dyn MultipartStore>, patience: Duration) -> Store {
        let retry = RetryPolicy::new(patience, "memory".into(), Metrics::detached());
        let staging = Staging::Multipart(MultipartHandle::new(uploads));
        Store::assemble(objects, staging, Path::from("root"), "memory".into(), "orders", retry, Handle::current())
    }

    /// A store in a folder.
    pub(crate) fn in_folder(folder: &std::path::Path) -> Store {
        let sink = SinkConfig {
            kind: SinkKind::Local(LocalConfig { base_path: folder.to_owned() }),
            partition_by: Vec::new(),
            keep_partition_columns: false,
            parquet: crate::config::ParquetConfig::default(),
            retry_timeout: Duration::from_millis(300),
            merge: crate::config::MergeConfig::default(),
        };
        Store::open(&sink, "orders", Metrics::detached(), Handle::current(), &HttpClients::default()).unwrap()
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn multipart_staging_keeps_the_contract() {
        conformance::conform(&in_memory().0).await.unwrap();
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn rename_staging_keeps_the_contract_and_escapes_stay_escapes_on_disk() {
        let folder = tempfile::tempdir().unwrap();
        let store = in_folder(folder.path());
        conformance::conform(&store).await.unwrap();
        assert!(folder.path().join("orders/country=D%2FE/at=10%3A30/größe é.parquet").is_file());
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_folder_that_cannot_be_made_is_named() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let sink = LocalConfig { base_path: file.path().join("lake") };
        let error = local::open(&sink).unwrap_err();
        assert!(error.full_message().contains("sink.base_path"), "{}", error.full_message());
    }
}
