//! From files, environment and flags to a checked configuration.
//!
//! Precedence: flags, then environment, then `.env`, then the file, then defaults. The environment's names are the
//! original's; each counts only for the source or sink that it belongs to.

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
    sync::Arc,
};

use super::{
    Config, PipelineConfig, TelemetryConfig, check,
    fault::{Collector, Faults, Place},
    node::{self, Node, Value, Variables},
    print,
    reader::Section,
};

/// Variable, key, and the source or sink that it belongs to.
const ENVIRONMENT: [Variable; 20] = [
    ("SOURCE_TYPE", "source.type", None),
    ("SINK_TYPE", "sink.type", None),
    ("KAFKA_BOOTSTRAP_SERVERS", "source.bootstrap_servers", Some(("source.type", "kafka"))),
    ("KAFKA_TOPICS", "source.topics", Some(("source.type", "kafka"))),
    ("KAFKA_GROUP_ID", "source.group_id", Some(("source.type", "kafka"))),
    ("S3_BUCKET", "sink.bucket", Some(("sink.type", "s3"))),
    ("S3_PREFIX", "sink.prefix", Some(("sink.type", "s3"))),
    ("S3_ENDPOINT_URL", "sink.endpoint_url", Some(("sink.type", "s3"))),
    ("AWS_ACCESS_KEY_ID", "sink.aws_access_key_id", Some(("sink.type", "s3"))),
    ("AWS_SECRET_ACCESS_KEY", "sink.aws_secret_access_key", Some(("sink.type", "s3"))),
    ("AWS_REGION", "sink.region_name", Some(("sink.type", "s3"))),
    ("REDIS_HOST", "source.host", Some(("source.type", "redis"))),
    ("HDFS_URL", "sink.url", Some(("sink.type", "hdfs"))),
    ("PIPELINE_FLUSH_INTERVAL_SECONDS", "pipeline.flush_interval_seconds", None),
    ("PIPELINE_FLUSH_INTERVAL_BATCHES", "pipeline.flush_interval_batches", None),
    ("SINK_MERGE_ENABLED", "sink.merge_enabled", Some(("sink.type", "hdfs"))),
    ("LOG_LEVEL", "telemetry.log_level", None),
    ("OTEL_ENABLED", "telemetry.enabled", None),
    ("OTEL_EXPORTER_OTLP_ENDPOINT", "telemetry.otlp_endpoint", None),
    ("OTEL_SERVICE_NAME", "telemetry.service_name", None),
];

/// Variable, key, and where it counts.
type Variable = (&'static str, &'static str, Option<(&'static str, &'static str)>);

/// Everything that a configuration is made of.
#[derive(Clone, Debug, Default)]
pub struct Inputs {
    /// Files, and folders of files.
    pub paths: Vec<PathBuf>,
    /// Key, value, and the flag that set it.
    pub overrides: Vec<(String, String, String)>,
    /// `.env` and the process environment.
    pub environment: Variables,
}

/// `.env` of the working folder, and the process environment over it.
pub fn environment() -> Result<Variables, Faults> {
    let mut variables = Variables::new();
    if let Ok(entries) = dotenvy::from_filename_iter(".env") {
        for entry in entries {
            let (name, value) = entry.map_err(|error| {
                let collector = Collector::default();
                // The message repeats the line, which may be a secret.
                let kind = match error {
                    dotenvy::Error::LineParse(_, at) => format!("a line cannot be read (at its character {at})"),
                    other => other.to_string(),
                };
                collector.add(&Place::Other(".env".into()), "", kind);
                collector.finish::<()>(None).err().unwrap_or(Faults(Vec::new()))
            })?;
            variables.insert(name, value);
        }
    }
    variables.extend(
        std::env::vars_os().filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?))),
    );
    Ok(variables)
}

/// A checked configuration, or everything that is wrong with it.
pub fn load(inputs: &Inputs) -> Result<Config, Faults> {
    let faults = Collector::default();
    let mut pipelines: Vec<PipelineConfig> = Vec::new();
    let mut telemetry: Option<TelemetryConfig> = None;
    for document in documents(inputs, &faults) {
        let top = Section::top(&document.node, &faults);
        let own = check::telemetry(top.section("telemetry"));
        telemetry.get_or_insert(own);
        if top.node("pipelines").is_some() {
            for (name, section) in top.sections("pipelines") {
                let Some(name) = name else {
                    top.fault("pipelines", "expected a map of names to pipelines");
                    break;
                };
                pipelines.extend(check::pipeline(&section, &name, &document.folder));
                section.finish();
            }
        } else {
            pipelines.extend(check::pipeline(&top, &document.name, &document.folder));
        }
        top.finish();
    }
    let mut names = BTreeSet::new();
    for pipeline in &pipelines {
        if !names.insert(Arc::clone(&pipeline.name)) {
            let place = Place::Other("configuration".into());
            faults.add(
                &place,
                "name",
                format!("two pipelines are called {:?}; give each a name of its own", pipeline.name),
            );
        }
    }
    faults.finish(telemetry.map(|telemetry| Config { pipelines, telemetry }))
}

