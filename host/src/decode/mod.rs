//! Turns records into typed rows.
//!
//! Comes in: raw records in the envelope schema, or rows of a file that are typed already. Goes out: rows of a schema that
//! is declared or inferred, and the records that were refused, each alone: a bad record leaves no trace in its
//! neighbours. Promises: never a silently wrong value, and no panic, whatever the bytes.
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
//! | integer | timestamp | counts since 1970 in the declared `epoch`, else in the column's unit; only where the column is declared, otherwise refused `wrong-type` |
//! | `YYYY-MM-DD` | date | the date |
//! | `HH:MM:SS[.f]` | time | the time of day; refused `precision-loss` where the unit is too coarse |
//! | base64 text with padding, or hexadecimal text where `encoding: hex` is declared | binary | the bytes |
//! | null or missing field | nullable column | null; otherwise refused `null-not-allowed` |
//! | a key twice in one object, of a column or a map | | refused `duplicate-key` |
//! | a field that the schema lacks | | see below |
//! | any other value | | refused `wrong-type` with the path, the type expected and the value found |
//! | a list of objects as the record | | a row each; the record is refused as a whole where one of them is |
//! | an empty list as the record | | no row, and nothing refused |
//! | no value (tombstone), or a payload that is null | | by `on_tombstone`: refused `null-value`, a row of nulls, or passed over |
//! | nothing at `payload_pointer` | | refused `payload-missing`; a key of the way twice `duplicate-key` |
//! | neither an object nor a list of objects | | refused `not-an-object` |
//! | a list whose rows have more than 64 million values, those that are missing counted | | refused `too-many-rows` |
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
//! a value there is no schema, and records are refused `no-fields`. What is learned becomes a version of the dataset's schema before
//! it is used ([`SchemaHistory`]), so lanes, processes and restarts learn on top of each other.
//!
//! What Arrow becomes, in records of `arrow_ipc` and in typed files:
//!
//! | Arrow | result |
//! |---|---|
//! | a stream or a file with any number of record batches, plain, LZ4 or zstd | all their rows |
//! | no record batch, or batches without rows | no row, and nothing refused; the schema is not looked at |
//! | no bytes, other bytes, a stream that is cut short or contradicts itself | refused `bad-arrow` |
//! | rows without a column | refused `bad-arrow` |
//! | dictionaries, also sent anew between batches; run-ends | their values; a dictionary in parts (delta) is refused `bad-arrow` |
//! | large and view forms, lists of fixed size, half floats, seconds, date64, decimals below 128 bits | utf8, binary, list, float32, milliseconds, date32, decimal128: one layout for each kind of value |
//! | a time with a zone | the same instant in UTC |
//! | a column of type null | says nothing: null in a known column, no column otherwise |
//! | duration, interval, union; in Arrow also run-ends, views of lists and nulls in lists | refused `unsupported-type` |
//! | a column of another type than the dataset's | the wider of the two: the larger integer, float64, the finer unit, the decimal that holds both; otherwise refused `wrong-type`, or text under `on_type_change: string` |
//! | a value that the column cannot hold exactly | refused `number-out-of-range`, `precision-loss` |
//! | more than 256 MiB unpacked or a million rows in one record, 1 GiB in one batch of records | refused `too-large`, `too-many-rows`, `batch-too-large` |
//!
//! What Avro becomes: each type its own (int32, int64, float32, float64, utf8, binary, list, map, struct); `fixed` binary, an
//! enum its name, `uuid` text, decimals of up to 76 digits, dates, times and timestamps, `duration` a struct of three
//! counts. `[null, X]` is X; a union of more is a struct with a field for each branch, named by its type, of which one is
//! there. A record that contains itself is refused `unsupported-type`. Bytes that are not of the schema are refused
//! `bad-avro`, a record without a schema's number `no-schema-id`, one whose number the registry has not `unknown-schema`.
//!
//! What Protobuf becomes: each scalar its own type, an enum its name (a number without a name as text), `Timestamp` nanoseconds in UTC,
//! a wrapper its value or null, `Struct`, `Value` and `ListValue` JSON in a text, other messages structs, maps maps. A field that
//! is not there is null where the schema tells that from the default (`optional`, messages, oneof), else the default. A message that
//! contains itself, and groups, are refused `unsupported-type`, bytes that are not of the schema `bad-protobuf`.
//!
//! What JSON behind the number of a schema becomes (`json_schema`): JSON as above, in the types that the schema gives its fields.
//!
//! New columns go by `on_new_field` as new fields do, inside of structs too. A record is refused with all its rows, a row of
//! a file alone.

use arrow_array::{RecordBatch, UInt32Array};
use arrow_schema::{Fields, SchemaRef};

use crate::{
    batch::{DecodedBatch, ENVELOPE_SCHEMA, Envelope, Origin, Rejection},
    config::{DecodeConfig, ValueFormat},
    error::PipelineError,
};
use avro::AvroDecoder;
use fault::Fault;
use json::JsonDecoder;
use json_schema::JsonSchemaDecoder;
use protobuf::ProtobufDecoder;
use shape::Shape;
use typed::{Part, Source, TypedDecoder};

mod arrow;
mod avro;
mod bytes;
mod cells;
mod column;
mod conform;
mod decimal;
mod fault;
mod groups;
mod history;
mod infer;
mod json;
mod json_schema;
mod merge;
mod metadata;
mod object;
mod parts;
mod pointer;
mod protobuf;
mod record;
mod registry;
mod shape;
mod substance;
mod text;
mod timestamp;
mod tombstone;
mod typed;
mod types;
mod value;
mod wire;

