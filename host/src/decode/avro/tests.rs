//! What Avro becomes, and that damaged bytes are refused and no more.

use super::{read, read::Values, schema};
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
