//! What `/healthz` and `/readyz` tell about each pipeline.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
};

/// The life of a pipeline.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PipelineState {
    /// Loading plugins, reaching its servers.
    Starting,
    /// Moving records.
    Running,
    /// Ended as asked, or at the end of its source.
    Stopped,
    /// Ended by a failure, in these words.
    Failed(String),
}

/// The states of all pipelines. Cloning shares them.
#[derive(Clone, Debug, Default)]
pub struct Health(Arc<Mutex<BTreeMap<String, PipelineState>>>);

impl Health {
    /// Notes the state of a pipeline.
    pub fn set_pipeline(&self, name: &str, state: PipelineState) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(name.to_owned(), state);
    }

    /// Whether no pipeline has failed.
    #[must_use]
    pub fn is_healthy(&self) -> bool {
        !self.states().values().any(|state| matches!(state, PipelineState::Failed(_)))
    }

    /// Whether every pipeline is past its start.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        let states = self.states();
        !states.is_empty()
            && states.values().all(|state| matches!(state, PipelineState::Running | PipelineState::Stopped))
    }

    /// A copy of all states.
    #[must_use]
    pub fn states(&self) -> BTreeMap<String, PipelineState> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ready_once_all_run_and_unhealthy_once_one_has_failed() {
        let health = Health::default();
        assert!(health.is_healthy() && !health.is_ready());
        health.set_pipeline("a", PipelineState::Running);
        health.set_pipeline("b", PipelineState::Starting);
        assert!(health.is_healthy() && !health.is_ready());
        health.set_pipeline("b", PipelineState::Stopped);
        assert!(health.is_healthy() && health.is_ready());
        health.set_pipeline("a", PipelineState::Failed("why".into()));
        assert!(!health.is_healthy() && !health.is_ready());
    }
}
