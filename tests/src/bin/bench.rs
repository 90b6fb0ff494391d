//! `make bench`: what the release build costs, measured in one run.
//!
//! Web-shop events of about 300 bytes: decoded in this process; from a file to Parquet on disk; the same through the
//! filter plugin; from a real Redis to Parquet on disk; and from a real Kafka to a real S3 server, with a commit a second,
//! at least once and exactly once in turn. Prints records and megabytes per second, CPU seconds per million records, and peak memory of the process. Reads
//! /proc, so it runs on Linux.
//!
//!   bench [--records N]         2,000,000 by default

use std::{
    fmt::Write as _,
    fs,
    hint::black_box,
    io::Write as _,
    path::Path,
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail, ensure};
use fs_data_sink::cli::webshop::WebShop;
use fs_data_sink_tests::{
    events::{BATCH_ROWS, decode, decoder, envelope},
    program::{self, Workspace, plugin, s3_sink},
    requests::small_requests_a_commit,
    services::{
        folder::TestFolder,
        kafka::{Kafka, NewRecord},
        process::{children_cpu_seconds, peak_memory},
        redis::{Redis, add_entries, push_items},
        s3::S3,
    },
};

/// Runs of each kind of delivery, in turn: their medians are compared.
const ROUNDS: usize = 5;

/// The events: without user agents they are about as long as those that peers were measured with.
const SHOP: WebShop = WebShop { malformed_every: 0, user_agent: false };

/// One line of the result.
struct Measured {
    /// What was measured.
    what: &'static str,
    /// Records that went through.
    records: u64,
    /// Wall clock.
    seconds: f64,
    /// User and system.
    cpu_seconds: f64,
    /// Largest resident size.
    peak_bytes: Option<u64>,
}

/// Measures everything and prints a table.
fn main() -> Result<()> {
    let records = records()?;
    let folder = TestFolder::new("bench")?;
    let input = folder.path().join("events.ndjson");
    let bytes = write_events(&input, records)?;
    let mut lines = vec![decode_alone(records)?];
    for (what, plugins) in [("file, decode, Parquet on disk", String::new()), ("the same with keep-values", filter())] {
        let source = format!("{{type: file, paths: ['{}']}}", input.display());
        let sink =
            format!("{{type: local, base_path: '{}'}}", folder.path().join(what.replace([' ', ','], "-")).display());
        lines.push(run(what, records, folder.path(), &source, &sink, &plugins, "")?);
    }
    lines.extend(redis_to_disk((records / 4).max(1), folder.path())?);
    let s3 = S3::given_or_started()?;
    let [at_least_once, exactly_once] = kafka_to_s3(records, folder.path(), &s3)?;
    let extra_percent = (exactly_once.cpu_seconds / at_least_once.cpu_seconds - 1.0) * 100.0;
    lines.extend([at_least_once, exactly_once]);
    print(records, bytes, &lines)?;
    let text = format!(
        "exactly once takes {extra_percent:+.1} % CPU against at least once: medians of {ROUNDS} runs each, in turn, a commit a second\n"
    );
    std::io::stdout().write_all(text.as_bytes())?;
    let prefix = format!("bench-{}-requests", std::process::id());
    let requests = small_requests_a_commit(&Workspace::new("bench-requests")?, &s3, &prefix)?;
    let text = format!("exactly once asks S3 {requests:.2} times a commit besides the files\n");
    std::io::stdout().write_all(text.as_bytes())?;
    Ok(())
}

/// `--records N`.
fn records() -> Result<u64> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.as_slice() {
        [] => Ok(2_000_000),
        [flag, number] if flag == "--records" => number.parse().context("--records wants a number"),
        _ => bail!("usage: bench [--records N]"),
    }
}

