//! Under at least once: the name of this consumer, and who else is there.
//!
//! A consumer of a group has a name under which Redis keeps what it was given and has not acknowledged. Names that change with each
//! start leave entries behind, and two processes of one name read each other's. So each lane takes the first seat of its machine
//! that is free, `<host>-0` and so on, and says that it lives; a seat that nobody spoke for within `session_timeout` is free, and what
//! its last holder had is claimed by others. Where `consumer_name` is configured, that is the name, for however many processes.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use redis::Value;
use tokio::sync::Notify;

use super::{
    client::{Server, strange},
    fault::Fault,
    members::millis,
    outlet::Signals,
    reply, scripts,
};
use crate::error::PipelineError;

/// How often a consumer says that it lives within the time after which it is dead.
const BEATS: u32 = 5;

/// How many lanes of all processes on a machine can have a name of their own.
const SEATS_MAX: usize = 1_024;

/// How long leaving may take.
const LEAVE_TIMEOUT: Duration = Duration::from_secs(3);

/// What is known of the consumers.
#[derive(Clone, Debug, Default)]
pub(super) struct Census {
    /// Names that are taken now: when each is free again, and whose it is.
    taken: BTreeMap<String, (String, String)>,
    /// The same when they were first seen.
    first: BTreeMap<String, String>,
    /// All names that were ever taken.
    known: BTreeSet<String>,
}

impl Census {
    /// Whether somebody speaks for a consumer.
    pub(super) fn is_taken(&self, name: &str) -> bool {
        self.taken.contains_key(name)
    }

    /// Whether a consumer had a seat of ours and has none now.
    pub(super) fn is_dead(&self, name: &str) -> bool {
        self.known.contains(name) && !self.taken.contains_key(name)
    }

    /// Whether a consumer has a seat, is of another process, and has not said anything since we began: it may be dead.
    pub(super) fn is_uncertain(&self, name: &str, process: &str) -> bool {
        self.taken.get(name).is_some_and(|(expires, owner)| {
            !owner.starts_with(process) && self.first.get(name).is_none_or(|first| first == expires)
        })
    }

    /// Notes an answer.
    fn note(&mut self, taken: BTreeMap<String, (String, String)>, known: BTreeSet<String>) {
        for (name, (expires, _)) in &taken {
            self.first.entry(name.clone()).or_insert_with(|| expires.clone());
        }
        self.first.retain(|name, _| taken.contains_key(name));
        (self.taken, self.known) = (taken, known);
    }
}

/// The seat of one lane.
#[derive(Debug)]
pub(super) struct Seat {
    /// The way to the server.
    server: Arc<Server>,
    /// Keys of the seats, of their owners, and of all names.
    keys: [String; 3],
    /// Whose it is: the process, and a part that no other lane has.
    token: String,
    /// The process.
    pub(super) process: String,
    /// After so long without a word it is free.
    session_timeout: Duration,
    /// Its name, once it is taken.
    name: Mutex<Option<String>>,
    /// What is known of the others.
    census: Mutex<Census>,
    /// When it was last known to be ours.
    spoken_at: Mutex<Instant>,
    /// Why it is ours no more.
    failed: Mutex<Option<PipelineError>>,
    /// Wakes who speaks for it.
    hurry: Notify,
}

/// A lock that a panic elsewhere does not break.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What this machine is called.
pub(super) fn host_name() -> String {
    let given = std::env::var("HOSTNAME").ok().filter(|name| !name.is_empty());
    let name = given.or_else(|| std::fs::read_to_string("/proc/sys/kernel/hostname").ok());
    name.map(|name| name.trim().to_owned()).filter(|name| !name.is_empty()).unwrap_or_else(|| "localhost".to_owned())
}

/// This process: the machine and its number on it. Ends so that no other begins with it.
pub(super) fn process_name() -> String {
    format!("{}/{}/", host_name(), std::process::id())
}

impl Seat {
    /// Not taken yet.
    pub(super) fn new(server: Arc<Server>, pipeline: &str, session_timeout: Duration, name: Option<String>) -> Self {
        let process = process_name();
        // Two who are given one name are one consumer, as far as anybody can tell.
        let token =
            name.as_ref().map_or_else(|| format!("{process}{}", uuid::Uuid::new_v4()), |name| format!("named {name}"));
        Self {
            server,
            keys: ["seats", "seat-owners", "consumers"].map(|what| scripts::pipeline_key(pipeline, what)),
            token,
            process,
            session_timeout,
            name: Mutex::new(name),
            census: Mutex::default(),
            spoken_at: Mutex::new(Instant::now()),
            failed: Mutex::new(None),
            hurry: Notify::new(),
        }
    }

