//! Corners of JSON: lists as records, payloads inside of envelopes, records without a value, and the table of the README.

use arrow_schema::extension::Uuid;

use super::*;

#[test]
fn declared_uuids_and_large_decimals_are_exact() {
    let uuid = || Field::new("item", DataType::FixedSizeBinary(16), true).with_extension_type(Uuid);
    let fields = vec![
        uuid().with_name("id"),
        Field::new("ids", DataType::List(Arc::new(uuid())), true),
        Field::new("d", DataType::Decimal256(40, 2), true),
    ];
    let mut decoder = decoder(Some(fields.clone()), OnNewField::Reject);
    assert_eq!(decoder.schema().unwrap().fields().as_ref(), Fields::from(fields).as_ref(), "files are told of UUIDs");
    let (id, large) = ("0189FEDC-ba98-7000-8000-000000000001", "12345678901234567890123456789012345678.5");
    let decoded = decoder.decode(&texts(&[
        &format!(r#"{{"id":"{id}","ids":["{}",null],"d":{large}}}"#, id.replace('-', "")),
        r#"{"id":null,"d":"-0.01"}"#,
        r#"{"id":"0189FEDC-ba98-7000-8000-00000000000"}"#,
        r#"{"id":7}"#,
        r#"{"d":0.001}"#,
        &format!(r#"{{"d":"1{large}"}}"#),
    ]));
    let id = id.replace('-', "").to_lowercase();
    assert_eq!(table(&decoded).1, [format!("{id}|[{id}, null]|{large}0"), "null|null|-0.01".to_owned()]);
    let codes: Vec<_> = decoded.rejected.iter().map(|rejection| rejection.code.as_str()).collect();
    assert_eq!(codes, ["wrong-type", "wrong-type", "precision-loss", "number-out-of-range"]);
}

/// A decoder with a way to the payload.
fn pointed(declared: Option<Vec<Field>>, on_tombstone: OnTombstone) -> Decoder {
    let payload_pointer = vec!["payload".to_owned(), "after".to_owned()];
    let config = DecodeConfig {
        payload_pointer,
        on_tombstone,
        metadata_columns: vec![MetadataColumn::Offset],
        ..config(declared, OnNewField::Add, OnTypeChange::Widen)
    };
    Decoder::new(&config).unwrap()
}

#[test]
fn a_list_is_a_row_for_each_of_its_objects_or_none_at_all() {
    let mut decoder = decoder(None, OnNewField::Add);
    let records = [
        r#"[{"a":1},{"a":2,"b":"x"}]"#,
        "[]",
        r#" {"a":3}"#,
        r#"[{"a":4},{"a":"no"}]"#,
        r#"[{"a":5},[{"a":6}]]"#,
        r#"[{"a":7},null]"#,
        r#"[{"a":8},{"a":9}"#,
    ];
    for _ in 0..2 {
        let decoded = decoder.decode(&texts(&records));
        assert_eq!(table(&decoded).1, ["1|null", "2|x", "3|null"]);
        let Origin::Records { rows, .. } = &decoded.batch.as_ref().unwrap().origin else { panic!("known") };
        assert_eq!(rows.values(), &[0, 0, 2]);
        let found = refused(&decoded);
        assert_eq!(
            found[..3],
            [
                "[3] wrong-type: [1].a: expected Int64, found \"no\"",
                "[4] not-an-object: [1]: expected a JSON object, found a list",
                "[5] not-an-object: [1]: expected a JSON object, found null",
            ]
        );
        assert!(found[3].starts_with("[6] bad-json"), "{}", found[3]);
    }
}

#[test]
fn a_list_cannot_ask_for_more_rows_than_there_is_room_for() {
    let fields: Vec<Field> = (0..1_000).map(|number| Field::new(format!("f{number}"), DataType::Int8, true)).collect();
    let many = format!("[{}{{}}]", "{},".repeat(70_000));
    let decoded = decoder(Some(fields), OnNewField::Ignore).decode(&texts(&[&many, r#"{"f1":1}"#]));
    assert_eq!(decoded.rejected[0].code, "too-many-rows");
    assert_eq!(decoded.batch.unwrap().rows.num_rows(), 1);
}

#[test]
fn the_payload_is_read_where_the_pointer_leads() {
    let id = || vec![Field::new("id", DataType::Int64, true)];
    let records = [
        r#"{"schema":{"a":[1]},"payload":{"before":null,"after":{"id":1},"op":"c"}}"#,
        r#"{"payload":{"before":{"id":1},"after":null,"op":"d"}}"#,
        r#"{"payload":{"op":"x"}}"#,
        r#"{"payload":{"after":{"id":2},"after":{"id":3}}}"#,
        r#"{"payload":{"after":{"id":"x"}}}"#,
        r#"{"payload":{"after":{"id":4}},"x":nul}"#,
        r#"{"payload":{"after":[{"id":5},{"id":6}]}}"#,
        r#"{"payload":5}"#,
        r#"{"payload":{"after":{"id":7}}} "#,
        r#"{"payload":{"after":{"id":-0}}}"#,
    ];
    for declared in [None, Some(id())] {
        let decoded = pointed(declared, OnTombstone::Reject).decode(&texts(&records));
        assert_eq!(table(&decoded).1, ["1|100", "5|106", "6|106", "7|108", "0|109"]);
        let found = refused(&decoded);
        assert_eq!(found[0], "[1] null-value: the record has no value (a tombstone)");
        assert_eq!(
            found[1],
            "[2, 7] payload-missing: the record has nothing at /payload/after, where its payload should be"
        );
        assert_eq!(found[2], "[3] duplicate-key: payload.after: the key \"after\" is there twice");
        assert_eq!(found[3], "[4] wrong-type: payload.after.id: expected Int64, found \"x\"");
        assert!(found[4].starts_with("[5] bad-json"), "{}", found[4]);
    }
    let first_of_list = DecodeConfig {
        payload_pointer: vec!["rows".to_owned(), "1".to_owned()],
        ..config(None, OnNewField::Add, OnTypeChange::Widen)
    };
    let decoded = Decoder::new(&first_of_list).unwrap().decode(&texts(&[r#"{"rows":[{"a":1},{"a":2},{"a":3}]}"#]));
    assert_eq!(table(&decoded).1, ["2"]);
}

#[test]
fn records_without_a_value_are_passed_over_made_rows_or_refused() {
    let delete = br#"{"payload":{"after":null}}"#.as_slice();
    let insert = br#"{"payload":{"after":{"id":1}}}"#.as_slice();
    let records = envelope(&[Some(insert), None, Some(delete)]);
    let skipped = pointed(None, OnTombstone::Skip).decode(&records);
    assert_eq!((table(&skipped).1, skipped.skipped, skipped.rejected.len()), (vec!["1|100".to_owned()], 2, 0));
    let rows = pointed(None, OnTombstone::NullRow).decode(&records);
    assert_eq!((table(&rows).1, rows.skipped), (["1|100", "null|101", "null|102"].map(str::to_owned).to_vec(), 0));
    let needed = vec![Field::new("id", DataType::Int64, false)];
    let needed = pointed(Some(needed), OnTombstone::NullRow).decode(&records);
    let words = "null-not-allowed: id: a tombstone would be null in a column that is not nullable";
    assert_eq!(refused(&needed), [format!("[1, 2] {words}")]);
    let early = pointed(None, OnTombstone::NullRow).decode(&envelope(&[None]));
    assert_eq!(early.rejected[0].code, "no-fields");
    let arrow = DecodeConfig {
        format: ValueFormat::ArrowIpc,
        on_tombstone: OnTombstone::NullRow,
        ..config(Some(vec![Field::new("id", DataType::Int64, true)]), OnNewField::Add, OnTypeChange::Widen)
    };
    assert_eq!(table(&Decoder::new(&arrow).unwrap().decode(&envelope(&[None]))).1, ["null"]);
    let arrow = DecodeConfig { on_tombstone: OnTombstone::Skip, ..arrow };
    assert_eq!(Decoder::new(&arrow).unwrap().decode(&envelope(&[None, None])).skipped, 2);
}

/// The table "Corners of JSON" of the README: each of its rows is one here, in its order.
#[test]
fn corners_have_the_results_that_are_documented() {
    let infer = |record: &[u8], on_type_change| {
        let mut decoder = Decoder::new(&config(None, OnNewField::Add, on_type_change)).unwrap();
        let decoded = decoder.decode(&envelope(&[Some(record)]));
        match decoded.rejected.first() {
            Some(rejection) => rejection.code.clone(),
            None => format!("{} = {}", table(&decoded).0, table(&decoded).1.join(",")),
        }
    };
    let widen = |record: &str| infer(record.as_bytes(), OnTypeChange::Widen);
    let declared = |data_type: DataType, record: &str| {
        let decoded =
            decoder(Some(vec![Field::new("v", data_type, true)]), OnNewField::Ignore).decode(&texts(&[record]));
        decoded.rejected.first().map_or_else(|| table(&decoded).1.join(","), |rejection| rejection.code.clone())
    };
    assert_eq!(widen("\u{feff}{\"v\":1}"), "bad-json");
    assert_eq!(widen("{\"v\":1} x"), "bad-json");
    assert_eq!(widen("{\"v\":1}{\"v\":2}"), "bad-json");
    assert_eq!(widen(r#"{"v":1,"v":2}"#), "duplicate-key");
    assert_eq!(widen(r#"{"v":"\ud800"}"#), "bad-json");
    assert_eq!(infer(b"{\"v\":\"\xff\"}", OnTypeChange::Widen), "bad-json");
    assert_eq!(widen(r#"{"v":NaN}"#), "bad-json");
    assert_eq!(widen(r#"{"v":-Infinity}"#), "bad-json");
    assert_eq!(widen(r#"{"v":1e999}"#), "number-out-of-range");
    assert_eq!(widen(r#"{"v":9223372036854775808}"#), "number-out-of-range");
    assert_eq!(infer(br#"{"v":9223372036854775808}"#, OnTypeChange::String), "v: Utf8 = 9223372036854775808");
    assert_eq!(declared(DataType::UInt64, r#"{"v":18446744073709551615}"#), "18446744073709551615");
    assert_eq!(declared(DataType::UInt64, r#"{"v":18446744073709551616}"#), "number-out-of-range");
    assert_eq!(declared(DataType::Decimal128(38, 0), r#"{"v":18446744073709551616}"#), "18446744073709551616");
    assert_eq!(declared(DataType::Decimal128(4, 2), r#"{"v":0.1}"#), "0.10");
    assert_eq!(declared(DataType::Decimal128(4, 2), r#"{"v":"0.105"}"#), "precision-loss");
    assert_eq!(declared(DataType::Int64, r#"{"v":1.0}"#), "wrong-type");
    assert_eq!(declared(DataType::Int64, r#"{"v":1e2}"#), "wrong-type");
    assert_eq!(widen(&format!("{{\"v\":{}{}}}", "[".repeat(1_000), "]".repeat(1_000))), "too-deep");
    let large = format!("{{\"v\":\"{}\"}}", "x".repeat(100_000_000));
    let mut decoder = decoder(None, OnNewField::Add);
    let decoded = decoder.decode(&texts(&[&large]));
    assert_eq!(decoded.batch.unwrap().rows.column(0).as_string::<i32>().value(0).len(), 100_000_000);
}

#[test]
fn declared_times_and_bytes_are_read_as_they_are_written() {
    use crate::config::{BinaryEncoding, JsonHints};
    let hints = |encoding, epoch| JsonHints { encoding, epoch };
    let time = |unit| DataType::Timestamp(unit, None);
    let list = DataType::List(Arc::new(Field::new("item", time(TimeUnit::Microsecond), true)));
    let fields = vec![
        Field::new("t", DataType::Time64(TimeUnit::Microsecond), true),
        Field::new("m", DataType::Time32(TimeUnit::Millisecond), true),
        hints(Some(BinaryEncoding::Hex), None).on(Field::new("h", DataType::Binary, true)),
        hints(None, Some(TimeUnit::Second)).on(Field::new("s", time(TimeUnit::Millisecond), true)),
        hints(None, Some(TimeUnit::Nanosecond)).on(Field::new("n", time(TimeUnit::Microsecond), true)),
        hints(None, Some(TimeUnit::Millisecond)).on(Field::new("l", list, true)),
    ];
    let mut decoder = decoder(Some(fields), OnNewField::Reject);
    let schema = decoder.schema().unwrap();
    assert!(schema.fields().iter().all(|field| field.metadata().is_empty()), "files know nothing of it");
    let decoded = decoder.decode(&texts(&[
        r#"{"t":"23:59:59.000001","m":"00:00:00.5","h":"00fFa0","s":60,"n":1000,"l":[1,"1970-01-01T00:00:01Z"]}"#,
        r#"{"t":"23:59:59.0000001"}"#,
        r#"{"m":"24:00:00"}"#,
        r#"{"m":5}"#,
        r#"{"h":"0"}"#,
        r#"{"h":"0g"}"#,
        r#"{"n":1001}"#,
        r#"{"s":9223372036854775807}"#,
    ]));
    let seconds = "1970-01-01T00:01:00|1970-01-01T00:00:00.000001";
    let list = "[1970-01-01T00:00:00.001, 1970-01-01T00:00:01]";
    assert_eq!(table(&decoded).1, [format!("23:59:59.000001|00:00:00.500|00ffa0|{seconds}|{list}")]);
    let codes: Vec<_> = decoded.rejected.iter().map(|rejection| rejection.code.as_str()).collect();
    let expected = [
        "precision-loss",
        "wrong-type",
        "wrong-type",
        "wrong-type",
        "wrong-type",
        "precision-loss",
        "number-out-of-range",
    ];
    assert_eq!(codes, expected);
}
