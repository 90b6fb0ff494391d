//! The state of plugins: taken after `flush`, given back after `open`.
//!
//! Comes in: a chain that was flushed, or that was just opened. Goes out: the bytes that its plugins said, or plugins that go on
//! from bytes that were said before. Promises: a chain goes on with the state of all its plugins, or it does not start; a
//! snapshot is within `limits.state_bytes` and its call within `limits.call_timeout`; a plugin with state that is lost ends the
//! lane, which begins anew from what is committed, never with an empty one in its place.
//!
//! A plugin is found by its name in the configuration. One whose component is another than before is offered what the old one
//! said; whether it can read that is its own affair, and it says so by an error.

use std::{collections::BTreeSet, sync::Arc, time::Instant};

use bytes::Bytes;

use super::{
    Chain, ChainContext,
    bindings::types::Error as GuestError,
    component::LoadedPlugin,
    failure::{BadOutput, CallError, guest_error_words},
    policy::{RETRYABLE_TRIES_MAX, Stage, wait_as_asked},
};
use crate::{batch::PluginState, error::PipelineError};

impl Chain {
    /// What its plugins keep, right after a flush; of those that have state, also where they say nothing.
    pub async fn snapshot(&mut self) -> Result<Vec<PluginState>, PipelineError> {
        let mut states = Vec::new();
        for stage in self.stages.iter_mut().filter(|stage| stage.plugin().has_state()) {
            let bytes = stage.snapshot().await?;
            let (plugin, component) = (Arc::clone(&stage.plugin().config().name), stage.plugin().digest_hex());
            states.push(PluginState { plugin, component, bytes });
        }
        Ok(states)
    }

    /// Gives plugins back what they said; right after they were opened. One of which nothing was said begins empty.
    pub async fn restore(&mut self, states: Vec<PluginState>) -> Result<(), PipelineError> {
        for state in states {
            let named = |stage: &&mut Stage| stage.plugin().config().name == state.plugin;
            match self.stages.iter_mut().find(named) {
                Some(stage) if stage.plugin().has_state() => stage.restore(state).await?,
                // It kept nothing when it was taken out.
                None if state.bytes.is_empty() => {}
                _ => return Err(nobody_reads(&state.plugin, &state.component, state.bytes.len() as u64)),
            }
        }
        Ok(())
    }
}

/// Whether a plugin of a chain keeps state, so that each source partition needs a chain of its own.
#[must_use]
pub fn keeps_state(plugins: &[Arc<LoadedPlugin>]) -> bool {
    plugins.iter().any(|plugin| plugin.has_state())
}

/// Fails where there is no ledger to keep state in, or where the state of two plugins could not be told apart.
pub fn check_ledger(plugins: &[Arc<LoadedPlugin>], has_ledger: bool) -> Result<(), PipelineError> {
    let mut names = BTreeSet::new();
    let named = plugins.iter().filter(|plugin| plugin.has_state()).map(|plugin| &plugin.config().name);
    if let Some(twice) = named.into_iter().find(|name| !names.insert(Arc::clone(name))) {
        return Err(PipelineError::stop(format!(
            "two plugins that keep state are named {twice}: give each a `name` of its own, since their state is recorded by it"
        )));
    }
    match plugins.iter().find(|plugin| plugin.has_state()) {
        Some(plugin) if !has_ledger => Err(PipelineError::stop(format!(
            "plugin {} keeps state (it exports fs-data-sink:plugin/state), which is kept with the positions in the ledger: set \
             `pipeline.delivery: exactly_once`. Lists of Redis and standard input have no positions, and cannot feed such a plugin",
            plugin.config().name
        ))),
        _ => Ok(()),
    }
}

