//! `google.protobuf.Struct`, `Value` and `ListValue` as the text of JSON: they contain each other, which columns cannot.

use std::fmt::Write as _;

use super::{
    super::{cells::Room, fault::Fault},
    plan::JsonKind,
    read::{Fields, Raw, bad, utf8},
};

/// Deepest nesting, as deep as JSON goes elsewhere.
const DEPTH_MAX: usize = 64;

/// The text of a message. What it takes is held against what columns may cost.
pub(super) fn text(kind: JsonKind, pieces: &[&[u8]], room: &mut Room) -> Result<String, Fault> {
    let mut text = String::new();
    write(kind, pieces, &mut text, room, 0)?;
    Ok(text)
}

/// Appends a message.
fn write(kind: JsonKind, pieces: &[&[u8]], text: &mut String, room: &mut Room, depth: usize) -> Result<(), Fault> {
    if depth > DEPTH_MAX {
        return Err(Fault { code: "too-deep", message: format!("values are nested deeper than {DEPTH_MAX}") });
    }
    room.take(1)?;
    match kind {
        JsonKind::Value => value(pieces, text, room, depth),
        JsonKind::List => {
            text.push('[');
            for (number, item) in fields(pieces, 1)?.into_iter().enumerate() {
                if number > 0 {
                    text.push(',');
                }
                write(JsonKind::Value, &[item], text, room, depth + 1)?;
            }
            text.push(']');
            Ok(())
        }
        JsonKind::Struct => {
            text.push('{');
            for (number, entry) in fields(pieces, 1)?.into_iter().enumerate() {
                if number > 0 {
                    text.push(',');
                }
                let (keys, values) = (fields(&[entry], 1)?, fields(&[entry], 2)?);
                quoted(keys.last().copied().unwrap_or_default(), text, room)?;
                text.push(':');
                write(JsonKind::Value, &values, text, room, depth + 1)?;
            }
            text.push('}');
            Ok(())
        }
    }
}

/// Appends any value: the last of its fields counts.
fn value(pieces: &[&[u8]], text: &mut String, room: &mut Room, depth: usize) -> Result<(), Fault> {
    let mut last = None;
    for piece in pieces {
        let mut fields = Fields::new(piece);
        while let Some(field) = fields.next()? {
            last = Some(field);
        }
    }
    match last {
        None | Some((1, _)) => text.push_str("null"),
        Some((2, Raw::Eight(bytes))) => {
            let number = f64::from_le_bytes(bytes);
            if !number.is_finite() {
                return Err(bad("a number that JSON has not"));
            }
            // Writing to a string cannot fail.
            let _ = write!(text, "{number}");
        }
        Some((3, Raw::Sized(bytes))) => quoted(bytes, text, room)?,
        Some((4, Raw::Varint(number))) => text.push_str(if number == 0 { "false" } else { "true" }),
        Some((5, Raw::Sized(bytes))) => write(JsonKind::Struct, &[bytes], text, room, depth + 1)?,
        Some((6, Raw::Sized(bytes))) => write(JsonKind::List, &[bytes], text, room, depth + 1)?,
        Some((number, _)) => return Err(bad(&format!("the field {number} in google.protobuf.Value"))),
    }
    Ok(())
}

/// The bytes of each occurrence of a field.
fn fields<'a>(pieces: &[&'a [u8]], wanted: u32) -> Result<Vec<&'a [u8]>, Fault> {
    let mut found = Vec::new();
    for piece in pieces {
        let mut fields = Fields::new(piece);
        while let Some((number, raw)) = fields.next()? {
            match raw {
                Raw::Sized(bytes) if number == wanted => found.push(bytes),
                _ => {}
            }
        }
    }
    Ok(found)
}

/// Appends a text with quotes.
fn quoted(bytes: &[u8], text: &mut String, room: &mut Room) -> Result<(), Fault> {
    room.take(bytes.len())?;
    let plain = String::from_utf8_lossy(utf8(bytes)?);
    text.push_str(&serde_json::Value::from(plain).to_string());
    Ok(())
}
