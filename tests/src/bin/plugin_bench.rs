//! `make bench`, what plugins cost: the same plugin compiled natively and as a component, in one process and one run.
//!
//! Web-shop events in batches of 8,192 rows go through decoding, the plugin and a Parquet writer, with the plugin once by its crate (the
//! SDK's test harness, which keeps the rules of the host) and once as the component in the sandbox, in turn. Prints CPU seconds of the whole
//! and what the sandbox adds; then what a call, a start from the cache and an instance cost. Reads /proc, so it runs on Linux.
//!
//! `--records N` says how many; 1,000,000 by default.

use std::{
    fmt::Write as _,
    fs,
    hint::black_box,
    io::Write as _,
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, anyhow, bail, ensure};
use arrow_array::RecordBatch;
use arrow_schema::SchemaRef;
use fs_data_sink::{
    batch::{DecodedBatch, Envelope},
    cli::webshop::WebShop,
    config::{
        PluginConfig,
        load::{Inputs, load},
    },
    plugin::{Chain, ChainContext, Compiler, LanePauses, LoadedPlugin, PluginEngine},
    telemetry::metrics::Metrics,
};
use fs_data_sink_plugin::testing::Harness;
use fs_data_sink_tests::{
    events::{BATCH_ROWS, decode, decoder, envelope},
    program::plugin,
    services::{
        folder::TestFolder,
        process::{cpu_seconds, resident_bytes},
    },
};
use keep_values::KeepValues;
use parquet::{arrow::ArrowWriter, basic::Compression, file::properties::WriterProperties};
use parse_user_agent::ParseUserAgent;

/// Runs of each kind, in turn: their medians are compared.
const ROUNDS: usize = 5;

/// Instances that are kept to see what one takes.
const INSTANCES: usize = 32;

/// Calls that are timed one by one.
const CALLS: u32 = 20_000;

/// Events with user agents, so that both plugins have something to do.
const SHOP: WebShop = WebShop { malformed_every: 0, user_agent: true };

/// Who does the work of a plugin.
trait Worker {
    /// Takes rows through it.
    async fn work(&mut self, batch: DecodedBatch) -> Result<Vec<RecordBatch>>;
}

/// The crate of the plugin, compiled natively.
struct Native<P>(Harness<P>);

impl<P: fs_data_sink_plugin::Plugin> Worker for Native<P> {
    async fn work(&mut self, batch: DecodedBatch) -> Result<Vec<RecordBatch>> {
        let processed = self.0.process(&batch.rows).map_err(|error| anyhow!("{error:?}"))?;
        ensure!(processed.rejections.is_empty(), "{:?}", processed.rejections);
        Ok(processed.batches)
    }
}

/// The component.
struct Sandboxed(Chain);

impl Worker for Sandboxed {
    async fn work(&mut self, batch: DecodedBatch) -> Result<Vec<RecordBatch>> {
        let output = self.0.process(batch).await.map_err(|error| anyhow!(error.full_message()))?;
        ensure!(output.rejected.is_empty(), "{:?}", output.rejected.first());
        Ok(output.batches.into_iter().map(|batch| batch.rows).collect())
    }
}

/// Measures everything and prints a table.
fn main() -> Result<()> {
    let records = records()?;
    let batches = (0..records).step_by(usize::try_from(BATCH_ROWS)?);
    let batches =
        batches.map(|first| envelope(SHOP, first, BATCH_ROWS.min(records - first))).collect::<Result<Vec<_>>>()?;
    let folder = TestFolder::new("plugin-bench")?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let text = runtime.block_on(measure(folder.path(), &batches, records))?;
    std::io::stdout().write_all(text.as_bytes())?;
    Ok(())
}

/// `--records N`.
fn records() -> Result<u64> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.as_slice() {
        [] => Ok(1_000_000),
        [flag, number] if flag == "--records" => number.parse().context("--records wants a number"),
        _ => bail!("usage: plugin_bench [--records N]"),
    }
}

/// All of it.
async fn measure(folder: &Path, batches: &[Envelope], records: u64) -> Result<String> {
    let [filter, enrich] = plugins(folder)?;
    let engine = || {
        PluginEngine::with_compiler(Some(folder.join("compiled")), Compiler::InProcess)
            .map_err(|error| anyhow!(error.full_message()))
    };
    let load = |engine: &PluginEngine, config: &Arc<PluginConfig>| {
        engine.load(config).map(Arc::new).map_err(|error| anyhow!(error.full_message()))
    };
    let first = engine()?;
    let (loaded_filter, loaded_enrich) = (load(&first, &filter)?, load(&first, &enrich)?);
    let schema = Arc::clone(decode(&mut decoder()?, batches.first().context("no events")?)?.rows.schema_ref());
    let mut text = format!("{records} events in batches of {BATCH_ROWS}: decoded, through a plugin, into Parquet\n");
    let filters = compare::<KeepValues>(&filter, &loaded_filter, &schema, batches).await?;
    describe(&mut text, "keep-values", filters)?;
    let enriches = compare::<ParseUserAgent>(&enrich, &loaded_enrich, &schema, batches).await?;
    describe(&mut text, "parse-user-agent", enriches)?;

    // A batch without rows never reaches a plugin; one row is the least.
    let one = envelope(SHOP, 0, 1)?;
    let mut chain = open(&loaded_filter, &schema).await?;
    let rows = decode(&mut decoder()?, &one)?;
    let began = Instant::now();
    for _ in 0..CALLS {
        black_box(chain.process(rows.clone()).await.map_err(|error| anyhow!(error.full_message()))?);
    }
    writeln!(text, "a call with one row: {:.1} us", micros(began.elapsed()) / f64::from(CALLS))?;

    for (name, config) in [("keep-values", &filter), ("parse-user-agent", &enrich)] {
        let fresh = engine()?;
        let began = Instant::now();
        let loaded = load(&fresh, config)?;
        let chain = open(&loaded, &schema).await?;
        let started = began.elapsed();
        let before = resident_bytes()?;
        let mut kept = vec![chain];
        for _ in 0..INSTANCES {
            let mut chain = open(&loaded, &schema).await?;
            chain
                .process(decode(&mut decoder()?, batches.first().context("no events")?)?)
                .await
                .map_err(|error| anyhow!(error.full_message()))?;
            kept.push(chain);
        }
        #[expect(clippy::cast_precision_loss, reason = "figures for people")]
        let each = resident_bytes()?.saturating_sub(before) as f64 / INSTANCES as f64 / f64::from(1 << 20);
        writeln!(
            text,
            "{name}: started from the cache in {:.1} ms; an instance that has seen a batch takes {each:.1} MiB",
            micros(started) / 1e3
        )?;
        drop(kept);
    }
    Ok(text)
}

