//! Reads typed values from a section of the configuration, remembers which keys it was asked for, and reports the rest.
//!
//! A key costs one line: `section.get_or("commit_interval", Duration::from_secs(60), positive_duration)`. A key that
//! is there but wrong is told once, and reads as if it were missing.

use std::{
    cell::RefCell,
    path::{Path, PathBuf},
};

use super::{
    fault::{Collector, Place, UnknownKey},
    node::{Node, Value},
};

/// Keys of the original or of the plan that other versions serve; better words than "unknown key".
const OTHER_VERSIONS: [(&str, &str); 2] =
    [("sink.extra_config", "further options of stores"), ("schema.registry", "schema registries")];

/// A section while it is read.
#[derive(Debug)]
pub(super) struct Section<'a> {
    /// The dotted path to it; empty at the top.
    path: String,
    /// The same without indices and free names, and from the top of its pipeline: one for all sections of a kind.
    plain: String,
    /// Its keys; none when it is missing.
    node: Option<&'a Node>,
    /// Where it stands, or where what it belongs to stands.
    place: Place,
    /// Whether something stands there that is no section; its fault is told.
    is_wrong: bool,
    /// Keys that were asked for.
    asked: RefCell<Vec<&'static str>>,
    /// Where faults go.
    faults: &'a Collector,
}

/// A name or an index, and what stands there.
pub(super) type Named<'a> = (Option<&'a str>, Section<'a>);

impl<'a> Section<'a> {
    /// The top of a configuration.
    pub(super) fn top(node: &'a Node, faults: &'a Collector) -> Self {
        Self::new(String::new(), String::new(), Some(node), node.place.clone(), faults)
    }

    /// A section; a fault when it is something else.
    fn new(path: String, plain: String, node: Option<&'a Node>, place: Place, faults: &'a Collector) -> Self {
        let mut is_wrong = false;
        let node = node.filter(|node| match &node.value {
            Value::Map(_) => true,
            Value::Null => false,
            Value::Unreadable => {
                is_wrong = true;
                false
            }
            Value::Scalar(..) | Value::List(_) => {
                faults.add(&node.place, &path, format!("expected keys and values, found {}", node.value.kind()));
                is_wrong = true;
                false
            }
        });
        Self { path, plain, node, place, is_wrong, asked: RefCell::default(), faults }
    }

    /// The path of a key.
    pub(super) fn path_of(&self, key: &str) -> String {
        join(&self.path, key)
    }

    /// Whether the section is there.
    pub(super) fn is_there(&self) -> bool {
        self.node.is_some()
    }

    /// Whether nothing stands there.
    pub(super) fn node_is_missing(&self) -> bool {
        self.node.is_none() && !self.is_wrong
    }

    /// Whether a key is there, without asking for it.
    pub(super) fn has(&self, key: &str) -> bool {
        self.node.and_then(|node| node.get(key)).is_some_and(|node| !matches!(node.value, Value::Null))
    }

    /// Whether a key is missing or an empty section, without asking for it.
    pub(super) fn is_empty(&self, key: &str) -> bool {
        match self.node.and_then(|node| node.get(key)).map(|node| &node.value) {
            None | Some(Value::Null) => true,
            Some(Value::Map(entries)) => entries.is_empty(),
            Some(_) => false,
        }
    }

    /// Where it stands.
    pub(super) fn place(&self) -> &Place {
        &self.place
    }

