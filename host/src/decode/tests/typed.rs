//! What Arrow becomes: records of `arrow_ipc`, and rows of typed files. `ipc/testdata/` was written by pyarrow 26.

use arrow_array::{
    Decimal128Array, Int8Array, LargeStringArray, RecordBatchOptions, UInt64Array,
    types::{Date32Type, Decimal128Type, Int32Type, TimestampMillisecondType},
};
use arrow_ipc::writer::{FileWriter, StreamWriter};

use super::*;

/// A stream of some batches.
fn stream(batches: &[RecordBatch]) -> Vec<u8> {
    let mut writer = StreamWriter::try_new(Vec::new(), batches[0].schema_ref()).unwrap();
    for batch in batches {
        writer.write(batch).unwrap();
    }
    writer.into_inner().unwrap()
}

/// A batch of some columns, all nullable.
fn rows<const N: usize>(columns: [(&str, ArrayRef); N]) -> RecordBatch {
    RecordBatch::try_from_iter_with_nullable(columns.map(|(name, column)| (name, column, true))).unwrap()
}

/// A column of integers.
fn integers(values: &[i64]) -> ArrayRef {
    Arc::new(Int64Array::from(values.to_vec()))
}

/// A column of texts.
fn words(values: &[&str]) -> ArrayRef {
    Arc::new(StringArray::from(values.to_vec()))
}

/// A decoder of Arrow IPC.
fn arrow_decoder(declared: Option<Vec<Field>>, on_new_field: OnNewField, on_type_change: OnTypeChange) -> Decoder {
    let config = DecodeConfig { format: ValueFormat::ArrowIpc, ..config(declared, on_new_field, on_type_change) };
    Decoder::new(&config).unwrap()
}

/// One that infers, grows and widens.
fn usual() -> Decoder {
    arrow_decoder(None, OnNewField::Add, OnTypeChange::Widen)
}

/// Records of these values.
fn records(values: &[&[u8]]) -> Envelope {
    envelope(&values.iter().map(|value| Some(*value)).collect::<Vec<_>>())
}

/// For each row the number of its record.
fn origins(decoded: &Decoded) -> Vec<u32> {
    match decoded.batch.as_ref().map(|batch| &batch.origin) {
        Some(Origin::Records { rows, .. }) => rows.values().to_vec(),
        _ => Vec::new(),
    }
}

#[test]
fn the_rows_of_every_batch_of_every_record_come_with_their_record() {
    let batch = |values: &[i64]| rows([("a", integers(values))]);
    let mut file = FileWriter::try_new(Vec::new(), batch(&[0]).schema_ref()).unwrap();
    file.write(&batch(&[6])).unwrap();
    let file = file.into_inner().unwrap();
    let empty = StreamWriter::try_new(Vec::new(), batch(&[0]).schema_ref()).unwrap().into_inner().unwrap();
    let (first, second) = (stream(&[batch(&[1, 2]), batch(&[]), batch(&[3])]), stream(&[batch(&[4])]));
    let config = DecodeConfig {
        format: ValueFormat::ArrowIpc,
        metadata_columns: vec![MetadataColumn::Offset],
        ..config(None, OnNewField::Add, OnTypeChange::Widen)
    };
    let decoded =
        Decoder::new(&config).unwrap().decode(&records(&[&first, &empty, b"oops", &second, &second[..40], b"", &file]));
    let (fields, found) = table(&decoded);
    assert_eq!(fields, "a: Int64, _offset: Int64");
    assert_eq!(found, ["1|100", "2|100", "3|100", "4|103", "6|106"]);
    assert_eq!(origins(&decoded), [0, 0, 0, 3, 6]);
    assert_eq!(
        refused(&decoded),
        [
            "[2] bad-arrow: expected Arrow IPC, found bytes that are not an Arrow IPC stream",
            "[4] bad-arrow: expected Arrow IPC, found an Arrow IPC stream that is cut short",
            "[5] bad-arrow: expected Arrow IPC, found no bytes, where an Arrow IPC stream has a schema at least",
        ]
    );
}

