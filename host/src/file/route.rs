//! Brings rows to the files of a generation: into the open file of their directory, or among those that wait for one.
//!
//! Comes in: rows by directory, as a batch gave them. Goes out: finished files, whose last parts are uploaded in the
//! background.

use std::sync::Arc;

use arrow_array::RecordBatch;
use arrow_schema::{ArrowError, SchemaRef};

use super::{
    Generation,
    name::FileName,
    provenance, roll,
    waiting::{Origin, ROWS_WORTH_A_FILE},
    writer::{EncodedFile, NewFile, OpenFile},
};
use crate::{batch::ClosedFile, config::Delivery, error::PipelineError};

impl Generation {
    /// Appends rows to the files of their directories; ends and opens files as needed. Waits when the store is slower.
    pub async fn write(&mut self, dataset: &str, parts: Vec<(Arc<str>, RecordBatch)>) -> Result<(), PipelineError> {
        for (directory, rows) in parts {
            if rows.num_rows() > 0 {
                self.write_part(dataset, &directory, &rows).await?;
            }
        }
        self.settle(dataset).await?;
        self.relieve().await
    }

    /// Appends rows to the file of their directory if it is open, or worth to be opened; otherwise they wait.
    async fn write_part(
        &mut self,
        dataset: &str,
        directory: &Arc<str>,
        rows: &RecordBatch,
    ) -> Result<(), PipelineError> {
        self.begin();
        self.remember(dataset);
        let Some(known) = self.datasets.get_mut(dataset) else { return Ok(()) };
        let rows = known.prepare(&self.context.sink.parquet, rows)?;
        if let Some(file) = known.open.get(directory) {
            if file.schema() == rows.schema_ref() && !self.rules.is_full(file.encoded_bytes(), file.rows()) {
                return self.append(dataset, directory, &rows).await;
            }
            self.finish(dataset, directory).await?;
        }
        let origin = Origin { begins_after: Arc::clone(&self.delta_before), last_batch: self.progress.batches };
        let Some(known) = self.datasets.get_mut(dataset) else { return Ok(()) };
        if !known.waiting.takes(rows.schema_ref()) {
            self.finish_waiting(dataset).await?;
        }
        let Some(known) = self.datasets.get(dataset) else { return Ok(()) };
        let is_worth_a_file = rows.num_rows() >= ROWS_WORTH_A_FILE && !known.waiting.has(directory);
        if is_worth_a_file && self.may_open() {
            self.open(dataset, directory, rows.schema_ref(), origin)?;
            return self.append(dataset, directory, &rows).await;
        }
        if let Some(known) = self.datasets.get_mut(dataset) {
            known.waiting.push(directory, rows, origin);
        }
        Ok(())
    }

    /// Counts the rows that came to wait, and opens files for directories that are worth one by now.
    async fn settle(&mut self, dataset: &str) -> Result<(), PipelineError> {
        let Some(known) = self.datasets.get_mut(dataset) else { return Ok(()) };
        let before = known.waiting.bytes();
        let rules = self.rules;
        let ready = known.waiting.settle(|bytes, rows| rules.is_full(bytes, rows)).map_err(cannot_keep)?;
        let after = known.waiting.bytes();
        self.count_memory(before, after);
        if ready.is_empty() {
            return Ok(());
        }
        for directory in ready {
            let Some(known) = self.datasets.get(dataset) else { return Ok(()) };
            let (rows, bytes) = known.waiting.size(&directory);
            if self.may_open() {
                self.write_waiting(dataset, &directory).await?;
            } else if self.rules.is_full(bytes, rows as u64) {
                self.write_waiting(dataset, &directory).await?;
                self.finish(dataset, &directory).await?;
            }
        }
        self.tidy(dataset)
    }

    /// Opens a file for a directory whose rows wait, and writes them to it.
    async fn write_waiting(&mut self, dataset: &str, directory: &Arc<str>) -> Result<(), PipelineError> {
        let Some(known) = self.datasets.get_mut(dataset) else { return Ok(()) };
        let Some(taken) = known.waiting.take(directory) else { return Ok(()) };
        let origin = taken.origin.clone();
        self.open(dataset, directory, &Arc::clone(&taken.schema), origin.clone())?;
        for rows in taken {
            self.append(dataset, directory, &rows.map_err(cannot_keep)?).await?;
        }
        let file = self.datasets.get_mut(dataset).and_then(|known| known.open.get_mut(directory));
        if let Some(file) = file {
            file.origin = origin;
        }
        Ok(())
    }

    /// Writes the rows of all directories of a dataset that wait, one file after the other.
    async fn finish_waiting(&mut self, dataset: &str) -> Result<(), PipelineError> {
        self.settle(dataset).await?;
        let Some(known) = self.datasets.get(dataset) else { return Ok(()) };
        for directory in known.waiting.directories() {
            self.write_waiting(dataset, &directory).await?;
            self.finish(dataset, &directory).await?;
        }
        self.tidy(dataset)
    }

    /// Gives the memory of rows back that no longer wait.
    fn tidy(&mut self, dataset: &str) -> Result<(), PipelineError> {
        let Some(known) = self.datasets.get_mut(dataset) else { return Ok(()) };
        let before = known.waiting.bytes();
        known.waiting.tidy().map_err(cannot_keep)?;
        let after = known.waiting.bytes();
        self.count_memory(before, after);
        Ok(())
    }

