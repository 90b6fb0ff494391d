//! Records without a value: tombstones in Kafka's compacted topics, deletes of Debezium.

use std::sync::Arc;

use arrow_array::{RecordBatch, RecordBatchOptions};
use arrow_schema::Schema;

use super::{fault::Fault, shape::Shape};
use crate::config::OnTombstone;

/// What becomes of a record without a value.
pub(super) enum Tombstone {
    /// It is passed over, and counted.
    Skip,
    /// It becomes a row without a column of its own; those of the dataset are null, but for the metadata.
    Row(RecordBatch),
    /// It is refused.
    Refused(Fault),
}

/// What becomes of one, by `source.on_tombstone`.
pub(super) fn judge(shape: &Shape) -> Tombstone {
    let fault = || Fault { code: "null-value", message: "the record has no value (a tombstone)".to_owned() };
    match shape.config.on_tombstone {
        OnTombstone::Skip => Tombstone::Skip,
        OnTombstone::Reject => Tombstone::Refused(fault()),
        OnTombstone::NullRow => {
            let options = RecordBatchOptions::new().with_row_count(Some(1));
            RecordBatch::try_new_with_options(Arc::new(Schema::empty()), Vec::new(), &options)
                .map_or_else(|_| Tombstone::Refused(fault()), Tombstone::Row)
        }
    }
}
