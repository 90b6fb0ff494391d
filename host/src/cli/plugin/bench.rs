//! `fs-data-sink plugin bench`: what a plugin costs, beside one that does nothing, in one process and in turn.

use std::{
    collections::BTreeMap,
    fs,
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant},
};

use clap::Args;
use serde_json::{Value, json};

use super::{
    DONE, Ended, answer, engine,
    input::Input,
    report::{memory, time},
    subject::{SubjectArguments, open},
    trial::is_failure,
};
use crate::{
    config::PluginConfig,
    error::PipelineError,
    plugin::{Chain, FlushReason, LoadedPlugin, PluginEngine},
};

/// A component that keeps all rows and reads none; `empty.wat` is its text.
const EMPTY: &[u8] = include_bytes!("empty.wasm");
/// Turns of each; the median counts, so that what else the machine did in one of them does not.
const ROUNDS: u32 = 7;

/// What `plugin bench` takes.
#[derive(Debug, Args)]
pub(in crate::cli) struct BenchArguments {
    /// Which plugin, and its rows.
    #[command(flatten)]
    subject: SubjectArguments,
    /// How long to measure.
    #[arg(long, value_name = "SECONDS", default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=3_600))]
    seconds: u32,
    /// Answer one JSON object.
    #[arg(long)]
    json: bool,
}

/// What was measured of one plugin.
#[derive(Debug)]
struct Measured {
    /// From nothing to an instance that is opened; compiling is not in it.
    start: Duration,
    /// Time of one row, the median of all turns.
    nanoseconds_per_row: f64,
    /// Most bytes that an instance held.
    memory_bytes: usize,
}

/// Does it.
pub(super) async fn run(arguments: &BenchArguments) -> Result<u8, Ended> {
    let arguments_of = arguments.subject.prepared()?;
    let subject = arguments_of.subject()?;
    let engine = engine()?;
    let loaded = subject.load(&engine).await?;
    let input = Input::read(&arguments_of, &subject.decode).await?;
    if input.batches.is_empty() {
        return Err(Ended::usage(format!("{}: no record in it is a row", arguments_of.input()?.display())));
    }
    let turn = Duration::from_secs(arguments.seconds.into()) / ROUNDS / 2;
    let [plugin, empty] = measure(&[loaded, empty(&engine)?], &input, turn).await?;
    if arguments.json {
        answer(&as_json(&input, &plugin, &empty).to_string());
    } else {
        answer(&as_text(&input, &plugin, &empty));
    }
    Ok(DONE)
}

/// The plugin that does nothing.
fn empty(engine: &PluginEngine) -> Result<Arc<LoadedPlugin>, PipelineError> {
    let path: PathBuf = std::env::temp_dir().join(format!("fs-data-sink-empty-{}.wasm", uuid::Uuid::new_v4()));
    let failed = |words: String| PipelineError::stop(format!("{}: {words}", path.display()));
    fs::write(&path, EMPTY).map_err(|error| failed(format!("cannot be written: {error}")))?;
    let loaded = PluginConfig::alone(&path, None, &BTreeMap::new())
        .map_err(|faults| failed(faults.to_string()))
        .and_then(|config| engine.load(&Arc::new(config)));
    // Loaded or not, nobody needs the file any more; where it stays it does no harm.
    let _ = fs::remove_file(&path);
    loaded.map(Arc::new)
}

/// Measures plugins in turn.
async fn measure(plugins: &[Arc<LoadedPlugin>; 2], input: &Input, turn: Duration) -> Result<[Measured; 2], Ended> {
    let mut running = Vec::new();
    for plugin in plugins {
        let began = Instant::now();
        let mut chain = open(plugin, Arc::clone(&input.schema)).await.map_err(|error| Ended::refused(&error))?;
        let start = began.elapsed();
        // Once through everything, so that memory has its size and caches are warm.
        pass(&mut chain, input).await?;
        running.push((start, chain, Vec::new()));
    }
    for _ in 0..ROUNDS {
        for (_, chain, turns) in &mut running {
            let (began, mut rows) = (Instant::now(), 0);
            while began.elapsed() < turn || rows == 0 {
                rows += pass(chain, input).await?;
            }
            turns.push(began.elapsed().as_secs_f64() * 1e9 / rows_as_float(rows));
        }
    }
    let mut measured = Vec::new();
    for ((start, chain, mut turns), plugin) in running.into_iter().zip(plugins) {
        chain.close().await;
        turns.sort_by(f64::total_cmp);
        let nanoseconds_per_row = turns.get(turns.len() / 2).copied().unwrap_or(f64::NAN);
        measured.push(Measured { start, nanoseconds_per_row, memory_bytes: plugin.memory_peak_bytes() });
    }
    measured.try_into().map_err(|_| PipelineError::stop("not both plugins were measured").into())
}

