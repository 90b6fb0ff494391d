//! What the records of one dataset go through in one lane: decode, the plugin chain, the split by value.
//!
//! Comes in: raw batches of one topic, stream, list or set of files. Goes out: rows per directory, and the records
//! that were refused. When the schema changes, the plugins are closed and opened again with the new one.

use std::sync::Arc;

use arrow_schema::SchemaRef;
use tracing::Instrument as _;

use super::Shared;
use crate::{
    batch::{DeadLetter, RawBatch, Rejection},
    decode::{DatasetHistory, Decoded, Decoder},
    error::PipelineError,
    file,
    partition::{PartitionedRows, Partitioner},
    plugin::{Chain, ChainContext, ChainOutput, FlushReason},
};

/// The stages of one dataset.
#[derive(Debug)]
pub(super) struct Flow {
    /// What the lanes share.
    shared: Shared,
    /// Which lane this is.
    lane: usize,
    /// Bytes to rows.
    decoder: Decoder,
    /// The versions of the inferred schema, once the first batch has come.
    history: Option<DatasetHistory>,
    /// Opened with the schema that the decoder gave last.
    chain: Option<OpenChain>,
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
}

impl Flow {
    /// Stages for a new dataset.
    pub(super) fn new(shared: Shared, lane: usize) -> Result<Self, PipelineError> {
        let decoder = Decoder::new(&shared.config.decode)?;
        Ok(Self { shared, lane, decoder, history: None, chain: None, partitioner: None })
    }

    /// Asks for the schemas that the records of a batch are written with, and waits while their registry is away; what was asked
    /// before is not asked again. May be given up.
    pub(super) async fn prepare(&mut self, raw: &RawBatch) -> Result<(), PipelineError> {
        match (&self.shared.registry, &raw.rows) {
            (Some(registry), None) => self.decoder.prepare(registry, &raw.envelope).await,
            _ => Ok(()),
        }
    }

    /// Takes a batch through all stages, once it is prepared.
    pub(super) async fn process(&mut self, raw: &RawBatch) -> Result<FlowOutput, PipelineError> {
        let decoded = self.decode(raw).await?;
        self.shared.metrics.skipped(decoded.skipped);
        let mut output = FlowOutput::default();
        for rejection in decoded.rejected {
            output.dead_letters.extend(raw.envelope.dead_letters(&rejection));
            output.rejections.push(rejection);
        }
        if let Some(batch) = decoded.batch {
            if self.chain.as_ref().is_none_or(|open| !same_schema(&open.input, batch.rows.schema_ref())) {
                self.reopen(Arc::clone(batch.rows.schema_ref()), &mut output).await?;
            }
            if let Some(open) = &mut self.chain {
                let answered = open.chain.process(batch).instrument(tracing::info_span!("plugins")).await?;
                tracing::info_span!("partition").in_scope(|| self.collect(answered, &mut output))?;
            }
        }
        Ok(output)
    }

    /// Decodes a batch, with a schema that all who write the dataset agree on.
    async fn decode(&mut self, raw: &RawBatch) -> Result<Decoded, PipelineError> {
        let Some(history) = &self.shared.history else { return Ok(self.decode_once(raw)) };
        let history = match &self.history {
            Some(history) => history.clone(),
            None => self.history.insert(history.of(&file::dataset_folder(&raw.dataset)).await).clone(),
        };
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

    /// Decodes a batch with the schema that is known here.
    fn decode_once(&mut self, raw: &RawBatch) -> Decoded {
        tracing::info_span!("decode").in_scope(|| match &raw.rows {
            Some(rows) => self.decoder.decode_rows(&raw.envelope, rows),
            None => self.decoder.decode(&raw.envelope),
        })
    }

    /// Has the plugins give out what they hold back.
    pub(super) async fn flush(&mut self, reason: FlushReason) -> Result<FlowOutput, PipelineError> {
        let mut output = FlowOutput::default();
        if let Some(open) = &mut self.chain {
            let answered = open.chain.flush(reason).await?;
            self.collect(answered, &mut output)?;
        }
        Ok(output)
    }

    /// Lets the plugins go.
    pub(super) async fn close(self) {
        if let Some(open) = self.chain {
            open.chain.close().await;
        }
    }

    /// Opens the plugins for a new schema, after what the old ones held back has come out.
    async fn reopen(&mut self, input: SchemaRef, output: &mut FlowOutput) -> Result<(), PipelineError> {
        if let Some(mut old) = self.chain.take() {
            let answered = old.chain.flush(FlushReason::Checkpoint).await?;
            old.chain.close().await;
            self.collect(answered, output)?;
        }
        let Shared { config, plugins, metrics, .. } = &self.shared;
        let context = ChainContext {
            pipeline: Arc::clone(&config.name),
            tenant: Arc::clone(&config.tenant),
            lane: self.lane,
            metrics: metrics.clone(),
        };
        let chain = Chain::open(plugins, Arc::clone(&input), context).await?;
        self.chain = Some(OpenChain { input, chain });
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

/// Whether two schemas are the same; cheap in the usual case that they are one.
fn same_schema(left: &SchemaRef, right: &SchemaRef) -> bool {
    Arc::ptr_eq(left, right) || left == right
}
