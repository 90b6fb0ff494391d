//! Commits the generations of one lane in their order, beside the lane.
//!
//! Comes in: closed generations, at most one waiting. Goes out: committed source positions; or the failure, which
//! ends the queue, so that the lane notices it at its next generation at the latest.

use std::sync::Arc;

use tokio::{
    runtime::Handle,
    sync::{mpsc, oneshot},
    task::JoinHandle,
};
use tracing::Instrument as _;

use super::{
    losses::Losses,
    totals::{self, Totals},
};
use crate::{batch::ClosedGeneration, commit::Committer, error::PipelineError, source::SourceControl};

/// A generation to commit, and whom to tell.
type Request = (ClosedGeneration, oneshot::Sender<()>);

/// Hands generations over to the task that commits them.
#[derive(Debug)]
pub(super) struct Commits {
    /// One generation may wait while another is being committed: enough to overlap uploads with encoding, and the
    /// memory of more would not be worth it.
    queue: mpsc::Sender<Request>,
    /// Ends with the last commit, or with the first failure; `None` once its result was taken.
    task: Option<JoinHandle<Result<(), PipelineError>>>,
}

impl Commits {
    /// Starts the task on a runtime.
    pub(super) fn start(
        committer: Committer,
        source: SourceControl,
        totals: Arc<Totals>,
        losses: Losses,
        io: &Handle,
    ) -> Self {
        let (queue, requests) = mpsc::channel(1);
        let task = io.spawn(commit_in_order(committer, source, totals, losses, requests));
        Self { queue, task: Some(task) }
    }

    /// Queues a generation; waits while another one is queued. What is returned ends once it is committed.
    pub(super) async fn push(&mut self, generation: ClosedGeneration) -> Result<oneshot::Receiver<()>, PipelineError> {
        let (done, committed) = oneshot::channel();
        match self.queue.send((generation, done)).await {
            Ok(()) => Ok(committed),
            Err(_closed) => Err(self.failure().await),
        }
    }

    /// Waits until a pushed generation is committed.
    pub(super) async fn wait(&mut self, committed: oneshot::Receiver<()>) -> Result<(), PipelineError> {
        match committed.await {
            Ok(()) => Ok(()),
            Err(_closed) => Err(self.failure().await),
        }
    }

    /// Returns when the task has failed. Cancel-safe.
    pub(super) async fn failed(&mut self) -> PipelineError {
        self.failure().await
    }

    /// Waits until everything pushed is committed.
    pub(super) async fn finish(&mut self) -> Result<(), PipelineError> {
        // A closed channel ends the task.
        self.queue = mpsc::channel(1).0;
        match self.task.take() {
            Some(task) => task.await.unwrap_or_else(|error| Err(abnormal(error))),
            None => Ok(()),
        }
    }

    /// Why the task ended.
    async fn failure(&mut self) -> PipelineError {
        let ended = match &mut self.task {
            Some(task) => task.await,
            None => Ok(Ok(())),
        };
        self.task = None;
        match ended {
            Ok(Err(error)) => error,
            Ok(Ok(())) => PipelineError::stop("the commit task ended before the lane"),
            Err(error) => abnormal(error),
        }
    }
}

/// The words for a task that panicked or was cancelled.
fn abnormal(error: tokio::task::JoinError) -> PipelineError {
    PipelineError::stop("the commit task ended abnormally").because(error)
}

/// One generation after the other: durable and visible first, then the source position.
async fn commit_in_order(
    mut committer: Committer,
    source: SourceControl,
    totals: Arc<Totals>,
    losses: Losses,
    mut requests: mpsc::Receiver<Request>,
) -> Result<(), PipelineError> {
    while let Some((generation, done)) = requests.recv().await {
        let (files, bytes, rows) = totals::size(&generation);
        let span = tracing::info_span!("commit", generation = generation.sequence, files, rows, bytes);
        source.confirm(&generation.delta).await?;
        let delta = committer.commit(generation).instrument(span).await?;
        losses.committed(&delta);
        source.committed(delta).instrument(tracing::info_span!("commit_offsets")).await?;
        totals.committed(files, bytes, rows);
        // The lane may have stopped waiting; the commit counts all the same.
        let _ = done.send(());
    }
    Ok(())
}
