//! How what was seen in many records becomes one schema.
//!
//! A record is taken in whole or not at all: [`SeenFields::check`] says whether it goes together with what is there,
//! [`SeenFields::absorb`] takes it in. Fields stand in the order in which they were first seen and are all nullable;
//! those of which only null, `[]` or `{}` was seen wait until they have a value.

use std::sync::Arc;

use arrow_schema::{DataType, Field, Fields, TimeUnit};

use super::{
    fault::{Fault, excerpt},
    infer::{Scalar, Seen, SeenFields, Settled},
    types::UTC,
};
use crate::config::OnTypeChange;

/// Most fields of an inferred schema, nested ones counted: what makes new names for ever would make wider files for ever.
pub(super) const FIELDS_MAX: usize = 2_000;

/// What goes together.
#[derive(Clone, Copy, Debug)]
pub(super) struct Policy {
    /// What becomes of values of another type.
    pub(super) on_type_change: OnTypeChange,
    /// Whether new fields are taken in; otherwise they are passed over.
    pub(super) may_grow: bool,
}

impl SeenFields {
    /// What settled columns have seen.
    pub(super) fn settled<'a>(fields: impl IntoIterator<Item = &'a Arc<Field>>) -> Self {
        let mut all = Self::default();
        for field in fields {
            all.push(field.name().clone(), Seen::settled(field.data_type()));
        }
        all
    }

    /// Whether a record goes together with what is there.
    pub(super) fn check(&self, other: &Self, policy: Policy) -> Result<(), Fault> {
        for (name, seen) in &other.fields {
            if let Some(known) = self.get(name) {
                known.check(seen, policy).map_err(|fault| Fault {
                    code: fault.code,
                    message: format!("{}: {}", excerpt(name), fault.message),
                })?;
            }
        }
        Ok(())
    }

    /// Takes in a record that goes together with what is there.
    pub(super) fn absorb(&mut self, other: Self, policy: Policy) {
        for (name, seen) in other.fields {
            match self.get_mut(&name) {
                Some(known) => known.absorb(seen, policy),
                None if policy.may_grow => {
                    self.push(name, seen);
                }
                None => {}
            }
        }
    }

    /// How many fields there would be with those of a record.
    pub(super) fn count_with(&self, other: &Self) -> usize {
        let mine = self.fields.iter().map(|(name, seen)| match other.get(name) {
            Some(other) => 1 + seen.count_with(other),
            None => 1 + seen.count(),
        });
        let new = other.fields.iter().filter(|(name, _)| self.get(name).is_none());
        mine.sum::<usize>() + new.map(|(_, seen)| 1 + seen.count()).sum::<usize>()
    }

    /// The fields that have a type.
    pub(super) fn to_arrow(&self) -> Fields {
        self.fields.iter().filter_map(|(name, seen)| Some(Field::new(name, seen.data_type()?, true))).collect()
    }
}

impl Seen {
    /// What a settled column has seen.
    fn settled(data_type: &DataType) -> Self {
        let scalar = match data_type {
            DataType::List(element) => return Self::List(Box::new(Self::settled(element.data_type()))),
            DataType::Struct(fields) => return Self::Object(SeenFields::settled(fields)),
            DataType::Boolean => Scalar::Boolean,
            DataType::Int64 => Scalar::Integer { is_exact_as_float: true },
            DataType::Float64 => Scalar::Float,
            DataType::Timestamp(unit @ (TimeUnit::Microsecond | TimeUnit::Nanosecond), Some(zone))
                if &**zone == UTC =>
            {
                Scalar::Time { needs_nanos: *unit == TimeUnit::Nanosecond }
            }
            DataType::Utf8 => Scalar::Text,
            other => return Self::Typed(other.clone()),
        };
        Self::Scalar(scalar, Settled::Yes)
    }

