//! YAML text to a tree with lines, `${VAR}` filled in.
//!
//! YAML is parsed first, then scalars are filled in, so a variable cannot change the structure. The tree is built from
//! the parser's events and not from its own tree, since aliases have to be counted before they are copied: a small
//! file must not become a large tree. `<<` merges maps, as common YAML tools do.

use std::{collections::BTreeMap, fmt::Write as _, sync::Arc};

use saphyr_parser::{Event, Parser, ScalarStyle, Span, Tag};

use super::{
    fault::{Collector, Place},
    node::{Node, Value},
    variables::{Variables, fill},
};

/// Deepest nesting: far above what any key needs, far below what could exhaust a stack.
const DEPTH_MAX: usize = 64;

/// Most values with aliases unfolded: thousands of pipelines, and a few megabytes of memory.
const NODES_MAX: usize = 200_000;

/// Reads a file's text; `None` after a fault.
pub(super) fn parse(file: &Arc<str>, text: &str, variables: &Variables, faults: &Collector) -> Option<Node> {
    let start = Place::Line(Arc::clone(file), 1);
    let mut builder = Builder {
        file,
        variables,
        faults,
        open: Vec::new(),
        anchors: BTreeMap::new(),
        root: None,
        documents: 0,
        nodes: 0,
    };
    for event in Parser::new_from_str(text.strip_prefix('\u{feff}').unwrap_or(text)) {
        match event {
            Ok((event, span)) => builder.take(event, span)?,
            Err(error) => {
                let place = Place::Line(Arc::clone(file), error.marker().line());
                faults.add(&place, "", format!("this is not YAML: {}", error.info()));
                return None;
            }
        }
    }
    match builder.root {
        Some(Node { value: Value::Null, .. }) | None => {
            faults.add(&start, "", "the file is empty");
            None
        }
        root => root,
    }
}

/// A list or a map that is not at its end.
struct Open {
    /// Where it stands.
    place: Place,
    /// What it has so far.
    value: Value,
    /// In a map: the key whose value comes next.
    key: Key,
    /// In a map: what `<<` brings, used for keys that are not there.
    merged: Vec<Node>,
    /// The anchor's number; 0 for none.
    anchor: usize,
    /// The number of values when it began.
    nodes_before: usize,
}

/// What a map waits for.
enum Key {
    /// A key.
    Awaited,
    /// The value of this key.
    Given(String, Place),
    /// The value of a key that is already told to be wrong.
    Wrong,
}

/// Builds a tree out of events.
struct Builder<'a> {
    /// The file's name.
    file: &'a Arc<str>,
    /// For `${VAR}`.
    variables: &'a Variables,
    /// Where faults go.
    faults: &'a Collector,
    /// From the outermost inwards.
    open: Vec<Open>,
    /// Values with an anchor, and how many values each has.
    anchors: BTreeMap<usize, (Node, usize)>,
    /// The whole, at the end.
    root: Option<Node>,
    /// Number of documents.
    documents: usize,
    /// Number of values.
    nodes: usize,
}

