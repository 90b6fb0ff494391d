//! Which plugin is tried, and how it is configured: by a file alone, or by the block of a pipeline.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use clap::Args;

use super::{Ended, build::build};
use crate::{
    config::{
        DecodeConfig, PipelineConfig, PluginConfig,
        load::{self, Inputs},
    },
    error::PipelineError,
    plugin::{self, Chain, ChainContext, LoadedPlugin, PluginEngine},
};

/// Bytes of a file with a plugin's config; as of a configuration.
const CONFIG_BYTES_MAX: u64 = 4 << 20;

/// Which plugin, how it is configured, and the rows that it is given.
#[derive(Clone, Debug, Args)]
pub(super) struct SubjectArguments {
    /// The component's file, or a plugin's folder, which is built first; may be left out with --pipeline, and takes the place of that
    /// one's file if it is not.
    #[arg(value_name = "FILE|FOLDER", required_unless_present = "pipeline")]
    file: Option<PathBuf>,
    /// Rows: lines of JSON, Arrow IPC or Parquet; of a folder test/rows.ndjson if nothing else is named.
    #[arg(long, value_name = "FILE")]
    input: Option<PathBuf>,
    /// What stands under `config:` in a pipeline: a file of YAML or JSON, or the text itself; of a folder test/config.yaml if
    /// nothing else is named.
    #[arg(long, value_name = "FILE|TEXT", conflicts_with = "pipeline")]
    config: Option<String>,
    /// Take file, config, grants and limits from a plugin of a pipeline, and the schema of its rows; the name of the plugin behind
    /// a `#` where there are more.
    #[arg(long, value_name = "FILE#PLUGIN")]
    pipeline: Option<String>,
    /// Records that are read at most.
    #[arg(long, value_name = "N", default_value_t = 100_000)]
    pub(super) records: u64,
    /// Records in a batch.
    #[arg(long, value_name = "N", default_value_t = 8_192, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub(super) batch_rows: u32,
}

/// What is tried.
#[derive(Debug)]
pub(super) struct Subject {
    /// The plugin.
    pub(super) plugin: PluginConfig,
    /// How records become rows.
    pub(super) decode: DecodeConfig,
}

impl SubjectArguments {
    /// The plugin's folder, if that is what is named.
    pub(super) fn folder(&self) -> Option<&Path> {
        self.file.as_deref().filter(|file| file.is_dir())
    }

    /// The same with a folder built, and the files of its test for what is not named.
    pub(super) fn prepared(&self) -> Result<Self, Ended> {
        let Some(folder) = self.folder() else { return Ok(self.clone()) };
        let test = |name: &str| Some(folder.join("test").join(name)).filter(|path| path.is_file());
        let of_folder = || test("config.yaml").filter(|_| self.pipeline.is_none());
        Ok(Self {
            file: Some(build(folder)?),
            input: self.input.clone().or_else(|| test("rows.ndjson")),
            config: self.config.clone().or_else(|| of_folder().map(|path| path.display().to_string())),
            ..self.clone()
        })
    }

    /// The file with the rows.
    pub(super) fn input(&self) -> Result<&Path, Ended> {
        self.input.as_deref().ok_or_else(|| Ended::usage("name a file with rows for the plugin: --input rows.ndjson"))
    }

    /// The files that a trial depends on, or the folder.
    pub(super) fn watched(&self) -> Vec<PathBuf> {
        let pipeline = self.pipeline.as_deref().map(|named| named.rsplit_once('#').map_or(named, |(path, _)| path));
        let others = [self.config.as_deref(), pipeline].into_iter().flatten().map(PathBuf::from);
        self.file.iter().chain(&self.input).cloned().chain(others).collect()
    }

