//! Which Arrow types are read from others.
//!
//! The list is closed: a type that is not on it can claim any number of rows without paying for them in bytes
//! (run-end, union, zero-width), and the host would pay instead. Views of producers are added up in `walk`.

use std::collections::HashSet;

use arrow_schema::{DataType, Field, IntervalUnit, Schema, TimeUnit};

use super::{Refused, Writer};

/// Lists in structs in lists: deeper than this no plugin answers, and every level costs stack in the host.
const PLUGIN_DEPTH_MAX: usize = 8;
/// The same of producers: deeper than a list of objects in a list of objects, sixteen times.
const PRODUCER_DEPTH_MAX: usize = 32;
/// Fields at all levels together; the widest tables seen in practice have a few thousand.
const FIELDS_MAX: usize = 10_000;
/// Bytes of one column name.
const NAME_BYTES_MAX: usize = 1024;

/// Refuses a schema with a type that is not on the list, too many or too long names, or one name twice. A column that
/// `passed_on` has too may be of any type: the host takes it from the input.
pub fn check_schema(schema: &Schema, writer: Writer, passed_on: Option<&Schema>) -> Result<(), Refused> {
    let mut names = HashSet::new();
    let mut check = Check { writer, fields: 0 };
    for field in schema.fields() {
        let known = passed_on.and_then(|input| input.column_with_name(field.name()));
        if known.is_none_or(|(_, known)| known.data_type() != field.data_type()) {
            check.field(field, 1, writer == Writer::Producer)?;
        }
        if !names.insert(field.name()) {
            return Err(Refused::new(format!("a schema with two columns named `{}`", field.name())));
        }
    }
    Ok(())
}

/// A look at all fields of a schema.
struct Check {
    /// Whose schema.
    writer: Writer,
    /// Fields so far.
    fields: usize,
}

impl Check {
    /// One field with all below it; `has_null` where a column of type null has as many rows as its batch.
    fn field(&mut self, field: &Field, depth: usize, has_null: bool) -> Result<(), Refused> {
        let depth_max = if self.writer == Writer::Plugin { PLUGIN_DEPTH_MAX } else { PRODUCER_DEPTH_MAX };
        self.fields += 1;
        if self.fields > FIELDS_MAX {
            return Err(Refused::new(format!("a schema of more than {FIELDS_MAX} fields")));
        }
        if field.name().len() > NAME_BYTES_MAX {
            return Err(Refused::new(format!("a column name of more than {NAME_BYTES_MAX} bytes")));
        }
        if depth > depth_max {
            return Err(Refused::new(format!("a type nested deeper than {depth_max} levels")));
        }
        match field.data_type() {
            DataType::List(item) | DataType::LargeList(item) => self.field(item, depth + 1, false),
            DataType::FixedSizeList(item, size) if *size > 0 => self.field(item, depth + 1, false),
            DataType::Struct(children) if !children.is_empty() => {
                children.iter().try_for_each(|child| self.field(child, depth + 1, has_null))
            }
            DataType::Map(entries, _) if is_map_entries(entries) => self.field(entries, depth + 1, false),
            DataType::Null if has_null => Ok(()),
            flat if self.is_flat(flat) => Ok(()),
            other => Err(Refused::Type { column: field.name().clone(), data_type: other.clone() }),
        }
    }

    /// Types without children that are read.
    fn is_flat(&self, data_type: &DataType) -> bool {
        let is_bytes = |data_type: &DataType| {
            matches!(data_type, DataType::Utf8 | DataType::LargeUtf8 | DataType::Binary | DataType::LargeBinary)
        };
        match data_type {
            DataType::Dictionary(keys, values) => {
                let has_numbers = self.writer == Writer::Producer && fixed_width(values).is_some();
                keys.is_integer() && (is_bytes(values) || has_numbers)
            }
            DataType::Utf8View | DataType::BinaryView => self.writer == Writer::Producer,
            DataType::Boolean => true,
            other => is_bytes(other) || fixed_width(other).is_some(),
        }
    }
}

