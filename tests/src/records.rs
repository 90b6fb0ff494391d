//! Records, and which rows they must become, said by the generator and not by the program.
//!
//! Record `n` of a seed is always the same bytes. [`Records::expected_row`] builds its row from the values that went
//! into the JSON, never from the JSON: as canonical JSON text, the same that `read_back.py` makes of a Parquet row.

use std::{collections::BTreeMap, fmt::Write as _};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde_json::{Value, json};

use crate::services::kafka::NewRecord;

/// Partitions of every topic of records: record `n` is offset `n / 4` of partition `n % 4`.
pub const PARTITIONS: i32 = 4;

/// One record in so many is malformed.
pub const MALFORMED_EVERY: u64 = 500;

/// The `kind`s that the filter keeps.
pub const KINDS_KEPT: [&str; 3] = ["purchase", "view", "größe 名"];

/// The `kind`s that it does not.
const KINDS_DROPPED: [&str; 2] = ["ping", "debug"];

/// Directories are made of these: separators, escapes, and letters of more than one byte are among them.
const COUNTRIES: [&str; 7] = ["DE", "FR", "Côte d'Ivoire", "a/b=c %41?", "日本", "US", "__x: {y}"];

/// Text of many kinds.
const TEXTS: [&str; 8] = [
    "plain",
    "größer als Übermut",
    "日本語のテキスト",
    "👩‍👩‍👧 family 😀",
    "quote \" and \\ back",
    "line\nbreak\ttab\r\u{8}\u{c}\u{1f}",
    "مرحبا بالعالم",
    "",
];

/// Floats that test a parser and a writer. Not among them: -0.0, which the JSON parser reads as 0.0, its equal.
const FLOATS: [f64; 9] = [
    0.1,
    1e-300,
    5e-324,
    1.797_693_134_862_315_7e308,
    123_456_789.123_456_78,
    -2.5,
    1e22,
    0.3,
    9_007_199_254_740_993.0,
];

/// A user agent with the browser and system that it names, written by hand.
#[derive(Clone, Copy, Debug)]
pub struct UserAgent {
    /// As a browser sends it.
    pub text: &'static str,
    /// The browser.
    pub browser: Option<&'static str>,
    /// The operating system.
    pub os: Option<&'static str>,
    /// Whether it is a crawler.
    pub is_bot: bool,
}

/// Believable user agents.
pub const USER_AGENTS: [UserAgent; 7] = [
    UserAgent {
        text: "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/142.0.0.0 Safari/537.36",
        browser: Some("Chrome"),
        os: Some("Windows 10"),
        is_bot: false,
    },
    UserAgent {
        text: "Mozilla/5.0 (iPhone; CPU iPhone OS 17_1 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/17.1 Mobile/15E148 Safari/604.1",
        browser: Some("Safari"),
        os: Some("iPhone"),
        is_bot: false,
    },
    UserAgent {
        text: "Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Firefox/128.0",
        browser: Some("Firefox"),
        os: Some("Linux"),
        is_bot: false,
    },
    UserAgent {
        text: "Mozilla/5.0 (Linux; Android 14; Pixel 8) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/142.0.0.0 Mobile Safari/537.36",
        browser: Some("Chrome"),
        os: Some("Android"),
        is_bot: false,
    },
    UserAgent {
        text: "Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15_7) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/17.1 Safari/605.1.15",
        browser: Some("Safari"),
        os: Some("Mac OSX"),
        is_bot: false,
    },
    UserAgent {
        text: "Mozilla/5.0 (compatible; Googlebot/2.1; +http://www.google.com/bot.html)",
        browser: Some("Googlebot"),
        os: None,
        is_bot: true,
    },
    UserAgent { text: "nothing that is known", browser: None, os: None, is_bot: false },
];

/// A stream of records with its seed.
#[derive(Clone, Debug)]
pub struct Records {
    /// Other seeds, other records.
    pub seed: u64,
    /// Goes into the column `_topic`.
    pub topic: String,
}

/// What must become of a record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fate {
    /// A row.
    Kept,
    /// The filter leaves it out.
    Filtered,
    /// A dead letter of stage `decode` with this code.
    Rejected(&'static str),
}

/// A small, well-mixed generator (splitmix64), so that records need no crate and never change.
#[derive(Debug)]
pub struct Random(u64);

