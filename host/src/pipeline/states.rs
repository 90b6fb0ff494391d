//! The state of plugins that a lane found when it claimed partitions, until the chain of each is opened.
//!
//! Comes in: where the ledger says that state lies. Goes out: its bytes, once, to the chain that goes on from it; they are read
//! when the chain is opened, so that partitions without records take no memory. What nobody has asked for at the end of the
//! input is told, since plugins may have something left to give out.

use std::{collections::BTreeMap, sync::Arc};

use crate::{
    batch::PluginState,
    checkpoint::SourcePartition,
    commit::{Recovery, ledger::states::StateRef},
    error::PipelineError,
    plugin::{LoadedPlugin, check_readers},
};

/// See the file's head.
#[derive(Debug, Default)]
pub(super) struct KnownStates {
    /// Reads it; none without a ledger.
    recovery: Option<Recovery>,
    /// What was not taken yet.
    states: BTreeMap<SourcePartition, Vec<StateRef>>,
}

impl KnownStates {
    /// Nothing yet.
    pub(super) fn new(recovery: Option<Recovery>) -> Self {
        Self { recovery, states: BTreeMap::new() }
    }

    /// What was found with a claim. Fails where it is of a plugin that is not there any more.
    pub(super) fn add(
        &mut self,
        states: BTreeMap<SourcePartition, Vec<StateRef>>,
        plugins: &[Arc<LoadedPlugin>],
    ) -> Result<(), PipelineError> {
        let all = states.values().flatten();
        check_readers(plugins, all.map(|state| (&*state.plugin, &*state.component, state.bytes)))?;
        self.states.extend(states);
        Ok(())
    }

    /// Partitions went away.
    pub(super) fn forget(&mut self, partitions: &[SourcePartition]) {
        for partition in partitions {
            self.states.remove(partition);
        }
    }

    /// The state that the chain of a partition and dataset goes on from; empty where there is none.
    pub(super) async fn take(
        &mut self,
        partition: &SourcePartition,
        dataset: &str,
    ) -> Result<Vec<PluginState>, PipelineError> {
        let (Some(recovery), Some(known)) = (&self.recovery, self.states.get_mut(partition)) else {
            return Ok(Vec::new());
        };
        let own: Vec<StateRef> = known.extract_if(.., |state| state.dataset == dataset).collect();
        recovery.read_states(partition, &own).await
    }

    /// Chains that were not opened and have something that they said.
    pub(super) fn waiting(&self) -> Vec<(SourcePartition, Arc<str>)> {
        let mut waiting = Vec::new();
        for (partition, states) in &self.states {
            for state in states.iter().filter(|state| state.bytes > 0) {
                let chain = (partition.clone(), Arc::from(&*state.dataset));
                if !waiting.contains(&chain) {
                    waiting.push(chain);
                }
            }
        }
        waiting
    }
}
