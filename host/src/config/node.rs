//! A configuration as a tree that knows where each value stands. Scalars stay text until a key asks for a type.

use super::fault::Place;

/// A value and where it stands: its key's line in a map, its own in a list.
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
    /// Something whose fault is already told: it is there, but nothing can be said about it.
    Unreadable,
}

impl Value {
    /// For messages.
    pub(super) fn kind(&self) -> &'static str {
        match self {
            Self::Null | Self::Unreadable => "nothing",
            Self::Scalar(..) => "one value",
            Self::List(_) => "a list",
            Self::Map(_) => "keys and values",
        }
    }
}

impl Node {
    /// A map without keys.
    pub(super) fn empty(place: Place) -> Self {
        Self { place, value: Value::Map(Vec::new()) }
    }

    /// A plain scalar.
    pub(super) fn plain(place: Place, text: &str) -> Self {
        Self { place, value: Value::Scalar(text.to_owned(), false) }
    }

    /// Says of the whole tree that it stands somewhere else.
    pub(super) fn move_to(&mut self, place: &Place) {
        self.place.clone_from(place);
        match &mut self.value {
            Value::List(list) => list.iter_mut().for_each(|node| node.move_to(place)),
            Value::Map(entries) => entries.iter_mut().for_each(|(_, node)| node.move_to(place)),
            Value::Null | Value::Unreadable | Value::Scalar(..) => {}
        }
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

    /// Sets the value at a path such as `sink.bucket`, `plugins.0.limits.memory` or `plugins[0].name`, making maps on
    /// the way. What follows `extra_config` is one key, since librdkafka's names have dots.
    pub(super) fn set(&mut self, path: &str, value: Self) -> Result<(), String> {
        let path = path.replace('[', ".").replace(']', "");
        self.set_parts(&path.split('.').collect::<Vec<_>>(), value)
    }

    /// The same for a path in parts.
    fn set_parts(&mut self, path: &[&str], value: Self) -> Result<(), String> {
        let Some((key, rest)) = path.split_first() else {
            *self = value;
            return Ok(());
        };
        if key.is_empty() {
            return Err("expected a key such as sink.bucket".to_owned());
        }
        let joined = rest.join(".");
        let rest = if *key == "extra_config" && !rest.is_empty() { &[joined.as_str()][..] } else { rest };
        match &mut self.value {
            Value::List(list) => {
                let count = list.len();
                let at = key.parse().ok().or_else(|| list.iter().position(|item| item.text_at("name") == Some(key)));
                let item = at.and_then(|at: usize| list.get_mut(at));
                item.ok_or_else(|| format!("the list has {count} items, counted from 0, and none is {key}"))?
                    .set_parts(rest, value)
            }
            Value::Scalar(..) => Err(format!("`{key}` is asked of one value, which has no keys")),
            Value::Null | Value::Unreadable => {
                self.value = Value::Map(Vec::new());
                self.set_parts(path, value)
            }
            Value::Map(entries) => {
                if let Some((_, entry)) = entries.iter_mut().find(|(name, _)| name == key) {
                    return entry.set_parts(rest, value);
                }
                let mut entry = Self { place: value.place.clone(), value: Value::Null };
                entry.set_parts(rest, value)?;
                entries.push(((*key).to_owned(), entry));
                Ok(())
            }
        }
    }

    /// As JSON, for a plugin: plain scalars are what YAML's core schema says, quoted ones are text.
    pub(super) fn to_json(&self) -> serde_json::Value {
        match &self.value {
            Value::Null | Value::Unreadable => serde_json::Value::Null,
            Value::Scalar(text, true) => text.as_str().into(),
            Value::Scalar(text, false) => plain_to_json(text),
            Value::List(list) => list.iter().map(Self::to_json).collect(),
            Value::Map(entries) => entries.iter().map(|(key, node)| (key.clone(), node.to_json())).collect(),
        }
    }
}

/// A plain scalar by YAML's core schema. `.inf` and `.nan`, which JSON lacks, stay text.
fn plain_to_json(text: &str) -> serde_json::Value {
    match text {
        "true" | "True" | "TRUE" => return true.into(),
        "false" | "False" | "FALSE" => return false.into(),
        _ => {}
    }
    let digits = text.strip_prefix(['-', '+']).unwrap_or(text);
    if let Some(hexadecimal) =
        text.strip_prefix("0x").filter(|digits| digits.bytes().all(|byte| byte.is_ascii_hexdigit()))
    {
        return u64::from_str_radix(hexadecimal, 16).map_or_else(|_| text.into(), Into::into);
    }
    let is_number = digits.starts_with(|first: char| first.is_ascii_digit() || first == '.')
        && digits.bytes().any(|byte| byte.is_ascii_digit())
        && digits.bytes().all(|byte| byte.is_ascii_digit() || b".eE+-".contains(&byte));
    if !is_number {
        return text.into();
    }
    let whole = text.strip_prefix('+').unwrap_or(text);
    if let Ok(number) = whole.parse::<i64>() {
        return number.into();
    }
    if let Ok(number) = whole.parse::<u64>() {
        return number.into();
    }
    match whole.parse::<f64>() {
        Ok(number) if number.is_finite() => number.into(),
        _ => text.into(),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn plain_scalars_become_what_yaml_says() {
        let show = |text: &str| plain_to_json(text).to_string();
        assert_eq!(show("true"), "true");
        assert_eq!(show("NO"), "\"NO\"");
        assert_eq!(show("12"), "12");
        assert_eq!(show("-12"), "-12");
        assert_eq!(show("+12"), "12");
        assert_eq!(show("0x1f"), "31");
        assert_eq!(show("1.50"), "1.5");
        assert_eq!(show("18446744073709551615"), "18446744073709551615");
        assert_eq!(show("nan"), "\"nan\"");
        assert_eq!(show(".inf"), "\".inf\"");
        assert_eq!(show("infinity"), "\"infinity\"");
        assert_eq!(show("1.2.3"), "\"1.2.3\"");
        assert_eq!(show("2026-11-23"), "\"2026-11-23\"");
        assert_eq!(show("1e999"), "\"1e999\"");
    }

    #[test]
    fn paths_reach_into_lists_and_stop_at_scalars() {
        let place = Place::other("test");
        let plain = |text: &str| Node::plain(place.clone(), text);
        let mut node = Node::empty(place.clone());
        node.set("source.extra_config.fetch.min.bytes", plain("1")).unwrap();
        node.set("sink.bucket", plain("lake")).unwrap();
        let mut plugin = Node::empty(place.clone());
        plugin.set("name", plain("first")).unwrap();
        node.set("plugins", Node { place: place.clone(), value: Value::List(vec![plugin]) }).unwrap();
        node.set("plugins[0].limits.memory", plain("1MiB")).unwrap();
        node.set("plugins.first.on_reject", plain("drop")).unwrap();
        let expected = serde_json::json!({
            "source": {"extra_config": {"fetch.min.bytes": 1}},
            "sink": {"bucket": "lake"},
            "plugins": [{"name": "first", "limits": {"memory": "1MiB"}, "on_reject": "drop"}],
        });
        assert_eq!(node.to_json(), expected);
        let mut fails = |path: &str| node.set(path, plain("x")).unwrap_err();
        assert_eq!(fails("plugins.3.name"), "the list has 1 items, counted from 0, and none is 3");
        assert_eq!(fails("sink.bucket.name"), "`name` is asked of one value, which has no keys");
        assert_eq!(fails("sink..x"), "expected a key such as sink.bucket");
    }

    proptest! {
        #[test]
        fn no_scalar_panics(text in "\\PC{0,20}|[-+.0-9eExa]{0,20}") {
            let _ = plain_to_json(&text);
        }
    }
}
