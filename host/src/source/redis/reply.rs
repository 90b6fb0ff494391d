//! Answers of Redis, taken apart. Pure; nothing that a server says makes it panic.

use std::collections::BTreeMap;

use redis::Value;

use super::{client::strange, id::StreamId};
use crate::error::PipelineError;

/// One entry of a stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Entry {
    /// Its id.
    pub(super) id: StreamId,
    /// Its fields in their order; `None` where the entry was deleted before it was read.
    pub(super) fields: Option<Vec<(Vec<u8>, Vec<u8>)>>,
}

impl Entry {
    /// Bytes of names and values.
    pub(super) fn bytes(&self) -> usize {
        self.fields.iter().flatten().map(|(name, value)| name.len() + value.len()).sum()
    }
}

/// The entries of `XREAD` and `XREADGROUP` for one stream; none where there was nothing.
pub(super) fn of_stream(value: Value) -> Result<Vec<Entry>, PipelineError> {
    const DOING: &str = "reading a stream";
    let streams = match value {
        Value::Nil => return Ok(Vec::new()),
        Value::Map(mut pairs) => pairs.pop().map(|(_, entries)| entries),
        Value::Array(mut streams) => match streams.pop() {
            Some(Value::Array(mut pair)) if pair.len() == 2 => pair.pop(),
            None => return Ok(Vec::new()),
            Some(_) => return Err(strange(DOING)),
        },
        _ => return Err(strange(DOING)),
    };
    streams.map_or_else(|| Ok(Vec::new()), entries)
}

/// The entries of `XRANGE` and `XCLAIM`.
pub(super) fn entries(value: Value) -> Result<Vec<Entry>, PipelineError> {
    match value {
        Value::Nil => Ok(Vec::new()),
        // Redis 6 answers nil for an entry that was deleted.
        Value::Array(list) => list.into_iter().filter(|item| *item != Value::Nil).map(entry).collect(),
        _ => Err(strange("reading entries")),
    }
}

/// One entry.
fn entry(value: Value) -> Result<Entry, PipelineError> {
    const DOING: &str = "reading an entry";
    let Value::Array(pair) = value else { return Err(strange(DOING)) };
    let mut pair = pair.into_iter();
    let id = pair.next().and_then(|id| text(&id)).ok_or_else(|| strange(DOING))?.parse()?;
    let fields = match pair.next() {
        None | Some(Value::Nil) => None,
        Some(Value::Array(flat)) => {
            let (mut fields, mut flat) = (Vec::with_capacity(flat.len() / 2), flat.into_iter());
            while let (Some(name), Some(value)) = (flat.next(), flat.next()) {
                fields.push((bytes(name).ok_or_else(|| strange(DOING))?, bytes(value).ok_or_else(|| strange(DOING))?));
            }
            Some(fields)
        }
        Some(_) => return Err(strange(DOING)),
    };
    Ok(Entry { id, fields })
}

/// Bytes, as they are.
pub(super) fn bytes(value: Value) -> Option<Vec<u8>> {
    match value {
        Value::BulkString(bytes) => Some(bytes),
        Value::SimpleString(text) => Some(text.into_bytes()),
        Value::Int(number) => Some(number.to_string().into_bytes()),
        _ => None,
    }
}

/// A text; `None` for anything else.
pub(super) fn text(value: &Value) -> Option<String> {
    match value {
        Value::BulkString(bytes) => String::from_utf8(bytes.clone()).ok(),
        Value::SimpleString(text) => Some(text.clone()),
        Value::Int(number) => Some(number.to_string()),
        Value::Okay => Some("OK".to_owned()),
        _ => None,
    }
}

/// A number, also one written as text.
pub(super) fn number(value: &Value) -> Option<i64> {
    match value {
        Value::Int(number) => Some(*number),
        other => text(other)?.parse().ok(),
    }
}

/// A list of texts; what is no text is left out.
pub(super) fn texts(value: &Value) -> Vec<String> {
    match value {
        Value::Array(list) | Value::Set(list) => list.iter().filter_map(text).collect(),
        _ => Vec::new(),
    }
}

/// The items of a list.
pub(super) fn list(value: Value, doing: &str) -> Result<Vec<Value>, PipelineError> {
    match value {
        Value::Array(list) | Value::Set(list) => Ok(list),
        Value::Nil => Ok(Vec::new()),
        _ => Err(strange(doing)),
    }
}

/// Names and values, such as `XINFO` gives them.
pub(super) fn map(value: Value) -> BTreeMap<String, Value> {
    match value {
        Value::Map(pairs) => pairs.into_iter().filter_map(|(name, value)| Some((text(&name)?, value))).collect(),
        Value::Array(flat) => {
            let (mut map, mut flat) = (BTreeMap::new(), flat.into_iter());
            while let (Some(name), Some(value)) = (flat.next(), flat.next()) {
                if let Some(name) = text(&name) {
                    map.insert(name, value);
                }
            }
            map
        }
        _ => BTreeMap::new(),
    }
}

/// What `XINFO STREAM` says, as far as it is used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct StreamInfo {
    /// Entries now.
    pub(super) length: u64,
    /// The first of them.
    pub(super) first: Option<StreamId>,
    /// The last id that was ever given.
    pub(super) last: StreamId,
    /// Entries ever added; `None` before Redis 7.
    pub(super) added: Option<u64>,
    /// Whether entries were deleted one by one, so that numbers do not tell what was trimmed.
    pub(super) has_holes: bool,
}

