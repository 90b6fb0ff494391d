//! Walks a schema and a value side by side.
//!
//! Every step is paid from one purse, and references may not go deeper than a fixed number of levels: whatever the schema is,
//! the walk ends.

use std::collections::{BTreeMap, BTreeSet};

use regex::{Regex, RegexBuilder};
use serde_json::{Map, Value};

use super::{ConfigFault, SILENT, word};
use crate::config::Step;

/// Steps of one check: a large config of a large schema takes some thousands. At a microsecond or less each, this is a tenth of
/// a second.
const STEPS_MAX: usize = 100_000;
/// Levels of schemas in each other, references counted: far above what people write, far below what could exhaust a stack.
const DEPTH_MAX: usize = 64;
/// Bytes that a compiled pattern may take. Matching is linear in the text, whatever the pattern is.
const PATTERN_BYTES_MAX: usize = 256 << 10;
/// Steps that compiling a pattern costs.
const PATTERN_STEPS: usize = 1_000;
/// Faults that are kept while one check goes on.
const FAULTS_MAX: usize = 100;

/// The check cannot go on.
#[derive(Debug)]
pub(super) struct Spent;

/// A check on its way.
pub(super) struct Checker<'a> {
    /// The whole schema, for references.
    root: &'a Value,
    /// Steps left.
    steps: usize,
    /// What leads to the value that is looked at.
    pub(super) at: Vec<Step>,
    /// What is wrong.
    pub(super) faults: Vec<ConfigFault>,
    /// What cannot be checked.
    pub(super) unchecked: BTreeSet<String>,
    /// Compiled patterns.
    patterns: BTreeMap<&'a str, Option<Regex>>,
}

impl<'a> Checker<'a> {
    /// A check against a schema.
    pub(super) fn new(root: &'a Value) -> Self {
        Self {
            root,
            steps: STEPS_MAX,
            at: Vec::new(),
            faults: Vec::new(),
            unchecked: BTreeSet::new(),
            patterns: BTreeMap::new(),
        }
    }

    /// Checks a whole config. What was found before the steps ran out stays found.
    pub(super) fn check(&mut self, config: &Value) {
        if self.walk(self.root, config, 0).is_err() {
            let words = "what is left of it after 100000 steps, or deeper than 64 levels (does a $ref lead to itself?)";
            self.unchecked.insert(words.to_owned());
        }
    }

    /// Notes a fault of the value that is looked at.
    pub(super) fn fault(&mut self, message: impl Into<String>) {
        if self.faults.len() < FAULTS_MAX {
            self.faults.push(ConfigFault { at: self.at.clone(), message: message.into() });
        }
    }

    /// Pays for so many steps.
    pub(super) fn pay(&mut self, steps: usize) -> Result<(), Spent> {
        self.steps = self.steps.checked_sub(steps).ok_or(Spent)?;
        Ok(())
    }

    /// One schema against one value.
    fn walk(&mut self, schema: &'a Value, value: &Value, depth: usize) -> Result<(), Spent> {
        self.pay(1)?;
        if depth > DEPTH_MAX {
            return Err(Spent);
        }
        let keywords = match schema {
            Value::Bool(true) => return Ok(()),
            Value::Bool(false) => {
                self.fault("is not allowed here");
                return Ok(());
            }
            Value::Object(keywords) => keywords,
            _ => {
                self.unchecked.insert("a part that is neither an object nor true or false".to_owned());
                return Ok(());
            }
        };
        if !self.one_value(keywords, value)? {
            // A value of another type is wrong in everything else too; one fault is enough.
            return Ok(());
        }
        for (keyword, own) in keywords {
            self.pay(1)?;
            self.keyword(keyword, own, value, depth)?;
        }
        self.condition(keywords, value, depth)?;
        match value {
            Value::Object(entries) => self.object(keywords, entries, depth),
            Value::Array(items) => self.array(keywords, items, depth),
            _ => Ok(()),
        }
    }

