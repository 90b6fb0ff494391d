//! Values as YAML.

use std::fmt::Write as _;

use serde_json::{Value, json};

/// One value as YAML at an indentation. Writing to a String cannot fail.
pub(super) fn write(text: &mut String, value: &Value, indent: usize) {
    let pad = "  ".repeat(indent);
    match value {
        Value::Object(entries) => {
            for (key, inner) in entries {
                let _ = write!(text, "{pad}{}:", scalar(key));
                write_inner(text, inner, indent);
            }
        }
        Value::Array(list) => {
            for inner in list {
                let _ = write!(text, "{pad}-");
                write_inner(text, inner, indent);
            }
        }
        other => _ = writeln!(text, "{pad}{other}"),
    }
}

/// A value behind a key or a dash.
fn write_inner(text: &mut String, value: &Value, indent: usize) {
    match value {
        Value::Object(entries) if entries.is_empty() => text.push_str(" {}\n"),
        Value::Array(list) if list.iter().all(|item| !item.is_object() && !item.is_array()) => {
            let items: Vec<_> =
                list.iter().map(|item| item.as_str().map_or_else(|| item.to_string(), scalar)).collect();
            let _ = writeln!(text, " [{}]", items.join(", "));
        }
        Value::Object(_) | Value::Array(_) => {
            text.push('\n');
            write(text, value, indent + 1);
        }
        Value::String(own) => _ = writeln!(text, " {}", scalar(own)),
        other => _ = writeln!(text, " {other}"),
    }
}

/// A text as a YAML scalar: plain where it can only be read as a text, else in JSON's quotes, which are YAML's.
fn scalar(text: &str) -> String {
    let is_plain = text.starts_with(|first: char| first.is_ascii_alphabetic() || first == '/' || first == '_')
        && text.chars().all(|character| character.is_ascii_alphanumeric() || "_-./()".contains(character))
        && !matches!(
            text.to_ascii_lowercase().as_str(),
            "true" | "false" | "null" | "yes" | "no" | "on" | "off" | "y" | "n"
        );
    if is_plain {
        return text.to_owned();
    }
    // A dollar is doubled, since `${` would be filled in again.
    json!(text.replace("${", "$${")).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_that_look_like_something_else_are_quoted() {
        assert_eq!(scalar("zstd(3)"), "zstd(3)");
        assert_eq!(scalar("no"), "\"no\"");
        assert_eq!(scalar("12"), "\"12\"");
        assert_eq!(scalar("a: \"b\"\n"), "\"a: \\\"b\\\"\\n\"");
        assert_eq!(scalar("${A}"), "\"$${A}\"");
    }
}
