//! Foreign bytes against every parser that meets them.
//!
//! Comes in: any bytes. Nothing goes out: a target panics where the program would panic, or where what it makes of the bytes
//! breaks its word. `make fuzz` lets libFuzzer look for such bytes, and keeps what reached new code in the cache; the
//! tests here give each target its seeds in `corpus/` and some thousand mutations of them.
#![expect(clippy::unwrap_used, clippy::panic, clippy::missing_panics_doc, reason = "a target: a panic is its finding")]

use std::{
    fs,
    path::PathBuf,
    sync::{Arc, LazyLock},
};

use arrow_array::{
    Array, ArrayRef, BinaryArray, Int32Array, Int64Array, RecordBatch, StringArray, TimestampMillisecondArray,
    new_null_array,
};
use arrow_schema::{DataType, Field, Fields, Schema, TimeUnit};
use fs_data_sink::{
    batch::{DecodedBatch, ENVELOPE_SCHEMA, Envelope, Origin},
    commit::ledger::record::Record,
    config::{
        DecodeConfig, MetadataColumn, OnNewField, OnTombstone, OnTypeChange, SchemaSources, ValueFormat,
        load::{Inputs, load},
    },
    decode::{Decoded, Decoder},
    ipc::{self, BatchReader, Caps, Writer},
    partition::path,
    store::Path,
};

#[cfg(test)]
mod tests;

/// Most records of one input: enough for a column that changes its type.
const RECORDS_MAX: usize = 64;

/// What one stream may hold: small, so that whatever goes beyond it shows.
const CAPS: Caps = Caps { rows: 10_000, bytes: 1 << 20, logical_bytes: 1 << 20 };

/// Records of JSON, one a line behind a byte that selects the schema, what happens on changes, and the pointer. Every
/// record is a row, several rows, or refused, and never both; the rows are sound Arrow.
pub fn json(data: &[u8]) {
    let Some((mode, text)) = data.split_first() else { return };
    let records: Vec<&[u8]> = text.split(|byte| *byte == b'\n').take(RECORDS_MAX).collect();
    let mut decoder = Decoder::new(&decode_config(*mode, ValueFormat::Json)).unwrap();
    // Two batches: the second one meets the schema that the first one made.
    let (first, second) = records.split_at(records.len() / 2);
    for part in [first, second] {
        check(&decoder.decode(&envelope(part)), part.len());
    }
}

/// A stream or a file of Arrow IPC, as a record, from a plugin, and message by message.
pub fn arrow_ipc(data: &[u8]) {
    let mut decoder = Decoder::new(&decode_config(data.first().copied().unwrap_or(0), ValueFormat::ArrowIpc)).unwrap();
    for _ in 0..2 {
        check(&decoder.decode(&envelope(&[data])), 1);
    }
    for writer in [Writer::Plugin, Writer::Producer] {
        if let Ok(batches) = ipc::read_rows(data.to_vec(), writer, CAPS, |_| Ok::<_, ipc::Refused>(())) {
            batches.iter().for_each(ensure_sound);
        }
    }
    if let Ok(mut reader) = BatchReader::new(data, CAPS.bytes) {
        while let Ok(Some(batch)) = reader.next_batch() {
            ensure_sound(&batch);
        }
    }
}

/// An Avro file with its schema in it, or a record of Avro, behind a byte that selects what happens on changes.
pub fn avro(data: &[u8]) {
    let schemas = SchemaSources { avro_file: Some(SCHEMAS.join("order.avsc")), ..SchemaSources::default() };
    behind_a_schema(data, ValueFormat::Avro, schemas);
}

/// A message of Protobuf, the same.
pub fn protobuf(data: &[u8]) {
    let file = (SCHEMAS.join("order.desc"), "shop.Order".to_owned());
    behind_a_schema(
        data,
        ValueFormat::Protobuf,
        SchemaSources { protobuf_file: Some(file), ..SchemaSources::default() },
    );
}

/// Where the schemas of these two are.
static SCHEMAS: LazyLock<PathBuf> = LazyLock::new(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("schemas"));

/// Decodes a value twice in one batch, and once more in the next.
fn behind_a_schema(data: &[u8], format: ValueFormat, schemas: SchemaSources) {
    let Some((mode, value)) = data.split_first() else { return };
    let mut decoder = Decoder::new(&DecodeConfig { schemas, ..decode_config(*mode, format) }).unwrap();
    check(&decoder.decode(&envelope(&[value, value])), 2);
    check(&decoder.decode(&envelope(&[value])), 1);
}

/// A configuration file. What loads can be printed.
pub fn configuration(data: &[u8]) {
    // The file's name is the pipeline's, and must be one that a pipeline may have.
    let file = tempfile::Builder::new().prefix("fuzz").suffix(".yaml").tempfile().unwrap();
    fs::write(file.path(), data).unwrap();
    if let Ok(config) = load(&Inputs { paths: vec![file.path().to_owned()], ..Inputs::default() }) {
        assert!(!config.to_yaml().is_empty());
    }
}

