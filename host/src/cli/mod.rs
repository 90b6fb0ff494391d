//! The command line: what is asked, and the exit code of the answer.
//!
//! Exit codes: 0 done, 1 failed, 2 bad usage or configuration, 130 interrupted. Words for people go to standard error,
//! results to standard output.

use std::{io::Write as _, path::PathBuf, process::ExitCode, sync::LazyLock};

use clap::{Args, Parser, Subcommand};

use crate::config::{
    Config,
    fault::Faults,
    load::{self, Inputs, Loaded, Override},
};

mod compact;
mod dead_letter;
mod demo;
mod ledger;
mod plugin;
mod preparing;
mod reading;
mod run;
mod schema;
mod supervisor;
mod validate;
mod watch;
pub mod webshop;

/// Done.
const DONE: u8 = 0;

/// Failed.
const FAILED: u8 = 1;

/// Bad usage or configuration.
const BAD_CONFIGURATION: u8 = 2;

/// Interrupted.
const INTERRUPTED: u8 = 130;

/// Moves records from Kafka and files through WebAssembly plugins into Parquet files.
#[derive(Debug, Parser)]
#[command(name = "fs-data-sink", version = VERSION.as_str(), args_conflicts_with_subcommands = true)]
struct Arguments {
    /// What to do; without it, run.
    #[command(subcommand)]
    command: Option<Command>,
    /// What `run` takes, also without the word.
    #[command(flatten)]
    run: RunArguments,
}

/// What to do.
#[derive(Debug, Subcommand)]
enum Command {
    /// Run pipelines until their sources end or a signal asks to stop.
    Run(RunArguments),
    /// Check configurations without running them.
    Validate(ValidateArguments),
    /// Look at what is committed.
    #[command(subcommand)]
    Ledger(ledger::LedgerCommand),
    /// Find out what records look like.
    #[command(subcommand)]
    Schema(schema::SchemaCommand),
    /// Look at refused records, and replay them.
    #[command(subcommand)]
    DeadLetter(dead_letter::DeadLetterCommand),
    /// Make plugins, build, look at, test and measure them.
    #[command(subcommand)]
    Plugin(plugin::PluginCommand),
    /// Merge small files, once.
    Compact(compact::CompactArguments),
    /// Show the main job at work: an embedded Kafka, both example plugins, Parquet files in a folder.
    Demo(demo::DemoArguments),
}

/// What every command with a configuration takes.
#[derive(Debug, Args)]
struct ConfigArguments {
    /// YAML files, or folders of them.
    #[arg(value_name = "FILE|FOLDER")]
    paths: Vec<PathBuf>,
    /// A YAML file, as the original took it.
    #[arg(short, long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Overrides source.type.
    #[arg(long, value_name = "TYPE")]
    source_type: Option<String>,
    /// Overrides sink.type.
    #[arg(long, value_name = "TYPE")]
    sink_type: Option<String>,
    /// Overrides `telemetry.log_level`: DEBUG, INFO, WARNING, ERROR, or directives.
    #[arg(long, value_name = "LEVEL")]
    log_level: Option<String>,
    /// Stop after so many batches.
    #[arg(long, value_name = "N")]
    max_batches: Option<String>,
    /// Override any key, for instance `pipeline.commit_interval=10s`. May be repeated.
    #[arg(long = "set", value_name = "KEY=VALUE")]
    overrides: Vec<String>,
}

/// What `run` takes.
#[derive(Debug, Args)]
struct RunArguments {
    /// The configuration.
    #[command(flatten)]
    config: ConfigArguments,
    /// Read up to what is there at start, commit, and end with 0: for back-fills, tests, cron.
    #[arg(long)]
    until_end: bool,
    /// Read the configuration again when one of its files, or a plugin's, changes; SIGHUP does the same at any time.
    #[arg(long)]
    watch: bool,
}

impl RunArguments {
    /// Puts flags over what was loaded.
    fn put_over(&self, loaded: &mut Loaded) {
        for pipeline in &mut loaded.config.pipelines {
            pipeline.run.until_end |= self.until_end;
        }
    }
}

/// What `validate` takes.
#[derive(Debug, Args)]
struct ValidateArguments {
    /// The configuration.
    #[command(flatten)]
    config: ConfigArguments,
    /// Also try every endpoint and load every plugin.
    #[arg(long)]
    connect: bool,
    /// Print the effective configuration, secrets masked.
    #[arg(long)]
    print: bool,
}

/// Our version and that of the engine that runs strangers' code.
static VERSION: LazyLock<String> =
    LazyLock::new(|| format!("{} (wasmtime {})", env!("CARGO_PKG_VERSION"), crate::plugin::WASMTIME_VERSION));

