//! From files, environment and flags to a checked configuration: [`load`].
//!
//! One file holds one pipeline, or several under `pipelines:`, or tenants alone. Several files and folders of files make one
//! process with all of their pipelines. Relative paths begin at the file that says them. What is wrong in one file is held
//! against that file: [`load_each`] gives what is right in the others.

use std::{
    collections::BTreeMap,
    fs::File,
    io::{ErrorKind, Read as _},
    path::{Path, PathBuf},
    sync::Arc,
};

use super::{
    Config, PipelineConfig, TelemetryConfig,
    check::{self, Tenants},
    environment,
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

/// What can be run of a configuration some of whose files may be wrong.
#[derive(Clone, Debug)]
pub struct Loaded {
    /// The pipelines of the files that are right, and what is for the whole process.
    pub config: Config,
    /// The file of each pipeline, by the pipeline's name.
    pub files: BTreeMap<Arc<str>, Arc<str>>,
    /// Files that are wrong, and everything that is wrong with them. Their pipelines are left out.
    pub wrong: BTreeMap<Arc<str>, Faults>,
}

/// A checked configuration, or everything that is wrong with it.
pub fn load(inputs: &Inputs) -> Result<Config, Faults> {
    let Loaded { config, wrong, .. } = load_each(inputs)?;
    if wrong.is_empty() { Ok(config) } else { Err(all(wrong)) }
}

/// The same file by file: what is wrong in one stops the pipelines of that file alone. Everything that is wrong, where nothing is
/// left.
pub fn load_each(inputs: &Inputs) -> Result<Loaded, Faults> {
    let mut checked: Vec<_> = documents(inputs)?.into_iter().map(|document| Checked::new(document, inputs)).collect();
    // Files without pipelines are of whoever runs the process: what they say holds, and who says something else is wrong.
    checked.sort_by_key(|one| !one.is_for_all);
    let mut tenants = Tenants::new();
    for one in &checked {
        let mut merged = tenants.clone();
        check::merge_tenants(&mut merged, &one.tenants, &one.faults);
        if one.faults.is_empty() {
            tenants = merged;
        }
    }
    // A budget that cannot be read is not the same as none.
    let unread = checked.iter().find(|one| one.has_tenants && !one.faults.is_empty()).map(|one| Arc::clone(&one.name));
    let (mut pipelines, mut places, mut files) = (Vec::new(), BTreeMap::new(), BTreeMap::new());
    let (mut telemetry, mut wrong): (Option<(TelemetryConfig, Option<Place>)>, _) = (None, BTreeMap::new());
    for mut one in checked {
        let merged = merge_telemetry(telemetry.as_ref(), one.telemetry, &one.faults);
        let mut own_places = BTreeMap::new();
        for (place, pipeline) in &mut one.pipelines {
            if let Some(first) = places.get(&pipeline.name).or_else(|| own_places.get(&pipeline.name)) {
                let message = format!(
                    "a second pipeline is called {:?}; the first is at {first}; give each a name of its own",
                    pipeline.name
                );
                one.faults.add(place, "", message);
            }
            let unread = unread.as_deref().filter(|file| *file != &*one.name);
            check::pipeline_tenant(place, pipeline, &tenants, unread, &one.faults);
            own_places.insert(Arc::clone(&pipeline.name), place.clone());
        }
        match one.faults.finish(Some(one.pipelines)) {
            Err(faults) => drop(wrong.insert(one.name, faults)),
            Ok(own) => {
                telemetry = Some(merged);
                for (place, pipeline) in own {
                    places.insert(Arc::clone(&pipeline.name), place);
                    files.insert(Arc::clone(&pipeline.name), Arc::clone(&one.name));
                    pipelines.push(pipeline);
                }
            }
        }
    }
    let tenants = tenants.into_iter().map(|(name, (_, budgets))| (name, budgets)).collect();
    match telemetry {
        Some((telemetry, _)) if !pipelines.is_empty() || wrong.is_empty() => {
            Ok(Loaded { config: Config { pipelines, tenants, telemetry }, files, wrong })
        }
        _ => Err(all(wrong)),
    }
}

/// The faults of all files, in the order of the files.
fn all(wrong: BTreeMap<Arc<str>, Faults>) -> Faults {
    let mut faults: Vec<_> = wrong.into_values().flat_map(|faults| faults.0).collect();
    faults.sort();
    faults.dedup();
    Faults(faults)
}

/// A file with what it says, checked for itself.
struct Checked {
    /// Its path.
    name: Arc<str>,
    /// What is wrong with it.
    faults: Collector,
    /// Whether it has no pipelines, but a word on the process.
    is_for_all: bool,
    /// Whether it says something of tenants, as far as that can be seen.
    has_tenants: bool,
    /// Tenants that it describes.
    tenants: Tenants,
    /// Its word on the whole process, and where that stands.
    telemetry: (TelemetryConfig, Option<Place>),
    /// Its pipelines, and where they stand.
    pipelines: Vec<(Place, PipelineConfig)>,
}

impl Checked {
    /// Checks a file.
    fn new(document: Document, inputs: &Inputs) -> Self {
        let Document { file, name, folder, node, faults, has_tenants, is_of_process } = document;
        let is_read = node.is_some();
        let mut node = node.unwrap_or_else(|| Node::empty(Place::other(Arc::clone(&file))));
        if is_read {
            environment::apply(&mut node, is_of_process, inputs, &faults);
        }
        let top = Section::top(&node, &faults);
        let telemetry = check::telemetry(top.section("telemetry"));
        let tenants = check::tenants(&top);
        let is_for_all = is_of_process && !PIPELINE_KEYS.iter().chain(&["pipelines"]).any(|key| top.has(key));
        // What could not be read is told, and not what is missing for it; and a file may be about the process alone.
        let pipelines = if is_read && !is_for_all { document_pipelines(&name, &folder, &top) } else { Vec::new() };
        if is_read {
            top.finish();
        }
        Self { name: file, is_for_all, has_tenants, faults, tenants, telemetry, pipelines }
    }
}

/// The pipelines of one file, and where they stand.
fn document_pipelines(name: &str, folder: &Path, top: &Section<'_>) -> Vec<(Place, PipelineConfig)> {
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
    known: Option<&(TelemetryConfig, Option<Place>)>,
    own: (TelemetryConfig, Option<Place>),
    faults: &Collector,
) -> (TelemetryConfig, Option<Place>) {
    let Some(known) = known else { return own };
    match (&known.1, &own.1) {
        (Some(first), Some(place)) if known.0 != own.0 => {
            let message = format!("is for the whole process, and {first} says something else; say it once");
            faults.add(place, "telemetry", message);
            known.clone()
        }
        (None, Some(_)) => own,
        _ => known.clone(),
    }
}

/// One file.
struct Document {
    /// Its path.
    file: Arc<str>,
    /// The name of its pipeline, if it does not say another.
    name: String,
    /// Where its paths begin.
    folder: PathBuf,
    /// What it says, where it can be read.
    node: Option<Node>,
    /// What is wrong with it.
    faults: Collector,
    /// Whether it says something of tenants, as far as that can be seen.
    has_tenants: bool,
    /// Whether it may be about the process alone: tenants, or, beside other files, telemetry. A file on its own that has no source
    /// lacks one, or has it from variables.
    is_of_process: bool,
}

/// Every file.
fn documents(inputs: &Inputs) -> Result<Vec<Document>, Faults> {
    if !inputs.paths.is_empty() {
        let mut documents: Vec<_> = files(&inputs.paths).into_iter().map(|file| read(file, inputs)).collect();
        if documents.len() > 1 {
            for document in &mut documents {
                document.is_of_process |= document.node.as_ref().is_some_and(|node| node.get("telemetry").is_some());
            }
        }
        return Ok(documents);
    }
    let faults = Collector::default();
    let names_a_source = inputs.environment.get("SOURCE_TYPE").is_some_and(|kind| !kind.is_empty())
        || inputs.overrides.iter().any(|flag| flag.key == "source.type");
    if !names_a_source {
        faults.add(
            &Place::other("no configuration"),
            "",
            "name a YAML file (fs-data-sink run pipeline.yaml), or set SOURCE_TYPE, SINK_TYPE and their variables; \
             fs-data-sink demo shows the whole at work",
        );
        return faults.finish(None);
    }
    let file: Arc<str> = "environment and flags".into();
    let node = Some(Node::empty(Place::other(Arc::clone(&file))));
    let name = "fs-data-sink".to_owned();
    Ok(vec![Document { file, name, folder: PathBuf::new(), node, faults, has_tenants: false, is_of_process: false }])
}

/// The files, and those in the folders; a folder that has none is wrong as a file would be.
fn files(paths: &[PathBuf]) -> Vec<(PathBuf, Option<String>)> {
    let mut files = Vec::new();
    for path in paths {
        if !path.is_dir() {
            files.push((path.clone(), None));
            continue;
        }
        let entries = match std::fs::read_dir(path) {
            Ok(entries) => entries,
            Err(error) => {
                files.push((path.clone(), Some(format!("the folder cannot be read: {error}"))));
                continue;
            }
        };
        let is_yaml = |path: &PathBuf| {
            let is_hidden = path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"."));
            !is_hidden && path.extension().is_some_and(|extension| extension == "yaml" || extension == "yml")
        };
        let mut found: Vec<PathBuf> = entries.filter_map(|entry| Some(entry.ok()?.path())).filter(is_yaml).collect();
        if found.is_empty() {
            let message = "the folder has no file that ends in .yaml or .yml".to_owned();
            files.push((path.clone(), Some(message)));
        }
        found.sort();
        files.extend(found.into_iter().map(|path| (path, None)));
    }
    files
}

