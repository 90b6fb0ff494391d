//! What files of all kinds give.

use std::{io::Write as _, path::Path, sync::atomic::AtomicI64};

use ::parquet::arrow::ArrowWriter;
use arrow_array::{ArrayRef, Int64Array};
use arrow_ipc::writer::{FileWriter, StreamWriter};

use super::*;
use crate::{
    config::{Delivery, ErrorHandling, RunConfig, SourceKind},
    memory::MemoryBudget,
    telemetry::metrics::Metrics,
};

/// A lane's context.
fn context(lane: usize, lanes: usize, batches: i64) -> LaneContext {
    LaneContext {
        pipeline: "orders".into(),
        lane,
        lanes,
        run: RunConfig {
            delivery: Delivery::AtLeastOnce,
            commit_interval: Duration::from_secs(60),
            commit_interval_batches: None,
            target_file_size_bytes: 1 << 27,
            target_file_rows: None,
            open_files_max: 10,
            memory_bytes: 1 << 20,
            lanes: None,
            error_handling: ErrorHandling::Log,
            batches_max: None,
            until_end: true,
            shutdown_timeout: Duration::from_secs(1),
        },
        budget: MemoryBudget::new(1 << 20),
        metrics: Metrics::detached(),
        batches_left: Arc::new(AtomicI64::new(batches)),
        moves: Arc::default(),
        takes_over: false,
        io: tokio::runtime::Handle::current(),
    }
}

/// A source of these paths.
fn source_of(paths: Vec<String>) -> (FileConfig, SourceConfig) {
    let config = FileConfig { paths };
    let kind = SourceKind::File(config.clone());
    (config, SourceConfig { kind, batch_rows_max: 2, batch_timeout: Duration::from_secs(9) })
}

/// Everything that a source of these paths gives: file, offset and value; and how it ended.
async fn read(paths: Vec<String>, context: LaneContext) -> (Vec<(String, i64, String)>, String) {
    let (config, source) = source_of(paths);
    let mut stream = start(&config, &source, context).unwrap();
    collect(&mut stream.events).await
}

/// The same of offsets of one file that are read once more.
async fn again(path: &str, from: i64, to: i64) -> (Vec<(String, i64, String)>, String) {
    let mut ranges = CheckpointDelta::default();
    ranges.extend(&SourcePartition::new(path, 0), from, to).unwrap();
    let (_, source) = source_of(vec![path.to_owned()]);
    collect(&mut read_again(&source, &ranges, context(0, 1, i64::MAX))).await
}

/// Everything that comes; a typed row as the text of its first column.
async fn collect(events: &mut mpsc::Receiver<SourceEvent>) -> (Vec<(String, i64, String)>, String) {
    let mut found = Vec::new();
    loop {
        match events.recv().await.unwrap() {
            SourceEvent::Batch(batch) => {
                assert!(batch.envelope.len() <= 2);
                assert_eq!(batch.delta.iter().count(), 1);
                for row in 0..batch.envelope.len() {
                    let record = batch.envelope.record(row).unwrap();
                    let name = record.topic.rsplit('/').next().unwrap().to_owned();
                    let value = match &batch.rows {
                        Some(rows) => {
                            assert_eq!((rows.num_rows(), &record.value), (batch.envelope.len(), &None));
                            assert!(batch.memory.bytes() > 40 * rows.num_rows(), "rows count, too");
                            arrow_cast::display::array_value_to_string(rows.column(0), row).unwrap()
                        }
                        None => String::from_utf8(record.value.unwrap()).unwrap(),
                    };
                    found.push((name, record.offset, value));
                }
            }
            // What came before a failure is committed first.
            SourceEvent::Revoked { partitions, release } => {
                assert!(partitions.is_empty());
                found.push(("committed".to_owned(), 0, String::new()));
                release.send(()).unwrap();
            }
            SourceEvent::End => return (found, "end".to_owned()),
            SourceEvent::Failed(error) => return (found, error.full_message()),
            other => panic!("{other:?}"),
        }
    }
}

/// What one file gives: offsets and values; and how it ended.
async fn read_file(path: &Path) -> (Vec<(i64, String)>, String) {
    let (found, end) = read(vec![path.display().to_string()], context(0, 1, i64::MAX)).await;
    (found.into_iter().map(|(_, offset, value)| (offset, value)).collect(), end)
}

