//! A core module, as C's and Go's compilers make it, to a component. In: the module, and the folder with the WIT. Out: a component that
//! imports what the module calls and no more.
//!
//! Two things are done that a toolchain for components does by itself: the module is told which world it is of, and what it calls of
//! WASI 0.1 is put in terms of WASI 0.2.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, bail};
use wasmparser::{Parser, Payload};
use wit_component::{ComponentEncoder, StringEncoding, embed_component_metadata};
use wit_parser::{PackageId, Resolve, WorldId};

use super::{named_after, place};
use crate::cli::plugin::{Ended, FAILED};

/// WASI 0.1; `preview1.wat` is its text.
const PREVIEW1: &[u8] = include_bytes!("preview1.wasm");
/// What the text imports.
const PREVIEW1_WORLD: &str = "package fs-data-sink:preview1;
world preview1 {
    import wasi:cli/stdout@0.2.12;
    import wasi:cli/stderr@0.2.12;
    import wasi:clocks/monotonic-clock@0.2.12;
    import wasi:clocks/wall-clock@0.2.12;
    import wasi:random/random@0.2.12;
}";
/// The function by which a module with state is known.
const STATE: &str = "fs-data-sink:plugin/state@0.1.0#snapshot";

/// Makes the component of a plugin's folder of its core module.
pub(super) fn made_of(module: &Path, folder: &Path) -> Result<PathBuf, Ended> {
    let made = module.with_file_name(named_after(folder));
    let encoded = fs::read(module).map_err(Into::into).and_then(|module| encode(&module, &folder.join("wit")));
    encoded.and_then(|component| Ok(fs::write(&made, component)?)).map_err(|error| Ended {
        code: FAILED,
        words: format!("no component can be made of {}: {error:#}", module.display()),
    })?;
    place(&made, folder)
}

/// A component of a core module.
fn encode(module: &[u8], wit: &Path) -> anyhow::Result<Vec<u8>> {
    let mut resolve = Resolve::default();
    resolve.push_dir(wit).with_context(|| format!("{} cannot be read", wit.display()))?;
    // What a module could import is all that there is, since what it does not call is no import of the component. An export has to be there.
    let state = if exports(module)?.any(|name| name == STATE) { "export fs-data-sink:plugin/state@0.1.0;" } else { "" };
    let text = format!(
        "package fs-data-sink:guest; world guest {{ include fs-data-sink:plugin/lookup-plugin@0.1.0; {state} }}"
    );
    let guest = resolve.push_str("guest.wit", &text)?;
    let preview1 = resolve.push_str("preview1.wit", PREVIEW1_WORLD)?;
    let module = in_world(module, &resolve, guest)?;
    let preview1 = in_world(PREVIEW1, &resolve, preview1)?;
    ComponentEncoder::default().validate(true).module(&module)?.adapter("wasi_snapshot_preview1", &preview1)?.encode()
}

/// A module that says of which world it is: the one of a package.
fn in_world(module: &[u8], resolve: &Resolve, package: PackageId) -> anyhow::Result<Vec<u8>> {
    let world: WorldId = resolve.select_world(&[package], None)?;
    let mut module = module.to_vec();
    embed_component_metadata(&mut module, resolve, world, StringEncoding::UTF8)?;
    Ok(module)
}

/// The names of what a module exports.
fn exports(module: &[u8]) -> anyhow::Result<impl Iterator<Item = String> + use<>> {
    for payload in Parser::new(0).parse_all(module) {
        if let Payload::ExportSection(section) = payload.context("the compiler made no WebAssembly")? {
            let names: Result<Vec<_>, _> = section
                .into_iter()
                .map(|export| Ok::<_, wasmparser::BinaryReaderError>(export?.name.to_owned()))
                .collect();
            return Ok(names?.into_iter());
        }
    }
    bail!("the compiler made a module without exports")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Scenario: the text of WASI 0.1 is made into a module.
    /// Guarantees: it is the module in the repository.
    #[test]
    fn wasi_is_made_of_its_text() {
        let module = wat::parse_str(include_str!("preview1.wat")).unwrap();
        if module != PREVIEW1 {
            let made = std::env::temp_dir().join("fs-data-sink-preview1.wasm");
            fs::write(&made, module).unwrap();
            panic!("preview1.wasm is not what its text makes: replace it by {}", made.display());
        }
    }

    /// Scenario: modules that lack what the interface asks for are made into components.
    /// Guarantees: the words name it, and only a module with state has to have all of it.
    #[test]
    fn what_a_module_lacks_is_named() {
        let wit = Path::new(env!("CARGO_MANIFEST_DIR")).join("../wit");
        let words = |text: &str| format!("{:#}", encode(&wat::parse_str(text).unwrap(), &wit).unwrap_err());
        assert!(words("(module)").contains("without exports"));
        assert!(words(r#"(module (func (export "x")))"#).contains("fs-data-sink:plugin/transform@0.1.0"));
        assert!(format!("{:#}", encode(b"no module", &wit).unwrap_err()).contains("the compiler made no WebAssembly"));
        let empty = include_str!("../empty.wat");
        let component = encode(&wat::parse_str(empty).unwrap(), &wit).unwrap();
        wasmparser::Validator::new().validate_all(&component).unwrap();
        let state = format!(r#"(func (export "{STATE}") (result i32) i32.const 0)"#);
        let stateful = empty.replacen("(memory", &format!("{state} (memory"), 1);
        assert!(words(&stateful).contains("restore"));
    }
}