impl Random {
    /// Starts from a seed.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// The next number.
    #[must_use]
    pub fn draw(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// The next number below a limit, which is not 0.
    #[must_use]
    pub fn below(&mut self, limit: u64) -> u64 {
        self.draw() % limit
    }

    /// True once in so many times.
    #[must_use]
    pub fn once_in(&mut self, times: u64) -> bool {
        self.below(times) == 0
    }

    /// One of a list.
    pub fn pick<'a, T>(&mut self, list: &'a [T]) -> Option<&'a T> {
        list.get(usize::try_from(self.below(list.len() as u64)).ok()?)
    }
}

/// The JSON text of a value beside the canonical value that its row must have.
#[derive(Clone, Debug)]
struct Cell {
    /// The JSON text; `None` leaves the field out.
    json: Option<String>,
    /// As `read_back.py` writes it.
    expected: Value,
}

impl Cell {
    /// A value whose JSON is canonical already.
    fn same(value: Value) -> Self {
        Self { json: Some(value.to_string()), expected: value }
    }

    /// Null, written or left out.
    fn null(random: &mut Random) -> Self {
        Self { json: random.once_in(2).then(|| "null".to_owned()), expected: Value::Null }
    }
}

impl Records {
    /// What must become of record `number`.
    #[must_use]
    pub fn fate(&self, number: u64) -> Fate {
        if let Some((_, code)) = self.malformed(number) {
            return Fate::Rejected(code);
        }
        if is_kept(&self.cells(number)) { Fate::Kept } else { Fate::Filtered }
    }

    /// Record `number`, for Kafka.
    #[must_use]
    pub fn record(&self, number: u64) -> NewRecord {
        let partition = i32::try_from(number % u64::from(PARTITIONS.unsigned_abs())).unwrap_or_default();
        let headers = if number.is_multiple_of(10) {
            vec![("trace".to_owned(), number.to_be_bytes().to_vec()), ("größe".to_owned(), Vec::new())]
        } else {
            Vec::new()
        };
        NewRecord {
            partition,
            key: (!number.is_multiple_of(7)).then(|| format!("key-{number}").into_bytes()),
            value: self.value(number),
            headers,
            timestamp_ms: None,
        }
    }

    /// The value of record `number`; `None` is a tombstone.
    #[must_use]
    pub fn value(&self, number: u64) -> Option<Vec<u8>> {
        match self.malformed(number) {
            Some((value, _)) => value,
            None => Some(self.object(number, &self.cells(number)).into_bytes()),
        }
    }

    /// Partition and offset of record `number`.
    #[must_use]
    pub fn position(number: u64) -> (i32, i64) {
        let partitions = u64::from(PARTITIONS.unsigned_abs());
        let partition = i32::try_from(number % partitions).unwrap_or_default();
        (partition, i64::try_from(number / partitions).unwrap_or_default())
    }

    /// The row that record `number` must become, if it becomes one.
    #[must_use]
    pub fn expected_row(&self, number: u64) -> Option<String> {
        if is_malformed(number) {
            return None;
        }
        let cells = self.cells(number);
        if !is_kept(&cells) {
            return None;
        }
        let mut row: BTreeMap<String, Value> =
            cells.into_iter().map(|(name, cell)| (name.to_owned(), cell.expected)).collect();
        let agent = row.get("user_agent").and_then(Value::as_str);
        let agent = agent.and_then(|text| USER_AGENTS.iter().find(|agent| agent.text == text));
        row.insert("browser".to_owned(), json!(agent.and_then(|agent| agent.browser)));
        row.insert("os".to_owned(), json!(agent.and_then(|agent| agent.os)));
        row.insert("is_bot".to_owned(), json!(agent.map(|agent| agent.is_bot)));
        let (partition, offset) = Self::position(number);
        row.insert("_topic".to_owned(), json!(self.topic));
        row.insert("_partition".to_owned(), json!(partition));
        row.insert("_offset".to_owned(), json!(offset));
        // Directories give text back.
        let level = row.get("level").and_then(Value::as_i64).map(|level| level.to_string());
        row.insert("level".to_owned(), json!(level));
        Some(canonical(&row))
    }