/// One file, or why there is none.
fn read((path, trouble): (PathBuf, Option<String>), inputs: &Inputs) -> Document {
    let file: Arc<str> = path.display().to_string().into();
    let faults = Collector::default();
    let text = match trouble {
        Some(message) => Err(message),
        None => read_text(&path),
    };
    let text = text.unwrap_or_else(|message| {
        faults.add(&Place::Other(Arc::clone(&file)), "", message);
        String::new()
    });
    let node = if faults.is_empty() { yaml::parse(&file, &text, &inputs.environment, &faults) } else { None };
    if let Some(node) = node.as_ref().filter(|node| !matches!(node.value, Value::Map(_))) {
        let message = format!("expected keys and values such as `source:` and `sink:`, found {}", node.value.kind());
        faults.add(&node.place, "", message);
    }
    let node = node.filter(|node| matches!(node.value, Value::Map(_)));
    let has_tenants = match &node {
        Some(node) => node.get("tenants").is_some(),
        None => text.lines().any(|line| line.starts_with("tenants")),
    };
    let name = path.file_stem().map_or_else(|| "pipeline".to_owned(), |stem| stem.to_string_lossy().into_owned());
    let folder = path.parent().map(Path::to_owned).unwrap_or_default();
    Document { file, name, folder, node, faults, has_tenants, is_of_process: has_tenants }
}

/// The text of a file that is not too large.
fn read_text(path: &Path) -> Result<String, String> {
    let mut text = String::new();
    let read = File::open(path).and_then(|file| file.take(FILE_BYTES_MAX + 1).read_to_string(&mut text));
    match read {
        Ok(bytes) if bytes as u64 > FILE_BYTES_MAX => Err("the file is larger than 4 MiB".to_owned()),
        Ok(_) => Ok(text),
        Err(error) if error.kind() == ErrorKind::NotFound => Err("the file does not exist".to_owned()),
        Err(error) => Err(format!("the file cannot be read: {error}")),
    }
}

#[cfg(test)]
mod tests;
