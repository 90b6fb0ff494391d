//! Reads an Arrow IPC stream that a plugin wrote, by the rules of [`crate::ipc`], in the words of the plugin API.

use arrow_array::RecordBatch;
use arrow_schema::Schema;

use super::failure::BadOutput;
use crate::ipc::{self, Refused, Writer};

pub(super) use crate::ipc::Caps;

impl From<Refused> for BadOutput {
    fn from(refused: Refused) -> Self {
        match refused {
            Refused::Words(words) => Self::new(format!("answered {words}")),
            Refused::Type { column, data_type } => {
                Self::new(format!("answered column `{column}` of type {data_type}, which plugins may not answer"))
            }
            Refused::TooManyRows(rows) => Self::new(format!("answered more than {rows} rows (limits.output_rows)")),
            Refused::TooManyBytes(bytes) => {
                Self::new(format!("answered more than {bytes} bytes (limits.output_bytes)"))
            }
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
    ipc::read_rows(stream, Writer::Plugin, caps, accept)
}

/// Refuses a schema with a type that plugins may not answer.
pub(super) fn check_output_schema(schema: &Schema) -> Result<(), BadOutput> {
    ipc::check_schema(schema, Writer::Plugin, None).map_err(BadOutput::from)
}

/// The words for an answer that is too long.
pub(super) fn too_many_bytes(caps: Caps) -> BadOutput {
    Refused::TooManyBytes(caps.bytes).into()
}

/// The words for an answer of too many rows.
pub(super) fn too_many_rows(caps: Caps) -> BadOutput {
    Refused::TooManyRows(caps.rows).into()
}
