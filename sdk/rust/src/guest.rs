//! The way from the component's exports to the trait. Compiled for WebAssembly only.

use std::{io::Cursor, sync::Arc};

use arrow_array::{ArrayRef, BooleanArray, RecordBatch, RecordBatchOptions};
use arrow_ipc::{reader::StreamReader, writer::StreamWriter};
use arrow_schema::{ArrowError, Field, Schema};

use crate::{Batch, OpenError, Output, OutputSchema, Payload, Plugin, ProcessError, parse_config, testing::kept_rows};
use bindings::{
    exports::fs_data_sink::plugin::transform as wit,
    fs_data_sink::plugin::{batches, types},
};

/// The generated bindings of the world `plugin`.
#[allow(
    missing_docs,
    unsafe_code,
    unreachable_pub,
    missing_debug_implementations,
    clippy::all,
    clippy::pedantic,
    reason = "generated code"
)]
pub mod bindings {
    wit_bindgen::generate!({
        path: "../../wit",
        world: "fs-data-sink:plugin/plugin",
        pub_export_macro: true,
        generate_all,
    });
}

/// A plugin that was opened, with what it is given.
#[derive(Debug)]
pub struct Instance<P> {
    /// The plugin.
    plugin: P,
    /// What it is given.
    input: Schema,
}

/// What the host asks first.
pub fn describe<P: Plugin>(name: &str, version: &str) -> wit::Descriptor {
    wit::Descriptor {
        name: name.to_owned(),
        version: version.to_owned(),
        description: P::DESCRIPTION.to_owned(),
        roles: types::Roles::empty(),
        config_schema: P::CONFIG_SCHEMA.map(str::to_owned),
        buffers_rows: false,
        deterministic: P::DETERMINISTIC,
        attributes: vec![("sdk".to_owned(), concat!("rust/", env!("CARGO_PKG_VERSION")).to_owned())],
    }
}

/// Opens the plugin of this instance.
pub fn open<P: Plugin>(
    instance: &mut Option<Instance<P>>,
    context: wit::OpenContext,
) -> Result<wit::Opened, wit::Error> {
    std::panic::set_hook(Box::new(|panic| crate::telemetry::log(crate::telemetry::Level::Error, &panic.to_string())));
    let input = read_schema(&context.input_schema)
        .map_err(|error| wit::Error::UnsupportedSchema(format!("the input schema cannot be read: {error}")))?;
    let opened = parse_config(&context.config).and_then(|config| P::open(config, &input));
    let plugin = opened.map_err(|error| match error {
        OpenError::InvalidConfig(message) => wit::Error::InvalidConfig(message),
        OpenError::UnsupportedSchema(message) => wit::Error::UnsupportedSchema(message),
    })?;
    let output_schema = match plugin.output_schema(&input) {
        OutputSchema::Unchanged => None,
        other => Some(
            write_schema(&other.resolve(&input)).map_err(|error| wit::Error::UnsupportedSchema(error.to_string()))?,
        ),
    };
    *instance = Some(Instance { plugin, input });
    Ok(wit::Opened { output_schema, attributes: Vec::new() })
}

/// One batch.
pub fn process<P: Plugin>(instance: &mut Option<Instance<P>>, input: &wit::Batch) -> Result<wit::Output, wit::Error> {
    let Some(Instance { plugin, input: schema }) = instance else {
        return Err(wit::Error::Failed("process was called before open".to_owned()));
    };
    let read = |columns: Option<&[u32]>| read_columns(input, columns);
    let rows = input.num_rows() as usize;
    let output = plugin.process(&Batch::new(schema, rows, &read)).map_err(process_error)?;
    answer(output, rows).map_err(|error| wit::Error::Failed(error.to_string()))
}

/// What was held back.
pub fn flush<P: Plugin>(instance: &mut Option<Instance<P>>) -> Result<wit::Payload, wit::Error> {
    let Some(Instance { plugin, .. }) = instance else { return Ok(wit::Payload::Unchanged) };
    let batches = plugin.flush().map_err(process_error)?;
    if batches.is_empty() {
        return Ok(wit::Payload::Unchanged);
    }
    let streams = batches.iter().map(write_batch).collect::<Result<Vec<_>, _>>();
    streams.map(wit::Payload::Replace).map_err(|error| wit::Error::Failed(error.to_string()))
}

