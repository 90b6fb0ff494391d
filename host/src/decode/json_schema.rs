//! Records of JSON behind the number of a schema in the registry.
//!
//! The types that the schema gives fields are taken in before the records are decoded as any JSON: an integer in a field of numbers becomes
//! a float, a field that is null so far has its type. What the schema says of values beyond their types (patterns, bounds, required
//! fields) is the producer's affair and not checked again.

use std::sync::Arc;

use arrow_array::{Array as _, ArrayRef, BinaryArray, RecordBatch, UInt32Array};
use arrow_schema::{ArrowError, DataType, Field, Fields, TimeUnit};
use arrow_select::take::take_record_batch;
use serde_json::Value;

use super::{
    Decoded,
    fault::{Fault, excerpt, rejections},
    json::JsonDecoder,
    registry::{Registered, Registry},
    shape::Shape,
    types::{UTC, list_of, map_of},
    wire::{self, Known},
};
use crate::{
    batch::{Envelope, Origin},
    error::PipelineError,
};

/// Most types of one schema; more are left to the records.
const NODES_MAX: usize = 4_000;

/// Deepest nesting; what is deeper is left to the records.
const DEPTH_MAX: usize = 32;

/// Decodes records of JSON behind a number.
#[derive(Debug, Default)]
pub(super) struct JsonSchemaDecoder {
    /// The fields of each schema.
    known: Known<Fields>,
}

/// The fields of a schema of the registry.
fn plan(registered: &Registered) -> Result<Fields, Fault> {
    registered.expect("JSON", "json_schema")?;
    let schema: Value = serde_json::from_str(&registered.text).map_err(|error| Fault {
        code: "bad-schema",
        message: format!("the schema is not JSON: {}", excerpt(&error.to_string())),
    })?;
    let mut planner = Planner { root: &schema, nodes: 0 };
    Ok(match planner.data_type(&schema, 0) {
        Some(DataType::Struct(fields)) => fields,
        _ => Fields::empty(),
    })
}

/// What is known while a schema is read.
struct Planner<'a> {
    /// The whole of it.
    root: &'a Value,
    /// Types so far.
    nodes: usize,
}

impl Planner<'_> {
    /// The type of a part of the schema; `None` where the records tell.
    fn data_type(&mut self, schema: &Value, depth: usize) -> Option<DataType> {
        self.nodes += 1;
        if depth > DEPTH_MAX || self.nodes > NODES_MAX {
            return None;
        }
        if let Some(reference) = schema.get("$ref").and_then(Value::as_str) {
            let target = self.root.pointer(reference.strip_prefix('#')?)?.clone();
            return self.data_type(&target, depth + 1);
        }
        // One of null and something else is something that may be null.
        for key in ["oneOf", "anyOf"] {
            if let Some(choices) = schema.get(key).and_then(Value::as_array) {
                let is_null = |choice: &&Value| choice.get("type").and_then(Value::as_str) == Some("null");
                let mut some = choices.iter().filter(|choice| !is_null(choice));
                return match (some.next(), some.next()) {
                    (Some(one), None) => self.data_type(&one.clone(), depth + 1),
                    _ => None,
                };
            }
        }
        let format = schema.get("format").and_then(Value::as_str);
        Some(match (type_name(schema)?, format) {
            ("boolean", _) => DataType::Boolean,
            ("integer", _) => DataType::Int64,
            ("number", _) => DataType::Float64,
            ("string", Some("date-time")) => DataType::Timestamp(TimeUnit::Microsecond, Some(UTC.into())),
            ("string", Some("date")) => DataType::Date32,
            ("string", _) => DataType::Utf8,
            ("array", _) => list_of(self.data_type(schema.get("items")?, depth + 1)?),
            ("object", _) => self.object(schema, depth)?,
            _ => return None,
        })
    }

    /// An object: with fields of its own a struct, with any others a map.
    fn object(&mut self, schema: &Value, depth: usize) -> Option<DataType> {
        let Some(properties) = schema.get("properties").and_then(Value::as_object) else {
            let others = schema.get("additionalProperties").filter(|others| others.is_object())?;
            return Some(map_of(DataType::Utf8, self.data_type(others, depth + 1)?));
        };
        let mut fields: Vec<Field> = Vec::new();
        for (name, property) in properties {
            let data_type = self.data_type(property, depth + 1);
            fields.extend(data_type.map(|data_type| Field::new(name, data_type, true)));
        }
        (!fields.is_empty()).then(|| DataType::Struct(fields.into()))
    }
}

/// The one type that a schema names besides null.
fn type_name(schema: &Value) -> Option<&str> {
    match schema.get("type")? {
        Value::String(name) => Some(name),
        Value::Array(names) => {
            let mut some = names.iter().filter_map(Value::as_str).filter(|name| *name != "null");
            some.next().filter(|_| some.next().is_none())
        }
        _ => None,
    }
}

