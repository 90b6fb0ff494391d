//! Dead letters as lines of JSON, as they lie beside the ledger.
//!
//! One line a record: `topic partition offset timestamp` (milliseconds), `key` and `value` (base64), `headers` (a list of `key` and
//! base64 `value`), `stage plugin code message time`. Where a plugin had replaced the rows before, the record's own fields are
//! null.

use std::{borrow::Cow, time::SystemTime};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use chrono::{DateTime, SecondsFormat, Utc};
use serde::{Deserialize, Serialize};

use super::{DeadLetter, OriginalRecord, Stage};

/// One line.
#[derive(Serialize, Deserialize)]
struct Line<'a> {
    /// Topic, stream, list or file.
    topic: Option<Cow<'a, str>>,
    /// Partition.
    partition: Option<i32>,
    /// Offset in the partition.
    offset: Option<i64>,
    /// Milliseconds since 1970.
    timestamp: Option<i64>,
    /// Base64.
    key: Option<String>,
    /// Base64.
    value: Option<String>,
    /// In their order.
    headers: Vec<Header<'a>>,
    /// Where it was refused.
    stage: Cow<'a, str>,
    /// By which plugin.
    plugin: Option<Cow<'a, str>>,
    /// Stable and of few values.
    code: Cow<'a, str>,
    /// For people.
    message: Cow<'a, str>,
    /// RFC 3339.
    time: String,
}

/// One header.
#[derive(Serialize, Deserialize)]
struct Header<'a> {
    /// Its key.
    key: Cow<'a, str>,
    /// Base64.
    value: Option<String>,
}

impl DeadLetter {
    /// Appends the letter as a line.
    pub fn write_line(&self, text: &mut Vec<u8>) -> serde_json::Result<()> {
        let Self { record, stage, plugin, code, message, time } = self;
        let record = record.as_ref();
        let encode = |bytes: &Option<Vec<u8>>| bytes.as_ref().map(|bytes| STANDARD.encode(bytes));
        let header = |(key, value): &(String, Option<Vec<u8>>)| Header {
            key: Cow::Owned(key.clone()),
            value: value.as_ref().map(|bytes| STANDARD.encode(bytes)),
        };
        let line = Line {
            topic: record.map(|record| record.topic.as_str().into()),
            partition: record.map(|record| record.partition),
            offset: record.map(|record| record.offset),
            timestamp: record.and_then(|record| record.timestamp_ms),
            key: record.and_then(|record| encode(&record.key)),
            value: record.and_then(|record| encode(&record.value)),
            headers: record.map(|record| record.headers.iter().map(header).collect()).unwrap_or_default(),
            stage: stage.as_str().into(),
            plugin: plugin.as_deref().map(Into::into),
            code: code.into(),
            message: message.into(),
            time: rfc3339(*time),
        };
        serde_json::to_writer(&mut *text, &line)?;
        text.push(b'\n');
        Ok(())
    }

    /// The letter of a line; what is wrong with it, otherwise.
    pub fn read_line(line: &[u8]) -> Result<Self, String> {
        let Line { topic, partition, offset, timestamp, key, value, headers, stage, plugin, code, message, time } =
            serde_json::from_slice(line).map_err(|error| error.to_string())?;
        let decode = |what: &str, text: Option<String>| {
            let bytes = text.map(|text| STANDARD.decode(text)).transpose();
            bytes.map_err(|error| format!("{what} is not base64: {error}"))
        };
        let record = match (topic, partition, offset) {
            (Some(topic), Some(partition), Some(offset)) => {
                let headers = headers.into_iter().map(|Header { key, value }| {
                    let value = decode("the value of a header", value)?;
                    Ok((key.into_owned(), value))
                });
                Some(OriginalRecord {
                    topic: topic.into_owned(),
                    partition,
                    offset,
                    timestamp_ms: timestamp,
                    key: decode("`key`", key)?,
                    value: decode("`value`", value)?,
                    headers: headers.collect::<Result<_, String>>()?,
                })
            }
            _ => None,
        };
        let stage = [Stage::Source, Stage::Decode, Stage::Plugin, Stage::Partition]
            .into_iter()
            .find(|known| known.as_str() == stage)
            .ok_or_else(|| format!("there is no stage {stage:?}"))?;
        let time = DateTime::parse_from_rfc3339(&time).map_err(|error| format!("`time`: {error}"))?;
        Ok(Self {
            record,
            stage,
            plugin: plugin.map(Into::into),
            code: code.into_owned(),
            message: message.into_owned(),
            time: time.into(),
        })
    }
}

/// A time in UTC.
#[must_use]
pub fn rfc3339(time: SystemTime) -> String {
    DateTime::<Utc>::from(time).to_rfc3339_opts(SecondsFormat::Millis, true)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_letter_comes_back_from_its_line(
            topic in ".{0,20}", place in any::<(i32, i64, Option<i64>)>(), key in any::<Option<Vec<u8>>>(),
            value in any::<Option<Vec<u8>>>(), headers in any::<Vec<(String, Option<Vec<u8>>)>>(),
            plugin in any::<Option<String>>(), message in ".{0,20}", has_record in any::<bool>(), seconds in 0_u64..4_000_000_000,
        ) {
            let (partition, offset, timestamp_ms) = place;
            let record = OriginalRecord { topic, partition, offset, timestamp_ms, key, value, headers };
            let letter = DeadLetter {
                record: has_record.then_some(record),
                stage: Stage::Plugin,
                plugin: plugin.map(Into::into),
                code: "wrong-type".to_owned(),
                message,
                time: SystemTime::UNIX_EPOCH + Duration::from_secs(seconds),
            };
            let mut line = Vec::new();
            letter.write_line(&mut line).unwrap();
            prop_assert_eq!(line.pop(), Some(b'\n'));
            prop_assert_eq!(DeadLetter::read_line(&line).unwrap(), letter);
        }

        #[test]
        fn no_line_panics(line in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = DeadLetter::read_line(&line);
        }
    }
}
