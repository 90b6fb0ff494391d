//! Reads typed values from a section of the configuration, remembers which keys it was asked for, and reports the rest.
//!
//! A key costs one line: `section.get("commit_interval", positive_duration)`.

use std::cell::RefCell;

use super::{
    fault::{Collector, Place, nearest},
    node::{Node, Value},
};

/// Keys of the original or of the plan that other versions serve; better words than "unknown key".
const OTHER_VERSIONS: [(&str, &str); 24] = [
    ("source.host", "Redis sources"),
    ("source.port", "Redis sources"),
    ("source.db", "Redis sources"),
    ("source.password", "Redis sources"),
    ("source.stream_keys", "Redis sources"),
    ("source.list_keys", "Redis sources"),
    ("source.continuous", "Redis sources"),
    ("source.consumer_group", "Redis sources"),
    ("source.consumer_name", "Redis sources"),
    ("sink.url", "HDFS sinks"),
    ("sink.user", "HDFS sinks"),
    ("sink.merge_enabled", "compaction"),
    ("sink.merge_period", "compaction"),
    ("sink.merge_min_files", "compaction"),
    ("sink.merge_on_flush", "compaction"),
    ("sink.parquet.sort_by", "sorting within files"),
    ("plugins.grants", "capabilities for plugins"),
    ("plugins.limits.instances", "limits on instances"),
    ("plugins.on_trap.open_circuit_after", "the circuit breaker"),
    ("dead_letter.topic", "a Kafka topic for dead letters"),
    ("source.on_tombstone", "options for tombstones"),
    ("source.schema_registry", "schema registries"),
    ("source.start", "starting at a time"),
    ("tenants", "budgets of tenants"),
];

/// A section while it is read.
pub(super) struct Section<'a> {
    /// The dotted path to it; empty at the top.
    path: String,
    /// Its keys; none when it is missing.
    node: Option<&'a Node>,
    /// Where it stands, or where what it belongs to stands.
    place: Place,
    /// Keys that were asked for.
    asked: RefCell<Vec<&'static str>>,
    /// Where faults go.
    faults: &'a Collector,
}

impl<'a> Section<'a> {
    /// The top of a configuration, or of one pipeline in it.
    pub(super) fn top(node: &'a Node, faults: &'a Collector) -> Self {
        Self::new(String::new(), Some(node), node.place.clone(), faults)
    }

    /// A section; a fault when it is something else.
    fn new(path: String, node: Option<&'a Node>, place: Place, faults: &'a Collector) -> Self {
        let node = node.filter(|node| match &node.value {
            Value::Map(_) => true,
            Value::Null => false,
            Value::Scalar(..) | Value::List(_) => {
                faults.add(&node.place, &path, "expected keys and values");
                false
            }
        });
        Self { path, node, place, asked: RefCell::default(), faults }
    }

    /// The path of a key.
    pub(super) fn path_of(&self, key: &str) -> String {
        if self.path.is_empty() { key.to_owned() } else { format!("{}.{key}", self.path) }
    }

    /// Whether the section is there.
    pub(super) fn is_there(&self) -> bool {
        self.node.is_some()
    }

