//! Writes a committed file once more whose staged bytes were lost before it became visible.
//!
//! Comes in: the recorded offsets of the file and its path. Goes out: the same rows, staged under the same path. The records
//! go through the same stages; of what comes out, the rows of the file's directory are those of the file, since a file
//! holds all rows that its offsets gave for its directory. A plugin that holds rows back from batch to batch, or that
//! answers differently the second time, gives what it gives now.
//!
//! Where plugins keep state, what a file holds may come from any record since that state was taken. So all records of the commit
//! are read again, by chains that go on from the state before it, which the ledger keeps as long as the commit is pending. The
//! plugins went on from there long ago: a file with another number of rows would double some or lose some, and is refused.

use std::sync::{Arc, atomic::AtomicI64};

use super::{
    Shared,
    flow::{Flow, FlowOutput},
    states::KnownStates,
};
use crate::{
    batch::DeadLetter,
    commit::{LostFile, Recovery},
    error::PipelineError,
    file::{self as file_room, FileContext, Generation},
    plugin::FlushReason,
    source::{self, LaneContext, SourceEvent},
    store::StagedFile,
};

/// Restores every lost file, one after the other.
pub(super) async fn restore(
    shared: &Shared,
    lane: usize,
    recovery: &Recovery,
    lost: &[LostFile],
) -> Result<(), PipelineError> {
    for file in lost {
        tracing::warn!(pipeline = %shared.config.name, lane, file = %file.path, rows = file.rows,
            "a committed file was lost before it became visible: its records are read and written once more");
        let mut generation = Generation::new(context(shared, lane, file));
        let written = write_again(shared, lane, recovery, file, &mut generation).await;
        let letters = match written {
            Ok(letters) => letters,
            Err(error) => {
                generation.abandon().await;
                return Err(error);
            }
        };
        let (staged, rows) = if file.is_dead_letters() {
            (recovery.stage_dead_letters(file, &letters).await?, 0)
        } else {
            the_one_file(file, generation).await?
        };
        if !file.before.is_empty() && rows != file.rows {
            shared.store.abort(&staged).await;
            return Err(PipelineError::stop(format!(
                "{}: the file was lost before it became visible, and its records give {rows} rows for its folder now, where it had \
                 {}: a plugin that keeps state does not give the same again, or the commit had more files there, or was the last \
                 one of its input. Restore the file from a backup of the store, or give the pipeline another `name` and begin anew",
                file.path, file.rows
            )));
        }
        recovery.restore(file, &staged, rows).await?;
        shared.metrics.retried("restore_file");
    }
    recovery.has_restored(lost);
    Ok(())
}

/// The file that was written once more, and its rows.
async fn the_one_file(file: &LostFile, mut generation: Generation) -> Result<(StagedFile, u64), PipelineError> {
    let mut closed = generation.close().await?;
    let (Some(again), true) = (closed.files.pop(), closed.files.is_empty()) else {
        return Err(PipelineError::stop(format!(
            "{}: the file was lost before it became visible, and its records do not give one file any more; were the plugins or \
             the schema changed since?",
            file.path
        )));
    };
    let staged = again.staged.await.unwrap_or_else(|error| {
        Err(PipelineError::retry(format!("the upload of {} ended abnormally", file.path)).because(error))
    })?;
    Ok((staged, again.rows))
}

/// Takes the records of a lost file through all stages, and keeps the rows that belong to it; the dead letters.
async fn write_again(
    shared: &Shared,
    lane: usize,
    recovery: &Recovery,
    file: &LostFile,
    generation: &mut Generation,
) -> Result<Vec<DeadLetter>, PipelineError> {
    let mut known = KnownStates::new(Some(recovery.clone()));
    known.add(file.states_before(), &shared.plugins)?;
    let source = LaneContext {
        pipeline: Arc::clone(&shared.config.name),
        lane,
        lanes: 1,
        run: shared.config.run.clone(),
        budget: shared.budget.clone(),
        metrics: shared.metrics.clone(),
        batches_left: Arc::new(AtomicI64::new(i64::MAX)),
        moves: Arc::default(),
        takes_over: false,
        io: shared.runtime.io.clone(),
    };
    let mut events = source::read_again(&shared.config.source, file.sources.clone(), source)?;
    let mut flows: Vec<(Arc<str>, Flow)> = Vec::new();
    let mut letters = Vec::new();
    let pauses = shared.pauses.lane(shared.runtime.stop.clone());
    loop {
        match events.recv().await {
            Some(SourceEvent::Batch(raw)) => {
                if !flows.iter().any(|(dataset, _)| *dataset == raw.dataset) {
                    flows.push((
                        Arc::clone(&raw.dataset),
                        Flow::new(shared.clone(), lane, &raw.dataset, pauses.clone())?,
                    ));
                }
                generation.cover(&raw.delta)?;
                if let Some((dataset, flow)) = flows.iter_mut().find(|(dataset, _)| *dataset == raw.dataset) {
                    flow.prepare(&raw).await?;
                    let output = flow.process(&raw, &mut known).await?;
                    letters.extend(keep(generation, dataset, file, output).await?);
                }
            }
            Some(SourceEvent::End) => break,
            Some(SourceEvent::Failed(error)) => return Err(error),
            Some(_) | None => {
                return Err(PipelineError::restart("the source ended while a lost file was written again"));
            }
        }
    }
    for (dataset, mut flow) in flows {
        let output = flow.flush(FlushReason::Checkpoint).await?;
        letters.extend(keep(generation, &dataset, file, output).await?);
        flow.close().await;
    }
    Ok(letters)
}

/// Writes the rows of the file's directory; the dead letters.
async fn keep(
    generation: &mut Generation,
    dataset: &str,
    file: &LostFile,
    output: FlowOutput,
) -> Result<Vec<DeadLetter>, PipelineError> {
    let FlowOutput { rows, dead_letters, .. } = output;
    let parts = rows.into_iter().map(|part| (part.directory, part.rows));
    let own = parts.filter(|(directory, _)| generation.is_for(dataset, directory, &file.path)).collect();
    generation.write(dataset, own).await?;
    Ok(dead_letters)
}

/// What the file is written with: one file, however large.
fn context(shared: &Shared, lane: usize, file: &LostFile) -> FileContext {
    let mut run = shared.config.run.clone();
    run.target_file_size_bytes = usize::MAX;
    run.target_file_rows = None;
    FileContext {
        store: shared.store.clone(),
        sink: shared.config.sink.clone(),
        run,
        pipeline: Arc::clone(&shared.config.name),
        path: Some(file.path.clone()),
        lane,
        // Unused: the path is given.
        writer_mark: file_room::writer_mark(),
        budget: shared.budget.clone(),
        metrics: shared.metrics.clone(),
        io: shared.runtime.io.clone(),
    }
}
