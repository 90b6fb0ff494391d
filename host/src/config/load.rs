//! From files, environment and flags to a checked configuration: [`load`].
//!
//! One file holds one pipeline, or several under `pipelines:`. Several files and folders of files make one process with
//! all of their pipelines. Relative paths begin at the file that says them.

use std::{
    collections::BTreeMap,
    fs::File,
    io::{ErrorKind, Read as _},
    path::{Path, PathBuf},
    sync::Arc,
};

use super::{
    Config, PipelineConfig, TelemetryConfig, check, environment,
    fault::{Collector, Faults, Place},
    node::{Node, Value},
    reader::Section,
    yaml,
};

pub use environment::{Override, read as read_environment};

/// Largest file that is read: far above any configuration, far below what could hurt.
const FILE_BYTES_MAX: u64 = 4 << 20;

/// Keys of one pipeline, which have no place beside `pipelines`.
const PIPELINE_KEYS: [&str; 8] = ["name", "tenant", "source", "schema", "plugins", "sink", "pipeline", "dead_letter"];

/// Everything that a configuration is made of.
#[derive(Clone, Debug, Default)]
pub struct Inputs {
    /// Files, and folders of files.
    pub paths: Vec<PathBuf>,
    /// Flags that set keys.
    pub overrides: Vec<Override>,
    /// `.env` and the process environment; see [`read_environment`].
    pub environment: BTreeMap<String, String>,
}

/// A checked configuration, or everything that is wrong with it.
pub fn load(inputs: &Inputs) -> Result<Config, Faults> {
    let faults = Collector::default();
    let documents = documents(inputs, &faults);
    let (mut pipelines, mut places) = (Vec::new(), BTreeMap::new());
    let mut telemetry: Option<(TelemetryConfig, Option<Place>)> = None;
    for document in &documents {
        let top = Section::top(&document.node, &faults);
        let own = check::telemetry(top.section("telemetry"));
        telemetry = Some(match telemetry {
            Some(known) => merge_telemetry(known, own, &faults),
            None => own,
        });
        for (place, pipeline) in document_pipelines(document, &top) {
            if let Some(first) = places.insert(Arc::clone(&pipeline.name), place.clone()) {
                let message = format!(
                    "a second pipeline is called {:?}; the first is at {first}; give each a name of its own",
                    pipeline.name
                );
                faults.add(&place, "", message);
            }
            pipelines.push(pipeline);
        }
        top.finish();
    }
    faults.finish(telemetry.map(|(telemetry, _)| Config { pipelines, telemetry }))
}

/// The pipelines of one file, and where they stand.
fn document_pipelines(document: &Document, top: &Section<'_>) -> Vec<(Place, PipelineConfig)> {
    let Document { name, folder, .. } = document;
    if top.node("pipelines").is_none() {
        let place = top.place().clone();
        return check::pipeline(top, name, folder).map(|pipeline| (place, pipeline)).into_iter().collect();
    }
    for key in PIPELINE_KEYS {
        if top.has(key) {
            top.fault(key, "stands beside `pipelines`; put it into each pipeline that it is for");
        }
        let _ = top.node(key);
    }
    let sections = top.tops("pipelines");
    if sections.is_empty() && top.is_empty("pipelines") {
        top.fault("pipelines", "expected at least one pipeline under its name");
    }
    let mut pipelines = Vec::new();
    for (name, section) in sections {
        let Some(name) = name else {
            top.fault("pipelines", "expected keys and values, a pipeline under its name, found a list");
            break;
        };
        if section.has("telemetry") {
            section.fault("telemetry", "is for the whole process; put it at the top of the file");
            let _ = section.node("telemetry");
        }
        let place = section.place().clone();
        pipelines.extend(check::pipeline(&section, name, folder).map(|pipeline| (place, pipeline)));
        section.finish();
    }
    pipelines
}

/// Telemetry is for the whole process: files may leave it out, or say the same.
fn merge_telemetry(
    known: (TelemetryConfig, Option<Place>),
    own: (TelemetryConfig, Option<Place>),
    faults: &Collector,
) -> (TelemetryConfig, Option<Place>) {
    match (&known.1, &own.1) {
        (Some(first), Some(place)) if known.0 != own.0 => {
            let message = format!("is for the whole process, and {first} says something else; say it once");
            faults.add(place, "telemetry", message);
            known
        }
        (None, Some(_)) => own,
        _ => known,
    }
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
        files(&inputs.paths, faults).iter().filter_map(|file| read(file, inputs, faults)).collect();
    if inputs.paths.is_empty() {
        let names_a_source = inputs.environment.get("SOURCE_TYPE").is_some_and(|kind| !kind.is_empty())
            || inputs.overrides.iter().any(|flag| flag.key == "source.type");
        if !names_a_source {
            faults.add(
                &Place::other("no configuration"),
                "",
                "name a YAML file (fs-data-sink run pipeline.yaml), or set SOURCE_TYPE, SINK_TYPE and their variables; \
                 fs-data-sink demo shows the whole at work",
            );
            return documents;
        }
        let place = Place::other("environment and flags");
        documents.push(Document { name: "fs-data-sink".to_owned(), folder: PathBuf::new(), node: Node::empty(place) });
    }
    for document in &mut documents {
        environment::apply(&mut document.node, inputs, faults);
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
        let place = Place::other(path.display().to_string());
        let entries = match std::fs::read_dir(path) {
            Ok(entries) => entries,
            Err(error) => {
                faults.add(&place, "", format!("the folder cannot be read: {error}"));
                continue;
            }
        };
        let is_yaml = |path: &PathBuf| {
            let is_hidden = path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"."));
            !is_hidden && path.extension().is_some_and(|extension| extension == "yaml" || extension == "yml")
        };
        let mut found: Vec<PathBuf> = entries.filter_map(|entry| Some(entry.ok()?.path())).filter(is_yaml).collect();
        if found.is_empty() {
            faults.add(&place, "", "the folder has no file that ends in .yaml or .yml");
        }
        found.sort();
        files.extend(found);
    }
    files
}

/// One file.
fn read(path: &Path, inputs: &Inputs, faults: &Collector) -> Option<Document> {
    let name: Arc<str> = path.display().to_string().into();
    let mut text = String::new();
    let read = File::open(path).and_then(|file| file.take(FILE_BYTES_MAX + 1).read_to_string(&mut text));
    let message = match read {
        Ok(bytes) if bytes as u64 > FILE_BYTES_MAX => Some("the file is larger than 4 MiB".to_owned()),
        Ok(_) => None,
        Err(error) if error.kind() == ErrorKind::NotFound => Some("the file does not exist".to_owned()),
        Err(error) => Some(format!("the file cannot be read: {error}")),
    };
    if let Some(message) = message {
        faults.add(&Place::Other(name), "", message);
        return None;
    }
    let node = yaml::parse(&name, &text, &inputs.environment, faults)?;
    if !matches!(node.value, Value::Map(_)) {
        let message = format!("expected keys and values such as `source:` and `sink:`, found {}", node.value.kind());
        faults.add(&node.place, "", message);
        return None;
    }
    let stem = path.file_stem().map_or_else(|| "pipeline".to_owned(), |stem| stem.to_string_lossy().into_owned());
    Some(Document { name: stem, folder: path.parent().map(Path::to_owned).unwrap_or_default(), node })
}

#[cfg(test)]
mod tests;
