//! Reads recorded stretches of streams once more: for a file that was lost between commit and publish.

use std::sync::Arc;

use tokio::sync::mpsc;

use super::{
    super::{EVENTS_MAX, LaneContext, SourceEvent, envelope::EnvelopeBuilder},
    appetite::Appetite,
    client::{Backoff, Server},
    entry,
    fault::Fault,
    id::StreamId,
    reply::{self, Entry},
};
use crate::{
    checkpoint::{CheckpointDelta, OffsetRange, SourcePartition},
    config::{RedisConfig, SourceConfig},
    error::PipelineError,
};

/// Tries of a question before the lane begins anew: some minutes.
const TRIES: u32 = 40;

/// Reads the stretches in a task of its own.
pub(in crate::source) fn read_again(
    redis: &RedisConfig,
    config: &SourceConfig,
    ranges: CheckpointDelta,
    context: LaneContext,
) -> mpsc::Receiver<SourceEvent> {
    let (sender, events) = mpsc::channel(EVENTS_MAX);
    let redis = Arc::new(redis.clone());
    let server = Server::new(Arc::clone(&redis), Arc::clone(&context.pipeline), context.metrics.clone());
    let rows_max = config.batch_rows_max;
    tokio::spawn(async move {
        let last = match read(&server, &redis, &ranges, rows_max, &context, &sender).await {
            Ok(()) => SourceEvent::End,
            Err(error) => SourceEvent::Failed(error),
        };
        // The lane may be gone already.
        let _ = sender.send(last).await;
    });
    events
}

/// Reads the stretches to their ends.
async fn read(
    server: &Server,
    redis: &RedisConfig,
    ranges: &CheckpointDelta,
    rows_max: usize,
    context: &LaneContext,
    sender: &mpsc::Sender<SourceEvent>,
) -> Result<(), PipelineError> {
    for (partition, range) in ranges.iter() {
        ensure_untrimmed(server, partition, range).await?;
        let key = &partition.topic;
        let (mut appetite, mut from) = (Appetite::new(rows_max), StreamId::of_offset(range.from));
        let last = StreamId::before_offset(range.to);
        let mut builder = EnvelopeBuilder::new(Arc::clone(key), Arc::clone(key));
        while from <= last {
            let entries = range_of(server, key, from, last, appetite.count()).await?;
            let Some(end) = entries.last().map(|entry| entry.id) else { break };
            appetite.ate(entries.len(), entries.iter().map(Entry::bytes).sum());
            for one in &entries {
                entry::push(&mut builder, &redis.entry, one.id.offset_in(key)?, one);
                if builder.is_full(rows_max) {
                    send(&mut builder, context, sender).await?;
                }
            }
            from = end.next();
        }
        if !builder.is_empty() {
            send(&mut builder, context, sender).await?;
        }
        // It may have been trimmed while it was read.
        ensure_untrimmed(server, partition, range).await?;
    }
    Ok(())
}

/// Fails where the beginning of a stretch is not there any more. The ranges of a file begin at an entry.
async fn ensure_untrimmed(
    server: &Server,
    partition: &SourcePartition,
    range: OffsetRange,
) -> Result<(), PipelineError> {
    let first = StreamId::of_offset(range.from);
    let entries = range_of(server, &partition.topic, first, first, 1).await?;
    if !entries.is_empty() {
        return Ok(());
    }
    Err(PipelineError::stop(format!(
        "{partition}: a committed file was lost before it became visible, and its entries {first} to {} cannot be read once more: the stream \
         was trimmed, or they were deleted. Lengthen the bucket's rule for uncompleted uploads, and keep entries longer; `ledger show` \
         names the file",
        StreamId::before_offset(range.to)
    )))
}

/// Entries from one id to another, both included.
async fn range_of(
    server: &Server,
    key: &str,
    from: StreamId,
    to: StreamId,
    count: usize,
) -> Result<Vec<Entry>, PipelineError> {
    let doing = format!("{key}: reading entries once more");
    let mut command = redis::cmd("XRANGE");
    command.arg(key).arg(from.to_string()).arg(to.to_string()).arg("COUNT").arg(count);
    let mut backoff = Backoff::new();
    for _ in 0..TRIES {
        match server.ask(&command, &doing).await {
            Ok(answer) => return reply::entries(answer),
            Err(Fault::Away(_)) => tokio::time::sleep(backoff.pause()).await,
            Err(fault) => return Err(fault.into_error(&doing)),
        }
    }
    Err(PipelineError::restart(format!("{doing}: Redis does not answer")))
}

/// Sends a batch.
async fn send(
    builder: &mut EnvelopeBuilder,
    context: &LaneContext,
    sender: &mpsc::Sender<SourceEvent>,
) -> Result<(), PipelineError> {
    let batch = builder.finish(&context.budget)?;
    sender
        .send(SourceEvent::Batch(batch))
        .await
        .map_err(|_| PipelineError::restart("the lane ended while a lost file was written again"))
}
