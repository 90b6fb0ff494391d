//! Random records, judged by `serde_json` and by rules written a second time.

use arrow_array::types::TimestampNanosecondType;
use proptest::{collection::vec, prelude::*};
use serde_json::Value;

use super::*;

/// Any JSON value.
fn value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        (-3i64..3).prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        any::<f64>().prop_filter("JSON has no others", |value| value.is_finite()).prop_map(Value::from),
        "\\PC{0,6}|[\\x00-\\x1f\"\\\\]{0,3}".prop_map(Value::from),
        "20[0-9]{2}-0[1-9]-1[0-9]T0[0-9]:1[0-9]:2[0-9](\\.[0-9]{1,9})?Z".prop_map(Value::from),
    ];
    leaf.prop_recursive(3, 12, 4, |inner| {
        prop_oneof![vec(inner.clone(), 0..4).prop_map(Value::from), object(inner).prop_map(Value::from)]
    })
}

/// An object of few names, so that records of a batch have names in common.
fn object(inner: impl Strategy<Value = Value>) -> impl Strategy<Value = serde_json::Map<String, Value>> {
    vec(("[a-d]", inner), 0..4).prop_map(|fields| fields.into_iter().collect())
}

/// A type that may be declared.
fn data_type() -> impl Strategy<Value = DataType> {
    let leaf = prop_oneof![
        Just(DataType::Boolean),
        Just(DataType::Int8),
        Just(DataType::Int64),
        Just(DataType::UInt64),
        Just(DataType::Float64),
        Just(DataType::Utf8),
    ];
    leaf.prop_recursive(2, 6, 3, |inner| {
        let field = (inner.clone(), any::<bool>());
        prop_oneof![
            field.clone().prop_map(|(inner, nullable)| DataType::List(Arc::new(Field::new("item", inner, nullable)))),
            vec(field, 1..4).prop_map(|inner| DataType::Struct(fields_of(inner).into())),
        ]
    })
}

/// Fields named `a`, `b` and so on.
fn fields_of(types: Vec<(DataType, bool)>) -> Vec<Field> {
    let names = ["a", "b", "c", "d"];
    names.iter().zip(types).map(|(name, (data_type, nullable))| Field::new(*name, data_type, nullable)).collect()
}

/// Whether a declared column takes a value.
fn fits(field: &Field, value: Option<&Value>) -> bool {
    let Some(value) = value.filter(|value| !value.is_null()) else { return field.is_nullable() };
    match field.data_type() {
        DataType::Boolean => value.is_boolean(),
        DataType::Int8 => value.as_i64().is_some_and(|value| i8::try_from(value).is_ok()),
        DataType::Int64 => value.is_i64(),
        DataType::UInt64 => value.is_u64(),
        DataType::Float64 => value.is_number(),
        DataType::Utf8 => value.is_string(),
        DataType::List(element) => {
            value.as_array().is_some_and(|values| values.iter().all(|value| fits(element, Some(value))))
        }
        DataType::Struct(fields) => {
            value.as_object().is_some_and(|object| fields.iter().all(|field| fits(field, object.get(field.name()))))
        }
        _ => false,
    }
}

/// What a row of a column says, as JSON; numbers as text, so that no width gets in the way.
fn found(column: &ArrayRef, row: usize) -> Value {
    if column.is_null(row) {
        return Value::Null;
    }
    match column.data_type() {
        DataType::Boolean => column.as_boolean().value(row).into(),
        DataType::Float64 => format!("{:?}", column.as_primitive::<Float64Type>().value(row)).into(),
        DataType::Utf8 => column.as_string::<i32>().value(row).into(),
        DataType::Timestamp(TimeUnit::Microsecond, _) => {
            column.as_primitive::<TimestampMicrosecondType>().value(row).into()
        }
        DataType::Timestamp(_, _) => column.as_primitive::<TimestampNanosecondType>().value(row).into(),
        DataType::List(_) => {
            let elements = column.as_list::<i32>().value(row);
            (0..elements.len()).map(|row| found(&elements, row)).collect::<Vec<_>>().into()
        }
        DataType::Struct(fields) => {
            let columns = column.as_struct().columns();
            let pairs = fields.iter().zip(columns).map(|(field, column)| (field.name().clone(), found(column, row)));
            pairs.collect::<serde_json::Map<_, _>>().into()
        }
        _ => {
            let options = arrow_cast::display::FormatOptions::default();
            arrow_cast::display::ArrayFormatter::try_new(column, &options).unwrap().value(row).to_string().into()
        }
    }
}

