//! Keeps the rows whose column has one of the given values.
//!
//! ```yaml
//! config: {column: country, values: [DE, FR], invert: false, keep_nulls: false}
//! ```

use std::{collections::HashSet, fmt};

use arrow_array::{
    cast::AsArray,
    types::{
        ArrowPrimitiveType, Int8Type, Int16Type, Int32Type, Int64Type, UInt8Type, UInt16Type, UInt32Type, UInt64Type,
    },
};
use fs_data_sink_plugin::prelude::*;

/// What stands under `config:`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// The column looked at: text, whole numbers or booleans.
    column: String,
    /// What it may have.
    values: Vec<Value>,
    /// Keep the others instead.
    #[serde(default)]
    invert: bool,
    /// Whether rows without a value are kept.
    #[serde(default)]
    keep_nulls: bool,
}

/// A value in the configuration.
#[derive(Debug, Deserialize)]
#[serde(untagged, expecting = "expected a text, a whole number, true or false")]
enum Value {
    /// `true` or `false`.
    Bool(bool),
    /// A whole number.
    Integer(i64),
    /// A text.
    Text(String),
}

impl fmt::Display for Value {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Bool(value) => write!(formatter, "{value}"),
            Self::Integer(value) => write!(formatter, "{value}"),
            Self::Text(value) => write!(formatter, "{value:?}"),
        }
    }
}

/// The values in the form of the column.
#[derive(Debug)]
enum Wanted {
    /// For text.
    Texts(HashSet<String>),
    /// For whole numbers.
    Integers(HashSet<i64>),
    /// For booleans: whether false, whether true.
    Bools(bool, bool),
}

/// The filter.
#[derive(Debug)]
pub struct KeepValues {
    /// The column looked at.
    column: String,
    /// What it may have.
    wanted: Wanted,
    /// Keep the others instead.
    invert: bool,
    /// Whether rows without a value are kept.
    keep_nulls: bool,
}

impl Plugin for KeepValues {
    type Config = Config;
    const DESCRIPTION: &'static str = "keeps the rows whose column has one of the given values";
    const ROLES: &'static [Role] = &[Role::Filter];
    const DETERMINISTIC: bool = true;
    const CONFIG_SCHEMA: Option<&'static str> = Some(
        r#"{"type":"object","required":["column","values"],"additionalProperties":false,"properties":{"column":{"type":"string"},"values":{"type":"array","items":{"type":["string","integer","boolean"]}},"invert":{"type":"boolean"},"keep_nulls":{"type":"boolean"}}}"#,
    );

    fn open(config: Config, input: &Schema) -> Result<Self, OpenError> {
        let Config { column, values, invert, keep_nulls } = config;
        let field = input.field_with_name(&column).map_err(|_| OpenError::no_column(&column, input))?;
        Ok(Self { wanted: Wanted::new(field, values)?, column, invert, keep_nulls })
    }

    fn process(&mut self, batch: &Batch<'_>) -> Result<Output, ProcessError> {
        let column = batch.column(&self.column)?;
        let matches = self.wanted.matches(&column)?;
        Ok(Output::keep(
            (0..column.len())
                .zip(matches)
                .map(|(row, matches)| if column.is_null(row) { self.keep_nulls } else { matches != self.invert }),
        ))
    }
}

impl Wanted {
    /// The configured values in the form of a column.
    fn new(field: &Field, values: Vec<Value>) -> Result<Self, OpenError> {
        let (name, data_type) = (field.name(), field.data_type());
        let (mut texts, mut integers, mut bools) = (HashSet::new(), HashSet::new(), (false, false));
        for (number, value) in values.into_iter().enumerate() {
            match (value, data_type) {
                (Value::Text(text), DataType::Utf8 | DataType::LargeUtf8) => drop(texts.insert(text)),
                (Value::Integer(integer), data_type) if data_type.is_integer() => drop(integers.insert(integer)),
                (Value::Bool(false), DataType::Boolean) => bools.0 = true,
                (Value::Bool(true), DataType::Boolean) => bools.1 = true,
                (value, _) => {
                    return Err(OpenError::invalid_config(format!(
                        "values[{number}]: {value} cannot be in column {name:?} of type {data_type}"
                    )));
                }
            }
        }
        match data_type {
            DataType::Utf8 | DataType::LargeUtf8 => Ok(Self::Texts(texts)),
            DataType::Boolean => Ok(Self::Bools(bools.0, bools.1)),
            data_type if data_type.is_integer() => Ok(Self::Integers(integers)),
            other => Err(OpenError::unsupported_schema(format!(
                "column {name:?} is of type {other}; text, whole numbers and booleans can be filtered"
            ))),
        }
    }

