//! One worker: takes events from its source stream, in order, and ends generations when they are due.
//!
//! Ends when the source has ended (drained after a stop, read to its end) and the last generation is committed, or
//! with the first failure; then nothing of the open generation becomes visible and its positions stay uncommitted.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, hash_map::Entry},
    sync::Arc,
    time::Duration,
};

use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;
use tracing::Instrument as _;

use super::{Shared, commits::Commits, flow::Flow, flow::FlowOutput, restore, states::KnownStates};
use crate::{
    batch::{ChainState, ClosedGeneration, RawBatch, Rejection, Stage},
    checkpoint::{CheckpointDelta, SourcePartition},
    commit::{Claim, CommitContext, Committer, LedgerWriter, Recovery},
    config::{DeadLetterConfig, ErrorHandling},
    error::PipelineError,
    file::{self, FileContext, Generation},
    plugin::{FlushReason, LanePauses, keeps_state},
    source::{SourceControl, SourceEvent, SourceStream},
    telemetry::rate_limit::RateLimited,
};

/// Refused records are logged at most this often; all of them are counted and in the dead letters.
const REJECTION_LOG_INTERVAL: Duration = Duration::from_secs(10);

/// So long a registry may take to answer before what was read so far is committed: far longer than one that is there takes.
const REGISTRY_PATIENCE: Duration = Duration::from_secs(2);

/// The state of a lane.
struct Lane {
    /// What the lanes share.
    shared: Shared,
    /// Which lane this is.
    number: usize,
    /// How its plugins tell that they wait.
    pauses: LanePauses,
    /// One per dataset.
    flows: HashMap<Arc<str>, Flow>,
    /// State that was claimed and that no chain has taken yet.
    known: KnownStates,
    /// What was written since the last commit.
    generation: Generation,
    /// The state of the chains that were flushed at its end.
    states: Vec<ChainState>,
    /// Where generations go when they are closed.
    commits: Commits,
    /// For exactly once.
    writer: Option<LedgerWriter>,
    /// What it has claimed in the ledger.
    owned: BTreeSet<SourcePartition>,
    /// Whether plugins gave out all they kept, since the input has ended.
    has_given_out: bool,
    /// Keeps the log readable when many records are refused.
    rejection_log: RateLimited,
}

/// What the lane does next.
enum Next {
    /// Something came from the source; `None` when it is gone.
    Event(Option<SourceEvent>),
    /// The open generation has reached its age.
    Due,
    /// The process drains.
    Stop,
    /// A commit failed for good.
    Failed(PipelineError),
}

/// Runs a lane to its end.
pub(super) async fn run(
    shared: Shared,
    lane: usize,
    mut stream: SourceStream,
    stop: CancellationToken,
) -> Result<(), PipelineError> {
    let source = stream.control.clone();
    let mut lane = Lane::new(shared, lane, source.clone(), stop.clone());
    let result = lane.work(&mut stream, &stop).await;
    if result.is_err() {
        lane.generation.abandon().await;
    }
    for flow in std::mem::take(&mut lane.flows).into_values() {
        flow.close().await;
    }
    // After a failure, what is still in the queue is committed or dropped as a whole, and the failure is what is told.
    let committed = lane.commits.finish().await;
    if result.is_ok() && committed.is_ok() {
        if lane.has_given_out {
            lane.shared.unfinished.given_out(&lane.owned);
        }
        let owned: Vec<_> = lane.owned.iter().cloned().collect();
        lane.release(&owned).await;
        if let Some(recovery) = lane.recovery() {
            recovery.take_note_back().await;
        }
    }
    source.close().await;
    result.and(committed)
}

