//! Bytes of Protobuf into columns, by the type that they were written with.
//!
//! A message is any number of pieces of bytes, since the same message may be there several times and counts as all of them
//! together. Fields come in any order, so what is there of each is collected before it becomes a value; what that costs is held
//! against what columns may cost ([`Room`]). Depth is that of the schema, which is bounded.

use std::collections::HashMap;

use super::{
    super::{
        bytes::{Bytes, unzigzag},
        cells::{Cell, Column, Room},
        fault::{Fault, excerpt},
    },
    json,
    plan::{Count, FieldPlan, Kind, Message},
};

/// What a value that was found costs until it is in its column.
const RAW_BYTES: usize = size_of::<Raw<'_>>();

/// Deepest nesting of groups in what is passed over.
const GROUPS_MAX: usize = 64;

/// A value as it is written.
#[derive(Clone, Copy, Debug)]
pub(super) enum Raw<'a> {
    /// A number of variable length.
    Varint(u64),
    /// Four bytes.
    Four([u8; 4]),
    /// Eight bytes.
    Eight([u8; 8]),
    /// A length and bytes.
    Sized(&'a [u8]),
}

/// Bytes that break the rules.
pub(super) fn bad(words: &str) -> Fault {
    Fault { code: "bad-protobuf", message: format!("expected Protobuf, found {words}") }
}

/// Fields that are not read yet.
#[derive(Clone, Copy, Debug)]
pub(super) struct Fields<'a>(Bytes<'a>);

impl<'a> Fields<'a> {
    /// Those of a message.
    pub(super) fn new(message: &'a [u8]) -> Self {
        Self(Bytes::new(message, bad))
    }

    /// A length, and so many bytes.
    fn sized(&mut self) -> Result<&'a [u8], Fault> {
        let length = self.0.varint()?;
        self.0.take(usize::try_from(length).map_err(|_| bad(&format!("the length {length}")))?)
    }

    /// The next field: its number and its value; `None` at the end. Groups are passed over.
    pub(super) fn next(&mut self) -> Result<Option<(u32, Raw<'a>)>, Fault> {
        let mut open: Vec<u64> = Vec::new();
        loop {
            if self.0.is_empty() && open.is_empty() {
                return Ok(None);
            }
            let tag = self.0.varint()?;
            let number = tag >> 3;
            if number == 0 || number >= 1 << 29 {
                return Err(bad(&format!("the field number {number}")));
            }
            let raw = match tag & 7 {
                0 => Raw::Varint(self.0.varint()?),
                1 => Raw::Eight(self.0.array()?),
                2 => Raw::Sized(self.sized()?),
                5 => Raw::Four(self.0.array()?),
                3 if open.len() < GROUPS_MAX => {
                    open.push(number);
                    continue;
                }
                4 if open.pop() == Some(number) => continue,
                kind => return Err(bad(&format!("the wire type {kind} at field {number}"))),
            };
            if open.is_empty() {
                return Ok(Some((u32::try_from(number).unwrap_or(u32::MAX), raw)));
            }
        }
    }
}

/// One message into its column. After a fault the column may hold a part of it, which the caller cuts off.
pub(super) fn message(plan: &Message, pieces: &[&[u8]], column: &mut Column, room: &mut Room) -> Result<(), Fault> {
    let mut found: Vec<Vec<Raw<'_>>> = plan.fields.iter().map(|_| Vec::new()).collect();
    for piece in pieces {
        let mut fields = Fields::new(piece);
        while let Some((number, raw)) = fields.next()? {
            let Some(position) = plan.numbers.get(&number) else { continue };
            let oneof = plan.fields.get(*position).and_then(|field| field.oneof);
            if oneof.is_some() {
                // The last one of them counts.
                let others = plan.fields.iter().zip(&mut found).enumerate();
                let others = others.filter(|(at, (field, _))| at != position && field.oneof == oneof);
                others.for_each(|(_, (_, raws))| raws.clear());
            }
            room.take(RAW_BYTES)?;
            if let Some(raws) = found.get_mut(*position) {
                raws.push(raw);
            }
        }
    }
    for ((field, raws), column) in plan.fields.iter().zip(&found).zip(column.fields()?) {
        value(field, raws, column, room).map_err(|fault| fault.at(&field.name))?;
    }
    column.close(room)
}

