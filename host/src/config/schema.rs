//! Types of declared fields: `int64`, `timestamp[ms, UTC]`, `time[us]`, `decimal(10,2)`, `list<string>`,
//! `struct<a: int32, b: string>`, `map<string, int64>`; a `struct` without `<...>` takes its fields from the YAML key `fields`.

use std::sync::Arc;

use arrow_schema::{
    DECIMAL128_MAX_PRECISION, DECIMAL256_MAX_PRECISION, DataType, Field, Fields, TimeUnit, extension::Uuid,
};

use super::{JsonHints, fault::hint_or_stop};

/// Deepest nesting of types.
pub(super) const DEPTH_MAX: usize = 16;

/// Types that are one word.
const SIMPLE: [(&str, DataType); 20] = [
    ("bool", DataType::Boolean),
    ("boolean", DataType::Boolean),
    ("int8", DataType::Int8),
    ("int16", DataType::Int16),
    ("int32", DataType::Int32),
    ("int64", DataType::Int64),
    ("uint8", DataType::UInt8),
    ("uint16", DataType::UInt16),
    ("uint32", DataType::UInt32),
    ("uint64", DataType::UInt64),
    ("float32", DataType::Float32),
    ("float", DataType::Float32),
    ("float64", DataType::Float64),
    ("double", DataType::Float64),
    ("string", DataType::Utf8),
    ("utf8", DataType::Utf8),
    ("binary", DataType::Binary),
    ("date", DataType::Date32),
    ("date32", DataType::Date32),
    ("uuid", DataType::FixedSizeBinary(16)),
];

/// Types that have parts.
const COMPOUND: [&str; 6] = ["timestamp", "time", "decimal", "list", "struct", "map"];

/// The type that a text names; `fields` are those of a `struct` without `<...>` in it.
pub(super) fn parse_type(text: &str, fields: Option<Fields>) -> Result<DataType, String> {
    let mut parser = Parser { rest: text, depth: 0, fields };
    let parsed = parser.data_type().and_then(|parsed| match parser.rest.trim() {
        "" => Ok(parsed),
        _ => Err("expected the end of the type".to_owned()),
    });
    let parsed = parsed.map_err(|message| {
        let done = text.len() - parser.rest.trim_start().len();
        let position = text.get(..done).unwrap_or_default().chars().count() + 1;
        let shown: String = text.chars().take(60).collect();
        format!("{message}, at character {position} of {shown:?}")
    })?;
    if parser.fields.is_some() {
        return Err(format!(
            "`fields` belongs to struct, list<struct> or map<string, struct>, and the type is {text:?}"
        ));
    }
    Ok(parsed)
}

/// A declared field. The only bytes of one length that can be declared are UUIDs, which files and plugins are told.
pub(super) fn new_field(name: &str, data_type: DataType, nullable: bool) -> Field {
    let is_uuid = data_type == DataType::FixedSizeBinary(16);
    let field = Field::new(name, data_type, nullable);
    if is_uuid { field.with_extension_type(Uuid) } else { field }
}

/// The text of a type as [`parse_type`] takes it, and the fields of the `struct` in it.
pub(super) fn type_text(data_type: &DataType) -> (String, Option<&Fields>) {
    match data_type {
        DataType::Time32(unit) | DataType::Time64(unit) => (format!("time[{}]", unit_text(*unit)), None),
        DataType::Timestamp(unit, zone) => {
            let unit = unit_text(*unit);
            let zone = zone.as_ref().map(|zone| format!(", {zone}")).unwrap_or_default();
            (format!("timestamp[{unit}{zone}]"), None)
        }
        DataType::Decimal128(precision, scale) | DataType::Decimal256(precision, scale) => {
            (format!("decimal({precision},{scale})"), None)
        }
        DataType::List(element) => {
            let (text, fields) = type_text(element.data_type());
            (format!("list<{text}>"), fields)
        }
        DataType::Map(entries, _) => match entries.data_type() {
            DataType::Struct(pair) => {
                let (text, fields) = pair.get(1).map(|value| type_text(value.data_type())).unwrap_or_default();
                (format!("map<string, {text}>"), fields)
            }
            other => (other.to_string(), None),
        },
        DataType::Struct(fields) => ("struct".to_owned(), Some(fields)),
        other => {
            let name = SIMPLE.iter().find(|(_, simple)| simple == other).map(|(name, _)| *name);
            (name.map_or_else(|| other.to_string(), str::to_owned), None)
        }
    }
}

