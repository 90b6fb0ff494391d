//! One run of a plugin over rows: what came out, what was refused, and what it took.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use arrow_array::RecordBatch;
use arrow_cast::cast;
use arrow_json::{WriterBuilder, writer::LineDelimited};
use arrow_schema::{ArrowError, DataType, Field, FieldRef};
use serde_json::{Map, Value};

use super::{input::Input, subject::open};
use crate::{
    batch::{DecodedBatch, Origin, Rejection},
    cli::reading::{Refused, offsets},
    error::PipelineError,
    plugin::{ChainOutput, FlushReason, LoadedPlugin},
};

/// Bytes of rows as JSON that are kept.
const ANSWER_BYTES_MAX: usize = 256 << 20;
/// Codes of rows that were refused since the plugin failed at them, and not by its own words.
const FAILURES: [&str; 5] =
    ["plugin-trap", "plugin-timeout", "plugin-memory", "plugin-bad-output", "plugin-host-calls"];

/// Rows that were refused for one reason.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Rejected {
    /// Where: `decode` or `plugin`.
    pub(super) stage: &'static str,
    /// Stable and of few values.
    pub(super) code: String,
    /// For people.
    pub(super) message: String,
    /// Number of rows.
    pub(super) rows: usize,
    /// The records that they came from, from 1; none where nothing tells.
    pub(super) records: Vec<i64>,
}

/// What came of a run.
#[derive(Debug, Default)]
pub(super) struct Trial {
    /// Columns of the rows that came out, with their types.
    pub(super) columns: Vec<(String, String)>,
    /// The rows that came out.
    pub(super) rows: Vec<Map<String, Value>>,
    /// Refused rows.
    pub(super) rejected: Vec<Rejected>,
    /// Rows that the plugin left out; none where it made new rows.
    pub(super) filtered: Option<u64>,
    /// From nothing to an instance that is opened.
    pub(super) start: Duration,
    /// All calls with rows, and the last `flush`.
    pub(super) calls: Duration,
    /// Most bytes that an instance held.
    pub(super) memory_bytes: usize,
    /// Why the plugin failed, if it did.
    pub(super) failed: Option<String>,
}

impl Trial {
    /// Takes all rows through the plugin. An error is one of opening it: it refuses its config or the schema.
    pub(super) async fn run(loaded: &Arc<LoadedPlugin>, input: &Input) -> Result<Self, PipelineError> {
        let began = Instant::now();
        let mut chain = open(loaded, Arc::clone(&input.schema)).await?;
        let mut trial = Self { start: began.elapsed(), ..Self::default() };
        let fields = chain.output_schema().fields().iter();
        trial.columns = fields.map(|field| (field.name().clone(), field.data_type().to_string())).collect();
        trial.rejected.extend(input.refused.iter().map(|Refused { code, message, records }| Rejected {
            stage: "decode",
            code: code.clone(),
            message: message.clone(),
            rows: records.len(),
            records: records.iter().map(|record| record.saturating_add(1)).collect(),
        }));
        let (mut bytes_left, mut leads_back) = (ANSWER_BYTES_MAX, true);
        let mut given = input.batches.iter();
        loop {
            let batch = given.next();
            let began = Instant::now();
            let answer = match batch {
                Some(batch) => chain.process(batch.clone()).await,
                None => chain.flush(FlushReason::EndOfInput).await,
            };
            trial.calls += began.elapsed();
            let taken = answer.and_then(|answer| trial.take(answer, &mut bytes_left, &mut leads_back));
            if let Err(error) = taken {
                trial.failed = Some(error.full_message());
                break;
            }
            if batch.is_none() {
                break;
            }
        }
        chain.close().await;
        trial.memory_bytes = loaded.memory_peak_bytes();
        let refused: usize = trial.of_plugin().map(|rejected| rejected.rows).sum();
        let rest = input.rows().checked_sub(trial.rows.len() as u64 + refused as u64);
        trial.filtered = rest.filter(|_| leads_back && trial.failed.is_none());
        Ok(trial)
    }

    /// What the plugin refused.
    pub(super) fn of_plugin(&self) -> impl Iterator<Item = &Rejected> {
        self.rejected.iter().filter(|rejected| rejected.stage == "plugin")
    }

    /// Keeps what came of one call.
    fn take(
        &mut self,
        answer: ChainOutput,
        bytes_left: &mut usize,
        leads_back: &mut bool,
    ) -> Result<(), PipelineError> {
        for batch in answer.batches {
            *leads_back &= matches!(batch.origin, Origin::Records { .. });
            self.rows.extend(as_json(&batch.rows, bytes_left)?);
        }
        for (batch, rejection) in answer.rejected {
            self.refuse(&batch, rejection);
        }
        Ok(())
    }

    /// Keeps what was refused.
    fn refuse(&mut self, batch: &DecodedBatch, rejection: Rejection) {
        let Rejection { rows, stage, code, message, .. } = rejection;
        if self.failed.is_none() && is_failure(&code) {
            self.failed = Some(message.clone());
        }
        let records = match &batch.origin {
            Origin::Records { envelope, rows: origin } => {
                let origin: Vec<u32> =
                    rows.iter().filter_map(|row| origin.values().get(*row as usize).copied()).collect();
                offsets(envelope, &origin).into_iter().map(|record| record.saturating_add(1)).collect()
            }
            Origin::Replaced => Vec::new(),
        };
        let (stage, count) = (stage.as_str(), rows.len());
        let is_same = |known: &&mut Rejected| known.stage == stage && known.code == code && known.message == message;
        // A plugin has some reasons, or one with other words for each row; then only neighbours are joined.
        if let Some(known) = self.rejected.iter_mut().rev().take(64).find(is_same) {
            known.rows += count;
            known.records.extend(records);
        } else {
            self.rejected.push(Rejected { stage, code, message, rows: count, records });
        }
    }
}

