//! One instance of a plugin in a Store of its own, from its start to its first failure.
//!
//! Promises: a call ends at its deadline, whatever the plugin does; a plugin that computes gives way to other tasks
//! every 10 ms; its memories and tables stay in the budget. After a [`Failure`] or a dropped call the instance must
//! not be used again: wasmtime refuses to enter it, and so does the caller by taking it by value.

use std::{pin::pin, sync::Arc, time::Duration};

use arrow_array::RecordBatch;
use wasmtime::{
    Store, Trap, UpdateDeadline,
    component::{Resource, ResourceTable, ResourceTableError},
};
use wasmtime_wasi::{I32Exit, WasiCtx, WasiCtxView, WasiView};

use super::{
    backtrace::backtrace,
    batches::{BatchResource, ReadFailure},
    bindings::{self, Plugin, batches, logging, metrics, stateful::Stateful, types},
    budget::{CallBudget, Spent},
    clock::CallClock,
    component::LoadedPlugin,
    failure::{CallError, Failure, FailureKind, Limit, clean},
    grants::{self, Session},
    limiter::{Limiter, Refused},
    places::Place,
    turns::{Desk, Overdue},
    version::{Misfit, misfit},
    voice::{Channel, Pipe, Voice},
};
use crate::config::PluginLimits;

/// Handles a guest may hold at once (streams, pollables, batches); more is a leak.
const HANDLES_MAX: usize = 10_000;
/// Allowed on top of `limits.output_bytes` for what comes with the rows: names, messages, row numbers.
const ANSWER_BYTES_SPARE: usize = 1 << 20;

/// What the imports of one instance work on.
pub(super) struct HostState {
    /// Inert but for what was granted.
    wasi: WasiCtx,
    /// Handles.
    pub(super) table: ResourceTable,
    /// What it does with what was granted.
    pub(super) session: Session,
    /// Memory.
    limiter: Limiter,
    /// What the host may be made to do in this call.
    budget: Arc<CallBudget>,
    /// When the call that runs now must have ended.
    clock: CallClock,
    /// What it says.
    voice: Arc<Voice>,
}

impl HostState {
    /// The plugin calls a function that cannot be refused: a call that has had its number ends at the next tick.
    pub(super) fn count_call(&mut self) {
        if self.budget.call().is_err() {
            self.clock.end_now();
        }
    }

    /// The plugin calls the host, which copies so many bytes for it.
    pub(super) fn spend(&self, bytes: usize) -> Result<(), Spent> {
        self.budget.call()?;
        self.budget.copy(bytes)
    }
}

impl WasiView for HostState {
    /// Every function of WASI comes by here, and cannot be refused here: the call ends at the next tick instead.
    fn ctx(&mut self) -> WasiCtxView<'_> {
        self.count_call();
        WasiCtxView { ctx: &mut self.wasi, table: &mut self.table }
    }
}

impl types::Host for HostState {}

impl batches::Host for HostState {}

impl batches::HostBatch for HostState {
    fn num_rows(&mut self, batch: Resource<BatchResource>) -> wasmtime::Result<u32> {
        self.spend(0)?;
        Ok(self.table.get(&batch)?.num_rows())
    }

    fn read(
        &mut self,
        batch: Resource<BatchResource>,
        columns: Option<Vec<u32>>,
    ) -> wasmtime::Result<Result<Vec<u8>, batches::ReadError>> {
        self.spend(0)?;
        answer_or_trap(self.table.get_mut(&batch)?.read(columns.as_deref()))
    }

    fn read_column(
        &mut self,
        batch: Resource<BatchResource>,
        position: u32,
    ) -> wasmtime::Result<Result<types::Column, batches::ReadError>> {
        self.spend(0)?;
        answer_or_trap(self.table.get_mut(&batch)?.read_column(position))
    }

    fn drop(&mut self, batch: Resource<BatchResource>) -> wasmtime::Result<()> {
        self.table.delete(batch)?;
        Ok(())
    }
}

/// A failed read goes to the guest or ends it.
fn answer_or_trap<T>(read: Result<T, ReadFailure>) -> wasmtime::Result<Result<T, batches::ReadError>> {
    match read {
        Ok(answer) => Ok(Ok(answer)),
        Err(ReadFailure::Answer(error)) => Ok(Err(error)),
        Err(ReadFailure::Trap(message)) => Err(wasmtime::Error::msg(message)),
    }
}

impl metrics::Host for HostState {
    fn count(&mut self, name: String, amount: u64) -> wasmtime::Result<()> {
        self.spend(name.len())?;
        self.voice.count(&name, amount);
        Ok(())
    }

