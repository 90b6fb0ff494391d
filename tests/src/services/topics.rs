//! What may befall the topics of a [`Kafka`]: transactions, deleted records, deleted topics.

use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use rdkafka::{
    Message as _, Offset, TopicPartitionList,
    admin::{AdminClient, AdminOptions},
    client::DefaultClientContext,
    consumer::{BaseConsumer, Consumer as _},
    error::KafkaError,
    message::Headers,
    producer::Producer as _,
};

use super::{
    kafka::{Kafka, NewRecord, Producer, REQUEST_LIMIT},
    runtime,
};
use crate::wait::{self, Look};

impl Kafka {
    /// A producer whose records count only once their transaction is committed.
    pub fn transactional_producer(&self, id: &str) -> anyhow::Result<Producer> {
        let producer = Producer(self.client().set("transactional.id", id).set("linger.ms", "5").create()?);
        producer.0.init_transactions(REQUEST_LIMIT).context("Kafka does not begin with transactions")?;
        Ok(producer)
    }

    /// Deletes a topic and waits until it is gone.
    pub fn delete_topic(&self, name: &str) -> anyhow::Result<()> {
        let admin: AdminClient<DefaultClientContext> = self.client().create()?;
        let options = AdminOptions::new().operation_timeout(Some(REQUEST_LIMIT));
        for answer in runtime()?.block_on(admin.delete_topics(&[name], &options))? {
            answer.map_err(|(name, code)| anyhow::anyhow!("Kafka does not delete the topic {name}: {code}"))?;
        }
        let client: BaseConsumer = self.client().create()?;
        wait::until(&format!("the end of the topic {name}"), REQUEST_LIMIT, || {
            let metadata = client.fetch_metadata(None, Duration::from_secs(5))?;
            let is_there = metadata.topics().iter().any(|topic| topic.name() == name);
            Ok(Look::when(!is_there, "it is still there"))
        })
    }

    /// Deletes the records of a partition below an offset, as retention does.
    pub fn delete_records(&self, topic: &str, partition: i32, below: i64) -> anyhow::Result<()> {
        let admin: AdminClient<DefaultClientContext> = self.client().create()?;
        let mut offsets = TopicPartitionList::new();
        offsets.add_partition_offset(topic, partition, Offset::Offset(below))?;
        let options = AdminOptions::new().operation_timeout(Some(REQUEST_LIMIT));
        let answer = runtime()?.block_on(admin.delete_records(&offsets, &options))?;
        for element in answer.elements() {
            element.error().with_context(|| format!("Kafka does not delete records of {topic}[{partition}]"))?;
        }
        Ok(())
    }

    /// The offsets and values that are there in partition 0 of a topic, from an offset to the end.
    pub fn read_all(&self, topic: &str, from: i64) -> anyhow::Result<Vec<(i64, Vec<u8>)>> {
        let records = self.read_records(topic, from)?.into_iter();
        Ok(records.map(|(offset, record)| (offset, record.value.unwrap_or_default())).collect())
    }

    /// The same, whole.
    pub fn read_records(&self, topic: &str, from: i64) -> anyhow::Result<Vec<(i64, NewRecord)>> {
        let client: BaseConsumer =
            self.client().set("group.id", "reader").set("enable.partition.eof", "true").create()?;
        let mut assigned = TopicPartitionList::new();
        assigned.add_partition_offset(topic, 0, Offset::Offset(from))?;
        client.assign(&assigned)?;
        let (start, mut found) = (Instant::now(), Vec::new());
        loop {
            ensure!(start.elapsed() < REQUEST_LIMIT, "{topic} could not be read to its end in time");
            match client.poll(Duration::from_millis(200)) {
                Some(Ok(message)) => {
                    let headers = message.headers().into_iter().flat_map(Headers::iter);
                    let record = NewRecord {
                        partition: message.partition(),
                        key: message.key().map(<[u8]>::to_vec),
                        value: message.payload().map(<[u8]>::to_vec),
                        headers: headers
                            .map(|header| (header.key.to_owned(), header.value.unwrap_or_default().to_vec()))
                            .collect(),
                        timestamp_ms: message.timestamp().to_millis(),
                    };
                    found.push((message.offset(), record));
                }
                Some(Err(KafkaError::PartitionEOF(_))) => return Ok(found),
                Some(Err(error)) => return Err(error).context("Kafka does not give records"),
                None => {}
            }
        }
    }
}

impl Producer {
    /// Begins a transaction.
    pub fn begin(&self) -> anyhow::Result<()> {
        self.0.begin_transaction().context("Kafka does not begin a transaction")
    }

    /// Its records count from here on.
    pub fn commit(&self) -> anyhow::Result<()> {
        self.0.commit_transaction(REQUEST_LIMIT).context("Kafka does not commit a transaction")
    }

    /// Its records never count.
    pub fn abort(&self) -> anyhow::Result<()> {
        self.flush()?;
        self.0.abort_transaction(REQUEST_LIMIT).context("Kafka does not abort a transaction")
    }
}
