//! One level of directories: where its values are, and how each becomes text.
//!
//! Comes in: a batch. Goes out: the level's keys, one a row, as text or as whole numbers (so that rows are grouped by
//! comparing those and only one value of each group is ever printed), and the text of one key. Pure.

use std::{fmt::Write as _, sync::Arc};

use arrow_array::{Array, ArrayRef, Int64Array, RecordBatch, StringArray, cast::AsArray, make_array, types::Int64Type};
use arrow_buffer::NullBuffer;
use arrow_cast::{CastOptions, cast_with_options};
use arrow_schema::{ArrowError, DataType, Field, Schema, TimeUnit, extension};
use chrono::{DateTime, Datelike, Timelike, Utc};
use uuid::Uuid;

use super::path;
use crate::{
    config::{PartitionColumn, PartitionTransform},
    error::PipelineError,
};

/// Seconds of a day.
const DAY_SECONDS: i64 = 86_400;

/// One level of directories.
#[derive(Debug)]
pub(super) struct Level {
    /// The column as configured.
    pub(super) column: String,
    /// `name=`, escaped.
    label: String,
    /// Number of the column, then of the field in it, and so on.
    pub(super) place: Vec<usize>,
    /// How a key becomes text.
    rendering: Rendering,
}

/// How a key becomes text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Rendering {
    /// Text as it is.
    Text,
    /// The text of a float; infinity is spelled as Spark does.
    Float,
    /// The text of a UUID, in lower case with hyphens.
    Uuid,
    /// A whole number.
    Integer,
    /// 0 or 1.
    Boolean,
    /// Time since 1970.
    Timestamp(TimeUnit),
    /// Days since 1970 as `yyyy`.
    Year,
    /// Days since 1970 as `yyyy-MM`.
    Month,
    /// Days since 1970 as `yyyy-MM-dd`.
    Day,
    /// Hours since 1970 as `yyyy-MM-dd-HH`.
    Hour,
}

/// The keys of a level.
#[derive(Clone, Debug)]
pub(super) enum Keys {
    /// Text.
    Text(StringArray),
    /// Whole numbers.
    Number(Int64Array),
}

/// Why a value cannot be a directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Unfit {
    /// Its path would be longer than stores allow.
    TooLong,
    /// A time before the year 0 or after 9999.
    OutOfRange,
}

impl Level {
    /// Finds a column; otherwise an error that names the columns there are, or the types that can be a directory.
    pub(super) fn new(config: &PartitionColumn, schema: &Schema) -> Result<Self, PipelineError> {
        let (place, field) = find(&config.column, schema).ok_or_else(|| missing(config, schema))?;
        let rendering = rendering(config.transform, field).ok_or_else(|| wrong_type(config, field.data_type()))?;
        let mut label = String::new();
        path::escape(&config.directory_name(), &mut label);
        label.push('=');
        Ok(Self { column: config.column.clone(), label, place, rendering })
    }

    /// The key of each row.
    pub(super) fn keys(&self, rows: &RecordBatch) -> Result<Keys, ArrowError> {
        let values = self.values(rows)?;
        Ok(match self.rendering {
            Rendering::Text | Rendering::Float => Keys::Text(text(&values)?),
            Rendering::Uuid => Keys::Text(uuids(&values)),
            Rendering::Integer | Rendering::Boolean => Keys::Number(numbers(&values, &DataType::Int64)?),
            Rendering::Timestamp(unit) => Keys::Number(numbers(&values, &DataType::Timestamp(unit, None))?),
            Rendering::Year | Rendering::Month | Rendering::Day => Keys::Number(periods(&values, DAY_SECONDS)?),
            Rendering::Hour => Keys::Number(periods(&values, 3600)?),
        })
    }

    /// The column's values; a field of a struct is null where the struct is.
    fn values(&self, rows: &RecordBatch) -> Result<ArrayRef, ArrowError> {
        let missing = || ArrowError::SchemaError(format!("column {} is not in the batch", self.column));
        let mut place = self.place.iter();
        let mut values = place.next().and_then(|at| rows.columns().get(*at)).cloned().ok_or_else(missing)?;
        let mut parents = None;
        for at in place {
            let parent = values.as_struct_opt().ok_or_else(missing)?;
            parents = NullBuffer::union(parents.as_ref(), parent.nulls());
            values = Arc::clone(parent.columns().get(*at).ok_or_else(missing)?);
        }
        if parents.is_some() {
            let nulls = NullBuffer::union(parents.as_ref(), values.nulls());
            values = make_array(values.to_data().into_builder().nulls(nulls).build()?);
        }
        Ok(values)
    }

