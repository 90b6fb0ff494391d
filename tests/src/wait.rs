//! Bounded waiting: nothing in the tests waits for ever, and what ran out of time says what it waited for.

use std::{
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail};

/// Pause between two looks: short beside everything that is waited for, long beside one look.
const LOOK_INTERVAL: Duration = Duration::from_millis(50);

/// Looks until `look` gives something, fails, or the time is up. The last reason for "not yet" is part of the message.
pub fn until<T>(what: &str, limit: Duration, mut look: impl FnMut() -> anyhow::Result<Look<T>>) -> anyhow::Result<T> {
    let start = Instant::now();
    loop {
        match look().with_context(|| format!("while waiting for {what}"))? {
            Look::Done(value) => return Ok(value),
            Look::NotYet(reason) if start.elapsed() >= limit => {
                bail!("waited {} s for {what}, in vain: {reason}", limit.as_secs());
            }
            Look::NotYet(_) => thread::sleep(LOOK_INTERVAL),
        }
    }
}

/// What one look found.
#[derive(Debug)]
pub enum Look<T> {
    /// What was waited for.
    Done(T),
    /// Not there, and what there is instead.
    NotYet(String),
}

impl Look<()> {
    /// Done when true.
    #[must_use]
    pub fn when(condition: bool, otherwise: impl Into<String>) -> Self {
        if condition { Self::Done(()) } else { Self::NotYet(otherwise.into()) }
    }
}
