//! A batch of JSON records into rows: record by record, each refused alone, and twice where the schema has to grow first.

use std::collections::HashMap;

use arrow_array::{Array, RecordBatch, UInt32Array};
use arrow_schema::{ArrowError, SchemaRef};

use super::{
    Decoded,
    column::Rules,
    fault::{Fault, rejections},
    infer::{SeenFields, infer},
    merge::{FIELDS_MAX, Policy},
    object::Fields,
    record::{Payload, Reading, read_record},
    shape::Shape,
    tombstone::{self, Tombstone},
};
use crate::{
    batch::{DecodedBatch, Envelope, Origin},
    config::OnTypeChange,
    error::PipelineError,
};

/// Decodes JSON records of one dataset.
#[derive(Debug)]
pub(super) struct JsonDecoder {
    /// Columns under construction; empty between batches.
    columns: Fields,
    /// The schema that they are made for.
    made_for: Option<SchemaRef>,
}

/// One pass over a batch.
#[derive(Default)]
struct Pass {
    /// For each row the number of its record.
    kept: Vec<u32>,
    /// How many records had no value, and were passed over for that.
    skipped: u64,
    /// Numbers and faults of those that did not.
    refused: Vec<(u32, Fault)>,
    /// Numbers of the refused records that a wider schema might hold.
    wants_wider_schema: Vec<u32>,
}

/// What came of one record.
enum Outcome {
    /// So many rows.
    Rows(usize),
    /// Nothing, as asked for.
    Skipped,
    /// A refusal.
    Refused(Fault),
}

impl JsonDecoder {
    /// Fails when the declared schema has a type that cannot be filled.
    pub(super) fn new(shape: &Shape) -> Result<Self, PipelineError> {
        let mut decoder = Self { columns: Fields::empty(), made_for: None };
        decoder
            .make_columns(shape)
            .map_err(|error| PipelineError::stop("schema.fields cannot be filled from JSON").because(error))?;
        Ok(decoder)
    }

    /// Decodes a batch.
    pub(super) fn decode(&mut self, shape: &mut Shape, envelope: &Envelope) -> Decoded {
        // Typed rows may have changed the schema since; what was inferred can always be filled.
        let _ = self.make_columns(shape);
        let mut pass = if shape.schema.is_some() { self.pass(shape, envelope) } else { everything(envelope) };
        if !pass.wants_wider_schema.is_empty() {
            let (has_grown, faults) = self.learn(shape, envelope, &pass.wants_wider_schema);
            if has_grown || shape.schema.is_none() {
                self.columns.truncate(0);
                pass = self.pass(shape, envelope);
            }
            say_why_not_wider(&mut pass, faults);
        }
        self.finish(shape, envelope, pass)
    }

    /// Makes columns for a schema that is not that of the last batch.
    fn make_columns(&mut self, shape: &Shape) -> Result<(), ArrowError> {
        let Some(schema) = &shape.schema else { return Ok(()) };
        if self.made_for.as_ref().is_some_and(|made_for| SchemaRef::ptr_eq(made_for, schema)) {
            return Ok(());
        }
        let scalars_as_text = shape.config.on_type_change == OnTypeChange::String;
        let inferred_rules = Rules::Inferred { scalars_as_text };
        let rules = |name: &str| if shape.declared.find(name).is_some() { Rules::Declared } else { inferred_rules };
        let mut columns = Fields::new(&shape.written_fields(), rules, shape.config.on_new_field)?;
        columns.reserved.clone_from(&shape.reserved);
        self.columns = columns;
        self.made_for = Some(SchemaRef::clone(schema));
        Ok(())
    }

    /// Reads every record into the columns.
    fn pass(&mut self, shape: &mut Shape, envelope: &Envelope) -> Pass {
        let mut pass = Pass { kept: Vec::with_capacity(envelope.len()), ..Pass::default() };
        let mut has_reserved = false;
        for (number, value) in (0u32..).zip(envelope.values()) {
            let mut reading = Reading::default();
            let first = pass.kept.len();
            match self.read(shape, value, first, &mut reading) {
                Outcome::Rows(rows) => pass.kept.extend(std::iter::repeat_n(number, rows)),
                Outcome::Skipped => pass.skipped += 1,
                Outcome::Refused(fault) => {
                    self.columns.truncate(first);
                    pass.refused.push((number, fault));
                    if reading.wants_wider_schema {
                        pass.wants_wider_schema.push(number);
                    }
                }
            }
            has_reserved |= reading.has_reserved;
        }
        if has_reserved {
            shape.tell_of_reserved();
        }
        pass
    }

    /// Reads one record into the rows from `first` on.
    fn read(&mut self, shape: &Shape, value: Option<&[u8]>, first: usize, reading: &mut Reading) -> Outcome {
        let Some(value) = value else { return self.tombstone(shape) };
        match read_record(value, first, &mut self.columns, reading, &shape.config.payload_pointer) {
            Err(fault) => Outcome::Refused(fault),
            Ok(()) if reading.payload == Payload::Null => self.tombstone(shape),
            Ok(()) if reading.rows == 0 => Outcome::Rows(0),
            Ok(()) => no_schema(shape).map_or(Outcome::Rows(reading.rows), Outcome::Refused),
        }
    }

