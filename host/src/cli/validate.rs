//! `fs-data-sink validate`: every fault of a configuration, offline; with `--connect` also what the servers and the
//! plugins say.

use super::{BAD_CONFIGURATION, DONE, FAILED, ValidateArguments, answer, run, tell};
use crate::{
    config::{Config, load},
    error::PipelineError,
    pipeline,
    plugin::PluginEngine,
};

/// Checks a configuration; gives the exit code.
pub(super) fn run(arguments: &ValidateArguments) -> u8 {
    let (config, inputs) = match arguments.config.load() {
        Ok(loaded) => loaded,
        Err(code) => return code,
    };
    if arguments.print {
        match load::show(&inputs) {
            Ok(text) => answer(text.trim_end()),
            Err(_) => return BAD_CONFIGURATION,
        }
    }
    let code = if arguments.connect { connect(&config) } else { DONE };
    if code == DONE {
        let count = config.pipelines.len();
        let how = if arguments.connect { ", and everything it names answers" } else { "" };
        tell(&format!("the configuration of {count} pipeline{} is right{how}", if count == 1 { "" } else { "s" }));
    }
    code
}

/// Asks every endpoint and loads every plugin.
fn connect(config: &Config) -> u8 {
    let checked = run::Runtimes::start().and_then(|runtimes| {
        let engine = PluginEngine::new(run::cache_folder())?;
        runtimes.io.block_on(async {
            let mut faults: Vec<(String, PipelineError)> = Vec::new();
            for one in &config.pipelines {
                let found = pipeline::check(one, &engine).await.err().unwrap_or_default();
                faults.extend(found.into_iter().map(|error| (one.name.to_string(), error)));
            }
            Ok(faults)
        })
    });
    match checked {
        Ok(faults) => {
            for (pipeline, error) in &faults {
                tell(&format!("{pipeline}: {}", error.full_message()));
            }
            if faults.is_empty() { DONE } else { FAILED }
        }
        Err(error) => {
            tell(&error.full_message());
            FAILED
        }
    }
}
