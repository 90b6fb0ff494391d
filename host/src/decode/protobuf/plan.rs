//! Types of Protobuf as plans for reading, and the columns that come of them.

use std::{collections::HashMap, path::Path};

use arrow_schema::{DataType, Field, Fields, TimeUnit};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use protox::{
    Compiler,
    file::{ChainFileResolver, File, FileResolver, GoogleFileResolver},
    prost_reflect::{FieldDescriptor, FileDescriptor, Kind as Described, MessageDescriptor},
};

use super::super::{
    fault::{Fault, excerpt},
    registry::Reference,
    types::{UTC, list_of, map_of},
};

/// Most types of one schema, those that are used in several places counted in each. Twice as many as a dataset has fields.
const NODES_MAX: usize = 4_000;

/// Deepest nesting of messages; as deep as the other formats go.
const DEPTH_MAX: usize = 64;

/// Deepest nesting of braces in a schema's text, which is parsed level by level: far more than any has.
const BRACES_MAX: usize = 200;

/// The name of a registry's own schema while it is compiled; no other has it.
const MAIN: &str = "fs-data-sink.main.proto";

/// A message.
#[derive(Debug)]
pub(super) struct Message {
    /// Its fields, in the order in which they are declared.
    pub(super) fields: Vec<FieldPlan>,
    /// Where each number is.
    pub(super) numbers: HashMap<u32, usize>,
    /// What it becomes.
    pub(super) data_type: DataType,
}

/// A field.
#[derive(Debug)]
pub(super) struct FieldPlan {
    /// Its name.
    pub(super) name: String,
    /// How often it is there.
    pub(super) count: Count,
    /// How each of its values is read.
    pub(super) kind: Kind,
    /// Of the fields with the same number here one is there at most.
    pub(super) oneof: Option<usize>,
}

/// How often a field is there.
#[derive(Debug)]
pub(super) enum Count {
    /// Once, and without it the value is the default.
    Default,
    /// Once, and without it the value is null.
    Optional,
    /// Once, and without it the message is refused.
    Required,
    /// Any number of times.
    Repeated,
    /// Any number of times, each a key of this kind and a value.
    Map(Kind),
}

/// How a value is written.
#[derive(Debug)]
pub(super) enum Kind {
    /// A varint, not 0.
    Boolean,
    /// A varint, cut to 32 bits.
    Int32,
    /// A varint, zig-zag.
    Sint32,
    /// Four bytes.
    Sfixed32,
    /// A varint.
    Uint32,
    /// Four bytes.
    Fixed32,
    /// A varint.
    Int64,
    /// A varint, zig-zag.
    Sint64,
    /// Eight bytes.
    Sfixed64,
    /// A varint.
    Uint64,
    /// Eight bytes.
    Fixed64,
    /// Four bytes.
    Float,
    /// Eight bytes.
    Double,
    /// UTF-8.
    Text,
    /// Bytes.
    Bytes,
    /// A varint, the number of a name.
    Enum(HashMap<i32, String>),
    /// A message.
    Message(Box<Message>),
    /// `google.protobuf.Timestamp`.
    Timestamp,
    /// A wrapper of `google/protobuf/wrappers.proto`: the value in its field 1.
    Wrapped(Box<Self>),
    /// `google.protobuf.Struct`, `Value` or `ListValue`, which become JSON.
    Json(JsonKind),
}

/// Which of the types that contain each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum JsonKind {
    /// An object.
    Struct,
    /// Any value.
    Value,
    /// A list.
    List,
}

impl Kind {
    /// What it becomes.
    pub(super) fn data_type(&self) -> DataType {
        match self {
            Self::Boolean => DataType::Boolean,
            Self::Int32 | Self::Sint32 | Self::Sfixed32 => DataType::Int32,
            Self::Uint32 | Self::Fixed32 => DataType::UInt32,
            Self::Int64 | Self::Sint64 | Self::Sfixed64 => DataType::Int64,
            Self::Uint64 | Self::Fixed64 => DataType::UInt64,
            Self::Float => DataType::Float32,
            Self::Double => DataType::Float64,
            Self::Text | Self::Enum(_) | Self::Json(_) => DataType::Utf8,
            Self::Bytes => DataType::Binary,
            Self::Message(message) => message.data_type.clone(),
            Self::Timestamp => DataType::Timestamp(TimeUnit::Nanosecond, Some(UTC.into())),
            Self::Wrapped(kind) => kind.data_type(),
        }
    }
}

