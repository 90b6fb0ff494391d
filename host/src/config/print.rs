//! The effective configuration as YAML, with secrets masked.

use std::fmt::Write as _;

use super::node::{Node, Value};

/// Words in a key whose value nobody may see.
const SECRET_WORDS: [&str; 5] = ["secret", "password", "token", "credential", "jaas"];

/// A whole document.
pub(super) fn yaml(name: &str, node: &Node) -> String {
    let mut text = format!("# {name}\n");
    write_node(&mut text, node, 0, false);
    text
}

/// One value at an indentation. Writing to a String cannot fail.
fn write_node(text: &mut String, node: &Node, indent: usize, is_secret: bool) {
    let pad = "  ".repeat(indent);
    match &node.value {
        Value::Null => text.push_str("null\n"),
        Value::Scalar(value, quoted) => {
            let shown = if is_secret { "***" } else { value };
            let _ = if *quoted || is_secret || needs_quotes(shown) {
                writeln!(text, "{shown:?}")
            } else {
                writeln!(text, "{shown}")
            };
        }
        Value::List(list) => {
            for item in list {
                let _ = write!(text, "{pad}- ");
                write_inner(text, item, indent + 1, is_secret);
            }
        }
        Value::Map(entries) => {
            for (key, item) in entries {
                let lower = key.to_ascii_lowercase();
                let is_secret = is_secret || SECRET_WORDS.iter().any(|word| lower.contains(word));
                let _ = write!(text, "{pad}{key}: ");
                write_inner(text, item, indent + 1, is_secret);
            }
        }
    }
}

/// A value behind a key or a dash.
fn write_inner(text: &mut String, item: &Node, indent: usize, is_secret: bool) {
    match &item.value {
        Value::List(list) if list.is_empty() => text.push_str("[]\n"),
        Value::Map(entries) if entries.is_empty() => text.push_str("{}\n"),
        Value::List(_) | Value::Map(_) => {
            text.push('\n');
            write_node(text, item, indent, is_secret);
        }
        _ => write_node(text, item, indent, is_secret),
    }
}

/// Whether a plain scalar would be read as something else.
fn needs_quotes(value: &str) -> bool {
    value.is_empty()
        || value != value.trim()
        || value.contains([':', '#', '\n', '"', '{', '}', '[', ']', '&', '*', '!', '|', '>', '%', '@', '`', ','])
        || value.starts_with(['-', '?', '\''])
}
