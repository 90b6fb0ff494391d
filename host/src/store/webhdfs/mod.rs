//! HDFS by its REST interface, WebHDFS, which HttpFS speaks too: a client of our own behind the contract of `object_store`.
//!
//! WebHDFS has what the contract needs: exclusive names, renaming without replacing, appending. A file is written part by
//! part, each in a request of its own that ends when the datanodes have it, so that a retry needs one part and not the file.

use std::{fmt, ops::Range, path::PathBuf, sync::Arc};

use async_trait::async_trait;
use chrono::DateTime;
use futures::{StreamExt, TryStreamExt, stream::BoxStream};
use object_store::{
    Attributes, CopyOptions, Error, Extensions, GetOptions, GetResult, GetResultPayload, ListResult, MultipartUpload,
    ObjectMeta, ObjectStore, PutMode, PutMultipartOptions, PutOptions, PutPayload, PutResult, RenameOptions,
    RenameTargetMode, Result, path::Path,
};
use reqwest::Method;
use serde_json::Value;

use super::hadoop::{self, AppendStore, Complaint, in_time};
use crate::{config::Secret, error::PipelineError};

mod client;
mod list;

use client::WebClient;

/// Deletions under way at once: enough to hide the way to the namenode.
const DELETIONS_MAX: usize = 8;

/// A cluster.
#[derive(Clone, Debug)]
pub(super) struct WebHdfs {
    /// Makes requests.
    client: Arc<WebClient>,
    /// Folder for what is not whole yet.
    scratch: Path,
}

impl WebHdfs {
    /// No request is made yet.
    pub(super) fn open(
        urls: &[String],
        user: Option<&str>,
        delegation_token: Option<&Secret>,
        ca_file: Option<&PathBuf>,
        scratch: Path,
    ) -> Result<Self, PipelineError> {
        Ok(Self { client: Arc::new(WebClient::new(urls, user, delegation_token, ca_file)?), scratch })
    }

    /// What there is under a name, with its length.
    async fn status(&self, path: &Path) -> Result<ObjectMeta> {
        let answer = self.client.ask(Method::GET, "GETFILESTATUS", path, &[]).await?;
        let status = answer.get("FileStatus").unwrap_or(&Value::Null);
        if status.get("type").and_then(Value::as_str) != Some("FILE") {
            return Err(Error::NotFound { path: path.to_string(), source: "it is a folder".into() });
        }
        meta(path.clone(), status)
    }

