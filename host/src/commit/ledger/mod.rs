//! The ledger: what is committed, in the store itself.
//!
//! A chain of small objects, each created only if it is absent, so that of all who want to write the next one, one does.
//! Appending a commit is the moment of commit, and it is the fence: a writer whose partitions were claimed by another
//! finds that claim in the chain before its own record, and drops what it has.
//!
//! ```text
//! _fs_data_sink/<pipeline>/ledger/00000000000000000412.json            a record (record.rs)
//! _fs_data_sink/<pipeline>/ledger/snapshot/00000000000000000384.json   the sum of all records below 384 (state.rs)
//! _fs_data_sink/<pipeline>/ledger/files/00000000000000000320-00000000000000000384.jsonl   files of those records
//! _fs_data_sink/<pipeline>/state/019ab3f0-7c1e-7d2a-9b1f-9f86d081.bin                     state of plugins (states.rs)
//! ```
//!
//! Comes in: claims, commits, repairs. Goes out: where partitions go on, and which commits still have to be made visible.
//! Promises: a commit counts once and only while the writer owns what it commits; a lost answer is resolved by reading
//! back; what a newer program or somebody else wrote is refused, never guessed at. What each record means is decided in
//! `state.rs` and `append.rs`, which do no I/O and are what the model test runs.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use bytes::Bytes;
use tokio::sync::Mutex;

use crate::{
    checkpoint::{CheckpointDelta, SourcePartition},
    error::PipelineError,
    store::{Created, Path, StagedFile, Store},
};

pub mod append;
pub mod audit;
pub mod compaction;
pub mod load;
pub mod record;
mod snapshot;
pub mod state;
pub mod states;

use append::{Answer, Append, Step};
use load::{Load, LoadStep, Loaded};
use record::{Action, Partition, Range, Record, RecordedFile};
use snapshot::Seen;
use state::{Pending, Refusal, State};
use states::{PartitionState, StateRef};

/// Times that a load starts over, since a snapshot was made and records were deleted while it read.
const LOAD_TRIES: usize = 10;

/// Pause after an answer that was lost, before the record is looked for and created again.
const UNKNOWN_PAUSE: Duration = Duration::from_millis(500);

/// Lost answers in a row after which the lane begins anew: the store is away, which its own retries have shown by then.
const UNKNOWN_MAX: usize = 20;

/// The ledger of a pipeline, shared by all lanes of this process. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Ledger(Arc<Inner>);

/// What the clones share.
#[derive(Debug)]
struct Inner {
    /// Where it lies.
    store: Store,
    /// What is known of it, and known to be so. Locked during an append, so that the lanes of a process queue up instead of
    /// racing.
    known: Mutex<Known>,
}

/// What one process knows of a ledger.
#[derive(Debug, Default)]
struct Known {
    /// The sum of all records, as far as they are known.
    state: State,
    /// The last records, for the list of their files.
    seen: Seen,
}

/// What a claim found.
#[derive(Debug)]
pub struct Claimed {
    /// The next offset to read of each partition that was ever committed.
    pub positions: BTreeMap<SourcePartition, i64>,
    /// The state of plugins there, of each partition that has some.
    pub states: BTreeMap<SourcePartition, Vec<StateRef>>,
    /// Commits of these partitions whose files may not be visible yet.
    pub pending: Vec<(u64, Pending)>,
}

impl Ledger {
    /// Reads the ledger of a store's pipeline; an empty one where there is none.
    pub async fn open(store: Store) -> Result<Self, PipelineError> {
        let state = load(&store).await?;
        Ok(Self(Arc::new(Inner { store, known: Mutex::new(Known { state, seen: Seen::default() }) })))
    }

    /// What is known of the ledger now.
    pub async fn state(&self) -> State {
        self.0.known.lock().await.state.clone()
    }

    /// The files of every commit that is not known to be visible, where they are staged.
    pub async fn staged(&self) -> Vec<StagedFile> {
        let known = self.0.known.lock().await;
        let files = known.state.pending.values().flat_map(|pending| &pending.files);
        files.filter_map(|file| StagedFile::recorded(&file.path, file.bytes, &file.staged)).collect()
    }

