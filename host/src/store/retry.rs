//! The single retry loop of the store: exponential pauses with jitter, one limit in time, counted and logged.

use std::{
    future::Future,
    time::{Duration, Instant},
};

use object_store::path::Path;

use super::failure::{explain, judge};
use crate::{
    error::{PipelineError, Verdict},
    telemetry::{metrics::Metrics, rate_limit::RateLimited},
};

/// First pause: a hiccup of a load balancer is over by then.
const PAUSE_FIRST: Duration = Duration::from_millis(100);

/// Longest pause: a server that returns is noticed within this.
const PAUSE_MAX: Duration = Duration::from_secs(5);

/// Failures are logged at most this often.
const LOG_INTERVAL: Duration = Duration::from_secs(5);

/// How long, and what to say meanwhile.
#[derive(Debug)]
pub(super) struct RetryPolicy {
    /// From the first failure of an operation to giving up.
    timeout: Duration,
    /// Name of the store for messages.
    location: String,
    /// Where retries are counted.
    metrics: Metrics,
    /// Keeps the log readable.
    log: RateLimited,
}

impl RetryPolicy {
    /// A policy of one store.
    pub(super) fn new(timeout: Duration, location: String, metrics: Metrics) -> Self {
        Self { timeout, location, metrics, log: RateLimited::new(LOG_INTERVAL) }
    }

    /// Runs an operation until it succeeds, fails for good, or the time is up. Cancel-safe if the operation is.
    pub(super) async fn run<T, Answer>(
        &self,
        operation: &'static str,
        path: &Path,
        mut attempt: impl FnMut() -> Answer,
    ) -> Result<T, PipelineError>
    where
        Answer: Future<Output = Result<T, object_store::Error>>,
    {
        let (mut pause, mut first_failure) = (PAUSE_FIRST, None);
        loop {
            let error = match attempt().await {
                Ok(answer) => return Ok(answer),
                Err(error) => error,
            };
            self.metrics.error("store");
            let since = *first_failure.get_or_insert_with(Instant::now);
            if judge(&error).0 != Verdict::Retry || since.elapsed() >= self.timeout {
                return Err(explain(&format!("{}/{path}", self.location), operation, error));
            }
            self.metrics.retried(operation);
            if let Some(suppressed) = self.log.allow() {
                tracing::warn!(
                    store = self.location, operation, file = %path, %error, suppressed,
                    failing_for_s = since.elapsed().as_secs(), give_up_after_s = self.timeout.as_secs(),
                    "the store failed: trying again"
                );
            }
            tokio::time::sleep(jittered(pause)).await;
            pause = (pause * 2).min(PAUSE_MAX);
        }
    }
}

/// Between half and the whole of a pause, so that many writers do not come back at once.
fn jittered(pause: Duration) -> Duration {
    let random = uuid::Uuid::new_v4().as_fields().0;
    pause.mul_f64(0.5 + 0.5 * f64::from(random) / f64::from(u32::MAX))
}
