//! `schema`: columns, and what happens where records differ from them.

use std::fmt::Write as _;

use arrow_schema::{Field, FieldRef, Schema};
use serde_json::{Value, json};

use super::{set, text::write};
use crate::config::{
    DecodeConfig, JsonHints, MetadataColumn, OnNewField, OnTypeChange,
    schema::{parse_type, type_text},
};

/// The schema and what happens when records differ from it.
pub(super) fn schema(config: &DecodeConfig) -> Value {
    let DecodeConfig { declared_schema, on_new_field, on_type_change, metadata_columns, .. } = config;
    let mut value = json!({"mode": if declared_schema.is_some() { "declared" } else { "infer" }});
    if let Some(schema) = declared_schema {
        set(&mut value, "fields", schema.fields().iter().map(|one| field(one)).collect());
    }
    let on_new_field = match on_new_field {
        OnNewField::Add => "add",
        OnNewField::Ignore => "ignore",
        OnNewField::Reject => "reject",
    };
    let on_type_change = match on_type_change {
        OnTypeChange::Widen => "widen",
        OnTypeChange::String => "string",
        OnTypeChange::Reject => "reject",
    };
    let columns: Vec<_> = metadata_columns
        .iter()
        .map(|column| match column {
            MetadataColumn::Topic => "topic",
            MetadataColumn::Partition => "partition",
            MetadataColumn::Offset => "offset",
            MetadataColumn::Timestamp => "timestamp",
            MetadataColumn::Key => "key",
        })
        .collect();
    set(&mut value, "on_new_field", json!(on_new_field));
    set(&mut value, "on_type_change", json!(on_type_change));
    set(&mut value, "metadata_columns", json!(columns));
    value
}

/// A schema as a `schema:` block that declares it. Fields of types that cannot be declared are comments in it.
#[must_use]
pub fn schema_yaml(schema: &Schema) -> String {
    let can_be_declared = |field: &&FieldRef| {
        let (text, fields) = type_text(field.data_type());
        parse_type(&text, fields.cloned()).is_ok_and(|parsed| parsed == *field.data_type())
    };
    let (declared, others): (Vec<_>, Vec<_>) = schema.fields().iter().partition(can_be_declared);
    let mut block = json!({"mode": "declared"});
    set(&mut block, "fields", declared.iter().map(|one| field(one)).collect());
    let mut text = String::new();
    write(&mut text, &json!({"schema": block}), 0);
    for field in others {
        let _ = writeln!(text, "    # {:?} of type {} cannot be declared", field.name(), field.data_type());
    }
    text
}

/// A declared field with those in it.
fn field(config: &Field) -> Value {
    let (text, fields) = type_text(config.data_type());
    let mut value = json!({"name": config.name(), "type": text, "nullable": config.is_nullable()});
    let (encoding, epoch) = JsonHints::of(config).names();
    for (key, name) in [("encoding", encoding), ("epoch", epoch)] {
        if let Some(name) = name {
            set(&mut value, key, json!(name));
        }
    }
    if let Some(fields) = fields {
        set(&mut value, "fields", fields.iter().map(|one| field(one)).collect());
    }
    value
}
