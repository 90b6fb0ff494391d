//! A folder on this machine.

use std::sync::Arc;

use object_store::{ObjectStore, local::LocalFileSystem};

use crate::{config::LocalConfig, error::PipelineError};

/// Makes the folder when it is missing. Every file and its folder is brought to the disk (fsync) before it counts.
pub(super) fn open(config: &LocalConfig) -> Result<(Arc<dyn ObjectStore>, String), PipelineError> {
    let folder = &config.base_path;
    let explain = |error: Box<dyn std::error::Error + Send + Sync>| {
        PipelineError::stop(format!("sink.base_path {}: the folder cannot be made or opened", folder.display()))
            .because(error)
    };
    std::fs::create_dir_all(folder).map_err(|error| explain(error.into()))?;
    let store = LocalFileSystem::new_with_prefix(folder).map_err(|error| explain(error.into()))?;
    Ok((Arc::new(store.with_fsync(true)), folder.display().to_string()))
}
