//! One instance of a plugin in a Store of its own, from its start to its first failure.
//!
//! Promises: a call ends at its deadline, whatever the plugin does; a plugin that computes gives way to other tasks
//! every 10 ms; its memories and tables stay in the budget. After a [`Failure`] or a dropped call the instance must
//! not be used again: wasmtime refuses to enter it, and so does the caller by taking it by value.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use wasmtime::{
    Store, Trap, UpdateDeadline,
    component::{Resource, ResourceTable},
};
use wasmtime_wasi::{I32Exit, WasiCtx, WasiCtxBuilder, WasiCtxView, WasiView};

use super::{
    batches::{BatchResource, ReadFailure},
    bindings::{self, Plugin, batches, config_store, logging, metrics, types},
    component::LoadedPlugin,
    failure::{CallError, Failure, FailureKind, clean},
    limiter::Limiter,
    voice::{Channel, Pipe, Voice},
};

/// Handles a guest may hold at once (streams, pollables, batches); more is a leak.
const HANDLES_MAX: usize = 10_000;
/// What a guest may ask of `wasi:random` in one call.
const RANDOM_BYTES_MAX: u64 = 64 << 10;
/// Allowed on top of `limits.output_bytes` for what comes with the rows: names, messages, row numbers.
const ANSWER_BYTES_SPARE: usize = 1 << 20;
/// A call that waits inside the host (a sleep, a poll) meets no epoch; it is dropped this long after its deadline.
const GRACE: Duration = Duration::from_millis(50);

/// What the imports of one instance work on.
pub(super) struct HostState {
    /// Inert: no files, no network, no environment, no arguments, no input.
    wasi: WasiCtx,
    /// Handles.
    table: ResourceTable,
    /// Memory.
    limiter: Limiter,
    /// When the call that runs now must have ended.
    deadline: Instant,
    /// What it says.
    voice: Arc<Voice>,
}

impl WasiView for HostState {
    fn ctx(&mut self) -> WasiCtxView<'_> {
        WasiCtxView { ctx: &mut self.wasi, table: &mut self.table }
    }
}

impl types::Host for HostState {}

impl batches::Host for HostState {}

impl batches::HostBatch for HostState {
    fn num_rows(&mut self, batch: Resource<BatchResource>) -> wasmtime::Result<u32> {
        Ok(self.table.get(&batch)?.num_rows())
    }

    fn read(
        &mut self,
        batch: Resource<BatchResource>,
        columns: Option<Vec<u32>>,
    ) -> wasmtime::Result<Result<Vec<u8>, batches::ReadError>> {
        answer_or_trap(self.table.get_mut(&batch)?.read(columns.as_deref()))
    }

    fn read_column(
        &mut self,
        batch: Resource<BatchResource>,
        position: u32,
    ) -> wasmtime::Result<Result<types::Column, batches::ReadError>> {
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
        self.voice.count(&name, amount);
        Ok(())
    }

    fn gauge(&mut self, name: String, value: f64) -> wasmtime::Result<()> {
        self.voice.gauge(&name, value);
        Ok(())
    }
}

impl logging::Host for HostState {
    fn log(&mut self, level: logging::Level, context: String, message: String) -> wasmtime::Result<()> {
        self.voice.log(level, &context, &message);
        Ok(())
    }
}

impl config_store::Host for HostState {
    fn get(&mut self, _: String) -> wasmtime::Result<Result<Option<String>, config_store::Error>> {
        Ok(Ok(None))
    }

    fn get_all(&mut self) -> wasmtime::Result<Result<Vec<(String, String)>, config_store::Error>> {
        Ok(Ok(Vec::new()))
    }
}

/// A plugin that can be called.
pub(super) struct Instance {
    /// Everything of it; thrown away with it.
    store: Store<HostState>,
    /// Its functions.
    plugin: Plugin,
    /// Wall clock per call.
    call_timeout: Duration,
    /// Bytes it may hand over in one answer.
    answer_bytes_max: usize,
    /// Standard output and error.
    pipes: [Pipe; 2],
}

