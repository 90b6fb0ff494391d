//! The way to the server: connecting, connecting again, and what an error means.
//!
//! One connection serves a lane, reading and renewing alike, so no command of ours ever blocks in the server. When it breaks, or
//! the server is no master any more, it is made anew at the next question, and Sentinels are asked anew who the master is.
//! Whoever asks decides how long to wait between tries ([`Backoff`]).

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use redis::{Cmd, RedisError, Value};
use tokio::sync::Mutex;

use super::fault::{Fault, judge};
use crate::{
    config::{RedisConfig, RedisServers},
    error::PipelineError,
    redis_client::{Link, connect},
    telemetry::{metrics::Metrics, rate_limit::RateLimited},
};

/// How long a connection may take with all that is asked on the way: several Sentinels may be away, each for as long.
const CONNECT_TIMEOUT_IN_ALL: Duration = Duration::from_secs(20);

/// A server that is away is told about at most this often.
const LOG_INTERVAL: Duration = Duration::from_secs(10);

/// The way to the server of one lane.
pub(super) struct Server {
    /// Where it is.
    config: Arc<RedisConfig>,
    /// For logs.
    pipeline: Arc<str>,
    /// Where tries are counted.
    metrics: Metrics,
    /// The connection, while there is one. Held while one is made, so that only one is.
    link: Mutex<Option<Link>>,
    /// Counts connections.
    generation: AtomicU64,
    /// Whether the last question found nobody.
    is_away: AtomicBool,
    /// Keeps the log readable.
    away_log: RateLimited,
}

impl std::fmt::Debug for Server {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Server").field("servers", &self.config.connection.servers).finish_non_exhaustive()
    }
}

impl Server {
    /// Nothing is connected yet.
    pub(super) fn new(config: Arc<RedisConfig>, pipeline: Arc<str>, metrics: Metrics) -> Self {
        Self {
            config,
            pipeline,
            metrics,
            link: Mutex::new(None),
            generation: AtomicU64::new(0),
            is_away: AtomicBool::new(false),
            away_log: RateLimited::new(LOG_INTERVAL),
        }
    }

    /// Which connection this is, counted from 1; 0 before the first. Another one may be to another server, which knows less.
    pub(super) fn generation(&self) -> u64 {
        self.generation.load(Ordering::Acquire)
    }

    /// Asks, once. `doing` is for people.
    pub(super) async fn ask(&self, command: &Cmd, doing: &str) -> Result<Value, Fault> {
        let (generation, mut link) = match self.link().await {
            Ok(link) => link,
            Err(error) => return Err(self.heard(error, "connecting")),
        };
        match link.ask(command).await {
            Ok(value) => {
                if self.is_away.swap(false, Ordering::AcqRel) {
                    tracing::info!(pipeline = %self.pipeline, servers = %self.servers(), "Redis answers again");
                }
                Ok(value)
            }
            Err(error) => {
                let fault = self.heard(error, doing);
                if matches!(fault, Fault::Away(_)) {
                    self.drop_link(generation).await;
                }
                Err(fault)
            }
        }
    }

    /// The addresses, for messages.
    pub(super) fn servers(&self) -> String {
        self.config.connection.servers.to_string()
    }

    /// What an error means; what passes by itself is counted and told.
    fn heard(&self, error: RedisError, doing: &str) -> Fault {
        let is_cluster = matches!(self.config.connection.servers, RedisServers::Cluster(_));
        let fault = judge(error, doing, &self.servers(), self.config.connection.username.as_deref(), is_cluster);
        if let Fault::Away(error) = &fault {
            self.metrics.retried("redis");
            self.is_away.store(true, Ordering::Release);
            if let Some(suppressed) = self.away_log.allow() {
                tracing::warn!(pipeline = %self.pipeline, servers = %self.servers(), doing, %error, suppressed,
                    "Redis does not answer as it should: waiting for it");
            }
        }
        fault
    }

    /// The connection; made when there is none.
    async fn link(&self) -> Result<(u64, Link), RedisError> {
        let mut link = self.link.lock().await;
        if let Some(open) = &*link {
            return Ok((self.generation(), open.clone()));
        }
        let made = tokio::time::timeout(CONNECT_TIMEOUT_IN_ALL, Box::pin(connect(&self.config.connection)));
        let open = made.await.unwrap_or_else(|_late| {
            Err(std::io::Error::new(std::io::ErrorKind::TimedOut, "no connection in time").into())
        })?;
        *link = Some(open.clone());
        Ok((self.generation.fetch_add(1, Ordering::AcqRel) + 1, open))
    }

    /// Lets a connection go that broke, unless another one was made meanwhile.
    async fn drop_link(&self, generation: u64) {
        let mut link = self.link.lock().await;
        if self.generation() == generation {
            *link = None;
        }
    }
}

/// How long to wait after a failure: longer each time, and never as long as somebody else, so that a server that comes back
/// is not met by all at once.
#[derive(Debug)]
pub(super) struct Backoff {
    /// The next pause at most.
    next: Duration,
}

impl Backoff {
    /// The first pause at most.
    const FIRST: Duration = Duration::from_millis(100);

    /// The longest pause.
    const LONGEST: Duration = Duration::from_secs(5);

    /// Nothing has failed.
    pub(super) fn new() -> Self {
        Self { next: Self::FIRST }
    }

    /// Something succeeded.
    pub(super) fn reset(&mut self) {
        self.next = Self::FIRST;
    }

    /// Something failed: how long to wait now.
    pub(super) fn pause(&mut self) -> Duration {
        let most = self.next;
        self.next = (most * 2).min(Self::LONGEST);
        // Between a half and the whole.
        let share = f64::from(uuid::Uuid::new_v4().as_fields().0) / f64::from(u32::MAX);
        most.mul_f64(0.5 + share / 2.0)
    }
}

/// What a thing that Redis said is not.
pub(super) fn strange(doing: &str) -> PipelineError {
    PipelineError::stop(format!(
        "{doing}: Redis answered in a form that this program does not know; is it Redis 6 or newer?"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_to_a_limit_and_begin_anew() {
        let mut backoff = Backoff::new();
        let first = backoff.pause();
        assert!((Backoff::FIRST / 2..=Backoff::FIRST).contains(&first), "{first:?}");
        for _ in 0..20 {
            assert!(backoff.pause() <= Backoff::LONGEST);
        }
        assert!(backoff.pause() >= Backoff::LONGEST / 2);
        backoff.reset();
        assert!(backoff.pause() <= Backoff::FIRST);
    }
}
