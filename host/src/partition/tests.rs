//! What splitting promises, for batches of any content.

use arrow_array::{
    Array, BooleanArray, Date32Array, Decimal128Array, DictionaryArray, FixedSizeBinaryArray, Float64Array, Int32Array,
    Int64Array, ListArray, StringArray, StructArray, TimestampMicrosecondArray, TimestampMillisecondArray, UInt64Array,
    cast::AsArray,
    types::{Int32Type, Int64Type},
};
use arrow_buffer::NullBuffer;
use arrow_schema::{DataType, Field, Fields, Schema, extension::Uuid};
use proptest::prelude::*;

use super::*;
use crate::config::{LocalConfig, ParquetConfig, PartitionColumn, SinkKind};

/// A sink that partitions by `columns`; `day(ts)` and the like are transforms.
fn sink(columns: &[&str]) -> SinkConfig {
    let column = |text: &str| {
        let (transform, column) = match text.split_once('(') {
            Some(("year", rest)) => (PartitionTransform::Year, rest.trim_end_matches(')')),
            Some(("month", rest)) => (PartitionTransform::Month, rest.trim_end_matches(')')),
            Some(("day", rest)) => (PartitionTransform::Day, rest.trim_end_matches(')')),
            Some((_, rest)) => (PartitionTransform::Hour, rest.trim_end_matches(')')),
            None => (PartitionTransform::Identity, text),
        };
        PartitionColumn { column: column.to_owned(), transform }
    };
    SinkConfig {
        kind: SinkKind::Local(LocalConfig { base_path: "unused".into() }),
        partition_by: columns.iter().map(|text| column(text)).collect(),
        keep_partition_columns: false,
        parquet: ParquetConfig::default(),
        retry_timeout: std::time::Duration::from_secs(1),
        merge: crate::config::MergeConfig::default(),
    }
}

/// A batch of nullable columns.
fn batch(columns: Vec<(&str, Arc<dyn Array>)>) -> RecordBatch {
    RecordBatch::try_from_iter_with_nullable(columns.into_iter().map(|(name, array)| (name, array, true))).unwrap()
}

/// Splits a batch by columns.
fn split(columns: &[&str], rows: &RecordBatch) -> Split {
    Partitioner::new(&sink(columns), &rows.schema()).unwrap().split(rows).unwrap()
}

/// The names of the directories.
fn names(split: &Split) -> Vec<&str> {
    split.directories.iter().map(|rows| &*rows.directory).collect()
}

/// The directory of the only row of a column of one value.
fn directory_of(column: &str, array: Arc<dyn Array>) -> String {
    let rows = batch(vec![("c", array), ("id", Arc::new(Int64Array::from(vec![1])))]);
    names(&split(&[column], &rows)).join("|")
}

