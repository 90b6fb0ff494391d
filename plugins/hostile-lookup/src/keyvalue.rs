//! Look-ups: `{"bucket", "op": "get" | "get_many" | "set" | "delete" | "exists" | "list", "key", "key_bytes", "value_bytes", "keys"}`.

use serde_json::Value;

use crate::{
    bindings::wasi::keyvalue::{
        batch,
        store::{self, Bucket, Error},
    },
    number, text,
};

/// Tries one operation and tells what it came to.
pub(crate) fn attempt(step: &Value) -> String {
    operate(step).unwrap_or_else(|error| match error {
        Error::NoSuchStore => "no-such-store".to_owned(),
        Error::AccessDenied => "access-denied".to_owned(),
        Error::Other(words) => words,
    })
}

/// Opens the bucket and does something.
fn operate(step: &Value) -> Result<String, Error> {
    let bucket: Bucket = store::open(text(step, "bucket"))?;
    let long = |name: &str| "k".repeat(usize::try_from(number(step, name)).unwrap_or_default());
    let key = format!("{}{}", text(step, "key"), long("key_bytes"));
    let shown = |value: Option<Vec<u8>>| {
        value.map_or("none".to_owned(), |value| String::from_utf8_lossy(&value).chars().take(80).collect())
    };
    Ok(match text(step, "op") {
        "get" => shown(bucket.get(&key)?),
        "get_many" => {
            let keys: Vec<String> = match step.get("keys") {
                Some(Value::Array(keys)) => keys.iter().filter_map(Value::as_str).map(str::to_owned).collect(),
                _ => (0..number(step, "keys")).map(|at| format!("{key}{at}")).collect(),
            };
            let values = batch::get_many(&bucket, &keys)?;
            let found = values
                .into_iter()
                .map(|pair| pair.map_or("none".to_owned(), |(key, value)| format!("{key}={}", shown(Some(value)))));
            let mut found: Vec<_> = found.collect();
            found.dedup();
            found.join(" ")
        }
        "set" => {
            let value = format!("{}{}", text(step, "value"), long("value_bytes"));
            bucket.set(&key, value.as_bytes())?;
            "set".to_owned()
        }
        "delete" => {
            bucket.delete(&key)?;
            "deleted".to_owned()
        }
        "exists" => bucket.exists(&key)?.to_string(),
        _ => list(&bucket)?,
    })
}

/// All keys.
fn list(bucket: &Bucket) -> Result<String, Error> {
    let (mut keys, mut cursor) = (Vec::new(), None);
    loop {
        let page = bucket.list_keys(cursor)?;
        keys.extend(page.keys);
        cursor = page.cursor;
        if cursor.is_none() {
            keys.sort();
            return Ok(format!("keys: {}", keys.join(" ")));
        }
    }
}
