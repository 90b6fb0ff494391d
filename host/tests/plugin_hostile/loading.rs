//! Files that are no plugins, in words that a person can act on; and the cache of compiled code.

use std::{fs, os::unix::fs::PermissionsExt, sync::Arc};

use fs_data_sink::{config::PluginConfig, plugin::PluginEngine};
use serde_json::json;

use crate::{
    made::{Made, file},
    support::{ENGINE, compiler, hostile},
};

/// The words with which a plugin is refused at load.
pub(crate) fn refusal(plugin: PluginConfig) -> String {
    ENGINE.load(&Arc::new(plugin)).unwrap_err().full_message()
}

#[test]
fn files_that_are_no_components_are_told_apart() {
    let module = wat::parse_str("(module)").unwrap();
    for (bytes, words) in [
        (module.as_slice(), "is a core WebAssembly module, not a component: build it for wasm32-wasip2"),
        (b"(module)", "is not a WebAssembly component (it does not begin with `\\0asm`)"),
        (b"", "is empty"),
        (b"\0asm\x02\0\0\0", "is WebAssembly of a version that this host does not know"),
    ] {
        let (plugin, _folder) = file(bytes);
        let message = refusal(plugin);
        assert!(message.starts_with("plugin hostile: ") && message.contains(words), "{message}");
    }
    let missing = PluginConfig { path: "/no/such/plugin.wasm".into(), ..hostile(&json!({})) };
    assert_eq!(
        refusal(missing),
        "plugin hostile: /no/such/plugin.wasm cannot be opened: No such file or directory (os error 2)"
    );
}

#[test]
fn a_component_cut_short_anywhere_is_refused() {
    let component = Made::default().component();
    for length in (8..component.len()).step_by(37) {
        let (plugin, _folder) = file(&component[..length]);
        let message = refusal(plugin);
        // Cut between two sections it may be a valid component, which exports nothing.
        assert!(message.contains("damaged or cut short") || message.contains("does not export"), "{message}");
    }
}

#[test]
fn compiled_code_is_never_accepted_from_a_user() {
    let engine = wasmtime::Engine::default();
    let code = engine.precompile_component(&wat::parse_str("(component)").unwrap()).unwrap();
    let (plugin, _folder) = file(&code);
    assert!(refusal(plugin).contains("is compiled machine code (.cwasm), which is never accepted"));
}

#[test]
fn an_import_that_is_not_granted_is_refused_by_name() {
    let imports = r#"(import "wasi:keyvalue/store@0.2.0-draft" "open" (func (param i32 i32 i32)))"#;
    let (plugin, _folder) = Made { world: "lookup-plugin", imports, ..Made::default() }.plugin();
    let message = refusal(plugin);
    assert!(message.contains("imports wasi:keyvalue/store@0.2.0-draft, which is not granted"), "{message}");
}

#[test]
fn the_digest_in_the_configuration_is_kept_to() {
    let wrong = PluginConfig { sha256: Some([0xab; 32]), ..hostile(&json!({})) };
    let message = refusal(wrong);
    assert!(message.contains(&format!("but the configuration wants {}", "ab".repeat(32))), "{message}");
    let loaded = ENGINE.load(&Arc::new(hostile(&json!({})))).unwrap();
    let digest = loaded.digest_hex();
    let bytes: Vec<u8> = (0..32).map(|at| u8::from_str_radix(&digest[at * 2..at * 2 + 2], 16).unwrap()).collect();
    let right = PluginConfig { sha256: Some(bytes.try_into().unwrap()), ..hostile(&json!({})) };
    ENGINE.load(&Arc::new(right)).unwrap();
}

#[test]
fn compiled_code_is_kept_and_a_damaged_file_is_written_again() {
    let folder = tempfile::tempdir().unwrap();
    let cache = folder.path().join("code");
    let (plugin, _folder) = Made::default().plugin();
    let plugin = Arc::new(plugin);
    let engine = || PluginEngine::with_compiler(Some(cache.clone()), compiler()).unwrap();
    engine().load(&plugin).unwrap();
    assert_eq!(fs::metadata(&cache).unwrap().permissions().mode() & 0o777, 0o700);
    let files: Vec<_> = fs::read_dir(&cache).unwrap().map(|entry| entry.unwrap().path()).collect();
    let [code] = files.as_slice() else { panic!("{files:?}") };
    let good = fs::read(code).unwrap();
    // As a compiler of another version or with other settings leaves it.
    let foreign = wasmtime::Engine::default().precompile_component(&fs::read(&plugin.path).unwrap()).unwrap();
    for damage in [b"not code".as_slice(), &foreign, b""] {
        fs::write(code, damage).unwrap();
        engine().load(&plugin).unwrap();
        assert_eq!(fs::read(code).unwrap().len(), good.len());
    }
    // What is there now is used as it is.
    let written = fs::metadata(code).unwrap().modified().unwrap();
    engine().load(&plugin).unwrap();
    assert_eq!(fs::metadata(code).unwrap().modified().unwrap(), written);
}

#[test]
fn a_cache_folder_that_others_can_write_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o777)).unwrap();
    let message = PluginEngine::new(Some(folder.path().to_owned())).unwrap_err().to_string();
    assert!(message.contains("can be written by other users") && message.contains("chmod 700"), "{message}");
}