#[test]
fn every_printable_type_becomes_a_directory_as_spark_spells_it() {
    let micros = |value| Arc::new(TimestampMicrosecondArray::from(vec![value]).with_timezone("+02:00"));
    let noon = 1_795_443_912_000_000; // 2026-11-23 14:25:12 UTC
    assert_eq!(directory_of("c", Arc::new(StringArray::from(vec!["a/b"]))), "c=a%2Fb");
    assert_eq!(directory_of("c", Arc::new(Int32Array::from(vec![-7]))), "c=-7");
    assert_eq!(directory_of("c", Arc::new(UInt64Array::from(vec![u64::MAX]))), "c=18446744073709551615");
    assert_eq!(directory_of("c", Arc::new(BooleanArray::from(vec![true]))), "c=true");
    assert_eq!(directory_of("c", Arc::new(Date32Array::from(vec![-1]))), "c=1969-12-31");
    assert_eq!(directory_of("c", Arc::new(Float64Array::from(vec![1.0]))), "c=1.0");
    assert_eq!(directory_of("c", Arc::new(Float64Array::from(vec![f64::INFINITY]))), "c=Infinity");
    let decimal = Decimal128Array::from(vec![1230]).with_precision_and_scale(10, 2).unwrap();
    assert_eq!(directory_of("c", Arc::new(decimal)), "c=12.30");
    let dictionary: DictionaryArray<Int32Type> = vec!["de"].into_iter().collect();
    assert_eq!(directory_of("c", Arc::new(dictionary)), "c=de");
    let id = [0x01, 0x89, 0xfe, 0xdc, 0xba, 0x98, 0x70, 0, 0x80, 0, 0, 0, 0, 0, 0, 1];
    let ids = FixedSizeBinaryArray::try_from_iter([id].into_iter()).unwrap();
    let field = Field::new("c", DataType::FixedSizeBinary(16), true);
    let of = |field: Field| {
        let schema = Schema::new(vec![field, Field::new("id", DataType::Int64, true)]);
        RecordBatch::try_new(schema.into(), vec![Arc::new(ids.clone()), Arc::new(Int64Array::from(vec![1]))]).unwrap()
    };
    let rows = of(field.clone().with_extension_type(Uuid));
    assert_eq!(names(&split(&["c"], &rows)), ["c=0189fedc-ba98-7000-8000-000000000001"]);
    assert!(Partitioner::new(&sink(&["c"]), of(field).schema_ref()).is_err(), "bytes that nobody calls a UUID");
    assert_eq!(directory_of("c", micros(noon)), "c=2026-11-23 14%3A25%3A12");
    assert_eq!(directory_of("c", micros(noon + 120_000)), "c=2026-11-23 14%3A25%3A12.12");
    assert_eq!(directory_of("year(c)", micros(noon)), "c_year=2026");
    assert_eq!(directory_of("month(c)", micros(noon)), "c_month=2026-11");
    assert_eq!(directory_of("day(c)", micros(noon)), "c_day=2026-11-23");
    assert_eq!(directory_of("hour(c)", micros(noon)), "c_hour=2026-11-23-14");
    assert_eq!(directory_of("hour(c)", micros(-1)), "c_hour=1969-12-31-23");
    assert_eq!(directory_of("day(c)", Arc::new(Date32Array::from(vec![20_780]))), "c_day=2026-11-23");
    assert_eq!(directory_of("c", Arc::new(StringArray::from(vec![None::<&str>]))), "c=__HIVE_DEFAULT_PARTITION__");
}

#[test]
fn null_and_the_empty_string_share_a_directory_and_days_of_a_year_too() {
    let rows = batch(vec![
        ("c", Arc::new(StringArray::from(vec![Some(""), Some("x"), None]))),
        ("id", Arc::new(Int64Array::from(vec![1, 2, 3]))),
    ]);
    let result = split(&["c"], &rows);
    assert_eq!(names(&result), ["c=__HIVE_DEFAULT_PARTITION__", "c=x"]);
    assert_eq!(result.directories[0].rows.column(0).as_primitive::<Int64Type>().values(), &[1, 3]);

    let rows = batch(vec![("c", Arc::new(Date32Array::from(vec![20_780, 20_781, 0])))]);
    assert_eq!(names(&split(&["year(c)"], &rows)), ["c_year=2026", "c_year=1970"]);
}

#[test]
fn whole_columns_are_left_out_and_transformed_and_nested_ones_stay() {
    let device = Fields::from(vec![Field::new("os", DataType::Utf8, true), Field::new("age", DataType::Int64, true)]);
    let os: Arc<dyn Array> = Arc::new(StringArray::from(vec![Some("linux"), Some("hidden"), None]));
    let ages: Arc<dyn Array> = Arc::new(Int64Array::from(vec![1, 2, 3]));
    let nulls = NullBuffer::from(vec![true, false, true]);
    let rows = batch(vec![
        ("country", Arc::new(StringArray::from(vec!["DE", "DE", "DE"]))),
        ("ts", Arc::new(TimestampMillisecondArray::from(vec![0, 0, 0]))),
        ("device", Arc::new(StructArray::new(device, vec![os, ages], Some(nulls)))),
    ]);
    let partitioner = Partitioner::new(&sink(&["country", "day(ts)", "device.os"]), &rows.schema()).unwrap();
    let kept: Vec<&str> = partitioner.file_schema().fields().iter().map(|field| field.name().as_str()).collect();
    assert_eq!(kept, ["ts", "device"]);
    let result = partitioner.split(&rows).unwrap();
    assert_eq!(
        names(&result),
        [
            "country=DE/ts_day=1970-01-01/device.os=linux",
            "country=DE/ts_day=1970-01-01/device.os=__HIVE_DEFAULT_PARTITION__"
        ]
    );
    assert_eq!(result.directories[1].rows.num_rows(), 2, "a null struct has no value, whatever lies beneath");
    assert_eq!(result.directories[1].rows.schema_ref(), partitioner.file_schema());

    let kept = SinkConfig { keep_partition_columns: true, ..sink(&["country"]) };
    assert_eq!(Partitioner::new(&kept, &rows.schema()).unwrap().file_schema(), rows.schema_ref());
}

