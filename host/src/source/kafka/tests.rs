//! Over librdkafka's mock cluster: the real protocol in this process.

use std::{sync::atomic::AtomicI64, time::Instant};

use rdkafka::{
    Offset, TopicPartitionList,
    consumer::{BaseConsumer, Consumer as _},
    mocking::MockCluster,
    producer::{BaseRecord, DefaultProducerContext, Producer, ThreadedProducer},
    types::{RDKafkaApiKey, RDKafkaRespErr},
};

use super::{super::SourceEvent, *};
use crate::{
    checkpoint::SourcePartition,
    config::{Delivery, ErrorHandling, RunConfig, SourceKind},
    memory::MemoryBudget,
    source,
    telemetry::metrics::Metrics,
};

/// A cluster with records in four partitions of the topic `orders`.
fn cluster(records: usize) -> MockCluster<'static, rdkafka::producer::DefaultProducerContext> {
    let cluster = MockCluster::new(1).unwrap();
    cluster.create_topic("orders", 4, 1).unwrap();
    produce(&cluster.bootstrap_servers(), records);
    cluster
}

/// Sends numbered records.
fn produce(servers: &str, records: usize) {
    let producer: ThreadedProducer<DefaultProducerContext> =
        ClientConfig::new().set("bootstrap.servers", servers).create().unwrap();
    for number in 0..records {
        let text = number.to_string();
        let partition = i32::try_from(number % 4).unwrap();
        producer
            .send(BaseRecord::<str, str>::to("orders").partition(partition).payload(&text))
            .map_err(|(error, _)| error)
            .unwrap();
    }
    producer.flush(Duration::from_secs(10)).unwrap();
}

/// Scenario: the properties of a consumer whose broker assigns partitions, and of one with a name.
#[tokio::test]
async fn protocol_and_name_of_a_member_reach_librdkafka() {
    let with = |name: &str, value: &str, lanes| {
        let extra_config = vec![(name.to_owned(), crate::config::Secret::new(value))];
        client::consumer_config(&KafkaConfig { extra_config, ..kafka("127.0.0.1:1") }, &context(1, lanes, false))
    };
    let consumer = with("group.protocol", "consumer", 2);
    assert_eq!(
        (consumer.get("group.protocol"), consumer.get("partition.assignment.strategy")),
        (Some("consumer"), None)
    );
    assert_eq!(with("group.instance.id", "seat", 2).get("group.instance.id"), Some("seat-1"));
    assert_eq!(with("group.instance.id", "seat", 1).get("group.instance.id"), Some("seat"));
}

/// A lane that reads to the end, or for ever.
fn start(servers: &str, lane: usize, until_end: bool) -> SourceStream {
    start_beside(servers, lane, until_end, Arc::default())
}

/// The same, beside other lanes of one pipeline.
fn start_beside(servers: &str, lane: usize, until_end: bool, moves: Arc<source::Moves>) -> SourceStream {
    let config = SourceConfig {
        kind: SourceKind::Kafka(kafka(servers)),
        batch_rows_max: 100,
        batch_timeout: Duration::from_millis(50),
    };
    source::start(&config, LaneContext { moves, ..context(lane, 2, until_end) }).unwrap()
}

/// How the topic is read.
fn kafka(servers: &str) -> KafkaConfig {
    KafkaConfig {
        bootstrap_servers: vec![servers.to_owned()],
        topics: vec!["orders".to_owned()],
        group_id: "lake".to_owned(),
        // The mock cluster lets a group wait this long when its members change.
        extra_config: vec![("session.timeout.ms".to_owned(), crate::config::Secret::new("6000"))],
        start: None,
        start_offsets: Vec::new(),
        has_topic_ids: false,
    }
}

/// One of so many lanes.
fn context(lane: usize, lanes: usize, until_end: bool) -> LaneContext {
    let run = RunConfig {
        delivery: Delivery::AtLeastOnce,
        commit_interval: Duration::from_secs(60),
        commit_interval_batches: None,
        target_file_size_bytes: 1 << 27,
        target_file_rows: None,
        open_files_max: 10,
        memory_bytes: 64 << 20,
        lanes: None,
        error_handling: ErrorHandling::Log,
        batches_max: None,
        until_end,
        shutdown_timeout: Duration::from_secs(1),
    };
    LaneContext {
        pipeline: "orders".into(),
        lane,
        lanes,
        run,
        budget: MemoryBudget::new(64 << 20),
        metrics: Metrics::detached(),
        batches_left: Arc::new(AtomicI64::new(i64::MAX)),
        moves: Arc::default(),
        takes_over: false,
        io: tokio::runtime::Handle::current(),
    }
}

