//! Small objects: created once, read back, listed, removed. What a ledger is made of.
//!
//! The one primitive that matters is create-if-absent: of all who try, one succeeds. A server's answer may be lost on
//! its way, so the answer has a third value, and the caller reads back what is there.

use std::time::Duration;

use bytes::Bytes;
use chrono::{DateTime, Utc};
use futures::{StreamExt as _, TryStreamExt as _, stream};
use object_store::{Error, ObjectStoreExt as _, PutMode, PutOptions, PutPayload};

use super::{Inner, Path, StagedFile, Staging, Store, failure, failure::is_not_found, staging::StagedKind};
use crate::error::{PipelineError, Verdict};

/// How often the probe at start is made: the store has just answered, so this is for a bad connection.
const PROBE_TRIES_MAX: u32 = 20;

/// Pause between two of them.
const PROBE_PAUSE: Duration = Duration::from_millis(500);

/// What came of creating an object.
#[derive(Debug)]
pub enum Created {
    /// It is there, and it is ours.
    New,
    /// Another one is there; or ours, when an earlier try had succeeded without an answer.
    Exists,
    /// Nobody knows: the request failed on its way there or back.
    Unknown(PipelineError),
}

/// What came of making a staged file visible.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Published {
    /// It is visible, by this call or by an earlier one.
    Visible,
    /// It is not, and what was staged is gone: aborted by a bucket's rule, or deleted.
    Lost,
}

impl Store {
    /// Creates an object unless there is one. One try; only an answer that a person has to act upon is an error.
    pub async fn create(&self, path: &Path, bytes: Bytes) -> Result<Created, PipelineError> {
        let Inner { objects, location, .. } = &*self.0;
        let target = self.full_path(path);
        let options = PutOptions { mode: PutMode::Create, ..PutOptions::default() };
        match objects.put_opts(&target, PutPayload::from_bytes(bytes), options).await {
            Ok(_) => Ok(Created::New),
            Err(Error::AlreadyExists { .. } | Error::Precondition { .. }) => Ok(Created::Exists),
            Err(error) => {
                let error = failure::explain(&format!("{location}/{path}"), "create", error);
                if error.verdict() == Verdict::Stop { Err(error) } else { Ok(Created::Unknown(error)) }
            }
        }
    }

    /// The bytes of an object; `None` where there is none.
    pub async fn read(&self, path: &Path) -> Result<Option<Bytes>, PipelineError> {
        let target = self.full_path(path);
        self.0
            .retry
            .run("get", path, || async {
                match self.0.objects.get(&target).await {
                    Ok(answer) => answer.bytes().await.map(Some),
                    Err(Error::NotFound { .. }) => Ok(None),
                    Err(error) => Err(error),
                }
            })
            .await
    }

    /// The length of an object; `None` where there is none.
    pub async fn length(&self, path: &Path) -> Result<Option<u64>, PipelineError> {
        let target = self.full_path(path);
        self.0
            .retry
            .run("head", path, || async {
                match self.0.objects.head(&target).await {
                    Ok(there) => Ok(Some(there.size)),
                    Err(Error::NotFound { .. }) => Ok(None),
                    Err(error) => Err(error),
                }
            })
            .await
    }

    /// Every object below a folder, which is empty for the root, with its length; paths from the root, in order.
    pub async fn list(&self, folder: &Path) -> Result<Vec<(Path, u64)>, PipelineError> {
        let objects = self.list_with_times(folder).await?;
        Ok(objects.into_iter().map(|(path, bytes, _)| (path, bytes)).collect())
    }

    /// The same with the time at which each was written.
    pub(super) async fn list_with_times(
        &self,
        folder: &Path,
    ) -> Result<Vec<(Path, u64, DateTime<Utc>)>, PipelineError> {
        let prefix = self.full_path(folder);
        let prefix = (!prefix.as_ref().is_empty()).then_some(prefix);
        let found = self.0.retry.run("list", folder, || async {
            match self.0.objects.list(prefix.as_ref()).try_collect::<Vec<_>>().await {
                Err(Error::NotFound { .. }) => Ok(Vec::new()),
                answer => answer,
            }
        });
        let mut objects: Vec<_> = found
            .await?
            .into_iter()
            .filter_map(|object| Some((self.below_root(&object.location)?, object.size, object.last_modified)))
            .collect();
        objects.sort_unstable();
        Ok(objects)
    }