#[test]
fn what_pyarrow_writes_is_the_same_in_every_form() {
    let forms = [
        include_bytes!("../../ipc/testdata/typed_plain.arrows").as_slice(),
        include_bytes!("../../ipc/testdata/typed_lz4.arrows"),
        include_bytes!("../../ipc/testdata/typed_zstd.arrows"),
        include_bytes!("../../ipc/testdata/typed_plain.arrow"),
        include_bytes!("../../ipc/testdata/typed_lz4.arrow"),
        include_bytes!("../../ipc/testdata/typed_zstd.arrow"),
    ];
    let decoded = usual().decode(&records(&forms));
    assert_eq!(refused(&decoded), [""; 0]);
    let all = decoded.batch.unwrap().rows;
    assert_eq!(all.num_rows(), 6 * 200);
    let plain = all.slice(0, 200);
    for form in 1..6 {
        assert_eq!(all.slice(form * 200, 200), plain, "form {form}");
    }
    let types: Vec<String> = plain.schema().fields().iter().map(|field| field.data_type().to_string()).collect();
    let expected = [
        "Int8",
        "UInt32",
        "Float32",
        "Utf8",
        "Utf8",
        "Binary",
        "Date32",
        "Time32(ms)",
        "Timestamp(ms, \"UTC\")",
        "Decimal128(12, 2)",
        "Utf8",
        "Int64",
        "List(Int16)",
        "List(Int32)",
        "Struct(\"x\": Int64, \"y\": List(Utf8))",
        "Map(\"key_value\": non-null Struct(\"key\": non-null Utf8, \"value\": Int32), unsorted)",
    ];
    assert_eq!(types, expected, "a column of type null is none");
    let column = |name: &str| Arc::clone(plain.column_by_name(name).unwrap());
    assert_eq!(column("half").as_primitive::<Float32Type>().value(5).to_bits(), 2.5f32.to_bits());
    assert_eq!(column("day").as_primitive::<Date32Type>().value(1), 20_455);
    assert_eq!(column("when").as_primitive::<TimestampMillisecondType>().value(3), 3_000);
    assert_eq!(column("amount").as_primitive::<Decimal128Type>().value(1), 25);
    assert_eq!(column("word").as_string::<i32>().value(4), "b");
    assert!(column("word").is_null(3) && column("code").is_null(3));
    assert_eq!(column("pair").as_list::<i32>().value(7).as_primitive::<Int32Type>().value(0), 7);
    let again = usual().decode(&records(&[include_bytes!("../../ipc/testdata/dictionary_again.arrows")]));
    assert_eq!(table(&again).1, ["a", "b", "c", "a"], "a dictionary that is sent anew");
}

#[test]
fn lies_about_lengths_cost_what_is_there() {
    let zstd = include_bytes!("../../ipc/testdata/zstd.arrows");
    let good = usual().decode(&records(&[zstd]));
    assert_eq!(good.batch.unwrap().rows.num_rows(), 20);
    // The length of each compressed buffer stands before its zstd frame.
    let frame = zstd.windows(4).position(|bytes| bytes == [0x28, 0xb5, 0x2f, 0xfd]).unwrap();
    for lie in [0i64, 1, -2, 1 << 20, 1 << 34, 1 << 46, i64::MAX, i64::MIN] {
        let mut bytes = zstd.to_vec();
        bytes[frame - 8..frame].copy_from_slice(&lie.to_le_bytes());
        let decoded = usual().decode(&records(&[&bytes, zstd]));
        assert_eq!(origins(&decoded), [1; 20], "{lie}");
        let code = decoded.rejected[0].code.as_str();
        assert!(matches!(code, "bad-arrow" | "too-large"), "{lie}: {code}");
    }
}