/// All that there is of a field into its column.
fn value(field: &FieldPlan, raws: &[Raw<'_>], column: &mut Column, room: &mut Room) -> Result<(), Fault> {
    match &field.count {
        Count::Repeated => {
            for raw in raws {
                elements(&field.kind, *raw, column.elements()?, room)?;
            }
            column.close(room)
        }
        Count::Map(key) => map(key, &field.kind, raws, column, room),
        Count::Default | Count::Optional | Count::Required if !raws.is_empty() => one(&field.kind, raws, column, room),
        Count::Optional => column.null(room),
        Count::Default => one(&field.kind, &[], column, room),
        Count::Required => Err(bad("a message without a required field")),
    }
}

/// The values of one occurrence of a repeated field: numbers may be packed.
fn elements(kind: &Kind, raw: Raw<'_>, items: &mut Column, room: &mut Room) -> Result<(), Fault> {
    let next: fn(&mut Bytes<'_>) -> Result<Raw<'static>, Fault> = match kind {
        Kind::Boolean
        | Kind::Int32
        | Kind::Sint32
        | Kind::Uint32
        | Kind::Int64
        | Kind::Sint64
        | Kind::Uint64
        | Kind::Enum(_) => |bytes| bytes.varint().map(Raw::Varint),
        Kind::Sfixed32 | Kind::Fixed32 | Kind::Float => |bytes| bytes.array().map(Raw::Four),
        Kind::Sfixed64 | Kind::Fixed64 | Kind::Double => |bytes| bytes.array().map(Raw::Eight),
        _ => return one(kind, &[raw], items, room),
    };
    let Raw::Sized(packed) = raw else { return one(kind, &[raw], items, room) };
    let mut bytes = Bytes::new(packed, bad);
    while !bytes.is_empty() {
        one(kind, &[next(&mut bytes)?], items, room)?;
    }
    Ok(())
}

/// Keys and values; of a key that is there twice the last value counts.
fn map(key: &Kind, kind: &Kind, raws: &[Raw<'_>], column: &mut Column, room: &mut Room) -> Result<(), Fault> {
    let mut places: HashMap<(u64, &[u8]), usize> = HashMap::new();
    let mut entries: Vec<(Vec<Raw<'_>>, Vec<Raw<'_>>)> = Vec::new();
    for raw in raws {
        let Raw::Sized(entry) = raw else { return Err(wire_type(kind)) };
        let (mut fields, mut keys, mut values) = (Fields::new(entry), Vec::new(), Vec::new());
        while let Some((number, raw)) = fields.next()? {
            room.take(RAW_BYTES)?;
            match number {
                1 => keys = vec![raw],
                2 => values.push(raw),
                _ => {}
            }
        }
        let name = match keys.last() {
            None => (0, &[][..]),
            Some(Raw::Varint(number)) => (*number, &[][..]),
            Some(Raw::Four(bytes)) => (u64::from(u32::from_le_bytes(*bytes)), &[][..]),
            Some(Raw::Eight(bytes)) => (u64::from_le_bytes(*bytes), &[][..]),
            Some(Raw::Sized(bytes)) => (0, *bytes),
        };
        room.take(4 * RAW_BYTES)?;
        let place = *places.entry(name).or_insert(entries.len());
        match entries.get_mut(place) {
            Some(known) => *known = (keys, values),
            None => entries.push((keys, values)),
        }
    }
    let (key_column, value_column) = column.entries()?;
    for (keys, values) in entries {
        one(key, &keys, key_column, room)?;
        one(kind, &values, value_column, room)?;
    }
    column.close(room)
}

/// The words for a value that is written as another kind.
fn wire_type(kind: &Kind) -> Fault {
    bad(&format!("another wire type than that of {}", kind.data_type()))
}

/// One value; without any it is the default. Of several the last counts, and messages count as all together.
fn one(kind: &Kind, raws: &[Raw<'_>], column: &mut Column, room: &mut Room) -> Result<(), Fault> {
    if let Kind::Message(plan) = kind {
        return message(plan, &pieces(kind, raws)?, column, room);
    }
    let number = || match raws.last() {
        None => Ok(0),
        Some(Raw::Varint(number)) => Ok(*number),
        Some(_) => Err(wire_type(kind)),
    };
    let four = || match raws.last() {
        None => Ok([0; 4]),
        Some(Raw::Four(bytes)) => Ok(*bytes),
        Some(_) => Err(wire_type(kind)),
    };
    let eight = || match raws.last() {
        None => Ok([0; 8]),
        Some(Raw::Eight(bytes)) => Ok(*bytes),
        Some(_) => Err(wire_type(kind)),
    };
    let sized = || match raws.last() {
        None => Ok(&[][..]),
        Some(Raw::Sized(bytes)) => Ok(*bytes),
        Some(_) => Err(wire_type(kind)),
    };
    #[expect(clippy::cast_possible_truncation, reason = "the format says that the lower 32 bits count")]
    let low = |number: u64| number as u32;
    let cell = match kind {
        Kind::Boolean => Cell::Boolean(number()? != 0),
        Kind::Int32 => Cell::Int32(low(number()?).cast_signed()),
        Kind::Sint32 => Cell::Int32(low(unzigzag(u64::from(low(number()?))).cast_unsigned()).cast_signed()),
        Kind::Sfixed32 => Cell::Int32(i32::from_le_bytes(four()?)),
        Kind::Uint32 => Cell::UInt32(low(number()?)),
        Kind::Fixed32 => Cell::UInt32(u32::from_le_bytes(four()?)),
        Kind::Int64 => Cell::Int64(number()?.cast_signed()),
        Kind::Sint64 => Cell::Int64(unzigzag(number()?)),
        Kind::Sfixed64 => Cell::Int64(i64::from_le_bytes(eight()?)),
        Kind::Uint64 => Cell::UInt64(number()?),
        Kind::Fixed64 => Cell::UInt64(u64::from_le_bytes(eight()?)),
        Kind::Float => Cell::Float32(f32::from_le_bytes(four()?)),
        Kind::Double => Cell::Float64(f64::from_le_bytes(eight()?)),
        Kind::Text => Cell::Bytes(utf8(sized()?)?),
        Kind::Bytes => Cell::Bytes(sized()?),
        Kind::Enum(names) => {
            let number = low(number()?).cast_signed();
            return match names.get(&number) {
                Some(name) => column.push(Cell::Bytes(name.as_bytes()), room),
                // A newer producer knows more names; the number says as much.
                None => column.push(Cell::Bytes(number.to_string().as_bytes()), room),
            };
        }
        Kind::Timestamp => Cell::Int64(timestamp(&pieces(kind, raws)?)?),
        Kind::Wrapped(inner) => {
            let mut values = Vec::new();
            for piece in pieces(kind, raws)? {
                let mut fields = Fields::new(piece);
                while let Some((number, raw)) = fields.next()? {
                    values = if number == 1 { vec![raw] } else { values };
                }
            }
            return one(inner, &values, column, room);
        }
        Kind::Json(which) => {
            let text = json::text(*which, &pieces(kind, raws)?, room)?;
            return column.push(Cell::Bytes(text.as_bytes()), room);
        }
        Kind::Message(_) => return Err(wire_type(kind)),
    };
    column.push(cell, room)
}

/// All pieces of a message.
fn pieces<'a>(kind: &Kind, raws: &[Raw<'a>]) -> Result<Vec<&'a [u8]>, Fault> {
    let piece = |raw: &Raw<'a>| match raw {
        Raw::Sized(bytes) => Ok(*bytes),
        _ => Err(wire_type(kind)),
    };
    raws.iter().map(piece).collect()
}

