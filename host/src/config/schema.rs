//! Types of declared fields: `int64`, `timestamp[ms, UTC]`, `decimal(10,2)`, `list<string>`, `struct<a: int32, b: string>`,
//! `map<string, int64>`.

use std::sync::Arc;

use arrow_schema::{DataType, Field, Fields, TimeUnit};

/// Deepest nesting of types.
const DEPTH_MAX: usize = 16;

/// The type that a text names.
pub(super) fn parse_type(text: &str) -> Result<DataType, String> {
    let mut parser = Parser { rest: text.trim(), depth: 0 };
    let parsed = parser.data_type()?;
    match parser.rest.trim() {
        "" => Ok(parsed),
        rest => Err(format!("the type {text:?} goes on with {rest:?}")),
    }
}

/// What is left to read.
struct Parser<'a> {
    /// The text behind what was read.
    rest: &'a str,
    /// How deep.
    depth: usize,
}

impl<'a> Parser<'a> {
    /// One type.
    fn data_type(&mut self) -> Result<DataType, String> {
        self.depth += 1;
        if self.depth > DEPTH_MAX {
            return Err(format!("types are nested deeper than {DEPTH_MAX}"));
        }
        let word = self.word().to_ascii_lowercase();
        let parsed = match word.as_str() {
            "bool" | "boolean" => DataType::Boolean,
            "int8" => DataType::Int8,
            "int16" => DataType::Int16,
            "int32" | "int" => DataType::Int32,
            "int64" | "long" => DataType::Int64,
            "uint8" => DataType::UInt8,
            "uint16" => DataType::UInt16,
            "uint32" => DataType::UInt32,
            "uint64" => DataType::UInt64,
            "float32" | "float" => DataType::Float32,
            "float64" | "double" => DataType::Float64,
            "string" | "utf8" => DataType::Utf8,
            "binary" => DataType::Binary,
            "date" | "date32" => DataType::Date32,
            "timestamp" => self.timestamp()?,
            "decimal" => self.decimal()?,
            "list" => {
                self.expect('<')?;
                let element = self.data_type()?;
                self.expect('>')?;
                DataType::List(Arc::new(Field::new("item", element, true)))
            }
            "struct" => DataType::Struct(self.fields()?),
            "map" => self.map()?,
            _ => {
                return Err(format!(
                    "unknown type {word:?}; known: bool, int8 to int64, uint8 to uint64, float32, float64, string, binary, \
                     date, timestamp[ms, UTC], decimal(10,2), list<T>, struct<name: T, ...>, map<string, T>"
                ));
            }
        };
        self.depth -= 1;
        Ok(parsed)
    }

    /// `[unit]` or `[unit, zone]`; microseconds without a zone where there is nothing.
    fn timestamp(&mut self) -> Result<DataType, String> {
        if self.expect('[').is_err() {
            return Ok(DataType::Timestamp(TimeUnit::Microsecond, None));
        }
        let unit = match self.word() {
            "s" => TimeUnit::Second,
            "ms" => TimeUnit::Millisecond,
            "us" => TimeUnit::Microsecond,
            "ns" => TimeUnit::Nanosecond,
            other => return Err(format!("unknown unit {other:?} of a timestamp; known: s, ms, us, ns")),
        };
        let zone = if self.expect(',').is_ok() {
            let (zone, rest) = self.rest.split_once(']').ok_or("expected `]` after the zone")?;
            self.rest = rest;
            Some(zone.trim())
        } else {
            self.expect(']')?;
            None
        };
        match zone {
            None => Ok(DataType::Timestamp(unit, None)),
            Some("UTC" | "utc" | "Z" | "+00:00") => Ok(DataType::Timestamp(unit, Some("UTC".into()))),
            Some(other) => Err(format!("zone {other:?}: times are stored in UTC; write UTC, or no zone")),
        }
    }

