//! HDFS by Hadoop's own RPC.
//!
//! Reading, listing and renaming are the crate's. Writing is ours: the crate puts temporary files beside their target and
//! leaves them there after a lost race; here they lie in the pipeline's staging folder, which no listing of data sees and
//! which is swept.

use std::{fmt, sync::Arc};

use async_trait::async_trait;
use futures::{StreamExt, TryStreamExt, stream::BoxStream};
use hdfs_native::{Client, ClientBuilder, HdfsError, WriteOptions, file::FileWriter};
use hdfs_native_object_store::HdfsObjectStore;
use object_store::{
    CopyOptions, Error, Extensions, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore,
    PutMode, PutMultipartOptions, PutOptions, PutPayload, PutResult, RenameOptions, RenameTargetMode, Result,
    path::Path,
};
use tokio::runtime::Handle;

use super::hadoop::{self, AppendStore, Complaint, in_time};
use crate::error::PipelineError;

/// Tries of the client by itself, once around two namenodes; waiting for a cluster that is away is up to `retry.rs`, which counts it.
const FAILOVERS_MAX: &str = "3";

/// The client's pause between rounds of namenodes, in milliseconds.
const FAILOVER_PAUSE_MS: &str = "100";

/// A client of one cluster.
#[derive(Clone, Debug)]
pub(super) struct NativeHdfs {
    /// For what the crate does well.
    objects: Arc<HdfsObjectStore>,
    /// For what it does not.
    client: Client,
    /// Folder for what is not whole yet.
    scratch: Path,
}

impl NativeHdfs {
    /// Connects when it is first used.
    pub(super) fn open(
        url: &str,
        conf_dir: Option<&std::path::Path>,
        user: Option<&str>,
        scratch: Path,
        io: Handle,
    ) -> Result<Self, PipelineError> {
        let ours = [
            ("dfs.client.failover.max.attempts", FAILOVERS_MAX),
            ("dfs.client.failover.sleep.base.millis", FAILOVER_PAUSE_MS),
        ];
        let mut builder = ClientBuilder::new().with_url(url).with_config(ours).with_io_runtime(io);
        if let Some(folder) = conf_dir {
            builder = builder.with_config_dir(folder.to_string_lossy());
        }
        if let Some(user) = user {
            builder = builder.with_user(user);
        }
        let client = builder.build().map_err(|error| {
            let advice = "a name without a port is a name service, which sink.hadoop_conf_dir must describe";
            PipelineError::stop(format!("sink.url {url}: the HDFS client cannot be set up; {advice}")).because(error)
        })?;
        Ok(Self { objects: Arc::new(HdfsObjectStore::new(client.clone())), client, scratch })
    }

    /// Writes a file whole, at a name that nobody else has.
    async fn create(&self, path: &Path, bytes: &PutPayload) -> Result<()> {
        let options = WriteOptions::default().overwrite(true);
        let writer = self.client.create(&absolute(path), options).await.map_err(|error| explain(path, error))?;
        Box::pin(fill(writer, path, bytes)).await
    }
}

/// Writes bytes and waits until the datanodes have them.
async fn fill(mut writer: FileWriter, path: &Path, bytes: &PutPayload) -> Result<()> {
    for chunk in bytes {
        Box::pin(writer.write_bytes(chunk.clone())).await.map_err(|error| explain(path, error))?;
    }
    Box::pin(writer.close()).await.map_err(|error| explain(path, error))
}

/// As HDFS names it.
fn absolute(path: &Path) -> String {
    format!("/{path}")
}

/// The client's error as a store's error.
fn explain(path: &Path, error: HdfsError) -> Error {
    let text = error.to_string();
    match error {
        HdfsError::RPCError(class, message) | HdfsError::FatalRPCError(class, message) => {
            hadoop::exception(&class, &message, path)
        }
        HdfsError::AlreadyExists(_) => Error::AlreadyExists { path: path.to_string(), source: text.into() },
        HdfsError::FileNotFound(_) => Error::NotFound { path: path.to_string(), source: text.into() },
        HdfsError::IOError(io) => {
            use std::io::ErrorKind;
            let is_unknown = text.contains("failed to lookup address") || text.contains("Name or service not known");
            let complaint = match io.kind() {
                _ if is_unknown => Complaint::UnknownHost,
                ErrorKind::ConnectionRefused | ErrorKind::HostUnreachable | ErrorKind::NetworkUnreachable => {
                    Complaint::Unreachable
                }
                _ => Complaint::Other,
            };
            hadoop::error(complaint, path, text)
        }
        HdfsError::SASLError(_) | HdfsError::GSSAPIError(..) | HdfsError::NoSASLMechanism => {
            hadoop::error(Complaint::Identity, path, text)
        }
        HdfsError::InvalidPath(_) | HdfsError::InvalidArgument(_) | HdfsError::UnsupportedFeature(_) => {
            hadoop::error(Complaint::Refused, path, text)
        }
        HdfsError::InvalidRPCResponse(_) => hadoop::error(Complaint::Protocol, path, text),
        _ => hadoop::error(Complaint::Other, path, text),
    }
}

