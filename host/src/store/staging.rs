//! Writing a file where no reader looks.
//!
//! Comes in: bytes as they are encoded. Goes out: a [`StagedFile`], which says as plain data where the bytes are, so
//! that a ledger can record it. At most [`PARTS_IN_FLIGHT_MAX`] parts are under way per file, and one where the file grows
//! at its end; `write` waits for room.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use bytes::Bytes;
use object_store::{MultipartId, ObjectStoreExt, PutPayload, PutPayloadMut, multipart::PartId, path::Path};
use serde::{Deserialize, Serialize};
use tokio::{sync::Semaphore, task::JoinHandle};

use super::{Inner, MultipartHandle, Staging, Store, failure, hadoop::AppendStore};
use crate::error::PipelineError;

/// Size of a part. S3 wants 5 MiB at least and takes 10,000 parts, so a file may have 78 GiB.
const PART_BYTES: usize = 8 << 20;

/// Parts under way per file: two keep a connection busy while the next one fills; more only hold memory.
const PARTS_IN_FLIGHT_MAX: usize = 2;

/// A whole file in the store that no reader can see yet.
#[derive(Clone, Debug)]
pub struct StagedFile {
    /// Where it will be visible, below the root.
    pub path: Path,
    /// Its length.
    pub bytes: u64,
    /// Where it is now.
    pub(super) kind: StagedKind,
}

/// Where the bytes of a staged file are, as a ledger records it: enough for another process to publish it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StagedAt {
    /// In an uncompleted multipart upload of the file's path.
    Upload {
        /// The upload.
        id: String,
        /// The `ETag`s of its parts, in their order.
        parts: Vec<String>,
    },
    /// In a file of ours.
    File(String),
}

impl StagedFile {
    /// Where its bytes are; `None` while they are only in this process.
    #[must_use]
    pub fn staged_at(&self) -> Option<StagedAt> {
        match &self.kind {
            StagedKind::Inline(_) => None,
            StagedKind::Upload { id, parts } => {
                let parts = parts.iter().map(|part| part.content_id.clone()).collect();
                Some(StagedAt::Upload { id: id.clone(), parts })
            }
            StagedKind::File { staged } => Some(StagedAt::File(staged.to_string())),
        }
    }

    /// A file that a ledger has recorded. `None` where a recorded path is none.
    #[must_use]
    pub fn recorded(path: &str, bytes: u64, staged_at: &StagedAt) -> Option<Self> {
        let kind = match staged_at {
            StagedAt::Upload { id, parts } => StagedKind::Upload {
                id: id.clone(),
                parts: parts.iter().map(|tag| PartId { content_id: tag.clone() }).collect(),
            },
            StagedAt::File(staged) => StagedKind::File { staged: Path::parse(staged).ok()? },
        };
        Some(Self { path: Path::parse(path).ok()?, bytes, kind })
    }
}

/// Where a staged file is.
#[derive(Clone, Debug)]
pub(super) enum StagedKind {
    /// Here, since it is smaller than a part: publishing is one request. A kill loses it, which at least once allows:
    /// its offsets are not committed either.
    Inline(PutPayload),
    /// In an uncompleted multipart upload.
    Upload {
        /// The upload.
        id: MultipartId,
        /// Its parts in their order.
        parts: Vec<PartId>,
    },
    /// In a file of ours.
    File {
        /// From the root of the store.
        staged: Path,
    },
}

/// A part on its way.
type Part = JoinHandle<Result<Option<PartId>, PipelineError>>;

/// Writes one file. Dropping it gives the file up.
#[derive(Debug)]
pub struct StagingWriter {
    /// Where to.
    store: Store,
    /// Where it will be visible.
    path: Path,
    /// Not yet a whole part.
    buffer: PutPayloadMut,
    /// All bytes so far.
    bytes: u64,
    /// What has been begun at the store; `None` before the first part.
    begun: Option<Begun>,
    /// Every part so far, in order.
    parts: Vec<Part>,
    /// One permit for each part that may be under way.
    room: Arc<Semaphore>,
    /// How many permits there are.
    parts_in_flight_max: usize,
    /// Whether a file smaller than a part may stay here until it is published.
    may_stay_here: bool,
}

/// What has been begun at the store.
#[derive(Debug)]
enum Begun {
    /// A multipart upload.
    Upload(MultipartHandle, MultipartId),
    /// A file of ours that grows.
    Growing {
        /// From the root of the store.
        staged: Path,
        /// Where it is.
        files: Arc<dyn AppendStore>,
        /// Bytes that are in it or on their way.
        length: u64,
    },
}

impl StagingWriter {
    /// Nothing is sent before a part is full.
    pub(super) fn new(store: Store, path: Path, may_stay_here: bool) -> Self {
        // What is appended is appended in order.
        let parts_in_flight_max = if matches!(store.0.staging, Staging::Append(_)) { 1 } else { PARTS_IN_FLIGHT_MAX };
        let room = Arc::new(Semaphore::new(parts_in_flight_max));
        let buffer = PutPayloadMut::new();
        Self { store, path, buffer, bytes: 0, begun: None, parts: Vec::new(), room, parts_in_flight_max, may_stay_here }
    }

    /// Whether the bytes will be in memory until the file is published.
    #[must_use]
    pub fn stays_in_memory(&self) -> bool {
        self.may_stay_here && self.begun.is_none()
    }

    /// Bytes that are held here and not yet under way.
    #[must_use]
    pub fn buffered_bytes(&self) -> usize {
        self.buffer.content_length() + (self.parts_in_flight_max - self.room.available_permits()) * PART_BYTES
    }

