//! What dead writers left in the store, once they are fenced off: open uploads are aborted, and state of plugins that no record
//! tells of is removed.
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
//! The same holds of objects with state, whose names end with the mark as well: they are listed first, too, and one that the ledger
//! needs is left alone.

use std::collections::BTreeSet;

use futures::{StreamExt as _, stream};

use super::{
    PUBLISH_CONCURRENCY, PipelineError, Recovery,
    ledger::states::{self, STATES},
};
use crate::store::{OpenUpload, Path};

/// The folder of the notes.
const NOTES: &str = "writers";

impl Recovery {
    /// Whether this writer may leave something behind that only its note leads to.
    fn leaves_something(&self) -> bool {
        self.store.lists_uploads() || self.keeps_state
    }

    /// Leaves a note that this writer may have uploads or state; before the first of them.
    pub(super) async fn leave_note(&self) -> Result<(), PipelineError> {
        if self.leaves_something() {
            self.store.put(&self.note(), bytes::Bytes::from_static(b"{}")).await?;
        }
        Ok(())
    }

    /// Takes the note back, once the writer has ended well and has no uploads.
    pub async fn take_note_back(&self) {
        if self.leaves_something()
            && let Err(error) = self.store.remove(&self.note()).await
        {
            tracing::debug!(error = %error.full_message(), "a writer's note could not be removed");
        }
    }

    /// Aborts what writers have left open that are fenced off. What fails is left to the next writer that begins.
    pub async fn abort_leftovers(&self) {
        if !self.leaves_something() {
            return;
        }
        match self.try_abort_leftovers().await {
            Ok(0) => {}
            Ok(left) => tracing::info!(left, "removed uploads and state that dead writers had left"),
            Err(error) => {
                tracing::warn!(error = %error.full_message(), "what dead writers have left could not be removed");
            }
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
        let uploads = if self.store.lists_uploads() { self.store.open_uploads().await? } else { Vec::new() };
        let objects = self.store.list(&self.store.own_name(STATES)).await?;
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
        let needed = states::needed(&state);
        let is_left = |path: &Path| {
            marks.contains(mark_of(path).unwrap_or("")) && !needed.contains(path.filename().unwrap_or(""))
        };
        let objects: Vec<Path> = objects.into_iter().map(|(path, _)| path).filter(is_left).collect();
        self.store.remove_all(&objects).await?;
        let dead: Vec<Path> = dead.into_iter().cloned().collect();
        self.store.remove_all(&dead).await?;
        Ok(count + objects.len())
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
