//! Offsets are committed: by a thread that waits for the broker's answer, and that nobody has to wait for.
//!
//! librdkafka carries a commit on for as long as it has no answer. From a broker that takes no connection any more (its
//! certificates were exchanged, ours has expired) none ever comes, and the call does not return. So the lane waits for a
//! while only, and goes on with the offsets owed; the poll thread hears from the broker meanwhile, and tells.

use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use rdkafka::{
    consumer::{BaseConsumer, CommitMode, Consumer},
    error::{KafkaError, RDKafkaErrorCode},
};
use tokio::sync::oneshot;

use super::group::{Group, Member};
use crate::error::PipelineError;

/// Tries of a commit that the broker did not answer well; then the poll thread goes on trying beside the lane.
pub(super) const COMMIT_TRIES: u32 = 5;

/// Pause between them, longer from try to try: 5 s in all.
const COMMIT_PAUSE: Duration = Duration::from_millis(500);

/// How long the lane waits: for all tries, and some seconds for their answers.
const COMMIT_WAIT: Duration = Duration::from_secs(15);

/// Commits what is owed; at most one commit of a lane is on its way at a time.
pub(super) async fn commit(consumer: &Arc<BaseConsumer<Member>>, group: &Arc<Group>) -> Result<(), PipelineError> {
    if group.is_committing.swap(true, Ordering::AcqRel) {
        // It goes with the next one.
        return Ok(());
    }
    let (done, waits) = oneshot::channel();
    let (own_consumer, own_group) = (Arc::clone(consumer), Arc::clone(group));
    // Not a thread of the runtime's, which could not end while the call does not return.
    std::thread::Builder::new()
        .name(format!("kafka-commit-{}", group.context.lane))
        .spawn(move || {
            let result = commit_now(&own_consumer, &own_group);
            own_group.is_committing.store(false, Ordering::Release);
            if !own_group.owed.is_empty() {
                // What came meanwhile, and found a commit on its way.
                own_group.owed.failed();
            }
            // The lane may have gone on.
            let _ = done.send(result);
        })
        .map_err(|error| {
            group.is_committing.store(false, Ordering::Release);
            PipelineError::retry("cannot start a thread for committing offsets").because(error)
        })?;
    match tokio::time::timeout(COMMIT_WAIT, waits).await {
        Ok(Ok(result)) => result,
        Ok(Err(_)) => {
            group.is_committing.store(false, Ordering::Release);
            Err(PipelineError::retry("committing offsets ended abnormally"))
        }
        Err(_) => {
            tracing::warn!(pipeline = %group.context.pipeline, lane = group.context.lane,
                "Kafka did not answer a commit of offsets for {} s; the run goes on, and they are committed when it answers",
                COMMIT_WAIT.as_secs());
            Ok(())
        }
    }
}

/// Commits what is owed, with a few tries.
fn commit_now(consumer: &BaseConsumer<Member>, group: &Group) -> Result<(), PipelineError> {
    for attempt in 1..=COMMIT_TRIES {
        let offsets =
            group.owed.list().map_err(|error| PipelineError::stop("not an offset to commit").because(error))?;
        if offsets.count() == 0 {
            return Ok(());
        }
        let Err(error) = consumer.commit(&offsets, CommitMode::Sync) else {
            group.owed.taken(&offsets);
            return Ok(());
        };
        group.context.metrics.error("source");
        if matches!(error, KafkaError::ConsumerCommit(RDKafkaErrorCode::GroupAuthorizationFailed)) {
            return Err(
                PipelineError::stop("source.group_id: this user may not commit offsets for the group").because(error)
            );
        }
        let has_moved_on = matches!(
            error.rdkafka_error_code(),
            Some(
                RDKafkaErrorCode::IllegalGeneration
                    | RDKafkaErrorCode::UnknownMemberId
                    | RDKafkaErrorCode::FencedInstanceId
            )
        );
        if has_moved_on || attempt == COMMIT_TRIES {
            tracing::info!(pipeline = %group.context.pipeline, lane = group.context.lane, %error,
                "offsets are not committed yet; their rows are in files, and the commit is tried again");
            return Ok(());
        }
        group.context.metrics.retried("commit_offsets");
        std::thread::sleep(COMMIT_PAUSE * attempt);
    }
    Ok(())
}
