//! What `/healthz` and `/readyz` tell about each pipeline.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

/// The life of a pipeline.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PipelineState {
    /// Loading plugins, reaching its servers.
    Starting,
    /// Moving records.
    Running,
    /// Running, and held up by something that it waits for by itself, in these words.
    Waiting(String),
    /// Ended as asked, or at the end of its source.
    Stopped,
    /// Ended by a failure, in these words.
    Failed(String),
}

/// The states of all pipelines. Cloning shares them.
#[derive(Clone, Debug, Default)]
pub struct Health(Arc<Mutex<Known>>);

/// What is known.
#[derive(Debug, Default)]
struct Known {
    /// By name; never `Waiting`.
    states: BTreeMap<String, PipelineState>,
    /// What holds pipelines up, by name.
    waiting: BTreeMap<String, String>,
    /// Lines about the configuration.
    notes: Vec<String>,
}

impl Health {
    /// What is known; a panic elsewhere leaves it usable.
    fn known(&self) -> MutexGuard<'_, Known> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes the state of a pipeline.
    pub fn set_pipeline(&self, name: &str, state: PipelineState) {
        self.known().states.insert(name.to_owned(), state);
    }

    /// Forgets a pipeline.
    pub fn remove(&self, name: &str) {
        let mut known = self.known();
        known.states.remove(name);
        known.waiting.remove(name);
    }

    /// Lines about the configuration, in the place of those before.
    pub fn set_notes(&self, notes: Vec<String>) {
        self.known().notes = notes;
    }

    /// Lines about the configuration.
    #[must_use]
    pub fn notes(&self) -> Vec<String> {
        self.known().notes.clone()
    }

    /// Notes what a running pipeline waits for, or that it goes on.
    pub fn set_waiting(&self, name: &str, reason: Option<String>) {
        let mut known = self.known();
        match reason {
            Some(reason) => known.waiting.insert(name.to_owned(), reason),
            None => known.waiting.remove(name),
        };
    }

    /// Whether it is of no use to start the process anew: none has failed, or others go on, which would be torn down with it.
    #[must_use]
    pub fn is_healthy(&self) -> bool {
        let states = self.states();
        let has = |is: fn(&PipelineState) -> bool| states.values().any(is);
        !has(|state| matches!(state, PipelineState::Failed(_)))
            || has(|state| !matches!(state, PipelineState::Failed(_) | PipelineState::Stopped))
    }

    /// Whether every pipeline is past its start and held up by nothing.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        let states = self.states();
        !states.is_empty()
            && states.values().all(|state| matches!(state, PipelineState::Running | PipelineState::Stopped))
    }

    /// A copy of all states.
    #[must_use]
    pub fn states(&self) -> BTreeMap<String, PipelineState> {
        let known = self.known();
        let mut states = known.states.clone();
        for (name, reason) in &known.waiting {
            if let Some(state) = states.get_mut(name).filter(|state| **state == PipelineState::Running) {
                *state = PipelineState::Waiting(reason.clone());
            }
        }
        states
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ready_once_all_run_and_unhealthy_once_one_has_failed_and_none_runs() {
        let health = Health::default();
        assert!(health.is_healthy() && !health.is_ready());
        health.set_pipeline("a", PipelineState::Running);
        health.set_pipeline("b", PipelineState::Starting);
        assert!(health.is_healthy() && !health.is_ready());
        health.set_pipeline("b", PipelineState::Stopped);
        assert!(health.is_healthy() && health.is_ready());
        health.set_pipeline("a", PipelineState::Failed("why".into()));
        assert!(!health.is_healthy() && !health.is_ready());
        health.set_pipeline("b", PipelineState::Running);
        assert!(health.is_healthy() && !health.is_ready(), "others are not torn down for one");
    }

    #[test]
    fn a_pipeline_that_waits_is_healthy_and_not_ready() {
        let health = Health::default();
        health.set_pipeline("a", PipelineState::Running);
        health.set_waiting("a", Some("plugin p traps".into()));
        assert!(health.is_healthy() && !health.is_ready());
        assert_eq!(health.states()["a"], PipelineState::Waiting("plugin p traps".into()));
        // What it has come to counts for more than what it waited for.
        health.set_pipeline("a", PipelineState::Failed("why".into()));
        assert_eq!(health.states()["a"], PipelineState::Failed("why".into()));
        health.set_pipeline("a", PipelineState::Running);
        health.set_waiting("a", None);
        assert!(health.is_ready());
    }
}
