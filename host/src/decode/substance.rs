//! Whether a value says anything: null does not, nor do lists and objects of nothing else. A field that the schema lacks
//! may be passed over without loss where its value says nothing.

use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};

/// Whether a value would make a column: anything but null, and lists and objects of nothing else.
pub(super) struct SubstanceSeed;

impl<'de> DeserializeSeed<'de> for SubstanceSeed {
    type Value = bool;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<bool, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for SubstanceSeed {
    type Value = bool;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a value")
    }

    fn visit_unit<E: serde::de::Error>(self) -> Result<bool, E> {
        Ok(false)
    }

    fn visit_bool<E: serde::de::Error>(self, _value: bool) -> Result<bool, E> {
        Ok(true)
    }

    fn visit_i64<E: serde::de::Error>(self, _value: i64) -> Result<bool, E> {
        Ok(true)
    }

    fn visit_u64<E: serde::de::Error>(self, _value: u64) -> Result<bool, E> {
        Ok(true)
    }

    fn visit_f64<E: serde::de::Error>(self, _value: f64) -> Result<bool, E> {
        Ok(true)
    }

    fn visit_str<E: serde::de::Error>(self, _value: &str) -> Result<bool, E> {
        Ok(true)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<bool, A::Error> {
        let mut found = false;
        while let Some(has_substance) = list.next_element_seed(Self)? {
            found |= has_substance;
        }
        Ok(found)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut object: A) -> Result<bool, A::Error> {
        let mut found = false;
        while object.next_key::<IgnoredAny>()?.is_some() {
            found |= object.next_value_seed(Self)?;
        }
        Ok(found)
    }
}