/// The name of a unit.
fn unit_text(unit: TimeUnit) -> &'static str {
    JsonHints::UNITS.iter().find(|(_, known)| *known == unit).map_or("us", |(name, _)| name)
}

/// What is left to read.
struct Parser<'a> {
    /// The text behind what was read.
    rest: &'a str,
    /// How deep.
    depth: usize,
    /// For the `struct` without `<...>`.
    fields: Option<Fields>,
}

impl<'a> Parser<'a> {
    /// One type.
    fn data_type(&mut self) -> Result<DataType, String> {
        self.depth += 1;
        if self.depth > DEPTH_MAX {
            return Err(format!("types are nested deeper than {DEPTH_MAX}"));
        }
        let before = self.rest;
        let word = self.word().to_ascii_lowercase();
        let parsed = match word.as_str() {
            "timestamp" => self.timestamp()?,
            "time" => self.time()?,
            "decimal" => self.decimal()?,
            "list" => {
                self.expect('<')?;
                let element = self.data_type()?;
                self.expect('>')?;
                DataType::List(Arc::new(new_field("item", element, true)))
            }
            "struct" => DataType::Struct(self.fields()?),
            "map" => self.map()?,
            _ => {
                let Some((_, simple)) = SIMPLE.iter().find(|(name, _)| *name == word) else {
                    self.rest = before;
                    return Err(unknown(&word));
                };
                simple.clone()
            }
        };
        self.depth -= 1;
        Ok(parsed)
    }

    /// `[unit]` or `[unit, zone]`; microseconds without a zone where there is nothing.
    fn timestamp(&mut self) -> Result<DataType, String> {
        if !self.begins_with('[') {
            return Ok(DataType::Timestamp(TimeUnit::Microsecond, None));
        }
        let unit = self.unit("expected the unit s, ms, us or ns")?;
        if !self.begins_with(',') {
            self.expect(']')?;
            return Ok(DataType::Timestamp(unit, None));
        }
        self.expect(',')?;
        let (zone, rest) = self.rest.split_once(']').ok_or("expected `]` after the zone")?;
        if !matches!(zone.trim(), "UTC" | "utc" | "Z" | "+00:00") {
            return Err("times are stored in UTC: expected UTC, or no zone".to_owned());
        }
        self.rest = rest;
        Ok(DataType::Timestamp(unit, Some("UTC".into())))
    }

    /// `[unit]`; microseconds where there is nothing.
    fn time(&mut self) -> Result<DataType, String> {
        if !self.begins_with('[') {
            return Ok(DataType::Time64(TimeUnit::Microsecond));
        }
        let before = self.rest;
        let wrong = "expected the unit ms, us or ns";
        let unit = self.unit(wrong)?;
        self.expect(']')?;
        match unit {
            TimeUnit::Second => {
                self.rest = before;
                Err(wrong.to_owned())
            }
            TimeUnit::Millisecond => Ok(DataType::Time32(unit)),
            unit => Ok(DataType::Time64(unit)),
        }
    }

    /// `[` and a unit.
    fn unit(&mut self, wrong: &str) -> Result<TimeUnit, String> {
        self.expect('[')?;
        let before = self.rest;
        let word = self.word();
        let unit = JsonHints::UNITS.iter().find(|(name, _)| *name == word).map(|(_, unit)| *unit);
        unit.ok_or_else(|| {
            self.rest = before;
            wrong.to_owned()
        })
    }

