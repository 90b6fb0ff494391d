//! What wasmtime generates from `wit/`: Rust types for the records and variants, and traits for the imports.
//!
//! Nothing is written by hand here.

wasmtime::component::bindgen!({
    path: "../wit",
    world: "plugin",
    imports: { default: trappable },
    exports: { default: async },
    with: { "fs-data-sink:plugin/batches.batch": crate::plugin::batches::BatchResource },
});

pub(super) use self::fs_data_sink::plugin::{batches, metrics, types};
pub(super) use wasi::{config::store as config_store, logging::logging};

/// The export `state`, which not every plugin has.
pub(super) mod stateful {
    wasmtime::component::bindgen!({
        path: "../wit",
        inline: "package fs-data-sink:host; world stateful { export fs-data-sink:plugin/state@0.1.0; }",
        world: "fs-data-sink:host/stateful",
        exports: { default: async },
        with: { "fs-data-sink:plugin/types": crate::plugin::bindings::fs_data_sink::plugin::types },
    });
}
