//! Adds columns that a bucket has for each row's key: a Redis, or a table in a file, whose values are JSON objects.
//!
//! ```yaml
//! config:
//!   column: customer_id
//!   bucket: customers
//!   fields: [{name: country}, {name: age, as: customer_age, type: integer}]
//!   on_missing: null        # null | reject: a row whose key the bucket has not
//! grants:
//!   keyvalue:
//!     - {bucket: customers, access: read, table: {path: customers.parquet, key: id}}
//! ```

use std::{
    collections::{BTreeMap, HashMap},
    str::FromStr,
    sync::Arc,
};

use arrow_array::{
    ArrayRef, BooleanArray, Float64Array, Int64Array, StringArray,
    cast::AsArray,
    types::{
        ArrowPrimitiveType, Int8Type, Int16Type, Int32Type, Int64Type, UInt8Type, UInt16Type, UInt32Type, UInt64Type,
    },
};
use fs_data_sink_plugin::{keyvalue::Bucket, prelude::*};
use serde_json::{Map, Value};

/// Keys in one question: so many values of usual size fit one answer.
const KEYS_AT_ONCE: usize = 1_000;

/// What stands under `config:`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// The column with the keys: text or whole numbers.
    column: String,
    /// What the grant calls the bucket.
    bucket: String,
    /// What is added of what the bucket has.
    fields: Vec<FieldConfig>,
    /// What becomes of a row whose key the bucket has not.
    #[serde(default)]
    on_missing: OnMissing,
}

/// One column that is added.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct FieldConfig {
    /// The field of the JSON object.
    name: String,
    /// The column, if it is called something else.
    #[serde(rename = "as")]
    column: Option<String>,
    /// Its type.
    #[serde(default, rename = "type")]
    kind: Kind,
}

/// What becomes of a row whose key the bucket has not.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
enum OnMissing {
    /// Its columns are null.
    #[default]
    Null,
    /// It is refused.
    Reject,
}

/// The type of a column that is added.
#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Kind {
    /// Text; what is none in JSON stays JSON.
    #[default]
    String,
    /// A whole number; also one in a text, as tables of CSV have it.
    Integer,
    /// A number; also one in a text.
    Double,
    /// `true` or `false`; also in a text.
    Boolean,
}

/// The enricher.
#[derive(Debug)]
pub struct EnrichLookup {
    /// The column with the keys.
    column: String,
    /// Where they are looked up.
    bucket: Bucket,
    /// Field of the object, column and type.
    fields: Vec<(String, Field, Kind)>,
    /// What becomes of a row whose key the bucket has not.
    on_missing: OnMissing,
}

impl Plugin for EnrichLookup {
    type Config = Config;
    const DESCRIPTION: &'static str = "adds columns that a bucket has for each row's key";
    const ROLES: &'static [Role] = &[Role::Enrich];
    const CONFIG_SCHEMA: Option<&'static str> = Some(
        r#"{"type":"object","required":["column","bucket","fields"],"additionalProperties":false,"properties":{"column":{"type":"string"},"bucket":{"type":"string"},"fields":{"type":"array","items":{"type":"object","required":["name"],"additionalProperties":false,"properties":{"name":{"type":"string"},"as":{"type":"string"},"type":{"enum":["string","integer","double","boolean"]}}}},"on_missing":{"enum":["null","reject"]}}}"#,
    );

    fn open(config: Config, input: &Schema) -> Result<Self, OpenError> {
        let Config { column, bucket, fields, on_missing } = config;
        let key = input.field_with_name(&column).map_err(|_| OpenError::no_column(&column, input))?;
        let data_type = key.data_type();
        if !data_type.is_integer() && !matches!(data_type, DataType::Utf8 | DataType::LargeUtf8) {
            return Err(OpenError::unsupported_schema(format!(
                "column {column:?} is of type {data_type}; text and whole numbers can be looked up"
            )));
        }
        if fields.is_empty() {
            return Err(OpenError::invalid_config("fields: expected at least one"));
        }
        let field = |FieldConfig { name, column, kind }: FieldConfig| {
            let column = Field::new(column.unwrap_or_else(|| name.clone()), kind.data_type(), true);
            (name, column, kind)
        };
        let fields = fields.into_iter().map(field).collect();
        Ok(Self { column, bucket: Bucket::open(&bucket)?, fields, on_missing })
    }

    fn output_schema(&self, _: &Schema) -> OutputSchema {
        OutputSchema::Extend(self.fields.iter().map(|(_, field, _)| field.clone()).collect())
    }

    fn process(&mut self, batch: &Batch<'_>) -> Result<Output, ProcessError> {
        let keys = keys(&batch.column(&self.column)?)?;
        let mut found: HashMap<&str, Option<Map<String, Value>>> =
            keys.iter().flatten().map(|key| (key.as_str(), None)).collect();
        let mut asked: Vec<String> = found.keys().map(|key| (*key).to_owned()).collect();
        asked.sort_unstable();
        for asked in asked.chunks(KEYS_AT_ONCE) {
            for (key, value) in asked.iter().zip(self.bucket.get_many(asked)?) {
                let object = value.map(|value| object(key, &value)).transpose()?;
                if let Some(place) = found.get_mut(key.as_str()) {
                    *place = object;
                }
            }
        }
        let rows: Vec<Option<&Map<String, Value>>> =
            keys.iter().map(|key| found.get(key.as_deref()?)?.as_ref()).collect();
        let columns = self.fields.iter().map(|(name, field, kind)| (field.clone(), kind.column(name, &rows))).collect();
        let mut output = Output::keep_all().with_columns(columns);
        if self.on_missing == OnMissing::Reject {
            let mut missing: BTreeMap<Option<&str>, Vec<u32>> = BTreeMap::new();
            for (row, key) in (0..).zip(&keys).filter(|(row, _)| rows.get(*row as usize).is_some_and(Option::is_none)) {
                missing.entry(key.as_deref()).or_default().push(row);
            }
            for (key, rows) in missing {
                let words = match key {
                    Some(key) => format!("the bucket has no {key:?}"),
                    None => format!("{} is null", self.column),
                };
                output = output.reject(rows, "not-found", words);
            }
        }
        Ok(output)
    }
}

