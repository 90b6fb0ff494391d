//! `fs-data-sink dead-letter show|replay`: looks at refused records in the sink's store, and feeds them through their pipelines again.

use std::collections::BTreeMap;

use clap::Subcommand;

use super::{ConfigArguments, DONE, FAILED, answer, run, tell};
use crate::{
    config::{Config, DeadLetterConfig, Delivery, LettersConfig, PipelineConfig, SourceKind},
    error::PipelineError,
    source,
    store::{HttpClients, Store},
    telemetry::metrics::Metrics,
};

/// What `dead-letter` does.
#[derive(Debug, Subcommand)]
pub(super) enum DeadLetterCommand {
    /// Count the dead letters of each pipeline, by where and why they were refused.
    Show(ConfigArguments),
    /// Feed the dead letters through their pipelines once more, exactly once each; may run beside them.
    Replay(ConfigArguments),
}

/// Does it; the exit code.
pub(super) fn main(command: &DeadLetterCommand) -> u8 {
    let (DeadLetterCommand::Show(arguments) | DeadLetterCommand::Replay(arguments)) = command;
    let config = match arguments.load_pipelines() {
        Ok(config) => config,
        Err(code) => return code,
    };
    for pipeline in &config.pipelines {
        if let DeadLetterConfig::Kafka(letters) = &pipeline.dead_letter {
            tell(&format!(
                "pipeline {}: its dead letters are in the topic {:?}, which a pipeline with a Kafka source reads; here are those \
                 that were too large for it",
                pipeline.name, letters.topic
            ));
        }
    }
    let done = match command {
        DeadLetterCommand::Show(_) => show(&config),
        DeadLetterCommand::Replay(_) => run::run_config(replayed(config)),
    };
    done.unwrap_or_else(|error| {
        tell(&format!("fs-data-sink: {}", error.full_message()));
        FAILED
    })
}

/// The pipelines with their dead letters as sources. What was replayed is in the ledger, whatever the pipeline's own delivery.
fn replayed(mut config: Config) -> Config {
    for pipeline in &mut config.pipelines {
        pipeline.source.kind = SourceKind::Letters(letters(pipeline));
        pipeline.run.delivery = Delivery::ExactlyOnce;
        pipeline.run.until_end = true;
        // The pipeline itself does that.
        pipeline.sink.merge.is_enabled = false;
    }
    // The pipeline itself may have the address.
    config.telemetry.listen = None;
    config
}

/// Where the letters of a pipeline are.
fn letters(pipeline: &PipelineConfig) -> LettersConfig {
    let is_one_dataset = matches!(pipeline.source.kind, SourceKind::File(_));
    LettersConfig { sink: pipeline.sink.clone(), is_one_dataset }
}

/// Prints what there is.
fn show(config: &Config) -> Result<u8, PipelineError> {
    let runtimes = run::Runtimes::start()?;
    runtimes.io.block_on(async {
        for pipeline in &config.pipelines {
            show_one(pipeline).await?;
        }
        Ok(DONE)
    })
}

/// Prints the letters of one pipeline.
async fn show_one(pipeline: &PipelineConfig) -> Result<(), PipelineError> {
    let PipelineConfig { name, tenant, source, sink, .. } = pipeline;
    let metrics = Metrics::new(name, tenant, source.kind.as_str(), sink.kind.as_str());
    let store = Store::open(sink, name, metrics, tokio::runtime::Handle::current(), &HttpClients::default())?;
    let (mut files, mut all, mut kinds) = (0, 0, BTreeMap::new());
    for path in source::letters::list(&store).await? {
        files += 1;
        for letter in source::letters::read(&store, &path).await?.unwrap_or_default() {
            all += 1;
            let topic = letter.record.map_or_else(|| "(rows of a plugin)".to_owned(), |record| record.topic);
            let place = letter.plugin.as_deref().unwrap_or(letter.stage.as_str()).to_owned();
            let known = kinds.entry((topic, place, letter.code)).or_insert((0_u64, letter.message));
            known.0 += 1;
        }
    }
    answer(&format!("pipeline {name}: {all} dead letters in {files} files"));
    for ((topic, place, code), (count, message)) in kinds {
        answer(&format!("  {count:>8}  {topic}  {place}  {code}  such as: {message}"));
    }
    Ok(())
}
