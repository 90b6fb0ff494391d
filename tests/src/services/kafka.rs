//! A real Apache Kafka broker (`KRaft`, one node), and what tests ask of it.

use std::{
    collections::BTreeMap,
    fs,
    process::Command,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use anyhow::{Context as _, ensure};
use rdkafka::{
    ClientConfig, Offset, TopicPartitionList,
    admin::{AdminClient, AdminOptions, NewTopic, TopicReplication},
    client::DefaultClientContext,
    consumer::{BaseConsumer, Consumer as _},
    error::KafkaError,
    message::{Header, OwnedHeaders},
    producer::{BaseRecord, DefaultProducerContext, Producer as _, ThreadedProducer},
    types::RDKafkaErrorCode,
};

use super::{
    download,
    folder::TestFolder,
    free_port,
    process::{Process, Signal},
    runtime,
};
use crate::wait::{self, Look};

/// The JVM: small, and fast to start rather than fast in an hour.
const JVM: [&str; 6] = [
    "-Xmx384m",
    "-XX:+UseSerialGC",
    "-XX:TieredStopAtLevel=1",
    "-Xss512k",
    "-Djava.net.preferIPv4Stack=true",
    "-Djava.awt.headless=true",
];

/// Any id will do for a cluster of one test.
const CLUSTER_ID: &str = "AAAAAAAAAAAAAAAAAAAAAA";

/// Two JVM starts on a busy machine.
const START_LIMIT: Duration = Duration::from_secs(90);

/// One request to a broker that runs.
pub(super) const REQUEST_LIMIT: Duration = Duration::from_secs(30);

/// A broker: ours, or one that the environment names.
#[derive(Debug)]
pub struct Kafka {
    /// `host:port`.
    bootstrap: String,
    /// Ours; `None` where it was given.
    server: Option<Server>,
}

/// A broker of ours.
#[derive(Debug)]
struct Server {
    /// Data, settings, log.
    folder: Mutex<TestFolder>,
    /// The JVM; `None` while it is stopped.
    process: Mutex<Option<Process>>,
    /// Options of the JVM.
    options: Vec<String>,
}

/// Sends records; see [`Kafka::producer`].
pub struct Producer(pub(super) ThreadedProducer<DefaultProducerContext>);

impl std::fmt::Debug for Producer {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("Producer")
    }
}

/// A record to be produced.
#[derive(Clone, Debug, Default)]
pub struct NewRecord {
    /// Where to.
    pub partition: i32,
    /// Its key.
    pub key: Option<Vec<u8>>,
    /// Its value.
    pub value: Option<Vec<u8>>,
    /// Its headers.
    pub headers: Vec<(String, Vec<u8>)>,
    /// Milliseconds since 1970; the broker's clock where absent.
    pub timestamp_ms: Option<i64>,
}

impl Kafka {
    /// The broker that `KAFKA_BOOTSTRAP_SERVERS` names, else a new one.
    pub fn given_or_started() -> anyhow::Result<Self> {
        match std::env::var("KAFKA_BOOTSTRAP_SERVERS") {
            Ok(bootstrap) if !bootstrap.trim().is_empty() => Ok(Self { bootstrap, server: None }),
            _ => Self::start(),
        }
    }

    /// Starts a broker and waits until it serves metadata.
    pub fn start() -> anyhow::Result<Self> {
        Self::start_with(|_| Ok(Extra::default()))
    }

    /// Starts a broker with more than a plain listener; `extra` gets the broker's folder.
    pub(super) fn start_with(extra: impl FnOnce(&TestFolder) -> anyhow::Result<Extra>) -> anyhow::Result<Self> {
        let folder = TestFolder::new("kafka")?;
        let extra = extra(&folder)?;
        let (port, controller_port) = (free_port()?, free_port()?);
        fs::write(folder.path().join("server.properties"), settings(&folder, port, controller_port, &extra))?;
        fs::write(folder.path().join("log4j2.xml"), LOG_SETTINGS)?;
        let log = folder.path().join("broker.log");
        let mut format = java(&folder)?;
        format.args(["kafka.tools.StorageTool", "format", "-t", CLUSTER_ID, "-c"]);
        format.arg(folder.path().join("server.properties"));
        for user in &extra.format {
            format.arg("--add-scram").arg(user);
        }
        let mut format = Process::start("Kafka's format tool", format, &log)?;
        let formatted = format.wait(START_LIMIT)?;
        ensure!(formatted == super::process::Ended::Code(0), "Kafka's format tool failed\n{}", format.log_tail());
        let server = Server { folder: Mutex::new(folder), process: Mutex::new(None), options: extra.options };
        let kafka = Self { bootstrap: format!("127.0.0.1:{port}"), server: Some(server) };
        kafka.start_again()?;
        Ok(kafka)
    }

