//! Turns records into typed rows.
//!
//! Comes in: raw records in the envelope schema. Goes out: rows of a schema that is declared or inferred, and the
//! records that were refused, each alone: a bad record leaves no trace in its neighbours. Promises: never a silently
//! wrong value, and no panic, whatever the bytes.
//!
//! What JSON becomes:
//!
//! | JSON | column | result |
//! |---|---|---|
//! | integer | int8..int64, uint8..uint64 | the value; outside the type's range refused `number-out-of-range` |
//! | integer | float | the nearest float if declared; in an inferred column refused if it is not exact |
//! | `-0.0` | float | `0.0`: the parser drops the sign |
//! | integer | declared timestamp | counts in the column's unit since 1970 |
//! | number with fraction or exponent | integer | refused `wrong-type`, also for `1.0` |
//! | number or text of a number | decimal | exact from its digits, or refused `precision-loss`, `number-out-of-range` |
//! | RFC 3339 text, or `YYYY-MM-DD HH:MM:SS[.f]` | timestamp | UTC; without a zone it counts as UTC; refused `precision-loss` where the unit is too coarse |
//! | `YYYY-MM-DD` | date | the date |
//! | base64 text | binary | the bytes |
//! | null or missing field | nullable column | null; otherwise refused `null-not-allowed` |
//! | a key twice in one object | | refused `duplicate-key` |
//! | a field that the schema lacks | | `on_new_field`: a new column, left out, or refused `unknown-field` |
//! | any other value | | refused `wrong-type` with the path, the type expected and the value found |
//! | no value (tombstone) | | refused `null-value` |
//! | not an object | | refused `not-an-object` |
//! | more than 128 levels of lists and objects | | refused `too-deep` |
//! | not JSON: bad UTF-8, byte order mark, text after the object, NaN, lone surrogates | | refused `bad-json` |

use std::sync::Arc;

use arrow_array::{Array, ArrayRef, RecordBatch, UInt32Array};
use arrow_schema::{ArrowError, DataType, Field, Fields as ArrowFields, Schema, SchemaRef, TimeUnit};
use serde::de::DeserializeSeed;

use crate::{
    batch::{DecodedBatch, Envelope, Origin, Rejection, Stage},
    config::{DecodeConfig, MetadataColumn, OnNewField, OnTypeChange, ValueFormat},
    error::PipelineError,
};

mod column;
mod decimal;
mod infer;
mod record;
mod timestamp;

use infer::{InferSeed, Seen, add_field, fields_of};
use record::{Fault, Fields, ObjectSeed, Reading};

/// Most levels of lists and objects: each costs stack, and Parquet readers give up earlier.
const DEPTH_MAX: usize = 128;

/// What came of a batch.
#[derive(Debug)]
pub struct Decoded {
    /// The rows; `None` when every record was refused, or there was none.
    pub batch: Option<DecodedBatch>,
    /// Refused records, by their numbers in the envelope.
    pub rejected: Vec<Rejection>,
}

/// Decodes the records of one dataset.
#[derive(Debug)]
pub struct Decoder {
    /// What the user asked for.
    config: DecodeConfig,
    /// The fields of the JSON objects; `None` until inferred.
    fields: Option<ArrowFields>,
    /// The same and the metadata columns.
    schema: Option<SchemaRef>,
    /// Columns under construction.
    columns: Option<Fields>,
}

/// One pass over a batch.
struct Pass {
    /// Numbers of the records that became rows.
    kept: Vec<u32>,
    /// Numbers and faults of those that did not.
    refused: Vec<(u32, Fault)>,
    /// Numbers of the records that a wider schema would hold.
    wants_wider_schema: Vec<u32>,
}

impl Decoder {
    /// Fails when the declared schema has a type that cannot be filled, or a name that is ours.
    pub fn new(config: &DecodeConfig) -> Result<Self, PipelineError> {
        let mut decoder = Self { config: config.clone(), fields: None, schema: None, columns: None };
        match (config.format, &config.declared_schema) {
            (ValueFormat::Raw, _) => decoder.schema = Some(Arc::clone(&crate::batch::ENVELOPE_SCHEMA)),
            (ValueFormat::Json, Some(declared)) => {
                let reserved = metadata_fields(&config.metadata_columns);
                if let Some(clash) = reserved.iter().find(|field| declared.index_of(field.name()).is_ok()) {
                    return Err(PipelineError::stop(format!(
                        "schema: the field {:?} has the name of a metadata column; rename it or leave \
                         schema.metadata_columns out",
                        clash.name()
                    )));
                }
                decoder
                    .set_fields(declared.fields().clone())
                    .map_err(|error| PipelineError::stop("schema.fields cannot be filled from JSON").because(error))?;
            }
            (ValueFormat::Json, None) => {}
        }
        Ok(decoder)
    }

    /// The schema of the rows; `None` until it is inferred.
    #[must_use]
    pub fn schema(&self) -> Option<&SchemaRef> {
        self.schema.as_ref()
    }

