//! Answers: healthy ones become rows, broken ones become dead letters in words that name the fault.

use std::sync::Arc;

use arrow_array::{ArrayRef, Int64Array, RecordBatch, StringArray, UInt32Array};
use arrow_schema::{DataType, Field, Schema};
use fs_data_sink::{
    batch::Origin,
    config::OnReject,
    plugin::{ChainOutput, FlushReason},
};
use serde_json::{Value, json};

use crate::support::{
    assert_refused, batch, commit, hex, hostile, numbers, open, rows, run, schema, schema_stream, stream, stream_bytes,
};

/// The input schema and one more column.
fn extended_schema() -> Schema {
    let schema = schema();
    let mut fields: Vec<_> = schema.fields().iter().cloned().collect();
    fields.push(Arc::new(Field::new("browser", DataType::Utf8, true)));
    Schema::new(fields)
}

/// A batch of the one new column.
fn browsers(count: usize) -> RecordBatch {
    let values = (0..count).map(|row| (row % 4 != 0).then(|| format!("browser {row}"))).collect::<StringArray>();
    RecordBatch::try_from_iter_with_nullable([("browser", Arc::new(values) as ArrayRef, true)]).unwrap()
}

/// An answer with the given keys.
async fn answer(keys: Value) -> ChainOutput {
    let mut crime = json!({"crime": "answer"});
    crime.as_object_mut().unwrap().extend(keys.as_object().unwrap().clone());
    commit(crime).await
}

