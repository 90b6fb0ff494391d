//! The store: object_store's trait, and on top of it stage, publish and abort.

pub use object_store::path::Path;

/// A whole file in the store that no reader can see yet.
#[derive(Debug)]
pub struct StagedFile {}
