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
//! | number with fraction or exponent | integer | refused `wrong-type`, also for `1.0` |
//! | number | float | the nearest float; beyond the largest refused `number-out-of-range`; an integer that is not exact is refused so too, where the column is inferred |
//! | number, or text of a number | decimal | exact from its digits, or refused `precision-loss`, `number-out-of-range` |
//! | RFC 3339 text, or `YYYY-MM-DD HH:MM:SS[.f]` | timestamp | UTC; without a zone it counts as UTC; refused `precision-loss` where the unit is too coarse |
//! | integer | timestamp | counts in the column's unit since 1970 where the column is declared; otherwise refused `wrong-type` |
//! | `YYYY-MM-DD` | date | the date |
//! | base64 text with padding | binary | the bytes |
//! | null or missing field | nullable column | null; otherwise refused `null-not-allowed` |
//! | a key twice in one object, of a column or a map | | refused `duplicate-key` |
//! | a field that the schema lacks | | see below |
//! | any other value | | refused `wrong-type` with the path, the type expected and the value found |
//! | no value (tombstone) | | refused `null-value` |
//! | not an object | | refused `not-an-object` |
//! | more than 128 levels of lists and objects | | refused `too-deep`, also in fields that are left out |
//! | not JSON: bad UTF-8, byte order mark, text after the object, NaN, lone surrogates | | refused `bad-json`, whatever else is wrong |
//!
//! A field that the schema lacks goes by `on_new_field`: it becomes a column (`add`), is left out (`ignore`) or the record
//! is refused `unknown-field` (`reject`); null, `[]`, `{}` and lists and objects of nothing else say nothing and are
//! passed over in all three. What is inside a declared object stays as declared: there `add` counts as `ignore`. A field
//! with the name of a metadata column is left out, and the log says so once.
//!
//! Where types are inferred: integers are `int64` (beyond it refused `number-out-of-range`), other numbers `float64`,
//! texts in RFC 3339 with a zone `timestamp(us, UTC)` (`ns` where a microsecond is not enough), if all of the first batch
//! that has the field are, and other texts `utf8`. Integers and fractions of one field become `float64`. Any other
//! mixture is refused `wrong-type`, the first come stays; under `on_type_change: string` scalars that do not go together
//! become `utf8` with their JSON text. Under `on_type_change: reject` a column of an earlier batch never changes. A record
//! is refused `too-many-fields` when the schema would have more than 2,000, and `too-deep` beyond 64 levels. A record
//! that is refused adds no field, unless it is refused only for a value in a declared column. As long as no field has had
//! a value there is no schema, and records are refused `no-fields`.

use std::sync::Arc;

use arrow_array::UInt32Array;
use arrow_schema::SchemaRef;

use crate::{
    batch::{DecodedBatch, ENVELOPE_SCHEMA, Envelope, Origin, Rejection},
    config::{DecodeConfig, ValueFormat},
    error::PipelineError,
};
use json::JsonDecoder;

mod column;
mod decimal;
mod fault;
mod infer;
mod json;
mod merge;
mod metadata;
mod record;
mod substance;
mod text;
mod timestamp;
mod value;

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
pub struct Decoder(Format);

/// The closed set of formats.
#[derive(Debug)]
enum Format {
    /// One JSON object a record.
    Json(Box<JsonDecoder>),
    /// The envelope goes on as it is.
    Raw(SchemaRef),
}

impl Decoder {
    /// Fails when the declared schema has a type that cannot be filled, or a name that is ours.
    pub fn new(config: &DecodeConfig) -> Result<Self, PipelineError> {
        Ok(Self(match config.format {
            ValueFormat::Json => Format::Json(Box::new(JsonDecoder::new(config)?)),
            ValueFormat::Raw => Format::Raw(Arc::clone(&ENVELOPE_SCHEMA)),
        }))
    }

    /// The schema of the rows; `None` until it is inferred.
    #[must_use]
    pub fn schema(&self) -> Option<&SchemaRef> {
        match &self.0 {
            Format::Json(decoder) => decoder.schema(),
            Format::Raw(schema) => Some(schema),
        }
    }

    /// Decodes a batch. The rows may have a wider schema than those of the batch before.
    pub fn decode(&mut self, envelope: &Envelope) -> Decoded {
        match &mut self.0 {
            Format::Json(decoder) => decoder.decode(envelope),
            Format::Raw(_) => as_it_is(envelope),
        }
    }
}

/// The envelope itself as rows.
fn as_it_is(envelope: &Envelope) -> Decoded {
    let rows = UInt32Array::from_iter_values((0u32..).take(envelope.len()));
    let origin = Origin::Records { envelope: envelope.clone(), rows };
    let batch = DecodedBatch { rows: envelope.as_record_batch().clone(), origin };
    Decoded { batch: (!envelope.is_empty()).then_some(batch), rejected: Vec::new() }
}

#[cfg(test)]
mod tests;
