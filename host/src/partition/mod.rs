//! Splits a batch by value, so that every row goes to its own directory, whatever else is in its batch.
//!
//! Comes in: typed rows. Goes out: for each directory (`country=DE/ts_day=2026-11-23`, Hive style) its rows in their
//! order, directories in the order in which they were first seen; and the rows whose value cannot be a directory (a
//! path too long for any store, a time beyond the year 9999), as rejections. It promises that each row is in exactly one
//! of them.
//!
//! Columns that became directories whole are left out of the rows, unless configured otherwise: readers take them
//! from the path. What is only partly told by the path (`day(ts)`) and fields of structs (`device.os`) stay.
//! Null and the empty string share the directory `__HIVE_DEFAULT_PARTITION__`, as in Hive and Spark.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    sync::{Arc, Mutex, PoisonError},
};

use arrow_array::{RecordBatch, UInt32Array};
use arrow_schema::{ArrowError, SchemaRef};
use arrow_select::take::take_record_batch;

use self::{
    group::Groups,
    level::{Keys, Level, Unfit},
};
use crate::{
    batch::{Rejection, Stage},
    config::{PartitionTransform, SinkConfig},
    error::PipelineError,
};

mod group;
mod level;
pub mod path;

/// Directory names remembered from batch to batch. A day of hours in 250 countries is 6,000; each takes about
/// 100 bytes. When there are more, all are forgotten, which costs one allocation each and nothing else.
const DIRECTORIES_MAX: usize = 16_384;

/// Splits batches of one schema.
#[derive(Debug)]
pub struct Partitioner {
    /// Outermost first.
    levels: Vec<Level>,
    /// What comes in.
    schema: SchemaRef,
    /// What goes out.
    file_schema: SchemaRef,
    /// The columns that go out; `None` for all.
    kept: Option<Vec<usize>>,
    /// Names already made, shared with those who keep them.
    directories: Mutex<HashSet<Arc<str>>>,
}

/// A batch, split.
#[derive(Debug, Default)]
pub struct Split {
    /// Each directory once.
    pub directories: Vec<PartitionedRows>,
    /// The rows that have no directory.
    pub rejected: Vec<Rejection>,
}

/// Rows of one directory.
#[derive(Clone, Debug)]
pub struct PartitionedRows {
    /// Below the dataset's folder, without slashes at its ends; empty without partitioning.
    pub directory: Arc<str>,
    /// In the order in which they came.
    pub rows: RecordBatch,
}

/// For each row the number of its directory, or why it has none.
#[derive(Debug)]
struct Plan {
    /// Names by number.
    names: Vec<Arc<str>>,
    /// One a row.
    of_row: Vec<Result<usize, Refusal>>,
}

/// Why a row has no directory: the level, and what is wrong with the value.
type Refusal = (usize, Unfit);

impl Partitioner {
    /// For batches of this schema. A column that is missing, or of a type that cannot be a directory, is an error.
    pub fn new(sink: &SinkConfig, schema: &SchemaRef) -> Result<Self, PipelineError> {
        let levels: Vec<Level> =
            sink.partition_by.iter().map(|column| Level::new(column, schema)).collect::<Result<_, _>>()?;
        let whole: HashSet<usize> = (sink.partition_by.iter().zip(&levels))
            .filter(|(config, _)| !sink.keep_partition_columns && config.transform == PartitionTransform::Identity)
            .filter_map(|(_, level)| if let [column] = level.place.as_slice() { Some(*column) } else { None })
            .collect();
        let kept: Vec<usize> = (0..schema.fields().len()).filter(|column| !whole.contains(column)).collect();
        if kept.is_empty() && !whole.is_empty() {
            return Err(PipelineError::stop(
                "sink.partition_by names every column, so that nothing is left for the files; leave one out, or set \
                 sink.keep_partition_columns: true",
            ));
        }
        let file_schema = if whole.is_empty() { Arc::clone(schema) } else { Arc::new(project(schema, &kept)?) };
        for config in sink.partition_by.iter().filter(|config| config.transform != PartitionTransform::Identity) {
            let name = config.directory_name();
            if file_schema.field_with_name(&name).is_ok() {
                return Err(PipelineError::stop(format!(
                    "sink.partition_by makes directories named `{name}=`, but the rows have a column `{name}` too, \
                     which readers would take for the same; rename the column or partition otherwise"
                )));
            }
        }
        Ok(Self {
            levels,
            schema: Arc::clone(schema),
            file_schema,
            kept: (!whole.is_empty()).then_some(kept),
            directories: Mutex::default(),
        })
    }

    /// The schema of the rows that go out.
    #[must_use]
    pub fn file_schema(&self) -> &SchemaRef {
        &self.file_schema
    }

    /// Splits one batch, which must have the schema given to [`Partitioner::new`].
    pub fn split(&self, rows: &RecordBatch) -> Result<Split, PipelineError> {
        if !Arc::ptr_eq(rows.schema_ref(), &self.schema) && rows.schema_ref() != &self.schema {
            return Err(PipelineError::stop(format!(
                "rows of another schema than they were to be partitioned by: {} instead of {}",
                rows.schema_ref(),
                self.schema
            )));
        }
        if rows.num_rows() == 0 {
            return Ok(Split::default());
        }
        self.try_split(rows).map_err(|error| PipelineError::stop("cannot partition rows by value").because(error))
    }

