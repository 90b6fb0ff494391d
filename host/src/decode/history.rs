//! The versions of each dataset's inferred schema, in the store: what lanes, processes and restarts agree on.
//!
//! Comes in: fields that a decoder has learned, before any row with them is written. Goes out: that they are the newest version now, or
//! the version that another writer made meanwhile, which is to be adopted first. Versions are objects created if absent,
//! `_fs_data_sink/<pipeline>/schema/<dataset>/<version>.json`, and never change. Promises: each version holds all fields of the one
//! before, under the same names and in types as wide or wider; whoever writes rows has its fields in a version.
//!
//! A field's type is settled by the first who records it, so two writers never write one field in two types that do not go
//! together: the record of the one who came later is held against the settled type, and decoded once more.

use std::{
    collections::{HashMap, VecDeque},
    sync::Arc,
    time::Duration,
};

use arrow_schema::{DataType, Field, Fields};
use bytes::Bytes;
use chrono::{SecondsFormat, Utc};
use serde::{Deserialize, Serialize};
use tokio::sync::Mutex;

use super::merge::FIELDS_MAX;
use crate::{
    error::PipelineError,
    store::{Created, Path, Store},
};

/// The format of versions that this program writes, and the newest that it reads.
const FORMAT: u32 = 1;

/// Longest version that is read: 2,000 fields with long names stay far below it.
const BYTES_MAX: usize = 16 << 20;

/// Most parts of a version's types: each field may be a few lists inside of each other.
const PARTS_MAX: usize = 64 * FIELDS_MAX;

/// Deepest part: what decoders let into a schema is less deep.
const DEPTH_MAX: usize = 256;

/// How often a version is created anew when the answer was lost; between two of them the store is asked what is there, which waits for
/// a store that is away.
const TRIES_MAX: u32 = 20;

/// Pause between two tries.
const PAUSE: Duration = Duration::from_millis(500);

/// The versions of all datasets of a pipeline. Cheap to clone.
#[derive(Clone, Debug)]
pub struct SchemaHistory {
    /// Where they are.
    store: Store,
    /// Those that were asked for, by the name of their folder.
    datasets: Arc<Mutex<HashMap<Box<str>, Shared>>>,
}

/// The versions of one dataset. Cheap to clone.
#[derive(Clone, Debug)]
pub struct DatasetHistory {
    /// Where they are.
    store: Store,
    /// Their folder.
    folder: Arc<str>,
    /// The newest of them.
    newest: Shared,
}

/// The newest version that is known in this process; `None` before it was looked for. Whoever records holds the lock.
type Shared = Arc<Mutex<Option<Newest>>>;

/// A version.
#[derive(Clone, Debug)]
struct Newest {
    /// Its number; 0 where there is none.
    version: u64,
    /// Its fields.
    fields: Fields,
}

/// A version as it lies in the store.
#[derive(Debug, Serialize, Deserialize)]
struct Version {
    /// See [`FORMAT`].
    format: u32,
    /// What wrote it, for people.
    program: String,
    /// When, for people.
    time: String,
    /// The fields and what is inside of them.
    fields: Vec<Part>,
}

/// A field, or a part of one: an element of a list, a field of a struct, the key or the value of a map. They stand in one list, so
/// that depth is no matter.
#[derive(Debug, Serialize, Deserialize)]
struct Part {
    /// The number of the part that this one is inside of, counted from 0.
    #[serde(rename = "in", default, skip_serializing_if = "Option::is_none")]
    inside: Option<usize>,
    /// Its name.
    name: String,
    /// Its type: `list`, `struct`, `map`, or a type without parts as Arrow spells it.
    #[serde(rename = "type")]
    kind: String,
}

impl SchemaHistory {
    /// Nothing is read yet.
    #[must_use]
    pub fn new(store: Store) -> Self {
        Self { store, datasets: Arc::default() }
    }

    /// The versions of a dataset, whose folder has this name.
    pub async fn of(&self, folder: &str) -> DatasetHistory {
        let mut datasets = self.datasets.lock().await;
        let newest = Arc::clone(datasets.entry(folder.into()).or_default());
        DatasetHistory { store: self.store.clone(), folder: folder.into(), newest }
    }
}

impl DatasetHistory {
    /// The fields of the newest version that is known; empty where there is none.
    pub async fn newest(&self) -> Result<Fields, PipelineError> {
        let mut guard = self.newest.lock().await;
        Ok(self.known(&mut guard).await?.fields.clone())
    }

