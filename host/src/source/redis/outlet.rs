//! What a reader has read, on its way to the lane: batches by key, sent when they are full or old, while memory and the lane
//! have room.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use tokio::sync::{Notify, mpsc};
use tokio_util::sync::CancellationToken;

use super::super::{LaneContext, SourceEvent, envelope::EnvelopeBuilder};
use crate::{config::SourceConfig, error::PipelineError};

/// A wait that is shorter is none.
const WAIT_MIN: Duration = Duration::from_millis(2);

/// Whether the lane still wants something.
#[derive(Debug, Default)]
pub(super) struct Signals {
    /// It wants no more records.
    is_stopped: AtomicBool,
    /// It is gone.
    closed: CancellationToken,
    /// Wakes the reader.
    wake: Notify,
}

impl Signals {
    /// No more records are wanted.
    pub(super) fn stop(&self) {
        self.is_stopped.store(true, Ordering::Release);
        self.wake.notify_one();
    }

    /// Nothing more is wanted.
    pub(super) fn close(&self) {
        self.closed.cancel();
        self.stop();
    }

    /// Whether no more records are wanted.
    pub(super) fn is_stopped(&self) -> bool {
        self.is_stopped.load(Ordering::Acquire)
    }

    /// Whether nothing more is wanted.
    pub(super) fn is_closed(&self) -> bool {
        self.closed.is_cancelled()
    }

    /// Waits until nothing more is wanted.
    pub(super) async fn closed(&self) {
        self.closed.cancelled().await;
    }

    /// There is something to look at.
    pub(super) fn wake(&self) {
        self.wake.notify_one();
    }

    /// Waits until somebody says that there is something to look at, for so long at most.
    pub(super) async fn sleep(&self, most: Duration) {
        // Being woken and having slept are the same to whoever looks again.
        let _ = tokio::time::timeout(most, self.wake.notified()).await;
    }
}

/// Why a reader ends.
#[derive(Debug)]
pub(super) enum Stop {
    /// Everything wanted was read, or no more is wanted.
    End,
    /// Nothing more can be read.
    Failed(PipelineError),
    /// Nobody listens any more.
    Gone,
}

impl From<PipelineError> for Stop {
    fn from(error: PipelineError) -> Self {
        Self::Failed(error)
    }
}

/// Collects records and sends them.
pub(super) struct Outlet {
    /// The lane.
    pub(super) context: LaneContext,
    /// What the lane wants.
    pub(super) signals: Arc<Signals>,
    /// To the lane.
    events: mpsc::Sender<SourceEvent>,
    /// Most records in a batch.
    pub(super) rows_max: usize,
    /// A batch that is not full goes on after this.
    batch_timeout: Duration,
    /// Batches under construction, by key.
    builders: BTreeMap<Arc<str>, EnvelopeBuilder>,
    /// When the oldest of them began.
    began: Option<Instant>,
}

impl Outlet {
    /// Nothing is collected.
    pub(super) fn new(
        context: LaneContext,
        signals: Arc<Signals>,
        events: mpsc::Sender<SourceEvent>,
        config: &SourceConfig,
    ) -> Self {
        Self {
            context,
            signals,
            events,
            rows_max: config.batch_rows_max,
            batch_timeout: config.batch_timeout,
            builders: BTreeMap::new(),
            began: None,
        }
    }

    /// Whether nobody listens any more.
    pub(super) fn is_gone(&self) -> bool {
        self.events.is_closed()
    }

    /// The batch of a key.
    pub(super) fn builder(&mut self, key: &Arc<str>) -> &mut EnvelopeBuilder {
        self.began.get_or_insert_with(Instant::now);
        self.builders.entry(Arc::clone(key)).or_insert_with(|| EnvelopeBuilder::new(Arc::clone(key), Arc::clone(key)))
    }

    /// Whether the batch of a key should be sent before more is put into it.
    pub(super) fn is_full(&self, key: &str) -> bool {
        self.builders.get(key).is_some_and(|builder| builder.is_full(self.rows_max))
    }

    /// How long until the oldest batch has to go on; `None` where there is none.
    pub(super) fn due_in(&self) -> Option<Duration> {
        self.began.map(|began| self.batch_timeout.saturating_sub(began.elapsed()))
    }

    /// Sends every batch where the oldest is old enough.
    pub(super) async fn send_old(&mut self) -> Result<(), Stop> {
        if self.due_in().is_some_and(|left| left.is_zero()) { self.send_all().await } else { Ok(()) }
    }

    /// Sends every batch.
    pub(super) async fn send_all(&mut self) -> Result<(), Stop> {
        self.began = None;
        let keys: Vec<_> = self.builders.keys().map(Arc::clone).collect();
        for key in keys {
            self.send_batch(&key).await?;
        }
        Ok(())
    }

    /// Sends the batch of a key, where it has records, once memory has room. When the lane wants to stop, it is sent at once.
    pub(super) async fn send_batch(&mut self, key: &Arc<str>) -> Result<(), Stop> {
        let Some(mut builder) = self.builders.remove(key).filter(|builder| !builder.is_empty()) else { return Ok(()) };
        let (waiting, reason) = (Instant::now(), self.context.budget.begin_wait());
        while self.context.budget.is_exhausted() && !self.signals.is_stopped() && !self.events.is_closed() {
            tokio::select! {
                () = self.context.budget.room() => {}
                () = self.signals.sleep(Duration::from_millis(250)) => {}
            }
        }
        if waiting.elapsed() > WAIT_MIN {
            self.context.metrics.waited(reason, waiting.elapsed().as_secs_f64());
        }
        if !self.context.take_batch() {
            return Err(Stop::End);
        }
        let batch = builder.finish(&self.context.budget)?;
        self.send(SourceEvent::Batch(batch)).await
    }

    /// Sends an event behind all others, once the lane has room.
    pub(super) async fn send(&self, event: SourceEvent) -> Result<(), Stop> {
        let waiting = Instant::now();
        let sent = self.events.send(event).await;
        if waiting.elapsed() > WAIT_MIN {
            self.context.metrics.waited("lane", waiting.elapsed().as_secs_f64());
        }
        sent.map_err(|_gone| Stop::Gone)
    }

    /// Tells the lane how reading ended.
    pub(super) async fn end(&self, stop: Stop) {
        let event = match stop {
            Stop::End => SourceEvent::End,
            Stop::Failed(error) => SourceEvent::Failed(error),
            Stop::Gone => return,
        };
        tokio::select! {
            // The lane may be gone already.
            _ = self.events.send(event) => {}
            () = self.signals.closed() => {}
        }
    }
}