    fn gauge(&mut self, name: String, value: f64) -> wasmtime::Result<()> {
        self.spend(name.len())?;
        self.voice.gauge(&name, value);
        Ok(())
    }
}

impl logging::Host for HostState {
    fn log(&mut self, level: logging::Level, context: String, message: String) -> wasmtime::Result<()> {
        self.spend(context.len().saturating_add(message.len()))?;
        self.voice.log(level, &context, &message);
        Ok(())
    }
}

/// A plugin that can be called.
pub(super) struct Instance {
    /// Everything of it; thrown away with it, and before its place is free.
    store: Store<HostState>,
    /// What it runs in.
    place: Place<Self>,
    /// Its functions.
    plugin: Plugin,
    /// Those of a plugin with state.
    stateful: Option<Stateful>,
    /// Where it comes from.
    loaded: Arc<LoadedPlugin>,
    /// When the call that runs now must have ended.
    clock: CallClock,
    /// Where its calls are polled.
    desk: Desk,
    /// Standard output and error.
    pipes: [Pipe; 2],
}

impl Instance {
    /// A fresh instance; runs its start functions.
    pub(super) async fn start(
        loaded: &Arc<LoadedPlugin>,
        voice: &Arc<Voice>,
        place: Place<Self>,
    ) -> Result<Self, Failure> {
        let limits = &loaded.config().limits;
        let (budget, tenant) = (Arc::new(CallBudget::new(limits)), voice.tenant().clone());
        let (clock, mut desk) = (CallClock::new(), loaded.shared().turns.desk(&tenant));
        let pipes = [Channel::Output, Channel::Error].map(|channel| Pipe::new(voice, channel, &budget));
        let mut store = Store::new(
            loaded.engine(),
            HostState {
                wasi: loaded.capabilities().wasi(&pipes)?,
                table: ResourceTable::new(),
                session: Session::new(loaded.capabilities(), voice, &clock),
                limiter: Limiter::new(limits.memory_bytes, Arc::clone(&loaded.shared().memory), tenant),
                budget,
                clock: clock.clone(),
                voice: Arc::clone(voice),
            },
        );
        store.data_mut().table.set_max_capacity(HANDLES_MAX);
        store.limiter(|state| &mut state.limiter);
        store.set_hostcall_fuel(answer_bytes_max(limits));
        store.epoch_deadline_callback(|context| {
            let clock = &context.data().clock;
            if clock.is_over() {
                Ok(UpdateDeadline::Interrupt)
            } else {
                clock.give_way();
                // tokio's own, since wasmtime's `Yield` wakes itself within the poll and starves timers.
                Ok(UpdateDeadline::YieldCustom(1, Box::pin(tokio::task::yield_now())))
            }
        });
        begin_call(&mut store, limits.call_timeout);
        let starting = async {
            let instance = loaded.instance_pre().instance_pre().instantiate_async(&mut store).await?;
            // Only here are the types of what it exports looked at.
            let functions = Plugin::new(&mut store, &instance).and_then(|functions| {
                let stateful = loaded.has_state().then(|| Stateful::new(&mut store, &instance)).transpose()?;
                Ok((functions, stateful))
            });
            functions.map_err(|error| misfit(loaded.instance_pre().instance_pre().component(), &error).into())
        };
        let ended = desk.run(&clock, pin!(starting)).await;
        let (plugin, stateful) = match ended {
            Ok(Ok(started)) => started,
            Ok(Err(error)) => return Err(failure_of("start", &error, &store, loaded)),
            Err(Overdue) => return Err(timed_out("start", limits.call_timeout)),
        };
        Ok(Self { store, place, plugin, stateful, loaded: Arc::clone(loaded), clock, desk, pipes })
    }

    /// The right to be there.
    pub(super) fn place(&self) -> &Place<Self> {
        &self.place
    }

    /// A fresh instance that was asked what it is. One that says that it is deterministic gets a world that is: clock and
    /// random numbers of the first instance were others, and so it is started again.
    pub(super) async fn start_described(
        loaded: &Arc<LoadedPlugin>,
        voice: &Arc<Voice>,
        place: Place<Self>,
    ) -> Result<(Self, types::Descriptor), Failure> {
        let mut instance = Self::start(loaded, voice, place).await?;
        let mut descriptor = instance.describe().await?;
        if descriptor.deterministic && !loaded.capabilities().is_deterministic() {
            loaded.capabilities().set_deterministic();
            let Self { store, place, .. } = instance;
            drop(store);
            instance = Self::start(loaded, voice, place).await?;
            descriptor = instance.describe().await?;
        }
        Ok((instance, descriptor))
    }

