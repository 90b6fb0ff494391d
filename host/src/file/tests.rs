//! Generations written to a local store and read back with Parquet's own reader.

use std::{collections::BTreeMap, fs::File, path::Path as FilePath, time::Duration};

use arrow_array::{
    Array, ArrayRef, BinaryArray, BooleanArray, Date32Array, Decimal128Array, DictionaryArray, Float64Array,
    Int32Array, Int64Array, LargeStringArray, ListArray, MapArray, RecordBatch, StringArray, StructArray,
    TimestampMicrosecondArray, TimestampMillisecondArray, TimestampSecondArray, UInt64Array,
    cast::AsArray,
    types::{Int32Type, Int64Type},
};
use arrow_buffer::{NullBuffer, OffsetBuffer};
use arrow_schema::{DataType, Field, Fields, Schema, TimeUnit};
use parquet::{
    arrow::arrow_reader::{ParquetRecordBatchReader, ParquetRecordBatchReaderBuilder},
    basic::{Encoding as ParquetEncoding, LogicalType},
    file::metadata::{ParquetMetaData, RowGroupMetaData},
};
use proptest::prelude::*;
use tempfile::TempDir;

use super::*;
use crate::{
    checkpoint::SourcePartition,
    config::{ColumnConfig, Compression, Delivery, Encoding, ErrorHandling, LocalConfig, SinkKind},
};

/// A generation on a store of its own.
struct Fixture {
    /// The store.
    folder: TempDir,
    /// Writes to it.
    generation: Generation,
}

/// What a test wants otherwise than usual.
pub(super) struct Wishes {
    /// `sink.parquet`.
    parquet: ParquetConfig,
    /// `pipeline`.
    pub(super) run: RunConfig,
}

impl Wishes {
    /// Large limits.
    pub(super) fn usual() -> Self {
        Self {
            parquet: ParquetConfig::default(),
            run: RunConfig {
                delivery: Delivery::AtLeastOnce,
                commit_interval: Duration::from_hours(1),
                commit_interval_batches: None,
                target_file_size_bytes: 128 << 20,
                target_file_rows: None,
                open_files_max: 100,
                memory_bytes: 1 << 30,
                lanes: None,
                error_handling: ErrorHandling::Log,
                batches_max: None,
                until_end: true,
                shutdown_timeout: Duration::from_secs(10),
            },
        }
    }

    /// A generation with these wishes.
    fn open(self) -> Fixture {
        let folder = TempDir::new().unwrap();
        let sink = SinkConfig {
            kind: SinkKind::Local(LocalConfig { base_path: folder.path().to_owned() }),
            partition_by: Vec::new(),
            keep_partition_columns: false,
            parquet: self.parquet,
            retry_timeout: Duration::from_secs(5),
            merge: crate::config::MergeConfig::default(),
        };
        let (metrics, io) = (Metrics::detached(), Handle::current());
        let generation = Generation::new(FileContext {
            store: Store::open(&sink, "test", metrics.clone(), io.clone(), &crate::store::HttpClients::default())
                .unwrap(),
            sink,
            budget: MemoryBudget::new(self.run.memory_bytes),
            run: self.run,
            pipeline: "test".into(),
            path: None,
            lane: 7,
            writer_mark: writer_mark(),
            metrics,
            io,
        });
        Fixture { folder, generation }
    }
}

impl Fixture {
    /// Writes one batch to one directory and covers as many offsets of partition 0 of the dataset.
    async fn batch(&mut self, dataset: &str, directory: &str, rows: &RecordBatch, from: i64) {
        let to = from + i64::try_from(rows.num_rows()).unwrap();
        self.generation.cover(&covered(dataset, from, to)).unwrap();
        self.generation.write(dataset, vec![(directory.into(), rows.clone())]).await.unwrap();
    }