impl Instance {
    /// A fresh instance; runs its start functions.
    pub(super) async fn start(plugin: &LoadedPlugin, voice: &Arc<Voice>) -> Result<Self, Failure> {
        let limits = &plugin.config().limits;
        let pipes = [Pipe::new(voice, Channel::Output), Pipe::new(voice, Channel::Error)];
        let mut store = Store::new(
            plugin.engine(),
            HostState {
                wasi: inert_wasi(&pipes),
                table: ResourceTable::new(),
                limiter: Limiter::new(limits.memory_bytes),
                deadline: Instant::now(),
                voice: Arc::clone(voice),
            },
        );
        store.data_mut().table.set_max_capacity(HANDLES_MAX);
        store.limiter(|state| &mut state.limiter);
        let answer_bytes_max = limits.output_bytes.saturating_add(ANSWER_BYTES_SPARE);
        store.set_hostcall_fuel(answer_bytes_max);
        store.epoch_deadline_callback(|context| {
            if Instant::now() >= context.data().deadline {
                Ok(UpdateDeadline::Interrupt)
            } else {
                // tokio's own, since wasmtime's `Yield` wakes itself within the poll and starves timers.
                Ok(UpdateDeadline::YieldCustom(1, Box::pin(tokio::task::yield_now())))
            }
        });
        begin_call(&mut store, limits.call_timeout);
        let starting = plugin.instance_pre().instantiate_async(&mut store);
        let ended = tokio::time::timeout(limits.call_timeout + GRACE, starting).await;
        let plugin = match ended {
            Ok(Ok(plugin)) => plugin,
            Ok(Err(error)) => return Err(failure_of("start", &error, &store, limits.call_timeout, answer_bytes_max)),
            Err(_) => return Err(timed_out("start", limits.call_timeout)),
        };
        Ok(Self { store, plugin, call_timeout: limits.call_timeout, answer_bytes_max, pipes })
    }

    /// `describe`.
    pub(super) async fn describe(&mut self) -> Result<types::Descriptor, Failure> {
        self.begin();
        let guest = self.plugin.fs_data_sink_plugin_transform();
        let ended = tokio::time::timeout(self.call_timeout + GRACE, guest.call_describe(&mut self.store)).await;
        self.end("describe", ended)
    }

    /// `open`.
    pub(super) async fn open(&mut self, context: &types::OpenContext) -> Result<types::Opened, CallError> {
        self.begin();
        let guest = self.plugin.fs_data_sink_plugin_transform();
        let ended = tokio::time::timeout(self.call_timeout + GRACE, guest.call_open(&mut self.store, context)).await;
        self.end("open", ended)?.map_err(CallError::Answered)
    }

    /// `process`.
    pub(super) async fn process(
        &mut self,
        batch: BatchResource,
        info: &types::BatchInfo,
    ) -> Result<types::Output, CallError> {
        self.begin();
        let handle = self.store.data_mut().table.push(batch).map_err(|_| CallError::Broken(out_of_handles()))?;
        let borrowed = Resource::new_borrow(handle.rep());
        let guest = self.plugin.fs_data_sink_plugin_transform();
        let calling = guest.call_process(&mut self.store, borrowed, info);
        let ended = tokio::time::timeout(self.call_timeout + GRACE, calling).await;
        let answer = self.end("process", ended)?;
        self.store.data_mut().table.delete(handle).map_err(|_| CallError::Broken(out_of_handles()))?;
        answer.map_err(CallError::Answered)
    }

    /// `flush`.
    pub(super) async fn flush(&mut self, reason: types::FlushReason) -> Result<types::Payload, CallError> {
        self.begin();
        let guest = self.plugin.fs_data_sink_plugin_transform();
        let ended = tokio::time::timeout(self.call_timeout + GRACE, guest.call_flush(&mut self.store, reason)).await;
        self.end("flush", ended)?.map_err(CallError::Answered)
    }