    /// Whether another value goes together with what is there.
    pub(super) fn check(&self, other: &Self, policy: Policy) -> Result<(), Fault> {
        match (self, other) {
            // What a typed column takes is a matter of each value.
            (Self::Nothing | Self::Typed(_), _) | (_, Self::Nothing) => Ok(()),
            (Self::Scalar(mine, settled), Self::Scalar(other, _)) => {
                widened(*mine, *other, *settled, policy.on_type_change).map(|_| ())
            }
            (Self::List(mine), Self::List(other)) => mine.check(other, policy),
            (Self::Object(mine), Self::Object(other)) => mine.check(other, policy),
            _ => Err(mixed(self.kind(), other.kind())),
        }
    }

    /// Takes in another value that goes together with what is there.
    pub(super) fn absorb(&mut self, other: Self, policy: Policy) {
        match (&mut *self, other) {
            (_, Self::Nothing) => {}
            (Self::Nothing, other) => *self = other,
            (Self::Scalar(mine, settled), Self::Scalar(other, _)) => {
                if let Ok(wider) = widened(*mine, other, *settled, policy.on_type_change) {
                    *mine = wider;
                }
            }
            (Self::List(mine), Self::List(other)) => mine.absorb(*other, policy),
            (Self::Object(mine), Self::Object(other)) => mine.absorb(other, policy),
            _ => {}
        }
    }

    /// How many fields are inside.
    fn count(&self) -> usize {
        match self {
            Self::Nothing | Self::Scalar(..) | Self::Typed(_) => 0,
            Self::List(element) => element.count(),
            Self::Object(fields) => fields.fields.iter().map(|(_, seen)| 1 + seen.count()).sum(),
        }
    }

    /// How many fields would be inside with those of another value.
    fn count_with(&self, other: &Self) -> usize {
        match (self, other) {
            (Self::List(mine), Self::List(other)) => mine.count_with(other),
            (Self::Object(mine), Self::Object(other)) => mine.count_with(other),
            _ => self.count().max(other.count()),
        }
    }

    /// The type of a column; `None` while it waits for a value.
    fn data_type(&self) -> Option<DataType> {
        Some(match self {
            Self::Nothing => return None,
            Self::Scalar(scalar, _) => scalar.data_type(),
            Self::Typed(data_type) => data_type.clone(),
            Self::List(element) => DataType::List(Arc::new(Field::new("item", element.data_type()?, true))),
            Self::Object(fields) => DataType::Struct(Some(fields.to_arrow()).filter(|fields| !fields.is_empty())?),
        })
    }

    /// For people.
    fn kind(&self) -> &'static str {
        match self {
            Self::Nothing => "null",
            Self::Scalar(Scalar::Boolean, _) => "a boolean",
            Self::Scalar(Scalar::Integer { .. }, _) => "an integer",
            Self::Scalar(Scalar::Float, _) => "a number with a fraction",
            Self::Scalar(Scalar::Time { .. }, _) => "a time",
            Self::Scalar(Scalar::Text, _) => "a text",
            Self::List(_) => "a list",
            Self::Object(_) => "an object",
            Self::Typed(_) => "a value of another type",
        }
    }
}

impl Scalar {
    /// The type of a column.
    fn data_type(self) -> DataType {
        match self {
            Self::Boolean => DataType::Boolean,
            Self::Integer { .. } => DataType::Int64,
            Self::Float => DataType::Float64,
            Self::Time { needs_nanos: false } => DataType::Timestamp(TimeUnit::Microsecond, Some(UTC.into())),
            Self::Time { needs_nanos: true } => DataType::Timestamp(TimeUnit::Nanosecond, Some(UTC.into())),
            Self::Text => DataType::Utf8,
        }
    }
}

/// Values that no column holds together.
fn mixed(mine: &str, other: &str) -> Fault {
    Fault { code: "wrong-type", message: format!("found {other} where {mine} was found before") }
}

