//! Rows that are typed already, from a Parquet file or from Arrow IPC, into rows of the dataset.
//!
//! First every part is held against the dataset's schema, which grows by the rules for new fields and changed types; then
//! each becomes rows of that schema. What cannot be held is refused in the unit in which it came: a row of a file, or a
//! record with all its rows. Faults are found for a part as a whole, so a part of rows of their own is halved until the
//! bad rows are alone.

use std::ops::Range;

use arrow_array::{ArrayRef, RecordBatch, UInt32Array, new_null_array};
use arrow_schema::{Field, Fields as ArrowFields, Schema, SchemaRef};

use super::{
    Decoded,
    conform::{Leeway, conform},
    fault::{Fault, excerpt, rejections},
    shape::Shape,
    types::{stored, stored_fields},
};
use crate::{
    batch::{DecodedBatch, Envelope, Origin},
    config::OnTypeChange,
};

/// Most values of one part, those counted that the dataset has and the part has not: 64 million are half a gigabyte
/// of numbers. What costs a producer one bit a row costs us that much for each column.
const CELLS_MAX: usize = 64 << 20;

/// Typed rows, and where they came from.
#[derive(Debug)]
pub(super) struct Part {
    /// The rows.
    pub(super) rows: RecordBatch,
    /// Their records.
    pub(super) source: Source,
}

/// Which records typed rows came from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Source {
    /// Each row is a record of its own, of this number.
    Each(Vec<u32>),
    /// All rows are of this record.
    Record(u32),
}

/// Brings typed rows into the dataset's schema.
#[derive(Debug, Default)]
pub(super) struct TypedDecoder {
    /// The schema that was taken in last, and the dataset's after that.
    known: Option<(SchemaRef, SchemaRef)>,
}

/// Rows of the dataset under construction.
#[derive(Debug, Default)]
struct Pass {
    /// The columns of the rows, part by part.
    parts: Vec<RecordBatch>,
    /// The record of each row.
    records: Vec<u32>,
    /// Refused records and why.
    refused: Vec<(u32, Fault)>,
}

impl TypedDecoder {
    /// Decodes parts, in order; parts of one record follow each other. `refused` are records that were no parts at all.
    pub(super) fn decode(
        &mut self,
        shape: &mut Shape,
        envelope: &Envelope,
        parts: Vec<Part>,
        refused: Vec<(u32, Fault)>,
    ) -> Decoded {
        let mut pass = Pass { refused, ..Pass::default() };
        let mut sound: Vec<Part> = Vec::with_capacity(parts.len());
        for part in parts.into_iter().filter(|part| part.rows.num_rows() > 0) {
            match self.take_in(shape, part.rows.schema_ref()) {
                Ok(()) => sound.push(part),
                Err(fault) => pass.refuse(&part, &fault),
            }
        }
        let fields = shape.fields();
        if fields.is_empty() {
            let message = "no column has a type, and there is no schema yet that tells what is missing";
            let fault = Fault { code: "no-fields", message: message.to_owned() };
            sound.drain(..).for_each(|part| pass.refuse(&part, &fault));
        }
        let inferred = if shape.config.on_type_change == OnTypeChange::String { Leeway::Text } else { Leeway::Exact };
        let target = Target { declared: shape.declared.len(), schema: Schema::new(fields).into(), inferred };
        for of_one_record in sound.chunk_by(|one, other| one.source == other.source) {
            pass.convert(&target, of_one_record);
        }
        pass.finish(shape, envelope, &target)
    }

    /// Has the dataset's schema take in that of a part.
    fn take_in(&mut self, shape: &mut Shape, given: &SchemaRef) -> Result<(), Fault> {
        let is_known = self.known.as_ref().is_some_and(|(known, whole)| {
            known == given && shape.schema.as_ref().is_some_and(|schema| SchemaRef::ptr_eq(schema, whole))
        });
        if is_known {
            return Ok(());
        }
        let fields = stored_fields(given.fields()).ok_or_else(|| unsupported(given.fields()))?;
        shape.take_in(&fields)?;
        self.known = shape.schema.clone().map(|whole| (SchemaRef::clone(given), whole));
        Ok(())
    }
}

/// The words for a schema with a type that files cannot hold.
fn unsupported(fields: &ArrowFields) -> Fault {
    let named = fields.iter().find(|field| stored(field.data_type()).is_none());
    let words = named.map(|field| format!("{}: the type {}", excerpt(field.name()), field.data_type()));
    let words = words.unwrap_or_else(|| "a type".to_owned());
    Fault { code: "unsupported-type", message: format!("{words} cannot be held in a Parquet file") }
}

/// What rows become.
struct Target {
    /// How many of the fields are declared; they stand first.
    declared: usize,
    /// The fields that come from values.
    schema: SchemaRef,
    /// What inferred columns may take besides the same value.
    inferred: Leeway,
}

