//! `fs-data-sink plugin inspect`: what is in a component's file, and what it says of itself.

use std::{collections::BTreeMap, fmt::Write as _, path::PathBuf};

use clap::Args;
use serde_json::{Value, json};

use super::{DONE, Ended, FAILED, answer, engine, tell};
use crate::{
    config::PluginConfig,
    plugin::{ConfigSchema, Description, ImportNeed, Inspection},
};

/// Packages of WASI that runtimes of languages import, whether they use them or not.
const RUNTIME: [&str; 6] =
    ["wasi:cli/", "wasi:clocks/", "wasi:filesystem/", "wasi:io/", "wasi:random/", "wasi:sockets/"];

/// What `plugin inspect` takes.
#[derive(Debug, Args)]
pub(in crate::cli) struct InspectArguments {
    /// The component's file.
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// Answer one JSON object.
    #[arg(long)]
    json: bool,
}

/// Does it.
pub(super) async fn run(arguments: &InspectArguments) -> Result<u8, Ended> {
    let config = PluginConfig::alone(&arguments.file, None, &BTreeMap::new())
        .map_err(|faults| Ended::usage(faults.to_string()))?;
    let found = engine()?.inspect(config).await?;
    if arguments.json {
        answer(&as_json(&found).to_string());
    } else {
        answer(as_text(&arguments.file.display().to_string(), &found).trim_end());
    }
    let Err(error) = &found.description else { return Ok(DONE) };
    tell(&format!("fs-data-sink: {}", error.full_message()));
    Ok(FAILED)
}

/// For programs.
fn as_json(found: &Inspection) -> Value {
    let Inspection { bytes, sha256, imports, exports, description } = found;
    let imports: Vec<_> = imports
        .iter()
        .map(|import| json!({"name": import.name, "needs": need(import.need), "grant": import.need.example()}))
        .collect();
    let mut value = json!({"bytes": bytes, "sha256": sha256, "imports": imports, "exports": exports});
    let more = match description {
        Ok(description) => describe_as_json(description),
        Err(error) => json!({"error": error.full_message()}),
    };
    if let (Value::Object(value), Value::Object(more)) = (&mut value, more) {
        value.extend(more);
    }
    value
}

/// What a plugin says of itself, for programs.
fn describe_as_json(description: &Description) -> Value {
    let Description { name, version, description, roles, config_schema, buffers_rows, deterministic, attributes } =
        description;
    let (schema, words) = match config_schema.as_deref().map(|text| (text, ConfigSchema::parse(text))) {
        None => (Value::Null, None),
        Some((text, Ok(_))) => (serde_json::from_str(text).unwrap_or_default(), None),
        Some((_, Err(words))) => (Value::Null, Some(words)),
    };
    let attributes: serde_json::Map<_, _> =
        attributes.iter().map(|(key, value)| (key.clone(), Value::from(value.as_str()))).collect();
    json!({
        "name": name, "version": version, "description": description, "roles": roles, "buffers_rows": buffers_rows,
        "deterministic": deterministic, "config_schema": schema, "config_schema_error": words, "attributes": attributes,
    })
}

/// What an import needs, where it needs something.
fn need(need: ImportNeed) -> Option<String> {
    (need != ImportNeed::Nothing).then(|| need.to_string())
}

/// For people. Writing to a String cannot fail.
fn as_text(file: &str, found: &Inspection) -> String {
    let Inspection { bytes, sha256, imports, exports, description } = found;
    let mut text = String::new();
    let mut line = |name: &str, value: &str| _ = writeln!(text, "{name:<14} {value}");
    line("file", file);
    line("size", &format!("{bytes} bytes"));
    line("sha256", sha256);
    if let Ok(description) = description {
        let Description { name, version, description: words, roles, buffers_rows, deterministic, attributes, .. } =
            description;
        line("name", name);
        line("version", version);
        line("description", words);
        line("roles", &if roles.is_empty() { "none named".to_owned() } else { roles.join(", ") });
        let keeps_state = exports.iter().any(|export| export.starts_with("fs-data-sink:plugin/state@"));
        let holds = match (keeps_state, buffers_rows) {
            (true, _) => "state, which is recorded with the source's positions (exactly once only)",
            (false, true) => "rows between calls, until a commit",
            (false, false) => "nothing between calls",
        };
        line("keeps", holds);
        let clock =
            if *deterministic { "yes: clocks stand at 1970, random numbers are the same" } else { "not promised" };
        line("deterministic", clock);
        for (key, value) in attributes {
            line(key, value);
        }
    }
    let (mut granted, mut free) = (Vec::new(), Vec::new());
    for import in imports {
        if import.need == ImportNeed::Nothing { free.push(import) } else { granted.push(import) }
    }
    let names: Vec<_> = exports.iter().map(String::as_str).collect();
    line("exports", &names.join(", "));
    let (runtime, own): (Vec<&str>, Vec<&str>) = free
        .iter()
        .map(|import| import.name.as_str())
        .partition(|name| RUNTIME.iter().any(|package| name.starts_with(package)));
    line("imports", &if own.is_empty() { "nothing of the host".to_owned() } else { own.join(", ") });
    if !runtime.is_empty() {
        line("", &format!("{} interfaces of WASI 0.2, with nothing behind them that is not granted", runtime.len()));
    }
    for import in &granted {
        line("", &format!("{} needs {}", import.name, import.need));
    }
    let mut examples: Vec<_> = granted.iter().filter_map(|import| import.need.example()).collect();
    examples.dedup();
    for example in examples {
        let _ = write!(text, "\nto grant, below the plugin in a pipeline:\n\n{}\n", indented(example));
    }
    if let Ok(Description { config_schema: Some(schema), .. }) = description {
        let shown = match ConfigSchema::parse(schema) {
            // Written anew, so that what a stranger wrote cannot steer a terminal.
            Ok(_) => indented(
                &serde_json::from_str::<Value>(schema).map_or_else(|_| String::new(), |schema| format!("{schema:#}")),
            ),
            Err(words) => format!("  the JSON Schema {words}\n"),
        };
        let _ = write!(text, "\nconfig:\n\n{shown}");
    }
    text
}

/// Lines two letters to the right.
fn indented(text: &str) -> String {
    text.lines().fold(String::new(), |all, line| format!("{all}  {line}\n"))
}