#[test]
fn views_are_read_and_many_views_of_one_text_are_bounded() {
    let plain = include_bytes!("../../ipc/testdata/views.arrows");
    let decoded = usual().decode(&records(&[plain]));
    assert_eq!(table(&decoded).0, "s: Utf8");
    assert_eq!(decoded.batch.unwrap().rows.num_rows(), 4);
    // 20,000 views of one text of 64 KiB are 1.3 GB.
    let mut views = arrow_array::builder::StringViewBuilder::new();
    let block = views.append_block(vec![b'x'; 1 << 16].into());
    (0..20_000).for_each(|_| views.try_append_view(block, 0, 1 << 16).unwrap());
    let bomb = stream(&[rows([("s", Arc::new(views.finish()) as ArrayRef)])]);
    let decoded = usual().decode(&records(&[&bomb, plain]));
    assert_eq!(origins(&decoded), [1; 4]);
    assert_eq!(refused(&decoded), ["[0] too-large: the record unpacks to more than 268435456 bytes"]);
}

#[test]
fn columns_come_widen_and_stay_by_the_rules() {
    let mut decoder = usual();
    let first = decoder.decode(&records(&[
        &stream(&[rows([("a", Arc::new(Int8Array::from(vec![1])) as ArrayRef), ("b", words(&["x"]))])]),
        &stream(&[rows([("c", words(&["new"])), ("a", integers(&[1 << 40]))])]),
        &stream(&[rows([("b", integers(&[5]))])]),
        &stream(&[rows([("a", Arc::new(UInt64Array::from(vec![1, u64::MAX])) as ArrayRef)])]),
    ]));
    assert_eq!(table(&first).0, "a: Int64, b: Utf8, c: Utf8");
    assert_eq!(table(&first).1, ["1|x|null", "1099511627776|null|new"]);
    assert_eq!(
        refused(&first),
        [
            "[2] wrong-type: b: expected Utf8, found Int64",
            "[3] number-out-of-range: a: a value of UInt64 does not fit Int64",
        ]
    );
    let mut as_text = arrow_decoder(None, OnNewField::Add, OnTypeChange::String);
    let mixed = as_text
        .decode(&records(&[&stream(&[rows([("a", words(&["x"]))])]), &stream(&[rows([("a", integers(&[5]))])])]));
    assert_eq!(table(&mixed), ("a: Utf8".to_owned(), vec!["x".to_owned(), "5".to_owned()]));
    for (on_new_field, expected) in [
        (OnNewField::Ignore, "a: Int64 / 1 ; 2 / "),
        (OnNewField::Reject, "a: Int64 / 1 / [1] unknown-field: the schema has no field \"new\""),
    ] {
        let declared = Some(vec![Field::new("a", DataType::Int64, true)]);
        let mut decoder = arrow_decoder(declared, on_new_field, OnTypeChange::Widen);
        let decoded = decoder.decode(&records(&[
            &stream(&[rows([("a", Arc::new(Int8Array::from(vec![1])) as ArrayRef)])]),
            &stream(&[rows([("new", words(&["x"])), ("a", integers(&[2]))])]),
        ]));
        let (fields, found) = table(&decoded);
        assert_eq!(format!("{fields} / {} / {}", found.join(" ; "), refused(&decoded).join(" ; ")), expected);
    }
}

