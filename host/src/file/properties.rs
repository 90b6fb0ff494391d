//! From the configuration to what the Parquet writer wants, checked against the schema.
//!
//! What the user leaves open is decided from the first rows (`dictionary.rs`); what the user says always counts.

use arrow_schema::{DataType, Schema};
use parquet::{
    arrow::ArrowSchemaConverter,
    basic::{
        BrotliLevel, Compression as Codec, Encoding as ParquetEncoding, GzipLevel, Type as PhysicalType, ZstdLevel,
    },
    errors::ParquetError,
    file::properties::{EnabledStatistics, WriterProperties, WriterPropertiesBuilder},
    schema::types::{ColumnDescPtr, ColumnPath},
};

use super::dictionary::UniqueColumns;
use crate::{
    config::{ColumnConfig, Compression, Encoding, ParquetConfig, Statistics},
    error::PipelineError,
};

/// The writer's properties for files of a schema.
pub(super) fn writer_properties(
    config: &ParquetConfig,
    schema: &Schema,
    unique: &UniqueColumns,
) -> Result<WriterProperties, PipelineError> {
    let descriptor = ArrowSchemaConverter::new()
        .convert(schema)
        .map_err(|error| PipelineError::stop("the rows have a type that Parquet cannot store").because(error))?;
    let leaves: Vec<ColumnDescPtr> = descriptor.columns().to_vec();
    let ParquetConfig {
        compression,
        row_group_rows,
        row_group_bytes,
        data_page_bytes,
        dictionary,
        statistics,
        bloom_filter,
        columns,
    } = config;
    let mut builder = WriterProperties::builder()
        .set_created_by(format!("fs-data-sink version {}", env!("CARGO_PKG_VERSION")))
        .set_compression(codec(*compression).map_err(invalid)?)
        .set_max_row_group_row_count(Some((*row_group_rows).max(1)))
        .set_max_row_group_bytes(Some((*row_group_bytes).max(1)))
        .set_data_page_size_limit(*data_page_bytes)
        .set_dictionary_enabled(*dictionary)
        .set_statistics_enabled(match statistics {
            Statistics::None => EnabledStatistics::None,
            Statistics::Chunk => EnabledStatistics::Chunk,
            Statistics::Page => EnabledStatistics::Page,
        });
    for leaf in &leaves {
        if unique.contains(leaf.path()) {
            builder = builder.set_column_dictionary_enabled(leaf.path().clone(), false);
            if leaf.physical_type() == PhysicalType::BYTE_ARRAY {
                builder = builder.set_column_encoding(leaf.path().clone(), ParquetEncoding::DELTA_LENGTH_BYTE_ARRAY);
            }
        }
    }
    for name in bloom_filter {
        let leaf = find(&leaves, name, "sink.parquet.bloom_filter")?;
        builder = builder.set_column_bloom_filter_enabled(leaf.path().clone(), true);
    }
    for (name, column) in columns {
        builder = apply_column(builder, find(&leaves, name, "sink.parquet.columns")?, column)?;
    }
    Ok(builder.build())
}

/// What the user says of one column.
fn apply_column(
    mut builder: WriterPropertiesBuilder,
    leaf: &ColumnDescPtr,
    column: &ColumnConfig,
) -> Result<WriterPropertiesBuilder, PipelineError> {
    let ColumnConfig { dictionary, encoding, compression } = column;
    let path = leaf.path();
    if let Some(dictionary) = dictionary {
        builder = builder.set_column_dictionary_enabled(path.clone(), *dictionary);
    }
    if let Some(encoding) = encoding {
        if !fits(*encoding, leaf.physical_type()) {
            return Err(PipelineError::stop(format!(
                "sink.parquet.columns.{}.encoding: {encoding:?} does not fit values of type {}",
                path.string(),
                leaf.physical_type()
            )));
        }
        builder = builder.set_column_encoding(path.clone(), parquet_encoding(*encoding));
    }
    if let Some(compression) = compression {
        builder = builder.set_column_compression(path.clone(), codec(*compression).map_err(invalid)?);
    }
    Ok(builder)
}

/// Whether an encoding can hold values of a physical type.
fn fits(encoding: Encoding, physical: PhysicalType) -> bool {
    use PhysicalType::{BYTE_ARRAY, DOUBLE, FIXED_LEN_BYTE_ARRAY, FLOAT, INT32, INT64};
    match encoding {
        Encoding::Plain => true,
        Encoding::DeltaLengthByteArray => physical == BYTE_ARRAY,
        Encoding::DeltaByteArray => matches!(physical, BYTE_ARRAY | FIXED_LEN_BYTE_ARRAY),
        Encoding::DeltaBinaryPacked => matches!(physical, INT32 | INT64),
        Encoding::ByteStreamSplit => matches!(physical, FLOAT | DOUBLE | INT32 | INT64 | FIXED_LEN_BYTE_ARRAY),
    }
}

