//! One plugin in one lane: its instance, and what happens when a call goes wrong.
//!
//! Promises: a batch comes out as rows, rejections or an error that stops the pipeline, never not at all; an instance
//! that trapped, ran out of time or answered garbage is thrown away, and the next one starts after a pause that doubles
//! until a batch goes well. Where batch after batch fails, the last one is kept and the lane waits with it (`circuit`).
//! Waiting never blocks the thread.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use arrow_schema::SchemaRef;

use super::{
    ChainContext, FlushReason,
    apply::{Applied, Shape, apply, apply_flush},
    backoff::Backoff,
    bindings::types::{BatchInfo, Error as GuestError, OpenContext, Opened},
    component::LoadedPlugin,
    failure::{BadOutput, CallError, Failure, FailureKind, Limit, guest_error_words},
    instance::Instance,
    ipc_check::{Caps, read_schema},
    places::Idle,
    types::{plain_rows, plain_schema},
    voice::Voice,
};
use crate::{
    batch::{DecodedBatch, Rejection},
    config::{OnReject, OnTrap},
    error::PipelineError,
};
use outcome::answered_code;

mod bisect;
mod circuit;
mod outcome;
pub(super) mod room;

/// Times that a batch is given again because the plugin answered `retryable`.
pub(super) const RETRYABLE_TRIES_MAX: u32 = 5;
/// Pause before such a try where the plugin names none; it doubles.
const RETRYABLE_PAUSE: Duration = Duration::from_millis(100);
/// Longest such pause, whatever the plugin asks for.
const RETRYABLE_PAUSE_MAX: Duration = Duration::from_mins(1);

/// A plugin in a lane.
pub(super) struct Stage {
    /// What it is.
    plugin: Arc<LoadedPlugin>,
    /// Where it runs.
    context: ChainContext,
    /// What it is given and what it promised.
    shape: Shape,
    /// What it says.
    voice: Arc<Voice>,
    /// Whoever is called; taken out for the time of a call, so that a dropped call leaves none.
    instance: Resting,
    /// Pause before the next instance.
    backoff: Backoff,
    /// Number of the next batch.
    sequence: u64,
    /// Whether it keeps rows between calls.
    buffers_rows: bool,
    /// Whether it may hold some now.
    holds_rows: bool,
    /// Batches in a row that failed to the last try.
    failed_batches: u32,
}

/// The instance between two calls.
enum Resting {
    /// There is none.
    Gone,
    /// Nobody else may have its place.
    Kept(Box<Instance>),
    /// It has nothing that would be lost with it.
    Idle(Idle<Instance>),
}

/// What became of a batch after all its tries.
enum Settled {
    /// It went through, or was refused by the plugin's own words.
    Done(StageOutput),
    /// The plugin failed at it.
    Failed(Failure),
}

/// What became of a batch.
#[derive(Debug, Default)]
pub(super) struct StageOutput {
    /// Rows that go on.
    pub(super) batches: Vec<DecodedBatch>,
    /// Rows that were refused, with the batch that they are rows of.
    pub(super) rejected: Vec<(DecodedBatch, Rejection)>,
}

impl Stage {
    /// Starts a plugin and agrees on the schemas.
    pub(super) async fn open(
        plugin: &Arc<LoadedPlugin>,
        input: &SchemaRef,
        context: &ChainContext,
    ) -> Result<Self, PipelineError> {
        let config = plugin.config();
        let log_bytes = config.limits.log_bytes_per_second;
        let voice = Voice::new(Arc::clone(&config.name), plugin.digest_hex(), context.clone(), log_bytes);
        let input = plain_schema(input);
        let mut stage = Self {
            plugin: Arc::clone(plugin),
            context: context.clone(),
            shape: Shape {
                plugin: Arc::clone(&config.name),
                output: Arc::clone(&input),
                input,
                caps: Caps {
                    rows: config.limits.output_rows,
                    bytes: config.limits.output_bytes,
                    logical_bytes: config.limits.output_logical_bytes,
                },
                rejections_max: config.limits.rejections,
                rejected_rows_max: config.limits.rejected_rows,
            },
            voice: Arc::new(voice),
            instance: Resting::Gone,
            backoff: Backoff::new(config.on_trap.backoff_from, config.on_trap.backoff_to),
            sequence: 0,
            buffers_rows: false,
            holds_rows: false,
            failed_batches: 0,
        };
        context.pauses.declare(&config.name);
        let mut tries = 0;
        let (instance, opened) = loop {
            match stage.start().await {
                Ok(started) => break started,
                Err(CallError::Answered(GuestError::Retryable((_, after)))) if tries < RETRYABLE_TRIES_MAX => {
                    wait_as_asked(&stage.context, after, tries).await;
                    tries += 1;
                }
                Err(error) => return Err(stage.open_failed(error)),
            }
        };
        stage.shape.output =
            stage.output_schema(&opened).map_err(|bad| stage.open_failed(CallError::Broken(bad.into())))?;
        if stage.buffers_rows && config.on_trap.bisect {
            return Err(PipelineError::stop(format!(
                "plugin {} holds rows between calls, so a batch on which it fails cannot be split: leave out \
                 on_trap.bisect",
                config.name
            )));
        }
        stage.rest(instance);
        Ok(stage)
    }

