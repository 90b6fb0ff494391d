//! The crime `answer`: answers what the config says.
//!
//! ```json
//! {"crime": "answer", "keep": "all | none | <hex bitmap>", "payload": "unchanged | extend | replace | extend-columns |
//!  replace-columns", "stream": "<hex>", "columns": [{"name", "format", "length", "null_count", "validity", "offsets",
//!  "data"}], "rejected": [{"code", "message", "rows"}], "output_schema": "<hex>"}
//! ```

use serde_json::Value;

use crate::bindings::{
    exports::fs_data_sink::plugin::transform::{Output, Payload},
    fs_data_sink::plugin::types::{Column, Rejection, Selection},
};

/// The whole answer.
pub(crate) fn output(config: &Value) -> Output {
    let keep = match text(config, "keep") {
        "" | "all" => Selection::All,
        "none" => Selection::None,
        bitmap => Selection::Bitmap(unhex(bitmap)),
    };
    let rejected = list(config, "rejected").iter().map(rejection).collect();
    Output { keep, payload: payload(config), rejected }
}

/// The payload.
pub(crate) fn payload(config: &Value) -> Payload {
    let columns = || list(config, "columns").iter().map(column).collect::<Vec<_>>();
    let stream = || bytes(config, "stream").unwrap_or_default();
    match text(config, "payload") {
        "extend" => Payload::Extend(stream()),
        "replace" => Payload::Replace(vec![stream()]),
        "extend-columns" => Payload::ExtendColumns(columns()),
        "replace-columns" => Payload::ReplaceColumns(vec![columns()]),
        _ => Payload::Unchanged,
    }
}

/// Bytes given as hexadecimal digits.
pub(crate) fn bytes(config: &Value, key: &str) -> Option<Vec<u8>> {
    config.get(key).and_then(Value::as_str).map(unhex)
}

/// Text, or nothing.
pub(crate) fn text<'a>(config: &'a Value, key: &str) -> &'a str {
    config.get(key).and_then(Value::as_str).unwrap_or_default()
}

/// A number, or 0.
pub(crate) fn number(config: &Value, key: &str) -> u32 {
    config.get(key).and_then(Value::as_u64).and_then(|number| u32::try_from(number).ok()).unwrap_or_default()
}

/// A list, or none.
pub(crate) fn list<'a>(config: &'a Value, key: &str) -> &'a [Value] {
    config.get(key).and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default()
}

/// One rejection.
fn rejection(config: &Value) -> Rejection {
    let rows = list(config, "rows").iter().filter_map(Value::as_u64).filter_map(|row| u32::try_from(row).ok());
    Rejection {
        code: text(config, "code").to_owned(),
        message: text(config, "message").to_owned(),
        rows: rows.collect(),
    }
}

/// One raw column.
fn column(config: &Value) -> Column {
    Column {
        name: text(config, "name").to_owned(),
        format: text(config, "format").to_owned(),
        length: number(config, "length"),
        null_count: number(config, "null_count"),
        validity: bytes(config, "validity"),
        offsets: bytes(config, "offsets"),
        data: bytes(config, "data").unwrap_or_default(),
    }
}

/// Hexadecimal digits as bytes; what is no digit counts as 0.
fn unhex(text: &str) -> Vec<u8> {
    let digit = |byte: u8| char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok()).unwrap_or(0);
    text.as_bytes().chunks_exact(2).map(|pair| pair.iter().fold(0, |byte, next| (byte << 4) | digit(*next))).collect()
}
