//! Introduces the rooms to each other: the one screen that shows how a pipeline is wired.
//!
//! ```text
//! source ==events==> lane: decode -> plugin -> partition -> file ==generations==> commit -> store
//!    ^                                                                               |
//!    +-------------------------- offsets that are durable now ----------------------+
//! ```
//!
//! A **lane** is one worker with its own source stream, decoders, plugin instances and open files; lanes share
//! nothing but the memory budget and the counters. Both arrows drawn `==` are bounded channels. The lane goes on with
//! the next generation while the last one is being committed, one at most, so that uploads and encoding overlap and
//! memory stays bounded.
//!
//! Comes in: a checked configuration. Goes out: a [`Summary`], or the failure that ended the pipeline. Promise: a
//! source position is committed only after every row and dead letter up to it is durable and visible.

use std::{
    sync::{Arc, atomic::AtomicI64},
    time::{Duration, Instant},
};

use tokio::{runtime::Handle, task::JoinSet};
use tokio_util::sync::CancellationToken;

use crate::{
    commit::{self, Ledger},
    config::{Delivery, PipelineConfig},
    decode::{Decoder, Registry, SchemaHistory},
    error::{PipelineError, Verdict},
    file,
    memory::MemoryBudget,
    partition::Partitioner,
    plugin::{self, Chain, ChainContext, LanePauses, LoadedPlugin, Pauses, PluginEngine, keeps_state},
    source::{self, LaneContext, SourceStream},
    store::{HttpClients, Store},
    telemetry::{Health, PipelineState, metrics::Metrics},
    tenant::Tenants,
};

mod commits;
pub mod compact;
mod flow;
mod lane;
mod losses;
mod rest;
mod restore;
mod split;
mod states;
mod totals;

use losses::Losses;
use rest::Unfinished;
pub use totals::{Summary, Totals};

/// Pause before a lane begins anew, doubled each time up to the other: a rebalance takes seconds, and a ledger that is out
/// of reach should not be asked in a hurry.
const RESTART_PAUSE_MIN: Duration = Duration::from_secs(1);

/// See [`RESTART_PAUSE_MIN`].
const RESTART_PAUSE_MAX: Duration = Duration::from_secs(30);

/// Pause between two looks at a store that is away at start.
const START_RETRY_PAUSE: Duration = Duration::from_secs(2);

/// What all pipelines of a process share.
#[derive(Clone, Debug)]
pub struct Runtime {
    /// Compiles and runs plugins.
    pub engine: PluginEngine,
    /// What `/healthz` and `/readyz` tell.
    pub health: Health,
    /// Asks every pipeline to drain.
    pub stop: CancellationToken,
    /// Where lanes and plugins run.
    pub compute: Handle,
    /// Where sources, uploads and the HTTP page run.
    pub io: Handle,
    /// Counted while the pipeline runs, for a progress display.
    pub totals: Arc<Totals>,
    /// What each tenant may use, over all its pipelines.
    pub tenants: Tenants,
    /// Connections to stores.
    pub clients: HttpClients,
}

/// What the lanes of one pipeline share.
#[derive(Clone, Debug)]
struct Shared {
    /// The checked configuration.
    config: Arc<PipelineConfig>,
    /// In the order in which they run.
    plugins: Arc<[Arc<LoadedPlugin>]>,
    /// Where files go.
    store: Store,
    /// Where schemas of records come from.
    registry: Option<Registry>,
    /// For exactly once.
    ledger: Option<Ledger>,
    /// What lanes and processes learned of schemas, where they learn.
    history: Option<SchemaHistory>,
    /// Bytes in flight.
    budget: MemoryBudget,
    /// Lanes that wait for plugins.
    pauses: Pauses,
    /// The metrics of this pipeline.
    metrics: Metrics,
    /// How often plugins lost what they held.
    losses: Losses,
    /// Partitions of which plugins may keep something.
    unfinished: Unfinished,
    /// What the summary is made of.
    totals: Arc<Totals>,
    /// The process.
    runtime: Runtime,
}

