//! `fs-data-sink run`: every pipeline of the configuration in one process, until they end or a signal asks to stop.
//!
//! SIGTERM drains: stop reading, finish, commit, exit 0; SIGINT likewise, exit 130; a second signal, or the shutdown
//! timeout, exits at once and loses nothing, since what is not committed is read again. SIGHUP, and with `--watch` a file that
//! changes, reads the configuration again (`supervisor`).

use std::{
    collections::BTreeMap,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::sync::CancellationToken;

use super::{
    DONE, FAILED, INTERRUPTED, RunArguments,
    supervisor::Supervisor,
    tell,
    watch::{Watch, Which},
};
use crate::{
    config::{
        Config, LISTEN_DEFAULT, TelemetryConfig,
        load::{self, Loaded},
    },
    error::PipelineError,
    pipeline::{Runtime, Totals},
    plugin::{PluginEngine, WORKERS_SPARE},
    store::HttpClients,
    telemetry::{self, Health, PipelineState, Telemetry},
    tenant::Tenants,
};

/// Worker threads for sockets at least.
const IO_WORKERS: usize = 2;

/// Runs the pipelines of a configuration; gives the exit code.
pub(super) fn run(arguments: &RunArguments) -> u8 {
    let mut loaded = match arguments.config.load_each() {
        Ok(loaded) => loaded,
        Err(code) => return code,
    };
    arguments.put_over(&mut loaded);
    match run_loaded(loaded, Some(arguments)) {
        Ok(code) => code,
        Err(error) => {
            tell(&format!("fs-data-sink: {}", error.full_message()));
            FAILED
        }
    }
}

/// The same for a checked configuration, which is not read again.
pub(super) fn run_config(config: Config) -> Result<u8, PipelineError> {
    run_loaded(Loaded { config, files: BTreeMap::new(), wrong: BTreeMap::new() }, None)
}

/// Runs what was loaded. `arguments`: how to load it again.
fn run_loaded(loaded: Loaded, arguments: Option<&RunArguments>) -> Result<u8, PipelineError> {
    let runtimes = Runtimes::start()?;
    let code = runtimes.io.block_on(run_all(loaded, arguments, runtimes.compute.handle().clone()));
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
        let (io, compute) = (cores.max(IO_WORKERS), cores + WORKERS_SPARE);
        Ok(Self { io: build(io, "fs-io")?, compute: build(compute, "fs-compute")? })
    }
}

/// Where compiled plugins are kept.
pub(super) fn cache_folder() -> Option<PathBuf> {
    let own = std::env::var_os("FS_DATA_SINK_CACHE").filter(|folder| !folder.is_empty()).map(PathBuf::from);
    let home = || std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".cache/fs-data-sink"));
    own.or_else(home).map(|folder| folder.join("compiled"))
}

/// Starts everything, waits for the pipelines, and shuts down.
async fn run_all(
    loaded: Loaded,
    arguments: Option<&RunArguments>,
    compute: tokio::runtime::Handle,
) -> Result<u8, PipelineError> {
    let telemetry = telemetry::start(&loaded.config.telemetry)?;
    let tenants = Tenants::default();
    telemetry::observe_tenants(&tenants);
    let runtime = Runtime {
        engine: PluginEngine::new(cache_folder())?,
        health: Health::default(),
        stop: CancellationToken::new(),
        compute,
        io: tokio::runtime::Handle::current(),
        totals: Arc::new(Totals::default()),
        tenants,
        clients: HttpClients::default(),
    };
    let code = run_pipelines(loaded, arguments, &telemetry, runtime).await;
    telemetry.shutdown().await;
    code
}

/// Runs all pipelines side by side: one that fails does not stop the others.
async fn run_pipelines(
    loaded: Loaded,
    arguments: Option<&RunArguments>,
    telemetry: &Telemetry,
    runtime: Runtime,
) -> Result<u8, PipelineError> {
    let (health, stop) = (runtime.health.clone(), runtime.stop.clone());
    for pipeline in &loaded.config.pipelines {
        health.set_pipeline(&pipeline.name, PipelineState::Starting);
    }
    if let Some(listen) = loaded.config.telemetry.listen
        && let Err(error) = telemetry.serve(listen, health).await
    {
        // Nobody chose this address: a second process on one machine goes on without its page.
        if listen != LISTEN_DEFAULT {
            return Err(error);
        }
        tracing::warn!(error = %error.full_message(), "no /metrics, /healthz and /readyz of this process");
    }
    let mut reloader = arguments.map(|arguments| Reloader::new(arguments, &loaded.config.telemetry)).transpose()?;
    let mut supervisor = Supervisor::new(runtime);
    let (interrupted, patience) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(u64::MAX)));
    let signals = wait_for_signals(stop.clone(), Arc::clone(&patience), Arc::clone(&interrupted));
    let signals = tokio::spawn(signals);
    let longest = loaded.config.pipelines.iter().map(|pipeline| pipeline.run.shutdown_timeout).max();
    note_patience(&patience, longest.unwrap_or_default());
    supervisor.apply(loaded);
    if let Some(reloader) = &mut reloader {
        reloader.watch_plugins(supervisor.plugin_files());
    }
    while !supervisor.is_idle() {
        tokio::select! {
            () = supervisor.next() => {}
            () = wanted(&mut reloader), if !stop.is_cancelled() => {
                if let Some(reloader) = &mut reloader {
                    match reloader.load() {
                        Ok(loaded) => supervisor.apply(loaded),
                        Err(words) => supervisor.refuse(&words),
                    }
                    reloader.watch_plugins(supervisor.plugin_files());
                }
            }
        }
        note_patience(&patience, supervisor.patience());
    }
    signals.abort();
    let code = supervisor.code();
    Ok(if code == DONE && interrupted.load(Ordering::Relaxed) { INTERRUPTED } else { code })
}