/// The events as a file; gives its length.
fn write_events(path: &Path, records: u64) -> Result<u64> {
    let mut file = std::io::BufWriter::new(fs::File::create(path)?);
    let mut text = String::new();
    for number in 0..records {
        SHOP.event(number, &mut text);
        file.write_all(text.as_bytes())?;
        file.write_all(b"\n")?;
    }
    file.flush()?;
    Ok(fs::metadata(path)?.len())
}

/// Decodes batches in this process; making them is not counted.
fn decode_alone(records: u64) -> Result<Measured> {
    let mut decoder = decoder()?;
    let mut spent = Duration::ZERO;
    for first in (0..records).step_by(usize::try_from(BATCH_ROWS)?) {
        let batch = envelope(SHOP, first, BATCH_ROWS.min(records - first))?;
        let began = Instant::now();
        black_box(decode(&mut decoder, &batch)?);
        spent += began.elapsed();
    }
    let seconds = spent.as_secs_f64();
    Ok(Measured { what: "decode alone, one thread", records, seconds, cpu_seconds: seconds, peak_bytes: None })
}

/// The filter, keeping about half of the events.
fn filter() -> String {
    format!(
        "plugins: [{{path: '{}', config: {{column: country, values: [DE, FR, NL, ES, SE]}}}}]",
        plugin("keep_values").display()
    )
}

/// From four streams, exactly once and at least once, and from four lists. All of it lies in Redis' memory, so they are fewer.
fn redis_to_disk(records: u64, folder: &Path) -> Result<Vec<Measured>> {
    let redis = Redis::given_or_started()?;
    let keys =
        |kind: &str| (0..4).map(|number| format!("bench-{}-{kind}-{number}", std::process::id())).collect::<Vec<_>>();
    let (streams, lists) = (keys("stream"), keys("list"));
    let key =
        |keys: &[String], number: u64| keys.get(usize::try_from(number % 4).unwrap_or(0)).cloned().unwrap_or_default();
    let event = |number: u64| {
        let mut text = String::new();
        SHOP.event(number, &mut text);
        text
    };
    let mut link = redis.connection()?;
    add_entries(&mut link, (0..records).map(|number| (key(&streams, number), vec![("value", event(number))])))?;
    push_items(&mut link, (0..records).map(|number| (key(&lists, number), event(number))))?;
    let kinds = [
        ("Redis streams to disk, exactly once", &streams, "stream_keys", "exactly_once"),
        ("Redis streams to disk, at least once", &streams, "stream_keys", "at_least_once"),
        ("Redis lists to disk, at least once", &lists, "list_keys", "at_least_once"),
    ];
    let mut measured = Vec::new();
    for (what, keys, option, delivery) in kinds {
        let source = format!("\n{}  {option}: {keys:?}\n", redis.source());
        let sink = format!("{{type: local, base_path: '{}'}}", folder.join(what.replace([' ', ','], "-")).display());
        let pipeline = format!(", commit_interval: 1s, delivery: {delivery}");
        measured.push(run(what, records, folder, &source, &sink, "", &pipeline)?);
    }
    redis::cmd("DEL").arg(&streams).exec(&mut link)?;
    Ok(measured)
}

/// From a topic of four partitions to a bucket, under both kinds of delivery.
fn kafka_to_s3(records: u64, folder: &Path, s3: &S3) -> Result<[Measured; 2]> {
    let kafka = Kafka::given_or_started()?;
    let topic = format!("bench-{}", std::process::id());
    kafka.create_topic(&topic, 4)?;
    let producer = kafka.producer()?;
    let mut text = String::new();
    for number in 0..records {
        SHOP.event(number, &mut text);
        let record = NewRecord {
            partition: i32::try_from(number % 4)?,
            value: Some(text.clone().into_bytes()),
            ..NewRecord::default()
        };
        producer.send(&topic, &record)?;
    }
    producer.flush()?;
    let mut runs = [Vec::new(), Vec::new()];
    for round in 0..ROUNDS {
        let kinds = ["at_least_once", "exactly_once"]
            .into_iter()
            .zip(["Kafka to S3, at least once", "Kafka to S3, exactly once"]);
        for ((delivery, what), runs) in kinds.zip(&mut runs) {
            let name = format!("{topic}-{delivery}-{round}");
            let source = format!(
                "{{type: kafka, bootstrap_servers: ['{}'], topics: [{topic}], group_id: {name}}}",
                kafka.bootstrap()
            );
            let sink = format!("\n{}", s3_sink(s3.access(), &name));
            let pipeline = format!(", commit_interval: 1s, delivery: {delivery}");
            runs.push(run(what, records, folder, &source, &sink, "", &pipeline)?);
        }
    }
    let [at_least_once, exactly_once] = runs.map(median);
    Ok([at_least_once?, exactly_once?])
}

