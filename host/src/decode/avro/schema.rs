//! Schemas of Avro: the text of one, with those that it refers to, as a plan for reading and the columns that come of it.

use std::collections::HashMap;

use arrow_schema::{DataType, Field, Fields, TimeUnit};
use serde_json::Value;

use super::super::{
    fault::{Fault, excerpt},
    registry::Reference,
    types::{UTC, list_of, map_of},
};

/// Most types of one schema, those that are named in several places counted in each: what names twice what names twice
/// would grow without end. Twice as many as a dataset has fields.
const NODES_MAX: usize = 4_000;

/// Deepest nesting; as deep as the other formats go.
const DEPTH_MAX: usize = 64;

/// A type, and how its values are read.
#[derive(Debug)]
pub(super) struct Node {
    /// How it is written.
    pub(super) kind: Kind,
    /// What it becomes.
    pub(super) data_type: DataType,
}

/// How values are written.
#[derive(Debug)]
pub(super) enum Kind {
    /// Nothing at all.
    Null,
    /// One byte.
    Boolean,
    /// Up to 32 bits, and how many of them make a day where it is a time of day.
    Int(Option<i64>),
    /// Up to 64 bits, the same.
    Long(Option<i64>),
    /// Four bytes.
    Float,
    /// Eight bytes.
    Double,
    /// A length and bytes.
    Bytes,
    /// A length and UTF-8.
    Text,
    /// So many bytes.
    Fixed(usize),
    /// Sixteen bytes, which become the usual text.
    Uuid,
    /// Three counts without a sign: months, days, milliseconds.
    Duration,
    /// The number of a name.
    Enum(Vec<String>),
    /// The unscaled value in so many bytes; `None` where a length comes first.
    Decimal(Option<usize>),
    /// Blocks of values.
    Array(Box<Node>),
    /// Blocks of keys and values.
    Map(Box<Node>),
    /// Fields, one behind the other.
    Record(Vec<(String, Node)>),
    /// The number of a branch, then its value; `None` is null, one other branch is the value itself, several are fields of a
    /// struct.
    Union(Vec<Option<Node>>),
}

/// What is known while a schema is read.
#[derive(Default)]
struct Reader {
    /// Definitions by their full names, with the namespace around each.
    named: HashMap<String, (Value, String)>,
    /// Full names of what is being read, from the outside inwards.
    open: Vec<String>,
    /// Types so far.
    nodes: usize,
    /// How deep it is.
    depth: usize,
}

/// The plan for a schema whose references come first.
pub(super) fn parse(text: &str, references: &[Reference]) -> Result<Node, Fault> {
    let mut reader = Reader::default();
    for reference in references {
        reader.node(&json(&reference.text)?, "")?;
    }
    let node = reader.node(&json(text)?, "")?;
    match node.kind {
        Kind::Record(_) => Ok(node),
        _ => Err(Fault { code: "not-an-object", message: "the schema is not that of a record".to_owned() }),
    }
}

/// A text of JSON; a lone name needs no quotes in what some tools write.
fn json(text: &str) -> Result<Value, Fault> {
    serde_json::from_str(text).map_err(|error| bad(&format!("it is not JSON: {error}")))
}

/// A schema that is none.
fn bad(words: &str) -> Fault {
    Fault { code: "bad-schema", message: format!("the Avro schema cannot be used: {}", excerpt(words)) }
}

/// A schema whose values no column can hold.
fn unsupported(words: &str) -> Fault {
    Fault { code: "unsupported-type", message: excerpt(words) }
}

impl Reader {
    /// The plan for a schema or a part of one, inside of a namespace.
    fn node(&mut self, schema: &Value, namespace: &str) -> Result<Node, Fault> {
        self.nodes += 1;
        if self.nodes > NODES_MAX {
            return Err(Fault {
                code: "too-many-fields",
                message: format!("more than {NODES_MAX} types in one schema"),
            });
        }
        if self.depth >= DEPTH_MAX {
            return Err(Fault { code: "too-deep", message: format!("types are nested deeper than {DEPTH_MAX}") });
        }
        self.depth += 1;
        let node = match schema {
            Value::String(name) => self.by_name(name, namespace),
            Value::Array(branches) => self.union(branches, namespace),
            Value::Object(_) => self.complex(schema, namespace),
            _ => Err(bad("a type is neither a name, a list nor an object")),
        };
        self.depth -= 1;
        node
    }

