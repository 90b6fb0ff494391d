//! Records of Avro: with the number of a registry's schema ahead, all of one schema that a file holds, or as an Avro file with its schema
//! and several records.
//!
//! Each record is read by the schema that it was written with; the dataset's columns are those of all of them.

use std::{path::Path, sync::Arc};

use super::{
    Decoded,
    cells::{Column, Room},
    fault::Fault,
    registry::{Registered, Registry},
    shape::Shape,
    tombstone::{self, Tombstone},
    typed::{Part, Source, TypedDecoder},
    wire::{self, Known},
};
use crate::{batch::Envelope, error::PipelineError};
use container::Container;
use read::Bytes;
use schema::Node;

mod container;
mod read;
mod schema;

/// Longest file of a schema.
const FILE_BYTES_MAX: u64 = 16 << 20;

/// Decodes records of Avro.
#[derive(Debug, Default)]
pub(super) struct AvroDecoder {
    /// The schema of all records, where none has a number ahead.
    fixed: Option<Arc<Node>>,
    /// Schemas by their numbers.
    known: Known<Node>,
    /// The schema of the last Avro file, by its text: most have the same one.
    of_files: Option<(String, Arc<Node>)>,
}

/// Rows of one schema under construction.
struct Group {
    /// Their schema.
    schema: Arc<Node>,
    /// Them.
    rows: Column,
    /// The record of each.
    records: Vec<u32>,
}

/// The plan for a schema of the registry.
fn plan(registered: &Registered) -> Result<Node, Fault> {
    if registered.kind != "AVRO" {
        let message = format!("the registry has it as {}, and source.value_format is avro", registered.kind);
        return Err(Fault { code: "wrong-schema-type", message });
    }
    schema::parse(&registered.text, &registered.references)
}

impl AvroDecoder {
    /// Fails when the file cannot be used.
    pub(super) fn new(file: Option<&Path>) -> Result<Self, PipelineError> {
        let Some(file) = file else { return Ok(Self::default()) };
        let explain = |words: String| {
            PipelineError::stop(format!("source.avro.schema_file {}: {words}; correct the file", file.display()))
        };
        let length = std::fs::metadata(file).map_err(|error| explain(error.to_string()))?.len();
        if length > FILE_BYTES_MAX {
            return Err(explain(format!("it has {length} bytes, and a schema at most {FILE_BYTES_MAX}")));
        }
        let text = std::fs::read_to_string(file).map_err(|error| explain(error.to_string()))?;
        let node = schema::parse(&text, &[]).map_err(|fault| explain(fault.message))?;
        Ok(Self { fixed: Some(Arc::new(node)), ..Self::default() })
    }

    /// Has the registry tell the schemas of a batch.
    pub(super) async fn prepare(&mut self, registry: &Registry, envelope: &Envelope) -> Result<(), PipelineError> {
        self.known.prepare(registry, envelope, plan).await
    }

    /// Decodes the records of a batch.
    pub(super) fn decode(&mut self, typed: &mut TypedDecoder, shape: &mut Shape, envelope: &Envelope) -> Decoded {
        let (mut groups, mut parts): (Vec<Group>, Vec<Part>) = (Vec::new(), Vec::new());
        let (mut refused, mut skipped) = (Vec::new(), 0);
        let mut room = Room::new();
        for (number, value) in (0u32..).zip(envelope.values()) {
            match value {
                Some(value) => {
                    let read = if container::is_container(value) {
                        self.read_file(value, number, &mut parts, &mut room)
                    } else {
                        self.read(value, number, &mut groups, &mut room)
                    };
                    if let Err(fault) = read {
                        refused.push((number, fault));
                    }
                }
                None => match tombstone::judge(shape) {
                    Tombstone::Skip => skipped += 1,
                    Tombstone::Row(rows) => parts.push(Part { rows, source: Source::Record(number) }),
                    Tombstone::Refused(fault) => refused.push((number, fault)),
                },
            }
        }
        for mut group in groups {
            match group.rows.take_rows() {
                Ok(rows) => parts.push(Part { rows, source: Source::Each(group.records) }),
                Err(error) => {
                    let fault = Fault { code: "decode-failed", message: error.to_string() };
                    refused.extend(group.records.into_iter().map(|record| (record, fault.clone())));
                }
            }
        }
        Decoded { skipped, ..typed.decode(shape, envelope, parts, refused) }
    }

    /// Reads an Avro file, all of whose records are rows of one record of the source.
    fn read_file(&mut self, value: &[u8], number: u32, parts: &mut Vec<Part>, room: &mut Room) -> Result<(), Fault> {
        let container = Container::open(value)?;
        let schema = match self.of_files.take().filter(|(text, _)| text == container.schema) {
            Some(known) => known,
            None => (container.schema.to_owned(), Arc::new(schema::parse(container.schema, &[])?)),
        };
        let node = Arc::clone(&self.of_files.insert(schema).1);
        let mut rows = new_column(&node)?;
        room.next_record();
        if let Err(fault) = container.read(&node, &mut rows, room) {
            room.give_back();
            return Err(fault);
        }
        let rows = rows.take_rows().map_err(|error| Fault { code: "decode-failed", message: error.to_string() })?;
        parts.push(Part { rows, source: Source::Record(number) });
        Ok(())
    }

    /// Reads one record into the rows of its schema.
    fn read(&self, value: &[u8], number: u32, groups: &mut Vec<Group>, room: &mut Room) -> Result<(), Fault> {
        let (schema, body) = if let Some(schema) = &self.fixed {
            (schema, value)
        } else {
            let (id, body) = wire::header(value)?;
            (self.known.get(id)?, body)
        };
        let known = groups.iter().position(|group| Arc::ptr_eq(&group.schema, schema));
        let position = known.unwrap_or(groups.len());
        if known.is_none() {
            groups.push(Group { schema: Arc::clone(schema), rows: new_column(schema)?, records: Vec::new() });
        }
        let Some(group) = groups.get_mut(position) else { return Ok(()) };
        room.next_record();
        let mut bytes = Bytes(body);
        let read = read::value(schema, &mut bytes, &mut group.rows, room).and_then(|()| match bytes.0.len() {
            0 => Ok(()),
            more => Err(read::bad(&format!("{more} bytes behind the record"))),
        });
        if read.is_ok() {
            group.records.push(number);
        } else {
            group.rows.truncate(group.records.len());
            room.give_back();
        }
        read
    }
}

/// A column for rows of a schema.
fn new_column(schema: &Node) -> Result<Column, Fault> {
    Column::new(&schema.data_type).ok_or_else(|| Fault {
        code: "unsupported-type",
        message: "the schema has a type that no column holds".to_owned(),
    })
}

#[cfg(test)]
mod tests;
