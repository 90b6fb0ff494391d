//! Values to Hive directories and back: `country=DE`, escaped as Spark and Hive escape.
//!
//! Comes in: a name or a value as text. Goes out: text that is one segment of a path, and the other way round. Pure.
//! The characters are those of Spark's `ExternalCatalogUtils.escapePathName`; each becomes `%` and two capital
//! hexadecimal digits. All others, also those beyond ASCII, stand for themselves.

use std::fmt::Write as _;

/// The value right of `=` for null and for the empty string, as Hive and Spark write it.
pub const NULL_VALUE: &str = "__HIVE_DEFAULT_PARTITION__";

/// Longest `name=value` in bytes: what ext4, XFS, NTFS and HDFS allow for one name.
pub const SEGMENT_BYTES_MAX: usize = 255;

/// Longest directory in bytes. An S3 key has at most 1,024; this leaves room for prefix, dataset and file name.
pub const DIRECTORY_BYTES_MAX: usize = 700;

/// Appends `text` to `path`, escaped.
pub fn escape(text: &str, path: &mut String) {
    let mut rest = text;
    while let Some(at) = rest.bytes().position(needs_escape) {
        let (before, from) = rest.split_at(at);
        path.push_str(before);
        let mut characters = from.chars();
        if let Some(character) = characters.next() {
            // Writing to a string cannot fail.
            let _ = write!(path, "%{:02X}", u32::from(character));
        }
        rest = characters.as_str();
    }
    path.push_str(rest);
}

/// The text that was escaped. What is not `%` and two hexadecimal digits stands for itself.
#[must_use]
pub fn unescape(path: &str) -> String {
    let mut text = String::with_capacity(path.len());
    let mut rest = path;
    while let Some((before, behind)) = rest.split_once('%') {
        text.push_str(before);
        let digits = behind.get(..2).filter(|digits| digits.bytes().all(|byte| byte.is_ascii_hexdigit()));
        if let Some(code) = digits.and_then(|digits| u8::from_str_radix(digits, 16).ok()) {
            text.push(char::from(code));
            rest = behind.get(2..).unwrap_or_default();
        } else {
            text.push('%');
            rest = behind;
        }
    }
    text.push_str(rest);
    text
}

/// Whether a byte of UTF-8 is a character that must not stand in a path.
fn needs_escape(byte: u8) -> bool {
    // 0x00 is not in Spark's list, since Java's paths refuse it; no store takes it either.
    matches!(byte, 0x00..=0x1f | 0x7f | b'"' | b'#' | b'%' | b'\'' | b'*' | b'/' | b':' | b'=' | b'?' | b'\\')
        || matches!(byte, b'{' | b'[' | b']' | b'^')
}

#[cfg(test)]
mod tests {
    use object_store::path::Path;
    use proptest::prelude::*;

    use super::*;

    /// `text`, escaped.
    fn escaped(text: &str) -> String {
        let mut path = String::new();
        escape(text, &mut path);
        path
    }

    #[test]
    fn spark_s_characters_are_escaped_and_no_others() {
        let all: String = (0u8..128).map(char::from).collect();
        let kept: String = all.chars().filter(|character| escaped(&character.to_string()).len() == 1).collect();
        assert_eq!(kept, " !$&()+,-.0123456789;<>@ABCDEFGHIJKLMNOPQRSTUVWXYZ_`abcdefghijklmnopqrstuvwxyz|}~");
        assert_eq!(escaped("2026-11-23 14:05:12"), "2026-11-23 14%3A05%3A12");
        assert_eq!(escaped("a/b=c\u{7f}\n"), "a%2Fb%3Dc%7F%0A");
        assert_eq!(escaped("Köln 東京"), "Köln 東京");
    }

    #[test]
    fn what_is_not_an_escape_stands_for_itself() {
        assert_eq!(unescape("100%"), "100%");
        assert_eq!(unescape("%zz%4"), "%zz%4");
        assert_eq!(unescape("%3a%3A"), "::");
        assert_eq!(unescape("%é"), "%é");
        assert_eq!(unescape("%+1"), "%+1");
    }

    proptest! {
        #[test]
        fn any_text_comes_back(text in any::<String>()) {
            prop_assert_eq!(unescape(&escaped(&text)), text);
        }

        #[test]
        fn any_escaped_text_is_one_segment_of_a_store_path(text in any::<String>()) {
            let path = Path::parse(format!("column={}", escaped(&text))).unwrap();
            prop_assert_eq!(path.parts_count(), 1);
        }
    }
}