    /// A type that is named: a primitive one, or one that was defined before.
    fn by_name(&mut self, name: &str, namespace: &str) -> Result<Node, Fault> {
        if let Some(node) = primitive(name) {
            return Ok(node);
        }
        let full = full_name(name, namespace);
        if self.open.contains(&full) {
            return Err(unsupported(&format!("{full} contains itself, and a column cannot")));
        }
        let (definition, around) = self
            .named
            .get(&full)
            .or_else(|| self.named.get(name))
            .cloned()
            .ok_or_else(|| bad(&format!("the type {full} is not defined")))?;
        self.complex(&definition, &around)
    }

    /// A type that is described.
    fn complex(&mut self, schema: &Value, namespace: &str) -> Result<Node, Fault> {
        let kind = schema.get("type").ok_or_else(|| bad("a type has no `type`"))?;
        let Value::String(kind) = kind else { return self.node(kind, namespace) };
        match kind.as_str() {
            "array" => {
                let item = self.node(schema.get("items").ok_or_else(|| bad("an array has no items"))?, namespace)?;
                let data_type = list_of(item.data_type.clone());
                Ok(Node { kind: Kind::Array(Box::new(item)), data_type })
            }
            "map" => {
                let value = self.node(schema.get("values").ok_or_else(|| bad("a map has no values"))?, namespace)?;
                let data_type = map_of(DataType::Utf8, value.data_type.clone());
                Ok(Node { kind: Kind::Map(Box::new(value)), data_type })
            }
            "record" | "error" | "enum" | "fixed" => self.define(kind, schema, namespace),
            name => match primitive(name) {
                Some(node) => logical(node, schema),
                None => self.by_name(name, namespace),
            },
        }
    }

    /// A type that has a name.
    fn define(&mut self, kind: &str, schema: &Value, around: &str) -> Result<Node, Fault> {
        let name = text(schema, "name").ok_or_else(|| bad(&format!("a type of kind {kind} has no name")))?;
        let full = match text(schema, "namespace") {
            Some(namespace) if !name.contains('.') => full_name(name, namespace),
            _ => full_name(name, around),
        };
        let namespace = full.rsplit_once('.').map_or("", |(namespace, _)| namespace).to_owned();
        self.named.entry(full.clone()).or_insert_with(|| (schema.clone(), around.to_owned()));
        match kind {
            "enum" => {
                let symbols =
                    schema.get("symbols").and_then(Value::as_array).ok_or_else(|| bad("an enum has no symbols"))?;
                let symbols = symbols.iter().map(|symbol| symbol.as_str().map(str::to_owned)).collect::<Option<_>>();
                let symbols = symbols.ok_or_else(|| bad("a symbol of an enum is not a text"))?;
                Ok(Node { kind: Kind::Enum(symbols), data_type: DataType::Utf8 })
            }
            "fixed" => {
                let size = schema.get("size").and_then(Value::as_u64).and_then(|size| usize::try_from(size).ok());
                let size = size.ok_or_else(|| bad("a fixed type has no size"))?;
                logical(Node { kind: Kind::Fixed(size), data_type: DataType::Binary }, schema)
            }
            _ => {
                let fields =
                    schema.get("fields").and_then(Value::as_array).ok_or_else(|| bad("a record has no fields"))?;
                self.open.push(full);
                let mut nodes: Vec<(String, Node)> = Vec::with_capacity(fields.len().min(NODES_MAX));
                for field in fields {
                    let name = text(field, "name").ok_or_else(|| bad("a field has no name"))?;
                    if nodes.iter().any(|(known, _)| known == name) {
                        return Err(bad(&format!("the field {name} is there twice")));
                    }
                    let field = field.get("type").ok_or_else(|| bad(&format!("the field {name} has no type")))?;
                    let node = self.node(field, &namespace).map_err(|fault| fault.at(name))?;
                    nodes.push((name.to_owned(), node));
                }
                self.open.pop();
                let fields = nodes.iter().map(|(name, node)| Field::new(name, node.data_type.clone(), true));
                let data_type = DataType::Struct(fields.collect());
                Ok(Node { kind: Kind::Record(nodes), data_type })
            }
        }
    }

    /// One of several types.
    fn union(&mut self, branches: &[Value], namespace: &str) -> Result<Node, Fault> {
        let mut nodes = Vec::with_capacity(branches.len().min(NODES_MAX));
        let mut fields: Vec<Field> = Vec::new();
        for branch in branches {
            let node = self.node(branch, namespace)?;
            if matches!(node.kind, Kind::Null) {
                nodes.push(None);
                continue;
            }
            let name = branch_name(branch);
            if fields.iter().any(|field| *field.name() == name) {
                return Err(unsupported(&format!("a union has two branches of the name {name}")));
            }
            fields.push(Field::new(name, node.data_type.clone(), true));
            nodes.push(Some(node));
        }
        let data_type = match fields.as_slice() {
            [] => DataType::Null,
            [one] => one.data_type().clone(),
            _ => DataType::Struct(Fields::from(fields)),
        };
        Ok(Node { kind: Kind::Union(nodes), data_type })
    }
}