/// All rows through a plugin, once; gives their number.
async fn pass(chain: &mut Chain, input: &Input) -> Result<u64, PipelineError> {
    let mut rows = 0;
    for batch in &input.batches {
        let answer = chain.process(batch.clone()).await?;
        if let Some((_, rejection)) = answer.rejected.iter().find(|(_, rejection)| is_failure(&rejection.code)) {
            return Err(PipelineError::stop(format!("the plugin failed: {}", rejection.message)));
        }
        rows += batch.rows.num_rows() as u64;
    }
    if chain.holds_rows() {
        chain.flush(FlushReason::Checkpoint).await?;
    }
    Ok(rows)
}

/// A number of rows, which never needs more than 52 bits.
fn rows_as_float(rows: u64) -> f64 {
    let (high, low) = (u32::try_from(rows >> 32).unwrap_or(u32::MAX), u32::try_from(rows & 0xffff_ffff).unwrap_or(0));
    f64::from(high) * 4_294_967_296.0 + f64::from(low)
}

/// For programs.
fn as_json(input: &Input, plugin: &Measured, empty: &Measured) -> Value {
    let one = |measured: &Measured| {
        json!({
            "rows_per_second": 1e9 / measured.nanoseconds_per_row,
            "nanoseconds_per_row": measured.nanoseconds_per_row,
            "start_seconds": measured.start.as_secs_f64(),
            "memory_bytes": measured.memory_bytes,
        })
    };
    json!({
        "rows": input.rows(), "batches": input.batches.len(), "columns": input.schema.fields().len(),
        "plugin": one(plugin), "empty": one(empty),
    })
}

/// For people.
fn as_text(input: &Input, plugin: &Measured, empty: &Measured) -> String {
    let rows_per_batch = rows_as_float(input.rows()) / rows_as_float(input.batches.len() as u64);
    let line = |name: &str, measured: &Measured| {
        let Measured { start, nanoseconds_per_row, memory_bytes } = measured;
        let batch = Duration::from_secs_f64(nanoseconds_per_row * rows_per_batch / 1e9);
        format!(
            "{name:<13} {:>13.0} {nanoseconds_per_row:>10.1} {:>10} {:>10} {:>10}\n",
            1e9 / nanoseconds_per_row,
            time(batch),
            time(*start),
            memory(*memory_bytes)
        )
    };
    let rest = (plugin.nanoseconds_per_row - empty.nanoseconds_per_row).max(0.0);
    format!(
        "{:<13} {:>13} {:>10} {:>10} {:>10} {:>10}\n{}{}\n{rest:.1} ns of a row are the plugin's own: reading its columns, working, \
         answering.\nThe empty plugin is a component that keeps all rows and reads none: what it takes is the call, and what \
         the host does\naround it. Both ran in turn in this process on one thread, over {} rows of {} columns in {} batches; \
         the median of {ROUNDS} turns.\nDecoding the input and writing files is not in it; start is one instance of compiled \
         code.",
        "",
        "rows/s",
        "ns/row",
        "batch",
        "start",
        "memory",
        line("plugin", plugin),
        line("empty plugin", empty),
        input.rows(),
        input.schema.fields().len(),
        input.batches.len(),
    )
}

#[cfg(test)]
mod tests {
    use wit_component::{ComponentEncoder, StringEncoding, embed_component_metadata};
    use wit_parser::Resolve;

    use super::*;

    /// Scenario: the text of the empty plugin is made into a component.
    /// Guarantees: it is the component in the repository.
    #[test]
    fn the_empty_plugin_is_made_of_its_text() {
        let home = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
        let mut resolve = Resolve::default();
        let (package, _) = resolve.push_dir(home.join("../wit")).unwrap();
        let world = resolve.select_world(&[package], Some("plugin")).unwrap();
        let mut module = wat::parse_str(include_str!("empty.wat")).unwrap();
        embed_component_metadata(&mut module, &resolve, world, StringEncoding::UTF8).unwrap();
        let component = ComponentEncoder::default().validate(true).module(&module).unwrap().encode().unwrap();
        if component != EMPTY {
            let made = std::env::temp_dir().join("fs-data-sink-empty.wasm");
            fs::write(&made, component).unwrap();
            panic!("host/src/cli/plugin/empty.wasm is not what its text makes: replace it by {}", made.display());
        }
    }
}
