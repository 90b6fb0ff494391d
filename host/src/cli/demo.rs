//! `fs-data-sink demo`: the main job at work, with nothing installed.
//!
//! Starts librdkafka's mock cluster inside this process (the real protocol over loopback, no JVM), produces web-shop
//! events, runs them through both example plugins into Parquet files in a folder, and says how to read them.

use std::{
    fmt::Write as _,
    io::IsTerminal as _,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};
use rdkafka::{
    ClientConfig,
    error::{KafkaError, RDKafkaErrorCode},
    mocking::MockCluster,
    producer::{BaseRecord, DefaultProducerContext, Producer, ThreadedProducer},
};
use tokio_util::sync::CancellationToken;

use super::{DONE, FAILED, answer, run, tell, webshop::WebShop};
use crate::{
    config::{
        Config, SourceKind,
        load::{self, Inputs},
    },
    error::PipelineError,
    pipeline::{self, Runtime, Summary, Totals},
    plugin::PluginEngine,
    store::HttpClients,
    telemetry::{self, Health},
    tenant::Tenants,
};

/// The topic of the demo.
const TOPIC: &str = "shop-events";

/// Its partitions.
const PARTITIONS: i32 = 8;

/// The mock cluster keeps 5 MiB a partition; so many events fit, compressed, with room to spare.
const RECORDS_MAX: u64 = 400_000;

/// Marks a folder as ours, so that the next demo may remove it.
const MARKER: &str = ".fs-data-sink-demo";

/// One event in so many is malformed.
const MALFORMED_EVERY: u64 = 500;

/// What `demo` takes.
#[derive(Debug, Args)]
pub(crate) struct DemoArguments {
    /// How many events, at most 400,000: more do not fit the embedded Kafka.
    #[arg(long, default_value_t = 200_000, value_parser = clap::value_parser!(u64).range(1..=RECORDS_MAX))]
    records: u64,
    /// The folder that is written; one of an earlier demo is replaced.
    #[arg(long, default_value = "demo-lake")]
    output: PathBuf,
    /// The folder with the example plugins, as `make plugins` leaves them.
    #[arg(long, default_value = "plugins/dist")]
    plugins: PathBuf,
}

/// Runs the demo; gives the exit code.
pub(super) fn main(arguments: DemoArguments) -> u8 {
    match run(arguments) {
        Ok(()) => DONE,
        Err(error) => {
            tell(&format!("demo: {}", error.full_message()));
            FAILED
        }
    }
}

/// The demo.
fn run(arguments: DemoArguments) -> Result<(), PipelineError> {
    let DemoArguments { records, output, plugins } = arguments;
    prepare(&output)?;
    let kafka = |error: KafkaError| PipelineError::stop("the embedded Kafka cannot be started").because(error);
    let cluster = MockCluster::new(1).map_err(kafka)?;
    cluster.create_topic(TOPIC, PARTITIONS, 1).map_err(kafka)?;
    let servers = cluster.bootstrap_servers();
    tell(&format!("1/3  an embedded Kafka listens on {servers}, topic {TOPIC}, {PARTITIONS} partitions"));
    let began = Instant::now();
    produce(&servers, records)?;
    tell(&format!("2/3  produced {records} web-shop events in {:.1} s", began.elapsed().as_secs_f64()));
    let config = configuration(&servers, &output, &plugins)?;
    tell("3/3  Kafka -> keep-values -> parse-user-agent -> Parquet, partitioned by country");
    let runtimes = run::Runtimes::start()?;
    let (summary, times) = runtimes.io.block_on(run_pipeline(config, runtimes.compute.handle().clone(), records))?;
    runtimes.compute.shutdown_background();
    runtimes.io.shutdown_background();
    drop(cluster);
    if summary.records_read < records {
        return Err(PipelineError::stop(format!(
            "the embedded Kafka kept only {} of {records} events; try --records with fewer",
            summary.records_read
        )));
    }
    answer(&table(&summary, times, &output));
    Ok(())
}

