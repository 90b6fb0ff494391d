//! Adds `browser`, `os` and `is_bot` from a user-agent column, with the rules of the woothee project.
//!
//! ```yaml
//! config: {column: user_agent, prefix: ""}
//! ```
//!
//! What is not known is null. Columns of these names that are there already are replaced; a prefix keeps them.

use std::sync::Arc;

use arrow_array::{builder::StringBuilder, cast::AsArray};
use fs_data_sink_plugin::prelude::*;
use woothee::parser::Parser;

/// Texts remembered, a power of two: user agents repeat, and parsing one costs microseconds.
const REMEMBERED_MAX: usize = 4_096;
/// Bytes of the name of a browser or a system, about; more are made room for.
const TEXT_BYTES: usize = 12;
/// Bytes of a text that is remembered: what browsers send is under 300. With the number above at most 4 MiB.
const REMEMBERED_BYTES_MAX: usize = 1_024;

/// What stands under `config:`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// The column with the user agent.
    column: String,
    /// Put before the names of the added columns.
    #[serde(default)]
    prefix: String,
}

/// What a user agent says.
#[derive(Debug)]
struct Facts {
    /// For instance `Chrome`; none where it is not known.
    browser: Option<Box<str>>,
    /// For instance `Windows 10`.
    os: Option<Box<str>>,
    /// Whether it is a crawler.
    is_bot: bool,
}

/// The plugin.
pub struct ParseUserAgent {
    /// The column with the user agent.
    column: String,
    /// The added columns.
    fields: [Field; 3],
    /// The rules.
    parser: Parser,
    /// Texts that were parsed before, each in the place that its hash names: whoever chooses texts so that they share one is as slow
    /// as with texts that were never seen, and no slower.
    remembered: Vec<Option<(Box<str>, Arc<Facts>)>>,
}

impl std::fmt::Debug for ParseUserAgent {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("ParseUserAgent").field("column", &self.column).finish_non_exhaustive()
    }
}

impl Plugin for ParseUserAgent {
    type Config = Config;
    const DESCRIPTION: &'static str = "adds browser, os and is_bot from a user-agent column";
    const ROLES: &'static [Role] = &[Role::Enrich];
    const DETERMINISTIC: bool = true;
    const CONFIG_SCHEMA: Option<&'static str> = Some(
        r#"{"type":"object","required":["column"],"additionalProperties":false,"properties":{"column":{"type":"string"},"prefix":{"type":"string"}}}"#,
    );

    fn open(config: Config, input: &Schema) -> Result<Self, OpenError> {
        let Config { column, prefix } = config;
        let field = input.field_with_name(&column).map_err(|_| OpenError::no_column(&column, input))?;
        if *field.data_type() != DataType::Utf8 {
            return Err(OpenError::unsupported_schema(format!(
                "column {column:?} is of type {}, not text",
                field.data_type()
            )));
        }
        let fields = [
            Field::new(format!("{prefix}browser"), DataType::Utf8, true),
            Field::new(format!("{prefix}os"), DataType::Utf8, true),
            Field::new(format!("{prefix}is_bot"), DataType::Boolean, true),
        ];
        Ok(Self { column, fields, parser: Parser::new(), remembered: vec![None; REMEMBERED_MAX] })
    }

    fn output_schema(&self, _input: &Schema) -> OutputSchema {
        OutputSchema::Extend(self.fields.to_vec())
    }

    fn process(&mut self, batch: &Batch<'_>) -> Result<Output, ProcessError> {
        let column = batch.column(&self.column)?;
        let facts: Vec<Option<Arc<Facts>>> =
            column.as_string::<i32>().iter().map(|text| text.map(|text| self.look_up(text))).collect();
        let texts = |pick: fn(&Facts) -> Option<&str>| -> ArrayRef {
            let mut texts = StringBuilder::with_capacity(facts.len(), facts.len() * TEXT_BYTES);
            for facts in &facts {
                texts.append_option(facts.as_deref().and_then(pick));
            }
            Arc::new(texts.finish())
        };
        let bots: BooleanArray = facts.iter().map(|facts| facts.as_ref().map(|facts| facts.is_bot)).collect();
        let columns: [ArrayRef; 3] =
            [texts(|facts| facts.browser.as_deref()), texts(|facts| facts.os.as_deref()), Arc::new(bots)];
        Ok(Output::extend(self.fields.iter().cloned().zip(columns).collect()))
    }
}

impl ParseUserAgent {
    /// What a user agent says.
    fn look_up(&mut self, text: &str) -> Arc<Facts> {
        let place = hash(text.as_bytes()) % REMEMBERED_MAX;
        if let Some(Some((known, facts))) = self.remembered.get(place)
            && is_same(known.as_bytes(), text.as_bytes())
        {
            return Arc::clone(facts);
        }
        let facts = Arc::new(self.parse(text));
        if text.len() <= REMEMBERED_BYTES_MAX
            && let Some(known) = self.remembered.get_mut(place)
        {
            *known = Some((text.into(), Arc::clone(&facts)));
        }
        facts
    }

