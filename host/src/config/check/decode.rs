//! `schema`: how bytes become typed rows.

use std::{path::Path, sync::Arc, time::Duration};

use arrow_schema::{DataType, Field, Fields, Schema};

use super::tls;
use crate::config::{
    DecodeConfig, JsonHints, MetadataColumn, OnNewField, OnTombstone, OnTypeChange, RegistryConfig, SchemaSources,
    Secret, ValueFormat, json_pointer,
    reader::Section,
    schema::{DEPTH_MAX, new_field, parse_type},
    value::{boolean, choice, http_url, positive_duration},
};

/// Metadata columns by their name in the configuration.
pub(super) const METADATA_COLUMNS: [(&str, MetadataColumn); 5] = [
    ("topic", MetadataColumn::Topic),
    ("partition", MetadataColumn::Partition),
    ("offset", MetadataColumn::Offset),
    ("timestamp", MetadataColumn::Timestamp),
    ("key", MetadataColumn::Key),
];

impl Values {
    /// The format, where no line of a file can hold it.
    pub(super) fn without_lines(&self) -> Option<&'static str> {
        match self.format {
            ValueFormat::Avro => Some("avro"),
            ValueFormat::Protobuf => Some("protobuf"),
            ValueFormat::JsonSchema => Some("json_schema"),
            ValueFormat::Json | ValueFormat::ArrowIpc | ValueFormat::Raw => None,
        }
    }
}

/// What `source` says about its values.
#[derive(Clone, Debug)]
pub(super) struct Values {
    /// How they are encoded.
    format: ValueFormat,
    /// The way to the payload in them.
    payload_pointer: Vec<String>,
    /// Where schemas come from.
    schemas: SchemaSources,
    /// What to do with a record that has none.
    on_tombstone: OnTombstone,
}

/// What `source` says about its values.
pub(super) fn values(source: &Section<'_>, folder: &Path) -> Values {
    let formats = [
        ("json", ValueFormat::Json),
        ("arrow_ipc", ValueFormat::ArrowIpc),
        ("avro", ValueFormat::Avro),
        ("protobuf", ValueFormat::Protobuf),
        ("json_schema", ValueFormat::JsonSchema),
        ("raw", ValueFormat::Raw),
    ];
    let format = source.get_or("value_format", ValueFormat::Json, |text| choice(text, &formats));
    let payload_pointer = source.get("payload_pointer", json_pointer).unwrap_or_default();
    if !payload_pointer.is_empty() && format != ValueFormat::Json {
        source.fault("payload_pointer", "has no meaning without `value_format: json`");
    }
    let choices = [("skip", OnTombstone::Skip), ("null_row", OnTombstone::NullRow), ("reject", OnTombstone::Reject)];
    let on_tombstone = source.get("on_tombstone", |text| choice(text, &choices));
    if on_tombstone.is_some() && format == ValueFormat::Raw {
        source.fault("on_tombstone", "has no meaning with `value_format: raw`, where a tombstone is a null in `value`");
    }
    let schemas = schemas(source, format, folder);
    Values { format, payload_pointer, schemas, on_tombstone: on_tombstone.unwrap_or(OnTombstone::Reject) }
}

/// Where schemas come from; without a place each value of Avro is a file with its schema in it.
fn schemas(source: &Section<'_>, format: ValueFormat, folder: &Path) -> SchemaSources {
    let (registry, avro, protobuf) =
        (source.section("schema_registry"), source.section("avro"), source.section("protobuf"));
    let (has_registry, has_avro, has_protobuf) = (registry.is_there(), avro.is_there(), protobuf.is_there());
    let takes_numbers = matches!(format, ValueFormat::Avro | ValueFormat::Protobuf | ValueFormat::JsonSchema);
    for (key, is_there, fits, wanted) in [
        ("schema_registry", has_registry, takes_numbers, "avro, protobuf or json_schema"),
        ("avro", has_avro, format == ValueFormat::Avro, "avro"),
        ("protobuf", has_protobuf, format == ValueFormat::Protobuf, "protobuf"),
    ] {
        if is_there && !fits {
            source.fault(key, format!("has no meaning without `value_format: {wanted}`"));
        } else if is_there && has_registry && key != "schema_registry" {
            source.fault(key, "stands beside `schema_registry`; records have the one or the other, leave one out");
        }
    }
    match format {
        ValueFormat::Protobuf if !has_registry && !has_protobuf => source.fault(
            "value_format",
            "protobuf needs `schema_registry: {url: ...}` or `protobuf: {descriptor_file: ..., message: ...}`",
        ),
        ValueFormat::JsonSchema if !has_registry => {
            source.fault("value_format", "json_schema needs `schema_registry: {url: ...}`");
        }
        _ => {}
    }
    let avro_file = has_avro.then(|| {
        let _ = avro.required_text("schema_file", "a file with the Avro schema of the records");
        tls::file(&avro, folder, "schema_file", "a file with an Avro schema")
    });
    avro.finish();
    let protobuf_file = has_protobuf.then(|| {
        let _ = protobuf.required_text("descriptor_file", "a file that protoc wrote with --descriptor_set_out");
        let message = protobuf.required_text("message", "the full name of the records' type, such as shop.Order");
        tls::file(&protobuf, folder, "descriptor_file", "a file of descriptors").zip(message)
    });
    protobuf.finish();
    let registry = if has_registry { Some(self::registry(registry, folder)) } else { None };
    SchemaSources { registry, avro_file: avro_file.flatten(), protobuf_file: protobuf_file.flatten() }
}