/// What holds both. The first is what is there; where its type is settled, only what `on_type_change` names changes it.
fn widened(mine: Scalar, other: Scalar, settled: Settled, on_type_change: OnTypeChange) -> Result<Scalar, Fault> {
    use Scalar::{Float, Integer, Text, Time};
    let is_free = settled == Settled::No;
    let words = |scalar| Seen::Scalar(scalar, settled).kind();
    let text_or = |fault: Fault| if on_type_change == OnTypeChange::String { Ok(Text) } else { Err(fault) };
    let inexact =
        || Fault { code: "number-out-of-range", message: "an integer that no Float64 holds exactly".to_owned() };
    match (mine, other) {
        (mine, other) if mine == other => Ok(mine),
        (Integer { is_exact_as_float: mine }, Integer { is_exact_as_float: other }) => {
            Ok(Integer { is_exact_as_float: mine && other })
        }
        (Integer { is_exact_as_float: false }, Float) | (Float, Integer { is_exact_as_float: false }) => {
            text_or(inexact())
        }
        (Float, Integer { .. }) => Ok(Float),
        (Integer { .. }, Float) if is_free || on_type_change != OnTypeChange::Reject => Ok(Float),
        (Time { needs_nanos: true }, Time { .. }) => Ok(mine),
        (Time { .. }, Time { .. }) if is_free => Ok(other),
        // That a text is a time was a guess, and the text says all that the time did.
        (Time { .. }, Text) if is_free => Ok(Text),
        (Text, Time { .. }) => Ok(Text),
        _ => text_or(mixed(words(mine), words(other))),
    }
}

#[cfg(test)]
mod tests {
    use super::{super::infer::infer, *};

    /// The schema that these records tell, those that are refused left out.
    fn schema_of(records: &[&str], on_type_change: OnTypeChange) -> String {
        let policy = Policy { on_type_change, may_grow: true };
        let mut all = SeenFields::default();
        let mut refused = String::new();
        for record in records {
            match infer(record.as_bytes(), policy, &[], &|_| false)
                .and_then(|seen| all.check(&seen, policy).map(|()| seen))
            {
                Ok(seen) => all.absorb(seen, policy),
                Err(fault) => refused = format!(" | {}: {}", fault.code, fault.message),
            }
        }
        let fields = all.to_arrow();
        let words = fields.iter().map(|field| format!("{}: {}", field.name(), field.data_type()));
        words.collect::<Vec<_>>().join("; ") + &refused
    }

