//! Fills `${VAR}` into a scalar.
//!
//! `${VAR}` must be set, `${VAR:-default}` has a default, which may itself contain variables, `${VAR:?message}` fails
//! with the message, and `$${` stands for `${`. As in a shell, an empty variable counts as missing for `:-` and `:?`.

use std::collections::BTreeMap;

/// Variables by name.
pub(super) type Variables = BTreeMap<String, String>;

/// Deepest nesting of defaults in defaults.
const DEPTH_MAX: usize = 8;

/// The text with its variables filled in, or what is wrong with it. Messages never contain a value.
pub(super) fn fill(text: &str, variables: &Variables) -> Result<String, String> {
    fill_nested(text, variables, 0)
}

/// The same inside of a default.
fn fill_nested(text: &str, variables: &Variables, depth: usize) -> Result<String, String> {
    let (mut filled, mut rest) = (String::with_capacity(text.len()), text);
    while let Some(at) = rest.find("${") {
        let (before, from) = rest.split_at(at);
        let inner = from.get(2..).unwrap_or_default();
        if let Some(before) = before.strip_suffix('$') {
            filled.push_str(before);
            filled.push_str("${");
            rest = inner;
            continue;
        }
        filled.push_str(before);
        let end = closing_brace(inner).ok_or("`${` without `}`; write `$${` for the text itself")?;
        let (expression, after) = inner.split_at(end);
        filled.push_str(&variable(expression, variables, depth)?);
        rest = after.get(1..).unwrap_or_default();
    }
    filled.push_str(rest);
    Ok(filled)
}

/// Where the brace closes that is open at the beginning.
fn closing_brace(text: &str) -> Option<usize> {
    let (mut open, mut before) = (1usize, ' ');
    for (at, character) in text.char_indices() {
        match character {
            '{' if before == '$' => open += 1,
            '}' => open -= 1,
            _ => {}
        }
        if open == 0 {
            return Some(at);
        }
        before = character;
    }
    None
}

/// The value of what stands between the braces.
fn variable(expression: &str, variables: &Variables, depth: usize) -> Result<String, String> {
    let (name, otherwise) = match expression.split_once(':') {
        Some((name, otherwise)) => (name, Some(otherwise)),
        None => (expression, None),
    };
    let is_part = |character: char| character.is_ascii_alphanumeric() || character == '_';
    if name.is_empty() || name.starts_with(|first: char| first.is_ascii_digit()) || !name.chars().all(is_part) {
        return Err(format!("`${{{expression}}}` does not name a variable"));
    }
    let value = variables.get(name);
    let Some(otherwise) = otherwise else {
        return value
            .cloned()
            .ok_or_else(|| format!("the variable {name} is not set; `${{{name}:-default}}` gives a default"));
    };
    if let Some(value) = value.filter(|value| !value.is_empty()) {
        return Ok(value.clone());
    }
    match (otherwise.strip_prefix('-'), otherwise.strip_prefix('?')) {
        (Some(_), _) if depth >= DEPTH_MAX => Err(format!("defaults are nested deeper than {DEPTH_MAX}")),
        (Some(default), _) => fill_nested(default, variables, depth + 1),
        (None, Some("")) => Err(format!("the variable {name} is not set")),
        (None, Some(message)) => Err(format!("the variable {name} is not set: {message}")),
        (None, None) => Err(format!("`${{{expression}}}`: after `:` stands `-default` or `?message`")),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn variables_are_filled_in() {
        let variables = Variables::from([("A".to_owned(), "x".to_owned()), ("EMPTY".to_owned(), String::new())]);
        let fill = |text: &str| fill(text, &variables);
        assert_eq!(fill("a ${A} ${B:-b} $${A} $A").unwrap(), "a x b ${A} $A");
        assert_eq!(fill("${EMPTY}|${EMPTY:-d}").unwrap(), "|d");
        assert_eq!(fill("${B:-${A}}/${B:-${C:-{c}}").unwrap(), "x/{c");
        assert_eq!(fill("${B:-}").unwrap(), "");
    }

    #[test]
    fn what_cannot_be_filled_in_says_why() {
        let fill = |text: &str| fill(text, &Variables::from([("A".to_owned(), "x".to_owned())])).unwrap_err();
        assert_eq!(fill("${B}"), "the variable B is not set; `${B:-default}` gives a default");
        assert_eq!(fill("${B:?set it}"), "the variable B is not set: set it");
        assert_eq!(fill("${B:?}"), "the variable B is not set");
        assert_eq!(fill("${A"), "`${` without `}`; write `$${` for the text itself");
        assert_eq!(fill("${}"), "`${}` does not name a variable");
        assert_eq!(fill("${1A}"), "`${1A}` does not name a variable");
        assert_eq!(fill("${B:=x}"), "`${B:=x}`: after `:` stands `-default` or `?message`");
        assert_eq!(fill(&("${B:-".repeat(20) + &"}".repeat(20))), "defaults are nested deeper than 8");
    }

    proptest! {
        #[test]
        fn no_text_panics(text in "\\PC{0,40}|(\\$|\\{|\\}|:|-|\\?|A|ß){0,40}") {
            let _ = fill(&text, &Variables::from([("A".to_owned(), "${A}".to_owned())]));
        }

        #[test]
        fn text_without_dollars_stays(text in "[^$]{0,40}") {
            prop_assert_eq!(fill(&text, &Variables::new()).unwrap(), text);
        }
    }
}
