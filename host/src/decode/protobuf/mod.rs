//! Messages of Protobuf: with the number of a registry's schema ahead, or all of one type that a file of descriptors holds.
//!
//! Each message is read by the schema that it was written with; the dataset's columns are those of all of them.

use std::{collections::HashMap, path::Path, sync::Arc};

use protox::prost_reflect::{DescriptorPool, FileDescriptor};

use super::{
    Decoded,
    bytes::{Bytes, unzigzag},
    cells::Room,
    fault::Fault,
    groups::Groups,
    parts::Parts,
    registry::{Registered, Registry},
    shape::Shape,
    typed::TypedDecoder,
    wire::{self, Known},
};
use crate::{batch::Envelope, error::PipelineError};
use plan::Message;

mod json;
mod plan;
mod read;

/// Deepest place of a message in other messages, as records name it.
const INDEXES_MAX: u64 = 64;

/// Most plans that are kept: far more than a topic has types.
const PLANS_MAX: usize = 200;

/// Where a message is in its file, and that of the file's schema.
type Place = (u32, Vec<u32>);

/// Decodes messages.
#[derive(Debug, Default)]
pub(super) struct ProtobufDecoder {
    /// The type of all messages, where none has a number ahead.
    fixed: Option<Arc<Message>>,
    /// Files by the numbers of their schemas.
    known: Known<FileDescriptor>,
    /// Types by where they are.
    plans: HashMap<Place, Result<Arc<Message>, Fault>>,
}

/// The file of a schema of the registry.
fn file(registered: &Registered) -> Result<FileDescriptor, Fault> {
    registered.expect("PROTOBUF", "protobuf")?;
    plan::compile(&registered.text, &registered.references)
}

impl ProtobufDecoder {
    /// Fails when the file cannot be used, or has no such type.
    pub(super) fn new(file: Option<(&Path, &str)>) -> Result<Self, PipelineError> {
        let Some((file, name)) = file else { return Ok(Self::default()) };
        let explain = |words: String| wire::explain_file("source.protobuf.descriptor_file", file, &words);
        let bytes = wire::read_file("source.protobuf.descriptor_file", file)?;
        let pool = DescriptorPool::decode(bytes.as_slice()).map_err(|error| {
            explain(format!("it is no set of descriptors (protoc --include_imports --descriptor_set_out): {error}"))
        })?;
        let Some(message) = pool.get_message_by_name(name) else {
            let there: Vec<_> = pool.all_messages().take(30).map(|message| message.full_name().to_owned()).collect();
            return Err(PipelineError::stop(format!(
                "source.protobuf.message: {} has no type {name:?}; there are: {}",
                file.display(),
                there.join(", ")
            )));
        };
        let plan = plan::plan(&message).map_err(|fault| explain(fault.message))?;
        Ok(Self { fixed: Some(Arc::new(plan)), ..Self::default() })
    }

    /// Has the registry tell the schemas of a batch.
    pub(super) async fn prepare(&mut self, registry: &Registry, envelope: &Envelope) -> Result<(), PipelineError> {
        self.known.prepare(registry, envelope, file).await
    }

    /// Decodes the messages of a batch.
    pub(super) fn decode(&mut self, typed: &mut TypedDecoder, shape: &mut Shape, envelope: &Envelope) -> Decoded {
        let (mut groups, mut room) = (Groups::new(), Room::new());
        let mut read = Parts::read(shape, envelope, |number, value, _| {
            let (message, body) = self.message(value)?;
            groups.read((&message, &message.data_type), number, &mut room, |rows, room| {
                read::message(&message, &[body], rows, room)
            })
        });
        groups.finish(&mut read);
        read.decode(typed, shape, envelope)
    }

    /// The type of a message, and its bytes.
    fn message<'a>(&mut self, value: &'a [u8]) -> Result<(Arc<Message>, &'a [u8]), Fault> {
        if let Some(message) = &self.fixed {
            return Ok((Arc::clone(message), value));
        }
        let (id, rest) = wire::header(value)?;
        let (indexes, body) = indexes(rest)?;
        let file = Arc::clone(self.known.get(id)?);
        if self.plans.len() >= PLANS_MAX {
            self.plans.clear();
        }
        let place = (id, indexes);
        if let Some(known) = self.plans.get(&place) {
            return known.clone().map(|message| (message, body));
        }
        let planned = find(&file, &place.1).and_then(|message| plan::plan(&message)).map(Arc::new);
        let planned =
            planned.map_err(|fault| Fault { code: fault.code, message: format!("schema {id}: {}", fault.message) });
        self.plans.insert(place, planned.clone());
        planned.map(|message| (message, body))
    }
}

/// Where the type of a message is in its file: a count and so many numbers; no count at all means the first type.
fn indexes(value: &[u8]) -> Result<(Vec<u32>, &[u8]), Fault> {
    let mut bytes = Bytes::new(value, read::bad);
    let number = |bytes: &mut Bytes<'_>| {
        let number = unzigzag(bytes.varint()?);
        u64::try_from(number).map_err(|_| read::bad("a negative place of a type"))
    };
    let count = number(&mut bytes)?;
    if count > INDEXES_MAX {
        return Err(read::bad(&format!("a type inside of {count} others")));
    }
    let mut indexes = Vec::new();
    for _ in 0..count {
        let index = number(&mut bytes)?;
        indexes.push(u32::try_from(index).map_err(|_| read::bad(&format!("the place {index} of a type")))?);
    }
    if indexes.is_empty() {
        indexes.push(0);
    }
    Ok((indexes, bytes.rest()))
}

/// The type at a place of a file.
fn find(file: &FileDescriptor, indexes: &[u32]) -> Result<protox::prost_reflect::MessageDescriptor, Fault> {
    let none = || Fault { code: "unknown-message", message: format!("it has no type at the place {indexes:?}") };
    let (first, rest) = indexes.split_first().ok_or_else(none)?;
    let mut found = file.messages().nth(*first as usize).ok_or_else(none)?;
    for index in rest {
        let inside = found.child_messages().nth(*index as usize).ok_or_else(none)?;
        found = inside;
    }
    Ok(found)
}

#[cfg(test)]
mod tests;
