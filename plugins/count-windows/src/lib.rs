//! Counts rows by key and time window: an example of a plugin with state.
//!
//! ```yaml
//! config: {key: country, time: ts, window_seconds: 60, lateness_seconds: 5}
//! ```
//!
//! Each row of the input counts for the window that its time falls into. What comes out are rows of `key` (under its own name),
//! `window_start` and `count`, when a window has closed: once a row was seen whose time is the window's end and the lateness
//! later. A row that comes later than that is not lost: it counts for a further row of the same window. So do the rows of each source
//! partition, which has windows of its own. Whoever wants one row a window adds up:
//!
//! ```sql
//! SELECT country, window_start, sum(count) FROM lake GROUP BY ALL
//! ```
//!
//! Open windows are the plugin's state: they outlive a restart, and go where their partition goes. At the end of the input (files
//! that are read, `--until-end`) all of them are given out.

use std::{collections::BTreeMap, sync::Arc};

use arrow_array::{
    Int64Array, StringArray, TimestampMicrosecondArray, TimestampMillisecondArray, TimestampNanosecondArray,
    TimestampSecondArray,
    cast::AsArray,
    types::{TimestampMicrosecondType, TimestampMillisecondType, TimestampNanosecondType, TimestampSecondType},
};
use arrow_schema::TimeUnit;
use fs_data_sink_plugin::prelude::*;
use serde::Serialize;

/// Windows that stay open. With more, the oldest are given out with what they have so far; about 20 MiB, and a state of as much.
const OPEN_MAX: usize = 100_000;

/// What a state begins with; counted up when its form changes.
const STATE_VERSION: u32 = 1;

/// What stands under `config:`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// The column with the key, a text.
    key: String,
    /// The column with the time, a timestamp.
    time: String,
    /// Length of a window.
    window_seconds: u32,
    /// How long after its end a window stays open.
    #[serde(default)]
    lateness_seconds: u32,
}

/// A window of a key: its first moment in the unit of the time column, and the key.
type Window = (i64, Option<String>);

/// The plugin.
#[derive(Debug)]
pub struct CountWindows {
    /// The column with the key.
    key: String,
    /// The column with the time.
    time: String,
    /// What comes out.
    output: Schema,
    /// The unit of the time column.
    unit: TimeUnit,
    /// Length of a window, in that unit.
    length: i64,
    /// How long after its end a window stays open, in that unit.
    lateness: i64,
    /// The latest time that was seen.
    latest: Option<i64>,
    /// Windows with their counts.
    open: BTreeMap<Window, i64>,
}

/// The state as it is kept: JSON, so that the next version can tell what it is.
#[derive(Debug, Serialize, Deserialize)]
struct State {
    /// See [`STATE_VERSION`].
    version: u32,
    /// Length of the windows and unit of all times, which must be the same when it is read.
    length: i64,
    /// See `length`.
    unit: String,
    /// The latest time that was seen.
    latest: Option<i64>,
    /// First moment, key and count of each open window.
    open: Vec<(i64, Option<String>, i64)>,
}

