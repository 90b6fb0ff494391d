//! A plugin that uses every function of the plugin API 0.1.0, without an SDK and without an Arrow library, so that nothing stands
//! between the API and what was compiled.
//!
//! Of a batch whose first column is a number `n` it keeps the even rows, refuses 7, and adds a column: `twice` (the world
//! `plugin`), `total` of all even numbers ever seen (`stateful-plugin`), or `name`, looked up under the number
//! (`lookup-plugin`).

#[cfg(feature = "plugin")]
wit_bindgen::generate!({ path: "../../../../wit", world: "plugin", generate_all });
#[cfg(feature = "stateful")]
wit_bindgen::generate!({ path: "../../../../wit", world: "stateful-plugin", generate_all });
#[cfg(feature = "lookup")]
wit_bindgen::generate!({ path: "../../../../wit", world: "lookup-plugin", generate_all });

use std::cell::Cell;

use exports::fs_data_sink::plugin::transform::{
    BatchInfo, Descriptor, Error, FlushReason, Guest, OpenContext, Opened, Output, Payload,
};
use fs_data_sink::plugin::{
    batches::Batch,
    metrics,
    types::{Column, Rejection, Roles, Selection},
};
use wasi::{
    config::store,
    logging::logging::{Level, log},
};

thread_local! {
    /// The sum of all even numbers.
    static TOTAL: Cell<i64> = const { Cell::new(0) };
}

/// The plugin.
struct Golden;

