//! What is checked about a record's bytes before the parser sees them.
//!
//! The parser recurses without a limit of its own where it skips a value, and does not look into the escapes of texts
//! that it skips. So both are looked at here, for the whole record; nearly all records are done after one quick pass.

use super::fault::Fault;

/// Most levels of lists and objects: each costs stack, and Parquet readers give up earlier.
pub(super) const DEPTH_MAX: usize = 128;

/// The record as text that the parser can be trusted with; what is wrong otherwise.
pub(super) fn check(record: &[u8]) -> Result<&str, Fault> {
    let text = simdutf8::basic::from_utf8(record).map_err(|_| not_utf8(record))?;
    if open_brackets(record) > DEPTH_MAX && is_too_deep(record) {
        return Err(Fault { code: "too-deep", message: format!("more than {DEPTH_MAX} levels of lists and objects") });
    }
    if record.contains(&b'\\')
        && let Some(position) = unsound_escape(record)
    {
        let message = format!("a backslash at byte {position} does not begin an escape that stands for a character");
        return Err(Fault { code: "bad-json", message });
    }
    Ok(text)
}

/// The words for bytes that are not UTF-8; the quick check does not say where.
#[cold]
fn not_utf8(record: &[u8]) -> Fault {
    let position = std::str::from_utf8(record).err().map_or(0, |error| error.valid_up_to());
    Fault { code: "bad-json", message: format!("byte {position} is not UTF-8") }
}

/// Number of `[` and `{`, in texts too.
fn open_brackets(record: &[u8]) -> usize {
    // The brackets differ in one bit. Counts of at most 255 bytes fit a byte, which lets the compiler use wide registers.
    record
        .chunks(255)
        .map(|chunk| chunk.iter().map(|byte| u8::from(byte | 0x20 == b'{')).sum::<u8>())
        .map(usize::from)
        .sum()
}

/// Whether lists and objects are nested too deep.
fn is_too_deep(record: &[u8]) -> bool {
    let (mut depth, mut in_text, mut escaped) = (0usize, false, false);
    for byte in record {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if in_text => escaped = true,
            b'"' => in_text = !in_text,
            _ if in_text => {}
            b'[' | b'{' => {
                depth += 1;
                if depth > DEPTH_MAX {
                    return true;
                }
            }
            b']' | b'}' => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    false
}

/// Where the first backslash is that JSON does not know, or that begins half a surrogate pair.
fn unsound_escape(record: &[u8]) -> Option<usize> {
    let mut at = 0;
    while let Some(next) = record.get(at..).and_then(|rest| rest.iter().position(|byte| *byte == b'\\')) {
        at += next;
        at += match record.get(at + 1) {
            Some(b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't') => 2,
            Some(b'u') => match code_unit(record, at) {
                None | Some(0xDC00..=0xDFFF) => return Some(at),
                Some(0xD800..=0xDBFF) => match code_unit(record, at + 6) {
                    Some(0xDC00..=0xDFFF) => 12,
                    _ => return Some(at),
                },
                Some(_) => 6,
            },
            _ => return Some(at),
        };
    }
    None
}

/// The number in `\uXXXX`.
fn code_unit(record: &[u8], at: usize) -> Option<u32> {
    let digits = record.get(at..at + 6)?.strip_prefix(b"\\u")?;
    digits.iter().try_fold(0, |unit, digit| Some(unit * 16 + char::from(*digit).to_digit(16)?))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn faults_of_bytes() {
        let message = |record: &[u8]| check(record).map_err(|fault| fault.message).unwrap_err();
        assert_eq!(message(b"{\"a\":\"\xff\"}"), "byte 6 is not UTF-8");
        for escape in ["\\x", "\\u12g4", "\\u12", "\\ud800", "\\udc00", "\\ud800\\u0041", "\\ud800\\n", "\\"] {
            let words = "a backslash at byte 1 does not begin an escape that stands for a character";
            assert_eq!(message(format!("\"{escape}").as_bytes()), words, "{escape}");
        }
        let nested = |levels: usize| format!("{}\"]]]\\\"[[[\"{}", "[".repeat(levels), "]".repeat(levels));
        assert_eq!(message(nested(129).as_bytes()), "more than 128 levels of lists and objects");
        assert!(check(nested(128).as_bytes()).is_ok());
        assert!(check("[]".repeat(1_000).as_bytes()).is_ok());
    }

    proptest! {
        /// serde_json is the judge of texts.
        #[test]
        fn escapes_agree_with_serde_json(inner in "(\\\\(u[dD8-9a-cA-C0]{0,4}|[nrtbf/\\\\xu])|a){0,5}") {
            let text = format!("\"{inner}\"");
            let expected = serde_json::from_str::<String>(&text).is_ok();
            let found = check(text.as_bytes()).is_ok() && sonic_rs::from_str::<String>(&text).is_ok();
            prop_assert_eq!(found, expected, "{}", text);
        }
    }
}
