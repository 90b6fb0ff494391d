//! The one wasmtime engine of the process: settings, the clock behind deadlines, the imports that plugins may use.
//!
//! Promises: compiled code is shared by all instances; a plugin that loops is interrupted, since the epoch advances
//! every 10 ms for as long as the engine lives; a machine with little address space gets a slower allocator, not a
//! failure.

use std::{fmt, num::NonZeroUsize, path::PathBuf, sync::Arc, thread, time::Duration};

use wasmtime::{
    Config, Engine, InstanceAllocationStrategy, OptLevel, PoolingAllocationConfig, Strategy, WasmBacktraceDetails,
    component::Linker,
};

use super::{
    cache::CodeCache,
    compile::{Compiler, Compilers},
    fetch::Blobs,
    instance::{HostState, Instance, add_imports},
    places::Places,
    turns::Turns,
};
use crate::error::PipelineError;

/// How often a plugin gives way, and how exactly deadlines are kept.
const EPOCH_TICK: Duration = Duration::from_millis(10);
/// Instances at once in the process: eight plugins on a machine of 64 lanes. A slot costs address space, not memory.
const INSTANCES_MAX: u16 = 512;
/// A component made by wit-component has three to eight core instances.
const CORE_INSTANCES_MAX: u32 = INSTANCES_MAX as u32 * 8;

/// Compiles and runs plugins. Cheap to clone; one per process.
#[derive(Clone)]
pub struct PluginEngine(Arc<Shared>);

/// What all plugins share.
struct Shared {
    /// wasmtime.
    engine: Engine,
    /// What a component may import.
    linker: Linker<HostState>,
    /// Compiled code.
    cache: Option<CodeCache>,
    /// What was downloaded.
    blobs: Option<Blobs>,
    /// Who compiles.
    compilers: Compilers,
    /// Who may run an instance.
    places: Places<Instance>,
    /// Who computes.
    turns: Turns,
}

impl fmt::Debug for PluginEngine {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("PluginEngine").field("cache", &self.0.cache).finish_non_exhaustive()
    }
}

impl PluginEngine {
    /// An engine with its clock running, for programs that call [`answer_if_asked`](super::answer_if_asked) first of all;
    /// compiled code is kept in `cache_folder`, if there is one.
    pub fn new(cache_folder: Option<PathBuf>) -> Result<Self, PipelineError> {
        Self::with_compiler(cache_folder, Compiler::default())
    }

    /// The same, where something else than this program compiles.
    pub fn with_compiler(cache_folder: Option<PathBuf>, compiler: Compiler) -> Result<Self, PipelineError> {
        let blobs = cache_folder.as_ref().map(|folder| Blobs::new(folder.join("downloads")));
        let cache = cache_folder.map(CodeCache::open).transpose()?;
        let failed = |error: wasmtime::Error| PipelineError::stop("cannot start the plugin engine").because(error);
        let engine = Engine::new(&settings(InstanceAllocationStrategy::Pooling(pool()))).or_else(|error| {
            tracing::warn!(
                "plugins start more slowly: their memory cannot be reserved ahead ({error:#}); \
                 a limit on address space (ulimit -v) is the usual cause"
            );
            Engine::new(&settings(InstanceAllocationStrategy::OnDemand))
        });
        let engine = engine.map_err(failed)?;
        let turns = Turns::new(thread::available_parallelism().map_or(1, NonZeroUsize::get));
        start_clock(&engine, turns.clone())?;
        let mut linker = Linker::new(&engine);
        add_imports(&mut linker).map_err(failed)?;
        let places = Places::new(INSTANCES_MAX.into());
        let compilers = Compilers::new(compiler);
        Ok(Self(Arc::new(Shared { engine, linker, cache, blobs, compilers, places, turns })))
    }

    /// wasmtime.
    pub(super) fn engine(&self) -> &Engine {
        &self.0.engine
    }

    /// What a component may import.
    pub(super) fn linker(&self) -> &Linker<HostState> {
        &self.0.linker
    }

    /// Who may run an instance.
    pub(super) fn places(&self) -> &Places<Instance> {
        &self.0.places
    }

    /// Who computes.
    pub(super) fn turns(&self) -> &Turns {
        &self.0.turns
    }

    /// Compiled code.
    pub(super) fn cache(&self) -> Option<&CodeCache> {
        self.0.cache.as_ref()
    }

    /// What was downloaded.
    pub(super) fn blobs(&self) -> Option<&Blobs> {
        self.0.blobs.as_ref()
    }

    /// Who compiles.
    pub(super) fn compilers(&self) -> &Compilers {
        &self.0.compilers
    }
}

/// An engine that only compiles: how memory is reserved makes no difference to the code, and it reserves none.
pub(super) fn for_compiling() -> wasmtime::Result<Engine> {
    Engine::new(&settings(InstanceAllocationStrategy::OnDemand))
}

/// Every setting on which isolation or speed depends, also where it is the default today.
fn settings(allocation: InstanceAllocationStrategy) -> Config {
    let mut config = Config::new();
    config
        .strategy(Strategy::Cranelift)
        .cranelift_opt_level(OptLevel::Speed)
        .wasm_component_model(true)
        .epoch_interruption(true)
        .consume_fuel(false)
        .max_wasm_stack(512 << 10)
        .async_stack_size(2 << 20)
        .async_stack_zeroing(true)
        .memory_init_cow(true)
        // Snapshots of Python guests are larger than the default of 16 MiB.
        .memory_guaranteed_dense_image_size(64 << 20)
        .wasm_simd(true)
        .wasm_relaxed_simd(false)
        .wasm_wide_arithmetic(false)
        .wasm_memory64(false)
        .wasm_backtrace_max_frames(NonZeroUsize::new(32))
        .wasm_backtrace_details(WasmBacktraceDetails::Disable)
        .native_unwind_info(false)
        .concurrency_support(false)
        .allocation_strategy(allocation);
    config
}

/// Memory reserved ahead.
fn pool() -> PoolingAllocationConfig {
    let mut pool = PoolingAllocationConfig::new();
    pool.total_component_instances(INSTANCES_MAX.into())
        .total_core_instances(CORE_INSTANCES_MAX)
        .total_memories(INSTANCES_MAX.into())
        .total_tables(CORE_INSTANCES_MAX)
        .total_stacks(INSTANCES_MAX.into())
        .max_core_instances_per_component(64)
        .max_memories_per_component(4)
        .max_tables_per_component(64)
        .max_memories_per_module(1)
        .max_tables_per_module(4)
        // CPython and SpiderMonkey need more than the default of 20,000.
        .table_elements(100_000)
        // The hard ceiling of one memory; a plugin's own budget is the limiter's.
        .max_memory_size(1 << 30)
        .max_component_instance_size(4 << 20)
        .max_core_instance_size(4 << 20)
        .max_unused_warm_slots(8)
        .linear_memory_keep_resident(1 << 20)
        .table_keep_resident(64 << 10);
    pool
}

/// Advances the epoch until the engine is gone.
fn start_clock(engine: &Engine, turns: Turns) -> Result<(), PipelineError> {
    let engine = engine.weak();
    let clock = move || {
        while let Some(engine) = engine.upgrade() {
            engine.increment_epoch();
            turns.tick();
            drop(engine);
            thread::sleep(EPOCH_TICK);
        }
    };
    thread::Builder::new()
        .name("plugin-clock".to_owned())
        .spawn(clock)
        .map(drop)
        .map_err(|error| PipelineError::stop("cannot start the thread behind plugin deadlines").because(error))
}