/// The two example plugins, as a configuration has them.
fn plugins(folder: &Path) -> Result<[Arc<PluginConfig>; 2]> {
    let file = folder.join("bench.yaml");
    let yaml = format!(
        "source: {{type: file, paths: [none.ndjson]}}\nsink: {{type: local, base_path: lake}}\nplugins:\n  \
         - {{path: '{}', config: {{column: country, values: [DE, FR, NL, ES, SE]}}}}\n  - {{path: '{}', config: {{column: user_agent}}}}\n",
        plugin("keep_values").display(),
        plugin("parse_user_agent").display()
    );
    fs::write(&file, yaml)?;
    let config =
        load(&Inputs { paths: vec![file], ..Inputs::default() }).map_err(|faults| anyhow!(faults.to_string()))?;
    let pipeline = config.pipelines.into_iter().next().context("no pipeline")?;
    let [filter, enrich] = pipeline.plugins.as_slice() else { bail!("{} plugins", pipeline.plugins.len()) };
    Ok([Arc::clone(filter), Arc::clone(enrich)])
}

/// A chain of one plugin.
async fn open(plugin: &Arc<LoadedPlugin>, schema: &SchemaRef) -> Result<Chain> {
    let context = ChainContext {
        pipeline: "bench".into(),
        tenant: "bench".into(),
        lane: 0,
        metrics: Metrics::detached(),
        pauses: LanePauses::detached(),
    };
    let opened = Chain::open(std::slice::from_ref(plugin), Arc::clone(schema), context).await;
    opened.map_err(|error| anyhow!(error.full_message()))
}

/// CPU seconds of the whole, natively and in the sandbox: medians of runs in turn.
async fn compare<P: fs_data_sink_plugin::Plugin>(
    config: &PluginConfig,
    loaded: &Arc<LoadedPlugin>,
    schema: &SchemaRef,
    batches: &[Envelope],
) -> Result<[f64; 2]> {
    let mut runs = [Vec::new(), Vec::new()];
    let mut rows = None;
    for _ in 0..ROUNDS {
        let harness = Harness::<P>::open(&config.config_json, schema).map_err(|error| anyhow!("{error:?}"))?;
        let (native, native_rows) = pipeline(Native(harness), batches).await?;
        let (sandboxed, sandboxed_rows) = pipeline(Sandboxed(open(loaded, schema).await?), batches).await?;
        ensure!(
            native_rows == sandboxed_rows && native_rows > 0,
            "{native_rows} rows natively, {sandboxed_rows} in the sandbox"
        );
        ensure!(rows.replace(native_rows).is_none_or(|rows| rows == native_rows), "runs differ");
        for (runs, seconds) in runs.iter_mut().zip([native, sandboxed]) {
            runs.push(seconds);
        }
    }
    Ok(runs.map(|mut runs| {
        runs.sort_by(f64::total_cmp);
        runs.get(ROUNDS / 2).copied().unwrap_or_default()
    }))
}

/// Decodes, works and encodes: CPU seconds and rows.
async fn pipeline(mut worker: impl Worker, batches: &[Envelope]) -> Result<(f64, usize)> {
    let before = cpu_seconds()?;
    let (mut decoder, mut writer, mut rows) = (decoder()?, None, 0);
    for events in batches {
        for batch in worker.work(decode(&mut decoder, events)?).await? {
            rows += batch.num_rows();
            let writer = match &mut writer {
                Some(writer) => writer,
                none => {
                    let properties = WriterProperties::builder().set_compression(Compression::SNAPPY).build();
                    none.insert(ArrowWriter::try_new(Vec::new(), batch.schema(), Some(properties))?)
                }
            };
            writer.write(&batch)?;
        }
    }
    if let Some(writer) = writer {
        black_box(writer.into_inner()?);
    }
    Ok((cpu_seconds()? - before, rows))
}

/// A line of the table.
fn describe(text: &mut String, name: &str, [native, sandboxed]: [f64; 2]) -> Result<()> {
    let added = (sandboxed / native - 1.0) * 100.0;
    writeln!(
        text,
        "{name:<18}{native:>8.2} CPU s natively, {sandboxed:.2} as a plugin: the sandbox adds {added:+.1} % of the whole"
    )?;
    Ok(())
}

/// Microseconds.
fn micros(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e6
}