#[test]
fn a_batch_of_one_value_is_not_copied() {
    let rows =
        batch(vec![("c", Arc::new(StringArray::from(vec!["x", "x"]))), ("id", Arc::new(Int64Array::from(vec![1, 2])))]);
    let result = split(&["c"], &rows);
    let before = rows.column(1).as_primitive::<Int64Type>().values().as_ptr();
    assert_eq!(result.directories[0].rows.column(0).as_primitive::<Int64Type>().values().as_ptr(), before);
}

#[test]
fn directory_names_are_shared_from_batch_to_batch() {
    let rows =
        batch(vec![("c", Arc::new(StringArray::from(vec!["x", "y"]))), ("id", Arc::new(Int64Array::from(vec![1, 2])))]);
    let partitioner = Partitioner::new(&sink(&["c"]), &rows.schema()).unwrap();
    let (first, second) = (partitioner.split(&rows).unwrap(), partitioner.split(&rows).unwrap());
    assert!(Arc::ptr_eq(&first.directories[1].directory, &second.directories[1].directory));
}

#[test]
fn values_that_cannot_be_a_directory_are_rejected_alone() {
    let long = "x".repeat(300);
    let rows = batch(vec![
        ("c", Arc::new(StringArray::from(vec!["a", &long, "b", "a"]))),
        ("ts", Arc::new(TimestampMillisecondArray::from(vec![0, 0, i64::MAX, 0]))),
    ]);
    let result = split(&["c", "day(ts)"], &rows);
    assert_eq!(names(&result), ["c=a/ts_day=1970-01-01"]);
    assert_eq!(result.directories[0].rows.num_rows(), 2);
    let codes: Vec<_> = result.rejected.iter().map(|one| (one.code.as_str(), one.rows.as_slice())).collect();
    assert_eq!(codes, [("partition-value-too-long", &[1][..]), ("partition-value-out-of-range", &[2][..])]);
    assert!(result.rejected[1].message.contains("`ts`"), "{}", result.rejected[1].message);
}

#[test]
fn ten_thousand_values_in_one_batch_are_ten_thousand_directories() {
    let values: Vec<String> = (0..20_000).map(|number| format!("v{}", number % 10_000)).collect();
    let rows = batch(vec![
        ("c", Arc::new(StringArray::from(values))),
        ("id", Arc::new(Int64Array::from_iter_values(0..20_000))),
    ]);
    let result = split(&["c"], &rows);
    assert_eq!(result.directories.len(), 10_000);
    assert_eq!(&*result.directories[9_999].directory, "c=v9999");
    assert_eq!(result.directories[9_999].rows.column(0).as_primitive::<Int64Type>().values(), &[9_999, 19_999]);
}

#[test]
fn a_column_that_is_not_there_or_cannot_be_a_directory_is_named() {
    let list = ListArray::from_iter_primitive::<Int64Type, _, _>(vec![Some(vec![Some(1)])]);
    let rows = batch(vec![("tags", Arc::new(list)), ("name", Arc::new(StringArray::from(vec!["x"])))]);
    let error = |column: &str| Partitioner::new(&sink(&[column]), &rows.schema()).unwrap_err().to_string();
    assert!(error("nmae").contains("`nmae`") && error("nmae").contains("tags, name"), "{}", error("nmae"));
    assert!(error("tags").contains("`tags`") && error("tags").contains("utf8"), "{}", error("tags"));
    assert!(error("day(name)").contains("day(name)") && error("day(name)").contains("Utf8"), "{}", error("day(name)"));
    assert!(error("name.first").contains("`name.first`"));

    let only = Schema::new(vec![Field::new("name", DataType::Utf8, true)]);
    let error = Partitioner::new(&sink(&["name"]), &Arc::new(only)).unwrap_err().to_string();
    assert!(error.contains("keep_partition_columns"), "{error}");
}

