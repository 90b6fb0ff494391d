//! Components that cost a compiler its time or its memory, or brought it down: they would do so again at every back-off and reload.
//!
//! Promises: what is here is not compiled again for ten minutes, unless its limits are other ones, so that whoever raises them need not
//! wait; and after that it is, since a machine that was busy may have been the reason. The number is limited.

use std::{
    collections::BTreeMap,
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use super::CompileFault;
use crate::config::PluginLimits;

/// Most that are kept, some hundred kilobytes in all: more bombs than anybody has pipelines.
const FAILED_MAX: usize = 1_024;

/// How long a component is not tried again: five times what it may cost by default.
const REST: Duration = Duration::from_secs(600);

/// A component by its digest, and what it was given.
type Key = ([u8; 32], Duration, usize);

/// What came to a bad end, and when.
#[derive(Debug, Default)]
pub(super) struct Failed(Mutex<BTreeMap<Key, (CompileFault, Instant)>>);

impl Failed {
    /// Fails where the same component has failed within the same limits, not long ago.
    pub(super) fn check(&self, digest: &[u8; 32], limits: &PluginLimits) -> Result<(), CompileFault> {
        self.check_at(digest, limits, Instant::now())
    }

    /// The same at a time.
    fn check_at(&self, digest: &[u8; 32], limits: &PluginLimits, now: Instant) -> Result<(), CompileFault> {
        let (mut all, key) = (self.all(), key(digest, limits));
        let Some((fault, failed_at)) = all.get(&key).cloned() else { return Ok(()) };
        let left = REST.saturating_sub(now.saturating_duration_since(failed_at));
        if left.is_zero() {
            all.remove(&key);
            return Ok(());
        }
        let minutes = left.as_secs().div_ceil(60);
        let words = format!("{}; it is not tried again for {minutes} min, unless its limits change", fault.words);
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
        all.insert(key(digest, limits), (fault.clone(), Instant::now()));
    }

    /// All of them; a panic elsewhere leaves them usable.
    fn all(&self) -> MutexGuard<'_, BTreeMap<Key, (CompileFault, Instant)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What a component is known by.
fn key(digest: &[u8; 32], limits: &PluginLimits) -> Key {
    (*digest, limits.compile_time, limits.compile_memory_bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_failed_is_tried_again_after_a_rest() {
        let (failed, digest, limits) = (Failed::default(), [7; 32], PluginLimits::default());
        let fault = CompileFault { words: "takes too long".to_owned(), limit: Some("compile_time"), lasts: true };
        failed.note(&digest, &limits, &CompileFault { lasts: false, ..fault.clone() });
        failed.check(&digest, &limits).unwrap();
        failed.note(&digest, &limits, &fault);
        let told = failed.check(&digest, &limits).unwrap_err();
        assert_eq!(told.words, "takes too long; it is not tried again for 10 min, unless its limits change");
        failed.check(&[8; 32], &limits).unwrap();
        failed.check_at(&digest, &limits, Instant::now() + REST).unwrap();
        assert!(failed.all().is_empty());
    }
}