    /// The newest version that is known, looked for where none is.
    async fn known<'known>(&self, newest: &'known mut Option<Newest>) -> Result<&'known mut Newest, PipelineError> {
        let known = match newest.take() {
            Some(known) => known,
            None => self.find().await?,
        };
        Ok(newest.insert(known))
    }

    /// Records fields that were learned on top of a version. `None` once they are the newest; otherwise the newest, which another writer
    /// made: to be adopted, and the records to be decoded once more.
    pub async fn agree(&self, base: &Fields, learned: &Fields) -> Result<Option<Fields>, PipelineError> {
        let mut guard = self.newest.lock().await;
        let known = self.known(&mut guard).await?;
        if known.fields == *learned {
            return Ok(None);
        }
        if known.fields != *base {
            return Ok(Some(known.fields.clone()));
        }
        let next = Newest { version: known.version + 1, fields: learned.clone() };
        let path = self.path(next.version);
        let bytes = encode(&next.fields)?;
        for _ in 0..TRIES_MAX {
            match self.store.create(&path, bytes.clone()).await? {
                Created::New => {
                    tracing::info!(dataset = %self.folder, version = next.version, fields = next.fields.len(),
                        "a new version of the schema");
                    *known = next;
                    return Ok(None);
                }
                Created::Unknown(error) if self.store.read(&path).await?.is_none() => {
                    tracing::warn!(%path, error = %error.full_message(), "recording the schema got no answer: once more");
                    tokio::time::sleep(PAUSE).await;
                }
                Created::Exists | Created::Unknown(_) => {
                    *known = self.find().await?;
                    return Ok((known.fields != *learned).then(|| known.fields.clone()));
                }
            }
        }
        Err(PipelineError::restart(format!("{path}: the store gives no answer to recording the schema")))
    }

    /// The newest version in the store.
    async fn find(&self) -> Result<Newest, PipelineError> {
        let folder = self.store.own_name(&format!("schema/{}", self.folder));
        let versions = self.store.list(&folder).await?;
        let newest = versions.iter().filter_map(|(path, _)| number(path)).max();
        let Some(version) = newest else { return Ok(Newest { version: 0, fields: Fields::empty() }) };
        let path = self.path(version);
        let wrong = |why: &str| {
            PipelineError::stop(format!(
                "{path}: {why}; it tells what the types of inferred fields are. Move the folder away to have them inferred anew"
            ))
        };
        let bytes = self.store.read(&path).await?.ok_or_else(|| wrong("the newest version of the schema is gone"))?;
        let fields = decode(&bytes).map_err(|why| wrong(&why))?;
        Ok(Newest { version, fields })
    }

    /// Where a version is.
    fn path(&self, version: u64) -> Path {
        self.store.own_name(&format!("schema/{}/{version:08}.json", self.folder))
    }
}

/// The number of a version, by its path.
fn number(path: &Path) -> Option<u64> {
    path.filename()?.strip_suffix(".json")?.parse().ok().filter(|number| *number > 0)
}

/// Fields as a version.
fn encode(fields: &Fields) -> Result<Bytes, PipelineError> {
    let mut parts: Vec<Part> = Vec::new();
    let mut waiting: VecDeque<(Option<usize>, &str, &DataType)> =
        fields.iter().map(|field| (None, field.name().as_str(), field.data_type())).collect();
    while let Some((inside, name, data_type)) = waiting.pop_front() {
        let children: Vec<&Field> = match data_type {
            DataType::List(item) => vec![item],
            DataType::Struct(fields) => fields.iter().map(AsRef::as_ref).collect(),
            DataType::Map(entries, _) => match entries.data_type() {
                DataType::Struct(pair) => pair.iter().map(AsRef::as_ref).collect(),
                _ => Vec::new(),
            },
            _ => Vec::new(),
        };
        let kind = match data_type {
            DataType::List(_) => "list".to_owned(),
            DataType::Struct(_) => "struct".to_owned(),
            DataType::Map(..) => "map".to_owned(),
            plain => plain.to_string(),
        };
        let own = parts.len();
        waiting.extend(children.into_iter().map(|child| (Some(own), child.name().as_str(), child.data_type())));
        parts.push(Part { inside, name: name.to_owned(), kind });
    }
    let time = Utc::now().to_rfc3339_opts(SecondsFormat::Millis, true);
    let program = concat!("fs-data-sink ", env!("CARGO_PKG_VERSION")).to_owned();
    let version = Version { format: FORMAT, program, time, fields: parts };
    serde_json::to_vec(&version)
        .map(Bytes::from)
        .map_err(|error| PipelineError::stop("the schema cannot be written as JSON").because(error))
}

