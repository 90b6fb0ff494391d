//! Runs a plugin natively, for its unit tests: the same calls as in the host and the same rules, without WebAssembly.
//!
//! ```
//! # use std::sync::Arc;
//! # use fs_data_sink_plugin::prelude::*;
//! # use arrow_array::Int32Array;
//! # struct KeepAll;
//! # impl Plugin for KeepAll {
//! #     type Config = ();
//! #     const DESCRIPTION: &'static str = "";
//! #     fn open(_: (), _: &Schema) -> Result<Self, OpenError> { Ok(Self) }
//! #     fn process(&mut self, _: &Batch<'_>) -> Result<Output, ProcessError> { Ok(Output::keep_all()) }
//! # }
//! use fs_data_sink_plugin::testing::Harness;
//!
//! let numbers: ArrayRef = Arc::new(Int32Array::from(vec![1, 2, 3]));
//! let rows = RecordBatch::try_from_iter([("n", numbers)])?;
//! let mut harness = Harness::<KeepAll>::open("null", rows.schema_ref())?;
//! let processed = harness.process(&rows)?;
//! assert_eq!(processed.batches, [rows]);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

use std::{cell::RefCell, collections::BTreeMap, mem, sync::Arc};

use arrow_array::{ArrayRef, BooleanArray, RecordBatch, RecordBatchOptions};
use arrow_schema::{Schema, SchemaRef};

pub use crate::output::Rejection;
use crate::{
    Batch, OpenError, Output, Plugin, ProcessError, StatefulPlugin,
    error::parse_config,
    http,
    log::Level,
    output::{Payload, check_may_hold, living_columns},
    wire,
};

/// A plugin that was opened.
#[derive(Debug)]
pub struct Harness<P> {
    /// The plugin.
    plugin: P,
    /// What it is given.
    input: SchemaRef,
    /// What it says that comes out.
    output: SchemaRef,
}

/// What came out of a batch.
#[derive(Clone, Debug, PartialEq)]
pub struct Processed {
    /// The rows, in the output schema.
    pub batches: Vec<RecordBatch>,
    /// What was refused.
    pub rejections: Vec<Rejection>,
}

impl<P: Plugin> Harness<P> {
    /// Opens a plugin with JSON for its configuration.
    pub fn open(config_json: &str, input: &Schema) -> Result<Self, OpenError> {
        let plugin = P::open(parse_config(config_json)?, input)?;
        let output = plugin.output_schema(input).resolve(input);
        Ok(Self { plugin, input: Arc::new(input.clone()), output: Arc::new(output) })
    }

    /// What the plugin says that comes out.
    #[must_use]
    pub fn output_schema(&self) -> &Schema {
        &self.output
    }

    /// Gives the plugin a batch and applies its answer as the host does. An answer that the host would not accept is an
    /// error here too.
    pub fn process(&mut self, rows: &RecordBatch) -> Result<Processed, ProcessError> {
        if rows.schema().fields() != self.input.fields() {
            return Err(ProcessError::failed("the batch has another schema than the one given to open"));
        }
        let read = |columns: &[u32]| {
            let positions: Vec<usize> = columns.iter().map(|column| *column as usize).collect();
            // Columns cross here as they cross to a component.
            Ok(wire::decode_batch(wire::encode_batch(&rows.project(&positions)?)?)?)
        };
        let output = self.plugin.process(&Batch::new(Arc::clone(&self.input), rows.num_rows(), &read))?;
        let lives = output.living_rows(rows.num_rows())?;
        let Output { keep: _, payload, rejections } = output;
        let batches = match payload {
            Payload::Unchanged => vec![self.living(rows, &lives, &[])?],
            Payload::Replace(batches) => self.declared(batches)?,
            Payload::Extend(columns) => {
                let added = living_columns(&columns, &lives)?;
                let names = columns.iter().map(|(field, _)| field.name().as_str());
                let added: Vec<_> = names.zip(added.columns().iter().map(ArrayRef::clone)).collect();
                vec![self.living(rows, &lives, &added)?]
            }
        };
        Ok(Processed { batches, rejections })
    }

    /// What the plugin held back.
    pub fn flush(&mut self) -> Result<Vec<RecordBatch>, ProcessError> {
        let batches = self.plugin.flush()?;
        check_may_hold::<P>(&batches)?;
        self.declared(batches)
    }

    /// What the plugin gives out when no more input will come.
    pub fn finish(&mut self) -> Result<Vec<RecordBatch>, ProcessError> {
        let batches = self.plugin.finish()?;
        check_may_hold::<P>(&batches)?;
        self.declared(batches)
    }

    /// The plugin, for a look at its state.
    #[must_use]
    pub fn plugin(&self) -> &P {
        &self.plugin
    }

    /// What the host does before a commit: has the plugin give out what it holds back, then say its state.
    pub fn checkpoint(&mut self) -> Result<(Vec<RecordBatch>, Vec<u8>), ProcessError>
    where
        P: StatefulPlugin,
    {
        Ok((self.flush()?, self.plugin.snapshot()?))
    }

