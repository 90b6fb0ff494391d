//! A bucket that is a Parquet or CSV file, read into memory once when the plugin is loaded.
//!
//! Comes in: a file with one row a key. Goes out: for each key the row as JSON, or the text of one column. Promises: no more
//! memory than configured; a key that is there twice is told, not chosen from; what is read stays as it is until the pipeline
//! starts again, so that all lanes and all tries of a batch see the same.

use std::fs::File;

use arrow_array::{Array, ArrayRef, RecordBatch, cast::AsArray as _};
use arrow_cast::display::{ArrayFormatter, FormatOptions};
use arrow_json::{LineDelimitedWriter, WriterBuilder, writer::LineDelimited};
use arrow_schema::DataType;
use indexmap::IndexMap;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;

use super::keyvalue::{ANSWER_BYTES_MAX, Answer, KEY_BYTES_MAX, PAGE_KEYS, too_much};
use crate::config::TableBucket;

/// Rows that are turned into text at once.
const BATCH_ROWS: usize = 1024;
/// What one row costs besides its bytes: its places in the map, with the room that a growing map leaves free.
const ROW_BYTES: usize = 96;

/// Keys and values of a file.
pub(super) struct Table {
    /// In the order of the file.
    rows: IndexMap<Box<str>, Box<[u8]>>,
}

impl Table {
    /// Reads a file. Values may have so many bytes.
    pub(super) fn read(config: &TableBucket, value_bytes_max: usize) -> Result<Self, String> {
        let mut reading = Reading { config, value_bytes_max, rows: IndexMap::default(), bytes: 0 };
        let is_csv = config.path.extension().is_some_and(|ending| ending.eq_ignore_ascii_case("csv"));
        let read = if is_csv { reading.csv() } else { reading.parquet() };
        read.map_err(|words| format!("{}: {words}", config.path.display()))?;
        tracing::debug!(path = %config.path.display(), rows = reading.rows.len(), bytes = reading.bytes, "table is read");
        Ok(Self { rows: reading.rows })
    }

    /// The values of keys, in their order.
    pub(super) fn get_many(&self, keys: &[String]) -> Answer<Vec<Option<Vec<u8>>>> {
        let mut bytes = 0_usize;
        let values = keys.iter().map(|key| {
            let value = self.rows.get(key.as_str());
            bytes += value.map_or(0, |value| value.len());
            if bytes > ANSWER_BYTES_MAX { Err(too_much()) } else { Ok(value.map(|value| value.to_vec())) }
        });
        values.collect()
    }

    /// Whether a key is there.
    pub(super) fn exists(&self, key: &str) -> bool {
        self.rows.contains_key(key)
    }

    /// A page of keys and where the next one begins.
    pub(super) fn list(&self, cursor: u64) -> (Vec<String>, Option<u64>) {
        let from = usize::try_from(cursor).unwrap_or(usize::MAX).min(self.rows.len());
        let to = from.saturating_add(PAGE_KEYS).min(self.rows.len());
        let page = self.rows.get_range(from..to);
        let keys = page.into_iter().flat_map(|page| page.keys()).map(ToString::to_string).collect();
        (keys, (to < self.rows.len()).then_some(to as u64))
    }
}

/// A file while it is read.
struct Reading<'a> {
    /// Which, and how.
    config: &'a TableBucket,
    /// Bytes of one value.
    value_bytes_max: usize,
    /// What was read.
    rows: IndexMap<Box<str>, Box<[u8]>>,
    /// What it takes.
    bytes: usize,
}