/// The crate's error as ours: it keeps the client's error inside a generic one.
fn retold(path: &Path, error: Error) -> Error {
    match error {
        Error::Generic { source, store } => match source.downcast::<HdfsError>() {
            Ok(inner) => explain(path, *inner),
            Err(source) => Error::Generic { store, source },
        },
        Error::AlreadyExists { source, .. } => Error::AlreadyExists { path: path.to_string(), source },
        other => other,
    }
}

impl fmt::Display for NativeHdfs {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("HDFS")
    }
}

#[async_trait]
impl AppendStore for NativeHdfs {
    async fn append_at(&self, path: &Path, offset: u64, bytes: &PutPayload, _is_repeated: bool) -> Result<()> {
        if offset == 0 {
            return in_time(path, self.create(path, bytes)).await;
        }
        let append = async {
            // Closed once this answers yes, so that its length is exact and nobody else writes to it.
            let name = absolute(path);
            let is_free = self.client.recover_lease(&name).await.map_err(|error| explain(path, error))?;
            if !is_free {
                return Err(hadoop::error(Complaint::Held, path, "the lease is being recovered"));
            }
            let there = self.client.get_file_info(&name).await.map_err(|error| explain(path, error))?;
            let rest = hadoop::rest(path, offset, bytes, there.length as u64)?;
            if rest.content_length() == 0 {
                return Ok(());
            }
            let writer = self.client.append(&name).await.map_err(|error| match explain(path, error) {
                // Said of a file that another writer holds.
                Error::AlreadyExists { source, .. } => hadoop::error(Complaint::Held, path, source.to_string()),
                other => other,
            })?;
            Box::pin(fill(writer, path, &rest)).await
        };
        in_time(path, append).await
    }
}

#[async_trait]
impl ObjectStore for NativeHdfs {
    /// Writes elsewhere and renames, so that no reader sees a part, and exactly one of several creators wins.
    async fn put_opts(&self, location: &Path, payload: PutPayload, options: PutOptions) -> Result<PutResult> {
        let target_mode = match options.mode {
            PutMode::Create => RenameTargetMode::Create,
            PutMode::Overwrite => RenameTargetMode::Overwrite,
            PutMode::Update(_) => {
                return Err(Error::NotImplemented {
                    operation: "a conditional update".into(),
                    implementer: self.to_string(),
                });
            }
        };
        if target_mode == RenameTargetMode::Create
            && in_time(location, async { Ok(self.client.get_file_info(&absolute(location)).await.is_ok()) }).await?
        {
            return Err(Error::AlreadyExists { path: location.to_string(), source: "it is there".into() });
        }
        let temporary = hadoop::scratch_name(&self.scratch);
        let done = match in_time(location, self.create(&temporary, &payload)).await {
            Ok(()) => self.rename_opts(&temporary, location, RenameOptions::new().with_target_mode(target_mode)).await,
            Err(error) => Err(error),
        };
        if let Err(error) = done {
            // What stays is swept.
            let removed = async { Ok(self.client.delete(&absolute(&temporary), false).await.is_ok()) };
            let _ = in_time(&temporary, removed).await;
            return Err(error);
        }
        Ok(PutResult { e_tag: None, version: None, extensions: Extensions::default() })
    }

    async fn put_multipart_opts(&self, _: &Path, _: PutMultipartOptions) -> Result<Box<dyn MultipartUpload>> {
        // Files are staged by appending, which a retry can repeat.
        Err(Error::NotImplemented { operation: "multipart uploads".into(), implementer: self.to_string() })
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        in_time(location, async {
            self.objects.get_opts(location, options).await.map_err(|error| retold(location, error))
        })
        .await
    }

    fn delete_stream(&self, locations: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        self.objects.delete_stream(locations).map_err(|error| retold(&Path::default(), error)).boxed()
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        let folder = prefix.cloned().unwrap_or_default();
        self.objects.list(prefix).map_err(move |error| retold(&folder, error)).boxed()
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        let folder = prefix.cloned().unwrap_or_default();
        in_time(&folder, async {
            self.objects.list_with_delimiter(prefix).await.map_err(|error| retold(&folder, error))
        })
        .await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        in_time(to, async { self.objects.copy_opts(from, to, options).await.map_err(|error| retold(to, error)) }).await
    }

    async fn rename_opts(&self, from: &Path, to: &Path, options: RenameOptions) -> Result<()> {
        in_time(to, async { self.objects.rename_opts(from, to, options).await.map_err(|error| retold(to, error)) })
            .await
    }
}