/// Waits until the configuration is to be read again; for ever where nobody asks.
async fn wanted(reloader: &mut Option<Reloader<'_>>) {
    match reloader {
        Some(reloader) => reloader.wanted().await,
        None => std::future::pending().await,
    }
}

/// Reads the configuration again.
struct Reloader<'a> {
    /// How.
    arguments: &'a RunArguments,
    /// Whether it is asked for.
    hangup: Signal,
    /// Whether something has changed, with `--watch`.
    watch: Option<Watch>,
    /// What holds until the process ends.
    telemetry: TelemetryConfig,
}

impl<'a> Reloader<'a> {
    /// Listens from now on.
    fn new(arguments: &'a RunArguments, telemetry: &TelemetryConfig) -> Result<Self, PipelineError> {
        let hangup = signal(SignalKind::hangup()).map_err(|error| {
            PipelineError::stop("SIGHUP cannot be heard, so nothing could be reloaded").because(error)
        })?;
        let watch = arguments.watch.then(|| Watch::new(arguments.config.all_paths(), Which::Inside));
        Ok(Self { arguments, hangup, watch, telemetry: telemetry.clone() })
    }

    /// Returns when the configuration is to be read again. Cancel-safe.
    async fn wanted(&mut self) {
        let Self { hangup, watch, .. } = self;
        let changed = async {
            match watch {
                Some(watch) => watch.changed().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            _ = hangup.recv() => tracing::info!("SIGHUP: reading the configuration again"),
            () = changed => tracing::info!("files have changed: reading the configuration again"),
        }
    }

    /// What the files say now, or in words that nothing of it can be run. Everything that is wrong is told.
    fn load(&self) -> Result<Loaded, String> {
        let inputs = self.arguments.config.inputs()?;
        let mut loaded = load::load_each(&inputs).map_err(|faults| {
            tell(&faults.to_string());
            format!(
                "{} fault(s); the first: {}",
                faults.0.len(),
                faults.0.first().map(ToString::to_string).unwrap_or_default()
            )
        })?;
        if loaded.config.pipelines.is_empty() {
            return Err("no pipeline is left in it; to end the process, send it SIGTERM".to_owned());
        }
        for (file, faults) in &loaded.wrong {
            tell(&faults.to_string());
            tracing::error!(%file, faults = faults.0.len(), "the file is wrong: its pipelines go on as before");
        }
        if loaded.config.telemetry != self.telemetry {
            tracing::warn!("`telemetry` has changed, which counts when the process is started again");
        }
        self.arguments.put_over(&mut loaded);
        Ok(loaded)
    }

    /// Watches these files, too.
    fn watch_plugins(&mut self, files: Vec<PathBuf>) {
        if let Some(watch) = &mut self.watch {
            watch.also(files);
        }
    }
}

/// Notes how long pipelines may drain.
fn note_patience(patience: &AtomicU64, longest: Duration) {
    patience.store(u64::try_from(longest.as_millis()).unwrap_or(u64::MAX), Ordering::Relaxed);
}

/// Asks to stop at the first signal, and notes when it was SIGINT; at the second, or when the drain takes too long, ends
/// the process.
async fn wait_for_signals(stop: CancellationToken, patience: Arc<AtomicU64>, interrupted: Arc<AtomicBool>) {
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
    let patience = Duration::from_millis(patience.load(Ordering::Relaxed));
    let why = tokio::select! {
        _ = terminate.recv() => "a second signal",
        _ = interrupt.recv() => "a second signal",
        () = tokio::time::sleep(patience) => "pipeline.shutdown_timeout",
    };
    tracing::warn!("ending now ({why}): what is not committed is read again at the next start");
    std::process::exit(code.into());
}
