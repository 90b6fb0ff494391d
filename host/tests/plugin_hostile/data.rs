//! Answers that are odd but no lie, and answers that drift: values come through bit by bit, or not at all.

use std::sync::Arc;

use arrow_array::{
    Array, ArrayRef, Decimal128Array, Float32Array, Float64Array, Int64Array, RecordBatch, StringArray,
    TimestampMicrosecondArray,
};
use arrow_schema::{DataType, Field, Schema};
use parquet::arrow::{ArrowWriter, arrow_reader::ParquetRecordBatchReaderBuilder};
use serde_json::json;

use crate::support::{assert_refused, batch, commit, hex, hostile, open, rows, schema, schema_stream, stream};

/// Values at the edges of their types.
fn edges() -> RecordBatch {
    let doubles = [0x7ff8_0000_0000_0001_u64, 0xfff8_dead_beef_0000, 0x7ff0_0000_0000_0001, 0x8000_0000_0000_0000];
    let singles = [0x7fc0_0001_u32, 0xffc0_beef, 0x7f80_0001, 0x8000_0000];
    let decimal = Decimal128Array::from(vec![10_i128.pow(38) - 1, -(10_i128.pow(38)) + 1, 0, 1]);
    RecordBatch::try_from_iter([
        ("double", Arc::new(Float64Array::from_iter_values(doubles.map(f64::from_bits))) as ArrayRef),
        ("single", Arc::new(Float32Array::from_iter_values(singles.map(f32::from_bits)))),
        ("time", Arc::new(TimestampMicrosecondArray::from(vec![i64::MIN, i64::MAX, 0, -1]))),
        ("decimal", Arc::new(decimal.with_precision_and_scale(38, 0).unwrap())),
    ])
    .unwrap()
}

/// The bits of a column of four rows: floats that are no numbers are not equal to themselves.
fn bits(rows: &RecordBatch) -> Vec<Vec<u8>> {
    rows.columns().iter().map(|column| column.to_data().buffers()[0].as_slice().to_vec()).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn values_at_the_edges_of_their_types_come_through_bit_by_bit_and_out_of_parquet() {
    let output = commit(json!({
        "crime": "answer", "output_schema": schema_stream(edges().schema_ref()), "payload": "replace",
        "stream": stream(&edges()),
    }))
    .await;
    assert_eq!(bits(rows(&output)), bits(&edges()));
    let mut file = Vec::new();
    let mut writer = ArrowWriter::try_new(&mut file, edges().schema(), None).unwrap();
    writer.write(rows(&output)).unwrap();
    writer.close().unwrap();
    let mut reader = ParquetRecordBatchReaderBuilder::try_new(bytes::Bytes::from(file)).unwrap().build().unwrap();
    assert_eq!(bits(&reader.next().unwrap().unwrap()), bits(&edges()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_decimal_beyond_its_precision_is_refused() {
    let declared = Schema::new(vec![Field::new("d", DataType::Decimal128(4, 0), false)]);
    let value = 100_000_i128.to_le_bytes();
    let column = json!([{"name": "d", "format": "d:4,0", "length": 1, "null_count": 0, "data": hex(&value)}]);
    let output = commit(json!({
        "crime": "answer", "output_schema": schema_stream(&declared), "payload": "replace-columns", "columns": column,
    }))
    .await;
    assert_refused(&output, "plugin-bad-output", "answered a decimal in column `d` with more than 4 digits");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_columns_of_one_name_are_refused_in_schema_and_answer() {
    let twice = Schema::new(vec![Field::new("n", DataType::Int64, false), Field::new("n", DataType::Int64, false)]);
    let message = crate::support::run(hostile(&json!({"crime": "answer", "output_schema": schema_stream(&twice)})))
        .await
        .unwrap_err()
        .to_string();
    assert!(
        message.contains("cannot start: it ") && message.contains("a schema with two columns named `n`"),
        "{message}"
    );
    let numbers: ArrayRef = Arc::new(Int64Array::from_iter_values(0..10));
    let rows = RecordBatch::try_new(Arc::new(twice), vec![Arc::clone(&numbers), numbers]).unwrap();
    let output = commit(json!({"crime": "answer", "payload": "extend", "stream": stream(&rows)})).await;
    assert_refused(&output, "plugin-bad-output", "answered a schema with two columns named `n`");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_second_batch_in_another_schema_costs_that_batch() {
    let other = RecordBatch::try_from_iter([("n", Arc::new(StringArray::from(vec!["x"; 10])) as ArrayRef)]).unwrap();
    let drifting = json!({"crime": "answer-from-batch", "batch": 1, "payload": "extend", "stream": stream(&other)});
    let mut chain = open(&[hostile(&drifting)]).await.unwrap();
    assert_eq!(rows(&chain.process(batch()).await.unwrap()).schema(), schema());
    let output = chain.process(batch()).await.unwrap();
    assert_refused(&output, "plugin-bad-output", "answered column `n` as Utf8; it declared Int64");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn schemas_beyond_all_measure_are_refused() {
    let field = |name: String| Field::new(name, DataType::Int64, false);
    let wide = Schema::new((0..10_001).map(|number| field(format!("c{number}"))).collect::<Vec<_>>());
    let long = Schema::new(vec![field("x".repeat(100_000))]);
    let deep = (0..9).fold(DataType::Int64, |inner, _| DataType::List(Arc::new(Field::new("item", inner, true))));
    let deep = Schema::new(vec![Field::new("d", deep, true)]);
    for (declared, words) in [
        (wide, "a schema of more than 10000 fields"),
        (long, "a column name of more than 1024 bytes"),
        (deep, "a type nested deeper than 8 levels"),
    ] {
        let mut plugin = hostile(&json!({"crime": "answer", "output_schema": schema_stream(&declared)}));
        plugin.limits.call_timeout = std::time::Duration::from_secs(20);
        let message = crate::support::run(plugin).await.unwrap_err().to_string();
        assert!(message.contains("cannot start: it answered ") && message.contains(words), "{message}");
    }
}