/// Numbers from 0 on as offsets and values.
fn numbers(range: std::ops::Range<i64>) -> Vec<(i64, String)> {
    range.map(|number| (number, number.to_string())).collect()
}

/// A member of a gzip file.
fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

/// Batches of integers.
fn batches(ranges: &[std::ops::Range<i64>]) -> Vec<RecordBatch> {
    let batch = |range: &std::ops::Range<i64>| {
        let column: ArrayRef = Arc::new(Int64Array::from_iter_values(range.clone()));
        RecordBatch::try_from_iter([("n", column)]).unwrap()
    };
    ranges.iter().map(batch).collect()
}

/// The bytes of a Parquet file with a row group for each batch.
fn parquet_of(batches: &[RecordBatch]) -> Vec<u8> {
    let mut writer = ArrowWriter::try_new(Vec::new(), batches[0].schema(), None).unwrap();
    for batch in batches {
        writer.write(batch).unwrap();
        writer.flush().unwrap();
    }
    writer.into_inner().unwrap()
}

/// The bytes of an Arrow file, or of a stream.
fn arrow_of(batches: &[RecordBatch], is_file: bool) -> Vec<u8> {
    if is_file {
        let mut writer = FileWriter::try_new(Vec::new(), batches[0].schema_ref()).unwrap();
        for batch in batches {
            writer.write(batch).unwrap();
        }
        return writer.into_inner().unwrap();
    }
    let mut writer = StreamWriter::try_new(Vec::new(), batches[0].schema_ref()).unwrap();
    for batch in batches {
        writer.write(batch).unwrap();
    }
    writer.into_inner().unwrap()
}

/// Scenario: lines, packed by gzip and zstd, in several members, with a byte order mark.
/// Guarantees: the same lines with the same numbers, whatever the file is called.
#[tokio::test]
async fn packed_lines_are_lines() {
    let folder = tempfile::tempdir().unwrap();
    let text = b"\xef\xbb\xbf0\n1\r\n2\n3";
    let zstd = |bytes: &[u8]| zstd::stream::encode_all(bytes, 1).unwrap();
    let forms = [
        text.to_vec(),
        gzip(text),
        [gzip(&text[..6]), gzip(&text[6..])].concat(),
        zstd(text),
        [zstd(&text[..4]), zstd(b""), zstd(&text[4..])].concat(),
    ];
    for (number, bytes) in forms.iter().enumerate() {
        let path = folder.path().join("name.parquet");
        std::fs::write(&path, bytes).unwrap();
        assert_eq!(read_file(&path).await, (numbers(0..4), "end".to_owned()), "form {number}");
        let (found, end) = again(&path.display().to_string(), 1, 3).await;
        let found: Vec<_> = found.into_iter().map(|(_, offset, value)| (offset, value)).collect();
        assert_eq!((found, end.as_str()), (numbers(1..3), "end"), "form {number}");
    }
}

/// Scenario: packed files that are cut or changed in the middle.
/// Guarantees: the lines before are sent and committed; the error names the file and the line.
#[tokio::test]
async fn a_broken_file_loses_nothing_before_the_break() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("lines.gz");
    let text = (0..100_000).map(|number| number.to_string()).collect::<Vec<_>>().join("\n") + "\n";
    let zstd = zstd::stream::encode_all(text.as_bytes(), 1).unwrap();
    let gzip = gzip(text.as_bytes());
    let mut changed = gzip.clone();
    let last = changed.len() - 6;
    changed[last] ^= 1;
    for bytes in [&gzip[..gzip.len() / 2], &zstd[..zstd.len() - 1], &changed, &[&gzip[..], b"rubbish"].concat()] {
        std::fs::write(&path, bytes).unwrap();
        let (mut found, end) = read_file(&path).await;
        assert_eq!(found.pop(), Some((0, String::new())), "what was read is committed");
        let count = i64::try_from(found.len()).unwrap();
        assert_eq!(found, numbers(0..count));
        let words = format!("{}: line {}: the file cannot be read; the lines before were: ", path.display(), count + 1);
        assert!(end.starts_with(&words), "{end}");
        let (_, end) = again(&path.display().to_string(), 0, i64::MAX).await;
        assert!(end.starts_with(&words), "{end}");
    }
}

