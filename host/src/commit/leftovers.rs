//! Uploads that dead writers left open in the store: aborted once their writer is fenced off.
//!
//! Comes in: the notes that writers leave in `_fs_data_sink/<pipeline>/writers/`, the open uploads of the store, the ledger.
//! Goes out: aborted uploads. Promises: no upload of a writer that can still commit it, and none that the ledger waits to
//! make visible, is touched.
//!
//! **Why it is safe.** An upload is aborted if its file's name ends with the mark of a writer that has left a note, that
//! writer owns no partition, and no pending commit has the file. The uploads are listed first and the ledger is read after.
//! A writer begins uploads only for partitions that it has claimed. If it owns none any more when the ledger is read, it was
//! fenced off or gave all back after an upload in the list was begun: so that upload is in a commit before the claim that
//! fenced it off, or it never can be. Commits before are pending, and left alone, or visible, and have no open upload.
//! A file that another writer restores has its old name, and its commit is pending until it is visible.

use std::collections::BTreeSet;

use futures::{StreamExt as _, stream};

use super::{PUBLISH_CONCURRENCY, PipelineError, Recovery};
use crate::store::{OpenUpload, Path};

/// The folder of the notes.
const NOTES: &str = "writers";

impl Recovery {
    /// Leaves a note that this writer may have uploads; before the first of them.
    pub(super) async fn leave_note(&self) -> Result<(), PipelineError> {
        if self.store.lists_uploads() {
            self.store.put(&self.note(), bytes::Bytes::from_static(b"{}")).await?;
        }
        Ok(())
    }

    /// Takes the note back, once the writer has ended well and has no uploads.
    pub async fn take_note_back(&self) {
        if self.store.lists_uploads()
            && let Err(error) = self.store.remove(&self.note()).await
        {
            tracing::debug!(error = %error.full_message(), "a writer's note could not be removed");
        }
    }

    /// Aborts what writers have left open that are fenced off. What fails is left to the next writer that begins.
    pub async fn abort_leftovers(&self) {
        if !self.store.lists_uploads() {
            return;
        }
        match self.try_abort_leftovers().await {
            Ok(0) => {}
            Ok(uploads) => tracing::info!(uploads, "aborted uploads that dead writers had left open"),
            Err(error) => tracing::warn!(error = %error.full_message(), "uploads of dead writers could not be aborted"),
        }
    }

    /// The same; how many.
    async fn try_abort_leftovers(&self) -> Result<usize, PipelineError> {
        let notes = self.store.list(&self.store.own_name(NOTES)).await?;
        let own = self.note();
        let others: Vec<Path> = notes.into_iter().map(|(path, _)| path).filter(|path| *path != own).collect();
        if others.is_empty() {
            return Ok(0);
        }
        let uploads = self.store.open_uploads().await?;
        let state = self.writer.ledger.look().await?;
        let owners: BTreeSet<&str> =
            state.partitions.values().filter_map(|position| position.owner.as_deref()).collect();
        let dead: Vec<&Path> = others.iter().filter(|note| !owners.contains(note.filename().unwrap_or(""))).collect();
        let marks: BTreeSet<&str> = dead.iter().map(|note| mark(note.filename().unwrap_or(""))).collect();
        let unsettled = state.unsettled();
        let is_left = |upload: &&OpenUpload| {
            marks.contains(mark_of(&upload.path).unwrap_or("")) && !unsettled.contains(upload.path.as_ref())
        };
        let left: Vec<_> = uploads.iter().filter(is_left).map(|upload| self.store.abort_upload(upload)).collect();
        let count = left.len();
        let answers: Vec<_> = stream::iter(left).buffer_unordered(PUBLISH_CONCURRENCY).collect().await;
        answers.into_iter().collect::<Result<(), _>>()?;
        let dead: Vec<Path> = dead.into_iter().cloned().collect();
        self.store.remove_all(&dead).await?;
        Ok(count)
    }

    /// Where this writer's note lies.
    fn note(&self) -> Path {
        self.store.own_name(&format!("{NOTES}/{}", self.writer.writer))
    }
}

/// What of a writer's id is in the names of its files: the last eight digits, which are random.
pub(super) fn mark(writer: &str) -> &str {
    writer.len().checked_sub(8).and_then(|from| writer.get(from..)).unwrap_or(writer)
}

/// The mark in the name of a file.
fn mark_of(path: &Path) -> Option<&str> {
    let (stem, _extension) = path.filename()?.rsplit_once('.')?;
    stem.rsplit_once('-').map(|(_, mark)| mark)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mark_of_a_file_is_that_of_its_writer() {
        let writer = "019ab3f0-7c1e-7d2a-9b1f-3c5d9f86d081";
        assert_eq!(mark(writer), "9f86d081");
        for name in [
            "orders/c=DE/20261123T142512Z-l03-g000012-f00004-9f86d081.parquet",
            "_fs_data_sink/p/dead_letters/20261123T142512Z-l03-g000012-9f86d081.jsonl",
        ] {
            assert_eq!(mark_of(&Path::parse(name).unwrap()), Some("9f86d081"));
        }
        assert_eq!((mark_of(&Path::parse("orders/notes").unwrap()), mark("x")), (None, "x"));
    }
}
