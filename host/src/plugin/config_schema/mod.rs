//! The config of a plugin against the JSON Schema that the plugin answers with `describe`.
//!
//! Comes in: a schema that nobody vouches for, and a config. Goes out: what is wrong, each with the steps that lead to the value,
//! so that it can be told at its line. Promises: a schema of any size, depth or nesting costs a bounded time and memory; what
//! cannot be checked is said and refuses nothing, since the plugin's own `open` has the last word.
//!
//! Checked is what configurations need of JSON Schema 2020-12: `type enum const`, `properties required additionalProperties
//! patternProperties propertyNames minProperties maxProperties dependentRequired`, `items prefixItems contains minItems maxItems
//! uniqueItems`, `minLength maxLength pattern`, `minimum maximum exclusiveMinimum exclusiveMaximum multipleOf`, `allOf anyOf oneOf
//! not if then else`, and `$ref` to a place in the same schema. `format` and `content...` say something and check nothing, as the
//! standard has it. Anything else is in [`ConfigSchema::unchecked`].
//!
//! `check` walks, `values` looks at one value. An own checker and no library: those at hand recurse and match with patterns that
//! take any time, which a stranger's schema may not.

use std::{collections::BTreeSet, sync::Arc};

use serde_json::Value;

use super::{ChainContext, LoadedPlugin, describe::one_line};
use crate::{
    config::{Step, fault::Fault},
    error::PipelineError,
};
use check::Checker;

mod check;
mod values;

/// Bytes of a schema: that of the largest plugin known has some kilobytes.
const SCHEMA_BYTES_MAX: usize = 256 << 10;
/// Faults that are told of one config.
const FAULTS_MAX: usize = 20;
/// Bytes of a word of the schema or the config in a message.
const WORD_BYTES_MAX: usize = 80;
/// Keywords that say something and check nothing.
const SILENT: [&str; 18] = [
    "$schema",
    "$id",
    "$comment",
    "$defs",
    "$anchor",
    "$vocabulary",
    "definitions",
    "title",
    "description",
    "default",
    "examples",
    "deprecated",
    "readOnly",
    "writeOnly",
    "format",
    "contentEncoding",
    "contentMediaType",
    "contentSchema",
];

/// One thing that is wrong in a config.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigFault {
    /// What leads to the value.
    pub at: Vec<Step>,
    /// What is wrong with it.
    pub message: String,
}

/// A JSON Schema of a config.
#[derive(Clone, Debug)]
pub struct ConfigSchema(Value);

/// What came of checking a config.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Checked {
    /// What is wrong.
    pub faults: Vec<ConfigFault>,
    /// What of the schema was met on the way and cannot be checked.
    pub unchecked: BTreeSet<String>,
}

impl ConfigSchema {
    /// A schema from its text, or why it is none.
    pub fn parse(text: &str) -> Result<Self, String> {
        if text.len() > SCHEMA_BYTES_MAX {
            return Err(format!("has {} bytes; at most {SCHEMA_BYTES_MAX} are read", text.len()));
        }
        // serde_json reads 128 levels and no more.
        match serde_json::from_str(text) {
            Ok(schema @ (Value::Object(_) | Value::Bool(_))) => Ok(Self(schema)),
            Ok(_) => Err("is neither an object nor true or false".to_owned()),
            Err(error) => Err(format!("is not JSON: {error}")),
        }
    }

    /// Holds a config against it.
    #[must_use]
    pub fn check(&self, config: &Value) -> Checked {
        let mut checker = Checker::new(&self.0);
        checker.check(config);
        let Checker { mut faults, unchecked, .. } = checker;
        faults.truncate(FAULTS_MAX);
        Checked { faults, unchecked }
    }
}

/// Asks each plugin what it is, and holds its config against its schema; the faults of all of them, each with its line.
pub async fn check_configs(plugins: &[Arc<LoadedPlugin>], context: &ChainContext) -> Result<(), PipelineError> {
    let mut told = Vec::new();
    for plugin in plugins {
        let Some(text) = plugin.describe(context).await?.config_schema else { continue };
        let config = plugin.config();
        let unchecked = |words: &str| {
            tracing::warn!(
                plugin = &*config.name,
                pipeline = &*context.pipeline,
                tenant = &*context.tenant,
                "the plugin's JSON Schema of its config {words}; its own `open` is what checks the config"
            );
        };
        let schema = match ConfigSchema::parse(&text) {
            Ok(schema) => schema,
            Err(words) => {
                unchecked(&one_line(&words, 512));
                continue;
            }
        };
        let checked = schema.check(&serde_json::from_str(&config.config_json).unwrap_or_default());
        if !checked.unchecked.is_empty() {
            let words: Vec<_> = checked.unchecked.iter().map(String::as_str).collect();
            unchecked(&format!("is checked but for {}", words.join(", ")));
        }
        let mut faults: Vec<Fault> =
            checked.faults.into_iter().map(|fault| config.config_places.fault(&fault.at, fault.message)).collect();
        faults.sort();
        if !faults.is_empty() {
            let faults: Vec<_> = faults.iter().map(ToString::to_string).collect();
            let name = &config.name;
            told.push(format!("the config of plugin {name} does not fit its schema:\n{}", faults.join("\n")));
        }
    }
    if told.is_empty() { Ok(()) } else { Err(PipelineError::stop(told.join("\n"))) }
}

/// A word of the schema or the config, fit for a message.
fn word(text: &str) -> String {
    one_line(text, WORD_BYTES_MAX)
}

#[cfg(test)]
mod tests;