    /// The same with Arrow's errors, which only a fault in this program can cause.
    fn try_split(&self, rows: &RecordBatch) -> Result<Split, ArrowError> {
        let file_rows = match &self.kept {
            Some(kept) => rows.project(kept)?,
            None => rows.clone(),
        };
        if self.levels.is_empty() {
            let directories = vec![PartitionedRows { directory: Arc::from(""), rows: file_rows }];
            return Ok(Split { directories, rejected: Vec::new() });
        }
        let plan = self.plan(rows)?;
        let directories = match plan.names.as_slice() {
            [name] if plan.of_row.iter().all(Result::is_ok) => {
                vec![PartitionedRows { directory: Arc::clone(name), rows: file_rows }]
            }
            _ => plan.gather(&file_rows)?,
        };
        Ok(Split { directories, rejected: plan.rejections(&self.levels) })
    }

    /// Finds the directory of each row.
    fn plan(&self, rows: &RecordBatch) -> Result<Plan, ArrowError> {
        let keys: Vec<Keys> = self.levels.iter().map(|level| level.keys(rows)).collect::<Result<_, _>>()?;
        let groups = Groups::new(&keys, rows.num_rows())?;
        let mut names = Vec::new();
        // Several groups may share a directory: null and the empty string, the days of one year.
        let mut numbers: HashMap<Arc<str>, usize> = HashMap::new();
        let (mut scratch, mut directory) = (String::new(), String::new());
        let mut of_group = Vec::with_capacity(groups.first_row.len());
        for row in groups.first_row {
            directory.clear();
            of_group.push(self.render(&keys, row, &mut scratch, &mut directory).map(|()| {
                numbers.get(directory.as_str()).copied().unwrap_or_else(|| {
                    let name = self.remembered(&directory);
                    numbers.insert(Arc::clone(&name), names.len());
                    names.push(name);
                    names.len() - 1
                })
            }));
        }
        let of_row = groups.of_row.iter().filter_map(|group| of_group.get(*group).copied()).collect();
        Ok(Plan { names, of_row })
    }

    /// The directory of one row.
    fn render(&self, keys: &[Keys], row: usize, scratch: &mut String, directory: &mut String) -> Result<(), Refusal> {
        for (number, (level, keys)) in self.levels.iter().zip(keys).enumerate() {
            if number > 0 {
                directory.push('/');
            }
            level.write(keys, row, scratch, directory).map_err(|unfit| (number, unfit))?;
            if directory.len() > path::DIRECTORY_BYTES_MAX {
                return Err((number, Unfit::TooLong));
            }
        }
        Ok(())
    }

    /// A name, shared with all who asked for it before.
    fn remembered(&self, directory: &str) -> Arc<str> {
        let mut known = self.directories.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(name) = known.get(directory) {
            return Arc::clone(name);
        }
        if known.len() >= DIRECTORIES_MAX {
            known.clear();
        }
        let name: Arc<str> = Arc::from(directory);
        known.insert(Arc::clone(&name));
        name
    }
}

impl Plan {
    /// Brings the rows of each directory together with one permutation, and cuts that into slices.
    fn gather(&self, rows: &RecordBatch) -> Result<Vec<PartitionedRows>, ArrowError> {
        let mut counts = vec![0_usize; self.names.len()];
        for directory in self.of_row.iter().flatten() {
            if let Some(count) = counts.get_mut(*directory) {
                *count += 1;
            }
        }
        let mut next: Vec<usize> = Vec::with_capacity(counts.len());
        let mut total = 0;
        for count in &counts {
            next.push(total);
            total += count;
        }
        let mut order = vec![0_u32; total];
        for (row, directory) in self.of_row.iter().enumerate() {
            let Ok(directory) = directory else { continue };
            let Some(place) = next.get_mut(*directory) else { continue };
            if let Some(slot) = order.get_mut(*place) {
                *slot = row_number(row);
            }
            *place += 1;
        }
        let in_order = total == rows.num_rows() && order.iter().enumerate().all(|(at, row)| row_number(at) == *row);
        let gathered = if in_order { rows.clone() } else { take_record_batch(rows, &UInt32Array::from(order))? };
        let mut from = 0;
        let slices = self.names.iter().zip(counts).map(|(name, count)| {
            let rows = gathered.slice(from, count);
            from += count;
            PartitionedRows { directory: Arc::clone(name), rows }
        });
        Ok(slices.collect())
    }

    /// The rows without a directory, by what is wrong with them.
    fn rejections(&self, levels: &[Level]) -> Vec<Rejection> {
        let mut rows: BTreeMap<(usize, &'static str), (Unfit, Vec<u32>)> = BTreeMap::new();
        for (row, directory) in self.of_row.iter().enumerate() {
            if let Err((level, unfit)) = directory {
                rows.entry((*level, unfit.code())).or_insert_with(|| (*unfit, Vec::new())).1.push(row_number(row));
            }
        }
        let rejection = |((level, code), (unfit, rows)): ((usize, &str), (Unfit, Vec<u32>))| {
            let column = levels.get(level).map_or("", |level| &level.column);
            let message = match unfit {
                Unfit::TooLong => format!(
                    "the value of the partition column `{column}` makes a path longer than stores allow ({} bytes for \
                     one directory, {} for all)",
                    path::SEGMENT_BYTES_MAX,
                    path::DIRECTORY_BYTES_MAX
                ),
                Unfit::OutOfRange => {
                    format!("the time in the partition column `{column}` is not in the years 0 to 9999")
                }
            };
            Rejection { rows, stage: Stage::Partition, plugin: None, code: code.to_owned(), message }
        };
        rows.into_iter().map(rejection).collect()
    }
}

/// Some columns of a schema.
fn project(schema: &SchemaRef, kept: &[usize]) -> Result<arrow_schema::Schema, PipelineError> {
    schema.project(kept).map_err(|error| PipelineError::stop("cannot leave the partition columns out").because(error))
}

/// A row number as Arrow's kernels take it. Batches have far fewer rows than 32 bits can count.
fn row_number(row: usize) -> u32 {
    u32::try_from(row).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests;
