//! A batch of JSON records into rows: record by record, each refused alone, and twice where the schema has to grow first.

use std::{collections::HashMap, sync::Arc};

use arrow_array::{Array, RecordBatch, UInt32Array};
use arrow_schema::{ArrowError, Field, Fields as ArrowFields, Schema, SchemaRef};

use super::{
    Decoded,
    column::Rules,
    fault::Fault,
    infer::{SeenFields, infer},
    merge::{FIELDS_MAX, Policy},
    metadata,
    record::{Fields, Reading, read_record},
};
use crate::{
    batch::{DecodedBatch, Envelope, Origin, Rejection, Stage},
    config::{DecodeConfig, OnNewField, OnTypeChange},
    error::PipelineError,
};

/// Decodes JSON records of one dataset.
#[derive(Debug)]
pub(super) struct JsonDecoder {
    /// What the user asked for.
    config: DecodeConfig,
    /// Names of the metadata columns.
    reserved: Vec<String>,
    /// Fields whose types come from the configuration.
    declared: ArrowFields,
    /// Fields whose types come from the records, in the order in which they were first seen.
    inferred: ArrowFields,
    /// Both, and the metadata columns; `None` until the first type is inferred.
    schema: Option<SchemaRef>,
    /// Columns under construction; empty between batches.
    columns: Fields,
    /// Whether it was said that a field gives way to a metadata column.
    told_of_reserved: bool,
}

/// One pass over a batch.
#[derive(Default)]
struct Pass {
    /// Numbers of the records that became rows.
    kept: Vec<u32>,
    /// Numbers and faults of those that did not.
    refused: Vec<(u32, Fault)>,
    /// Numbers of the refused records that a wider schema might hold.
    wants_wider_schema: Vec<u32>,
}

impl JsonDecoder {
    /// Fails when the declared schema has a type that cannot be filled, or a name that is ours.
    pub(super) fn new(config: &DecodeConfig) -> Result<Self, PipelineError> {
        let metadata = metadata::fields(&config.metadata_columns);
        let declared = config.declared_schema.as_ref().map(|schema| schema.fields().clone()).unwrap_or_default();
        if let Some(clash) = metadata.iter().find(|field| declared.find(field.name()).is_some()) {
            return Err(PipelineError::stop(format!(
                "schema: the field {:?} has the name of a metadata column; rename it or leave schema.metadata_columns out",
                clash.name()
            )));
        }
        let mut decoder = Self {
            config: config.clone(),
            reserved: metadata.iter().map(|field| field.name().clone()).collect(),
            declared,
            inferred: ArrowFields::empty(),
            schema: None,
            columns: Fields::empty(),
            told_of_reserved: false,
        };
        if !decoder.declared.is_empty() {
            decoder
                .set_inferred(ArrowFields::empty())
                .map_err(|error| PipelineError::stop("schema.fields cannot be filled from JSON").because(error))?;
        }
        Ok(decoder)
    }

    /// The schema of the rows; `None` until it is inferred.
    pub(super) fn schema(&self) -> Option<&SchemaRef> {
        self.schema.as_ref()
    }

    /// Decodes a batch.
    pub(super) fn decode(&mut self, envelope: &Envelope) -> Decoded {
        let mut pass = if self.schema.is_some() { self.pass(envelope) } else { everything(envelope) };
        if !pass.wants_wider_schema.is_empty() {
            let (has_grown, faults) = self.learn(envelope, &pass.wants_wider_schema);
            if has_grown || self.schema.is_none() {
                self.columns.truncate(0);
                pass = self.pass(envelope);
            }
            say_why_not_wider(&mut pass, faults);
        }
        self.finish(envelope, pass)
    }

    /// Reads every record into the columns.
    fn pass(&mut self, envelope: &Envelope) -> Pass {
        let mut pass = Pass { kept: Vec::with_capacity(envelope.len()), ..Pass::default() };
        let mut has_reserved = false;
        for (number, value) in (0u32..).zip(envelope.values()) {
            let mut reading = Reading::default();
            let fault = match value {
                None => Some(Fault { code: "null-value", message: "the record has no value (a tombstone)".to_owned() }),
                Some(value) => read_record(value, pass.kept.len(), &mut self.columns, &mut reading)
                    .err()
                    .or_else(|| self.no_schema()),
            };
            match fault {
                None => pass.kept.push(number),
                Some(fault) => {
                    self.columns.truncate(pass.kept.len());
                    pass.refused.push((number, fault));
                    if reading.wants_wider_schema {
                        pass.wants_wider_schema.push(number);
                    }
                }
            }
            has_reserved |= reading.has_reserved;
        }
        if has_reserved && !self.told_of_reserved {
            self.told_of_reserved = true;
            tracing::warn!(columns = ?self.reserved, "records have fields named like metadata columns; these are left out");
        }
        pass
    }