impl Reading<'_> {
    /// Takes a row.
    fn take(&mut self, key: &str, value: &[u8]) -> Result<(), String> {
        let at = self.rows.len() + 1;
        if key.len() > KEY_BYTES_MAX {
            return Err(format!("row {at}: a key of {} bytes; at most {KEY_BYTES_MAX}", key.len()));
        }
        if value.len() > self.value_bytes_max {
            let most = self.value_bytes_max;
            return Err(format!("row {at}: a value of {} bytes; at most {most} (value_bytes)", value.len()));
        }
        self.bytes += key.len() + value.len() + ROW_BYTES;
        if self.bytes > self.config.memory_bytes {
            let most = self.config.memory_bytes;
            return Err(format!("takes more than {most} bytes in memory (table.memory) from row {at} on"));
        }
        match self.rows.insert(key.into(), value.into()) {
            None => Ok(()),
            Some(_) => Err(format!("row {at}: the key {key:?} is there twice in column {}", self.config.key)),
        }
    }

    /// The words for a column that is not there.
    fn no_column(name: &str, names: &[&str]) -> String {
        format!("has no column {name:?}; it has: {}", names.join(", "))
    }

    /// A CSV file with names in its first line. All values are texts; an empty one is a null.
    fn csv(&mut self) -> Result<(), String> {
        let mut reader = csv::Reader::from_path(&self.config.path).map_err(|error| error.to_string())?;
        let header = reader.headers().map_err(|error| error.to_string())?.clone();
        let names: Vec<&str> = header.iter().collect();
        let position =
            |name: &str| names.iter().position(|own| *own == name).ok_or_else(|| Self::no_column(name, &names));
        let key = position(&self.config.key)?;
        let value = self.config.value.as_deref().map(position).transpose()?;
        let mut record = csv::StringRecord::new();
        while reader.read_record(&mut record).map_err(|error| error.to_string())? {
            let text = |at: usize| record.get(at).unwrap_or_default();
            if let Some(value) = value {
                self.take(text(key), text(value).as_bytes())?;
                continue;
            }
            let field = |text: &str| if text.is_empty() { serde_json::Value::Null } else { text.into() };
            let row: serde_json::Map<_, _> =
                names.iter().zip(&record).map(|(name, text)| ((*name).to_owned(), field(text))).collect();
            self.take(text(key), serde_json::Value::Object(row).to_string().as_bytes())?;
        }
        Ok(())
    }

    /// A Parquet file.
    fn parquet(&mut self) -> Result<(), String> {
        let file = File::open(&self.config.path).map_err(|error| format!("cannot be opened: {error}"))?;
        let builder = ParquetRecordBatchReaderBuilder::try_new(file).map_err(|error| error.to_string())?;
        let reader = builder.with_batch_size(BATCH_ROWS).build().map_err(|error| error.to_string())?;
        for batch in reader {
            let batch = batch.map_err(|error| error.to_string())?;
            let keys = texts(Self::column(&batch, &self.config.key)?, &self.config.key)?;
            let values = match &self.config.value {
                Some(name) => column_values(Self::column(&batch, name)?)?,
                None => row_values(&batch)?,
            };
            for (row, (key, value)) in keys.into_iter().zip(values).enumerate() {
                // A row without a key cannot be looked up; a null in a key column is more likely a mistake than meant.
                let key =
                    key.ok_or_else(|| format!("a null in the key column {}, row {row} of a batch", self.config.key))?;
                if let Some(value) = value {
                    self.take(&key, &value)?;
                }
            }
        }
        Ok(())
    }

    /// A column.
    fn column<'b>(batch: &'b RecordBatch, name: &str) -> Result<&'b ArrayRef, String> {
        let schema = batch.schema();
        let names: Vec<&str> = schema.fields().iter().map(|field| field.name().as_str()).collect();
        batch.column_by_name(name).ok_or_else(|| Self::no_column(name, &names))
    }
}

/// The texts of a key column.
fn texts(column: &ArrayRef, name: &str) -> Result<Vec<Option<String>>, String> {
    let data_type = column.data_type();
    let is_key = data_type.is_integer()
        || matches!(data_type, DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View | DataType::Boolean);
    if !is_key {
        return Err(format!("column {name:?} is of type {data_type}; texts, whole numbers and booleans can be keys"));
    }
    let options = FormatOptions::default();
    let formatter = ArrayFormatter::try_new(column, &options).map_err(|error| error.to_string())?;
    Ok((0..column.len()).map(|row| column.is_valid(row).then(|| formatter.value(row).to_string())).collect())
}

/// The values of one column: bytes as they are, all others as text. A null is no value.
fn column_values(column: &ArrayRef) -> Result<Vec<Option<Vec<u8>>>, String> {
    fn owned<'a>(values: impl Iterator<Item = Option<&'a [u8]>>) -> Vec<Option<Vec<u8>>> {
        values.map(|value| value.map(<[u8]>::to_vec)).collect()
    }
    if column.data_type().is_nested() {
        return Err(format!("a value column of type {}; leave `value` out to get the row as JSON", column.data_type()));
    }
    match column.data_type() {
        DataType::Binary => return Ok(owned(column.as_binary::<i32>().iter())),
        DataType::LargeBinary => return Ok(owned(column.as_binary::<i64>().iter())),
        DataType::BinaryView => return Ok(owned(column.as_binary_view().iter())),
        DataType::FixedSizeBinary(_) => return Ok(owned(column.as_fixed_size_binary().iter())),
        _ => {}
    }
    let options = FormatOptions::default();
    let formatter = ArrayFormatter::try_new(column, &options).map_err(|error| error.to_string())?;
    let text = |row| column.is_valid(row).then(|| formatter.value(row).to_string().into_bytes());
    Ok((0..column.len()).map(text).collect())
}

/// Each row as a JSON object with all columns.
fn row_values(batch: &RecordBatch) -> Result<Vec<Option<Vec<u8>>>, String> {
    let builder = WriterBuilder::new().with_explicit_nulls(true);
    let mut writer: LineDelimitedWriter<Vec<u8>> = builder.build::<_, LineDelimited>(Vec::new());
    writer.write(batch).and_then(|()| writer.finish()).map_err(|error| error.to_string())?;
    // A new line within a text is written as \n, so that each line is a row.
    let lines = writer.into_inner();
    Ok(lines.split(|byte| *byte == b'\n').take(batch.num_rows()).map(|line| Some(line.to_vec())).collect())
}

#[cfg(test)]
mod tests {
    use std::{path::Path, sync::Arc};

