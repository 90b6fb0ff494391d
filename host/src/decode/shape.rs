//! What the rows of a dataset look like, whatever their records are written in: declared fields, fields that records
//! brought, metadata columns. One dataset has one shape, so JSON and Arrow may be mixed in it.

use std::sync::Arc;

use arrow_array::{ArrayRef, UInt32Array};
use arrow_schema::{ArrowError, DataType, Field, FieldRef, Fields as ArrowFields, Schema, SchemaRef, extension::Uuid};

use super::{
    fault::{Fault, excerpt},
    merge::FIELDS_MAX,
    metadata,
    types::{TypePolicy, substance, wider},
};
use crate::{
    batch::Envelope,
    config::{DecodeConfig, OnNewField},
    error::PipelineError,
};

/// The shape of a dataset.
#[derive(Debug)]
pub(super) struct Shape {
    /// What the user asked for.
    pub(super) config: DecodeConfig,
    /// Names of the metadata columns.
    pub(super) reserved: Vec<String>,
    /// Fields whose types come from the configuration.
    pub(super) declared: ArrowFields,
    /// The same with what the configuration says about how JSON writes them.
    written: ArrowFields,
    /// Fields whose types come from the records, in the order in which they were first seen.
    pub(super) inferred: ArrowFields,
    /// The version of the dataset's schema that was adopted last.
    version: ArrowFields,
    /// Its fields but for those that are declared by now, or have a name that is ours.
    adopted: ArrowFields,
    /// Declared and inferred fields, and the metadata columns; `None` until the first type is inferred.
    pub(super) schema: Option<SchemaRef>,
    /// Whether it was said that a field gives way to a metadata column.
    told_of_reserved: bool,
}

impl Shape {
    /// Fails when a declared field has a name that is ours.
    pub(super) fn new(config: &DecodeConfig) -> Result<Self, PipelineError> {
        let metadata = metadata::fields(&config.metadata_columns);
        let written = config.declared_schema.as_ref().map(|schema| schema.fields().clone()).unwrap_or_default();
        let declared = plain_fields(&written);
        if let Some(clash) = metadata.iter().find(|field| declared.find(field.name()).is_some()) {
            return Err(PipelineError::stop(format!(
                "schema: the field {:?} has the name of a metadata column; rename it or leave schema.metadata_columns out",
                clash.name()
            )));
        }
        let mut shape = Self {
            config: config.clone(),
            reserved: metadata.iter().map(|field| field.name().clone()).collect(),
            declared,
            written,
            inferred: ArrowFields::empty(),
            version: ArrowFields::empty(),
            adopted: ArrowFields::empty(),
            schema: None,
            told_of_reserved: false,
        };
        if !shape.declared.is_empty() {
            shape.set_inferred(ArrowFields::empty());
        }
        Ok(shape)
    }

    /// Fields that come from the records' values: the declared ones, then the inferred ones.
    pub(super) fn fields(&self) -> ArrowFields {
        self.declared.iter().chain(&self.inferred).cloned().collect()
    }

    /// The same as JSON writes them.
    pub(super) fn written_fields(&self) -> ArrowFields {
        self.written.iter().chain(&self.inferred).cloned().collect()
    }

    /// From now on rows have the declared fields, these, and the metadata columns.
    pub(super) fn set_inferred(&mut self, inferred: ArrowFields) {
        self.inferred = inferred;
        let whole: Vec<FieldRef> =
            self.fields().iter().chain(&metadata::fields(&self.config.metadata_columns)).cloned().collect();
        self.schema = Some(Arc::new(Schema::new(whole)));
    }

    /// Has the fields of a version of the dataset's schema, and no others, as inferred ones.
    pub(super) fn adopt(&mut self, version: &ArrowFields) {
        if self.version != *version {
            self.adopted = version.iter().filter(|field| !self.is_ours(field)).cloned().collect();
            self.version = version.clone();
        }
        if self.inferred != self.adopted {
            self.set_inferred(self.adopted.clone());
        }
    }

    /// All fields of the next version, where there are others than in the one adopted last.
    pub(super) fn learned(&self) -> Option<ArrowFields> {
        let left_out = self.version.iter().filter(|field| self.is_ours(field));
        (self.inferred != self.adopted).then(|| self.inferred.iter().chain(left_out).cloned().collect())
    }