    /// The value of a key, whatever it is; null counts as missing.
    pub(super) fn node(&self, key: &'static str) -> Option<&'a Node> {
        self.asked.borrow_mut().push(key);
        self.faults.note_asked(join(&self.plain, key));
        self.node?.get(key).filter(|node| !matches!(node.value, Value::Null))
    }

    /// A section in this one.
    pub(super) fn section(&self, key: &'static str) -> Self {
        let node = self.node(key);
        let place = node.map_or_else(|| self.place.clone(), |node| node.place.clone());
        Self::new(self.path_of(key), join(&self.plain, key), node, place, self.faults)
    }

    /// A value of some type; `None` when it is missing or wrong.
    pub(super) fn get<T>(&self, key: &'static str, parse: impl FnOnce(&str) -> Result<T, String>) -> Option<T> {
        let node = self.node(key)?;
        match &node.value {
            Value::Scalar(text, _) => parse(text).map_err(|message| self.fault(key, message)).ok(),
            Value::Unreadable => None,
            other => {
                self.fault(key, format!("expected one value, found {}", other.kind()));
                None
            }
        }
    }

    /// The same, with what counts when it is missing.
    pub(super) fn get_or<T>(&self, key: &'static str, default: T, parse: impl FnOnce(&str) -> Result<T, String>) -> T {
        self.get(key, parse).unwrap_or(default)
    }

    /// The text of a key that has one value; `None` for anything else, which is no fault.
    pub(super) fn scalar(&self, key: &'static str) -> Option<&'a str> {
        match &self.node(key)?.value {
            Value::Scalar(text, _) => Some(text),
            _ => None,
        }
    }

    /// A text.
    pub(super) fn text(&self, key: &'static str) -> Option<String> {
        self.get(key, |text| Ok(text.to_owned()))
    }

    /// A text that has to be there; `what` says what it is.
    pub(super) fn required_text(&self, key: &'static str, what: &str) -> Option<String> {
        let text = self.text(key).filter(|text| !text.is_empty());
        let is_wrong =
            || self.node(key).is_some_and(|node| !matches!(&node.value, Value::Scalar(text, _) if text.is_empty()));
        if text.is_none() && !is_wrong() {
            self.fault(key, format!("is missing: {what}"));
        }
        text
    }

    /// A file or a folder: relative to `folder` where a file says it, to the working folder where a flag or a variable
    /// does.
    pub(super) fn resolve(place: &Place, folder: &Path, path: &str) -> PathBuf {
        match place {
            Place::Line(..) => folder.join(path),
            Place::Other(_) => PathBuf::from(path),
        }
    }

    /// A list of texts with their places; one text with commas counts as a list, as in the original's environment
    /// variables.
    pub(super) fn texts(&self, key: &'static str) -> Vec<(String, Place)> {
        let Some(node) = self.node(key) else { return Vec::new() };
        let mut texts = Vec::new();
        match &node.value {
            Value::Scalar(text, _) => {
                let parts = text.split(',').map(str::trim).filter(|part| !part.is_empty());
                texts.extend(parts.map(|part| (part.to_owned(), node.place.clone())));
            }
            Value::List(list) => {
                for (at, item) in list.iter().enumerate() {
                    match &item.value {
                        Value::Scalar(text, _) => texts.push((text.clone(), item.place.clone())),
                        Value::Unreadable => {}
                        other => {
                            let path = format!("{}[{at}]", self.path_of(key));
                            self.faults.add(&item.place, &path, format!("expected a text, found {}", other.kind()));
                        }
                    }
                }
            }
            Value::Map(_) => self.fault(key, "expected a list, found keys and values"),
            Value::Null | Value::Unreadable => {}
        }
        texts
    }

    /// A list of texts that has to have some; `what` says what they are.
    pub(super) fn required_texts(&self, key: &'static str, what: &str) -> Vec<(String, Place)> {
        let texts = self.texts(key);
        let is_empty = match self.node(key).map(|node| &node.value) {
            None => true,
            Some(Value::List(list)) => list.is_empty(),
            Some(Value::Scalar(..)) => texts.is_empty(),
            Some(_) => false,
        };
        if is_empty {
            self.fault(key, format!("is missing: {what}"));
        }
        texts
    }

    /// Keys and texts, whatever the keys are.
    pub(super) fn pairs(&self, key: &'static str) -> Vec<(&'a str, &'a str, &'a Place)> {
        let section = self.section(key);
        let Some(Node { value: Value::Map(entries), .. }) = section.node else { return Vec::new() };
        let mut pairs = Vec::new();
        for (name, entry) in entries {
            match &entry.value {
                Value::Scalar(text, _) => pairs.push((name.as_str(), text.as_str(), &entry.place)),
                Value::Unreadable => {}
                other => {
                    let message = format!("expected one value, found {}", other.kind());
                    self.faults.add(&entry.place, &section.path_of(name), message);
                }
            }
        }
        pairs
    }

    /// The sections of a list, or of a map with free names. `plain` is what they have in common with those elsewhere.
    fn all(&self, key: &'static str, plain: &str) -> Vec<Named<'a>> {
        let Some(node) = self.node(key) else { return Vec::new() };
        let path = self.path_of(key);
        let make = |path: String, item: &'a Node| {
            Self::new(path, plain.to_owned(), Some(item), item.place.clone(), self.faults)
        };
        match &node.value {
            Value::List(list) => {
                list.iter().enumerate().map(|(at, item)| (None, make(format!("{path}[{at}]"), item))).collect()
            }
            Value::Map(entries) => {
                entries.iter().map(|(name, item)| (Some(name.as_str()), make(join(&path, name), item))).collect()
            }
            Value::Unreadable | Value::Null => Vec::new(),
            Value::Scalar(..) => {
                self.fault(key, "expected a list or keys and values, found one value");
                Vec::new()
            }
        }
    }

    /// The sections of a list, or of a map with free names.
    pub(super) fn sections(&self, key: &'static str) -> Vec<Named<'a>> {
        self.all(key, &join(&self.plain, key))
    }

    /// The same where each is the top of something, such as a pipeline.
    pub(super) fn tops(&self, key: &'static str) -> Vec<Named<'a>> {
        self.all(key, "")
    }

    /// Keys that only another kind has: told as such, not as unknown. `kind` is how to ask for that other kind.
    pub(super) fn only_with(&self, kind: &str, keys: &[&'static str]) {
        let Some(node) = self.node else { return };
        for key in keys.iter().filter(|key| !self.asked.borrow().contains(key)) {
            if let Some(found) = node.get(key) {
                self.faults.add(
                    &found.place,
                    &self.path_of(key),
                    format!("has no meaning here; it belongs to `{kind}`"),
                );
            }
        }
        self.asked.borrow_mut().extend(keys);
    }

    /// Notes a fault at a key, or at the section where the key is missing.
    pub(super) fn fault(&self, key: &str, message: impl Into<String>) {
        let place = self.node.and_then(|node| node.get(key)).map_or(&self.place, |node| &node.place);
        let path = if key.is_empty() { self.path.clone() } else { self.path_of(key) };
        self.faults.add(place, &path, message);
    }

    /// Notes a fault of a key at a place, for instance that of an item of a list.
    pub(super) fn fault_at(&self, place: &Place, key: &str, message: impl Into<String>) {
        self.faults.add(place, &self.path_of(key), message);
    }

    /// Reports every key that nobody asked for.
    pub(super) fn finish(self) {
        let Some(Node { value: Value::Map(entries), .. }) = self.node else { return };
        let asked = self.asked.borrow();
        for (name, node) in entries.iter().filter(|(name, _)| !asked.contains(&name.as_str())) {
            let (path, plain) = (self.path_of(name), join(&self.plain, name));
            if let Some((_, what)) = OTHER_VERSIONS.iter().find(|(key, _)| *key == plain) {
                self.faults.add(&node.place, &path, format!("this version does not serve {what} yet"));
                continue;
            }
            let known = asked.iter().copied().collect();
            self.faults.note_unknown(UnknownKey { place: node.place.clone(), path, key: name.clone(), known });
        }
    }
}

/// A dotted path.
fn join(path: &str, key: &str) -> String {
    if path.is_empty() { key.to_owned() } else { format!("{path}.{key}") }
}