/// The fields of a version; what is wrong with it, otherwise.
fn decode(bytes: &[u8]) -> Result<Fields, String> {
    #[derive(Deserialize)]
    struct Head {
        format: u32,
    }
    if bytes.len() > BYTES_MAX {
        return Err(format!("it is longer than {BYTES_MAX} bytes"));
    }
    let not_ours = |error: serde_json::Error| format!("it is no schema that this program wrote ({error})");
    let Head { format } = serde_json::from_slice(bytes).map_err(not_ours)?;
    if format > FORMAT {
        return Err(format!(
            "a newer version of fs-data-sink wrote it (format {format}, this one reads {FORMAT}): update"
        ));
    }
    let Version { fields: parts, .. } = serde_json::from_slice(bytes).map_err(not_ours)?;
    if parts.len() > PARTS_MAX {
        return Err(format!("it has more than {PARTS_MAX} types"));
    }
    let mut depths: Vec<usize> = Vec::with_capacity(parts.len());
    for (number, part) in parts.iter().enumerate() {
        let depth = match part.inside {
            None => 0,
            Some(inside) => depths.get(inside).map_or(usize::MAX, |depth| depth + 1),
        };
        if depth > DEPTH_MAX {
            return Err(format!("part {number} is inside of none before it, or too deep"));
        }
        depths.push(depth);
    }
    // What is inside of a part stands behind it, so from the end on every part is whole.
    let mut inside: Vec<VecDeque<Arc<Field>>> = parts.iter().map(|_| VecDeque::new()).collect();
    let mut top = VecDeque::new();
    for (number, part) in parts.iter().enumerate().rev() {
        let children: Vec<Arc<Field>> = inside.get_mut(number).map(std::mem::take).unwrap_or_default().into();
        let data_type = whole_type(&part.kind, children).ok_or_else(|| format!("part {number} has no type"))?;
        let is_key = part.inside.is_some_and(|around| {
            // The first of the two parts of a map.
            parts.get(around).is_some_and(|around| around.kind == "map")
                && inside.get(around).is_some_and(|found| found.len() == 1)
        });
        let field = Arc::new(Field::new(&part.name, data_type, !is_key));
        match part.inside {
            None => top.push_front(field),
            Some(around) => {
                if let Some(found) = inside.get_mut(around) {
                    found.push_front(field);
                }
            }
        }
    }
    Ok(Vec::from(top).into())
}

