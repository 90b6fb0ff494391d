//! One list, at least once: a queue whose items are moved aside while they are worked on.
//!
//! Comes in: items from the front of the list, in their order; each step moves a page of them to a list of this consumer's own, in one
//! script. Goes out: items under numbers. Promise: an item leaves that list after its number was said to be durable. What a dead consumer
//! had comes back to the front of the list, whence anybody takes it.
//!
//! Where the user asks for `list_read: pop`, none of that: an item is gone when it is read, as with `BLPOP`, and nothing is promised of it
//! until its files are durable.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use redis::Value;

use super::{
    client::{Server, strange},
    fault::Fault,
    members::millis,
    outlet::Signals,
    reply, scripts, seats,
    tap::{Arrivals, Tap},
};
use crate::{config::RedisListRead, error::PipelineError};

/// How often a consumer says that it lives within the time after which it is dead.
const BEATS: u32 = 5;

/// Items that come back in one step: a script keeps the server from everything else.
const PAGE: usize = 1_000;

/// Steps of that between two questions for new items.
const PAGES: u32 = 100;

/// How long giving back may take when the lane ends; others do it after the session timeout otherwise.
const LEAVE_TIMEOUT: Duration = Duration::from_secs(5);

/// Numbers of one list.
#[derive(Debug, Default)]
pub(super) struct Progress {
    /// The next number: how many items were taken.
    taken: i64,
    /// How many of them are durable.
    durable: i64,
    /// How many of them were removed.
    removed: i64,
}

impl Progress {
    /// Items below a number are durable.
    pub(super) fn durable_to(&mut self, to: i64) {
        self.durable = self.durable.max(to);
    }

    /// Whether nothing has to be removed.
    pub(super) fn owes_nothing(&self) -> bool {
        self.removed == self.durable
    }
}

/// This consumer of a list, as the others see it.
#[derive(Debug)]
pub(super) struct ListSeat {
    /// Where the consumers of the list are.
    consumers_key: String,
    /// Its name, which no other ever had.
    name: String,
    /// Whether it has said that it is there.
    has_joined: AtomicBool,
}

/// Says again and again that these consumers live, until the lane is gone: whoever reads may wait long for its lane.
pub(super) async fn keep(
    seats: Vec<Arc<ListSeat>>,
    server: Arc<Server>,
    session_timeout: Duration,
    signals: Arc<Signals>,
) {
    while !seats.is_empty() && !signals.is_closed() {
        // Whether the time is over or the lane gone is looked at next.
        let _ = tokio::time::timeout(session_timeout / BEATS, signals.closed()).await;
        for seat in seats.iter().filter(|seat| seat.has_joined.load(Ordering::Acquire)) {
            // Whoever was taken for dead notices when it takes more.
            let _ = server.ask(&seat.beat(session_timeout, "stay"), "saying that this consumer of a list lives").await;
        }
    }
}

impl ListSeat {
    /// A consumer of a list.
    fn beside(key: &str) -> Result<Self, PipelineError> {
        let consumers_key = scripts::companion(key, "consumers").ok_or_else(|| {
            PipelineError::stop(format!(
                "source.list_keys: beside {key:?} no key can be made that a cluster keeps with it; a `}}` without a tag before it is not served"
            ))
        })?;
        let name = format!("{}{}", seats::process_name(), uuid::Uuid::new_v4().simple());
        Ok(Self { consumers_key, name, has_joined: AtomicBool::new(false) })
    }

    /// Where a consumer of the list keeps what it took.
    fn kept_key(&self, name: &str) -> String {
        // The name of the consumers' key ends with `consumers`.
        format!("{}:{name}", self.consumers_key.trim_end_matches("consumers").trim_end_matches(':'))
    }

    /// A word of this consumer.
    fn beat(&self, session_timeout: Duration, word: &str) -> redis::Cmd {
        let mut command = scripts::eval(scripts::LIST_BEAT, &[&self.consumers_key]);
        command.arg(&self.name).arg(millis(session_timeout)).arg(word);
        command
    }
}

/// A list.
#[derive(Debug)]
pub(super) struct List {
    /// Its key.
    key: Arc<str>,
    /// This consumer; `None` where items are taken for good, so that nobody has to know of it.
    pub(super) seat: Option<Arc<ListSeat>>,
    /// After so long without a word a consumer is dead.
    session_timeout: Duration,
    /// When to ask, and how much.
    pub(super) tap: Tap,
    /// How far it is.
    progress: Arc<Mutex<Progress>>,
    /// When it last said that it lives; `None` before the first time.
    spoken_at: Option<Instant>,
    /// When the other consumers were first seen to die.
    others: BTreeMap<String, i64>,
    /// Whether others may be dead and have some of it.
    has_open_others: bool,
    /// For `--until-end`: how many items are still to be taken of those that were there at start.
    left: Option<i64>,
    /// Whether it was seen empty.
    was_empty: bool,
}

