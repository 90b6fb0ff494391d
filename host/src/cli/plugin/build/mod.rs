//! `fs-data-sink plugin build`: a plugin's folder to its component, by the toolchain of its language.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    process::{Command, ExitStatus, Stdio},
};

use clap::Args;

use super::{DONE, Ended, FAILED, answer, engine, language::Language};
use crate::{config::PluginConfig, plugin::PluginEngine};

mod c;
mod component;
mod go;
mod javascript;
mod python;
mod rust;

/// What `plugin build` takes.
#[derive(Debug, Args)]
pub(in crate::cli) struct BuildArguments {
    /// The plugin's folder.
    #[arg(value_name = "FOLDER", default_value = ".")]
    folder: PathBuf,
}

/// Does it.
pub(super) async fn run(arguments: &BuildArguments) -> Result<u8, Ended> {
    let built = build(&arguments.folder)?;
    let words = check(&built, &engine()?).await?;
    answer(&format!("{}: {words}", built.display()));
    Ok(DONE)
}

/// Builds a folder; gives the component's file, which is in the folder.
pub(super) fn build(folder: &Path) -> Result<PathBuf, Ended> {
    let shown = folder.display();
    if !folder.is_dir() {
        return Err(Ended::usage(format!("{shown} is not a folder")));
    }
    match Language::of(folder) {
        Some(Language::Rust) => rust::build(folder),
        Some(Language::Python) => python::build(folder),
        Some(Language::Javascript) => javascript::build(folder),
        Some(Language::C) => c::build(folder),
        Some(Language::Go) => go::build(folder),
        None => {
            let marks: Vec<_> =
                Language::ALL.iter().map(|language| format!("{} ({})", language.mark(), language.as_str())).collect();
            Err(Ended::usage(format!(
                "{shown} is no plugin's folder: it has no {}; `fs-data-sink plugin new --language rust NAME` makes one",
                marks.join(", no ")
            )))
        }
    }
}

/// Starts what was built, and asks it what it is.
pub(super) async fn check(built: &Path, engine: &PluginEngine) -> Result<String, Ended> {
    let config =
        PluginConfig::alone(built, None, &BTreeMap::new()).map_err(|faults| Ended::usage(faults.to_string()))?;
    let found = engine.inspect(config).await?;
    let description = found.description?;
    Ok(format!("{} {}, {} bytes", description.name, description.version, found.bytes))
}

/// Puts a component into the plugin's folder; whoever reads it there sees the old one or the new one.
fn place(made: &Path, folder: &Path) -> Result<PathBuf, Ended> {
    let built = folder.join(made.file_name().unwrap_or_default());
    let temporary = built.with_extension("wasm.new");
    fs::copy(made, &temporary)
        .and_then(|_| fs::rename(&temporary, &built))
        .map_err(|error| Ended { code: FAILED, words: format!("{} cannot be written: {error}", built.display()) })?;
    Ok(built)
}

/// A program of others.
struct Tool {
    /// How it is called.
    name: &'static str,
    /// Whose it is.
    language: &'static str,
    /// What to do where it is missing.
    remedy: &'static str,
}

impl Tool {
    /// The words for one that cannot be started.
    fn lacks(&self, error: &std::io::Error) -> Ended {
        let Self { name, language, remedy } = self;
        Ended::usage(match error.kind() {
            std::io::ErrorKind::NotFound => format!("{name} is not there: a plugin in {language} needs it; {remedy}"),
            _ => format!("{name} cannot be run: {error}"),
        })
    }

    /// The words for one that failed; what it said is told already.
    fn failed(&self, ended: ExitStatus) -> Ended {
        Ended { code: FAILED, words: format!("{} ended with {ended}; what is wrong stands above", self.name) }
    }
}

/// Has a command write a component; it runs in the plugin's folder, and is given the file as its last argument.
fn written_by(mut command: Command, folder: &Path, tool: &Tool) -> Result<PathBuf, Ended> {
    work_folder(folder)?;
    let made = PathBuf::from(".build").join(named_after(folder));
    let command = command.arg(&made).current_dir(folder).stdin(Stdio::null()).stdout(Stdio::null());
    let ended = command.status().map_err(|error| tool.lacks(&error))?;
    if ended.success() { place(&folder.join(made), folder) } else { Err(tool.failed(ended)) }
}

/// The folder for what is only needed while building.
fn work_folder(folder: &Path) -> Result<PathBuf, Ended> {
    let work = folder.join(".build");
    fs::create_dir_all(&work).map_err(|error| Ended::usage(format!("{} cannot be made: {error}", work.display())))?;
    Ok(work)
}

/// The file of a component that is called as its folder.
fn named_after(folder: &Path) -> String {
    let whole = fs::canonicalize(folder).unwrap_or_default();
    let name = whole.file_name().map_or_else(|| "plugin".into(), |name| name.to_string_lossy());
    format!("{}.wasm", name.replace('-', "_"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_folder_of_a_plugin_is_told() {
        let folder = tempfile::tempdir().unwrap();
        let words = build(folder.path()).unwrap_err().words;
        assert!(words.contains("is no plugin's folder: it has no Cargo.toml (rust)"), "{words}");
        assert!(build(&folder.path().join("none")).unwrap_err().words.ends_with("is not a folder"));
        assert_eq!(named_after(Path::new("/tmp/.")), "tmp.wasm");
        let missing = std::io::Error::from(std::io::ErrorKind::NotFound);
        let words = Tool { name: "cargo", language: "Rust", remedy: "install it" }.lacks(&missing).words;
        assert_eq!(words, "cargo is not there: a plugin in Rust needs it; install it");
    }
}
