//! Where a partition begins that nobody knows yet: `source.start`, `source.start_offsets`, `auto.offset.reset`.
//!
//! Comes in: the configuration, and partitions of which neither the ledger nor the group has an offset. Goes out: an offset
//! for each that the user named, by number or by time. For the others the reset says what it always says.

use std::{collections::BTreeMap, time::Duration};

use rdkafka::{
    Offset, TopicPartitionList,
    consumer::{BaseConsumer, Consumer, ConsumerContext},
    topic_partition_list::TopicPartitionListElem,
};

use crate::{
    checkpoint::SourcePartition,
    config::{KafkaConfig, KafkaStart},
    error::PipelineError,
};

/// Where a partition begins of which nothing else is known: `auto.offset.reset`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reset {
    /// At the first record.
    Earliest,
    /// Behind the last one.
    Latest,
    /// Nowhere: a person decides.
    Error,
}

/// What the configuration says.
#[derive(Clone, Debug)]
pub(super) struct Start {
    /// For partitions that are not named.
    pub(super) reset: Reset,
    /// The first record of this time or later, in milliseconds since 1970.
    time_ms: Option<i64>,
    /// Offsets by partition.
    offsets: BTreeMap<SourcePartition, i64>,
}

impl Start {
    /// As configured; librdkafka has several names for the same, and has checked them.
    pub(super) fn of(kafka: &KafkaConfig) -> Self {
        let set = kafka.extra_config.iter().rev().find(|(name, _)| name == "auto.offset.reset");
        let by_librdkafka = match set.map_or("earliest", |(_, value)| value.reveal()) {
            "latest" | "largest" | "end" => Reset::Latest,
            "error" => Reset::Error,
            _ => Reset::Earliest,
        };
        let (reset, time_ms) = match kafka.start {
            None => (by_librdkafka, None),
            Some(KafkaStart::Earliest) => (Reset::Earliest, None),
            Some(KafkaStart::Latest) => (Reset::Latest, None),
            Some(KafkaStart::At(time_ms)) => (by_librdkafka, Some(time_ms)),
        };
        let offset = |(topic, partition, offset): &(String, i32, i64)| {
            (SourcePartition::new(topic.as_str(), *partition), *offset)
        };
        Self { reset, time_ms, offsets: kafka.start_offsets.iter().map(offset).collect() }
    }

    /// librdkafka's name of the reset.
    pub(super) fn reset_name(&self) -> &'static str {
        match self.reset {
            Reset::Earliest => "earliest",
            Reset::Latest => "latest",
            Reset::Error => "error",
        }
    }

    /// Whether there is more than the reset.
    pub(super) fn is_specific(&self) -> bool {
        self.time_ms.is_some() || !self.offsets.is_empty()
    }

    /// The offsets that the user wants for these partitions. One without a record of that time or later begins at its end.
    pub(super) fn wanted<C: ConsumerContext>(
        &self,
        consumer: &BaseConsumer<C>,
        partitions: &[&SourcePartition],
        timeout: Duration,
    ) -> Result<BTreeMap<SourcePartition, Wanted>, PipelineError> {
        let named = |partition: &&SourcePartition| {
            let offset = self.offsets.get(*partition)?;
            Some(((*partition).clone(), Wanted::Offset(*offset)))
        };
        let mut wanted: BTreeMap<_, _> = partitions.iter().filter_map(named).collect();
        let Some(time_ms) = self.time_ms else { return Ok(wanted) };
        let mut list = TopicPartitionList::new();
        for partition in partitions.iter().filter(|partition| !wanted.contains_key(**partition)) {
            list.add_partition_offset(&partition.topic, partition.partition, Offset::Offset(time_ms)).map_err(
                |error| PipelineError::stop(format!("source.start: not a time for Kafka: {time_ms}")).because(error),
            )?;
        }
        if list.count() == 0 {
            return Ok(wanted);
        }
        let found = consumer.offsets_for_times(list, timeout).map_err(|error| {
            PipelineError::restart("Kafka: the broker did not say which offsets source.start means").because(error)
        })?;
        let of_time = |element: &TopicPartitionListElem<'_>| {
            let partition = SourcePartition::new(element.topic(), element.partition());
            match element.offset() {
                Offset::Offset(offset) => (partition, Wanted::Time(Some(offset))),
                _ => (partition, Wanted::Time(None)),
            }
        };
        wanted.extend(found.elements().iter().map(of_time));
        Ok(wanted)
    }
}

/// Where the user wants a partition to begin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wanted {
    /// Here, and nowhere else.
    Offset(i64),
    /// At the record of a time; `None` where none is as late.
    Time(Option<i64>),
}

impl Wanted {
    /// The offset, given what the topic has.
    pub(super) fn within(self, partition: &SourcePartition, (low, high): (i64, i64)) -> Result<i64, PipelineError> {
        match self {
            Self::Offset(offset) if (low..=high).contains(&offset) => Ok(offset),
            Self::Offset(offset) => Err(PipelineError::stop(format!(
                "source.start_offsets: {partition} has offsets {low}..{high}, and {offset} is none of them"
            ))),
            Self::Time(offset) => Ok(offset.unwrap_or(high).clamp(low, high)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_is_meant_and_a_time_is_nearest() {
        let (orders, ends) = (SourcePartition::new("orders", 0), (5, 10));
        let within = |wanted: Wanted| wanted.within(&orders, ends);
        assert_eq!(within(Wanted::Offset(10)).unwrap(), 10);
        assert_eq!(within(Wanted::Time(Some(7))).unwrap(), 7);
        assert_eq!(within(Wanted::Time(Some(2))).unwrap(), 5);
        assert_eq!(within(Wanted::Time(None)).unwrap(), 10);
        let message = within(Wanted::Offset(11)).unwrap_err().to_string();
        assert_eq!(message, "source.start_offsets: orders[0] has offsets 5..10, and 11 is none of them");
    }
}