/// A schema registry.
fn registry(section: Section<'_>, folder: &Path) -> RegistryConfig {
    let mut urls = Vec::new();
    for (url, place) in section.required_texts("url", "where the schema registry is, such as http://localhost:8081") {
        match http_url(&url, "http://localhost:8081") {
            Ok(url) => urls.push(url),
            Err(message) => section.fault_at(&place, "url", message),
        }
    }
    let secret = |key| section.text(key).filter(|text| !text.is_empty()).map(Secret::new);
    let username = section.text("username").filter(|text| !text.is_empty());
    let (password, bearer_token) = (secret("password"), secret("bearer_token"));
    if bearer_token.is_some() && username.is_some() {
        section.fault("bearer_token", "stands beside `username`; leave one out");
    }
    if password.is_some() && username.is_none() {
        section.fault("password", "is there without `username`");
    }
    let tls = tls::tls(&section, folder, false).unwrap_or_default();
    let timeout = section.get_or("timeout", Duration::from_secs(10), positive_duration);
    section.finish();
    RegistryConfig { urls, username, password, bearer_token, tls, timeout }
}

/// How bytes become rows.
pub(super) fn read(section: Section<'_>, values: Values) -> DecodeConfig {
    let Values { format, payload_pointer, schemas, on_tombstone } = values;
    let fields = fields(&section, 0);
    let has_fields = section.node("fields").is_some();
    let is_declared = section.get("mode", |text| choice(text, &[("declared", true), ("infer", false)]));
    if is_declared == Some(true) && !has_fields {
        section.fault("fields", "is missing: a declared schema needs fields");
    }
    if is_declared == Some(false) && has_fields {
        section.fault("mode", "an inferred schema has no `fields`; write `mode: declared`, or leave `fields` out");
    }
    let is_declared = is_declared.unwrap_or(has_fields);
    let default = if is_declared { OnNewField::Ignore } else { OnNewField::Add };
    let on_new_field = section.get_or("on_new_field", default, |text| {
        choice(text, &[("add", OnNewField::Add), ("ignore", OnNewField::Ignore), ("reject", OnNewField::Reject)])
    });
    let on_type_change = section.get_or("on_type_change", OnTypeChange::Widen, |text| {
        let choices =
            [("widen", OnTypeChange::Widen), ("string", OnTypeChange::String), ("reject", OnTypeChange::Reject)];
        choice(text, &choices)
    });
    let metadata_columns = metadata_columns(&section);
    if format == ValueFormat::Raw {
        for key in ["fields", "metadata_columns"].into_iter().filter(|key| section.has(key)) {
            let message = "has no meaning with `value_format: raw`, whose columns are topic, partition, offset, timestamp, \
                           key, value, headers";
            section.fault(key, message);
        }
    }
    for name in metadata_columns.iter().filter_map(|column| metadata_name(*column)) {
        if fields.iter().any(|field| field.name().strip_prefix('_') == Some(name)) {
            section.fault("metadata_columns", format!("{name} becomes the column \"_{name}\", which `fields` has too"));
        }
    }
    let declared_schema = (is_declared && format != ValueFormat::Raw).then(|| Arc::new(Schema::new(fields)));
    section.finish();
    DecodeConfig {
        format,
        payload_pointer,
        schemas,
        on_tombstone,
        declared_schema,
        on_new_field,
        on_type_change,
        metadata_columns,
    }
}

