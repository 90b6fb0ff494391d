//! What each JSON value becomes, and what is refused, record by record.

use std::sync::Arc;

use arrow_array::{
    Array, ArrayRef, BinaryArray, Int32Array, Int64Array, RecordBatch, StringArray, TimestampMillisecondArray,
    cast::AsArray,
    new_null_array,
    types::{Float32Type, Float64Type, Int64Type, TimestampMicrosecondType},
};
use arrow_schema::{DataType, Field, Schema, TimeUnit};

use super::*;
use crate::config::{MetadataColumn, OnNewField, OnTombstone, OnTypeChange, SchemaSources};

mod corners;
mod oracle;
mod typed;

/// Records with these values.
fn envelope(values: &[Option<&[u8]>]) -> Envelope {
    let count = values.len();
    let headers = new_null_array(ENVELOPE_SCHEMA.field(6).data_type(), count);
    let columns: Vec<ArrayRef> = vec![
        Arc::new(StringArray::from(vec!["orders"; count])),
        Arc::new(Int32Array::from(vec![2; count])),
        Arc::new(Int64Array::from_iter_values(100..100 + i64::try_from(count).unwrap())),
        Arc::new(TimestampMillisecondArray::from(vec![7; count]).with_timezone("UTC")),
        Arc::new(BinaryArray::from(vec![Some(b"k".as_slice()); count])),
        Arc::new(BinaryArray::from(values.to_vec())),
        headers,
    ];
    Envelope::try_new(RecordBatch::try_new(ENVELOPE_SCHEMA.clone(), columns).unwrap()).unwrap()
}

/// Records with these texts.
fn texts(values: &[&str]) -> Envelope {
    envelope(&values.iter().map(|value| Some(value.as_bytes())).collect::<Vec<_>>())
}

/// A configuration with this schema, or one that infers.
fn config(declared: Option<Vec<Field>>, on_new_field: OnNewField, on_type_change: OnTypeChange) -> DecodeConfig {
    DecodeConfig {
        format: ValueFormat::Json,
        payload_pointer: Vec::new(),
        schemas: SchemaSources::default(),
        on_tombstone: OnTombstone::Reject,
        declared_schema: declared.map(|fields| Arc::new(Schema::new(fields))),
        on_new_field,
        on_type_change,
        metadata_columns: Vec::new(),
    }
}

/// A decoder with this schema, or one that infers.
fn decoder(declared: Option<Vec<Field>>, on_new_field: OnNewField) -> Decoder {
    Decoder::new(&config(declared, on_new_field, OnTypeChange::Widen)).unwrap()
}

/// What was refused, as `rows code: message`.
fn refused(decoded: &Decoded) -> Vec<String> {
    let line = |rejection: &Rejection| format!("{:?} {}: {}", rejection.rows, rejection.code, rejection.message);
    decoded.rejected.iter().map(line).collect()
}

/// The columns as `name: type`, and the rows as text, nulls as `null`.
fn table(decoded: &Decoded) -> (String, Vec<String>) {
    let Some(batch) = &decoded.batch else { return (String::new(), Vec::new()) };
    let options = arrow_cast::display::FormatOptions::default().with_null("null");
    let columns: Vec<_> = (batch.rows.columns().iter())
        .map(|column| arrow_cast::display::ArrayFormatter::try_new(column, &options).unwrap())
        .collect();
    let row = |row: usize| columns.iter().map(|column| column.value(row).to_string()).collect::<Vec<_>>().join("|");
    let schema = batch.rows.schema();
    let fields: Vec<_> =
        schema.fields().iter().map(|field| format!("{}: {}", field.name(), field.data_type())).collect();
    (fields.join(", "), (0..batch.rows.num_rows()).map(row).collect())
}

/// Why a record is refused by a schema of one field `v`; "" when it is not.
fn refusal(data_type: DataType, record: &str) -> String {
    let decoded = decoder(Some(vec![Field::new("v", data_type, true)]), OnNewField::Reject).decode(&texts(&[record]));
    decoded.rejected.first().map(|rejection| format!("{}: {}", rejection.code, rejection.message)).unwrap_or_default()
}