    /// Whether a field is declared, or has the name of a metadata column.
    fn is_ours(&self, field: &Field) -> bool {
        self.reserved.contains(field.name()) || self.declared.find(field.name()).is_some()
    }

    /// Whether fields that the schema lacks become columns.
    pub(super) fn may_grow(&self) -> bool {
        self.schema.is_none() || self.config.on_new_field == OnNewField::Add
    }

    /// The metadata columns of rows that came from these records.
    pub(super) fn metadata(&self, envelope: &Envelope, records: &UInt32Array) -> Result<Vec<ArrayRef>, ArrowError> {
        let columns = self.config.metadata_columns.iter();
        columns.map(|column| metadata::column(*column, envelope, records)).collect()
    }

    /// Says once that a field gives way to a metadata column.
    pub(super) fn tell_of_reserved(&mut self) {
        if !self.told_of_reserved {
            self.told_of_reserved = true;
            tracing::warn!(columns = ?self.reserved, "records have fields named like metadata columns; these are left out");
        }
    }

    /// Takes in typed fields by the rules for new fields and changed types; why that cannot be, otherwise.
    pub(super) fn take_in(&mut self, given: &ArrowFields) -> Result<(), Fault> {
        let on_new_field = if self.may_grow() { OnNewField::Add } else { self.config.on_new_field };
        let policy = TypePolicy { on_type_change: self.config.on_type_change, on_new_field };
        let mut fields: Vec<FieldRef> = self.inferred.iter().cloned().collect();
        for field in given {
            let name = field.name();
            let Some(given) = substance(field.data_type()) else { continue };
            if self.reserved.contains(name) {
                self.tell_of_reserved();
            } else if self.declared.find(name).is_some() {
                // Each value is held against the declared type.
            } else if let Some(known) = fields.iter_mut().find(|known| known.name() == name) {
                let data_type = wider(known.data_type(), &given, policy).map_err(|fault| fault.at(name))?;
                if data_type != *known.data_type() {
                    *known = Arc::new(Field::new(name, data_type, true));
                }
            } else {
                match on_new_field {
                    OnNewField::Add => fields.push(Arc::new(Field::new(name, given, true))),
                    OnNewField::Ignore => {}
                    OnNewField::Reject => {
                        let message = format!("the schema has no field {:?}", excerpt(name));
                        return Err(Fault { code: "unknown-field", message });
                    }
                }
            }
        }
        let fields = ArrowFields::from(fields);
        if fields == self.inferred {
            return Ok(());
        }
        if self.declared.len() + fields.iter().map(|field| count(field)).sum::<usize>() > FIELDS_MAX {
            let message = format!("its new fields would be more than {FIELDS_MAX} in the schema");
            return Err(Fault { code: "too-many-fields", message });
        }
        tracing::info!(fields = fields.len(), was = self.inferred.len(), "the inferred schema changes");
        self.set_inferred(fields);
        Ok(())
    }
}

/// See [`plain_field`].
fn plain_fields(fields: &ArrowFields) -> ArrowFields {
    fields.iter().map(|field| plain_field(field)).collect()
}

/// A field without metadata at any level: what is there is for us, not for the readers of files. That bytes are a UUID is for
/// them.
pub(super) fn plain_field(field: &Field) -> Field {
    let plain = |field: &FieldRef| Arc::new(plain_field(field));
    let data_type = match field.data_type() {
        DataType::List(item) => DataType::List(plain(item)),
        DataType::Struct(children) => DataType::Struct(plain_fields(children)),
        DataType::Map(entries, sorted) => DataType::Map(plain(entries), *sorted),
        other => other.clone(),
    };
    let plain = Field::new(field.name(), data_type, field.is_nullable());
    if field.has_valid_extension_type::<Uuid>() { plain.with_extension_type(Uuid) } else { plain }
}

/// How many fields a field is, those inside counted.
fn count(field: &Field) -> usize {
    let inside = match field.data_type() {
        DataType::Struct(fields) => fields.iter().map(|field| count(field)).sum(),
        DataType::List(item) => count(item) - 1,
        DataType::Map(entries, _) => count(entries) - 1,
        _ => 0,
    };
    1 + inside
}
