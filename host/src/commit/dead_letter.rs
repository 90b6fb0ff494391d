//! Refused records as JSON lines beside the ledger, outside every `**/*.parquet`.
//!
//! One object a generation, `_fs_data_sink/<pipeline>/dead_letters/<time>-l<lane>-g<sequence>-<writer>.jsonl`. One line
//! a record: `topic partition offset timestamp` (milliseconds), `key` and `value` (base64), `headers` (a list of `key` and
//! base64 `value`), `stage plugin code message time`. Where a plugin had replaced the rows before, the record's own
//! fields are null.

use std::time::SystemTime;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use bytes::Bytes;
use chrono::{DateTime, SecondsFormat, Utc};
use serde::Serialize;

use super::CommitContext;
use crate::{
    batch::{DeadLetter, OriginalRecord},
    error::PipelineError,
    store::{Path, StagedFile},
};

pub(super) mod kafka;

/// One line.
#[derive(Serialize)]
struct Line<'a> {
    /// Topic, stream, list or file.
    topic: Option<&'a str>,
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
    stage: &'static str,
    /// By which plugin.
    plugin: Option<&'a str>,
    /// Stable and of few values.
    code: &'a str,
    /// For people.
    message: &'a str,
    /// RFC 3339.
    time: String,
}

/// One header.
#[derive(Serialize)]
struct Header<'a> {
    /// Its key.
    key: &'a str,
    /// Base64.
    value: Option<String>,
}

/// Writes the letters of a generation; no object where there are none.
pub(super) async fn write(context: &CommitContext, sequence: u64, letters: &[DeadLetter]) -> Result<(), PipelineError> {
    match encode(letters)? {
        Some(text) => context.store.put(&name(context, sequence), text).await,
        None => Ok(()),
    }
}

/// Stages the letters of a generation, to be recorded and published with its files.
pub(super) async fn stage(
    context: &CommitContext,
    sequence: u64,
    letters: &[DeadLetter],
) -> Result<Option<StagedFile>, PipelineError> {
    let Some(text) = encode(letters)? else { return Ok(None) };
    let mut staging = context.store.stage_durably(name(context, sequence));
    staging.write(text).await?;
    staging.finish().await.map(Some)
}

/// Where the letters of a generation go.
fn name(context: &CommitContext, sequence: u64) -> Path {
    let time = Utc::now().format("%Y%m%dT%H%M%SZ");
    let CommitContext { lane, writer_mark, .. } = context;
    context.store.own_name(&format!("dead_letters/{time}-l{lane:02}-g{sequence:06}-{writer_mark}.jsonl"))
}

/// Letters as lines; `None` where there are none.
pub(super) fn encode(letters: &[DeadLetter]) -> Result<Option<Bytes>, PipelineError> {
    if letters.is_empty() {
        return Ok(None);
    }
    let mut text = Vec::with_capacity(letters.iter().map(DeadLetter::size_bytes).sum::<usize>() * 3 / 2);
    for letter in letters {
        serde_json::to_writer(&mut text, &line(letter))
            .map_err(|error| PipelineError::stop("a dead letter cannot be written as JSON").because(error))?;
        text.push(b'\n');
    }
    Ok(Some(Bytes::from(text)))
}

/// A letter as a line.
fn line(letter: &DeadLetter) -> Line<'_> {
    let DeadLetter { record, stage, plugin, code, message, time } = letter;
    let record = record.as_ref();
    let encode = |bytes: &Option<Vec<u8>>| bytes.as_ref().map(|bytes| STANDARD.encode(bytes));
    Line {
        topic: record.map(|record| record.topic.as_str()),
        partition: record.map(|record| record.partition),
        offset: record.map(|record| record.offset),
        timestamp: record.and_then(|record| record.timestamp_ms),
        key: record.and_then(|record| encode(&record.key)),
        value: record.and_then(|record| encode(&record.value)),
        headers: record.map(headers).unwrap_or_default(),
        stage: stage.as_str(),
        plugin: plugin.as_deref(),
        code,
        message,
        time: rfc3339(*time),
    }
}

/// The headers of a record.
fn headers(record: &OriginalRecord) -> Vec<Header<'_>> {
    record
        .headers
        .iter()
        .map(|(key, value)| Header { key, value: value.as_ref().map(|bytes| STANDARD.encode(bytes)) })
        .collect()
}

/// A time in UTC.
fn rfc3339(time: SystemTime) -> String {
    DateTime::<Utc>::from(time).to_rfc3339_opts(SecondsFormat::Millis, true)
}