/// A pipeline whose plugins are loaded, and fit what is known ahead. Cheap to clone but for its configuration.
#[derive(Clone, Debug)]
pub struct Prepared {
    /// The checked configuration.
    config: PipelineConfig,
    /// In the order in which they run.
    plugins: Arc<[Arc<LoadedPlugin>]>,
}

impl Prepared {
    /// The checked configuration.
    #[must_use]
    pub fn config(&self) -> &PipelineConfig {
        &self.config
    }

    /// The SHA-256 of its plugins, in their order.
    #[must_use]
    pub fn digests(&self) -> Vec<String> {
        self.plugins.iter().map(|plugin| plugin.digest_hex()).collect()
    }
}

/// Runs a pipeline until its source ends, it is asked to stop, or it fails.
pub async fn run(prepared: Prepared, runtime: Runtime) -> Result<Summary, PipelineError> {
    let (name, health) = (Arc::clone(&prepared.config.name), runtime.health.clone());
    health.set_pipeline(&name, PipelineState::Starting);
    let result = start_and_run(prepared, runtime).await;
    health.set_pipeline(
        &name,
        match &result {
            Ok(_) => PipelineState::Stopped,
            Err(error) => PipelineState::Failed(error.full_message()),
        },
    );
    result
}

/// The life of a pipeline.
async fn start_and_run(prepared: Prepared, runtime: Runtime) -> Result<Summary, PipelineError> {
    let Prepared { config, plugins } = prepared;
    let metrics = Metrics::new(&config.name, &config.tenant, config.source.kind.as_str(), config.sink.kind.as_str());
    let store = Store::open(&config.sink, &config.name, metrics.clone(), runtime.io.clone(), &runtime.clients)?;
    if !reach_store(&store, &config, &runtime, &metrics).await? {
        return Ok(Summary::default());
    }
    let ledger = match config.run.delivery {
        Delivery::ExactlyOnce => Some(open_ledger(&store).await?),
        Delivery::AtLeastOnce => {
            store.sweep_staging(&[]).await;
            None
        }
    };
    let history = open_history(&store, &config).await?;
    let registry = config.decode.schemas.registry.as_ref();
    let registry =
        registry.map(|registry| Registry::new(registry, runtime.stop.clone(), metrics.clone())).transpose()?;
    let shared = Shared {
        losses: Losses::new(ledger.is_some() || source::can_read_again(&config.source)),
        unfinished: Unfinished::default(),
        plugins,
        registry,
        ledger,
        history,
        store,
        budget: MemoryBudget::of(runtime.tenants.get(&config.tenant), config.run.memory_bytes),
        pauses: Pauses::new(Arc::clone(&config.name), runtime.health.clone(), metrics.clone()),
        metrics,
        totals: Arc::clone(&runtime.totals),
        config: Arc::new(config),
        runtime,
    };
    let background = compact::start(&shared).await?;
    let ended = run_lanes(&shared).await;
    if let Some(background) = background {
        background.end(&shared, ended.is_ok()).await;
    }
    ended?;
    Ok(shared.totals.summary())
}

/// Opens the ledger of a store that can hold one.
async fn open_ledger(store: &Store) -> Result<Ledger, PipelineError> {
    store.probe_create_if_absent().await?;
    let ledger = Ledger::open(store.clone()).await?;
    store.sweep_staging(&ledger.staged().await).await;
    Ok(ledger)
}

/// The versions of inferred schemas, where there are any.
async fn open_history(store: &Store, config: &PipelineConfig) -> Result<Option<SchemaHistory>, PipelineError> {
    if !config.decode.infers() {
        return Ok(None);
    }
    if config.run.delivery == Delivery::AtLeastOnce {
        match store.probe_create_if_absent().await {
            Err(error) if error.verdict() == Verdict::Stop => {
                tracing::warn!(pipeline = %config.name,
                    "every lane infers the schema for itself: the store lets two create the same object, so none is agreed on");
                return Ok(None);
            }
            asked => asked?,
        }
    }
    Ok(Some(SchemaHistory::new(store.clone())))
}

