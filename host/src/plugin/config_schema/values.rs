//! One value against the keywords that are about it alone.

use std::collections::HashSet;

use serde_json::{Map, Number, Value};

use super::{
    check::{Checker, Spent},
    word,
};

/// A keyword, its words, and whether a number holds against its bound.
type Bound = (&'static str, &'static str, fn(f64, f64) -> bool);

impl<'a> Checker<'a> {
    /// Type, listed values, lengths, numbers; `false` where the type is wrong.
    pub(super) fn one_value(&mut self, keywords: &'a Map<String, Value>, value: &Value) -> Result<bool, Spent> {
        if let Some(wanted) = keywords.get("type") {
            let names: Vec<&str> = match wanted {
                Value::String(name) => vec![name],
                Value::Array(names) => names.iter().take(8).filter_map(Value::as_str).collect(),
                _ => Vec::new(),
            };
            if !names.is_empty() && !names.iter().any(|name| is_of_type(value, name)) {
                let names: Vec<_> = names.into_iter().map(type_words).collect();
                self.fault(format!("expected {}, found {}", names.join(" or "), found(value)));
                return Ok(false);
            }
        }
        if let Some(wanted) = keywords.get("const")
            && !self.equal(wanted, value)?
        {
            self.fault(format!("expected {}, found {}", shown(wanted), shown(value)));
        }
        if let Some(Value::Array(choices)) = keywords.get("enum") {
            let mut is_one = false;
            for choice in choices {
                is_one = is_one || self.equal(choice, value)?;
            }
            if !is_one {
                let choices: Vec<_> = choices.iter().take(10).map(shown).collect();
                self.fault(format!("expected one of {}, found {}", choices.join(", "), shown(value)));
            }
        }
        match value {
            Value::String(text) => self.text(keywords, text)?,
            Value::Number(number) => self.number(keywords, number),
            Value::Array(items) => {
                self.length(keywords, "minItems", "maxItems", items.len(), "items");
                if keywords.get("uniqueItems") == Some(&Value::Bool(true)) {
                    self.pay(items.len())?;
                    let mut seen = HashSet::new();
                    if let Some(again) = items.iter().find(|item| !seen.insert(item.to_string())) {
                        self.fault(format!("has {} more than once", shown(again)));
                    }
                }
            }
            Value::Object(entries) => self.length(keywords, "minProperties", "maxProperties", entries.len(), "keys"),
            Value::Null | Value::Bool(_) => {}
        }
        Ok(true)
    }

    /// Keywords about texts.
    fn text(&mut self, keywords: &'a Map<String, Value>, text: &str) -> Result<(), Spent> {
        self.pay(text.len() / 64)?;
        self.length(keywords, "minLength", "maxLength", text.chars().count(), "letters");
        if let Some(Value::String(pattern)) = keywords.get("pattern")
            && self.matches(pattern, text)? == Some(false)
        {
            self.fault(format!("{:?} does not match the pattern {}", word(text), word(pattern)));
        }
        Ok(())
    }

    /// Least and most of something that is counted.
    fn length(&mut self, keywords: &Map<String, Value>, least: &str, most: &str, length: usize, what: &str) {
        let bound = |keyword: &str| keywords.get(keyword).and_then(Value::as_u64);
        if let Some(least) = bound(least).filter(|least| (length as u64) < *least) {
            self.fault(format!("has {length} {what}; at least {least} are wanted"));
        }
        if let Some(most) = bound(most).filter(|most| length as u64 > *most) {
            self.fault(format!("has {length} {what}; at most {most} are allowed"));
        }
    }

