//! What Protobuf becomes, and that damaged bytes are refused and no more.

use arrow_array::RecordBatch;
use arrow_cast::display::array_value_to_string;

use super::*;
use crate::decode::{cells::Column, registry::Reference};

/// A file with most kinds of fields.
const SCHEMA: &str = r#"
    syntax = "proto3";
    import "google/protobuf/struct.proto";
    import "google/protobuf/timestamp.proto";
    import "google/protobuf/wrappers.proto";
    import "kinds.proto";
    message First { int32 a = 1; }
    message Order {
        message Inner { sint64 x = 1; repeated string y = 2; }
        int64 id = 1;
        Inner inner = 2;
        repeated int32 numbers = 3;
        map<int32, string> names = 4;
        oneof either { int64 left = 5; string right = 6; }
        google.protobuf.Timestamp at = 7;
        google.protobuf.Int64Value maybe = 8;
        google.protobuf.Struct any = 9;
        Kind kind = 10;
    }
"#;

/// A file that it imports.
const KINDS: &str = r#"syntax = "proto3"; enum Kind { NEW = 0; OLD = 1; }"#;

/// The plan of the second type.
fn order() -> Message {
    let references = [Reference { name: "kinds.proto".to_owned(), text: KINDS.to_owned() }];
    let file = plan::compile(SCHEMA, &references).unwrap();
    plan::plan(&find(&file, &[1]).unwrap()).unwrap()
}

/// Reads a message; the code of the fault otherwise.
fn rows(message: &[u8]) -> Result<RecordBatch, &'static str> {
    let plan = order();
    let mut column = Column::new(&plan.data_type).unwrap();
    let read = read::message(&plan, &[message], &mut column, &mut Room::new());
    if read.is_err() {
        column.truncate(0);
    }
    let rows = column.take_rows().unwrap();
    read.map(|()| rows).map_err(|fault| fault.code)
}

/// What a column shows in the only row.
fn shown(message: &[u8], name: &str) -> String {
    let rows = rows(message).unwrap();
    let mut column = Arc::clone(rows.column_by_name(name).unwrap());
    if column.data_type().is_temporal() {
        column = arrow_cast::cast(&column, &arrow_schema::DataType::Int64).unwrap();
    }
    array_value_to_string(&column, 0).unwrap()
}

#[test]
fn what_is_not_there_is_null_or_the_default() {
    for (name, expected) in [
        ("id", "0"),
        ("inner", ""),
        ("numbers", "[]"),
        ("names", "{}"),
        ("left", ""),
        ("right", ""),
        ("at", ""),
        ("maybe", ""),
        ("any", ""),
        ("kind", "NEW"),
    ] {
        assert_eq!(shown(&[], name), expected, "{name}");
    }
}

#[test]
fn fields_come_in_any_order_and_more_than_once() {
    // The inner message in two pieces, which count together; of a scalar the last one.
    let pieces = [&[0x08, 1][..], &[0x12, 2, 0x08, 3], &[0x08, 7], &[0x12, 3, 0x12, 1, b'u']].concat();
    assert_eq!((shown(&pieces, "id"), shown(&pieces, "inner")), ("7".to_owned(), "{x: -2, y: [u]}".to_owned()));
    // Packed and not.
    assert_eq!(shown(&[0x18, 5, 0x1a, 2, 6, 7], "numbers"), "[5, 6, 7]");
    // The last of those of which one is there.
    let either = [0x28, 9, 0x32, 1, b'r'];
    assert_eq!((shown(&either, "left"), shown(&either, "right")), (String::new(), "r".to_owned()));
    // A key that is there twice, and one without a value.
    let names = [0x22, 5, 0x08, 1, 0x12, 1, b'a', 0x22, 5, 0x08, 1, 0x12, 1, b'b', 0x22, 2, 0x08, 2];
    assert_eq!(shown(&names, "names"), "{1: b, 2: }");
    // Unknown fields of every wire type, groups too.
    let unknown = [&[0xa0, 6, 1, 0xa1, 6][..], &[0; 8], &[0xa5, 6], &[0; 4], &[0xa3, 6, 0x08, 1, 0xa4, 6, 0x08, 3]];
    assert_eq!(shown(&unknown.concat(), "id"), "3");
}

#[test]
fn types_that_everybody_knows() {
    assert_eq!(shown(&[0x3a, 4, 0x08, 1, 0x10, 5], "at"), "1000000005");
    assert_eq!(shown(&[0x42, 0], "maybe"), "0");
    assert_eq!(shown(&[0x42, 2, 0x08, 4], "maybe"), "4");
    assert_eq!(shown(&[0x50, 9], "kind"), "9");
    // {"a": [true, null]}
    let list = [0x32, 8, 0x0a, 2, 0x20, 1, 0x0a, 2, 0x08, 0];
    let entry = [&[0x0a, 1, b'a', 0x12, 10][..], &list].concat();
    let any = [&[0x4a, 17, 0x0a, 15][..], &entry].concat();
    assert_eq!(shown(&any, "any"), r#"{"a":[true,null]}"#);
}

#[test]
fn what_breaks_the_rules_is_refused() {
    let whole = [0x08, 1, 0x12, 2, 0x08, 3, 0x22, 5, 0x08, 1, 0x12, 1, b'a'];
    for end in [1, 3, 5, 7, 9, 12] {
        assert_eq!(rows(&whole[..end]).map(|_| ()), Err("bad-protobuf"), "cut at {end}");
    }
    assert_eq!(rows(&[0x0a, 1, 1]).map(|_| ()), Err("bad-protobuf"), "another wire type");
    assert_eq!(rows(&[0x32, 1, 0xff]).map(|_| ()), Err("bad-protobuf"), "no UTF-8");
    assert_eq!(rows(&[0x3a, 2, 0x10, 0xff]).map(|_| ()), Err("bad-protobuf"), "cut inside");
    let late = [0x3a, 10, 0x08, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f];
    assert_eq!(rows(&late).map(|_| ()), Err("number-out-of-range"));
    let groups = [0xa3, 6].repeat(100);
    assert_eq!(rows(&groups).map(|_| ()), Err("bad-protobuf"), "groups in groups");
}

#[test]
fn schemas_that_no_column_holds_are_refused() {
    let plan = |text: &str| {
        let file = plan::compile(text, &[])?;
        plan::plan(&find(&file, &[0])?).map(drop)
    };
    let code = |text: &str| plan(text).map_err(|fault| fault.code);
    assert_eq!(code("syntax = \"proto3\"; message A { A next = 1; }"), Err("unsupported-type"));
    assert_eq!(code("syntax = \"proto3\"; import \"b.proto\"; message A { int32 a = 1; }"), Err("bad-schema"));
    assert_eq!(code("syntax = \"proto3\";"), Err("unknown-message"));
    assert_eq!(code(&"{".repeat(100_000)), Err("bad-schema"));
    assert_eq!(code("syntax = \"proto2\"; message A { required int32 a = 1; }"), Ok(()));
}

#[test]
fn places_of_types() {
    assert_eq!(indexes(&[0, 9]), Ok((vec![0], [9].as_slice())));
    assert_eq!(indexes(&[4, 2, 0, 9]), Ok((vec![1, 0], [9].as_slice())));
    assert_eq!(indexes(&[1, 9]).map_err(|fault| fault.code), Err("bad-protobuf"));
    assert_eq!(indexes(&[4, 2]).map_err(|fault| fault.code), Err("bad-protobuf"));
}