impl Builder<'_> {
    /// One event; `None` where going on makes no sense.
    fn take(&mut self, event: Event<'_>, span: Span) -> Option<()> {
        let place = Place::Line(Arc::clone(self.file), span.start.line().max(1));
        match event {
            Event::DocumentStart(_) => {
                self.documents += 1;
                if self.documents > 1 {
                    self.faults.add(
                        &place,
                        "",
                        "a second YAML document; use `pipelines:`, or a file for each pipeline",
                    );
                    return None;
                }
            }
            Event::Scalar(text, style, anchor, tag) => {
                self.count(&place, 1)?;
                if matches!(self.open.last(), Some(Open { value: Value::Map(_), key: Key::Awaited, .. })) {
                    self.take_key(&text, style, place);
                    return Some(());
                }
                let is_text = self.check_tag(&place, tag.as_deref());
                let node = self.scalar(&text, style != ScalarStyle::Plain || is_text, place);
                self.add(node, anchor, 1);
            }
            Event::SequenceStart(anchor, tag) => {
                self.check_tag(&place, tag.as_deref());
                self.begin(Value::List(Vec::new()), place, anchor)?;
            }
            Event::MappingStart(anchor, tag) => {
                self.check_tag(&place, tag.as_deref());
                self.begin(Value::Map(Vec::new()), place, anchor)?;
            }
            Event::SequenceEnd | Event::MappingEnd => self.end(),
            Event::Alias(anchor) => {
                let Some(nodes) = self.anchors.get(&anchor).map(|(_, nodes)| *nodes) else {
                    self.faults.add(&place, &self.path(), "this alias stands inside of its own anchor");
                    return None;
                };
                self.count(&place, nodes)?;
                let node = self.anchors.get(&anchor).map(|(node, _)| node.clone())?;
                self.add(node, 0, nodes);
            }
            Event::Nothing | Event::StreamStart | Event::StreamEnd | Event::DocumentEnd => {}
        }
        Some(())
    }

    /// Counts values against the limits.
    fn count(&mut self, place: &Place, nodes: usize) -> Option<()> {
        self.nodes = self.nodes.saturating_add(nodes);
        if self.nodes > NODES_MAX || self.open.len() > DEPTH_MAX {
            let message = format!("more than {NODES_MAX} values, or nested deeper than {DEPTH_MAX}");
            self.faults.add(place, "", message);
            return None;
        }
        Some(())
    }

    /// Whether a tag says that a value is a text; a fault for tags without a meaning.
    fn check_tag(&self, place: &Place, tag: Option<&Tag>) -> bool {
        let Some(tag) = tag else { return false };
        if !tag.is_yaml_core_schema() {
            self.faults.add(place, &self.path(), "tags have no meaning here; quote a text that begins with `!`");
        }
        tag.is_yaml_core_schema() && tag.suffix == "str"
    }

    /// Begins a list or a map.
    fn begin(&mut self, value: Value, place: Place, anchor: usize) -> Option<()> {
        self.count(&place, 1)?;
        let nodes_before = self.nodes - 1;
        self.open.push(Open { place, value, key: Key::Awaited, merged: Vec::new(), anchor, nodes_before });
        Some(())
    }

    /// Ends the innermost list or map.
    fn end(&mut self) {
        let Some(Open { place, mut value, merged, anchor, nodes_before, .. }) = self.open.pop() else { return };
        if let Value::Map(entries) = &mut value {
            for node in merged {
                let Value::Map(others) = node.value else { continue };
                for (key, node) in others {
                    if !entries.iter().any(|(known, _)| *known == key) {
                        entries.push((key, node));
                    }
                }
            }
        }
        let nodes = self.nodes.saturating_sub(nodes_before);
        self.add(Node { place, value }, anchor, nodes);
    }

    /// A key of the innermost map.
    fn take_key(&mut self, text: &str, style: ScalarStyle, place: Place) {
        let path = self.path();
        let Some(Open { value: Value::Map(entries), key, .. }) = self.open.last_mut() else { return };
        let name = if text == "<<" && style == ScalarStyle::Plain { "<<" } else { text };
        *key = match entries.iter().find(|(known, _)| known == name) {
            Some((_, first)) => {
                let message = match &first.place {
                    Place::Line(_, line) => format!("`{name}` is here a second time; the first is at line {line}"),
                    Place::Other(_) => format!("`{name}` is here a second time"),
                };
                self.faults.add(&place, &path, message);
                Key::Wrong
            }
            None => Key::Given(name.to_owned(), place),
        };
    }

    /// Puts a value where it belongs.
    fn add(&mut self, mut node: Node, anchor: usize, nodes: usize) {
        if anchor != 0 {
            self.anchors.insert(anchor, (node.clone(), nodes));
        }
        let path = self.path();
        let Some(open) = self.open.last_mut() else {
            self.root = Some(node);
            return;
        };
        match &mut open.value {
            Value::List(list) => list.push(node),
            Value::Map(entries) => match std::mem::replace(&mut open.key, Key::Awaited) {
                Key::Given(name, place) if name == "<<" => match node.value {
                    Value::Map(_) => open.merged.push(node),
                    Value::List(list) => open.merged.extend(list),
                    _ => self.faults.add(&place, &path, "`<<` takes a map, for instance an alias of one"),
                },
                Key::Given(name, place) => {
                    node.place = place;
                    entries.push((name, node));
                }
                Key::Wrong => {}
                Key::Awaited => {
                    self.faults.add(&node.place, &path, "a key must be a text");
                    open.key = Key::Wrong;
                }
            },
            _ => {}
        }
    }

    /// A scalar with its variables.
    fn scalar(&self, text: &str, quoted: bool, place: Place) -> Node {
        let value = match fill(text, self.variables) {
            Err(message) => {
                self.faults.add(&place, &self.path(), message);
                Value::Unreadable
            }
            // What was filled in with nothing is not there, quoted or not.
            Ok(filled) if filled.is_empty() && (!quoted || !text.is_empty()) => Value::Null,
            Ok(filled) if !quoted && matches!(filled.as_str(), "~" | "null" | "Null" | "NULL") => Value::Null,
            Ok(filled) => Value::Scalar(filled, quoted),
        };
        Node { place, value }
    }

    /// The path of the value that comes next. Writing to a String cannot fail.
    fn path(&self) -> String {
        let mut path = String::new();
        for open in &self.open {
            match (&open.value, &open.key) {
                (Value::List(list), _) => _ = write!(path, "[{}]", list.len()),
                (_, Key::Given(name, _)) if path.is_empty() => path.push_str(name),
                (_, Key::Given(name, _)) => _ = write!(path, ".{name}"),
                _ => {}
            }
        }
        path
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The tree as JSON, or the faults.
    fn read(text: &str) -> Result<String, String> {
        let faults = Collector::default();
        let variables = Variables::from([("A".to_owned(), "x: [1]".to_owned()), ("N".to_owned(), "5".to_owned())]);
        let node = parse(&"f.yaml".into(), text, &variables, &faults);
        faults.finish(node).map(|node| node.to_json().to_string()).map_err(|faults| faults.to_string())
    }

    #[test]
    fn variables_fill_scalars_and_cannot_change_the_structure() {
        assert_eq!(
            read("a: ${A}\nb: ${N}\nc: '${N}'\nd: \"${M:-}\"\n").unwrap(),
            r#"{"a":"x: [1]","b":5,"c":"5","d":null}"#
        );
        assert_eq!(
            read("a:\n  b:\n  - c\n  - ${M}\n").unwrap_err(),
            "f.yaml:4: a.b[1]: the variable M is not set; `${M:-default}` gives a default"
        );
    }

    #[test]
    fn anchors_and_merges_work() {
        let text = "base: &base {a: 1, b: 2}\none:\n  <<: *base\n  b: 3\ntwo: *base\n";
        assert_eq!(read(text).unwrap(), r#"{"base":{"a":1,"b":2},"one":{"b":3,"a":1},"two":{"a":1,"b":2}}"#);
        assert_eq!(read("a: &a [*a]").unwrap_err(), "f.yaml:1: a[0]: this alias stands inside of its own anchor");
        assert_eq!(read("a: {<<: 1}").unwrap_err(), "f.yaml:1: a.<<: `<<` takes a map, for instance an alias of one");
    }

    #[test]
    fn what_is_no_configuration_is_told_with_its_line() {
        assert_eq!(read("").unwrap_err(), "f.yaml:1: the file is empty");
        assert_eq!(read("# only words\n").unwrap_err(), "f.yaml:1: the file is empty");
        assert_eq!(
            read("a: 1\nb: 2\na: 3\n").unwrap_err(),
            "f.yaml:3: `a` is here a second time; the first is at line 1"
        );
        assert_eq!(
            read("a: 1\n---\nb: 2\n").unwrap_err(),
            "f.yaml:2: a second YAML document; use `pipelines:`, or a file for each pipeline"
        );
        assert_eq!(read("[a]: 1\n").unwrap_err(), "f.yaml:1: a key must be a text");
        assert_eq!(
            read("a: !secret b\n").unwrap_err(),
            "f.yaml:1: a: tags have no meaning here; quote a text that begins with `!`"
        );
        for text in ["a: 1\nb: [\n", "a: 1\n b: 2\n", "a: 'b\n"] {
            assert!(read(text).unwrap_err().contains(": this is not YAML: "), "{text}");
        }
    }

    #[test]
    fn neither_depth_nor_aliases_exhaust_anything() {
        let limits = "more than 200000 values, or nested deeper than 64";
        let mut laughs = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n".to_owned();
        for level in 1..12 {
            let alias = format!("*a{}", level - 1);
            let _ = writeln!(laughs, "a{level}: &a{level} [{}]", [alias.as_str(); 10].join(", "));
        }
        assert!(read(&laughs).unwrap_err().ends_with(limits));
        assert!(read(&"- ".repeat(50_000)).is_err());
        assert!(read(&"[".repeat(50_000)).is_err());
    }

    proptest! {
        #[test]
        fn no_text_panics(text in "\\PC{0,80}|([a-z]{1,3}: ?|- |\\n|  |\\$\\{|&a |\\*a|<<: |[\\[\\]{},'\"!?|>]){0,40}") {
            let _ = read(&text);
        }
    }
}