    use arrow_array::{BinaryArray, Int64Array, StringArray};
    use parquet::arrow::ArrowWriter;

    use super::*;

    /// A table in a file of a folder.
    fn table(path: &Path, key: &str, value: Option<&str>, memory_bytes: usize) -> Result<Table, String> {
        let config =
            TableBucket { path: path.to_owned(), key: key.to_owned(), value: value.map(str::to_owned), memory_bytes };
        Table::read(&config, 64).map_err(|words| words.replace(&format!("{}: ", path.display()), ""))
    }

    /// What is behind keys, as text.
    fn get(table: &Table, keys: &[&str]) -> Vec<Option<String>> {
        let keys: Vec<String> = keys.iter().map(|key| (*key).to_owned()).collect();
        let values = table.get_many(&keys).unwrap();
        values.into_iter().map(|value| value.map(|value| String::from_utf8(value).unwrap())).collect()
    }

    #[test]
    fn rows_of_csv_are_json_or_one_column() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("t.csv");
        std::fs::write(&path, "id,name,note\na,\"Ann, \"\"A\"\"\",\nb,Bob,\"two\nlines\"\n").unwrap();
        let rows = table(&path, "id", None, 1 << 20).unwrap();
        assert_eq!(
            get(&rows, &["b", "x", "a"]),
            [
                Some("{\"id\":\"b\",\"name\":\"Bob\",\"note\":\"two\\nlines\"}".to_owned()),
                None,
                Some("{\"id\":\"a\",\"name\":\"Ann, \\\"A\\\"\",\"note\":null}".to_owned())
            ]
        );
        let names = table(&path, "id", Some("name"), 1 << 20).unwrap();
        assert_eq!(get(&names, &["b"]), [Some("Bob".to_owned())]);
        assert!(names.exists("a") && !names.exists("x"));
        assert_eq!(names.list(0), (vec!["a".to_owned(), "b".to_owned()], None));
        assert_eq!(names.list(u64::MAX), (Vec::new(), None));
    }

    #[test]
    fn rows_of_parquet_are_json_or_one_column() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("t.parquet");
        let columns: [(&str, ArrayRef, bool); 3] = [
            ("id", Arc::new(Int64Array::from(vec![7, 8])), false),
            ("name", Arc::new(StringArray::from(vec![Some("a\nb"), None])), true),
            ("raw", Arc::new(BinaryArray::from(vec![Some(&b"\x00\xff"[..]), None])), true),
        ];
        let batch = RecordBatch::try_from_iter_with_nullable(columns).unwrap();
        let mut writer = ArrowWriter::try_new(File::create(&path).unwrap(), batch.schema(), None).unwrap();
        writer.write(&batch).unwrap();
        writer.close().unwrap();
        let rows = table(&path, "id", None, 1 << 20).unwrap();
        assert_eq!(
            get(&rows, &["8", "7"]),
            [
                Some("{\"id\":8,\"name\":null,\"raw\":null}".to_owned()),
                Some("{\"id\":7,\"name\":\"a\\nb\",\"raw\":\"00ff\"}".to_owned())
            ]
        );
        let raw = table(&path, "id", Some("raw"), 1 << 20).unwrap();
        assert_eq!(raw.get_many(&["7".to_owned(), "8".to_owned()]).unwrap(), [Some(vec![0, 0xff]), None]);
        let wrong = |key, value| table(&path, key, value, 1 << 20).map(|_| ()).unwrap_err();
        assert_eq!(wrong("no", None), "has no column \"no\"; it has: id, name, raw");
        assert_eq!(
            wrong("raw", None),
            "column \"raw\" is of type Binary; texts, whole numbers and booleans can be keys"
        );
        assert_eq!(wrong("name", None), "a null in the key column name, row 1 of a batch");
    }

    #[test]
    fn tables_that_are_too_large_or_have_a_key_twice_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("t.csv");
        let refusal = |text: &str, memory_bytes| {
            std::fs::write(&path, text).unwrap();
            table(&path, "id", None, memory_bytes).map(|_| ()).unwrap_err()
        };
        assert_eq!(refusal("id\na\nb\na\n", 1 << 20), "row 3: the key \"a\" is there twice in column id");
        assert_eq!(refusal("id\na\nb\n", 150), "takes more than 150 bytes in memory (table.memory) from row 2 on");
        let long = "x".repeat(100);
        assert_eq!(refusal(&format!("id\n{long}\n"), 1 << 20), "row 1: a value of 109 bytes; at most 64 (value_bytes)");
        let long = "x".repeat(2000);
        assert_eq!(refusal(&format!("id\n{long}\n"), 1 << 20), "row 1: a key of 2000 bytes; at most 1024");
        assert!(refusal("id,n\na\n", 1 << 20).contains("found record with 1 fields"));
        assert_eq!(refusal("x\na\n", 1 << 20), "has no column \"id\"; it has: x");
        std::fs::write(folder.path().join("t.parquet"), "no").unwrap();
        assert!(table(&folder.path().join("t.parquet"), "id", None, 1 << 20).is_err());
    }
}
