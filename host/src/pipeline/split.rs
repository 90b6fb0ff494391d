//! Splits typed rows by the source partition that they came from, where plugins keep state of each.
//!
//! Comes in: the rows of a raw batch. Goes out: the same rows, those of one partition together and in their order. Pure.

use std::collections::BTreeMap;

use arrow_array::{Array as _, UInt32Array};
use arrow_select::take::{take, take_record_batch};

use crate::{
    batch::{DecodedBatch, Origin},
    checkpoint::{CheckpointDelta, SourcePartition},
    error::PipelineError,
};

/// The rows of each partition. `delta` is what the raw batch covers.
pub(super) fn by_partition(
    batch: DecodedBatch,
    delta: &CheckpointDelta,
) -> Result<Vec<(SourcePartition, DecodedBatch)>, PipelineError> {
    let mut covered = delta.iter().map(|(partition, _)| partition);
    // Also replayed dead letters, whose records tell of the partition that they once came from.
    if let (Some(only), None) = (covered.next(), covered.next()) {
        return Ok(vec![(only.clone(), batch)]);
    }
    let Origin::Records { envelope, rows } = &batch.origin else {
        return Err(PipelineError::stop("rows that were just decoded do not tell their records"));
    };
    let (topics, partitions) = (envelope.topics(), envelope.partitions());
    let mut found: BTreeMap<(&str, i32), Vec<u32>> = BTreeMap::new();
    for (row, record) in (0_u32..).zip(rows.values()) {
        let record = *record as usize;
        if record >= envelope.len() {
            return Err(PipelineError::stop("a row that was just decoded is of no record of its batch"));
        }
        found.entry((topics.value(record), partitions.value(record))).or_default().push(row);
    }
    if found.len() == 1
        && let Some(((topic, partition), _)) = found.first_key_value()
    {
        let partition = SourcePartition::new(*topic, *partition);
        return Ok(vec![(partition, batch)]);
    }
    let part = |((topic, partition), own): ((&str, i32), Vec<u32>)| {
        let own = UInt32Array::from(own);
        let part = take_record_batch(&batch.rows, &own)?;
        let records = UInt32Array::from(take(rows, &own, None)?.to_data());
        let origin = Origin::Records { envelope: envelope.clone(), rows: records };
        Ok((SourcePartition::new(topic, partition), DecodedBatch { rows: part, origin }))
    };
    found.into_iter().map(part).collect::<Result<_, arrow_schema::ArrowError>>().map_err(|error| {
        PipelineError::stop("the rows of a batch cannot be split by their source partitions").because(error)
    })
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow_array::{
        ArrayRef, BinaryArray, Int32Array, Int64Array, RecordBatch, StringArray, TimestampMillisecondArray,
        cast::AsArray as _, new_null_array, types::Int64Type,
    };

    use super::*;
    use crate::batch::{ENVELOPE_SCHEMA, Envelope};

    /// Five records of these partitions, of which the one at 1 gave two rows and the one at 3 none; each row has the offset of
    /// its record.
    fn batch(partitions: [i32; 5]) -> DecodedBatch {
        let columns: Vec<ArrayRef> = vec![
            Arc::new(StringArray::from_iter_values(["orders"; 5])),
            Arc::new(Int32Array::from(partitions.to_vec())),
            Arc::new(Int64Array::from_iter_values(0..5)),
            Arc::new(TimestampMillisecondArray::from(vec![None; 5]).with_timezone("UTC")),
            Arc::new(BinaryArray::from(vec![None::<&[u8]>; 5])),
            Arc::new(BinaryArray::from(vec![None::<&[u8]>; 5])),
            new_null_array(ENVELOPE_SCHEMA.field(6).data_type(), 5),
        ];
        let envelope = Envelope::try_new(RecordBatch::try_new(Arc::clone(&ENVELOPE_SCHEMA), columns).unwrap()).unwrap();
        let records = vec![0_u32, 1, 1, 2, 4];
        let offsets: ArrayRef = Arc::new(records.iter().map(|record| i64::from(*record)).collect::<Int64Array>());
        let rows = RecordBatch::try_from_iter([("offset", offsets)]).unwrap();
        DecodedBatch { rows, origin: Origin::Records { envelope, rows: UInt32Array::from(records) } }
    }

    /// Offsets of these partitions.
    fn covered(partitions: &[i32]) -> CheckpointDelta {
        let mut delta = CheckpointDelta::default();
        for partition in partitions {
            delta.extend(&SourcePartition::new("orders", *partition), 0, 5).unwrap();
        }
        delta
    }

    /// The partition of each part with the offsets of its rows, and those of the records that they lead back to.
    fn split(partitions: [i32; 5], delta: &CheckpointDelta) -> Vec<(i32, Vec<i64>, Vec<i64>)> {
        let parts = by_partition(batch(partitions), delta).unwrap();
        let part = |(partition, batch): (SourcePartition, DecodedBatch)| {
            let rows = batch.rows.column(0).as_primitive::<Int64Type>().values().to_vec();
            let Origin::Records { envelope, rows: records } = batch.origin else { panic!("no records") };
            let offsets = records.values().iter().map(|record| envelope.offsets().value(*record as usize)).collect();
            (partition.partition, rows, offsets)
        };
        parts.into_iter().map(part).collect()
    }

    #[test]
    fn rows_of_a_partition_stay_together_in_their_order_and_lead_back_to_their_records() {
        assert_eq!(
            split([7, 2, 7, 2, 2], &covered(&[2, 7])),
            [(2, vec![1, 1, 4], vec![1, 1, 4]), (7, vec![0, 2], vec![0, 2])]
        );
        // Records of the other partition gave no row.
        assert_eq!(split([2, 2, 2, 7, 2], &covered(&[2, 7])), [(2, vec![0, 1, 1, 2, 4], vec![0, 1, 1, 2, 4])]);
    }

    #[test]
    fn what_covers_one_partition_is_of_that_whatever_the_records_say() {
        assert_eq!(split([7, 2, 7, 2, 2], &covered(&[0]))[0].0, 0);
    }
}
