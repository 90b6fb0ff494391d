//! A plugin in Go, by its own compiler: a core module for WASI 0.1, and that to a component.

use std::{
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use super::{Tool, component, work_folder};
use crate::cli::plugin::Ended;

/// What compiles.
const TOOL: Tool = Tool { name: "go", language: "Go", remedy: "install Go 1.24 or newer from https://go.dev/dl" };

/// Makes the component.
pub(super) fn build(folder: &Path) -> Result<PathBuf, Ended> {
    let module = work_folder(folder)?.join("module.wasm");
    let mut command = Command::new(TOOL.name);
    // A library whose functions the host calls; what is above the folder (a workspace, a repository) is none of the plugin's business.
    command.args(["build", "-buildmode=c-shared", "-trimpath", "-buildvcs=false", "-o", ".build/module.wasm", "."]);
    command.envs([("GOOS", "wasip1"), ("GOARCH", "wasm"), ("CGO_ENABLED", "0"), ("GOWORK", "off")]);
    command.current_dir(folder).stdin(Stdio::null()).stdout(Stdio::null());
    let ended = command.status().map_err(|error| TOOL.lacks(&error))?;
    if ended.success() { component::made_of(&module, folder) } else { Err(TOOL.failed(ended)) }
}
