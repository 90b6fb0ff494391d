//! Write fs-data-sink plugins in Rust: one struct, one trait, Arrow batches. No WIT and no ABI in sight.
//!
//! ```
//! use fs_data_sink_plugin::prelude::*;
//!
//! /// What stands under `config:` in the pipeline's YAML.
//! #[derive(Deserialize)]
//! struct Config {
//!     column: String,
//! }
//!
//! /// Keeps the rows that have a value in a column.
//! struct DropNulls {
//!     column: String,
//! }
//!
//! impl Plugin for DropNulls {
//!     type Config = Config;
//!     const DESCRIPTION: &'static str = "keeps the rows that have a value in a column";
//!
//!     fn open(config: Config, _input: &Schema) -> Result<Self, OpenError> {
//!         Ok(Self { column: config.column })
//!     }
//!
//!     fn process(&mut self, batch: &Batch<'_>) -> Result<Output, ProcessError> {
//!         let column = batch.column(&self.column)?;
//!         Ok(Output::keep((0..column.len()).map(|row| column.is_valid(row))))
//!     }
//! }
//!
//! export_plugin!(DropNulls);
//! # fn main() {}
//! ```
//!
//! The crate of a plugin is a `cdylib` and is built with `cargo build --release --target wasm32-wasip2`. Its tests run
//! natively, over [`testing::Harness`].

use arrow_array::{ArrayRef, BooleanArray, RecordBatch};
use arrow_schema::{Field, Schema};
use serde::de::DeserializeOwned;

mod batch;
#[cfg(target_arch = "wasm32")]
mod guest;
pub mod telemetry;
pub mod testing;

pub use batch::Batch;

/// What a plugin's source usually imports.
pub mod prelude {
    pub use arrow_array::{Array, ArrayRef, BooleanArray, RecordBatch};
    pub use arrow_schema::{DataType, Field, Schema};
    pub use serde::Deserialize;

    pub use crate::{Batch, OpenError, Output, OutputSchema, Plugin, ProcessError, export_plugin};
}

/// What a plugin is. The host makes an instance for each lane; an instance sees one batch at a time.
pub trait Plugin: Sized + 'static {
    /// What stands under `config:` in the pipeline's YAML.
    type Config: DeserializeOwned;

    /// One line for people.
    const DESCRIPTION: &'static str;

    /// A JSON Schema of the configuration, if there is one.
    const CONFIG_SCHEMA: Option<&'static str> = None;

    /// Whether the same input and configuration always give the same output.
    const DETERMINISTIC: bool = true;

    /// Once per instance. Here is the place to refuse a configuration, or rows that lack a column.
    fn open(config: Self::Config, input: &Schema) -> Result<Self, OpenError>;

    /// What comes out; asked once, after `open`. The default suits a filter.
    fn output_schema(&self, input: &Schema) -> OutputSchema {
        let _ = input;
        OutputSchema::Unchanged
    }

    /// One batch.
    fn process(&mut self, batch: &Batch<'_>) -> Result<Output, ProcessError>;

    /// Gives out rows that were held back, before positions are committed. Only for plugins that replace rows.
    fn flush(&mut self) -> Result<Vec<RecordBatch>, ProcessError> {
        Ok(Vec::new())
    }
}

/// What comes out of a plugin.
#[derive(Clone, Debug, PartialEq)]
pub enum OutputSchema {
    /// The input's columns.
    Unchanged,
    /// The input's columns and these; one of the same name takes the place of the input's.
    Extend(Vec<Field>),
    /// Something else.
    Replace(Schema),
}

impl OutputSchema {
    /// The whole schema.
    #[must_use]
    pub fn resolve(&self, input: &Schema) -> Schema {
        match self {
            Self::Unchanged => input.clone(),
            Self::Replace(schema) => schema.clone(),
            Self::Extend(added) => {
                let mut fields: Vec<Field> = input.fields().iter().map(|field| field.as_ref().clone()).collect();
                for field in added {
                    match fields.iter_mut().find(|known| known.name() == field.name()) {
                        Some(known) => *known = field.clone(),
                        None => fields.push(field.clone()),
                    }
                }
                Schema::new(fields)
            }
        }
    }
}

/// Why an instance cannot start; the pipeline does not start either.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The configuration is wrong.
    #[error("{0}")]
    InvalidConfig(String),
    /// The rows cannot be served.
    #[error("{0}")]
    UnsupportedSchema(String),
}

impl OpenError {
    /// The configuration is wrong.
    pub fn invalid_config(message: impl Into<String>) -> Self {
        Self::InvalidConfig(message.into())
    }

    /// The rows cannot be served.
    pub fn unsupported_schema(message: impl Into<String>) -> Self {
        Self::UnsupportedSchema(message.into())
    }

    /// The rows have no such column; names those that they have.
    #[must_use]
    pub fn no_column(name: &str, input: &Schema) -> Self {
        Self::UnsupportedSchema(no_column(name, input))
    }
}

/// Why a batch cannot be processed.
#[derive(Debug, thiserror::Error)]
pub enum ProcessError {
    /// Never: its rows become dead letters.
    #[error("{0}")]
    Failed(String),
    /// Not now: the host asks again.
    #[error("{0}")]
    Retryable(String),
}