    /// `describe`.
    async fn describe(&mut self) -> Result<types::Descriptor, Failure> {
        self.begin();
        let guest = self.plugin.fs_data_sink_plugin_transform();
        let ended = self.desk.run(&self.clock, pin!(guest.call_describe(&mut self.store))).await;
        self.end("describe", ended)
    }

    /// `open`.
    pub(super) async fn open(&mut self, context: &types::OpenContext) -> Result<types::Opened, CallError> {
        self.begin();
        let guest = self.plugin.fs_data_sink_plugin_transform();
        let ended = self.desk.run(&self.clock, pin!(guest.call_open(&mut self.store, context))).await;
        self.end("open", ended)?.map_err(CallError::Answered)
    }

    /// `process`.
    pub(super) async fn process(
        &mut self,
        rows: RecordBatch,
        info: &types::BatchInfo,
    ) -> Result<types::Output, CallError> {
        self.begin();
        let batch = BatchResource::new(rows, Arc::clone(&self.store.data().budget));
        let handle = self.store.data_mut().table.push(batch).map_err(|_| CallError::Broken(out_of_handles()))?;
        let borrowed = Resource::new_borrow(handle.rep());
        let guest = self.plugin.fs_data_sink_plugin_transform();
        let calling = guest.call_process(&mut self.store, borrowed, info);
        let ended = self.desk.run(&self.clock, pin!(calling)).await;
        let answer = self.end("process", ended)?;
        self.store.data_mut().table.delete(handle).map_err(|_| CallError::Broken(out_of_handles()))?;
        answer.map_err(CallError::Answered)
    }

    /// `flush`.
    pub(super) async fn flush(&mut self, reason: types::FlushReason) -> Result<types::Payload, CallError> {
        self.begin();
        let guest = self.plugin.fs_data_sink_plugin_transform();
        let ended = self.desk.run(&self.clock, pin!(guest.call_flush(&mut self.store, reason))).await;
        self.end("flush", ended)?.map_err(CallError::Answered)
    }

    /// `state.snapshot`, of at most so many bytes.
    pub(super) async fn snapshot(&mut self, bytes_max: usize) -> Result<Vec<u8>, CallError> {
        self.begin();
        let Some(stateful) = &self.stateful else { return Ok(Vec::new()) };
        let guest = stateful.fs_data_sink_plugin_state();
        self.store.set_hostcall_fuel(bytes_max.saturating_add(ANSWER_BYTES_SPARE));
        let ended = self.desk.run(&self.clock, pin!(guest.call_snapshot(&mut self.store))).await;
        self.store.set_hostcall_fuel(answer_bytes_max(&self.loaded.config().limits));
        if let Ok(Err(error)) = &ended
            && is_out_of_fuel(error)
        {
            let words = format!("handed the host more than {bytes_max} bytes in `snapshot` (limits.state_bytes)");
            return Err(Failure { kind: FailureKind::BadOutput, message: words, limit: Some(Limit::StateBytes) }.into());
        }
        self.end("snapshot", ended)?.map_err(CallError::Answered)
    }

    /// `state.restore`.
    pub(super) async fn restore(&mut self, snapshot: &[u8]) -> Result<(), CallError> {
        self.begin();
        let Some(stateful) = &self.stateful else { return Ok(()) };
        let guest = stateful.fs_data_sink_plugin_state();
        let ended = self.desk.run(&self.clock, pin!(guest.call_restore(&mut self.store, snapshot))).await;
        self.end("restore", ended)?.map_err(CallError::Answered)
    }

    /// `close`, and with it the end.
    pub(super) async fn close(mut self) -> Result<(), Failure> {
        self.begin();
        let guest = self.plugin.fs_data_sink_plugin_transform();
        let ended = self.desk.run(&self.clock, pin!(guest.call_close(&mut self.store))).await;
        self.end("close", ended)
    }

    /// A call begins.
    fn begin(&mut self) {
        self.store.data().voice.start_call();
        begin_call(&mut self.store, self.loaded.config().limits.call_timeout);
    }

    /// A call ended.
    fn end<T>(&mut self, function: &str, ended: Result<wasmtime::Result<T>, Overdue>) -> Result<T, Failure> {
        self.store.data().voice.computed(self.desk.take_computed());
        match ended {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(error)) => {
                self.pipes.iter().for_each(Pipe::finish_line);
                Err(failure_of(function, &error, &self.store, &self.loaded))
            }
            Err(Overdue) => {
                self.pipes.iter().for_each(Pipe::finish_line);
                Err(timed_out(function, self.loaded.config().limits.call_timeout))
            }
        }
    }
}

