//! Under exactly once: who the members of a pipeline are, and which streams this one may read.
//!
//! A member is a lane of some process. It says that it lives a few times within `session_timeout`; one that does not is
//! dead, and what it had may be taken. Who should read which stream follows from the list of members ([`super::spread`]); a lease
//! per stream keeps the next reader away until the last one has committed. All of this only saves fights: that no row comes
//! twice is the ledger's doing, which refuses whoever was taken for dead.

use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use redis::Value;
use tokio::sync::{Notify, watch};

use super::{
    client::{Server, strange},
    fault::Fault,
    outlet::Signals,
    reply, scripts,
};
use crate::error::PipelineError;

/// How often a member says that it lives within the time after which it is dead.
const BEATS: u32 = 5;

/// How long leaving may take; the others wait for the session to end otherwise.
const LEAVE_TIMEOUT: Duration = Duration::from_secs(3);

/// What the last answer said.
#[derive(Clone, Debug, Default)]
pub(super) struct View {
    /// Every member, this one too. Empty before the first answer.
    pub(super) members: BTreeSet<String>,
    /// Streams that this one may read.
    pub(super) held: BTreeSet<String>,
    /// Streams that this one read and that another one has by now.
    pub(super) lost: BTreeSet<String>,
    /// Why no answer will come any more.
    pub(super) failed: Option<Arc<PipelineError>>,
    /// Counts answers.
    pub(super) number: u64,
}

/// What this member wants.
#[derive(Debug, Default)]
struct Wish {
    /// Streams that it reads.
    reads: BTreeSet<String>,
    /// Streams that it would read, those that it reads among them.
    wants: BTreeSet<String>,
    /// Streams that it gives back with the next beat.
    gives: BTreeSet<String>,
}

impl Wish {
    /// Other streams are wanted now; whether that is a change. What is wanted no more and is not read goes back: a beat may have
    /// taken its lease already, and nobody else could have it then.
    fn change(&mut self, streams: BTreeSet<String>) -> bool {
        if self.wants == streams {
            return false;
        }
        let dropped = self.wants.difference(&streams).filter(|stream| !self.reads.contains(*stream));
        self.gives.extend(dropped.cloned());
        self.gives.retain(|stream| !streams.contains(stream));
        self.wants = streams;
        true
    }
}

/// The membership of one lane.
#[derive(Debug)]
pub(super) struct Membership {
    /// Its name, which no other lane ever had.
    pub(super) name: String,
    /// The way to the server.
    server: Arc<Server>,
    /// Key of the members.
    members_key: String,
    /// Key of the leases.
    leases_key: String,
    /// After so long without a word a member is dead.
    session_timeout: Duration,
    /// What it wants.
    wish: Mutex<Wish>,
    /// Wakes the beat.
    hurry: Notify,
    /// What the last answer said.
    view: watch::Sender<View>,
    /// Wakes the reader.
    signals: Arc<Signals>,
}

impl Membership {
    /// Not yet a member.
    pub(super) fn new(server: Arc<Server>, scope: &str, session_timeout: Duration, signals: Arc<Signals>) -> Self {
        Self {
            name: uuid::Uuid::now_v7().to_string(),
            server,
            members_key: scripts::pipeline_key(scope, "members"),
            leases_key: scripts::pipeline_key(scope, "leases"),
            session_timeout,
            wish: Mutex::default(),
            hurry: Notify::new(),
            view: watch::Sender::new(View::default()),
            signals,
        }
    }

    /// What the last answer said; `None` where that is the one of this number.
    pub(super) fn view_after(&self, number: u64) -> Option<View> {
        let view = self.view.borrow();
        (view.number != number).then(|| view.clone())
    }

    /// Says that these streams are wanted, where others are, with the next beat, which comes soon.
    pub(super) fn want(&self, streams: BTreeSet<String>) {
        let mut wish = self.wish();
        if wish.change(streams) {
            drop(wish);
            self.hurry.notify_one();
        }
    }

    /// This stream is read now.
    pub(super) fn reads(&self, stream: &str) {
        let mut wish = self.wish();
        wish.gives.remove(stream);
        wish.reads.insert(stream.to_owned());
    }

