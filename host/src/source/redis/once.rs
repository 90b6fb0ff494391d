//! Streams, exactly once: read by id, no consumer group, one reader each.
//!
//! Comes in: entries behind the position that the ledger told when the stream was claimed. Goes out: batches whose offsets stand
//! for ids ([`super::id`]). Promises: a stream is read only between its claim and its release; where another server knows less
//! of a stream than was committed (a failover that lost entries), a new entry below the position is an error, not a loss.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::{Duration, Instant},
};

use futures::{FutureExt as _, StreamExt as _, future::BoxFuture, stream};
use tokio::sync::oneshot;

use super::{
    super::{LaneContext, SourceEvent},
    client::{Backoff, Server},
    entry,
    fault::Fault,
    id::StreamId,
    members::{Membership, View},
    outlet::{Outlet, Stop},
    reply,
    spread::spread,
    stream::{Fetched, Stream, info},
};
use crate::{checkpoint::SourcePartition, config::RedisConfig, error::PipelineError};

/// Streams asked side by side: hides the way to the server without filling memory with answers.
pub(super) const QUESTIONS: usize = 8;

/// How long a reader sleeps at most when there is nothing to do; whoever has something for it wakes it.
const SLEEP_MAX: Duration = Duration::from_secs(5);

/// The same while it waits for others.
const WAIT_MAX: Duration = Duration::from_millis(500);

/// After joining, lanes that start together wait until they have seen each other, so that streams need not move at once.
const SETTLE: Duration = Duration::from_millis(400);

/// How long a revocation waits for the lane: enough for an upload and a few tries.
const REVOKE_WAIT: Duration = Duration::from_secs(60);

/// How long an assignment waits for the lane to claim it: the store may be away for a while.
const CLAIM_WAIT: Duration = Duration::from_secs(240);

/// For `--until-end`: nothing has moved for so long, beyond the session timeout.
const QUIET: Duration = Duration::from_secs(5);

/// How often others' positions are asked for.
const LOOK_INTERVAL: Duration = Duration::from_millis(250);

/// What one question gave, and of which stream.
type Answer = (Arc<str>, Result<Vec<Fetched>, Fault>);

/// Reads the streams of one lane.
pub(super) struct OnceReader {
    /// Where records go.
    pub(super) outlet: Outlet,
    /// The source's configuration.
    pub(super) config: Arc<RedisConfig>,
    /// The way to the server.
    pub(super) server: Arc<Server>,
    /// Who reads what.
    pub(super) membership: Arc<Membership>,
    /// Where committed positions are told, for others.
    pub(super) positions_key: String,
    /// What is read now.
    streams: BTreeMap<String, Stream>,
    /// For `--until-end`: the last id of each stream when it was first asked for, and when that was.
    ends: BTreeMap<String, (StreamId, Instant)>,
    /// The members of the last look, and since when.
    known: (BTreeSet<String>, Instant),
    /// The number of the answer that was followed last.
    followed: u64,
    /// When others' positions were asked for, and whether they were at their ends.
    others: Option<(Instant, bool)>,
    /// After failures.
    backoff: Backoff,
}

impl OnceReader {
    /// Nothing is read yet.
    pub(super) fn new(
        outlet: Outlet,
        config: Arc<RedisConfig>,
        server: Arc<Server>,
        membership: Arc<Membership>,
        positions_key: String,
    ) -> Self {
        Self {
            outlet,
            config,
            server,
            membership,
            positions_key,
            streams: BTreeMap::new(),
            ends: BTreeMap::new(),
            known: (BTreeSet::new(), Instant::now()),
            followed: 0,
            others: None,
            backoff: Backoff::new(),
        }
    }

    /// Reads until there is a reason to stop.
    pub(super) async fn read(&mut self) -> Stop {
        loop {
            match self.turn().await {
                Ok(()) => {}
                Err(stop) => return stop,
            }
        }
    }

    /// One turn: who reads what, entries, batches, and whether it is the end.
    async fn turn(&mut self) -> Result<(), Stop> {
        if self.outlet.signals.is_stopped() {
            self.outlet.send_all().await?;
            return Err(Stop::End);
        }
        self.follow_members().await?;
        let (has_read, fault) = self.fetch().await?;
        match fault {
            None => self.backoff.reset(),
            Some(Fault::Away(_)) => {
                let pause = self.backoff.pause();
                self.outlet.signals.sleep(pause).await;
            }
            Some(fault) => return Err(fault.into_error("reading streams").into()),
        }
        self.outlet.send_old().await?;
        if self.outlet.context.run.until_end && self.is_at_end().await? {
            self.outlet.send_all().await?;
            return Err(Stop::End);
        }
        if !has_read {
            let now = Instant::now();
            let due = self.streams.values().map(|stream| stream.due.saturating_duration_since(now)).min();
            let is_waiting = self.outlet.context.run.until_end || self.known.1.elapsed() < SETTLE;
            let most = if is_waiting { WAIT_MAX } else { SLEEP_MAX };
            let wait = [due, self.outlet.due_in()].into_iter().flatten().min().unwrap_or(most).min(most);
            if !wait.is_zero() {
                self.outlet.signals.sleep(wait).await;
            }
        }
        Ok(())
    }