    /// Closes the generation and publishes its files; their paths.
    async fn publish(&mut self) -> Vec<String> {
        let mut paths = Vec::new();
        for file in self.generation.close().await.unwrap().files {
            let staged = file.staged.await.unwrap().unwrap();
            self.generation.context.store.publish(&staged).await.unwrap();
            let metadata = std::fs::metadata(self.folder.path().join(file.path.as_ref())).unwrap();
            assert_eq!(metadata.len(), file.bytes);
            paths.push(file.path.to_string());
        }
        paths
    }

    /// All rows of a file, and its metadata.
    fn read(&self, path: &str) -> (RecordBatch, Arc<ParquetMetaData>) {
        let file = File::open(self.folder.path().join(path)).unwrap();
        let reader = ParquetRecordBatchReaderBuilder::try_new(file).unwrap();
        let (schema, metadata) = (Arc::clone(reader.schema()), Arc::clone(reader.metadata()));
        let batches: Vec<_> = ParquetRecordBatchReader::map(reader.build().unwrap(), Result::unwrap).collect();
        (arrow_select::concat::concat_batches(&schema, &batches).unwrap(), metadata)
    }

    /// The ids in a file.
    fn ids(&self, path: &str) -> Vec<i64> {
        self.read(path).0.column_by_name("id").unwrap().as_primitive::<Int64Type>().values().to_vec()
    }
}

/// Offsets of partition 0 of a topic.
fn covered(topic: &str, from: i64, to: i64) -> CheckpointDelta {
    let mut delta = CheckpointDelta::default();
    delta.extend(&SourcePartition::new(topic, 0), from, to).unwrap();
    delta
}

/// Rows `from..to`: an id, one of seven countries, and a text that no codec makes much smaller.
fn rows(from: i64, to: i64) -> RecordBatch {
    let noise = (from..to).map(|row| {
        name::dataset_folder(&format!("{:x}", u64::try_from(row).unwrap().wrapping_mul(0x9e37_79b9_7f4a_7c15)))
    });
    RecordBatch::try_from_iter([
        ("id", Arc::new(Int64Array::from_iter_values(from..to)) as ArrayRef),
        ("country", Arc::new(StringArray::from_iter_values((from..to).map(|row| format!("c{}", row % 7))))),
        ("noise", Arc::new(StringArray::from_iter_values(noise))),
    ])
    .unwrap()
}

/// What a footer says under a key.
fn footer(metadata: &ParquetMetaData, key: &str) -> Option<String> {
    metadata.file_metadata().key_value_metadata()?.iter().find(|pair| pair.key == key)?.value.clone()
}

/// Files below a folder that a reader of `**/*.parquet` would find.
fn visible(folder: &FilePath) -> usize {
    let entries = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    entries
        .map(|path| {
            if path.is_dir() {
                visible(&path)
            } else {
                usize::from(path.extension().is_some_and(|end| end == "parquet"))
            }
        })
        .sum()
}