    /// The fault of a sound record as long as no record had a field with a value.
    fn no_schema(&self) -> Option<Fault> {
        let message = "no field has a value, and there is no schema yet that tells what is missing";
        self.schema.is_none().then(|| Fault { code: "no-fields", message: message.to_owned() })
    }

    /// Lets the inferred part of the schema grow so that these records fit. Whether it did, and which records no schema
    /// can hold.
    fn learn(&mut self, envelope: &Envelope, records: &[u32]) -> (bool, HashMap<u32, Fault>) {
        let policy = Policy {
            on_type_change: self.config.on_type_change,
            may_grow: self.schema.is_none() || self.config.on_new_field == OnNewField::Add,
        };
        let is_left_out =
            |name: &str| self.reserved.iter().any(|known| known == name) || self.declared.find(name).is_some();
        let values = envelope.values();
        let mut faults = HashMap::new();
        let mut seen = SeenFields::settled(&self.inferred);
        for number in records {
            let row = *number as usize;
            if values.is_null(row) {
                continue;
            }
            let taken = infer(values.value(row), policy, &is_left_out).and_then(|record| {
                seen.check(&record, policy)?;
                if policy.may_grow && self.declared.len() + seen.count_with(&record) > FIELDS_MAX {
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
        if wider == self.inferred {
            return (false, faults);
        }
        tracing::info!(fields = wider.len(), was = self.inferred.len(), "the inferred schema changes");
        // A type that was inferred can be filled.
        (self.set_inferred(wider).is_ok(), faults)
    }

    /// From now on rows have the declared fields, these, and the metadata columns.
    fn set_inferred(&mut self, inferred: ArrowFields) -> Result<(), ArrowError> {
        let from_json: ArrowFields = self.declared.iter().chain(&inferred).cloned().collect();
        let scalars_as_text = self.config.on_type_change == OnTypeChange::String;
        let inferred_rules = Rules::Inferred { scalars_as_text };
        let rules = |name: &str| if self.declared.find(name).is_some() { Rules::Declared } else { inferred_rules };
        let mut columns = Fields::new(&from_json, rules, self.config.on_new_field)?;
        columns.reserved.clone_from(&self.reserved);
        self.columns = columns;
        let whole: Vec<Arc<Field>> =
            from_json.iter().chain(&metadata::fields(&self.config.metadata_columns)).cloned().collect();
        self.schema = Some(Arc::new(Schema::new(whole)));
        self.inferred = inferred;
        Ok(())
    }

    /// The rows as a batch, and what was refused.
    fn finish(&mut self, envelope: &Envelope, pass: Pass) -> Decoded {
        let Pass { kept, mut refused, wants_wider_schema: _ } = pass;
        let rows = UInt32Array::from(kept);
        let batch = match self.rows(envelope, &rows) {
            Ok(None) => None,
            Ok(Some(batch)) => {
                Some(DecodedBatch { rows: batch, origin: Origin::Records { envelope: envelope.clone(), rows } })
            }
            Err(error) => {
                // Ruled out by the checks value by value; if it happens all the same, no record is lost over it.
                tracing::error!(%error, rows = rows.len(), "decoded columns do not make a batch");
                let fault = Fault { code: "decode-failed", message: error.to_string() };
                refused.extend(rows.values().iter().map(|row| (*row, fault.clone())));
                refused.sort_by_key(|(row, _)| *row);
                None
            }
        };
        if batch.is_none() {
            self.columns.truncate(0);
        }
        Decoded { batch, rejected: rejections(refused) }
    }

    /// The columns as a batch, with the metadata of the records that became rows; `None` without any.
    fn rows(&mut self, envelope: &Envelope, kept: &UInt32Array) -> Result<Option<RecordBatch>, ArrowError> {
        let Some(schema) = self.schema.as_ref().filter(|_| !kept.is_empty()) else { return Ok(None) };
        let (_, mut arrays) = self.columns.finish()?;
        for column in &self.config.metadata_columns {
            arrays.push(metadata::column(*column, envelope, kept)?);
        }
        RecordBatch::try_new(Arc::clone(schema), arrays).map(Some)
    }
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

/// Refused records by their reasons, in the order in which each was first met.
fn rejections(refused: Vec<(u32, Fault)>) -> Vec<Rejection> {
    let mut positions: HashMap<Fault, usize> = HashMap::new();
    let mut rejections: Vec<Rejection> = Vec::new();
    for (number, fault) in refused {
        if let Some(known) = positions.get(&fault).and_then(|position| rejections.get_mut(*position)) {
            known.rows.push(number);
            continue;
        }
        rejections.push(Rejection {
            rows: vec![number],
            stage: Stage::Decode,
            plugin: None,
            code: fault.code.to_owned(),
            message: fault.message.clone(),
        });
        positions.insert(fault, rejections.len() - 1);
    }
    rejections
}