    /// `(precision, scale)`.
    fn decimal(&mut self) -> Result<DataType, String> {
        let wrong =
            || "expected decimal(precision, scale) with a precision from 1 to 38 and a scale up to it".to_owned();
        self.expect('(')?;
        let precision: u8 = self.word().parse().map_err(|_| wrong())?;
        let scale: i8 = if self.expect(',').is_ok() { self.word().parse().map_err(|_| wrong())? } else { 0 };
        self.expect(')')?;
        let fits = (1..=38).contains(&precision) && u8::try_from(scale).is_ok_and(|scale| scale <= precision);
        if fits { Ok(DataType::Decimal128(precision, scale)) } else { Err(wrong()) }
    }

    /// `<name: type, ...>`.
    fn fields(&mut self) -> Result<Fields, String> {
        self.expect('<')?;
        let mut fields: Vec<Field> = Vec::new();
        loop {
            let name = self.word();
            if name.is_empty() {
                return Err("expected a field's name in struct<name: type, ...>".to_owned());
            }
            if fields.iter().any(|field| field.name() == name) {
                return Err(format!("the field {name:?} is there twice"));
            }
            self.expect(':')?;
            fields.push(Field::new(name, self.data_type()?, true));
            if self.expect(',').is_err() {
                self.expect('>')?;
                return Ok(fields.into());
            }
        }
    }

    /// `<string, type>`.
    fn map(&mut self) -> Result<DataType, String> {
        self.expect('<')?;
        if self.data_type()? != DataType::Utf8 {
            return Err("the keys of a map are string".to_owned());
        }
        self.expect(',')?;
        let values = self.data_type()?;
        self.expect('>')?;
        let entries = vec![Field::new("key", DataType::Utf8, false), Field::new("value", values, true)];
        let entries = Field::new("key_value", DataType::Struct(entries.into()), false);
        Ok(DataType::Map(Arc::new(entries), false))
    }

    /// Letters, digits, `_`, `-` and `.` up to anything else.
    fn word(&mut self) -> &'a str {
        self.rest = self.rest.trim_start();
        let is_word = |character: char| character.is_alphanumeric() || matches!(character, '_' | '-' | '.');
        let end = self.rest.find(|character| !is_word(character)).unwrap_or(self.rest.len());
        let (word, rest) = self.rest.split_at(end);
        self.rest = rest;
        word
    }

    /// One character.
    fn expect(&mut self, character: char) -> Result<(), String> {
        self.rest = self.rest.trim_start();
        match self.rest.strip_prefix(character) {
            Some(rest) => {
                self.rest = rest;
                Ok(())
            }
            None if self.rest.is_empty() => Err(format!("expected `{character}` at the end of the type")),
            None => Err(format!("expected `{character}` before {:?}", self.rest)),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn types_are_understood() {
        let show = |text: &str| parse_type(text).map(|parsed| parsed.to_string());
        assert_eq!(show("int64").unwrap(), "Int64");
        assert_eq!(show("timestamp[ms, UTC]").unwrap(), "Timestamp(ms, \"UTC\")");
        assert_eq!(show("timestamp").unwrap(), "Timestamp(µs)");
        assert_eq!(show("decimal(10, 2)").unwrap(), "Decimal128(10, 2)");
        assert_eq!(
            show("struct<a: list<string>, b-c: map<string, int32>>").unwrap(),
            "Struct(\"a\": List(Utf8), \"b-c\": Map(\"key_value\": non-null Struct(\"key\": non-null Utf8, \"value\": Int32), unsorted))"
        );
        assert!(show("integer").unwrap_err().starts_with("unknown type \"integer\"; known: bool"));
        assert_eq!(show("list<int64").unwrap_err(), "expected `>` at the end of the type");
        assert_eq!(show("int64 x").unwrap_err(), "the type \"int64 x\" goes on with \"x\"");
        assert!(show("decimal(39,2)").is_err() && show("decimal(5,6)").is_err());
        assert!(show("timestamp[ms, Europe/Berlin]").unwrap_err().contains("times are stored in UTC"));
        assert!(show(&"list<".repeat(1_000)).unwrap_err().contains("deeper"));
    }

    proptest! {
        #[test]
        fn no_text_panics(text in "\\PC{0,40}|((list|struct|map|decimal|timestamp|int64|a)[<>(,:\\[\\]) ]{0,2}){0,12}") {
            let _ = parse_type(&text);
        }
    }
}
