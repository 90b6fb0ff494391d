//! `fs-data-sink run`: every pipeline of the configuration in one process, until they end or a signal asks to stop.
//!
//! SIGTERM drains: stop reading, finish, commit, exit 0; SIGINT likewise, exit 130; a second signal, or the shutdown
//! timeout, exits at once and loses nothing, since what is not committed is read again.

use std::{
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use tokio::{
    signal::unix::{SignalKind, signal},
    task::JoinSet,
};
use tokio_util::sync::CancellationToken;

use super::{DONE, FAILED, INTERRUPTED, RunArguments, tell, validate};
use crate::{
    config::{Config, LISTEN_DEFAULT, PipelineConfig},
    error::PipelineError,
    pipeline::{self, Runtime, Summary, Totals},
    plugin::PluginEngine,
    telemetry::{self, Health, PipelineState, Telemetry},
};

/// Worker threads for sockets: requests are few and large.
const IO_WORKERS: usize = 2;

/// Runs the pipelines of a configuration; gives the exit code.
pub(super) fn run(arguments: &RunArguments) -> u8 {
    let mut config = match arguments.config.load() {
        Ok(loaded) => loaded,
        Err(code) => return code,
    };
    for pipeline in &mut config.pipelines {
        pipeline.run.until_end |= arguments.until_end;
    }
    match run_config(config) {
        Ok(code) => code,
        Err(error) => {
            tell(&format!("fs-data-sink: {}", error.full_message()));
            FAILED
        }
    }
}

/// The same for a checked configuration.
pub(super) fn run_config(config: Config) -> Result<u8, PipelineError> {
    let runtimes = Runtimes::start()?;
    let code = runtimes.io.block_on(run_all(config, runtimes.compute.handle().clone()));
    // What still runs has lost its reader: a lane that hangs, a request on its way.
    runtimes.compute.shutdown_background();
    runtimes.io.shutdown_background();
    code
}

/// One runtime for sockets, one for computing.
#[derive(Debug)]
pub(super) struct Runtimes {
    /// Sources, uploads, the HTTP page.
    pub(super) io: tokio::runtime::Runtime,
    /// Lanes and plugins.
    pub(super) compute: tokio::runtime::Runtime,
}

impl Runtimes {
    /// Both.
    pub(super) fn start() -> Result<Self, PipelineError> {
        let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        let build = |workers: usize, name: &str| {
            tokio::runtime::Builder::new_multi_thread()
                .worker_threads(workers)
                .thread_name(name)
                .enable_all()
                .build()
                .map_err(|error| PipelineError::stop("the process cannot start its threads").because(error))
        };
        Ok(Self { io: build(IO_WORKERS, "fs-io")?, compute: build(cores, "fs-compute")? })
    }
}

/// Where compiled plugins are kept.
pub(super) fn cache_folder() -> Option<PathBuf> {
    let own = std::env::var_os("FS_DATA_SINK_CACHE").filter(|folder| !folder.is_empty()).map(PathBuf::from);
    let home = || std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".cache/fs-data-sink"));
    own.or_else(home).map(|folder| folder.join("compiled"))
}

/// Starts everything, waits for the pipelines, and shuts down.
async fn run_all(config: Config, compute: tokio::runtime::Handle) -> Result<u8, PipelineError> {
    let telemetry = telemetry::start(&config.telemetry)?;
    let health = Health::default();
    let code = run_pipelines(&config, &telemetry, health, compute).await;
    telemetry.shutdown().await;
    code
}

/// Runs all pipelines side by side: one that fails does not stop the others.
async fn run_pipelines(
    config: &Config,
    telemetry: &Telemetry,
    health: Health,
    compute: tokio::runtime::Handle,
) -> Result<u8, PipelineError> {
    for pipeline in &config.pipelines {
        health.set_pipeline(&pipeline.name, PipelineState::Starting);
    }
    if let Some(listen) = config.telemetry.listen
        && let Err(error) = telemetry.serve(listen, health.clone()).await
    {
        // Nobody chose this address: a second process on one machine goes on without its page.
        if listen != LISTEN_DEFAULT {
            return Err(error);
        }
        tracing::warn!(error = %error.full_message(), "no /metrics, /healthz and /readyz of this process");
    }
    let stop = CancellationToken::new();
    let engine = PluginEngine::new(cache_folder())?;
    let checked = validate::check_plugins(config, &engine).await;
    if checked != DONE {
        return Ok(checked);
    }
    let mut running = JoinSet::new();
    let patience = config.pipelines.iter().map(|pipeline| pipeline.run.shutdown_timeout).max().unwrap_or_default();
    for pipeline in &config.pipelines {
        let runtime = Runtime {
            engine: engine.clone(),
            health: health.clone(),
            stop: stop.clone(),
            compute: compute.clone(),
            io: tokio::runtime::Handle::current(),
            totals: Arc::new(Totals::default()),
        };
        running.spawn(run_one(pipeline.clone(), runtime));
    }
    let interrupted = Arc::new(AtomicBool::new(false));
    let signals = tokio::spawn(wait_for_signals(stop.clone(), patience, Arc::clone(&interrupted)));
    let mut code = DONE;
    while let Some(ended) = running.join_next().await {
        let is_good = ended.unwrap_or_else(|error| {
            tracing::error!(%error, "a pipeline ended abnormally");
            false
        });
        if !is_good {
            code = FAILED;
        }
    }
    signals.abort();
    if code == DONE && interrupted.load(Ordering::Relaxed) {
        code = INTERRUPTED;
    }
    Ok(code)
}

/// One pipeline; whether it ended well.
async fn run_one(config: PipelineConfig, runtime: Runtime) -> bool {
    let name = Arc::clone(&config.name);
    match pipeline::run(config, runtime).await {
        Ok(summary) => {
            let Summary {
                records_read,
                bytes_read,
                rows_written,
                records_rejected,
                rows_filtered,
                files,
                file_bytes,
                ..
            } = summary;
            tracing::info!(pipeline = %name, records_read, bytes_read, rows_written, records_rejected, rows_filtered,
                files, file_bytes, "pipeline ended");
            true
        }
        Err(error) => {
            tracing::error!(pipeline = %name, error = %error.full_message(), "pipeline failed");
            false
        }
    }
}

/// Asks to stop at the first signal, and notes when it was SIGINT; at the second, or when the drain takes too long, ends
/// the process.
async fn wait_for_signals(stop: CancellationToken, patience: Duration, interrupted: Arc<AtomicBool>) {
    let (Ok(mut terminate), Ok(mut interrupt)) = (signal(SignalKind::terminate()), signal(SignalKind::interrupt()))
    else {
        tracing::warn!("signals cannot be heard; end the process by killing it, which loses nothing");
        return;
    };
    let code = tokio::select! {
        _ = terminate.recv() => FAILED,
        _ = interrupt.recv() => {
            interrupted.store(true, Ordering::Relaxed);
            INTERRUPTED
        }
    };
    tracing::info!("asked to stop: draining");
    stop.cancel();
    let why = tokio::select! {
        _ = terminate.recv() => "a second signal",
        _ = interrupt.recv() => "a second signal",
        () = tokio::time::sleep(patience) => "pipeline.shutdown_timeout",
    };
    tracing::warn!("ending now ({why}): what is not committed is read again at the next start");
    std::process::exit(code.into());
}