/// What a lane would do: collects values, commits what it has when partitions go and at the end. Ends with the source,
/// or once `enough` records have come.
async fn read(stream: &mut SourceStream, enough: usize) -> Vec<String> {
    let (mut found, mut delta) = (Vec::new(), CheckpointDelta::default());
    while found.len() < enough {
        let event =
            tokio::time::timeout(Duration::from_secs(60), stream.events.recv()).await.expect("the source is silent");
        match event.expect("the source is gone") {
            SourceEvent::Batch(batch) => {
                for row in 0..batch.envelope.len() {
                    found.push(String::from_utf8(batch.envelope.record(row).unwrap().value.unwrap()).unwrap());
                }
                delta.merge(&batch.delta).unwrap();
            }
            SourceEvent::Revoked { release, .. } => {
                stream.control.committed(std::mem::take(&mut delta)).await.unwrap();
                let _ = release.send(());
            }
            SourceEvent::Missing(_) | SourceEvent::Refused { .. } => {}
            SourceEvent::Lost { .. } => delta = CheckpointDelta::default(),
            SourceEvent::Assigned { begin, .. } => _ = begin.send(BTreeMap::new()),
            SourceEvent::End => break,
            SourceEvent::Failed(error) => panic!("{}", error.full_message()),
        }
    }
    stream.control.committed(delta).await.unwrap();
    found
}

/// Scenario: a bounded read, then a second one after more records came.
/// Guarantees: each record once; the second read begins where the first one was committed.
#[tokio::test(flavor = "multi_thread")]
async fn a_bounded_read_ends_and_a_restart_goes_on_from_the_committed_offsets() {
    let cluster = cluster(1_000);
    let servers = cluster.bootstrap_servers();
    let mut stream = start(&servers, 0, true);
    let first = read(&mut stream, usize::MAX).await;
    stream.control.close().await;
    assert_eq!(first.len(), 1_000);
    produce(&servers, 8);
    let mut stream = start(&servers, 0, true);
    let mut second = read(&mut stream, usize::MAX).await;
    stream.control.close().await;
    second.sort();
    assert_eq!(second, (0..8).map(|number| number.to_string()).collect::<Vec<_>>());
}

