//! Files that are whole: read in stretches, and moved from our folder to where readers see them. What merging needs.
//!
//! A merged file waits as a whole object of our folder until its moment comes, on every store: an uncompleted upload could be
//! aborted by a bucket's rule, and when the files merged into it are gone there would be nothing to write it from again.

use std::{ops::Range, time::Duration};

use bytes::Bytes;
use object_store::{Error, ObjectStoreExt as _, RenameOptions, RenameTargetMode};

use super::{Inner, Path, Published, Staging, Store};
use crate::error::PipelineError;

impl Store {
    /// A stretch of the bytes of an object; `None` where there is no such object.
    pub async fn read_range(&self, path: &Path, range: Range<u64>) -> Result<Option<Bytes>, PipelineError> {
        let target = self.full_path(path);
        self.0
            .retry
            .run("get_range", path, || async {
                match self.0.objects.get_range(&target, range.clone()).await {
                    Ok(bytes) => Ok(Some(bytes)),
                    Err(Error::NotFound { .. }) => Ok(None),
                    Err(error) => Err(error),
                }
            })
            .await
    }

    /// Whether a move happens at one instant. Where it is a copy, a server may write what it read of our folder some time before, so
    /// that a file which was deleted meanwhile is there again.
    #[must_use]
    pub fn moves_at_once(&self) -> bool {
        !matches!(self.0.staging, Staging::Multipart(_))
    }

    /// Every object below the root, in order, with its length and how long ago it was written. Clocks may differ, on S3 by a
    /// quarter of an hour at most: requests with another time in their signature are refused.
    pub async fn list_with_ages(&self) -> Result<Vec<(Path, u64, Duration)>, PipelineError> {
        let (found, now) = (self.list_with_times(&Path::default()).await?, chrono::Utc::now());
        let age = |written| now.signed_duration_since(written).to_std().unwrap_or_default();
        Ok(found.into_iter().map(|(path, bytes, written)| (path, bytes, age(written))).collect())
    }

    /// Moves a whole object of `bytes` bytes from our folder to its place; may be repeated after any failure. Lost: it is in
    /// neither place. Once it is visible nothing of it is left in our folder: whoever comes late with the same move finds
    /// nothing to move, also when the file has been merged into another one and is gone.
    pub async fn reveal(&self, staged: &Path, path: &Path, bytes: u64) -> Result<Published, PipelineError> {
        let (from, to) = (self.full_path(staged), self.full_path(path));
        self.0.retry.run("publish", path, || self.reveal_once(&from, &to, bytes)).await
    }

    /// One try.
    async fn reveal_once(&self, from: &Path, to: &Path, bytes: u64) -> Result<Published, Error> {
        let Inner { objects, staging, .. } = &*self.0;
        if !self.is_whole(to, bytes).await? {
            let moved = match staging {
                // The name is new, so there is nothing that a copy could replace.
                Staging::Multipart(_) => objects.copy(from, to).await,
                Staging::Append(_) => {
                    let create = RenameOptions::new().with_target_mode(RenameTargetMode::Create);
                    objects.rename_opts(from, to, create).await
                }
            };
            if let Err(error) = moved
                && !self.is_whole(to, bytes).await?
            {
                let is_gone = matches!(objects.head(from).await, Err(Error::NotFound { .. }));
                return if is_gone { Ok(Published::Lost) } else { Err(error) };
            }
            if !self.is_whole(to, bytes).await? {
                return Err(Error::Generic {
                    store: "sink",
                    source: format!("{to} is not there after its move").into(),
                });
            }
        }
        match objects.delete(from).await {
            Ok(()) | Err(Error::NotFound { .. }) => Ok(Published::Visible),
            Err(error) => Err(error),
        }
    }

    /// Whether an object is there with its length; another length is another file.
    async fn is_whole(&self, full_path: &Path, bytes: u64) -> Result<bool, Error> {
        match self.0.objects.head(full_path).await {
            Ok(there) if there.size == bytes => Ok(true),
            Ok(there) => {
                let source = format!("it has {} bytes where {bytes} are expected", there.size).into();
                Err(Error::AlreadyExists { path: full_path.to_string(), source })
            }
            Err(Error::NotFound { .. }) => Ok(false),
            Err(error) => Err(error),
        }
    }
}
