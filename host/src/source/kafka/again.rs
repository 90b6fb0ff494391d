//! Reads recorded offsets once more, outside the group: for a file that was lost between commit and publish.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use rdkafka::{
    Message, Offset, TopicPartitionList,
    consumer::{BaseConsumer, Consumer},
    error::KafkaError,
    message::Headers,
};
use tokio::sync::mpsc;

use super::{
    super::{
        EVENTS_MAX, LaneContext, SourceEvent,
        envelope::{EnvelopeBuilder, Record},
    },
    begin, client,
};
use crate::{
    checkpoint::{CheckpointDelta, SourcePartition},
    config::{KafkaConfig, SourceConfig},
    error::PipelineError,
};

/// One poll waits at most this long.
const POLL_WAIT: Duration = Duration::from_millis(200);

/// Polls without a record after which the broker counts as away: two minutes.
const SILENT_POLLS_MAX: u32 = 600;

/// Starts a thread that reads the ranges.
pub(in crate::source) fn read_again(
    kafka: &KafkaConfig,
    config: &SourceConfig,
    ranges: CheckpointDelta,
    context: LaneContext,
) -> Result<mpsc::Receiver<SourceEvent>, PipelineError> {
    let (sender, events) = mpsc::channel(EVENTS_MAX);
    let consumer: BaseConsumer<client::Listener> = client::consumer_config(kafka, &context)
        .create_with_context(client::Listener::new(kafka)?)
        .map_err(|error| client::refused(kafka, error))?;
    consumer.context().attach(consumer.client());
    let rows_max = config.batch_rows_max;
    std::thread::Builder::new()
        .name(format!("kafka-again-{}", context.lane))
        .spawn(move || {
            let last = match read(&consumer, &ranges, rows_max, &context, &sender) {
                Ok(()) => SourceEvent::End,
                Err(error) => SourceEvent::Failed(error),
            };
            // The lane may be gone already.
            let _ = sender.blocking_send(last);
        })
        .map_err(|error| PipelineError::stop("cannot start a thread for the Kafka consumer").because(error))?;
    Ok(events)
}

/// Reads the ranges to their ends.
fn read(
    consumer: &BaseConsumer<client::Listener>,
    ranges: &CheckpointDelta,
    rows_max: usize,
    context: &LaneContext,
    sender: &mpsc::Sender<SourceEvent>,
) -> Result<(), PipelineError> {
    let mut open = assign(consumer, ranges)?;
    let mut builders: BTreeMap<Arc<str>, EnvelopeBuilder> = BTreeMap::new();
    let mut silent = 0;
    while !open.is_empty() {
        match consumer.poll(POLL_WAIT) {
            Some(Ok(message)) => {
                silent = 0;
                let partition = SourcePartition::new(message.topic(), message.partition());
                let Some(to) = open.get(&partition).copied() else { continue };
                if message.offset() + 1 >= to {
                    open.remove(&partition);
                }
                if message.offset() >= to {
                    continue;
                }
                let topic = &partition.topic;
                let builder = builders
                    .entry(Arc::clone(topic))
                    .or_insert_with(|| EnvelopeBuilder::new(Arc::clone(topic), Arc::clone(topic)));
                builder.push(Record {
                    partition: message.partition(),
                    offset: message.offset(),
                    timestamp_ms: message.timestamp().to_millis(),
                    key: message.key(),
                    value: message.payload(),
                });
                if let Some(headers) = message.headers() {
                    builder.set_headers(headers.iter().map(|header| (header.key, header.value)));
                }
                if builder.is_full(rows_max) {
                    send(builder, context, sender)?;
                }
            }
            // Whatever is missing up to the end of the range is no record: an aborted transaction, or compacted away.
            Some(Err(KafkaError::PartitionEOF(number))) => open.retain(|partition, _| partition.partition != number),
            Some(Err(error)) => consumer.context().hear(&error, "reading once more"),
            None => {
                silent += 1;
                if silent > SILENT_POLLS_MAX {
                    return Err(PipelineError::restart(
                        "Kafka gave no records while a lost file was to be written again",
                    ));
                }
            }
        }
    }
    builders.values_mut().filter(|builder| !builder.is_empty()).try_for_each(|builder| send(builder, context, sender))
}

/// Assigns each partition at the start of its range; the ends.
fn assign(
    consumer: &BaseConsumer<client::Listener>,
    ranges: &CheckpointDelta,
) -> Result<BTreeMap<SourcePartition, i64>, PipelineError> {
    let (mut list, mut open) = (TopicPartitionList::new(), BTreeMap::new());
    let ends = begin::ends_of(consumer, &ranges.iter().map(|(partition, _)| partition).collect::<Vec<_>>())?;
    for (partition, range) in ranges.iter() {
        let (low, high) = begin::of(&ends, partition)?;
        if low > range.from || high < range.to {
            return Err(PipelineError::stop(format!(
                "{partition}: a committed file was lost before it became visible, and its records {}..{} cannot be read once \
                 more: the topic has {low}..{high}. Lengthen the bucket's rule for uncompleted uploads and the topic's \
                 retention; `ledger show` names the file",
                range.from, range.to
            )));
        }
        list.add_partition_offset(&partition.topic, partition.partition, Offset::Offset(range.from)).map_err(
            |error| PipelineError::stop(format!("{partition}: not an offset: {}", range.from)).because(error),
        )?;
        open.insert(partition.clone(), range.to);
    }
    consumer
        .assign(&list)
        .map_err(|error| PipelineError::restart("Kafka: partitions cannot be read once more").because(error))?;
    Ok(open)
}

/// Sends a batch.
fn send(
    builder: &mut EnvelopeBuilder,
    context: &LaneContext,
    sender: &mpsc::Sender<SourceEvent>,
) -> Result<(), PipelineError> {
    let batch = builder.finish(&context.budget)?;
    sender
        .blocking_send(SourceEvent::Batch(batch))
        .map_err(|_| PipelineError::restart("the lane ended while a lost file was written again"))
}