impl Kind {
    /// The Arrow type.
    fn data_type(self) -> DataType {
        match self {
            Self::String => DataType::Utf8,
            Self::Integer => DataType::Int64,
            Self::Double => DataType::Float64,
            Self::Boolean => DataType::Boolean,
        }
    }

    /// A field of each row; null where the row has none, or one of another type.
    fn column(self, name: &str, rows: &[Option<&Map<String, Value>>]) -> ArrayRef {
        let values = rows.iter().map(|row| row.and_then(|row| row.get(name)).filter(|value| !value.is_null()));
        match self {
            Self::String => Arc::new(values.map(|value| value.map(text)).collect::<StringArray>()),
            Self::Integer => Arc::new(values.map(|value| read(value?, Value::as_i64)).collect::<Int64Array>()),
            Self::Double => Arc::new(values.map(|value| read(value?, Value::as_f64)).collect::<Float64Array>()),
            Self::Boolean => Arc::new(values.map(|value| read(value?, Value::as_bool)).collect::<BooleanArray>()),
        }
    }
}

/// A value of a type; also one in a text.
fn read<T: FromStr>(value: &Value, own: impl Fn(&Value) -> Option<T>) -> Option<T> {
    own(value).or_else(|| value.as_str()?.trim().parse().ok())
}

/// A value as text.
fn text(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

/// What a bucket has for a key.
fn object(key: &str, value: &[u8]) -> Result<Map<String, Value>, ProcessError> {
    serde_json::from_slice(value)
        .map_err(|error| ProcessError::failed(format!("what the bucket has for {key:?} is no JSON object: {error}")))
}

/// The keys of the rows.
fn keys(column: &ArrayRef) -> Result<Vec<Option<String>>, ProcessError> {
    Ok(match column.data_type() {
        DataType::Utf8 => texts(column.as_string::<i32>().iter()),
        DataType::LargeUtf8 => texts(column.as_string::<i64>().iter()),
        DataType::Int8 => numbers::<Int8Type>(column),
        DataType::Int16 => numbers::<Int16Type>(column),
        DataType::Int32 => numbers::<Int32Type>(column),
        DataType::Int64 => numbers::<Int64Type>(column),
        DataType::UInt8 => numbers::<UInt8Type>(column),
        DataType::UInt16 => numbers::<UInt16Type>(column),
        DataType::UInt32 => numbers::<UInt32Type>(column),
        DataType::UInt64 => numbers::<UInt64Type>(column),
        other => return Err(ProcessError::failed(format!("{other} cannot be looked up"))),
    })
}

/// Texts as keys.
fn texts<'a>(column: impl Iterator<Item = Option<&'a str>>) -> Vec<Option<String>> {
    column.map(|text| text.map(str::to_owned)).collect()
}