    /// These streams are not read any more: others may have them.
    pub(super) fn give_back(&self, streams: &[String]) {
        let mut wish = self.wish();
        for stream in streams {
            wish.reads.remove(stream);
            wish.wants.remove(stream);
            wish.gives.insert(stream.clone());
        }
        drop(wish);
        self.hurry.notify_one();
    }

    /// Says again and again that this member lives, until the lane is gone; then leaves.
    pub(super) async fn keep(&self) {
        while !self.signals.is_closed() {
            let began = Instant::now();
            match self.beat().await {
                Ok(new) => self.view.send_modify(|view| *view = View { number: view.number + 1, ..new }),
                // Whoever reads waits for the server too.
                Err(Fault::Away(_)) => {}
                Err(fault) => {
                    let error = fault.into_error("source.stream_keys: sharing streams with other processes");
                    self.view.send_modify(|view| {
                        view.failed = Some(Arc::new(error));
                        view.number += 1;
                    });
                }
            }
            self.signals.wake();
            let pause = (self.session_timeout / BEATS).saturating_sub(began.elapsed());
            // Hurried or not, the next beat comes.
            let _ = tokio::time::timeout(pause.max(Duration::from_millis(20)), self.hurry.notified()).await;
        }
        let mut command = scripts::eval(scripts::LEAVE, &[&self.members_key, &self.leases_key]);
        command.arg(&self.name);
        {
            let wish = self.wish();
            for stream in wish.wants.union(&wish.reads) {
                command.arg(stream);
            }
        }
        // Who cannot leave is missed after the session timeout.
        let _ = tokio::time::timeout(LEAVE_TIMEOUT, self.server.ask(&command, "leaving")).await;
    }

    /// Ends [`Self::keep`] soon.
    pub(super) fn hurry(&self) {
        self.hurry.notify_one();
    }

    /// One beat.
    async fn beat(&self) -> Result<View, Fault> {
        let mut command = scripts::eval(scripts::BEAT, &[&self.members_key, &self.leases_key]);
        let gives = {
            let wish = self.wish();
            command.arg(&self.name).arg(millis(self.session_timeout));
            for list in [&wish.reads, &wish.wants] {
                command.arg(list.len());
                for stream in list {
                    command.arg(stream);
                }
            }
            for stream in &wish.gives {
                command.arg(stream);
            }
            wish.gives.clone()
        };
        let view = parse(&self.server.ask(&command, "saying that this lane lives").await?).map_err(Fault::Refused)?;
        self.wish().gives.retain(|stream| !gives.contains(stream));
        Ok(view)
    }

    /// A lock that a panic elsewhere does not break.
    fn wish(&self) -> MutexGuard<'_, Wish> {
        self.wish.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// As the scripts take it.
pub(super) fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// The answer to a beat.
fn parse(value: &Value) -> Result<View, PipelineError> {
    let Value::Array(parts) = value else { return Err(strange("sharing streams")) };
    let [members, held, lost] = parts.as_slice() else { return Err(strange("sharing streams")) };
    let set = |value| reply::texts(value).into_iter().collect();
    Ok(View { members: set(members), held: set(held), lost: set(lost), failed: None, number: 0 })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Names as a set.
    fn set(names: &[&str]) -> BTreeSet<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    /// Scenario: a stream is wanted, and then it should be another member's before it was read; later it is wanted again.
    /// Guarantees: it is given back, or its lease would keep everybody away from it; what is read stays until it is given away.
    #[test]
    fn what_is_wanted_no_more_and_not_read_goes_back() {
        let mut wish = Wish { reads: set(&["read"]), ..Wish::default() };
        assert!(wish.change(set(&["read", "a", "b"])) && wish.gives.is_empty());
        assert!(wish.change(set(&["b"])));
        assert_eq!(wish.gives, set(&["a"]));
        assert!(wish.change(set(&["a", "b"])) && !wish.change(set(&["a", "b"])));
        assert!(wish.gives.is_empty());
    }
}