    /// Finishes all files, also those of rows that wait.
    pub(super) async fn finish_all(&mut self) -> Result<(), PipelineError> {
        let mut waiting: Vec<Box<str>> =
            self.datasets.iter().filter(|(_, known)| !known.waiting.is_empty()).map(|(name, _)| name.clone()).collect();
        waiting.sort_unstable();
        for dataset in waiting {
            self.finish_waiting(&dataset).await?;
        }
        let mut open: Vec<(u32, Box<str>, Arc<str>)> = Vec::with_capacity(self.open_files.len());
        for (name, dataset) in &self.datasets {
            open.extend(
                dataset.open.iter().map(|(directory, file)| (file.number, name.clone(), Arc::clone(directory))),
            );
        }
        open.sort_unstable();
        for (_, dataset, directory) in open {
            self.finish(&dataset, &directory).await?;
        }
        Ok(())
    }

    /// Opens a file.
    fn open(
        &mut self,
        dataset: &str,
        directory: &Arc<str>,
        schema: &SchemaRef,
        origin: Origin,
    ) -> Result<(), PipelineError> {
        // Small files may stay in memory until they are published, but not when it is short.
        let is_memory_short = self.budget().ends_row_groups();
        let Some(known) = self.datasets.get_mut(dataset) else { return Ok(()) };
        let number = self.next_file;
        let first = self.delta.since(&origin.begins_after).of_topic(dataset);
        let begins_at = first.iter().next().map(|(source, range)| (source.partition, range.from));
        let name = FileName {
            began: self.began_utc.unwrap_or_default(),
            lane: self.context.lane,
            generation: self.sequence,
            number,
            begins_at,
            writer: &self.context.writer_mark,
        };
        let path = name.path(&known.folder, directory)?;
        let path = self.context.path.clone().unwrap_or(path);
        let staging = match self.context.run.delivery {
            Delivery::ExactlyOnce => self.context.store.stage_durably(path.clone()),
            Delivery::AtLeastOnce if is_memory_short => self.context.store.stage_durably(path.clone()),
            Delivery::AtLeastOnce => self.context.store.stage(path.clone()),
        };
        let new = NewFile {
            staging,
            path,
            number,
            origin,
            schema: Arc::clone(schema),
            properties: known.properties(&self.context.sink.parquet)?,
            sort: known.sort(),
        };
        known.open.insert(Arc::clone(directory), OpenFile::open(new, &self.context.metrics)?);
        self.next_file += 1;
        self.open_files.push(self.context.budget.tenant().open_file());
        Ok(())
    }

    /// Appends rows to an open file.
    async fn append(&mut self, dataset: &str, directory: &str, rows: &RecordBatch) -> Result<(), PipelineError> {
        let Some(file) = self.datasets.get_mut(dataset).and_then(|known| known.open.get_mut(directory)) else {
            return Ok(());
        };
        let before = file.held_bytes();
        file.write(rows).await?;
        file.origin.last_batch = self.progress.batches;
        if self.rules.is_full(file.encoded_bytes(), file.rows()) {
            // It is ended with the next rows for it, since a plugin may give more for the same batch; until then it need
            // not stay in memory.
            file.end_row_group().await?;
        }
        let after = file.held_bytes();
        self.count_memory(before, after);
        Ok(())
    }

    /// Ends the largest row group early while memory is short.
    async fn relieve(&mut self) -> Result<(), PipelineError> {
        if !self.budget().ends_row_groups() {
            return Ok(());
        }
        let open = self.datasets.values_mut().flat_map(|dataset| dataset.open.values_mut());
        let Some(largest) = open.max_by_key(|file| file.row_group_bytes()) else { return Ok(()) };
        if largest.row_group_bytes() >= roll::ROW_GROUP_BYTES_MIN {
            let before = largest.held_bytes();
            largest.end_row_group().await?;
            let after = largest.held_bytes();
            self.count_memory(before, after);
        }
        Ok(())
    }

    /// Finishes one open file; its last parts are uploaded in the background.
    async fn finish(&mut self, dataset: &str, directory: &str) -> Result<(), PipelineError> {
        let Some(file) = self.datasets.get_mut(dataset).and_then(|known| known.open.remove(directory)) else {
            return Ok(());
        };
        self.open_files.pop();
        self.count_memory(file.held_bytes(), 0);
        let covered = if file.origin.last_batch < self.progress.batches { &self.delta_before } else { &self.delta };
        let sources = covered.since(&file.origin.begins_after).of_topic(dataset);
        let ranges = provenance::source_ranges(dataset, covered);
        let encoded = file.finish(provenance::metadata(&self.context.pipeline, ranges)).await?;
        // Never closed, so that there is always a permit to wait for.
        let permit = Arc::clone(&self.finishing).acquire_owned().await.ok();
        let memory = if encoded.staging.stays_in_memory() {
            self.keep(encoded.held_bytes);
            None
        } else {
            Some(self.context.budget.hold(encoded.held_bytes))
        };
        let staging = encoded.staging;
        let staged = self.context.io.spawn(async move {
            let _until_staged = (permit, memory);
            staging.finish().await
        });
        let EncodedFile { path, rows, bytes, .. } = encoded;
        self.files.push(ClosedFile { path, rows, bytes, sources, staged });
        Ok(())
    }
}

/// The error for rows that cannot be copied together, which only a fault in this program can cause.
fn cannot_keep(error: ArrowError) -> PipelineError {
    PipelineError::stop("cannot keep rows that wait for their file").because(error)
}