impl JsonSchemaDecoder {
    /// Has the registry tell the schemas of a batch.
    pub(super) async fn prepare(&mut self, registry: &Registry, envelope: &Envelope) -> Result<(), PipelineError> {
        self.known.prepare(registry, envelope, plan).await
    }

    /// Decodes the records of a batch.
    pub(super) fn decode(&self, json: &mut JsonDecoder, shape: &mut Shape, envelope: &Envelope) -> Decoded {
        let (mut kept, mut values, mut refused) = (Vec::new(), Vec::new(), Vec::new());
        let mut taken: Vec<u32> = Vec::new();
        for (number, value) in (0u32..).zip(envelope.values()) {
            let body = value.map(|value| {
                let (id, body) = wire::header(value)?;
                let fields = self.known.get(id)?;
                if !taken.contains(&id) {
                    shape.take_in(fields).map_err(|fault| Fault {
                        code: fault.code,
                        message: format!("schema {id}: {}", fault.message),
                    })?;
                    taken.push(id);
                }
                Ok(body)
            });
            match body.transpose() {
                Ok(body) => {
                    kept.push(number);
                    values.push(body);
                }
                Err(fault) => refused.push((number, fault)),
            }
        }
        let kept = UInt32Array::from(kept);
        match without_numbers(envelope, &kept, values) {
            Ok(bodies) => {
                let Decoded { batch, rejected, skipped } = json.decode(shape, &bodies);
                let of_source = |row: &u32| kept.values().get(*row as usize).copied().unwrap_or(*row);
                let mut all = rejections(refused);
                for mut rejection in rejected {
                    rejection.rows = rejection.rows.iter().map(of_source).collect();
                    all.push(rejection);
                }
                let batch = batch.map(|mut batch| {
                    if let Origin::Records { rows, .. } = &batch.origin {
                        let rows = rows.values().iter().map(of_source).collect();
                        batch.origin = Origin::Records { envelope: envelope.clone(), rows };
                    }
                    batch
                });
                Decoded { batch, rejected: all, skipped }
            }
            Err(error) => {
                let fault = Fault { code: "decode-failed", message: error.to_string() };
                refused.extend(kept.values().iter().map(|number| (*number, fault.clone())));
                Decoded { batch: None, rejected: rejections(refused), skipped: 0 }
            }
        }
    }
}

/// Some records with other values.
fn without_numbers(
    envelope: &Envelope,
    kept: &UInt32Array,
    values: Vec<Option<&[u8]>>,
) -> Result<Envelope, ArrowError> {
    let some = take_record_batch(envelope.as_record_batch(), kept)?;
    let mut columns = some.columns().to_vec();
    let values: ArrayRef = Arc::new(BinaryArray::from_iter(values));
    let is_values = |data_type: &DataType, name: &str| name == "value" && data_type == values.data_type();
    for (column, field) in columns.iter_mut().zip(some.schema_ref().fields()) {
        if is_values(field.data_type(), field.name()) {
            *column = Arc::clone(&values);
        }
    }
    Envelope::try_new(RecordBatch::try_new(some.schema(), columns)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The fields that a schema gives.
    fn fields_of(text: &str) -> Result<String, &'static str> {
        let registered = Registered { kind: "JSON".to_owned(), text: text.to_owned(), references: Vec::new() };
        let fields = plan(&registered).map_err(|fault| fault.code)?;
        let words = fields.iter().map(|field| format!("{}: {}", field.name(), field.data_type()));
        Ok(words.collect::<Vec<_>>().join("; "))
    }

    #[test]
    fn types_of_a_schema() {
        let text = r##"{"type": "object", "definitions": {"point": {"type": "object", "properties": {"x": {"type": "number"}}}},
            "properties": {
                "id": {"type": "integer"}, "name": {"type": ["null", "string"]}, "at": {"type": "string", "format": "date-time"},
                "day": {"oneOf": [{"type": "null"}, {"type": "string", "format": "date"}]}, "tags": {"type": "array", "items": {"type": "string"}},
                "here": {"$ref": "#/definitions/point"}, "prices": {"type": "object", "additionalProperties": {"type": "number"}},
                "any": {}, "either": {"type": ["string", "integer"]}}}"##;
        let expected = "id: Int64; name: Utf8; at: Timestamp(µs, \"UTC\"); day: Date32; tags: List(Utf8); \
                        here: Struct(\"x\": Float64); prices: Map(";
        assert!(fields_of(text).unwrap().starts_with(expected), "{:?}", fields_of(text));
        assert!(!fields_of(text).unwrap().contains("any") && !fields_of(text).unwrap().contains("either"));
    }

    #[test]
    fn schemas_that_contain_themselves_or_are_none_do_no_harm() {
        let text = r##"{"type": "object", "properties": {"next": {"$ref": "#"}, "id": {"type": "integer"}}}"##;
        assert!(fields_of(text).unwrap().contains("id: Int64"));
        assert_eq!(fields_of("{\"$ref\": \"#\"}").unwrap(), "");
        assert_eq!(fields_of("true").unwrap(), "");
        assert_eq!(fields_of("{"), Err("bad-schema"));
    }
}