    /// Takes the first seat of this machine that is free: the name of the consumer. Where there is a name already, it is that.
    pub(super) async fn take(&self) -> Result<String, Fault> {
        let (began, host) = (Instant::now(), host_name());
        let configured = lock(&self.name).clone();
        if let Some(name) = configured {
            self.speak().await?;
            return Ok(name);
        }
        let mut command = self.eval(scripts::SIT);
        command.arg(&self.token).arg(millis(self.session_timeout));
        for number in 0..SEATS_MAX {
            command.arg(format!("{host}-{number}"));
        }
        let answer = self.server.ask(&command, "taking a name for this consumer").await?;
        let name = reply::text(&answer).ok_or_else(|| {
            Fault::Refused(PipelineError::stop(format!(
                "source.consumer_name: {SEATS_MAX} consumers of {host} read this pipeline already"
            )))
        })?;
        *lock(&self.name) = Some(name.clone());
        *lock(&self.spoken_at) = began;
        self.speak().await?;
        Ok(name)
    }

    /// What is known of the others.
    pub(super) fn census(&self) -> Census {
        lock(&self.census).clone()
    }

    /// Why it is ours no more; told once. A process that slept too long notices here before it reads anything.
    pub(super) fn lost(&self) -> Option<PipelineError> {
        let is_stale = lock(&self.name).is_some() && lock(&self.spoken_at).elapsed() > self.session_timeout;
        lock(&self.failed).take().or_else(|| {
            is_stale
                .then(|| PipelineError::restart("this consumer was not heard of for too long: others read what it had"))
        })
    }

    /// Speaks for it until the lane is gone; then gives it back.
    pub(super) async fn keep(&self, signals: &Signals) {
        while !signals.is_closed() {
            let pause = self.session_timeout / BEATS;
            // Hurried or not, it is spoken for.
            let _ = tokio::time::timeout(pause, self.hurry.notified()).await;
            if lock(&self.name).is_none() || signals.is_closed() {
                continue;
            }
            match self.speak().await {
                Ok(()) | Err(Fault::Away(_)) => {}
                Err(fault) => {
                    *lock(&self.failed) = Some(fault.into_error("source.consumer_name"));
                    signals.wake();
                }
            }
        }
        let name = lock(&self.name).clone();
        if let Some(name) = name {
            let mut command = self.eval(scripts::STAND_UP);
            command.arg(&self.token).arg(name);
            // Who cannot leave is missed after the session timeout.
            let _ = tokio::time::timeout(LEAVE_TIMEOUT, self.server.ask(&command, "leaving")).await;
        }
    }

    /// Ends [`Self::keep`] soon.
    pub(super) fn hurry(&self) {
        self.hurry.notify_one();
    }

    /// Says that it lives, and hears of the others.
    async fn speak(&self) -> Result<(), Fault> {
        let Some(name) = lock(&self.name).clone() else { return Ok(()) };
        let began = Instant::now();
        let mut command = self.eval(scripts::STAY);
        command.arg(&self.token).arg(millis(self.session_timeout)).arg(name);
        let answer = self.server.ask(&command, "saying that this consumer lives").await?;
        let (taken, known) = parse(&answer).map_err(Fault::Refused)?;
        lock(&self.census).note(taken, known);
        *lock(&self.spoken_at) = began;
        Ok(())
    }

    /// A script with its keys.
    fn eval(&self, script: &str) -> redis::Cmd {
        let [seats, owners, known] = &self.keys;
        scripts::eval(script, &[seats, owners, known])
    }
}

/// Seats that are taken, and all names.
type Answer = (BTreeMap<String, (String, String)>, BTreeSet<String>);

/// The answer to a word.
fn parse(value: &Value) -> Result<Answer, PipelineError> {
    const DOING: &str = "asking for the other consumers";
    let Value::Array(parts) = value else { return Err(strange(DOING)) };
    let [taken, known] = parts.as_slice() else { return Err(strange(DOING)) };
    let flat = reply::texts(taken);
    let taken = flat.chunks_exact(3).filter_map(|seat| match seat {
        [name, expires, owner] => Some((name.clone(), (expires.clone(), owner.clone()))),
        _ => None,
    });
    Ok((taken.collect(), reply::texts(known).into_iter().collect()))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A census of these seats.
    fn seats(list: &[(&str, &str, &str)]) -> BTreeMap<String, (String, String)> {
        list.iter()
            .map(|(name, expires, owner)| ((*name).to_owned(), ((*expires).to_owned(), (*owner).to_owned())))
            .collect()
    }

    #[test]
    fn a_seat_tells_who_is_dead_and_who_may_be() {
        let mut census = Census::default();
        let known: BTreeSet<String> = ["a-0", "a-1", "b-0"].map(str::to_owned).into();
        census.note(seats(&[("a-0", "5", "a/1/x"), ("b-0", "6", "b/1/y")]), known.clone());
        assert!(census.is_dead("a-1") && !census.is_dead("a-0") && !census.is_dead("foreign"));
        assert!(census.is_uncertain("b-0", "a/1/") && !census.is_uncertain("a-0", "a/1/"));
        census.note(seats(&[("a-0", "7", "a/1/x"), ("b-0", "9", "b/1/y")]), known);
        assert!(!census.is_uncertain("b-0", "a/1/"), "it has spoken since");
    }
}