    /// Whether each row has one of the values; without meaning where there is none.
    fn matches(&self, column: &ArrayRef) -> Result<Vec<bool>, ProcessError> {
        Ok(match (self, column.data_type()) {
            (Self::Texts(texts), DataType::LargeUtf8) => is_in(column.as_string::<i64>(), |text| texts.contains(text)),
            (Self::Texts(texts), _) => is_in(column.as_string::<i32>(), |text| texts.contains(text)),
            (Self::Bools(no, yes), _) => is_in(column.as_boolean(), |value| if value { *yes } else { *no }),
            (Self::Integers(wanted), DataType::Int8) => integers::<Int8Type>(column, wanted),
            (Self::Integers(wanted), DataType::Int16) => integers::<Int16Type>(column, wanted),
            (Self::Integers(wanted), DataType::Int32) => integers::<Int32Type>(column, wanted),
            (Self::Integers(wanted), DataType::Int64) => integers::<Int64Type>(column, wanted),
            (Self::Integers(wanted), DataType::UInt8) => integers::<UInt8Type>(column, wanted),
            (Self::Integers(wanted), DataType::UInt16) => integers::<UInt16Type>(column, wanted),
            (Self::Integers(wanted), DataType::UInt32) => integers::<UInt32Type>(column, wanted),
            (Self::Integers(wanted), DataType::UInt64) => integers::<UInt64Type>(column, wanted),
            (Self::Integers(_), other) => return Err(ProcessError::failed(format!("{other} is not a whole number"))),
        })
    }
}

/// Whether each value is one of those wanted; false where there is no value.
fn is_in<T>(values: impl IntoIterator<Item = Option<T>>, wanted: impl Fn(T) -> bool) -> Vec<bool> {
    values.into_iter().map(|value| value.is_some_and(&wanted)).collect()
}

/// The same for whole numbers of one width. What does not fit 64 bits with a sign cannot stand in the configuration.
fn integers<T: ArrowPrimitiveType>(column: &ArrayRef, wanted: &HashSet<i64>) -> Vec<bool>
where
    T::Native: TryInto<i64>,
{
    is_in(column.as_primitive::<T>(), |value| value.try_into().is_ok_and(|value| wanted.contains(&value)))
}

export_plugin!(KeepValues);

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow_array::{Int32Array, LargeStringArray, StringArray, UInt64Array};
    use fs_data_sink_plugin::testing::Harness;

    use super::*;

    /// Rows of a country and a number.
    fn rows() -> RecordBatch {
        let countries: ArrayRef = Arc::new(StringArray::from(vec![Some("DE"), Some("US"), None, Some("FR")]));
        let numbers: ArrayRef = Arc::new(Int32Array::from(vec![1, 2, 3, 4]));
        RecordBatch::try_from_iter_with_nullable([("country", countries, true), ("n", numbers, false)]).unwrap()
    }

    /// The numbers that are kept.
    fn kept(config: &str) -> Vec<i32> {
        let rows = rows();
        let mut harness = Harness::<KeepValues>::open(config, rows.schema_ref()).unwrap();
        let processed = harness.process(&rows).unwrap();
        processed.batches[0].column(1).as_primitive::<Int32Type>().values().to_vec()
    }

    #[test]
    fn rows_with_the_values_are_kept() {
        assert_eq!(kept(r#"{"column":"country","values":["DE","FR"]}"#), [1, 4]);
        assert_eq!(kept(r#"{"column":"country","values":["DE"],"invert":true}"#), [2, 4]);
        assert_eq!(kept(r#"{"column":"country","values":["DE"],"keep_nulls":true}"#), [1, 3]);
        assert_eq!(kept(r#"{"column":"n","values":[2,9]}"#), [2]);
    }

    #[test]
    fn booleans_and_every_width_of_numbers_are_filtered() {
        let arrays: [ArrayRef; 3] = [
            Arc::new(BooleanArray::from(vec![Some(true), Some(false), None])),
            Arc::new(UInt64Array::from(vec![1, u64::MAX, 2])),
            Arc::new(LargeStringArray::from(vec!["a", "b", "c"])),
        ];
        let rows = RecordBatch::try_from_iter_with_nullable(
            ["b", "n", "t"].into_iter().zip(arrays).map(|(name, array)| (name, array, true)),
        )
        .unwrap();
        let count = |config: &str| {
            Harness::<KeepValues>::open(config, rows.schema_ref()).unwrap().process(&rows).unwrap().batches[0]
                .num_rows()
        };
        assert_eq!(count(r#"{"column":"b","values":[false]}"#), 1);
        assert_eq!(count(r#"{"column":"b","values":[true,false]}"#), 2);
        assert_eq!(count(r#"{"column":"n","values":[2,-1]}"#), 1);
        assert_eq!(count(r#"{"column":"t","values":["a","c"]}"#), 2);
    }

    #[test]
    fn wrong_configurations_are_refused_in_words() {
        let refuse = |config: &str| Harness::<KeepValues>::open(config, rows().schema_ref()).unwrap_err().to_string();
        let expected = [
            (r#"{"column":"land","values":[]}"#, "the rows have no column \"land\"; they have: country, n"),
            (r#"{"column":"n","values":[1,"x"]}"#, "values[1]: \"x\" cannot be in column \"n\" of type Int32"),
            (r#"{"column":"n","values":[1.5]}"#, "values[0]: expected a text, a whole number, true or false"),
            (
                r#"{"column":"n","values":[1],"invert":"yes"}"#,
                "invert: invalid type: string \"yes\", expected a boolean",
            ),
            (r#"{"values":[1]}"#, "missing field `column`"),
        ];
        for (config, words) in expected {
            assert_eq!(refuse(config), words);
        }
        assert!(refuse(r#"{"column":"n","values":[1],"colour":1}"#).starts_with("unknown field `colour`"));
    }
}
