//! Processes that come and go all the time.

use std::{
    collections::BTreeSet,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use fs_data_sink_tests::{
    program::{Configuration, end, kafka_source, local_sink},
    records::Random,
    services::process::{Process, Signal},
};

use crate::{
    shared::{LONG, SHORT, kafka, say, scenario, seed, unique},
    topics::{compare, record},
};

/// Partitions of the topic.
const PARTITIONS: i32 = 24;

/// Processes at most.
const PROCESSES: usize = 6;

/// Records that are sent at once, ten times a second.
const BURST: u64 = 240;

/// Lets processes join and leave for so long while records come; then reads to the end and compares. `source` is made of the
/// broker's address, the topic and the group.
fn storm(name: &str, duration: Duration, source: fn(&str, &str, &str) -> String) -> anyhow::Result<()> {
    scenario(name, |workspace| {
        let (kafka, topic) = (kafka()?, unique("storm"));
        kafka.create_topic(&topic, PARTITIONS)?;
        let source = source(kafka.bootstrap(), &topic, &unique("storm"));
        let mut configuration = Configuration::new("topics", source, local_sink(Path::new("lake")));
        "  commit_interval: 1s\n  lanes: 2\n".clone_into(&mut configuration.pipeline);
        workspace.write("pipeline.yaml", configuration.yaml())?;
        let seed = seed();
        let (mut random, mut joined, mut left, mut killed) = (Random::new(seed), 0, 0, 0);
        let is_over = Arc::new(AtomicBool::new(false));
        let feed = thread::spawn({
            let (is_over, topic, producer) = (Arc::clone(&is_over), topic.clone(), kafka.producer()?);
            move || -> anyhow::Result<u64> {
                let mut id = 0;
                while !is_over.load(Ordering::Relaxed) {
                    for number in id..id + BURST {
                        producer.send(&topic, &record(number, i32::try_from(number)? % PARTITIONS))?;
                    }
                    producer.flush()?;
                    id += BURST;
                    thread::sleep(Duration::from_millis(100));
                }
                Ok(id)
            }
        });
        let mut running: Vec<Process> = Vec::new();
        let began = Instant::now();
        while began.elapsed() < duration {
            // Between none and all of them, mostly some.
            if running.len() < PROCESSES && (running.len() < 2 || random.below(2) == 0) {
                running.push(workspace.start(&["run", "pipeline.yaml"])?);
                joined += 1;
            } else {
                let number = usize::try_from(random.below(running.len() as u64))?;
                let mut process = running.remove(number);
                process.ensure_running()?;
                if random.below(3) == 0 {
                    process.kill()?;
                    killed += 1;
                } else {
                    // Before that it does not hear signals yet.
                    process.wait_for_text("pipeline runs", SHORT)?;
                    end(process, Signal::Terminate, SHORT)?.expect(0, &[])?;
                    left += 1;
                }
            }
            thread::sleep(Duration::from_millis(1_000 + random.below(2_000)));
        }
        is_over.store(true, Ordering::Relaxed);
        let count = feed.join().map_err(|_| anyhow::anyhow!("the feed panicked"))??;
        for mut process in running {
            process.wait_for_text("pipeline runs", SHORT)?;
            end(process, Signal::Terminate, SHORT)?.expect(0, &[])?;
        }
        workspace.run(&["run", "pipeline.yaml", "--until-end"], LONG)?.expect(0, &[])?;
        say(&format!("{name}: seed {seed}, {joined} joined, {left} left, {killed} killed, {count} records"));
        compare(workspace, &(0..count).collect::<BTreeSet<u64>>()).map(drop)
    })
}

/// Scenario: six processes at most join and leave every other second, a third of them by `kill -9`, over 24 partitions under exactly once,
/// while records come, for 40 seconds.
/// Guarantees: every row is there exactly once, the ledger agrees, and nobody ended by itself.
#[test]
fn processes_come_and_go() -> anyhow::Result<()> {
    storm("storm", Duration::from_secs(40), kafka_source)
}

/// Scenario: the same for 20 seconds with the protocol in which the broker assigns the partitions (KIP-848).
/// Guarantees: the same.
#[test]
fn processes_come_and_go_by_the_brokers_protocol() -> anyhow::Result<()> {
    storm("storm-consumer", Duration::from_secs(20), consumer_protocol)
}

/// `source` with the protocol in which the broker assigns the partitions; how soon it misses a member is the broker's affair.
fn consumer_protocol(bootstrap: &str, topic: &str, group: &str) -> String {
    with_properties(bootstrap, topic, group, "group.protocol: consumer")
}

/// `source` with these properties of librdkafka and no others.
fn with_properties(bootstrap: &str, topic: &str, group: &str, properties: &str) -> String {
    format!(
        "  type: kafka\n  bootstrap_servers: [\"{bootstrap}\"]\n  topics: [\"{topic}\"]\n  group_id: {group}\n  batch_size: 2000\n  \
         extra_config: {{{properties}}}\n"
    )
}

/// Scenario: three processes with names of their own (static members) share a topic; one of them ends and comes back, another is
/// killed and comes back, both within the session's time.
/// Guarantees: nobody else's partitions move meanwhile; every row is there exactly once.
#[test]
fn members_with_names_keep_their_partitions() -> anyhow::Result<()> {
    scenario("static-members", |workspace| {
        let (kafka, topic) = (kafka()?, unique("static"));
        kafka.create_topic(&topic, PARTITIONS)?;
        let named = "group.instance.id: \"${SEAT}\", session.timeout.ms: 30000, heartbeat.interval.ms: 500";
        let source = with_properties(kafka.bootstrap(), &topic, &unique("static"), named);
        let mut configuration = Configuration::new("topics", source, local_sink(Path::new("lake")));
        "  commit_interval: 1s\n  lanes: 2\n".clone_into(&mut configuration.pipeline);
        workspace.write("pipeline.yaml", configuration.yaml())?;
        let mut start = |seat: &str| {
            workspace.set("SEAT", seat);
            let mut process = workspace.start(&["run", "pipeline.yaml"])?;
            process.wait_for_text("pipeline runs", SHORT)?;
            anyhow::Ok(process)
        };
        let (producer, mut sent) = (kafka.producer()?, 0);
        let mut send_and_wait = |watched: &mut Process| -> anyhow::Result<()> {
            for number in sent..sent + 10 * BURST {
                producer.send(&topic, &record(number, i32::try_from(number)? % PARTITIONS))?;
            }
            producer.flush()?;
            sent += 10 * BURST;
            watched.ensure_running()
        };
        let (mut stays, leaves, mut dies) = (start("stays")?, start("leaves")?, start("dies")?);
        send_and_wait(&mut stays)?;
        // The three have found their partitions once what was sent is committed: until then they move rightly.
        thread::sleep(Duration::from_secs(8));
        let before = stays.log().matches("partitions are taken away").count();
        end(leaves, Signal::Terminate, SHORT)?.expect(0, &[])?;
        dies.kill()?;
        send_and_wait(&mut stays)?;
        let (leaves, dies) = (start("leaves")?, start("dies")?);
        send_and_wait(&mut stays)?;
        thread::sleep(Duration::from_secs(5));
        let after = stays.log().matches("partitions are taken away").count();
        anyhow::ensure!(before == after, "partitions moved {before} times before and {after} times in all");
        for process in [stays, leaves, dies] {
            end(process, Signal::Terminate, SHORT)?.expect(0, &[])?;
        }
        workspace.set("SEAT", "last");
        workspace.run(&["run", "pipeline.yaml", "--until-end"], LONG)?.expect(0, &[])?;
        compare(workspace, &(0..sent).collect::<BTreeSet<u64>>()).map(drop)
    })
}

/// Scenario: the same for three minutes.
#[test]
#[ignore = "three minutes: make soak"]
fn processes_come_and_go_for_long() -> anyhow::Result<()> {
    storm("storm-long", Duration::from_mins(3), kafka_source)
}
