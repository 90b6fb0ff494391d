//! The way from the component's exports to the trait. Compiled for WebAssembly only.

use arrow_array::RecordBatch;
use arrow_schema::SchemaRef;

use crate::{
    Batch, OpenError, Output, OutputSchema, Plugin, ProcessError, Role, StatefulPlugin,
    error::parse_config,
    output::{Payload, check_may_hold, living_columns},
    wire,
};
use bindings::{
    exports::fs_data_sink::plugin::transform as wit,
    fs_data_sink::plugin::{batches, types},
};

/// The generated bindings of the world `lookup-plugin`. What a plugin does not call is no import of its component.
#[expect(missing_docs, clippy::pedantic, reason = "generated code")]
pub mod bindings {
    wit_bindgen::generate!({
        path: "../../wit",
        world: "fs-data-sink:plugin/lookup-plugin",
        pub_export_macro: true,
        generate_all,
    });
}

/// The generated bindings of the export `state`, on top of those of the world `plugin`.
#[expect(missing_docs, clippy::pedantic, reason = "generated code")]
pub mod stateful {
    wit_bindgen::generate!({
        path: "../../wit",
        inline: "package fs-data-sink:guest; world stateful { export fs-data-sink:plugin/state@0.1.0; }",
        world: "fs-data-sink:guest/stateful",
        pub_export_macro: true,
        with: { "fs-data-sink:plugin/types@0.1.0": crate::guest::bindings::fs_data_sink::plugin::types },
    });
}

/// A plugin that was opened, with what it is given.
#[derive(Debug)]
pub struct Instance<P> {
    /// The plugin.
    plugin: P,
    /// What it is given.
    input: SchemaRef,
}

/// What the host asks first.
#[must_use]
pub fn describe<P: Plugin>(name: &str, version: &str) -> wit::Descriptor {
    make_panics_heard();
    let roles = P::ROLES.iter().map(|role| match role {
        Role::Decode => types::Roles::DECODE,
        Role::Filter => types::Roles::FILTER,
        Role::Enrich => types::Roles::ENRICH,
    });
    wit::Descriptor {
        name: name.to_owned(),
        version: version.to_owned(),
        description: P::DESCRIPTION.to_owned(),
        roles: roles.fold(types::Roles::empty(), |all, role| all | role),
        config_schema: P::CONFIG_SCHEMA.map(str::to_owned),
        buffers_rows: P::BUFFERS_ROWS,
        deterministic: P::DETERMINISTIC,
        attributes: vec![("sdk".to_owned(), concat!("rust/", env!("CARGO_PKG_VERSION")).to_owned())],
    }
}

