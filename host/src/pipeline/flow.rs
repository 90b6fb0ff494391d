//! What the records of one dataset go through in one lane: decode, the plugin chain, the split by value.
//!
//! Comes in: raw batches of one topic, stream, list or set of files. Goes out: rows per directory, and the records
//! that were refused. When the schema changes, the plugins are closed and opened again with the new one.
//!
//! Where a plugin keeps state, each source partition has a chain of its own, since the state goes where the partition goes: to
//! another lane, or another process. Such a chain goes on from the state that the ledger has of its partition, and from what the
//! chain before it said when the schema changes. At a checkpoint the chains that were given rows since the last one are flushed
//! and asked for their state, so what they say is of exactly the records that the commit covers.

use std::{collections::BTreeMap, sync::Arc};

use arrow_schema::SchemaRef;
use tracing::Instrument as _;

use super::{Shared, split, states::KnownStates};
use crate::{
    batch::{ChainState, DeadLetter, DecodedBatch, PluginState, RawBatch, Rejection},
    checkpoint::SourcePartition,
    decode::{DatasetHistory, Decoded, Decoder},
    error::PipelineError,
    file,
    partition::{PartitionedRows, Partitioner},
    plugin::{Chain, ChainContext, ChainOutput, FlushReason, LanePauses, keeps_state},
};

/// The stages of one dataset.
#[derive(Debug)]
pub(super) struct Flow {
    /// What the lanes share.
    shared: Shared,
    /// Which lane this is.
    lane: usize,
    /// Which dataset.
    dataset: Arc<str>,
    /// How the plugins tell the lane that they wait.
    pauses: LanePauses,
    /// Bytes to rows.
    decoder: Decoder,
    /// The versions of the inferred schema, once the first batch has come.
    history: Option<DatasetHistory>,
    /// Opened with the schema that the decoder gave last: one for all, or one for each source partition.
    chains: BTreeMap<Option<SourcePartition>, OpenChain>,
    /// Made for the schema that came out of the chain last.
    partitioner: Option<(SchemaRef, Partitioner)>,
}

/// A chain with the schema that it was opened for.
#[derive(Debug)]
struct OpenChain {
    /// What goes in.
    input: SchemaRef,
    /// The plugins.
    chain: Chain,
    /// Whether it was given rows since it was flushed last.
    is_touched: bool,
}

/// What came of one batch, or of a flush.
#[derive(Debug, Default)]
pub(super) struct FlowOutput {
    /// Rows and where they go.
    pub(super) rows: Vec<PartitionedRows>,
    /// Why records were refused, for logs, metrics and the summary.
    pub(super) rejections: Vec<Rejection>,
    /// The same records, whole.
    pub(super) dead_letters: Vec<DeadLetter>,
    /// The state of the chains that were flushed, where plugins keep some.
    pub(super) states: Vec<ChainState>,
}

impl Flow {
    /// Stages for a new dataset.
    pub(super) fn new(
        shared: Shared,
        lane: usize,
        dataset: &Arc<str>,
        pauses: LanePauses,
    ) -> Result<Self, PipelineError> {
        let (decoder, dataset) = (Decoder::new(&shared.config.decode)?, Arc::clone(dataset));
        Ok(Self { shared, lane, dataset, pauses, decoder, history: None, chains: BTreeMap::new(), partitioner: None })
    }

    /// Whether a plugin holds rows of earlier batches, so that positions can be committed only after a flush.
    pub(super) fn holds_rows(&self) -> bool {
        self.chains.values().any(|open| open.chain.holds_rows())
    }

    /// Asks for the schemas that the records of a batch are written with, and waits while their registry is away; what was asked
    /// before is not asked again. May be given up.
    pub(super) async fn prepare(&mut self, raw: &RawBatch) -> Result<(), PipelineError> {
        match (&self.shared.registry, &raw.rows) {
            (Some(registry), None) => self.decoder.prepare(registry, &raw.envelope).await,
            _ => Ok(()),
        }
    }