/// Starts every lane and waits for all of them; the first failure stops the others.
async fn run_lanes(shared: &Shared) -> Result<(), PipelineError> {
    let Shared { config, runtime, .. } = shared;
    let lanes = source::lane_count(&config.source, &config.run);
    let batches_left = Arc::new(AtomicI64::new(
        config.run.batches_max.and_then(|batches| i64::try_from(batches).ok()).unwrap_or(i64::MAX),
    ));
    let (stop, moves) = (runtime.stop.child_token(), Arc::default());
    let mut running = JoinSet::new();
    for lane in 0..lanes {
        let context = LaneContext {
            pipeline: Arc::clone(&config.name),
            lane,
            lanes,
            run: config.run.clone(),
            budget: shared.budget.clone(),
            metrics: shared.metrics.clone(),
            batches_left: Arc::clone(&batches_left),
            moves: Arc::clone(&moves),
            takes_over: keeps_state(&shared.plugins),
            io: runtime.io.clone(),
        };
        let source = config.source.clone();
        let read = move || source::start(&source, context.clone());
        running.spawn_on(run_lane(shared.clone(), lane, read, stop.clone()), &runtime.compute);
    }
    runtime.health.set_pipeline(&config.name, PipelineState::Running);
    tracing::info!(
        pipeline = %config.name, source = config.source.kind.as_str(), sink = config.sink.kind.as_str(), lanes,
        plugins = shared.plugins.len(), "pipeline runs"
    );
    wait_for_lanes(running, &stop, &config.name).await?;
    let left = rest::left(shared).await;
    if left.is_empty() {
        return Ok(());
    }
    run_lane(shared.clone(), lanes, move || source::at_end(left.clone()), stop).await
}

/// Runs a lane, and begins it anew as often as it loses what it held to another process.
async fn run_lane(
    shared: Shared,
    lane: usize,
    read: impl Fn() -> Result<SourceStream, PipelineError>,
    stop: CancellationToken,
) -> Result<(), PipelineError> {
    let mut pause = RESTART_PAUSE_MIN;
    loop {
        let began = Instant::now();
        let error = match Box::pin(lane::run(shared.clone(), lane, read()?, stop.clone())).await {
            Err(error) if error.verdict() == Verdict::Restart => error,
            ended => return ended,
        };
        shared.metrics.lane_restarted();
        tracing::warn!(pipeline = %shared.config.name, lane, error = %error.full_message(),
            "nothing that was not committed becomes visible; the lane begins anew from what is committed");
        if began.elapsed() > RESTART_PAUSE_MAX {
            pause = RESTART_PAUSE_MIN;
        }
        tokio::select! {
            () = tokio::time::sleep(pause) => pause = (pause * 2).min(RESTART_PAUSE_MAX),
            () = stop.cancelled() => return Ok(()),
        }
    }
}

/// Waits until every lane has ended; the first failure asks the others to drain and is the result.
async fn wait_for_lanes(
    mut running: JoinSet<Result<(), PipelineError>>,
    stop: &CancellationToken,
    pipeline: &str,
) -> Result<(), PipelineError> {
    let mut outcome = Ok(());
    while let Some(ended) = running.join_next().await {
        let ended = ended.unwrap_or_else(|error| Err(PipelineError::stop("a lane ended abnormally").because(error)));
        if let Err(error) = ended {
            tracing::error!(pipeline, error = %error.full_message(), "pipeline fails; its other lanes drain");
            stop.cancel();
            if outcome.is_ok() {
                outcome = Err(error);
            }
        }
    }
    outcome
}

/// Waits until the store answers; `false` when the process was asked to stop first.
async fn reach_store(
    store: &Store,
    config: &PipelineConfig,
    runtime: &Runtime,
    metrics: &Metrics,
) -> Result<bool, PipelineError> {
    let give_up = tokio::time::Instant::now() + config.sink.retry_timeout;
    loop {
        let error = match store.check().await {
            Ok(()) => return Ok(true),
            Err(error) => error,
        };
        if error.verdict() == Verdict::Stop || tokio::time::Instant::now() >= give_up {
            return Err(error);
        }
        metrics.retried("store_check");
        tracing::warn!(pipeline = %config.name, error = %error.full_message(), "the sink is not reachable: waiting");
        tokio::select! {
            () = tokio::time::sleep(START_RETRY_PAUSE) => {}
            () = runtime.stop.cancelled() => return Ok(false),
        }
    }
}

