//! A value as one level of directories, `column=value`, as Hive and Spark write it; and back.
//!
//! Escaped as `%XX`: control characters and `" # % ' * / : = ? \ { [ ] ^` and DEL, which is the list of Spark's
//! `ExternalCatalogUtils.escapePathName`. Null and the empty text are `__HIVE_DEFAULT_PARTITION__`.

use std::fmt::Write as _;

/// The directory value of null and of the empty text.
pub const NULL_DIRECTORY: &str = "__HIVE_DEFAULT_PARTITION__";

/// Appends `name=value` with both sides escaped.
pub fn push_level(path: &mut String, name: &str, value: Option<&str>) {
    escape_into(path, name);
    path.push('=');
    match value {
        None | Some("") => path.push_str(NULL_DIRECTORY),
        Some(value) => escape_into(path, value),
    }
}

/// Appends a text with every character that must not stand in a directory name escaped.
fn escape_into(path: &mut String, text: &str) {
    for character in text.chars() {
        if must_be_escaped(character) {
            // Writing to a String cannot fail.
            let _ = write!(path, "%{:02X}", u32::from(character));
        } else {
            path.push(character);
        }
    }
}

/// Spark's list, and NUL.
fn must_be_escaped(character: char) -> bool {
    matches!(
        character,
        '\0'..='\x1f' | '"' | '#' | '%' | '\'' | '*' | '/' | ':' | '=' | '?' | '\\' | '\x7f' | '{' | '[' | ']' | '^'
    )
}

/// The text that was escaped; what is not a valid escape stays as it is. For readers of our own paths.
#[must_use]
pub fn unescape(text: &str) -> String {
    let (mut plain, mut rest) = (String::with_capacity(text.len()), text);
    while let Some(at) = rest.find('%') {
        plain.push_str(rest.get(..at).unwrap_or_default());
        let code = rest.get(at + 1..at + 3).and_then(|code| u8::from_str_radix(code, 16).ok()).filter(u8::is_ascii);
        let taken = if let Some(code) = code {
            plain.push(char::from(code));
            3
        } else {
            plain.push('%');
            1
        };
        rest = rest.get(at + taken..).unwrap_or_default();
    }
    plain.push_str(rest);
    plain
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// One level as text.
    fn level(name: &str, value: Option<&str>) -> String {
        let mut path = String::new();
        push_level(&mut path, name, value);
        path
    }

    #[test]
    fn values_are_escaped_as_spark_does() {
        assert_eq!(level("country", Some("DE")), "country=DE");
        assert_eq!(level("a=b", Some("x/y z%:\u{1}é")), "a%3Db=x%2Fy z%25%3A%01é");
        assert_eq!(level("country", None), "country=__HIVE_DEFAULT_PARTITION__");
        assert_eq!(level("country", Some("")), "country=__HIVE_DEFAULT_PARTITION__");
    }

    proptest! {
        #[test]
        fn every_text_comes_back_and_is_one_level(text in "\\PC*|[\\x00-\\x7f]*") {
            let mut path = String::new();
            escape_into(&mut path, &text);
            prop_assert!(!path.contains(['/', '=', ':', '\n', '\0']));
            prop_assert_eq!(unescape(&path), text);
        }

        #[test]
        fn unescaping_foreign_text_never_panics(text in "\\PC*") {
            let _ = unescape(&text);
        }
    }
}
