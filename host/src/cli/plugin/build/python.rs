//! A plugin in Python, by componentize-py: an interpreter, the SDK and the plugin in one component.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use super::{Tool, work_folder, written_by};
use crate::cli::plugin::Ended;

/// Where the module of the SDK is that componentize-py starts with.
const SDK: &str = "sdk/python";
/// That module.
const MODULE: &str = "fs_data_sink_component";
/// The modules of the SDK that a plugin may import besides, and what its component then imports or exports.
const MORE: [(&str, &str); 3] = [
    ("state", "export fs-data-sink:plugin/state@0.1.0;"),
    ("keyvalue", "import wasi:keyvalue/store@0.2.0-draft; import wasi:keyvalue/batch@0.2.0-draft;"),
    ("http", "import wasi:http/outgoing-handler@0.2.12;"),
];
/// Folders that are looked through below the plugin's: those of a program, not of a library with a deep tree.
const DEPTH_MAX: usize = 4;
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
    let world = work_folder(folder)?.join("guest.wit");
    fs::write(&world, guest(&imported(folder)))
        .map_err(|error| Ended::usage(format!("{} cannot be written: {error}", world.display())))?;
    let is_own = folder.join(".venv/bin/componentize-py").is_file();
    // Relative to the folder that the command runs in.
    let mut command = Command::new(if is_own { "./.venv/bin/componentize-py" } else { TOOL.name });
    command.args(["-d", "wit", "-d", ".build/guest.wit", "-w", "fs-data-sink:guest/guest"]);
    command.args(["componentize", "-p", ".", "-p", SDK, MODULE, "-o"]);
    written_by(command, folder, &TOOL)
}

/// The world of a plugin that imports these modules of the SDK. componentize-py makes an import of all that the world has.
fn guest(modules: &[&str]) -> String {
    let more: String = MORE.iter().filter(|(name, _)| modules.contains(name)).map(|(_, words)| *words).collect();
    format!("package fs-data-sink:guest;\nworld guest {{ include fs-data-sink:plugin/plugin@0.1.0; {more} }}\n")
}

/// Which modules of the SDK the plugin's files import.
fn imported(folder: &Path) -> Vec<&'static str> {
    let mut text = String::new();
    read_below(folder, 0, &mut text);
    let says = |name: &str| text.lines().any(|line| imports(line, name));
    MORE.iter().map(|(name, _)| *name).filter(|name| says(name)).collect()
}

/// Whether a line imports a module of the SDK: `from fs_data_sink.state import ...`, `import fs_data_sink.state`,
/// `from fs_data_sink import state`.
fn imports(line: &str, name: &str) -> bool {
    let words: Vec<&str> = line.split([' ', '\t', ',', '(', ')']).filter(|word| !word.is_empty()).collect();
    let whole = format!("fs_data_sink.{name}");
    match words.as_slice() {
        ["from", module, "import", names @ ..] => {
            *module == whole || *module == "fs_data_sink" && names.contains(&name)
        }
        ["import", modules @ ..] => modules.contains(&whole.as_str()),
        _ => false,
    }
}

/// The text of all files in Python of the plugin's own.
fn read_below(folder: &Path, depth: usize, text: &mut String) {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let (path, name) = (entry.path(), entry.file_name());
        let is_own = !name.to_string_lossy().starts_with('.') && name != "sdk";
        if is_own && path.is_dir() && depth < DEPTH_MAX {
            read_below(&path, depth + 1, text);
        } else if is_own && path.extension().is_some_and(|extension| extension == "py") {
            text.push_str(&fs::read_to_string(&path).unwrap_or_default());
            text.push('\n');
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_plugin_imports_decides_its_world() {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir_all(folder.path().join("own")).unwrap();
        fs::create_dir_all(folder.path().join("sdk")).unwrap();
        fs::write(folder.path().join("plugin.py"), "import own.a\nfrom fs_data_sink import Plugin, state\n").unwrap();
        fs::write(folder.path().join("own/a.py"), "  from fs_data_sink.keyvalue import Bucket\n").unwrap();
        fs::write(folder.path().join("sdk/b.py"), "import fs_data_sink.http\n").unwrap();
        assert_eq!(imported(folder.path()), ["state", "keyvalue"]);
        let world = guest(&["state", "keyvalue"]);
        assert!(world.contains("export fs-data-sink:plugin/state") && !world.contains("wasi:http"), "{world}");
        assert!(imports("import fs_data_sink.http, json", "http") && !imports("# import fs_data_sink.http", "http"));
        assert!(!imports("from fs_data_sink import Plugin", "state") && !imports("from state import x", "state"));
    }
}