/// The run with the median of CPU seconds.
fn median(mut runs: Vec<Measured>) -> Result<Measured> {
    runs.sort_by(|one, other| one.cpu_seconds.total_cmp(&other.cpu_seconds));
    let middle = runs.len() / 2;
    runs.into_iter().nth(middle).context("no run")
}

/// Runs the program to the end of its source; `pipeline` are further settings of it.
fn run(
    what: &'static str,
    records: u64,
    folder: &Path,
    source: &str,
    sink: &str,
    plugins: &str,
    pipeline: &str,
) -> Result<Measured> {
    let file = folder.join("bench.yaml");
    fs::write(
        &file,
        format!(
            "source: {source}\nsink: {sink}\n{plugins}\npipeline: {{memory: 256MiB{pipeline}}}\ntelemetry: {{listen: none, log_level: ERROR}}\n"
        ),
    )?;
    let program = program::binary()?;
    let command = |arguments: &[&str]| {
        let mut command = Command::new(&program);
        command.args(arguments).arg(&file).env("FS_DATA_SINK_CACHE", folder.join("cache")).stdin(Stdio::null());
        command
    };
    if !plugins.is_empty() {
        // Plugins are compiled once in their lives, and come from the cache ever after.
        let checked = command(&["validate", "--connect"]).stdout(Stdio::null()).status()?;
        ensure!(checked.success(), "{what}: validate: {checked}");
    }
    let (cpu_before, began) = (children_cpu_seconds()?, Instant::now());
    let mut child = command(&["run", "--until-end"]).spawn()?;
    let mut peak_bytes = None;
    let status = loop {
        if let Some(status) = child.try_wait()? {
            break status;
        }
        peak_bytes = peak_memory(child.id()).or(peak_bytes);
        std::thread::sleep(Duration::from_millis(20));
    };
    ensure!(status.success(), "{what}: {status}");
    let seconds = began.elapsed().as_secs_f64();
    Ok(Measured { what, records, seconds, cpu_seconds: children_cpu_seconds()? - cpu_before, peak_bytes })
}

/// The table.
#[expect(clippy::cast_precision_loss, reason = "figures for people")]
fn print(records: u64, bytes: u64, lines: &[Measured]) -> Result<()> {
    let length = bytes as f64 / records.max(1) as f64;
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let mut text = format!(
        "fs-data-sink {}, {cores} cores, {records} events of {} bytes\n{:<38}{:>12}{:>9}{:>14}{:>10}\n",
        env!("CARGO_PKG_VERSION"),
        bytes / records.max(1),
        "",
        "records/s",
        "MB/s",
        "CPU s/million",
        "peak MiB"
    );
    for Measured { what, records, seconds, cpu_seconds, peak_bytes } in lines {
        let records = *records as f64;
        let peak = peak_bytes.map_or_else(|| "-".to_owned(), |bytes| (bytes >> 20).to_string());
        writeln!(
            text,
            "{what:<38}{:>12.0}{:>9.0}{:>14.2}{peak:>10}",
            records / seconds,
            records * length / 1e6 / seconds,
            cpu_seconds / (records / 1e6),
        )?;
    }
    std::io::stdout().write_all(text.as_bytes())?;
    Ok(())
}