/// The files with environment and flags on top, as YAML without secrets.
pub fn show(inputs: &Inputs) -> Result<String, Faults> {
    let faults = Collector::default();
    let documents = documents(inputs, &faults);
    faults.finish(Some(()))?;
    Ok(documents.iter().map(|document| print::yaml(&document.name, &document.node)).collect())
}

/// One file.
struct Document {
    /// The name of its pipeline, if it does not say another.
    name: String,
    /// Where its paths begin.
    folder: PathBuf,
    /// What it says.
    node: Node,
}

/// Every file with environment and flags on top.
fn documents(inputs: &Inputs, faults: &Collector) -> Vec<Document> {
    let mut documents: Vec<Document> =
        files(&inputs.paths, faults).iter().filter_map(|file| read(file, &inputs.environment, faults)).collect();
    if inputs.paths.is_empty() {
        let place = Place::Other("environment".into());
        let names_a_source = inputs.environment.contains_key("SOURCE_TYPE")
            || inputs.overrides.iter().any(|(key, ..)| key == "source.type");
        if !names_a_source {
            faults.add(
                &place,
                "",
                "no configuration: name a YAML file (fs-data-sink run pipeline.yaml), or set SOURCE_TYPE, SINK_TYPE and \
                 their variables; `fs-data-sink demo` shows the whole at work",
            );
        }
        documents.push(Document { name: "fs-data-sink".to_owned(), folder: PathBuf::new(), node: Node::empty(place) });
    }
    for document in &mut documents {
        apply(&mut document.node, inputs);
    }
    documents
}

/// The files, and those in the folders.
fn files(paths: &[PathBuf], faults: &Collector) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for path in paths {
        if !path.is_dir() {
            files.push(path.clone());
            continue;
        }
        let is_yaml =
            |path: &PathBuf| path.extension().is_some_and(|extension| extension == "yaml" || extension == "yml");
        let mut found: Vec<PathBuf> = std::fs::read_dir(path)
            .into_iter()
            .flatten()
            .filter_map(|entry| Some(entry.ok()?.path()))
            .filter(is_yaml)
            .collect();
        if found.is_empty() {
            let place = Place::Other(path.display().to_string().into());
            faults.add(&place, "", "the folder has no file that ends in .yaml or .yml");
        }
        found.sort();
        files.extend(found);
    }
    files
}

/// One file.
fn read(file: &Path, variables: &Variables, faults: &Collector) -> Option<Document> {
    let name: Arc<str> = file.display().to_string().into();
    let text = match std::fs::read_to_string(file) {
        Ok(text) => text,
        Err(error) => {
            faults.add(&Place::Other(name), "", format!("the file cannot be read: {error}"));
            return None;
        }
    };
    let node = node::parse(&name, &text, variables, faults)?;
    if !matches!(node.value, Value::Map(_)) {
        faults.add(&node.place, "", "expected keys and values such as `source:` and `sink:`");
        return None;
    }
    let stem = file.file_stem().map_or_else(|| "pipeline".to_owned(), |stem| stem.to_string_lossy().into_owned());
    Some(Document { name: stem, folder: file.parent().map(Path::to_owned).unwrap_or_default(), node })
}

/// Environment, then flags, over one file. In a file of several pipelines they count for each of them.
fn apply(node: &mut Node, inputs: &Inputs) {
    if let Value::Map(entries) = &mut node.value
        && let Some((_, Node { value: Value::Map(pipelines), .. })) =
            entries.iter_mut().find(|(key, _)| key == "pipelines")
    {
        for (_, pipeline) in pipelines {
            apply_matching(pipeline, inputs, |key| !key.starts_with("telemetry."));
        }
        apply_matching(node, inputs, |key| key.starts_with("telemetry."));
        return;
    }
    apply_matching(node, inputs, |_| true);
}

/// The same for some keys. Types come first, since other variables depend on them.
fn apply_matching(node: &mut Node, inputs: &Inputs, wanted: impl Fn(&str) -> bool) {
    let scalar = |text: &str, origin: String| Node {
        place: Place::Other(origin.into()),
        value: Value::Scalar(text.to_owned(), false),
    };
    let types = ["source.type", "sink.type"];
    for (key, value, flag) in inputs.overrides.iter().filter(|(key, ..)| types.contains(&key.as_str()) && wanted(key)) {
        node.set(key, scalar(value, flag.clone()));
    }
    for (variable, key, belongs_to) in ENVIRONMENT.iter().filter(|(_, key, _)| wanted(key)) {
        let is_overridden = types.contains(key) && inputs.overrides.iter().any(|(flag_key, ..)| flag_key == key);
        let counts = belongs_to.is_none_or(|(key, value)| node.text_at(key) == Some(value));
        if let Some(value) =
            inputs.environment.get(*variable).filter(|value| !value.is_empty() && counts && !is_overridden)
        {
            node.set(key, scalar(value, format!("environment variable {variable}")));
        }
    }
    for (key, value, flag) in inputs.overrides.iter().filter(|(key, ..)| wanted(key)) {
        node.set(key, scalar(value, flag.clone()));
    }
}

#[cfg(test)]
mod tests;