/// An empty folder with our mark; refuses one that is not ours.
fn prepare(output: &Path) -> Result<(), PipelineError> {
    let failed = |error: std::io::Error| {
        PipelineError::stop(format!("--output {}: the folder cannot be made", output.display())).because(error)
    };
    if output.exists() {
        if !output.join(MARKER).is_file() {
            return Err(PipelineError::stop(format!(
                "--output {}: the folder is there and not of an earlier demo; name another one",
                output.display()
            )));
        }
        std::fs::remove_dir_all(output).map_err(failed)?;
    }
    std::fs::create_dir_all(output).map_err(failed)?;
    std::fs::write(output.join(MARKER), "made by `fs-data-sink demo`, which may remove this folder\n").map_err(failed)
}

/// Sends the events.
fn produce(servers: &str, records: u64) -> Result<(), PipelineError> {
    let failed = |error: KafkaError| PipelineError::stop("the events cannot be produced").because(error);
    let producer: ThreadedProducer<DefaultProducerContext> = ClientConfig::new()
        .set("bootstrap.servers", servers)
        .set("linger.ms", "20")
        .set("compression.type", "zstd")
        .set("batch.num.messages", "10000")
        .set("queue.buffering.max.messages", "1000000")
        .create()
        .map_err(failed)?;
    let shop = WebShop { malformed_every: MALFORMED_EVERY, user_agent: true };
    let mut text = String::new();
    for number in 0..records {
        shop.event(number, &mut text);
        let partition = i32::try_from(number % u64::from(PARTITIONS.unsigned_abs())).unwrap_or(0);
        let mut record = BaseRecord::<str, str>::to(TOPIC).partition(partition).payload(&text);
        while let Err((error, back)) = producer.send(record) {
            if !matches!(error, KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull)) {
                return Err(failed(error));
            }
            std::thread::sleep(Duration::from_millis(5));
            record = back;
        }
    }
    producer.flush(Duration::from_secs(30)).map_err(failed)
}

/// The pipeline as a user would write it, with one lane: where a second member comes or goes, the embedded Kafka waits for 5 s.
fn configuration(servers: &str, output: &Path, plugins: &Path) -> Result<Config, PipelineError> {
    let failed =
        |error: std::io::Error| PipelineError::stop("the demo's configuration cannot be written").because(error);
    let absolute = |path: &Path| std::path::absolute(path).map(|path| path.display().to_string()).map_err(failed);
    let (lake, plugins) = (absolute(output)?, absolute(plugins)?);
    let mut text = String::new();
    // Writing to a String cannot fail.
    let _ = write!(
        text,
        "name: demo
source: {{type: kafka, bootstrap_servers: ['{servers}'], topics: [{TOPIC}], group_id: demo,
  extra_config: {{session.timeout.ms: 6000}}}}
plugins:
  - {{name: keep-values, path: '{plugins}/keep_values.wasm', config: {{column: country, values: [DE, FR, NL, ES, SE]}}}}
  - {{name: parse-user-agent, path: '{plugins}/parse_user_agent.wasm', config: {{column: user_agent}}}}
sink: {{type: local, base_path: '{lake}', partition_by: [country], compression: zstd}}
pipeline: {{error_handling: ignore, lanes: 1}}
telemetry: {{log_level: WARNING, log_format: text, listen: none}}
"
    );
    let file = output.join("_fs_data_sink").join("pipeline.yaml");
    std::fs::create_dir_all(output.join("_fs_data_sink")).map_err(failed)?;
    std::fs::write(&file, &text).map_err(failed)?;
    let log_level = std::env::var("LOG_LEVEL").map(|level| ("LOG_LEVEL".to_owned(), level));
    let environment = log_level.into_iter().collect();
    let mut config = load::load(&Inputs { paths: vec![file], environment, ..Inputs::default() })
        .map_err(|faults| PipelineError::stop(format!("{faults}\nbuild the example plugins first: make plugins")))?;
    for pipeline in &mut config.pipelines {
        pipeline.run.until_end = true;
        if let SourceKind::Kafka(kafka) = &mut pipeline.source.kind {
            kafka.has_topic_ids = false;
        }
    }
    Ok(config)
}

/// How long the demo took, to a millisecond.
#[derive(Clone, Copy, Debug, Default)]
struct Times {
    /// Until the first record was read: plugins are loaded, and the consumer group waits for members.
    joining: Duration,
    /// From then until the last commit: what comes after it is leaving the group.
    reading: Duration,
}