    /// Takes and gives streams as the members come and go.
    async fn follow_members(&mut self) -> Result<(), Stop> {
        let Some(View { members, held, lost, failed, number }) = self.membership.view_after(self.followed) else {
            return Ok(());
        };
        if let Some(error) = failed {
            let words = error.full_message();
            return Err(match error.verdict() {
                crate::error::Verdict::Stop => PipelineError::stop(words),
                _ => PipelineError::restart(words),
            }
            .into());
        }
        if members.is_empty() {
            return Ok(());
        }
        let lost: Vec<_> = lost.iter().filter(|stream| self.streams.contains_key(*stream)).cloned().collect();
        if !lost.is_empty() {
            return self.lose(lost).await;
        }
        if members != self.known.0 {
            self.known = (members.clone(), Instant::now());
            self.outlet.context.moves.note();
        }
        if self.known.1.elapsed() < SETTLE {
            return Ok(());
        }
        self.followed = number;
        let streams: BTreeSet<String> = self.config.stream_keys.iter().cloned().collect();
        let shares = spread(&streams, &members);
        let mine: BTreeSet<String> =
            shares.get(self.membership.name.as_str()).into_iter().flatten().map(|key| (*key).to_owned()).collect();
        let going: Vec<_> = self.streams.keys().filter(|key| !mine.contains(*key)).cloned().collect();
        if !going.is_empty() {
            self.give_away(going).await?;
        }
        let coming: Vec<_> = mine.intersection(&held).filter(|key| !self.streams.contains_key(*key)).cloned().collect();
        self.membership.want(mine);
        if coming.is_empty() { Ok(()) } else { self.claim(coming).await }
    }

    /// Streams come: the lane claims them and says where they begin.
    async fn claim(&mut self, keys: Vec<String>) -> Result<(), Stop> {
        tracing::info!(pipeline = %self.outlet.context.pipeline, lane = self.outlet.context.lane, streams = ?keys, "streams assigned");
        for key in &keys {
            self.membership.reads(key);
        }
        let partitions: Vec<_> = keys.iter().map(|key| SourcePartition::new(key.as_str(), 0)).collect();
        let (begin, answer) = oneshot::channel();
        let waiting = Instant::now();
        self.outlet
            .send(SourceEvent::Assigned { partitions: partitions.clone(), topic_ids: BTreeMap::new(), begin })
            .await?;
        let positions = match tokio::time::timeout(CLAIM_WAIT, answer).await {
            Ok(Ok(positions)) => positions,
            // The lane has failed, and tells so itself.
            Ok(Err(_)) => return Err(Stop::Gone),
            Err(_) => {
                return Err(PipelineError::restart(format!(
                    "the ledger did not answer within {} s, so the streams could not be claimed",
                    CLAIM_WAIT.as_secs()
                ))
                .into());
            }
        };
        self.outlet.context.metrics.waited("claim", waiting.elapsed().as_secs_f64());
        for (key, partition) in keys.into_iter().zip(partitions) {
            let position = positions.get(&partition).copied();
            let stream = Stream::new(partition, position, self.outlet.rows_max);
            self.streams.insert(key, stream);
        }
        self.outlet.context.moves.note();
        Ok(())
    }

    /// Streams go: the lane commits what was read of them first, within a limit.
    async fn give_away(&mut self, keys: Vec<String>) -> Result<(), Stop> {
        let partitions: Vec<_> = keys.iter().map(|key| SourcePartition::new(key.as_str(), 0)).collect();
        self.outlet.context.moves.begin(&partitions);
        let given = self.revoke(&keys, partitions).await;
        self.outlet.context.moves.end();
        given
    }

    /// The same, told to nobody.
    async fn revoke(&mut self, keys: &[String], partitions: Vec<SourcePartition>) -> Result<(), Stop> {
        self.outlet.send_all().await?;
        let (release, released) = oneshot::channel();
        let waiting = Instant::now();
        self.outlet.send(SourceEvent::Revoked { partitions, release }).await?;
        let answer = tokio::time::timeout(REVOKE_WAIT, released).await;
        self.outlet.context.metrics.waited("revoke", waiting.elapsed().as_secs_f64());
        if answer.is_err() {
            // What it has not committed is read by the next owner; the lane begins anew.
            return self.lose(keys.to_vec()).await;
        }
        for key in keys {
            self.streams.remove(key);
        }
        self.membership.give_back(keys);
        Ok(())
    }