/// The same type with the offset of UTC for every zone: the writer of JSON knows no names of zones, and an instant is the same in all.
fn offset_zones(data_type: &DataType) -> DataType {
    let inner = |field: &FieldRef| {
        let data_type = offset_zones(field.data_type());
        FieldRef::new(Field::clone(field).with_data_type(data_type))
    };
    match data_type {
        DataType::Timestamp(unit, Some(_)) => DataType::Timestamp(*unit, Some("+00:00".into())),
        DataType::List(item) => DataType::List(inner(item)),
        DataType::LargeList(item) => DataType::LargeList(inner(item)),
        DataType::FixedSizeList(item, size) => DataType::FixedSizeList(inner(item), *size),
        DataType::Struct(fields) => DataType::Struct(fields.iter().map(inner).collect()),
        DataType::Map(entries, sorted) => DataType::Map(inner(entries), *sorted),
        other => other.clone(),
    }
}

/// Whether rows with this code were refused since the plugin failed, and not by its own words.
pub(super) fn is_failure(code: &str) -> bool {
    FAILURES.contains(&code)
}

/// Rows as JSON objects with all their columns.
fn as_json(rows: &RecordBatch, bytes_left: &mut usize) -> Result<Vec<Map<String, Value>>, PipelineError> {
    let failed =
        |error: ArrowError| PipelineError::stop("the rows that came out cannot be shown as JSON").because(error);
    if rows.num_columns() == 0 {
        return Ok(vec![Map::new(); rows.num_rows()]);
    }
    let columns = rows.columns().iter().map(|column| cast(column, &offset_zones(column.data_type())));
    let columns = rows.schema_ref().fields().iter().map(|field| field.name()).zip(columns);
    let columns: Result<Vec<_>, _> = columns.map(|(name, column)| Ok((name, column?, true))).collect();
    let rows = &RecordBatch::try_from_iter_with_nullable(columns.map_err(failed)?).map_err(failed)?;
    let mut writer = WriterBuilder::new().with_explicit_nulls(true).build::<_, LineDelimited>(Vec::new());
    // In parts, so that the limit is met before the memory is taken.
    let mut text = Vec::new();
    for begin in (0..rows.num_rows()).step_by(1024) {
        writer.write(&rows.slice(begin, 1024.min(rows.num_rows() - begin))).map_err(failed)?;
        text.append(writer.get_mut());
        if text.len() > *bytes_left {
            return Err(PipelineError::stop(format!(
                "the plugin answered more than {} MiB of rows as JSON, more than a trial keeps: give it fewer with \
                 --records",
                ANSWER_BYTES_MAX >> 20
            )));
        }
    }
    *bytes_left -= text.len();
    let objects = serde_json::Deserializer::from_slice(&text).into_iter();
    objects
        .collect::<Result<_, _>>()
        .map_err(|error| PipelineError::stop("the rows that came out cannot be shown as JSON").because(error))
}

#[cfg(test)]
mod tests {
    use arrow_array::{
        ArrayRef, ListArray, StructArray, TimestampMicrosecondArray,
        builder::{ListBuilder, PrimitiveBuilder},
        types::TimestampMicrosecondType,
    };

    use super::*;

    #[test]
    fn times_with_zones_are_shown_also_in_lists_and_structs() {
        let zone = DataType::Timestamp(arrow_schema::TimeUnit::Microsecond, Some("Europe/Berlin".into()));
        let times: ArrayRef =
            Arc::new(TimestampMicrosecondArray::from(vec![Some(1_000_000), None]).with_timezone("UTC"));
        let item = PrimitiveBuilder::<TimestampMicrosecondType>::new().with_data_type(zone.clone());
        let mut list = ListBuilder::new(item).with_field(Field::new("item", zone, true));
        list.append_value([Some(0)]);
        list.append_null();
        let list: ListArray = list.finish();
        let inner = StructArray::from(vec![(
            FieldRef::new(Field::new("t", times.data_type().clone(), true)),
            Arc::clone(&times),
        )]);
        let rows: [(&str, ArrayRef); 3] = [("t", times), ("l", Arc::new(list)), ("s", Arc::new(inner))];
        let rows = RecordBatch::try_from_iter_with_nullable(rows.map(|(name, array)| (name, array, true))).unwrap();
        let mut bytes_left = ANSWER_BYTES_MAX;
        let shown = as_json(&rows, &mut bytes_left).unwrap();
        let first = Value::Object(shown[0].clone()).to_string();
        assert_eq!(
            first,
            r#"{"t":"1970-01-01T00:00:01Z","l":["1970-01-01T00:00:00Z"],"s":{"t":"1970-01-01T00:00:01Z"}}"#
        );
        assert_eq!(Value::Object(shown[1].clone()).to_string(), r#"{"t":null,"l":null,"s":{"t":null}}"#);
        assert!(bytes_left < ANSWER_BYTES_MAX);
        let mut too_few = 10;
        assert!(as_json(&rows, &mut too_few).unwrap_err().to_string().contains("--records"));
    }
}