impl Target {
    /// Some rows in the dataset's schema.
    fn rows(&self, rows: &RecordBatch) -> Result<RecordBatch, Fault> {
        let cells = rows.num_rows().saturating_mul(self.schema.fields().len());
        if cells > CELLS_MAX {
            let message = format!(
                "{} rows are more than {CELLS_MAX} values with the {} columns of the dataset",
                rows.num_rows(),
                self.schema.fields().len()
            );
            return Err(Fault { code: "too-many-rows", message });
        }
        let columns = self.schema.fields().iter().enumerate().map(|(position, field)| {
            let leeway = if position < self.declared { Leeway::Nearest } else { self.inferred };
            column(rows, field, leeway).map_err(|fault| fault.at(field.name()))
        });
        let columns = columns.collect::<Result<Vec<_>, _>>()?;
        RecordBatch::try_new(SchemaRef::clone(&self.schema), columns)
            .map_err(|error| Fault { code: "decode-failed", message: error.to_string() })
    }
}

/// One column of the dataset.
fn column(rows: &RecordBatch, field: &Field, leeway: Leeway) -> Result<ArrayRef, Fault> {
    match rows.column_by_name(field.name()) {
        Some(column) => conform(column, field, leeway),
        None if field.is_nullable() => Ok(new_null_array(field.data_type(), rows.num_rows())),
        None => {
            let message = "the column is missing, and it is not nullable".to_owned();
            Err(Fault { code: "null-not-allowed", message })
        }
    }
}

impl Pass {
    /// Refuses every record of a part.
    fn refuse(&mut self, part: &Part, fault: &Fault) {
        match &part.source {
            Source::Record(record) => {
                if self.refused.last().is_none_or(|(last, _)| last != record) {
                    self.refused.push((*record, fault.clone()));
                }
            }
            Source::Each(records) => self.refused.extend(records.iter().map(|record| (*record, fault.clone()))),
        }
    }

    /// Converts the parts of one record, or a part of rows of their own.
    fn convert(&mut self, target: &Target, parts: &[Part]) {
        for part in parts {
            if let Source::Each(records) = &part.source {
                self.convert_rows(target, &part.rows, records, 0..part.rows.num_rows());
            }
        }
        let Some(Part { source: Source::Record(record), .. }) = parts.first() else { return };
        if self.refused.iter().any(|(refused, _)| refused == record) {
            return;
        }
        let converted = parts.iter().map(|part| target.rows(&part.rows)).collect::<Result<Vec<_>, _>>();
        match converted {
            Ok(converted) => {
                let rows = converted.iter().map(RecordBatch::num_rows).sum();
                self.records.extend(std::iter::repeat_n(*record, rows));
                self.parts.extend(converted);
            }
            Err(fault) => self.refused.push((*record, fault)),
        }
    }

    /// Converts rows that are refused one by one.
    fn convert_rows(&mut self, target: &Target, rows: &RecordBatch, records: &[u32], range: Range<usize>) {
        match target.rows(&rows.slice(range.start, range.len())) {
            Ok(converted) => {
                self.parts.push(converted);
                self.records.extend(records.get(range).unwrap_or_default());
            }
            Err(fault) if range.len() == 1 => {
                self.refused.extend(records.get(range.start).map(|record| (*record, fault)));
            }
            Err(_) => {
                let middle = range.start + range.len() / 2;
                self.convert_rows(target, rows, records, range.start..middle);
                self.convert_rows(target, rows, records, middle..range.end);
            }
        }
    }

    /// All rows as one batch, with the metadata of their records.
    fn finish(self, shape: &Shape, envelope: &Envelope, target: &Target) -> Decoded {
        let Self { parts, records, mut refused } = self;
        // Records of several schemas come schema by schema; they go on in the order in which they came.
        let order = (!records.is_sorted()).then(|| {
            let mut order: Vec<u32> = (0u32..).take(records.len()).collect();
            order.sort_by_key(|row| records.get(*row as usize));
            order
        });
        let records = match &order {
            Some(order) => order.iter().filter_map(|row| records.get(*row as usize).copied()).collect(),
            None => records,
        };
        let order = order.map(UInt32Array::from);
        let records = UInt32Array::from(records);
        let whole = match parts.as_slice() {
            [] => Ok(None),
            [one] => Ok(Some(one.clone())),
            several => arrow_select::concat::concat_batches(&target.schema, several).map(Some),
        };
        let batch = whole.and_then(|rows| {
            let (Some(rows), Some(schema)) = (rows, &shape.schema) else { return Ok(None) };
            let mut columns = rows.columns().to_vec();
            if let Some(order) = &order {
                for column in &mut columns {
                    *column = arrow_select::take::take(column, order, None)?;
                }
            }
            columns.extend(shape.metadata(envelope, &records)?);
            RecordBatch::try_new(SchemaRef::clone(schema), columns).map(Some)
        });
        let batch = batch.unwrap_or_else(|error| {
            // More than 2 GiB of text in one column, which the caps rule out; if it happens all the same, no record is lost.
            tracing::error!(%error, rows = records.len(), "typed rows do not make a batch");
            let mut lost = records.values().to_vec();
            lost.dedup();
            let fault = Fault { code: "decode-failed", message: error.to_string() };
            refused.extend(lost.into_iter().map(|record| (record, fault.clone())));
            None
        });
        refused.sort_by_key(|(record, _)| *record);
        let batch = batch
            .map(|rows| DecodedBatch { rows, origin: Origin::Records { envelope: envelope.clone(), rows: records } });
        Decoded { batch, rejected: rejections(refused), skipped: 0 }
    }
}