    /// `(precision, scale)`.
    fn decimal(&mut self) -> Result<DataType, String> {
        let wrong = "expected decimal(precision, scale) with a precision from 1 to 76 and a scale up to it";
        self.expect('(')?;
        let before = self.rest;
        let precision =
            self.word().parse::<u8>().ok().filter(|precision| (1..=DECIMAL256_MAX_PRECISION).contains(precision));
        let scale = if self.begins_with(',') {
            self.expect(',')?;
            self.word().parse::<u8>().ok()
        } else {
            Some(0)
        };
        match (precision, scale.and_then(|scale| i8::try_from(scale).ok())) {
            (Some(precision), Some(scale)) if scale.unsigned_abs() <= precision => {
                self.expect(')')?;
                Ok(if precision <= DECIMAL128_MAX_PRECISION {
                    DataType::Decimal128(precision, scale)
                } else {
                    DataType::Decimal256(precision, scale)
                })
            }
            _ => {
                self.rest = before;
                Err(wrong.to_owned())
            }
        }
    }

    /// `<name: type, ...>`, or the fields from elsewhere.
    fn fields(&mut self) -> Result<Fields, String> {
        if !self.begins_with('<') {
            return self
                .fields
                .take()
                .ok_or_else(|| "a struct needs fields: struct<name: type, ...>, or the key `fields`".to_owned());
        }
        self.expect('<')?;
        let mut fields: Vec<Field> = Vec::new();
        loop {
            let before = self.rest;
            let name = self.word();
            if name.is_empty() {
                return Err("expected a field's name as in struct<name: type, ...>".to_owned());
            }
            if fields.iter().any(|field| field.name() == name) {
                self.rest = before;
                return Err(format!("the field {name:?} is there twice"));
            }
            self.expect(':')?;
            fields.push(new_field(name, self.data_type()?, true));
            if !self.begins_with(',') {
                self.expect('>')?;
                return Ok(fields.into());
            }
            self.expect(',')?;
        }
    }

