//! Where the values of a plugin's `config:` stand, so that what is wrong in one of them can be told with its line.

use std::{fmt, fmt::Write as _, sync::Arc};

use super::{
    fault::{Fault, Place},
    node::{Node, Value},
};

/// One step from a value into it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// The value of a key.
    Key(String),
    /// An item of a list, from 0.
    Item(usize),
}

/// Where the values of a plugin's `config:` stand. Cheap to clone; the default knows no lines.
#[derive(Clone, Default)]
pub struct ConfigPlaces(Option<Arc<Known>>);

/// What is known where a file said it.
struct Known {
    /// The path of `config` in its file.
    path: String,
    /// Where the plugin stands.
    plugin: Place,
    /// The values; none where there is no `config`.
    node: Option<Node>,
}

impl fmt::Debug for ConfigPlaces {
    // Not the values, which may hold secrets.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("ConfigPlaces").field("path", &self.0.as_ref().map(|known| &known.path)).finish()
    }
}

/// Where a value stands is no part of what it says: a plugin whose lines have moved is the same.
impl PartialEq for ConfigPlaces {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

impl Eq for ConfigPlaces {}

impl ConfigPlaces {
    /// The values under `config`, at a path, of a plugin that stands at a place.
    pub(super) fn new(path: String, plugin: Place, node: Option<&Node>) -> Self {
        Self(Some(Arc::new(Known { path, plugin, node: node.cloned() })))
    }

    /// A fault of the value that some steps lead to, at its line; where there is none, at that of the last value on the way.
    #[must_use]
    pub fn fault(&self, steps: &[Step], message: String) -> Fault {
        let mut path = self.0.as_ref().map_or_else(|| "config".to_owned(), |known| known.path.clone());
        for step in steps {
            // Writing to a String cannot fail.
            let _ = match step {
                Step::Key(key) if path.is_empty() => write!(path, "{key}"),
                Step::Key(key) => write!(path, ".{key}"),
                Step::Item(at) => write!(path, "[{at}]"),
            };
        }
        let Some(known) = &self.0 else { return Fault { place: Place::other("the configuration"), path, message } };
        let mut place = &known.plugin;
        let mut next = known.node.as_ref();
        let mut steps = steps.iter();
        while let Some(node) = next {
            place = &node.place;
            next = steps.next().and_then(|step| match (step, &node.value) {
                (Step::Key(key), Value::Map(_)) => node.get(key),
                (Step::Item(at), Value::List(items)) => items.get(*at),
                _ => None,
            });
        }
        Fault { place: place.clone(), path, message }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{fault::Collector, variables::Variables, yaml};

    #[test]
    fn a_fault_stands_at_the_deepest_line_that_there_is() {
        let (faults, text) = (Collector::default(), "column: x\nvalues:\n  - a\n  - b: 1\n");
        let node = yaml::parse(&"f.yaml".into(), text, &Variables::new(), &faults).unwrap();
        let places = ConfigPlaces::new("plugins[0].config".to_owned(), Place::other("plugin"), Some(&node));
        let (values, key) = (Step::Key("values".to_owned()), |key: &str| Step::Key(key.to_owned()));
        let tell = |steps: &[Step]| places.fault(steps, "is wrong".to_owned()).to_string();
        assert_eq!(tell(&[]), "f.yaml:1: plugins[0].config: is wrong");
        assert_eq!(
            tell(&[values.clone(), Step::Item(1), key("b")]),
            "f.yaml:4: plugins[0].config.values[1].b: is wrong"
        );
        assert_eq!(tell(&[values, Step::Item(7)]), "f.yaml:2: plugins[0].config.values[7]: is wrong");
        let missing = ConfigPlaces::new("plugins[0].config".to_owned(), Place::other("plugin"), None);
        assert_eq!(missing.fault(&[], "is wrong".to_owned()).to_string(), "plugin: plugins[0].config: is wrong");
        let unknown = ConfigPlaces::default().fault(&[key("a")], "is wrong".to_owned());
        assert_eq!(unknown.to_string(), "the configuration: config.a: is wrong");
    }
}
