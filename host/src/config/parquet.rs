//! How Parquet is written: `sink.parquet`.

/// How Parquet is written.
#[derive(Clone, Debug, PartialEq)]
pub struct ParquetConfig {
    /// Codec of every column.
    pub compression: Compression,
    /// A row group ends at so many rows.
    pub row_group_rows: usize,
    /// A row group ends at about so many encoded bytes.
    pub row_group_bytes: usize,
    /// A page ends at about so many bytes.
    pub data_page_bytes: usize,
    /// Whether columns start with a dictionary.
    pub dictionary: bool,
    /// How much statistics are written.
    pub statistics: Statistics,
    /// Columns with a bloom filter.
    pub bloom_filter: Vec<String>,
    /// What the rows of each row group are sorted by.
    pub sort_by: Vec<SortColumn>,
    /// Per column, by dotted path.
    pub columns: Vec<(String, ColumnConfig)>,
}

impl Default for ParquetConfig {
    fn default() -> Self {
        Self {
            compression: Compression::Snappy,
            row_group_rows: 1 << 20,
            row_group_bytes: 128 << 20,
            data_page_bytes: 1 << 20,
            dictionary: true,
            statistics: Statistics::Page,
            bloom_filter: Vec::new(),
            sort_by: Vec::new(),
            columns: Vec::new(),
        }
    }
}

/// What differs for one column.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ColumnConfig {
    /// Overrides the file's setting.
    pub dictionary: Option<bool>,
    /// Encoding of values that are not in the dictionary.
    pub encoding: Option<Encoding>,
    /// Overrides the file's codec.
    pub compression: Option<Compression>,
    /// Overrides the file's setting.
    pub statistics: Option<Statistics>,
    /// Overrides the file's setting.
    pub data_page_bytes: Option<usize>,
}

/// A column that rows are sorted by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SortColumn {
    /// Its dotted path.
    pub column: String,
    /// Whether the largest value comes first.
    pub descending: bool,
    /// Whether nulls come before all values.
    pub nulls_first: bool,
}

/// A Parquet encoding that a user may ask for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Encoding {
    /// Values one after another.
    Plain,
    /// Lengths first, then bytes; strings and binary.
    DeltaLengthByteArray,
    /// Shared prefixes; strings and binary.
    DeltaByteArray,
    /// Differences; integers.
    DeltaBinaryPacked,
    /// Bytes of floats apart.
    ByteStreamSplit,
}

/// A codec with its level, where it has levels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Compression {
    /// No compression.
    None,
    /// Fast, no levels.
    Snappy,
    /// 0 to 10.
    Gzip(u32),
    /// 0 to 11.
    Brotli(u32),
    /// 1 to 22.
    Zstd(i32),
    /// The raw LZ4 block format.
    Lz4,
}

/// How much statistics are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Statistics {
    /// None.
    None,
    /// Per row group.
    Chunk,
    /// Per page as well.
    Page,
}