    /// What becomes of a record without a value.
    fn tombstone(&mut self, shape: &Shape) -> Outcome {
        match tombstone::judge(shape) {
            Tombstone::Skip => Outcome::Skipped,
            Tombstone::Refused(fault) => Outcome::Refused(fault),
            Tombstone::Row(_) => {
                if let Some(fault) = no_schema(shape) {
                    return Outcome::Refused(fault);
                }
                if let Some(column) = self.columns.columns.iter().find(|column| !column.field.is_nullable()) {
                    let message = "a tombstone would be null in a column that is not nullable".to_owned();
                    return Outcome::Refused(Fault { code: "null-not-allowed", message }.at(column.field.name()));
                }
                self.columns.push_nulls();
                Outcome::Rows(1)
            }
        }
    }

    /// Lets the inferred part of the schema grow so that these records fit. Whether it did, and which records no schema
    /// can hold.
    fn learn(&mut self, shape: &mut Shape, envelope: &Envelope, records: &[u32]) -> (bool, HashMap<u32, Fault>) {
        let policy = Policy { on_type_change: shape.config.on_type_change, may_grow: shape.may_grow() };
        let is_left_out =
            |name: &str| shape.reserved.iter().any(|known| known == name) || shape.declared.find(name).is_some();
        let values = envelope.values();
        let mut faults = HashMap::new();
        let mut seen = SeenFields::settled(&shape.inferred);
        for number in records {
            let row = *number as usize;
            if values.is_null(row) {
                continue;
            }
            let record = infer(values.value(row), policy, &shape.config.payload_pointer, &is_left_out);
            let taken = record.and_then(|record| {
                seen.check(&record, policy)?;
                if policy.may_grow && shape.declared.len() + seen.count_with(&record) > FIELDS_MAX {
                    let message = format!("its new fields would be more than {FIELDS_MAX} in the schema");
                    return Err(Fault { code: "too-many-fields", message });
                }
                seen.absorb(record, policy);
                Ok(())
            });
            if let Err(fault) = taken {
                faults.insert(*number, fault);
            }
        }
        let wider = seen.to_arrow();
        if wider == shape.inferred {
            return (false, faults);
        }
        tracing::info!(fields = wider.len(), was = shape.inferred.len(), "the inferred schema changes");
        shape.set_inferred(wider);
        // A type that was inferred can be filled.
        (self.make_columns(shape).is_ok(), faults)
    }

    /// The rows as a batch, and what was refused.
    fn finish(&mut self, shape: &Shape, envelope: &Envelope, pass: Pass) -> Decoded {
        let Pass { kept, skipped, mut refused, wants_wider_schema: _ } = pass;
        let rows = UInt32Array::from(kept);
        let batch = match self.rows(shape, envelope, &rows) {
            Ok(None) => None,
            Ok(Some(batch)) => {
                Some(DecodedBatch { rows: batch, origin: Origin::Records { envelope: envelope.clone(), rows } })
            }
            Err(error) => {
                // Ruled out by the checks value by value; if it happens all the same, no record is lost over it.
                tracing::error!(%error, rows = rows.len(), "decoded columns do not make a batch");
                let fault = Fault { code: "decode-failed", message: error.to_string() };
                let mut lost = rows.values().to_vec();
                lost.dedup();
                refused.extend(lost.into_iter().map(|record| (record, fault.clone())));
                refused.sort_by_key(|(record, _)| *record);
                None
            }
        };
        if batch.is_none() {
            self.columns.truncate(0);
        }
        Decoded { batch, rejected: rejections(refused), skipped }
    }

    /// The columns as a batch, with the metadata of the records that became rows; `None` without any.
    fn rows(
        &mut self,
        shape: &Shape,
        envelope: &Envelope,
        kept: &UInt32Array,
    ) -> Result<Option<RecordBatch>, ArrowError> {
        let Some(schema) = shape.schema.as_ref().filter(|_| !kept.is_empty()) else { return Ok(None) };
        let (_, mut arrays) = self.columns.finish()?;
        arrays.extend(shape.metadata(envelope, kept)?);
        RecordBatch::try_new(SchemaRef::clone(schema), arrays).map(Some)
    }
}

/// The fault of a sound record as long as no record had a field with a value.
fn no_schema(shape: &Shape) -> Option<Fault> {
    let message = "no field has a value, and there is no schema yet that tells what is missing";
    shape.schema.is_none().then(|| Fault { code: "no-fields", message: message.to_owned() })
}

/// What there is to learn from before there is a schema.
fn everything(envelope: &Envelope) -> Pass {
    Pass { wants_wider_schema: (0u32..).take(envelope.len()).collect(), ..Pass::default() }
}

/// A record with a field that the schema lacks was refused for that so far; why the field could not be taken in says more.
fn say_why_not_wider(pass: &mut Pass, mut faults: HashMap<u32, Fault>) {
    for (number, fault) in &mut pass.refused {
        if matches!(fault.code, "unknown-field" | "no-fields")
            && let Some(better) = faults.remove(number)
        {
            *fault = better;
        }
    }
}
