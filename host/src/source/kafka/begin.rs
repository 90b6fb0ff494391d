//! Where partitions begin under exactly once.
//!
//! Comes in: what the ledger has recorded, what the group has committed, what the user wants where neither knows a partition,
//! and what the broker has. Goes out: an offset for each partition, and how much before it was never read. Promises: reading goes
//! on at the recorded offset, or at the first one that the broker still has; an end before the recorded offset is an error, since
//! that is not the topic that was read.

use std::{collections::BTreeMap, time::Duration};

use rdkafka::{
    Offset, TopicPartitionList,
    consumer::{BaseConsumer, Consumer, ConsumerContext},
    error::{KafkaError, KafkaResult},
    topic_partition_list::TopicPartitionListElem,
};

use super::start::{Reset, Start, Wanted};
use crate::{checkpoint::SourcePartition, error::PipelineError};

/// How long a broker may take to say where a partition begins and ends, or what the group has committed.
pub(super) const ANSWER_TIMEOUT: Duration = Duration::from_secs(20);

/// Something of each of some partitions.
type ByPartition<T> = BTreeMap<SourcePartition, T>;

/// Where reading was to go on, and where it can.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Begin {
    /// Where it was to go on.
    pub(super) wanted: i64,
    /// Where it can: what lies between was deleted before it was read.
    pub(super) at: i64,
}

/// Partitions that come to a lane.
pub(super) fn of_assigned<C: ConsumerContext>(
    consumer: &BaseConsumer<C>,
    partitions: &[SourcePartition],
    recorded: &BTreeMap<SourcePartition, i64>,
    start: &Start,
) -> Result<BTreeMap<SourcePartition, Begin>, PipelineError> {
    let unknown: Vec<_> = partitions.iter().filter(|partition| !recorded.contains_key(partition)).collect();
    let (committed, wanted) = of_group_and_user(consumer, &unknown, start)?;
    let ends = ends_of(consumer, &partitions.iter().collect::<Vec<_>>())?;
    let begin = |partition: &SourcePartition| {
        let ends = of(&ends, partition)?;
        let begin = if let Some(offset) = recorded.get(partition) {
            within(partition, *offset, ends)?
        } else {
            let (committed, wanted) = (committed.get(partition).copied(), wanted.get(partition).copied());
            unrecorded(partition, committed, wanted, ends, start.reset)?
        };
        Ok((partition.clone(), begin))
    };
    partitions.iter().map(begin).collect()
}

/// Where partitions begin of which the group knows nothing and the user says something: for a run without a ledger, in which
/// librdkafka sees to the others.
pub(super) fn of_new<C: ConsumerContext>(
    consumer: &BaseConsumer<C>,
    partitions: &[SourcePartition],
    start: &Start,
) -> Result<BTreeMap<SourcePartition, i64>, PipelineError> {
    let (_, wanted) = of_group_and_user(consumer, &partitions.iter().collect::<Vec<_>>(), start)?;
    let ends = ends_of(consumer, &wanted.keys().collect::<Vec<_>>())?;
    let begin = |(partition, wanted): (SourcePartition, Wanted)| {
        let offset = wanted.within(&partition, of(&ends, &partition)?)?;
        Ok((partition, offset))
    };
    wanted.into_iter().map(begin).collect()
}

/// Partitions of a lane that were read up to these offsets.
pub(super) fn of_owned<C: ConsumerContext>(
    consumer: &BaseConsumer<C>,
    read_to: &BTreeMap<SourcePartition, i64>,
) -> Result<BTreeMap<SourcePartition, Begin>, PipelineError> {
    let ends = ends_of(consumer, &read_to.keys().collect::<Vec<_>>())?;
    let begin = |(partition, offset): (&SourcePartition, &i64)| {
        Ok((partition.clone(), within(partition, *offset, of(&ends, partition)?)?))
    };
    read_to.iter().map(begin).collect()
}

/// For each partition the first offset that the broker has of it, and the end. Two questions for all of them together, since each has to
/// wait until the broker has answered a fetch that is on its way.
pub(super) fn ends_of<C: ConsumerContext>(
    consumer: &BaseConsumer<C>,
    partitions: &[&SourcePartition],
) -> Result<ByPartition<(i64, i64)>, PipelineError> {
    let failed = |error: KafkaError| {
        PipelineError::restart("Kafka: the broker did not say where partitions begin and end").because(error)
    };
    let lows = offsets_at(consumer, partitions, Offset::Beginning).map_err(failed)?;
    let highs = offsets_at(consumer, partitions, Offset::End).map_err(failed)?;
    Ok(lows
        .into_iter()
        .filter_map(|(partition, low)| Some((partition.clone(), (low, *highs.get(&partition)?))))
        .collect())
}

/// What they said of one of them.
pub(super) fn of(ends: &ByPartition<(i64, i64)>, partition: &SourcePartition) -> Result<(i64, i64), PipelineError> {
    ends.get(partition)
        .copied()
        .ok_or_else(|| PipelineError::restart(format!("{partition}: the broker did not say where it begins and ends")))
}

/// One side of partitions; no request where there are none.
fn offsets_at<C: ConsumerContext>(
    consumer: &BaseConsumer<C>,
    partitions: &[&SourcePartition],
    side: Offset,
) -> KafkaResult<ByPartition<i64>> {
    if partitions.is_empty() {
        return Ok(BTreeMap::new());
    }
    let mut list = TopicPartitionList::with_capacity(partitions.len());
    for partition in partitions {
        // Kafka takes the two sides for times.
        list.add_partition_offset(&partition.topic, partition.partition, side)?;
    }
    let list = consumer.offsets_for_times(list, ANSWER_TIMEOUT)?;
    let mut offsets = BTreeMap::new();
    for element in list.elements() {
        element.error()?;
        if let Offset::Offset(offset) = element.offset() {
            offsets.insert(SourcePartition::new(element.topic(), element.partition()), offset);
        }
    }
    Ok(offsets)
}