#[test]
fn a_column_named_as_a_transform_s_directory_is_refused() {
    let fields = vec![Field::new("ts", DataType::Date32, true), Field::new("ts_day", DataType::Utf8, true)];
    let error = Partitioner::new(&sink(&["day(ts)"]), &Arc::new(Schema::new(fields))).unwrap_err().to_string();
    assert!(error.contains("`ts_day`"), "{error}");
}

/// One row: a text, a number, a time in milliseconds.
type Row = (Option<String>, Option<i64>, Option<i64>);

/// A batch of such rows, numbered.
fn numbered(rows: &[Row]) -> RecordBatch {
    batch(vec![
        ("text", Arc::new(rows.iter().map(|row| row.0.clone()).collect::<StringArray>())),
        ("number", Arc::new(rows.iter().map(|row| row.1).collect::<Int64Array>())),
        ("ts", Arc::new(rows.iter().map(|row| row.2).collect::<TimestampMillisecondArray>())),
        ("id", Arc::new(Int64Array::from_iter_values(0..i64::try_from(rows.len()).unwrap()))),
    ])
}

/// What a level's directory should say about a row, unescaped.
fn expected(level: &str, row: &Row) -> String {
    let value = match level {
        "text" => row.0.clone().filter(|text| !text.is_empty()),
        "number" => row.1.map(|number| number.to_string()),
        _ => row.2.map(|ms| chrono::DateTime::from_timestamp_millis(ms).unwrap().format("%Y-%m-%d-%H").to_string()),
    };
    let name = if level == "hour(ts)" { "ts_hour" } else { level };
    format!("{name}={}", value.unwrap_or_else(|| path::NULL_VALUE.to_owned()))
}

proptest! {
    #[test]
    fn every_row_is_in_the_directory_of_its_own_value(
        rows in proptest::collection::vec(
            (
                proptest::option::of(prop_oneof!["[a-c]{0,2}", "[ -~]{0,6}", any::<String>()]),
                proptest::option::of(-3_i64..3),
                proptest::option::of(-4_000_000_000_i64..4_000_000_000_000),
            ),
            1..60,
        ),
        levels in proptest::sample::subsequence(vec!["text", "number", "hour(ts)"], 0..=3),
    ) {
        let result = split(&levels, &numbered(&rows));
        let mut seen = vec![0; rows.len()];
        let mut directories = HashSet::new();
        for PartitionedRows { directory, rows: part } in &result.directories {
            prop_assert!(directories.insert(Arc::clone(directory)), "{} twice", directory);
            let ids = part.column_by_name("id").unwrap().as_primitive::<Int64Type>().values().to_vec();
            prop_assert!(ids.is_sorted(), "rows of a directory keep their order");
            for (at, id) in ids.iter().enumerate() {
                let row = usize::try_from(*id).unwrap();
                seen[row] += 1;
                let said: Vec<String> = directory.split('/').filter(|part| !part.is_empty()).map(path::unescape).collect();
                let wanted: Vec<String> = levels.iter().map(|level| expected(level, &rows[row])).collect();
                prop_assert_eq!(said, wanted);
                if let Some(text) = part.column_by_name("text") {
                    let text = text.as_string::<i32>();
                    prop_assert_eq!(text.is_valid(at).then(|| text.value(at).to_owned()), rows[row].0.clone());
                }
            }
        }
        for rejection in &result.rejected {
            for row in &rejection.rows {
                seen[*row as usize] += 1;
                prop_assert!(rows[*row as usize].0.as_ref().is_some_and(|text| text.len() > 80));
            }
        }
        prop_assert!(seen.iter().all(|times| *times == 1), "{:?}", seen);
    }
}
