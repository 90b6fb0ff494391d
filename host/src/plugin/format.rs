//! The Arrow C data interface's names of the types that have a raw form: `l`, `u`, `tsu:UTC`, `d:10,2` and so on.

use arrow_schema::{DataType, IntervalUnit, TimeUnit};

use crate::ipc::fixed_width;

/// The format of a type; `None` where it has no raw form.
pub(super) fn format_of(data_type: &DataType) -> Option<String> {
    let text = match data_type {
        DataType::Timestamp(unit, zone) => {
            return Some(format!("ts{}:{}", unit_letter(*unit), zone.as_deref().unwrap_or_default()));
        }
        DataType::Time32(unit) | DataType::Time64(unit) => return Some(format!("tt{}", unit_letter(*unit))),
        DataType::Duration(unit) => return Some(format!("tD{}", unit_letter(*unit))),
        DataType::FixedSizeBinary(width) => return Some(format!("w:{width}")),
        DataType::Decimal128(precision, scale) => return Some(format!("d:{precision},{scale}")),
        DataType::Decimal32(precision, scale) => return Some(format!("d:{precision},{scale},32")),
        DataType::Decimal64(precision, scale) => return Some(format!("d:{precision},{scale},64")),
        DataType::Decimal256(precision, scale) => return Some(format!("d:{precision},{scale},256")),
        DataType::Boolean => "b",
        DataType::Int8 => "c",
        DataType::UInt8 => "C",
        DataType::Int16 => "s",
        DataType::UInt16 => "S",
        DataType::Int32 => "i",
        DataType::UInt32 => "I",
        DataType::Int64 => "l",
        DataType::UInt64 => "L",
        DataType::Float16 => "e",
        DataType::Float32 => "f",
        DataType::Float64 => "g",
        DataType::Utf8 => "u",
        DataType::Binary => "z",
        DataType::Date32 => "tdD",
        DataType::Date64 => "tdm",
        DataType::Interval(IntervalUnit::YearMonth) => "tiM",
        DataType::Interval(IntervalUnit::DayTime) => "tiD",
        DataType::Interval(IntervalUnit::MonthDayNano) => "tin",
        _ => return None,
    };
    Some(text.to_owned())
}

/// The type of a format; `None` where there is none with a raw form.
pub(super) fn type_of(format: &str) -> Option<DataType> {
    let data_type = match format {
        "b" => DataType::Boolean,
        "c" => DataType::Int8,
        "C" => DataType::UInt8,
        "s" => DataType::Int16,
        "S" => DataType::UInt16,
        "i" => DataType::Int32,
        "I" => DataType::UInt32,
        "l" => DataType::Int64,
        "L" => DataType::UInt64,
        "e" => DataType::Float16,
        "f" => DataType::Float32,
        "g" => DataType::Float64,
        "u" => DataType::Utf8,
        "z" => DataType::Binary,
        "tdD" => DataType::Date32,
        "tdm" => DataType::Date64,
        "tts" => DataType::Time32(TimeUnit::Second),
        "ttm" => DataType::Time32(TimeUnit::Millisecond),
        "ttu" => DataType::Time64(TimeUnit::Microsecond),
        "ttn" => DataType::Time64(TimeUnit::Nanosecond),
        "tiM" => DataType::Interval(IntervalUnit::YearMonth),
        "tiD" => DataType::Interval(IntervalUnit::DayTime),
        "tin" => DataType::Interval(IntervalUnit::MonthDayNano),
        other => parameterised(other)?,
    };
    (matches!(data_type, DataType::Boolean | DataType::Utf8 | DataType::Binary) || fixed_width(&data_type).is_some())
        .then_some(data_type)
}

/// Formats that carry numbers or a time zone.
fn parameterised(format: &str) -> Option<DataType> {
    if let Some(width) = format.strip_prefix("w:") {
        return width.parse().ok().map(DataType::FixedSizeBinary);
    }
    if let Some(numbers) = format.strip_prefix("d:") {
        return decimal(numbers);
    }
    if let Some(unit) = format.strip_prefix("tD") {
        return unit_of(unit).map(DataType::Duration);
    }
    let (unit, zone) = format.strip_prefix("ts")?.split_once(':')?;
    Some(DataType::Timestamp(unit_of(unit)?, (!zone.is_empty()).then(|| zone.into())))
}

/// `precision,scale` or `precision,scale,bits`.
fn decimal(numbers: &str) -> Option<DataType> {
    let mut parts = numbers.split(',');
    let (precision, scale) = (parts.next()?.parse().ok()?, parts.next()?.parse().ok()?);
    let data_type = match parts.next() {
        None | Some("128") => DataType::Decimal128(precision, scale),
        Some("32") => DataType::Decimal32(precision, scale),
        Some("64") => DataType::Decimal64(precision, scale),
        Some("256") => DataType::Decimal256(precision, scale),
        Some(_) => return None,
    };
    parts.next().is_none().then_some(data_type)
}

/// The letter of a time unit.
fn unit_letter(unit: TimeUnit) -> char {
    match unit {
        TimeUnit::Second => 's',
        TimeUnit::Millisecond => 'm',
        TimeUnit::Microsecond => 'u',
        TimeUnit::Nanosecond => 'n',
    }
}

/// The time unit of a letter.
fn unit_of(letter: &str) -> Option<TimeUnit> {
    match letter {
        "s" => Some(TimeUnit::Second),
        "m" => Some(TimeUnit::Millisecond),
        "u" => Some(TimeUnit::Microsecond),
        "n" => Some(TimeUnit::Nanosecond),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_type_with_a_raw_form_goes_there_and_back() {
        let known = [
            "b",
            "c",
            "C",
            "s",
            "S",
            "i",
            "I",
            "l",
            "L",
            "e",
            "f",
            "g",
            "u",
            "z",
            "tdD",
            "tdm",
            "tts",
            "ttm",
            "ttu",
            "ttn",
            "tDs",
            "tDm",
            "tDu",
            "tDn",
            "tsu:UTC",
            "tsn:",
            "tsm:Europe/Berlin",
            "tiM",
            "tiD",
            "tin",
            "w:16",
            "d:10,2",
            "d:9,0,32",
            "d:18,3,64",
            "d:76,-3,256",
        ];
        for format in known {
            assert_eq!(format_of(&type_of(format).unwrap()).as_deref(), Some(format));
        }
        for unknown in ["", "n", "vu", "+l", "U", "w:0", "w:-1", "w:x", "d:39,0", "d:1", "ts", "tsx:", "tsu", "d:1,0,5"]
        {
            assert_eq!(type_of(unknown), None, "{unknown}");
        }
        assert_eq!(format_of(&DataType::Utf8View), None);
    }
}
