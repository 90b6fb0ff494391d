//! The way to a payload inside a record: RFC 6901, for instance `/payload/after`.
//!
//! The record is still read once from its first to its last byte: what is beside the way is passed over by the parser,
//! which sees whether it is JSON. A key on the way that is there twice is told, since either could be meant.

use std::{fmt, marker::PhantomData};

use serde::de::{DeserializeSeed, Deserializer, Error as _, IgnoredAny, MapAccess, SeqAccess, Visitor};

/// Has a seed read the value at the end of a way; `None` where the way leads nowhere.
pub(super) struct PointerSeed<'a, S> {
    /// What is left of the way.
    pub(super) steps: &'a [String],
    /// Reads what is at its end.
    pub(super) then: S,
    /// A key of the way that is there twice.
    pub(super) twice: &'a mut Option<String>,
}

impl<'de, S: DeserializeSeed<'de>> DeserializeSeed<'de> for PointerSeed<'_, S> {
    type Value = Option<S::Value>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        if self.steps.is_empty() {
            return self.then.deserialize(deserializer).map(Some);
        }
        deserializer.deserialize_any(WayVisitor { seed: self, marker: PhantomData })
    }
}

/// Takes one step.
struct WayVisitor<'a, 'de, S> {
    /// The way.
    seed: PointerSeed<'a, S>,
    /// For the lifetime of what is read.
    marker: PhantomData<&'de ()>,
}

/// Where the way leads into a scalar.
macro_rules! nowhere {
    ($($method:ident: $type:ty),*) => {
        $(fn $method<E: serde::de::Error>(self, _value: $type) -> Result<Self::Value, E> {
            Ok(None)
        })*
    };
}

impl<'de, S: DeserializeSeed<'de>> Visitor<'de> for WayVisitor<'_, 'de, S> {
    type Value = Option<S::Value>;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a JSON value")
    }

    nowhere!(visit_bool: bool, visit_i64: i64, visit_u64: u64, visit_f64: f64, visit_str: &str);

    fn visit_unit<E: serde::de::Error>(self) -> Result<Self::Value, E> {
        Ok(None)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Self::Value, A::Error> {
        let PointerSeed { steps, then, twice } = self.seed;
        let wanted = steps.first().and_then(|step| step.parse::<usize>().ok());
        let rest = steps.get(1..).unwrap_or_default();
        let (mut then, mut found) = (Some(then), None);
        for position in 0usize.. {
            match then.take_if(|_| Some(position) == wanted) {
                Some(then) => match list.next_element_seed(PointerSeed { steps: rest, then, twice: &mut *twice })? {
                    Some(value) => found = value,
                    None => break,
                },
                None if list.next_element::<IgnoredAny>()?.is_some() => {}
                None => break,
            }
        }
        Ok(found)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut object: A) -> Result<Self::Value, A::Error> {
        let PointerSeed { steps, then, twice } = self.seed;
        let wanted = steps.first().map(String::as_str).unwrap_or_default();
        let rest = steps.get(1..).unwrap_or_default();
        let (mut then, mut found) = (Some(then), None);
        while let Some(is_it) = object.next_key_seed(IsKey(wanted))? {
            if !is_it {
                object.next_value::<IgnoredAny>()?;
                continue;
            }
            let Some(then) = then.take() else {
                *twice = Some(wanted.to_owned());
                return Err(A::Error::custom("refused"));
            };
            found = object.next_value_seed(PointerSeed { steps: rest, then, twice: &mut *twice })?;
        }
        Ok(found)
    }
}

/// Whether a key is this one.
struct IsKey<'a>(&'a str);

impl<'de> DeserializeSeed<'de> for IsKey<'_> {
    type Value = bool;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<bool, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl Visitor<'_> for IsKey<'_> {
    type Value = bool;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a key")
    }

    fn visit_str<E: serde::de::Error>(self, key: &str) -> Result<bool, E> {
        Ok(key == self.0)
    }
}