/// A schema that is none.
fn bad(words: &str) -> Fault {
    Fault { code: "bad-schema", message: format!("the Protobuf schema cannot be used: {}", excerpt(words)) }
}

/// A schema whose values no column can hold.
fn unsupported(words: &str) -> Fault {
    Fault { code: "unsupported-type", message: excerpt(words) }
}

/// Files that a registry gave, by the names under which they are imported.
struct Given(HashMap<String, String>);

impl FileResolver for Given {
    fn open_file(&self, name: &str) -> Result<File, protox::Error> {
        match self.0.get(name) {
            Some(text) => given(name, text),
            None => Err(protox::Error::file_not_found(name)),
        }
    }
}

/// A file as a registry has it: its text, or its descriptor in base64, as Confluent's client for Python registers it.
fn given(name: &str, text: &str) -> Result<File, protox::Error> {
    let described = STANDARD.decode(text.trim()).ok().and_then(|bytes| {
        // No text of a file is base64: it has spaces and semicolons.
        File::decode_file_descriptor_proto(bytes.as_slice()).ok()
    });
    let Some(described) = described else { return File::from_source(name, text) };
    let mut descriptor = described.file_descriptor_proto().clone();
    descriptor.name = Some(name.to_owned());
    Ok(File::from_file_descriptor_proto(descriptor))
}

/// The file of a schema's text.
pub(super) fn compile(text: &str, references: &[Reference]) -> Result<FileDescriptor, Fault> {
    let mut files: HashMap<String, String> =
        references.iter().map(|reference| (reference.name.clone(), reference.text.clone())).collect();
    files.insert(MAIN.to_owned(), text.to_owned());
    if files.values().any(|text| is_too_deep(text)) {
        return Err(bad(&format!("it is nested deeper than {BRACES_MAX}")));
    }
    let mut resolver = ChainFileResolver::new();
    resolver.add(Given(files));
    resolver.add(GoogleFileResolver::new());
    let mut compiler = Compiler::with_file_resolver(resolver);
    compiler.open_file(Path::new(MAIN)).map_err(|error| bad(&error.to_string()))?;
    compiler.descriptor_pool().get_file_by_name(MAIN).ok_or_else(|| bad("it is gone"))
}

/// Whether a text has more levels of braces than a parser should follow.
fn is_too_deep(text: &str) -> bool {
    let mut depth = 0_usize;
    text.bytes().any(|byte| {
        match byte {
            b'{' | b'[' | b'(' | b'<' => depth += 1,
            b'}' | b']' | b')' | b'>' => depth = depth.saturating_sub(1),
            _ => {}
        }
        depth > BRACES_MAX
    })
}

/// What is known while a plan is made.
#[derive(Default)]
struct Planner {
    /// Full names of the messages around.
    open: Vec<String>,
    /// Types so far.
    nodes: usize,
}

/// The plan for a type.
pub(super) fn plan(message: &MessageDescriptor) -> Result<Message, Fault> {
    Planner::default().message(message)
}

impl Planner {
    /// The plan for a message.
    fn message(&mut self, message: &MessageDescriptor) -> Result<Message, Fault> {
        let name = message.full_name();
        if self.open.iter().any(|open| open == name) {
            return Err(unsupported(&format!("{name} contains itself, and a column cannot")));
        }
        if self.open.len() >= DEPTH_MAX {
            return Err(Fault { code: "too-deep", message: format!("types are nested deeper than {DEPTH_MAX}") });
        }
        self.open.push(name.to_owned());
        let mut fields: Vec<FieldPlan> = Vec::new();
        let (mut numbers, mut columns) = (HashMap::new(), Vec::new());
        let mut described: Vec<FieldDescriptor> = message.fields().collect();
        // As declared: the descriptor gives them by number.
        let declared = &message.descriptor_proto().field;
        described.sort_by_key(|field| declared.iter().position(|one| one.name() == field.name()));
        for field in described {
            let (plan, data_type) = self.field(&field).map_err(|fault| fault.at(field.name()))?;
            numbers.insert(field.number(), fields.len());
            columns.push(Field::new(field.name(), data_type, true));
            fields.push(plan);
        }
        self.open.pop();
        Ok(Message { fields, numbers, data_type: DataType::Struct(Fields::from(columns)) })
    }