    /// A keyword that is about other schemas, or that nobody knows.
    fn keyword(&mut self, keyword: &'a str, own: &'a Value, value: &Value, depth: usize) -> Result<(), Spent> {
        match (keyword, own) {
            ("$ref", Value::String(reference)) => {
                if let Some(schema) = self.resolve(reference) {
                    return self.walk(schema, value, depth + 1);
                }
                self.unchecked.insert(format!("`$ref` to {:?}", word(reference)));
                Ok(())
            }
            ("allOf", Value::Array(schemas)) => {
                schemas.iter().try_for_each(|schema| self.walk(schema, value, depth + 1))
            }
            ("anyOf" | "oneOf", Value::Array(schemas)) => self.choice(keyword == "oneOf", schemas, value, depth),
            ("not", schema) => {
                if self.faults_of(schema, value, depth)?.is_empty() {
                    self.fault("is what the plugin's schema rules out");
                }
                Ok(())
            }
            _ if is_known(keyword) => Ok(()),
            _ => {
                self.unchecked.insert(format!("`{}`", word(keyword)));
                Ok(())
            }
        }
    }

    /// The schema that a reference names, if it is in the same document.
    fn resolve(&self, reference: &str) -> Option<&'a Value> {
        let pointer = reference.strip_prefix('#')?;
        let pointer = percent_encoding::percent_decode_str(pointer).decode_utf8().ok()?;
        self.root.pointer(&pointer)
    }

    /// What is wrong with a value by a schema, without noting it.
    fn faults_of(&mut self, schema: &'a Value, value: &Value, depth: usize) -> Result<Vec<ConfigFault>, Spent> {
        let before = std::mem::take(&mut self.faults);
        let walked = self.walk(schema, value, depth + 1);
        let faults = std::mem::replace(&mut self.faults, before);
        walked.map(|()| faults)
    }

    /// `anyOf` and `oneOf`: where none fits, the faults of the one that fits best.
    fn choice(&mut self, only_one: bool, schemas: &'a [Value], value: &Value, depth: usize) -> Result<(), Spent> {
        let (mut fitting, mut best): (usize, Option<Vec<ConfigFault>>) = (0, None);
        for schema in schemas {
            let faults = self.faults_of(schema, value, depth)?;
            if faults.is_empty() {
                fitting += 1;
            }
            // A fault deep in a value says that the form is the right one and the value is not.
            let rank = |faults: &[ConfigFault]| {
                let deepest = faults.iter().map(|fault| fault.at.len()).max().unwrap_or(0);
                (usize::MAX - deepest, faults.len())
            };
            if best.as_ref().is_none_or(|best| rank(&faults) < rank(best)) {
                best = Some(faults);
            }
        }
        match (fitting, best.as_deref()) {
            (0, Some([only])) => {
                let ConfigFault { at, message } = only.clone();
                let more = if schemas.len() > 1 { " (in the form that fits best)" } else { "" };
                self.faults.push(ConfigFault { at, message: format!("{message}{more}") });
            }
            (0, _) => self.fault(format!("fits none of the {} forms that it may have", schemas.len())),
            (2.., _) if only_one => self.fault(format!("fits {fitting} forms, of which it may have one")),
            _ => {}
        }
        Ok(())
    }

    /// A value in the value that is looked at.
    fn inner(&mut self, step: Step, schema: &'a Value, value: &Value, depth: usize) -> Result<(), Spent> {
        self.at.push(step);
        let walked = self.walk(schema, value, depth + 1);
        self.at.pop();
        walked
    }

    /// Keywords about keys and their values.
    fn object(
        &mut self,
        keywords: &'a Map<String, Value>,
        entries: &Map<String, Value>,
        depth: usize,
    ) -> Result<(), Spent> {
        let properties = keywords.get("properties").and_then(Value::as_object);
        let patterns = keywords.get("patternProperties").and_then(Value::as_object);
        let required = keywords.get("required").and_then(Value::as_array);
        for key in required.into_iter().flatten().filter_map(Value::as_str) {
            self.pay(1)?;
            if !entries.contains_key(key) {
                let what = properties.and_then(|properties| properties.get(key)?.get("description")?.as_str());
                let what = what.map(|what| format!(": {}", word(what))).unwrap_or_default();
                self.fault(format!("`{}` is missing{what}", word(key)));
            }
        }
        let dependent = keywords.get("dependentRequired").and_then(Value::as_object);
        for (key, needs) in dependent.into_iter().flatten().filter(|(key, _)| entries.contains_key(*key)) {
            for need in needs.as_array().into_iter().flatten().filter_map(Value::as_str) {
                self.pay(1)?;
                if !entries.contains_key(need) {
                    self.fault(format!("`{}` is missing, which `{}` needs", word(need), word(key)));
                }
            }
        }
        for (key, value) in entries {
            self.pay(1)?;
            let step = || Step::Key(word(key));
            let mut is_known = false;
            if let Some(schema) = properties.and_then(|properties| properties.get(key)) {
                is_known = true;
                self.inner(step(), schema, value, depth)?;
            }
            for (pattern, schema) in patterns.into_iter().flatten() {
                if self.matches(pattern, key)? != Some(false) {
                    is_known = true;
                    self.inner(step(), schema, value, depth)?;
                }
            }
            if let Some(names) = keywords.get("propertyNames") {
                self.inner(step(), names, &Value::String(key.clone()), depth)?;
            }
            match keywords.get("additionalProperties") {
                Some(Value::Bool(false)) if !is_known => {
                    let known: Vec<_> = properties.into_iter().flatten().take(10).map(|(key, _)| word(key)).collect();
                    self.at.push(step());
                    self.fault(format!("unknown key; known here: {}", known.join(", ")));
                    self.at.pop();
                }
                Some(schema) if !is_known => self.inner(step(), schema, value, depth)?,
                _ => {}
            }
        }
        Ok(())
    }

    /// Keywords about items.
    fn array(&mut self, keywords: &'a Map<String, Value>, items: &[Value], depth: usize) -> Result<(), Spent> {
        let prefix = keywords.get("prefixItems").and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
        for (number, item) in items.iter().enumerate() {
            self.pay(1)?;
            if let Some(schema) = prefix.get(number).or_else(|| keywords.get("items")) {
                self.inner(Step::Item(number), schema, item, depth)?;
            }
        }
        if let Some(schema) = keywords.get("contains") {
            let mut found = false;
            for item in items {
                found = found || self.faults_of(schema, item, depth)?.is_empty();
            }
            if !found {
                self.fault("has no item of the kind that it must contain");
            }
        }
        Ok(())
    }

    /// `if`, `then` and `else`.
    fn condition(&mut self, keywords: &'a Map<String, Value>, value: &Value, depth: usize) -> Result<(), Spent> {
        let Some(condition) = keywords.get("if") else { return Ok(()) };
        let holds = self.faults_of(condition, value, depth)?.is_empty();
        match keywords.get(if holds { "then" } else { "else" }) {
            Some(schema) => self.walk(schema, value, depth + 1),
            None => Ok(()),
        }
    }

    /// Whether a text matches a pattern; `None` where the pattern cannot be read.
    pub(super) fn matches(&mut self, pattern: &'a str, text: &str) -> Result<Option<bool>, Spent> {
        self.pay(1 + text.len() / 64)?;
        if !self.patterns.contains_key(pattern) {
            self.pay(PATTERN_STEPS)?;
            let limits = |builder: &mut RegexBuilder| {
                builder.size_limit(PATTERN_BYTES_MAX).dfa_size_limit(PATTERN_BYTES_MAX).build().ok()
            };
            let compiled = limits(&mut RegexBuilder::new(pattern));
            if compiled.is_none() {
                self.unchecked.insert(format!("the pattern {:?}", word(pattern)));
            }
            self.patterns.insert(pattern, compiled);
        }
        Ok(self.patterns.get(pattern).and_then(Option::as_ref).map(|pattern| pattern.is_match(text)))
    }
}

/// Whether a keyword is looked at elsewhere, or says something and checks nothing.
fn is_known(keyword: &str) -> bool {
    let looked_at = [
        "type",
        "enum",
        "const",
        "properties",
        "required",
        "additionalProperties",
        "patternProperties",
        "propertyNames",
        "minProperties",
        "maxProperties",
        "dependentRequired",
        "items",
        "prefixItems",
        "contains",
        "minItems",
        "maxItems",
        "uniqueItems",
        "minLength",
        "maxLength",
        "pattern",
        "minimum",
        "maximum",
        "exclusiveMinimum",
        "exclusiveMaximum",
        "multipleOf",
        "if",
        "then",
        "else",
    ];
    looked_at.contains(&keyword) || SILENT.contains(&keyword)
}