    /// Reads what the arguments name.
    pub(super) fn subject(&self) -> Result<Subject, Ended> {
        let environment = load::read_environment().map_err(|faults| Ended::usage(faults.to_string()))?;
        if let Some(named) = &self.pipeline {
            let (path, name) = named.rsplit_once('#').map_or((named.as_str(), None), |(path, name)| (path, Some(name)));
            let inputs = Inputs { paths: vec![path.into()], environment, ..Inputs::default() };
            let config = load::load(&inputs).map_err(|faults| Ended::usage(faults.to_string()))?;
            let (pipeline, plugin) =
                find(&config.pipelines, name).map_err(|words| Ended::usage(format!("{path}: {words}")))?;
            let mut plugin = PluginConfig::clone(plugin);
            if let Some(file) = &self.file {
                plugin.path.clone_from(file);
                plugin.sha256 = None;
            }
            return Ok(Subject { plugin: for_trial(plugin), decode: pipeline.decode.clone() });
        }
        let Some(file) = &self.file else { return Err(Ended::usage("name the component's file, or --pipeline")) };
        let config = self.config.as_deref().map(config_text).transpose()?;
        let config = config.as_ref().map(|(name, text)| (name.as_str(), text.as_str()));
        let plugin =
            PluginConfig::alone(file, config, &environment).map_err(|faults| Ended::usage(faults.to_string()))?;
        Ok(Subject { plugin: for_trial(plugin), decode: DecodeConfig::inferred_json() })
    }
}

impl Subject {
    /// The plugin, compiled, with its config held against its schema.
    pub(super) async fn load(&self, engine: &PluginEngine) -> Result<Arc<LoadedPlugin>, Ended> {
        let loaded = Arc::new(engine.load(&Arc::new(self.plugin.clone())).map_err(|error| Ended::refused(&error))?);
        plugin::check_configs(&[Arc::clone(&loaded)], &ChainContext::alone())
            .await
            .map_err(|error| Ended::refused(&error))?;
        Ok(loaded)
    }
}

/// A plugin alone in a chain.
pub(super) async fn open(loaded: &Arc<LoadedPlugin>, input: arrow_schema::SchemaRef) -> Result<Chain, PipelineError> {
    Chain::open(&[Arc::clone(loaded)], input, ChainContext::alone()).await
}

/// A plugin that is tried is not waited for: what a pipeline does to go on by itself would only hide what is wrong.
fn for_trial(mut plugin: PluginConfig) -> PluginConfig {
    let at_once = Duration::from_millis(1);
    plugin.on_trap.open_circuit_after = 0;
    (plugin.on_trap.backoff_from, plugin.on_trap.backoff_to) = (at_once, at_once);
    plugin
}

/// The plugin of a name, or the only one.
fn find<'a>(
    pipelines: &'a [PipelineConfig],
    name: Option<&str>,
) -> Result<(&'a PipelineConfig, &'a Arc<PluginConfig>), String> {
    let all = || pipelines.iter().flat_map(|pipeline| pipeline.plugins.iter().map(move |plugin| (pipeline, plugin)));
    let full =
        |(pipeline, plugin): &(&PipelineConfig, &Arc<PluginConfig>)| format!("{}/{}", pipeline.name, plugin.name);
    let is_meant = |found: &(&PipelineConfig, &Arc<PluginConfig>)| {
        name.is_none_or(|name| *found.1.name == *name || full(found) == name)
    };
    let found: Vec<_> = all().filter(is_meant).collect();
    let names: Vec<_> = all().map(|found| full(&found)).collect();
    match (found.as_slice(), name) {
        ([only], _) => Ok(*only),
        ([], None) => Err("no pipeline in it has a plugin".to_owned()),
        ([], Some(name)) => Err(format!("no plugin is called {name:?}; there are: {}", names.join(", "))),
        _ => Err(format!("name one of its plugins behind a `#`: {}", names.join(", "))),
    }
}

/// The text of `--config` with the name of what it comes from.
fn config_text(given: &str) -> Result<(String, String), Ended> {
    // A mapping has a colon, which hardly any file's name has; a file that is there is meant in any case.
    let path = PathBuf::from(given);
    if !path.is_file() {
        if given.contains(':') || given.trim_start().starts_with('{') {
            return Ok(("--config".to_owned(), given.to_owned()));
        }
        return Err(Ended::usage(format!(
            "--config: {given} is neither a file nor keys and values such as `column: country`"
        )));
    }
    let read = std::fs::metadata(&path).and_then(|metadata| {
        if metadata.len() > CONFIG_BYTES_MAX {
            return Err(std::io::Error::other("it is larger than 4 MiB"));
        }
        std::fs::read_to_string(&path)
    });
    read.map(|text| (given.to_owned(), text)).map_err(|error| Ended::usage(format!("{given}: cannot be read: {error}")))
}
