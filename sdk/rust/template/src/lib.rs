//! Adds `is_large` to each row, leaves out rows without an amount, and refuses negative amounts.

use std::sync::Arc;

use arrow_array::{
    cast::AsArray,
    types::{Float64Type, Int64Type},
};
use fs_data_sink_plugin::prelude::*;

/// What stands under `config:` in the pipeline's YAML.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// The column that is looked at.
    column: String,
    /// What counts as large.
    minimum: f64,
}

/// The plugin: what it keeps from batch to batch.
#[derive(Debug)]
pub struct {{type}} {
    /// Its configuration.
    config: Config,
    /// The column that it adds.
    added: Field,
}

impl Plugin for {{type}} {
    type Config = Config;
    const DESCRIPTION: &'static str = "says which amounts are large";
    const ROLES: &'static [Role] = &[Role::Filter, Role::Enrich];
    const DETERMINISTIC: bool = true;
    const CONFIG_SCHEMA: Option<&'static str> = Some(include_str!("../config-schema.json"));

    /// Once, before any row: refuse here what cannot work.
    fn open(config: Config, input: &Schema) -> Result<Self, OpenError> {
        let column = &config.column;
        let field = input.field_with_name(column).map_err(|_| OpenError::no_column(column, input))?;
        if !matches!(field.data_type(), DataType::Int64 | DataType::Float64) {
            let words = format!("column {column:?} is of type {}; expected Int64 or Float64", field.data_type());
            return Err(OpenError::unsupported_schema(words));
        }
        Ok(Self { config, added: Field::new("is_large", DataType::Boolean, true) })
    }

    /// The columns that come out: those that came in, and one more.
    fn output_schema(&self, _input: &Schema) -> OutputSchema {
        OutputSchema::Extend(vec![self.added.clone()])
    }

    /// Each batch of rows. Only the columns that are asked for are copied into the plugin.
    fn process(&mut self, batch: &Batch<'_>) -> Result<Output, ProcessError> {
        let column = batch.column(&self.config.column)?;
        let amounts: Vec<Option<f64>> = match column.data_type() {
            DataType::Int64 => column.as_primitive::<Int64Type>().iter().map(|n| n.map(|n| n as f64)).collect(),
            _ => column.as_primitive::<Float64Type>().iter().collect(),
        };
        let is_large: BooleanArray = amounts.iter().map(|n| n.map(|n| n >= self.config.minimum)).collect();
        let rows = (0_u32..).zip(&amounts);
        let negative = rows.filter(|(_, n)| n.is_some_and(|n| n < 0.0)).map(|(row, _)| row).collect();
        Ok(Output::keep(amounts.iter().map(Option::is_some))
            .with_columns(vec![(self.added.clone(), Arc::new(is_large))])
            .reject(negative, "negative", format!("{} is below 0", self.config.column)))
    }
}

export_plugin!({{type}});

#[cfg(test)]
mod tests {
    use arrow_array::Int64Array;
    use fs_data_sink_plugin::testing::Harness;

    use super::*;

    #[test]
    fn amounts_are_judged() {
        let amounts: ArrayRef = Arc::new(Int64Array::from(vec![Some(5), Some(50), None, Some(-1)]));
        let rows = RecordBatch::try_from_iter_with_nullable([("amount", amounts, true)]).unwrap();
        let config = r#"{"column": "amount", "minimum": 10}"#;
        let processed = Harness::<{{type}}>::open(config, rows.schema_ref()).unwrap().process(&rows).unwrap();
        let is_large: Vec<_> = processed.batches[0].column(1).as_boolean().iter().collect();
        assert_eq!(is_large, [Some(false), Some(true)]);
        assert_eq!(processed.rejections[0].rows, [3]);
    }
}