    /// `host:port`.
    #[must_use]
    pub fn bootstrap(&self) -> &str {
        &self.bootstrap
    }

    /// Whether it is one that tests may stop.
    #[must_use]
    pub fn is_ours(&self) -> bool {
        self.server.is_some()
    }

    /// Ends it cleanly; its data and ports stay.
    pub fn stop(&self) -> anyhow::Result<()> {
        if let Some(mut process) = self.process()?.take() {
            process.stop()?;
        }
        Ok(())
    }

    /// `kill -9`; its data and ports stay.
    pub fn kill(&self) -> anyhow::Result<()> {
        if let Some(mut process) = self.process()?.take() {
            process.kill()?;
        }
        Ok(())
    }

    /// Starts it again after [`Kafka::stop`] or [`Kafka::kill`], on the same ports with the same data.
    pub fn start_again(&self) -> anyhow::Result<()> {
        let server = self.server()?;
        let command = {
            let folder = server.folder.lock().unwrap_or_else(PoisonError::into_inner);
            let mut command = java(&folder)?;
            command.args(&server.options).arg("kafka.Kafka").arg(folder.path().join("server.properties"));
            (command, folder.path().join("broker.log"))
        };
        let mut process = Process::start("Kafka", command.0, &command.1)?;
        let client: BaseConsumer = self.client().create()?;
        let ready = wait::until("Kafka to serve metadata", START_LIMIT, || {
            process.ensure_running()?;
            Ok(match client.fetch_metadata(None, Duration::from_secs(2)) {
                Ok(metadata) if !metadata.brokers().is_empty() => Look::Done(()),
                Ok(_) => Look::NotYet("it names no broker".to_owned()),
                Err(error) => Look::NotYet(error.to_string()),
            })
        });
        ready.with_context(|| process.log_tail())?;
        *self.process()? = Some(process);
        Ok(())
    }

    /// Freezes it: connections stay open and nothing answers.
    pub fn freeze(&self) -> anyhow::Result<()> {
        self.process()?.as_mut().context("Kafka is not running")?.signal(Signal::Stop)
    }

    /// Thaws it.
    pub fn thaw(&self) -> anyhow::Result<()> {
        self.process()?.as_mut().context("Kafka is not running")?.signal(Signal::Continue)
    }

    /// Leaves its folder on disk, for whoever looks into a failure; returns where the log is.
    pub fn keep_log(&self) -> String {
        self.server.as_ref().map_or_else(String::new, |server| {
            let mut folder = server.folder.lock().unwrap_or_else(PoisonError::into_inner);
            folder.keep();
            folder.path().join("broker.log").display().to_string()
        })
    }

    /// Makes a topic.
    pub fn create_topic(&self, name: &str, partitions: i32) -> anyhow::Result<()> {
        self.create_topic_with(name, partitions, &[])
    }

    /// Makes a topic with settings of its own.
    pub fn create_topic_with(&self, name: &str, partitions: i32, settings: &[(&str, &str)]) -> anyhow::Result<()> {
        let admin: AdminClient<DefaultClientContext> = self.client().create()?;
        let topic = NewTopic::new(name, partitions, TopicReplication::Fixed(1));
        let topic = settings.iter().fold(topic, |topic, (key, value)| topic.set(key, value));
        let options = AdminOptions::new().operation_timeout(Some(REQUEST_LIMIT));
        let answers = runtime()?.block_on(admin.create_topics([&topic], &options))?;
        for answer in answers {
            answer.map_err(|(name, code)| anyhow::anyhow!("Kafka does not make the topic {name}: {code}"))?;
        }
        // A topic that was made is not known to every thread of the broker at once.
        let client: BaseConsumer = self.client().create()?;
        let wanted = usize::try_from(partitions)?;
        wait::until(&format!("the topic {name}"), REQUEST_LIMIT, || {
            let metadata = client.fetch_metadata(Some(name), Duration::from_secs(5))?;
            let led = metadata.topics().iter().flat_map(rdkafka::metadata::MetadataTopic::partitions);
            let led = led.filter(|partition| partition.error().is_none() && partition.leader() >= 0).count();
            Ok(Look::when(led == wanted, format!("{led} of {wanted} partitions have a leader")))
        })
    }

