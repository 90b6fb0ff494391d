//! Text to decimal, digit by digit; no float in between.

use arrow_array::ArrowNativeTypeOp;

/// The unscaled value of a JSON number or of a text of the same form; the code of the fault where it cannot be held
/// exactly. `T` is `i128` up to 38 digits, `i256` beyond.
pub(super) fn parse_decimal<T: ArrowNativeTypeOp>(text: &str, precision: u8, scale: i8) -> Result<T, &'static str> {
    let (malformed, out_of_range) = ("wrong-type", "number-out-of-range");
    let (digits, exponent) = match text.find(['e', 'E']) {
        Some(at) => {
            let exponent = text.get(at + 1..).and_then(|exponent| exponent.parse::<i32>().ok()).ok_or(malformed)?;
            (text.get(..at).ok_or(malformed)?, exponent)
        }
        None => (text, 0),
    };
    let (negative, digits) = digits.strip_prefix('-').map_or((false, digits), |digits| (true, digits));
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
    let all_digits = |part: &str| part.bytes().all(|byte| byte.is_ascii_digit());
    if whole.is_empty() || !all_digits(whole) || !all_digits(fraction) || digits.ends_with('.') {
        return Err(malformed);
    }
    // What says nothing takes no digit.
    let fraction = fraction.trim_end_matches('0');
    let ten = T::usize_as(10);
    let mut value = T::ZERO;
    for digit in whole.bytes().chain(fraction.bytes()) {
        let digit = T::usize_as(usize::from(digit - b'0'));
        value = value.mul_checked(ten).and_then(|value| value.add_checked(digit)).map_err(|_| out_of_range)?;
    }
    // value * 10^(exponent - digits of the fraction) must become unscaled * 10^-scale.
    let fraction_digits = i32::try_from(fraction.len()).map_err(|_| out_of_range)?;
    let mut shift = exponent.checked_sub(fraction_digits).and_then(|shift| shift.checked_add(i32::from(scale)));
    let shift = shift.get_or_insert(i32::MAX);
    while *shift > 0 && !value.is_zero() {
        value = value.mul_checked(ten).map_err(|_| out_of_range)?;
        *shift -= 1;
    }
    while *shift < 0 && !value.is_zero() {
        if !value.mod_wrapping(ten).is_zero() {
            return Err("precision-loss");
        }
        value = value.div_wrapping(ten);
        *shift += 1;
    }
    match ten.pow_checked(u32::from(precision)) {
        Ok(end) if value.is_lt(end) => Ok(if negative { value.neg_wrapping() } else { value }),
        _ => Err(out_of_range),
    }
}

#[cfg(test)]
mod tests {
    use arrow_buffer::i256;
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn exact_or_refused() {
        let code = |text: &str| parse_decimal::<i128>(text, 6, 2);
        assert_eq!(code("12.5"), Ok(1_250));
        assert_eq!(code("-0.01"), Ok(-1));
        assert_eq!(code("1.250e1"), Ok(1_250));
        assert_eq!(code("9999.99"), Ok(999_999));
        assert_eq!(code("0e999999999"), Ok(0));
        assert_eq!(code("1e999999999"), Err("number-out-of-range"));
        assert_eq!(code("1e-2147483648"), Err("precision-loss"));
        assert_eq!(code("10000"), Err("number-out-of-range"));
        assert_eq!(code("0.001"), Err("precision-loss"));
        assert_eq!(code(&format!("12.5{}", "0".repeat(90))), Ok(1_250));
        for wrong in ["", "-", ".5", "5.", "1,5", "0x1", "NaN", "1e", "é"] {
            assert_eq!(code(wrong), Err("wrong-type"), "{wrong}");
        }
    }

    #[test]
    fn digits_up_to_76() {
        let nines = "9".repeat(76);
        let most = i256::from_string(&nines).unwrap();
        assert_eq!(parse_decimal(&nines, 76, 0), Ok(most));
        assert_eq!(parse_decimal(&format!("-{}.{}", "9".repeat(66), "9".repeat(10)), 76, 10), Ok(most.wrapping_neg()));
        assert_eq!(parse_decimal::<i256>(&format!("1{}", "0".repeat(76)), 76, 0), Err("number-out-of-range"));
        assert_eq!(parse_decimal::<i256>(&nines, 75, 0), Err("number-out-of-range"));
        assert_eq!(parse_decimal::<i128>(&"9".repeat(38), 38, 0), Ok(10i128.pow(38) - 1));
        assert_eq!(parse_decimal::<i128>(&format!("1{}", "0".repeat(38)), 38, 0), Err("number-out-of-range"));
    }

    proptest! {
        #[test]
        fn every_decimal_comes_back(value in -99_999_999_999i64..99_999_999_999) {
            let text = format!("{}{}.{:03}", if value < 0 { "-" } else { "" }, value.abs() / 1_000, value.abs() % 1_000);
            prop_assert_eq!(parse_decimal(&text, 11, 3).ok(), Some(i128::from(value)));
            prop_assert_eq!(parse_decimal(&text, 40, 3).ok(), Some(i256::from_i128(value.into())));
        }

        #[test]
        fn never_panics(text in "[-+0-9.eE]{0,90}", precision in 1u8..=76, scale in -5i8..=76) {
            let _ = parse_decimal::<i128>(&text, precision, scale);
            let _ = parse_decimal::<i256>(&text, precision, scale);
        }
    }
}