    /// The value of a key, whatever it is; null counts as missing.
    pub(super) fn node(&self, key: &'static str) -> Option<&'a Node> {
        self.asked.borrow_mut().push(key);
        self.node?.get(key).filter(|node| !matches!(node.value, Value::Null))
    }

    /// A section in this one.
    pub(super) fn section(&self, key: &'static str) -> Self {
        let node = self.node(key);
        let place = node.map_or_else(|| self.place.clone(), |node| node.place.clone());
        Section::new(self.path_of(key), node, place, self.faults)
    }

    /// A value of some type; `None` when it is missing or wrong.
    pub(super) fn get<T>(&self, key: &'static str, parse: impl FnOnce(&str) -> Result<T, String>) -> Option<T> {
        let node = self.node(key)?;
        let Value::Scalar(text, _) = &node.value else {
            self.faults.add(&node.place, &self.path_of(key), "expected one value, found a list or a section");
            return None;
        };
        parse(text).map_err(|message| self.faults.add(&node.place, &self.path_of(key), message)).ok()
    }

    /// The same, with what counts when it is missing.
    pub(super) fn get_or<T>(&self, key: &'static str, default: T, parse: impl FnOnce(&str) -> Result<T, String>) -> T {
        self.get(key, parse).unwrap_or(default)
    }

    /// A text.
    pub(super) fn text(&self, key: &'static str) -> Option<String> {
        self.get(key, |text| Ok(text.to_owned()))
    }

    /// A text that has to be there.
    pub(super) fn required_text(&self, key: &'static str) -> Option<String> {
        let text = self.text(key).filter(|text| !text.is_empty());
        if text.is_none() {
            self.fault(key, "is missing");
        }
        text
    }

    /// A list of texts; one text with commas counts as a list, as in the original's environment variables.
    pub(super) fn texts(&self, key: &'static str) -> Vec<String> {
        let Some(node) = self.node(key) else { return Vec::new() };
        let mut texts = Vec::new();
        match &node.value {
            Value::Scalar(text, _) => {
                texts.extend(text.split(',').map(|part| part.trim().to_owned()).filter(|part| !part.is_empty()));
            }
            Value::List(list) => {
                for item in list {
                    match &item.value {
                        Value::Scalar(text, _) => texts.push(text.clone()),
                        _ => self.faults.add(&item.place, &self.path_of(key), "expected a list of texts"),
                    }
                }
            }
            _ => self.faults.add(&node.place, &self.path_of(key), "expected a list"),
        }
        texts
    }

    /// Keys and texts, whatever the keys are.
    pub(super) fn pairs(&self, key: &'static str) -> Vec<(String, String, Place)> {
        let Some(node) = self.node(key) else { return Vec::new() };
        let Value::Map(entries) = &node.value else {
            self.faults.add(&node.place, &self.path_of(key), "expected keys and values");
            return Vec::new();
        };
        let mut pairs = Vec::new();
        for (name, entry) in entries {
            match &entry.value {
                Value::Scalar(text, _) => pairs.push((name.clone(), text.clone(), entry.place.clone())),
                _ => self.faults.add(&entry.place, &format!("{}.{name}", self.path_of(key)), "expected one value"),
            }
        }
        pairs
    }

    /// The sections of a list, or of a map with free names.
    pub(super) fn sections(&self, key: &'static str) -> Vec<(Option<String>, Self)> {
        let Some(node) = self.node(key) else { return Vec::new() };
        let make = |path: String, item: &'a Node| Section::new(path, Some(item), item.place.clone(), self.faults);
        match &node.value {
            Value::List(list) => list
                .iter()
                .enumerate()
                .map(|(at, item)| (None, make(format!("{}[{at}]", self.path_of(key)), item)))
                .collect(),
            Value::Map(entries) => entries
                .iter()
                .map(|(name, item)| (Some(name.clone()), make(format!("{}.{name}", self.path_of(key)), item)))
                .collect(),
            _ => {
                self.faults.add(&node.place, &self.path_of(key), "expected a list of sections");
                Vec::new()
            }
        }
    }

    /// Notes a fault at a key, or at the section where the key is missing.
    pub(super) fn fault(&self, key: &str, message: impl Into<String>) {
        let place = self.node.and_then(|node| node.get(key)).map_or(&self.place, |node| &node.place);
        self.faults.add(place, &self.path_of(key), message);
    }

    /// Notes a fault at a place within the section.
    pub(super) fn fault_at(&self, place: &Place, path: &str, message: impl Into<String>) {
        self.faults.add(place, path, message);
    }

    /// Reports every key that nobody asked for.
    pub(super) fn finish(self) {
        let Some(Node { value: Value::Map(entries), .. }) = self.node else { return };
        let asked = self.asked.borrow();
        for (name, node) in entries.iter().filter(|(name, _)| !asked.contains(&name.as_str())) {
            let path = self.path_of(name);
            let plain: String =
                path.split('[').map(|part| part.split_once(']').map_or(part, |(_, rest)| rest)).collect();
            let message = if let Some((_, what)) = OTHER_VERSIONS.iter().find(|(key, _)| *key == plain) {
                format!("this version does not serve {what}")
            } else if let Some(known) = nearest(name, asked.iter().copied()) {
                format!("unknown key; did you mean {known:?}?")
            } else {
                let mut known = asked.clone();
                known.sort_unstable();
                known.dedup();
                format!("unknown key; known here: {}", known.join(", "))
            };
            self.faults.add(&node.place, &path, message);
        }
    }
}
