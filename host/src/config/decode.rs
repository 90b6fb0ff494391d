//! How the bytes of a record become a typed row: `schema` and what of `source` says how its values are encoded.

use std::{path::PathBuf, sync::Arc, time::Duration};

use arrow_schema::Schema;

use super::{ClientTls, Secret};

/// How the bytes of a record become a typed row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DecodeConfig {
    /// How values are encoded.
    pub format: ValueFormat,
    /// The way from a JSON record to the part of it that becomes rows; empty for the whole.
    pub payload_pointer: Vec<String>,
    /// Where schemas come from that values are written with.
    pub schemas: SchemaSources,
    /// What to do with a record without a value.
    pub on_tombstone: OnTombstone,
    /// `None`: inferred from the first records.
    pub declared_schema: Option<Arc<Schema>>,
    /// What to do with a JSON field that the schema lacks.
    pub on_new_field: OnNewField,
    /// What to do with a value of another type than the schema's, in inferred mode.
    pub on_type_change: OnTypeChange,
    /// Facts about the record that become columns, named with a leading `_`.
    pub metadata_columns: Vec<MetadataColumn>,
}

impl DecodeConfig {
    /// How JSON is read of which nothing is declared.
    #[must_use]
    pub fn inferred_json() -> Self {
        Self {
            format: ValueFormat::Json,
            payload_pointer: Vec::new(),
            schemas: SchemaSources::default(),
            on_tombstone: OnTombstone::Reject,
            declared_schema: None,
            on_new_field: OnNewField::Add,
            on_type_change: OnTypeChange::Widen,
            metadata_columns: Vec::new(),
        }
    }

    /// Whether records can bring columns.
    #[must_use]
    pub fn infers(&self) -> bool {
        let is_open = self.declared_schema.is_none() || self.on_new_field == OnNewField::Add;
        self.format != ValueFormat::Raw && is_open
    }
}

/// How values are encoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ValueFormat {
    /// One JSON object a record, or a list of objects.
    Json,
    /// One Arrow IPC stream or file a record, with any number of rows.
    ArrowIpc,
    /// One Avro record a record, behind the number of its schema or all of one schema; or an Avro file.
    Avro,
    /// One message a record, behind the number of its schema or all of one type.
    Protobuf,
    /// JSON behind the number of its schema.
    JsonSchema,
    /// The envelope goes on as it is, for a decoder plugin.
    Raw,
}

/// Where schemas come from that values are written with.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SchemaSources {
    /// A registry, where each value has the number of its schema ahead.
    pub registry: Option<RegistryConfig>,
    /// The Avro schema of all values, where they have no number ahead.
    pub avro_file: Option<PathBuf>,
    /// A file of descriptors and the name of the type of all values, where they have no number ahead.
    pub protobuf_file: Option<(PathBuf, String)>,
}

/// Where a schema registry is, and who we are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RegistryConfig {
    /// `https://host:8081`, at least one; without a slash at the end.
    pub urls: Vec<String>,
    /// For basic authentication.
    pub username: Option<String>,
    /// Belongs to the user.
    pub password: Option<Secret>,
    /// In place of both.
    pub bearer_token: Option<Secret>,
    /// How the server and we know each other.
    pub tls: ClientTls,
    /// An answer that takes longer is none.
    pub timeout: Duration,
}

/// What to do with a record without a value: a tombstone of a compacted topic, or a delete in an envelope.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnTombstone {
    /// It is passed over, and counted.
    Skip,
    /// It becomes a row of nulls, with the metadata columns.
    NullRow,
    /// It is refused.
    Reject,
}

/// What to do with a JSON field that the schema lacks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnNewField {
    /// It becomes a column; the default where the schema is inferred.
    Add,
    /// It is left out; the default where the schema is declared.
    Ignore,
    /// The record is refused.
    Reject,
}

/// What to do in inferred mode with a value of another type than the column's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnTypeChange {
    /// int to float where nothing is lost; other records are refused.
    Widen,
    /// As `Widen`, and other mixtures of scalars become strings.
    String,
    /// The record is refused.
    Reject,
}

/// A fact about a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MetadataColumn {
    /// `_topic`, utf8.
    Topic,
    /// `_partition`, int32.
    Partition,
    /// `_offset`, int64.
    Offset,
    /// `_timestamp`, timestamp(ms, UTC).
    Timestamp,
    /// `_key`, binary.
    Key,
}
