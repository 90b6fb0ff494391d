//! A plugin with state that misbehaves in the way its config names, for the tests of the host.
//!
//! Healthy, it adds a column `seen`: the number of rows that it has seen before each, over restarts. Its state is that number as
//! eight bytes. The config is `{"crime": "<name>", "bytes": <number>, "at": <number>}`.

use std::{hint::black_box, sync::Arc};

use arrow_array::Int64Array;
use fs_data_sink_plugin::prelude::*;

/// What stands under `config:`.
#[derive(Debug, Deserialize)]
pub struct Config {
    /// What it does wrong.
    #[serde(default)]
    crime: String,
    /// Size of a huge snapshot.
    #[serde(default)]
    bytes: usize,
    /// The row at which it traps.
    #[serde(default)]
    at: i64,
}

/// The plugin.
#[derive(Debug)]
pub struct HostileState {
    /// How it was configured.
    config: Config,
    /// Rows that it has seen.
    seen: i64,
    /// The same of this instance alone.
    here: i64,
}

impl Plugin for HostileState {
    type Config = Config;
    const DESCRIPTION: &'static str = "misbehaves with its state in the way its config names";

    fn open(config: Config, _: &Schema) -> Result<Self, OpenError> {
        Ok(Self { config, seen: 0, here: 0 })
    }

    fn output_schema(&self, _: &Schema) -> OutputSchema {
        OutputSchema::Extend(vec![seen_field()])
    }

    fn process(&mut self, batch: &Batch<'_>) -> Result<Output, ProcessError> {
        let rows = i64::try_from(batch.num_rows()).unwrap_or(i64::MAX);
        let seen: ArrayRef = Arc::new(Int64Array::from_iter_values(self.seen..self.seen + rows));
        self.seen += rows;
        self.here += rows;
        match self.config.crime.as_str() {
            "trap-at-row" if self.seen > self.config.at => trap(),
            "trap-after-rows" if self.here > self.config.at => trap(),
            _ => Ok(Output::extend(vec![(seen_field(), seen)])),
        }
    }
}

impl StatefulPlugin for HostileState {
    fn snapshot(&mut self) -> Result<Vec<u8>, ProcessError> {
        match self.config.crime.as_str() {
            "loop-in-snapshot" => spin(),
            "trap-in-snapshot" => trap(),
            "huge-snapshot" => return Ok(vec![1; self.config.bytes]),
            "failed-snapshot" => return Err(ProcessError::failed("I forgot")),
            // Another one each time, though nothing has happened.
            "changing-snapshot" => self.seen += 1,
            _ => {}
        }
        Ok(self.seen.to_le_bytes().to_vec())
    }

    fn restore(&mut self, snapshot: &[u8]) -> Result<(), ProcessError> {
        match self.config.crime.as_str() {
            "loop-in-restore" => spin(),
            "trap-in-restore" => trap(),
            _ => {}
        }
        let bytes = snapshot.try_into().map_err(|_| ProcessError::failed("a state has eight bytes"))?;
        self.seen = i64::from_le_bytes(bytes);
        Ok(())
    }
}

/// The added column.
fn seen_field() -> Field {
    Field::new("seen", DataType::Int64, false)
}

/// Never returns.
fn spin() -> ! {
    let mut turns = 0_u64;
    loop {
        turns = black_box(turns.wrapping_add(1));
    }
}

/// `unreachable`.
fn trap() -> ! {
    std::process::abort()
}

export_stateful_plugin!(HostileState);
