//! The visitor of one JSON object: asks for the next key with a guess, and sends each value from the parser straight
//! into its column.
//!
//! The guess is the field that followed last time: records of one topic mostly have their fields in one order, so a hit
//! costs one comparison of strings. No tree, no tape, no allocation a record.

use std::{borrow::Cow, collections::HashMap, fmt};

use arrow_array::ArrayRef;
use arrow_schema::{ArrowError, FieldRef, Fields as ArrowFields};
use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};

use super::{
    column::{Column, Rules},
    fault::{Step, excerpt},
    record::Reading,
    substance::SubstanceSeed,
    value::ValueSeed,
};
use crate::config::OnNewField;

/// The fields of an object, with a way from a name to its column.
#[derive(Debug)]
pub(super) struct Fields {
    /// One for each field, in order.
    pub(super) columns: Vec<Column>,
    /// Where each name is.
    positions: HashMap<String, usize>,
    /// Which column followed the first brace, and each column, last time.
    followers: Vec<usize>,
    /// In which object each column was last filled.
    filled_in: Vec<u64>,
    /// Counts objects.
    object: u64,
    /// What to do with a field that the schema lacks.
    on_new_field: OnNewField,
    /// Fields that are left out, since a column of ours has the name.
    pub(super) reserved: Vec<String>,
}

impl Fields {
    /// No columns at all, and every field passed over.
    pub(super) fn empty() -> Self {
        Self {
            columns: Vec::new(),
            positions: HashMap::new(),
            followers: Vec::new(),
            filled_in: Vec::new(),
            object: 0,
            on_new_field: OnNewField::Ignore,
            reserved: Vec::new(),
        }
    }

    /// Empty columns of these fields.
    pub(super) fn new(
        fields: &ArrowFields,
        rules: impl Fn(&str) -> Rules,
        on_new_field: OnNewField,
    ) -> Result<Self, ArrowError> {
        let column = |field: &FieldRef| Column::new(field, rules(field.name()), on_new_field);
        let columns = fields.iter().map(column).collect::<Result<Vec<_>, _>>()?;
        let positions = fields.iter().enumerate().map(|(position, field)| (field.name().clone(), position)).collect();
        Ok(Self {
            followers: (0..=columns.len()).collect(),
            filled_in: vec![0; columns.len()],
            columns,
            positions,
            object: 0,
            on_new_field,
            reserved: Vec::new(),
        })
    }

    /// Appends null to every column, below a null object.
    pub(super) fn push_nulls(&mut self) {
        self.columns.iter_mut().for_each(Column::push_null);
    }

    /// Cuts every column back.
    pub(super) fn truncate(&mut self, len: usize) {
        self.columns.iter_mut().for_each(|column| column.truncate(len));
    }

    /// All rows so far, with the fields that they have.
    pub(super) fn finish(&mut self) -> Result<(ArrowFields, Vec<ArrayRef>), ArrowError> {
        let fields: Vec<FieldRef> = self.columns.iter().map(|column| FieldRef::clone(&column.field)).collect();
        let arrays = self.columns.iter_mut().map(Column::finish).collect::<Result<Vec<_>, _>>()?;
        Ok((fields.into(), arrays))
    }
}

/// Reads one object into a row of fields.
pub(super) struct ObjectSeed<'a> {
    /// Where values go.
    pub(super) fields: &'a mut Fields,
    /// What happens beside.
    pub(super) reading: &'a mut Reading,
}

impl<'de> DeserializeSeed<'de> for ObjectSeed<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

/// For the top level, where anything but an object is refused.
macro_rules! not_an_object {
    ($($method:ident: $type:ty => $found:literal),*) => {
        $(fn $method<E: serde::de::Error>(self, _value: $type) -> Result<(), E> {
            Err(self.reading.refuse("not-an-object", concat!("expected a JSON object, found ", $found).to_owned()))
        })*
    };
}

