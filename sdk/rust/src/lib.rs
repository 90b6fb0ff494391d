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
//!
//! What a plugin may rely on: one instance sees one batch at a time, in the order of its lane. A panic, or a call that
//! takes too long or too much memory, ends the instance; the host starts a fresh one and gives it the batch again.
//! There are no files, no network and no environment; [`log`] and [`metrics`] are the way to be heard.

use arrow_array::RecordBatch;
use arrow_schema::Schema;
use serde::de::DeserializeOwned;

mod batch;
mod error;
#[cfg(target_arch = "wasm32")]
mod guest;
pub mod log;
pub mod metrics;
mod output;
#[cfg(not(target_arch = "wasm32"))]
pub mod testing;
mod wire;

pub use batch::Batch;
pub use error::{OpenError, ProcessError};
pub use output::{Output, OutputSchema, Rejection};

/// What a plugin's source usually imports.
pub mod prelude {
    pub use arrow_array::{Array, ArrayRef, BooleanArray, RecordBatch};
    pub use arrow_schema::{DataType, Field, Schema};
    pub use serde::Deserialize;

    pub use crate::{Batch, OpenError, Output, OutputSchema, Plugin, ProcessError, Role, export_plugin, log, metrics};
}

/// What a plugin is. The host makes an instance for each lane; an instance sees one batch at a time.
pub trait Plugin: Sized + 'static {
    /// What stands under `config:` in the pipeline's YAML. With `#[serde(deny_unknown_fields)]` a misspelt key is
    /// refused by name.
    type Config: DeserializeOwned;

    /// One line for people.
    const DESCRIPTION: &'static str;

    /// What it is for; a hint for people and tools.
    const ROLES: &'static [Role] = &[];

    /// A JSON Schema of the configuration, if there is one.
    const CONFIG_SCHEMA: Option<&'static str> = None;

    /// Whether the same input and configuration always give the same output.
    const DETERMINISTIC: bool = true;

    /// Whether rows are held back between calls and given out by [`Plugin::flush`]. The host has to know: if such an
    /// instance is lost, everything since the last commit is read again.
    const BUFFERS_ROWS: bool = false;

    /// Once per instance. Here is the place to refuse a configuration, or rows that lack a column.
    fn open(config: Self::Config, input: &Schema) -> Result<Self, OpenError>;

    /// What comes out; asked once, after `open`. The default suits a filter.
    fn output_schema(&self, input: &Schema) -> OutputSchema {
        let _ = input;
        OutputSchema::Unchanged
    }

    /// One batch.
    fn process(&mut self, batch: &Batch<'_>) -> Result<Output, ProcessError>;

    /// Gives out rows that were held back, before positions are committed. Only with [`Plugin::BUFFERS_ROWS`].
    fn flush(&mut self) -> Result<Vec<RecordBatch>, ProcessError> {
        Ok(Vec::new())
    }
}

/// What a plugin is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Turns records of a source into typed rows.
    Decode,
    /// Leaves rows out.
    Filter,
    /// Adds or rewrites columns.
    Enrich,
}

/// Makes a plugin of a type: once in the crate, at its top level. Natively, for tests, it does nothing.
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
