//! Bytes of Avro into columns, by the schema that they were written with.
//!
//! Every length and count is held against the bytes that are there and against what columns may cost; depth is that of the
//! schema, which is bounded.

use std::collections::HashSet;

use arrow_buffer::i256;
use arrow_schema::DataType;

use super::{
    super::{
        bytes::{Bytes, unzigzag},
        cells::{Cell, Column, Room},
        fault::Fault,
    },
    schema::{Kind, Node},
};

/// Most bytes of an unscaled decimal that a column can hold.
const DECIMAL_BYTES_MAX: usize = 32;

/// Bytes that break the rules.
pub(super) fn bad(words: &str) -> Fault {
    Fault { code: "bad-avro", message: format!("expected Avro, found {words}") }
}

/// Values that are not read yet.
#[derive(Debug)]
pub(super) struct Values<'a>(pub(super) Bytes<'a>);

impl<'a> Values<'a> {
    /// Those of some bytes.
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self(Bytes::new(bytes, bad))
    }

    /// A number of variable length, zig-zag.
    pub(super) fn long(&mut self) -> Result<i64, Fault> {
        self.0.varint().map(unzigzag)
    }

    /// A number of at most 32 bits.
    fn int(&mut self) -> Result<i32, Fault> {
        i32::try_from(self.long()?).map_err(|_| bad("a number of more than 32 bits in an int"))
    }

    /// A length, and so many bytes.
    pub(super) fn sized(&mut self) -> Result<&'a [u8], Fault> {
        let length = self.long()?;
        let length = usize::try_from(length).map_err(|_| bad(&format!("the length {length}")))?;
        self.0.take(length)
    }

    /// The count of a block; the bytes of a block may stand behind a negative one.
    pub(super) fn count(&mut self) -> Result<u64, Fault> {
        let count = self.long()?;
        if count < 0 {
            let _ = self.long()?;
        }
        Ok(count.unsigned_abs())
    }
}

/// One value into its column. After a fault the column may hold a part of it, which the caller cuts off.
pub(super) fn value(node: &Node, bytes: &mut Values<'_>, column: &mut Column, room: &mut Room) -> Result<(), Fault> {
    match &node.kind {
        Kind::Null => column.null(room),
        Kind::Boolean => match bytes.0.array()? {
            [0] => column.push(Cell::Boolean(false), room),
            [1] => column.push(Cell::Boolean(true), room),
            [other] => Err(bad(&format!("the byte {other} as a boolean"))),
        },
        Kind::Int(end) => {
            let number = bytes.int()?;
            in_day(i64::from(number), *end)?;
            column.push(Cell::Int32(number), room)
        }
        Kind::Long(end) => {
            let number = bytes.long()?;
            in_day(number, *end)?;
            column.push(Cell::Int64(number), room)
        }
        Kind::Float => column.push(Cell::Float32(f32::from_le_bytes(bytes.0.array()?)), room),
        Kind::Double => column.push(Cell::Float64(f64::from_le_bytes(bytes.0.array()?)), room),
        Kind::Bytes => column.push(Cell::Bytes(bytes.sized()?), room),
        Kind::Text => column.push(Cell::Bytes(utf8(bytes.sized()?)?), room),
        Kind::Fixed(size) => column.push(Cell::Bytes(bytes.0.take(*size)?), room),
        Kind::Uuid => {
            let mut text = uuid::Uuid::encode_buffer();
            let text = uuid::Uuid::from_bytes(bytes.0.array()?).hyphenated().encode_lower(&mut text);
            column.push(Cell::Bytes(text.as_bytes()), room)
        }
        Kind::Duration => {
            for part in column.fields()? {
                part.push(Cell::UInt32(u32::from_le_bytes(bytes.0.array()?)), room)?;
            }
            column.close(room)
        }
        Kind::Enum(symbols) => {
            let number = bytes.int()?;
            let symbol = usize::try_from(number).ok().and_then(|number| symbols.get(number));
            let symbol = symbol.ok_or_else(|| bad(&format!("the symbol {number} of an enum of {}", symbols.len())))?;
            column.push(Cell::Bytes(symbol.as_bytes()), room)
        }
        Kind::Decimal(size) => {
            let unscaled = match size {
                Some(size) => bytes.0.take(*size)?,
                None => bytes.sized()?,
            };
            column.push(decimal(unscaled, column.data_type())?, room)
        }
        Kind::Array(item) => loop {
            let count = bytes.count()?;
            if count == 0 {
                return column.close(room);
            }
            let items = column.elements()?;
            for _ in 0..count {
                value(item, bytes, items, room)?;
            }
        },
        Kind::Map(item) => map(item, bytes, column, room),
        Kind::Record(fields) => {
            for ((name, field), column) in fields.iter().zip(column.fields()?) {
                value(field, bytes, column, room).map_err(|fault| fault.at(name))?;
            }
            column.close(room)
        }
        Kind::Union(branches) => union(branches, bytes, column, room),
    }
}