/// Parses the arguments, does what they say, and gives the exit code.
#[must_use]
pub fn main() -> ExitCode {
    let arguments = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(error) => {
            let code = if error.use_stderr() { BAD_CONFIGURATION } else { DONE };
            // Nobody is left to tell when even this cannot be printed.
            let _ = error.print();
            return ExitCode::from(code);
        }
    };
    let code = match arguments.command {
        None => run::run(&arguments.run),
        Some(Command::Run(run)) => run::run(&run),
        Some(Command::Validate(validate)) => validate::run(&validate),
        Some(Command::Ledger(command)) => ledger::main(&command),
        Some(Command::Schema(command)) => schema::main(&command),
        Some(Command::DeadLetter(command)) => dead_letter::main(&command),
        Some(Command::Plugin(command)) => plugin::main(command),
        Some(Command::Compact(arguments)) => compact::main(&arguments),
        Some(Command::Demo(demo)) => demo::main(demo),
    };
    ExitCode::from(code)
}

impl ConfigArguments {
    /// Files and folders.
    fn all_paths(&self) -> Vec<PathBuf> {
        self.paths.iter().chain(&self.config).cloned().collect()
    }

    /// Files, flags and environment.
    fn inputs(&self) -> Result<Inputs, String> {
        let Self { paths: _, config: _, source_type, sink_type, log_level, max_batches, overrides } = self;
        let mut flags = Vec::new();
        for text in overrides {
            let (key, value) = text.split_once('=').ok_or_else(|| format!("--set {text}: expected KEY=VALUE"))?;
            flags.push(Override {
                key: key.trim().to_owned(),
                value: value.trim().to_owned(),
                flag: format!("--set {key}"),
            });
        }
        let named = [
            ("source.type", "--source-type", source_type),
            ("sink.type", "--sink-type", sink_type),
            ("telemetry.log_level", "--log-level", log_level),
            ("pipeline.max_batches", "--max-batches", max_batches),
        ];
        for (key, flag, value) in named {
            flags.extend(value.iter().map(|value| Override {
                key: key.to_owned(),
                value: value.clone(),
                flag: flag.to_owned(),
            }));
        }
        let environment = load::read_environment().map_err(|faults| faults.to_string())?;
        Ok(Inputs { paths: self.all_paths(), overrides: flags, environment })
    }

    /// The checked configuration; the faults are already told.
    fn load(&self) -> Result<Config, u8> {
        let inputs = self.inputs().map_err(|message| {
            tell(&message);
            BAD_CONFIGURATION
        })?;
        load::load(&inputs).map_err(|faults| {
            tell_faults(&faults);
            BAD_CONFIGURATION
        })
    }

    /// The pipelines of the files that are right; the faults of the others are already told.
    fn load_each(&self) -> Result<Loaded, u8> {
        let inputs = self.inputs().map_err(|message| {
            tell(&message);
            BAD_CONFIGURATION
        })?;
        let loaded = load::load_each(&inputs).map_err(|faults| {
            tell_faults(&faults);
            BAD_CONFIGURATION
        })?;
        if loaded.config.pipelines.is_empty() {
            tell("no pipeline in the configuration");
            return Err(BAD_CONFIGURATION);
        }
        for (file, faults) in &loaded.wrong {
            tell_faults(faults);
            tell(&format!("{file}: its pipelines do not run; those of other files do"));
        }
        Ok(loaded)
    }

    /// The same with at least one pipeline.
    fn load_pipelines(&self) -> Result<Config, u8> {
        let config = self.load()?;
        if config.pipelines.is_empty() {
            tell("no pipeline in the configuration");
            return Err(BAD_CONFIGURATION);
        }
        Ok(config)
    }
}

/// The exit code of two things: a failure says more than what was never run.
fn worse(one: u8, other: u8) -> u8 {
    if one == FAILED || other == FAILED { FAILED } else { one.max(other) }
}

/// Every fault, a line each.
fn tell_faults(faults: &Faults) {
    let count = faults.0.len();
    tell(&format!("{faults}\n{count} fault{} in the configuration", if count == 1 { "" } else { "s" }));
}

/// A line for people.
fn tell(text: &str) {
    // Nobody is left to tell when this fails.
    let _ = writeln!(std::io::stderr(), "{text}");
}

/// A line of the result.
fn answer(text: &str) {
    // A reader that went away, as `head` does, is no failure.
    let _ = writeln!(std::io::stdout(), "{text}");
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_version_tells_the_engine_that_is_locked() {
        let lock = include_str!("../../../Cargo.lock");
        let engine = format!("name = \"wasmtime\"\nversion = \"{}\"", crate::plugin::WASMTIME_VERSION);
        assert!(lock.contains(&engine), "update WASMTIME_VERSION");
    }

    #[test]
    fn the_command_line_is_sound_and_run_is_the_default() {
        Arguments::command().debug_assert();
        let arguments = Arguments::try_parse_from(["fs-data-sink", "-c", "a.yaml", "--max-batches", "3"]).unwrap();
        assert!(arguments.command.is_none() && arguments.run.config.config.is_some());
        let arguments = Arguments::try_parse_from(["fs-data-sink", "run", "a.yaml", "--until-end"]).unwrap();
        assert!(matches!(arguments.command, Some(Command::Run(run)) if run.until_end));
        Arguments::try_parse_from(["fs-data-sink", "run", "--colour"]).unwrap_err();
    }
}
