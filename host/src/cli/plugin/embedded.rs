//! The SDKs, the WIT and the templates, which are in no registry: `plugin new` writes them beside what it makes.

/// A file: its path in the repository, and its text.
pub(super) type File = (&'static str, &'static str);

/// Files of the repository by their paths.
macro_rules! files {
    ($($path:literal),* $(,)?) => { &[$(($path, include_str!(concat!("../../../../", $path)))),*] };
}

/// The interface, for every language.
pub(super) const WIT: &[File] = files![
    "wit/README.md",
    "wit/plugin.wit",
    "wit/deps/cli/cli.wit",
    "wit/deps/clocks/clocks.wit",
    "wit/deps/config/store.wit",
    "wit/deps/config/world.wit",
    "wit/deps/filesystem/filesystem.wit",
    "wit/deps/http/http.wit",
    "wit/deps/io/io.wit",
    "wit/deps/keyvalue/atomic.wit",
    "wit/deps/keyvalue/batch.wit",
    "wit/deps/keyvalue/store.wit",
    "wit/deps/keyvalue/watch.wit",
    "wit/deps/keyvalue/world.wit",
    "wit/deps/logging/logging.wit",
    "wit/deps/random/random.wit",
    "wit/deps/sockets/sockets.wit",
];

/// What all templates have in common; the folder `sdk/template` of the repository.
pub(super) const COMMON: &[File] = files![
    "sdk/template/README.md",
    "sdk/template/config-schema.json",
    "sdk/template/gitignore",
    "sdk/template/pipeline.yaml",
    "sdk/template/test/config.yaml",
    "sdk/template/test/expected.ndjson",
    "sdk/template/test/rows.ndjson",
];

/// The SDK for Rust, and its template.
pub(super) const RUST: &[File] = files![
    "sdk/rust/Cargo.toml",
    "sdk/rust/src/batch.rs",
    "sdk/rust/src/config.rs",
    "sdk/rust/src/error.rs",
    "sdk/rust/src/guest.rs",
    "sdk/rust/src/http.rs",
    "sdk/rust/src/keyvalue.rs",
    "sdk/rust/src/lib.rs",
    "sdk/rust/src/log.rs",
    "sdk/rust/src/metrics.rs",
    "sdk/rust/src/output.rs",
    "sdk/rust/src/testing.rs",
    "sdk/rust/src/wire.rs",
    "sdk/rust/template/Cargo.toml",
    "sdk/rust/template/about.md",
    "sdk/rust/template/sdk.toml",
    "sdk/rust/template/src/lib.rs",
];

/// The SDK for Python, and its template.
pub(super) const PYTHON: &[File] = files![
    "sdk/python/fs_data_sink/__init__.py",
    "sdk/python/fs_data_sink/_host.py",
    "sdk/python/fs_data_sink/columns.py",
    "sdk/python/fs_data_sink/http.py",
    "sdk/python/fs_data_sink/keyvalue.py",
    "sdk/python/fs_data_sink/schema.py",
    "sdk/python/fs_data_sink/state.py",
    "sdk/python/fs_data_sink_component.py",
    "sdk/python/template/about.md",
    "sdk/python/template/plugin.py",
];

/// The SDK for JavaScript, and its template.
pub(super) const JAVASCRIPT: &[File] = files![
    "sdk/javascript/build.mjs",
    "sdk/javascript/columns.js",
    "sdk/javascript/component.js",
    "sdk/javascript/http.js",
    "sdk/javascript/index.js",
    "sdk/javascript/keyvalue.js",
    "sdk/javascript/schema.js",
    "sdk/javascript/state.js",
    "sdk/javascript/template/about.md",
    "sdk/javascript/template/package.json",
    "sdk/javascript/template/plugin.js",
];

/// The SDK for C, and its template.
pub(super) const C: &[File] = files![
    "sdk/c/columns.c",
    "sdk/c/config.c",
    "sdk/c/fs_data_sink.h",
    "sdk/c/guest.c",
    "sdk/c/http.c",
    "sdk/c/internal.h",
    "sdk/c/keyvalue.c",
    "sdk/c/memory.c",
    "sdk/c/outside.c",
    "sdk/c/schema.c",
    "sdk/c/template/about.md",
    "sdk/c/template/compile_flags.txt",
    "sdk/c/template/plugin.c",
    "sdk/c/types.c",
    "sdk/c/types.h",
];