    /// Takes a batch through all stages, once it is prepared. `known`: what new chains go on from.
    pub(super) async fn process(
        &mut self,
        raw: &RawBatch,
        known: &mut KnownStates,
    ) -> Result<FlowOutput, PipelineError> {
        let decoded = self.decode(raw).await?;
        self.shared.metrics.skipped(decoded.skipped);
        let mut output = FlowOutput::default();
        for rejection in decoded.rejected {
            output.dead_letters.extend(raw.envelope.dead_letters(&rejection));
            output.rejections.push(rejection);
        }
        let Some(batch) = decoded.batch else { return Ok(output) };
        if keeps_state(&self.shared.plugins) {
            for (partition, batch) in split::by_partition(batch, &raw.delta)? {
                self.give(Some(partition.clone()), Some(&partition), batch, known, &mut output).await?;
            }
        } else {
            let partition = raw.delta.iter().next().map(|(partition, _)| partition);
            self.give(None, partition, batch, known, &mut output).await?;
        }
        Ok(output)
    }

    /// Takes rows through a chain. `partition`: one that they are of.
    async fn give(
        &mut self,
        key: Option<SourcePartition>,
        partition: Option<&SourcePartition>,
        batch: DecodedBatch,
        known: &mut KnownStates,
        output: &mut FlowOutput,
    ) -> Result<(), PipelineError> {
        let schema = batch.rows.schema_ref();
        if self.chains.get(&key).is_none_or(|open| !same_schema(&open.input, schema)) {
            self.reopen(key.as_ref(), Arc::clone(schema), known, output).await?;
        }
        let Some(open) = self.chains.get_mut(&key) else { return Ok(()) };
        open.is_touched = true;
        let answered = open.chain.process(batch).instrument(tracing::info_span!("plugins")).await;
        let answered = answered.map_err(|error| self.shared.losses.judge(partition, error))?;
        tracing::info_span!("partition").in_scope(|| self.collect(answered, output))
    }

    /// Decodes a batch, with a schema that all who write the dataset agree on.
    async fn decode(&mut self, raw: &RawBatch) -> Result<Decoded, PipelineError> {
        let Some(history) = self.history().await else { return Ok(self.decode_once(raw)) };
        let mut version = history.newest().await?;
        loop {
            self.decoder.adopt(&version);
            let decoded = self.decode_once(raw);
            let Some(learned) = self.decoder.learned() else { return Ok(decoded) };
            match history.agree(&version, &learned).await? {
                None => return Ok(decoded),
                // Each time round another writer has learned something, and there is a limit to the number of fields.
                Some(newer) => version = newer,
            }
        }
    }

    /// The versions of the schema, where it is inferred.
    async fn history(&mut self) -> Option<DatasetHistory> {
        let all = self.shared.history.as_ref()?;
        Some(match &self.history {
            Some(history) => history.clone(),
            None => self.history.insert(all.of(&file::dataset_folder(&self.dataset)).await).clone(),
        })
    }

    /// Decodes a batch with the schema that is known here.
    fn decode_once(&mut self, raw: &RawBatch) -> Decoded {
        tracing::info_span!("decode").in_scope(|| match &raw.rows {
            Some(rows) => self.decoder.decode_rows(&raw.envelope, rows),
            None => self.decoder.decode(&raw.envelope),
        })
    }

    /// Has the plugins give out what they hold back, and say what they keep.
    pub(super) async fn flush(&mut self, reason: FlushReason) -> Result<FlowOutput, PipelineError> {
        let is_due = |(key, open): &(&Option<SourcePartition>, &OpenChain)| {
            key.is_none() || open.is_touched || reason == FlushReason::EndOfInput
        };
        let due: Vec<_> = self.chains.iter().filter(is_due).map(|(key, _)| key.clone()).collect();
        let mut output = FlowOutput::default();
        for key in due {
            let Some(open) = self.chains.get_mut(&key) else { continue };
            open.is_touched = false;
            let (answered, plugins) = empty(&mut open.chain, key.as_ref(), reason, &self.shared).await?;
            self.collect(answered, &mut output)?;
            if let Some(partition) = key {
                output.states.push(ChainState { partition, dataset: Arc::clone(&self.dataset), plugins });
            }
        }
        Ok(output)
    }

