//! Refused records as JSON lines beside the ledger, outside every `**/*.parquet`.
//!
//! One object a generation, `_fs_data_sink/<pipeline>/dead_letters/<time>-l<lane>-g<sequence>-<writer>.jsonl`; what a line says is in
//! `batch/letter.rs`.

use bytes::Bytes;
use chrono::Utc;

use super::CommitContext;
use crate::{
    batch::DeadLetter,
    error::PipelineError,
    store::{Path, StagedFile},
};

pub(super) mod kafka;

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
        letter
            .write_line(&mut text)
            .map_err(|error| PipelineError::stop("a dead letter cannot be written as JSON").because(error))?;
    }
    Ok(Some(Bytes::from(text)))
}