#[test]
fn a_declared_schema_is_filled_exactly_or_not_at_all() {
    let declared = || {
        Some(vec![
            Field::new("id", DataType::Int32, false),
            Field::new("amount", DataType::Decimal128(10, 2), true),
            Field::new("name", DataType::Utf8, true),
        ])
    };
    let amounts = Decimal128Array::from(vec![12_345]).with_precision_and_scale(20, 3).unwrap();
    let decoded = arrow_decoder(declared(), OnNewField::Ignore, OnTypeChange::Widen).decode(&records(&[
        &stream(&[rows([
            ("name", Arc::new(LargeStringArray::from(vec!["x"])) as ArrayRef),
            ("id", integers(&[7])),
            ("other", integers(&[7])),
        ])]),
        &stream(&[rows([("id", integers(&[1 << 40]))])]),
        &stream(&[rows([("name", words(&["y"]))])]),
        &stream(&[rows([("id", integers(&[1])), ("amount", Arc::new(amounts) as ArrayRef)])]),
        &stream(&[rows([("id", Arc::new(Int64Array::from(vec![None::<i64>])) as ArrayRef)])]),
    ]));
    assert_eq!(table(&decoded).1, ["7|null|x"]);
    assert_eq!(
        refused(&decoded),
        [
            "[1] number-out-of-range: id: a value of Int64 does not fit Int32",
            "[2] null-not-allowed: id: the column is missing, and it is not nullable",
            "[3] precision-loss: amount: a value of Decimal128(20, 3) cannot be held exactly as Decimal128(10, 2)",
            "[4] null-not-allowed: id: null in a column that is not nullable",
        ]
    );
}

#[test]
fn what_has_no_column_or_no_place_in_parquet_is_refused() {
    let options = RecordBatchOptions::new().with_row_count(Some(5));
    let bare = RecordBatch::try_new_with_options(Arc::new(Schema::empty()), Vec::new(), &options).unwrap();
    let duration: ArrayRef = Arc::new(arrow_array::DurationSecondArray::from(vec![1]));
    let nothing = rows([("n", new_null_array(&DataType::Null, 2))]);
    let mut decoder = usual();
    let decoded = decoder.decode(&records(&[
        &stream(&[bare]),
        &stream(&[rows([("d", duration)])]),
        include_bytes!("../../ipc/testdata/run_end.arrows"),
        &stream(std::slice::from_ref(&nothing)),
    ]));
    let codes: Vec<_> = decoded.rejected.iter().map(|rejection| (rejection.rows[0], rejection.code.as_str())).collect();
    assert_eq!(codes, [(0, "bad-arrow"), (1, "unsupported-type"), (2, "unsupported-type"), (3, "no-fields")]);
    assert!(decoder.schema().is_none());
    let decoded = decoder.decode(&records(&[&stream(&[rows([("a", integers(&[1]))])]), &stream(&[nothing])]));
    assert_eq!(table(&decoded).1, ["1", "null", "null"], "a column of nulls says nothing");
}

#[test]
fn a_row_of_a_file_is_refused_alone() {
    let declared = Some(vec![Field::new("a", DataType::Int8, true)]);
    let mut decoder = decoder(declared, OnNewField::Add);
    let values: Vec<i64> = (0..100).map(|row| if row % 37 == 36 { 1_000 } else { row }).collect();
    let file = rows([("a", integers(&values)), ("b", integers(&values))]);
    let decoded = decoder.decode_rows(&envelope(&[None; 100]), &file);
    assert_eq!(origins(&decoded).len(), 98);
    assert_eq!(refused(&decoded), ["[36, 73] number-out-of-range: a: a value of Int64 does not fit Int8"]);
    let batch = decoded.batch.unwrap().rows;
    assert_eq!(batch.column(1).as_primitive::<Int64Type>().value(37), 38, "the rows behind a bad one moved up");
    let mut raw =
        Decoder::new(&DecodeConfig { format: ValueFormat::Raw, ..config(None, OnNewField::Add, OnTypeChange::Widen) })
            .unwrap();
    assert_eq!(raw.decode_rows(&envelope(&[None; 100]), &file).rejected[0].code, "typed-row");
}