    /// What the host does after `open`, where there is state from before.
    pub fn restore(&mut self, snapshot: &[u8]) -> Result<(), ProcessError>
    where
        P: StatefulPlugin,
    {
        self.plugin.restore(snapshot)
    }

    /// The living rows with added columns, in the output schema.
    fn living(
        &self,
        rows: &RecordBatch,
        lives: &BooleanArray,
        added: &[(&str, ArrayRef)],
    ) -> Result<RecordBatch, ProcessError> {
        let column = |name: &str| -> Result<ArrayRef, ProcessError> {
            if let Some((_, array)) = added.iter().find(|(added, _)| *added == name) {
                return Ok(ArrayRef::clone(array));
            }
            let given = rows.column_by_name(name).ok_or_else(|| {
                ProcessError::failed(format!("the output schema has a column {name:?} that nobody gives"))
            })?;
            Ok(arrow_select::filter::filter(given, lives)?)
        };
        if let Some((name, _)) = added.iter().find(|(name, _)| self.output.field_with_name(name).is_err()) {
            return Err(ProcessError::failed(format!("added column {name:?} is not in the output schema")));
        }
        let columns = self.output.fields().iter().map(|field| column(field.name())).collect::<Result<Vec<_>, _>>()?;
        let options = RecordBatchOptions::new().with_row_count(Some(lives.true_count()));
        Ok(RecordBatch::try_new_with_options(Arc::clone(&self.output), columns, &options)?)
    }

    /// The same batches, if they have the schema that was declared.
    fn declared(&self, batches: Vec<RecordBatch>) -> Result<Vec<RecordBatch>, ProcessError> {
        for batch in &batches {
            if batch.schema().fields() != self.output.fields() {
                let (given, declared) = (batch.schema(), &self.output);
                let words = format!("rows of another schema than declared: {given} in place of {declared}");
                return Err(ProcessError::failed(words));
            }
        }
        Ok(batches)
    }
}

/// What stands for the world outside in the test that runs.
#[derive(Default)]
pub(crate) struct Outside {
    /// Buckets with their keys and values.
    pub(crate) buckets: BTreeMap<String, BTreeMap<String, Vec<u8>>>,
    /// Values of `grants.config`.
    pub(crate) config: BTreeMap<String, String>,
    /// The server.
    pub(crate) server: Option<Box<Server>>,
}

/// What answers requests.
type Server = dyn FnMut(&http::Request) -> Result<http::Response, http::HttpError>;

thread_local! {
    /// As with what is said: a test has a thread of its own.
    static OUTSIDE: RefCell<Outside> = RefCell::default();
}

/// Looks at the world outside.
pub(crate) fn outside<T>(look: impl FnOnce(&mut Outside) -> T) -> T {
    OUTSIDE.with_borrow_mut(look)
}

/// Grants a bucket with keys and values to plugins of this thread.
pub fn grant_bucket<K: Into<String>, V: Into<Vec<u8>>>(name: &str, values: impl IntoIterator<Item = (K, V)>) {
    let values = values.into_iter().map(|(key, value)| (key.into(), value.into())).collect();
    outside(|outside| outside.buckets.insert(name.to_owned(), values));
}

/// Grants a value of `grants.config` to plugins of this thread.
pub fn grant_config(key: &str, value: &str) {
    outside(|outside| outside.config.insert(key.to_owned(), value.to_owned()));
}

/// Grants a server to plugins of this thread.
pub fn grant_server(answer: impl FnMut(&http::Request) -> Result<http::Response, http::HttpError> + 'static) {
    outside(|outside| outside.server = Some(Box::new(answer)));
}

/// What plugins said in the test that runs.
#[derive(Debug, Default)]
pub(crate) struct Said {
    /// Log lines.
    pub(crate) logs: Vec<(Level, String)>,
    /// Counters.
    pub(crate) counts: BTreeMap<String, u64>,
    /// Gauges.
    pub(crate) gauges: BTreeMap<String, f64>,
}

thread_local! {
    /// A test has a thread of its own, so tests do not hear each other.
    static SAID: RefCell<Said> = RefCell::default();
}

/// Notes what a plugin says.
pub(crate) fn remember(note: impl FnOnce(&mut Said)) {
    SAID.with_borrow_mut(note);
}

/// The log lines of this thread since the last call.
#[must_use]
pub fn take_logs() -> Vec<(Level, String)> {
    SAID.with_borrow_mut(|said| mem::take(&mut said.logs))
}

/// The counters of this thread since the last call.
#[must_use]
pub fn take_counts() -> BTreeMap<String, u64> {
    SAID.with_borrow_mut(|said| mem::take(&mut said.counts))
}

/// The gauges of this thread since the last call.
#[must_use]
pub fn take_gauges() -> BTreeMap<String, f64> {
    SAID.with_borrow_mut(|said| mem::take(&mut said.gauges))
}

#[cfg(test)]
mod tests {
    use arrow_array::{Int32Array, cast::AsArray, types::Int32Type};
    use arrow_schema::{DataType, Field};