    /// Keywords about numbers.
    fn number(&mut self, keywords: &Map<String, Value>, number: &Number) {
        let bounds: [Bound; 4] = [
            ("minimum", "at least", |value, bound| value >= bound),
            ("maximum", "at most", |value, bound| value <= bound),
            ("exclusiveMinimum", "more than", |value, bound| value > bound),
            ("exclusiveMaximum", "less than", |value, bound| value < bound),
        ];
        let Some(value) = number.as_f64() else { return };
        for (keyword, words, holds) in bounds {
            if let Some(Value::Number(bound)) = keywords.get(keyword)
                && bound.as_f64().is_some_and(|bound| !holds(value, bound))
            {
                self.fault(format!("is {number}; expected {words} {bound}"));
            }
        }
        if let Some(Value::Number(factor)) = keywords.get("multipleOf")
            && !is_multiple(number, factor)
        {
            self.fault(format!("is {number}, which is no multiple of {factor}"));
        }
    }

    /// Whether two values are the same; numbers by their value, as 1 and 1.0 are.
    fn equal(&mut self, left: &Value, right: &Value) -> Result<bool, Spent> {
        self.pay(1)?;
        Ok(match (left, right) {
            (Value::Number(left), Value::Number(right)) => left == right || left.as_f64() == right.as_f64(),
            (Value::String(left), Value::String(right)) => {
                self.pay(left.len().min(right.len()) / 64)?;
                left == right
            }
            (Value::Array(left), Value::Array(right)) => {
                let mut same = left.len() == right.len();
                for (left, right) in left.iter().zip(right) {
                    same = same && self.equal(left, right)?;
                }
                same
            }
            (Value::Object(left), Value::Object(right)) => {
                let mut same = left.len() == right.len();
                for (key, left) in left {
                    same = same && right.get(key).map_or(Ok(false), |right| self.equal(left, right))?;
                }
                same
            }
            (left, right) => left == right,
        })
    }
}

/// Whether a value is of a type of JSON Schema; a type that nobody knows fits everything.
fn is_of_type(value: &Value, name: &str) -> bool {
    match name {
        "null" => value.is_null(),
        "boolean" => value.is_boolean(),
        "string" => value.is_string(),
        "array" => value.is_array(),
        "object" => value.is_object(),
        "number" => value.is_number(),
        "integer" => value.as_number().is_some_and(is_whole),
        _ => true,
    }
}

/// Whether a number is whole, as 1.0 is.
fn is_whole(number: &Number) -> bool {
    number.is_i64() || number.is_u64() || number.as_f64().is_some_and(|number| number.fract() == 0.0)
}

/// Whether a number is a multiple of another; whole numbers exactly, others as near as they can be.
fn is_multiple(number: &Number, factor: &Number) -> bool {
    if let (Some(number), Some(factor)) = (number.as_i64(), factor.as_i64()) {
        return number.checked_rem(factor).is_none_or(|rest| rest == 0);
    }
    match (number.as_f64(), factor.as_f64()) {
        (Some(number), Some(factor)) if factor > 0.0 => {
            let quotient = number / factor;
            (quotient - quotient.round()).abs() < 1e-9
        }
        _ => true,
    }
}

/// A type in words.
fn type_words(name: &str) -> String {
    match name {
        "null" => "nothing".to_owned(),
        "boolean" => "true or false".to_owned(),
        "string" => "a text".to_owned(),
        "array" => "a list".to_owned(),
        "object" => "keys and values".to_owned(),
        "number" => "a number".to_owned(),
        "integer" => "a whole number".to_owned(),
        other => word(other),
    }
}

/// A value in words.
fn found(value: &Value) -> String {
    match value {
        Value::Null => "nothing".to_owned(),
        Value::Bool(value) => value.to_string(),
        Value::Number(number) => format!("the number {number}"),
        Value::String(text) => format!("the text {:?}", word(text)),
        Value::Array(_) => "a list".to_owned(),
        Value::Object(_) => "keys and values".to_owned(),
    }
}

/// A value as it is written, if it is short.
fn shown(value: &Value) -> String {
    match value {
        Value::Array(_) | Value::Object(_) => found(value),
        Value::String(text) => format!("{:?}", word(text)),
        value => value.to_string(),
    }
}