impl ProcessError {
    /// This batch can never be processed.
    pub fn failed(message: impl Into<String>) -> Self {
        Self::Failed(message.into())
    }
}

impl From<arrow_schema::ArrowError> for ProcessError {
    fn from(error: arrow_schema::ArrowError) -> Self {
        Self::Failed(error.to_string())
    }
}

/// Rows refused for one reason.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rejection {
    /// Row numbers of the batch.
    pub rows: Vec<u32>,
    /// Stable and of few values, for instance `bad-url`; becomes a metric label.
    pub code: String,
    /// For people.
    pub message: String,
}

/// What a plugin answers to a batch.
#[derive(Clone, Debug, Default)]
pub struct Output {
    /// Which rows live on; `None` is all of them.
    pub(crate) keep: Option<BooleanArray>,
    /// What happens to them.
    pub(crate) payload: Payload,
    /// Rows that are refused; they do not live on, whatever `keep` says.
    pub(crate) rejections: Vec<Rejection>,
}

/// What happens to the rows that live on.
#[derive(Clone, Debug, Default)]
pub(crate) enum Payload {
    /// They go on as they are.
    #[default]
    Unchanged,
    /// With these columns.
    Extend(Vec<(Field, ArrayRef)>),
    /// These rows instead.
    Replace(Vec<RecordBatch>),
}

impl Output {
    /// All rows live on as they are.
    #[must_use]
    pub fn keep_all() -> Self {
        Self::default()
    }

    /// The rows with `true` live on as they are.
    #[must_use]
    pub fn keep(rows: impl IntoIterator<Item = bool>) -> Self {
        let keep: BooleanArray = rows.into_iter().map(Some).collect();
        Self { keep: Some(keep), ..Self::default() }
    }

    /// All rows live on with these columns, one value a row.
    #[must_use]
    pub fn extend(columns: Vec<(Field, ArrayRef)>) -> Self {
        Self { payload: Payload::Extend(columns), ..Self::default() }
    }

    /// These rows take the place of the batch.
    #[must_use]
    pub fn replace(batches: Vec<RecordBatch>) -> Self {
        Self { payload: Payload::Replace(batches), ..Self::default() }
    }

    /// Refuses rows: they become dead letters with this code and message.
    #[must_use]
    pub fn reject(mut self, rows: Vec<u32>, code: impl Into<String>, message: impl Into<String>) -> Self {
        if !rows.is_empty() {
            self.rejections.push(Rejection { rows, code: code.into(), message: message.into() });
        }
        self
    }
}

/// The words for a column that is not there.
pub(crate) fn no_column(name: &str, input: &Schema) -> String {
    let known: Vec<_> = input.fields().iter().map(|field| field.name().as_str()).collect();
    format!("the rows have no column {name:?}; they have: {}", known.join(", "))
}

/// Reads a plugin's configuration, with words that name the key.
pub(crate) fn parse_config<C: DeserializeOwned>(json: &str) -> Result<C, OpenError> {
    serde_json::from_str(json).map_err(|error| OpenError::InvalidConfig(error.to_string()))
}

/// Makes a plugin of a type: once in the crate, at its top level.
#[macro_export]
macro_rules! export_plugin {
    ($plugin:ty) => {
        #[cfg(target_arch = "wasm32")]
        const _: () = {
            ::std::thread_local! {
                static INSTANCE: ::std::cell::RefCell<::std::option::Option<$crate::__private::Instance<$plugin>>> =
                    const { ::std::cell::RefCell::new(::std::option::Option::None) };
            }

            struct Exported;

            impl $crate::__private::Guest for Exported {
                fn describe() -> $crate::__private::Descriptor {
                    $crate::__private::describe::<$plugin>(env!("CARGO_PKG_NAME"), env!("CARGO_PKG_VERSION"))
                }
                fn open(
                    context: $crate::__private::OpenContext,
                ) -> ::std::result::Result<$crate::__private::Opened, $crate::__private::Error> {
                    INSTANCE.with(|instance| $crate::__private::open(&mut instance.borrow_mut(), context))
                }
                fn process(
                    input: &$crate::__private::HostBatch,
                    _info: $crate::__private::BatchInfo,
                ) -> ::std::result::Result<$crate::__private::WitOutput, $crate::__private::Error> {
                    INSTANCE.with(|instance| $crate::__private::process(&mut instance.borrow_mut(), input))
                }
                fn flush(
                    _reason: $crate::__private::FlushReason,
                ) -> ::std::result::Result<$crate::__private::WitPayload, $crate::__private::Error> {
                    INSTANCE.with(|instance| $crate::__private::flush(&mut instance.borrow_mut()))
                }
                fn close() {
                    INSTANCE.with(|instance| *instance.borrow_mut() = ::std::option::Option::None);
                }
            }

    $crate::__private::export!(Exported with_types_in $crate::__private::bindings);
        };
    };
}

/// What [`export_plugin`] needs; not for plugins.
#[doc(hidden)]
#[cfg(target_arch = "wasm32")]
pub mod __private {
    pub use crate::guest::{
        bindings::{
            self, export,
            exports::fs_data_sink::plugin::transform::{
                Batch as HostBatch, BatchInfo, Descriptor, Error, FlushReason, Guest, OpenContext, Opened,
                Output as WitOutput, Payload as WitPayload,
            },
        },
        {Instance, describe, flush, open, process},
    };
}
