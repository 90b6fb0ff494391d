//! One plugin in one lane: its instance, and what happens when a call goes wrong.
//!
//! Promises: a batch comes out as rows, rejections or an error that stops the pipeline, never not at all and never
//! endlessly tried; an instance that trapped, ran out of time or answered garbage is thrown away, and the next one
//! starts after a pause that doubles until a batch goes well. Waiting never blocks the thread.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use arrow_schema::SchemaRef;

use super::{
    ChainContext, FlushReason,
    apply::{Applied, Shape, apply, apply_flush},
    backoff::Backoff,
    batches::BatchResource,
    bindings::types::{BatchInfo, Error as GuestError, OpenContext, Opened},
    component::LoadedPlugin,
    failure::{BadOutput, CallError, Failure, FailureKind, clean, guest_error_words},
    instance::Instance,
    ipc_check::{Caps, read_schema},
    types::{plain_rows, plain_schema},
    voice::Voice,
};
use crate::{
    batch::{DecodedBatch, Rejection, Stage as Place},
    config::OnReject,
    error::PipelineError,
};

/// Times that a batch is given again because the plugin answered `retryable`.
const RETRYABLE_TRIES_MAX: u32 = 5;
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
    instance: Option<Instance>,
    /// Pause before the next instance.
    backoff: Backoff,
    /// Number of the next batch.
    sequence: u64,
    /// Whether it keeps rows between calls.
    buffers_rows: bool,
    /// Whether it may hold some now.
    holds_rows: bool,
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
        let voice = Voice::new(Arc::clone(&config.name), context.clone(), config.limits.log_bytes_per_second);
        let input = plain_schema(input);
        let mut stage = Self {
            plugin: Arc::clone(plugin),
            context: context.clone(),
            shape: Shape {
                plugin: Arc::clone(&config.name),
                output: Arc::clone(&input),
                input,
                caps: Caps { rows: config.limits.output_rows, bytes: config.limits.output_bytes },
            },
            voice: Arc::new(voice),
            instance: None,
            backoff: Backoff::new(config.on_trap.backoff_from, config.on_trap.backoff_to),
            sequence: 0,
            buffers_rows: false,
            holds_rows: false,
        };
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
        stage.instance = Some(instance);
        Ok(stage)
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
        let (mut attempt, mut traps, mut waits) = (1, 0, 0);
        loop {
            let error = match self.attempt(&batch, sequence, attempt).await {
                Ok(applied) => return self.accept(&batch, applied),
                Err(error) => error,
            };
            attempt += 1;
            match error {
                CallError::Answered(GuestError::Retryable((_, after))) if waits < RETRYABLE_TRIES_MAX => {
                    wait_as_asked(&self.context, after, waits).await;
                    waits += 1;
                }
                CallError::Answered(error) => {
                    let code = match error {
                        GuestError::Retryable(_) => "plugin-unavailable",
                        _ => "plugin-failed",
                    };
                    let then = self.plugin.config().on_reject;
                    return self.give_up(&batch, code, &guest_error_words(&error), then);
                }
                CallError::Broken(failure) => {
                    self.check_nothing_lost(&failure)?;
                    if traps == self.plugin.config().on_trap.retries {
                        let then = self.plugin.config().on_trap.then;
                        let message = format!("plugin {} {}", self.shape.plugin, failure.message);
                        return self.give_up(&batch, failure.kind.code(), &message, then);
                    }
                    traps += 1;
                    self.context.metrics.retried("plugin-batch");
                }
            }
        }
    }

    /// Asks for the rows that it held back.
    pub(super) async fn flush(&mut self, reason: FlushReason) -> Result<Vec<DecodedBatch>, PipelineError> {
        // A plugin that is between two instances holds nothing.
        let Some(mut instance) = self.instance.take() else {
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
                    self.instance = Some(instance);
                    self.holds_rows = false;
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
                Err(CallError::Broken(failure)) => {
                    self.broken(&failure);
                    self.check_nothing_lost(&failure)?;
                    return Ok(Vec::new());
                }
            }
        }
    }

    /// Says good-bye.
    pub(super) async fn close(&mut self) {
        if let Some(instance) = self.instance.take()
            && let Err(failure) = instance.close().await
        {
            self.broken(&failure);
        }
    }

    /// One try of one batch, in a fresh instance if there is none.
    async fn attempt(&mut self, batch: &DecodedBatch, sequence: u64, attempt: u32) -> Result<Applied, CallError> {
        let mut instance = match self.instance.take() {
            Some(instance) => instance,
            None => self.restart().await?,
        };
        let info = BatchInfo { sequence, attempt, attributes: Vec::new() };
        let started = Instant::now();
        let answer = instance.process(BatchResource::new(batch.rows.clone()), &info).await;
        let answer = answer.and_then(|output| Ok(apply(output, batch, &self.shape)?));
        self.count_call(&answer, started);
        match answer {
            Ok(applied) => {
                self.instance = Some(instance);
                self.holds_rows |= self.buffers_rows;
                self.backoff.reset();
                Ok(applied)
            }
            Err(CallError::Answered(error)) => {
                self.instance = Some(instance);
                Err(CallError::Answered(error))
            }
            Err(CallError::Broken(failure)) => {
                self.broken(&failure);
                Err(CallError::Broken(failure))
            }
        }
    }

    /// A fresh instance after a failure, when its time has come.
    async fn restart(&mut self) -> Result<Instance, CallError> {
        let pause = self.backoff.remaining();
        if !pause.is_zero() {
            self.context.metrics.waited("plugin-backoff", pause.as_secs_f64());
            tokio::time::sleep(pause).await;
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
                // It agreed to the same config and schema before, so this is no fault of the configuration.
                CallError::Answered(error) => Failure {
                    kind: FailureKind::Trap,
                    message: format!("could not be started again: {}", guest_error_words(&error)),
                },
            };
            self.broken(&failure);
            CallError::Broken(failure)
        })
    }

    /// A fresh instance with `describe` and `open` called.
    async fn start(&mut self) -> Result<(Instance, Opened), CallError> {
        let mut instance = Instance::start(&self.plugin, &self.voice).await?;
        self.buffers_rows = instance.describe().await?.buffers_rows;
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
    fn broken(&mut self, failure: &Failure) {
        let pause = self.backoff.failed();
        self.context.metrics.plugin_trapped(&self.shape.plugin, failure.kind.code());
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

    /// A plugin that held rows of earlier batches has lost them: only reading them again helps.
    fn check_nothing_lost(&self, failure: &Failure) -> Result<(), PipelineError> {
        if !self.holds_rows {
            return Ok(());
        }
        let (plugin, message) = (&self.shape.plugin, &failure.message);
        Err(PipelineError::retry(format!(
            "plugin {plugin} {message}; rows of earlier batches that it held are lost, so everything since the last \
             commit must be read again"
        )))
    }

    /// Counts a call.
    fn count_call<T>(&self, answer: &Result<T, CallError>, started: Instant) {
        let outcome = match answer {
            Ok(_) => "ok",
            Err(CallError::Answered(_)) => "error",
            Err(CallError::Broken(failure)) => failure.kind.code(),
        };
        self.context.metrics.plugin_called(&self.shape.plugin, outcome, started.elapsed().as_secs_f64());
    }

    /// Hands on what became of a batch.
    fn accept(&self, batch: &DecodedBatch, applied: Applied) -> Result<StageOutput, PipelineError> {
        if applied.filtered > 0 {
            self.context.metrics.filtered(&self.shape.plugin, applied.filtered as u64);
        }
        let mut output = StageOutput { batches: applied.batches, rejected: Vec::new() };
        for rejection in applied.rejected {
            self.refuse(batch, rejection, self.plugin.config().on_reject, &mut output)?;
        }
        Ok(output)
    }

    /// Refuses a whole batch.
    fn give_up(
        &self,
        batch: &DecodedBatch,
        code: &str,
        message: &str,
        then: OnReject,
    ) -> Result<StageOutput, PipelineError> {
        let rows = u32::try_from(batch.rows.num_rows()).unwrap_or(u32::MAX);
        tracing::error!(
            plugin = &*self.shape.plugin,
            pipeline = &*self.context.pipeline,
            tenant = &*self.context.tenant,
            code,
            rows,
            "a whole batch is refused: {message}"
        );
        let rejection = Rejection {
            rows: (0..rows).collect(),
            stage: Place::Plugin,
            plugin: Some(Arc::clone(&self.shape.plugin)),
            code: code.to_owned(),
            message: clean(message),
        };
        let mut output = StageOutput::default();
        self.refuse(batch, rejection, then, &mut output)?;
        Ok(output)
    }

    /// Refused rows become dead letters, are dropped, or stop the pipeline.
    fn refuse(
        &self,
        batch: &DecodedBatch,
        rejection: Rejection,
        then: OnReject,
        output: &mut StageOutput,
    ) -> Result<(), PipelineError> {
        let rows = rejection.rows.len();
        match then {
            OnReject::DeadLetter => output.rejected.push((batch.clone(), rejection)),
            OnReject::Drop => {
                let metrics = &self.context.metrics;
                metrics.rejected(Place::Plugin.as_str(), &self.shape.plugin, &rejection.code, rows as u64);
                metrics.dropped(rows as u64);
            }
            OnReject::Fail => {
                let Rejection { code, message, .. } = &rejection;
                return Err(PipelineError::stop(format!(
                    "plugin {} refused {rows} rows and is configured to stop the pipeline then: {code}: {message}",
                    self.shape.plugin
                )));
            }
        }
        Ok(())
    }

    /// The words for a plugin that cannot be started.
    fn open_failed(&self, error: CallError) -> PipelineError {
        let (plugin, path) = (&self.shape.plugin, self.plugin.config().path.display());
        match error {
            CallError::Answered(GuestError::InvalidConfig(message)) => {
                PipelineError::stop(format!("plugin {plugin} refuses its config: {}", clean(&message)))
            }
            CallError::Answered(GuestError::UnsupportedSchema(message)) => {
                let schema = &self.shape.input;
                let columns: Vec<_> =
                    schema.fields().iter().map(|field| format!("{}: {}", field.name(), field.data_type())).collect();
                PipelineError::stop(clean(&format!(
                    "plugin {plugin} cannot work on these rows: {message}; it was given ({})",
                    columns.join(", ")
                )))
            }
            CallError::Answered(error @ GuestError::Retryable(_)) => PipelineError::retry(format!(
                "plugin {plugin} cannot start now, after {RETRYABLE_TRIES_MAX} more tries: {}",
                guest_error_words(&error)
            )),
            CallError::Answered(error) => {
                PipelineError::stop(format!("plugin {plugin} cannot start: {}", guest_error_words(&error)))
            }
            CallError::Broken(failure) => {
                PipelineError::stop(format!("plugin {plugin} ({path}) cannot start: it {}", failure.message))
            }
        }
    }
}

/// Waits before the same batch is given again. Not a method: a shared borrow of a `Stage` cannot be held while waiting.
async fn wait_as_asked(context: &ChainContext, after_ms: Option<u32>, tries: u32) {
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