impl Plugin for CountWindows {
    type Config = Config;
    const DESCRIPTION: &'static str = "counts rows by key and time window";
    const CONFIG_SCHEMA: Option<&'static str> = Some(
        r#"{"type":"object","required":["key","time","window_seconds"],"additionalProperties":false,"properties":{"key":{"type":"string"},"time":{"type":"string"},"window_seconds":{"type":"integer","minimum":1,"maximum":4294967295},"lateness_seconds":{"type":"integer","minimum":0,"maximum":4294967295}}}"#,
    );
    const BUFFERS_ROWS: bool = true;

    fn open(config: Config, input: &Schema) -> Result<Self, OpenError> {
        let Config { key, time, window_seconds, lateness_seconds } = config;
        if window_seconds == 0 {
            return Err(OpenError::invalid_config("window_seconds: a window has at least one second"));
        }
        let key_field = input.field_with_name(&key).map_err(|_| OpenError::no_column(&key, input))?;
        if *key_field.data_type() != DataType::Utf8 {
            let found = key_field.data_type();
            return Err(OpenError::unsupported_schema(format!("column {key:?} is of type {found}, not text")));
        }
        let time_field = input.field_with_name(&time).map_err(|_| OpenError::no_column(&time, input))?;
        let DataType::Timestamp(unit, _) = *time_field.data_type() else {
            let found = time_field.data_type();
            return Err(OpenError::unsupported_schema(format!("column {time:?} is of type {found}, not a timestamp")));
        };
        let per_second = match unit {
            TimeUnit::Second => 1,
            TimeUnit::Millisecond => 1_000,
            TimeUnit::Microsecond => 1_000_000,
            TimeUnit::Nanosecond => 1_000_000_000,
        };
        let output = Schema::new(vec![
            key_field.clone(),
            Field::new("window_start", time_field.data_type().clone(), false),
            Field::new("count", DataType::Int64, false),
        ]);
        // Both fit: less than 2^32 seconds in nanoseconds.
        let (length, lateness) = (i64::from(window_seconds) * per_second, i64::from(lateness_seconds) * per_second);
        Ok(Self { key, time, output, unit, length, lateness, latest: None, open: BTreeMap::new() })
    }

    fn output_schema(&self, _input: &Schema) -> OutputSchema {
        OutputSchema::Replace(self.output.clone())
    }

    fn process(&mut self, batch: &Batch<'_>) -> Result<Output, ProcessError> {
        let columns = batch.columns(&[&self.key, &self.time])?;
        let (keys, times) = (columns.column(0).as_string::<i32>(), self.times(columns.column(1)));
        let mut without_time = Vec::new();
        for ((row, key), time) in (0_u32..).zip(keys.iter()).zip(times) {
            let Some(time) = time else {
                without_time.push(row);
                continue;
            };
            // The first moments of what a timestamp can say have a window that begins before.
            let start = time.checked_sub(time.rem_euclid(self.length)).unwrap_or(i64::MIN);
            *self.open.entry((start, key.map(str::to_owned))).or_default() += 1;
            self.latest = self.latest.max(Some(time));
        }
        let mut given_out = Vec::new();
        while self.open.len() > OPEN_MAX {
            given_out.extend(self.open.pop_first());
        }
        let rows = self.rows(given_out)?;
        Ok(Output::replace(rows).reject(without_time, "no-time", format!("column {:?} is null", self.time)))
    }

    fn flush(&mut self) -> Result<Vec<RecordBatch>, ProcessError> {
        let Some(latest) = self.latest else { return Ok(Vec::new()) };
        let is_closed = |start: i64| start.saturating_add(self.length).saturating_add(self.lateness) <= latest;
        let mut closed = Vec::new();
        while self.open.first_key_value().is_some_and(|((start, _), _)| is_closed(*start)) {
            closed.extend(self.open.pop_first());
        }
        self.rows(closed)
    }

    fn finish(&mut self) -> Result<Vec<RecordBatch>, ProcessError> {
        let all = std::mem::take(&mut self.open);
        self.rows(all.into_iter().collect())
    }
}

impl StatefulPlugin for CountWindows {
    fn snapshot(&mut self) -> Result<Vec<u8>, ProcessError> {
        let open = self.open.iter().map(|((start, key), count)| (*start, key.clone(), *count)).collect();
        let (length, unit) = (self.length, self.unit.to_string());
        let state = State { version: STATE_VERSION, length, unit, latest: self.latest, open };
        serde_json::to_vec(&state).map_err(|error| ProcessError::failed(error.to_string()))
    }

    fn restore(&mut self, snapshot: &[u8]) -> Result<(), ProcessError> {
        let state: State = serde_json::from_slice(snapshot)
            .map_err(|error| ProcessError::failed(format!("not a state of count-windows: {error}")))?;
        let State { version, length, unit, latest, open } = state;
        if version != STATE_VERSION {
            let words = format!("a state of version {version}; this release reads version {STATE_VERSION}");
            return Err(ProcessError::failed(words));
        }
        if (length, unit.as_str()) != (self.length, &*self.unit.to_string()) {
            return Err(ProcessError::failed(format!(
                "its windows have {length} {unit}, and those of this configuration {} {}; set window_seconds back",
                self.length, self.unit
            )));
        }
        self.latest = latest;
        self.open = open.into_iter().map(|(start, key, count)| ((start, key), count)).collect();
        Ok(())
    }
}

