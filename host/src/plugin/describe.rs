//! What a plugin says of itself, asked in an instance of its own.
//!
//! Comes in: a loaded plugin. Goes out: its words, cleaned and cut, since nobody vouches for them.

use std::sync::Arc;

use super::{
    ChainContext, LoadedPlugin,
    bindings::types::{Descriptor, Roles},
    failure::{CallError, clean_to},
    instance::Instance,
    policy::room,
    voice::Voice,
};
use crate::error::PipelineError;

/// Bytes of its name, its version, and of each fact.
const WORD_BYTES_MAX: usize = 128;
/// Bytes of what it is for.
const DESCRIPTION_BYTES_MAX: usize = 1024;
/// Facts that are kept.
const ATTRIBUTES_MAX: usize = 32;

/// What a plugin says of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Description {
    /// Its own name, which need not be the one in the pipeline.
    pub name: String,
    /// Its version.
    pub version: String,
    /// What it is for.
    pub description: String,
    /// What it says that it does: `decode`, `filter`, `enrich`.
    pub roles: Vec<&'static str>,
    /// The JSON Schema of its config, as it was answered; see [`super::ConfigSchema`].
    pub config_schema: Option<String>,
    /// Whether it keeps rows between calls.
    pub buffers_rows: bool,
    /// Whether the same input and config always give the same output.
    pub deterministic: bool,
    /// More facts, such as the SDK that it was written with.
    pub attributes: Vec<(String, String)>,
}

impl LoadedPlugin {
    /// Asks the plugin what it is, in an instance that is made for that alone.
    pub async fn describe(self: &Arc<Self>, context: &ChainContext) -> Result<Description, PipelineError> {
        let config = self.config();
        let log_bytes = config.limits.log_bytes_per_second;
        let voice = Voice::new(Arc::clone(&config.name), self.digest_hex(), context.clone(), log_bytes);
        let failed = |words: &str| {
            let (name, path) = (&config.name, config.path.display());
            PipelineError::stop(format!("plugin {name} ({path}) cannot start: it {words}"))
        };
        let place = room::place(context, self).await.map_err(|error| match error {
            CallError::Stopped(words) => PipelineError::restart(words),
            CallError::Broken(failure) => failed(&failure.message),
            CallError::Answered(_) => failed("found no place"),
        })?;
        let described = Instance::start_described(self, &Arc::new(voice), place).await;
        let (_, descriptor) = described.map_err(|failure| failed(&failure.message))?;
        Ok(Description::new(descriptor))
    }
}

impl Description {
    /// Its words without what could harm whoever reads them.
    fn new(descriptor: Descriptor) -> Self {
        let word = |text: &str| one_line(text, WORD_BYTES_MAX);
        let roles = [(Roles::DECODE, "decode"), (Roles::FILTER, "filter"), (Roles::ENRICH, "enrich")];
        let attributes = descriptor.attributes.iter().take(ATTRIBUTES_MAX);
        Self {
            name: word(&descriptor.name),
            version: word(&descriptor.version),
            description: one_line(&descriptor.description, DESCRIPTION_BYTES_MAX),
            roles: roles.iter().filter(|(role, _)| descriptor.roles.contains(*role)).map(|(_, name)| *name).collect(),
            config_schema: descriptor.config_schema,
            buffers_rows: descriptor.buffers_rows,
            deterministic: descriptor.deterministic,
            attributes: attributes.map(|(key, value)| (word(key), word(value))).collect(),
        }
    }
}

/// Text of a plugin on one line.
pub(super) fn one_line(text: &str, bytes_max: usize) -> String {
    clean_to(text, bytes_max).replace('\n', " ")
}