impl List {
    /// Nothing is taken yet.
    pub(super) fn new(
        key: Arc<str>,
        read: RedisListRead,
        session_timeout: Duration,
        progress: Arc<Mutex<Progress>>,
        rows_max: usize,
    ) -> Result<Self, PipelineError> {
        let seat = match read {
            RedisListRead::Move => Some(Arc::new(ListSeat::beside(&key)?)),
            RedisListRead::Pop => None,
        };
        Ok(Self {
            key,
            has_open_others: seat.is_some(),
            seat,
            session_timeout,
            tap: Tap::new(rows_max),
            progress,
            spoken_at: None,
            others: BTreeMap::new(),
            left: None,
            was_empty: false,
        })
    }

    /// Its key.
    pub(super) fn key(&self) -> &Arc<str> {
        &self.key
    }

    /// For `--until-end`: whether nothing of what was there at start is left for us.
    pub(super) fn is_at_end(&self) -> bool {
        (self.was_empty || self.left.is_some_and(|left| left <= 0)) && !self.has_open_others
    }

    /// The next items, in their order. Forgets what is durable on the way.
    pub(super) async fn fetch(&mut self, server: &Server) -> Result<Arrivals, Fault> {
        self.speak(server).await?;
        if self.left.is_none() {
            let mut command = redis::cmd("LLEN");
            command.arg(&*self.key);
            let length = server.ask(&command, &format!("{}: asking how long the list is", self.key)).await?;
            self.left = Some(reply::number(&length).ok_or_else(|| Fault::Refused(strange("LLEN")))?);
        }
        let count = self.tap.count();
        let items = self.take(server, count).await?;
        let bytes = items.iter().map(Vec::len).sum();
        self.was_empty |= items.is_empty();
        self.tap.ate(items.len(), bytes, items.len() < count);
        let mut progress = self.progress.lock().unwrap_or_else(PoisonError::into_inner);
        let first = progress.taken;
        let arrivals = Arrivals { items: (first..).zip(items).collect(), ..Arrivals::default() };
        let came = i64::try_from(arrivals.items.len()).unwrap_or(i64::MAX);
        progress.taken += came;
        self.left = self.left.map(|left| left - came);
        Ok(arrivals)
    }

    /// Removes what is durable.
    pub(super) async fn settle(&self, server: &Server) -> Result<(), Fault> {
        let owes_nothing = self.progress.lock().unwrap_or_else(PoisonError::into_inner).owes_nothing();
        if owes_nothing || self.seat.is_none() { Ok(()) } else { self.take(server, 0).await.map(|_| ()) }
    }

    /// Removes what is durable, and takes up to so many items more.
    async fn take(&self, server: &Server, count: usize) -> Result<Vec<Vec<u8>>, Fault> {
        let (has, done) = {
            let progress = self.progress.lock().unwrap_or_else(PoisonError::into_inner);
            (progress.taken - progress.removed, progress.durable - progress.removed)
        };
        let command = if let Some(seat) = &self.seat {
            let kept = seat.kept_key(&seat.name);
            let mut command = scripts::eval(scripts::LIST_TAKE, &[&self.key, &kept, &seat.consumers_key]);
            command.arg(&seat.name).arg(has).arg(done).arg(count);
            command
        } else {
            let mut command = scripts::eval(scripts::LIST_POP, &[&self.key]);
            command.arg(count);
            command
        };
        let answer = server.ask(&command, &format!("{}: taking items of the list", self.key)).await?;
        self.progress.lock().unwrap_or_else(PoisonError::into_inner).removed += done;
        let items = reply::list(answer, "taking items of a list").map_err(Fault::Refused)?;
        items
            .into_iter()
            .map(|item| reply::bytes(item).ok_or_else(|| Fault::Refused(strange("taking items of a list"))))
            .collect()
    }

    /// Says that this consumer lives, where it is time, and has what dead ones had come back.
    pub(super) async fn speak(&mut self, server: &Server) -> Result<(), Fault> {
        let Some(seat) = self.seat.as_ref().map(Arc::clone) else { return Ok(()) };
        let pause = self.session_timeout / BEATS;
        if self.spoken_at.is_some_and(|at| at.elapsed() < pause) && !self.has_open_others {
            return Ok(());
        }
        if self.spoken_at.is_some_and(|at| at.elapsed() < pause / 4) {
            return Ok(());
        }
        let began = Instant::now();
        let command = seat.beat(self.session_timeout, if self.spoken_at.is_none() { "join" } else { "stay" });
        let answer = server.ask(&command, &format!("{}: saying that this consumer lives", self.key)).await?;
        self.spoken_at = Some(began);
        seat.has_joined.store(true, Ordering::Release);
        let (consumers, now) = parse(&answer).map_err(Fault::Refused)?;
        self.has_open_others = false;
        let process = seats::process_name();
        for (name, dies) in &consumers {
            if *name == seat.name {
                continue;
            }
            if *dies <= now {
                for _ in 0..PAGES {
                    if self.bring_back(server, &seat, name).await? {
                        break;
                    }
                }
            } else {
                // Of this process, or heard of since we began: it lives.
                let first = *self.others.entry(name.clone()).or_insert(*dies);
                self.has_open_others |= first == *dies && !name.starts_with(&process);
            }
        }
        self.others.retain(|name, _| consumers.iter().any(|(other, _)| other == name));
        Ok(())
    }

