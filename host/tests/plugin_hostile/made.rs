//! Components made from WebAssembly text, for what no compiler produces.

use std::path::PathBuf;

use fs_data_sink::config::PluginConfig;
use serde_json::json;
use tempfile::TempDir;
use wit_component::{ComponentEncoder, StringEncoding, embed_component_metadata};
use wit_parser::{PackageId, Resolve};

use crate::support::hostile;

/// What differs from a plugin that answers `describe` with nothing and traps in everything else. The memory is all
/// zeros but for 1 at 552, so that an answer at 0 is a valid one of any function (no names, no schema, all rows kept),
/// and a descriptor at 512 says that the plugin buffers rows.
pub(crate) struct Made {
    /// Body of `describe`.
    pub(crate) describe: &'static str,
    /// Body of `open`.
    pub(crate) open: &'static str,
    /// Body of `process`; local 1 is the batch's sequence number.
    pub(crate) process: &'static str,
    /// Body of `flush`.
    pub(crate) flush: &'static str,
    /// Body of `cabi_realloc`.
    pub(crate) realloc: &'static str,
    /// Body of the start function.
    pub(crate) start: &'static str,
    /// What the host has run after `describe`, once it has read the answer; none where it is empty.
    pub(crate) post_return: &'static str,
    /// Pages of memory at the start.
    pub(crate) pages: u32,
    /// World that it is built for.
    pub(crate) world: &'static str,
    /// More WIT, with a world of its own.
    pub(crate) wit: &'static str,
    /// Version of the plugin API that it is built for.
    pub(crate) version: &'static str,
    /// A piece of the plugin API's WIT, and what stands there in that version.
    pub(crate) wit_change: (&'static str, &'static str),
    /// Imports of the module.
    pub(crate) imports: &'static str,
    /// More of the module: tables, data, custom sections.
    pub(crate) more: &'static str,
}

/// A world with parts of WASI, which the host links for every plugin.
pub(crate) const WASI: &str = "package test:crimes;
world with-wasi {
    include fs-data-sink:plugin/plugin@0.1.0;
    import wasi:clocks/monotonic-clock@0.2.12;
    import wasi:random/random@0.2.12;
}";

/// An endless loop in WebAssembly text.
pub(crate) const SPIN: &str = "(loop $l br $l) unreachable";

impl Default for Made {
    fn default() -> Self {
        Self {
            describe: "i32.const 0",
            open: "unreachable",
            process: "unreachable",
            flush: "unreachable",
            realloc: "i32.const 1024",
            start: "",
            post_return: "",
            pages: 2,
            world: "plugin",
            wit: "",
            version: "0.1.0",
            wit_change: ("", ""),
            imports: "",
            more: "",
        }
    }
}

impl Made {
    /// The component.
    pub(crate) fn component(&self) -> Vec<u8> {
        let mut resolve = Resolve::default();
        let package = self.push_wit(&mut resolve);
        let own = (!self.wit.is_empty()).then(|| resolve.push_str("own.wit", self.wit).unwrap());
        let world = resolve.select_world(&[own.unwrap_or(package)], Some(self.world)).unwrap();
        let mut module = wat::parse_str(self.text()).unwrap();
        embed_component_metadata(&mut module, &resolve, world, StringEncoding::UTF8).unwrap();
        ComponentEncoder::default().validate(true).module(&module).unwrap().encode().unwrap()
    }

    /// The plugin API in the wanted version.
    fn push_wit(&self, resolve: &mut Resolve) -> PackageId {
        let wit = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../wit");
        if self.version == "0.1.0" {
            return resolve.push_dir(wit).unwrap().0;
        }
        let folder = tempfile::tempdir().unwrap();
        std::os::unix::fs::symlink(wit.canonicalize().unwrap().join("deps"), folder.path().join("deps")).unwrap();
        let text = std::fs::read_to_string(wit.join("plugin.wit")).unwrap();
        let (from, to) = self.wit_change;
        assert!(text.contains(from), "{from}");
        let package = format!("package fs-data-sink:plugin@{};", self.version);
        let text = text.replace(from, to).replace("package fs-data-sink:plugin@0.1.0;", &package);
        std::fs::write(folder.path().join("plugin.wit"), text).unwrap();
        resolve.push_dir(folder.path()).unwrap().0
    }

    /// The component as a configured plugin; the folder must outlive its use.
    pub(crate) fn plugin(&self) -> (PluginConfig, TempDir) {
        file(&self.component())
    }

    /// The core module.
    fn text(&self) -> String {
        let Self { describe, open, process, flush, realloc, start, post_return, pages, imports, more, .. } = self;
        let api = format!("fs-data-sink:plugin/transform@{}", self.version);
        let post_return = match *post_return {
            "" => String::new(),
            body => {
                format!(r#"(func (export "cabi_post_{api}#describe") (param i32) {body})"#)
            }
        };
        format!(
            r#"(module
                {imports}
                (memory (export "memory") {pages})
                (data (i32.const 552) "\01")
                (func (export "{api}#describe") (result i32) {describe})
                (func (export "{api}#open") (param i32 i32 i32 i32 i32 i32) (result i32) {open})
                (func (export "{api}#process") (param i32 i64 i32 i32 i32) (result i32) {process})
                (func (export "{api}#flush") (param i32) (result i32) {flush})
                (func (export "{api}#close") unreachable)
                (func (export "cabi_realloc") (param i32 i32 i32 i32) (result i32) {realloc})
                (func $start {start})
                (start $start)
                {post_return}
                {more}
            )"#
        )
    }
}

/// Bytes as a configured plugin; the folder must outlive its use.
pub(crate) fn file(bytes: &[u8]) -> (PluginConfig, TempDir) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("made.wasm");
    std::fs::write(&path, bytes).unwrap();
    (PluginConfig { path, ..hostile(&json!({})) }, folder)
}

/// A component with so many more core modules, each instantiated at the start beside what is there.
pub(crate) fn with_modules(mut component: Vec<u8>, module: &str, count: u8) -> Vec<u8> {
    let module = wat::parse_str(module).unwrap();
    let length = u8::try_from(module.len()).ok().filter(|length| *length < 0x80).expect("a length of one byte");
    let mut depth = 0;
    let mut before = 0;
    for payload in wasmparser::Parser::new(0).parse_all(&component) {
        match payload.unwrap() {
            wasmparser::Payload::ModuleSection { .. } if depth == 1 => before += 1,
            wasmparser::Payload::Version { .. } => depth += 1,
            wasmparser::Payload::End(_) => depth -= 1,
            _ => {}
        }
    }
    for number in before..before + count {
        component.extend([1, length]);
        component.extend(&module);
        component.extend([2, 4, 1, 0, number, 0]);
    }
    component
}
