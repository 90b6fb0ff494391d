//! Records to batches in the envelope schema.

use std::sync::Arc;

use arrow_array::{
    ArrayRef, Int32Array, Int64Array, RecordBatch, StringArray, TimestampMillisecondArray,
    builder::{ArrayBuilder, BinaryBuilder, ListBuilder, StringBuilder, StructBuilder},
    new_null_array,
};
use arrow_schema::{ArrowError, DataType, Field};

use crate::{
    batch::{ENVELOPE_SCHEMA, Envelope, HEADER_FIELDS, RawBatch},
    checkpoint::{CheckpointDelta, SourcePartition},
    error::PipelineError,
    memory::MemoryBudget,
};

/// A batch ends at so many bytes of keys, values and headers, whatever its number of rows: what a lane decodes at once.
pub(super) const BATCH_BYTES_MAX: usize = 16 << 20;

/// Bytes that a row costs besides its key, value and headers.
const ROW_BYTES: usize = 40;

/// One record as the source gives it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Record<'a> {
    /// Partition.
    pub(super) partition: i32,
    /// Offset in it.
    pub(super) offset: i64,
    /// Milliseconds since 1970.
    pub(super) timestamp_ms: Option<i64>,
    /// Key.
    pub(super) key: Option<&'a [u8]>,
    /// Value.
    pub(super) value: Option<&'a [u8]>,
}

/// Collects records of one topic.
#[derive(Debug)]
pub(super) struct EnvelopeBuilder {
    /// Topic, key or file of every record.
    topic: Arc<str>,
    /// Folder below the sink's root.
    dataset: Arc<str>,
    /// Partition of each record.
    partitions: Vec<i32>,
    /// Offset of each record.
    offsets: Vec<i64>,
    /// Time of each record.
    timestamps: Vec<Option<i64>>,
    /// Key of each record.
    keys: BinaryBuilder,
    /// Value of each record.
    values: BinaryBuilder,
    /// Headers of each record; made at the first record that has any.
    headers: Option<ListBuilder<StructBuilder>>,
    /// Keys, values and headers so far.
    bytes: usize,
    /// Partition, first offset and next offset of each stretch.
    ranges: Vec<(i32, i64, i64)>,
}

impl EnvelopeBuilder {
    /// For records of one topic.
    pub(super) fn new(topic: Arc<str>, dataset: Arc<str>) -> Self {
        Self {
            topic,
            dataset,
            partitions: Vec::new(),
            offsets: Vec::new(),
            timestamps: Vec::new(),
            keys: BinaryBuilder::new(),
            values: BinaryBuilder::new(),
            headers: None,
            bytes: 0,
            ranges: Vec::new(),
        }
    }

    /// Appends a record.
    pub(super) fn push(&mut self, record: Record<'_>) {
        let Record { partition, offset, timestamp_ms, key, value } = record;
        self.partitions.push(partition);
        self.offsets.push(offset);
        self.timestamps.push(timestamp_ms);
        self.keys.append_option(key);
        self.values.append_option(value);
        self.bytes += ROW_BYTES + key.map_or(0, <[u8]>::len) + value.map_or(0, <[u8]>::len);
        self.cover(partition, offset, offset + 1);
    }

    /// The same, unless the offset was read already; whether it was not.
    pub(super) fn push_new(&mut self, record: Record<'_>) -> bool {
        let is_known = |(partition, _, to): &(i32, i64, i64)| *partition == record.partition && record.offset < *to;
        let is_new = !self.ranges.iter().any(is_known);
        if is_new {
            self.push(record);
        }
        is_new
    }