/// Record numbers of the rows that went on.
fn records(output: &ChainOutput) -> Vec<u32> {
    let [batch] = output.batches.as_slice() else { panic!("{output:?}") };
    let Origin::Records { rows, .. } = &batch.origin else { panic!("{output:?}") };
    rows.values().to_vec()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_filter_reads_one_column_and_its_rows_keep_their_records() {
    let output = commit(json!({"crime": "keep-even", "column": 0})).await;
    assert_eq!(numbers(rows(&output)), [0, 2, 4, 6, 8]);
    assert_eq!(records(&output), [9, 7, 5, 3, 1]);
    let output = answer(json!({"keep": "none"})).await;
    assert!(output.batches.is_empty() && output.rejected.is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn extend_adds_a_column_by_ipc_and_by_raw_buffers() {
    let declared = schema_stream(&extended_schema());
    let by_ipc = answer(json!({
        "output_schema": declared, "payload": "extend", "keep": "ff01", "stream": stream(&browsers(9)),
    }))
    .await;
    assert_eq!(rows(&by_ipc).schema_ref().as_ref(), &extended_schema());
    assert_eq!(rows(&by_ipc).column(3), browsers(9).column(0));
    assert_eq!(numbers(rows(&by_ipc)), (0..9).collect::<Vec<_>>());
    let offsets: Vec<u8> = [0_i32, 1, 1, 3].iter().flat_map(|offset| offset.to_le_bytes()).collect();
    let by_buffers = answer(json!({
        "output_schema": declared, "payload": "extend-columns", "keep": "0700",
        "columns": [{"name": "browser", "format": "u", "length": 3, "null_count": 1, "validity": "05",
                     "offsets": hex(&offsets), "data": hex(b"aff")}],
    }))
    .await;
    let wanted: ArrayRef = Arc::new(StringArray::from(vec![Some("a"), None, Some("ff")]));
    assert_eq!(rows(&by_buffers).column(3), &wanted);
    assert_eq!(records(&by_buffers), [9, 8, 7]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn replace_answers_rows_of_its_own() {
    let made = RecordBatch::try_from_iter([("n", Arc::new(Int64Array::from_iter_values(50..75)) as ArrayRef)]).unwrap();
    let declared = schema_stream(made.schema_ref());
    let output = answer(json!({"output_schema": declared, "payload": "replace", "stream": stream(&made)})).await;
    assert_eq!(rows(&output), &made);
    assert!(matches!(output.batches[0].origin, Origin::Replaced));
    let data: Vec<u8> = (7_i64..9).flat_map(i64::to_le_bytes).collect();
    let columns = json!([{"name": "n", "format": "l", "length": 2, "null_count": 0, "data": hex(&data)}]);
    let output = answer(json!({"output_schema": declared, "payload": "replace-columns", "columns": columns})).await;
    assert_eq!(numbers(rows(&output)), [7, 8]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_chain_passes_schemas_and_rows_on() {
    let enrich = hostile(&json!({
        "crime": "answer", "output_schema": schema_stream(&extended_schema()), "payload": "extend",
        "stream": stream(&browsers(10)),
    }));
    let mut chain = open(&[enrich, hostile(&json!({"crime": "keep-even", "column": 0}))]).await.unwrap();
    assert_eq!(chain.output_schema().as_ref(), &extended_schema());
    let output = chain.process(batch()).await.unwrap();
    assert_eq!(numbers(rows(&output)), [0, 2, 4, 6, 8]);
    let kept = UInt32Array::from(vec![0, 2, 4, 6, 8]);
    assert_eq!(rows(&output).column(3), &arrow_select::take::take(browsers(10).column(0), &kept, None).unwrap());
    chain.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rejected_rows_leave_with_their_records_code_and_message() {
    let keys = json!({"crime": "answer", "keep": "fe03",
                      "rejected": [{"code": "bad-json", "message": "at 7", "rows": [4, 2]}]});
    let output = commit(keys.clone()).await;
    assert_eq!(numbers(&output.batches[0].rows), [1, 3, 5, 6, 7, 8, 9]);
    let [(given, rejection)] = output.rejected.as_slice() else { panic!("{output:?}") };
    assert_eq!((rejection.code.as_str(), rejection.message.as_str()), ("bad-json", "at 7"));
    let letters = given.dead_letters(rejection);
    let offsets: Vec<_> = letters.iter().map(|letter| letter.record.as_ref().unwrap().offset).collect();
    assert_eq!(offsets, [107, 105]);
    let mut plugin = hostile(&keys);
    plugin.on_reject = OnReject::Drop;
    let output = run(plugin.clone()).await.unwrap();
    assert!(output.rejected.is_empty() && output.batches[0].rows.num_rows() == 7);
    plugin.on_reject = OnReject::Fail;
    let message = run(plugin).await.unwrap_err().to_string();
    assert!(message.ends_with("bad-json: at 7"), "{message}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn flush_may_only_replace() {
    let declared = json!({"crime": "answer-in-flush", "payload": "replace", "stream": stream(&batch().rows)});
    let mut chain = open(&[hostile(&declared)]).await.unwrap();
    assert_eq!(rows(&chain.process(batch()).await.unwrap()).num_rows(), 10);
    assert_eq!(rows(&chain.flush(FlushReason::EndOfInput).await.unwrap()), &batch().rows);
    let extend = json!({"crime": "answer-in-flush", "payload": "extend", "stream": stream(&batch().rows)});
    let mut chain = open(&[hostile(&extend)]).await.unwrap();
    assert_eq!(rows(&chain.process(batch()).await.unwrap()).num_rows(), 10);
    assert!(chain.flush(FlushReason::Checkpoint).await.unwrap().batches.is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn broken_selections_and_rejections_are_refused() {
    let reject = |rows: Value| json!({"rejected": [{"code": "bad", "message": "", "rows": rows}]});
    for (keys, words) in [
        (json!({"keep": "ff"}), "answered a selection bitmap of 1 bytes for 10 rows; it must have 2"),
        (json!({"keep": "ffffff"}), "answered a selection bitmap of 3 bytes for 10 rows; it must have 2"),
        (json!({"keep": "ff07"}), "answered a selection bitmap with bits set behind row 10"),
        (reject(json!([10])), "rejected row 10 of a batch of 10 rows"),
        (reject(json!([3, 3])), "rejected row 3 twice"),
        (json!({"rejected": [{"code": "Bad code\n", "message": "", "rows": [1]}]}), "rejection with code `Bad code"),
        (json!({"rejected": vec![json!({"code": "bad", "message": "", "rows": []}); 11]}), "11 rejections for 10 rows"),
    ] {
        assert_refused(&answer(keys).await, "plugin-bad-output", words);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn broken_streams_are_refused() {
    let declared = schema_stream(&extended_schema());
    let good = stream_bytes(&browsers(10));
    let other = RecordBatch::try_from_iter([("browser", Arc::new(Int64Array::from(vec![0; 10])) as ArrayRef)]).unwrap();
    let unknown = RecordBatch::try_from_iter([("os", Arc::clone(browsers(10).column(0)))]).unwrap();
    for (bytes, words) in [
        (b"garbage that is no stream".to_vec(), "answered bytes that are not an Arrow IPC stream"),
        (Vec::new(), "answered an Arrow IPC stream without a schema"),
        (good[..good.len() / 2].to_vec(), "answered an Arrow IPC stream that is cut short"),
        ([good.clone(), vec![0; 8]].concat(), "answered bytes behind the end of an Arrow IPC stream"),
        (stream_bytes(&browsers(9)), "answered `extend` with 9 rows for 10 kept rows"),
        (stream_bytes(&browsers(11)), "answered `extend` with 11 rows for 10 kept rows"),
        (stream_bytes(&browsers(101)), "answered more than 100 rows (limits.output_rows)"),
        (stream_bytes(&other), "answered column `browser` as Int64; it declared Utf8"),
        (stream_bytes(&unknown), "answered column `os`, which its output schema does not have"),
        (vec![0xff; 1 << 20 | 1], "answered more than 1048576 bytes (limits.output_bytes)"),
    ] {
        let keys = json!({"output_schema": declared, "payload": "extend", "stream": hex(&bytes)});
        assert_refused(&answer(keys).await, "plugin-bad-output", words);
    }
    let nothing = json!({"output_schema": declared, "payload": "unchanged"});
    let words = "declared column `browser` in its output schema and did not answer it";
    assert_refused(&answer(nothing).await, "plugin-bad-output", words);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn replace_must_keep_to_the_declared_schema() {
    let two = RecordBatch::try_from_iter([
        ("n", Arc::new(Int64Array::from(vec![1])) as ArrayRef),
        ("m", Arc::new(Int64Array::from(vec![1])) as ArrayRef),
    ])
    .unwrap();
    let one = two.project(&[0]).unwrap();
    let keys = json!({"output_schema": schema_stream(one.schema_ref()), "payload": "replace", "stream": stream(&two)});
    assert_refused(
        &answer(keys).await,
        "plugin-bad-output",
        "answered columns (n, m) where it declared (n) as its output schema",
    );
    let nullable = RecordBatch::try_from_iter_with_nullable([(
        "n",
        Arc::new(Int64Array::from(vec![None::<i64>])) as ArrayRef,
        true,
    )])
    .unwrap();
    let keys =
        json!({"output_schema": schema_stream(one.schema_ref()), "payload": "replace", "stream": stream(&nullable)});
    assert_refused(&answer(keys).await, "plugin-bad-output", "answered rows that do not fit its output schema");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn broken_raw_columns_are_refused() {
    let declared = schema_stream(&extended_schema());
    let offsets = |offsets: &[i32]| hex(&offsets.iter().flat_map(|offset| offset.to_le_bytes()).collect::<Vec<_>>());
    let rising: Vec<i32> = (0..=10).collect();
    let falling: Vec<i32> = (0..=10).rev().collect();
    let past: Vec<i32> = (0..=10).map(|offset| offset * 5).collect();
    let column = |change: Value| {
        let mut column = json!({"name": "browser", "format": "u", "length": 10, "null_count": 0,
                                "offsets": offsets(&rising), "data": hex(b"0123456789")});
        column.as_object_mut().unwrap().extend(change.as_object().unwrap().clone());
        json!({"output_schema": declared, "payload": "extend-columns", "columns": [column]})
    };
    assert_eq!(rows(&answer(column(json!({}))).await).num_rows(), 10);
    for (change, words) in [
        (json!({"offsets": offsets(&falling)}), "buffers that cannot be read"),
        (json!({"offsets": offsets(&past)}), "buffers that cannot be read"),
        (json!({"offsets": offsets(&rising[1..])}), "offsets that are missing or not one more than its rows"),
        (json!({"offsets": null}), "offsets that are missing or not one more than its rows"),
        (json!({"data": "ff".repeat(10)}), "buffers that cannot be read"),
        (json!({"null_count": 1}), "a null count that is not that of its validity bitmap"),
        (json!({"null_count": 1, "validity": "00"}), "a validity bitmap that is too short"),
        (json!({"format": "g"}), "as Float64; it declared Utf8"),
        (json!({"format": "+l"}), "in format `+l`, which has no raw form"),
        (json!({"length": 11, "offsets": offsets(&(0..12).collect::<Vec<_>>())}), "buffers that cannot be read"),
        (json!({"length": 4_000_000_000_u32}), "answered more than 100 rows"),
    ] {
        assert_refused(&answer(column(change)).await, "plugin-bad-output", words);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_output_schema_is_checked_before_data_flows() {
    let null = Schema::new(vec![Field::new("nothing", DataType::Null, true)]);
    for (bytes, words) in [
        (schema_stream(&null), "answered column `nothing` of type Null, which plugins may not answer"),
        (stream(&batch().rows), "answered more than a schema as its output schema"),
        (hex(b"garbage!"), "answered bytes that are not an Arrow IPC stream"),
    ] {
        let message = run(hostile(&json!({"crime": "answer", "output_schema": bytes}))).await.unwrap_err().to_string();
        assert!(message.contains("cannot start: it ") && message.contains(words), "{message}");
    }
}
