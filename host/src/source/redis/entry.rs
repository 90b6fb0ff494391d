//! Entries and items to records of the envelope: what becomes value, key, time and headers. Pure.

use std::borrow::Cow;

use super::{
    super::envelope::{EnvelopeBuilder, Record},
    reply::Entry,
};
use crate::config::RedisEntry;

/// Appends an entry under an offset: the id as key, its milliseconds as time. One that was deleted has no value.
pub(super) fn push(builder: &mut EnvelopeBuilder, kind: &RedisEntry, offset: i64, entry: &Entry) {
    let key = entry.id.to_string();
    let fields = entry.fields.as_deref().unwrap_or_default();
    let mut record =
        Record { partition: 0, offset, timestamp_ms: entry.id.timestamp_ms(), key: Some(key.as_bytes()), value: None };
    match kind {
        RedisEntry::Record => {
            let object = entry.fields.as_deref().map(object);
            record.value = object.as_deref();
            builder.push(record);
        }
        RedisEntry::Field(name) => {
            let at = fields.iter().position(|(field, _)| field == name.as_bytes());
            record.value = at.and_then(|at| fields.get(at)).map(|(_, value)| value.as_slice());
            builder.push(record);
            let others: Vec<(Cow<'_, str>, &[u8])> = fields
                .iter()
                .enumerate()
                .filter(|(number, _)| Some(*number) != at)
                .map(|(_, (name, value))| (String::from_utf8_lossy(name), value.as_slice()))
                .collect();
            if !others.is_empty() {
                builder.set_headers(others.iter().map(|(name, value)| (name.as_ref(), Some(*value))));
            }
        }
    }
}

/// Appends an item of a list, which has nothing but a value.
pub(super) fn push_item(builder: &mut EnvelopeBuilder, offset: i64, item: &[u8]) {
    builder.push(Record { partition: 0, offset, timestamp_ms: None, key: None, value: Some(item) });
}

/// All fields as a JSON object of texts. Bytes that are no text stay as they are, so that the decoder refuses the record
/// rather than anybody changing it.
fn object(fields: &[(Vec<u8>, Vec<u8>)]) -> Vec<u8> {
    let mut json = vec![b'{'];
    for (number, (name, value)) in fields.iter().enumerate() {
        if number > 0 {
            json.push(b',');
        }
        quote(name, &mut json);
        json.push(b':');
        quote(value, &mut json);
    }
    json.push(b'}');
    json
}

/// Bytes as a JSON text.
fn quote(bytes: &[u8], json: &mut Vec<u8>) {
    json.push(b'"');
    for byte in bytes {
        match byte {
            b'"' | b'\\' => json.extend([b'\\', *byte]),
            b'\n' => json.extend(b"\\n"),
            0..=0x1f => json.extend(format!("\\u{byte:04x}").into_bytes()),
            _ => json.push(*byte),
        }
    }
    json.push(b'"');
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::memory::MemoryBudget;

    /// The record that an entry becomes.
    fn record_of(kind: &RedisEntry, fields: &[(&[u8], &[u8])]) -> crate::batch::OriginalRecord {
        let mut builder = EnvelopeBuilder::new("orders".into(), "orders".into());
        let fields = fields.iter().map(|(name, value)| (name.to_vec(), value.to_vec())).collect();
        push(&mut builder, kind, 7, &Entry { id: "5-1".parse().unwrap(), fields: Some(fields) });
        builder.finish(&MemoryBudget::new(1 << 20)).unwrap().envelope.record(0).unwrap()
    }

    #[test]
    fn one_field_is_the_record_and_the_others_are_headers() {
        let kind = RedisEntry::Field("value".to_owned());
        let record = record_of(&kind, &[(b"trace", b"1"), (b"value", b"{}"), (b"value", b"again")]);
        assert_eq!((record.key, record.value), (Some(b"5-1".to_vec()), Some(b"{}".to_vec())));
        assert_eq!((record.topic.as_str(), record.offset, record.timestamp_ms), ("orders", 7, Some(5)));
        let headers = [("trace".to_owned(), Some(b"1".to_vec())), ("value".to_owned(), Some(b"again".to_vec()))];
        assert_eq!(record.headers, headers);
        let without = record_of(&kind, &[(b"other", b"1")]);
        assert_eq!(
            (without.value, without.headers.len()),
            (None, 1),
            "a record without its value is refused further on"
        );
    }

    #[test]
    fn all_fields_are_one_object_of_texts() {
        let record = record_of(&RedisEntry::Record, &[(b"id", b"007"), (b"a\"b", b"line\n\x01\\")]);
        assert_eq!(record.value.unwrap(), br#"{"id":"007","a\"b":"line\n\u0001\\"}"#);
        assert_eq!(record.headers, []);
        let bytes = record_of(&RedisEntry::Record, &[(b"id", b"\xff")]);
        assert_eq!(bytes.value.unwrap(), b"{\"id\":\"\xff\"}");
    }

    proptest! {
        #[test]
        fn every_text_comes_back_out_of_the_object(name in "\\PC{1,9}", value in any::<String>()) {
            let json = object(&[(name.clone().into_bytes(), value.clone().into_bytes())]);
            let parsed: serde_json::Value = serde_json::from_slice(&json).unwrap();
            prop_assert_eq!(parsed.get(&name).and_then(serde_json::Value::as_str), Some(value.as_str()));
        }
    }
}