    use super::*;
    use crate::{log, metrics};

    /// Holds all rows back until it is flushed, if it says so; the configuration is its first answer.
    struct Hoarder<const SAYS_SO: bool> {
        /// Rows held.
        held: Vec<RecordBatch>,
        /// What it answers.
        answer: String,
    }

    impl<const SAYS_SO: bool> Plugin for Hoarder<SAYS_SO> {
        type Config = String;
        const DESCRIPTION: &'static str = "holds rows back";
        const BUFFERS_ROWS: bool = SAYS_SO;

        fn open(answer: String, _: &Schema) -> Result<Self, OpenError> {
            Ok(Self { held: Vec::new(), answer })
        }

        fn process(&mut self, batch: &Batch<'_>) -> Result<Output, ProcessError> {
            let rows = batch.to_record_batch()?;
            log::info(&format!("{} rows", batch.num_rows()));
            metrics::count("rows", batch.num_rows() as u64);
            metrics::gauge("held", 0.5);
            match self.answer.as_str() {
                "hold" => self.held.push(rows),
                "other schema" => return Ok(Output::replace(vec![rows.project(&[])?])),
                "undeclared column" => {
                    let column = Field::new("new", DataType::Int32, false);
                    return Ok(Output::keep_all().with_columns(vec![(column, batch.column("n")?)]));
                }
                _ => return Err(ProcessError::retry_after("away", std::time::Duration::from_secs(1))),
            }
            Ok(Output::replace(Vec::new()))
        }

        fn flush(&mut self) -> Result<Vec<RecordBatch>, ProcessError> {
            Ok(mem::take(&mut self.held))
        }
    }

    impl<const SAYS_SO: bool> StatefulPlugin for Hoarder<SAYS_SO> {
        fn snapshot(&mut self) -> Result<Vec<u8>, ProcessError> {
            Ok(self.answer.clone().into_bytes())
        }

        fn restore(&mut self, snapshot: &[u8]) -> Result<(), ProcessError> {
            self.answer = String::from_utf8(snapshot.to_vec()).map_err(|_| ProcessError::failed("not a text"))?;
            Ok(())
        }
    }

    /// Three rows.
    fn rows() -> RecordBatch {
        let numbers: ArrayRef = Arc::new(Int32Array::from(vec![1, 2, 3]));
        RecordBatch::try_from_iter([("n", numbers)]).unwrap()
    }

    /// What a batch comes to.
    fn process<const SAYS_SO: bool>(answer: &str) -> (Harness<Hoarder<SAYS_SO>>, Result<Processed, ProcessError>) {
        let mut harness = Harness::open(&format!("{answer:?}"), rows().schema_ref()).unwrap();
        let processed = harness.process(&rows());
        (harness, processed)
    }

    #[test]
    fn rows_that_are_held_come_out_when_flushed_if_the_host_knows() {
        let (mut harness, processed) = process::<true>("hold");
        assert_eq!(processed.unwrap().batches, []);
        let flushed = harness.flush().unwrap();
        assert_eq!(flushed[0].column(0).as_primitive::<Int32Type>().values(), &[1, 2, 3]);
        assert_eq!(harness.flush().unwrap(), []);
        let (mut harness, _) = process::<false>("hold");
        assert!(harness.flush().unwrap_err().to_string().contains("BUFFERS_ROWS"));
    }

    #[test]
    fn a_checkpoint_flushes_before_it_asks_for_the_state_and_another_instance_goes_on_from_it() {
        let (mut first, _) = process::<true>("hold");
        let (flushed, state) = first.checkpoint().unwrap();
        assert_eq!((flushed, state.as_slice()), (vec![rows()], b"hold".as_slice()));
        let (mut second, _) = process::<true>("other");
        second.restore(&state).unwrap();
        assert_eq!(second.process(&rows()).unwrap().batches, []);
        assert_eq!(second.finish().unwrap(), [rows()]);
        assert_eq!(second.restore(&[0xff]).unwrap_err().to_string(), "not a text");
    }

    #[test]
    fn answers_that_the_host_would_not_take_are_errors() {
        let words = |answer: &str| process::<true>(answer).1.unwrap_err().to_string();
        assert!(words("other schema").starts_with("rows of another schema than declared"));
        assert_eq!(words("undeclared column"), "added column \"new\" is not in the output schema");
        assert_eq!(words("fail"), "away");
        let (mut harness, _) = process::<true>("hold");
        assert!(harness.process(&rows().project(&[]).unwrap()).is_err());
    }

    #[test]
    fn what_was_said_is_remembered_once() {
        let _ = process::<true>("hold");
        assert_eq!(take_logs(), [(Level::Info, "3 rows".to_owned())]);
        assert_eq!(take_logs(), []);
        assert_eq!(take_counts(), BTreeMap::from([("rows".to_owned(), 3)]));
        assert_eq!(take_gauges(), BTreeMap::from([("held".to_owned(), 0.5)]));
    }
}