/// Runs the pipeline with a progress display, and takes its time.
async fn run_pipeline(
    config: Config,
    compute: tokio::runtime::Handle,
    records: u64,
) -> Result<(Summary, Times), PipelineError> {
    let telemetry = telemetry::start(&config.telemetry)?;
    let totals = Arc::new(Totals::default());
    let runtime = Runtime {
        engine: PluginEngine::new(run::cache_folder())?,
        health: Health::default(),
        stop: CancellationToken::new(),
        compute,
        io: tokio::runtime::Handle::current(),
        totals: Arc::clone(&totals),
        tenants: Tenants::default(),
        clients: HttpClients::default(),
    };
    let times = Arc::new(Mutex::new(Times::default()));
    let clock = tokio::spawn(take_times(Arc::clone(&totals), Arc::clone(&times)));
    let progress = tokio::spawn(show_progress(totals, records));
    let pipeline =
        config.pipelines.into_iter().next().ok_or_else(|| PipelineError::stop("the demo has no pipeline"))?;
    let summary = match pipeline::prepare(pipeline, &runtime.engine, &runtime.tenants).await {
        Ok(prepared) => pipeline::run(prepared, runtime).await,
        Err(error) => Err(error),
    };
    progress.abort();
    // It is over either way.
    let _ = progress.await;
    telemetry.shutdown().await;
    clock.abort();
    let times = *times.lock().unwrap_or_else(PoisonError::into_inner);
    summary.map(|summary| (summary, times))
}

/// Looks every millisecond; until aborted.
async fn take_times(totals: Arc<Totals>, times: Arc<Mutex<Times>>) {
    let (began, mut files) = (Instant::now(), 0);
    loop {
        tokio::time::sleep(Duration::from_millis(1)).await;
        let seen = totals.summary();
        let mut times = times.lock().unwrap_or_else(PoisonError::into_inner);
        if seen.records_read == 0 {
            times.joining = began.elapsed();
        } else if seen.files != files {
            files = seen.files;
            times.reading = began.elapsed().saturating_sub(times.joining);
        }
    }
}

/// A bar on a terminal, a line every second elsewhere; until aborted.
async fn show_progress(totals: Arc<Totals>, records: u64) {
    let is_terminal = std::io::stderr().is_terminal();
    let bar = if is_terminal { ProgressBar::new(records) } else { ProgressBar::hidden() };
    if let Ok(style) = ProgressStyle::with_template("     {bar:40} {human_pos}/{human_len} records, {per_sec}") {
        bar.set_style(style);
    }
    let pause = Duration::from_millis(if is_terminal { 100 } else { 1_000 });
    let mut last = 0;
    loop {
        tokio::time::sleep(pause).await;
        let read = totals.records_read();
        bar.set_position(read);
        if !is_terminal && read != last {
            tell(&format!("     {read} of {records} records"));
        }
        last = read;
    }
}

/// The closing words.
fn table(summary: &Summary, times: Times, output: &Path) -> String {
    let Summary {
        records_read,
        bytes_read,
        rows_written,
        records_rejected,
        rejected_by_code,
        rows_filtered,
        files,
        file_bytes,
    } = summary;
    let codes: Vec<_> = rejected_by_code.iter().map(|(code, count)| format!("{code} {count}")).collect();
    let (joining, seconds) = (times.joining.as_secs_f64(), times.reading.as_secs_f64().max(0.001));
    #[expect(clippy::cast_precision_loss, reason = "a rate for people")]
    let (rate, megabytes, mib) =
        (*records_read as f64 / seconds, *bytes_read as f64 / 1e6 / seconds, *file_bytes as f64 / 1_048_576.0);
    let output = output.display();
    format!(
        "
records read        {records_read:>12}
  kept              {rows_written:>12}
  left out          {rows_filtered:>12}   by keep-values: countries other than DE, FR, NL, ES, SE
  refused           {records_rejected:>12}   {}
Parquet files       {files:>12}   {mib:.1} MiB, zstd
records per second  {rate:>12.0}   {megabytes:.0} MB/s, after {joining:.1} s in which plugins were loaded and the consumer group formed

Refused records, with their bytes and reasons: {output}/_fs_data_sink/demo/dead_letters/
Query the files:
  duckdb -c \"SELECT country, count(*) AS events, count(*) FILTER (is_bot) AS bots FROM read_parquet('{output}/**/*.parquet', hive_partitioning=true) GROUP BY 1 ORDER BY 2 DESC\"",
        codes.join(", ")
    )
}
