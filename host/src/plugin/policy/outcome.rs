//! What is handed on of a batch, and what is told: rows, refused rows, and the words for a plugin that cannot start.

use std::sync::Arc;

use super::{RETRYABLE_TRIES_MAX, Stage, StageOutput};
use crate::{
    batch::{DecodedBatch, Rejection, Stage as Place},
    config::OnReject,
    error::PipelineError,
    plugin::{
        apply::Applied,
        bindings::types::Error as GuestError,
        failure::{CallError, clean, guest_error_words},
    },
};

impl Stage {
    /// Hands on what became of a batch.
    pub(super) fn accept(&self, batch: &DecodedBatch, applied: Applied) -> Result<StageOutput, PipelineError> {
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
    pub(super) fn give_up(
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
        let rejection = self.rejection((0..rows).collect(), code, message);
        let mut output = StageOutput::default();
        self.refuse(batch, rejection, then, &mut output)?;
        Ok(output)
    }

    /// Refused rows become dead letters, are dropped, or stop the pipeline.
    pub(super) fn refuse(
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

    /// Rows that are refused for one reason.
    pub(super) fn rejection(&self, rows: Vec<u32>, code: &str, message: &str) -> Rejection {
        Rejection {
            rows,
            stage: Place::Plugin,
            plugin: Some(Arc::clone(&self.shape.plugin)),
            code: code.to_owned(),
            message: clean(message),
        }
    }

    /// The words for a plugin that cannot be started.
    pub(super) fn open_failed(&self, error: CallError) -> PipelineError {
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
            CallError::Stopped(words) => PipelineError::restart(words),
            CallError::Broken(failure) => {
                if let Some(limit) = failure.limit {
                    self.context.metrics.plugin_limit_hit(plugin, limit.as_str());
                }
                PipelineError::stop(format!("plugin {plugin} ({path}) cannot start: it {}", failure.message))
            }
        }
    }
}

/// The code of a batch that the plugin refused as a whole by an error.
pub(super) fn answered_code(error: &GuestError) -> &'static str {
    match error {
        GuestError::Retryable(_) => "plugin-unavailable",
        _ => "plugin-failed",
    }
}