impl Lane {
    /// A lane with nothing open.
    fn new(shared: Shared, lane: usize, source: SourceControl, stop: CancellationToken) -> Self {
        let Shared { config, store, budget, metrics, runtime, totals, .. } = &shared;
        let writer = shared.ledger.clone().map(LedgerWriter::new);
        let writer_mark = writer.as_ref().map_or_else(file::writer_mark, |writer| writer.mark().into());
        let context = CommitContext {
            store: store.clone(),
            pipeline: Arc::clone(&config.name),
            lane,
            writer_mark: Arc::clone(&writer_mark),
            dead_letter: config.dead_letter.clone(),
            metrics: metrics.clone(),
        };
        let committer = Committer::new(context, writer.clone());
        let commits = Commits::start(committer, source, Arc::clone(totals), shared.losses.clone(), &runtime.io);
        let generation = Generation::new(FileContext {
            store: store.clone(),
            sink: config.sink.clone(),
            run: config.run.clone(),
            pipeline: Arc::clone(&config.name),
            path: None,
            lane,
            writer_mark,
            budget: budget.clone(),
            metrics: metrics.clone(),
            io: runtime.io.clone(),
        });
        let rejection_log = RateLimited::new(REJECTION_LOG_INTERVAL);
        let known = KnownStates::new(recovery(&shared, writer.as_ref()));
        let pauses = shared.pauses.lane(stop);
        Self {
            shared,
            number: lane,
            pauses,
            flows: HashMap::new(),
            known,
            generation,
            states: Vec::new(),
            commits,
            writer,
            owned: BTreeSet::new(),
            has_given_out: false,
            rejection_log,
        }
    }

    /// Handles events until the source ends; then commits what is left.
    async fn work(&mut self, stream: &mut SourceStream, stop: &CancellationToken) -> Result<(), PipelineError> {
        let mut draining = false;
        loop {
            match self.next(stream, stop, draining).await {
                Next::Event(Some(SourceEvent::Batch(raw))) => {
                    let span = tracing::info_span!("batch", pipeline = %self.shared.config.name, lane = self.number,
                        dataset = %raw.dataset, records = raw.envelope.len());
                    self.process(raw).instrument(span).await?;
                }
                Next::Event(Some(SourceEvent::Revoked { release, partitions })) => {
                    // None are where a source fails and wants what it has sent to be committed before it says so.
                    if !partitions.is_empty() {
                        tracing::info!(pipeline = %self.shared.config.name, lane = self.number,
                            partitions = partitions.len(), "partitions are taken away: committing what was read of them");
                    }
                    self.end_generation_and_wait().await?;
                    if !partitions.is_empty() {
                        self.release(&partitions).await;
                        self.let_go(&partitions).await;
                    }
                    // The source may have given up waiting; then it has already dropped the partitions.
                    let _ = release.send(());
                }
                Next::Event(Some(SourceEvent::Assigned { partitions, topic_ids, begin })) => {
                    let positions = self.claim(&partitions, &topic_ids).await?;
                    // The source may have given up waiting; then it has failed, and says so next.
                    let _ = begin.send(positions);
                    if let Some(recovery) = self.recovery() {
                        recovery.abort_leftovers().await;
                    }
                }
                Next::Event(Some(SourceEvent::Missing(missing))) => self.skip(&missing).await?,
                Next::Event(Some(SourceEvent::Refused { raw, code, message })) => {
                    self.refuse(raw, code, message).await?;
                }
                // Whether another one has claimed them is not known yet, and the open generation has their rows.
                Next::Event(Some(SourceEvent::Lost { .. })) if self.writer.is_some() => {
                    return Err(PipelineError::restart("partitions were lost: the session expired"));
                }
                // Their rows are published once more by the next owner; at least once allows it, and dropping the
                // generation would lose rows of the partitions that are still ours.
                Next::Event(Some(SourceEvent::Lost { .. })) => self.end_generation_and_wait().await?,
                Next::Event(Some(SourceEvent::End)) => break,
                Next::Event(None) => return Err(PipelineError::stop("the source ended without saying so")),
                Next::Due => self.end_generation().await?,
                Next::Stop => {
                    draining = true;
                    stream.control.stop();
                }
                Next::Event(Some(SourceEvent::Failed(error))) | Next::Failed(error) => return Err(error),
            }
        }
        let reason = self.why_it_ends(draining);
        if reason == FlushReason::EndOfInput {
            self.open_waiting().await?;
        }
        self.flush(reason).await?;
        self.close_generation().await?;
        self.has_given_out = reason == FlushReason::EndOfInput;
        Ok(())
    }