/// What the group has committed of these partitions, and what the user wants of those of which it has nothing.
fn of_group_and_user<C: ConsumerContext>(
    consumer: &BaseConsumer<C>,
    partitions: &[&SourcePartition],
    start: &Start,
) -> Result<(ByPartition<i64>, ByPartition<Wanted>), PipelineError> {
    let committed = committed(consumer, partitions, ANSWER_TIMEOUT).map_err(|error| {
        PipelineError::restart("Kafka: the broker did not say what the group has committed").because(error)
    })?;
    let new: Vec<_> = partitions.iter().copied().filter(|partition| !committed.contains_key(*partition)).collect();
    let wanted = start.wanted(consumer, &new, ANSWER_TIMEOUT)?;
    Ok((committed, wanted))
}

/// What the group has committed of these partitions; no request where there are none.
pub(super) fn committed<C: ConsumerContext>(
    consumer: &BaseConsumer<C>,
    partitions: &[&SourcePartition],
    timeout: Duration,
) -> KafkaResult<BTreeMap<SourcePartition, i64>> {
    if partitions.is_empty() {
        return Ok(BTreeMap::new());
    }
    let mut list = TopicPartitionList::with_capacity(partitions.len());
    for partition in partitions {
        list.add_partition(&partition.topic, partition.partition);
    }
    let list = consumer.committed_offsets(list, timeout)?;
    let offset = |element: &TopicPartitionListElem<'_>| match element.offset() {
        Offset::Offset(offset) => Some((SourcePartition::new(element.topic(), element.partition()), offset)),
        _ => None,
    };
    Ok(list.elements().iter().filter_map(offset).collect())
}

/// A recorded offset, or the first one that the broker still has behind it.
fn within(partition: &SourcePartition, offset: i64, (low, high): (i64, i64)) -> Result<Begin, PipelineError> {
    if offset > high {
        return Err(PipelineError::stop(format!(
            "{partition}: the ledger is at offset {offset} and the topic ends at {high}: it was deleted and made anew, or \
             lost records. To read the new one, give the pipeline another `name` (a ledger of its own)"
        )));
    }
    Ok(Begin { wanted: offset, at: offset.max(low) })
}

/// A partition that the ledger does not know: what the group has committed, where the broker has that, as in any other group;
/// else what the user wants.
fn unrecorded(
    partition: &SourcePartition,
    committed: Option<i64>,
    wanted: Option<Wanted>,
    (low, high): (i64, i64),
    reset: Reset,
) -> Result<Begin, PipelineError> {
    if let Some(wanted) = wanted {
        let at = wanted.within(partition, (low, high))?;
        return Ok(Begin { wanted: at, at });
    }
    match (committed, reset) {
        (Some(offset), _) if (low..=high).contains(&offset) => Ok(Begin { wanted: offset, at: offset }),
        (Some(offset), Reset::Earliest) if offset < low => Ok(Begin { wanted: offset, at: low }),
        (_, Reset::Earliest) => Ok(Begin { wanted: low, at: low }),
        (_, Reset::Latest) => Ok(Begin { wanted: high, at: high }),
        (_, Reset::Error) => Err(PipelineError::stop(format!(
            "{partition}: neither the ledger nor the group has an offset that the topic still has ({low}..{high}), and \
             auto.offset.reset in source.extra_config is error. Set it to earliest or latest"
        ))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The partition of the tests.
    fn orders() -> SourcePartition {
        SourcePartition::new("orders", 3)
    }

    #[test]
    fn reading_goes_on_within_what_the_broker_has() {
        let begin = |offset, ends| within(&orders(), offset, ends).unwrap();
        assert_eq!(begin(5, (0, 10)), Begin { wanted: 5, at: 5 });
        assert_eq!(begin(10, (0, 10)), Begin { wanted: 10, at: 10 });
        assert_eq!(begin(5, (8, 10)), Begin { wanted: 5, at: 8 });
        let error = within(&orders(), 11, (0, 10)).unwrap_err();
        assert!(
            error.to_string().starts_with("orders[3]: the ledger is at offset 11 and the topic ends at 10"),
            "{error}"
        );
    }

    #[test]
    fn what_the_ledger_does_not_know_begins_where_the_group_would() {
        let begin = |committed, reset| unrecorded(&orders(), committed, None, (5, 10), reset).unwrap();
        for reset in [Reset::Earliest, Reset::Latest, Reset::Error] {
            assert_eq!(begin(Some(7), reset), Begin { wanted: 7, at: 7 });
        }
        assert_eq!(begin(Some(2), Reset::Earliest), Begin { wanted: 2, at: 5 }, "three were deleted");
        assert_eq!(begin(Some(11), Reset::Earliest), Begin { wanted: 5, at: 5 });
        assert_eq!(begin(None, Reset::Earliest), Begin { wanted: 5, at: 5 });
        assert_eq!(begin(Some(2), Reset::Latest), Begin { wanted: 10, at: 10 });
        assert_eq!(begin(None, Reset::Latest), Begin { wanted: 10, at: 10 });
        let error = unrecorded(&orders(), None, None, (5, 10), Reset::Error).unwrap_err();
        assert!(error.to_string().contains("earliest or latest"), "{error}");
    }
}