impl Guest for Golden {
    fn describe() -> Descriptor {
        Descriptor {
            name: "golden".to_owned(),
            version: "0.1.0".to_owned(),
            description: "uses every function of the API once".to_owned(),
            roles: Roles::FILTER | Roles::ENRICH,
            config_schema: Some(r#"{"type": "object"}"#.to_owned()),
            buffers_rows: false,
            deterministic: false,
            attributes: vec![("license".to_owned(), "MIT".to_owned())],
        }
    }

    fn open(context: OpenContext) -> Result<Opened, Error> {
        let greeting = store::get("greeting").map_err(|_| Error::InvalidConfig("no wasi:config".to_owned()))?;
        let all = store::get_all().map_err(|_| Error::InvalidConfig("no wasi:config".to_owned()))?;
        if all.is_empty() != greeting.is_none() {
            return Err(Error::InvalidConfig("get and get-all differ".to_owned()));
        }
        let Some(schema) = output_schema(&context.config) else {
            return Err(Error::InvalidConfig("`schema` is missing".to_owned()));
        };
        let bytes = context.input_schema.len();
        log(Level::Info, "golden", &format!("{} with a schema of {bytes} bytes", greeting.unwrap_or_default()));
        Ok(Opened { output_schema: Some(schema), attributes: Vec::new() })
    }

    fn process(input: &Batch, info: BatchInfo) -> Result<Output, Error> {
        let rows = input.num_rows();
        let stream = input.read(Some(&[0])).map_err(|_| Error::Failed("read".to_owned()))?;
        let column = input.read_column(0).map_err(|_| Error::Failed("read-column".to_owned()))?;
        if input.read_column(1000).is_ok() || column.format != "l" || column.length != rows || stream.len() < 64 {
            return Err(Error::UnsupportedSchema(format!("a first column of type {}", column.format)));
        }
        let numbers: Vec<i64> =
            column.data.chunks_exact(8).filter_map(|bytes| bytes.try_into().ok().map(i64::from_le_bytes)).collect();
        let mut keep = vec![0_u8; numbers.len().div_ceil(8)];
        let (mut kept, mut refused) = (Vec::new(), Vec::new());
        for (row, &number) in numbers.iter().enumerate() {
            if number == 7 {
                refused.push(row as u32);
            } else if number % 2 == 0 {
                keep[row / 8] |= 1 << (row % 8);
                kept.push(number);
            }
        }
        log(Level::Warn, "golden", &format!("batch {} kept {} of {rows}", info.sequence, kept.len()));
        metrics::count("kept", kept.len() as u64);
        metrics::gauge("share", kept.len() as f64 / f64::from(rows.max(1)));
        let rejected = match refused.is_empty() {
            true => Vec::new(),
            false => vec![Rejection { code: "seven".to_owned(), message: "7 is refused".to_owned(), rows: refused }],
        };
        let payload = Payload::ExtendColumns(vec![added(&kept)?]);
        Ok(Output { keep: Selection::Bitmap(keep), payload, rejected })
    }

    fn flush(reason: FlushReason) -> Result<Payload, Error> {
        log(Level::Debug, "golden", &format!("{reason:?}"));
        Ok(Payload::ReplaceColumns(Vec::new()))
    }

    fn close() {}
}

/// A column of numbers.
#[cfg(not(feature = "lookup"))]
fn numbers(name: &str, numbers: impl Iterator<Item = i64>) -> Column {
    let data: Vec<u8> = numbers.flat_map(i64::to_le_bytes).collect();
    Column {
        name: name.to_owned(),
        format: "l".to_owned(),
        length: (data.len() / 8) as u32,
        null_count: 0,
        validity: None,
        offsets: None,
        data,
    }
}

/// The column that is added.
#[cfg(feature = "plugin")]
fn added(kept: &[i64]) -> Result<Column, Error> {
    TOTAL.set(0);
    Ok(numbers("twice", kept.iter().map(|number| number * 2)))
}

/// The column that is added.
#[cfg(feature = "stateful")]
fn added(kept: &[i64]) -> Result<Column, Error> {
    let add = |number: &i64| {
        TOTAL.set(TOTAL.get() + number);
        TOTAL.get()
    };
    Ok(numbers("total", kept.iter().map(add)))
}

/// The column that is added.
#[cfg(feature = "lookup")]
fn added(kept: &[i64]) -> Result<Column, Error> {
    use wasi::keyvalue::{batch, store};

    TOTAL.set(0);
    let failed = |error: store::Error| Error::Retryable((format!("{error:?}"), None));
    let bucket = store::open("names").map_err(failed)?;
    let keys: Vec<String> = kept.iter().map(i64::to_string).collect();
    let values = batch::get_many(&bucket, &keys).map_err(failed)?;
    let (mut data, mut offsets, mut validity) = (Vec::new(), vec![0_u8; 4], vec![0_u8; kept.len().div_ceil(8)]);
    let mut nulls = 0;
    for (row, value) in values.iter().enumerate() {
        match value {
            Some((_, bytes)) => {
                data.extend_from_slice(bytes);
                validity[row / 8] |= 1 << (row % 8);
            }
            None => nulls += 1,
        }
        offsets.extend((data.len() as i32).to_le_bytes());
    }
    Ok(Column {
        name: "name".to_owned(),
        format: "u".to_owned(),
        length: kept.len() as u32,
        null_count: nulls,
        validity: Some(validity),
        offsets: Some(offsets),
        data,
    })
}

#[cfg(feature = "stateful")]
impl exports::fs_data_sink::plugin::state::Guest for Golden {
    fn snapshot() -> Result<Vec<u8>, Error> {
        Ok(TOTAL.get().to_le_bytes().to_vec())
    }

    fn restore(snapshot: Vec<u8>) -> Result<(), Error> {
        let bytes = snapshot.try_into().map_err(|_| Error::Failed("a snapshot of 8 bytes".to_owned()))?;
        TOTAL.set(i64::from_le_bytes(bytes));
        Ok(())
    }
}

/// The IPC stream of the output schema, as hexadecimal digits behind `"schema":"` in the configuration.
fn output_schema(config: &str) -> Option<Vec<u8>> {
    let digits = config.split_once("\"schema\":\"")?.1.split_once('"')?.0;
    let pair = |at: usize| u8::from_str_radix(digits.get(at..at + 2)?, 16).ok();
    (0..digits.len()).step_by(2).map(pair).collect()
}

export!(Golden);