impl StreamInfo {
    /// From the answer.
    pub(super) fn parse(value: Value) -> Result<Self, PipelineError> {
        const DOING: &str = "asking about a stream";
        let map = map(value);
        let id = |name: &str| map.get(name).and_then(text).map(|text| text.parse::<StreamId>()).transpose();
        let first = match map.get("first-entry") {
            Some(Value::Array(pair)) => pair.first().and_then(text).map(|text| text.parse()).transpose()?,
            _ => None,
        };
        Ok(Self {
            length: map
                .get("length")
                .and_then(number)
                .and_then(|number| number.try_into().ok())
                .ok_or_else(|| strange(DOING))?,
            first,
            last: id("last-generated-id")?.ok_or_else(|| strange(DOING))?,
            added: map.get("entries-added").and_then(number).and_then(|number| number.try_into().ok()),
            has_holes: id("max-deleted-entry-id")?.is_some_and(|id| id > StreamId::ZERO),
        })
    }

    /// How many entries were trimmed, where it can be told.
    pub(super) fn trimmed(&self) -> Option<u64> {
        if self.has_holes { None } else { self.added?.checked_sub(self.length) }
    }
}

/// One consumer of a group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Consumer {
    /// Its name.
    pub(super) name: String,
    /// Entries that it has and that are not acknowledged.
    pub(super) pending: u64,
    /// For how long it was not heard of.
    pub(super) idle_ms: u64,
}

/// What `XINFO CONSUMERS` says.
pub(super) fn consumers(value: Value) -> Result<Vec<Consumer>, PipelineError> {
    const DOING: &str = "asking for the consumers of a group";
    let one = |value| {
        let map = map(value);
        let count = |name: &str| map.get(name).and_then(number).and_then(|number| u64::try_from(number).ok());
        let name = map.get("name").and_then(text);
        // A name that is no text is none of ours, and cannot be asked for by us.
        Some(Consumer { name: name?, pending: count("pending")?, idle_ms: count("idle")? })
    };
    Ok(list(value, DOING)?.into_iter().filter_map(one).collect())
}

/// One entry that a consumer has and has not acknowledged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Pending {
    /// Its id.
    pub(super) id: StreamId,
    /// How often it was delivered.
    pub(super) deliveries: u64,
}

/// What `XPENDING` with a range says.
pub(super) fn pending(value: Value) -> Result<Vec<Pending>, PipelineError> {
    const DOING: &str = "asking for entries that are not acknowledged";
    let one = |value| {
        let Value::Array(parts) = value else { return Err(strange(DOING)) };
        let id = parts.first().and_then(text).ok_or_else(|| strange(DOING))?.parse()?;
        let deliveries = parts.get(3).and_then(number).and_then(|number| number.try_into().ok());
        Ok(Pending { id, deliveries: deliveries.ok_or_else(|| strange(DOING))? })
    };
    list(value, DOING)?.into_iter().map(one).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A text.
    fn bulk(text: &str) -> Value {
        Value::BulkString(text.as_bytes().to_vec())
    }

    #[test]
    fn entries_come_with_their_fields_in_order() {
        let one = Value::Array(vec![bulk("5-1"), Value::Array(vec![bulk("b"), bulk("1"), bulk("a"), bulk("\u{fc}")])]);
        let deleted = Value::Array(vec![bulk("6-0"), Value::Nil]);
        let answer = Value::Array(vec![Value::Array(vec![bulk("orders"), Value::Array(vec![one, deleted])])]);
        let found = of_stream(answer).unwrap();
        assert_eq!(found[0].id.to_string(), "5-1");
        assert_eq!(found[0].fields.as_ref().unwrap()[0], (b"b".to_vec(), b"1".to_vec()));
        assert_eq!((found[0].bytes(), found[1].fields.is_none()), (5, true));
        assert_eq!(of_stream(Value::Nil).unwrap(), []);
        assert_eq!(entries(Value::Array(vec![Value::Nil])).unwrap(), []);
    }

    #[test]
    fn what_is_not_an_answer_is_said() {
        for value in [Value::Int(5), Value::Array(vec![Value::Okay]), Value::Okay] {
            assert!(of_stream(value.clone()).is_err(), "{value:?}");
            assert!(entries(Value::Array(vec![value.clone()])).is_err(), "{value:?}");
            assert!(pending(Value::Array(vec![Value::Array(vec![value.clone()])])).is_err(), "{value:?}");
            assert!(StreamInfo::parse(value).is_err());
        }
        assert!(entries(Value::Array(vec![Value::Array(vec![bulk("x"), Value::Nil])])).is_err());
    }

    #[test]
    fn a_stream_tells_what_was_trimmed_where_nothing_was_deleted() {
        let mut flat = vec![
            bulk("length"),
            Value::Int(7),
            bulk("last-generated-id"),
            bulk("9-9"),
            bulk("entries-added"),
            Value::Int(10),
            bulk("max-deleted-entry-id"),
            bulk("0-0"),
            bulk("first-entry"),
            Value::Array(vec![bulk("3-0"), Value::Array(Vec::new())]),
        ];
        let info = StreamInfo::parse(Value::Array(flat.clone())).unwrap();
        assert_eq!((info.trimmed(), info.first.unwrap().to_string()), (Some(3), "3-0".to_owned()));
        flat[7] = bulk("4-0");
        assert_eq!(StreamInfo::parse(Value::Array(flat.clone())).unwrap().trimmed(), None);
        flat.truncate(4);
        assert_eq!(StreamInfo::parse(Value::Array(flat)).unwrap().trimmed(), None);
    }
}