/// Whether a map's child is a struct of a key that is never null and a value.
fn is_map_entries(entries: &Field) -> bool {
    match entries.data_type() {
        DataType::Struct(children) => {
            matches!(children.as_ref(), [key, _] if !key.is_nullable()) && !entries.is_nullable()
        }
        _ => false,
    }
}

/// Bytes per value of a type without children whose values are all of one length of whole bytes.
#[must_use]
pub fn fixed_width(data_type: &DataType) -> Option<usize> {
    let decimal =
        |precision: u8, scale: i8, digits: u8| (1..=digits).contains(&precision) && scale.unsigned_abs() <= precision;
    match data_type {
        DataType::Int8 | DataType::UInt8 => Some(1),
        DataType::Int16 | DataType::UInt16 | DataType::Float16 => Some(2),
        DataType::Int32
        | DataType::UInt32
        | DataType::Float32
        | DataType::Date32
        | DataType::Time32(TimeUnit::Second | TimeUnit::Millisecond)
        | DataType::Interval(IntervalUnit::YearMonth) => Some(4),
        DataType::Int64
        | DataType::UInt64
        | DataType::Float64
        | DataType::Date64
        | DataType::Time64(TimeUnit::Microsecond | TimeUnit::Nanosecond)
        | DataType::Timestamp(..)
        | DataType::Duration(_)
        | DataType::Interval(IntervalUnit::DayTime) => Some(8),
        DataType::Interval(IntervalUnit::MonthDayNano) => Some(16),
        DataType::Decimal32(precision, scale) if decimal(*precision, *scale, 9) => Some(4),
        DataType::Decimal64(precision, scale) if decimal(*precision, *scale, 18) => Some(8),
        DataType::Decimal128(precision, scale) if decimal(*precision, *scale, 38) => Some(16),
        DataType::Decimal256(precision, scale) if decimal(*precision, *scale, 76) => Some(32),
        DataType::FixedSizeBinary(width) => usize::try_from(*width).ok().filter(|width| *width > 0),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow_schema::Fields;

    use super::*;

    /// A schema of one column.
    fn schema_of(data_type: DataType) -> Schema {
        Schema::new(vec![Field::new("x", data_type, true)])
    }

    #[test]
    fn types_that_cost_nothing_per_row_are_refused_and_the_others_pass() {
        let item = |data_type| Arc::new(Field::new("item", data_type, true));
        for refused in [
            DataType::Null,
            DataType::Utf8View,
            DataType::BinaryView,
            DataType::FixedSizeBinary(0),
            DataType::FixedSizeList(item(DataType::Int8), 0),
            DataType::Struct(Fields::empty()),
            DataType::ListView(item(DataType::Int8)),
            DataType::Time32(TimeUnit::Nanosecond),
            DataType::Decimal128(40, 0),
            DataType::List(item(DataType::Null)),
            DataType::Dictionary(Box::new(DataType::Int32), Box::new(DataType::Int64)),
        ] {
            assert!(check_schema(&schema_of(refused.clone()), Writer::Plugin, None).is_err(), "{refused}");
        }
        for allowed in [
            DataType::Boolean,
            DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into())),
            DataType::Decimal128(10, 2),
            DataType::FixedSizeBinary(16),
            DataType::List(item(DataType::Struct(Fields::from(vec![Field::new("a", DataType::Utf8, true)])))),
            DataType::Dictionary(Box::new(DataType::Int32), Box::new(DataType::Utf8)),
        ] {
            check_schema(&schema_of(allowed), Writer::Plugin, None).unwrap();
        }
    }

    #[test]
    fn nesting_and_double_names_are_refused_in_words() {
        let mut deep = DataType::Int8;
        for _ in 0..9 {
            deep = DataType::List(Arc::new(Field::new("item", deep, true)));
        }
        let message = check_schema(&schema_of(deep), Writer::Plugin, None).unwrap_err().to_string();
        assert_eq!(message, "a type nested deeper than 8 levels");
        let twice = Schema::new(vec![Field::new("a", DataType::Int8, true), Field::new("a", DataType::Int8, true)]);
        let message = check_schema(&twice, Writer::Plugin, None).unwrap_err().to_string();
        assert_eq!(message, "a schema with two columns named `a`");
    }
}