/// Text to a segment of a path and back, and any text as a path.
pub fn hive_path(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let mut escaped = String::new();
    path::escape(&text, &mut escaped);
    assert_eq!(path::unescape(&escaped), text, "escaped as {escaped:?}");
    assert!(!escaped.contains(['/', '=', '\0']), "{escaped:?}");
    // What somebody else wrote: no more than that it has a meaning, and that the meaning can be written.
    let meaning = path::unescape(&text);
    escaped.clear();
    path::escape(&meaning, &mut escaped);
    assert_eq!(path::unescape(&escaped), meaning);
}

/// A record of the ledger. What is read is written so that it reads the same.
pub fn ledger_record(data: &[u8]) {
    let path = Path::from("_fs_data_sink/fuzz/ledger/00000000000000000001.json");
    if let Ok(record) = Record::parse(&path, data) {
        let bytes = record.to_bytes().unwrap();
        let again = Record::parse(&path, &bytes).unwrap();
        assert_eq!(again.to_bytes().unwrap(), bytes);
    }
}

/// A type of everything that JSON can fill.
static DECLARED: LazyLock<Arc<Schema>> = LazyLock::new(|| {
    let item = |data_type| Arc::new(Field::new("item", data_type, true));
    let pair = Fields::from(vec![Field::new("x", DataType::Utf8, true), Field::new("y", DataType::Float64, false)]);
    let entries = Fields::from(vec![
        Field::new("key", DataType::Utf8, false),
        Field::new("value", DataType::List(item(DataType::Int32)), true),
    ]);
    let entries = Arc::new(Field::new("entries", DataType::Struct(entries), false));
    Arc::new(Schema::new(vec![
        Field::new("a", DataType::Int64, false),
        Field::new("b", DataType::Decimal128(20, 4), true),
        Field::new("c", DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into())), true),
        Field::new("d", DataType::List(item(DataType::Struct(pair))), true),
        Field::new("e", DataType::Map(entries, false), true),
        Field::new("f", DataType::Binary, true),
        Field::new("g", DataType::Date32, true),
        Field::new("h", DataType::Boolean, true),
        Field::new("i", DataType::UInt8, true),
        Field::new("j", DataType::Float32, true),
        Field::new("k", DataType::Time64(TimeUnit::Microsecond), true),
    ]))
});

/// What the bits of a byte select.
fn decode_config(mode: u8, format: ValueFormat) -> DecodeConfig {
    let bits = |shift: u8, count: u8| usize::from((mode >> shift) % count);
    let pick = |at: usize| [OnNewField::Add, OnNewField::Ignore, OnNewField::Reject].get(at).copied();
    DecodeConfig {
        format,
        payload_pointer: if bits(0, 2) == 1 && format == ValueFormat::Json { vec!["p".into()] } else { Vec::new() },
        schemas: SchemaSources::default(),
        on_tombstone: if bits(1, 2) == 1 { OnTombstone::NullRow } else { OnTombstone::Reject },
        declared_schema: (bits(2, 2) == 1).then(|| Arc::clone(&DECLARED)),
        on_new_field: pick(bits(3, 4)).unwrap_or(OnNewField::Add),
        on_type_change: if bits(5, 2) == 1 { OnTypeChange::String } else { OnTypeChange::Widen },
        metadata_columns: if bits(6, 2) == 1 { vec![MetadataColumn::Offset] } else { Vec::new() },
    }
}

/// Records with these values; an empty one is a tombstone.
fn envelope(values: &[&[u8]]) -> Envelope {
    let count = values.len();
    let columns: Vec<ArrayRef> = vec![
        Arc::new(StringArray::from(vec!["orders"; count])),
        Arc::new(Int32Array::from(vec![2; count])),
        Arc::new(Int64Array::from_iter_values((100..).take(count))),
        Arc::new(TimestampMillisecondArray::from(vec![7; count]).with_timezone("UTC")),
        Arc::new(BinaryArray::from(vec![Some(b"k".as_slice()); count])),
        Arc::new(values.iter().map(|value| (!value.is_empty()).then_some(*value)).collect::<BinaryArray>()),
        new_null_array(ENVELOPE_SCHEMA.field(6).data_type(), count),
    ];
    Envelope::try_new(RecordBatch::try_new(ENVELOPE_SCHEMA.clone(), columns).unwrap()).unwrap()
}

/// Whether every record is in the rows, refused, or passed over, and never two of them; and the rows are sound.
fn check(decoded: &Decoded, records: usize) {
    let mut refused: Vec<u32> = decoded.rejected.iter().flat_map(|rejection| rejection.rows.iter().copied()).collect();
    refused.sort_unstable();
    let told = refused.len();
    refused.dedup();
    assert_eq!(refused.len(), told, "a record is refused twice");
    assert!(refused.last().is_none_or(|last| (*last as usize) < records), "a record that is not there is refused");
    if let Some(DecodedBatch { rows, origin }) = &decoded.batch {
        ensure_sound(rows);
        let Origin::Records { rows: numbers, .. } = origin else { panic!("nobody replaced the rows") };
        assert_eq!(numbers.len(), rows.num_rows());
        for number in numbers.values() {
            assert!((*number as usize) < records && refused.binary_search(number).is_err(), "record {number}");
        }
    }
}

/// Whether every column is what its type says, to the last offset and byte.
fn ensure_sound(batch: &RecordBatch) {
    for column in batch.columns() {
        column.to_data().validate_full().unwrap();
        assert_eq!(column.len(), batch.num_rows());
    }
}