    /// Whether more input comes later. What plugins keep over a restart is not to be given out when the process only stops.
    fn why_it_ends(&self, draining: bool) -> FlushReason {
        let goes_on = draining || self.shared.config.run.batches_max.is_some();
        if goes_on && keeps_state(&self.shared.plugins) { FlushReason::Checkpoint } else { FlushReason::EndOfInput }
    }

    /// Opens the chains that have something left to give out, though no record came for them.
    async fn open_waiting(&mut self) -> Result<(), PipelineError> {
        for (partition, dataset) in self.known.waiting() {
            let flow = match self.flows.entry(Arc::clone(&dataset)) {
                Entry::Occupied(entry) => entry.into_mut(),
                Entry::Vacant(entry) => {
                    entry.insert(Flow::new(self.shared.clone(), self.number, &dataset, self.pauses.clone())?)
                }
            };
            flow.open(&partition, &mut self.known).await?;
        }
        Ok(())
    }

    /// Partitions are gone, or come anew: their chains and what is known of their state go.
    async fn let_go(&mut self, partitions: &[SourcePartition]) {
        for flow in self.flows.values_mut() {
            flow.release(partitions).await;
        }
        self.known.forget(partitions);
    }

    /// Claims partitions in the ledger, and makes visible what was committed of them before; where each goes on.
    async fn claim(
        &mut self,
        partitions: &[SourcePartition],
        topic_ids: &BTreeMap<Arc<str>, String>,
    ) -> Result<BTreeMap<SourcePartition, i64>, PipelineError> {
        let Some(recovery) = self.recovery() else { return Ok(BTreeMap::new()) };
        self.let_go(partitions).await;
        let Claim { positions, states, lost } = recovery.claim(partitions, topic_ids).await?;
        self.known.add(states, &self.shared.plugins)?;
        if !lost.is_empty() {
            restore::restore(&self.shared, self.number, &recovery, &lost).await?;
        }
        self.owned.extend(partitions.iter().cloned());
        self.shared.unfinished.claimed(partitions);
        Ok(positions)
    }

    /// Records and tells that the source has deleted records before they were read.
    async fn skip(&mut self, missing: &CheckpointDelta) -> Result<(), PipelineError> {
        if let Some(writer) = self.writer.clone() {
            // What was read before the gap is recorded before it.
            self.end_generation_and_wait().await?;
            writer.skip(missing).await?;
        }
        for (partition, range) in missing.iter() {
            self.shared.metrics.gap(&partition.topic, u64::try_from(range.to - range.from).unwrap_or(0));
            tracing::warn!(pipeline = %self.shared.config.name, %partition, from = range.from, to = range.to,
                "the source has deleted records that were never read (retention); reading goes on behind them");
        }
        Ok(())
    }

    /// Its hold on the ledger and the store, for exactly once.
    fn recovery(&self) -> Option<Recovery> {
        recovery(&self.shared, self.writer.as_ref())
    }

    /// Gives partitions back in the ledger, once all that was read of them is committed. Whoever comes next claims them anyway,
    /// so a failure costs nothing.
    async fn release(&mut self, partitions: &[SourcePartition]) {
        let Some(writer) = &self.writer else { return };
        if let Err(error) = writer.release(partitions).await {
            tracing::info!(pipeline = %self.shared.config.name, lane = self.number, error = %error.full_message(),
                "partitions could not be given back in the ledger");
        }
        self.owned.retain(|owned| !partitions.contains(owned));
    }

    /// Waits for the next thing to do. Cancel-safe in all its parts.
    async fn next(&mut self, stream: &mut SourceStream, stop: &CancellationToken, draining: bool) -> Next {
        let deadline = self.generation.deadline().map(Instant::from_std);
        tokio::select! {
            biased;
            () = stop.cancelled(), if !draining => Next::Stop,
            error = self.commits.failed() => Next::Failed(error),
            () = sleep_until(deadline.unwrap_or_else(Instant::now)), if deadline.is_some() => Next::Due,
            event = stream.events.recv() => Next::Event(event),
        }
    }

