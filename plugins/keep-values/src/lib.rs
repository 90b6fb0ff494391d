//! Keeps the rows whose column has one of the given values.
//!
//! ```yaml
//! config: {column: country, values: [DE, FR], invert: false, keep_nulls: false}
//! ```

use std::collections::HashSet;

use arrow_array::{
    cast::AsArray,
    types::{Int8Type, Int16Type, Int32Type, Int64Type, UInt8Type, UInt16Type, UInt32Type},
};
use fs_data_sink_plugin::prelude::*;

/// What stands under `config:`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// The column looked at.
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
#[serde(untagged)]
enum Value {
    /// `true` or `false`.
    Bool(bool),
    /// A whole number.
    Integer(i64),
    /// A text.
    Text(String),
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
    const CONFIG_SCHEMA: Option<&'static str> = Some(
        r#"{"type":"object","required":["column","values"],"additionalProperties":false,"properties":{"column":{"type":"string"},"values":{"type":"array"},"invert":{"type":"boolean"},"keep_nulls":{"type":"boolean"}}}"#,
    );

    fn open(config: Config, input: &Schema) -> Result<Self, OpenError> {
        let Config { column, values, invert, keep_nulls } = config;
        let field = input.field_with_name(&column).map_err(|_| OpenError::no_column(&column, input))?;
        let wrong = |value: &Value| {
            OpenError::invalid_config(format!(
                "values: {value:?} cannot be in column {column:?} of type {}",
                field.data_type()
            ))
        };
        let wanted = match field.data_type() {
            DataType::Utf8 => Wanted::Texts(collect(
                &values,
                |value| match value {
                    Value::Text(text) => Some(text.clone()),
                    _ => None,
                },
                wrong,
            )?),
            data_type if data_type.is_integer() && *data_type != DataType::UInt64 => Wanted::Integers(collect(
                &values,
                |value| match value {
                    Value::Integer(number) => Some(*number),
                    _ => None,
                },
                wrong,
            )?),
            DataType::Boolean => {
                let bools: HashSet<bool> = collect(
                    &values,
                    |value| match value {
                        Value::Bool(value) => Some(*value),
                        _ => None,
                    },
                    wrong,
                )?;
                Wanted::Bools(bools.contains(&false), bools.contains(&true))
            }
            other => {
                return Err(OpenError::unsupported_schema(format!(
                    "column {column:?} is of type {other}; text, whole numbers and booleans can be filtered"
                )));
            }
        };
        Ok(Self { column, wanted, invert, keep_nulls })
    }

    fn process(&mut self, batch: &Batch<'_>) -> Result<Output, ProcessError> {
        let column = batch.column(&self.column)?;
        let matches: Vec<bool> = match &self.wanted {
            Wanted::Texts(texts) => {
                column.as_string::<i32>().iter().map(|value| value.is_some_and(|value| texts.contains(value))).collect()
            }
            Wanted::Integers(numbers) => integers(&column)?
                .into_iter()
                .map(|value| value.is_some_and(|value| numbers.contains(&value)))
                .collect(),
            Wanted::Bools(no, yes) => column
                .as_boolean()
                .iter()
                .map(|value| value.is_some_and(|value| if value { *yes } else { *no }))
                .collect(),
        };
        Ok(Output::keep(
            matches
                .into_iter()
                .enumerate()
                .map(|(row, matches)| if column.is_null(row) { self.keep_nulls } else { matches != self.invert }),
        ))
    }
}

/// The configured values in the column's form.
fn collect<T: Eq + std::hash::Hash>(
    values: &[Value],
    convert: impl Fn(&Value) -> Option<T>,
    wrong: impl Fn(&Value) -> OpenError,
) -> Result<HashSet<T>, OpenError> {
    values.iter().map(|value| convert(value).ok_or_else(|| wrong(value))).collect()
}

/// Whole numbers of any width.
fn integers(column: &ArrayRef) -> Result<Vec<Option<i64>>, ProcessError> {
    macro_rules! wide {
        ($($data_type:ident => $primitive:ty),*) => {
            match column.data_type() {
                $(DataType::$data_type => Ok(column.as_primitive::<$primitive>().iter().map(|value| value.map(i64::from)).collect()),)*
                other => Err(ProcessError::failed(format!("{other} is not a whole number"))),
            }
        };
    }
    wide!(Int8 => Int8Type, Int16 => Int16Type, Int32 => Int32Type, Int64 => Int64Type, UInt8 => UInt8Type, UInt16 => UInt16Type, UInt32 => UInt32Type)
}

export_plugin!(KeepValues);

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow_array::{Int32Array, StringArray};
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
    fn wrong_configurations_are_refused_in_words() {
        let refuse = |config: &str| Harness::<KeepValues>::open(config, rows().schema_ref()).unwrap_err().to_string();
        assert_eq!(
            refuse(r#"{"column":"land","values":[]}"#),
            "the rows have no column \"land\"; they have: country, n"
        );
        assert!(
            refuse(r#"{"column":"n","values":["x"]}"#).starts_with("values: Text(\"x\") cannot be in column \"n\"")
        );
        assert!(refuse(r#"{"column":"n","values":[1],"colour":1}"#).starts_with("unknown field `colour`"));
        assert!(refuse(r#"{"values":[1]}"#).starts_with("missing field `column`"));
    }
}
