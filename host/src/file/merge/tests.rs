//! Files written by generations, merged, and read back with Parquet's own reader.

use std::{collections::BTreeSet, fs::File, path::Path as FilePath, time::Duration};

use arrow_array::{
    ArrayRef, Int64Array, ListArray, StringArray, TimestampSecondArray, cast::AsArray, types::Int64Type,
};
use bytes::Bytes;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use tempfile::TempDir;

use super::*;
use crate::{
    checkpoint::{CheckpointDelta, SourcePartition},
    config::{Delivery, LocalConfig, MergeConfig, RunConfig, SinkConfig, SinkKind},
    file::{FileContext, Generation, tests::Wishes},
    memory::MemoryBudget,
};

/// A folder with small files.
struct Fixture {
    /// The folder.
    folder: TempDir,
    /// The same as a store.
    store: Store,
    /// Writes to it.
    generation: Generation,
    /// Merges its files.
    merger: Merger,
}

/// A folder; files are written as configured, by a pipeline of this name.
fn fixture(pipeline: &str, parquet: &ParquetConfig) -> Fixture {
    let folder = TempDir::new().unwrap();
    let sink = SinkConfig {
        kind: SinkKind::Local(LocalConfig { base_path: folder.path().to_owned() }),
        partition_by: Vec::new(),
        keep_partition_columns: false,
        parquet: parquet.clone(),
        retry_timeout: Duration::from_secs(5),
        merge: MergeConfig::default(),
    };
    let run = RunConfig { delivery: Delivery::ExactlyOnce, ..Wishes::usual().run };
    let (metrics, io) = (Metrics::detached(), tokio::runtime::Handle::current());
    let store =
        Store::open(&sink, pipeline, metrics.clone(), io.clone(), &crate::store::HttpClients::default()).unwrap();
    let merger = Merger::new(store.clone(), parquet, "orders".into(), metrics.clone());
    let generation = Generation::new(FileContext {
        store: store.clone(),
        sink,
        budget: MemoryBudget::new(run.memory_bytes),
        run,
        pipeline: pipeline.into(),
        path: None,
        lane: 0,
        writer_mark: "9f86d081".into(),
        metrics,
        io,
    });
    Fixture { folder, store, generation, merger }
}

impl Fixture {
    /// Writes a file of rows that came from these offsets.
    async fn write(&mut self, rows: &RecordBatch, from: i64, to: i64) -> Candidate {
        let mut delta = CheckpointDelta::default();
        delta.extend(&SourcePartition::new("orders", 0), from, to).unwrap();
        self.generation.cover(&delta).unwrap();
        self.generation.write("orders", vec![("day=1".into(), rows.clone())]).await.unwrap();
        let file = self.generation.close().await.unwrap().files.pop().unwrap();
        let staged = file.staged.await.unwrap().unwrap();
        self.store.publish(&staged).await.unwrap();
        Candidate { path: staged.path, bytes: staged.bytes }
    }

    /// Merges files, and moves the merged one to its place.
    async fn merge(&mut self, files: &[Candidate]) -> Result<(MergedFile, Vec<i64>), (Path, Damage)> {
        let staged = self.store.own_name("merging/test");
        match self.merger.merge(files.to_vec(), &staged).await.unwrap() {
            Outcome::Damaged(path, damage) => Err((path, damage)),
            Outcome::Merged(merged) => {
                assert_eq!(self.store.length(&staged).await.unwrap(), Some(merged.bytes));
                let ids = ids(&self.folder.path().join(staged.as_ref()));
                self.store.reveal(&staged, &merged.path, merged.bytes).await.unwrap();
                Ok((merged, ids))
            }
        }
    }

    /// Writes over a file.
    fn damage(&self, file: &Candidate, damage: impl FnOnce(&mut Vec<u8>)) {
        let path = self.folder.path().join(file.path.as_ref());
        let mut bytes = std::fs::read(&path).unwrap();
        damage(&mut bytes);
        std::fs::write(&path, bytes).unwrap();
    }
}

/// Rows with these ids: a long text, a time in seconds, which Parquet has not, and a list.
fn rows(ids: std::ops::Range<i64>) -> RecordBatch {
    let text = ids.clone().map(|id| (id % 3 > 0).then(|| format!("{id:x}-").repeat(20)));
    let list = ids.clone().map(|id| Some(vec![Some(id), None]));
    RecordBatch::try_from_iter_with_nullable([
        ("id", Arc::new(Int64Array::from_iter_values(ids.clone())) as ArrayRef, false),
        ("text", Arc::new(text.collect::<StringArray>()), true),
        ("at", Arc::new(TimestampSecondArray::from_iter_values(ids.clone()).with_timezone("UTC")), true),
        ("list", Arc::new(ListArray::from_iter_primitive::<Int64Type, _, _>(list)), true),
    ])
    .unwrap()
}

/// The ids in a file, in their order.
fn ids(path: &FilePath) -> Vec<i64> {
    let reader = ParquetRecordBatchReaderBuilder::try_new(File::open(path).unwrap()).unwrap().build().unwrap();
    reader.flat_map(|rows| rows.unwrap().column(0).as_primitive::<Int64Type>().values().to_vec()).collect()
}

