//! Looks at a ledger from outside, beside running pipelines: what it says, and whether the store agrees.
//!
//! Comes in: a store. Goes out: a [`Report`]. Nothing is changed. A commit that is being published while the store is listed
//! can look unfinished; so every finding is looked at once more before it counts.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;

use super::{
    load, read_record,
    record::{self, Action, Merge, Partition, RecordedFile},
    snapshot,
    state::{Position, State},
    states::{self, StateRef},
};
use crate::{
    config::MergeVisibility,
    error::PipelineError,
    store::{Path, Store},
};

/// What a ledger says.
#[derive(Debug, Serialize)]
pub struct Report {
    /// Sequence of the next record.
    pub next: u64,
    /// Every partition with its owner and the next offset to read.
    pub partitions: Vec<PartitionReport>,
    /// Commits whose files are not known to be visible.
    pub pending: Vec<u64>,
    /// The merge that is recorded and not known to be finished.
    pub merging: Option<u64>,
    /// Files that the ledger knows, data and dead letters.
    pub files: usize,
    /// Rows in them.
    pub rows: u64,
    /// Bytes of them.
    pub bytes: u64,
    /// The last records, the oldest first.
    pub records: Vec<RecordReport>,
}

/// A partition.
#[derive(Debug, Serialize)]
pub struct PartitionReport {
    /// Kafka topic, Redis key or path of a file.
    pub topic: String,
    /// Kafka partition number; 0 for the others.
    pub partition: i32,
    /// Owner, next offset, and where the state of its plugins lies.
    #[serde(flatten)]
    pub position: Position,
}

/// A record.
#[derive(Debug, Serialize)]
pub struct RecordReport {
    /// Its sequence.
    pub sequence: u64,
    /// When it was written.
    pub time: String,
    /// By whom.
    pub writer: String,
    /// What it says.
    pub action: &'static str,
    /// In words.
    pub what: String,
}

/// A file as the ledger knows it.
struct Known {
    /// Its length.
    bytes: u64,
    /// Rows in it.
    rows: u64,
}

/// What a ledger says.
pub async fn show(store: &Store) -> Result<Report, PipelineError> {
    let state = load(store).await?;
    let files = known_files(store, &state).await?;
    let mut records = Vec::new();
    for sequence in snapshot::first_record(store).await?..state.next {
        if let Some(record) = read_record(store, sequence).await? {
            records.push(report(sequence, &record));
        }
    }
    Ok(Report {
        next: state.next,
        partitions: state
            .partitions
            .into_iter()
            .map(|(Partition { topic, partition }, position)| PartitionReport { topic, partition, position })
            .collect(),
        pending: state.pending.keys().copied().collect(),
        merging: state.compaction.pending.map(|(sequence, _)| sequence),
        files: files.len(),
        rows: files.values().map(|file| file.rows).sum(),
        bytes: files.values().map(|file| file.bytes).sum(),
        records,
    })
}

/// What a look at the store gave.
#[derive(Debug, Default)]
pub struct Verified {
    /// Everything about the store that does not agree with the ledger, a line each.
    pub findings: Vec<String>,
    /// Offsets that the source deleted before they were read, a line for each partition.
    pub notes: Vec<String>,
}

/// How the offsets of a source follow each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Offsets {
    /// One behind the other, and a source covers those that it passes over: what no commit covers was lost.
    Dense,
    /// As they come (ids of Redis streams): between two commits there need be none.
    Sparse,
}

/// Whether the store agrees with the ledger.
pub async fn verify(store: &Store, offsets: Offsets) -> Result<Verified, PipelineError> {
    let first = look(store, offsets).await?;
    if first.findings.is_empty() {
        return Ok(first);
    }
    // What a running pipeline has finished meanwhile was no finding.
    let again: BTreeSet<String> = look(store, offsets).await?.findings.into_iter().collect();
    let findings = first.findings.into_iter().filter(|finding| again.contains(finding)).collect();
    Ok(Verified { findings, notes: first.notes })
}