    /// The fields of record `number`.
    fn cells(&self, number: u64) -> BTreeMap<&'static str, Cell> {
        let random = &mut Random::new(self.seed ^ number.wrapping_mul(0x5851_f42d_4c95_7f2d));
        let mut cells = BTreeMap::new();
        cells.insert("id", Cell::same(json!(number)));
        cells.insert("kind", kind(random));
        cells.insert("country", maybe(random, 20, |random| text_cell(random, &COUNTRIES)));
        cells.insert("level", maybe(random, 15, |random| Cell::same(json!(random.below(3)))));
        cells.insert("created_at", time_cell(random));
        cells.insert("day", maybe(random, 9, day_cell));
        cells.insert("user_agent", maybe(random, 6, agent_cell));
        cells.insert("price", maybe(random, 8, float_cell));
        cells.insert("ratio", maybe(random, 8, ratio_cell));
        cells.insert("amount", maybe(random, 8, amount_cell));
        cells.insert("total", maybe(random, 5, integer_cell));
        cells.insert("small", maybe(random, 5, |random| Cell::same(json!(random.below(256)))));
        cells.insert("active", maybe(random, 4, |random| Cell::same(json!(random.once_in(2)))));
        cells.insert("text", maybe(random, 10, |random| text_cell(random, &TEXTS)));
        cells.insert("bytes", maybe(random, 10, bytes_cell));
        cells.insert("device", maybe(random, 6, device_cell));
        cells.insert("tags", maybe(random, 6, |random| list_cell(random, |random| text_cell(random, &TEXTS))));
        cells.insert("scores", maybe(random, 6, |random| list_cell(random, float_cell)));
        cells.insert("lines", maybe(random, 6, |random| list_cell(random, line_cell)));
        cells
    }

    /// The JSON text: fields in any order, white space, and now and then a field that the schema lacks.
    fn object(&self, number: u64, cells: &BTreeMap<&'static str, Cell>) -> String {
        let random = &mut Random::new(self.seed.wrapping_add(number));
        let mut fields: Vec<(&str, &str)> =
            cells.iter().filter_map(|(name, cell)| Some((*name, cell.json.as_deref()?))).collect();
        if random.once_in(3) {
            fields.reverse();
        }
        if random.once_in(11) {
            fields.push(("unknown_to_the_schema", r#"{"deep": [1, {"er": null}]}"#));
        }
        let space = if random.once_in(5) { " " } else { "" };
        let fields: Vec<String> = fields.iter().map(|(name, json)| format!("\"{name}\":{space}{json}")).collect();
        format!("{{{space}{}{space}}}", fields.join(","))
    }

    /// The malformed value of record `number` with the code that it must be refused for, if it is one of them.
    fn malformed(&self, number: u64) -> Option<(Option<Vec<u8>>, &'static str)> {
        if !is_malformed(number) {
            return None;
        }
        let good = self.object(number, &self.cells(number));
        let with = |field: &'static str, json: Option<&str>| {
            let mut cells = self.cells(number);
            cells.insert(field, Cell { json: json.map(str::to_owned), expected: Value::Null });
            Some(self.object(number, &cells).into_bytes())
        };
        let text = |text: &str| Some(text.as_bytes().to_vec());
        Some(match number / MALFORMED_EVERY % 14 {
            0 => (text(&good[..good.floor_char_boundary(good.len() / 2)]), "bad-json"),
            1 => (text("[1, 2]"), "not-an-object"),
            2 => (text(""), "bad-json"),
            3 => (with("id", Some("\"abc\"")), "wrong-type"),
            4 => (with("id", None), "null-not-allowed"),
            5 => (Some([b"{\"id\": 1, \"text\": \"", [0xff, 0xfe].as_slice(), b"\"}"].concat()), "bad-json"),
            6 => (with("created_at", Some("\"yesterday\"")), "wrong-type"),
            7 => (with("total", Some("9223372036854775808")), "number-out-of-range"),
            8 => (text(&format!("{good} and more")), "bad-json"),
            9 => (with("total", Some("1.5")), "wrong-type"),
            10 => (None, "null-value"),
            11 => (with("device", Some(r#"{"screen": {"width": "wide"}}"#)), "wrong-type"),
            12 => (with("amount", Some("1.005")), "precision-loss"),
            _ => (text(&good.replacen('{', r#"{"id":1,"#, 1)), "duplicate-key"),
        })
    }
}

/// Whether a record is one of the malformed.
fn is_malformed(number: u64) -> bool {
    number % MALFORMED_EVERY == MALFORMED_EVERY / 2
}

/// Whether the filter keeps it.
fn is_kept(cells: &BTreeMap<&'static str, Cell>) -> bool {
    let kind = cells.get("kind").and_then(|kind| kind.expected.as_str());
    kind.is_some_and(|kind| KINDS_KEPT.contains(&kind))
}

/// A value, or once in so many times null.
fn maybe(random: &mut Random, once_in: u64, value: impl FnOnce(&mut Random) -> Cell) -> Cell {
    if random.once_in(once_in) { Cell::null(random) } else { value(random) }
}

/// The column that the filter looks at.
fn kind(random: &mut Random) -> Cell {
    match random.below(10) {
        0 => Cell::null(random),
        1 | 2 => text_cell(random, &KINDS_DROPPED),
        _ => text_cell(random, &KINDS_KEPT),
    }
}

/// One of some texts; sometimes with everything escaped that can be.
fn text_cell(random: &mut Random, texts: &[&str]) -> Cell {
    let text = random.pick(texts).copied().unwrap_or_default();
    if random.once_in(4) {
        let mut json = String::from("\"");
        for unit in text.encode_utf16() {
            // Writing into a string cannot fail.
            let _ = write!(json, "\\u{unit:04x}");
        }
        json.push('"');
        return Cell { json: Some(json), expected: json!(text) };
    }
    Cell::same(json!(text))
}

/// One of the known user agents.
fn agent_cell(random: &mut Random) -> Cell {
    Cell::same(json!(random.pick(&USER_AGENTS).map(|agent| agent.text)))
}

/// A moment in milliseconds, in some zone, before or after 1970.
fn time_cell(random: &mut Random) -> Cell {
    let ms = random.below(4_000_000_000_000).cast_signed() - 1_000_000_000_000;
    let zone_minutes = *random.pick(&[0_i64, 0, 60, -330, 845]).unwrap_or(&0);
    let local = ms + zone_minutes * 60_000;
    let (days, of_day) = (local.div_euclid(86_400_000), local.rem_euclid(86_400_000));
    let (year, month, day) = date(days);
    let (hour, minute, second) = (of_day / 3_600_000, of_day / 60_000 % 60, of_day / 1_000 % 60);
    let zone = match zone_minutes {
        0 => "Z".to_owned(),
        minutes => {
            let sign = if minutes < 0 { '-' } else { '+' };
            format!("{sign}{:02}:{:02}", minutes.abs() / 60, minutes.abs() % 60)
        }
    };
    let json =
        format!("\"{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{:03}{zone}\"", of_day % 1_000);
    Cell { json: Some(json), expected: json!(format!("us:{}", ms * 1_000)) }
}

/// A date.
fn day_cell(random: &mut Random) -> Cell {
    let (year, month, day) = date(random.below(30_000).cast_signed() - 5_000);
    let text = format!("{year:04}-{month:02}-{day:02}");
    Cell { json: Some(format!("\"{text}\"")), expected: json!(format!("date:{text}")) }
}

/// The date so many days after 1970-01-01, counted day by year and month as one does by hand.
fn date(days: i64) -> (i64, i64, i64) {
    let leap = |year: i64| year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    let (mut year, mut left) = (1970, days);
    while left < 0 {
        year -= 1;
        left += if leap(year) { 366 } else { 365 };
    }
    while left >= if leap(year) { 366 } else { 365 } {
        left -= if leap(year) { 366 } else { 365 };
        year += 1;
    }
    let february = if leap(year) { 29 } else { 28 };
    let mut month = 1;
    for length in [31, february, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31] {
        if left < length {
            break;
        }
        left -= length;
        month += 1;
    }
    (year, month, left + 1)
}

/// A float: by its bits, so that the last digit counts.
fn float_cell(random: &mut Random) -> Cell {
    let (value, json) = match random.below(4) {
        0 => {
            let whole = u32::try_from(random.below(1_000_000)).unwrap_or_default();
            (f64::from(whole), whole.to_string())
        }
        1 => {
            let value = f64::from_bits(random.draw() & !(0x7ff << 52) | (random.below(2_000) << 52));
            (value, format!("{value:e}"))
        }
        _ => {
            let value = *random.pick(&FLOATS).unwrap_or(&0.5);
            (value, format!("{value:?}"))
        }
    };
    Cell { json: Some(json), expected: json!(format!("f64:{:016x}", value.to_bits())) }
}

/// A float of 32 bits that is exact in it.
fn ratio_cell(random: &mut Random) -> Cell {
    let value = f32::from(u16::try_from(random.below(60_000)).unwrap_or_default()) / 8.0;
    Cell { json: Some(format!("{value:?}")), expected: json!(format!("f32:{:08x}", value.to_bits())) }
}

/// A decimal with two places, as a number or as text.
fn amount_cell(random: &mut Random) -> Cell {
    let cents = random.below(1_000_000_000);
    let text = format!("{}.{:02}", cents / 100, cents % 100);
    let json = if random.once_in(3) { format!("\"{text}\"") } else { text.clone() };
    Cell { json: Some(json), expected: json!(format!("decimal:{text}")) }
}

/// Integers up to the ends of their type.
fn integer_cell(random: &mut Random) -> Cell {
    Cell::same(match random.below(4) {
        0 => json!(i64::MAX),
        1 => json!(i64::MIN),
        _ => json!(random.draw().cast_signed()),
    })
}

/// Bytes, as base64 text.
fn bytes_cell(random: &mut Random) -> Cell {
    let length = usize::try_from(random.below(8)).unwrap_or_default();
    let text = STANDARD.encode(random.draw().to_be_bytes().get(..length).unwrap_or_default());
    Cell { json: Some(format!("\"{text}\"")), expected: json!(format!("base64:{text}")) }
}

/// An object in an object.
fn device_cell(random: &mut Random) -> Cell {
    let os = maybe(random, 4, |random| text_cell(random, &TEXTS));
    let screen = maybe(random, 4, |random| {
        let width = maybe(random, 5, |random| Cell::same(json!(random.below(4_000))));
        let height = maybe(random, 5, |random| Cell::same(json!(random.below(3_000))));
        object_cell([("height", height), ("width", width)])
    });
    object_cell([("os", os), ("screen", screen)])
}

/// An order line.
fn line_cell(random: &mut Random) -> Cell {
    let quantity = maybe(random, 5, |random| Cell::same(json!(random.below(100))));
    let sku = maybe(random, 5, |random| text_cell(random, &TEXTS));
    object_cell([("quantity", quantity), ("sku", sku)])
}

/// An object; the names are in order.
fn object_cell<const N: usize>(fields: [(&str, Cell); N]) -> Cell {
    let written = fields.iter().filter_map(|(name, cell)| Some(format!("\"{name}\": {}", cell.json.as_deref()?)));
    let json = format!("{{{}}}", written.collect::<Vec<_>>().join(", "));
    let expected = fields.into_iter().map(|(name, cell)| (name.to_owned(), cell.expected)).collect();
    Cell { json: Some(json), expected: Value::Object(expected) }
}

/// A list of none to three items, some of them null.
fn list_cell(random: &mut Random, mut item: impl FnMut(&mut Random) -> Cell) -> Cell {
    let items: Vec<Cell> =
        (0..random.below(4)).map(|_| if random.once_in(5) { Cell::same(Value::Null) } else { item(random) }).collect();
    let json: Vec<&str> = items.iter().filter_map(|cell| cell.json.as_deref()).collect();
    Cell {
        json: Some(format!("[{}]", json.join(","))),
        expected: items.iter().map(|cell| cell.expected.clone()).collect(),
    }
}

/// A row as text: names in order, no white space.
fn canonical(row: &BTreeMap<String, Value>) -> String {
    let row: serde_json::Map<String, Value> = row.iter().map(|(name, value)| (name.clone(), value.clone())).collect();
    Value::Object(row).to_string()
}

/// `schema.fields` of these records.
pub const SCHEMA_FIELDS: &str = r#"
    - {name: id, type: int64, nullable: false}
    - {name: kind, type: string}
    - {name: country, type: string}
    - {name: level, type: int64}
    - {name: created_at, type: "timestamp[ms, UTC]"}
    - {name: day, type: date}
    - {name: user_agent, type: string}
    - {name: price, type: float64}
    - {name: ratio, type: float32}
    - {name: amount, type: "decimal(12, 2)"}
    - {name: total, type: int64}
    - {name: small, type: uint8}
    - {name: active, type: bool}
    - {name: text, type: string}
    - {name: bytes, type: binary}
    - {name: device, type: "struct<os: string, screen: struct<width: int32, height: int32>>"}
    - {name: tags, type: "list<string>"}
    - {name: scores, type: "list<float64>"}
    - {name: lines, type: "list<struct<sku: string, quantity: int64>>"}
"#;

/// The types that DuckDB must name.
pub const DUCKDB_TYPES: [(&str, &str); 25] = [
    ("_offset", "BIGINT"),
    ("_partition", "INTEGER"),
    ("_topic", "VARCHAR"),
    ("active", "BOOLEAN"),
    ("amount", "DECIMAL(12,2)"),
    ("browser", "VARCHAR"),
    ("bytes", "BLOB"),
    ("country", "VARCHAR"),
    ("created_at", "TIMESTAMP WITH TIME ZONE"),
    ("day", "DATE"),
    ("device", "STRUCT(os VARCHAR, screen STRUCT(width INTEGER, height INTEGER))"),
    ("id", "BIGINT"),
    ("is_bot", "BOOLEAN"),
    ("kind", "VARCHAR"),
    ("level", "VARCHAR"),
    ("lines", "STRUCT(sku VARCHAR, quantity BIGINT)[]"),
    ("os", "VARCHAR"),
    ("price", "DOUBLE"),
    ("ratio", "FLOAT"),
    ("scores", "DOUBLE[]"),
    ("small", "UTINYINT"),
    ("tags", "VARCHAR[]"),
    ("text", "VARCHAR"),
    ("total", "BIGINT"),
    ("user_agent", "VARCHAR"),
];

/// The types that pyarrow must name.
pub const PYARROW_TYPES: [(&str, &str); 25] = [
    ("_offset", "int64 not null"),
    ("_partition", "int32 not null"),
    ("_topic", "string not null"),
    ("active", "bool"),
    ("amount", "decimal128(12, 2)"),
    ("browser", "string"),
    ("bytes", "binary"),
    ("country", "string"),
    ("created_at", "timestamp[ms, tz=UTC]"),
    ("day", "date32[day]"),
    ("device", "struct<os: string, screen: struct<width: int32, height: int32>>"),
    ("id", "int64 not null"),
    ("is_bot", "bool"),
    ("kind", "string"),
    ("level", "string"),
    ("lines", "list<struct<sku: string, quantity: int64>>"),
    ("os", "string"),
    ("price", "double"),
    ("ratio", "float"),
    ("scores", "list<double>"),
    ("small", "uint8"),
    ("tags", "list<string>"),
    ("text", "string"),
    ("total", "int64"),
    ("user_agent", "string"),
];

#[cfg(test)]
mod tests {
    use super::*;

    /// The records of the tests below.
    fn records() -> Records {
        Records { seed: 7, topic: "t".to_owned() }
    }

    #[test]
    fn good_records_are_json_that_means_what_was_expected() {
        let records = records();
        let mut fates = [0; 2];
        for number in 0..3_000 {
            let kept = match records.fate(number) {
                Fate::Kept => 1,
                Fate::Filtered => 0,
                Fate::Rejected(_) => continue,
            };
            fates[kept] += 1;
            let value: Value = serde_json::from_slice(&records.value(number).unwrap()).unwrap();
            assert_eq!(value["id"], json!(number));
            let Some(row) = records.expected_row(number) else { continue };
            let row: Value = serde_json::from_str(&row).unwrap();
            for name in ["text", "active", "tags", "device", "country", "total", "kind", "user_agent"] {
                let (mut written, mut wanted) = (value[name].clone(), row[name].clone());
                drop_nulls(&mut written);
                drop_nulls(&mut wanted);
                assert_eq!(written, wanted, "{name}");
            }
        }
        assert!(fates[0] > 600 && fates[1] > 1_500, "{fates:?}");
    }

    /// Fields that are null may be left out of the JSON.
    fn drop_nulls(value: &mut Value) {
        if let Value::Object(fields) = value {
            fields.retain(|_, field| !field.is_null());
            fields.values_mut().for_each(drop_nulls);
        }
    }

    #[test]
    fn every_kind_of_malformed_record_comes() {
        let records = records();
        let codes: Vec<&str> = (0..14 * MALFORMED_EVERY)
            .filter_map(|number| match records.fate(number) {
                Fate::Rejected(code) => Some(code),
                _ => None,
            })
            .collect();
        assert_eq!(codes.len(), 14);
        assert_eq!(codes.iter().filter(|code| **code == "bad-json").count(), 4);
    }

    #[test]
    fn dates_are_those_of_the_calendar() {
        assert_eq!(date(0), (1970, 1, 1));
        assert_eq!(date(-1), (1969, 12, 31));
        assert_eq!(date(19_782), (2024, 2, 29));
        assert_eq!(date(20_780), (2026, 11, 23));
    }
}
