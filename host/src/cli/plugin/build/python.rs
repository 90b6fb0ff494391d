//! A plugin in Python, by componentize-py: an interpreter, the SDK and the plugin in one component.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use super::{Tool, written_by};
use crate::cli::plugin::Ended;

/// Where the module of the SDK is that componentize-py starts with.
const SDK: &str = "sdk/python";
/// That module.
const MODULE: &str = "fs_data_sink_component";
/// What makes the component.
const TOOL: Tool = Tool {
    name: "componentize-py",
    language: "Python",
    remedy: "run `python3 -m venv .venv && .venv/bin/pip install componentize-py==0.25.1` in the plugin's folder",
};

/// Makes the component.
pub(super) fn build(folder: &Path) -> Result<PathBuf, Ended> {
    if let Some(missing) = [SDK, "wit"].iter().find(|needed| !folder.join(needed).is_dir()) {
        let words = format!("{} has no {missing}/, which `plugin new` writes", folder.display());
        return Err(Ended::usage(words));
    }
    let is_own = folder.join(".venv/bin/componentize-py").is_file();
    // Relative to the folder that the command runs in.
    let mut command = Command::new(if is_own { "./.venv/bin/componentize-py" } else { TOOL.name });
    command.args(["-d", "wit", "-w", "plugin", "componentize", "-p", ".", "-p", SDK, MODULE, "-o"]);
    written_by(command, folder, &TOOL)
}
