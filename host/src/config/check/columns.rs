//! What `sink` says about columns, held against those that rows will have, where these are known beforehand: a declared
//! schema, or the envelope of raw values, and no plugins.

use arrow_schema::{DataType, Field, Schema, TimeUnit};
use parquet::{arrow::ArrowSchemaConverter, basic::Type as PhysicalType, schema::types::ColumnDescPtr};

use super::{
    decode::{METADATA_COLUMNS, metadata_name},
    sink::sort_column,
};
use crate::{
    batch::ENVELOPE_SCHEMA,
    config::{
        DecodeConfig, Encoding, MetadataColumn, ParquetConfig, PartitionColumn, PartitionTransform, SortColumn,
        ValueFormat,
        fault::{Place, hint_or_stop},
        reader::Section,
    },
};

/// The columns of the rows.
#[derive(Debug)]
pub(super) struct Columns(Vec<Field>);

/// The columns that decoded rows have; `None` when they are inferred or wrong.
pub(super) fn known(decode: &DecodeConfig) -> Option<Columns> {
    let declared = match (decode.format, &decode.declared_schema) {
        (ValueFormat::Raw, _) => &ENVELOPE_SCHEMA,
        (_, Some(declared)) => declared,
        (_, None) => return None,
    };
    let mut fields: Vec<Field> = declared.fields().iter().map(|field| field.as_ref().clone()).collect();
    for column in &decode.metadata_columns {
        let data_type = match column {
            MetadataColumn::Topic => DataType::Utf8,
            MetadataColumn::Partition => DataType::Int32,
            MetadataColumn::Offset => DataType::Int64,
            MetadataColumn::Timestamp => DataType::Timestamp(TimeUnit::Millisecond, Some("UTC".into())),
            MetadataColumn::Key => DataType::Binary,
        };
        fields.extend(metadata_name(*column).map(|name| Field::new(format!("_{name}"), data_type, true)));
    }
    (!fields.is_empty()).then_some(Columns(fields))
}

impl Columns {
    /// Checks everything that `sink` says about columns.
    pub(super) fn check(
        &self,
        sink: &Section<'_>,
        partition_by: &[(PartitionColumn, Place)],
        keep_partition_columns: bool,
        parquet: &ParquetConfig,
    ) {
        for (column, place) in partition_by {
            if let Err(message) = self.check_partition(column) {
                sink.fault_at(place, "partition_by", message);
            }
        }
        let leaves_file = |field: &Field| {
            let is_same = |column: &PartitionColumn| {
                column.transform == PartitionTransform::Identity && column.column == *field.name()
            };
            !keep_partition_columns && partition_by.iter().any(|(column, _)| is_same(column))
        };
        let (gone, stored): (Vec<Field>, Vec<Field>) = self.0.iter().cloned().partition(leaves_file);
        if stored.is_empty() {
            let message =
                "takes every column, so nothing is left to store; name fewer, or set `keep_partition_columns: true`";
            sink.fault("partition_by", message);
            return;
        }
        // Types that Parquet lacks are those whose fault is already told.
        let Ok(descriptor) = ArrowSchemaConverter::new().convert(&Schema::new(stored)) else { return };
        let section = sink.section("parquet");
        for (name, place) in section.texts("bloom_filter") {
            if let Err(message) = find(descriptor.columns(), &gone, &name) {
                section.fault_at(&place, "bloom_filter", message);
            }
        }
        for (text, place) in section.texts("sort_by") {
            let SortColumn { column, .. } = sort_column(&text);
            let found = find(descriptor.columns(), &gone, &column).and_then(|leaf| match leaf.max_rep_level() {
                0 => Ok(()),
                _ => Err(format!("{column:?} is in a list, which has no order; name a column with one value a row")),
            });
            if let Err(message) = found {
                section.fault_at(&place, "sort_by", message);
            }
        }
        for ((name, column), (_, place)) in parquet.columns.iter().zip(section.sections("columns")) {
            let found = find(descriptor.columns(), &gone, name).and_then(|leaf| match column.encoding {
                Some(encoding) if !fits(encoding, leaf.physical_type()) => {
                    Err(format!("its encoding cannot hold values of Parquet's type {}", leaf.physical_type()))
                }
                _ => Ok(()),
            });
            if let Err(message) = found {
                place.fault("", message);
            }
        }
    }

    /// One level of directories.
    fn check_partition(&self, column: &PartitionColumn) -> Result<(), String> {
        let PartitionColumn { column: name, transform } = column;
        let Some(field) = self.0.iter().find(|field| field.name() == name) else {
            let metadata =
                name.strip_prefix('_').filter(|name| METADATA_COLUMNS.iter().any(|(known, _)| known == name));
            if let Some(metadata) = metadata {
                return Err(format!("the column {name:?} needs `metadata_columns: [{metadata}]` in `schema`"));
            }
            return Err(format!(
                "the schema has no column {name:?}{}{}",
                hint_or_stop(name, self.names()),
                self.there_are()
            ));
        };
        let is_time = matches!(field.data_type(), DataType::Date32 | DataType::Timestamp(..));
        let cannot = field.data_type().is_nested() || matches!(field.data_type(), DataType::Binary);
        match transform {
            PartitionTransform::Identity if cannot => {
                Err(format!("the column {name:?} is of type {}, whose values cannot be directories", field.data_type()))
            }
            PartitionTransform::Identity => Ok(()),
            _ if !is_time && *field.data_type() != DataType::Null => {
                Err(format!("the column {name:?} is of type {}, which is no time", field.data_type()))
            }
            _ if self.0.iter().any(|field| field.name().eq_ignore_ascii_case(&column.directory_name())) => {
                let directory = column.directory_name();
                Err(format!("the directory {directory:?} would have the name of another column, which readers mix up"))
            }
            _ => Ok(()),
        }
    }

    /// Every name.
    fn names(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(|field| field.name().as_str())
    }

    /// What there is, for messages.
    fn there_are(&self) -> String {
        let names: Vec<_> = self.names().take(30).collect();
        let more = if self.0.len() > names.len() { ", ..." } else { "" };
        format!(" There are: {}{more}", names.join(", "))
    }
}

/// The leaf of a dotted path.
fn find<'a>(leaves: &'a [ColumnDescPtr], gone: &[Field], name: &str) -> Result<&'a ColumnDescPtr, String> {
    if let Some(leaf) = leaves.iter().find(|leaf| leaf.path().string() == name) {
        return Ok(leaf);
    }
    if gone.iter().any(|field| field.name() == name) {
        return Err(format!(
            "{name:?} is a partition column, which the files do not hold; see `keep_partition_columns`"
        ));
    }
    let names: Vec<String> = leaves.iter().map(|leaf| leaf.path().string()).collect();
    let within: Vec<_> =
        names.iter().filter(|leaf| leaf.starts_with(&format!("{name}."))).map(String::as_str).collect();
    if !within.is_empty() {
        return Err(format!("{name:?} has parts; name one of them: {}", within.join(", ")));
    }
    let hint = hint_or_stop(name, names.iter().map(String::as_str));
    let shown: Vec<_> = names.iter().take(30).map(String::as_str).collect();
    let more = if names.len() > shown.len() { ", ..." } else { "" };
    Err(format!("the files have no column {name:?}{hint} There are: {}{more}", shown.join(", ")))
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