    /// Streams are gone already: the lane drops what it has and begins anew.
    async fn lose(&mut self, keys: Vec<String>) -> Result<(), Stop> {
        tracing::warn!(pipeline = %self.outlet.context.pipeline, lane = self.outlet.context.lane, streams = ?keys,
            "streams were lost: what was not committed of them is read again");
        for key in &keys {
            self.streams.remove(key);
        }
        let partitions = keys.iter().map(|key| SourcePartition::new(key.as_str(), 0)).collect();
        self.membership.give_back(&keys);
        self.outlet.send(SourceEvent::Lost { partitions }).await
    }

    /// Asks every stream that is due: whether anything came, and what went wrong.
    async fn fetch(&mut self) -> Result<(bool, Option<Fault>), Stop> {
        let now = Instant::now();
        let (server, config, context) = (&*self.server, &*self.config, &self.outlet.context);
        let due = self.streams.values_mut().filter(|stream| stream.due <= now);
        let questions: Vec<BoxFuture<'_, Answer>> =
            due.map(|stream| ask(stream, server, config, context).boxed()).collect();
        if questions.is_empty() {
            return Ok((false, None));
        }
        let answers: Vec<_> = stream::iter(questions).buffer_unordered(QUESTIONS).collect().await;
        let (mut has_read, mut fault) = (false, None);
        for (key, answer) in answers {
            match answer {
                Ok(fetched) => {
                    has_read |= !fetched.is_empty();
                    for (offset, entry) in &fetched {
                        entry::push(self.outlet.builder(&key), &self.config.entry, *offset, entry);
                        if self.outlet.is_full(&key) {
                            self.outlet.send_batch(&key).await?;
                        }
                    }
                }
                // What was read of the others must not be dropped: their cursors have moved.
                Err(error) => fault = Some(error),
            }
        }
        Ok((has_read, fault))
    }

    /// Whether every stream was read to what was there at start, by whomever.
    async fn is_at_end(&mut self) -> Result<bool, Stop> {
        if self.known.0.is_empty() || self.known.1.elapsed() < SETTLE {
            return Ok(false);
        }
        for key in &self.config.stream_keys {
            if !self.ends.contains_key(key) {
                match info(&self.server, key).await {
                    Ok(info) => {
                        let end = info.filter(|info| info.length > 0).map_or(StreamId::ZERO, |info| info.last);
                        self.ends.insert(key.clone(), (end, Instant::now()));
                    }
                    Err(Fault::Away(_)) => return Ok(false),
                    Err(fault) => return Err(fault.into_error("asking where a stream ends").into()),
                }
            }
        }
        let ends = &self.ends;
        let is_read =
            |(key, stream): (&String, &Stream)| ends.get(key).is_some_and(|(end, asked)| stream.has_read(*end, *asked));
        if !self.streams.iter().all(is_read) {
            return Ok(false);
        }
        let mine: BTreeSet<_> = self.streams.values().map(|stream| stream.partition.clone()).collect();
        self.outlet.context.moves.reached(&mine);
        let moves = Arc::clone(&self.outlet.context.moves);
        let open: Vec<_> = self
            .ends
            .iter()
            .filter(|(key, (end, _))| {
                *end != StreamId::ZERO
                    && !self.streams.contains_key(*key)
                    && !moves.has_reached(&SourcePartition::new(key.as_str(), 0))
            })
            .map(|(key, (end, _))| (key.clone(), *end))
            .collect();
        if open.is_empty() || (!self.outlet.context.takes_over && self.are_committed(&open).await?) {
            return Ok(true);
        }
        // A member that only looks on must not keep us for ever.
        let patience = self.config.session_timeout + QUIET;
        Ok(self.known.1.elapsed() >= patience && moves.quiet_for().is_some_and(|quiet| quiet >= patience))
    }

    /// Whether others have committed streams to their ends, by what they told.
    async fn are_committed(&mut self, open: &[(String, StreamId)]) -> Result<bool, Stop> {
        if let Some((_, is_done)) = self.others.filter(|(at, _)| at.elapsed() < LOOK_INTERVAL) {
            return Ok(is_done);
        }
        let mut command = redis::cmd("HMGET");
        command.arg(&self.positions_key);
        for (key, _) in open {
            command.arg(key);
        }
        let is_done = match self.server.ask(&command, "asking how far the others are").await {
            Ok(redis::Value::Array(found)) => found.iter().zip(open).all(|(value, (_, end))| {
                let position = reply::number(value).map(StreamId::before_offset);
                position.is_some_and(|position| position >= *end)
            }),
            Ok(_) | Err(Fault::Away(_)) => false,
            Err(fault) => return Err(fault.into_error("asking how far the others are").into()),
        };
        self.others = Some((Instant::now(), is_done));
        Ok(is_done)
    }
}

/// Asks a stream.
async fn ask(stream: &mut Stream, server: &Server, config: &RedisConfig, context: &LaneContext) -> Answer {
    (Arc::clone(&stream.partition.topic), stream.fetch(server, config, context).await)
}
