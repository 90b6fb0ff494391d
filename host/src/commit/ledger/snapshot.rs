//! Snapshots: the sum of all records below a sequence, so that a start reads few objects; and the lists of files that the
//! records told of, which outlive them.
//!
//! Whoever appends the record that completes a stretch of [`EVERY`] writes the list of its files, then the snapshot, and then
//! deletes old records. Content and name follow from the records alone, so two who do it write the same,
//! and one who is killed on the way leaves it to the next. A record is deleted only behind the snapshot before the newest,
//! so one who reads has a whole stretch of time. Objects with the state of plugins that nobody needs any more go before the records
//! that name them.

use std::{
    borrow::Cow,
    collections::{BTreeMap, BTreeSet},
    ops::Range,
};

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::{
    read_record, record,
    record::{Action, FileEntry, Merge, RecordedFile, VERSION, VERSION_WITH_STATE},
    record_path,
    state::State,
    states,
};
use crate::{
    error::PipelineError,
    store::{Created, Path, Store},
};

/// Records from snapshot to snapshot: a start reads about as many objects, some tens of milliseconds each on S3.
const STRETCH: usize = 64;

/// The same, as a sequence.
pub(super) const EVERY: u64 = STRETCH as u64;

/// Most files remembered of records that were seen, about 20 MB; beyond, records are read again.
const SEEN_FILES_MAX: usize = 100_000;

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
    /// Whether the record says that it is gone: merged into another file, or never there.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(crate) is_gone: bool,
}

/// What the last records told of files and of state, so that they need not be read once more.
#[derive(Debug, Default)]
pub(super) struct Seen {
    /// Files, of a stretch.
    files: BTreeMap<u64, Vec<ListedFile>>,
    /// Objects with state, of two stretches, where there are some.
    objects: BTreeMap<u64, BTreeSet<String>>,
}

impl Seen {
    /// A record was seen at a sequence.
    pub(super) fn note(&mut self, sequence: u64, action: &Action) {
        self.files.insert(sequence, listed(sequence, action));
        self.objects.insert(sequence, states::named(action).into_iter().map(str::to_owned).collect());
    }

    /// Takes over what another one has seen behind this one, and forgets what no list will ask for.
    pub(super) fn extend(&mut self, later: Self, next: u64) {
        self.files.extend(later.files);
        self.files = self.files.split_off(&next.saturating_sub(EVERY));
        if self.files.values().map(Vec::len).sum::<usize>() > SEEN_FILES_MAX {
            self.files.clear();
        }
        self.objects.extend(later.objects);
        self.objects = self.objects.split_off(&next.saturating_sub(2 * EVERY));
        if self.objects.values().map(BTreeSet::len).sum::<usize>() > SEEN_FILES_MAX {
            self.objects.clear();
        }
    }

    /// Forgets everything: records were passed over.
    pub(super) fn clear(&mut self) {
        self.files.clear();
        self.objects.clear();
    }