    #[test]
    fn types_of_values() {
        for (record, expected) in [
            (r#"{"a":1,"b":"x","c":true,"d":1.5,"e":1e2}"#, "a: Int64; b: Utf8; c: Boolean; d: Float64; e: Float64"),
            (r#"{"a":null,"l":[],"o":{},"p":{"q":null},"r":[null]}"#, ""),
            (r#"{"t":"2026-11-23T14:05:12Z"}"#, "t: Timestamp(µs, \"UTC\")"),
            (r#"{"t":"2026-11-23T14:05:12.123456789Z"}"#, "t: Timestamp(ns, \"UTC\")"),
            (r#"{"t":"9999-11-23T14:05:12.123456789Z"}"#, "t: Utf8"),
            (r#"{"t":"2026-11-23T14:05:12"}"#, "t: Utf8"),
            (r#"{"l":[1,2.5,null]}"#, "l: List(Float64)"),
            (r#"{"l":[{"a":1},{"b":true}]}"#, "l: List(Struct(\"a\": Int64, \"b\": Boolean))"),
            (r#"{"l":[1,"a"]}"#, " | wrong-type: l[1]: found a text where an integer was found before"),
            (r#"{"a":9223372036854775808}"#, " | number-out-of-range: a: 9223372036854775808 does not fit Int64"),
            (r#"{"a":1e999}"#, " | number-out-of-range: a: 1e999 does not fit Float64"),
            (r#"{"a":1,"a":2}"#, " | duplicate-key: the key \"a\" is there twice"),
        ] {
            assert_eq!(schema_of(&[record], OnTypeChange::Widen), expected, "{record}");
        }
        let text = |record| schema_of(&[record], OnTypeChange::String);
        assert_eq!(text(r#"{"a":9223372036854775808,"b":1e999,"l":[1,"a"]}"#), "a: Utf8; b: Utf8; l: List(Utf8)");
    }

    #[test]
    fn values_of_many_records() {
        let refused = " | wrong-type: a: found a text where an integer was found before";
        let inexact = " | number-out-of-range: a: an integer that no Float64 holds exactly";
        for (first, second, widen, string) in [
            ("1", "2.5", "a: Float64", "a: Float64"),
            ("null", "3", "a: Int64", "a: Int64"),
            ("1", "\"x\"", &*format!("a: Int64{refused}"), "a: Utf8"),
            ("1.5", "9007199254740993", &*format!("a: Float64{inexact}"), "a: Utf8"),
            ("9007199254740993", "1.5", &*format!("a: Int64{inexact}"), "a: Utf8"),
            ("\"2026-11-23T14:05:12Z\"", "\"soon\"", "a: Utf8", "a: Utf8"),
            (
                "{\"x\":1}",
                "{\"y\":[1]}",
                "a: Struct(\"x\": Int64, \"y\": List(Int64))",
                "a: Struct(\"x\": Int64, \"y\": List(Int64))",
            ),
        ] {
            let records = [format!("{{\"a\":{first}}}"), format!("{{\"a\":{second}}}")];
            let records = [records[0].as_str(), records[1].as_str()];
            assert_eq!(schema_of(&records, OnTypeChange::Widen), widen);
            assert_eq!(schema_of(&records, OnTypeChange::String), string);
        }
    }

    #[test]
    fn a_refused_record_adds_no_field() {
        let schema = schema_of(&[r#"{"a":1}"#, r#"{"new":1,"a":"x"}"#], OnTypeChange::Widen);
        assert_eq!(schema, "a: Int64 | wrong-type: a: found a text where an integer was found before");
    }

    #[test]
    fn nested_fields_are_counted() {
        let policy = Policy { on_type_change: OnTypeChange::Widen, may_grow: true };
        let seen = |record: &str| infer(record.as_bytes(), policy, &[], &|_| false).unwrap();
        let first = seen(r#"{"a":1,"o":{"x":1,"y":[{"z":1}]}}"#);
        assert_eq!(SeenFields::default().count_with(&first), 5);
        assert_eq!(first.count_with(&seen(r#"{"o":{"y":[{"w":1}],"x":2},"b":3}"#)), 7);
    }

    #[test]
    fn what_is_settled_changes_only_as_asked() {
        let column = |data_type| SeenFields::settled(&Fields::from(vec![Field::new("a", data_type, true)]));
        let next = |data_type, record: &str, on_type_change| {
            let policy = Policy { on_type_change, may_grow: true };
            let mut all = column(data_type);
            let seen = infer(record.as_bytes(), policy, &[], &|_| false).unwrap();
            all.check(&seen, policy).map_err(|fault| fault.code)?;
            all.absorb(seen, policy);
            Ok(all.to_arrow()[0].data_type().clone())
        };
        assert_eq!(next(DataType::Int64, r#"{"a":1.5}"#, OnTypeChange::Widen), Ok(DataType::Float64));
        assert_eq!(next(DataType::Int64, r#"{"a":1.5}"#, OnTypeChange::Reject), Err("wrong-type"));
        let time = DataType::Timestamp(TimeUnit::Microsecond, Some(UTC.into()));
        assert_eq!(next(time.clone(), r#"{"a":"soon"}"#, OnTypeChange::Widen), Err("wrong-type"));
        assert_eq!(next(time, r#"{"a":"soon"}"#, OnTypeChange::String), Ok(DataType::Utf8));
    }
}