    /// Appends bytes. Waits while enough parts are under way.
    pub async fn write(&mut self, bytes: Bytes) -> Result<(), PipelineError> {
        self.bytes += bytes.len() as u64;
        self.buffer.push(bytes);
        if self.buffer.content_length() >= PART_BYTES {
            self.send_part().await?;
        }
        Ok(())
    }

    /// Waits until every byte is in the store.
    pub async fn finish(mut self) -> Result<StagedFile, PipelineError> {
        let (path, bytes) = (self.path.clone(), self.bytes);
        if self.stays_in_memory() {
            let payload = std::mem::take(&mut self.buffer).freeze();
            return Ok(StagedFile { path, bytes, kind: StagedKind::Inline(payload) });
        }
        if !self.buffer.is_empty() || self.begun.is_none() {
            self.send_part().await?;
        }
        let mut parts = Vec::with_capacity(self.parts.len());
        for part in std::mem::take(&mut self.parts) {
            parts.extend(part.await.map_err(|error| self.failed("upload a part").because(error))??);
        }
        let kind = match self.begun.take() {
            Some(Begun::Upload(_, id)) => StagedKind::Upload { id, parts },
            Some(Begun::Growing { staged, .. }) => StagedKind::File { staged },
            None => return Err(self.failed("finish a file that was never begun")),
        };
        Ok(StagedFile { path, bytes, kind })
    }

    /// Gives the file up and waits until that is done.
    pub async fn abort(mut self) {
        for part in std::mem::take(&mut self.parts) {
            part.abort();
        }
        if let Some(begun) = self.begun.take() {
            give_up(begun, self.store.clone(), self.store.full_path(&self.path)).await;
        }
    }

    /// Sends what is in the buffer as the next part.
    async fn send_part(&mut self) -> Result<(), PipelineError> {
        let room = Arc::clone(&self.room);
        let permit = room.acquire_owned().await.map_err(|error| self.failed("wait for room").because(error))?;
        self.begin().await?;
        let payload = std::mem::take(&mut self.buffer).freeze();
        let (store, target, name) = (self.store.clone(), self.store.full_path(&self.path), self.name());
        let part = match &mut self.begun {
            Some(Begun::Upload(MultipartHandle { uploads, .. }, id)) => {
                let (uploads, id, index) = (Arc::clone(uploads), id.clone(), self.parts.len());
                self.store.0.io.spawn(async move {
                    let send = || uploads.put_part(&target, &id, index, payload.clone());
                    let part = store.0.retry.run("upload_part", &target, send).await.map(Some);
                    drop(permit);
                    part
                })
            }
            Some(Begun::Growing { staged, files, length }) => {
                let (staged, files, offset) = (staged.clone(), Arc::clone(files), *length);
                *length += payload.content_length() as u64;
                // The permit says that the part before has ended; one that failed must not be followed.
                let before = self.parts.pop();
                self.store.0.io.spawn(async move {
                    if let Some(before) = before {
                        before
                            .await
                            .map_err(|error| PipelineError::retry(format!("{name}: cannot write")).because(error))??;
                    }
                    let is_repeated = AtomicBool::new(false);
                    let send = || files.append_at(&staged, offset, &payload, is_repeated.swap(true, Ordering::Relaxed));
                    store.0.retry.run("append", &target, send).await?;
                    drop(permit);
                    Ok(None)
                })
            }
            None => return Err(self.failed("send a part of a file that was never begun")),
        };
        self.parts.push(part);
        Ok(())
    }

    /// Begins the upload or the file.
    async fn begin(&mut self) -> Result<(), PipelineError> {
        if self.begun.is_some() {
            return Ok(());
        }
        let Inner { staging, retry, .. } = &*self.store.0;
        let begun = match staging {
            Staging::Multipart(uploads) => {
                let target = self.store.full_path(&self.path);
                let id = retry.run("create_upload", &target, || uploads.uploads.create_multipart(&target)).await?;
                Begun::Upload(uploads.clone(), id)
            }
            Staging::Append(files) => {
                let (staged, files) = (self.store.staged_name(), Arc::clone(files));
                Begun::Growing { staged, files, length: 0 }
            }
        };
        self.begun = Some(begun);
        Ok(())
    }

    /// Store and file, for messages.
    fn name(&self) -> String {
        format!("{}/{}", self.store.0.location, self.path)
    }

    /// Something that should not happen.
    fn failed(&self, what: &str) -> PipelineError {
        PipelineError::retry(format!("{}: cannot {what}", self.name()))
    }
}

impl Drop for StagingWriter {
    fn drop(&mut self) {
        for part in &self.parts {
            part.abort();
        }
        if let Some(begun) = self.begun.take() {
            let target = self.store.full_path(&self.path);
            self.store.0.io.spawn(give_up(begun, self.store.clone(), target));
        }
    }
}

/// Removes what was begun; what cannot be removed is left to the sweep or to the bucket's lifecycle rule.
async fn give_up(begun: Begun, store: Store, target: Path) {
    let answer = match begun {
        Begun::Upload(MultipartHandle { uploads, .. }, id) => uploads.abort_multipart(&target, &id).await,
        Begun::Growing { staged, .. } => store.0.objects.delete(&staged).await,
    };
    if let Err(error) = answer
        && !failure::is_not_found(&error)
    {
        tracing::warn!(file = %target, %error, "cannot give up a staged file");
    }
}