/// One column of each kind of type, three rows, with nulls.
fn all_types() -> RecordBatch {
    let decimals = Decimal128Array::from(vec![Some(12_345), None, Some(-1)]).with_precision_and_scale(20, 3).unwrap();
    let dictionary: DictionaryArray<Int32Type> = vec![Some("a"), None, Some("a")].into_iter().collect();
    let point = Fields::from(vec![Field::new("x", DataType::Float64, true), Field::new("tag", DataType::Utf8, true)]);
    let points = || -> Vec<ArrayRef> {
        vec![
            Arc::new(Float64Array::from(vec![Some(0.5), None, Some(f64::MAX)])),
            Arc::new(StringArray::from(vec![None, Some("ü"), Some("")])),
        ]
    };
    let structs = StructArray::new(point.clone(), points(), Some(NullBuffer::from(vec![true, false, true])));
    let item = Arc::new(Field::new("item", DataType::Struct(point.clone()), true));
    let lists = ListArray::new(
        item,
        OffsetBuffer::from_lengths([2, 0, 1]),
        Arc::new(StructArray::new(point, points(), None)),
        Some(NullBuffer::from(vec![true, true, false])),
    );
    let entry =
        Fields::from(vec![Field::new("keys", DataType::Utf8, false), Field::new("values", DataType::Int32, true)]);
    let entries: Vec<ArrayRef> =
        vec![Arc::new(StringArray::from(vec!["k1", "k2"])), Arc::new(Int32Array::from(vec![Some(1), None]))];
    let maps = MapArray::new(
        Arc::new(Field::new("entries", DataType::Struct(entry.clone()), false)),
        OffsetBuffer::from_lengths([1, 1, 0]),
        StructArray::new(entry, entries, None),
        None,
        false,
    );
    let millis = TimestampMillisecondArray::from(vec![Some(1_795_443_912_345), None, Some(-1)]).with_timezone("UTC");
    let seconds = TimestampSecondArray::from(vec![Some(1_795_443_912), None, Some(-1)]).with_timezone("UTC");
    let columns: Vec<(&str, ArrayRef)> = vec![
        ("text", Arc::new(StringArray::from(vec![Some("東京"), None, Some("")]))),
        ("large_text", Arc::new(LargeStringArray::from(vec![Some("x"), None, Some("y")]))),
        ("int", Arc::new(Int64Array::from(vec![Some(i64::MIN), None, Some(i64::MAX)]))),
        ("unsigned", Arc::new(UInt64Array::from(vec![Some(u64::MAX), None, Some(0)]))),
        ("float", Arc::new(Float64Array::from(vec![Some(-0.0), None, Some(f64::INFINITY)]))),
        ("yes", Arc::new(BooleanArray::from(vec![Some(true), None, Some(false)]))),
        ("day", Arc::new(Date32Array::from(vec![Some(20_780), None, Some(-1)]))),
        ("millis", Arc::new(millis)),
        ("local", Arc::new(TimestampMicrosecondArray::from(vec![Some(1), None, Some(-1)]))),
        ("seconds", Arc::new(seconds)),
        ("money", Arc::new(decimals)),
        ("bytes", Arc::new(BinaryArray::from(vec![Some(&[0_u8, 255][..]), None, Some(&[])]))),
        ("word", Arc::new(dictionary)),
        ("point", Arc::new(structs)),
        ("points", Arc::new(lists)),
        ("attributes", Arc::new(maps)),
    ];
    RecordBatch::try_from_iter_with_nullable(columns.into_iter().map(|(name, array)| (name, array, true))).unwrap()
}

#[tokio::test]
async fn every_type_comes_back_as_it_was_written() {
    let mut fixture = Wishes::usual().open();
    let written = all_types();
    fixture.batch("types", "", &written, 0).await;
    let paths = fixture.publish().await;
    let (read, metadata) = fixture.read(&paths[0]);
    assert_eq!(read.num_columns(), written.num_columns());
    for (column, field) in written.columns().iter().zip(written.schema().fields()) {
        let back = read.column_by_name(field.name()).unwrap();
        let expected = match field.name().as_str() {
            // Parquet has no seconds, and names of list elements and map entries of its own.
            "seconds" => DataType::Timestamp(TimeUnit::Millisecond, Some("UTC".into())),
            "points" | "attributes" => back.data_type().clone(),
            _ => field.data_type().clone(),
        };
        assert_eq!(back.data_type(), &expected, "{}", field.name());
        let column = arrow_cast::cast(column, &expected).unwrap();
        assert_eq!(back.to_data(), column.to_data(), "{}", field.name());
    }
    let columns = metadata.file_metadata().schema_descr();
    let leaf = |path: &str| columns.columns().iter().find(|leaf| leaf.path().string() == path).unwrap();
    for (path, utc) in [("millis", true), ("seconds", true), ("local", false)] {
        let Some(LogicalType::Timestamp(timestamp)) = leaf(path).logical_type_ref() else { panic!("{path}") };
        assert_eq!(timestamp.is_adjusted_to_u_t_c, utc, "{path}");
    }
    leaf("points.list.element.x");
    leaf("attributes.key_value.key");
}

