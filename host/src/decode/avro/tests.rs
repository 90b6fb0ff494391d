//! What Avro becomes, and that damaged bytes are refused and no more.

use std::io::Write as _;

use super::{container::Container, read, read::Values, schema};
use crate::decode::cells::{Column, Room};

/// A record of several kinds of types.
const SCHEMA: &str = r#"{"type": "record", "name": "shop.Order", "fields": [
    {"name": "id", "type": "long"},
    {"name": "note", "type": ["null", "string"]},
    {"name": "price", "type": {"type": "bytes", "logicalType": "decimal", "precision": 10, "scale": 2}},
    {"name": "tags", "type": {"type": "array", "items": "null"}},
    {"name": "either", "type": ["int", "string"]}
]}"#;

/// A record of it: -2, "hi", 1.00, two nulls, 3 as an int.
const RECORD: &[u8] = &[3, 2, 4, b'h', b'i', 2, 100, 4, 0, 0, 6];

/// Reads a record; the code of the fault otherwise.
fn rows(record: &[u8]) -> Result<arrow_array::RecordBatch, &'static str> {
    let node = schema::parse(SCHEMA, &[]).unwrap();
    let mut column = Column::new(&node.data_type).unwrap();
    let mut bytes = Values::new(record);
    let read = read::value(&node, &mut bytes, &mut column, &mut Room::new());
    if read.is_err() {
        column.truncate(0);
    }
    let rows = column.take_rows().unwrap();
    read.map(|()| rows).map_err(|fault| fault.code)
}

#[test]
fn a_record_becomes_a_row() {
    let rows = rows(RECORD).unwrap();
    let text = |name: &str| {
        let column = rows.column_by_name(name).unwrap();
        arrow_cast::display::array_value_to_string(column, 0).unwrap()
    };
    assert_eq!(["id", "note", "price"].map(text), ["-2", "hi", "1.00"]);
    assert_eq!(["tags", "either"].map(text), ["[, ]", "{int: 3, string: }"]);
}

#[test]
fn counts_and_lengths_are_held_against_what_is_there() {
    for end in 0..RECORD.len() {
        assert_eq!(rows(&RECORD[..end]).map(|_| ()), Err("bad-avro"), "cut at {end}");
    }
    let huge = [0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1];
    let text = [&[3, 2][..], &huge].concat();
    assert_eq!(rows(&text).map(|_| ()), Err("bad-avro"), "a negative length");
    let nulls = [&[3, 0, 2, 100][..], &huge, &[0]].concat();
    assert_eq!(rows(&nulls).map(|_| ()), Err("too-large"), "more nulls than there is room for");
}

#[test]
fn records_that_contain_themselves_are_refused() {
    let schema = r#"{"type": "record", "name": "N", "fields": [{"name": "next", "type": ["null", "N"]}]}"#;
    assert_eq!(schema::parse(schema, &[]).unwrap_err().code, "unsupported-type");
}

/// A number as Avro writes it.
fn long(number: usize) -> Vec<u8> {
    let mut rest = number << 1;
    let mut bytes = Vec::new();
    while rest > 0x7f {
        bytes.push(u8::try_from(rest & 0x7f).unwrap() | 0x80);
        rest >>= 7;
    }
    bytes.push(u8::try_from(rest).unwrap());
    bytes
}

/// An Avro file of three records in one block that is packed so.
fn file(codec: &str, packed: &[u8]) -> Vec<u8> {
    let sized = |bytes: &[u8]| [long(bytes.len()).as_slice(), bytes].concat();
    let entry = |key: &str, value: &str| [sized(key.as_bytes()), sized(value.as_bytes())].concat();
    let head = [b"Obj\x01".to_vec(), long(2), entry("avro.schema", SCHEMA), entry("avro.codec", codec), long(0)];
    let sync = [7; 16].to_vec();
    [head.concat(), sync.clone(), long(3), sized(packed), sync].concat()
}

/// How many rows a file has; the code of the fault otherwise.
fn rows_of_file(file: &[u8]) -> Result<usize, &'static str> {
    let container = Container::open(file).map_err(|fault| fault.code)?;
    let node = schema::parse(container.schema, &[]).unwrap();
    let mut column = Column::new(&node.data_type).unwrap();
    container.read(&node, &mut column, &mut Room::new()).map_err(|fault| fault.code)?;
    Ok(column.len())
}

#[test]
fn blocks_of_files_are_unpacked() {
    let plain = RECORD.repeat(3);
    let mut deflated = flate2::write::DeflateEncoder::new(Vec::new(), flate2::Compression::default());
    deflated.write_all(&plain).unwrap();
    let (deflated, zstd) = (deflated.finish().unwrap(), zstd::encode_all(plain.as_slice(), 3).unwrap());
    for (codec, packed) in [("null", &plain), ("deflate", &deflated), ("zstandard", &zstd)] {
        let whole = file(codec, packed);
        assert_eq!(rows_of_file(&whole), Ok(3), "{codec}");
        for end in [whole.len() - 1, whole.len() - 20, 30] {
            assert_eq!(rows_of_file(&whole[..end]), Err("bad-avro"), "{codec} cut at {end}");
        }
    }
    assert_eq!(rows_of_file(&file("snappy", &plain)), Err("unsupported-codec"));
    assert_eq!(rows_of_file(&file("deflate", &plain)), Err("bad-avro"), "packed otherwise than it says");
}