#[test]
fn json_and_typed_rows_share_one_schema() {
    let mut decoder = decoder(None, OnNewField::Add);
    let file = rows([
        ("id", Arc::new(Int8Array::from(vec![1])) as ArrayRef),
        ("day", Arc::new(arrow_array::Date32Array::from(vec![3]))),
    ]);
    decoder.decode_rows(&envelope(&[None]), &file);
    let decoded = decoder.decode(&texts(&[r#"{"id":5,"name":"x"}"#, r#"{"id":300}"#, r#"{"day":"1970-01-02"}"#]));
    assert_eq!(table(&decoded).0, "id: Int8, day: Date32, name: Utf8");
    assert_eq!(table(&decoded).1, ["5|null|x", "null|1970-01-02|null"]);
    assert_eq!(refused(&decoded), ["[1] number-out-of-range: id: 300 does not fit Int8"]);
    let time: ArrayRef = Arc::new(arrow_array::FixedSizeBinaryArray::try_from_iter([[1u8; 4]].into_iter()).unwrap());
    decoder.decode_rows(&envelope(&[None]), &rows([("hash", time)]));
    let decoded = decoder.decode(&texts(&[r#"{"id":6,"hash":null}"#, r#"{"hash":"AAAA"}"#]));
    assert_eq!(table(&decoded).1, ["6|null|null|null"]);
    assert_eq!(refused(&decoded), ["[1] wrong-type: hash: expected FixedSizeBinary(4), found \"AAAA\""]);
}

#[test]
fn rows_of_one_record_have_one_dead_letter() {
    let file = stream(&[rows([("a", integers(&[1, 2, 3]))])]);
    let decoded = usual().decode(&records(&[&file, &file]));
    let rejection = Rejection {
        rows: vec![0, 2, 3],
        stage: crate::batch::Stage::Partition,
        plugin: None,
        code: "x".to_owned(),
        message: "x".to_owned(),
    };
    let letters = decoded.batch.unwrap().dead_letters(&rejection);
    let offsets: Vec<i64> = letters.iter().map(|letter| letter.record.as_ref().unwrap().offset).collect();
    assert_eq!(offsets, [100, 101]);
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

/// Scenario: streams and files of pyarrow, compressed and not, changed at random.
/// Guarantees: the decoder never panics, and a record next to a changed one is whole.
#[test]
fn no_changed_record_harms_its_neighbour() {
    // FS_DATA_SINK_MUTATIONS=1000000 looks longer.
    let cases = std::env::var("FS_DATA_SINK_MUTATIONS").ok().and_then(|n| n.parse().ok()).unwrap_or(4_000);
    let seeds = [
        include_bytes!("../../ipc/testdata/typed_plain.arrows").as_slice(),
        include_bytes!("../../ipc/testdata/typed_lz4.arrows"),
        include_bytes!("../../ipc/testdata/typed_zstd.arrow"),
        include_bytes!("../../ipc/testdata/zstd.arrows"),
    ];
    let sound = stream(&[rows([("sound", integers(&[7]))])]);
    let mut random = Random(0x9e37_79b9_7f4a_7c15);
    let mut accepted = 0;
    for case in 0..cases {
        let mut bytes = seeds[case % seeds.len()].to_vec();
        for _ in 0..=random.below(3) {
            let at = random.below(bytes.len());
            bytes[at] = match random.below(3) {
                0 => 0,
                1 => 0xff,
                _ => bytes[at] ^ (1 << random.below(8)),
            };
        }
        if random.below(16) == 0 {
            bytes.truncate(random.below(bytes.len()));
        }
        let decoded = usual().decode(&records(&[&bytes, &sound]));
        assert!(decoded.rejected.iter().all(|rejection| !rejection.message.contains("cannot cope")), "case {case}");
        let batch = decoded.batch.unwrap().rows;
        let column = batch.column_by_name("sound").unwrap();
        assert_eq!(column.as_primitive::<Int64Type>().value(batch.num_rows() - 1), 7, "case {case}");
        accepted += usize::from(decoded.rejected.is_empty());
    }
    assert!(accepted > cases / 20, "{accepted} of {cases} accepted");
}
