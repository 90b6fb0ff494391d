//! Texts to durations, sizes, numbers and choices.

use std::{net::SocketAddr, time::Duration};

use super::fault::hint;

/// `250ms`, `60s`, `5m`, `2h`, `1d`, or a plain number of seconds as in the original.
pub(super) fn duration(text: &str) -> Result<Duration, String> {
    let wrong = || expected("a duration such as 250ms, 60s or 5m", text);
    let (number, unit) = split_unit(text);
    let number: f64 = number.parse().map_err(|_| wrong())?;
    let seconds = number
        * match unit {
            "ms" => 0.001,
            "" | "s" => 1.0,
            "m" | "min" => 60.0,
            "h" => 3_600.0,
            "d" => 86_400.0,
            _ => return Err(wrong()),
        };
    // A year is long enough for anything here and far from overflow.
    if !(0.0..=31_536_000.0).contains(&seconds) {
        return Err(format!("{text} is not between 0 and 365 days"));
    }
    Ok(Duration::from_secs_f64(seconds))
}

/// A duration above zero.
pub(super) fn positive_duration(text: &str) -> Result<Duration, String> {
    let value = duration(text)?;
    if value.is_zero() { Err("must be more than 0".to_owned()) } else { Ok(value) }
}

/// `64KiB`, `128MiB`, `1GB`, or a plain number of bytes; above zero. The case of the unit does not matter.
pub(super) fn size(text: &str) -> Result<usize, String> {
    let wrong = || expected("a size such as 64KiB, 128MiB or 1GiB", text);
    let (number, unit) = split_unit(text);
    let number: f64 = number.parse().map_err(|_| wrong())?;
    let factor: u64 = match unit.to_ascii_lowercase().as_str() {
        "" | "b" => 1,
        "kb" => 1_000,
        "mb" => 1_000_000,
        "gb" => 1_000_000_000,
        "tb" => 1_000_000_000_000,
        "kib" | "k" => 1 << 10,
        "mib" | "m" => 1 << 20,
        "gib" | "g" => 1 << 30,
        "tib" | "t" => 1 << 40,
        _ => return Err(wrong()),
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

/// A whole number from 1 to `most`.
pub(super) fn count_up_to(most: usize) -> impl FnOnce(&str) -> Result<usize, String> {
    move |text| match count(text)? {
        number if number <= most => Ok(number),
        number => Err(format!("{number} is too much; at most {most}")),
    }
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
    let hint = hint(text, words.iter().copied());
    Err(match words.as_slice() {
        [only] => expected(only, text),
        _ => expected(&format!("one of {}", words.join(", ")), text) + &hint,
    })
}

/// `127.0.0.1:9464`, or a word for nothing.
pub(super) fn listen_address(text: &str) -> Result<Option<SocketAddr>, String> {
    match text.to_ascii_lowercase().as_str() {
        "none" | "off" | "false" => Ok(None),
        _ => text
            .parse()
            .map(Some)
            .map_err(|_| expected("an IP address and a port such as 127.0.0.1:9464 or 0.0.0.0:9464, or none", text)),
    }
}

/// The address of an HTTP server.
pub(super) fn http_url(text: &str, example: &str) -> Result<String, String> {
    match url::Url::parse(text) {
        Ok(url) if matches!(url.scheme(), "http" | "https") && url.has_host() => {
            if url.username().is_empty() && url.password().is_none() {
                Ok(text.trim_end_matches('/').to_owned())
            } else {
                Err("an address must not contain a user or a password".to_owned())
            }
        }
        _ => Err(expected(&format!("an address such as {example}"), text)),
    }
}

/// A level, or `tracing` directives.
pub(super) fn log_level(text: &str) -> Result<String, String> {
    let levels = ["TRACE", "DEBUG", "INFO", "WARN", "WARNING", "ERROR", "CRITICAL", "OFF"];
    for directive in text.split(',').map(str::trim) {
        let (target, level) = directive.split_once('=').map_or(("", directive), |(target, level)| (target, level));
        // Filters by span are left to the one who understands them.
        let is_filter = directive.contains('[');
        let is_level = levels.contains(&level.to_ascii_uppercase().as_str());
        if !is_filter && (!is_level || (target.is_empty() && directive.contains('='))) {
            let hint = hint(level, levels.into_iter());
            let what = "DEBUG, INFO, WARNING, ERROR, or directives such as INFO,fs_data_sink::source=DEBUG";
            return Err(expected(what, directive) + &hint);
        }
    }
    crate::telemetry::check_log_level(text)?;
    Ok(text.to_owned())
}

/// "expected ..., found ..."; what is found is cut where it is long, and a password in an address is left out.
pub(super) fn expected(what: &str, found: &str) -> String {
    let shown: String = match (found.find("://"), found.rfind('@')) {
        (Some(scheme), Some(at)) if scheme < at => {
            format!("{}://***{}", found.get(..scheme).unwrap_or_default(), found.get(at..).unwrap_or_default())
        }
        _ => found.to_owned(),
    };
    let shown: String = shown.chars().take(60).collect();
    format!("expected {what}, found {shown:?}")
}

/// A number and what follows it.
fn split_unit(text: &str) -> (String, &str) {
    let text = text.trim();
    let is_number = |character: char| character.is_ascii_digit() || matches!(character, '.' | '_');
    let at = text.find(|character| !is_number(character)).unwrap_or(text.len());
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
        assert_eq!(duration("0").unwrap(), Duration::ZERO);
        assert_eq!(size("128MiB").unwrap(), 128 << 20);
        assert_eq!(size("128mib").unwrap(), 128 << 20);
        assert_eq!(size("64KB").unwrap(), 64_000);
        assert_eq!(size("1.5 GiB").unwrap(), 3 << 29);
        assert_eq!(size("1_000").unwrap(), 1_000);
        assert_eq!(count("1_000_000").unwrap(), 1_000_000);
        assert_eq!(listen_address("[::1]:80").unwrap().unwrap().port(), 80);
        assert_eq!(listen_address("off").unwrap(), None);
        assert_eq!(http_url("http://127.0.0.1:9000/", "x").unwrap(), "http://127.0.0.1:9000");
        for level in ["INFO", "warning", "CRITICAL", "INFO,fs_data_sink::source=DEBUG", "info,[batch]=debug"] {
            assert_eq!(log_level(level).unwrap(), level);
        }
    }

    #[test]
    fn what_is_wrong_is_said_with_what_is_expected() {
        assert_eq!(duration("soon").unwrap_err(), "expected a duration such as 250ms, 60s or 5m, found \"soon\"");
        assert_eq!(duration("1w").unwrap_err(), "expected a duration such as 250ms, 60s or 5m, found \"1w\"");
        assert_eq!(duration("400d").unwrap_err(), "400d is not between 0 and 365 days");
        assert_eq!(positive_duration("0s").unwrap_err(), "must be more than 0");
        assert_eq!(size("9e99").unwrap_err(), "expected a size such as 64KiB, 128MiB or 1GiB, found \"9e99\"");
        assert_eq!(size("0").unwrap_err(), "0 is not between 1 byte and 1 PB");
        assert_eq!(size("99999TiB").unwrap_err(), "99999TiB is not between 1 byte and 1 PB");
        assert_eq!(count("0").unwrap_err(), "must be more than 0");
        assert_eq!(
            count("99999999999999999999").unwrap_err().split(',').next().unwrap(),
            "expected a whole number such as 1000 or 1_000_000"
        );
        assert_eq!(count_up_to(10)("11").unwrap_err(), "11 is too much; at most 10");
        assert_eq!(boolean("ja").unwrap_err(), "expected true or false, found \"ja\"");
        assert_eq!(
            choice("snapy", &[("snappy", 1), ("gzip", 2)]).unwrap_err(),
            "expected one of snappy, gzip, found \"snapy\"; did you mean snappy?"
        );
        assert_eq!(
            listen_address("localhost:9464").unwrap_err(),
            "expected an IP address and a port such as 127.0.0.1:9464 or 0.0.0.0:9464, or none, found \"localhost:9464\""
        );
        assert_eq!(
            http_url("ftp://user:geheim@host", "http://a").unwrap_err(),
            "expected an address such as http://a, found \"ftp://***@host\""
        );
        assert_eq!(http_url("http://u:geheim@h", "x").unwrap_err(), "an address must not contain a user or a password");
        assert_eq!(
            log_level("IFNO").unwrap_err(),
            "expected DEBUG, INFO, WARNING, ERROR, or directives such as INFO,fs_data_sink::source=DEBUG, found \"IFNO\"; \
             did you mean INFO?"
        );
        assert!(
            duration("-1s").is_err() && size("-1").is_err() && log_level("").is_err() && log_level("=info").is_err()
        );
    }

    proptest! {
        #[test]
        fn no_text_panics(text in "\\PC{0,20}|[0-9._]{0,30}[a-zA-Z]{0,3}|[a-z]{0,4}://[a-zß@:]{0,9}") {
            let _ = (duration(&text), size(&text), count(&text), boolean(&text), listen_address(&text));
            let _ = (http_url(&text, "x"), log_level(&text));
        }
    }
}