    /// `<string, type>`.
    fn map(&mut self) -> Result<DataType, String> {
        self.expect('<')?;
        let before = self.rest;
        if self.data_type()? != DataType::Utf8 {
            self.rest = before;
            return Err("the keys of a map are string".to_owned());
        }
        self.expect(',')?;
        let values = self.data_type()?;
        self.expect('>')?;
        let entries = vec![Field::new("key", DataType::Utf8, false), new_field("value", values, true)];
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

    /// Whether a character comes next.
    fn begins_with(&self, character: char) -> bool {
        self.rest.trim_start().starts_with(character)
    }

    /// One character.
    fn expect(&mut self, character: char) -> Result<(), String> {
        self.rest = self.rest.trim_start().strip_prefix(character).ok_or_else(|| format!("expected `{character}`"))?;
        Ok(())
    }
}

/// What to say about a word that is no type.
fn unknown(word: &str) -> String {
    // The words of SQL and of other formats.
    let other = match word {
        "int" | "integer" => Some("int32 or int64"),
        "long" | "bigint" => Some("int64"),
        "text" | "varchar" | "str" => Some("string"),
        "bytes" => Some("binary"),
        "datetime" => Some("timestamp[us, UTC]"),
        "array" => Some("list<T>"),
        "object" | "record" => Some("struct<name: T, ...>"),
        "number" => Some("float64 or int64"),
        _ => None,
    };
    let hint = match other {
        Some(other) => format!("; did you mean {other}?"),
        None => hint_or_stop(word, SIMPLE.iter().map(|(name, _)| *name).chain(COMPOUND)),
    };
    format!(
        "{word:?} is no type{hint} There are bool, int8 to int64, uint8 to uint64, float32, float64, string, binary, uuid, date, \
         time[us], timestamp[ms, UTC], decimal(10,2), list<T>, struct<name: T, ...>, map<string, T>"
    )
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The type as Arrow shows it.
    fn show(text: &str) -> Result<String, String> {
        parse_type(text, None).map(|parsed| parsed.to_string())
    }

    #[test]
    fn types_are_understood() {
        assert_eq!(show("int64").unwrap(), "Int64");
        assert_eq!(show(" String ").unwrap(), "Utf8");
        assert_eq!(show("timestamp[ms, UTC]").unwrap(), "Timestamp(ms, \"UTC\")");
        assert_eq!(show("timestamp").unwrap(), "Timestamp(µs)");
        assert_eq!(show("time").unwrap(), "Time64(µs)");
        assert_eq!(show("time[ms]").unwrap(), "Time32(ms)");
        assert_eq!(show("decimal(10, 2)").unwrap(), "Decimal128(10, 2)");
        assert_eq!(show("decimal(10)").unwrap(), "Decimal128(10, 0)");
        assert_eq!(show("decimal(39, 2)").unwrap(), "Decimal256(39, 2)");
        let Ok(DataType::List(item)) = parse_type("list<uuid>", None) else { panic!("no list") };
        assert!(item.has_valid_extension_type::<Uuid>());
        assert_eq!(
            show("struct<a: list<string>, b-c: map<string, int32>>").unwrap(),
            "Struct(\"a\": List(Utf8), \"b-c\": Map(\"key_value\": non-null Struct(\"key\": non-null Utf8, \"value\": Int32), unsorted))"
        );
        let fields = Fields::from(vec![Field::new("a", DataType::Int8, false)]);
        assert_eq!(parse_type("list<struct>", Some(fields)).unwrap().to_string(), "List(Struct(\"a\": non-null Int8))");
    }

    #[test]
    fn what_is_wrong_is_told_with_its_position() {
        let fault = |text: &str| show(text).unwrap_err();
        assert_eq!(
            fault("list<strin>"),
            "\"strin\" is no type; did you mean string? There are bool, int8 to int64, uint8 to uint64, float32, float64, \
             string, binary, uuid, date, time[us], timestamp[ms, UTC], decimal(10,2), list<T>, struct<name: T, ...>, \
             map<string, T>, at character 6 of \"list<strin>\""
        );
        assert!(fault("integer").starts_with("\"integer\" is no type; did you mean int32 or int64? There are bool"));
        assert!(fault("").starts_with("\"\" is no type. There are bool"));
        assert_eq!(fault("list<int64"), "expected `>`, at character 11 of \"list<int64\"");
        assert_eq!(fault("int64 x"), "expected the end of the type, at character 7 of \"int64 x\"");
        assert_eq!(fault("timestamp[min]"), "expected the unit s, ms, us or ns, at character 11 of \"timestamp[min]\"");
        assert_eq!(
            fault("timestamp[ms, Europe/Berlin]"),
            "times are stored in UTC: expected UTC, or no zone, at character 15 of \"timestamp[ms, Europe/Berlin]\""
        );
        assert_eq!(fault("time[s]"), "expected the unit ms, us or ns, at character 5 of \"time[s]\"");
        let decimal = "expected decimal(precision, scale) with a precision from 1 to 76 and a scale up to it";
        for text in ["decimal(77,2)", "decimal(5,6)", "decimal(5,-1)", "decimal()", "decimal(0)"] {
            assert_eq!(fault(text), format!("{decimal}, at character 9 of {text:?}"));
        }
        assert_eq!(
            fault("struct"),
            "a struct needs fields: struct<name: type, ...>, or the key `fields`, at character 7 of \"struct\""
        );
        assert_eq!(
            fault("struct<ä: int8, ä: int8>"),
            "the field \"ä\" is there twice, at character 17 of \"struct<ä: int8, ä: int8>\""
        );
        assert_eq!(fault("map<int8, int8>"), "the keys of a map are string, at character 5 of \"map<int8, int8>\"");
        assert!(fault(&"list<".repeat(1_000)).starts_with("types are nested deeper than 16"));
        let fields = Fields::from(vec![Field::new("a", DataType::Int8, false)]);
        assert_eq!(
            parse_type("int8", Some(fields)).unwrap_err(),
            "`fields` belongs to struct, list<struct> or map<string, struct>, and the type is \"int8\""
        );
    }

    proptest! {
        #[test]
        fn no_text_panics(text in "\\PC{0,40}|((list|struct|map|decimal|timestamp|int64|ä)[<>(,:\\[\\]) ]{0,2}){0,12}") {
            let _ = parse_type(&text, None);
        }

        #[test]
        fn a_type_is_written_as_it_is_read(text in "(list<|map<string, ){0,4}", leaf in 0usize..SIMPLE.len()) {
            let open = text.matches('<').count();
            let text = format!("{text}{}{}", SIMPLE[leaf].0, ">".repeat(open));
            let parsed = parse_type(&text, None).unwrap();
            let (written, _) = type_text(&parsed);
            prop_assert_eq!(parse_type(&written, None).unwrap(), parsed);
        }
    }
}