    /// Opens the plugins of a partition of which no record has come, since they kept something that is to be given out.
    pub(super) async fn open(
        &mut self,
        partition: &SourcePartition,
        known: &mut KnownStates,
    ) -> Result<(), PipelineError> {
        if let Some(history) = self.history().await {
            let version = history.newest().await?;
            self.decoder.adopt(&version);
        }
        if let Some(schema) = self.decoder.schema().cloned() {
            return self.reopen(Some(partition), schema, known, &mut FlowOutput::default()).await;
        }
        tracing::warn!(pipeline = %self.shared.config.name, %partition,
            "plugins keep state of a partition that has no new records, and the schema of its rows is not known: it stays");
        Ok(())
    }

    /// Lets the plugins of partitions go that are no longer ours, or are claimed anew.
    pub(super) async fn release(&mut self, partitions: &[SourcePartition]) {
        for partition in partitions {
            if let Some(open) = self.chains.remove(&Some(partition.clone())) {
                open.chain.close().await;
            }
        }
    }

    /// Lets the plugins go.
    pub(super) async fn close(self) {
        for open in self.chains.into_values() {
            open.chain.close().await;
        }
    }

    /// Opens the plugins for a new schema, after what the old ones held back has come out; they go on from what those kept.
    async fn reopen(
        &mut self,
        key: Option<&SourcePartition>,
        input: SchemaRef,
        known: &mut KnownStates,
        output: &mut FlowOutput,
    ) -> Result<(), PipelineError> {
        let state = match (self.chains.remove(&key.cloned()), key) {
            (Some(mut old), _) => {
                let (answered, state) = empty(&mut old.chain, key, FlushReason::Checkpoint, &self.shared).await?;
                old.chain.close().await;
                self.collect(answered, output)?;
                state
            }
            (None, Some(partition)) => known.take(partition, &self.dataset).await?,
            (None, None) => Vec::new(),
        };
        let Shared { config, plugins, metrics, budget, .. } = &self.shared;
        let context = ChainContext {
            pipeline: Arc::clone(&config.name),
            tenant: budget.tenant().clone(),
            lane: self.lane,
            metrics: metrics.clone(),
            pauses: self.pauses.clone(),
        };
        let mut chain = Chain::open(plugins, Arc::clone(&input), context).await?;
        chain.restore(state).await?;
        self.chains.insert(key.cloned(), OpenChain { input, chain, is_touched: false });
        Ok(())
    }

    /// Splits what came out of the chain and turns refused rows into dead letters.
    fn collect(&mut self, answered: ChainOutput, output: &mut FlowOutput) -> Result<(), PipelineError> {
        for batch in answered.batches {
            if batch.rows.num_rows() > 0 {
                let split = self.partitioner(batch.rows.schema_ref())?.split(&batch.rows)?;
                output.rows.extend(split.directories);
                for rejection in split.rejected {
                    output.dead_letters.extend(batch.dead_letters(&rejection));
                    output.rejections.push(rejection);
                }
            }
        }
        for (batch, rejection) in answered.rejected {
            output.dead_letters.extend(batch.dead_letters(&rejection));
            output.rejections.push(rejection);
        }
        Ok(())
    }

    /// The partitioner for a schema; made anew when the schema changes.
    fn partitioner(&mut self, schema: &SchemaRef) -> Result<&mut Partitioner, PipelineError> {
        let known = self.partitioner.take().filter(|(made_for, _)| same_schema(made_for, schema));
        let entry = match known {
            Some(entry) => entry,
            None => (Arc::clone(schema), Partitioner::new(&self.shared.config.sink, schema)?),
        };
        Ok(&mut self.partitioner.insert(entry).1)
    }
}

/// Flushes a chain; what came out, and what plugins keep where each partition has a chain.
async fn empty(
    chain: &mut Chain,
    key: Option<&SourcePartition>,
    reason: FlushReason,
    shared: &Shared,
) -> Result<(ChainOutput, Vec<PluginState>), PipelineError> {
    let emptied = async {
        let answered = chain.flush(reason).await?;
        let state = if key.is_some() { chain.snapshot().await? } else { Vec::new() };
        Ok((answered, state))
    };
    emptied.await.map_err(|error| shared.losses.judge(key, error))
}

/// Whether two schemas are the same; cheap in the usual case that they are one.
fn same_schema(left: &SchemaRef, right: &SchemaRef) -> bool {
    Arc::ptr_eq(left, right) || left == right
}
