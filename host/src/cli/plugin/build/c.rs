//! A plugin in C, by clang: the sources of the folder and of the SDK to a core module, and that to a component.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use super::{Tool, component, work_folder};
use crate::cli::plugin::Ended;

/// Where the SDK is, whose files are compiled with the plugin's.
const SDK: &str = "sdk/c";
/// Flags of the author, one a line, as clangd reads them too.
const FLAGS: &str = "compile_flags.txt";
/// What C programs are asked to do here: to be a library, with a stack whose end traps, and lines for backtraces.
const OURS: [&str; 7] =
    ["-O2", "-gline-tables-only", "-mexec-model=reactor", "-Wl,--stack-first", "-Wl,-z,stack-size=1048576", "-I", SDK];
/// The names of the same target: today's and yesterday's.
const TARGETS: [&str; 2] = ["wasm32-wasip1", "wasm32-wasi"];
/// The versions of clang that are looked for beside the plain name, the newest first.
const VERSIONS: std::ops::RangeInclusive<u32> = 14..=30;
/// A program that takes a C library and the compiler's own.
const PROBE: &str = "#include <stdlib.h>\n__int128 twice(__int128 n) { free(malloc(1)); return n * n / 3; }\n";
/// What compiles.
const TOOL: Tool = Tool { name: "clang", language: "C", remedy: REMEDY };
/// What to do where it is missing.
const REMEDY: &str = "on Debian or Ubuntu run `apt-get install clang-19 lld-19 wasi-libc libclang-rt-19-dev-wasm32`, elsewhere unpack the \
                      WASI SDK (https://github.com/WebAssembly/wasi-sdk) and set WASI_SDK_PATH to its folder";

/// Makes the component.
pub(super) fn build(folder: &Path) -> Result<PathBuf, Ended> {
    let work = work_folder(folder)?;
    let written = |name: &str, text: &str| {
        let file = work.join(name);
        fs::write(&file, text).map_err(|error| Ended::usage(format!("{} cannot be written: {error}", file.display())))
    };
    written("probe.c", PROBE)?;
    written("config_schema.c", &config_schema(folder))?;
    let mut command = compiler(folder)?;
    let flags = fs::read_to_string(folder.join(FLAGS)).unwrap_or_default();
    command.args(OURS).args(flags.lines().map(str::trim).filter(|line| !line.is_empty()));
    command.args(["-o", ".build/module.wasm", ".build/config_schema.c"]);
    for beside in [".", SDK] {
        command.args(sources(folder, beside)?);
    }
    let ended = command.status().map_err(|error| TOOL.lacks(&error))?;
    if ended.success() { component::made_of(&work.join("module.wasm"), folder) } else { Err(TOOL.failed(ended)) }
}

/// The files with C in a folder of the plugin, by name.
fn sources(folder: &Path, beside: &str) -> Result<Vec<PathBuf>, Ended> {
    let unreadable = |error| Ended::usage(format!("{} cannot be read: {error}", folder.join(beside).display()));
    let mut found = Vec::new();
    for entry in fs::read_dir(folder.join(beside)).map_err(unreadable)? {
        let name = PathBuf::from(entry.map_err(unreadable)?.file_name());
        if name.extension().is_some_and(|extension| extension == "c") {
            found.push(Path::new(beside).join(name));
        }
    }
    found.sort();
    Ok(found)
}

/// The JSON Schema of the config as a constant of the program; an empty one where there is no file.
fn config_schema(folder: &Path) -> String {
    let text = fs::read(folder.join("config-schema.json")).unwrap_or_default();
    let mut bytes: Vec<String> = text.iter().map(u8::to_string).collect();
    // C's texts end by it.
    bytes.push("0".to_owned());
    format!("extern const char fds_config_schema[];\nconst char fds_config_schema[] = {{{}}};\n", bytes.join(","))
}

/// The first compiler here that makes WebAssembly, to run in the plugin's folder.
fn compiler(folder: &Path) -> Result<Command, Ended> {
    let sdk = env::var_os("WASI_SDK_PATH").map(|sdk| PathBuf::from(sdk).join("bin/clang"));
    let numbered = VERSIONS.rev().map(|version| PathBuf::from(format!("clang-{version}")));
    let mut lacks = None;
    for name in sdk.into_iter().chain([PathBuf::from(TOOL.name)]).chain(numbered) {
        for target in TARGETS {
            let command = || {
                let mut command = Command::new(&name);
                command.arg(format!("--target={target}")).current_dir(folder).stdin(Stdio::null());
                command
            };
            let mut probe = command();
            probe.args(OURS).args(["-o", ".build/probe.wasm", ".build/probe.c"]);
            match probe.output() {
                Ok(tried) if tried.status.success() => return Ok(command()),
                Ok(tried) => {
                    let said = String::from_utf8_lossy(&tried.stderr);
                    let said = said.lines().find(|line| line.contains("error")).unwrap_or_default();
                    lacks = Some(format!("{} makes no WebAssembly ({said})", name.display()));
                }
                // Not there.
                Err(_) => break,
            }
        }
    }
    let lacks = lacks.unwrap_or_else(|| format!("{} is not there", TOOL.name));
    Err(Ended::usage(format!("{lacks}: a plugin in {} needs it; {REMEDY}", TOOL.language)))
}