    /// Takes a batch through its flow into files.
    async fn process(&mut self, raw: RawBatch) -> Result<(), PipelineError> {
        let bytes = raw.size_bytes() as u64;
        self.shared.metrics.batch_read(raw.envelope.len() as u64, bytes);
        self.shared.totals.read(raw.envelope.len() as u64, bytes);
        if !self.flows.contains_key(&raw.dataset) {
            let flow = Flow::new(self.shared.clone(), self.number, &raw.dataset, self.pauses.clone())?;
            self.flows.insert(Arc::clone(&raw.dataset), flow);
        }
        self.prepare(&raw).await?;
        let Some(mut flow) = self.flows.remove(&raw.dataset) else { return Ok(()) };
        let output = self.process_in(&mut flow, &raw).await;
        self.flows.insert(Arc::clone(&raw.dataset), flow);
        let output = output?;
        self.generation.cover(&raw.delta)?;
        self.take_output(&raw.dataset, output).instrument(tracing::info_span!("write")).await?;
        drop(raw);
        self.shared.metrics.memory_in_flight(self.shared.budget.used_bytes() as u64);
        if self.generation.is_due() { self.end_generation().await } else { Ok(()) }
    }

    /// Asks for the schemas that records are written with. What was read before does not wait for a registry that is away.
    async fn prepare(&mut self, raw: &RawBatch) -> Result<(), PipelineError> {
        let Some(flow) = self.flows.get_mut(&raw.dataset) else { return Ok(()) };
        if let Ok(ready) = tokio::time::timeout(REGISTRY_PATIENCE, flow.prepare(raw)).await {
            return ready;
        }
        if !self.generation.is_empty() {
            self.end_generation_and_wait().await?;
        }
        match self.flows.get_mut(&raw.dataset) {
            Some(flow) => flow.prepare(raw).await,
            None => Ok(()),
        }
    }

    /// Takes a batch through a flow that is out of the lane's hands meanwhile. What was read before does not wait for a plugin that
    /// waits, unless a plugin of the flow has rows of it, which only a flush between two batches would bring out.
    async fn process_in(&mut self, flow: &mut Flow, raw: &RawBatch) -> Result<FlowOutput, PipelineError> {
        let pauses = self.pauses.clone();
        // State has to be recorded with the positions, and that of this flow cannot be asked for now.
        let may_commit = !flow.holds_rows() && !keeps_state(&self.shared.plugins);
        let mut known = std::mem::replace(&mut self.known, KnownStates::new(None));
        let output = {
            let mut processing = std::pin::pin!(flow.process(raw, &mut known));
            tokio::select! {
                biased;
                output = &mut processing => output,
                () = pauses.began() => {
                    let committed = if may_commit && !self.generation.is_empty() {
                        self.end_generation_and_wait().await
                    } else {
                        Ok(())
                    };
                    match committed {
                        Ok(()) => processing.await,
                        Err(error) => Err(error),
                    }
                }
            }
        };
        self.known = known;
        output
    }

    /// Records that the source itself refuses: they are read, and become dead letters.
    async fn refuse(&mut self, raw: RawBatch, code: &str, message: String) -> Result<(), PipelineError> {
        let bytes = raw.envelope.as_record_batch().get_array_memory_size() as u64;
        let records = u32::try_from(raw.envelope.len()).unwrap_or(u32::MAX);
        self.shared.metrics.batch_read(u64::from(records), bytes);
        self.shared.totals.read(u64::from(records), bytes);
        let rows = (0..records).collect();
        let rejection = Rejection { rows, stage: Stage::Source, plugin: None, code: code.to_owned(), message };
        let dead_letters = raw.envelope.dead_letters(&rejection);
        self.generation.cover(&raw.delta)?;
        let output = FlowOutput { dead_letters, rejections: vec![rejection], ..FlowOutput::default() };
        self.take_output(&raw.dataset, output).await
    }

