//! A plugin in Rust, by cargo.

use std::{
    fs,
    io::{BufRead as _, BufReader},
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use serde_json::Value;

use super::{Tool, place};
use crate::cli::plugin::{Ended, language::Language};

/// The target of Rust that makes components.
const TARGET: &str = "wasm32-wasip2";
/// What to do where Rust is missing.
const REMEDY: &str = "install it from https://rustup.rs";
/// What tells of targets.
const RUSTC: Tool = Tool { name: "rustc", language: "Rust", remedy: REMEDY };
/// What makes the component.
const CARGO: Tool = Tool { name: "cargo", language: "Rust", remedy: REMEDY };

/// Makes the component.
pub(super) fn build(folder: &Path) -> Result<PathBuf, Ended> {
    let mut look = Command::new("rustc");
    look.args(["--print", "target-libdir", "--target", TARGET]).current_dir(folder);
    let library = look.output().map_err(|error| RUSTC.lacks(&error))?;
    let library = String::from_utf8_lossy(&library.stdout);
    if library.trim().is_empty() || !Path::new(library.trim()).is_dir() {
        return Err(Ended::usage(format!(
            "Rust has no target {TARGET} here, which makes components: run `rustup target add {TARGET}` in {}",
            folder.display()
        )));
    }
    let mut cargo = Command::new("cargo");
    cargo.args(["build", "--release", "--target", TARGET, "--message-format=json-render-diagnostics"]);
    let mut running = cargo
        .current_dir(folder)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .map_err(|error| CARGO.lacks(&error))?;
    let manifest = fs::canonicalize(folder.join(Language::Rust.mark())).unwrap_or_default();
    let mut made = None;
    for line in running.stdout.take().map(BufReader::new).into_iter().flat_map(BufReader::lines) {
        let Ok(line) = line else { break };
        made = component_of(&line, &manifest).or(made);
    }
    let ended = running.wait().map_err(|error| CARGO.lacks(&error))?;
    if !ended.success() {
        return Err(CARGO.failed(ended));
    }
    let Some(made) = made else {
        return Err(Ended::usage(format!(
            "{}: cargo made no component; it takes `crate-type = [\"cdylib\", \"rlib\"]` under `[lib]`",
            manifest.display()
        )));
    };
    place(&made, folder)
}

/// The component that a line of cargo tells of, if it is of the crate itself.
fn component_of(line: &str, manifest: &Path) -> Option<PathBuf> {
    let message: Value = serde_json::from_str(line).ok()?;
    let is_own = message.get("manifest_path").and_then(Value::as_str).is_some_and(|path| Path::new(path) == manifest);
    if !is_own || message.get("reason")?.as_str()? != "compiler-artifact" {
        return None;
    }
    let mut files = message.get("filenames")?.as_array()?.iter().filter_map(Value::as_str).map(PathBuf::from);
    files.rfind(|file| file.extension().is_some_and(|extension| extension == "wasm"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_component_of_the_crate_itself_is_found() {
        let line = |manifest: &str, file: &str| {
            serde_json::json!({"reason": "compiler-artifact", "manifest_path": manifest, "filenames": ["/t/a.d", file]})
                .to_string()
        };
        let manifest = Path::new("/w/Cargo.toml");
        assert_eq!(component_of(&line("/w/Cargo.toml", "/t/a.wasm"), manifest), Some("/t/a.wasm".into()));
        assert_eq!(component_of(&line("/other/Cargo.toml", "/t/a.wasm"), manifest), None);
        assert_eq!(component_of(&line("/w/Cargo.toml", "/t/a.rlib"), manifest), None);
        assert_eq!(component_of("no JSON", manifest), None);
    }
}