    /// Claims partitions: from now on no other writer may commit them. Refused where a topic is not the one that was read so
    /// far, by its id.
    pub async fn claim(
        &self,
        writer: &str,
        partitions: &[SourcePartition],
        topic_ids: &BTreeMap<Arc<str>, String>,
    ) -> Result<Claimed, PipelineError> {
        let partitions: Vec<Partition> = partitions.iter().map(Partition::from).collect();
        let topic_ids = topic_ids.iter().map(|(topic, id)| (topic.to_string(), id.clone())).collect();
        let (_, state) = self.append(writer, Action::Claim { partitions: partitions.clone(), topic_ids }).await?;
        let positions = partitions.iter().filter_map(|partition| {
            let next_offset = state.partitions.get(partition).and_then(|position| position.next_offset)?;
            Some((partition.name(), next_offset))
        });
        let states = partitions.iter().map(|partition| (partition.name(), state.state_of(partition).to_vec()));
        let states = states.filter(|(_, state)| !state.is_empty()).collect();
        Ok(Claimed { positions: positions.collect(), states, pending: state.pending_of(&partitions) })
    }

    /// Commits: these files hold the rows of this delta, and this is the state of plugins from here on. `published`: earlier
    /// commits that are visible. Its sequence.
    pub async fn commit(
        &self,
        writer: &str,
        delta: &CheckpointDelta,
        files: Vec<RecordedFile>,
        published: Vec<u64>,
        states: Vec<PartitionState>,
    ) -> Result<u64, PipelineError> {
        let action = Action::Commit { ranges: Range::all(delta), files, published, states };
        let (sequence, _) = self.append(writer, action).await?;
        Ok(sequence)
    }

    /// The state of the plugins of a partition, as far as this process knows; of one that it owns that is so.
    pub async fn state_of(&self, partition: &SourcePartition) -> Vec<StateRef> {
        self.0.known.lock().await.state.state_of(&Partition::from(partition)).to_vec()
    }

    /// The source has deleted these offsets before they were read.
    pub async fn skip(&self, writer: &str, missing: &CheckpointDelta) -> Result<(), PipelineError> {
        self.append(writer, Action::Skip { ranges: Range::all(missing) }).await.map(drop)
    }

    /// A lost file of a pending commit was written again.
    pub async fn repair(&self, writer: &str, sequence: u64, file: RecordedFile) -> Result<(), PipelineError> {
        self.append(writer, Action::Repair { sequence, file }).await.map(drop)
    }

    /// Gives partitions back; those that another writer has claimed meanwhile are left out.
    pub async fn release(
        &self,
        writer: &str,
        partitions: &[SourcePartition],
        published: Vec<u64>,
    ) -> Result<(), PipelineError> {
        let state = self.state().await;
        let partitions: Vec<Partition> = partitions
            .iter()
            .map(Partition::from)
            .filter(|partition| {
                let owner = state.partitions.get(partition).and_then(|position| position.owner.as_deref());
                owner == Some(writer)
            })
            .collect();
        if partitions.is_empty() && published.is_empty() {
            return Ok(());
        }
        self.append(writer, Action::Release { partitions, published }).await.map(drop)
    }

    /// Appends a record, whatever others append meanwhile; its sequence, and the state with it.
    async fn append(&self, writer: &str, action: Action) -> Result<(u64, State), PipelineError> {
        let mut known = self.0.known.lock().await;
        // What is read on the way counts only once the append is through: see `append.rs`.
        let (mut state, mut seen) = (known.state.clone(), Seen::default());
        let record = Record {
            version: action.version(),
            writer: writer.to_owned(),
            nonce: uuid::Uuid::new_v4().to_string(),
            time: chrono::Utc::now().to_rfc3339_opts(chrono::SecondsFormat::Millis, true),
            action,
        };
        let bytes = Bytes::from(record.to_bytes()?);
        let (mut append, mut step) = Append::start(record, &state);
        let mut unknown = 0;
        loop {
            step = match step {
                Step::Create(sequence) => {
                    let answer = self.create(sequence, bytes.clone()).await?;
                    if answer == Answer::Unknown {
                        unknown += 1;
                        if unknown > UNKNOWN_MAX {
                            return Err(PipelineError::restart(
                                "the store does not say whether a ledger record was written",
                            ));
                        }
                        tokio::time::sleep(UNKNOWN_PAUSE).await;
                    }
                    append.created(&mut state, answer)
                }
                Step::Read(sequence) => {
                    let found = read_record(&self.0.store, sequence).await?;
                    if let Some(found) = &found {
                        seen.note(sequence, &found.action);
                    }
                    append.was_read(&mut state, found.as_ref())
                }
                Step::Look(sequence) => {
                    let is_beyond = is_beyond(&self.0.store, sequence).await?;
                    append.looked(&mut state, is_beyond)
                }
                Step::Load => {
                    state = load(&self.0.store).await?;
                    known.state.clone_from(&state);
                    known.seen.clear();
                    seen.clear();
                    append.loaded(&state)
                }
                Step::Appended(sequence) => {
                    seen.note(sequence, &append.record().action);
                    known.seen.extend(seen, state.next);
                    snapshot::take_if_due(&self.0.store, &mut state, &known.seen).await;
                    known.state.clone_from(&state);
                    return Ok((sequence, state));
                }
                Step::Lost => {
                    return Err(PipelineError::restart(
                        "this process slept while the ledger went on so far that it cannot tell what became of its record",
                    ));
                }
                Step::Refused(refusal) => return Err(refused(refusal)),
            };
        }
    }

