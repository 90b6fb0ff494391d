//! What each JSON value becomes, and what is refused, record by record.

use arrow_array::{
    BinaryArray, Int32Array, Int64Array, ListArray, StringArray, TimestampMillisecondArray,
    cast::AsArray,
    new_null_array,
    types::{Float64Type, Int64Type, TimestampMicrosecondType},
};
use proptest::prelude::*;

use super::*;
use crate::batch::{ENVELOPE_SCHEMA, HEADER_FIELDS};

/// Records with these values.
fn envelope(values: &[Option<&[u8]>]) -> Envelope {
    let count = values.len();
    let headers = new_null_array(ENVELOPE_SCHEMA.field(6).data_type(), count);
    let _: (&ListArray, &ArrowFields) = (headers.as_list(), &HEADER_FIELDS);
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

/// A decoder with this schema, or one that infers.
fn decoder(declared: Option<Vec<Field>>, on_new_field: OnNewField) -> Decoder {
    Decoder::new(&DecodeConfig {
        format: ValueFormat::Json,
        declared_schema: declared.map(|fields| Arc::new(Schema::new(fields))),
        on_new_field,
        on_type_change: OnTypeChange::Widen,
        metadata_columns: Vec::new(),
    })
    .unwrap()
}

/// Why a record is refused by a schema of one field `v`; "" when it is not.
fn refusal(data_type: DataType, record: &str) -> String {
    let decoded = decoder(Some(vec![Field::new("v", data_type, true)]), OnNewField::Reject).decode(&texts(&[record]));
    decoded.rejected.first().map(|rejection| format!("{}: {}", rejection.code, rejection.message)).unwrap_or_default()
}

#[test]
fn each_refusal_has_its_code_and_words() {
    let time = DataType::Timestamp(TimeUnit::Millisecond, Some("UTC".into()));
    for (data_type, record, expected) in [
        (DataType::Int32, r#"{"v":2147483648}"#, "number-out-of-range: v: 2147483648 does not fit Int32"),
        (DataType::UInt64, r#"{"v":-1}"#, "number-out-of-range: v: -1 does not fit UInt64"),
        (DataType::Int64, r#"{"v":1.0}"#, "wrong-type: v: expected Int64, found the number 1"),
        (
            DataType::Int64,
            r#"{"v":18446744073709551616}"#,
            "number-out-of-range: v: 1.8446744073709552e19 does not fit Int64",
        ),
        (DataType::Utf8, r#"{"v":5}"#, "wrong-type: v: expected Utf8, found the number 5"),
        (DataType::Boolean, r#"{"v":"yes"}"#, "wrong-type: v: expected Boolean, found the text \"yes\""),
        (DataType::Int64, r#"{"v":[1]}"#, "wrong-type: v: expected Int64, found a list"),
        (DataType::Date32, r#"{"v":"2026-02-30"}"#, "wrong-type: v: expected Date32, found the text \"2026-02-30\""),
        (
            time.clone(),
            r#"{"v":"2026-02-03T04:05:06.0001Z"}"#,
            "precision-loss: v: \"2026-02-03T04:05:06.0001Z\" cannot be held exactly as Timestamp(ms, \"UTC\")",
        ),
        (
            DataType::Decimal128(5, 2),
            r#"{"v":1.234}"#,
            "precision-loss: v: 1.234 cannot be held exactly as Decimal128(5, 2)",
        ),
        (DataType::Int64, r#"{"v":1,"v":2}"#, "duplicate-key: the key \"v\" is there twice"),
        (DataType::Int64, r#"{"w":1}"#, "unknown-field: the schema has no field \"w\""),
        (DataType::Int64, "[1]", "not-an-object: expected a JSON object, found a list"),
        (DataType::Int64, "null", "not-an-object: expected a JSON object, found null"),
        (DataType::Float32, r#"{"v":1e39}"#, "number-out-of-range: v: 1e39 does not fit Float32"),
    ] {
        assert_eq!(refusal(data_type, record), expected, "{record}");
    }
    for record in [
        "",
        "{",
        "{\"v\":1}x",
        "{\"v\":NaN}",
        "{'v':1}",
        "\u{feff}{}",
        r#"{"v":"\ud800"}"#,
        "{\"v\":01}",
        "{\"v\":1e999}",
    ] {
        assert!(
            refusal(DataType::Float64, record).starts_with("bad-json: "),
            "{record}: {}",
            refusal(DataType::Float64, record)
        );
    }
    let required = Some(vec![Field::new("v", DataType::Int64, false)]);
    let decoded = decoder(required, OnNewField::Ignore).decode(&texts(&["{}", r#"{"v":null}"#]));
    let codes: Vec<_> = decoded.rejected.iter().map(|rejection| rejection.code.as_str()).collect();
    assert_eq!(codes, ["null-not-allowed", "null-not-allowed"]);
    let decoded = decoder(None, OnNewField::Add).decode(&envelope(&[None, Some(b"{\"a\":\"\xff\"}")]));
    let codes: Vec<_> = decoded.rejected.iter().map(|rejection| rejection.code.as_str()).collect();
    assert_eq!(codes, ["null-value", "bad-json"]);
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
    let rows = decoded.batch.unwrap().rows;
    let options = arrow_cast::display::FormatOptions::default().with_null("null");
    let show = |row: usize| {
        let print = |column: &ArrayRef| {
            let formatter = arrow_cast::display::ArrayFormatter::try_new(column, &options).unwrap();
            formatter.value(row).to_string()
        };
        rows.columns().iter().map(print).collect::<Vec<_>>().join("|")
    };
    assert_eq!(
        show(0),
        "-128|18446744073709551615|1.0|é\nA|0001|1970-01-01T00:01:00|1970-01-02|12.30|[1, null]|{x: y}|{k: 1}|true"
    );
    assert_eq!(show(1), ["null"; 12].join("|"));
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
    assert_eq!(decoded.rejected[1].message, "o.n: expected Utf8, found the number 5");
}

#[test]
fn an_inferred_schema_grows_and_widens_within_a_batch_and_between_batches() {
    let mut decoder = decoder(None, OnNewField::Add);
    let first = decoder.decode(&texts(&[r#"{"a":1}"#, r#"{"a":2,"b":null}"#]));
    assert_eq!(first.batch.unwrap().rows.schema().fields().len(), 1, "a field of nothing but null waits");
    let second = decoder.decode(&texts(&[r#"{"a":3}"#, r#"{"a":4.5,"b":"x"}"#, r#"{"a":"no"}"#]));
    let rows = second.batch.unwrap().rows;
    assert_eq!(rows.column(0).as_primitive::<Float64Type>().values(), &[3.0, 4.5]);
    assert_eq!(rows.column(1).as_string::<i32>().value(1), "x");
    assert_eq!(second.rejected[0].code, "wrong-type");
    let third = decoder.decode(&texts(&[r#"{"a":9007199254740993}"#]));
    assert_eq!(third.rejected[0].code, "number-out-of-range", "an inferred float column rounds no integer in silence");
}

#[test]
fn metadata_columns_tell_where_each_row_came_from() {
    let mut decoder = Decoder::new(&DecodeConfig {
        format: ValueFormat::Json,
        declared_schema: None,
        on_new_field: OnNewField::Add,
        on_type_change: OnTypeChange::Widen,
        metadata_columns: vec![MetadataColumn::Topic, MetadataColumn::Offset, MetadataColumn::Key],
    })
    .unwrap();
    let batch = decoder.decode(&texts(&["oops", r#"{"a":1,"_offset":"shadow"}"#])).batch.unwrap();
    let names: Vec<_> = batch.rows.schema().fields().iter().map(|field| field.name().clone()).collect();
    assert_eq!(names, ["a", "_topic", "_offset", "_key"]);
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
fn times_are_stored_in_utc() {
    let decoded = decoder(None, OnNewField::Add).decode(&texts(&[r#"{"t":"1970-01-01T01:00:00.000001+01:00"}"#]));
    let rows = decoded.batch.unwrap().rows;
    assert_eq!(rows.column(0).as_primitive::<TimestampMicrosecondType>().values(), &[1]);
}

proptest! {
    /// serde_json is the judge: what we accept it accepts too, with the same values; and nothing panics.
    #[test]
    fn agrees_with_serde_json(record in "[ ]?\\{(\"a\":(-?[0-9]{1,20}|[0-9]\\.[0-9]e?[0-9]|\"[a-z\\\\n\"]{0,4}\"|null|tru?e),?){0,2}\\}.?") {
        let mut decoder = decoder(None, OnNewField::Add);
        let decoded = decoder.decode(&texts(&[&record]));
        if let Some(batch) = decoded.batch {
            let expected: serde_json::Value = serde_json::from_str(&record).unwrap();
            let mut found = Vec::new();
            arrow_json::LineDelimitedWriter::new(&mut found).write(&batch.rows).unwrap();
            let found: serde_json::Value = serde_json::from_slice(&found).unwrap();
            prop_assert_eq!(found["a"].as_f64(), expected["a"].as_f64());
            prop_assert_eq!(found["a"].as_str(), expected["a"].as_str());
        }
    }

    #[test]
    fn bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..60), json in "[\\[\\]{}:,\"a0-9.\\\\ntrue ]{0,40}") {
        let records = envelope(&[Some(&bytes), Some(json.as_bytes()), Some(b"{\"a\":[{\"b\":1}]}")]);
        let mut decoder = decoder(None, OnNewField::Add);
        let decoded = decoder.decode(&records);
        let rows = decoded.batch.map_or(0, |batch| batch.rows.num_rows());
        prop_assert_eq!(rows + decoded.rejected.len(), 3);
        decoder.decode(&records);
    }
}
