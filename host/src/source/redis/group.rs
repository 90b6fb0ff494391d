//! One stream that is read by a consumer of a group, at least once.
//!
//! Comes in: what the group gives; what this consumer had been given before, at the start and after a connection broke; what dead
//! consumers had been given. Goes out: entries under numbers in the order in which they came. Promise: an entry is acknowledged
//! after its number was said to be durable, and not before.

use std::{
    collections::{BTreeMap, HashSet, VecDeque},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use super::{
    client::Server,
    fault::Fault,
    id::StreamId,
    reply::{self, Consumer, Entry, Pending},
    scripts,
    seats::Seat,
    tap::{Arrivals, Tap},
};
use crate::{
    config::{RedisConfig, RedisStart},
    memory::{MemoryBudget, MemoryGuard},
};

/// How often it is looked for dead consumers.
const SCAN_INTERVAL: Duration = Duration::from_secs(2);

/// Entries of a dead consumer that are claimed at once, and ids acknowledged at once.
const PAGE: usize = 1_000;

/// What an entry that was given and is not acknowledged takes in memory.
const HELD_BYTES: usize = 32;

/// Entries that were given and are not acknowledged.
#[derive(Debug)]
pub(super) struct Held {
    /// Number and id of each that is on its way, in the order of their numbers. Bounded by the memory budget, which counts it.
    under_way: VecDeque<(i64, StreamId)>,
    /// Ids that are durable and not acknowledged yet.
    owed: Vec<StreamId>,
    /// The next number.
    next: i64,
    /// Counts them.
    memory: MemoryGuard,
}

impl Held {
    /// Nothing is held.
    pub(super) fn new(budget: &MemoryBudget) -> Self {
        Self { under_way: VecDeque::new(), owed: Vec::new(), next: 0, memory: budget.hold(0) }
    }

    /// Takes an entry: its number.
    fn take(&mut self, id: StreamId) -> i64 {
        let number = self.next;
        self.next += 1;
        self.under_way.push_back((number, id));
        number
    }

    /// Counts what is held.
    fn count(&mut self) {
        self.memory.resize((self.under_way.len() + self.owed.len()) * HELD_BYTES);
    }

    /// Entries below a number are durable.
    pub(super) fn durable_to(&mut self, to: i64) {
        while let Some((_, id)) = self.under_way.pop_front_if(|(number, _)| *number < to) {
            self.owed.push(id);
        }
        self.count();
    }

    /// Whether nothing has to be acknowledged.
    pub(super) fn owes_nothing(&self) -> bool {
        self.owed.is_empty()
    }

    /// Every id that is held.
    fn ids(&self) -> HashSet<StreamId> {
        self.under_way.iter().map(|(_, id)| *id).chain(self.owed.iter().copied()).collect()
    }
}

/// A stream and its group.
#[derive(Debug)]
pub(super) struct GroupStream {
    /// Its key.
    key: Arc<str>,
    /// The group.
    group: String,
    /// This consumer.
    consumer: String,
    /// Who else is there.
    seat: Arc<Seat>,
    /// When to ask, and how much.
    pub(super) tap: Tap,
    /// What is given and not acknowledged.
    held: Arc<Mutex<Held>>,
    /// Whether the group is known to be there.
    has_group: bool,
    /// While what was given before is read again: the last id of it, and what needs not be.
    history: Option<(StreamId, HashSet<StreamId>)>,
    /// The connection over which history was read; another one may have swallowed an answer.
    read_over: u64,
    /// The highest id that was given.
    highest: StreamId,
    /// When it is looked for dead consumers again.
    scan_at: Instant,
    /// For `--until-end`: the last id at the start.
    end: Option<StreamId>,
    /// For `--until-end`: whether what was there at start was given, to us or to others.
    is_given: bool,
    /// Whether others may be dead and have some of it.
    has_open_others: bool,
}

impl GroupStream {
    /// Nothing is read yet.
    pub(super) fn new(
        key: Arc<str>,
        group: String,
        consumer: String,
        seat: Arc<Seat>,
        held: Arc<Mutex<Held>>,
        rows_max: usize,
    ) -> Self {
        Self {
            key,
            group,
            consumer,
            seat,
            tap: Tap::new(rows_max),
            held,
            has_group: false,
            history: Some((StreamId::ZERO, HashSet::new())),
            read_over: 0,
            highest: StreamId::ZERO,
            scan_at: Instant::now(),
            end: None,
            is_given: false,
            has_open_others: true,
        }
    }

    /// Its key.
    pub(super) fn key(&self) -> &Arc<str> {
        &self.key
    }

    /// For `--until-end`: whether nothing of what was there at start is left for us.
    pub(super) fn is_at_end(&self) -> bool {
        self.history.is_none() && self.is_given && !self.has_open_others
    }

    /// The next entries.
    pub(super) async fn fetch(
        &mut self,
        server: &Server,
        config: &RedisConfig,
        deliveries_max: Option<u64>,
    ) -> Result<Arrivals, Fault> {
        let fetched = self.fetch_once(server, config, deliveries_max).await;
        if let Err(Fault::NoGroup | Fault::NoKey) = fetched {
            self.make_group(server, config).await?;
            self.tap.due = Instant::now();
            return Ok(Arrivals::default());
        }
        fetched
    }

    /// The same, once.
    async fn fetch_once(
        &mut self,
        server: &Server,
        config: &RedisConfig,
        deliveries_max: Option<u64>,
    ) -> Result<Arrivals, Fault> {
        if !self.has_group {
            self.make_group(server, config).await?;
        }
        if self.history.is_none() && self.read_over != server.generation() {
            let known = lock(&self.held).ids();
            self.history = Some((StreamId::ZERO, known));
        }
        if let Some((from, known)) = self.history.take() {
            return self.read_history(server, from, known, deliveries_max).await;
        }
        if self.scan_at <= Instant::now() {
            let arrivals = self.claim(server, config, deliveries_max).await?;
            if !arrivals.is_empty() {
                return Ok(arrivals);
            }
        }
        let count = self.tap.count();
        let entries = self.read(server, ">", count).await?;
        self.highest = entries.iter().map(|entry| entry.id).max().unwrap_or(self.highest).max(self.highest);
        let is_all = entries.len() < count;
        self.is_given |= is_all || self.end.is_some_and(|end| self.highest >= end);
        let bytes = entries.iter().map(Entry::bytes).sum();
        self.tap.ate(entries.len(), bytes, is_all);
        self.accept(server, entries, &BTreeMap::new()).await
    }

    /// Makes the group where it is not there: at the beginning or the end of the stream as configured, or, where it was there
    /// before, behind what it had given, if the stream has got that far.
    async fn make_group(&mut self, server: &Server, config: &RedisConfig) -> Result<(), Fault> {
        let was_there = self.has_group;
        let last = super::stream::info(server, &self.key).await?.map(|info| info.last);
        self.end.get_or_insert(last.unwrap_or_default());
        let start = match config.start {
            _ if was_there => (if last >= Some(self.highest) { self.highest } else { StreamId::ZERO }).to_string(),
            RedisStart::Earliest => "0".to_owned(),
            RedisStart::Latest => "$".to_owned(),
        };
        let mut command = redis::cmd("XGROUP");
        command.arg("CREATE").arg(&*self.key).arg(&self.group).arg(&start).arg("MKSTREAM");
        match server.ask(&command, &format!("{}: making the consumer group {:?}", self.key, self.group)).await {
            Ok(_) if was_there => tracing::warn!(
                stream = &*self.key,
                group = self.group,
                start,
                "the stream or its consumer group was deleted while it was read: the group is made anew"
            ),
            Ok(_) => tracing::info!(stream = &*self.key, group = self.group, start, "the consumer group is made"),
            Err(Fault::GroupExists) => {}
            Err(fault) => return Err(fault),
        }
        self.has_group = true;
        Ok(())
    }

    /// Reads from the group.
    async fn read(&self, server: &Server, from: &str, count: usize) -> Result<Vec<Entry>, Fault> {
        let mut command = redis::cmd("XREADGROUP");
        command.arg("GROUP").arg(&self.group).arg(&self.consumer).arg("COUNT").arg(count);
        command.arg("STREAMS").arg(&*self.key).arg(from);
        let answer = server.ask(&command, &format!("{}: reading the stream for {:?}", self.key, self.group)).await?;
        reply::of_stream(answer).map_err(Fault::Refused)
    }

    /// What this consumer was given before and has not acknowledged.
    async fn read_history(
        &mut self,
        server: &Server,
        from: StreamId,
        known: HashSet<StreamId>,
        deliveries_max: Option<u64>,
    ) -> Result<Arrivals, Fault> {
        let generation = server.generation();
        let count = self.tap.count();
        let entries = match self.read(server, &from.to_string(), count).await {
            Ok(entries) => entries,
            Err(fault) => {
                self.history = Some((from, known));
                return Err(fault);
            }
        };
        self.tap.due = Instant::now();
        let Some(last) = entries.last().map(|entry| entry.id) else {
            // A connection that was made meanwhile begins anew.
            self.read_over = generation;
            return Ok(Arrivals::default());
        };
        let bytes = entries.iter().map(Entry::bytes).sum();
        self.tap.ate(entries.len(), bytes, false);
        let new: Vec<_> = entries.into_iter().filter(|entry| !known.contains(&entry.id)).collect();
        self.history = Some((last, known));
        let deliveries = match deliveries_max {
            Some(_) if !new.is_empty() => {
                self.deliveries(server, &self.consumer, new.first().map(|entry| entry.id), last).await?
            }
            _ => BTreeMap::new(),
        };
        self.accept_counted(server, new, &deliveries, deliveries_max).await
    }

    /// Claims what dead consumers were given, a page at a time.
    async fn claim(
        &mut self,
        server: &Server,
        config: &RedisConfig,
        deliveries_max: Option<u64>,
    ) -> Result<Arrivals, Fault> {
        let mut command = redis::cmd("XINFO");
        command.arg("CONSUMERS").arg(&*self.key).arg(&self.group);
        let doing = format!("{}: asking for the consumers of {:?}", self.key, self.group);
        let consumers = reply::consumers(server.ask(&command, &doing).await?).map_err(Fault::Refused)?;
        let census = self.seat.census();
        self.has_open_others = false;
        for Consumer { name, pending, idle_ms } in &consumers {
            if *name == self.consumer {
                continue;
            }
            let is_ours = census.is_dead(name);
            // What a dead one of ours was given last was given before it fell silent; whoever claims it makes it young again.
            let idle = if is_ours { config.session_timeout / 2 } else { config.claim_idle };
            if census.is_taken(name) || (!is_ours && Duration::from_millis(*idle_ms) < config.claim_idle) {
                self.has_open_others |= *pending > 0 && census.is_uncertain(name, &self.seat.process);
                continue;
            }
            if *pending == 0 {
                if is_ours {
                    let mut command = scripts::eval(scripts::REMOVE_IDLE, &[&self.key]);
                    command.arg(&self.group).arg(name);
                    server.ask(&command, &format!("{}: removing the dead consumer {name:?}", self.key)).await?;
                }
                continue;
            }
            let arrivals = self.claim_of(server, name, idle, deliveries_max).await?;
            // Until nothing is left of it, by us or by another one.
            self.has_open_others = true;
            if !arrivals.is_empty() {
                self.tap.due = Instant::now();
                return Ok(arrivals);
            }
        }
        self.scan_at = Instant::now() + if self.has_open_others { SCAN_INTERVAL / 4 } else { SCAN_INTERVAL };
        Ok(Arrivals::default())
    }

    /// Claims a page of what one consumer was given.
    async fn claim_of(
        &mut self,
        server: &Server,
        name: &str,
        idle: Duration,
        deliveries_max: Option<u64>,
    ) -> Result<Arrivals, Fault> {
        let page = self.tap.count().min(PAGE);
        let waiting = self.pending(server, name, StreamId::ZERO, StreamId::MAX, page).await?;
        if waiting.is_empty() {
            return Ok(Arrivals::default());
        }
        let mut command = redis::cmd("XCLAIM");
        command.arg(&*self.key).arg(&self.group).arg(&self.consumer).arg(super::members::millis(idle));
        for entry in &waiting {
            command.arg(entry.id.to_string());
        }
        let doing = format!("{}: claiming what {name:?} was given", self.key);
        let answer = server.ask(&command, &doing).await?;
        let entries = reply::entries(answer).map_err(Fault::Refused)?;
        if !entries.is_empty() {
            tracing::info!(
                stream = &*self.key,
                group = self.group,
                of = name,
                entries = entries.len(),
                "entries of a dead consumer are claimed"
            );
        }
        let bytes = entries.iter().map(Entry::bytes).sum();
        self.tap.ate(entries.len(), bytes, false);
        // Claiming counts as one more.
        let deliveries = waiting.iter().map(|entry| (entry.id, entry.deliveries + 1)).collect();
        self.accept_counted(server, entries, &deliveries, deliveries_max).await
    }

    /// How often each of a stretch of entries was delivered.
    async fn deliveries(
        &self,
        server: &Server,
        name: &str,
        from: Option<StreamId>,
        to: StreamId,
    ) -> Result<BTreeMap<StreamId, u64>, Fault> {
        let count = self.tap.count().saturating_mul(2);
        let list = self.pending(server, name, from.unwrap_or(StreamId::ZERO), to, count).await?;
        Ok(list.into_iter().map(|entry| (entry.id, entry.deliveries)).collect())
    }

    /// What one consumer was given and has not acknowledged.
    async fn pending(
        &self,
        server: &Server,
        name: &str,
        from: StreamId,
        to: StreamId,
        count: usize,
    ) -> Result<Vec<Pending>, Fault> {
        let mut command = redis::cmd("XPENDING");
        command.arg(&*self.key).arg(&self.group).arg(from.to_string()).arg(to.to_string()).arg(count).arg(name);
        let answer = server.ask(&command, &format!("{}: asking what {name:?} was given", self.key)).await?;
        reply::pending(answer).map_err(Fault::Refused)
    }

    /// Takes entries; those that were delivered too often apart.
    async fn accept_counted(
        &self,
        server: &Server,
        entries: Vec<Entry>,
        deliveries: &BTreeMap<StreamId, u64>,
        deliveries_max: Option<u64>,
    ) -> Result<Arrivals, Fault> {
        let most = deliveries_max.unwrap_or(u64::MAX);
        let too_often =
            deliveries.iter().filter(|(_, count)| **count > most).map(|(id, count)| (*id, *count)).collect();
        self.accept(server, entries, &too_often).await
    }

    /// Takes entries under numbers. Those that were deleted meanwhile are acknowledged at once: there is nothing to make durable.
    async fn accept(
        &self,
        server: &Server,
        entries: Vec<Entry>,
        too_often: &BTreeMap<StreamId, u64>,
    ) -> Result<Arrivals, Fault> {
        let (mut arrivals, mut deleted) = (Arrivals::default(), Vec::new());
        {
            let mut held = lock(&self.held);
            // Refused ones are sent behind the others, so they get their numbers behind them.
            let (refused, good): (Vec<_>, Vec<_>) =
                entries.into_iter().partition(|entry| too_often.contains_key(&entry.id));
            for (entry, is_refused) in
                good.into_iter().map(|entry| (entry, false)).chain(refused.into_iter().map(|entry| (entry, true)))
            {
                if entry.fields.is_none() {
                    deleted.push(entry.id);
                    continue;
                }
                let number = held.take(entry.id);
                if is_refused {
                    arrivals.refused.push((number, entry));
                } else {
                    arrivals.entries.push((number, entry));
                }
            }
            held.count();
        }
        if !deleted.is_empty() {
            arrivals.deleted = deleted.len() as u64;
            acknowledge(server, &self.key, &self.group, &deleted).await?;
        }
        Ok(arrivals)
    }

    /// Acknowledges what is durable. What could not be is owed still.
    pub(super) async fn settle(&self, server: &Server) -> Result<(), Fault> {
        loop {
            let page: Vec<_> = lock(&self.held).owed.iter().take(PAGE).copied().collect();
            if page.is_empty() {
                return Ok(());
            }
            acknowledge(server, &self.key, &self.group, &page).await?;
            let mut held = lock(&self.held);
            held.owed.drain(..page.len());
            held.count();
        }
    }
}

/// Acknowledges entries.
async fn acknowledge(server: &Server, key: &str, group: &str, ids: &[StreamId]) -> Result<(), Fault> {
    let mut command = redis::cmd("XACK");
    command.arg(key).arg(group);
    for id in ids {
        command.arg(id.to_string());
    }
    server.ask(&command, &format!("{key}: acknowledging entries for {group:?}")).await.map(|_| ())
}

/// A lock that a panic elsewhere does not break.
pub(super) fn lock(held: &Mutex<Held>) -> MutexGuard<'_, Held> {
    held.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_durable_is_owed_and_memory_counts_the_rest() {
        let budget = MemoryBudget::new(1 << 20);
        let mut held = Held::new(&budget);
        let id = |number: u64| StreamId { milliseconds: number, sequence: 0 };
        assert_eq!((held.take(id(9)), held.take(id(3)), held.take(id(5))), (0, 1, 2));
        held.count();
        assert_eq!(budget.used_bytes(), 3 * HELD_BYTES);
        held.durable_to(2);
        assert_eq!(held.owed, [id(9), id(3)]);
        assert!(!held.owes_nothing() && held.ids().len() == 3);
        held.owed.clear();
        held.durable_to(2);
        assert!(held.owes_nothing());
        assert_eq!(budget.used_bytes(), HELD_BYTES);
    }
}
