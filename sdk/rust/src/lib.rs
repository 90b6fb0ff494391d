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
//! A plugin that counts or joins over many batches keeps its state through all that: see [`StatefulPlugin`].
//! [`log`] and [`metrics`] are the way to be heard. There are no files, no network and no environment but what the pipeline's
//! YAML grants: [`keyvalue`] looks things up, [`http`] asks servers, [`config`] has values that are no part of the plugin's own
//! configuration, such as keys of an API.

use arrow_array::RecordBatch;
use arrow_schema::Schema;
use serde::de::DeserializeOwned;

mod batch;
pub mod config;
mod error;
#[cfg(target_arch = "wasm32")]
mod guest;
pub mod http;
pub mod keyvalue;
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

    pub use crate::{
        Batch, OpenError, Output, OutputSchema, Plugin, ProcessError, Role, StatefulPlugin, export_plugin,
        export_stateful_plugin, log, metrics,
    };
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

    /// Whether the same input and configuration always give the same output. The host sees to it: clocks then stand at 1970, and
    /// random numbers are the same in every instance.
    const DETERMINISTIC: bool = false;

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

    /// Gives out rows that were held back, before positions are committed. Only with [`Plugin::BUFFERS_ROWS`]. A plugin without
    /// state gives out all of them: what it still holds afterwards is lost when the process ends.
    fn flush(&mut self) -> Result<Vec<RecordBatch>, ProcessError> {
        Ok(Vec::new())
    }

    /// The same when no more input will come: files were read, or the topics to the end that they had. The default is
    /// [`Plugin::flush`]; a plugin with state gives out here what it would rather have kept.
    fn finish(&mut self) -> Result<Vec<RecordBatch>, ProcessError> {
        self.flush()
    }
}

/// A plugin whose state is recorded with the source's positions, in one record: after a crash, or when a partition goes to another
/// process, it goes on with exactly what it had made of the records that are committed. Exported by [`export_stateful_plugin!`].
///
/// What it may rely on, and what it owes:
///
/// * The host gives each source partition an instance of its own, since state goes where the partition goes. So sums over all
///   partitions are not in any one instance: give out rows that can be added up.
/// * [`Plugin::flush`] comes before each commit, [`StatefulPlugin::snapshot`] right after it. What both say must be everything:
///   what was given out is in files, and what the snapshot leaves out is gone after the next restart.
/// * [`StatefulPlugin::restore`] comes right after `open`, in a fresh instance. It may be given what an older version of the plugin
///   wrote: begin a snapshot with a version, and answer an error for one that it does not know. Then the pipeline stops.
/// * A call that answers an error must leave the state as it was before the call: the host refuses the batch, and goes on.
/// * After a panic, or a call that took too long, everything since the last commit is read again, in an instance that is
///   restored from there. So do not count on clocks or random numbers for what goes into rows.
pub trait StatefulPlugin: Plugin {
    /// What to go on from; at most `limits.state_bytes` of the pipeline's YAML.
    fn snapshot(&mut self) -> Result<Vec<u8>, ProcessError>;

    /// Goes on from what an earlier instance said.
    fn restore(&mut self, snapshot: &[u8]) -> Result<(), ProcessError>;
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
    (@items $plugin:ty) => {
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
                reason: $crate::__private::FlushReason,
            ) -> ::std::result::Result<$crate::__private::WitPayload, $crate::__private::Error> {
                INSTANCE.with(|instance| $crate::__private::flush(&mut instance.borrow_mut(), reason))
            }
            fn close() {
                INSTANCE.with(|instance| *instance.borrow_mut() = ::std::option::Option::None);
            }
        }

        $crate::__private::export!(Exported with_types_in $crate::__private::bindings);
    };
    ($plugin:ty) => {
        #[cfg(target_arch = "wasm32")]
        const _: () = {
            $crate::export_plugin! { @items $plugin }
        };
    };
}

/// The same of a [`StatefulPlugin`].
#[macro_export]
macro_rules! export_stateful_plugin {
    ($plugin:ty) => {
        #[cfg(target_arch = "wasm32")]
        const _: () = {
            $crate::export_plugin! { @items $plugin }

            impl $crate::__private::StateGuest for Exported {
                fn snapshot() -> ::std::result::Result<::std::vec::Vec<u8>, $crate::__private::Error> {
                    INSTANCE.with(|instance| $crate::__private::snapshot(&mut instance.borrow_mut()))
                }
                fn restore(snapshot: ::std::vec::Vec<u8>) -> ::std::result::Result<(), $crate::__private::Error> {
                    INSTANCE.with(|instance| $crate::__private::restore(&mut instance.borrow_mut(), &snapshot))
                }
            }

    $crate::__private::export_state!(Exported with_types_in $crate::__private::stateful);
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
        stateful::{self, export as export_state, exports::fs_data_sink::plugin::state::Guest as StateGuest},
        {Instance, describe, flush, open, process, restore, snapshot},
    };
}
