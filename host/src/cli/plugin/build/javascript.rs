//! A plugin in JavaScript, by esbuild and componentize-js: an engine, the SDK and the plugin in one component.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use super::{Tool, written_by};
use crate::cli::plugin::Ended;

/// What does the work; written by `plugin new`.
const SCRIPT: &str = "sdk/javascript/build.mjs";
/// What the script needs.
const PACKAGES: [&str; 2] = ["@bytecodealliance/componentize-js", "esbuild"];
/// What runs it.
const NODE: Tool = Tool { name: "node", language: "JavaScript", remedy: "install Node 20 from https://nodejs.org" };

/// Makes the component.
pub(super) fn build(folder: &Path) -> Result<PathBuf, Ended> {
    let shown = folder.display();
    if !folder.join(SCRIPT).is_file() {
        return Err(Ended::usage(format!("{shown} has no {SCRIPT}, which `plugin new` writes")));
    }
    if let Some(missing) = PACKAGES.iter().find(|name| !folder.join("node_modules").join(name).is_dir()) {
        return Err(Ended::usage(format!(
            "{shown} has no package {missing}, which makes components of JavaScript: run `npm install` in it"
        )));
    }
    let mut command = Command::new(NODE.name);
    command.arg(SCRIPT);
    written_by(command, folder, &NODE)
}
