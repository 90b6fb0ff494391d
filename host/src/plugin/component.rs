//! A plugin file, from its bytes to something that can be instantiated; every fault gets words of its own.
//!
//! Order: size, digest, what kind of file it is, compile (or take the compiled code from the cache), imports against
//! what is granted, the version of the plugin API that it exports.

use std::{fmt, fs, io::Read, path::Path, sync::Arc};

use sha2::{Digest, Sha256};
use wasmtime::{Engine, component::Component};

use super::{bindings::PluginPre, cache::hex, engine::PluginEngine, instance::HostState};
use crate::{config::PluginConfig, error::PipelineError};

/// A component of Python or JavaScript has about 20 MiB; compiling takes memory in proportion.
const FILE_BYTES_MAX: u64 = 64 << 20;
/// What every plugin exports.
const TRANSFORM: &str = "fs-data-sink:plugin/transform";
/// The version of the plugin API that this host serves.
const API_VERSION: &str = "0.1.0";
/// Interfaces that are granted to every plugin, by name without version.
const GRANTED: [&str; 5] = [
    "fs-data-sink:plugin/types",
    "fs-data-sink:plugin/batches",
    "fs-data-sink:plugin/metrics",
    "wasi:logging/logging",
    "wasi:config/store",
];
/// WASI 0.2 packages that are linked and inert: language runtimes import them even where nothing uses them.
const INERT_PACKAGES: [&str; 6] =
    ["wasi:cli/", "wasi:clocks/", "wasi:filesystem/", "wasi:io/", "wasi:random/", "wasi:sockets/"];

/// A compiled plugin with its configuration; any number of instances can be made from it.
pub struct LoadedPlugin {
    /// How it was configured.
    config: Arc<PluginConfig>,
    /// SHA-256 of the file.
    digest: [u8; 32],
    /// Compiled, with its imports connected.
    instance_pre: PluginPre<HostState>,
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

    /// Compiled, with its imports connected.
    pub(super) fn instance_pre(&self) -> &PluginPre<HostState> {
        &self.instance_pre
    }

    /// wasmtime.
    pub(super) fn engine(&self) -> &Engine {
        self.instance_pre.engine()
    }
}

impl PluginEngine {
    /// Reads and compiles a plugin, or takes its compiled code from the cache. Blocks, up to seconds for a large one.
    pub fn load(&self, config: &Arc<PluginConfig>) -> Result<LoadedPlugin, PipelineError> {
        let fault =
            |words: String| PipelineError::stop(format!("plugin {}: {} {words}", config.name, config.path.display()));
        let bytes = read(&config.path).map_err(&fault)?;
        let digest: [u8; 32] = Sha256::digest(&bytes).into();
        if config.sha256.is_some_and(|wanted| wanted != digest) {
            let (found, wanted) = (hex(&digest), hex(&config.sha256.unwrap_or_default()));
            return Err(fault(format!("has SHA-256 {found}, but the configuration wants {wanted}")));
        }
        check_kind(&bytes).map_err(&fault)?;
        let component = self.compile(&bytes, &digest).map_err(&fault)?;
        check_imports(self.engine(), &component).map_err(&fault)?;
        check_version(self.engine(), &component).map_err(&fault)?;
        let instance_pre = self.linker().instantiate_pre(&component).and_then(PluginPre::new).map_err(|error| {
            fault(format!(
                "does not fit the plugin API {API_VERSION}: {error:#}; rebuild it with an SDK of this version"
            ))
        })?;
        Ok(LoadedPlugin { config: Arc::clone(config), digest, instance_pre })
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
fn read(path: &Path) -> Result<Vec<u8>, String> {
    let file = fs::File::open(path).map_err(|error| format!("cannot be opened: {error}"))?;
    let mut bytes = Vec::new();
    file.take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes).map_err(|error| format!("cannot be read: {error}"))?;
    if bytes.len() as u64 > FILE_BYTES_MAX {
        return Err(format!("has more than {} MiB, which no plugin needs", FILE_BYTES_MAX >> 20));
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

/// Refuses imports that are not granted.
fn check_imports(engine: &Engine, component: &Component) -> Result<(), String> {
    let component_type = component.component_type();
    let refused: Vec<_> =
        component_type.imports(engine).map(|(name, _)| name).filter(|name| !is_granted(name)).collect();
    if refused.is_empty() {
        return Ok(());
    }
    Err(format!(
        "imports {}, which is not granted; a plugin may import fs-data-sink:plugin, wasi:logging, wasi:config and \
         the parts of WASI 0.2 that need no permission",
        refused.join(", ")
    ))
}

/// Whether an import is there for every plugin.
fn is_granted(name: &str) -> bool {
    let (interface, version) = name.split_once('@').unwrap_or((name, ""));
    GRANTED.contains(&interface)
        || (INERT_PACKAGES.iter().any(|package| interface.starts_with(package)) && version.starts_with("0.2."))
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

/// Whether a version is one of 0.1.
fn is_served(version: &str) -> bool {
    version.strip_prefix("0.1.").is_some_and(|patch| !patch.is_empty() && patch.bytes().all(|b| b.is_ascii_digit()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn granted_and_inert_imports_pass_and_all_others_do_not() {
        for granted in [
            "fs-data-sink:plugin/batches@0.1.0",
            "fs-data-sink:plugin/types@0.1.7",
            "wasi:logging/logging@0.1.0-draft",
            "wasi:config/store@0.2.0-rc.1",
            "wasi:filesystem/types@0.2.12",
            "wasi:sockets/tcp@0.2.0",
        ] {
            assert!(is_granted(granted), "{granted}");
        }
        for refused in [
            "wasi:http/outgoing-handler@0.2.12",
            "wasi:keyvalue/store@0.2.0-draft",
            "wasi:filesystem/types@0.3.0",
            "wasi:clocks/monotonic-clock",
            "fs-data-sink:plugin/secrets@0.1.0",
            "env",
        ] {
            assert!(!is_granted(refused), "{refused}");
        }
    }

    #[test]
    fn any_patch_release_of_0_1_is_served() {
        assert!(is_served("0.1.0") && is_served("0.1.12"));
        assert!(!is_served("0.2.0") && !is_served("1.1.0") && !is_served("0.1.0-draft") && !is_served("0.1."));
    }
}