/// One look at everything.
async fn look(store: &Store, offsets: Offsets) -> Result<Verified, PipelineError> {
    let state = load(store).await?;
    let known = known_files(store, &state).await?;
    let pending = state.unsettled();
    let there: BTreeMap<String, u64> =
        store.list(&Path::default()).await?.into_iter().map(|(path, bytes)| (path.to_string(), bytes)).collect();
    let mut findings = Vec::new();
    let merging: BTreeSet<&str> = match &state.compaction.pending {
        Some((sequence, merge)) => {
            findings.push(unfinished(*sequence, merge));
            merge.inputs.iter().chain([&merge.file]).map(|file| file.path.as_str()).collect()
        }
        None => BTreeSet::new(),
    };
    for (path, file) in known.iter().filter(|(path, _)| !merging.contains(path.as_str())) {
        match there.get(path) {
            None if pending.contains(path.as_str()) => findings
                .push(format!("{path}: committed and not visible yet: the next start of the pipeline publishes it")),
            None => findings.push(format!("{path}: committed and not there")),
            Some(bytes) if *bytes != file.bytes => {
                findings.push(format!("{path}: has {bytes} bytes where {} were committed", file.bytes));
            }
            Some(_) => {}
        }
    }
    let is_data = |path: &str| !path.starts_with("_fs_data_sink/") && has_suffix(path, "parquet");
    let is_known = |path: &str| known.contains_key(path) || merging.contains(path);
    for path in there.keys().filter(|path| is_data(path) && !is_known(path)) {
        findings.push(format!("{path}: visible, and no record of this ledger owns it"));
    }
    findings.extend(missing_states(&state, &there, store));
    if offsets == Offsets::Dense {
        findings.extend(gaps(store, &state).await?);
    }
    Ok(Verified { findings, notes: deleted_by_source(&state) })
}

/// Objects with state of plugins that are needed and are not there, or not whole.
fn missing_states(state: &State, there: &BTreeMap<String, u64>, store: &Store) -> Vec<String> {
    let of_partitions = state.partitions.iter().map(|(partition, position)| (partition.name(), &position.state));
    let before = state.pending.values().flat_map(|pending| &pending.before);
    let before = before.map(|before| (before.key().name(), &before.plugins));
    let mut findings = BTreeSet::new();
    for (partition, states) in of_partitions.chain(before) {
        for StateRef { plugin, object, object_bytes, .. } in states.iter().filter(|state| !state.object.is_empty()) {
            let path = store.own_name(&states::name(object));
            match there.get(path.as_ref()) {
                Some(bytes) if bytes == object_bytes => {}
                Some(bytes) => _ = findings.insert(format!(
                    "{path}: has {bytes} bytes where {object_bytes} of state of plugin {plugin} for {partition} were written"
                )),
                None => _ = findings.insert(format!("{path}: the state of plugin {plugin} for {partition} is not there")),
            }
        }
    }
    findings.into_iter().collect()
}

/// A merge that is not known to be finished, in words.
fn unfinished(sequence: u64, merge: &Merge) -> String {
    let seen = match merge.visibility {
        MergeVisibility::Doubled => "twice",
        MergeVisibility::Missing => "not at all",
    };
    format!(
        "record {sequence}: {} files are being merged into {} and its rows may be seen {seen} until that is done; where no process \
         does it, the next `fs-data-sink compact` or start with merge_enabled finishes it",
        merge.inputs.len(),
        merge.file.path
    )
}

/// Whether a path ends with a suffix behind a dot.
fn has_suffix(path: &str, suffix: &str) -> bool {
    std::path::Path::new(path).extension().is_some_and(|found| found == suffix)
}