#[tokio::test]
async fn a_file_says_who_wrote_it_and_from_which_offsets() {
    let mut fixture = Wishes::usual().open();
    fixture.batch("orders", "day=1", &rows(0, 10), 100).await;
    fixture.batch("orders", "day=2", &rows(10, 15), 110).await;
    fixture.batch("orders", "day=1", &rows(15, 20), 115).await;
    let paths = fixture.publish().await;
    assert_eq!(paths.len(), 2);
    assert!(paths[0].starts_with("orders/day=1/") && paths[0].contains("-l07-g000000-f00000-"), "{}", paths[0]);
    let (read, metadata) = fixture.read(&paths[0]);
    assert_eq!(read.num_rows(), 15);
    let version = env!("CARGO_PKG_VERSION");
    assert_eq!(metadata.file_metadata().created_by().unwrap(), format!("fs-data-sink version {version}"));
    assert_eq!(footer(&metadata, "fs_data_sink.version").unwrap(), version);
    assert_eq!(footer(&metadata, "fs_data_sink.pipeline").unwrap(), "test");
    let ranges = |path: &str| footer(&fixture.read(path).1, "fs_data_sink.source_ranges").unwrap();
    assert_eq!(ranges(&paths[0]), r#"[{"topic":"orders","partition":0,"from":100,"to":120}]"#);
    assert_eq!(ranges(&paths[1]), r#"[{"topic":"orders","partition":0,"from":100,"to":115}]"#);
}

#[tokio::test]
async fn files_end_at_their_size_and_with_whole_batches() {
    let mut wishes = Wishes::usual();
    wishes.run.target_file_size_bytes = 100_000;
    let mut fixture = wishes.open();
    for from in (0..40_000).step_by(1000) {
        fixture.batch("orders", "", &rows(from, from + 1000), from).await;
    }
    let paths = fixture.publish().await;
    assert!(paths.len() >= 3 && paths.is_sorted(), "{paths:?}");
    let mut next = 0;
    for (number, path) in paths.iter().enumerate() {
        let bytes = std::fs::metadata(fixture.folder.path().join(path)).unwrap().len();
        assert!(bytes < 200_000, "{path} has {bytes}");
        assert!(bytes > 50_000 || number == paths.len() - 1, "{path} has {bytes}");
        let (read, metadata) = fixture.read(path);
        let to = next + i64::try_from(read.num_rows()).unwrap();
        assert_eq!(fixture.ids(path), (next..to).collect::<Vec<_>>());
        // Rows of the batches until then, and of no later ones.
        let range = format!(r#"[{{"topic":"orders","partition":0,"from":0,"to":{to}}}]"#);
        assert_eq!(footer(&metadata, "fs_data_sink.source_ranges").unwrap(), range);
        next = to;
    }
    assert_eq!(next, 40_000);
}

#[tokio::test]
async fn row_groups_end_at_their_rows() {
    let mut wishes = Wishes::usual();
    wishes.parquet.row_group_rows = 400;
    let mut fixture = wishes.open();
    fixture.batch("orders", "", &rows(0, 1000), 0).await;
    let paths = fixture.publish().await;
    let (_, metadata) = fixture.read(&paths[0]);
    assert_eq!(metadata.row_groups().iter().map(RowGroupMetaData::num_rows).collect::<Vec<_>>(), [400, 400, 200]);
}

#[tokio::test]
async fn a_file_ended_in_the_middle_of_a_batch_names_that_batch() {
    let mut fixture = Wishes::usual().open();
    fixture.generation.cover(&covered("orders", 0, 9)).unwrap();
    let narrow = |from, to| rows(from, to).project(&[0]).unwrap();
    fixture.generation.write("orders", vec![("d=0".into(), rows(0, 5)), ("d=1".into(), narrow(5, 9))]).await.unwrap();
    fixture.batch("orders", "d=0", &narrow(9, 12), 9).await;
    let closed = fixture.generation.close().await.unwrap();
    let sources: Vec<_> = closed.files.into_iter().map(|file| file.sources).collect();
    assert_eq!(sources, [covered("orders", 0, 9), covered("orders", 9, 12), covered("orders", 0, 9)]);
}

#[tokio::test]
async fn a_new_schema_gets_a_new_file() {
    let mut fixture = Wishes::usual().open();
    let wide = rows(0, 10);
    let narrow = wide.project(&[0, 1]).unwrap();
    fixture.batch("orders", "", &wide, 0).await;
    fixture.batch("orders", "", &narrow, 10).await;
    fixture.batch("orders", "", &narrow, 20).await;
    let paths = fixture.publish().await;
    let shapes: Vec<_> =
        paths.iter().map(|path| fixture.read(path).0).map(|rows| (rows.num_columns(), rows.num_rows())).collect();
    assert_eq!(shapes, [(3, 10), (2, 20)]);
}

/// The encodings of the first row group of a file, by column.
fn encodings(metadata: &ParquetMetaData) -> BTreeMap<String, Vec<ParquetEncoding>> {
    let columns = metadata.row_group(0).columns().iter();
    columns.map(|column| (column.column_path().string(), column.encodings().collect())).collect()
}

#[tokio::test]
async fn columns_that_hardly_repeat_have_no_dictionary_unless_the_user_wants_one() {
    let mut wishes = Wishes::usual();
    let wanted = ColumnConfig { dictionary: Some(true), ..ColumnConfig::default() };
    wishes.parquet.columns = vec![("id".to_owned(), wanted)];
    let mut fixture = wishes.open();
    fixture.batch("orders", "", &rows(0, 9000), 0).await;
    let first = fixture.publish().await;
    // What was found out is remembered: this file sees ten rows only.
    fixture.batch("orders", "", &rows(9000, 9010), 9000).await;
    let second = fixture.publish().await;
    for path in [&first[0], &second[0]] {
        let encodings = encodings(&fixture.read(path).1);
        assert!(encodings["id"].contains(&ParquetEncoding::RLE_DICTIONARY), "{encodings:?}");
        assert!(encodings["country"].contains(&ParquetEncoding::RLE_DICTIONARY), "{encodings:?}");
        assert!(!encodings["noise"].contains(&ParquetEncoding::RLE_DICTIONARY), "{encodings:?}");
        assert!(encodings["noise"].contains(&ParquetEncoding::DELTA_LENGTH_BYTE_ARRAY), "{encodings:?}");
    }
}

#[tokio::test]
async fn columns_are_written_as_configured() {
    let mut wishes = Wishes::usual();
    let column = |encoding, compression| ColumnConfig {
        dictionary: Some(false),
        encoding: Some(encoding),
        compression,
        ..ColumnConfig::default()
    };
    wishes.parquet.compression = Compression::Zstd(3);
    wishes.parquet.bloom_filter = vec!["country".to_owned()];
    wishes.parquet.columns = vec![
        ("id".to_owned(), column(Encoding::DeltaBinaryPacked, None)),
        ("noise".to_owned(), column(Encoding::DeltaByteArray, Some(Compression::None))),
    ];
    let mut fixture = wishes.open();
    fixture.batch("orders", "", &rows(0, 100), 0).await;
    let paths = fixture.publish().await;
    let (_, metadata) = fixture.read(&paths[0]);
    let encodings = encodings(&metadata);
    assert!(encodings["id"].contains(&ParquetEncoding::DELTA_BINARY_PACKED), "{encodings:?}");
    assert!(encodings["noise"].contains(&ParquetEncoding::DELTA_BYTE_ARRAY), "{encodings:?}");
    let columns = metadata.row_group(0).columns();
    assert!(columns[0].compression().to_string().starts_with("ZSTD"), "{}", columns[0].compression());
    assert_eq!(columns[2].compression().to_string(), "UNCOMPRESSED");
    let filters: Vec<_> = columns.iter().map(|column| column.bloom_filter_offset().is_some()).collect();
    assert_eq!(filters, [false, true, false]);
}

#[test]
fn what_cannot_be_written_is_refused_by_name() {
    let parquet = Wishes::usual().parquet;
    let schema = all_types().schema();
    let error = |config: ParquetConfig, schema: &SchemaRef| check(&config, schema).unwrap_err().full_message();
    let text = error(ParquetConfig { bloom_filter: vec!["user".to_owned()], ..parquet.clone() }, &schema);
    assert!(text.contains("sink.parquet.bloom_filter names `user`") && text.contains("point.x, point.tag"), "{text}");
    let column = |encoding| ColumnConfig { encoding: Some(encoding), ..ColumnConfig::default() };
    let columns = vec![("points.x".to_owned(), column(Encoding::DeltaBinaryPacked))];
    let text = error(ParquetConfig { columns, ..parquet.clone() }, &schema);
    assert!(text.contains("`points.x`") && text.contains("integers") && text.contains("DOUBLE"), "{text}");
    let empty = DataType::Struct(Fields::empty());
    let inner = DataType::Struct(Fields::from(vec![Field::new("b", empty, true)]));
    let text = error(parquet.clone(), &Arc::new(Schema::new(vec![Field::new("a", inner, true)])));
    assert!(text.contains("`a.b`") && text.contains("without fields"), "{text}");
    let union = DataType::Union(arrow_schema::UnionFields::empty(), arrow_schema::UnionMode::Sparse);
    let text = error(parquet, &Arc::new(Schema::new(vec![Field::new("u", union, true)])));
    assert!(text.contains("`u`"), "{text}");
}

#[tokio::test]
async fn memory_is_counted_while_files_are_open_and_given_back_when_they_are_stored() {
    let mut fixture = Wishes::usual().open();
    let budget = fixture.generation.context.budget.clone();
    fixture.batch("orders", "", &rows(0, 5000), 0).await;
    let open = budget.used_bytes();
    assert!(open > 10_000, "{open}");
    fixture.publish().await;
    assert_eq!(budget.used_bytes(), 0);
}

#[tokio::test]
async fn row_groups_end_early_when_memory_is_short() {
    let mut wishes = Wishes::usual();
    wishes.run.memory_bytes = 30 << 20;
    wishes.parquet.compression = Compression::None;
    let mut fixture = wishes.open();
    // What other lanes hold.
    let budget = fixture.generation.context.budget.clone();
    let _others = budget.hold(17 << 20);
    for from in (0..400_000).step_by(50_000) {
        fixture.batch("orders", "", &rows(from, from + 50_000), from).await;
    }
    let paths = fixture.publish().await;
    let (read, metadata) = fixture.read(&paths[0]);
    assert_eq!(read.num_rows(), 400_000);
    assert!(metadata.num_row_groups() > 1);
    assert!(metadata.row_group(0).compressed_size() > 4 << 20, "{}", metadata.row_group(0).compressed_size());
}

#[tokio::test]
async fn a_generation_without_rows_still_advances() {
    let mut fixture = Wishes::usual().open();
    assert!(fixture.generation.is_empty() && fixture.generation.deadline().is_none());
    fixture.generation.cover(&covered("orders", 0, 9)).unwrap();
    assert!(!fixture.generation.is_empty() && fixture.generation.deadline().is_some());
    let closed = fixture.generation.close().await.unwrap();
    assert_eq!((closed.files.len(), &closed.delta), (0, &covered("orders", 0, 9)));
    assert!(fixture.generation.is_empty() && fixture.generation.deadline().is_none());
}

#[tokio::test]
async fn a_generation_is_due_after_its_batches_and_the_next_one_counts_anew() {
    let mut wishes = Wishes::usual();
    wishes.run.commit_interval_batches = Some(2);
    let mut fixture = wishes.open();
    for sequence in 0..2 {
        fixture.batch("orders", "", &rows(0, 5), sequence * 10).await;
        assert!(!fixture.generation.is_due());
        fixture.batch("orders", "", &rows(5, 10), sequence * 10 + 5).await;
        assert!(fixture.generation.is_due());
        let closed = fixture.generation.close().await.unwrap();
        assert_eq!(closed.sequence, u64::try_from(sequence).unwrap());
        assert_eq!(closed.delta, covered("orders", sequence * 10, sequence * 10 + 10));
        assert!(
            closed.files[0].path.as_ref().contains(&format!("-g{sequence:06}-f00000-")),
            "{}",
            closed.files[0].path
        );
        assert_eq!(closed.files[0].rows, 10);
    }
}

#[tokio::test]
async fn records_that_come_twice_are_an_error_that_a_new_start_ends() {
    let mut fixture = Wishes::usual().open();
    fixture.generation.cover(&covered("orders", 0, 9)).unwrap();
    let error = fixture.generation.cover(&covered("orders", 5, 12)).unwrap_err();
    assert_eq!(error.verdict(), crate::error::Verdict::Retry);
    assert!(error.full_message().contains("orders[0]"), "{}", error.full_message());
}

#[tokio::test]
async fn what_is_abandoned_leaves_nothing_behind() {
    let mut wishes = Wishes::usual();
    wishes.run.open_files_max = 1;
    let mut fixture = wishes.open();
    let budget = fixture.generation.context.budget.clone();
    for number in 0..3 {
        fixture.batch("orders", &format!("d={number}"), &rows(0, 100), number * 100).await;
    }
    fixture.generation.add_dead_letters(vec![DeadLetter {
        record: None,
        stage: crate::batch::Stage::Decode,
        plugin: None,
        code: "bad-json".to_owned(),
        message: "no".to_owned(),
        time: std::time::SystemTime::now(),
    }]);
    assert!(budget.used_bytes() > 0);
    fixture.generation.abandon().await;
    assert!(fixture.generation.is_empty());
    assert_eq!((budget.used_bytes(), visible(fixture.folder.path())), (0, 0));
    let closed = fixture.generation.close().await.unwrap();
    assert!(closed.delta.is_empty() && closed.files.is_empty() && closed.dead_letters.is_empty());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    #[test]
    fn whatever_is_written_is_in_the_file_of_its_directory(
        writes in proptest::collection::vec((0_usize..2, 0_usize..6, 1_i64..300, any::<bool>(), any::<bool>()), 1..40),
        open_files_max in 1_usize..5,
        target_file_size_bytes in 1_usize..20_000,
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let mut wishes = Wishes::usual();
            wishes.run.open_files_max = open_files_max;
            wishes.run.target_file_size_bytes = target_file_size_bytes;
            let mut fixture = wishes.open();
            let (mut expected, mut found) = (BTreeMap::<String, Vec<i64>>::new(), BTreeMap::<String, Vec<i64>>::new());
            let mut next = 0;
            for (dataset, directory, count, narrow, begins_batch) in writes {
                let mut part = rows(next, next + count);
                if narrow {
                    part = part.project(&[0]).unwrap();
                }
                let (dataset, directory) = (["a", "b"][dataset], format!("d={directory}"));
                if begins_batch {
                    fixture.generation.cover(&covered("t", next, next + count)).unwrap();
                }
                fixture.generation.write(dataset, vec![(directory.as_str().into(), part)]).await.unwrap();
                expected.entry(format!("{dataset}/{directory}")).or_default().extend(next..next + count);
                next += count;
            }
            for path in fixture.publish().await {
                let (directory, _) = path.rsplit_once('/').unwrap();
                found.entry(directory.to_owned()).or_default().extend(fixture.ids(&path));
            }
            assert_eq!(found.len(), expected.len());
            for (directory, mut ids) in found {
                ids.sort_unstable();
                assert_eq!(ids, expected[&directory], "{directory}");
            }
        });
    }
}

mod many;
mod sorted;
