//! Reads an Arrow IPC stream that a plugin wrote, by the rules of [`crate::ipc`], in the words of the plugin API.

use arrow_array::RecordBatch;
use arrow_schema::Schema;

use super::{
    decimals::check_decimals,
    failure::{BadOutput, Limit},
};
use crate::ipc::{self, Refused, Writer};

pub(super) use crate::ipc::{Caps, unpacked_bytes};

impl From<Refused> for BadOutput {
    fn from(refused: Refused) -> Self {
        match refused {
            Refused::Words(words) => Self::new(format!("answered {words}")),
            Refused::Type { column, data_type } => {
                Self::new(format!("answered column `{column}` of type {data_type}, which plugins may not answer"))
            }
            Refused::TooManyRows(_) => Self::above(Limit::OutputRows, format!("answered {refused}")),
            Refused::TooManyBytes(_) => Self::above(Limit::OutputBytes, format!("answered {refused}")),
            Refused::TooManyLogicalBytes(_) => Self::above(Limit::OutputLogicalBytes, format!("answered {refused}")),
        }
    }
}

/// Reads a stream that holds only a schema. Columns of `input` may be in it, whatever their types.
pub(super) fn read_schema(stream: &[u8], input: &Schema) -> Result<Schema, BadOutput> {
    ipc::read_schema(stream, input).map_err(BadOutput::from)
}

/// Reads a stream of rows, after `accept` has agreed to its schema.
pub(super) fn read_rows(
    stream: Vec<u8>,
    caps: Caps,
    accept: impl FnOnce(&Schema) -> Result<(), BadOutput>,
) -> Result<Vec<RecordBatch>, BadOutput> {
    let batches = ipc::read_rows(stream, Writer::Plugin, caps, accept)?;
    batches.iter().try_for_each(check_decimals)?;
    Ok(batches)
}

/// Refuses a schema with a type that plugins may not answer.
pub(super) fn check_output_schema(schema: &Schema) -> Result<(), BadOutput> {
    ipc::check_schema(schema, Writer::Plugin, None).map_err(BadOutput::from)
}

/// The words for an answer that is too long.
pub(super) fn too_many_bytes(caps: Caps) -> BadOutput {
    Refused::TooManyBytes(caps.bytes).into()
}

/// The words for an answer whose dictionaries stand for too much.
pub(super) fn too_many_logical_bytes(caps: Caps) -> BadOutput {
    Refused::TooManyLogicalBytes(caps.logical_bytes).into()
}

/// The words for an answer of too many rows.
pub(super) fn too_many_rows(caps: Caps) -> BadOutput {
    Refused::TooManyRows(caps.rows).into()
}