    /// Decodes a batch. The rows may have a wider schema than those of the batch before.
    pub fn decode(&mut self, envelope: &Envelope) -> Decoded {
        if self.config.format == ValueFormat::Raw {
            let rows = UInt32Array::from_iter_values(0..u32::try_from(envelope.len()).unwrap_or(u32::MAX));
            let origin = Origin::Records { envelope: envelope.clone(), rows };
            return Decoded {
                batch: Some(DecodedBatch { rows: envelope.as_record_batch().clone(), origin }),
                rejected: Vec::new(),
            };
        }
        let mut pass = match &self.columns {
            Some(_) => self.pass(envelope),
            None => Pass {
                kept: Vec::new(),
                refused: Vec::new(),
                wants_wider_schema: (0u32..).take(envelope.len()).collect(),
            },
        };
        if !pass.wants_wider_schema.is_empty() && self.widen(envelope, &pass.wants_wider_schema) {
            if let Some(columns) = &mut self.columns {
                columns.truncate(0);
            }
            pass = self.pass(envelope);
        } else if self.columns.is_none() {
            // Nothing to infer from: every record is refused, with the parser's reason or for want of any field.
            pass = self.pass(envelope);
        }
        self.finish(envelope, pass)
    }

    /// Reads every record into the columns.
    fn pass(&mut self, envelope: &Envelope) -> Pass {
        let mut pass =
            Pass { kept: Vec::with_capacity(envelope.len()), refused: Vec::new(), wants_wider_schema: Vec::new() };
        let reserved =
            metadata_fields(&self.config.metadata_columns).iter().map(|field| field.name().clone()).collect();
        let mut reading = Reading::new(self.config.on_new_field, reserved);
        let values = envelope.values();
        let mut nothing = Fields::new(&ArrowFields::empty(), true).ok();
        let Some(columns) = self.columns.as_mut().or(nothing.as_mut()) else { return pass };
        for (number, value) in (0u32..).zip(values) {
            reading.reset();
            reading.wants_wider_schema = false;
            match read_record(value, columns, &mut reading) {
                Ok(()) => pass.kept.push(number),
                Err(fault) => {
                    columns.truncate(pass.kept.len());
                    pass.refused.push((number, fault));
                }
            }
            if reading.wants_wider_schema {
                pass.wants_wider_schema.push(number);
            }
        }
        pass
    }

    /// Lets the schema grow so that these records fit; `false` when it stays as it is.
    fn widen(&mut self, envelope: &Envelope, records: &[u32]) -> bool {
        let is_declared = self.config.declared_schema.is_some();
        let may_grow = self.config.on_new_field == OnNewField::Add || self.fields.is_none();
        let may_change = !is_declared && self.config.on_type_change != OnTypeChange::Reject;
        if !may_grow && !may_change {
            return false;
        }
        let change = if may_change { self.config.on_type_change } else { OnTypeChange::Reject };
        let mut all: Vec<(String, Seen)> = self
            .fields
            .iter()
            .flat_map(|fields| fields.iter())
            .map(|field| (field.name().clone(), Seen::of_type(field.data_type())))
            .collect();
        let values = envelope.values();
        for record in records.iter().map(|record| *record as usize).filter(|record| values.is_valid(*record)) {
            let Ok(text) = std::str::from_utf8(values.value(record)) else { continue };
            if is_too_deep(text.as_bytes()) {
                continue;
            }
            let mut parser = sonic_rs::Deserializer::from_str(text);
            if let Ok(Seen::Object(fields)) = InferSeed(change).deserialize(&mut parser)
                && parser.end().is_ok()
            {
                let reserved = metadata_fields(&self.config.metadata_columns);
                for (name, seen) in
                    fields.into_iter().filter(|(name, _)| !reserved.iter().any(|field| field.name() == name))
                {
                    if may_grow || all.iter().any(|(known, _)| *known == name) {
                        add_field(&mut all, &name, seen, change);
                    }
                }
            }
        }
        let wider = self.keep_declared(fields_of(&all));
        if wider.is_empty() || self.fields.as_ref() == Some(&wider) {
            return false;
        }
        tracing::info!(
            fields = wider.len(),
            was = self.fields.as_ref().map_or(0, |fields| fields.len()),
            "the schema grows"
        );
        self.set_fields(wider).is_ok()
    }

    /// Declared fields stay exactly as they are.
    fn keep_declared(&self, wider: ArrowFields) -> ArrowFields {
        let Some(declared) = &self.config.declared_schema else { return wider };
        let known = |name: &str| declared.index_of(name).is_ok();
        declared.fields().iter().cloned().chain(wider.iter().filter(|field| !known(field.name())).cloned()).collect()
    }

    /// From now on rows have these fields and the metadata columns.
    fn set_fields(&mut self, fields: ArrowFields) -> Result<(), ArrowError> {
        let exact_integers = self.config.declared_schema.is_none();
        self.columns = Some(Fields::new(&fields, exact_integers)?);
        let whole: Vec<_> = fields.iter().chain(&metadata_fields(&self.config.metadata_columns)).cloned().collect();
        self.schema = Some(Arc::new(Schema::new(whole)));
        self.fields = Some(fields);
        Ok(())
    }