    /// The plan for a field, and what it becomes.
    fn field(&mut self, field: &FieldDescriptor) -> Result<(FieldPlan, DataType), Fault> {
        let oneof = field.containing_oneof().filter(|oneof| !oneof.is_synthetic());
        let oneof = oneof.and_then(|oneof| oneof.fields().map(|field| field.number() as usize).min());
        let plan = |count, kind| FieldPlan { name: field.name().to_owned(), count, kind, oneof };
        if field.is_group() {
            return Err(unsupported("a group, which newer versions of Protobuf do not have"));
        }
        if let (true, Described::Message(entry)) = (field.is_map(), field.kind()) {
            let key = self.kind(&entry.map_entry_key_field())?;
            let value = self.kind(&entry.map_entry_value_field())?;
            let data_type = map_of(key.data_type(), value.data_type());
            return Ok((plan(Count::Map(key), value), data_type));
        }
        let kind = self.kind(field)?;
        let data_type = kind.data_type();
        Ok(if field.is_list() {
            (plan(Count::Repeated, kind), list_of(data_type))
        } else if field.is_required() {
            (plan(Count::Required, kind), data_type)
        } else if field.supports_presence() {
            (plan(Count::Optional, kind), data_type)
        } else {
            (plan(Count::Default, kind), data_type)
        })
    }

    /// How one value of a field is read.
    fn kind(&mut self, field: &FieldDescriptor) -> Result<Kind, Fault> {
        self.nodes += 1;
        if self.nodes > NODES_MAX {
            let message = format!("more than {NODES_MAX} types in one schema");
            return Err(Fault { code: "too-many-fields", message });
        }
        Ok(match field.kind() {
            Described::Bool => Kind::Boolean,
            Described::Int32 => Kind::Int32,
            Described::Sint32 => Kind::Sint32,
            Described::Sfixed32 => Kind::Sfixed32,
            Described::Uint32 => Kind::Uint32,
            Described::Fixed32 => Kind::Fixed32,
            Described::Int64 => Kind::Int64,
            Described::Sint64 => Kind::Sint64,
            Described::Sfixed64 => Kind::Sfixed64,
            Described::Uint64 => Kind::Uint64,
            Described::Fixed64 => Kind::Fixed64,
            Described::Float => Kind::Float,
            Described::Double => Kind::Double,
            Described::String => Kind::Text,
            Described::Bytes => Kind::Bytes,
            Described::Enum(names) => {
                // Of several names of one number the first is the usual one.
                let mut by_number = HashMap::new();
                for value in names.values() {
                    by_number.entry(value.number()).or_insert_with(|| value.name().to_owned());
                }
                Kind::Enum(by_number)
            }
            Described::Message(message) => self.well_known(&message)?,
        })
    }

    /// A message, or what the types that every installation knows stand for.
    fn well_known(&mut self, message: &MessageDescriptor) -> Result<Kind, Fault> {
        Ok(match message.full_name() {
            "google.protobuf.Timestamp" => Kind::Timestamp,
            "google.protobuf.Struct" => Kind::Json(JsonKind::Struct),
            "google.protobuf.Value" => Kind::Json(JsonKind::Value),
            "google.protobuf.ListValue" => Kind::Json(JsonKind::List),
            "google.protobuf.BoolValue"
            | "google.protobuf.Int32Value"
            | "google.protobuf.UInt32Value"
            | "google.protobuf.Int64Value"
            | "google.protobuf.UInt64Value"
            | "google.protobuf.FloatValue"
            | "google.protobuf.DoubleValue"
            | "google.protobuf.StringValue"
            | "google.protobuf.BytesValue" => {
                let value = message.get_field(1).ok_or_else(|| bad("a wrapper without a value"))?;
                Kind::Wrapped(Box::new(self.kind(&value)?))
            }
            _ => Kind::Message(Box::new(self.message(message)?)),
        })
    }
}
