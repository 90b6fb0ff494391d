//! Snapshots: the sum of all records below a sequence, so that a start reads few objects; and the lists of files that the
//! records told of, which outlive them.
//!
//! Whoever appends the record that completes a stretch of [`EVERY`] writes the list of its files, then the snapshot, and then
//! deletes old records. Content and name follow from the records alone, so two who do it write the same,
//! and one who is killed on the way leaves it to the next. A record is deleted only behind the snapshot before the newest,
//! so one who reads has a whole stretch of time.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::{
    read_record, record,
    record::{Action, RecordedFile, VERSION},
    record_path,
    state::State,
};
use crate::{
    error::PipelineError,
    store::{Path, Store},
};

/// Records from snapshot to snapshot: a start reads about as many objects, some tens of milliseconds each on S3.
pub(super) const EVERY: u64 = 64;

/// Nonces that a snapshot remembers: a writer that slept through two stretches still finds its record.
const NONCES: u64 = 2 * EVERY;

/// A snapshot as it is stored.
#[derive(Serialize, Deserialize)]
struct Snapshot {
    /// Version of the format.
    version: u32,
    /// The sum.
    state: State,
}

/// A line of a list of files.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ListedFile {
    /// The record that committed it.
    pub(crate) sequence: u64,
    /// From the store's root.
    pub(crate) path: String,
    /// Its length.
    pub(crate) bytes: u64,
    /// Rows in it.
    pub(crate) rows: u64,
}

/// Where the snapshots lie.
fn folder(store: &Store) -> Path {
    store.own_name("ledger/snapshot")
}

/// The sequences of all snapshots, in order.
pub(super) async fn list(store: &Store) -> Result<Vec<u64>, PipelineError> {
    let objects = store.list(&folder(store)).await?;
    let sequence = |path: &Path| path.filename()?.strip_suffix(".json")?.parse().ok();
    Ok(objects.iter().filter_map(|(path, _)| sequence(path)).collect())
}

/// Where a snapshot lies.
fn path_of(store: &Store, sequence: u64) -> Path {
    store.own_name(&format!("ledger/snapshot/{sequence:020}.json"))
}

/// The newest snapshot; `None` where there is none.
pub(super) async fn newest(store: &Store) -> Result<Option<State>, PipelineError> {
    let Some(sequence) = list(store).await?.last().copied() else { return Ok(None) };
    let path = path_of(store, sequence);
    let Some(bytes) = store.read(&path).await? else { return Ok(None) };
    record::check_version(&path, &bytes)?;
    let Snapshot { state, .. } =
        serde_json::from_slice(&bytes).map_err(|error| record::damaged(&path).because(error))?;
    if state.next == sequence {
        Ok(Some(state))
    } else {
        Err(record::damaged(&path).because(format!("it is of {}", state.next)))
    }
}

/// Takes a snapshot when a stretch is complete. What fails is left to the next one: nothing depends on it but time and space.
pub(super) async fn take_if_due(store: &Store, state: &mut State) {
    if !state.next.is_multiple_of(EVERY) {
        return;
    }
    state.forget_nonces(NONCES);
    if let Err(error) = take(store, state).await {
        tracing::warn!(error = %error.full_message(), sequence = state.next, "no snapshot of the ledger could be taken");
    }
}

/// Takes a snapshot.
async fn take(store: &Store, state: &State) -> Result<(), PipelineError> {
    let until = state.next;
    let from = until.saturating_sub(EVERY);
    let mut text = Vec::new();
    for sequence in from..until {
        // Gone: another one has been faster, and has written all this.
        let Some(record) = read_record(store, sequence).await? else { return Ok(()) };
        for line in listed(sequence, &record.action) {
            serde_json::to_writer(&mut text, &line)
                .map_err(|error| PipelineError::stop("a list of files cannot be written as JSON").because(error))?;
            text.push(b'\n');
        }
    }
    if !text.is_empty() {
        let path = store.own_name(&format!("ledger/files/{from:020}-{until:020}.jsonl"));
        store.put(&path, Bytes::from(text)).await?;
    }
    let snapshot = Snapshot { version: VERSION, state: state.clone() };
    let bytes = serde_json::to_vec(&snapshot)
        .map_err(|error| PipelineError::stop("a snapshot cannot be written as JSON").because(error))?;
    store.put(&path_of(store, until), Bytes::from(bytes)).await?;
    for sequence in from.saturating_sub(EVERY)..from {
        store.remove(&record_path(store, sequence)).await?;
    }
    for old in list(store).await?.into_iter().filter(|sequence| *sequence < from) {
        store.remove(&path_of(store, old)).await?;
    }
    Ok(())
}

/// The files that a record tells of.
pub(super) fn listed(sequence: u64, action: &Action) -> Vec<ListedFile> {
    let line = |sequence: u64, file: &RecordedFile| ListedFile {
        sequence,
        path: file.path.clone(),
        bytes: file.bytes,
        rows: file.rows,
    };
    match action {
        Action::Commit { files, .. } => files.iter().map(|file| line(sequence, file)).collect(),
        Action::Repair { sequence, file } => vec![line(*sequence, file)],
        Action::Claim { .. } | Action::Release { .. } => Vec::new(),
    }
}

/// Every file that the ledger tells of, by path: of lists and of records that are there. A repair counts over the commit.
pub(super) async fn files(store: &Store) -> Result<std::collections::BTreeMap<String, ListedFile>, PipelineError> {
    let mut found = std::collections::BTreeMap::new();
    for (path, _) in store.list(&store.own_name("ledger/files")).await? {
        let Some(bytes) = store.read(&path).await? else { continue };
        for line in bytes.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
            let file: ListedFile =
                serde_json::from_slice(line).map_err(|error| record::damaged(&path).because(error))?;
            found.insert(file.path.clone(), file);
        }
    }
    // The lists end at the newest snapshot, or one stretch before it while it is being taken.
    let newest = list(store).await?.last().copied().unwrap_or_default();
    let mut sequence = newest.saturating_sub(EVERY);
    if read_record(store, sequence).await?.is_none() {
        sequence = newest;
    }
    while let Some(record) = read_record(store, sequence).await? {
        for file in listed(sequence, &record.action) {
            found.insert(file.path.clone(), file);
        }
        sequence += 1;
    }
    Ok(found)
}