    /// Produces records in their order and waits until all are acknowledged.
    pub fn produce(&self, topic: &str, records: impl IntoIterator<Item = NewRecord>) -> anyhow::Result<u64> {
        let producer = self.producer()?;
        let mut sent = 0;
        for record in records {
            producer.send(topic, &record)?;
            sent += 1;
        }
        producer.flush()?;
        Ok(sent)
    }

    /// A producer that keeps the order and doubles nothing, also while the broker is away.
    pub fn producer(&self) -> anyhow::Result<Producer> {
        let producer = self
            .client()
            .set("enable.idempotence", "true")
            .set("linger.ms", "20")
            .set("batch.size", "500000")
            .set("compression.type", "zstd")
            .set("queue.buffering.max.messages", "100000")
            .create()?;
        Ok(Producer(producer))
    }

    /// Where each partition of a topic ends.
    pub fn end_offsets(&self, topic: &str) -> anyhow::Result<BTreeMap<i32, i64>> {
        let client: BaseConsumer = self.client().create()?;
        let metadata = client.fetch_metadata(Some(topic), REQUEST_LIMIT)?;
        let partitions = metadata.topics().iter().flat_map(rdkafka::metadata::MetadataTopic::partitions);
        partitions
            .map(|partition| {
                let (_, end) = client.fetch_watermarks(topic, partition.id(), REQUEST_LIMIT)?;
                Ok((partition.id(), end))
            })
            .collect()
    }

    /// What a consumer group has committed, of the partitions where it has.
    pub fn group_offsets(&self, group: &str, topic: &str) -> anyhow::Result<BTreeMap<i32, i64>> {
        let client: BaseConsumer = self.client().set("group.id", group).create()?;
        let mut asked = TopicPartitionList::new();
        for partition in self.end_offsets(topic)?.into_keys() {
            asked.add_partition(topic, partition);
        }
        let answered = wait::until("the group's coordinator", REQUEST_LIMIT, || {
            Ok(match client.committed_offsets(asked.clone(), REQUEST_LIMIT) {
                Ok(answered) => Look::Done(answered),
                Err(error) if error.rdkafka_error_code().is_some_and(passes) => Look::NotYet(error.to_string()),
                Err(error) => return Err(error.into()),
            })
        })?;
        let known = answered.elements().into_iter().filter_map(|element| match element.offset() {
            Offset::Offset(offset) => Some((element.partition(), offset)),
            _ => None,
        });
        Ok(known.collect())
    }

    /// Waits until a group has committed everything that a topic has now.
    pub fn wait_until_committed(&self, group: &str, topic: &str, limit: Duration) -> anyhow::Result<()> {
        let ends = self.end_offsets(topic)?;
        let filled: BTreeMap<i32, i64> = ends.into_iter().filter(|(_, end)| *end > 0).collect();
        wait::until(&format!("group {group} to commit all of {topic}"), limit, || {
            let committed = match self.group_offsets(group, topic) {
                Ok(committed) => committed,
                Err(error) => return Ok(Look::NotYet(format!("{error:#}"))),
            };
            let all = filled.iter().all(|(partition, end)| committed.get(partition).is_some_and(|at| at >= end));
            Ok(Look::when(all, format!("it committed {committed:?} of {filled:?}")))
        })
    }

    /// A client of this broker.
    pub(super) fn client(&self) -> ClientConfig {
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", &self.bootstrap).set("log_level", "2");
        config
    }

    /// The broker of ours.
    fn server(&self) -> anyhow::Result<&Server> {
        self.server.as_ref().context("this Kafka was given by KAFKA_BOOTSTRAP_SERVERS and is not ours to stop")
    }

