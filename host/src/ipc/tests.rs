//! Streams of other writers, streams that attack, and many streams that were changed at random.
//!
//! `testdata/` was written by pyarrow 26: every type that a plugin may answer, with nulls, sliced and empty; and types
//! and compression that it may not.

use std::sync::Arc;

use arrow_array::{
    Array, ArrayRef, BooleanArray, Decimal128Array, DictionaryArray, FixedSizeBinaryArray, Float64Array, Int64Array,
    RecordBatch, StringArray, StructArray, TimestampMicrosecondArray, UInt32Array,
    builder::{Int32Builder, ListBuilder},
    types::Int32Type,
};
use arrow_ipc::writer::StreamWriter;
use arrow_schema::{DataType, Field, Schema};

use super::{Caps, Refused, Writer, read_rows, read_schema};

/// Large enough for all streams here.
const CAPS: Caps = Caps { rows: 10_000, bytes: 1 << 20, logical_bytes: 1 << 20 };

/// A stream of some batches.
fn stream(batches: &[RecordBatch]) -> Vec<u8> {
    let mut writer = StreamWriter::try_new(Vec::new(), batches[0].schema_ref()).unwrap();
    for batch in batches {
        writer.write(batch).unwrap();
    }
    writer.into_inner().unwrap()
}

/// Reads a stream whose schema does not matter.
fn read(stream: Vec<u8>) -> Result<Vec<RecordBatch>, Refused> {
    read_rows(stream, Writer::Plugin, CAPS, |_| Ok(()))
}

/// The words with which a stream is refused.
fn refusal(stream: Vec<u8>, caps: Caps) -> String {
    read_rows::<Refused>(stream, Writer::Plugin, caps, |_| Ok(())).unwrap_err().to_string()
}

/// A batch of one column.
fn one(column: ArrayRef) -> RecordBatch {
    RecordBatch::try_from_iter_with_nullable([("x", column, true)]).unwrap()
}

/// Ten columns of different shapes.
fn mixed(rows: i32) -> RecordBatch {
    let every = |step: i32| (0..rows).map(move |row| (row % step != 0).then_some(row));
    let mut lists = ListBuilder::new(Int32Builder::new());
    every(5).for_each(|row| match row {
        Some(row) => lists.append_value((0..row % 4).map(Some)),
        None => lists.append_null(),
    });
    let wide = every(3).map(|row| row.map(i32::to_le_bytes));
    let keys: DictionaryArray<Int32Type> =
        every(4).map(|row| row.map(|row| ["a", "b", "c"][usize::try_from(row).unwrap() % 3])).collect();
    let inner: ArrayRef = Arc::new(every(2).map(|row| row.map(|row| format!("inner {row}"))).collect::<StringArray>());
    RecordBatch::try_from_iter_with_nullable([
        ("int", Arc::new(every(3).map(|row| row.map(i64::from)).collect::<Int64Array>()) as ArrayRef, true),
        ("float", Arc::new((0..rows).map(f64::from).collect::<Float64Array>()), false),
        ("text", Arc::new(every(7).map(|row| row.map(|row| format!("text {row}"))).collect::<StringArray>()), true),
        ("bool", Arc::new(every(6).map(|row| row.map(|row| row % 2 == 0)).collect::<BooleanArray>()), true),
        ("time", Arc::new(every(9).map(|row| row.map(i64::from)).collect::<TimestampMicrosecondArray>()), true),
        ("decimal", Arc::new(every(2).map(|row| row.map(i128::from)).collect::<Decimal128Array>()), true),
        ("fixed", Arc::new(FixedSizeBinaryArray::try_from_sparse_iter_with_size(wide, 4).unwrap()), true),
        ("list", Arc::new(lists.finish()), true),
        ("struct", Arc::new(StructArray::from(vec![(Arc::new(Field::new("a", DataType::Utf8, true)), inner)])), true),
        ("dictionary", Arc::new(keys), true),
    ])
    .unwrap()
}

#[test]
fn what_arrow_rs_writes_is_read_back_equal() {
    for batch in [mixed(100), mixed(1), mixed(0), mixed(100).slice(13, 21)] {
        assert_eq!(read(stream(std::slice::from_ref(&batch))).unwrap(), [batch]);
    }
    let two = [mixed(3), mixed(3)];
    assert_eq!(read(stream(&two)).unwrap(), two);
    let mut without_end = stream(&[mixed(3)]);
    without_end.truncate(without_end.len() - 8);
    assert_eq!(read(without_end).unwrap(), [mixed(3)]);
}

#[test]
fn what_pyarrow_writes_is_read() {
    let whole = read(include_bytes!("testdata/pyarrow.arrows").to_vec()).unwrap();
    let [whole] = whole.as_slice() else { panic!("one batch") };
    assert_eq!((whole.num_rows(), whole.num_columns()), (11, 14));
    assert!(whole.columns().iter().all(|column| column.is_null(3) && column.is_valid(4)));
    let sliced = read(include_bytes!("testdata/pyarrow_sliced.arrows").to_vec()).unwrap();
    assert_eq!(sliced, [whole.slice(3, 5)]);
    let empty = read(include_bytes!("testdata/pyarrow_empty.arrows").to_vec()).unwrap();
    assert_eq!(empty.iter().map(RecordBatch::num_rows).sum::<usize>(), 0);
}