impl<'de> Visitor<'de> for ObjectSeed<'_> {
    type Value = ();

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a JSON object")
    }

    not_an_object!(visit_bool: bool => "a boolean", visit_i64: i64 => "a number", visit_u64: u64 => "a number",
        visit_f64: f64 => "a number", visit_str: &str => "a text");

    fn visit_unit<E: serde::de::Error>(self) -> Result<(), E> {
        Err(self.reading.refuse("not-an-object", "expected a JSON object, found null".to_owned()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, _list: A) -> Result<(), A::Error> {
        Err(self.reading.refuse("not-an-object", "expected a JSON object, found a list".to_owned()))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut object: A) -> Result<(), A::Error> {
        let Self { fields, reading } = self;
        fields.object += 1;
        let this_object = fields.object;
        let mut slot = 0;
        loop {
            let guess = fields.followers.get(slot).copied().unwrap_or(usize::MAX);
            let position = match object.next_key_seed(KeySeed { fields, guess })? {
                Some(Key::Known(position)) => position,
                Some(Key::Unknown(name)) => {
                    skip_unknown(&mut object, fields, &name, reading)?;
                    continue;
                }
                None => break,
            };
            if position != guess
                && let Some(follower) = fields.followers.get_mut(slot)
            {
                *follower = position;
            }
            slot = position + 1;
            let (Some(column), Some(filled_in)) =
                (fields.columns.get_mut(position), fields.filled_in.get_mut(position))
            else {
                continue;
            };
            if std::mem::replace(filled_in, this_object) == this_object {
                let name = excerpt(column.field.name());
                return Err(reading.refuse("duplicate-key", format!("the key {name:?} is there twice")));
            }
            if let Err(error) = object.next_value_seed(ValueSeed { column: &mut *column, reading }) {
                reading.step(|| Step::Field(column.field.name().clone()));
                return Err(error);
            }
        }
        fill_missing(fields, this_object, reading)
    }
}

/// Null for every field that the object lacks.
fn fill_missing<E: serde::de::Error>(fields: &mut Fields, this_object: u64, reading: &mut Reading) -> Result<(), E> {
    for (column, filled_in) in fields.columns.iter_mut().zip(&fields.filled_in) {
        if *filled_in != this_object {
            if !column.field.is_nullable() {
                let error = reading.refuse("null-not-allowed", "the field is missing".to_owned());
                reading.step(|| Step::Field(column.field.name().clone()));
                return Err(error);
            }
            column.push_null();
        }
    }
    Ok(())
}

/// Passes over a field that the schema lacks, where that loses nothing or was asked for.
fn skip_unknown<'de, A: MapAccess<'de>>(
    object: &mut A,
    fields: &Fields,
    name: &str,
    reading: &mut Reading,
) -> Result<(), A::Error> {
    let is_reserved = fields.reserved.iter().any(|reserved| reserved == name);
    reading.has_reserved |= is_reserved;
    if is_reserved || fields.on_new_field == OnNewField::Ignore {
        return object.next_value::<IgnoredAny>().map(|_| ());
    }
    if !object.next_value_seed(SubstanceSeed)? {
        return Ok(());
    }
    reading.wants_wider_schema |= fields.on_new_field == OnNewField::Add;
    Err(reading.refuse("unknown-field", format!("the schema has no field {:?}", excerpt(name))))
}

/// A key of an object.
enum Key<'de> {
    /// The position of its column.
    Known(usize),
    /// A name that the schema lacks.
    Unknown(Cow<'de, str>),
}

/// Finds the column of a key.
struct KeySeed<'a> {
    /// All columns.
    fields: &'a Fields,
    /// The likely one.
    guess: usize,
}

impl KeySeed<'_> {
    /// The column of a key, where there is one.
    fn find(&self, key: &str) -> Option<usize> {
        if self.fields.columns.get(self.guess).is_some_and(|column| column.field.name() == key) {
            return Some(self.guess);
        }
        self.fields.positions.get(key).copied()
    }
}

impl<'de> DeserializeSeed<'de> for KeySeed<'_> {
    type Value = Key<'de>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Key<'de>, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl<'de> Visitor<'de> for KeySeed<'_> {
    type Value = Key<'de>;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a key")
    }

    fn visit_borrowed_str<E: serde::de::Error>(self, key: &'de str) -> Result<Key<'de>, E> {
        Ok(self.find(key).map_or(Key::Unknown(Cow::Borrowed(key)), Key::Known))
    }

    fn visit_str<E: serde::de::Error>(self, key: &str) -> Result<Key<'de>, E> {
        Ok(self.find(key).map_or_else(|| Key::Unknown(Cow::Owned(key.to_owned())), Key::Known))
    }
}
