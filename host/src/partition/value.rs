//! What is made of a value before it becomes a directory.

use std::sync::Arc;

use arrow_array::{Array, ArrayRef, Int64Array, cast::AsArray, types};
use arrow_cast::display::{ArrayFormatter, FormatOptions};
use arrow_schema::{ArrowError, DataType, Schema, TimeUnit};
use chrono::{DateTime, Datelike, NaiveDate, Utc};

use crate::config::PartitionTransform;

/// Seconds of an hour.
const HOUR_S: i64 = 3_600;

/// Seconds of a day.
const DAY_S: i64 = 86_400;

/// Whether values of a type can be directories.
pub(super) fn can_be_directory(data_type: &DataType, transform: PartitionTransform) -> bool {
    let is_time = matches!(data_type, DataType::Date32 | DataType::Date64 | DataType::Timestamp(_, _));
    match transform {
        PartitionTransform::Identity => {
            is_time
                || data_type.is_numeric()
                || matches!(
                    data_type,
                    DataType::Boolean
                        | DataType::Utf8
                        | DataType::LargeUtf8
                        | DataType::Time32(_)
                        | DataType::Time64(_)
                )
                || matches!(data_type, DataType::Dictionary(_, values) if **values == DataType::Utf8)
        }
        _ => is_time,
    }
}

/// The type of the column that rows are grouped by.
pub(super) fn key_type(schema: &Schema, position: usize, transform: PartitionTransform) -> DataType {
    match transform {
        PartitionTransform::Identity => schema.field(position).data_type().clone(),
        _ => DataType::Int64,
    }
}

/// The column that rows are grouped by: the values, or a number for each year, month, day or hour.
pub(super) fn key_column(column: &ArrayRef, transform: PartitionTransform) -> Result<ArrayRef, ArrowError> {
    if transform == PartitionTransform::Identity {
        return Ok(Arc::clone(column));
    }
    let keys: Int64Array = (0..column.len())
        .map(|row| epoch_seconds(column, row).map(|seconds| seconds.map(|seconds| period(seconds, transform))))
        .collect::<Result<_, _>>()?;
    Ok(Arc::new(keys))
}

/// Counts periods, so that two times in one period are equal.
fn period(seconds: i64, transform: PartitionTransform) -> i64 {
    let date = || NaiveDate::from_epoch_days(i32::try_from(seconds.div_euclid(DAY_S)).unwrap_or(i32::MAX));
    match transform {
        PartitionTransform::Identity => seconds,
        PartitionTransform::Hour => seconds.div_euclid(HOUR_S),
        PartitionTransform::Day => seconds.div_euclid(DAY_S),
        PartitionTransform::Month => {
            date().map_or(i64::MAX, |date| i64::from(date.year()) * 12 + i64::from(date.month0()))
        }
        PartitionTransform::Year => date().map_or(i64::MAX, |date| i64::from(date.year())),
    }
}

/// The right side of `=` before it is escaped; `None` for null.
pub(super) fn text(column: &ArrayRef, row: usize, transform: PartitionTransform) -> Result<Option<String>, ArrowError> {
    if column.is_null(row) {
        return Ok(None);
    }
    let format = match (transform, column.data_type()) {
        (PartitionTransform::Identity, DataType::Timestamp(_, _)) => return timestamp_text(column, row).map(Some),
        (PartitionTransform::Identity, _) => {
            let options = FormatOptions::default();
            return Ok(Some(ArrayFormatter::try_new(column, &options)?.value(row).try_to_string()?));
        }
        (PartitionTransform::Year, _) => "%Y",
        (PartitionTransform::Month, _) => "%Y-%m",
        (PartitionTransform::Day, _) => "%Y-%m-%d",
        (PartitionTransform::Hour, _) => "%Y-%m-%d-%H",
    };
    let seconds = epoch_seconds(column, row)?.unwrap_or_default();
    let time = DateTime::<Utc>::from_timestamp(seconds, 0);
    Ok(Some(time.map_or_else(|| "out-of-range".to_owned(), |time| time.format(format).to_string())))
}

/// As Spark prints a timestamp in UTC: `2026-11-23 14:05:12`, with the fraction only where there is one.
fn timestamp_text(column: &ArrayRef, row: usize) -> Result<String, ArrowError> {
    let (value, per_second) = timestamp_value(column, row)?;
    let nanos = value.rem_euclid(per_second) * (1_000_000_000 / per_second);
    let time = DateTime::<Utc>::from_timestamp(value.div_euclid(per_second), u32::try_from(nanos).unwrap_or(0));
    let text = time.map_or_else(|| value.to_string(), |time| time.format("%Y-%m-%d %H:%M:%S%.9f").to_string());
    Ok(if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.').to_owned() } else { text })
}

/// The number in a timestamp column, and how many make a second.
fn timestamp_value(column: &ArrayRef, row: usize) -> Result<(i64, i64), ArrowError> {
    Ok(match column.data_type() {
        DataType::Timestamp(TimeUnit::Second, _) => (column.as_primitive::<types::TimestampSecondType>().value(row), 1),
        DataType::Timestamp(TimeUnit::Millisecond, _) => {
            (column.as_primitive::<types::TimestampMillisecondType>().value(row), 1_000)
        }
        DataType::Timestamp(TimeUnit::Microsecond, _) => {
            (column.as_primitive::<types::TimestampMicrosecondType>().value(row), 1_000_000)
        }
        DataType::Timestamp(TimeUnit::Nanosecond, _) => {
            (column.as_primitive::<types::TimestampNanosecondType>().value(row), 1_000_000_000)
        }
        DataType::Date64 => (column.as_primitive::<types::Date64Type>().value(row), 1_000),
        other => return Err(ArrowError::InvalidArgumentError(format!("{other} is not a time"))),
    })
}

/// Seconds since 1970, rounded down; `None` for null.
fn epoch_seconds(column: &ArrayRef, row: usize) -> Result<Option<i64>, ArrowError> {
    if column.is_null(row) {
        return Ok(None);
    }
    if let Some(dates) = column.as_primitive_opt::<types::Date32Type>() {
        return Ok(Some(i64::from(dates.value(row)) * DAY_S));
    }
    let (value, per_second) = timestamp_value(column, row)?;
    Ok(Some(value.div_euclid(per_second)))
}

#[cfg(test)]
mod tests {
    use arrow_array::{Decimal128Array, Float64Array, TimestampMillisecondArray};

    use super::*;

    #[test]
    fn values_print_as_spark_prints_them() {
        let print = |column: ArrayRef| text(&column, 0, PartitionTransform::Identity).unwrap().unwrap();
        assert_eq!(print(Arc::new(Int64Array::from(vec![-5]))), "-5");
        assert_eq!(print(Arc::new(Float64Array::from(vec![1.5]))), "1.5");
        assert_eq!(print(Arc::new(TimestampMillisecondArray::from(vec![1_500]))), "1970-01-01 00:00:01.5");
        assert_eq!(print(Arc::new(TimestampMillisecondArray::from(vec![-1_000]))), "1969-12-31 23:59:59");
        let decimal = Decimal128Array::from(vec![1_250]).with_precision_and_scale(10, 2).unwrap();
        assert_eq!(print(Arc::new(decimal)), "12.50");
    }
}