/// Opens the plugin of this instance.
pub fn open<P: Plugin>(
    instance: &mut Option<Instance<P>>,
    context: wit::OpenContext,
) -> Result<wit::Opened, wit::Error> {
    make_panics_heard();
    let input = wire::decode_schema(context.input_schema)
        .map_err(|error| wit::Error::UnsupportedSchema(format!("the input schema cannot be read: {error}")))?;
    let opened = parse_config(&context.config).and_then(|config| P::open(config, &input));
    let plugin = opened.map_err(|error| match error {
        OpenError::InvalidConfig(message) => wit::Error::InvalidConfig(message),
        OpenError::UnsupportedSchema(message) => wit::Error::UnsupportedSchema(message),
    })?;
    let output_schema = match plugin.output_schema(&input) {
        OutputSchema::Unchanged => None,
        other => Some(
            wire::encode_schema(&other.resolve(&input))
                .map_err(|error| wit::Error::UnsupportedSchema(error.to_string()))?,
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
    let read = |columns: &[u32]| read_columns(input, columns);
    let rows = input.num_rows() as usize;
    let output = plugin.process(&Batch::new(SchemaRef::clone(schema), rows, &read));
    output.and_then(|output| answer(output, rows)).map_err(process_error)
}

/// What was held back.
pub fn flush<P: Plugin>(
    instance: &mut Option<Instance<P>>,
    reason: wit::FlushReason,
) -> Result<wit::Payload, wit::Error> {
    let Some(Instance { plugin, .. }) = instance else { return Ok(wit::Payload::Unchanged) };
    let flushed = match reason {
        wit::FlushReason::EndOfInput => plugin.finish(),
        wit::FlushReason::Checkpoint | wit::FlushReason::Timer => plugin.flush(),
    };
    let flushed = flushed.and_then(|batches| {
        check_may_hold::<P>(&batches)?;
        if batches.is_empty() { Ok(wit::Payload::Unchanged) } else { replace(&batches) }
    });
    flushed.map_err(process_error)
}

/// What to go on from.
pub fn snapshot<P: StatefulPlugin>(instance: &mut Option<Instance<P>>) -> Result<Vec<u8>, wit::Error> {
    match instance {
        Some(Instance { plugin, .. }) => plugin.snapshot().map_err(process_error),
        None => Err(wit::Error::Failed("snapshot was called before open".to_owned())),
    }
}

/// Goes on from there.
pub fn restore<P: StatefulPlugin>(instance: &mut Option<Instance<P>>, snapshot: &[u8]) -> Result<(), wit::Error> {
    match instance {
        Some(Instance { plugin, .. }) => plugin.restore(snapshot).map_err(process_error),
        None => Err(wit::Error::Failed("restore was called before open".to_owned())),
    }
}

/// An answer in the form of the interface.
fn answer(output: Output, rows: usize) -> Result<wit::Output, ProcessError> {
    let lives = output.living_rows(rows)?;
    let Output { keep, payload, rejections } = output;
    let payload = match payload {
        Payload::Unchanged => wit::Payload::Unchanged,
        Payload::Extend(columns) => wit::Payload::Extend(wire::encode_batch(&living_columns(&columns, &lives)?)?),
        Payload::Replace(batches) => replace(&batches)?,
    };
    let keep = match keep {
        None => types::Selection::All,
        Some(keep) if keep.true_count() == rows => types::Selection::All,
        Some(keep) if keep.true_count() == 0 => types::Selection::None,
        Some(keep) => types::Selection::Bitmap(wire::encode_bitmap(&keep)),
    };
    let rejected = rejections
        .into_iter()
        .map(|rejection| types::Rejection { code: rejection.code, message: rejection.message, rows: rejection.rows })
        .collect();
    Ok(wit::Output { keep, payload, rejected })
}

/// Rows that take the place of others.
fn replace(batches: &[RecordBatch]) -> Result<wit::Payload, ProcessError> {
    Ok(wit::Payload::Replace(batches.iter().map(wire::encode_batch).collect::<Result<Vec<_>, _>>()?))
}

/// Columns from the host.
fn read_columns(input: &wit::Batch, columns: &[u32]) -> Result<RecordBatch, ProcessError> {
    let bytes = input.read(Some(columns)).map_err(|error| match error {
        batches::ReadError::NoSuchColumn(column) => ProcessError::Failed(format!("the host has no column {column}")),
        batches::ReadError::NoRawForm(column) => ProcessError::Failed(format!("column {column} has no raw form")),
    })?;
    Ok(wire::decode_batch(bytes)?)
}

/// An error in the form of the interface.
fn process_error(error: ProcessError) -> wit::Error {
    match error {
        ProcessError::Failed(message) => wit::Error::Failed(message),
        ProcessError::Retryable(message, pause) => {
            let pause_ms = pause.map(|pause| u32::try_from(pause.as_millis()).unwrap_or(u32::MAX));
            wit::Error::Retryable((message, pause_ms))
        }
    }
}

/// The words of a panic reach the host before the trap. With WASI the standard library prints them on standard error;
/// without it there is only the log.
fn make_panics_heard() {
    #[cfg(target_os = "unknown")]
    std::panic::set_hook(Box::new(|panic| {
        use bindings::wasi::logging::logging;
        logging::log(logging::Level::Critical, "panic", &panic.to_string());
    }));
}