    /// Creates a record.
    async fn create(&self, sequence: u64, bytes: Bytes) -> Result<Answer, PipelineError> {
        Ok(match self.0.store.create(&record_path(&self.0.store, sequence), bytes).await? {
            Created::New => Answer::New,
            Created::Exists => Answer::Exists,
            Created::Unknown(error) => {
                tracing::warn!(error = %error.full_message(), sequence, "a ledger record got no answer: looking for it");
                Answer::Unknown
            }
        })
    }
}

/// How the message of a refused record begins.
pub const REFUSED: &str = "the ledger refuses the record";

/// A refusal as a failure of the lane; of the pipeline, where only a person can help.
fn refused(refusal: Refusal) -> PipelineError {
    match refusal {
        Refusal::MadeAnew { .. } => PipelineError::stop(refusal.to_string()),
        Refusal::Fenced { .. }
        | Refusal::Behind { .. }
        | Refusal::NotPending(_)
        | Refusal::NotCompactor { .. }
        | Refusal::OtherMerge(_) => PipelineError::restart(REFUSED).because(refusal),
    }
}

/// Whether a record was refused, since another writer has claimed what it is about or has gone on.
#[must_use]
pub fn is_refused(error: &PipelineError) -> bool {
    error.full_message().starts_with(REFUSED)
}

/// Where a record lies.
fn record_path(store: &Store, sequence: u64) -> Path {
    store.own_name(&format!("ledger/{sequence:020}.json"))
}

/// The record of a sequence; `None` where there is none.
async fn read_record(store: &Store, sequence: u64) -> Result<Option<Record>, PipelineError> {
    let path = record_path(store, sequence);
    store.read(&path).await?.map(|bytes| Record::parse(&path, &bytes)).transpose()
}

/// Reads the newest snapshot and every record behind it.
async fn load(store: &Store) -> Result<State, PipelineError> {
    for _ in 0..LOAD_TRIES {
        if let Some(state) = load_once(store).await? {
            return Ok(state);
        }
    }
    Err(PipelineError::retry("the ledger changes faster than it can be read"))
}

/// The same, once; `None` when a snapshot was made meanwhile.
async fn load_once(store: &Store) -> Result<Option<State>, PipelineError> {
    let (mut loading, mut step) = Load::start(snapshot::newest(store).await?);
    let loaded = loop {
        step = match step {
            LoadStep::Read(sequence) => loading.was_read(read_record(store, sequence).await?.as_ref()),
            LoadStep::Look(base) => break loading.looked(is_beyond(store, base).await?),
        };
    };
    match loaded {
        Loaded::Again => Ok(None),
        Loaded::Damaged(sequence, misfit) => Err(record::damaged(&record_path(store, sequence)).because(misfit)),
        Loaded::State(state) => is_the_end(store, state.next).await.map(|is_end| is_end.then_some(state)),
    }
}

/// Whether there is a snapshot of more than a sequence.
async fn is_beyond(store: &Store, sequence: u64) -> Result<bool, PipelineError> {
    Ok(snapshot::list(store).await?.last().is_some_and(|newest| *newest > sequence))
}

/// Whether no record lies at a sequence or behind it; one behind it and none at it is a damaged ledger.
async fn is_the_end(store: &Store, sequence: u64) -> Result<bool, PipelineError> {
    let (folder, next) = (store.own_name("ledger"), record_path(store, sequence));
    let depth = folder.parts_count() + 1;
    let later = store.list(&folder).await?.into_iter().find(|(path, _)| *path > next && path.parts_count() == depth);
    match later {
        Some((path, _)) if read_record(store, sequence).await?.is_none() => {
            Err(record::damaged(&path).because(format!("{next} is missing before it")))
        }
        Some(_) => Ok(false),
        None => Ok(true),
    }
}

#[cfg(test)]
mod tests;