/// What a row has to say for a value, in the form of [`found`]; what the column has no place for must say nothing, where
/// `is_whole`.
fn expected(data_type: &DataType, value: Option<&Value>, is_whole: bool) -> Value {
    let Some(value) = value.filter(|value| !value.is_null()) else { return Value::Null };
    match data_type {
        DataType::Boolean | DataType::Utf8 => value.clone(),
        DataType::Float64 => format!("{:?}", value.to_string().parse::<f64>().unwrap()).into(),
        DataType::List(element) => {
            let elements = value.as_array().unwrap().iter();
            elements.map(|value| expected(element.data_type(), Some(value), is_whole)).collect::<Vec<_>>().into()
        }
        DataType::Struct(fields) => {
            let object = value.as_object().unwrap();
            let lost = object.iter().filter(|(name, _)| !fields.iter().any(|field| field.name() == *name));
            assert!(!is_whole || lost.clone().all(|(_, value)| !says_anything(value)), "left out: {value}");
            let pair = |field: &Arc<Field>| {
                (field.name().clone(), expected(field.data_type(), object.get(field.name()), is_whole))
            };
            fields.iter().map(pair).collect::<serde_json::Map<_, _>>().into()
        }
        DataType::Timestamp(unit, _) => {
            let time = chrono::DateTime::parse_from_rfc3339(value.as_str().unwrap()).unwrap();
            match unit {
                TimeUnit::Nanosecond => time.timestamp_nanos_opt().unwrap().into(),
                _ => time.timestamp_micros().into(),
            }
        }
        _ => value.to_string().into(),
    }
}

/// Whether a value is anything but null, and lists and objects of nothing else.
fn says_anything(value: &Value) -> bool {
    match value {
        Value::Null => false,
        Value::Array(values) => values.iter().any(says_anything),
        Value::Object(fields) => fields.values().any(says_anything),
        _ => true,
    }
}

/// The rows as one struct column, with the record that each came from.
fn rows_of(decoded: &Decoded) -> Vec<(usize, ArrayRef, usize)> {
    let Some(batch) = &decoded.batch else { return Vec::new() };
    let Origin::Records { rows, .. } = &batch.origin else { panic!("the records are known") };
    let whole: ArrayRef = Arc::new(arrow_array::StructArray::from(batch.rows.clone()));
    rows.values().iter().enumerate().map(|(row, record)| (*record as usize, Arc::clone(&whole), row)).collect()
}

