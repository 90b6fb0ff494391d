//! Texts to durations, sizes, numbers and choices.

use std::time::Duration;

/// `250ms`, `60s`, `5m`, `2h`, `1d`, or a plain number of seconds as in the original.
pub(super) fn duration(text: &str) -> Result<Duration, String> {
    let (number, unit) = split_unit(text);
    let number: f64 = number.parse().map_err(|_| expected("a duration such as 250ms, 60s or 5m", text))?;
    let seconds = number
        * match unit {
            "ms" => 0.001,
            "" | "s" => 1.0,
            "m" | "min" => 60.0,
            "h" => 3_600.0,
            "d" => 86_400.0,
            _ => return Err(expected("a duration such as 250ms, 60s or 5m", text)),
        };
    // A year is long enough for anything here and far from overflow.
    if !(0.0..=31_536_000.0).contains(&seconds) {
        return Err(format!("{text} is not between 0 and 365 days"));
    }
    Ok(Duration::from_secs_f64(seconds))
}

/// A duration above zero.
pub(super) fn positive_duration(text: &str) -> Result<Duration, String> {
    duration(text).and_then(|value| if value.is_zero() { Err("must be more than 0".to_owned()) } else { Ok(value) })
}

/// `64KiB`, `128MiB`, `1GB`, or a plain number of bytes; above zero.
pub(super) fn size(text: &str) -> Result<usize, String> {
    let what = "a size such as 64KiB, 128MiB or 1GiB";
    let (number, unit) = split_unit(text);
    let number: f64 = number.parse().map_err(|_| expected(what, text))?;
    let factor: u64 = match unit {
        "" | "B" => 1,
        "KB" | "kB" => 1_000,
        "MB" => 1_000_000,
        "GB" => 1_000_000_000,
        "KiB" | "K" | "k" => 1 << 10,
        "MiB" | "M" => 1 << 20,
        "GiB" | "G" => 1 << 30,
        "TiB" => 1 << 40,
        _ => return Err(expected(what, text)),
    };
    #[expect(clippy::cast_precision_loss, reason = "factors are far below 2^52")]
    let bytes = number * factor as f64;
    if !(1.0..=1e15).contains(&bytes) {
        return Err(format!("{text} is not between 1 byte and 1 PB"));
    }
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "the range was checked")]
    Ok(bytes as usize)
}

/// A whole number above zero; `_` may group digits.
pub(super) fn count(text: &str) -> Result<usize, String> {
    let number: usize =
        text.replace('_', "").parse().map_err(|_| expected("a whole number such as 1000 or 1_000_000", text))?;
    if number == 0 { Err("must be more than 0".to_owned()) } else { Ok(number) }
}

/// `true` or `false`, and what YAML 1.1 and the original took for them.
pub(super) fn boolean(text: &str) -> Result<bool, String> {
    match text.to_ascii_lowercase().as_str() {
        "true" | "yes" | "on" | "1" => Ok(true),
        "false" | "no" | "off" | "0" => Ok(false),
        _ => Err(expected("true or false", text)),
    }
}

/// One of some words.
pub(super) fn choice<T: Clone>(text: &str, choices: &[(&str, T)]) -> Result<T, String> {
    let lower = text.to_ascii_lowercase();
    if let Some((_, value)) = choices.iter().find(|(word, _)| *word == lower) {
        return Ok(value.clone());
    }
    let words: Vec<_> = choices.iter().map(|(word, _)| *word).collect();
    Err(expected(&format!("one of {}", words.join(", ")), text))
}

/// "expected ..., found ...".
pub(super) fn expected(what: &str, found: &str) -> String {
    let found: String = found.chars().take(60).collect();
    format!("expected {what}, found {found:?}")
}

/// A number and what follows it.
fn split_unit(text: &str) -> (String, &str) {
    let text = text.trim();
    let at = text
        .find(|character: char| !(character.is_ascii_digit() || matches!(character, '.' | '_')))
        .unwrap_or(text.len());
    let (number, unit) = text.split_at(at);
    (number.replace('_', ""), unit.trim())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn units_are_understood() {
        assert_eq!(duration("250ms").unwrap(), Duration::from_millis(250));
        assert_eq!(duration("5m").unwrap(), Duration::from_secs(300));
        assert_eq!(duration("1.5").unwrap(), Duration::from_millis(1_500));
        assert_eq!(size("128MiB").unwrap(), 128 << 20);
        assert_eq!(size("1_000").unwrap(), 1_000);
        assert_eq!(count("1_000_000").unwrap(), 1_000_000);
        assert_eq!(duration("soon").unwrap_err(), "expected a duration such as 250ms, 60s or 5m, found \"soon\"");
        assert_eq!(size("9e99").unwrap_err(), "expected a size such as 64KiB, 128MiB or 1GiB, found \"9e99\"");
        assert_eq!(size("0").unwrap_err(), "0 is not between 1 byte and 1 PB");
        assert_eq!(count("0").unwrap_err(), "must be more than 0");
        assert!(duration("-1s").is_err() && duration("400d").is_err() && size("-1").is_err());
    }

    proptest! {
        #[test]
        fn no_text_panics(text in "\\PC{0,20}|[0-9._]{0,30}[a-zA-Z]{0,3}") {
            let _ = (duration(&text), size(&text), count(&text), boolean(&text));
        }
    }
}
