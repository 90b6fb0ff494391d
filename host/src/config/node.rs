//! YAML as a tree that knows where each value stands, with `${VAR}` filled in.
//!
//! YAML is parsed first, then scalars are filled in, so a variable cannot change the structure. Scalars stay text until
//! a key asks for a type.

use std::{collections::BTreeMap, sync::Arc};

use saphyr::{MarkedYaml, YamlData, YamlLoader};
use saphyr_parser::{Parser, ScalarStyle};

use super::fault::{Collector, Place};

/// Deepest nesting of a configuration.
const DEPTH_MAX: usize = 64;

/// Most values that aliases may unfold to, so that a small file cannot become a large one.
const NODES_MAX: usize = 100_000;

/// Variables by name.
pub(super) type Variables = BTreeMap<String, String>;

/// A value and where it stands.
#[derive(Clone, Debug)]
pub(super) struct Node {
    /// Where.
    pub(super) place: Place,
    /// What.
    pub(super) value: Value,
}

/// A value.
#[derive(Clone, Debug)]
pub(super) enum Value {
    /// Nothing: an empty value, `~` or `null`.
    Null,
    /// A text, and whether it was quoted.
    Scalar(String, bool),
    /// A list.
    List(Vec<Node>),
    /// Keys and values in their order.
    Map(Vec<(String, Node)>),
}

impl Node {
    /// A map without keys.
    pub(super) fn empty(place: Place) -> Self {
        Self { place, value: Value::Map(Vec::new()) }
    }

    /// The value of a key of a map.
    pub(super) fn get(&self, key: &str) -> Option<&Self> {
        match &self.value {
            Value::Map(entries) => entries.iter().find(|(name, _)| name == key).map(|(_, node)| node),
            _ => None,
        }
    }

    /// The text at a dotted path, where there is a scalar.
    pub(super) fn text_at(&self, path: &str) -> Option<&str> {
        let node = path.split('.').try_fold(self, |node, key| node.get(key))?;
        match &node.value {
            Value::Scalar(text, _) => Some(text),
            _ => None,
        }
    }

    /// Sets the value at a dotted path, making maps on the way.
    pub(super) fn set(&mut self, path: &str, value: Self) {
        let (key, rest) = path.split_once('.').map_or((path, None), |(key, rest)| (key, Some(rest)));
        if !matches!(self.value, Value::Map(_)) {
            self.value = Value::Map(Vec::new());
        }
        let Value::Map(entries) = &mut self.value else { return };
        if !entries.iter().any(|(name, _)| name == key) {
            entries.push((key.to_owned(), Self::empty(value.place.clone())));
        }
        let Some((_, entry)) = entries.iter_mut().find(|(name, _)| name == key) else { return };
        match rest {
            Some(rest) => entry.set(rest, value),
            None => *entry = value,
        }
    }

    /// As JSON, for a plugin: plain scalars are what YAML's core schema says, quoted ones are text.
    pub(super) fn to_json(&self) -> serde_json::Value {
        match &self.value {
            Value::Null => serde_json::Value::Null,
            Value::Scalar(text, true) => text.as_str().into(),
            Value::Scalar(text, false) => match text.as_str() {
                "true" | "True" | "TRUE" => true.into(),
                "false" | "False" | "FALSE" => false.into(),
                plain => plain
                    .parse::<i64>()
                    .map(Into::into)
                    .or_else(|_| plain.parse::<f64>().map(Into::into))
                    .unwrap_or_else(|_| plain.into()),
            },
            Value::List(list) => list.iter().map(Self::to_json).collect(),
            Value::Map(entries) => entries.iter().map(|(key, node)| (key.clone(), node.to_json())).collect(),
        }
    }
}

/// Reads a file's text; `None` after a fault.
pub(super) fn parse(file: &Arc<str>, text: &str, variables: &Variables, faults: &Collector) -> Option<Node> {
    let start = Place::Line(Arc::clone(file), 1);
    let mut loader = YamlLoader::<MarkedYaml<'_>>::default();
    loader.early_parse(false);
    let mut parser = Parser::new_from_str(text);
    if let Err(error) = parser.load(&mut loader, true) {
        let place = Place::Line(Arc::clone(file), error.marker().line());
        faults.add(&place, "", format!("not valid YAML: {}", error.info()));
        return None;
    }
    if let Some(error) = loader.error() {
        let place = Place::Line(Arc::clone(file), error.marker().line());
        faults.add(&place, "", format!("not valid YAML: {}", error.info()));
        return None;
    }
    let documents = loader.into_documents();
    match documents.as_slice() {
        [] => {
            faults.add(&start, "", "the file is empty");
            None
        }
        [document] => Filler { file, variables, faults, nodes: 0 }.convert(document, "", 0),
        _ => {
            faults.add(&start, "", "more than one YAML document; use `pipelines:` or a file for each");
            None
        }
    }
}

