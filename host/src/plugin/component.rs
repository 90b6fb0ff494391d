//! A plugin file, from its bytes to something that can be instantiated; every fault gets words of its own.
//!
//! Order: where it comes from, size, digest, signature, what kind of file it is, compile (or take the compiled code from the cache), versions of what it exports
//! and imports, imports against what is granted.

use std::{fmt, fs, io::Read, path::Path, sync::Arc};

use sha2::{Digest, Sha256};
use wasmtime::{Engine, component::Component};

use super::{
    bindings::PluginPre,
    cache::hex,
    compile::CompileFault,
    engine::PluginEngine,
    fetch,
    grants::{Capabilities, imports},
    instance::HostState,
    shared::Shared,
    signature, version,
};
use crate::{
    config::{PluginConfig, PluginLimits, TENANT_DEFAULT},
    error::PipelineError,
    telemetry::metrics::Metrics,
};

/// A compiled plugin with its configuration; any number of instances can be made from it.
pub struct LoadedPlugin {
    /// How it was configured.
    config: Arc<PluginConfig>,
    /// SHA-256 of the file.
    digest: [u8; 32],
    /// Compiled, with its imports connected.
    instance_pre: PluginPre<HostState>,
    /// Whether it exports `state`.
    has_state: bool,
    /// What its instances have in common.
    shared: Shared,
    /// What it reaches besides its rows.
    capabilities: Arc<Capabilities>,
}

impl fmt::Debug for LoadedPlugin {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let digest = self.digest_hex();
        formatter
            .debug_struct("LoadedPlugin")
            .field("config", &self.config)
            .field("sha256", &digest)
            .finish_non_exhaustive()
    }
}

impl LoadedPlugin {
    /// How it was configured.
    #[must_use]
    pub fn config(&self) -> &PluginConfig {
        &self.config
    }

    /// SHA-256 of the component, as 64 hexadecimal digits.
    #[must_use]
    pub fn digest_hex(&self) -> String {
        hex(&self.digest)
    }

    /// Most bytes of memories and tables that one of its instances ever held.
    #[must_use]
    pub fn memory_peak_bytes(&self) -> usize {
        self.shared.memory.read().1
    }

    /// Whether it keeps state that has to be recorded with the source positions.
    #[must_use]
    pub fn has_state(&self) -> bool {
        self.has_state
    }

    /// Compiled, with its imports connected.
    pub(super) fn instance_pre(&self) -> &PluginPre<HostState> {
        &self.instance_pre
    }

    /// What it reaches besides its rows.
    pub(super) fn capabilities(&self) -> &Arc<Capabilities> {
        &self.capabilities
    }

    /// wasmtime.
    pub(super) fn engine(&self) -> &Engine {
        self.instance_pre.engine()
    }

    /// What its instances have in common.
    pub(super) fn shared(&self) -> &Shared {
        &self.shared
    }
}

impl PluginEngine {
    /// Reads and compiles a plugin, or takes its compiled code from the cache. Blocks, up to seconds for a large one.
    pub fn load(&self, config: &Arc<PluginConfig>) -> Result<LoadedPlugin, PipelineError> {
        let check_imports = |component: &Component| imports::check(self.engine(), component, &config.grants);
        self.load_if(config, TENANT_DEFAULT, check_imports, |_| {})
    }

    /// The same for a pipeline of a tenant, whose metrics tell when a limit was hit.
    pub fn load_counted(
        &self,
        config: &Arc<PluginConfig>,
        tenant: &str,
        metrics: &Metrics,
    ) -> Result<LoadedPlugin, PipelineError> {
        let check_imports = |component: &Component| imports::check(self.engine(), component, &config.grants);
        self.load_if(config, tenant, check_imports, |limit| metrics.plugin_limit_hit(&config.name, limit))
    }