/// Sets the clock and the epoch for the next call.
fn begin_call(store: &mut Store<HostState>, call_timeout: Duration) {
    let state = store.data_mut();
    state.clock.begin(call_timeout);
    state.session.begin_call();
    state.limiter.start_call();
    state.budget.start_call();
    store.set_epoch_deadline(1);
}

/// The host ran out of handles, which only leaking guests make it do.
fn out_of_handles() -> Failure {
    let message = format!("holds more than {HANDLES_MAX} handles of the host");
    Failure { kind: FailureKind::Memory, message, limit: Some(Limit::Handles) }
}

/// The words for a call that did not end.
fn timed_out(function: &str, call_timeout: Duration) -> Failure {
    let message =
        format!("did not return from `{function}` within {} ms (limits.call_timeout)", call_timeout.as_millis());
    Failure { kind: FailureKind::Timeout, message, limit: Some(Limit::CallTimeout) }
}

/// Bytes that may come with one answer, or go to the host in one call of it.
fn answer_bytes_max(limits: &PluginLimits) -> usize {
    limits.output_bytes.saturating_add(ANSWER_BYTES_SPARE)
}

/// What a failed call means, with the plugin's last words, and where it was.
fn failure_of(function: &str, error: &wasmtime::Error, store: &Store<HostState>, loaded: &LoadedPlugin) -> Failure {
    let (state, limits) = (store.data(), &loaded.config().limits);
    // The backtrace is one of them, in wasmtime's words.
    let causes =
        || error.chain().map(ToString::to_string).filter(|cause| !cause.starts_with("error while executing at"));
    let (kind, words, limit) = if let Err(spent) = state.budget.check() {
        (FailureKind::HostCalls, format!("{spent} in `{function}`"), Some(spent.limit()))
    } else if matches!(error.downcast_ref::<Trap>(), Some(Trap::Interrupt)) {
        return timed_out(function, limits.call_timeout);
    } else if let Some(misfit) = error.downcast_ref::<Misfit>() {
        (FailureKind::Trap, misfit.to_string(), None)
    } else if error.is::<wasmtime::PoolConcurrencyLimitError>() {
        let words = "found no place: this process runs as many plugin instances as it can".to_owned();
        (FailureKind::Trap, words, Some(Limit::Instances))
    } else if error.is::<I32Exit>() {
        (FailureKind::Trap, format!("left `{function}` through `exit`"), None)
    } else if is_out_of_fuel(error) {
        let most = answer_bytes_max(limits);
        let words = format!("handed the host more than {most} bytes in `{function}` (limits.output_bytes)");
        (FailureKind::BadOutput, words, Some(Limit::OutputBytes))
    } else if matches!(error.downcast_ref::<ResourceTableError>(), Some(ResourceTableError::Full)) {
        let Failure { kind, message, limit } = out_of_handles();
        (kind, message, limit)
    } else if let Some(refused) = state.limiter.refused() {
        let causes = causes().collect::<Vec<_>>().join(": ");
        let (whose, limit) = match refused {
            Refused::Own => ("it may have (limits.memory)".to_owned(), Limit::Memory),
            Refused::Tenant => {
                let tenant = &**state.voice.tenant();
                (format!("plugins of its tenant may have (tenants.{tenant}.memory)"), Limit::TenantMemory)
            }
        };
        let words = format!("needed more memory than {whose} in `{function}`: {causes}");
        (FailureKind::Memory, words, Some(limit))
    } else {
        (FailureKind::Trap, format!("trapped in `{function}`: {}", causes().collect::<Vec<_>>().join(": ")), None)
    };
    let tail = state.voice.error_tail();
    let said = if tail.is_empty() { String::new() } else { format!("; its last words: {tail}") };
    let trace = backtrace(error, &loaded.shared().lines);
    Failure { kind, message: clean(&format!("{words}{said}{trace}")), limit }
}

/// Whether a plugin handed over more than it may.
fn is_out_of_fuel(error: &wasmtime::Error) -> bool {
    error.chain().any(|cause| cause.to_string().contains("fuel allocated for hostcalls"))
}

/// Adds everything that a plugin may import to a linker.
pub(super) fn add_imports(linker: &mut wasmtime::component::Linker<HostState>) -> wasmtime::Result<()> {
    wasmtime_wasi::p2::add_to_linker_async(linker)?;
    grants::add_imports(linker)?;
    bindings::Plugin::add_to_linker::<_, wasmtime::component::HasSelf<_>>(linker, |state| state)
}