/// A type with what is inside of it.
fn whole_type(kind: &str, mut children: Vec<Arc<Field>>) -> Option<DataType> {
    match (kind, children.len()) {
        ("list", 1) => children.pop().map(DataType::List),
        ("struct", 1..) => Some(DataType::Struct(children.into())),
        ("map", 2) => {
            let pair = DataType::Struct(children.into());
            Some(DataType::Map(Arc::new(Field::new("key_value", pair, false)), false))
        }
        ("list" | "struct" | "map", _) => None,
        (plain, 0) => plain.parse().ok().filter(|data_type: &DataType| !data_type.is_nested()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use arrow_schema::TimeUnit;
    use object_store::memory::InMemory;

    use super::*;
    use crate::store::tests::in_memory;

    /// Fields of these types.
    fn fields(types: &[(&str, DataType)]) -> Fields {
        types.iter().map(|(name, data_type)| Field::new(*name, data_type.clone(), true)).collect()
    }

    /// Two processes with one store.
    async fn two() -> (DatasetHistory, DatasetHistory, Arc<InMemory>) {
        let (store, objects) = in_memory();
        (SchemaHistory::new(store.clone()).of("orders").await, SchemaHistory::new(store).of("orders").await, objects)
    }

    #[test]
    fn every_type_that_can_be_inferred_comes_back() {
        let item = |data_type| Arc::new(Field::new("item", data_type, true));
        let utc = || Some("UTC".into());
        let pair = fields(&[("value", DataType::List(item(DataType::Int8)))]);
        let pair: Fields =
            [Arc::new(Field::new("key", DataType::Utf8, false))].into_iter().chain(pair.iter().cloned()).collect();
        let mut deep = DataType::Int64;
        for level in 0..120 {
            deep = if level % 2 == 0 { DataType::List(item(deep)) } else { DataType::Struct(fields(&[("a", deep)])) };
        }
        let mut types = vec![
            DataType::Boolean,
            DataType::Utf8,
            DataType::Binary,
            DataType::FixedSizeBinary(16),
            DataType::Date32,
            DataType::Time32(TimeUnit::Millisecond),
            DataType::Time64(TimeUnit::Microsecond),
            DataType::Time64(TimeUnit::Nanosecond),
            DataType::Decimal128(38, 9),
            DataType::Decimal128(5, -2),
            DataType::Decimal256(76, 0),
            DataType::Struct(fields(&[("x", DataType::Float64), ("in: \"y\"", DataType::Boolean)])),
            DataType::Map(Arc::new(Field::new("key_value", DataType::Struct(pair), false)), false),
            deep,
        ];
        types.extend([DataType::Int8, DataType::Int16, DataType::Int32, DataType::Int64]);
        types.extend([DataType::UInt8, DataType::UInt16, DataType::UInt32, DataType::UInt64]);
        types.extend([DataType::Float32, DataType::Float64]);
        for unit in [TimeUnit::Millisecond, TimeUnit::Microsecond, TimeUnit::Nanosecond] {
            types.extend([DataType::Timestamp(unit, None), DataType::Timestamp(unit, utc())]);
        }
        let all: Fields =
            (0..).zip(types).map(|(number, data_type)| Field::new(format!("f {number}"), data_type, true)).collect();
        assert_eq!(decode(&encode(&all).unwrap()).unwrap(), all);
    }

    #[test]
    fn a_version_is_read_as_it_was_written() {
        // What is in stores stays as it is: this text must be read for ever.
        let text = br#"{"format":1,"program":"fs-data-sink 0.1.0","time":"2026-11-24T13:00:00.000Z","fields":[
            {"name":"id","type":"Int64"},{"name":"o","type":"struct"},{"name":"t","type":"Timestamp(\u00b5s, \"UTC\")"},
            {"in":1,"name":"l","type":"list"},{"in":3,"name":"item","type":"Decimal128(10, 2)"}]}"#;
        let read = decode(text).unwrap();
        let shown: Vec<String> = read.iter().map(|field| format!("{}: {}", field.name(), field.data_type())).collect();
        assert_eq!(shown, ["id: Int64", "o: Struct(\"l\": List(Decimal128(10, 2)))", "t: Timestamp(µs, \"UTC\")"]);
    }

    #[test]
    fn what_is_no_version_is_told() {
        let told = |text: &str| decode(text.as_bytes()).unwrap_err();
        assert!(told("{").contains("no schema that this program wrote"));
        assert!(told(r#"{"format":2}"#).contains("format 2, this one reads 1): update"));
        let with = |parts: &str| format!(r#"{{"format":1,"program":"","time":"","fields":[{parts}]}}"#);
        assert_eq!(told(&with(r#"{"name":"a","type":"list"}"#)), "part 0 has no type");
        assert_eq!(told(&with(r#"{"name":"a","type":"nonsense"}"#)), "part 0 has no type");
        assert_eq!(
            told(&with(r#"{"in":0,"name":"a","type":"Int8"}"#)),
            "part 0 is inside of none before it, or too deep"
        );
    }

    /// Scenario: two processes learn different fields at the same time; then one of them starts again.
    /// Guarantees: the second one is told of the first one's version before it records its own, and all agree in the end.
    #[tokio::test(flavor = "multi_thread")]
    async fn of_two_who_learn_at_once_the_second_adopts_first() {
        let (first, second, _objects) = two().await;
        assert!(first.newest().await.unwrap().is_empty() && second.newest().await.unwrap().is_empty());
        let (ours, theirs) = (fields(&[("a", DataType::Int64)]), fields(&[("a", DataType::Utf8)]));
        assert_eq!(first.agree(&Fields::empty(), &ours).await.unwrap(), None);
        assert_eq!(second.agree(&Fields::empty(), &theirs).await.unwrap(), Some(ours.clone()));
        let both = fields(&[("a", DataType::Int64), ("b", DataType::Utf8)]);
        assert_eq!(second.agree(&ours, &both).await.unwrap(), None);
        // What was recorded already is no conflict.
        assert_eq!(second.agree(&ours, &both).await.unwrap(), None);
        let other = fields(&[("a", DataType::Int64), ("c", DataType::Utf8)]);
        assert_eq!(first.agree(&ours, &other).await.unwrap(), Some(both.clone()));
        assert_eq!(first.newest().await.unwrap(), both);
        assert_eq!(SchemaHistory::new(first.store.clone()).of("orders").await.newest().await.unwrap(), both);
        assert!(SchemaHistory::new(first.store.clone()).of("clicks").await.newest().await.unwrap().is_empty());
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_damaged_version_is_named() {
        let (history, _, _objects) = two().await;
        history.store.create(&history.path(3), Bytes::from_static(b"[]")).await.unwrap();
        let error = history.newest().await.unwrap_err().full_message();
        assert!(error.contains("schema/orders/00000003.json: it is no schema"), "{error}");
    }
}
