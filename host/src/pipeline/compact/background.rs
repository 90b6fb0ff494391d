//! Merging beside the lanes of a running pipeline.
//!
//! Comes in: the pipeline. Goes out: passes, at the start, when a period is over, and with `merge_on_flush` after commits.
//! Promise: whatever fails is told and tried again later; it never stops the pipeline, and a merge that was recorded is
//! finished before the pipeline ends.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use chrono::Utc;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::{MergeReport, Merging, Pass};
use crate::{
    error::PipelineError,
    pipeline::{Shared, open_ledger},
};

/// Another process that has written nothing about merging for so long is taken for dead. Should it live, its record is
/// refused, and its work on one file was in vain.
const PATIENCE: Duration = Duration::from_secs(60);

/// Pause after a failure.
const RETRY_PAUSE: Duration = Duration::from_secs(60);

/// Processes of one pipeline that wake up at the end of a period spread over so much time.
const SPREAD: Duration = Duration::from_secs(20);

/// After a pass the next one begins no sooner than so many times the time that it took: listing a large sink after every commit
/// would cost more than the small files do.
const REST_FACTOR: u32 = 9;

/// The least of such pauses.
const REST_MIN: Duration = Duration::from_secs(1);

/// Merging beside the lanes.
#[derive(Debug)]
pub(in crate::pipeline) struct Background {
    /// Ends it.
    stop: CancellationToken,
    /// Gives back what it knows.
    task: JoinHandle<Merging>,
}

/// Starts merging beside the lanes, where it is configured.
pub(in crate::pipeline) async fn start(shared: &Shared) -> Result<Option<Background>, PipelineError> {
    let Shared { config, store, ledger, metrics, runtime, .. } = shared;
    if !config.sink.merge.is_enabled {
        return Ok(None);
    }
    let ledger = match ledger {
        Some(ledger) => ledger.clone(),
        None => open_ledger(store).await.map_err(|error| {
            PipelineError::stop("sink.merge_enabled keeps a ledger of merges in the sink, which is not possible")
                .because(error)
        })?,
    };
    let merging = Merging::new(config, store.clone(), ledger, metrics.clone());
    if config.sink.merge.on_flush && !merging.rules.is_running_too {
        tracing::warn!(pipeline = %config.name, "sink.merge_on_flush counts only with delivery: exactly_once; files are merged when \
             their period is over");
    }
    let stop = runtime.stop.child_token();
    let task = runtime.compute.spawn(run(merging, shared.clone(), stop.clone()));
    Ok(Some(Background { stop, task }))
}

impl Background {
    /// Ends it once a merge that has begun is finished. Where the lanes ended well and by themselves, what is due is merged.
    pub(in crate::pipeline) async fn end(self, shared: &Shared, is_well: bool) {
        self.stop.cancel();
        let Ok(mut merging) = self.task.await else {
            tracing::warn!(pipeline = %shared.config.name, "merging ended abnormally");
            return;
        };
        let stop = &shared.runtime.stop;
        if is_well && !stop.is_cancelled() {
            let name = Arc::clone(&shared.config.name);
            let last = shared.runtime.compute.clone().spawn({
                let stop = stop.clone();
                async move { merging.tried_pass(&name, &stop).await }
            });
            // Its failures are told.
            let _ = last.await;
        }
    }
}

/// Passes, until it is to stop.
async fn run(mut merging: Merging, shared: Shared, stop: CancellationToken) -> Merging {
    let on_flush = merging.rules.is_running_too;
    loop {
        let began = Instant::now();
        let pause = merging.tried_pass(&shared.config.name, &stop).await;
        let rest = (began.elapsed() * REST_FACTOR).max(REST_MIN);
        tokio::select! {
            () = stop.cancelled() => return merging,
            () = tokio::time::sleep(pause.max(rest)) => {}
            () = async { tokio::join!(shared.totals.next_commit(), tokio::time::sleep(rest)); }, if on_flush => {}
        }
    }
}

impl Merging {
    /// A pass whose failure is told; the pause until the next one.
    async fn tried_pass(&mut self, pipeline: &str, stop: &CancellationToken) -> Duration {
        let mut tell = |merged: &MergeReport| {
            let MergeReport { path, files, rows, bytes_before, bytes } = merged;
            tracing::info!(pipeline, path, files, rows, bytes_before, bytes, "small files were merged");
        };
        match self.pass(PATIENCE, stop, &mut tell).await {
            Ok(Pass::Done) => {
                let now = Utc::now();
                let spread = SPREAD.mul_f64(f64::from(uuid::Uuid::new_v4().as_fields().0) / f64::from(u32::MAX));
                (self.rules.next_over(now) - now).to_std().unwrap_or_default() + spread
            }
            Ok(Pass::Busy) => PATIENCE,
            Err(error) => {
                self.metrics.error("merge");
                tracing::warn!(pipeline, error = %error.full_message(), "files could not be merged: trying again later");
                RETRY_PAUSE
            }
        }
    }
}
