//! Records of Avro: with the number of a registry's schema ahead, all of one schema that a file holds, or as an Avro file with its schema
//! and several records.
//!
//! Each record is read by the schema that it was written with; the dataset's columns are those of all of them.

use std::{path::Path, sync::Arc};

use super::{
    Decoded,
    cells::Room,
    fault::Fault,
    groups::{Groups, new_column},
    parts::Parts,
    registry::{Registered, Registry},
    shape::Shape,
    typed::{Part, Source, TypedDecoder},
    wire::{self, Known},
};
use crate::{batch::Envelope, error::PipelineError};
use container::Container;
use read::Values;
use schema::Node;

mod container;
mod read;
mod schema;

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

/// The plan for a schema of the registry.
fn plan(registered: &Registered) -> Result<Node, Fault> {
    registered.expect("AVRO", "avro")?;
    schema::parse(&registered.text, &registered.references)
}

impl AvroDecoder {
    /// Fails when the file cannot be used.
    pub(super) fn new(file: Option<&Path>) -> Result<Self, PipelineError> {
        let Some(file) = file else { return Ok(Self::default()) };
        let explain = |words: String| wire::explain_file("source.avro.schema_file", file, &words);
        let text = String::from_utf8(wire::read_file("source.avro.schema_file", file)?)
            .map_err(|error| explain(error.to_string()))?;
        let node = schema::parse(&text, &[]).map_err(|fault| explain(fault.message))?;
        Ok(Self { fixed: Some(Arc::new(node)), ..Self::default() })
    }

    /// Has the registry tell the schemas of a batch.
    pub(super) async fn prepare(&mut self, registry: &Registry, envelope: &Envelope) -> Result<(), PipelineError> {
        self.known.prepare(registry, envelope, plan).await
    }

    /// Decodes the records of a batch.
    pub(super) fn decode(&mut self, typed: &mut TypedDecoder, shape: &mut Shape, envelope: &Envelope) -> Decoded {
        let (mut groups, mut room) = (Groups::new(), Room::new());
        let mut read = Parts::read(shape, envelope, |number, value, parts| {
            if container::is_container(value) {
                self.read_file(value, number, parts, &mut room)
            } else {
                self.read(value, number, &mut groups, &mut room)
            }
        });
        groups.finish(&mut read);
        read.decode(typed, shape, envelope)
    }

    /// Reads an Avro file, all of whose records are rows of one record of the source.
    fn read_file(&mut self, value: &[u8], number: u32, parts: &mut Vec<Part>, room: &mut Room) -> Result<(), Fault> {
        let container = Container::open(value)?;
        let schema = match self.of_files.take().filter(|(text, _)| text == container.schema) {
            Some(known) => known,
            None => (container.schema.to_owned(), Arc::new(schema::parse(container.schema, &[])?)),
        };
        let node = Arc::clone(&self.of_files.insert(schema).1);
        let mut rows = new_column(&node.data_type)?;
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
    fn read(&self, value: &[u8], number: u32, groups: &mut Groups<Node>, room: &mut Room) -> Result<(), Fault> {
        let (schema, body) = if let Some(schema) = &self.fixed {
            (schema, value)
        } else {
            let (id, body) = wire::header(value)?;
            (self.known.get(id)?, body)
        };
        groups.read((schema, &schema.data_type), number, room, |rows, room| {
            let mut bytes = Values::new(body);
            read::value(schema, &mut bytes, rows, room)?;
            match bytes.0.rest().len() {
                0 => Ok(()),
                more => Err(read::bad(&format!("{more} bytes behind the record"))),
            }
        })
    }
}

#[cfg(test)]
mod tests;