#[test]
fn each_refusal_has_its_code_and_words() {
    let time = DataType::Timestamp(TimeUnit::Millisecond, Some("UTC".into()));
    let list = DataType::List(Arc::new(Field::new("item", DataType::Int8, true)));
    for (data_type, record, expected) in [
        (DataType::Int32, r#"{"v":2147483648}"#, "number-out-of-range: v: 2147483648 does not fit Int32"),
        (DataType::UInt64, r#"{"v":-1}"#, "number-out-of-range: v: -1 does not fit UInt64"),
        (DataType::Int64, r#"{"v":1.0}"#, "wrong-type: v: expected Int64, found 1.0"),
        (DataType::Int64, r#"{"v":-0.0}"#, "wrong-type: v: expected Int64, found -0.0"),
        (DataType::Int64, r#"{"v":-0e1,"w":-0}"#, "wrong-type: v: expected Int64, found -0e1"),
        (
            DataType::Int64,
            r#"{"v":18446744073709551616}"#,
            "number-out-of-range: v: 18446744073709551616 does not fit Int64",
        ),
        (DataType::Float32, r#"{"v":1e39}"#, "number-out-of-range: v: 1e39 does not fit Float32"),
        (DataType::Float64, r#"{"v":1e999}"#, "number-out-of-range: v: 1e999 does not fit Float64"),
        (DataType::Float64, r#"{"v":"1"}"#, "wrong-type: v: expected Float64, found \"1\""),
        (DataType::Utf8, r#"{"v":5}"#, "wrong-type: v: expected Utf8, found 5"),
        (DataType::Boolean, r#"{"v":"yes"}"#, "wrong-type: v: expected Boolean, found \"yes\""),
        (DataType::Int64, r#"{"v":[1, {"a": 2}]}"#, "wrong-type: v: expected Int64, found [1, {\"a\": 2}]"),
        (list, r#"{"v":[1,2,300]}"#, "number-out-of-range: v[2]: 300 does not fit Int8"),
        (DataType::Binary, r#"{"v":"AAE"}"#, "wrong-type: v: expected Binary, found \"AAE\""),
        (DataType::Date32, r#"{"v":"2026-02-30"}"#, "wrong-type: v: expected Date32, found \"2026-02-30\""),
        (time.clone(), r#"{"v":"soon"}"#, "wrong-type: v: expected Timestamp(ms, \"UTC\"), found \"soon\""),
        (
            time.clone(),
            r#"{"v":"2026-02-03T04:05:06.0001Z"}"#,
            "precision-loss: v: \"2026-02-03T04:05:06.0001Z\" cannot be held exactly as Timestamp(ms, \"UTC\")",
        ),
        (
            DataType::Timestamp(TimeUnit::Nanosecond, None),
            r#"{"v":"2500-01-01 00:00:00"}"#,
            "number-out-of-range: v: \"2500-01-01 00:00:00\" does not fit Timestamp(ns)",
        ),
        (
            DataType::Decimal128(5, 2),
            r#"{"v":1.234}"#,
            "precision-loss: v: 1.234 cannot be held exactly as Decimal128(5, 2)",
        ),
        (DataType::Decimal128(5, 2), r#"{"v":1e3}"#, "number-out-of-range: v: 1e3 does not fit Decimal128(5, 2)"),
        (DataType::Decimal128(5, 2), r#"{"v":"x"}"#, "wrong-type: v: expected Decimal128(5, 2), found \"x\""),
        (DataType::Int64, r#"{"v":1,"v":2}"#, "duplicate-key: the key \"v\" is there twice"),
        (DataType::Int64, r#"{"w":1}"#, "unknown-field: the schema has no field \"w\""),
        (DataType::Int64, "[1]", "not-an-object: [0]: expected a JSON object, found a number"),
        (DataType::Int64, "[[]]", "not-an-object: [0]: expected a JSON object, found a list"),
        (DataType::Int64, "null", "not-an-object: expected a JSON object, found null"),
        (DataType::Int64, "\"v\"", "not-an-object: expected a JSON object, found a text"),
        (DataType::Int64, "1.5", "not-an-object: expected a JSON object, found a number"),
        (DataType::Int64, "true", "not-an-object: expected a JSON object, found a boolean"),
    ] {
        assert_eq!(refusal(data_type, record), expected, "{record}");
    }
    let long = format!(r#"{{"v":"{}"}}"#, "é".repeat(100));
    let expected = format!("wrong-type: v: expected Int64, found \"{}…", "é".repeat(79));
    assert_eq!(refusal(DataType::Int64, &long), expected);
}

#[test]
fn what_is_not_json_is_refused_wherever_it_is() {
    for record in [
        "",
        " ",
        "{",
        "{\"v\":1}x",
        "{\"v\":1}{}",
        "{\"v\":1,}",
        "{\"v\":NaN}",
        "{\"v\":Infinity}",
        "{'v':1}",
        "\u{feff}{}",
        r#"{"v":"\ud800"}"#,
        r#"{"v":"\uzzzz"}"#,
        "{\"v\":\"a\nb\"}",
        "{\"v\":01}",
        "{\"v\":+1}",
        "{\"v\":1.}",
        "{\"v\":tru}",
    ] {
        for data_type in [DataType::Float64, DataType::Utf8, DataType::Int64] {
            let found = refusal(data_type, record);
            assert!(found.starts_with("bad-json: "), "{record}: {found}");
        }
        let elsewhere = record.replace("\"v\"", "\"elsewhere\"");
        let declared = Some(vec![Field::new("v", DataType::Utf8, true)]);
        let decoded = decoder(declared, OnNewField::Ignore).decode(&texts(&[&elsewhere]));
        assert_eq!(decoded.rejected[0].code, "bad-json", "{elsewhere}");
    }
    let decoded = decoder(None, OnNewField::Add).decode(&envelope(&[None, Some(b"{\"a\":\"\xff\"}")]));
    let expected = ["[0] null-value: the record has no value (a tombstone)", "[1] bad-json: byte 6 is not UTF-8"];
    assert_eq!(refused(&decoded), expected);
}

#[test]
fn null_needs_leave() {
    let inner = Field::new("x", DataType::Int64, false);
    let fields =
        vec![Field::new("v", DataType::Int64, false), Field::new("o", DataType::Struct(vec![inner].into()), true)];
    let records = ["{}", r#"{"v":null}"#, r#"{"v":1,"o":{}}"#, r#"{"v":1,"o":null}"#, r#"{"v":1,"o":{"x":2}}"#];
    let decoded = decoder(Some(fields), OnNewField::Ignore).decode(&texts(&records));
    let expected = [
        "[0] null-not-allowed: v: the field is missing",
        "[1] null-not-allowed: v: null in a column that is not nullable",
        "[2] null-not-allowed: o.x: the field is missing",
    ];
    assert_eq!(refused(&decoded), expected);
    assert_eq!(table(&decoded).1, ["1|null", "1|{x: 2}"]);
}

#[test]
fn each_type_is_filled() {
    let list = DataType::List(Arc::new(Field::new("item", DataType::Int64, true)));
    let object = DataType::Struct(vec![Field::new("x", DataType::Utf8, true)].into());
    let entries = DataType::Struct(
        vec![Field::new("keys", DataType::Utf8, false), Field::new("values", DataType::Int64, true)].into(),
    );
    let map = DataType::Map(Arc::new(Field::new("entries", entries, false)), false);
    let types = [
        ("i", DataType::Int8),
        ("u", DataType::UInt64),
        ("f", DataType::Float64),
        ("s", DataType::Utf8),
        ("b", DataType::Binary),
        ("t", DataType::Timestamp(TimeUnit::Second, None)),
        ("d", DataType::Date32),
        ("c", DataType::Decimal128(10, 2)),
        ("l", list),
        ("o", object),
        ("m", map),
        ("z", DataType::Boolean),
    ];
    let fields = types.iter().map(|(name, data_type)| Field::new(*name, data_type.clone(), true)).collect();
    let record = r#"{"i":-128,"u":18446744073709551615,"f":1,"s":"é\n\u0041","b":"AAE=","t":60,"d":"1970-01-02",
        "c":"12.3","l":[1,null],"o":{"x":"y"},"m":{"k":1},"z":true}"#;
    let decoded = decoder(Some(fields), OnNewField::Reject).decode(&texts(&[record, "{}"]));
    assert_eq!(decoded.rejected, []);
    assert_eq!(
        table(&decoded).1,
        [
            "-128|18446744073709551615|1.0|é\nA|0001|1970-01-01T00:01:00|1970-01-02|12.30|[1, null]|{x: y}|{k: 1}|true",
            &["null"; 12].join("|"),
        ]
    );
}

#[test]
fn floats_are_the_nearest_of_their_width() {
    let fields = vec![Field::new("d", DataType::Float64, true), Field::new("s", DataType::Float32, true)];
    let records = [r#"{"d":-0.0,"s":-0}"#, r#"{"d":9007199254740993,"s":17005001.000000000000130}"#];
    let decoded = decoder(Some(fields), OnNewField::Reject).decode(&texts(&records));
    assert_eq!(refused(&decoded), [""; 0]);
    let rows = decoded.batch.unwrap().rows;
    let (double, single) = (rows.column(0).as_primitive::<Float64Type>(), rows.column(1).as_primitive::<Float32Type>());
    assert_eq!(double.value(0).to_bits(), (-0.0f64).to_bits());
    assert_eq!(single.value(0).to_bits(), (-0.0f32).to_bits());
    assert_eq!(double.value(1).to_bits(), 9_007_199_254_740_992f64.to_bits());
    assert_eq!(single.value(1).to_bits(), "17005001.000000000000130".parse::<f32>().unwrap().to_bits());
}

#[test]
fn minus_zero_is_an_integer() {
    let list = DataType::List(Arc::new(Field::new("item", DataType::UInt64, true)));
    let fields = vec![Field::new("i", DataType::Int8, true), Field::new("l", list, true)];
    let records =
        [r#"{"i":7,"l":[1]}"#, r#"{"l":[-0,18446744073709551615],"i":-0}"#, r#"{"i":-0,"l":[-1]}"#, r#"{"i":8}"#];
    let decoded = decoder(Some(fields), OnNewField::Reject).decode(&texts(&records));
    assert_eq!(table(&decoded).1, ["7|[1]", "0|[0, 18446744073709551615]", "8|null"]);
    assert_eq!(refused(&decoded), ["[2] number-out-of-range: l[0]: -1 does not fit UInt64"]);
    let inferred = decoder(None, OnNewField::Add).decode(&texts(&[r#"{"i":-0}"#]));
    assert_eq!(table(&inferred), ("i: Int64".to_owned(), vec!["0".to_owned()]));
}

#[test]
fn a_map_with_a_key_twice_is_refused_however_large() {
    let pair = vec![Field::new("key", DataType::Utf8, false), Field::new("value", DataType::Int64, true)];
    let entries = Field::new("key_value", DataType::Struct(pair.into()), false);
    let map = DataType::Map(Arc::new(entries), false);
    for size in [2, 16, 17, 100_000] {
        let mut entries: Vec<String> = (0..size).map(|number| format!("\"k{number}\":{number}")).collect();
        assert_eq!(refusal(map.clone(), &format!("{{\"v\":{{{}}}}}", entries.join(","))), "");
        entries.push("\"k1\":0".to_owned());
        let found = refusal(map.clone(), &format!("{{\"v\":{{{}}}}}", entries.join(",")));
        assert_eq!(found, "duplicate-key: v: a key of the map is there twice");
    }
    assert_eq!(refusal(map, r#"{"v":{"k":"x"}}"#), "wrong-type: v.k: expected Int64, found \"x\"");
}

/// Scenario: good and bad records in turn, failing early, late and deep inside. Guarantees: only the good ones are
/// rows, exactly as they are without the bad ones, and each row leads back to its record.
#[test]
fn a_bad_record_leaves_no_trace() {
    let fields = || {
        let inner = Field::new("n", DataType::List(Arc::new(Field::new("item", DataType::Utf8, true))), true);
        Some(vec![
            Field::new("id", DataType::Int64, false),
            Field::new("o", DataType::Struct(vec![inner].into()), true),
        ])
    };
    let good = [r#"{"id":1,"o":{"n":["a","b"]}}"#, r#"{"o":{"n":["c"]},"id":2}"#, r#"{"id":3}"#];
    let bad =
        [r#"{"id":"x"}"#, r#"{"id":9,"o":{"n":["lost",5]}}"#, r#"{"o":{"n":["lost"]}}"#, r#"{"id":9,"o":{"n":["lost"#];
    let alone = decoder(fields(), OnNewField::Ignore).decode(&texts(&good)).batch.unwrap();
    let mixed: Vec<&str> = vec![bad[0], good[0], bad[1], bad[2], good[1], bad[3], good[2]];
    let decoded = decoder(fields(), OnNewField::Ignore).decode(&texts(&mixed));
    let batch = decoded.batch.unwrap();
    assert_eq!(batch.rows, alone.rows);
    let Origin::Records { rows, .. } = batch.origin else { panic!("the records are known") };
    assert_eq!(rows.values(), &[1, 4, 6]);
    assert_eq!(decoded.rejected.iter().flat_map(|rejection| rejection.rows.clone()).collect::<Vec<_>>(), [0, 2, 3, 5]);
    assert_eq!(decoded.rejected[1].message, "o.n[1]: expected Utf8, found 5");
}

#[test]
fn an_inferred_schema_grows_and_widens_within_a_batch_and_between_batches() {
    let mut decoder = decoder(None, OnNewField::Add);
    let first = decoder.decode(&texts(&[r#"{"a":1}"#, r#"{"a":2,"b":null,"c":[],"d":{}}"#]));
    assert_eq!(table(&first), ("a: Int64".to_owned(), vec!["1".to_owned(), "2".to_owned()]));
    let schema = Arc::clone(decoder.schema().unwrap());
    decoder.decode(&texts(&[r#"{"a":1,"b":null}"#]));
    assert!(Arc::ptr_eq(&schema, decoder.schema().unwrap()), "nothing was learnt");
    let second = decoder.decode(&texts(&[r#"{"a":3}"#, r#"{"a":4.5,"b":"x"}"#, r#"{"a":"no","e":1}"#]));
    assert_eq!(table(&second), ("a: Float64, b: Utf8".to_owned(), vec!["3.0|null".to_owned(), "4.5|x".to_owned()]));
    assert_eq!(refused(&second), ["[2] wrong-type: a: expected Float64, found \"no\""]);
    let third = decoder.decode(&texts(&[r#"{"a":9007199254740993}"#, r#"{"a":18446744073709551616}"#]));
    assert_eq!(refused(&third), ["[0] number-out-of-range: a: 9007199254740993 does not fit Float64"]);
}

#[test]
fn times_are_inferred_and_numbers_are_no_times() {
    let mut decoder = decoder(None, OnNewField::Add);
    let decoded = decoder.decode(&texts(&[r#"{"t":"1970-01-01T01:00:00.000001+01:00"}"#, r#"{"t":5}"#]));
    assert_eq!(decoded.batch.unwrap().rows.column(0).as_primitive::<TimestampMicrosecondType>().values(), &[1]);
    assert_eq!(decoded.rejected[0].code, "wrong-type");
    let decoded = decoder.decode(&texts(&[r#"{"t":"soon"}"#, r#"{"t":"1970-01-01T00:00:00.0000001Z"}"#, r#"{"t":7}"#]));
    let codes: Vec<_> = decoded.rejected.iter().map(|rejection| rejection.code.as_str()).collect();
    assert_eq!(codes, ["wrong-type", "precision-loss", "wrong-type"], "one record does not change a settled type");
}

#[test]
fn scalars_become_text_where_asked() {
    let mut decoder = Decoder::new(&config(None, OnNewField::Add, OnTypeChange::String)).unwrap();
    let first = decoder.decode(&texts(&[r#"{"a":1,"n":1}"#]));
    assert_eq!(table(&first).0, "a: Int64, n: Int64");
    let records = [
        r#"{"a":"x\n"}"#,
        r#"{"a":1.50}"#,
        r#"{"a":true}"#,
        r#"{"a":99999999999999999999}"#,
        r#"{"a":null}"#,
        r#"{"a":[1]}"#,
    ];
    let second = decoder.decode(&texts(&records));
    let rows = ["x\n|null", "1.50|null", "true|null", "99999999999999999999|null", "null|null"].map(str::to_owned);
    assert_eq!(table(&second), ("a: Utf8, n: Int64".to_owned(), rows.to_vec()));
    assert_eq!(refused(&second), ["[5] wrong-type: a: expected Utf8, found [1]"]);
}

#[test]
fn a_settled_type_stays_where_changes_are_rejected() {
    let mut decoder = Decoder::new(&config(None, OnNewField::Add, OnTypeChange::Reject)).unwrap();
    let first = decoder.decode(&texts(&[r#"{"a":1,"b":1}"#, r#"{"b":1.5}"#]));
    assert_eq!(table(&first).0, "a: Int64, b: Float64", "within the first batch nothing is settled");
    let second = decoder.decode(&texts(&[r#"{"a":1.5,"b":2}"#, r#"{"a":2,"b":2}"#]));
    assert_eq!(refused(&second), ["[0] wrong-type: a: expected Int64, found 1.5"]);
    assert_eq!(table(&second).1, ["2|2.0"]);
}

#[test]
fn new_fields_are_added_left_out_or_refused() {
    let run = |declared: bool, on_new_field| {
        let inner = Field::new("x", DataType::Int64, true);
        let fields =
            vec![Field::new("a", DataType::Int32, true), Field::new("o", DataType::Struct(vec![inner].into()), true)];
        let mut decoder = decoder(declared.then_some(fields), on_new_field);
        if !declared {
            decoder.decode(&texts(&[r#"{"a":1,"o":{"x":1}}"#]));
        }
        let records = [r#"{"a":1,"new":{"y":"z"}}"#, r#"{"o":{"x":1,"new":2}}"#, r#"{"a":3,"none":[null]}"#];
        let decoded = decoder.decode(&texts(&records));
        let (fields, rows) = table(&decoded);
        format!("{fields} / {} / {}", rows.join(" ; "), refused(&decoded).join(" ; "))
    };
    let unknown = "[0,1] unknown-field: the schema has no field \"new\"".replace(',', ", ");
    let nested = "[1] unknown-field: o: the schema has no field \"new\"";
    let plain = "o: Struct(\"x\": Int64)";
    assert_eq!(run(true, OnNewField::Ignore), format!("a: Int32, {plain} / 1|null ; null|{{x: 1}} ; 3|null / "));
    assert_eq!(
        run(true, OnNewField::Add),
        format!("a: Int32, {plain}, new: Struct(\"y\": Utf8) / 1|null|{{y: z}} ; null|{{x: 1}}|null ; 3|null|null / ")
    );
    let first = unknown.replace("[0, 1]", "[0]");
    assert_eq!(run(true, OnNewField::Reject), format!("a: Int32, {plain} / 3|null / {first} ; {nested}"));
    assert_eq!(run(false, OnNewField::Ignore), format!("a: Int64, {plain} / 1|null ; null|{{x: 1}} ; 3|null / "));
    assert_eq!(run(false, OnNewField::Reject), format!("a: Int64, {plain} / 3|null / {first} ; {nested}"));
    assert_eq!(
        run(false, OnNewField::Add),
        "a: Int64, o: Struct(\"x\": Int64, \"new\": Int64), new: Struct(\"y\": Utf8) / \
         1|null|{y: z} ; null|{x: 1, new: 2}|null ; 3|null|null / "
    );
}

#[test]
fn what_cannot_be_inferred_is_refused_and_not_left_out() {
    let mut decoder = decoder(None, OnNewField::Add);
    decoder.decode(&texts(&[r#"{"a":1}"#]));
    let deep = format!(r#"{{"a":2,"deep":{}1{}}}"#, "[".repeat(70), "]".repeat(70));
    let records = [r#"{"a":2,"mixed":[1,"x"]}"#, r#"{"a":2,"huge":9223372036854775808}"#, &deep, r#"{"a":3}"#];
    let decoded = decoder.decode(&texts(&records));
    let expected = [
        "[0] wrong-type: mixed[1]: found a text where an integer was found before".to_owned(),
        "[1] number-out-of-range: huge: 9223372036854775808 does not fit Int64".to_owned(),
    ];
    assert_eq!(refused(&decoded)[..2], expected);
    assert_eq!(decoded.rejected[2].code, "too-deep");
    assert_eq!(table(&decoded).1, ["3"]);
    let many: Vec<String> = (0..2_000).map(|number| format!("\"f{number}\":1")).collect();
    let decoded = decoder.decode(&texts(&[&format!("{{{}}}", many.join(","))]));
    assert_eq!(refused(&decoded), ["[0] too-many-fields: its new fields would be more than 2000 in the schema"]);
    assert_eq!(decoder.schema().unwrap().fields().len(), 1);
}

#[test]
fn there_is_a_schema_only_once_there_is_a_value() {
    let mut decoder = decoder(None, OnNewField::Add);
    let decoded = decoder.decode(&texts(&["{}", r#"{"a":null}"#, "oops"]));
    assert!(decoded.batch.is_none() && decoder.schema().is_none());
    assert_eq!(
        refused(&decoded)[0],
        "[0, 1] no-fields: no field has a value, and there is no schema yet that tells what is missing"
    );
    assert_eq!(decoded.rejected[1].code, "bad-json");
    let decoded = decoder.decode(&texts(&["{}", r#"{"a":1}"#]));
    assert_eq!(table(&decoded).1, ["null", "1"]);
    let nothing = decoder.decode(&texts(&[]));
    assert!(nothing.batch.is_none() && nothing.rejected.is_empty());
}

#[test]
fn the_order_of_fields_does_not_matter() {
    let mut decoder =
        decoder(Some(["a", "b", "c"].map(|name| Field::new(name, DataType::Int64, true)).to_vec()), OnNewField::Ignore);
    let records = [
        r#"{"c":3,"x":0,"a":1,"b":2}"#,
        r#"{"c":3,"x":0,"a":1,"b":2}"#,
        r#"{"b":2,"a":1}"#,
        r#"{"\u0063":3,"y":"\n"}"#,
    ];
    let decoded = decoder.decode(&texts(&records));
    assert_eq!(table(&decoded).1, ["1|2|3", "1|2|3", "1|2|null", "null|null|3"]);
}

#[test]
fn metadata_columns_tell_where_each_row_came_from() {
    let mut decoder = Decoder::new(&DecodeConfig {
        metadata_columns: vec![MetadataColumn::Topic, MetadataColumn::Offset, MetadataColumn::Key],
        ..config(None, OnNewField::Add, OnTypeChange::Widen)
    })
    .unwrap();
    let batch = decoder.decode(&texts(&["oops", r#"{"a":1,"_offset":"shadow"}"#])).batch.unwrap();
    let names: Vec<_> = batch.rows.schema().fields().iter().map(|field| field.name().clone()).collect();
    assert_eq!(names, ["a", "_topic", "_offset", "_key"]);
    assert_eq!(batch.rows.column(1).as_string::<i32>().value(0), "orders");
    assert_eq!(batch.rows.column(3).as_binary::<i32>().value(0), b"k");
    assert_eq!(batch.rows.column(2).as_primitive::<Int64Type>().values(), &[101]);
}

#[test]
fn a_million_levels_are_refused_and_the_stack_survives() {
    for open in ["[", "{\"a\":"] {
        let deep = open.repeat(1_000_000);
        for record in [deep.clone(), format!("{{\"v\":{deep}"), format!("{{\"other\":{deep}")] {
            for on_new_field in [OnNewField::Ignore, OnNewField::Add] {
                let decoded = decoder(None, on_new_field).decode(&texts(&[&record, r#"{"v":1}"#]));
                assert_eq!(decoded.rejected.len(), 1);
                let declared = Some(vec![Field::new("v", DataType::Int64, true)]);
                let decoded = decoder(declared, on_new_field).decode(&texts(&[&record]));
                assert_eq!(decoded.rejected.len(), 1);
            }
        }
    }
}

#[test]
fn a_declared_name_of_ours_or_an_unknown_type_is_a_fault_of_the_configuration() {
    let mut clash =
        config(Some(vec![Field::new("_key", DataType::Utf8, true)]), OnNewField::Ignore, OnTypeChange::Widen);
    clash.metadata_columns = vec![MetadataColumn::Key];
    let expected =
        "schema: the field \"_key\" has the name of a metadata column; rename it or leave schema.metadata_columns out";
    assert_eq!(Decoder::new(&clash).unwrap_err().to_string(), expected);
    let null = config(Some(vec![Field::new("n", DataType::Null, true)]), OnNewField::Ignore, OnTypeChange::Widen);
    let message = Decoder::new(&null).unwrap_err().full_message();
    assert_eq!(
        message,
        "schema.fields cannot be filled from JSON: Schema error: column \"n\": JSON cannot fill the type Null"
    );
}

#[test]
fn raw_records_go_on_as_they_are() {
    let raw = DecodeConfig { format: ValueFormat::Raw, ..config(None, OnNewField::Add, OnTypeChange::Widen) };
    let mut decoder = Decoder::new(&raw).unwrap();
    let records = envelope(&[Some(b"\xff"), None]);
    let decoded = decoder.decode(&records);
    assert_eq!(decoder.schema(), Some(&*ENVELOPE_SCHEMA));
    assert_eq!(decoded.batch.unwrap().rows, *records.as_record_batch());
    assert!(decoded.rejected.is_empty());
}
