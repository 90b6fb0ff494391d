//! Why a record is refused, in words for its dead letter.
//!
//! While the parser runs only the cause is noted, and the path from the inside outwards. The words are made afterwards
//! from the record's own text ([`explain`]), so that good records pay nothing and the message shows the value as it was
//! written.

use std::{collections::HashMap, fmt::Write as _};

use sonic_rs::PointerNode;

use crate::batch::{Rejection, Stage};

/// Most characters of a value or a name in a message.
const EXCERPT_CHARS: usize = 80;

/// Why a record is refused, in a form that becomes a dead letter.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Fault {
    /// Stable and of few values.
    pub(super) code: &'static str,
    /// For people.
    pub(super) message: String,
}

impl Fault {
    /// The same fault, one step further inside.
    pub(super) fn at(self, name: &str) -> Self {
        Self { code: self.code, message: format!("{}: {}", excerpt(name), self.message) }
    }
}

/// Refused records by their reasons, in the order in which each was first met.
pub(super) fn rejections(refused: Vec<(u32, Fault)>) -> Vec<Rejection> {
    let mut positions: HashMap<Fault, usize> = HashMap::new();
    let mut rejections: Vec<Rejection> = Vec::new();
    for (number, fault) in refused {
        if let Some(known) = positions.get(&fault).and_then(|position| rejections.get_mut(*position)) {
            known.rows.push(number);
            continue;
        }
        rejections.push(Rejection {
            rows: vec![number],
            stage: Stage::Decode,
            plugin: None,
            code: fault.code.to_owned(),
            message: fault.message.clone(),
        });
        positions.insert(fault, rejections.len() - 1);
    }
    rejections
}

/// What is noted while the parser runs.
#[derive(Debug)]
pub(super) enum Cause {
    /// All is said.
    Said(Fault),
    /// The value is of another type than this one.
    WrongType(String),
    /// The value is a number with a fraction or an exponent, or an integer beyond 64 bits: the parser does not tell.
    NotAnInteger(String),
    /// The value is of the right kind; the code says what is wrong, the words what the column is.
    Unfit(&'static str, String),
}

/// One step from a record to a value in it.
#[derive(Debug)]
pub(super) enum Step {
    /// Into a field of an object, or an entry of a map.
    Field(String),
    /// Into an element of a list.
    Element(usize),
}

/// The words for a cause; the path leads from the value outwards.
pub(super) fn explain(record: &str, cause: Cause, mut path: Vec<Step>) -> Fault {
    path.reverse();
    let raw = raw_value(record, &path);
    let raw = raw.as_deref().unwrap_or("a value");
    let fault = match cause {
        Cause::Said(fault) => fault,
        Cause::NotAnInteger(expected) if is_integer(raw) => unfit("number-out-of-range", &expected, raw),
        Cause::WrongType(expected) | Cause::NotAnInteger(expected) => {
            Fault { code: "wrong-type", message: format!("expected {expected}, found {}", excerpt(raw)) }
        }
        Cause::Unfit(code, expected) => unfit(code, &expected, raw),
    };
    if path.is_empty() {
        return fault;
    }
    Fault { code: fault.code, message: format!("{}: {}", dotted(&path), fault.message) }
}

/// A value of the right kind that the column cannot hold.
fn unfit(code: &'static str, expected: &str, raw: &str) -> Fault {
    let words = if code == "precision-loss" { "cannot be held exactly as" } else { "does not fit" };
    Fault { code, message: format!("{} {words} {expected}", excerpt(raw)) }
}

/// The text of a value in its record.
fn raw_value(record: &str, path: &[Step]) -> Option<String> {
    let nodes = path.iter().map(|step| match step {
        Step::Field(name) => PointerNode::Key(name.clone().into()),
        Step::Element(position) => PointerNode::Index(*position),
    });
    let nodes: Vec<PointerNode> = nodes.collect();
    sonic_rs::get(record, &nodes).ok().map(|value| value.as_raw_str().to_owned())
}

/// `a.b[2].c`, cut where somebody nests names to no end.
fn dotted(path: &[Step]) -> String {
    let mut text = String::new();
    for step in path {
        match step {
            Step::Field(name) if text.is_empty() => text.push_str(name),
            Step::Field(name) => {
                text.push('.');
                text.push_str(name);
            }
            Step::Element(position) => {
                // Writing to a string does not fail.
                let _ = write!(text, "[{position}]");
            }
        }
    }
    excerpt(&text)
}

/// The first characters of a text.
pub(super) fn excerpt(text: &str) -> String {
    match text.char_indices().nth(EXCERPT_CHARS) {
        Some((end, _)) => format!("{}…", text.get(..end).unwrap_or_default()),
        None => text.to_owned(),
    }
}

/// Whether a JSON number is written without fraction and exponent.
pub(super) fn is_integer(raw: &str) -> bool {
    let digits = raw.strip_prefix('-').unwrap_or(raw);
    !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_value_is_shown_as_it_was_written() {
        let path = || vec![Step::Element(1), Step::Field("b".to_owned()), Step::Field("a".to_owned())];
        let record = r#"{"a":{"b":[0, 1.50]}}"#;
        let fault = explain(record, Cause::WrongType("Utf8".to_owned()), path());
        assert_eq!(fault, Fault { code: "wrong-type", message: "a.b[1]: expected Utf8, found 1.50".to_owned() });
        let record = format!(r#"{{"a":{{"b":[0, {}]}}}}"#, "9".repeat(90));
        let fault = explain(&record, Cause::NotAnInteger("Int64".to_owned()), path());
        assert_eq!(fault.code, "number-out-of-range");
        assert_eq!(fault.message, format!("a.b[1]: {}… does not fit Int64", "9".repeat(80)));
    }
}