    /// Whether a file is there.
    async fn is_there(&self, path: &Path) -> Result<bool> {
        match self.status(path).await {
            Ok(_) => Ok(true),
            Err(Error::NotFound { .. }) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Writes a file whole, at a name that nobody else has.
    async fn create(&self, path: &Path, bytes: &PutPayload) -> Result<()> {
        self.client.send(Method::PUT, "CREATE", path, &[("overwrite", "true")], bytes).await
    }

    /// Makes the folder of a file.
    async fn make_parent(&self, path: &Path) -> Result<()> {
        let Some((parent, _)) = path.as_ref().rsplit_once('/') else { return Ok(()) };
        self.client.ask(Method::PUT, "MKDIRS", &Path::parse(parent)?, &[]).await.map(|_| ())
    }

    /// Asks for a renaming. `false` of the server is a question: what is there decides.
    async fn rename_once(&self, from: &Path, to: &Path, mode: RenameTargetMode) -> Result<()> {
        let target = format!("/{to}");
        let plain = [("destination", target.as_str())];
        let replacing = [("destination", target.as_str()), ("renameoptions", "OVERWRITE")];
        let is_create = mode == RenameTargetMode::Create;
        let answer = if is_create {
            self.client.ask(Method::PUT, "RENAME", from, &plain).await?
        } else {
            self.client.ask(Method::PUT, "RENAME", from, &replacing).await?
        };
        // With options the server answers by exceptions, and with nothing where all is well.
        if answer.get("boolean").and_then(Value::as_bool).unwrap_or(!is_create) {
            return Ok(());
        }
        if self.is_there(to).await? {
            if is_create {
                return Err(Error::AlreadyExists { path: to.to_string(), source: "it is there".into() });
            }
            // HttpFS knows no options of RENAME.
            self.remove(to).await?;
            let again = self.client.ask(Method::PUT, "RENAME", from, &plain).await?;
            if again.get("boolean").and_then(Value::as_bool) == Some(true) {
                return Ok(());
            }
        }
        let source = "renaming: the source or the folder of the target is not there".into();
        Err(Error::NotFound { path: from.to_string(), source })
    }

    /// Renames, and makes the target's folder where it is missing.
    async fn rename(&self, from: &Path, to: &Path, mode: RenameTargetMode) -> Result<()> {
        match self.rename_once(from, to, mode).await {
            Err(Error::NotFound { .. }) if self.is_there(from).await? => {
                self.make_parent(to).await?;
                self.rename_once(from, to, mode).await
            }
            answer => answer,
        }
    }

    /// Removes a file; one that is gone is removed.
    async fn remove(&self, path: &Path) -> Result<()> {
        in_time(path, async { self.client.ask(Method::DELETE, "DELETE", path, &[]).await.map(|_| ()) }).await
    }

    /// A whole put.
    async fn put(&self, location: &Path, payload: &PutPayload, mode: RenameTargetMode) -> Result<()> {
        if mode == RenameTargetMode::Create && self.is_there(location).await? {
            return Err(Error::AlreadyExists { path: location.to_string(), source: "it is there".into() });
        }
        let temporary = hadoop::scratch_name(&self.scratch);
        let done = match self.create(&temporary, payload).await {
            Ok(()) => self.rename(&temporary, location, mode).await,
            Err(error) => Err(error),
        };
        if done.is_err() {
            // What stays is swept.
            let _ = self.remove(&temporary).await;
        }
        done
    }

    /// Appends what is missing of a part.
    async fn append(&self, path: &Path, offset: u64, bytes: &PutPayload, is_repeated: bool) -> Result<()> {
        if !is_repeated {
            return self.client.send(Method::POST, "APPEND", path, &[], bytes).await;
        }
        // Nothing appended: waits until HDFS has taken the file from an interrupted writer, and closes it, so that its
        // length is exact.
        self.client.send(Method::POST, "APPEND", path, &[], &PutPayload::default()).await?;
        let rest = hadoop::rest(path, offset, bytes, self.status(path).await?.size)?;
        if rest.content_length() == 0 {
            return Ok(());
        }
        self.client.send(Method::POST, "APPEND", path, &[], &rest).await
    }

    /// The bytes of a range.
    async fn read(&self, path: &Path, range: &Range<u64>) -> Result<GetResultPayload> {
        if range.is_empty() {
            return Ok(GetResultPayload::Stream(futures::stream::empty().boxed()));
        }
        let (offset, length) = (range.start.to_string(), (range.end - range.start).to_string());
        let response = self.client.open(path, &[("offset", &offset), ("length", &length)]).await?;
        let path = path.clone();
        let stream = response.bytes_stream().map_err(move |error| client::transport(&path, error));
        Ok(GetResultPayload::Stream(stream.boxed()))
    }
}

/// What a file is, from its status.
fn meta(location: Path, status: &Value) -> Result<ObjectMeta> {
    let number = |name: &str| status.get(name).and_then(Value::as_i64);
    let (Some(length), Some(changed)) = (number("length"), number("modificationTime")) else {
        return Err(hadoop::error(Complaint::Protocol, &location, "a file status without length or time"));
    };
    let last_modified = DateTime::from_timestamp_millis(changed).unwrap_or_default();
    let size = u64::try_from(length).unwrap_or_default();
    Ok(ObjectMeta { location, last_modified, size, e_tag: Some(format!("{changed:x}-{length:x}")), version: None })
}

impl fmt::Display for WebHdfs {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("WebHDFS")
    }
}

#[async_trait]
impl AppendStore for WebHdfs {
    async fn append_at(&self, path: &Path, offset: u64, bytes: &PutPayload, is_repeated: bool) -> Result<()> {
        if offset == 0 {
            return in_time(path, self.create(path, bytes)).await;
        }
        in_time(path, self.append(path, offset, bytes, is_repeated)).await
    }
}

#[async_trait]
impl ObjectStore for WebHdfs {
    /// Writes elsewhere and renames, so that no reader sees a part, and exactly one of several creators wins.
    async fn put_opts(&self, location: &Path, payload: PutPayload, options: PutOptions) -> Result<PutResult> {
        let mode = match options.mode {
            PutMode::Create => RenameTargetMode::Create,
            PutMode::Overwrite => RenameTargetMode::Overwrite,
            PutMode::Update(_) => {
                return Err(Error::NotImplemented {
                    operation: "a conditional update".into(),
                    implementer: self.to_string(),
                });
            }
        };
        in_time(location, self.put(location, &payload, mode)).await?;
        Ok(PutResult { e_tag: None, version: None, extensions: Extensions::default() })
    }

    async fn put_multipart_opts(&self, _: &Path, _: PutMultipartOptions) -> Result<Box<dyn MultipartUpload>> {
        // Files are staged by appending, which a retry can repeat.
        Err(Error::NotImplemented { operation: "multipart uploads".into(), implementer: self.to_string() })
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        let answer = async {
            let meta = self.status(location).await?;
            options.check_preconditions(&meta)?;
            let range = match options.range {
                _ if options.head => 0..0,
                None => 0..meta.size,
                Some(range) => {
                    range.as_range(meta.size).map_err(|error| Error::Generic { store: "HDFS", source: error.into() })?
                }
            };
            let payload = self.read(location, &range).await?;
            Ok(GetResult { payload, meta, range, attributes: Attributes::default(), extensions: Extensions::default() })
        };
        in_time(location, answer).await
    }

    fn delete_stream(&self, locations: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        let store = self.clone();
        let delete = move |location: Result<Path>| {
            let store = store.clone();
            async move {
                let location = location?;
                store.remove(&location).await?;
                Ok(location)
            }
        };
        locations.map(delete).buffered(DELETIONS_MAX).boxed()
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        list::recursive(Arc::clone(&self.client), prefix.cloned().unwrap_or_default())
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        list::one_level(&self.client, prefix.cloned().unwrap_or_default()).await
    }

    async fn copy_opts(&self, _: &Path, _: &Path, _: CopyOptions) -> Result<()> {
        Err(Error::NotImplemented { operation: "copying".into(), implementer: self.to_string() })
    }

    async fn rename_opts(&self, from: &Path, to: &Path, options: RenameOptions) -> Result<()> {
        in_time(to, self.rename(from, to, options.target_mode)).await
    }
}