/// Whole numbers as keys.
fn numbers<T: ArrowPrimitiveType>(column: &ArrayRef) -> Vec<Option<String>>
where
    T::Native: ToString,
{
    column.as_primitive::<T>().iter().map(|number| number.map(|number| number.to_string())).collect()
}

export_plugin!(EnrichLookup);

#[cfg(test)]
mod tests {
    use fs_data_sink_plugin::testing::{Harness, grant_bucket};

    use super::*;

    /// Rows of an id and a number.
    fn rows() -> RecordBatch {
        let ids: ArrayRef = Arc::new(StringArray::from(vec![Some("a"), Some("x"), None, Some("b"), Some("a")]));
        let numbers: ArrayRef = Arc::new(Int64Array::from(vec![1, 2, 3, 4, 5]));
        RecordBatch::try_from_iter_with_nullable([("id", ids, true), ("n", numbers, false)]).unwrap()
    }

    /// What a batch comes to.
    fn process(config: &str) -> Result<fs_data_sink_plugin::testing::Processed, ProcessError> {
        grant_bucket("customers", [("a", r#"{"name":"Ann","age":"41","vip":true}"#), ("b", r#"{"name":7,"age":1.5}"#)]);
        grant_bucket("broken", [("a", "[1]")]);
        let rows = rows();
        Harness::<EnrichLookup>::open(config, rows.schema_ref()).unwrap().process(&rows)
    }

    #[test]
    fn columns_are_added_by_key() {
        let processed = process(
            r#"{"column":"id","bucket":"customers","fields":[{"name":"name"},{"name":"age","as":"years","type":"integer"},{"name":"vip","type":"boolean"},{"name":"age","type":"double"}]}"#,
        )
        .unwrap();
        let [batch] = processed.batches.as_slice() else { panic!("one batch") };
        let names: Vec<_> = batch.column(2).as_string::<i32>().iter().collect();
        assert_eq!(names, [Some("Ann"), None, None, Some("7"), Some("Ann")]);
        let years: Vec<_> = batch.column_by_name("years").unwrap().as_primitive::<Int64Type>().iter().collect();
        assert_eq!(years, [Some(41), None, None, None, Some(41)]);
        let vip: Vec<_> = batch.column_by_name("vip").unwrap().as_boolean().iter().collect();
        assert_eq!(vip, [Some(true), None, None, None, Some(true)]);
        let ages: Vec<_> =
            batch.column_by_name("age").unwrap().as_primitive::<arrow_array::types::Float64Type>().iter().collect();
        assert_eq!(ages, [Some(41.0), None, None, Some(1.5), Some(41.0)]);
    }

    #[test]
    fn rows_without_a_match_are_refused_if_wanted() {
        let processed =
            process(r#"{"column":"id","bucket":"customers","fields":[{"name":"name"}],"on_missing":"reject"}"#)
                .unwrap();
        assert_eq!(processed.batches[0].num_rows(), 3);
        let refused: Vec<_> = processed.rejections.iter().flat_map(|one| one.rows.clone()).collect();
        assert_eq!(refused, [2, 1]);
        let words: Vec<_> = processed.rejections.iter().map(|one| one.message.as_str()).collect();
        assert_eq!(words, ["id is null", "the bucket has no \"x\""]);
    }

    #[test]
    fn wrong_configurations_and_values_are_told() {
        let refuse = |config: &str| Harness::<EnrichLookup>::open(config, rows().schema_ref()).unwrap_err().to_string();
        grant_bucket("customers", [("a", "{}")]);
        let field = r#""fields":[{"name":"n"}]"#;
        for (config, words) in [
            (
                format!(r#"{{"column":"no","bucket":"customers",{field}}}"#),
                "the rows have no column \"no\"; they have: id, n",
            ),
            (
                format!(r#"{{"column":"id","bucket":"other",{field}}}"#),
                "the bucket \"other\" is not granted, or not for this: add it to grants.keyvalue",
            ),
            (r#"{"column":"id","bucket":"customers","fields":[]}"#.to_owned(), "fields: expected at least one"),
        ] {
            assert_eq!(refuse(&config), words);
        }
        let error = process(&format!(r#"{{"column":"id","bucket":"broken",{field}}}"#)).unwrap_err().to_string();
        assert!(error.starts_with("what the bucket has for \"a\" is no JSON object"), "{error}");
    }
}
