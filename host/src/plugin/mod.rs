//! The plugin room: rows go through WebAssembly components that nobody has to trust.
//!
//! Comes in: typed rows with their origin. Goes out: the rows that the plugins kept, extended or made, and the rows
//! that they refused. Promises:
//!
//! * A plugin sees the batch it is given, its configuration and what it was granted; no other file, network, environment or
//!   rows.
//! * A call ends at its deadline, memory stays in its budget, and what a plugin answers is checked before anyone uses
//!   it. Whatever a plugin does, the process lives and other lanes go on.
//! * No row is lost: it leaves as a row, as a rejection, or is counted as filtered, or an error ends the pipeline
//!   before its position is committed.
//!
//! `engine` is wasmtime, `component`, `version`, `fetch`, `signature`, `compile` and `cache` load a plugin, `places` says whether it may have an instance, `instance`
//! runs it within its `limiter`, `budget` and `clock`, `turns` say which of them computes now, `policy` decides what happens when that goes wrong (`policy/bisect`,
//! `policy/circuit`) and `pause` tells of it, `grants` is what a plugin reaches besides its rows, `apply` turns answers into rows, `ipc_check` and `columns` read what it wrote,
//! `state` is what plugins keep over a restart, `describe`, `inspect` and `config_schema` are what people are told of a plugin.

use std::{fmt, sync::Arc};

use arrow_schema::SchemaRef;

pub use compile::{Compiler, answer_if_asked};
pub use component::LoadedPlugin;
pub use config_schema::{Checked, ConfigFault, ConfigSchema, check_configs};
pub use describe::Description;
pub use engine::PluginEngine;
pub use grants::imports::{Import, ImportNeed};
pub use inspect::Inspection;
pub use pause::{LanePauses, Pauses};
pub use state::{check_ledger, check_readers, keeps_state};
pub use turns::WORKERS_SPARE;

/// The engine that runs plugins, for `--version`; a test holds it against the lock file.
pub const WASMTIME_VERSION: &str = "48.0.8";

use crate::{
    batch::{DecodedBatch, Rejection},
    error::PipelineError,
    telemetry::metrics::Metrics,
    tenant::Tenant,
};
use policy::Stage;

mod apply;
mod backoff;
mod backtrace;
mod batches;
mod bindings;
mod budget;
mod cache;
mod clock;
mod columns;
mod compile;
mod component;
mod config_schema;
mod decimals;
mod describe;
mod engine;
mod failure;
mod fetch;
mod format;
mod grants;
mod hygiene;
mod inspect;
mod instance;
mod ipc_check;
mod limiter;
mod pause;
mod places;
mod policy;
mod rejections;
mod shared;
mod signature;
mod state;
mod turns;
mod types;
mod version;
mod voice;

/// Where a chain runs.
#[derive(Clone, Debug)]
pub struct ChainContext {
    /// The pipeline's name.
    pub pipeline: Arc<str>,
    /// Whose it is, with what all plugins of that tenant may use.
    pub tenant: Tenant,
    /// Which of the pipeline's workers.
    pub lane: usize,
    /// Where calls, traps and dropped rows are counted.
    pub metrics: Metrics,
    /// How its plugins tell the lane that they wait.
    pub pauses: LanePauses,
}

/// Why held-back rows are asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FlushReason {
    /// Source positions are about to be committed.
    Checkpoint,
    /// A time or size trigger of the host.
    Timer,
    /// No more input will come.
    EndOfInput,
}

impl From<FlushReason> for bindings::types::FlushReason {
    fn from(reason: FlushReason) -> Self {
        match reason {
            FlushReason::Checkpoint => Self::Checkpoint,
            FlushReason::Timer => Self::Timer,
            FlushReason::EndOfInput => Self::EndOfInput,
        }
    }
}

/// What became of the rows that a chain was given.
#[derive(Debug, Default)]
pub struct ChainOutput {
    /// Rows in the chain's output schema; no batch is empty.
    pub batches: Vec<DecodedBatch>,
    /// Refused rows, as row numbers of the batch beside them, which may be one between two plugins.
    pub rejected: Vec<(DecodedBatch, Rejection)>,
}

/// One instance of each plugin of a lane, in order.
pub struct Chain {
    /// The plugins.
    stages: Vec<Stage>,
    /// What leaves the last of them.
    output: SchemaRef,
}

impl fmt::Debug for Chain {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Chain").field("stages", &self.stages.len()).field("output", &self.output).finish()
    }
}

impl Chain {
    /// Starts the plugins one after the other; each is told the schema that leaves the one before.
    pub async fn open(
        plugins: &[Arc<LoadedPlugin>],
        input: SchemaRef,
        context: ChainContext,
    ) -> Result<Self, PipelineError> {
        let mut stages = Vec::with_capacity(plugins.len());
        let mut output = input;
        for plugin in plugins {
            let stage = Stage::open(plugin, &output, &context).await?;
            output = Arc::clone(stage.output_schema_ref());
            stages.push(stage);
        }
        Ok(Self { stages, output })
    }

    /// Whether a plugin holds rows of earlier batches.
    #[must_use]
    pub fn holds_rows(&self) -> bool {
        self.stages.iter().any(Stage::holds_rows)
    }

    /// The schema of the rows that leave the chain.
    #[must_use]
    pub fn output_schema(&self) -> &SchemaRef {
        &self.output
    }

    /// Sends a batch through all plugins.
    pub async fn process(&mut self, batch: DecodedBatch) -> Result<ChainOutput, PipelineError> {
        let mut output = ChainOutput::default();
        output.batches = run(&mut self.stages, vec![batch], &mut output.rejected).await?;
        Ok(output)
    }

    /// Asks each plugin for the rows that it held back and sends them through the ones behind it.
    pub async fn flush(&mut self, reason: FlushReason) -> Result<ChainOutput, PipelineError> {
        let mut output = ChainOutput::default();
        for position in 0..self.stages.len() {
            let Some((stage, behind)) = self.stages.get_mut(position..).and_then(<[_]>::split_first_mut) else {
                break;
            };
            let held = stage.flush(reason).await?;
            output.batches.extend(run(behind, held, &mut output.rejected).await?);
        }
        Ok(output)
    }

    /// Says good-bye to all plugins. Held-back rows must have been flushed before.
    pub async fn close(mut self) {
        for stage in &mut self.stages {
            stage.close().await;
        }
    }
}

/// Sends batches through plugins in order.
async fn run(
    stages: &mut [Stage],
    mut batches: Vec<DecodedBatch>,
    rejected: &mut Vec<(DecodedBatch, Rejection)>,
) -> Result<Vec<DecodedBatch>, PipelineError> {
    for stage in stages {
        let mut next = Vec::new();
        for batch in batches {
            let output = stage.process(batch).await?;
            next.extend(output.batches);
            rejected.extend(output.rejected);
        }
        batches = next;
    }
    Ok(batches)
}