/// Scenario: the broker refuses a commit as often as the lane tries it, and nothing more is read.
/// Guarantees: the offsets are committed all the same, by the poll thread, with no later generation to take them along.
#[tokio::test(flavor = "multi_thread")]
async fn a_refused_commit_is_tried_again_without_new_records() {
    let cluster = cluster(8);
    let servers = cluster.bootstrap_servers();
    let mut stream = start(&servers, 0, false);
    // Illegal generation, the usual reason, would have librdkafka give up the assignment of this lone member as well.
    cluster.request_errors(
        RDKafkaApiKey::OffsetCommit,
        &[RDKafkaRespErr::RD_KAFKA_RESP_ERR_UNKNOWN; commit::COMMIT_TRIES as usize],
    );
    read(&mut stream, 8).await;
    let Control::Kafka(control) = &stream.control.0 else { panic!("not Kafka") };
    assert!(!control.group.owed.is_empty(), "the broker was to refuse");
    let deadline = Instant::now() + Duration::from_secs(20);
    while !control.group.owed.is_empty() && Instant::now() < deadline {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let mut partitions = TopicPartitionList::new();
    partitions.add_partition_range("orders", 0, 3);
    let committed = control.consumer.committed_offsets(partitions, Duration::from_secs(10)).unwrap();
    stream.control.close().await;
    assert!(committed.elements().iter().all(|element| element.offset() == Offset::Offset(2)), "{committed:?}");
}

/// Scenario: a second lane joins while the first one reads, so partitions move.
/// Guarantees: no record is lost; the first lane's commit is done before its partitions go, so none comes twice; and
/// nobody waits for a deadline.
#[tokio::test(flavor = "multi_thread")]
async fn partitions_move_after_a_commit() {
    let cluster = cluster(1_000);
    let servers = cluster.bootstrap_servers();
    let mut first = start(&servers, 0, false);
    let mut found = read(&mut first, 1_000).await;
    let began = Instant::now();
    let mut second = start(&servers, 1, true);
    let moved = tokio::spawn(async move {
        let found = read(&mut second, usize::MAX).await;
        (found, second)
    });
    let stop = first.control.clone();
    let keeps = tokio::spawn(async move {
        let found = read(&mut first, usize::MAX).await;
        (found, first)
    });
    let (more, second) = moved.await.unwrap();
    stop.stop();
    let (rest, first) = keeps.await.unwrap();
    second.control.close().await;
    first.control.close().await;
    assert!(began.elapsed() < Duration::from_secs(30), "somebody waited for a deadline: {:?}", began.elapsed());
    found.extend(more);
    found.extend(rest);
    assert_eq!(found.len(), 1_000);
}

/// Scenario: a second lane joins to read to the end, and the first one takes longer to commit what it gives away than a
/// lane without partitions usually waits.
/// Guarantees: the second lane waits all the same, and reads what it is given.
#[tokio::test(flavor = "multi_thread")]
async fn a_lane_waits_for_partitions_that_another_gives_away_slowly() {
    let cluster = cluster(1_000);
    let (servers, moves) = (cluster.bootstrap_servers(), Arc::<source::Moves>::default());
    let mut first = start_beside(&servers, 0, false, Arc::clone(&moves));
    read(&mut first, 1_000).await;
    produce(&servers, 400);
    let mut second = start_beside(&servers, 1, true, moves);
    let slow = tokio::spawn(async move {
        while let Some(event) = first.events.recv().await {
            if let SourceEvent::Revoked { release, .. } = event {
                tokio::time::sleep(Duration::from_secs(8)).await;
                let _ = release.send(());
            }
        }
    });
    let found = read(&mut second, usize::MAX).await;
    slow.abort();
    second.control.close().await;
    assert_eq!(found.len(), 200, "two of four partitions, and nothing of them was committed");
}

/// Scenario: a member of the group is gone without a word, as after `kill -9`, and a bounded read begins at once, while the
/// broker still takes half of the partitions for the dead member's.
/// Guarantees: the read waits until the broker misses it, and reads everything.
#[tokio::test(flavor = "multi_thread")]
async fn a_bounded_read_waits_for_the_partitions_of_the_dead() {
    let cluster = cluster(1_000);
    let servers = cluster.bootstrap_servers();
    let beside = servers.clone();
    let silent = tokio::task::spawn_blocking(move || silent_member(&beside));
    let mut stream = start(&servers, 0, true);
    let found = read(&mut stream, usize::MAX).await;
    stream.control.close().await;
    let (_member, partitions) = silent.await.unwrap();
    assert!(partitions > 0, "it had none, so nothing was shown");
    assert_eq!(found.len(), 1_000);
}

/// A member that takes partitions and is never heard of again; and how many.
fn silent_member(servers: &str) -> (BaseConsumer, usize) {
    let mut config = rdkafka::ClientConfig::new();
    config.set("bootstrap.servers", servers).set("group.id", "lake").set("enable.auto.commit", "false");
    config.set("partition.assignment.strategy", "cooperative-sticky");
    config.set("session.timeout.ms", "6000").set("max.poll.interval.ms", "6000");
    let consumer: BaseConsumer = config.create().unwrap();
    consumer.subscribe(&["orders"]).unwrap();
    loop {
        let _ = consumer.poll(Duration::from_millis(50));
        let partitions = consumer.assignment().unwrap().count();
        if partitions > 0 {
            return (consumer, partitions);
        }
    }
}

/// Guarantees: a cluster that is not there and a topic that is not there are named.
#[tokio::test(flavor = "multi_thread")]
async fn the_check_names_what_is_not_there() {
    let cluster = cluster(0);
    let mut kafka = KafkaConfig {
        bootstrap_servers: vec![cluster.bootstrap_servers()],
        topics: vec!["orders".to_owned()],
        group_id: "lake".to_owned(),
        extra_config: Vec::new(),
        start: None,
        start_offsets: Vec::new(),
        has_topic_ids: false,
    };
    check(kafka.clone()).await.unwrap();
    kafka.topics = vec!["oders".to_owned()];
    let error = check(kafka).await.unwrap_err().to_string();
    assert!(error.starts_with("source.topics: the topic \"oders\" does not exist on 127.0.0.1:"), "{error}");
    assert!(error.ends_with("there are: orders"), "{error}");
    assert_eq!(SourcePartition::new("orders", 1).to_string(), "orders[1]");
}