    /// The same by the rules.
    fn parse(&self, text: &str) -> Facts {
        let known = |name: &str| (name != "UNKNOWN").then(|| name.into());
        self.parser.parse(text).map_or(Facts { browser: None, os: None, is_bot: false }, |found| Facts {
            browser: known(found.name),
            os: known(found.os),
            is_bot: found.category == "crawler",
        })
    }
}

/// A number for a text, eight bytes at a time, as the Rust compiler's own hash makes it (`FxHash`).
fn hash(text: &[u8]) -> usize {
    let (words, rest) = text.as_chunks::<8>();
    let mut last = [0; 8];
    last.iter_mut().zip(rest).for_each(|(to, from)| *to = *from);
    let mix = |hash: u64, word: u64| (hash.rotate_left(5) ^ word).wrapping_mul(0x517c_c1b7_2722_0a95);
    let hash = words.iter().map(|word| u64::from_le_bytes(*word)).fold(text.len() as u64, mix);
    // The upper half is the better one; it fits a `usize` of WebAssembly.
    (mix(hash, u64::from_le_bytes(last)) >> 32) as usize
}

/// Whether texts are the same, eight bytes at a time: `memcmp` in WebAssembly goes byte by byte.
fn is_same(one: &[u8], other: &[u8]) -> bool {
    let ((words, rest), (other_words, other_rest)) = (one.as_chunks::<8>(), other.as_chunks::<8>());
    one.len() == other.len()
        && words.iter().zip(other_words).all(|(one, other)| u64::from_le_bytes(*one) == u64::from_le_bytes(*other))
        && rest.iter().zip(other_rest).all(|(one, other)| one == other)
}

export_plugin!(ParseUserAgent);

#[cfg(test)]
mod tests {
    use arrow_array::StringArray;
    use fs_data_sink_plugin::testing::Harness;

    use super::*;

    #[test]
    fn browsers_systems_and_bots_are_told_apart() {
        let agents: ArrayRef = Arc::new(StringArray::from(vec![
            Some(
                "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/126.0.0.0 Safari/537.36",
            ),
            Some("Mozilla/5.0 (compatible; Googlebot/2.1; +http://www.google.com/bot.html)"),
            Some("nonsense"),
            None,
        ]));
        let rows = RecordBatch::try_from_iter_with_nullable([("ua", agents, true)]).unwrap();
        let mut harness = Harness::<ParseUserAgent>::open(r#"{"column":"ua"}"#, rows.schema_ref()).unwrap();
        let out = harness.process(&rows).unwrap().batches.remove(0);
        let text = |column: usize| {
            out.column(column).as_string::<i32>().iter().map(|value| value.map(str::to_owned)).collect::<Vec<_>>()
        };
        assert_eq!(text(1), [Some("Chrome".to_owned()), Some("Googlebot".to_owned()), None, None]);
        assert_eq!(text(2), [Some("Windows 10".to_owned()), None, None, None]);
        assert_eq!(out.column(3).as_boolean().iter().collect::<Vec<_>>(), [Some(false), Some(true), Some(false), None]);
    }

    #[test]
    fn what_is_remembered_is_bounded_and_gives_the_same_answer() {
        let texts: Vec<String> = (0..REMEMBERED_MAX + 10)
            .map(|number| format!("Mozilla/5.0 (compatible; Googlebot/2.1) {number}"))
            .chain([format!("Googlebot {}", "x".repeat(1 << 20))])
            .collect();
        let agents: ArrayRef = Arc::new(StringArray::from_iter_values(texts.iter().chain(&texts)));
        let rows = RecordBatch::try_from_iter([("ua", agents)]).unwrap();
        let config = r#"{"column":"ua","prefix":"ua_"}"#;
        let mut harness = Harness::<ParseUserAgent>::open(config, rows.schema_ref()).unwrap();
        let out = harness.process(&rows).unwrap().batches.remove(0);
        assert_eq!(out.column_by_name("ua_is_bot").unwrap().as_boolean().true_count(), 2 * texts.len());
        let remembered = &harness.plugin().remembered;
        assert!(remembered.len() <= REMEMBERED_MAX && remembered.iter().flatten().all(|(text, _)| text.len() < 100));
        // Most of them have a place of their own, or the next batch would parse them all again.
        assert!(remembered.iter().flatten().count() > REMEMBERED_MAX / 2);
    }

    #[test]
    fn texts_that_differ_in_one_byte_are_told_apart() {
        let text: Vec<u8> = (0..40).collect();
        for length in 0..text.len() {
            let (one, mut other) = (&text[..length], text[..length].to_vec());
            assert!(is_same(one, &other) && hash(one) == hash(&other));
            assert!(!is_same(one, &text[..=length]));
            for at in 0..length {
                other[at] ^= 1;
                assert!(!is_same(one, &other) && hash(one) != hash(&other), "{length} {at}");
                other[at] ^= 1;
            }
        }
    }

    #[test]
    fn a_column_that_is_not_text_is_refused() {
        let schema = Schema::new(vec![Field::new("ua", DataType::Int64, true)]);
        let error = Harness::<ParseUserAgent>::open(r#"{"column":"ua"}"#, &schema).unwrap_err();
        assert_eq!(error.to_string(), "column \"ua\" is of type Int64, not text");
    }
}