    /// Gives the record that was pushed last its headers.
    pub(super) fn set_headers<'a>(&mut self, pairs: impl Iterator<Item = (&'a str, Option<&'a [u8]>)>) {
        let rows = self.partitions.len();
        let headers = self.headers.get_or_insert_with(headers_builder);
        // Those before it have none.
        while headers.len() + 1 < rows {
            headers.append(false);
        }
        for (key, value) in pairs {
            self.bytes += key.len() + value.map_or(0, <[u8]>::len);
            let entry = headers.values();
            if let Some(keys) = entry.field_builder::<StringBuilder>(0) {
                keys.append_value(key);
            }
            if let Some(values) = entry.field_builder::<BinaryBuilder>(1) {
                values.append_option(value);
            }
            entry.append(true);
        }
        headers.append(true);
    }

    /// Offsets that were read, with or without a record in them.
    pub(super) fn cover(&mut self, partition: i32, from: i64, to: i64) {
        match self.ranges.iter_mut().find(|(known, ..)| *known == partition) {
            Some((_, _, end)) => *end = (*end).max(to),
            None => self.ranges.push((partition, from, to)),
        }
    }

    /// For each partition the next offset to read.
    pub(super) fn reached(&self) -> impl Iterator<Item = (SourcePartition, i64)> + '_ {
        self.ranges.iter().map(|(partition, _, to)| (SourcePartition::new(Arc::clone(&self.topic), *partition), *to))
    }

    /// Number of records.
    pub(super) fn len(&self) -> usize {
        self.partitions.len()
    }

    /// Whether nothing was read.
    pub(super) fn is_empty(&self) -> bool {
        self.ranges.is_empty()
    }

    /// Whether a batch should end here.
    pub(super) fn is_full(&self, rows_max: usize) -> bool {
        self.len() >= rows_max || self.bytes >= BATCH_BYTES_MAX
    }

    /// The records so far as a batch; the builder is empty then.
    pub(super) fn finish(&mut self, budget: &MemoryBudget) -> Result<RawBatch, PipelineError> {
        let next = Self::new(Arc::clone(&self.topic), Arc::clone(&self.dataset));
        let Self { topic, dataset, partitions, offsets, timestamps, mut keys, mut values, headers, bytes, ranges } =
            std::mem::replace(self, next);
        let rows = partitions.len();
        let mut delta = CheckpointDelta::default();
        for (partition, from, to) in ranges {
            let partition = SourcePartition::new(Arc::clone(&topic), partition);
            delta.extend(&partition, from, to).map_err(|error| internal(error.into()))?;
        }
        let headers: ArrayRef = match headers {
            Some(mut headers) => {
                while headers.len() < rows {
                    headers.append(false);
                }
                Arc::new(headers.finish())
            }
            None => new_null_array(ENVELOPE_SCHEMA.field(6).data_type(), rows),
        };
        let columns: Vec<ArrayRef> = vec![
            Arc::new(StringArray::from_iter_values(std::iter::repeat_n(&topic, rows))),
            Arc::new(Int32Array::from(partitions)),
            Arc::new(Int64Array::from(offsets)),
            Arc::new(TimestampMillisecondArray::from(timestamps).with_timezone("UTC")),
            Arc::new(keys.finish()),
            Arc::new(values.finish()),
            headers,
        ];
        let whole = |error: ArrowError| internal(error.into());
        let batch = RecordBatch::try_new(Arc::clone(&ENVELOPE_SCHEMA), columns).map_err(whole)?;
        let envelope = Envelope::try_new(batch).map_err(whole)?;
        Ok(RawBatch { dataset, envelope, rows: None, delta, memory: budget.hold_read(bytes) })
    }
}

/// Builds lists of headers.
fn headers_builder() -> ListBuilder<StructBuilder> {
    let entry: Vec<Box<dyn ArrayBuilder>> = vec![Box::new(StringBuilder::new()), Box::new(BinaryBuilder::new())];
    let item = Field::new("item", DataType::Struct(HEADER_FIELDS.clone()), false);
    ListBuilder::new(StructBuilder::new(HEADER_FIELDS.clone(), entry)).with_field(item)
}

/// Something that the types above rule out.
fn internal(error: Box<dyn std::error::Error + Send + Sync>) -> PipelineError {
    PipelineError::stop("records cannot be made into a batch").because(error)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checkpoint::OffsetRange;

    #[test]
    fn records_come_back_with_their_headers_and_ranges() {
        let budget = MemoryBudget::new(1 << 20);
        let mut builder = EnvelopeBuilder::new("t".into(), "t".into());
        let record =
            |partition, offset| Record { partition, offset, timestamp_ms: Some(5), key: None, value: Some(b"v") };
        builder.push(record(0, 10));
        builder.push(record(1, 7));
        builder.set_headers([("a", Some(b"1".as_slice())), ("b", None)].into_iter());
        builder.push(record(0, 12));
        assert!(
            !builder.push_new(record(0, 12)) && !builder.push_new(record(0, 11)) && !builder.push_new(record(1, 7))
        );
        assert!(builder.is_full(3) && !builder.is_full(4));
        let batch = builder.finish(&budget).unwrap();
        assert_eq!(batch.envelope.record(0).unwrap().headers, []);
        let second = batch.envelope.record(1).unwrap();
        assert_eq!(second.headers, [("a".to_owned(), Some(b"1".to_vec())), ("b".to_owned(), None)]);
        assert_eq!(
            (second.topic.as_str(), second.partition, second.offset, second.value),
            ("t", 1, 7, Some(b"v".to_vec()))
        );
        let ranges: Vec<_> = batch.delta.iter().map(|(partition, range)| (partition.partition, range)).collect();
        assert_eq!(ranges, [(0, OffsetRange { from: 10, to: 13 }), (1, OffsetRange { from: 7, to: 8 })]);
        assert!(budget.used_bytes() > 0 && builder.is_empty());
        drop(batch);
        assert_eq!(budget.used_bytes(), 0);
    }
}
