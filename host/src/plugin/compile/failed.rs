//! Components that cost a compiler its time or its memory, or brought it down: they would do so again at every back-off and reload.
//!
//! Promises: what is here is not compiled again in the life of the process, unless its limits are other ones, so that whoever raises
//! them need not restart. The number is limited.

use std::{
    collections::BTreeMap,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use super::CompileFault;
use crate::config::PluginLimits;

/// Most that are kept, some hundred kilobytes in all: more bombs than anybody has pipelines.
const FAILED_MAX: usize = 1_024;

/// A component by its digest, and what it was given.
type Key = ([u8; 32], Duration, usize);

/// What came to a bad end.
#[derive(Debug, Default)]
pub(super) struct Failed(Mutex<BTreeMap<Key, CompileFault>>);

impl Failed {
    /// Fails where the same component has failed within the same limits.
    pub(super) fn check(&self, digest: &[u8; 32], limits: &PluginLimits) -> Result<(), CompileFault> {
        let Some(fault) = self.all().get(&key(digest, limits)).cloned() else { return Ok(()) };
        let words = format!("{}; it is not tried again before a restart, unless its limits change", fault.words);
        Err(CompileFault { words, ..fault })
    }

    /// Notes a fault that would come again.
    pub(super) fn note(&self, digest: &[u8; 32], limits: &PluginLimits, fault: &CompileFault) {
        if !fault.lasts {
            return;
        }
        let mut all = self.all();
        if all.len() >= FAILED_MAX {
            // Digests have no order, so this is any of them; it costs one more compilation.
            all.pop_first();
        }
        all.insert(key(digest, limits), fault.clone());
    }

    /// All of them; a panic elsewhere leaves them usable.
    fn all(&self) -> MutexGuard<'_, BTreeMap<Key, CompileFault>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What a component is known by.
fn key(digest: &[u8; 32], limits: &PluginLimits) -> Key {
    (*digest, limits.compile_time, limits.compile_memory_bytes)
}