    /// What the record at a sequence told of; `None` if it was not seen.
    fn get(&self, sequence: u64) -> Option<&[ListedFile]> {
        self.files.get(&sequence).map(Vec::as_slice)
    }
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

/// The first record that may be there still, which begins a stretch.
pub(super) async fn first_record(store: &Store) -> Result<u64, PipelineError> {
    Ok(list(store).await?.first().map_or(0, |sequence| sequence.saturating_sub(EVERY)))
}

/// Where a snapshot lies.
fn path_of(store: &Store, sequence: u64) -> Path {
    store.own_name(&format!("ledger/snapshot/{sequence:020}.json"))
}

/// The newest snapshot; `None` where there is none.
pub(super) async fn newest(store: &Store) -> Result<Option<State>, PipelineError> {
    match list(store).await?.last() {
        Some(sequence) => read(store, *sequence).await,
        None => Ok(None),
    }
}

/// The snapshot of a sequence; `None` where there is none.
async fn read(store: &Store, sequence: u64) -> Result<Option<State>, PipelineError> {
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
pub(super) async fn take_if_due(store: &Store, state: &mut State, seen: &Seen) {
    if !state.next.is_multiple_of(EVERY) {
        return;
    }
    state.forget_nonces(NONCES);
    if let Err(error) = take(store, state, seen).await {
        tracing::warn!(error = %error.full_message(), sequence = state.next, "no snapshot of the ledger could be taken");
    }
}

/// Takes a snapshot.
async fn take(store: &Store, state: &State, seen: &Seen) -> Result<(), PipelineError> {
    let until = state.next;
    let from = until.saturating_sub(EVERY);
    // Earlier stretches too, whose records go now: who completed one may have died before it wrote its list.
    let oldest = first_record(store).await?;
    for from in (oldest..until).step_by(STRETCH) {
        if !list_files(store, from, seen).await? {
            // Another one has been faster, and has written all this.
            return Ok(());
        }
    }
    let version = if state.has_state() { VERSION_WITH_STATE } else { VERSION };
    let snapshot = Snapshot { version, state: state.clone() };
    let bytes = serde_json::to_vec(&snapshot)
        .map_err(|error| PipelineError::stop("a snapshot cannot be written as JSON").because(error))?;
    store.put(&path_of(store, until), Bytes::from(bytes)).await?;
    remove_states(store, state, seen, oldest..from).await?;
    let records = (oldest..from).map(|sequence| record_path(store, sequence));
    let snapshots = list(store).await?.into_iter().filter(|sequence| *sequence < from);
    let old: Vec<Path> = records.chain(snapshots.map(|sequence| path_of(store, sequence))).collect();
    store.remove_all(&old).await
}

/// Removes state that nobody needs any more: of older snapshots, and of records that are about to be deleted.
async fn remove_states(store: &Store, now: &State, seen: &Seen, gone: Range<u64>) -> Result<(), PipelineError> {
    if !now.has_state() {
        return Ok(());
    }
    let mut old = BTreeSet::new();
    for sequence in list(store).await?.into_iter().filter(|sequence| *sequence < now.next) {
        if let Some(snapshot) = read(store, sequence).await? {
            old.extend(states::needed(&snapshot).into_iter().map(str::to_owned));
        }
    }
    let kept = objects(store, seen, gone.end..now.next).await?;
    old.extend(objects(store, seen, gone).await?);
    let dead = states::no_longer_needed(now, old, &kept);
    let paths: Vec<Path> = dead.iter().map(|object| store.own_name(&states::name(object))).collect();
    store.remove_all(&paths).await
}

/// The objects with state that records name.
async fn objects(store: &Store, seen: &Seen, records: Range<u64>) -> Result<BTreeSet<String>, PipelineError> {
    let mut found = BTreeSet::new();
    for sequence in records {
        if let Some(objects) = seen.objects.get(&sequence) {
            found.extend(objects.iter().cloned());
        } else {
            let record = read_record(store, sequence).await?;
            let named = record.iter().flat_map(|record| states::named(&record.action));
            found.extend(named.map(str::to_owned));
        }
    }
    Ok(found)
}

/// Writes the list of files of a stretch, unless it is there; `false` when records of it are gone already.
async fn list_files(store: &Store, from: u64, seen: &Seen) -> Result<bool, PipelineError> {
    let until = from + EVERY;
    let path = store.own_name(&format!("ledger/files/{from:020}-{until:020}.jsonl"));
    if store.length(&path).await?.is_some() {
        return Ok(true);
    }
    let mut text = Vec::new();
    for sequence in from..until {
        let lines = match seen.get(sequence) {
            Some(lines) => Cow::Borrowed(lines),
            None => match read_record(store, sequence).await? {
                Some(record) => Cow::Owned(listed(sequence, &record.action)),
                None => return Ok(false),
            },
        };
        for line in lines.iter() {
            serde_json::to_writer(&mut text, line)
                .map_err(|error| PipelineError::stop("a list of files cannot be written as JSON").because(error))?;
            text.push(b'\n');
        }
    }
    // Never over another one: records are deleted once their list is there, so one that is there is right.
    match store.create(&path, Bytes::from(text)).await? {
        Created::New | Created::Exists => Ok(true),
        Created::Unknown(error) => Err(error),
    }
}

/// The files that a record tells of.
pub(super) fn listed(sequence: u64, action: &Action) -> Vec<ListedFile> {
    let line = |sequence: u64, file: &RecordedFile| ListedFile {
        sequence,
        path: file.path.clone(),
        bytes: file.bytes,
        rows: file.rows,
        is_gone: false,
    };
    let entry = |file: &FileEntry, is_gone: bool| {
        let FileEntry { path, bytes, rows } = file.clone();
        ListedFile { sequence, path, bytes, rows, is_gone }
    };
    // Of one merge either the inputs count or the file that they became.
    let merge = |merge: &Merge, is_abandoned: bool| {
        let inputs = merge.inputs.iter().map(|file| entry(file, !is_abandoned));
        inputs.chain([entry(&merge.file, is_abandoned)]).collect()
    };
    match action {
        Action::Commit { files, .. } => files.iter().map(|file| line(sequence, file)).collect(),
        Action::Repair { sequence, file } => vec![line(*sequence, file)],
        Action::Compact(merged) => merge(merged, false),
        Action::CompactAbandoned { merge: merged, .. } => merge(merged, true),
        Action::Claim { .. }
        | Action::Skip { .. }
        | Action::Release { .. }
        | Action::CompactClaim {}
        | Action::Compacted { .. }
        | Action::CompactRelease {} => Vec::new(),
    }
}

/// Every file that the ledger tells of and that is not merged into another, by path: of lists and of records that are there.
/// A repair counts over the commit.
pub(super) async fn files(store: &Store) -> Result<BTreeMap<String, ListedFile>, PipelineError> {
    let mut found = BTreeMap::new();
    for (path, _) in store.list(&store.own_name("ledger/files")).await? {
        let Some(bytes) = store.read(&path).await? else { continue };
        for line in bytes.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
            let file: ListedFile =
                serde_json::from_slice(line).map_err(|error| record::damaged(&path).because(error))?;
            add(&mut found, file);
        }
    }
    // The lists end at the newest snapshot, or before it when one who took a snapshot died on the way.
    let newest = list(store).await?.last().copied().unwrap_or_default();
    for sequence in first_record(store).await?.. {
        match read_record(store, sequence).await? {
            Some(record) => listed(sequence, &record.action).into_iter().for_each(|file| add(&mut found, file)),
            None if sequence >= newest => break,
            None => {}
        }
    }
    found.retain(|_, file| !file.is_gone);
    Ok(found)
}

/// Adds a line, unless a later record has told of the file: a record may be gone that is in a list already, while one before it
/// is still there.
fn add(found: &mut BTreeMap<String, ListedFile>, file: ListedFile) {
    if found.get(&file.path).is_none_or(|known| known.sequence <= file.sequence) {
        found.insert(file.path.clone(), file);
    }
}
