//! `fs-data-sink ledger show|verify`: what is committed, and whether the store agrees. Changes nothing.

use clap::{Args, Subcommand};

use super::{ConfigArguments, DONE, FAILED, answer, run, tell};
use crate::{
    commit::ledger::{
        audit::{self, Offsets, PartitionReport, RecordReport, Report, Verified},
        states::StateRef,
    },
    config::{PipelineConfig, SourceKind},
    error::PipelineError,
    store::{HttpClients, Store},
    telemetry::metrics::Metrics,
};

/// Records that are shown to a person; `--json` has all that are there.
const RECORDS_SHOWN: usize = 20;

/// What is asked of the ledger.
#[derive(Debug, Subcommand)]
pub(super) enum LedgerCommand {
    /// Print owners, positions and the last records.
    Show(LedgerArguments),
    /// Compare the ledger with the store; exit 1 on a finding.
    Verify(LedgerArguments),
}

/// What both take.
#[derive(Debug, Args)]
pub(super) struct LedgerArguments {
    /// The configuration of the pipelines.
    #[command(flatten)]
    config: ConfigArguments,
    /// Print JSON, one object a pipeline.
    #[arg(long)]
    json: bool,
}

/// Does it for every pipeline; the exit code.
pub(super) fn main(command: &LedgerCommand) -> u8 {
    let (arguments, is_verify) = match command {
        LedgerCommand::Show(arguments) => (arguments, false),
        LedgerCommand::Verify(arguments) => (arguments, true),
    };
    let config = match arguments.config.load_pipelines() {
        Ok(config) => config,
        Err(code) => return code,
    };
    let done = run::Runtimes::start().and_then(|runtimes| {
        runtimes.io.block_on(async {
            let mut code = DONE;
            for pipeline in &config.pipelines {
                let store = open(pipeline)?;
                let found = if is_verify {
                    verify(pipeline, &store, arguments.json).await?
                } else {
                    show(pipeline, &store, arguments.json).await?
                };
                code = code.max(found);
            }
            Ok(code)
        })
    });
    done.unwrap_or_else(|error: PipelineError| {
        tell(&format!("fs-data-sink: {}", error.full_message()));
        FAILED
    })
}

/// The store of a pipeline.
fn open(config: &PipelineConfig) -> Result<Store, PipelineError> {
    let metrics = Metrics::new(&config.name, &config.tenant, config.source.kind.as_str(), config.sink.kind.as_str());
    Store::open(&config.sink, &config.name, metrics, tokio::runtime::Handle::current(), &HttpClients::default())
}

/// Prints what the ledger says.
async fn show(config: &PipelineConfig, store: &Store, json: bool) -> Result<u8, PipelineError> {
    let report = audit::show(store).await?;
    if json {
        let text = serde_json::json!({"pipeline": &*config.name, "ledger": report});
        answer(&text.to_string());
        return Ok(DONE);
    }
    let Report { next, partitions, pending, merging, files, rows, bytes, records } = report;
    answer(&format!("pipeline {}: {next} records, {files} files with {rows} rows and {bytes} bytes", config.name));
    for PartitionReport { topic, partition, position } in partitions {
        let next_offset = position.next_offset.map_or_else(|| "nothing yet".to_owned(), |next| format!("next {next}"));
        let owner = position.owner.map_or_else(|| "nobody".to_owned(), |owner| format!("writer {owner}"));
        answer(&format!("  {topic}[{partition}]  {next_offset}  {owner}"));
        for StateRef { dataset, plugin, component, object, from, bytes, .. } in position.state {
            let place =
                if bytes == 0 { "nothing".to_owned() } else { format!("{bytes} bytes at {from} in state/{object}") };
            let component = component.get(..12).unwrap_or(&component);
            answer(&format!("    state of plugin {plugin} ({component}) for {dataset}: {place}"));
        }
    }
    if !pending.is_empty() {
        answer(&format!("  commits not known to be visible: {pending:?}"));
    }
    if let Some(sequence) = merging {
        answer(&format!("  a merge is not finished: {sequence}"));
    }
    for RecordReport { sequence, time, writer, action, what } in
        records.iter().skip(records.len().saturating_sub(RECORDS_SHOWN))
    {
        answer(&format!("  {sequence:>8}  {time}  {writer}  {action}  {what}"));
    }
    Ok(DONE)
}

/// Prints what does not agree.
async fn verify(config: &PipelineConfig, store: &Store, json: bool) -> Result<u8, PipelineError> {
    let offsets = match config.source.kind {
        SourceKind::Redis(_) => Offsets::Sparse,
        SourceKind::Kafka(_) | SourceKind::File(_) | SourceKind::Letters(_) => Offsets::Dense,
    };
    let Verified { findings, notes } = audit::verify(store, offsets).await?;
    if json {
        answer(&serde_json::json!({"pipeline": &*config.name, "findings": findings, "notes": notes}).to_string());
        return Ok(if findings.is_empty() { DONE } else { FAILED });
    }
    for note in notes {
        answer(&format!("pipeline {}: note: {note}", config.name));
    }
    if findings.is_empty() {
        answer(&format!("pipeline {}: the store is as the ledger says", config.name));
    } else {
        for finding in &findings {
            answer(&format!("pipeline {}: {finding}", config.name));
        }
    }
    Ok(if findings.is_empty() { DONE } else { FAILED })
}
