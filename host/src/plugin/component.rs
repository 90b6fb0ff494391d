//! A plugin file, from its bytes to something that can be instantiated; every fault gets words of its own.
//!
//! Order: size, digest, what kind of file it is, compile (or take the compiled code from the cache), imports against
//! what is granted, the version of the plugin API that it exports.

use std::{fmt, fs, io::Read, path::Path, sync::Arc};

use sha2::{Digest, Sha256};
use wasmtime::{Engine, component::Component};

use super::{
    bindings::PluginPre,
    cache::hex,
    engine::PluginEngine,
    grants::{Capabilities, imports},
    instance::HostState,
    shared::Shared,
};
use crate::{
    config::{PluginConfig, PluginLimits},
    error::PipelineError,
};

/// What every plugin exports.
const TRANSFORM: &str = "fs-data-sink:plugin/transform";
/// What a plugin exports that keeps state.
const STATE: &str = "fs-data-sink:plugin/state";
/// The version of the plugin API that this host serves.
const API_VERSION: &str = "0.1.0";
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
        let fault =
            |words: String| PipelineError::stop(format!("plugin {}: {} {words}", config.name, config.path.display()));
        let bytes = read(&config.path, config.limits.component_bytes).map_err(&fault)?;
        let digest: [u8; 32] = Sha256::digest(&bytes).into();
        if config.sha256.is_some_and(|wanted| wanted != digest) {
            let (found, wanted) = (hex(&digest), hex(&config.sha256.unwrap_or_default()));
            return Err(fault(format!("has SHA-256 {found}, but the configuration wants {wanted}")));
        }
        check_kind(&bytes).map_err(&fault)?;
        let component = self.compile(&bytes, &digest).map_err(&fault)?;
        imports::check(self.engine(), &component, &config.grants).map_err(&fault)?;
        check_version(self.engine(), &component).map_err(&fault)?;
        let has_state = exports_state(self.engine(), &component).map_err(&fault)?;
        let instance_pre = self.linker().instantiate_pre(&component).and_then(PluginPre::new).map_err(|error| {
            fault(format!(
                "does not fit the plugin API {API_VERSION}: {error:#}; rebuild it with an SDK of this version"
            ))
        })?;
        let shared = Shared::new(&bytes, self.places(), config.limits.instances);
        let capabilities = Arc::new(Capabilities::open(config, &digest).map_err(&fault)?);
        Ok(LoadedPlugin { config: Arc::clone(config), digest, instance_pre, has_state, shared, capabilities })
    }

    /// The component in a file, whatever it imports.
    pub(super) fn component(&self, path: &Path) -> Result<Component, String> {
        let bytes = read(path, PluginLimits::default().component_bytes)?;
        check_kind(&bytes)?;
        self.compile(&bytes, &Sha256::digest(&bytes).into())
    }

    /// Compiled code from the cache, or compiled now.
    fn compile(&self, bytes: &[u8], digest: &[u8; 32]) -> Result<Component, String> {
        if let Some(component) = self.cache().and_then(|cache| cache.load(self.engine(), digest)) {
            return Ok(component);
        }
        let component = Component::from_binary(self.engine(), bytes)
            .map_err(|error| format!("cannot be compiled; it is damaged or cut short: {error:#}"))?;
        if let Some(cache) = self.cache() {
            cache.store(self.engine(), digest, &component);
        }
        Ok(component)
    }
}

/// The bytes of a file that is not too large.
fn read(path: &Path, bytes_max: usize) -> Result<Vec<u8>, String> {
    let file = fs::File::open(path).map_err(|error| format!("cannot be opened: {error}"))?;
    let mut bytes = Vec::new();
    let most = (bytes_max as u64).saturating_add(1);
    file.take(most).read_to_end(&mut bytes).map_err(|error| format!("cannot be read: {error}"))?;
    if bytes.len() > bytes_max {
        return Err(format!("has more than {bytes_max} bytes (limits.component_bytes)"));
    }
    Ok(bytes)
}

/// Tells a component from everything that people hand over in its place.
fn check_kind(bytes: &[u8]) -> Result<(), String> {
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

/// Refuses a component of another version of the plugin API, or of something else altogether.
fn check_version(engine: &Engine, component: &Component) -> Result<(), String> {
    let component_type = component.component_type();
    let mut versions = component_type.exports(engine).filter_map(|(name, _)| name.split_once('@'));
    let Some((_, version)) = versions.find(|(interface, _)| *interface == TRANSFORM) else {
        return Err(format!(
            "is a component, but not a plugin of fs-data-sink: it does not export {TRANSFORM}@{API_VERSION}"
        ));
    };
    if is_served(version) {
        Ok(())
    } else {
        Err(format!(
            "was built for fs-data-sink:plugin@{version}; this host serves 0.1.x. Use a release of fs-data-sink that \
             serves it, or rebuild the plugin with an SDK for 0.1"
        ))
    }
}

/// Whether a component keeps state; refuses one that does so by another version of the plugin API, since it would be kept for
/// nothing.
fn exports_state(engine: &Engine, component: &Component) -> Result<bool, String> {
    let component_type = component.component_type();
    let mut exports = component_type.exports(engine).map(|(name, _)| name.split_once('@').unwrap_or((name, "")));
    match exports.find(|(interface, _)| *interface == STATE) {
        None => Ok(false),
        Some((_, version)) if is_served(version) => Ok(true),
        Some((_, version)) => Err(format!(
            "exports {STATE}@{version}; this host serves 0.1.x of it. Rebuild the plugin with an SDK for 0.1"
        )),
    }
}

/// Whether a version is one of 0.1.
fn is_served(version: &str) -> bool {
    version.strip_prefix("0.1.").is_some_and(|patch| !patch.is_empty() && patch.bytes().all(|b| b.is_ascii_digit()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_patch_release_of_0_1_is_served() {
        assert!(is_served("0.1.0") && is_served("0.1.12"));
        assert!(!is_served("0.2.0") && !is_served("1.1.0") && !is_served("0.1.0-draft") && !is_served("0.1."));
    }
}