pub use history::{DatasetHistory, SchemaHistory};
pub use registry::Registry;

/// What came of a batch.
#[derive(Debug)]
pub struct Decoded {
    /// The rows; `None` when every record was refused, or there was none.
    pub batch: Option<DecodedBatch>,
    /// Refused records, by their numbers in the envelope.
    pub rejected: Vec<Rejection>,
    /// How many records without a value were passed over, as asked for.
    pub skipped: u64,
}

/// Decodes the records of one dataset.
#[derive(Debug)]
pub struct Decoder {
    /// How values are encoded.
    format: ValueFormat,
    /// What the rows look like.
    shape: Shape,
    /// For values of JSON.
    json: JsonDecoder,
    /// For values of JSON behind a schema's number.
    json_schema: JsonSchemaDecoder,
    /// For values of Avro.
    avro: AvroDecoder,
    /// For values of Protobuf.
    protobuf: ProtobufDecoder,
    /// For values of Arrow IPC, and for rows that are typed already.
    typed: TypedDecoder,
}

impl Decoder {
    /// Fails when the declared schema has a type that cannot be filled, or a name that is ours.
    pub fn new(config: &DecodeConfig) -> Result<Self, PipelineError> {
        let shape = Shape::new(config)?;
        let json = JsonDecoder::new(&shape)?;
        let avro = AvroDecoder::new(config.schemas.avro_file.as_deref())?;
        let descriptors = config.schemas.protobuf_file.as_ref();
        let protobuf = ProtobufDecoder::new(descriptors.map(|(file, message)| (file.as_path(), message.as_str())))?;
        let (json_schema, typed) = (JsonSchemaDecoder::default(), TypedDecoder::default());
        Ok(Self { format: config.format, shape, json, json_schema, avro, protobuf, typed })
    }

    /// The schema of the rows; `None` until it is inferred.
    #[must_use]
    pub fn schema(&self) -> Option<&SchemaRef> {
        match self.format {
            ValueFormat::Raw => Some(&ENVELOPE_SCHEMA),
            _ => self.shape.schema.as_ref(),
        }
    }

    /// From now on fields are inferred on top of a version of the dataset's schema.
    pub fn adopt(&mut self, version: &Fields) {
        self.shape.adopt(version);
    }

    /// The next version of the dataset's schema, where fields were learned since one was adopted.
    #[must_use]
    pub fn learned(&self) -> Option<Fields> {
        self.shape.learned()
    }

    /// Asks the registry for the schemas that a batch is written with, and waits as long as it is away; to be called ahead of
    /// [`Decoder::decode`] where there is one.
    pub async fn prepare(&mut self, registry: &Registry, envelope: &Envelope) -> Result<(), PipelineError> {
        match self.format {
            ValueFormat::Avro => self.avro.prepare(registry, envelope).await,
            ValueFormat::Protobuf => self.protobuf.prepare(registry, envelope).await,
            ValueFormat::JsonSchema => self.json_schema.prepare(registry, envelope).await,
            ValueFormat::Json | ValueFormat::ArrowIpc | ValueFormat::Raw => Ok(()),
        }
    }

    /// Decodes a batch. The rows may have a wider schema than those of the batch before.
    pub fn decode(&mut self, envelope: &Envelope) -> Decoded {
        match self.format {
            ValueFormat::Json => self.json.decode(&mut self.shape, envelope),
            ValueFormat::ArrowIpc => arrow::decode(&mut self.typed, &mut self.shape, envelope),
            ValueFormat::Avro => self.avro.decode(&mut self.typed, &mut self.shape, envelope),
            ValueFormat::Protobuf => self.protobuf.decode(&mut self.typed, &mut self.shape, envelope),
            ValueFormat::JsonSchema => self.json_schema.decode(&mut self.json, &mut self.shape, envelope),
            ValueFormat::Raw => as_it_is(envelope),
        }
    }

    /// The same for records whose rows are typed already, one row a record, whatever the format of values is.
    pub fn decode_rows(&mut self, envelope: &Envelope, rows: &RecordBatch) -> Decoded {
        let numbers = (0u32..).take(envelope.len());
        let refuse = |code, message: &str| {
            let fault = Fault { code, message: message.to_owned() };
            let rejected = fault::rejections(numbers.map(|number| (number, fault.clone())).collect());
            Decoded { batch: None, rejected, skipped: 0 }
        };
        if self.format == ValueFormat::Raw {
            return refuse("typed-row", "value_format is raw, and a row of a typed file has no bytes of its own");
        }
        if rows.num_rows() != envelope.len() {
            return refuse("decode-failed", "there are not as many rows as records");
        }
        let part = Part { rows: rows.clone(), source: Source::Each((0u32..).take(envelope.len()).collect()) };
        self.typed.decode(&mut self.shape, envelope, vec![part], Vec::new())
    }
}

/// The envelope itself as rows.
fn as_it_is(envelope: &Envelope) -> Decoded {
    let rows = UInt32Array::from_iter_values((0u32..).take(envelope.len()));
    let origin = Origin::Records { envelope: envelope.clone(), rows };
    let batch = DecodedBatch { rows: envelope.as_record_batch().clone(), origin };
    Decoded { batch: (!envelope.is_empty()).then_some(batch), rejected: Vec::new(), skipped: 0 }
}

#[cfg(test)]
mod tests;