    /// The rows as a batch, and what was refused.
    fn finish(&mut self, envelope: &Envelope, pass: Pass) -> Decoded {
        let Pass { kept, mut refused, wants_wider_schema: _ } = pass;
        let batch = if kept.is_empty() {
            None
        } else {
            let rows = UInt32Array::from(kept);
            match self.rows(envelope, &rows) {
                Ok(batch) => {
                    Some(DecodedBatch { rows: batch, origin: Origin::Records { envelope: envelope.clone(), rows } })
                }
                Err(error) => {
                    // Ruled out by the checks value by value; if it happens all the same, no record is lost over it.
                    let fault = Fault { code: "decode-failed", message: error.to_string() };
                    refused.extend(rows.values().iter().map(|row| (*row, fault.clone())));
                    refused.sort_by_key(|(row, _)| *row);
                    None
                }
            }
        };
        if batch.is_none()
            && let Some(columns) = &mut self.columns
        {
            columns.truncate(0);
        }
        let rejection = |(row, fault): (u32, Fault)| Rejection {
            rows: vec![row],
            stage: Stage::Decode,
            plugin: None,
            code: fault.code.to_owned(),
            message: fault.message,
        };
        Decoded { batch, rejected: refused.into_iter().map(rejection).collect() }
    }

    /// The columns as a batch, with the metadata of the records that became rows.
    fn rows(&mut self, envelope: &Envelope, kept: &UInt32Array) -> Result<RecordBatch, ArrowError> {
        let (Some(columns), Some(schema)) = (&mut self.columns, &self.schema) else {
            return Err(ArrowError::SchemaError("rows without a schema".to_owned()));
        };
        let (_, mut arrays) = columns.finish()?;
        for metadata in &self.config.metadata_columns {
            arrays.push(arrow_select::take::take(metadata_column(*metadata, envelope), kept, None)?);
        }
        RecordBatch::try_new(Arc::clone(schema), arrays)
    }
}

/// Reads one record into a row, or says why not; then the columns may hold a part of it.
fn read_record(value: Option<&[u8]>, columns: &mut Fields, reading: &mut Reading) -> Result<(), Fault> {
    let fault = |code, message: String| Fault { code, message };
    let value = value.ok_or_else(|| fault("null-value", "the record has no value (a tombstone)".to_owned()))?;
    let text = std::str::from_utf8(value).map_err(|error| fault("bad-json", error.to_string()))?;
    if is_too_deep(value) {
        return Err(fault("too-deep", format!("more than {DEPTH_MAX} levels of lists and objects")));
    }
    let mut parser = sonic_rs::Deserializer::from_str(text);
    let read = ObjectSeed { fields: columns, reading: &mut *reading }.deserialize(&mut parser);
    let bad_json = |error: sonic_rs::Error| {
        // The first line says what and where; the rest repeats the record.
        let words = error.to_string();
        fault("bad-json", words.lines().next().unwrap_or_default().to_owned())
    };
    match (read, reading.take_fault()) {
        (_, Some(fault)) => Err(fault),
        (Err(error), None) => Err(bad_json(error)),
        (Ok(()), None) => parser.end().map_err(bad_json),
    }
}

/// Whether lists and objects are nested too deep. The parser recurses, without a limit of its own where it skips a
/// value, so this is asked first. Few records have so many brackets at all; only those are looked at closely.
fn is_too_deep(record: &[u8]) -> bool {
    let is_open = |byte: &u8| matches!(byte, b'[' | b'{');
    if record.iter().filter(|byte| is_open(byte)).count() <= DEPTH_MAX {
        return false;
    }
    let (mut depth, mut in_text, mut escaped) = (0usize, false, false);
    for byte in record {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if in_text => escaped = true,
            b'"' => in_text = !in_text,
            _ if in_text => {}
            byte if is_open(byte) => {
                depth += 1;
                if depth > DEPTH_MAX {
                    return true;
                }
            }
            b']' | b'}' => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    false
}

/// The fields of metadata columns.
fn metadata_fields(columns: &[MetadataColumn]) -> ArrowFields {
    columns
        .iter()
        .map(|column| match column {
            MetadataColumn::Topic => Field::new("_topic", DataType::Utf8, false),
            MetadataColumn::Partition => Field::new("_partition", DataType::Int32, false),
            MetadataColumn::Offset => Field::new("_offset", DataType::Int64, false),
            MetadataColumn::Timestamp => {
                Field::new("_timestamp", DataType::Timestamp(TimeUnit::Millisecond, Some("UTC".into())), true)
            }
            MetadataColumn::Key => Field::new("_key", DataType::Binary, true),
        })
        .collect()
}

/// The column of the envelope.
fn metadata_column(column: MetadataColumn, envelope: &Envelope) -> &ArrayRef {
    let position = match column {
        MetadataColumn::Topic => 0,
        MetadataColumn::Partition => 1,
        MetadataColumn::Offset => 2,
        MetadataColumn::Timestamp => 3,
        MetadataColumn::Key => 4,
    };
    envelope.as_record_batch().column(position)
}

#[cfg(test)]
mod tests;
