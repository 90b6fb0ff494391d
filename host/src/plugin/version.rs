//! Which versions of interfaces this host serves, and the words for a component that was built for others.
//!
//! A version is in the name of what a component exports and imports. wasmtime matches `0.1.x` with `0.1.y` by itself, and then asks
//! function by function; what it says where one is missing is no help to whoever has the plugin, so it is looked for here first.

use wasmtime::{
    Engine,
    component::{Component, types::ComponentItem},
};

/// The version of the plugin API that this host serves, and every earlier one of 0.1.
pub(super) const API_VERSION: &str = "0.1.0";
/// Interfaces of ours.
const OURS: &str = "fs-data-sink:plugin/";
/// What every plugin exports.
const TRANSFORM: &str = "fs-data-sink:plugin/transform";
/// What a plugin exports that keeps state.
const STATE: &str = "fs-data-sink:plugin/state";
/// The functions of our interfaces that a plugin may import; a test holds them against `wit/`.
const FUNCTIONS: [(&str, &[&str]); 3] = [
    ("types", &[]),
    ("batches", &["[method]batch.num-rows", "[method]batch.read", "[method]batch.read-column"]),
    ("metrics", &["count", "gauge"]),
];

/// Refuses a component that is no plugin, or one of another version of the plugin API or of WASI.
pub(super) fn check(engine: &Engine, component: &Component) -> Result<(), String> {
    let component_type = component.component_type();
    if !component_type.exports(engine).any(|(name, _)| split(name).0 == TRANSFORM) {
        return Err(format!(
            "is a component, but not a plugin of fs-data-sink: it does not export {TRANSFORM}@{API_VERSION}"
        ));
    }
    for (name, _) in component_type.exports(engine).chain(component_type.imports(engine)) {
        check_name(name)?;
    }
    for (name, item) in component_type.imports(engine) {
        let (interface, version) = split(name);
        let (Some(interface), ComponentItem::ComponentInstance(instance)) = (interface.strip_prefix(OURS), item.ty)
        else {
            continue;
        };
        let functions = instance.exports(engine).filter(|(_, item)| matches!(item.ty, ComponentItem::ComponentFunc(_)));
        check_functions(interface, version, functions.map(|(name, _)| name))?;
    }
    Ok(())
}

/// Whether a component keeps state.
pub(super) fn exports_state(engine: &Engine, component: &Component) -> bool {
    component.component_type().exports(engine).any(|(name, _)| split(name).0 == STATE)
}

/// A component and this host mean different things by the same name.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(super) struct Misfit(String);

/// The words where nothing of the above was found and wasmtime still says that a component does not fit: a type that both sides
/// know has another form.
pub(super) fn misfit(component: &Component, error: &wasmtime::Error) -> Misfit {
    let engine = component.engine();
    let component_type = component.component_type();
    let names = component_type.exports(engine).chain(component_type.imports(engine)).map(|(name, _)| split(name));
    let mut newer = names.filter(|(name, version)| name.starts_with(OURS) && *version != API_VERSION);
    Misfit(match newer.next() {
        Some((_, version)) => format!(
            "was built for fs-data-sink:plugin@{version} and does not fit {API_VERSION}, which this host serves: use a newer \
             release of fs-data-sink, or rebuild the plugin with an SDK for {API_VERSION} ({error:#})"
        ),
        None => format!("does not fit the plugin API {API_VERSION}: {error:#}; rebuild it with an SDK of this version"),
    })
}

/// An interface and its version.
fn split(name: &str) -> (&str, &str) {
    name.split_once('@').unwrap_or((name, ""))
}

/// Refuses an interface of ours or of WASI in a version that is not served.
fn check_name(name: &str) -> Result<(), String> {
    let (interface, version) = split(name);
    if interface == STATE && !is_served(version) {
        // Loaded without it, it would keep its state for nothing.
        return Err(format!(
            "exports {STATE}@{version}; this host serves 0.1.x of it. Rebuild the plugin with an SDK for 0.1"
        ));
    }
    if interface.starts_with(OURS) && !is_served(version) {
        return Err(format!(
            "was built for fs-data-sink:plugin@{version}; this host serves 0.1.x. Use a release of fs-data-sink that \
             serves it, or rebuild the plugin with an SDK for 0.1"
        ));
    }
    let wasi = ["cli", "clocks", "filesystem", "http", "io", "random", "sockets"];
    let package = interface.strip_prefix("wasi:").and_then(|name| name.split_once('/'));
    if package.is_some_and(|(package, _)| wasi.contains(&package)) && !version.starts_with("0.2.") {
        return Err(format!(
            "imports {name}, but this host serves WASI 0.2: rebuild the plugin for it, for instance with Rust's target \
             wasm32-wasip2"
        ));
    }
    Ok(())
}

