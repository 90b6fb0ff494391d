//! Streams by their consumer group, and lists, at least once: the loop of one lane.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use futures::{FutureExt as _, StreamExt as _, future::BoxFuture, stream};

use super::{
    super::{SourceEvent, envelope::EnvelopeBuilder},
    client::{Backoff, Server},
    entry,
    fault::Fault,
    group::GroupStream,
    list::List,
    once::QUESTIONS,
    outlet::{Outlet, Stop},
    seats::Seat,
    tap::Arrivals,
};
use crate::{config::RedisConfig, error::PipelineError};

/// How long a reader sleeps at most when there is nothing to do.
const SLEEP_MAX: Duration = Duration::from_secs(1);

/// Between two tries to settle what is durable, once reading has ended.
const SETTLE_PAUSE: Duration = Duration::from_millis(50);

/// Reads for one lane.
pub(super) struct LeastReader {
    /// Where records go.
    pub(super) outlet: Outlet,
    /// The source's configuration.
    pub(super) config: Arc<RedisConfig>,
    /// The way to the server.
    pub(super) server: Arc<Server>,
    /// This consumer's name; `None` where there is no stream.
    pub(super) seat: Option<Arc<Seat>>,
    /// Its streams.
    pub(super) streams: Vec<GroupStream>,
    /// Its lists.
    pub(super) lists: Vec<List>,
    /// After failures.
    pub(super) backoff: Backoff,
}

/// What one question gave.
struct Answer {
    /// Of which key.
    key: Arc<str>,
    /// What came.
    arrivals: Result<Arrivals, Fault>,
}

impl LeastReader {
    /// Reads until there is a reason to stop.
    pub(super) async fn read(&mut self) -> Stop {
        loop {
            match self.turn().await {
                Ok(()) => {}
                Err(stop) => return stop,
            }
        }
    }

    /// One turn: what is durable, what is new, batches, and whether it is the end.
    async fn turn(&mut self) -> Result<(), Stop> {
        if self.outlet.signals.is_stopped() {
            self.outlet.send_all().await?;
            return Err(Stop::End);
        }
        if let Some(error) = self.seat.as_ref().and_then(|seat| seat.lost()) {
            return Err(error.into());
        }
        let mut fault = self.settle(false).await.err();
        let mut has_read = false;
        if fault.is_none() {
            (has_read, fault) = self.fetch().await?;
        }
        match fault {
            None => self.backoff.reset(),
            Some(Fault::Away(_)) => {
                let pause = self.backoff.pause();
                self.outlet.signals.sleep(pause).await;
            }
            Some(fault) => return Err(fault.into_error("reading").into()),
        }
        self.outlet.send_old().await?;
        let is_at_end = || self.streams.iter().all(GroupStream::is_at_end) && self.lists.iter().all(List::is_at_end);
        if self.outlet.context.run.until_end && is_at_end() {
            self.outlet.send_all().await?;
            return Err(Stop::End);
        }
        if !has_read {
            let now = Instant::now();
            let taps = self.streams.iter().map(|stream| &stream.tap).chain(self.lists.iter().map(|list| &list.tap));
            let due = taps.map(|tap| tap.due.saturating_duration_since(now)).min();
            let wait = [due, self.outlet.due_in()].into_iter().flatten().min().unwrap_or(SLEEP_MAX).min(SLEEP_MAX);
            if !wait.is_zero() {
                self.outlet.signals.sleep(wait).await;
            }
        }
        Ok(())
    }

    /// Once reading has ended: acknowledges and removes what becomes durable until the lane is gone; then leaves. What is not durable
    /// then is read by others.
    pub(super) async fn linger(&mut self) {
        while !self.outlet.signals.is_closed() && !self.outlet.is_gone() {
            // What could not be said now is said at the next try.
            let _ = self.settle(true).await;
            for list in &mut self.lists {
                let _ = list.speak(&self.server).await;
            }
            self.outlet.signals.sleep(SETTLE_PAUSE).await;
        }
        self.outlet.signals.close();
        let _ = self.settle(true).await;
        for list in &self.lists {
            list.leave(&self.server).await;
        }
    }

