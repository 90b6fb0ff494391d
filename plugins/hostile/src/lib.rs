//! A plugin that misbehaves in the way its config names, for the tests of the host.
//!
//! It uses the bindings directly, without the SDK, so that nothing stands between the crime and the host. The config is
//! `{"crime": "<name>", ...}`; [`crimes`] has the names. The crime `answer` answers what the config says, byte for
//! byte, so that a test can make any healthy or broken answer without a crime of its own.

mod answer;
mod crimes;

/// What wit-bindgen generates from `wit/`.
mod bindings {
    #![expect(unsafe_code, clippy::pedantic, reason = "generated code")]

    wit_bindgen::generate!({ path: "../../wit", world: "plugin", generate_all });

    export!(Hostile with_types_in self);

    use super::Hostile;
}

use std::sync::{Mutex, PoisonError};

use bindings::{
    exports::fs_data_sink::plugin::transform::{
        Batch, BatchInfo, Descriptor, Error, FlushReason, Guest, OpenContext, Opened, Output, Payload,
    },
    fs_data_sink::plugin::types::{Roles, Selection},
};
use serde_json::Value;

/// The plugin.
#[derive(Debug)]
struct Hostile;

/// The config that `open` was given.
static CONFIG: Mutex<Value> = Mutex::new(Value::Null);

/// A copy of the config.
fn config() -> Value {
    CONFIG.lock().unwrap_or_else(PoisonError::into_inner).clone()
}

/// An answer that keeps all rows as they are.
fn keep_all() -> Output {
    Output { keep: Selection::All, payload: Payload::Unchanged, rejected: Vec::new() }
}

impl Guest for Hostile {
    fn describe() -> Descriptor {
        Descriptor {
            name: "hostile".to_owned(),
            version: "0.1.0".to_owned(),
            description: "Misbehaves in the way its config names.".to_owned(),
            roles: Roles::FILTER | Roles::ENRICH | Roles::DECODE,
            config_schema: None,
            buffers_rows: false,
            deterministic: false,
            attributes: Vec::new(),
        }
    }

    fn open(context: OpenContext) -> Result<Opened, Error> {
        let config: Value = serde_json::from_str(&context.config)
            .map_err(|error| Error::InvalidConfig(format!("not JSON: {error}")))?;
        *CONFIG.lock().unwrap_or_else(PoisonError::into_inner) = config.clone();
        crimes::in_open(&config)?;
        Ok(Opened { output_schema: answer::bytes(&config, "output_schema"), attributes: Vec::new() })
    }

    fn process(input: &Batch, info: BatchInfo) -> Result<Output, Error> {
        crimes::in_process(&config(), input, &info)
    }

    fn flush(_: FlushReason) -> Result<Payload, Error> {
        crimes::in_flush(&config())
    }

    fn close() {
        crimes::in_close(&config());
    }
}