/// Refuses an interface of ours that has more than this host.
fn check_functions<'a>(
    interface: &str,
    version: &str,
    mut functions: impl Iterator<Item = &'a str>,
) -> Result<(), String> {
    let known = FUNCTIONS.iter().find(|(known, _)| *known == interface).map(|(_, functions)| *functions);
    let missing = match known {
        None => format!("the interface `{interface}`"),
        Some(known) => match functions.find(|function| !known.contains(function)) {
            None => return Ok(()),
            Some(function) => format!("`{}` of `{interface}`", function.trim_start_matches("[method]")),
        },
    };
    Err(format!(
        "was built for fs-data-sink:plugin@{version} and imports {missing}, which this host does not have: it serves \
         {API_VERSION}. Use a newer release of fs-data-sink, or rebuild the plugin with an SDK for {API_VERSION}"
    ))
}

/// Whether a version is one of 0.1.
fn is_served(version: &str) -> bool {
    version.strip_prefix("0.1.").is_some_and(|patch| !patch.is_empty() && patch.bytes().all(|b| b.is_ascii_digit()))
}

#[cfg(test)]
mod tests {
    use wit_parser::Resolve;

    use super::*;

    #[test]
    fn any_patch_release_of_0_1_is_served() {
        assert!(is_served("0.1.0") && is_served("0.1.12"));
        assert!(!is_served("0.2.0") && !is_served("1.1.0") && !is_served("0.1.0-draft") && !is_served("0.1."));
    }

    #[test]
    fn other_versions_are_refused_in_words() {
        for served in
            ["fs-data-sink:plugin/batches@0.1.7", "wasi:io/streams@0.2.99", "wasi:keyvalue/store@0.2.0-draft", "env"]
        {
            assert_eq!(check_name(served), Ok(()), "{served}");
        }
        for (name, words) in [
            ("fs-data-sink:plugin/batches@0.2.0", "was built for fs-data-sink:plugin@0.2.0; this host serves 0.1.x."),
            (
                "fs-data-sink:plugin/state@0.2.0",
                "exports fs-data-sink:plugin/state@0.2.0; this host serves 0.1.x of it.",
            ),
            ("wasi:clocks/monotonic-clock@0.3.0", "but this host serves WASI 0.2: rebuild the plugin for it"),
            ("wasi:http/types@0.3.0", "but this host serves WASI 0.2"),
        ] {
            let refusal = check_name(name).unwrap_err();
            assert!(refusal.contains(words), "{refusal}");
        }
        assert_eq!(check_functions("metrics", "0.1.3", ["count", "gauge"].into_iter()), Ok(()));
        let refusal =
            check_functions("batches", "0.1.3", ["[method]batch.read", "[method]batch.sort"].into_iter()).unwrap_err();
        assert!(
            refusal.contains("@0.1.3 and imports `batch.sort` of `batches`, which this host does not have"),
            "{refusal}"
        );
        let refusal = check_functions("secrets", "0.1.3", [].into_iter()).unwrap_err();
        assert!(refusal.contains("imports the interface `secrets`"), "{refusal}");
    }

    #[test]
    fn the_functions_are_those_of_the_wit() {
        let mut resolve = Resolve::default();
        let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../wit");
        let (package, _) = resolve.push_dir(folder).unwrap();
        let package = &resolve.packages[package];
        assert_eq!(package.name.version.as_ref().unwrap().to_string(), API_VERSION);
        let mut count = 0;
        for (interface, functions) in FUNCTIONS {
            let named = &resolve.interfaces[package.interfaces[interface]].functions;
            for name in named.keys() {
                assert!(functions.contains(&name.as_str()), "{interface} {name}");
            }
            count += named.len();
        }
        assert_eq!(count, FUNCTIONS.iter().map(|(_, functions)| functions.len()).sum::<usize>());
    }
}