/// Facts about a record that become columns.
fn metadata_columns(section: &Section<'_>) -> Vec<MetadataColumn> {
    let mut columns = Vec::new();
    for (name, place) in section.texts("metadata_columns") {
        match choice(name.strip_prefix('_').unwrap_or(&name), &METADATA_COLUMNS) {
            Ok(column) if columns.contains(&column) => {
                section.fault_at(&place, "metadata_columns", format!("{name} is there twice"));
            }
            Ok(column) => columns.push(column),
            Err(message) => section.fault_at(&place, "metadata_columns", message),
        }
    }
    columns
}

/// The name of a metadata column in the configuration.
pub(super) fn metadata_name(column: MetadataColumn) -> Option<&'static str> {
    METADATA_COLUMNS.iter().find(|(_, other)| *other == column).map(|(name, _)| *name)
}

/// Declared fields, and those in them.
fn fields(section: &Section<'_>, depth: usize) -> Vec<Field> {
    let mut fields: Vec<Field> = Vec::new();
    if depth > DEPTH_MAX {
        let _ = section.node("fields");
        section.fault("fields", format!("types are nested deeper than {DEPTH_MAX}"));
        return fields;
    }
    let sections = section.sections("fields");
    if sections.is_empty() && section.node("fields").is_some_and(|node| matches!(node.value.kind(), "a list")) {
        section.fault("fields", "expected at least one field such as {name: id, type: int64}");
    }
    for (key, field) in sections {
        let name = match key {
            Some(key) => Some(key.to_owned()),
            None => field.is_there().then(|| field.required_text("name", "what the field is called")).flatten(),
        };
        let inner = field.has("fields").then(|| Fields::from(self::fields(&field, depth + 1)));
        let data_type = data_type(&field, inner);
        let nullable = field.get_or("nullable", true, boolean);
        if let Some(name) = name {
            if fields.iter().any(|known| *known.name() == name) {
                field.fault("name", format!("the field {name:?} is there twice"));
            } else if let Some(other) = fields.iter().find(|known| known.name().eq_ignore_ascii_case(&name)) {
                let message = format!(
                    "{name:?} and {:?} differ in case only, which most readers of Parquet cannot tell apart",
                    other.name()
                );
                field.fault("name", message);
            }
            // A field whose type is wrong is still there for those who ask for its name.
            let data_type = data_type.unwrap_or(DataType::Null);
            let hints = hints(&field, &data_type);
            fields.push(hints.on(new_field(&name, data_type, nullable)));
        }
        field.finish();
    }
    fields
}

/// How JSON writes the values of a field.
fn hints(field: &Section<'_>, data_type: &DataType) -> JsonHints {
    let hints = JsonHints {
        encoding: field.get("encoding", |text| choice(text, &JsonHints::ENCODINGS)),
        epoch: field.get("epoch", |text| choice(text, &JsonHints::UNITS)),
    };
    if hints.encoding.is_some() && !has(data_type, &|leaf| *leaf == DataType::Binary) {
        field.fault("encoding", "belongs to fields of type binary");
    }
    if hints.epoch.is_some() && !has(data_type, &|leaf| matches!(leaf, DataType::Timestamp(..))) {
        field.fault("epoch", "belongs to fields of type timestamp");
    }
    hints
}

/// Whether a type is of a kind, or a list or map of it.
fn has(data_type: &DataType, is: &dyn Fn(&DataType) -> bool) -> bool {
    match data_type {
        DataType::List(item) => has(item.data_type(), is),
        DataType::Map(entries, _) => match entries.data_type() {
            DataType::Struct(pair) => pair.iter().any(|field| has(field.data_type(), is)),
            _ => false,
        },
        // After a fault of its own.
        DataType::Null => true,
        other => is(other),
    }
}

/// The type of a field; `None` after a fault.
fn data_type(field: &Section<'_>, inner: Option<Fields>) -> Option<DataType> {
    if field.is_there() && !field.has("type") {
        match &inner {
            Some(_) => return inner.map(DataType::Struct),
            None => field.fault("type", "is missing: int64, string, timestamp[ms, UTC] and so on"),
        }
    }
    field.get("type", |text| parse_type(text, inner))
}