/// Scenario: small files are merged, some of several row groups; then the merged file with one more.
/// Guarantees: every row once and in the order of names; the schema is that of the files; offsets are those of all of them.
#[tokio::test(flavor = "multi_thread")]
async fn merged_files_have_all_rows_in_order_and_can_be_merged_again() {
    let mut fixture = fixture("orders", &ParquetConfig { row_group_rows: 7, ..ParquetConfig::default() });
    let mut files = Vec::new();
    for number in 0..12 {
        files.push(fixture.write(&rows(number * 10..number * 10 + 10), number * 10, number * 10 + 10).await);
    }
    let facts = fixture.merger.look(files.clone()).await.unwrap();
    let schemas: BTreeSet<_> = facts.iter().map(|facts| facts.as_ref().unwrap().schema).collect();
    assert_eq!((schemas.len(), facts[0].as_ref().unwrap().rows), (1, 10));
    let (first, ids) = fixture.merge(&files[..11]).await.unwrap();
    assert_eq!(ids, (0..110).collect::<Vec<_>>());
    assert_eq!((first.rows, first.inputs.len()), (110, 11));
    let again = [Candidate { path: first.path.clone(), bytes: first.bytes }, files[11].clone()];
    let facts = fixture.merger.look(again.to_vec()).await.unwrap();
    assert!(facts.iter().all(|facts| schemas.contains(&facts.as_ref().unwrap().schema)), "{facts:?}");
    let (second, ids) = fixture.merge(&again).await.unwrap();
    assert_eq!(ids, (0..120).collect::<Vec<_>>());
    let file = InputFile::open(&fixture.store, Candidate { path: second.path, bytes: second.bytes }, true).await;
    let file = file.unwrap().unwrap();
    assert_eq!(file.says(provenance::SOURCE_RANGES), Some(r#"[{"topic":"orders","partition":0,"from":0,"to":120}]"#));
    assert_eq!((file.says(provenance::PIPELINE), file.row_groups()), (Some("orders"), 18));
}

/// Scenario: a file is larger than what is fetched at once, and has several row groups.
/// Guarantees: it is read row group by row group, and every row arrives.
#[tokio::test(flavor = "multi_thread")]
async fn a_large_file_is_read_by_row_group() {
    use crate::config::Compression;
    let parquet = ParquetConfig { row_group_rows: 4_000, compression: Compression::None, ..ParquetConfig::default() };
    let mut fixture = fixture("orders", &parquet);
    let large = fixture.write(&rows(0..20_000), 0, 20_000).await;
    assert!(large.bytes > read::SMALL_BYTES, "{}", large.bytes);
    let small = fixture.write(&rows(20_000..20_001), 20_000, 20_001).await;
    let (merged, ids) = fixture.merge(&[large, small]).await.unwrap();
    assert_eq!((ids, merged.rows), ((0..20_001).collect(), 20_001));
}

/// Scenario: among the files is one of another pipeline, one cut short, one with a broken page, one with another footer, one of
/// other bytes, and one that is gone.
/// Guarantees: each is named with the reason before or while files are merged; nothing panics, and nothing is left behind.
#[tokio::test(flavor = "multi_thread")]
async fn files_that_cannot_be_read_are_named() {
    let mut ours = fixture("orders", &ParquetConfig::default());
    let mut files = Vec::new();
    for number in 0..6 {
        files.push(ours.write(&rows(number * 10..number * 10 + 10), number * 10, number * 10 + 10).await);
    }
    ours.damage(&files[1], |bytes| bytes.truncate(bytes.len() - 1));
    files[1].bytes -= 1;
    ours.damage(&files[2], |bytes| bytes[4..200].fill(0xff));
    ours.damage(&files[3], |bytes| *bytes = b"PAR1 not Parquet \xff\xff\xff\x7fPAR1".to_vec());
    files[3].bytes = 26;
    std::fs::remove_file(ours.folder.path().join(files[4].path.as_ref())).unwrap();
    ours.damage(&files[5], |bytes| {
        let length = bytes.len();
        bytes[length - 300..length - 250].fill(0x55);
    });
    let looked = ours.merger.look(files.clone()).await.unwrap();
    assert!(looked[0].is_ok() && looked[2].is_ok(), "{looked:?}");
    for number in [1, 3, 4] {
        assert!(looked[number].is_err(), "{number}: {:?}", looked[number]);
    }
    for number in [1, 2, 3, 4] {
        let (path, damage) = ours.merge(&[files[0].clone(), files[number].clone()]).await.unwrap_err();
        assert_eq!((path == files[number].path, damage == Damage::Gone), (true, number == 4), "{number}: {damage:?}");
    }
    if looked[5].is_ok() {
        ours.merge(&[files[0].clone(), files[5].clone()]).await.ok();
    }
    let staged = ours.store.list(&ours.store.own_name("merging")).await.unwrap();
    assert!(staged.is_empty(), "{staged:?}");
    let mut theirs = fixture("clicks", &ParquetConfig::default());
    let other = theirs.write(&rows(0..10), 0, 10).await;
    let looked = theirs.merger.look(vec![other]).await.unwrap();
    assert_eq!(looked, [Err(Damage::Unreadable("another program or pipeline wrote it".to_owned()))]);
}

/// Scenario: bytes of a file are changed one by one, or it is cut off anywhere.
/// Guarantees: nothing panics through, whatever comes out.
#[tokio::test(flavor = "multi_thread")]
async fn no_bytes_of_a_file_end_the_process() {
    let mut fixture = fixture("orders", &ParquetConfig::default());
    let file = fixture.write(&rows(0..10), 0, 10).await;
    let whole = std::fs::read(fixture.folder.path().join(file.path.as_ref())).unwrap();
    let path = Path::from("orders/day=1/x.parquet");
    for at in (0..whole.len()).step_by(13) {
        let mut changed = whole.clone();
        changed[at] ^= 0x5f;
        for bytes in [changed, whole[..at].to_vec()] {
            let candidate = Candidate { path: path.clone(), bytes: bytes.len() as u64 };
            fixture.store.put(&path, Bytes::from(bytes)).await.unwrap();
            let staged = fixture.store.own_name("merging/test");
            let _ = fixture.merger.look(vec![candidate.clone()]).await.unwrap();
            let _ = fixture.merger.merge(vec![candidate], &staged).await;
        }
    }
}