    /// Has a page of what a dead consumer had come back to the front of the list; whether nothing more of it can.
    async fn bring_back(&mut self, server: &Server, seat: &ListSeat, name: &str) -> Result<bool, Fault> {
        let kept = seat.kept_key(name);
        let mut command = scripts::eval(scripts::LIST_RETURN, &[&self.key, &kept, &seat.consumers_key]);
        command.arg(name).arg(PAGE).arg("dead");
        let answer = server.ask(&command, &format!("{}: bringing back what {name} had", self.key)).await?;
        let numbers: Vec<_> = reply::list(answer, "bringing items back")
            .map_err(Fault::Refused)?
            .iter()
            .filter_map(reply::number)
            .collect();
        let [moved, left] = numbers.as_slice() else { return Err(Fault::Refused(strange("bringing items back"))) };
        if *moved > 0 {
            tracing::info!(
                list = &*self.key,
                of = name,
                items = moved,
                "items of a dead consumer come back to the front of the list"
            );
            self.was_empty = false;
            self.left = self.left.map(|left| left + moved);
        }
        self.has_open_others |= *left > 0;
        Ok(*left <= 0)
    }

    /// Gives back what is not durable, so that others need not wait for this consumer to be missed.
    pub(super) async fn leave(&self, server: &Server) {
        let Some(seat) = self.seat.as_ref().filter(|_| self.spoken_at.is_some()) else { return };
        let give_back = async {
            // What cannot be forgotten comes again.
            let _ = self.settle(server).await;
            loop {
                let kept = seat.kept_key(&seat.name);
                let mut command = scripts::eval(scripts::LIST_RETURN, &[&self.key, &kept, &seat.consumers_key]);
                command.arg(&seat.name).arg(PAGE).arg("leave");
                let answer = server.ask(&command, &format!("{}: leaving the list", self.key)).await?;
                let left =
                    reply::list(answer, "leaving a list").map_err(Fault::Refused)?.get(1).and_then(reply::number);
                if left.is_none_or(|left| left <= 0) {
                    return Ok::<(), Fault>(());
                }
            }
        };
        if let Ok(Err(fault)) = tokio::time::timeout(LEAVE_TIMEOUT, give_back).await {
            tracing::debug!(list = &*self.key, ?fault, "what was taken is given back by others");
        }
    }
}

/// The answer to a word: when each consumer dies, and what time it is.
fn parse(value: &Value) -> Result<(Vec<(String, i64)>, i64), PipelineError> {
    const DOING: &str = "asking for the consumers of a list";
    let Value::Array(parts) = value else { return Err(strange(DOING)) };
    let [consumers, now] = parts.as_slice() else { return Err(strange(DOING)) };
    let flat = reply::texts(consumers);
    let pairs = flat.chunks_exact(2).filter_map(|pair| match pair {
        // Scores are written as floats.
        [name, dies] => Some((name.clone(), dies.split('.').next()?.parse().ok()?)),
        _ => None,
    });
    Ok((pairs.collect(), reply::number(now).ok_or_else(|| strange(DOING))?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_durable_is_removed_once() {
        let mut progress = Progress { taken: 10, ..Progress::default() };
        assert!(progress.owes_nothing());
        progress.durable_to(4);
        progress.durable_to(3);
        assert!(!progress.owes_nothing());
        progress.removed = 4;
        assert!(progress.owes_nothing());
    }

    #[test]
    fn a_consumer_keeps_what_it_took_beside_the_list() {
        assert_eq!(ListSeat::beside("orders").unwrap().kept_key("a/1/x"), "{orders}:fs-data-sink:a/1/x");
        assert!(ListSeat::beside("a}b").is_err());
    }

    #[test]
    fn scores_are_times() {
        let text = |text: &str| Value::BulkString(text.as_bytes().to_vec());
        let answer = Value::Array(vec![
            Value::Array(vec![text("a"), text("1700000000123"), text("b"), text("0")]),
            Value::Int(5),
        ]);
        assert_eq!(parse(&answer).unwrap(), (vec![("a".to_owned(), 1_700_000_000_123), ("b".to_owned(), 0)], 5));
        assert!(parse(&Value::Nil).is_err());
    }
}