proptest! {
    /// Guarantees: with a declared schema exactly the records that fit become rows, with exactly their values.
    #[test]
    fn declared_columns_hold_what_fits(
        types in vec((data_type(), any::<bool>()), 1..4),
        records in vec(object(value()), 1..8),
    ) {
        let fields = fields_of(types);
        let record_texts: Vec<String> = records.iter().map(|record| Value::from(record.clone()).to_string()).collect();
        let record_texts: Vec<&str> = record_texts.iter().map(String::as_str).collect();
        let mut decoder = decoder(Some(fields.clone()), OnNewField::Ignore);
        // Twice, since columns are used again.
        for _ in 0..2 {
            let decoded = decoder.decode(&texts(&record_texts));
            let rows = rows_of(&decoded);
            let kept: Vec<usize> = rows.iter().map(|(record, ..)| *record).collect();
            let fitting: Vec<usize> = (0..records.len())
                .filter(|number| fields.iter().all(|field| fits(field, records[*number].get(field.name()))))
                .collect();
            prop_assert_eq!(kept, fitting, "{:?}", refused(&decoded));
            for (record, whole, row) in rows {
                let record = Value::from(records[record].clone());
                prop_assert_eq!(found(&whole, row), expected(whole.data_type(), Some(&record), false));
            }
        }
    }

    /// Guarantees: with an inferred schema each record is either refused, or a row that says all that the record did.
    #[test]
    fn inferred_columns_lose_nothing(batches in vec(vec(object(value()), 1..6), 1..4), reject in any::<bool>()) {
        let change = if reject { OnTypeChange::Reject } else { OnTypeChange::Widen };
        let mut decoder = Decoder::new(&config(None, OnNewField::Add, change)).unwrap();
        for records in batches {
            let record_texts: Vec<String> = records.iter().map(|record| Value::from(record.clone()).to_string()).collect();
            let decoded = decoder.decode(&texts(&record_texts.iter().map(String::as_str).collect::<Vec<_>>()));
            let rows = rows_of(&decoded);
            let refused: usize = decoded.rejected.iter().map(|rejection| rejection.rows.len()).sum();
            prop_assert_eq!(rows.len() + refused, records.len());
            for (record, whole, row) in rows {
                let record = Value::from(records[record].clone());
                prop_assert_eq!(found(&whole, row), expected(whole.data_type(), Some(&record), true));
            }
        }
    }

    /// Guarantees: what is called bad JSON is bad JSON, and what becomes a row is JSON; whether a field has a column, is
    /// left out or makes a new column.
    #[test]
    fn bad_json_is_what_serde_json_calls_so(
        record in object(value()),
        edits in vec((any::<prop::sample::Index>(), "[\\[\\]{}:,\"a0-9.eE+\\-\\\\ntrue \\x00]"), 0..3),
    ) {
        let mut bytes = Value::from(record).to_string().into_bytes();
        for (at, character) in edits {
            let at = at.index(bytes.len());
            bytes[at] = character.as_bytes()[0];
        }
        let is_json = serde_json::from_slice::<Value>(&bytes).is_ok();
        // Between the two: floats beyond all floats, which are JSON, and escapes that skipping does not look into. Those
        // are judged in `text.rs`.
        let may_be_json = serde_json::from_slice::<serde::de::IgnoredAny>(&bytes).is_ok();
        let columns = || vec![Field::new("a", DataType::Utf8, true), Field::new("b", DataType::Float64, true)];
        for mut decoder in [
            decoder(Some(columns()), OnNewField::Ignore),
            decoder(Some(columns()), OnNewField::Add),
            decoder(Some(columns()), OnNewField::Reject),
            decoder(None, OnNewField::Add),
        ] {
            let decoded = decoder.decode(&envelope(&[Some(&bytes)]));
            let is_called_bad = decoded.rejected.first().is_some_and(|rejection| rejection.code == "bad-json");
            prop_assert!(if is_called_bad { !is_json } else { may_be_json }, "{:?}", refused(&decoded));
        }
    }

    #[test]
    fn bytes_never_panic(
        bytes in vec(any::<u8>(), 0..60),
        json in "[\\[\\]{}:,\"a0-9.\\\\ntrue ]{0,40}",
        types in vec((data_type(), any::<bool>()), 1..4),
    ) {
        let records = envelope(&[Some(&bytes), Some(json.as_bytes()), Some(b"{\"a\":[{\"b\":1}]}")]);
        for mut decoder in [decoder(None, OnNewField::Add), decoder(Some(fields_of(types)), OnNewField::Add)] {
            for _ in 0..2 {
                let decoded = decoder.decode(&records);
                let rows = decoded.batch.as_ref().map_or(0, |batch| batch.rows.num_rows());
                let refused: usize = decoded.rejected.iter().map(|rejection| rejection.rows.len()).sum();
                // A list is any number of rows.
                let is_list = json.trim_start().starts_with('[') || bytes.trim_ascii_start().starts_with(b"[");
                prop_assert!(is_list || rows + refused == 3);
            }
        }
    }
}
