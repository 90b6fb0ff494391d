//! The configuration as the Parquet writer's properties, checked against a schema.
//!
//! Comes in: `sink.parquet`, the leaves of a schema, and what was found out about dictionaries. Goes out:
//! [`WriterProperties`], or an error that names the columns there are, or the types an encoding is for. Pure.

use parquet::{
    basic::{
        BrotliLevel, Compression as Codec, Encoding as ParquetEncoding, GzipLevel, Type as PhysicalType, ZstdLevel,
    },
    errors::ParquetError,
    file::properties::{EnabledStatistics, WriterProperties, WriterPropertiesBuilder},
};

use super::{dictionary::Advice, leaf::Leaf, sort::SortPlan};
use crate::{
    config::{ColumnConfig, Compression, Encoding, ParquetConfig, Statistics},
    error::PipelineError,
};

/// Written into each file: `<application> version <version>`, as readers expect it.
const CREATED_BY: &str = concat!("fs-data-sink version ", env!("CARGO_PKG_VERSION"));

/// The properties for files of a schema. `advice` has one entry a leaf, or none where nothing is known yet.
pub(super) fn writer_properties(
    config: &ParquetConfig,
    leaves: &[Leaf],
    advice: &[Advice],
    sort: Option<&SortPlan>,
) -> Result<WriterProperties, PipelineError> {
    let mut builder = WriterProperties::builder()
        .set_created_by(CREATED_BY.to_owned())
        // Names of list elements and map entries as the Parquet format wants them.
        .set_coerce_types(true)
        .set_compression(codec(config.compression)?)
        .set_max_row_group_row_count(Some(config.row_group_rows.max(1)))
        .set_max_row_group_bytes(Some(config.row_group_bytes.max(1)))
        .set_data_page_size_limit(config.data_page_bytes)
        .set_dictionary_enabled(config.dictionary)
        .set_statistics_enabled(enabled(config.statistics))
        .set_sorting_columns(sort.map(SortPlan::columns));
    for (number, leaf) in leaves.iter().enumerate() {
        let encoding = configured(config, leaf, |column| column.encoding);
        if let Some(dictionary) = configured(config, leaf, |column| column.dictionary) {
            builder = builder.set_column_dictionary_enabled(leaf.path.clone(), dictionary);
        } else if config.dictionary && advice.get(number) == Some(&Advice::Distinct) {
            builder = without_dictionary(builder, leaf, encoding);
        }
        if let Some(encoding) = encoding {
            builder = builder.set_column_encoding(leaf.path.clone(), parquet_encoding(encoding, leaf)?);
        }
        if let Some(compression) = configured(config, leaf, |column| column.compression) {
            builder = builder.set_column_compression(leaf.path.clone(), codec(compression)?);
        }
        if let Some(statistics) = configured(config, leaf, |column| column.statistics) {
            builder = builder.set_column_statistics_enabled(leaf.path.clone(), enabled(statistics));
        }
        if let Some(bytes) = configured(config, leaf, |column| column.data_page_bytes) {
            builder = builder.set_column_data_page_size_limit(leaf.path.clone(), bytes);
        }
        if config.bloom_filter.iter().any(|path| leaf.is_named(path)) {
            builder = builder.set_column_bloom_filter_enabled(leaf.path.clone(), true);
        }
    }
    check_names("sink.parquet.bloom_filter", config.bloom_filter.iter(), leaves)?;
    check_names("sink.parquet.columns", config.columns.iter().map(|(path, _)| path), leaves)?;
    Ok(builder.build())
}

/// How much statistics are written, as the writer has it.
fn enabled(statistics: Statistics) -> EnabledStatistics {
    match statistics {
        Statistics::None => EnabledStatistics::None,
        Statistics::Chunk => EnabledStatistics::Chunk,
        Statistics::Page => EnabledStatistics::Page,
    }
}

/// What is configured for a leaf; where both it and a struct around it are named, what is named more closely.
fn configured<T>(config: &ParquetConfig, leaf: &Leaf, setting: impl Fn(&ColumnConfig) -> Option<T>) -> Option<T> {
    let named = config.columns.iter().filter(|(path, _)| leaf.is_named(path));
    let set = named.filter_map(|(path, column)| Some((path.len(), setting(column)?)));
    set.max_by_key(|(length, _)| *length).map(|(_, value)| value)
}