    /// Its process.
    fn process(&self) -> anyhow::Result<MutexGuard<'_, Option<Process>>> {
        Ok(self.server()?.process.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// What a broker answers about a group while it makes or loads the topic of offsets.
fn passes(code: RDKafkaErrorCode) -> bool {
    use RDKafkaErrorCode as Code;
    matches!(code, Code::NotCoordinator | Code::CoordinatorNotAvailable | Code::CoordinatorLoadInProgress)
}

impl Producer {
    /// Queues a record, and waits while the queue is full.
    pub fn send(&self, topic: &str, record: &NewRecord) -> anyhow::Result<()> {
        let mut headers = OwnedHeaders::new_with_capacity(record.headers.len());
        for (key, value) in &record.headers {
            headers = headers.insert(Header { key, value: Some(value) });
        }
        let mut next = BaseRecord::<[u8], [u8]>::to(topic).partition(record.partition).headers(headers);
        next.key = record.key.as_deref();
        next.payload = record.value.as_deref();
        next.timestamp = record.timestamp_ms;
        loop {
            match self.0.send(next) {
                Ok(()) => return Ok(()),
                Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), back)) => {
                    next = back;
                    std::thread::sleep(Duration::from_millis(2));
                }
                Err((error, _)) => return Err(error).context("Kafka does not take a record"),
            }
        }
    }

    /// Waits until all records are acknowledged.
    pub fn flush(&self) -> anyhow::Result<()> {
        self.0.flush(Duration::from_mins(2)).context("Kafka did not acknowledge all records")
    }
}

/// A JVM with Kafka's jars.
fn java(folder: &TestFolder) -> anyhow::Result<Command> {
    let mut command = Command::new("java");
    command.args(JVM);
    command.arg(format!("-Dlog4j2.configurationFile={}", folder.path().join("log4j2.xml").display()));
    command.arg("-cp").arg(download::kafka_jars()?.join("*"));
    Ok(command)
}

/// What a broker has besides its plain listener.
#[derive(Debug, Default)]
pub(super) struct Extra {
    /// Name, security protocol and port of each listener.
    pub(super) listeners: Vec<(&'static str, &'static str, u16)>,
    /// More lines of `server.properties`.
    pub(super) settings: String,
    /// Users, as the format tool takes them.
    pub(super) format: Vec<String>,
    /// Options of the JVM.
    pub(super) options: Vec<String>,
}

/// `server.properties`. Topics are never made by being asked for, so that an unknown topic stays unknown; groups may
/// have short session timeouts, so that a killed member is missed within seconds.
fn settings(folder: &TestFolder, port: u16, controller_port: u16, extra: &Extra) -> String {
    let data = folder.path().join("data");
    let data = data.display();
    let Extra { listeners, settings, .. } = extra;
    let more = |part: fn(&(&str, &str, u16)) -> String| listeners.iter().map(part).collect::<String>();
    let own = more(|(name, _, port)| format!(",{name}://localhost:{port}"));
    let protocols = more(|(name, protocol, _)| format!(",{name}:{protocol}"));
    format!(
        "process.roles=broker,controller
node.id=1
controller.quorum.voters=1@127.0.0.1:{controller_port}
controller.listener.names=CONTROLLER
listeners=PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller_port}{own}
advertised.listeners=PLAINTEXT://127.0.0.1:{port}{own}
listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT{protocols}
inter.broker.listener.name=PLAINTEXT
log.dirs={data}
auto.create.topics.enable=false
offsets.topic.num.partitions=4
offsets.topic.replication.factor=1
transaction.state.log.num.partitions=4
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
share.coordinator.state.topic.num.partitions=1
share.coordinator.state.topic.replication.factor=1
share.coordinator.state.topic.min.isr=1
group.initial.rebalance.delay.ms=0
group.min.session.timeout.ms=500
group.consumer.min.session.timeout.ms=1500
group.consumer.session.timeout.ms=1500
group.consumer.min.heartbeat.interval.ms=300
group.consumer.heartbeat.interval.ms=300
num.network.threads=2
num.io.threads=2
num.recovery.threads.per.data.dir=1
log.cleaner.dedupe.buffer.size=4194304
log.cleaner.backoff.ms=500
controlled.shutdown.enable=false
{settings}"
    )
}

/// Warnings, and when it started and stopped.
const LOG_SETTINGS: &str = r#"<Configuration status="WARN"><Appenders>
<Console name="out" target="SYSTEM_OUT"><PatternLayout pattern="%d{ISO8601} %p %c{1} %m%n"/></Console></Appenders>
<Loggers><Root level="WARN"><AppenderRef ref="out"/></Root>
<Logger name="kafka.server.KafkaRaftServer" level="INFO"/></Loggers></Configuration>
"#;