/// An answer in the form of the interface.
fn answer(output: Output, rows: usize) -> Result<wit::Output, ArrowError> {
    let Output { keep, payload, rejections } = output;
    let payload = match payload {
        Payload::Unchanged => wit::Payload::Unchanged,
        Payload::Replace(batches) => {
            wit::Payload::Replace(batches.iter().map(write_batch).collect::<Result<Vec<_>, _>>()?)
        }
        Payload::Extend(columns) => {
            // The interface wants one row for each that lives on.
            let kept = kept_rows(rows, keep.as_ref(), &rejections)?;
            let (fields, arrays): (Vec<Field>, Vec<ArrayRef>) = columns.into_iter().unzip();
            let arrays = arrays
                .into_iter()
                .map(|array| {
                    if array.len() == kept.len() && kept.len() != rows || kept.len() == rows {
                        Ok(array)
                    } else {
                        arrow_select::take::take(&array, &kept, None)
                    }
                })
                .collect::<Result<Vec<_>, _>>()?;
            let options = RecordBatchOptions::new().with_row_count(Some(kept.len()));
            wit::Payload::Extend(write_batch(&RecordBatch::try_new_with_options(
                Arc::new(Schema::new(fields)),
                arrays,
                &options,
            )?)?)
        }
    };
    let keep = match keep {
        None => types::Selection::All,
        Some(keep) if keep.true_count() == keep.len() => types::Selection::All,
        Some(keep) if keep.true_count() == 0 => types::Selection::None,
        Some(keep) => types::Selection::Bitmap(bitmap(&keep)),
    };
    let rejected = rejections
        .into_iter()
        .map(|rejection| types::Rejection { code: rejection.code, message: rejection.message, rows: rejection.rows })
        .collect();
    Ok(wit::Output { keep, payload, rejected })
}

/// One bit a row, least significant bit first; null counts as false.
fn bitmap(keep: &BooleanArray) -> Vec<u8> {
    let mut bytes = vec![0u8; keep.len().div_ceil(8)];
    for (row, value) in keep.iter().enumerate() {
        if value == Some(true) {
            bytes[row / 8] |= 1 << (row % 8);
        }
    }
    bytes
}

/// Columns from the host.
fn read_columns(input: &wit::Batch, columns: Option<&[u32]>) -> Result<RecordBatch, ProcessError> {
    let bytes = input.read(columns).map_err(|error| match error {
        batches::ReadError::NoSuchColumn(column) => ProcessError::Failed(format!("the host has no column {column}")),
        batches::ReadError::NoRawForm(column) => ProcessError::Failed(format!("column {column} has no raw form")),
    })?;
    let mut reader = StreamReader::try_new(Cursor::new(bytes), None)?;
    match reader.next() {
        Some(batch) => Ok(batch?),
        None => Ok(RecordBatch::new_empty(reader.schema())),
    }
}

/// The schema in a stream that holds nothing else.
fn read_schema(bytes: &[u8]) -> Result<Schema, ArrowError> {
    Ok(StreamReader::try_new(Cursor::new(bytes), None)?.schema().as_ref().clone())
}

/// A stream that holds only a schema.
fn write_schema(schema: &Schema) -> Result<Vec<u8>, ArrowError> {
    let mut bytes = Vec::new();
    StreamWriter::try_new(&mut bytes, schema)?.finish()?;
    Ok(bytes)
}

/// A stream of one batch.
fn write_batch(batch: &RecordBatch) -> Result<Vec<u8>, ArrowError> {
    let mut bytes = Vec::with_capacity(batch.get_array_memory_size() + 1024);
    let mut writer = StreamWriter::try_new(&mut bytes, batch.schema_ref())?;
    writer.write(batch)?;
    writer.finish()?;
    drop(writer);
    Ok(bytes)
}

/// An error in the form of the interface.
fn process_error(error: ProcessError) -> wit::Error {
    match error {
        ProcessError::Failed(message) => wit::Error::Failed(message),
        ProcessError::Retryable(message) => wit::Error::Retryable((message, None)),
    }
}
