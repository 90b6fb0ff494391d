//! What all instances of one plugin have in common besides its code.

use std::sync::Arc;

use super::{
    backtrace::DebugLines,
    instance::Instance,
    limiter::MemoryUse,
    places::{Owner, Places},
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
    /// For its backtraces.
    pub(super) lines: DebugLines,
}

impl Shared {
    /// For a component with so many instances at most.
    pub(super) fn new(component: &[u8], places: &Places<Instance>, instances: usize) -> Self {
        Self {
            places: places.clone(),
            owner: places.owner(instances),
            memory: Arc::default(),
            lines: DebugLines::read(component),
        }
    }
}
