//! Finds the rows of a batch on which a plugin fails, so that only they are refused.
//!
//! The batch is split in halves, and each half that fails again, so one bad row of 8,192 costs 26 calls, each in a fresh
//! instance after a failure, without a pause. Row numbers in what is refused are those of the whole batch. Where no half
//! goes well the plugin is at fault and not its rows, and the batch has failed as a whole.

use std::{
    ops::Range,
    time::{Duration, Instant},
};

use super::{RETRYABLE_TRIES_MAX, Settled, Stage, StageOutput, outcome::answered_code, wait_as_asked};
use crate::{
    batch::{DecodedBatch, Origin},
    error::PipelineError,
    plugin::{
        apply::Applied,
        bindings::types::{BatchInfo, Error as GuestError},
        failure::{CallError, Failure, guest_error_words},
    },
};

/// Most calls for one batch: enough for ten bad rows of 8,192.
const CALLS_MAX: usize = 256;
/// Most time for one batch, in `limits.call_timeout`: enough for a row that loops in a batch of a million.
const TIMEOUTS_MAX: u32 = 32;

/// What is known of a batch so far.
#[derive(Debug, Default)]
struct Found {
    /// What went well, in the order of its rows, and what was refused in the plugin's own words.
    output: StageOutput,
    /// Whether any part went well.
    any_passed: bool,
    /// Rows on which it failed, by code and message.
    refused: Vec<(&'static str, String, Vec<u32>)>,
}

impl Stage {
    /// Splits a batch that failed until the bad rows are alone, or the calls or the time are spent.
    pub(super) async fn bisect(
        &mut self,
        batch: &DecodedBatch,
        sequence: u64,
        attempt: u32,
        failure: Failure,
    ) -> Result<Settled, PipelineError> {
        let (mut found, began, backoff) = (Found::default(), Instant::now(), self.backoff);
        let time_max = self.plugin.config().limits.call_timeout.saturating_mul(TIMEOUTS_MAX);
        let rows = u32::try_from(batch.rows.num_rows()).unwrap_or(u32::MAX);
        let mut parts = halves(&(0..rows));
        let (mut calls, mut waits) = (0, 0);
        while let Some(part) = parts.pop() {
            if calls == CALLS_MAX || began.elapsed() > time_max {
                found.refuse(&failure, &part, &give_up_words(calls, began.elapsed()));
                continue;
            }
            calls += 1;
            self.context.metrics.retried("plugin-bisect");
            self.backoff.skip();
            match self.attempt_part(batch, &part, sequence, attempt).await {
                Ok(applied) => {
                    found.any_passed = true;
                    self.accept_part(batch, &part, applied, &mut found.output)?;
                }
                Err(CallError::Answered(GuestError::Retryable((_, after)))) if waits < RETRYABLE_TRIES_MAX => {
                    wait_as_asked(&self.context, after, waits).await;
                    waits += 1;
                    parts.push(part);
                }
                Err(CallError::Answered(error)) => {
                    found.any_passed = true;
                    let (code, then) = (answered_code(&error), self.plugin.config().on_reject);
                    let rejection = self.rejection(part.collect(), code, &guest_error_words(&error));
                    self.refuse(batch, rejection, then, &mut found.output)?;
                }
                Err(CallError::Stopped(words)) => return Err(PipelineError::restart(words)),
                Err(CallError::Broken(failure)) if part.len() == 1 => found.refuse(&failure, &part, ""),
                Err(CallError::Broken(_)) => parts.extend(halves(&part)),
            }
        }
        if !found.any_passed {
            // The pauses go on as if it had not been split.
            self.backoff = backoff;
            return Ok(Settled::Failed(failure));
        }
        let Found { mut output, refused, .. } = found;
        let then = self.plugin.config().on_trap.then;
        for (code, message, rows) in refused {
            tracing::error!(
                plugin = &*self.shape.plugin,
                pipeline = &*self.context.pipeline,
                tenant = &*self.context.tenant,
                code,
                rows = rows.len(),
                calls,
                "rows on which the plugin fails are refused; the rest of their batch went well: {message}"
            );
            let rejection = self.rejection(rows, code, &format!("plugin {} {message}", self.shape.plugin));
            self.refuse(batch, rejection, then, &mut output)?;
        }
        Ok(Settled::Done(output))
    }

    /// One try of some rows.
    async fn attempt_part(
        &mut self,
        batch: &DecodedBatch,
        part: &Range<u32>,
        sequence: u64,
        attempt: u32,
    ) -> Result<Applied, CallError> {
        let rows = format!("{}..{} of {}", part.start, part.end, batch.rows.num_rows());
        let info = BatchInfo { sequence, attempt, attributes: vec![("rows".to_owned(), rows)] };
        self.attempt(&slice(batch, part), &info).await
    }

    /// Hands on what became of some rows, under the numbers that they have in the whole batch.
    fn accept_part(
        &self,
        batch: &DecodedBatch,
        part: &Range<u32>,
        applied: Applied,
        output: &mut StageOutput,
    ) -> Result<(), PipelineError> {
        if applied.filtered > 0 {
            self.context.metrics.filtered(&self.shape.plugin, applied.filtered as u64);
        }
        output.batches.extend(applied.batches);
        for mut rejection in applied.rejected {
            rejection.rows.iter_mut().for_each(|row| *row += part.start);
            self.refuse(batch, rejection, self.plugin.config().on_reject, output)?;
        }
        Ok(())
    }
}

impl Found {
    /// The plugin fails on these rows; those that it fails on in the same words are refused together.
    fn refuse(&mut self, failure: &Failure, part: &Range<u32>, more: &str) {
        let (code, message) = (failure.kind.code(), format!("{}{more}", failure.message));
        match self.refused.iter_mut().find(|(known, words, _)| *known == code && *words == message) {
            Some((_, _, rows)) => rows.extend(part.clone()),
            None => self.refused.push((code, message, part.clone().collect())),
        }
    }
}

/// The words for rows that are refused together since finding the bad ones took too long.
fn give_up_words(calls: usize, time: Duration) -> String {
    if calls == CALLS_MAX {
        format!("; {CALLS_MAX} calls were not enough to tell which of these rows it fails on")
    } else {
        format!("; {} s were not enough to tell which of these rows it fails on", time.as_secs())
    }
}

/// Both halves of more than one row, the first one last, since the last one is taken next.
fn halves(part: &Range<u32>) -> Vec<Range<u32>> {
    let middle = part.start + (part.end - part.start) / 2;
    [middle..part.end, part.start..middle].into_iter().filter(|half| *half != *part && !half.is_empty()).collect()
}

/// Some rows of a batch.
fn slice(batch: &DecodedBatch, part: &Range<u32>) -> DecodedBatch {
    let (from, count) = (part.start as usize, part.len());
    let origin = match &batch.origin {
        Origin::Replaced => Origin::Replaced,
        Origin::Records { envelope, rows } => {
            Origin::Records { envelope: envelope.clone(), rows: rows.slice(from, count) }
        }
    };
    DecodedBatch { rows: batch.rows.slice(from, count), origin }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn halves_are_taken_from_the_front_and_end_at_single_rows() {
        assert_eq!(halves(&(0..5)), [2..5, 0..2]);
        assert_eq!(halves(&(3..5)), [4..5, 3..4]);
        assert!(halves(&(3..4)).is_empty());
        let (mut parts, mut single) = (halves(&(0..100)), Vec::new());
        while let Some(part) = parts.pop() {
            if part.len() == 1 { single.push(part.start) } else { parts.extend(halves(&part)) }
        }
        assert_eq!(single, (0..100).collect::<Vec<_>>());
    }
}