/// Converts saphyr's tree into ours.
struct Filler<'a> {
    /// The file's name.
    file: &'a Arc<str>,
    /// For `${VAR}`.
    variables: &'a Variables,
    /// Where faults go.
    faults: &'a Collector,
    /// Values so far.
    nodes: usize,
}

impl Filler<'_> {
    /// One value and those in it.
    fn convert(&mut self, yaml: &MarkedYaml<'_>, path: &str, depth: usize) -> Option<Node> {
        let place = Place::Line(Arc::clone(self.file), yaml.span.start.line());
        self.nodes += 1;
        if depth > DEPTH_MAX || self.nodes > NODES_MAX {
            self.faults.add(&place, path, "nested too deep, or too many values");
            return None;
        }
        let value = match &yaml.data {
            YamlData::Representation(text, style, _) => {
                let quoted = *style != ScalarStyle::Plain;
                let filled = fill(text, self.variables).unwrap_or_else(|message| {
                    self.faults.add(&place, path, message);
                    String::new()
                });
                let is_null = !quoted && matches!(filled.as_str(), "" | "~" | "null" | "Null" | "NULL");
                if is_null { Value::Null } else { Value::Scalar(filled, quoted) }
            }
            YamlData::Sequence(list) => Value::List(
                list.iter()
                    .enumerate()
                    .filter_map(|(at, item)| self.convert(item, &format!("{path}[{at}]"), depth + 1))
                    .collect(),
            ),
            YamlData::Mapping(map) => {
                let mut entries = Vec::with_capacity(map.len());
                for (key, item) in map {
                    let YamlData::Representation(name, ..) = &key.data else {
                        self.faults.add(&place, path, "a key must be a text");
                        continue;
                    };
                    let inner = if path.is_empty() { name.to_string() } else { format!("{path}.{name}") };
                    if let Some(node) = self.convert(item, &inner, depth + 1) {
                        entries.push((name.to_string(), node));
                    }
                }
                Value::Map(entries)
            }
            _ => {
                self.faults.add(&place, path, "tags and unknown aliases have no meaning here");
                return None;
            }
        };
        Some(Node { place, value })
    }
}

/// Fills in `${VAR}`, `${VAR:-default}` and `${VAR:?message}`; `$${` stands for `${`.
fn fill(text: &str, variables: &Variables) -> Result<String, String> {
    let (mut filled, mut rest) = (String::with_capacity(text.len()), text);
    while let Some(at) = rest.find("${") {
        let (before, from) = rest.split_at(at);
        if let Some(before) = before.strip_suffix('$') {
            filled.push_str(before);
            filled.push_str("${");
            rest = from.get(2..).unwrap_or_default();
            continue;
        }
        filled.push_str(before);
        let inner = from.get(2..).unwrap_or_default();
        let (expression, after) = inner.split_once('}').ok_or("`${` without `}`; write `$${` for the text itself")?;
        filled.push_str(&variable(expression, variables)?);
        rest = after;
    }
    filled.push_str(rest);
    Ok(filled)
}

/// The value of what stands between the braces.
fn variable(expression: &str, variables: &Variables) -> Result<String, String> {
    let (name, otherwise) = match expression.split_once(':') {
        Some((name, otherwise)) => (name, Some(otherwise)),
        None => (expression, None),
    };
    let is_name = |character: char| character.is_ascii_alphanumeric() || character == '_';
    if name.is_empty() || !name.chars().all(is_name) {
        return Err(format!("`${{{expression}}}` does not name a variable"));
    }
    let value = variables.get(name).filter(|value| !value.is_empty() || otherwise.is_none());
    match (value, otherwise.map(|otherwise| otherwise.split_at_checked(1).unwrap_or_default())) {
        (Some(value), _) => Ok(value.clone()),
        (None, Some(("-", default))) => Ok(default.to_owned()),
        (None, Some(("?", message))) => Err(format!("the variable {name} is not set: {message}")),
        (None, Some(_)) => Err(format!("`${{{expression}}}`: after `:` stands `-default` or `?message`")),
        (None, None) => Err(format!("the variable {name} is not set; `${{{name}:-default}}` gives a default")),
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
        assert_eq!(fill("${B}").unwrap_err(), "the variable B is not set; `${B:-default}` gives a default");
        assert_eq!(fill("${B:?set it}").unwrap_err(), "the variable B is not set: set it");
        assert_eq!(fill("${A").unwrap_err(), "`${` without `}`; write `$${` for the text itself");
    }

    proptest! {
        #[test]
        fn no_text_panics(text in "\\PC{0,80}|([a-z]{1,3}: ?|- |\\n|  |\\$\\{|&a |\\*a|[\\[\\]{},'\"!]){0,40}") {
            let faults = Collector::default();
            parse(&"f.yaml".into(), &text, &Variables::new(), &faults);
        }
    }
}
