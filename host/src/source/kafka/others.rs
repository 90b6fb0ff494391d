//! Whether the rest of the group has come to the ends too: `--until-end` is about the topics, not about the partitions that
//! one member happens to have.
//!
//! A partition that is not ours is another lane's of this process, which tells us how far it is; or another process's,
//! whose commits the broker knows; or that of a member that was killed, which the broker notices only after the
//! session timeout: then it comes to somebody who is still there.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::{Duration, Instant},
};

use rdkafka::{
    consumer::{BaseConsumer, Consumer, ConsumerContext},
    error::KafkaResult,
};

use super::{super::LaneContext, begin::committed};
use crate::{checkpoint::SourcePartition, config::KafkaConfig};

/// How often the broker is asked for what others have committed.
const LOOK_INTERVAL: Duration = Duration::from_millis(250);

/// What librdkafka takes where `session.timeout.ms` is not set.
const SESSION_TIMEOUT_DEFAULT: Duration = Duration::from_secs(45);

/// The ends of all partitions of the topics, and when the broker was asked last.
#[derive(Debug, Default)]
pub(super) struct Others {
    /// Where each partition with records ended when it was first asked for.
    ends: Option<BTreeMap<SourcePartition, i64>>,
    /// The last answer: when, and whether all was read.
    last: Option<(Instant, bool)>,
}

impl Others {
    /// Whether every partition that is not ours was read to its end, by a lane of this process or by the broker's word; with
    /// `takes_over` that word does not count.
    pub(super) fn are_done<C: ConsumerContext>(
        &mut self,
        consumer: &BaseConsumer<C>,
        kafka: &KafkaConfig,
        owned: &BTreeSet<SourcePartition>,
        context: &LaneContext,
        timeout: Duration,
    ) -> KafkaResult<bool> {
        let LaneContext { moves, takes_over, .. } = context;
        let ends = match self.ends.take() {
            Some(ends) => ends,
            None => ends_of(consumer, kafka, timeout)?,
        };
        let ends = self.ends.insert(ends);
        let is_open = |partition: &SourcePartition| !owned.contains(partition) && !moves.has_reached(partition);
        let open: Vec<_> = ends.iter().filter(|(partition, _)| is_open(partition)).collect();
        if open.is_empty() || *takes_over {
            return Ok(open.is_empty());
        }
        if let Some((_, is_done)) = self.last.filter(|(at, _)| at.elapsed() < LOOK_INTERVAL) {
            return Ok(is_done);
        }
        let asked: Vec<_> = open.iter().map(|(partition, _)| *partition).collect();
        let committed = committed(consumer, &asked, timeout)?;
        let is_done =
            open.iter().all(|(partition, end)| committed.get(*partition).is_some_and(|offset| offset >= *end));
        self.last = Some((Instant::now(), is_done));
        Ok(is_done)
    }
}

/// The end of every partition with records of the topics that are subscribed to.
fn ends_of<C: ConsumerContext>(
    consumer: &BaseConsumer<C>,
    kafka: &KafkaConfig,
    timeout: Duration,
) -> KafkaResult<BTreeMap<SourcePartition, i64>> {
    let patterns = kafka.topics.iter().filter(|topic| topic.starts_with('^'));
    // A pattern of POSIX that this crate does not know is left to the session timeout.
    let patterns: Vec<regex::Regex> = patterns.filter_map(|pattern| regex::Regex::new(pattern).ok()).collect();
    let is_wanted = |name: &str| {
        kafka.topics.iter().any(|topic| topic == name)
            || (!name.starts_with("__") && patterns.iter().any(|pattern| pattern.is_match(name)))
    };
    let metadata = consumer.fetch_metadata(None, timeout)?;
    let mut ends = BTreeMap::new();
    for topic in metadata.topics().iter().filter(|topic| is_wanted(topic.name())) {
        for partition in topic.partitions() {
            let (low, high) = consumer.fetch_watermarks(topic.name(), partition.id(), timeout)?;
            if high > low {
                ends.insert(SourcePartition::new(topic.name(), partition.id()), high);
            }
        }
    }
    Ok(ends)
}

/// After so long the broker has missed every member that was killed.
pub(super) fn session_timeout(kafka: &KafkaConfig) -> Duration {
    let given = kafka.extra_config.iter().find(|(name, _)| name == "session.timeout.ms");
    let given = given.and_then(|(_, value)| value.reveal().parse().ok());
    given.map_or(SESSION_TIMEOUT_DEFAULT, Duration::from_millis)
}
