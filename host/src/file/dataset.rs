//! What a lane remembers of one dataset: its open files, the rows that wait for one, and how rows of its schema are written.
//!
//! Comes in: rows of the dataset. Goes out: the properties and the schema of the next file. Whatever is found out
//! about dictionaries outlives files and generations, until the schema changes.

use std::{collections::BTreeMap, sync::Arc};

use arrow_array::RecordBatch;
use arrow_schema::SchemaRef;
use parquet::file::properties::WriterProperties;

use super::{
    dictionary::{Advice, Sampler},
    leaf::{self, Leaf},
    name,
    properties::writer_properties,
    sort::SortPlan,
    waiting::Waiting,
    writer::OpenFile,
};
use crate::{config::ParquetConfig, error::PipelineError};

/// One dataset.
#[derive(Debug)]
pub(super) struct Dataset {
    /// Its folder below the sink's root.
    pub(super) folder: String,
    /// Open files by directory.
    pub(super) open: BTreeMap<Arc<str>, OpenFile>,
    /// Rows of directories that have no open file.
    pub(super) waiting: Waiting,
    /// How rows of the newest schema are written.
    layout: Option<Layout>,
}

/// How rows of one schema are written.
#[derive(Debug)]
struct Layout {
    /// The schema as rows come.
    schema: SchemaRef,
    /// The schema as files have it.
    file_schema: SchemaRef,
    /// The columns of files.
    leaves: Vec<Leaf>,
    /// Looks at rows until enough is known.
    sampler: Option<Sampler>,
    /// For the next file.
    properties: WriterProperties,
    /// How rows of a file are sorted.
    sort: Option<SortPlan>,
}

impl Dataset {
    /// Nothing is known of it.
    pub(super) fn new(dataset: &str) -> Self {
        Self { folder: name::dataset_folder(dataset), open: BTreeMap::new(), waiting: Waiting::default(), layout: None }
    }

    /// Rows as files have them. Learns from the rows how the next file is best written.
    pub(super) fn prepare(&mut self, config: &ParquetConfig, rows: &RecordBatch) -> Result<RecordBatch, PipelineError> {
        let known = self
            .layout
            .take()
            .filter(|layout| Arc::ptr_eq(&layout.schema, rows.schema_ref()) || layout.schema == *rows.schema_ref());
        let layout = match known {
            Some(layout) => layout,
            None => Layout::new(config, rows.schema_ref())?,
        };
        let layout = self.layout.insert(layout);
        let rows = leaf::to_storable(rows, &layout.file_schema)
            .map_err(|error| PipelineError::stop("cannot bring rows into the types of Parquet").because(error))?;
        if let Some(sampler) = layout.sampler.as_mut().filter(|sampler| !sampler.is_done()) {
            sampler.look(&rows);
        }
        Ok(rows)
    }

    /// How the next file is written; as Parquet does by itself while no rows were seen.
    pub(super) fn properties(&mut self, config: &ParquetConfig) -> Result<WriterProperties, PipelineError> {
        self.layout.as_mut().map_or_else(|| Ok(WriterProperties::default()), |layout| layout.properties(config))
    }

    /// How rows of the next file are sorted.
    pub(super) fn sort(&self) -> Option<SortPlan> {
        self.layout.as_ref().and_then(|layout| layout.sort.clone())
    }
}

impl Layout {
    /// For rows of a schema, of which nothing else is known.
    fn new(config: &ParquetConfig, schema: &SchemaRef) -> Result<Self, PipelineError> {
        let file_schema = leaf::storable(schema)?;
        let leaves = leaf::leaves(&file_schema)?;
        let sort = SortPlan::new(config, &file_schema, &leaves)?;
        let properties = writer_properties(config, &leaves, &[], sort.as_ref())?;
        let sampler = config.dictionary.then(Sampler::new);
        Ok(Self { schema: Arc::clone(schema), file_schema, leaves, sampler, properties, sort })
    }

    /// For the next file, with what is known by now.
    fn properties(&mut self, config: &ParquetConfig) -> Result<WriterProperties, PipelineError> {
        if let Some(sampler) = &self.sampler {
            let advice = sampler.advice();
            self.properties = writer_properties(config, &self.leaves, &advice, self.sort.as_ref())?;
            if sampler.is_done() {
                self.sampler = None;
                let distinct = self.leaves.iter().zip(&advice).filter(|(_, advice)| **advice == Advice::Distinct);
                let distinct: Vec<&str> = distinct.map(|(leaf, _)| leaf.name.as_str()).collect();
                tracing::debug!(?distinct, "columns whose values hardly repeat are written without a dictionary");
            }
        }
        Ok(self.properties.clone())
    }
}

/// Whether files of a schema can be written as configured; asked before there are rows.
pub(super) fn check(config: &ParquetConfig, schema: &SchemaRef) -> Result<(), PipelineError> {
    Layout::new(config, schema).map(drop)
}
