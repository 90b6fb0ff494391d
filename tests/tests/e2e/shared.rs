//! What the scenarios share: servers that are started once, names of their own, and records that keep coming.

use std::{
    io::Write as _,
    sync::{
        Arc, LazyLock,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant, SystemTime},
};

use anyhow::{Context as _, ensure};
use fs_data_sink_tests::{
    program::Workspace,
    records::{PARTITIONS, Records},
    services::{
        hdfs::Hdfs,
        kafka::{Kafka, Producer},
        process::Ended,
        s3::S3,
    },
};

/// Commands that read no more than some thousand records: far more than they need on a busy machine.
pub(crate) const SHORT: Duration = Duration::from_secs(90);

/// Whole runs.
pub(crate) const LONG: Duration = Duration::from_mins(5);

/// Exit code of a process that ended at a fail point.
pub(crate) const FAIL_POINT: Ended = Ended::Code(86);

/// The broker of all scenarios that do not stop one.
pub(crate) fn kafka() -> anyhow::Result<&'static Kafka> {
    static SHARED: LazyLock<anyhow::Result<Kafka>> = LazyLock::new(Kafka::given_or_started);
    SHARED.as_ref().map_err(|error| anyhow::anyhow!("no Kafka: {error:#}"))
}

/// The S3 server of all scenarios.
pub(crate) fn s3() -> anyhow::Result<&'static S3> {
    static SHARED: LazyLock<anyhow::Result<S3>> = LazyLock::new(S3::given_or_started);
    SHARED.as_ref().map_err(|error| anyhow::anyhow!("no S3 server: {error:#}"))
}

/// The HDFS of all scenarios that do not stop one.
pub(crate) fn hdfs() -> anyhow::Result<&'static Hdfs> {
    static SHARED: LazyLock<anyhow::Result<Hdfs>> = LazyLock::new(Hdfs::start);
    SHARED.as_ref().map_err(|error| anyhow::anyhow!("no HDFS: {error:#}"))
}

/// Runs a scenario in a folder that stays, with the servers' logs, when it fails.
pub(crate) fn scenario(name: &str, body: impl FnOnce(&mut Workspace) -> anyhow::Result<()>) -> anyhow::Result<()> {
    let mut workspace = Workspace::new(name)?;
    let start = Instant::now();
    let result = body(&mut workspace);
    say(&format!("{name}: {} s", start.elapsed().as_secs()));
    result.map_err(|error| {
        workspace.keep();
        let logs = [kafka().map(Kafka::keep_log), s3().map(S3::keep_log)];
        let logs = logs.into_iter().flatten().collect::<Vec<_>>().join(" ");
        error.context(format!("kept for a look: {} {logs}", workspace.path().display()))
    })
}

/// Runs `pipeline.yaml` to the end, after it has ended at each of these fail points.
pub(crate) fn run_after_ends_at(workspace: &mut Workspace, points: &[&str]) -> anyhow::Result<()> {
    for point in points {
        end_at(workspace, point)?;
    }
    workspace.set("FS_DATA_SINK_FAIL_POINT", "none");
    workspace.run(&["run", "pipeline.yaml", "--until-end"], LONG)?.expect(0, &[])
}

/// Runs `pipeline.yaml` until it ends at a fail point.
pub(crate) fn end_at(workspace: &mut Workspace, point: &str) -> anyhow::Result<()> {
    workspace.set("FS_DATA_SINK_FAIL_POINT", point);
    let ended = workspace.run(&["run", "pipeline.yaml", "--until-end"], LONG)?.ended;
    ensure!(ended == FAIL_POINT, "{point} was not met: {ended:?}");
    Ok(())
}

/// A line for whoever waits for the tests; libtest does not hold it back.
pub(crate) fn say(line: &str) {
    // Nobody may be there to read it.
    let _ = writeln!(std::io::stderr(), "e2e: {line}");
}

/// A name that no other test and no other run has.
pub(crate) fn unique(name: &str) -> String {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    format!("{name}-{:x}-{number}", seed_of_now() & 0xffff_ffff)
}

/// A seed: `FS_DATA_SINK_TEST_SEED` to repeat a run, else the clock.
pub(crate) fn seed() -> u64 {
    let given = std::env::var("FS_DATA_SINK_TEST_SEED").ok().and_then(|seed| seed.parse().ok());
    given.unwrap_or_else(seed_of_now)
}

/// The clock as a number.
fn seed_of_now() -> u64 {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    now.as_secs() ^ (u64::from(now.subsec_nanos()) << 20)
}

/// Makes a topic with the first records of a stream in it.
pub(crate) fn filled_topic(kafka: &Kafka, name: &str, seed: u64, count: u64) -> anyhow::Result<Records> {
    let records = Records { seed, topic: unique(name) };
    kafka.create_topic(&records.topic, PARTITIONS)?;
    kafka.produce(&records.topic, (0..count).map(|number| records.record(number)))?;
    ensure_all_there(kafka, &records, count)?;
    Ok(records)
}

/// Fails unless the topic holds exactly these records: else a test would look for rows in vain.
pub(crate) fn ensure_all_there(kafka: &Kafka, records: &Records, count: u64) -> anyhow::Result<()> {
    let ends = kafka.end_offsets(&records.topic)?;
    for partition in 0..PARTITIONS {
        let last = (0..count).rev().find(|number| Records::position(*number).0 == partition);
        let wanted = last.map_or(0, |number| Records::position(number).1 + 1);
        ensure!(
            ends.get(&partition) == Some(&wanted),
            "partition {partition} of {} ends at {:?} and should at {wanted}",
            records.topic,
            ends.get(&partition)
        );
    }
    Ok(())
}

/// Records that keep coming at a steady rate.
pub(crate) struct Feed {
    /// Ends it.
    stopped: Arc<AtomicBool>,
    /// Gives the number of records.
    thread: JoinHandle<anyhow::Result<u64>>,
}

impl Feed {
    /// Goes on after `from` records that are there already.
    pub(crate) fn start(kafka: &Kafka, records: &Records, from: u64, per_second: u64) -> anyhow::Result<Self> {
        let producer = kafka.producer()?;
        let (records, stopped) = (records.clone(), Arc::new(AtomicBool::new(false)));
        let flag = Arc::clone(&stopped);
        let thread = thread::spawn(move || feed(&producer, &records, from, per_second, &flag));
        Ok(Self { stopped, thread })
    }

    /// Ends it, when all is acknowledged: how many records there are now in all.
    pub(crate) fn finish(self) -> anyhow::Result<u64> {
        self.stopped.store(true, Ordering::SeqCst);
        self.thread.join().ok().context("the feed panicked")?
    }
}

/// The thread of a [`Feed`].
fn feed(
    producer: &Producer,
    records: &Records,
    from: u64,
    per_second: u64,
    stopped: &AtomicBool,
) -> anyhow::Result<u64> {
    let (start, mut next) = (Instant::now(), from);
    while !stopped.load(Ordering::SeqCst) {
        let due = from + u64::try_from(start.elapsed().as_millis())? * per_second / 1_000;
        while next < due {
            producer.send(&records.topic, &records.record(next))?;
            next += 1;
        }
        thread::sleep(Duration::from_millis(10));
    }
    producer.flush()?;
    Ok(next)
}
