//! Web-shop events as benchmarks in this process take them: as records of a topic, and decoded.

use std::sync::Arc;

use anyhow::{Context as _, Result, anyhow, ensure};
use arrow_array::{
    ArrayRef, BinaryArray, Int32Array, Int64Array, RecordBatch, StringArray, TimestampMillisecondArray, new_null_array,
};
use fs_data_sink::{
    batch::{DecodedBatch, ENVELOPE_SCHEMA, Envelope},
    cli::webshop::WebShop,
    config::DecodeConfig,
    decode::Decoder,
};

/// Records of one batch.
pub const BATCH_ROWS: u64 = 8_192;

/// Events as a batch.
pub fn envelope(shop: WebShop, first: u64, count: u64) -> Result<Envelope> {
    let rows = usize::try_from(count)?;
    let mut text = String::new();
    let values: Vec<String> = (first..first + count)
        .map(|number| {
            shop.event(number, &mut text);
            text.clone()
        })
        .collect();
    let columns: Vec<ArrayRef> = vec![
        Arc::new(StringArray::from(vec!["shop"; rows])),
        Arc::new(Int32Array::from(vec![0; rows])),
        Arc::new(Int64Array::from_iter_values(0..i64::try_from(rows)?)),
        Arc::new(TimestampMillisecondArray::from(vec![0; rows]).with_timezone("UTC")),
        new_null_array(ENVELOPE_SCHEMA.field(4).data_type(), rows),
        Arc::new(BinaryArray::from_iter_values(&values)),
        new_null_array(ENVELOPE_SCHEMA.field(6).data_type(), rows),
    ];
    Ok(Envelope::try_new(RecordBatch::try_new(Arc::clone(&ENVELOPE_SCHEMA), columns)?)?)
}

/// A decoder that infers the schema.
pub fn decoder() -> Result<Decoder> {
    Decoder::new(&DecodeConfig::inferred_json()).map_err(|error| anyhow!(error.full_message()))
}

/// The rows of events, none of which may be refused.
pub fn decode(decoder: &mut Decoder, events: &Envelope) -> Result<DecodedBatch> {
    let decoded = decoder.decode(events);
    ensure!(decoded.rejected.is_empty(), "{:?}", decoded.rejected.first());
    decoded.batch.context("no rows")
}