/// Blocks of keys and values.
fn map(item: &Node, bytes: &mut Values<'_>, column: &mut Column, room: &mut Room) -> Result<(), Fault> {
    let mut seen: HashSet<&[u8]> = HashSet::new();
    loop {
        let count = bytes.count()?;
        if count == 0 {
            return column.close(room);
        }
        let (keys, values) = column.entries()?;
        for _ in 0..count {
            let key = utf8(bytes.sized()?)?;
            if !seen.insert(key) {
                let message = format!("the key {:?} is there twice", String::from_utf8_lossy(key));
                return Err(Fault { code: "duplicate-key", message: super::super::fault::excerpt(&message) });
            }
            keys.push(Cell::Bytes(key), room)?;
            value(item, bytes, values, room)?;
        }
    }
}

/// The number of a branch, then its value.
fn union(branches: &[Option<Node>], bytes: &mut Values<'_>, column: &mut Column, room: &mut Room) -> Result<(), Fault> {
    let number = bytes.long()?;
    let taken = usize::try_from(number).ok().filter(|taken| *taken < branches.len());
    let taken = taken.ok_or_else(|| bad(&format!("the branch {number} of a union of {}", branches.len())))?;
    let Some(Some(node)) = branches.get(taken) else { return column.null(room) };
    if branches.iter().flatten().count() == 1 {
        return value(node, bytes, column, room);
    }
    let is_some = branches.iter().enumerate().filter(|(_, branch)| branch.is_some());
    for ((branch, _), field) in is_some.zip(column.fields()?) {
        if branch == taken { value(node, bytes, field, room)? } else { field.null(room)? }
    }
    column.close(room)
}

/// Whether a time of day is one.
fn in_day(number: i64, end: Option<i64>) -> Result<(), Fault> {
    match end {
        Some(end) if !(0..end).contains(&number) => {
            Err(Fault { code: "number-out-of-range", message: format!("{number} is no time of day") })
        }
        _ => Ok(()),
    }
}

/// Text.
fn utf8(bytes: &[u8]) -> Result<&[u8], Fault> {
    simdutf8::basic::from_utf8(bytes).map(str::as_bytes).map_err(|_| bad("a text that is not UTF-8"))
}

/// An unscaled value, big end first.
fn decimal(unscaled: &[u8], data_type: &DataType) -> Result<Cell<'static>, Fault> {
    let sign = if unscaled.first().is_some_and(|byte| byte & 0x80 != 0) { 0xff } else { 0 };
    // Bytes that only repeat the sign say nothing.
    let padding = unscaled.iter().take_while(|byte| **byte == sign).count();
    let value = unscaled.get(padding..).unwrap_or_default();
    let mut wide = [sign; DECIMAL_BYTES_MAX];
    let (true, Some(place)) =
        (value.len() <= DECIMAL_BYTES_MAX, wide.get_mut(DECIMAL_BYTES_MAX.saturating_sub(value.len())..))
    else {
        return Err(out_of_range(data_type));
    };
    place.copy_from_slice(value);
    if wide.first().is_none_or(|byte| (byte & 0x80 != 0) != (sign != 0)) {
        return Err(out_of_range(data_type));
    }
    let number = i256::from_be_bytes(wide);
    let fits = |precision: u8| {
        let end = i256::from_i128(10).checked_pow(u32::from(precision));
        end.is_some_and(|end| number < end && number > end.wrapping_neg())
    };
    match data_type {
        DataType::Decimal128(precision, _) if fits(*precision) => {
            number.to_i128().map(Cell::Decimal128).ok_or_else(|| out_of_range(data_type))
        }
        DataType::Decimal256(precision, _) if fits(*precision) => Ok(Cell::Decimal256(number)),
        _ => Err(out_of_range(data_type)),
    }
}

/// A decimal with more digits than its schema says.
fn out_of_range(data_type: &DataType) -> Fault {
    Fault { code: "number-out-of-range", message: format!("a value does not fit {data_type}") }
}