    /// Removes an object; that it was gone already is fine.
    pub async fn remove(&self, path: &Path) -> Result<(), PipelineError> {
        let target = self.full_path(path);
        self.0
            .retry
            .run("delete", path, || async {
                match self.0.objects.delete(&target).await {
                    Err(Error::NotFound { .. }) => Ok(()),
                    answer => answer,
                }
            })
            .await
    }

    /// Removes objects, by as few requests as the store allows; that some were gone already is fine.
    pub async fn remove_all(&self, paths: &[Path]) -> Result<(), PipelineError> {
        let Some(first) = paths.first() else { return Ok(()) };
        let targets: Vec<Path> = paths.iter().map(|path| self.full_path(path)).collect();
        self.0
            .retry
            .run("delete", first, || async {
                let locations = stream::iter(targets.clone()).map(Ok).boxed();
                let answers = self.0.objects.delete_stream(locations);
                let failures = answers.filter_map(|answer| async { answer.err().filter(|error| !is_not_found(error)) });
                std::pin::pin!(failures).next().await.map_or(Ok(()), Err)
            })
            .await
    }

    /// Makes a staged file visible, or finds that it was lost. For files that a ledger has recorded.
    pub async fn publish_recorded(&self, file: &StagedFile) -> Result<Published, PipelineError> {
        let target = self.full_path(&file.path);
        self.0
            .retry
            .run("publish", &file.path, || async {
                match self.publish_once(file, &target).await {
                    Ok(()) => Ok(Published::Visible),
                    Err(Error::NotFound { .. }) => Ok(Published::Lost),
                    Err(error) => Err(error),
                }
            })
            .await
    }

    /// Refuses a store in which two may create the same object. Where an answer is lost, the question is asked anew.
    pub async fn probe_create_if_absent(&self) -> Result<(), PipelineError> {
        let mut tries = 1;
        loop {
            match self.probe_once().await {
                Err(error) if error.verdict() == Verdict::Retry && tries < PROBE_TRIES_MAX => {
                    tracing::warn!(error = %error.full_message(), tries, "the probe of the store got no answer: once more");
                    tokio::time::sleep(PROBE_PAUSE).await;
                    tries += 1;
                }
                ended => return ended,
            }
        }
    }

    /// One try.
    async fn probe_once(&self) -> Result<(), PipelineError> {
        let path = self.own_name(&format!("probe/{}", uuid::Uuid::now_v7()));
        let mut answers = Vec::with_capacity(2);
        for content in ["first", "second"] {
            answers.push(match self.create(&path, Bytes::from_static(content.as_bytes())).await? {
                Created::Unknown(error) => return Err(error),
                answer => answer,
            });
        }
        let content = self.read(&path).await?;
        self.remove(&path).await?;
        match (answers.as_slice(), content.as_deref()) {
            ([Created::New, Created::Exists], Some(b"first")) => Ok(()),
            _ => Err(PipelineError::stop(format!(
                "pipeline.delivery: exactly_once needs a store that refuses to create an object twice, and {} does not \
                 (it ignores `If-None-Match: *`): use another server, or `delivery: at_least_once`",
                self.0.location
            ))),
        }
    }

    /// A path below the store's root.
    pub(super) fn below_root(&self, full: &Path) -> Option<Path> {
        let root = self.0.root.as_ref();
        if root.is_empty() {
            return Some(full.clone());
        }
        Path::parse(full.as_ref().strip_prefix(root)?.strip_prefix('/')?).ok()
    }

    /// Removes staging files that dead processes left behind, except those that a ledger still needs. Only for stores that
    /// stage in files; the uploads of S3 are left to the bucket's lifecycle rule.
    pub async fn sweep_staging(&self, needed: &[StagedFile]) {
        if !matches!(self.0.staging, Staging::Multipart(_)) {
            let needed: Vec<&Path> = needed
                .iter()
                .filter_map(|file| match &file.kind {
                    StagedKind::File { staged } => Some(staged),
                    StagedKind::Inline(_) | StagedKind::Upload { .. } => None,
                })
                .collect();
            self.sweep(&self.own_path("staging"), &needed).await;
        }
    }
}