impl CountWindows {
    /// The times of a column.
    fn times(&self, column: &ArrayRef) -> Vec<Option<i64>> {
        match self.unit {
            TimeUnit::Second => column.as_primitive::<TimestampSecondType>().iter().collect(),
            TimeUnit::Millisecond => column.as_primitive::<TimestampMillisecondType>().iter().collect(),
            TimeUnit::Microsecond => column.as_primitive::<TimestampMicrosecondType>().iter().collect(),
            TimeUnit::Nanosecond => column.as_primitive::<TimestampNanosecondType>().iter().collect(),
        }
    }

    /// Windows as rows; none where there are none.
    fn rows(&self, windows: Vec<(Window, i64)>) -> Result<Vec<RecordBatch>, ProcessError> {
        if windows.is_empty() {
            return Ok(Vec::new());
        }
        let zone = match self.output.field(1).data_type() {
            DataType::Timestamp(_, zone) => zone.clone(),
            _ => None,
        };
        let starts: Vec<i64> = windows.iter().map(|((start, _), _)| *start).collect();
        let starts: ArrayRef = match self.unit {
            TimeUnit::Second => Arc::new(TimestampSecondArray::from(starts).with_timezone_opt(zone)),
            TimeUnit::Millisecond => Arc::new(TimestampMillisecondArray::from(starts).with_timezone_opt(zone)),
            TimeUnit::Microsecond => Arc::new(TimestampMicrosecondArray::from(starts).with_timezone_opt(zone)),
            TimeUnit::Nanosecond => Arc::new(TimestampNanosecondArray::from(starts).with_timezone_opt(zone)),
        };
        let counts: ArrayRef = Arc::new(windows.iter().map(|(_, count)| *count).collect::<Int64Array>());
        let keys: ArrayRef = Arc::new(windows.into_iter().map(|((_, key), _)| key).collect::<StringArray>());
        Ok(vec![RecordBatch::try_new(Arc::new(self.output.clone()), vec![keys, starts, counts])?])
    }
}

export_stateful_plugin!(CountWindows);

#[cfg(test)]
mod tests {
    use fs_data_sink_plugin::testing::Harness;

    use super::*;
    use arrow_array::types::Int64Type;

    /// Windows of ten seconds that stay open for two.
    const CONFIG: &str = r#"{"key":"country","time":"ts","window_seconds":10,"lateness_seconds":2}"#;

    /// Rows of a key at a second, where there is one.
    fn rows(rows: &[(&str, Option<i64>)]) -> RecordBatch {
        let keys: ArrayRef = Arc::new(StringArray::from_iter_values(rows.iter().map(|(key, _)| key)));
        let times = rows.iter().map(|(_, second)| second.map(|second| second * 1_000));
        let times: ArrayRef = Arc::new(times.collect::<TimestampMillisecondArray>().with_timezone("UTC"));
        RecordBatch::try_from_iter_with_nullable([("country", keys, false), ("ts", times, true)]).unwrap()
    }

    /// The plugin over such rows.
    fn open(config: &str) -> Harness<CountWindows> {
        Harness::open(config, rows(&[]).schema_ref()).unwrap()
    }

    /// What came out: key, second of the window, count.
    fn windows(batches: &[RecordBatch]) -> Vec<(String, i64, i64)> {
        let windows = |batch: &RecordBatch| -> Vec<(String, i64, i64)> {
            let keys = batch.column(0).as_string::<i32>().iter().map(|key| key.unwrap().to_owned());
            let starts = batch.column(1).as_primitive::<TimestampMillisecondType>().values().iter();
            let counts = batch.column(2).as_primitive::<Int64Type>().values().iter();
            keys.zip(starts).zip(counts).map(|((key, start), count)| (key, start / 1_000, *count)).collect()
        };
        batches.iter().flat_map(windows).collect()
    }

    /// A window as it should come out.
    fn window(key: &str, start: i64, count: i64) -> (String, i64, i64) {
        (key.to_owned(), start, count)
    }