    /// What it is.
    pub(super) fn plugin(&self) -> &LoadedPlugin {
        &self.plugin
    }

    /// Where it runs.
    pub(super) fn context(&self) -> &ChainContext {
        &self.context
    }

    /// The instance, for a call that only one with state is given; gone if an earlier call was dropped.
    pub(super) fn take_kept(&mut self) -> Result<Instance, PipelineError> {
        self.take_instance().ok_or_else(|| self.lost("was ended in the middle of a call"))
    }

    /// What it has taken in since the last commit is in what it said: after a flush it holds nothing else.
    pub(super) fn settled(&mut self) {
        self.holds_rows = false;
    }

    /// Whether it may hold rows of earlier batches.
    pub(super) fn holds_rows(&self) -> bool {
        self.holds_rows
    }

    /// The schema of what leaves it.
    pub(super) fn output_schema_ref(&self) -> &SchemaRef {
        &self.shape.output
    }

    /// Gives it a batch.
    pub(super) async fn process(&mut self, batch: DecodedBatch) -> Result<StageOutput, PipelineError> {
        let rows = plain_rows(&batch.rows, &self.shape.input).map_err(|error| {
            PipelineError::stop(format!("plugin {} was given rows of another schema", self.shape.plugin)).because(error)
        })?;
        let batch = DecodedBatch { rows, origin: batch.origin };
        if batch.rows.num_rows() == 0 {
            return Ok(StageOutput::default());
        }
        let sequence = self.sequence;
        self.sequence += 1;
        let OnTrap { retries, then, open_circuit_after, .. } = self.plugin.config().on_trap;
        let mut attempt = 1;
        let failure = match self.settle(&batch, sequence, &mut attempt, retries).await? {
            Settled::Done(output) => {
                self.failed_batches = 0;
                return Ok(output);
            }
            Settled::Failed(failure) => failure,
        };
        self.failed_batches = self.failed_batches.saturating_add(1);
        if then != OnReject::Fail && open_circuit_after > 0 && self.failed_batches >= open_circuit_after {
            return self.hold(&batch, sequence, &mut attempt, failure).await;
        }
        let message = format!("plugin {} {}", self.shape.plugin, failure.message);
        self.give_up(&batch, failure.kind.code(), &message, then)
    }

    /// Tries a batch until it is through, or the plugin has failed at it once more than `retries` times.
    async fn settle(
        &mut self,
        batch: &DecodedBatch,
        sequence: u64,
        attempt: &mut u32,
        retries: u32,
    ) -> Result<Settled, PipelineError> {
        let (mut traps, mut waits) = (0, 0);
        loop {
            let info = BatchInfo { sequence, attempt: *attempt, attributes: Vec::new() };
            let error = match self.attempt(batch, &info).await {
                Ok(applied) => return self.accept(batch, applied).map(Settled::Done),
                Err(error) => error,
            };
            *attempt = attempt.saturating_add(1);
            match error {
                CallError::Answered(GuestError::Retryable((_, after))) if waits < RETRYABLE_TRIES_MAX => {
                    wait_as_asked(&self.context, after, waits).await;
                    waits += 1;
                }
                CallError::Answered(error) => {
                    let (code, then) = (answered_code(&error), self.plugin.config().on_reject);
                    return self.give_up(batch, code, &guest_error_words(&error), then).map(Settled::Done);
                }
                CallError::Stopped(words) => return Err(PipelineError::restart(words)),
                CallError::Broken(failure) => {
                    self.check_nothing_lost(&failure)?;
                    if traps < retries {
                        traps += 1;
                        self.context.metrics.retried("plugin-batch");
                    } else if self.plugin.config().on_trap.bisect {
                        return self.bisect(batch, sequence, *attempt, failure).await;
                    } else {
                        return Ok(Settled::Failed(failure));
                    }
                }
            }
        }
    }

