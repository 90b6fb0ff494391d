//! A plugin that tries what its config says on everything that can be granted, for the tests of the host.
//!
//! It uses the bindings directly, and WASI without the standard library, so that it is the same however it was built. The config
//! is `{"do": [{"http": {...}}, {"keyvalue": {...}}, {"file": {...}}, {"look": "environment"}]}`. What each try came to is told
//! in one text, a line each, as the reason why the batch is refused.
//!
//! With the variable `DETERMINISTIC` in its environment it says that it is.

mod file;
mod keyvalue;
mod look;
mod http;

/// What wit-bindgen generates from `wit/`.
mod bindings {
    #![expect(unsafe_code, clippy::pedantic, reason = "generated code")]

    wit_bindgen::generate!({
        path: "../../wit",
        inline: "
            package fs-data-sink:tests;
            world hostile-lookup {
                include fs-data-sink:plugin/lookup-plugin@0.1.0;
                import wasi:cli/environment@0.2.12;
                import wasi:clocks/monotonic-clock@0.2.12;
                import wasi:clocks/wall-clock@0.2.12;
                import wasi:filesystem/preopens@0.2.12;
                import wasi:filesystem/types@0.2.12;
                import wasi:random/insecure-seed@0.2.12;
                import wasi:random/random@0.2.12;
            }
        ",
        world: "fs-data-sink:tests/hostile-lookup",
        generate_all,
    });

    export!(HostileLookup with_types_in self);

    use super::HostileLookup;
}

use std::sync::{Mutex, PoisonError};

use bindings::{
    exports::fs_data_sink::plugin::transform::{
        Batch, BatchInfo, Descriptor, Error, FlushReason, Guest, OpenContext, Opened, Output, Payload,
    },
    fs_data_sink::plugin::types::Roles,
};
use serde_json::Value;

/// The plugin.
#[derive(Debug)]
struct HostileLookup;

/// The config that `open` was given.
static CONFIG: Mutex<Value> = Mutex::new(Value::Null);

/// Text at a key, or nothing.
fn text<'a>(value: &'a Value, key: &str) -> &'a str {
    value.get(key).and_then(Value::as_str).unwrap_or_default()
}

/// A number at a key, or 0.
fn number(value: &Value, key: &str) -> u64 {
    value.get(key).and_then(Value::as_u64).unwrap_or_default()
}

/// Tries one thing and tells what it came to.
fn try_one(step: &Value) -> String {
    if let Some(step) = step.get("http") {
        http::attempt(step)
    } else if let Some(step) = step.get("keyvalue") {
        keyvalue::attempt(step)
    } else if let Some(step) = step.get("file") {
        file::attempt(step)
    } else {
        look::at(text(step, "look"))
    }
}

impl Guest for HostileLookup {
    fn describe() -> Descriptor {
        Descriptor {
            name: "hostile-lookup".to_owned(),
            version: "0.1.0".to_owned(),
            description: "Tries what its config says on everything outside.".to_owned(),
            roles: Roles::ENRICH,
            config_schema: None,
            buffers_rows: false,
            deterministic: look::is_told_to_be_deterministic(),
            attributes: Vec::new(),
        }
    }

    fn open(context: OpenContext) -> Result<Opened, Error> {
        let config: Value = serde_json::from_str(&context.config)
            .map_err(|error| Error::InvalidConfig(format!("not JSON: {error}")))?;
        *CONFIG.lock().unwrap_or_else(PoisonError::into_inner) = config;
        Ok(Opened { output_schema: None, attributes: Vec::new() })
    }

    fn process(_: &Batch, _: BatchInfo) -> Result<Output, Error> {
        let config = CONFIG.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let steps = config.get("do").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
        Err(Error::Failed(steps.iter().map(try_one).collect::<Vec<_>>().join("\n")))
    }

    fn flush(_: FlushReason) -> Result<Payload, Error> {
        Ok(Payload::Unchanged)
    }

    fn close() {}
}