    /// The same where the imports are right; somebody is told which limit was hit.
    fn load_if(
        &self,
        config: &Arc<PluginConfig>,
        tenant: &str,
        check_imports: impl FnOnce(&Component) -> Result<(), String>,
        tell: impl Fn(&'static str),
    ) -> Result<LoadedPlugin, PipelineError> {
        let fault = |words: String| fault(config, &words);
        let counted = |CompileFault { words, limit, .. }| {
            limit.into_iter().for_each(&tell);
            fault(words)
        };
        let bytes_max = config.limits.component_bytes;
        let bytes = match &config.download {
            None => read(&config.path, bytes_max),
            Some(download) => fetch::fetch(download, config.sha256, bytes_max, self.blobs()),
        };
        let bytes = bytes.map_err(&counted)?;
        let digest: [u8; 32] = Sha256::digest(&bytes).into();
        if config.sha256.is_some_and(|wanted| wanted != digest) {
            let (found, wanted) = (hex(&digest), hex(&config.sha256.unwrap_or_default()));
            return Err(fault(format!("has SHA-256 {found}, but the configuration wants {wanted}")));
        }
        config.signature.iter().try_for_each(|wanted| signature::check(&bytes, wanted)).map_err(&fault)?;
        check_kind(&bytes).map_err(&fault)?;
        let component = self.compile(&bytes, &digest, tenant, &config.limits).map_err(&counted)?;
        self.connect(config, &bytes, digest, &component, check_imports)
    }

    /// A compiled component whose imports are right, ready to be instantiated. Whatever the imports are, nothing is reached that was
    /// not granted.
    pub(super) fn connect(
        &self,
        config: &Arc<PluginConfig>,
        bytes: &[u8],
        digest: [u8; 32],
        component: &Component,
        check_imports: impl FnOnce(&Component) -> Result<(), String>,
    ) -> Result<LoadedPlugin, PipelineError> {
        let fault = |words: String| fault(config, &words);
        version::check(self.engine(), component).map_err(&fault)?;
        check_imports(component).map_err(&fault)?;
        let has_state = version::exports_state(self.engine(), component);
        let instance_pre = self
            .linker()
            .instantiate_pre(component)
            .and_then(PluginPre::new)
            .map_err(|error| fault(version::misfit(component, &error).to_string()))?;
        let shared = Shared::new(bytes, self.places(), self.turns(), config.limits.instances);
        let capabilities = Arc::new(Capabilities::open(config, &digest).map_err(&fault)?);
        Ok(LoadedPlugin { config: Arc::clone(config), digest, instance_pre, has_state, shared, capabilities })
    }

    /// Compiled code from the cache, or compiled now.
    pub(super) fn compile(
        &self,
        bytes: &[u8],
        digest: &[u8; 32],
        tenant: &str,
        limits: &PluginLimits,
    ) -> Result<Component, CompileFault> {
        if let Some(component) = self.cache().and_then(|cache| cache.load(self.engine(), digest)) {
            return Ok(component);
        }
        let code = self.compilers().compile(self.engine(), bytes, digest, tenant, limits)?;
        #[expect(
            unsafe_code,
            reason = "deserialize runs machine code: this one comes from a compiler of this very build, which this process started \
                      itself and which nobody else could write to, and wasmtime checks version and settings"
        )]
        // SAFETY: as in the reason above.
        let component = unsafe { Component::deserialize(self.engine(), &code) }
            .map_err(|error| format!("cannot be run by this host: {error:#}"))?;
        // From the file it costs no memory that the system could not take back.
        let stored = self.cache().and_then(|cache| {
            cache.store(self.engine(), digest, &code);
            cache.load(self.engine(), digest)
        });
        Ok(stored.unwrap_or(component))
    }
}

/// A fault of a plugin's file.
fn fault(config: &PluginConfig, words: &str) -> PipelineError {
    PipelineError::stop(format!("plugin {}: {} {words}", config.name, config.path.display()))
}

/// The bytes of a file that is not too large.
pub(super) fn read(path: &Path, bytes_max: usize) -> Result<Vec<u8>, CompileFault> {
    let file = fs::File::open(path).map_err(|error| format!("cannot be opened: {error}"))?;
    let mut bytes = Vec::new();
    let most = (bytes_max as u64).saturating_add(1);
    file.take(most).read_to_end(&mut bytes).map_err(|error| format!("cannot be read: {error}"))?;
    if bytes.len() > bytes_max {
        let words = format!("has more than {bytes_max} bytes (limits.component_bytes)");
        return Err(CompileFault { words, limit: Some("component_bytes"), lasts: false });
    }
    Ok(bytes)
}

/// Tells a component from everything that people hand over in its place.
pub(super) fn check_kind(bytes: &[u8]) -> Result<(), String> {
    if Engine::detect_precompiled(bytes).is_some() {
        return Err("is compiled machine code (.cwasm), which is never accepted: give the .wasm component".to_owned());
    }
    match bytes {
        [] => Err("is empty".to_owned()),
        [0, b'a', b's', b'm', 0x0d, 0, 1, 0, ..] => Ok(()),
        [0, b'a', b's', b'm', 1, 0, 0, 0, ..] => Err("is a core WebAssembly module, not a component: build it for \
             wasm32-wasip2, or turn it into a component with `wasm-tools component new`"
            .to_owned()),
        [0, b'a', b's', b'm', ..] => Err("is WebAssembly of a version that this host does not know".to_owned()),
        _ => Err("is not a WebAssembly component (it does not begin with `\\0asm`)".to_owned()),
    }
}