    #[test]
    fn a_window_comes_out_once_time_has_gone_past_its_end_and_the_lateness() {
        let mut harness = open(CONFIG);
        let first = rows(&[("DE", Some(1)), ("FR", Some(9)), ("DE", Some(9)), ("DE", Some(11))]);
        assert_eq!(harness.process(&first).unwrap().batches, []);
        assert_eq!(harness.flush().unwrap(), []);
        harness.process(&rows(&[("FR", Some(12))])).unwrap();
        assert_eq!(windows(&harness.flush().unwrap()), [window("DE", 0, 2), window("FR", 0, 1)]);
        // Late, and not lost.
        harness.process(&rows(&[("DE", Some(3)), ("DE", Some(-1))])).unwrap();
        assert_eq!(windows(&harness.flush().unwrap()), [window("DE", -10, 1), window("DE", 0, 1)]);
        assert_eq!(windows(&harness.finish().unwrap()), [window("DE", 10, 1), window("FR", 10, 1)]);
        assert_eq!(harness.finish().unwrap(), []);
    }

    #[test]
    fn an_instance_goes_on_where_another_one_stopped() {
        let (all, mut whole) = ((0..100).map(|n| (if n % 3 == 0 { "DE" } else { "FR" }, Some(n))), open(CONFIG));
        let all: Vec<_> = all.collect();
        whole.process(&rows(&all)).unwrap();
        let wanted = windows(&[whole.flush().unwrap(), whole.finish().unwrap()].concat());
        let (mut found, mut state) = (Vec::new(), None::<Vec<u8>>);
        for part in all.chunks(7) {
            let mut harness = open(CONFIG);
            if let Some(state) = &state {
                harness.restore(state).unwrap();
            }
            harness.process(&rows(part)).unwrap();
            let (given_out, kept) = harness.checkpoint().unwrap();
            found.extend(windows(&given_out));
            state = Some(kept);
        }
        let mut last = open(CONFIG);
        last.restore(&state.unwrap()).unwrap();
        found.extend(windows(&last.finish().unwrap()));
        assert_eq!(found, wanted);
    }

    #[test]
    fn a_row_without_a_time_is_refused() {
        let mut harness = open(CONFIG);
        let processed = harness.process(&rows(&[("DE", None), ("DE", Some(1))])).unwrap();
        let [rejection] = processed.rejections.as_slice() else { panic!("one rejection") };
        assert_eq!((rejection.rows.as_slice(), rejection.code.as_str()), ([0].as_slice(), "no-time"));
        assert_eq!(windows(&harness.finish().unwrap()), [window("DE", 0, 1)]);
    }

    #[test]
    fn open_windows_are_bounded_and_nothing_is_lost() {
        let mut harness = open(r#"{"key":"country","time":"ts","window_seconds":1}"#);
        let count = i64::try_from(OPEN_MAX).unwrap() + 10;
        let all: Vec<_> = (0..count).map(|second| ("DE", Some(second))).collect();
        let given_out = windows(&harness.process(&rows(&all)).unwrap().batches);
        assert_eq!(given_out, (0..10).map(|second| window("DE", second, 1)).collect::<Vec<_>>());
        assert_eq!(harness.plugin().open.len(), OPEN_MAX);
    }

    #[test]
    fn a_state_of_something_else_is_refused_in_words() {
        let (_, state) = open(CONFIG).checkpoint().unwrap();
        let mut other = open(r#"{"key":"country","time":"ts","window_seconds":60}"#);
        let words = other.restore(&state).unwrap_err().to_string();
        assert!(words.starts_with("its windows have 10000 ms, and those of this configuration 60000 ms"), "{words}");
        let words = open(CONFIG).restore(b"{}").unwrap_err().to_string();
        assert!(words.starts_with("not a state of count-windows"), "{words}");
        let newer = String::from_utf8(state).unwrap().replace("\"version\":1", "\"version\":2");
        let words = open(CONFIG).restore(newer.as_bytes()).unwrap_err().to_string();
        assert_eq!(words, "a state of version 2; this release reads version 1");
    }

    #[test]
    fn what_it_cannot_count_is_refused_before_it_starts() {
        let words =
            |config: &str| Harness::<CountWindows>::open(config, rows(&[]).schema_ref()).unwrap_err().to_string();
        assert_eq!(
            words(r#"{"key":"country","time":"country","window_seconds":1}"#),
            "column \"country\" is of type Utf8, not a timestamp"
        );
        assert!(words(r#"{"key":"ts","time":"ts","window_seconds":1}"#).contains("not text"));
        assert!(words(r#"{"key":"country","time":"ts","window_seconds":0}"#).starts_with("window_seconds"));
    }
}