/// Reads, checks and compiles every plugin; on a blocking thread, since compiling takes seconds.
async fn load_plugins(
    config: &PipelineConfig,
    engine: &PluginEngine,
) -> Result<Arc<[Arc<LoadedPlugin>]>, PipelineError> {
    let (engine, plugins, tenant) = (engine.clone(), config.plugins.clone(), Arc::clone(&config.tenant));
    let metrics = Metrics::new(&config.name, &config.tenant, config.source.kind.as_str(), config.sink.kind.as_str());
    let loaded: Arc<[_]> = tokio::task::spawn_blocking(move || {
        let load = |plugin| engine.load_counted(plugin, &tenant, &metrics).map(Arc::new);
        plugins.iter().map(load).collect::<Result<Vec<_>, _>>()
    })
    .await
    .map_err(|error| PipelineError::stop("loading the plugins ended abnormally").because(error))?
    .map(Into::into)?;
    plugin::check_ledger(&loaded, config.run.delivery == Delivery::ExactlyOnce)?;
    Ok(loaded)
}

/// What has to be right before a pipeline runs, and what `validate` asks without any server: loads every plugin, holds its config
/// against its JSON Schema, and, where the schema of rows is declared, opens the whole chain with it and looks whether the sink can
/// take what comes out.
pub async fn prepare(
    config: PipelineConfig,
    engine: &PluginEngine,
    tenants: &Tenants,
) -> Result<Prepared, PipelineError> {
    let plugins = load_plugins(&config, engine).await?;
    plugin::check_configs(&plugins, &context_of(&config, tenants)).await?;
    let decoder = Decoder::new(&config.decode)?;
    let Some(schema) = decoder.schema() else { return Ok(Prepared { config, plugins }) };
    let chain = Chain::open(&plugins, Arc::clone(schema), context_of(&config, tenants)).await?;
    let fits = Partitioner::new(&config.sink, chain.output_schema())
        .and_then(|partitioner| file::check(&config.sink.parquet, partitioner.file_schema()));
    chain.close().await;
    fits.map(|()| Prepared { config, plugins })
}

/// A chain that is opened for a check, in no lane.
fn context_of(config: &PipelineConfig, tenants: &Tenants) -> ChainContext {
    let metrics = Metrics::new(&config.name, &config.tenant, config.source.kind.as_str(), config.sink.kind.as_str());
    let (pipeline, tenant) = (Arc::clone(&config.name), tenants.get(&config.tenant));
    ChainContext { pipeline, tenant, lane: 0, metrics, pauses: LanePauses::detached() }
}

/// What `validate --connect` does for one pipeline: asks the source and the sink. Every fault it finds.
pub async fn check_servers(config: &PipelineConfig) -> Result<(), Vec<PipelineError>> {
    let metrics = Metrics::new(&config.name, &config.tenant, config.source.kind.as_str(), config.sink.kind.as_str());
    let mut faults: Vec<_> = source::check(&config.source).await.err().into_iter().collect();
    if let Some(registry) = &config.decode.schemas.registry {
        let answer = match Registry::new(registry, CancellationToken::new(), metrics.clone()) {
            Ok(registry) => registry.check().await,
            Err(error) => Err(error),
        };
        faults.extend(answer.err());
    }
    let store = Store::open(&config.sink, &config.name, metrics, Handle::current(), &HttpClients::default());
    let answer = match store {
        Ok(store) => store.check().await,
        Err(error) => Err(error),
    };
    faults.extend(answer.err());
    faults.extend(commit::check_dead_letters(&config.dead_letter).await.err());
    if faults.is_empty() { Ok(()) } else { Err(faults) }
}