    /// Acknowledges and removes what is durable. Lists that are asked for more now do it on the way.
    async fn settle(&self, has_ended: bool) -> Result<(), Fault> {
        for stream in &self.streams {
            stream.settle(&self.server).await?;
        }
        let now = Instant::now();
        for list in self.lists.iter().filter(|list| has_ended || list.tap.due > now) {
            list.settle(&self.server).await?;
        }
        Ok(())
    }

    /// Asks everything that is due: whether anything came, and what went wrong.
    async fn fetch(&mut self) -> Result<(bool, Option<Fault>), Stop> {
        let now = Instant::now();
        let (server, config) = (&*self.server, &*self.config);
        let streams: Vec<_> = self.streams.iter_mut().filter(|stream| stream.tap.due <= now).collect();
        let lists: Vec<_> = self.lists.iter_mut().filter(|list| list.tap.due <= now).collect();
        let of_streams = streams.into_iter().map(|stream| ask_stream(stream, server, config).boxed());
        let of_lists = lists.into_iter().map(|list| ask_list(list, server).boxed());
        let questions: Vec<BoxFuture<'_, Answer>> = of_streams.chain(of_lists).collect();
        let answers: Vec<_> = stream::iter(questions).buffer_unordered(QUESTIONS).collect().await;
        let (mut has_read, mut fault) = (false, None);
        for Answer { key, arrivals } in answers {
            match arrivals {
                Ok(arrivals) => {
                    has_read |= !arrivals.is_empty();
                    self.collect(&key, arrivals).await?;
                }
                // What came of the others must not be dropped: it is counted as taken.
                Err(error) => fault = Some(error),
            }
        }
        Ok((has_read, fault))
    }

    /// Puts what came into batches.
    async fn collect(&mut self, key: &Arc<str>, arrivals: Arrivals) -> Result<(), Stop> {
        let Arrivals { entries, refused, items, deleted } = arrivals;
        if deleted > 0 {
            self.outlet.context.metrics.gap(key, deleted);
            tracing::warn!(pipeline = %self.outlet.context.pipeline, lane = self.outlet.context.lane, stream = &**key, deleted,
                "entries that were given to this consumer were deleted before they were read");
        }
        for (number, entry) in &entries {
            entry::push(self.outlet.builder(key), &self.config.entry, *number, entry);
            if self.outlet.is_full(key) {
                self.outlet.send_batch(key).await?;
            }
        }
        for (number, item) in &items {
            entry::push_item(self.outlet.builder(key), *number, item);
            if self.outlet.is_full(key) {
                self.outlet.send_batch(key).await?;
            }
        }
        if refused.is_empty() {
            return Ok(());
        }
        // Behind those before them, in a batch of their own.
        self.outlet.send_batch(key).await?;
        let mut builder = EnvelopeBuilder::new(Arc::clone(key), Arc::clone(key));
        for (number, entry) in &refused {
            entry::push(&mut builder, &self.config.entry, *number, entry);
        }
        let raw = builder.finish(&self.outlet.context.budget)?;
        let most = self.config.deliveries_max.unwrap_or_default();
        let message =
            format!("the entry was delivered more than {most} times and never acknowledged (source.deliveries_max)");
        self.outlet.send(SourceEvent::Refused { raw, code: "too-many-deliveries", message }).await
    }
}

/// Asks a stream.
async fn ask_stream(stream: &mut GroupStream, server: &Server, config: &RedisConfig) -> Answer {
    let arrivals = stream.fetch(server, config, config.deliveries_max).await;
    Answer { key: Arc::clone(stream.key()), arrivals }
}

/// Asks a list.
async fn ask_list(list: &mut List, server: &Server) -> Answer {
    let arrivals = list.fetch(server).await;
    Answer { key: Arc::clone(list.key()), arrivals }
}

/// Makes the streams and lists of a lane, once this consumer has a name.
pub(super) async fn take_name(seat: &Seat, signals: &super::outlet::Signals) -> Result<Option<String>, PipelineError> {
    let mut backoff = Backoff::new();
    while !signals.is_stopped() {
        match seat.take().await {
            Ok(name) => return Ok(Some(name)),
            Err(Fault::Away(_)) => signals.sleep(backoff.pause()).await,
            Err(fault) => return Err(fault.into_error("source.consumer_name")),
        }
    }
    Ok(None)
}
