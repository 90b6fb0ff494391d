//! How a record says its schema: by a zero and a number ahead, which a registry knows; else it is that of a file.

use std::{
    collections::{BTreeSet, HashMap},
    path::Path,
    sync::Arc,
};

use super::{
    fault::Fault,
    registry::{Answer, Registered, Registry},
};
use crate::{batch::Envelope, error::PipelineError};

/// Most schemas that are kept from one batch to the next: far more than a topic has, and each is a few hundred KiB at
/// most.
const SCHEMAS_MAX: usize = 200;

/// Longest file of a schema.
const FILE_BYTES_MAX: u64 = 16 << 20;

/// The number of a record's schema, and what is behind it.
pub(super) fn header(value: &[u8]) -> Result<(u32, &[u8]), Fault> {
    if let Some(([0, id @ ..], body)) = value.split_at_checked(5) {
        return Ok((id.try_into().map(u32::from_be_bytes).unwrap_or_default(), body));
    }
    let message = "the record does not begin with a zero and the four bytes of a schema's number; was it written without a \
                   schema registry?";
    Err(Fault { code: "no-schema-id", message: message.to_owned() })
}

/// The bytes of the file of a schema, which this key names.
pub(super) fn read_file(key: &str, file: &Path) -> Result<Vec<u8>, PipelineError> {
    let explain = |words: &str| explain_file(key, file, words);
    let length = std::fs::metadata(file).map_err(|error| explain(&error.to_string()))?.len();
    if length > FILE_BYTES_MAX {
        return Err(explain(&format!("it has {length} bytes, and a schema at most {FILE_BYTES_MAX}")));
    }
    std::fs::read(file).map_err(|error| explain(&error.to_string()))
}

/// The words for a file that cannot be used.
pub(super) fn explain_file(key: &str, file: &Path, words: &str) -> PipelineError {
    PipelineError::stop(format!("{key} {}: {words}; correct the file", file.display()))
}

/// Schemas that are ready for use.
#[derive(Debug)]
pub(super) struct Known<T> {
    /// Those that the registry has, by their numbers, or why they cannot be used.
    plans: HashMap<u32, Result<Arc<T>, Fault>>,
    /// Those of the last batch that it has not: they may be there the next time.
    missing: HashMap<u32, Fault>,
}

impl<T> Default for Known<T> {
    fn default() -> Self {
        Self { plans: HashMap::new(), missing: HashMap::new() }
    }
}

impl<T: Send + Sync> Known<T> {
    /// A schema that was prepared.
    pub(super) fn get(&self, id: u32) -> Result<&Arc<T>, Fault> {
        match self.plans.get(&id) {
            Some(Ok(plan)) => Ok(plan),
            Some(Err(fault)) => Err(fault.clone()),
            None => Err(self.missing.get(&id).cloned().unwrap_or_else(|| Fault {
                code: "unknown-schema",
                message: format!("nobody asked for the schema {id}; source.schema_registry is missing"),
            })),
        }
    }

    /// Has the registry tell every schema of a batch. Waits as long as it is away.
    pub(super) async fn prepare(
        &mut self,
        registry: &Registry,
        envelope: &Envelope,
        plan: fn(&Registered) -> Result<T, Fault>,
    ) -> Result<(), PipelineError> {
        let ids = envelope.values().iter().flatten().filter_map(|value| header(value).ok());
        let ids: BTreeSet<u32> = ids.map(|(id, _)| id).collect();
        self.missing.clear();
        if self.plans.len() > SCHEMAS_MAX {
            self.plans.retain(|id, _| ids.contains(id));
        }
        for id in ids {
            if self.plans.contains_key(&id) {
                continue;
            }
            match registry.schema(id).await? {
                Answer::Known(registered) => {
                    let planned = plan(&registered).map(Arc::new).map_err(|fault| Fault {
                        code: fault.code,
                        message: format!("schema {id}: {}", fault.message),
                    });
                    self.plans.insert(id, planned);
                }
                Answer::Unknown(message) => {
                    self.missing.insert(id, Fault { code: "unknown-schema", message: message.to_string() });
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_is_a_zero_and_four_bytes() {
        assert_eq!(header(&[0, 0, 0, 1, 2, 9]), Ok((258, [9].as_slice())));
        for wrong in [&[][..], &[0, 0, 0, 1], &[1, 0, 0, 0, 1, 9], b"{\"a\":1}"] {
            assert_eq!(header(wrong).map_err(|fault| fault.code), Err("no-schema-id"));
        }
    }
}
