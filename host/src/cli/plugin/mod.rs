//! `fs-data-sink plugin`: what a plugin is, what it makes of rows, and what it costs, without a pipeline.
//!
//! `new` makes a plugin's folder of a template and of what is `embedded`, `build` makes a component of a folder, by its `language`.
//! `subject` is which plugin and how it is configured, `input` its rows, `trial` what became of them, `heard` what it logged,
//! `snapshot` what was wanted of it, `report` how that is told.

use std::future::Future;

use clap::Subcommand;

use super::{BAD_CONFIGURATION, DONE, FAILED, answer, run, tell};
use crate::{error::PipelineError, plugin::PluginEngine};

mod bench;
mod build;
mod embedded;
mod heard;
mod input;
mod inspect;
mod language;
mod new;
mod report;
mod snapshot;
mod subject;
mod test;
mod trial;

/// Plugins.
#[derive(Debug, Subcommand)]
pub(super) enum PluginCommand {
    /// Make a folder with a plugin that works, a test of it, and the SDK.
    New(new::NewArguments),
    /// Build a plugin's folder, by the toolchain of its language.
    Build(build::BuildArguments),
    /// Say what a component is: name, config, imports and what each needs to be granted, size.
    Inspect(inspect::InspectArguments),
    /// Run a plugin over rows of a file, show what becomes of them, and compare that with what is expected.
    Test(test::TestArguments),
    /// Measure a plugin over rows of a file, beside a plugin that does nothing.
    Bench(bench::BenchArguments),
}

/// Why a command ends without what was asked for: its exit code, and words if they are not told yet.
#[derive(Debug)]
struct Ended {
    /// The exit code.
    code: u8,
    /// What to say.
    words: String,
}

impl From<PipelineError> for Ended {
    fn from(error: PipelineError) -> Self {
        Self { code: FAILED, words: format!("fs-data-sink: {}", error.full_message()) }
    }
}

impl Ended {
    /// Bad usage or configuration.
    fn usage(words: impl Into<String>) -> Self {
        Self { code: BAD_CONFIGURATION, words: words.into() }
    }

    /// The same in the words of an error.
    fn refused(error: &PipelineError) -> Self {
        Self::usage(format!("fs-data-sink: {}", error.full_message()))
    }
}

/// Does it; gives the exit code.
pub(super) fn main(command: PluginCommand) -> u8 {
    let ended = match command {
        PluginCommand::New(arguments) => new::run(&arguments),
        PluginCommand::Build(arguments) => wait(build::run(&arguments)),
        PluginCommand::Inspect(arguments) => wait(inspect::run(&arguments)),
        PluginCommand::Test(arguments) => wait(test::run(&arguments)),
        PluginCommand::Bench(arguments) => wait(bench::run(&arguments)),
    };
    ended.unwrap_or_else(|Ended { code, words }| {
        tell(&words);
        code
    })
}

/// Runs something to its end on this thread.
fn wait(work: impl Future<Output = Result<u8, Ended>>) -> Result<u8, Ended> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| PipelineError::stop("the process cannot start its threads").because(error))?;
    let ended = runtime.block_on(work);
    // A thread may still read the input.
    runtime.shutdown_background();
    ended
}

/// The engine, with the cache of compiled plugins that pipelines have.
fn engine() -> Result<PluginEngine, PipelineError> {
    PluginEngine::new(run::cache_folder())
}