/// Parquet's name of an encoding.
fn parquet_encoding(encoding: Encoding) -> ParquetEncoding {
    match encoding {
        Encoding::Plain => ParquetEncoding::PLAIN,
        Encoding::DeltaLengthByteArray => ParquetEncoding::DELTA_LENGTH_BYTE_ARRAY,
        Encoding::DeltaByteArray => ParquetEncoding::DELTA_BYTE_ARRAY,
        Encoding::DeltaBinaryPacked => ParquetEncoding::DELTA_BINARY_PACKED,
        Encoding::ByteStreamSplit => ParquetEncoding::BYTE_STREAM_SPLIT,
    }
}

/// Parquet's name of a codec.
fn codec(compression: Compression) -> Result<Codec, ParquetError> {
    Ok(match compression {
        Compression::None => Codec::UNCOMPRESSED,
        Compression::Snappy => Codec::SNAPPY,
        Compression::Gzip(level) => Codec::GZIP(GzipLevel::try_new(level)?),
        Compression::Brotli(level) => Codec::BROTLI(BrotliLevel::try_new(level)?),
        Compression::Zstd(level) => Codec::ZSTD(ZstdLevel::try_new(level)?),
        Compression::Lz4 => Codec::LZ4_RAW,
    })
}

/// A column by its dotted path.
fn find<'a>(leaves: &'a [ColumnDescPtr], name: &str, key: &str) -> Result<&'a ColumnDescPtr, PipelineError> {
    leaves.iter().find(|leaf| leaf.path().string() == name).ok_or_else(|| {
        let known: Vec<_> = leaves.iter().map(|leaf| leaf.path().string()).collect();
        PipelineError::stop(format!("{key}: the files have no column {name:?}; they have: {}", known.join(", ")))
    })
}

/// A level out of its range.
fn invalid(error: ParquetError) -> PipelineError {
    PipelineError::stop("sink.compression: the level is out of its range").because(error)
}

/// Paths of the leaves of a column, with the array types that `dictionary.rs` looks at.
pub(super) fn leaf_path(parents: &[String], field: &str) -> ColumnPath {
    ColumnPath::new(parents.iter().cloned().chain(std::iter::once(field.to_owned())).collect())
}

/// Whether values of a type can be unique enough to look at.
pub(super) fn is_scalar(data_type: &DataType) -> bool {
    data_type.is_primitive() || matches!(data_type, DataType::Utf8 | DataType::Binary)
}

#[cfg(test)]
mod tests {
    use arrow_schema::Field;

    use super::*;

    /// A schema of a number and a text.
    fn schema() -> Schema {
        Schema::new(vec![Field::new("id", DataType::Int64, false), Field::new("url", DataType::Utf8, true)])
    }

    #[test]
    fn a_column_that_is_not_there_and_an_encoding_that_does_not_fit_are_named() {
        let mut config = ParquetConfig { bloom_filter: vec!["user".into()], ..ParquetConfig::default() };
        let error = writer_properties(&config, &schema(), &UniqueColumns::default()).unwrap_err();
        assert_eq!(
            error.to_string(),
            "sink.parquet.bloom_filter: the files have no column \"user\"; they have: id, url"
        );
        config.bloom_filter.clear();
        let column = ColumnConfig { encoding: Some(Encoding::DeltaByteArray), ..ColumnConfig::default() };
        config.columns = vec![("id".into(), column)];
        let error = writer_properties(&config, &schema(), &UniqueColumns::default()).unwrap_err();
        assert_eq!(
            error.to_string(),
            "sink.parquet.columns.id.encoding: DeltaByteArray does not fit values of type INT64"
        );
    }

    #[test]
    fn what_the_user_says_of_a_column_counts() {
        let column = ColumnConfig { dictionary: Some(false), compression: Some(Compression::Zstd(9)), encoding: None };
        let config = ParquetConfig { columns: vec![("url".into(), column)], ..ParquetConfig::default() };
        let properties = writer_properties(&config, &schema(), &UniqueColumns::default()).unwrap();
        let url = ColumnPath::from("url");
        assert!(!properties.dictionary_enabled(&url));
        assert_eq!(properties.compression(&url), Codec::ZSTD(ZstdLevel::try_new(9).unwrap()));
        assert_eq!(properties.compression(&ColumnPath::from("id")), Codec::SNAPPY);
    }
}
