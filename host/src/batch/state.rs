//! The state of plugins on its way from a chain to the ledger, and back.

use std::sync::Arc;

use bytes::Bytes;

use crate::checkpoint::SourcePartition;

/// The state of the plugins that one dataset of one source partition goes through, after all records so far.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChainState {
    /// Whose records the plugins were given.
    pub partition: SourcePartition,
    /// As what: one a partition, but for replayed dead letters.
    pub dataset: Arc<str>,
    /// Of each plugin that has state, in the order of the chain.
    pub plugins: Vec<PluginState>,
}

/// The state of one plugin.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PluginState {
    /// Its name in the configuration.
    pub plugin: Arc<str>,
    /// SHA-256 of its component, as hexadecimal digits.
    pub component: String,
    /// What it said; only the plugin knows what it means.
    pub bytes: Bytes,
}

impl ChainState {
    /// How many bytes the plugins said.
    #[must_use]
    pub fn size_bytes(&self) -> usize {
        self.plugins.iter().map(|state| state.bytes.len()).sum()
    }
}