/// A column whose values hardly repeat.
fn without_dictionary(
    builder: WriterPropertiesBuilder,
    leaf: &Leaf,
    asked: Option<Encoding>,
) -> WriterPropertiesBuilder {
    let builder = builder.set_column_dictionary_enabled(leaf.path.clone(), false);
    if leaf.physical == PhysicalType::BYTE_ARRAY && asked.is_none() {
        // Lengths apart from bytes: less work than plain, and smaller.
        builder.set_column_encoding(leaf.path.clone(), ParquetEncoding::DELTA_LENGTH_BYTE_ARRAY)
    } else {
        builder
    }
}

/// Refuses names that no leaf has.
pub(super) fn check_names<'config>(
    key: &str,
    names: impl Iterator<Item = &'config String>,
    leaves: &[Leaf],
) -> Result<(), PipelineError> {
    let unknown: Vec<&str> =
        names.filter(|name| !leaves.iter().any(|leaf| leaf.is_named(name))).map(String::as_str).collect();
    if unknown.is_empty() {
        return Ok(());
    }
    // A wide table would fill the screen.
    let there: Vec<&str> = leaves.iter().take(100).map(|leaf| leaf.name.as_str()).collect();
    let more = if leaves.len() > there.len() { ", ..." } else { "" };
    Err(PipelineError::stop(format!(
        "{key} names `{}`, which the files do not have; their columns are: {}{more}",
        unknown.join("`, `"),
        there.join(", ")
    )))
}

/// A codec with its level.
fn codec(compression: Compression) -> Result<Codec, PipelineError> {
    let level =
        |error: ParquetError| PipelineError::stop("the level of sink.compression is not possible").because(error);
    Ok(match compression {
        Compression::None => Codec::UNCOMPRESSED,
        Compression::Snappy => Codec::SNAPPY,
        Compression::Gzip(number) => Codec::GZIP(GzipLevel::try_new(number).map_err(level)?),
        Compression::Brotli(number) => Codec::BROTLI(BrotliLevel::try_new(number).map_err(level)?),
        Compression::Zstd(number) => Codec::ZSTD(ZstdLevel::try_new(number).map_err(level)?),
        Compression::Lz4 => Codec::LZ4_RAW,
    })
}

/// An encoding, if it is for the leaf's type.
fn parquet_encoding(encoding: Encoding, leaf: &Leaf) -> Result<ParquetEncoding, PipelineError> {
    use PhysicalType::{BYTE_ARRAY, DOUBLE, FIXED_LEN_BYTE_ARRAY, FLOAT, INT32, INT64};
    let (parquet, fits, wanted) = match encoding {
        Encoding::Plain => (ParquetEncoding::PLAIN, true, "any type"),
        Encoding::DeltaLengthByteArray => {
            (ParquetEncoding::DELTA_LENGTH_BYTE_ARRAY, leaf.physical == BYTE_ARRAY, "strings and binary")
        }
        Encoding::DeltaByteArray => {
            let fits = matches!(leaf.physical, BYTE_ARRAY | FIXED_LEN_BYTE_ARRAY);
            (ParquetEncoding::DELTA_BYTE_ARRAY, fits, "strings and binary")
        }
        Encoding::DeltaBinaryPacked => {
            (ParquetEncoding::DELTA_BINARY_PACKED, matches!(leaf.physical, INT32 | INT64), "integers, dates and times")
        }
        Encoding::ByteStreamSplit => {
            let fits = matches!(leaf.physical, FLOAT | DOUBLE | INT32 | INT64 | FIXED_LEN_BYTE_ARRAY);
            (ParquetEncoding::BYTE_STREAM_SPLIT, fits, "floats, integers and fixed-size binary")
        }
    };
    if fits {
        Ok(parquet)
    } else {
        Err(PipelineError::stop(format!(
            "sink.parquet.columns gives `{}` the encoding {parquet}, which is for {wanted}; the column is stored as {}",
            leaf.name, leaf.physical
        )))
    }
}