impl Stage {
    /// What it keeps.
    async fn snapshot(&mut self) -> Result<Bytes, PipelineError> {
        let limit = self.plugin().config().limits.state_bytes;
        let mut instance = self.take_kept()?;
        let mut tries = 0;
        let answer = loop {
            let started = Instant::now();
            let answer = instance.snapshot(limit).await.and_then(|bytes| within(bytes, limit));
            self.count_call(&answer, started);
            if !ask_again(self.context(), &answer, &mut tries).await {
                break answer;
            }
        };
        match answer {
            Ok(bytes) => {
                self.rest(instance);
                self.settled();
                self.context().metrics.plugin_state(&self.plugin().config().name, bytes.len() as u64);
                Ok(Bytes::from(bytes))
            }
            // The instance lives, but what it keeps cannot be recorded, so nothing can be committed.
            Err(CallError::Answered(error)) => {
                Err(self.lost(&format!("cannot say its state (`snapshot`): {}", guest_error_words(&error))))
            }
            Err(CallError::Broken(failure)) => {
                self.broken(&failure);
                Err(self.lost(&failure.message))
            }
            Err(CallError::Stopped(words)) => Err(PipelineError::restart(words)),
        }
    }

    /// Goes on from what was said before.
    async fn restore(&mut self, state: PluginState) -> Result<(), PipelineError> {
        let PluginState { component, bytes, .. } = state;
        let mut instance = self.take_kept()?;
        let mut tries = 0;
        let answer = loop {
            let started = Instant::now();
            let answer = instance.restore(&bytes).await;
            self.count_call(&answer, started);
            if !ask_again(self.context(), &answer, &mut tries).await {
                break answer;
            }
        };
        let why = match answer {
            Ok(()) => {
                self.rest(instance);
                return Ok(());
            }
            Err(CallError::Answered(error)) => guest_error_words(&error),
            Err(CallError::Broken(failure)) => {
                self.broken(&failure);
                failure.message
            }
            Err(CallError::Stopped(words)) => return Err(PipelineError::restart(words)),
        };
        let now = self.plugin().digest_hex();
        let who = if component == now {
            String::new()
        } else {
            format!(", which another component wrote (SHA-256 {component})")
        };
        Err(PipelineError::stop(format!(
            "plugin {} cannot go on from its recorded state of {} bytes{who}: {why}. Use a component that reads \
             it (this one has SHA-256 {now}). A pipeline with another `name` starts without state, and begins where its consumer \
             group or `source.start` says",
            self.plugin().config().name,
            bytes.len()
        )))
    }
}

/// Whether a plugin wants to be called again, after the pause that it asked for.
async fn ask_again<T: Sync>(context: &ChainContext, answer: &Result<T, CallError>, tries: &mut u32) -> bool {
    match answer {
        Err(CallError::Answered(GuestError::Retryable((_, after)))) if *tries < RETRYABLE_TRIES_MAX => {
            wait_as_asked(context, *after, *tries).await;
            *tries += 1;
            true
        }
        _ => false,
    }
}

/// A snapshot that is not too large.
fn within(bytes: Vec<u8>, limit: usize) -> Result<Vec<u8>, CallError> {
    if bytes.len() <= limit {
        return Ok(bytes);
    }
    let words = format!("answered {} bytes to `snapshot`; it may have {limit} (limits.state_bytes)", bytes.len());
    Err(BadOutput::new(words).into())
}

/// Fails where there is state of a plugin that is not there any more: each with its name, its component and how much it is.
pub fn check_readers<'a>(
    plugins: &[Arc<LoadedPlugin>],
    states: impl IntoIterator<Item = (&'a str, &'a str, u64)>,
) -> Result<(), PipelineError> {
    let is_read = |name: &str| plugins.iter().any(|plugin| plugin.has_state() && *plugin.config().name == *name);
    match states.into_iter().find(|(plugin, _, bytes)| *bytes > 0 && !is_read(plugin)) {
        Some((plugin, component, bytes)) => Err(nobody_reads(plugin, component, bytes)),
        None => Ok(()),
    }
}

/// The error for state of a plugin that is not there.
fn nobody_reads(plugin: &str, component: &str, bytes: u64) -> PipelineError {
    PipelineError::stop(format!(
        "the ledger has {bytes} bytes of state of plugin {plugin} (component {component}), and the pipeline has no plugin of this name \
         with state: what it keeps would be lost. Put it back under this name. A pipeline with another `name` starts without \
         state, and begins where its consumer group or `source.start` says"
    ))
}
