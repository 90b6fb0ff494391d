//! What all instances of one plugin have in common besides its code.

use std::sync::Arc;

use super::{
    backtrace::DebugLines,
    instance::Instance,
    limiter::MemoryUse,
    places::{Owner, Places},
    turns::Turns,
};

/// What all instances of one plugin have in common besides its code.
#[derive(Debug)]
pub(super) struct Shared {
    /// Places of the process.
    pub(super) places: Places<Instance>,
    /// Its own among them.
    pub(super) owner: Owner,
    /// Bytes that its instances hold.
    pub(super) memory: Arc<MemoryUse>,
    /// Who computes.
    pub(super) turns: Turns,
    /// For its backtraces.
    pub(super) lines: DebugLines,
}

impl Shared {
    /// For a component with so many instances at most.
    pub(super) fn new(component: &[u8], places: &Places<Instance>, turns: &Turns, instances: usize) -> Self {
        Self {
            places: places.clone(),
            owner: places.owner(instances),
            memory: Arc::default(),
            turns: turns.clone(),
            lines: DebugLines::read(component),
        }
    }
}