/// Offsets that the source deleted before they were read.
fn deleted_by_source(state: &State) -> Vec<String> {
    let missing = state.partitions.iter().filter(|(_, position)| position.missing > 0).map(|(partition, position)| {
        let missing = position.missing;
        format!("{}: {missing} offsets were deleted by the source before they were read (retention)", partition.name())
    });
    missing.collect()
}

/// Offsets between two commits that neither covers, where the records are still there. A source covers what it passes over
/// (ends of transactions, compaction), so these were read and not written. Overlaps cannot be: a ledger with one does not load.
async fn gaps(store: &Store, state: &State) -> Result<Vec<String>, PipelineError> {
    let mut findings = Vec::new();
    let mut next: BTreeMap<Partition, i64> = BTreeMap::new();
    for sequence in snapshot::first_record(store).await?..state.next {
        let Some(record) = read_record(store, sequence).await? else { continue };
        let (Action::Commit { ranges, .. } | Action::Skip { ranges }) = record.action else { continue };
        for record::Range { topic, partition, from, to } in ranges {
            let partition = Partition { topic, partition };
            if let Some(before) = next.insert(partition.clone(), to).filter(|before| *before < from) {
                findings.push(format!(
                    "{}: record {sequence}: no commit covers offsets {before}..{from}",
                    partition.name()
                ));
            }
        }
    }
    Ok(findings)
}

/// Every file that the ledger knows.
async fn known_files(store: &Store, state: &State) -> Result<BTreeMap<String, Known>, PipelineError> {
    let listed = snapshot::files(store).await?;
    let mut known: BTreeMap<String, Known> =
        listed.into_iter().map(|(path, file)| (path, Known { bytes: file.bytes, rows: file.rows })).collect();
    for RecordedFile { path, bytes, rows, .. } in state.pending.values().flat_map(|pending| &pending.files) {
        known.insert(path.clone(), Known { bytes: *bytes, rows: *rows });
    }
    Ok(known)
}

/// Ranges in words.
fn stretches(ranges: &[record::Range]) -> String {
    let ranges: Vec<_> =
        ranges.iter().map(|range| format!("{} {}..{}", range.source(), range.from, range.to)).collect();
    ranges.join(", ")
}

/// A record in words.
fn report(sequence: u64, record: &record::Record) -> RecordReport {
    let names = |partitions: &[Partition]| {
        let names: Vec<_> = partitions.iter().map(|partition| partition.name().to_string()).collect();
        names.join(", ")
    };
    let (action, what) = match &record.action {
        Action::Claim { partitions, .. } => ("claim", names(partitions)),
        Action::Commit { ranges, files, states, .. } => {
            let rows: u64 = files.iter().map(|file| file.rows).sum();
            let bytes: u64 = states.iter().flat_map(|state| &state.plugins).map(|state| state.bytes).sum();
            let offsets = if ranges.is_empty() { String::new() } else { format!(": {}", stretches(ranges)) };
            let state = if states.is_empty() { String::new() } else { format!("; state of {bytes} bytes") };
            ("commit", format!("{} files, {rows} rows{offsets}{state}", files.len()))
        }
        Action::Skip { ranges } => {
            ("skip", format!("deleted by the source before they were read: {}", stretches(ranges)))
        }
        Action::Repair { sequence, file } => ("repair", format!("{} of commit {sequence}", file.path)),
        Action::Release { partitions, .. } => ("release", names(partitions)),
        Action::CompactClaim {} => ("compact_claim", String::new()),
        Action::Compact(merge) => {
            ("compact", format!("{} files into {}, {} rows", merge.inputs.len(), merge.file.path, merge.file.rows))
        }
        Action::Compacted { sequence } => ("compacted", format!("merge {sequence}")),
        Action::CompactAbandoned { sequence, .. } => ("compact_abandoned", format!("merge {sequence}")),
        Action::CompactRelease {} => ("compact_release", String::new()),
    };
    RecordReport { sequence, time: record.time.clone(), writer: record.writer.clone(), action, what }
}