/// The SDK for Go, and its template.
pub(super) const GO: &[File] = files![
    "sdk/go/columns.go",
    "sdk/go/go.mod",
    "sdk/go/guest_wasm.go",
    "sdk/go/http/http.go",
    "sdk/go/http/http_native.go",
    "sdk/go/http/http_wasm.go",
    "sdk/go/http/imports_wasm.go",
    "sdk/go/internal/wire/memory_wasm.go",
    "sdk/go/internal/wire/wire.go",
    "sdk/go/keyvalue/keyvalue.go",
    "sdk/go/keyvalue/keyvalue_native.go",
    "sdk/go/keyvalue/keyvalue_wasm.go",
    "sdk/go/log.go",
    "sdk/go/message.go",
    "sdk/go/output.go",
    "sdk/go/outside_native.go",
    "sdk/go/outside_wasm.go",
    "sdk/go/plugin.go",
    "sdk/go/schema.go",
    "sdk/go/state/state_native.go",
    "sdk/go/state/state_wasm.go",
    "sdk/go/template/about.md",
    "sdk/go/template/go.mod",
    "sdk/go/template/plugin.go",
    "sdk/go/types.go",
];

#[cfg(test)]
mod tests {
    use std::{
        collections::BTreeSet,
        fs,
        path::{Path, PathBuf},
    };

    use super::*;
    use crate::cli::plugin::language::Language;

    /// All files below a folder of the repository.
    fn files_of(repository: &Path, folder: &Path, found: &mut BTreeSet<String>) {
        for entry in fs::read_dir(repository.join(folder)).unwrap() {
            let path = folder.join(entry.unwrap().file_name());
            if repository.join(&path).is_dir() {
                files_of(repository, &path, found);
            } else {
                found.insert(path.to_str().unwrap().to_owned());
            }
        }
    }

    /// Scenario: the folders of the SDKs and of the WIT are listed.
    /// Guarantees: none of their files is left out of the program, so what `plugin new` writes is whole.
    #[test]
    fn every_file_of_the_sdks_and_the_wit_is_embedded() {
        let repository = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("..");
        let mut there = BTreeSet::new();
        for folder in ["wit", "sdk"] {
            files_of(&repository, Path::new(folder), &mut there);
        }
        // What a released version looked like is for the tests of the host.
        let is_ours =
            |path: &String| !["__pycache__", "node_modules", "wit/lock/"].iter().any(|part| path.contains(part));
        there.retain(is_ours);
        let languages = Language::ALL.iter().flat_map(|language| language.files());
        let embedded: BTreeSet<_> =
            WIT.iter().chain(COMMON).chain(languages).map(|(path, _)| (*path).to_owned()).collect();
        assert_eq!(embedded, there);
        for (path, text) in WIT.iter().chain(COMMON).chain(RUST) {
            assert_eq!(fs::read_to_string(repository.join(path)).unwrap(), *text, "{path}");
        }
    }

    /// Scenario: the workspace of the SDK that `plugin new` writes is held against that of the repository.
    /// Guarantees: the SDK stands on the versions that it is tested with.
    #[test]
    fn the_sdk_is_written_with_the_versions_that_it_is_tested_with() {
        let ours = include_str!("../../../../Cargo.toml");
        let text = |files: &[File], path: &str| files.iter().find(|(known, _)| *known == path).unwrap().1;
        let workspace = text(RUST, "sdk/rust/template/sdk.toml");
        let dependencies = workspace.split("[workspace.dependencies]\n").nth(1).unwrap().split("\n\n").next().unwrap();
        for line in dependencies.lines() {
            assert!(ours.lines().any(|known| known == line), "{line} is not in Cargo.toml");
        }
        let package = text(RUST, "sdk/rust/Cargo.toml").split("[dependencies]\n").nth(1).unwrap();
        for line in package.lines() {
            let name = line.split(['.', ' ']).next().unwrap();
            assert!(dependencies.lines().any(|known| known.starts_with(&format!("{name} ="))), "{name} is missing");
        }
        let template = text(RUST, "sdk/rust/template/Cargo.toml");
        for name in ["arrow-array", "arrow-schema", "serde"] {
            let line =
                |text: &str| text.lines().find(|line| line.starts_with(&format!("{name} ="))).unwrap().to_owned();
            let version =
                |line: String| line.split('"').find(|part| part.starts_with(char::is_numeric)).unwrap().to_owned();
            assert_eq!(version(line(template)), version(line(ours)), "{name}");
        }
    }
}
