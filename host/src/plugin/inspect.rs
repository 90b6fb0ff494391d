//! A component's file without a pipeline: what it is, what it imports, and what it says of itself.

use std::{path::Path, sync::Arc};

use sha2::{Digest as _, Sha256};

use super::{
    ChainContext, Description, Import, LanePauses, PluginEngine,
    cache::hex,
    compile::CompileFault,
    component::{check_kind, read},
    grants::imports,
};
use crate::{
    config::{PluginConfig, PluginLimits, TENANT_DEFAULT},
    error::PipelineError,
    telemetry::metrics::Metrics,
};

/// Most exports that are told.
const EXPORTS_MAX: usize = 64;

/// What is in a component's file.
#[derive(Debug)]
pub struct Inspection {
    /// Its length.
    pub bytes: usize,
    /// Its SHA-256, as 64 hexadecimal digits.
    pub sha256: String,
    /// What it imports, and what each needs to be granted.
    pub imports: Vec<Import>,
    /// What it exports.
    pub exports: Vec<String>,
    /// What it says of itself, or why it cannot be asked: it is no plugin of this version, imports what is not there, or traps.
    pub description: Result<Description, PipelineError>,
}

impl PluginEngine {
    /// Looks at a component, whatever it imports; it is asked what it is with nothing granted. Blocks while it compiles.
    /// `config` names the file.
    pub async fn inspect(&self, config: PluginConfig) -> Result<Inspection, PipelineError> {
        let path: &Path = &config.path;
        let fault = |words: String| PipelineError::stop(format!("{} {words}", path.display()));
        let (limits, counted) = (PluginLimits::default(), |counted: CompileFault| fault(counted.words));
        let bytes = read(path, limits.component_bytes).map_err(counted)?;
        check_kind(&bytes).map_err(&fault)?;
        let digest = Sha256::digest(&bytes).into();
        let component = self.compile(&bytes, &digest, TENANT_DEFAULT, &limits).map_err(counted)?;
        let component_type = component.component_type();
        let exports =
            component_type.exports(self.engine()).map(|(name, _)| name.to_owned()).take(EXPORTS_MAX).collect();
        let imports = imports::imports(self.engine(), &component);
        let config = Arc::new(config);
        let description = match self.connect(&config, &bytes, digest, &component, |_| Ok(())) {
            Ok(loaded) => Arc::new(loaded).describe(&ChainContext::alone()).await,
            Err(error) => Err(error),
        };
        Ok(Inspection { bytes: bytes.len(), sha256: hex(&digest), imports, exports, description })
    }
}

impl ChainContext {
    /// A chain outside of a pipeline, whose metrics nobody reads.
    #[must_use]
    pub fn alone() -> Self {
        let (pipeline, tenant) = ("plugin".into(), TENANT_DEFAULT.into());
        Self { pipeline, tenant, lane: 0, metrics: Metrics::detached(), pauses: LanePauses::detached() }
    }
}