    /// Writes rows, and keeps what was refused.
    async fn take_output(&mut self, dataset: &Arc<str>, output: FlowOutput) -> Result<(), PipelineError> {
        let FlowOutput { rows, rejections, dead_letters, states } = output;
        self.states.extend(states);
        self.shared.totals.wrote(rows.iter().map(|part| part.rows.num_rows() as u64).sum());
        let parts = rows.into_iter().map(|part| (part.directory, part.rows)).collect();
        self.generation.write(dataset, parts).await?;
        for rejection in &rejections {
            self.count_rejection(dataset, rejection)?;
        }
        match &self.shared.config.dead_letter {
            DeadLetterConfig::Store | DeadLetterConfig::Kafka(_) => self.generation.add_dead_letters(dead_letters),
            DeadLetterConfig::None => self.shared.metrics.dropped(dead_letters.len() as u64),
        }
        Ok(())
    }

    /// Counts refused records, and logs them or stops, as configured.
    fn count_rejection(&self, dataset: &str, rejection: &Rejection) -> Result<(), PipelineError> {
        let Rejection { rows, stage, plugin, code, message } = rejection;
        let plugin = plugin.as_deref().unwrap_or_default();
        self.shared.metrics.rejected(stage.as_str(), plugin, code, rows.len() as u64);
        self.shared.totals.rejected(rejection);
        match self.shared.config.run.error_handling {
            ErrorHandling::Ignore => Ok(()),
            ErrorHandling::Log => {
                if let Some(suppressed) = self.rejection_log.allow() {
                    tracing::warn!(pipeline = %self.shared.config.name, dataset, stage = stage.as_str(), plugin, code,
                        records = rows.len(), suppressed, message, "records refused");
                }
                Ok(())
            }
            ErrorHandling::Raise => Err(PipelineError::stop(format!(
                "{} record(s) of {dataset} refused in {} ({code}): {message}; pipeline.error_handling is raise",
                rows.len(),
                stage.as_str(),
            ))),
        }
    }

    /// Has every plugin give out what it holds back.
    async fn flush(&mut self, reason: FlushReason) -> Result<(), PipelineError> {
        let datasets: Vec<_> = self.flows.keys().map(Arc::clone).collect();
        for dataset in datasets {
            if let Some(flow) = self.flows.get_mut(&dataset) {
                let output = flow.flush(reason).await?;
                self.take_output(&dataset, output).await?;
            }
        }
        Ok(())
    }

    /// Closes the generation and hands it over; does not wait for the commit.
    async fn end_generation(&mut self) -> Result<(), PipelineError> {
        self.flush(FlushReason::Checkpoint).await?;
        self.close_generation().await
    }

    /// The same without a flush.
    async fn close_generation(&mut self) -> Result<(), PipelineError> {
        if !self.generation.is_empty() || !self.states.is_empty() {
            let closed = self.close_with_states().await?;
            self.commits.push(closed).await?;
        }
        Ok(())
    }

    /// The files of the generation, with the state of the chains behind its last record.
    async fn close_with_states(&mut self) -> Result<ClosedGeneration, PipelineError> {
        let mut closed = self.generation.close().await?;
        closed.states = std::mem::take(&mut self.states);
        closed.memory.grow(closed.states.iter().map(ChainState::size_bytes).sum());
        Ok(closed)
    }

    /// Closes the generation and waits until it and all before it are committed.
    async fn end_generation_and_wait(&mut self) -> Result<(), PipelineError> {
        self.flush(FlushReason::Checkpoint).await?;
        let closed = self.close_with_states().await?;
        let committed = self.commits.push(closed).await?;
        self.commits.wait(committed).await
    }
}

/// A lane's hold on the ledger and the store, for exactly once.
fn recovery(shared: &Shared, writer: Option<&LedgerWriter>) -> Option<Recovery> {
    writer.map(|writer| Recovery::new(writer.clone(), shared.store.clone(), keeps_state(&shared.plugins)))
}