#[test]
fn compression_views_and_run_ends_are_refused_before_they_are_decoded() {
    for (bytes, words) in [
        (include_bytes!("testdata/lz4.arrows").as_slice(), "compressed Arrow data; it must not be compressed"),
        (include_bytes!("testdata/zstd.arrows"), "compressed Arrow data; it must not be compressed"),
        (include_bytes!("testdata/views.arrows"), "of type Utf8View, which is not supported"),
        (include_bytes!("testdata/run_end.arrows"), "which is not supported"),
    ] {
        let message = refusal(bytes.to_vec(), CAPS);
        assert!(message.contains(words), "{message}");
    }
}

#[test]
fn rows_bytes_and_unpacked_dictionaries_are_capped() {
    let rows = Caps { rows: 99, ..CAPS };
    assert_eq!(refusal(stream(&[mixed(100)]), rows), "more than 99 rows");
    assert_eq!(refusal(stream(&[mixed(50), mixed(50)]), rows), "more than 99 rows");
    let bytes = Caps { bytes: 1000, ..CAPS };
    assert_eq!(refusal(stream(&[mixed(100)]), bytes), "more than 1000 bytes");
    // 100 KB that 100 keys select 100 times: 10 MB.
    let long = "x".repeat(100_000);
    let keys: DictionaryArray<Int32Type> = (0..100).map(|_| Some(long.as_str())).collect();
    let stream = stream(&[one(Arc::new(keys))]);
    assert_eq!(refusal(stream.clone(), CAPS), "more than 1048576 bytes, with dictionaries and views unpacked");
    let logical = Caps { logical_bytes: 10_000_000, ..CAPS };
    assert_eq!(read_rows::<Refused>(stream, Writer::Plugin, logical, |_| Ok(())).unwrap().len(), 1);
}

#[test]
fn a_dictionary_comes_once_and_whole() {
    let options = arrow_ipc::writer::IpcWriteOptions::default()
        .with_dictionary_handling(arrow_ipc::writer::DictionaryHandling::Delta);
    let batch = |values: &[&str]| -> RecordBatch {
        let values = StringArray::from(values.to_vec());
        let keys = (0..values.len()).map(|key| i32::try_from(key).unwrap()).collect::<arrow_array::Int32Array>();
        one(Arc::new(DictionaryArray::new(keys, Arc::new(values))))
    };
    let first = batch(&["a"]);
    let mut writer = StreamWriter::try_new_with_options(Vec::new(), first.schema_ref(), options).unwrap();
    writer.write(&first).unwrap();
    writer.write(&batch(&["a", "b"])).unwrap();
    let message = refusal(writer.into_inner().unwrap(), CAPS);
    assert_eq!(message, "a dictionary twice or in parts");
}

#[test]
fn rows_without_columns_are_refused() {
    let options = arrow_array::RecordBatchOptions::new().with_row_count(Some(1000));
    let batch = RecordBatch::try_new_with_options(Arc::new(Schema::empty()), Vec::new(), &options).unwrap();
    assert_eq!(refusal(stream(&[batch]), CAPS), "rows without a column");
}

#[test]
fn a_schema_alone_is_a_schema_and_rows_are_not() {
    let batch = one(Arc::new(UInt32Array::from(vec![1])));
    let schema = batch.schema();
    let alone = StreamWriter::try_new(Vec::new(), &schema).unwrap().into_inner().unwrap();
    assert_eq!(&read_schema(&alone, &Schema::empty()).unwrap(), schema.as_ref());
    assert_eq!(&read_schema(&alone[..alone.len() - 8], &Schema::empty()).unwrap(), schema.as_ref());
    assert!(read_schema(&stream(&[batch]), &Schema::empty()).is_err());
}

/// A small random number generator, so that a failure can be shown again by its seed.
struct Random(u64);

impl Random {
    /// A number below `end`.
    fn below(&mut self, end: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 >> 11).unwrap() % end
    }
}

#[test]
fn no_changed_stream_makes_the_decoder_panic() {
    // FS_DATA_SINK_MUTATIONS=1000000 looks longer.
    let cases = std::env::var("FS_DATA_SINK_MUTATIONS").ok().and_then(|n| n.parse().ok()).unwrap_or(200_000);
    let seeds = [
        stream(&[mixed(16)]),
        stream(&[mixed(3), mixed(3)]),
        include_bytes!("testdata/pyarrow.arrows").to_vec(),
        include_bytes!("testdata/pyarrow_sliced.arrows").to_vec(),
    ];
    let mut random = Random(0x9e37_79b9_7f4a_7c15);
    let (mut accepted, mut refused) = (0, 0);
    for case in 0..cases {
        let seed = &seeds[case % seeds.len()];
        let mut bytes = seed.clone();
        for _ in 0..=random.below(3) {
            let at = random.below(bytes.len());
            bytes[at] = match random.below(4) {
                0 => 0,
                1 => 0xff,
                2 => bytes[at] ^ (1 << random.below(8)),
                _ => u8::try_from(random.below(256)).unwrap(),
            };
        }
        if random.below(16) == 0 {
            bytes.truncate(random.below(bytes.len()));
        }
        match read(bytes) {
            Ok(batches) => {
                accepted += 1;
                for batch in &batches {
                    assert!(batch.num_rows() <= CAPS.rows);
                    batch.columns().iter().for_each(|column| column.to_data().validate_full().unwrap());
                }
            }
            Err(bad) => {
                refused += 1;
                // `catch_unwind` is the second line: the first one must have been enough.
                assert!(!bad.to_string().contains("cannot cope"), "case {case}: {bad}");
            }
        }
    }
    assert!(accepted > cases / 10 && refused > cases / 10, "{accepted} accepted, {refused} refused");
}