    /// `close`, and with it the end.
    pub(super) async fn close(mut self) -> Result<(), Failure> {
        self.begin();
        let guest = self.plugin.fs_data_sink_plugin_transform();
        let ended = tokio::time::timeout(self.call_timeout + GRACE, guest.call_close(&mut self.store)).await;
        self.end("close", ended)
    }

    /// A call begins.
    fn begin(&mut self) {
        self.store.data().voice.start_call();
        begin_call(&mut self.store, self.call_timeout);
    }

    /// A call ended.
    fn end<T>(
        &self,
        function: &str,
        ended: Result<wasmtime::Result<T>, tokio::time::error::Elapsed>,
    ) -> Result<T, Failure> {
        match ended {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(error)) => {
                self.pipes.iter().for_each(Pipe::finish_line);
                Err(failure_of(function, &error, &self.store, self.call_timeout, self.answer_bytes_max))
            }
            Err(_) => {
                self.pipes.iter().for_each(Pipe::finish_line);
                Err(timed_out(function, self.call_timeout))
            }
        }
    }
}

/// Sets the clock and the epoch for the next call.
fn begin_call(store: &mut Store<HostState>, call_timeout: Duration) {
    let state = store.data_mut();
    state.deadline = Instant::now() + call_timeout;
    state.limiter.start_call();
    store.set_epoch_deadline(1);
}

/// WASI with nothing behind it but a clock, random numbers and the two pipes.
fn inert_wasi([output, error]: &[Pipe; 2]) -> WasiCtx {
    WasiCtxBuilder::new()
        .stdout(output.clone())
        .stderr(error.clone())
        .allow_tcp(false)
        .allow_udp(false)
        .allow_ip_name_lookup(false)
        .max_random_size(RANDOM_BYTES_MAX)
        .build()
}

/// The host ran out of handles, which only leaking guests make it do.
fn out_of_handles() -> Failure {
    Failure { kind: FailureKind::Memory, message: format!("holds more than {HANDLES_MAX} handles of the host") }
}

/// The words for a call that did not end.
fn timed_out(function: &str, call_timeout: Duration) -> Failure {
    let limit = call_timeout.as_millis();
    Failure {
        kind: FailureKind::Timeout,
        message: format!("did not return from `{function}` within {limit} ms (limits.call_timeout)"),
    }
}

/// What a failed call means.
fn failure_of(
    function: &str,
    error: &wasmtime::Error,
    store: &Store<HostState>,
    call_timeout: Duration,
    answer_bytes_max: usize,
) -> Failure {
    if matches!(error.downcast_ref::<Trap>(), Some(Trap::Interrupt)) {
        return timed_out(function, call_timeout);
    }
    let state = store.data();
    let (kind, words) = if error.is::<wasmtime::PoolConcurrencyLimitError>() {
        (FailureKind::Trap, "found no place: this process runs as many plugin instances as it can".to_owned())
    } else if error.is::<I32Exit>() {
        (FailureKind::Trap, format!("left `{function}` through `exit`"))
    } else if error.chain().any(|cause| cause.to_string().contains("fuel allocated for hostcalls")) {
        let words = format!("handed the host more than {answer_bytes_max} bytes in `{function}` (limits.output_bytes)");
        (FailureKind::BadOutput, words)
    } else if state.limiter.refused() {
        (FailureKind::Memory, format!("needed more memory than it may have (limits.memory) in `{function}`: {error:#}"))
    } else {
        (FailureKind::Trap, format!("trapped in `{function}`: {error:#}"))
    };
    let tail = state.voice.error_tail();
    let message = if tail.is_empty() { words } else { format!("{words}; its last words: {tail}") };
    Failure { kind, message: clean(&message) }
}

/// Adds everything that a plugin may import to a linker.
pub(super) fn add_imports(linker: &mut wasmtime::component::Linker<HostState>) -> wasmtime::Result<()> {
    wasmtime_wasi::p2::add_to_linker_async(linker)?;
    bindings::Plugin::add_to_linker::<_, wasmtime::component::HasSelf<_>>(linker, |state| state)
}