/// What Avro's own JSON calls a branch, without the namespace.
fn branch_name(branch: &Value) -> String {
    let name = match branch {
        Value::String(name) => name.as_str(),
        other => text(other, "name").or_else(|| text(other, "type")).unwrap_or("value"),
    };
    name.rsplit_once('.').map_or(name, |(_, last)| last).to_owned()
}

/// A member that is a text.
fn text<'a>(schema: &'a Value, key: &str) -> Option<&'a str> {
    schema.get(key).and_then(Value::as_str)
}

/// A name with its namespace.
fn full_name(name: &str, namespace: &str) -> String {
    if name.contains('.') || namespace.is_empty() { name.to_owned() } else { format!("{namespace}.{name}") }
}

/// A primitive type; `None` for other names.
fn primitive(name: &str) -> Option<Node> {
    let (kind, data_type) = match name {
        "null" => (Kind::Null, DataType::Null),
        "boolean" => (Kind::Boolean, DataType::Boolean),
        "int" => (Kind::Int(None), DataType::Int32),
        "long" => (Kind::Long(None), DataType::Int64),
        "float" => (Kind::Float, DataType::Float32),
        "double" => (Kind::Double, DataType::Float64),
        "bytes" => (Kind::Bytes, DataType::Binary),
        "string" => (Kind::Text, DataType::Utf8),
        _ => return None,
    };
    Some(Node { kind, data_type })
}

/// What the logical type makes of a type; one that is unknown or does not fit says nothing, as Avro has it.
fn logical(node: Node, schema: &Value) -> Result<Node, Fault> {
    let Some(name) = text(schema, "logicalType") else { return Ok(node) };
    let instant = |unit, is_utc: bool| DataType::Timestamp(unit, is_utc.then(|| UTC.into()));
    let (kind, data_type) = match (name, &node.kind) {
        ("date", Kind::Int(_)) => (Kind::Int(None), DataType::Date32),
        ("time-millis", Kind::Int(_)) => (Kind::Int(Some(86_400_000)), DataType::Time32(TimeUnit::Millisecond)),
        ("time-micros", Kind::Long(_)) => (Kind::Long(Some(86_400_000_000)), DataType::Time64(TimeUnit::Microsecond)),
        ("timestamp-millis", Kind::Long(_)) => (Kind::Long(None), instant(TimeUnit::Millisecond, true)),
        ("timestamp-micros", Kind::Long(_)) => (Kind::Long(None), instant(TimeUnit::Microsecond, true)),
        ("timestamp-nanos", Kind::Long(_)) => (Kind::Long(None), instant(TimeUnit::Nanosecond, true)),
        ("local-timestamp-millis", Kind::Long(_)) => (Kind::Long(None), instant(TimeUnit::Millisecond, false)),
        ("local-timestamp-micros", Kind::Long(_)) => (Kind::Long(None), instant(TimeUnit::Microsecond, false)),
        ("local-timestamp-nanos", Kind::Long(_)) => (Kind::Long(None), instant(TimeUnit::Nanosecond, false)),
        ("uuid", Kind::Fixed(16)) => (Kind::Uuid, DataType::Utf8),
        ("duration", Kind::Fixed(12)) => {
            let fields = ["months", "days", "milliseconds"].map(|name| Field::new(name, DataType::UInt32, true));
            (Kind::Duration, DataType::Struct(Fields::from(fields.to_vec())))
        }
        ("decimal", Kind::Bytes | Kind::Fixed(_)) => {
            let number = |key: &str| schema.get(key).map_or(Some(0), Value::as_u64).unwrap_or(u64::MAX);
            let (precision, scale) = (number("precision"), number("scale"));
            if precision == 0 || scale > precision {
                return Ok(node);
            }
            let (Ok(precision), Ok(scale)) = (u8::try_from(precision), i8::try_from(scale)) else {
                return Err(unsupported("a decimal of more than 76 digits"));
            };
            let data_type = match precision {
                1..=38 => DataType::Decimal128(precision, scale),
                39..=76 => DataType::Decimal256(precision, scale),
                _ => return Err(unsupported("a decimal of more than 76 digits")),
            };
            let size = if let Kind::Fixed(size) = node.kind { Some(size) } else { None };
            (Kind::Decimal(size), data_type)
        }
        _ => return Ok(node),
    };
    Ok(Node { kind, data_type })
}
