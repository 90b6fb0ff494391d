//! A plugin that fails batch after batch: its lane waits with the last of them until one goes well.
//!
//! The batch is neither refused nor dropped. After each pause of the back-off it is given to a fresh instance; when that
//! goes well the circuit is closed, and the lane goes on. A stop ends the wait at once, and the batch is read again at
//! the next start. A plugin whose data is at fault, not the plugin, stays here until a person comes: that is the point.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use super::{Settled, Stage, StageOutput};
use crate::{
    batch::DecodedBatch,
    error::PipelineError,
    plugin::{failure::Failure, pause::PauseKind},
};

/// Shortest pause between two probes, where `backoff` says none.
const PROBE_PAUSE_MIN: Duration = Duration::from_millis(10);

impl Stage {
    /// Waits with a batch until it goes well.
    pub(super) async fn hold(
        &mut self,
        batch: &DecodedBatch,
        sequence: u64,
        attempt: &mut u32,
        failure: Failure,
    ) -> Result<StageOutput, PipelineError> {
        let (since, plugin) = (Instant::now(), Arc::clone(&self.shape.plugin));
        let (pauses, batches) = (self.context.pauses.clone(), self.failed_batches);
        tracing::error!(
            plugin = &*plugin,
            sha256 = self.plugin.digest_hex(),
            pipeline = &*self.context.pipeline,
            tenant = &*self.context.tenant,
            lane = self.context.lane,
            reason = failure.kind.code(),
            "circuit open: the plugin failed on {batches} batches in a row; the lane keeps the last of them and tries it \
             again until it goes well. The plugin {}",
            failure.message
        );
        let pause = pauses.begin(&plugin, PauseKind::Circuit, &failure.message).await;
        let stopped = || {
            PipelineError::restart(format!(
                "stopped while the circuit of plugin {plugin} was open; its batch is read again at the next start"
            ))
        };
        loop {
            let wait = self.backoff.remaining().max(PROBE_PAUSE_MIN);
            self.context.metrics.waited("plugin-circuit", wait.as_secs_f64());
            tokio::select! {
                biased;
                () = pauses.stop().cancelled() => return Err(stopped()),
                () = tokio::time::sleep(wait) => {}
            }
            self.context.metrics.retried("plugin-probe");
            // A probe may take as long as a call may.
            let settled = tokio::select! {
                biased;
                () = pauses.stop().cancelled() => return Err(stopped()),
                settled = self.settle(batch, sequence, attempt, 0) => settled?,
            };
            match settled {
                Settled::Done(output) => {
                    self.failed_batches = 0;
                    tracing::warn!(
                        plugin = &*plugin,
                        pipeline = &*self.context.pipeline,
                        tenant = &*self.context.tenant,
                        lane = self.context.lane,
                        "circuit closed after {} s: the batch went well, nothing was lost",
                        since.elapsed().as_secs()
                    );
                    return Ok(output);
                }
                Settled::Failed(failure) => pause.goes_on(&failure.message),
            }
        }
    }
}
