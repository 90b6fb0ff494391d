//! Decimals that are larger than their type says. Arrow lets them pass; Parquet would write another number.

use arrow_array::{
    Array, RecordBatch,
    cast::AsArray,
    types::{Decimal32Type, Decimal64Type, Decimal128Type, Decimal256Type},
};
use arrow_schema::{ArrowError, DataType};

use super::failure::BadOutput;

/// Refuses a batch with a decimal of more digits than its column has, at any depth.
pub(super) fn check_decimals(rows: &RecordBatch) -> Result<(), BadOutput> {
    for (field, column) in rows.schema_ref().fields().iter().zip(rows.columns()) {
        if let Err(digits) = check(column) {
            let name = field.name();
            return Err(BadOutput::new(format!(
                "answered a decimal in column `{name}` with more than {digits} digits"
            )));
        }
    }
    Ok(())
}

/// The digits that a value has more of.
fn check(array: &dyn Array) -> Result<(), u8> {
    let digits = |digits: u8| move |_: ArrowError| digits;
    match array.data_type() {
        DataType::Decimal32(p, _) => {
            array.as_primitive::<Decimal32Type>().validate_decimal_precision(*p).map_err(digits(*p))
        }
        DataType::Decimal64(p, _) => {
            array.as_primitive::<Decimal64Type>().validate_decimal_precision(*p).map_err(digits(*p))
        }
        DataType::Decimal128(p, _) => {
            array.as_primitive::<Decimal128Type>().validate_decimal_precision(*p).map_err(digits(*p))
        }
        DataType::Decimal256(p, _) => {
            array.as_primitive::<Decimal256Type>().validate_decimal_precision(*p).map_err(digits(*p))
        }
        DataType::Struct(_) => array.as_struct().columns().iter().try_for_each(|child| check(child)),
        DataType::List(_) => check(array.as_list::<i32>().values()),
        DataType::LargeList(_) => check(array.as_list::<i64>().values()),
        DataType::FixedSizeList(..) => check(array.as_fixed_size_list().values()),
        DataType::Map(..) => array.as_map().entries().columns().iter().try_for_each(|child| check(child)),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow_array::{ArrayRef, Decimal128Array, StructArray};
    use arrow_schema::Field;

    use super::*;

    #[test]
    fn a_decimal_is_held_against_its_digits_at_any_depth() {
        let decimal = |value: i128| -> ArrayRef {
            Arc::new(Decimal128Array::from(vec![Some(value), None]).with_precision_and_scale(4, 2).unwrap())
        };
        let nested = |value: i128| {
            let field = Arc::new(Field::new("d", DataType::Decimal128(4, 2), true));
            RecordBatch::try_from_iter([("s", Arc::new(StructArray::from(vec![(field, decimal(value))])) as ArrayRef)])
        };
        check_decimals(&nested(-9999).unwrap()).unwrap();
        let words = check_decimals(&nested(10_000).unwrap()).unwrap_err().to_string();
        assert_eq!(words, "answered a decimal in column `s` with more than 4 digits");
    }
}