/// Scenario: Arrow streams and files, also packed, with batches of any size, one without rows.
/// Guarantees: each row once with its number, in slices of the usual size; a cut file is told with the row.
#[tokio::test]
async fn arrow_rows_have_their_numbers() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("rows");
    let rows = batches(&[0..3, 3..3, 3..4, 4..9]);
    let forms = [arrow_of(&rows, false), arrow_of(&rows, true), gzip(&arrow_of(&rows, false))];
    for bytes in &forms {
        std::fs::write(&path, bytes).unwrap();
        assert_eq!(read_file(&path).await, (numbers(0..9), "end".to_owned()));
        let (found, _) = again(&path.display().to_string(), 2, 5).await;
        assert_eq!(found.into_iter().map(|(_, offset, _)| offset).collect::<Vec<_>>(), [2, 3, 4]);
    }
    for (bytes, rows) in [(&forms[0][..forms[0].len() - 20], 4), (&forms[1][..forms[1].len() - 3], 9)] {
        std::fs::write(&path, bytes).unwrap();
        let (mut found, end) = read_file(&path).await;
        assert_eq!(found.pop(), Some((0, String::new())), "what was read is committed");
        assert_eq!(found, numbers(0..rows));
        let words =
            format!("{}: from row {rows} on the Arrow data cannot be read; the rows before were", path.display());
        assert!(end.starts_with(&words), "{end}");
    }
    std::fs::write(&path, b"ARROW1\0\0").unwrap();
    let (_, end) = read_file(&path).await;
    assert!(end.contains("no Arrow schema"), "{end}");
}

/// Scenario: a Parquet file with several row groups, read whole, from a row on, and broken.
/// Guarantees: each row once with its number; a restart goes on at its row, in whichever row group it is.
#[tokio::test]
async fn parquet_rows_have_their_numbers() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("rows.ndjson");
    let bytes = parquet_of(&batches(&[0..5, 5..6, 6..12]));
    std::fs::write(&path, &bytes).unwrap();
    assert_eq!(read_file(&path).await, (numbers(0..12), "end".to_owned()));
    for from in 0..=12 {
        for to in [from + 1, 12] {
            let (found, end) = again(&path.display().to_string(), from, to).await;
            let found: Vec<_> = found.into_iter().map(|(_, offset, value)| (offset, value)).collect();
            assert_eq!((found, end.as_str()), (numbers(from..to.min(12)), "end"), "from {from} to {to}");
        }
    }
    let (_, end) = again(&path.display().to_string(), 13, 14).await;
    assert!(end.contains("the ledger is at row 13 and the file ends at row 12: it was replaced or cut"), "{end}");
    for length in [3, 20, bytes.len() - 1] {
        std::fs::write(&path, [&bytes[..length], &[0; 8]].concat()).unwrap();
        let (_, end) = read_file(&path).await;
        let expected = format!("{}: the Parquet file cannot be read", path.display());
        assert!(length == 3 || end.starts_with(&expected), "{end}");
    }
}

/// Scenario: two files with Windows line ends, an empty line and no end of the last line, over two lanes.
/// Guarantees: each line once with its number; each file in one lane.
#[tokio::test]
async fn every_line_once_with_its_number() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("a.ndjson"), "1\r\n\n2\n3").unwrap();
    std::fs::write(folder.path().join("b.ndjson"), "4\n").unwrap();
    let pattern = format!("{}/*.ndjson", folder.path().display());
    let (first, end) = read(vec![pattern.clone()], context(0, 2, i64::MAX)).await;
    let expected = [("a.ndjson", 0, "1"), ("a.ndjson", 2, "2"), ("a.ndjson", 3, "3")];
    assert_eq!(first, expected.map(|(file, line, value)| (file.to_owned(), line, value.to_owned())));
    assert_eq!(end, "end");
    let (second, _) = read(vec![pattern.clone(), pattern.clone()], context(1, 2, i64::MAX)).await;
    assert_eq!(second, [("b.ndjson".to_owned(), 0, "4".to_owned())]);
    let (limited, _) = read(vec![pattern], context(0, 2, 1)).await;
    assert_eq!(limited.len(), 2, "--max-batches 1");
}

#[tokio::test]
async fn a_pattern_without_a_file_is_named() {
    let error = list(&FileConfig { paths: vec!["no/such/*.ndjson".to_owned()] }).unwrap_err();
    assert_eq!(error.to_string(), "source.paths: no file matches \"no/such/*.ndjson\"");
}