    /// Asks for the rows that it held back.
    pub(super) async fn flush(&mut self, reason: FlushReason) -> Result<Vec<DecodedBatch>, PipelineError> {
        // A plugin that is between two instances holds nothing.
        let Some(mut instance) = self.take_instance() else {
            return Ok(Vec::new());
        };
        let mut tries = 0;
        loop {
            let started = Instant::now();
            let answer = instance.flush(reason.into()).await;
            let answer = answer.and_then(|payload| Ok(apply_flush(payload, &self.shape)?));
            self.count_call(&answer, started);
            match answer {
                Ok(batches) => {
                    self.holds_rows = false;
                    self.rest(instance);
                    return Ok(batches);
                }
                Err(CallError::Answered(GuestError::Retryable((_, after)))) if tries < RETRYABLE_TRIES_MAX => {
                    wait_as_asked(&self.context, after, tries).await;
                    tries += 1;
                }
                Err(CallError::Answered(error)) => {
                    let words = format!("plugin {} cannot flush: {}", self.shape.plugin, guest_error_words(&error));
                    return Err(match error {
                        GuestError::Retryable(_) => PipelineError::retry(words),
                        _ => PipelineError::stop(words),
                    });
                }
                Err(CallError::Stopped(words)) => return Err(PipelineError::restart(words)),
                Err(CallError::Broken(failure)) => {
                    drop(instance);
                    self.broken(&failure);
                    self.check_nothing_lost(&failure)?;
                    return Ok(Vec::new());
                }
            }
        }
    }

    /// Says good-bye.
    pub(super) async fn close(&mut self) {
        if let Some(instance) = self.take_instance()
            && let Err(failure) = instance.close().await
        {
            self.broken(&failure);
        }
    }

    /// The instance, if it is still there.
    fn take_instance(&mut self) -> Option<Instance> {
        match std::mem::replace(&mut self.instance, Resting::Gone) {
            Resting::Gone => None,
            Resting::Kept(instance) => Some(*instance),
            Resting::Idle(idle) => idle.wake(),
        }
    }

    /// Puts the instance down after a call; without rows or state in it, others may need its place more.
    pub(super) fn rest(&mut self, instance: Instance) {
        self.instance = if self.holds_rows || self.plugin.has_state() {
            Resting::Kept(Box::new(instance))
        } else {
            let (places, holder) = (instance.place().places().clone(), instance.place().holder().clone());
            Resting::Idle(places.park(holder, instance))
        };
    }

    /// One try of one batch, in a fresh instance if there is none.
    async fn attempt(&mut self, batch: &DecodedBatch, info: &BatchInfo) -> Result<Applied, CallError> {
        let mut instance = match self.take_instance() {
            Some(instance) => instance,
            None => self.restart().await?,
        };
        let started = Instant::now();
        let answer = instance.process(batch.rows.clone(), info).await;
        let answer = answer.and_then(|output| Ok(apply(output, batch, &self.shape)?));
        self.count_call(&answer, started);
        match answer {
            Ok(applied) => {
                self.holds_rows |= self.buffers_rows;
                self.rest(instance);
                self.backoff.reset();
                Ok(applied)
            }
            Err(CallError::Broken(failure)) => {
                drop(instance);
                self.broken(&failure);
                Err(CallError::Broken(failure))
            }
            Err(error) => {
                self.rest(instance);
                Err(error)
            }
        }
    }

    /// A fresh instance after a failure, when its time has come.
    async fn restart(&mut self) -> Result<Instance, CallError> {
        if self.plugin.has_state() {
            // A fresh one would go on with empty state.
            return Err(Failure {
                kind: FailureKind::Trap,
                message: "was ended in the middle of a call".to_owned(),
                limit: None,
            }
            .into());
        }
        let pause = self.backoff.remaining();
        if !pause.is_zero() {
            self.context.metrics.waited("plugin-backoff", pause.as_secs_f64());
            let stop = self.context.pauses.stop().clone();
            // A pipeline that ends waits no longer than it must.
            let _ = tokio::time::timeout(pause, stop.cancelled()).await;
        }
        let started = self.start().await;
        let checked = started.and_then(|(instance, opened)| {
            let output = self.output_schema(&opened)?;
            if output.fields() == self.shape.output.fields() {
                Ok(instance)
            } else {
                Err(BadOutput::new("answered another output schema than before when it was started again").into())
            }
        });
        checked.map_err(|error| {
            let failure = match error {
                CallError::Broken(failure) => failure,
                CallError::Stopped(_) => return error,
                // It agreed to the same config and schema before, so this is no fault of the configuration.
                CallError::Answered(error) => Failure {
                    kind: FailureKind::Trap,
                    message: format!("could not be started again: {}", guest_error_words(&error)),
                    limit: None,
                },
            };
            self.broken(&failure);
            CallError::Broken(failure)
        })
    }

