//! Facts about a record that become columns: where it came from, when, and its key.

use arrow_array::{ArrayRef, UInt32Array};
use arrow_schema::{ArrowError, DataType, Field, Fields, TimeUnit};

use crate::{batch::Envelope, config::MetadataColumn};

/// The fields of metadata columns.
pub(super) fn fields(columns: &[MetadataColumn]) -> Fields {
    let field = |column: &MetadataColumn| match column {
        MetadataColumn::Topic => Field::new("_topic", DataType::Utf8, false),
        MetadataColumn::Partition => Field::new("_partition", DataType::Int32, false),
        MetadataColumn::Offset => Field::new("_offset", DataType::Int64, false),
        MetadataColumn::Timestamp => {
            Field::new("_timestamp", DataType::Timestamp(TimeUnit::Millisecond, Some("UTC".into())), true)
        }
        MetadataColumn::Key => Field::new("_key", DataType::Binary, true),
    };
    columns.iter().map(field).collect()
}

/// One metadata column of the records that became rows.
pub(super) fn column(
    column: MetadataColumn,
    envelope: &Envelope,
    records: &UInt32Array,
) -> Result<ArrayRef, ArrowError> {
    let position = match column {
        MetadataColumn::Topic => 0,
        MetadataColumn::Partition => 1,
        MetadataColumn::Offset => 2,
        MetadataColumn::Timestamp => 3,
        MetadataColumn::Key => 4,
    };
    arrow_select::take::take(envelope.as_record_batch().column(position), records, None)
}