    /// Appends `name=value` of one row to a directory. `scratch` is only there to be used again.
    pub(super) fn write(
        &self,
        keys: &Keys,
        row: usize,
        scratch: &mut String,
        directory: &mut String,
    ) -> Result<(), Unfit> {
        let begin = directory.len();
        directory.push_str(&self.label);
        scratch.clear();
        match keys {
            Keys::Text(keys) if keys.is_valid(row) => match (self.rendering, keys.value(row)) {
                (Rendering::Float, "inf") => scratch.push_str("Infinity"),
                (Rendering::Float, "-inf") => scratch.push_str("-Infinity"),
                (_, text) => scratch.push_str(text),
            },
            Keys::Number(keys) if keys.is_valid(row) => {
                print(self.rendering, keys.value(row), scratch).ok_or(Unfit::OutOfRange)?;
            }
            Keys::Text(_) | Keys::Number(_) => {}
        }
        if scratch.is_empty() {
            directory.push_str(path::NULL_VALUE);
        } else {
            path::escape(scratch, directory);
        }
        if directory.len() - begin > path::SEGMENT_BYTES_MAX { Err(Unfit::TooLong) } else { Ok(()) }
    }
}

impl Keys {
    /// As an Arrow array.
    pub(super) fn to_array(&self) -> ArrayRef {
        match self {
            Self::Text(keys) => Arc::new(keys.clone()),
            Self::Number(keys) => Arc::new(keys.clone()),
        }
    }
}

impl Unfit {
    /// Stable name for dead letters and metrics.
    pub(super) fn code(self) -> &'static str {
        match self {
            Self::TooLong => "partition-value-too-long",
            Self::OutOfRange => "partition-value-out-of-range",
        }
    }
}

/// A column by its name, or a field in structs by its dotted path.
fn find<'schema>(name: &str, schema: &'schema Schema) -> Option<(Vec<usize>, &'schema Field)> {
    if let Some((at, field)) = schema.fields().find(name) {
        return Some((vec![at], field));
    }
    let mut parts = name.split('.');
    let (at, field) = schema.fields().find(parts.next()?)?;
    parts.try_fold((vec![at], field.as_ref()), |(mut place, field), part| {
        let DataType::Struct(fields) = field.data_type() else { return None };
        let (at, field) = fields.find(part)?;
        place.push(at);
        Some((place, field.as_ref()))
    })
}

/// The error for a column that is not there.
fn missing(config: &PartitionColumn, schema: &Schema) -> PipelineError {
    // A wide table would fill the screen.
    let mut names: Vec<&str> = schema.fields().iter().take(100).map(|field| field.name().as_str()).collect();
    if schema.fields().len() > names.len() {
        names.push("...");
    }
    PipelineError::stop(format!(
        "sink.partition_by names the column `{}`, which the rows do not have; their columns are: {}",
        config.column,
        names.join(", ")
    ))
}

/// The error for a column whose values cannot be a directory.
fn wrong_type(config: &PartitionColumn, data_type: &DataType) -> PipelineError {
    let PartitionColumn { column, transform } = config;
    PipelineError::stop(if *transform == PartitionTransform::Identity {
        format!(
            "sink.partition_by names the column `{column}` of type {data_type}, which cannot be a directory; possible \
             are utf8, integers, boolean, date, timestamp, decimal, float, uuid, and year, month, day or hour of a date or \
             timestamp"
        )
    } else {
        let transform = format!("{transform:?}").to_lowercase();
        format!(
            "sink.partition_by has {transform}({column}), but `{column}` is of type {data_type}; {transform} needs a \
             date or a timestamp: declare one in `schema`, or partition by the column itself"
        )
    })
}

/// How values of a type become text; `None` where they cannot.
fn rendering(transform: PartitionTransform, field: &Field) -> Option<Rendering> {
    let data_type = field.data_type();
    let data_type = if let DataType::Dictionary(_, values) = data_type { values } else { data_type };
    let is_time = matches!(data_type, DataType::Date32 | DataType::Date64 | DataType::Timestamp(..));
    match transform {
        PartitionTransform::Year if is_time => Some(Rendering::Year),
        PartitionTransform::Month if is_time => Some(Rendering::Month),
        PartitionTransform::Day if is_time => Some(Rendering::Day),
        PartitionTransform::Hour if is_time => Some(Rendering::Hour),
        PartitionTransform::Identity => match data_type {
            // UInt64: its values above i64::MAX fit no signed number.
            DataType::Utf8
            | DataType::LargeUtf8
            | DataType::Utf8View
            | DataType::UInt64
            | DataType::Decimal32(..)
            | DataType::Decimal64(..)
            | DataType::Decimal128(..)
            | DataType::Decimal256(..) => Some(Rendering::Text),
            DataType::Float16 | DataType::Float32 | DataType::Float64 => Some(Rendering::Float),
            DataType::FixedSizeBinary(_) if field.has_valid_extension_type::<extension::Uuid>() => {
                Some(Rendering::Uuid)
            }
            DataType::Boolean => Some(Rendering::Boolean),
            DataType::Date32 | DataType::Date64 => Some(Rendering::Day),
            DataType::Timestamp(unit, _) => Some(Rendering::Timestamp(*unit)),
            integer if integer.is_integer() => Some(Rendering::Integer),
            _ => None,
        },
        _ => None,
    }
}

/// Values as text.
fn text(values: &ArrayRef) -> Result<StringArray, ArrowError> {
    Ok(cast(values, &DataType::Utf8)?.as_string::<i32>().clone())
}