/// Nanoseconds since 1970 of `google.protobuf.Timestamp`.
fn timestamp(pieces: &[&[u8]]) -> Result<i64, Fault> {
    let (mut seconds, mut nanos) = (0_i64, 0_i64);
    for piece in pieces {
        let mut fields = Fields::new(piece);
        while let Some((number, raw)) = fields.next()? {
            match (number, raw) {
                (1, Raw::Varint(number)) => seconds = number.cast_signed(),
                (2, Raw::Varint(number)) => nanos = number.cast_signed(),
                (1 | 2, _) => return Err(wire_type(&Kind::Timestamp)),
                _ => {}
            }
        }
    }
    let all = seconds.checked_mul(1_000_000_000).and_then(|all| all.checked_add(nanos));
    match all {
        Some(all) if (0..1_000_000_000).contains(&nanos) => Ok(all),
        _ => {
            let message = format!("{seconds} s and {nanos} ns since 1970 are no time that nanoseconds can count");
            Err(Fault { code: "number-out-of-range", message })
        }
    }
}

/// Text.
pub(super) fn utf8(bytes: &[u8]) -> Result<&[u8], Fault> {
    match simdutf8::basic::from_utf8(bytes) {
        Ok(text) => Ok(text.as_bytes()),
        Err(_) => Err(bad(&format!("a text that is not UTF-8: {:?}", excerpt(&String::from_utf8_lossy(bytes))))),
    }
}