    /// A fresh instance with `describe` and `open` called.
    async fn start(&mut self) -> Result<(Instance, Opened), CallError> {
        let (mut instance, descriptor) = loop {
            let place = room::place(&self.context, &self.plugin).await?;
            match Instance::start_described(&self.plugin, &self.voice, place).await {
                // Another plugin has more than one memory in a place.
                Err(failure) if failure.limit == Some(Limit::Instances) => {
                    room::wait_for_room(&self.context, &self.plugin).await?;
                }
                // Its tenant may have others that do nothing.
                Err(failure)
                    if failure.limit == Some(Limit::TenantMemory)
                        && self.plugin.shared().places.make_room_of(&self.context.tenant) => {}
                started => break started?,
            }
        };
        self.buffers_rows = descriptor.buffers_rows;
        let attribute = |key: &str, value: String| (key.to_owned(), value);
        let context = OpenContext {
            config: self.plugin.config().config_json.clone(),
            input_schema: encode_schema(&self.shape.input)?,
            attributes: vec![
                attribute("pipeline", self.context.pipeline.to_string()),
                attribute("plugin", self.shape.plugin.to_string()),
                attribute("tenant", self.context.tenant.to_string()),
                attribute("lane", self.context.lane.to_string()),
                attribute("host-version", env!("CARGO_PKG_VERSION").to_owned()),
            ],
        };
        let opened = instance.open(&context).await?;
        Ok((instance, opened))
    }

    /// What `open` declared.
    fn output_schema(&self, opened: &Opened) -> Result<SchemaRef, BadOutput> {
        match &opened.output_schema {
            None => Ok(Arc::clone(&self.shape.input)),
            Some(stream) => read_schema(stream, &self.shape.input).map(Arc::new),
        }
    }

    /// Counts and logs a failure and sets the pause before the next instance.
    pub(super) fn broken(&mut self, failure: &Failure) {
        let pause = self.backoff.failed();
        self.context.metrics.plugin_trapped(&self.shape.plugin, failure.kind.code());
        if let Some(limit) = failure.limit {
            self.context.metrics.plugin_limit_hit(&self.shape.plugin, limit.as_str());
        }
        self.tell_memory();
        tracing::warn!(
            plugin = &*self.shape.plugin,
            sha256 = self.plugin.digest_hex(),
            pipeline = &*self.context.pipeline,
            tenant = &*self.context.tenant,
            lane = self.context.lane,
            reason = failure.kind.code(),
            "the plugin {}; a fresh instance starts in {} ms",
            failure.message,
            pause.as_millis()
        );
    }

    /// A plugin that held rows of earlier batches, or state, has lost them: only reading them again helps.
    fn check_nothing_lost(&self, failure: &Failure) -> Result<(), PipelineError> {
        if self.holds_rows || self.plugin.has_state() { Err(self.lost(&failure.message)) } else { Ok(()) }
    }

    /// The lane has to begin anew from what is committed.
    pub(super) fn lost(&self, message: &str) -> PipelineError {
        PipelineError::restart(format!(
            "plugin {} {message}; what it held of earlier batches is lost, so everything since the last commit must be read \
             again",
            self.shape.plugin
        ))
    }

    /// Counts a call.
    pub(super) fn count_call<T>(&self, answer: &Result<T, CallError>, started: Instant) {
        let outcome = match answer {
            Ok(_) => "ok",
            Err(CallError::Answered(_)) => "error",
            Err(CallError::Stopped(_)) => "stopped",
            Err(CallError::Broken(failure)) => failure.kind.code(),
        };
        let (metrics, plugin) = (&self.context.metrics, &self.shape.plugin);
        metrics.plugin_called(plugin, outcome, started.elapsed().as_secs_f64());
        self.tell_memory();
    }

    /// Tells what its instances hold now.
    fn tell_memory(&self) {
        let (bytes, peak_bytes) = self.plugin.shared().memory.read();
        self.context.metrics.plugin_memory(&self.shape.plugin, bytes as u64, peak_bytes as u64);
    }
}

/// Waits before the same batch is given again. Not a method: a shared borrow of a `Stage` cannot be held while waiting.
pub(super) async fn wait_as_asked(context: &ChainContext, after_ms: Option<u32>, tries: u32) {
    let asked = after_ms.map(|ms| Duration::from_millis(ms.into()));
    let pause = asked.unwrap_or(RETRYABLE_PAUSE * 2_u32.pow(tries)).min(RETRYABLE_PAUSE_MAX);
    context.metrics.retried("plugin-asked");
    context.metrics.waited("plugin-retryable", pause.as_secs_f64());
    tokio::time::sleep(pause).await;
}

/// A schema as an IPC stream without rows.
fn encode_schema(schema: &SchemaRef) -> Result<Vec<u8>, BadOutput> {
    arrow_ipc::writer::StreamWriter::try_new(Vec::new(), schema)
        .and_then(arrow_ipc::writer::StreamWriter::into_inner)
        .map_err(|error| BadOutput::new(format!("cannot be given the schema of its input: {error}")))
}