/// UUIDs as text.
fn uuids(values: &ArrayRef) -> StringArray {
    let Some(values) = values.as_fixed_size_binary_opt() else { return StringArray::new_null(values.len()) };
    let text = |bytes: Option<&[u8]>| Some(Uuid::from_slice(bytes?).ok()?.hyphenated().to_string());
    values.iter().map(text).collect()
}

/// Values as whole numbers, by way of a type that has the wanted unit.
fn numbers(values: &ArrayRef, unit: &DataType) -> Result<Int64Array, ArrowError> {
    // Time zones only matter for printing: the number is always UTC. Taken off by hand, since a cast would shift it.
    let values = match values.data_type() {
        DataType::Dictionary(_, inner) => cast(values, inner)?,
        _ => Arc::clone(values),
    };
    match (values.data_type(), unit) {
        (DataType::Timestamp(from, _), DataType::Timestamp(to, _)) if from == to => {
            let data = values.to_data().into_builder().data_type(DataType::Int64).build()?;
            Ok(Int64Array::from(data))
        }
        _ => Ok(cast(&values, &DataType::Int64)?.as_primitive::<Int64Type>().clone()),
    }
}

/// Dates and times as whole periods since 1970, rounded down.
fn periods(values: &ArrayRef, period_seconds: i64) -> Result<Int64Array, ArrowError> {
    let values = match values.data_type() {
        DataType::Dictionary(_, inner) => cast(values, inner)?,
        _ => Arc::clone(values),
    };
    let (units_per_second, numbers) = match values.data_type() {
        DataType::Timestamp(unit, _) => (per_second(*unit), numbers(&values, &DataType::Timestamp(*unit, None))?),
        DataType::Date64 => (1_000, cast(&values, &DataType::Int64)?.as_primitive::<Int64Type>().clone()),
        // Days: 32 bits, so the multiplication cannot overflow.
        _ => {
            let days = cast(&cast(&values, &DataType::Int32)?, &DataType::Int64)?;
            (1, days.as_primitive::<Int64Type>().unary(|day| day * DAY_SECONDS))
        }
    };
    let period = period_seconds * units_per_second;
    Ok(numbers.unary(|number| number.div_euclid(period)))
}

/// Units of time in a second.
fn per_second(unit: TimeUnit) -> i64 {
    match unit {
        TimeUnit::Second => 1,
        TimeUnit::Millisecond => 1_000,
        TimeUnit::Microsecond => 1_000_000,
        TimeUnit::Nanosecond => 1_000_000_000,
    }
}

/// A cast that never turns a value into null.
fn cast(values: &ArrayRef, to: &DataType) -> Result<ArrayRef, ArrowError> {
    let options = CastOptions { safe: false, ..CastOptions::default() };
    if values.data_type() == to { Ok(Arc::clone(values)) } else { cast_with_options(values, to, &options) }
}

/// Prints a number; `None` for a time that four digits of a year cannot tell.
fn print(rendering: Rendering, number: i64, text: &mut String) -> Option<()> {
    let seconds = |period: i64| number.checked_mul(period);
    match rendering {
        Rendering::Boolean => text.push_str(if number == 0 { "false" } else { "true" }),
        Rendering::Timestamp(unit) => print_timestamp(number, unit, text)?,
        Rendering::Year => write!(text, "{:04}", utc(seconds(DAY_SECONDS)?, 0)?.year()).ok()?,
        Rendering::Month => {
            let date = utc(seconds(DAY_SECONDS)?, 0)?;
            write!(text, "{:04}-{:02}", date.year(), date.month()).ok()?;
        }
        Rendering::Day => print_date(utc(seconds(DAY_SECONDS)?, 0)?, text)?,
        Rendering::Hour => {
            let time = utc(seconds(3600)?, 0)?;
            print_date(time, text)?;
            write!(text, "-{:02}", time.hour()).ok()?;
        }
        Rendering::Integer | Rendering::Text | Rendering::Float | Rendering::Uuid => write!(text, "{number}").ok()?,
    }
    Some(())
}

/// `yyyy-MM-dd`.
fn print_date(date: DateTime<Utc>, text: &mut String) -> Option<()> {
    write!(text, "{:04}-{:02}-{:02}", date.year(), date.month(), date.day()).ok()
}

/// `yyyy-MM-dd HH:mm:ss` and as many digits of the second as it has, as Spark prints it.
fn print_timestamp(number: i64, unit: TimeUnit, text: &mut String) -> Option<()> {
    let units = per_second(unit);
    let nanoseconds = u32::try_from(number.rem_euclid(units) * (1_000_000_000 / units)).ok()?;
    let time = utc(number.div_euclid(units), nanoseconds)?;
    print_date(time, text)?;
    write!(text, " {:02}:{:02}:{:02}", time.hour(), time.minute(), time.second()).ok()?;
    if nanoseconds > 0 {
        write!(text, ".{nanoseconds:09}").ok()?;
        text.truncate(text.trim_end_matches('0').len());
    }
    Some(())
}

/// A moment of the years 0 to 9999.
fn utc(seconds: i64, nanoseconds: u32) -> Option<DateTime<Utc>> {
    DateTime::from_timestamp(seconds, nanoseconds).filter(|time| (0..=9999).contains(&time.year()))
}
