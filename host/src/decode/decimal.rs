//! Text to decimal, digit by digit; no float in between.

/// The unscaled value of a JSON number or of a text of the same form; the code of the fault where it cannot be held
/// exactly.
pub(super) fn parse_decimal(text: &str, precision: u8, scale: i8) -> Result<i128, &'static str> {
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
    let mut value = 0i128;
    for digit in whole.bytes().chain(fraction.bytes()) {
        let digit = i128::from(digit - b'0');
        value = value.checked_mul(10).and_then(|value| value.checked_add(digit)).ok_or(out_of_range)?;
    }
    // value * 10^(exponent - digits of the fraction) must become unscaled * 10^-scale.
    let fraction_digits = i32::try_from(fraction.len()).map_err(|_| out_of_range)?;
    let mut shift = exponent.checked_sub(fraction_digits).and_then(|shift| shift.checked_add(i32::from(scale)));
    let shift = shift.get_or_insert(i32::MAX);
    while *shift > 0 && value != 0 {
        value = value.checked_mul(10).ok_or(out_of_range)?;
        *shift -= 1;
    }
    while *shift < 0 && value != 0 {
        if value % 10 != 0 {
            return Err("precision-loss");
        }
        value /= 10;
        *shift += 1;
    }
    if value >= 10i128.checked_pow(u32::from(precision)).unwrap_or(i128::MAX) {
        return Err(out_of_range);
    }
    Ok(if negative { -value } else { value })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn exact_or_refused() {
        let code = |text: &str| parse_decimal(text, 6, 2);
        assert_eq!(code("12.5"), Ok(1_250));
        assert_eq!(code("-0.01"), Ok(-1));
        assert_eq!(code("1.250e1"), Ok(1_250));
        assert_eq!(code("9999.99"), Ok(999_999));
        assert_eq!(code("0e999999999"), Ok(0));
        assert_eq!(code("1e999999999"), Err("number-out-of-range"));
        assert_eq!(code("1e-2147483648"), Err("precision-loss"));
        assert_eq!(code("10000"), Err("number-out-of-range"));
        assert_eq!(code("0.001"), Err("precision-loss"));
        for wrong in ["", "-", ".5", "5.", "1,5", "0x1", "NaN", "1e", "é"] {
            assert_eq!(code(wrong), Err("wrong-type"), "{wrong}");
        }
    }

    proptest! {
        #[test]
        fn every_decimal_comes_back(value in -99_999_999_999i64..99_999_999_999) {
            let text = format!("{}{}.{:03}", if value < 0 { "-" } else { "" }, value.abs() / 1_000, value.abs() % 1_000);
            prop_assert_eq!(parse_decimal(&text, 11, 3).ok(), Some(i128::from(value)));
        }

        #[test]
        fn never_panics(text in "[-+0-9.eE]{0,60}", precision in 1u8..38, scale in -5i8..38) {
            let _ = parse_decimal(&text, precision, scale);
        }
    }
}
