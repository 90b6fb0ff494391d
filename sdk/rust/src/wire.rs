//! Rows and selections in the form in which they cross the boundary: Arrow IPC streams and bitmaps.

use arrow_array::{BooleanArray, RecordBatch};
use arrow_buffer::Buffer;
use arrow_ipc::{reader::StreamDecoder, writer::StreamWriter};
use arrow_schema::{ArrowError, Schema, SchemaRef};

/// A stream of one batch.
pub(crate) fn encode_batch(batch: &RecordBatch) -> Result<Vec<u8>, ArrowError> {
    let bytes = Vec::with_capacity(batch.get_array_memory_size() + 1024);
    let mut writer = StreamWriter::try_new(bytes, batch.schema_ref())?;
    writer.write(batch)?;
    writer.into_inner()
}

/// The batch in a stream. Its columns share the stream's memory.
pub(crate) fn decode_batch(bytes: Vec<u8>) -> Result<RecordBatch, ArrowError> {
    let (mut decoder, mut bytes) = (StreamDecoder::new(), Buffer::from_vec(bytes));
    while !bytes.is_empty() {
        if let Some(batch) = decoder.decode(&mut bytes)? {
            return Ok(batch);
        }
    }
    decoder.schema().map(RecordBatch::new_empty).ok_or_else(no_schema)
}

/// A stream that holds only a schema.
#[cfg_attr(not(any(target_arch = "wasm32", test)), expect(dead_code, reason = "only components answer schemas"))]
pub(crate) fn encode_schema(schema: &Schema) -> Result<Vec<u8>, ArrowError> {
    StreamWriter::try_new(Vec::new(), schema)?.into_inner()
}

/// The schema in a stream.
#[cfg_attr(not(any(target_arch = "wasm32", test)), expect(dead_code, reason = "only components are given schemas"))]
pub(crate) fn decode_schema(bytes: Vec<u8>) -> Result<SchemaRef, ArrowError> {
    let (mut decoder, mut bytes) = (StreamDecoder::new(), Buffer::from_vec(bytes));
    while !bytes.is_empty() && decoder.schema().is_none() {
        decoder.decode(&mut bytes)?;
    }
    decoder.schema().ok_or_else(no_schema)
}

/// One bit a row, least significant bit first, no bit set behind the last row; null counts as false.
#[cfg_attr(not(any(target_arch = "wasm32", test)), expect(dead_code, reason = "only components answer bitmaps"))]
pub(crate) fn encode_bitmap(keep: &BooleanArray) -> Vec<u8> {
    let rows = keep.len();
    let mut bytes = crate::output::set_and_valid(keep).sliced().to_vec();
    bytes.truncate(rows.div_ceil(8));
    if let (Some(last), bits @ 1..) = (bytes.last_mut(), rows % 8) {
        *last &= (1 << bits) - 1;
    }
    bytes
}

/// A stream without a schema.
fn no_schema() -> ArrowError {
    ArrowError::IpcError("the stream ends before its schema".to_owned())
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow_array::{Array as _, ArrayRef, StringArray};

    use super::*;

    #[test]
    fn batches_and_schemas_come_back_as_they_went() {
        let texts: ArrayRef = Arc::new(StringArray::from(vec![Some("a"), None, Some("c")]));
        let batch = RecordBatch::try_from_iter_with_nullable([("t", texts, true)]).unwrap();
        assert_eq!(decode_batch(encode_batch(&batch).unwrap()).unwrap(), batch);
        let stream = encode_schema(batch.schema_ref()).unwrap();
        assert_eq!(decode_schema(stream.clone()).unwrap(), batch.schema());
        assert_eq!(decode_batch(stream).unwrap(), batch.slice(0, 0));
        assert!(decode_batch(Vec::new()).is_err() && decode_schema(vec![1, 2, 3]).is_err());
    }

    #[test]
    fn a_bitmap_has_one_bit_a_row_and_nothing_behind() {
        let all = BooleanArray::from(vec![true; 20]);
        assert_eq!(encode_bitmap(&all), [0xff, 0xff, 0x0f]);
        assert_eq!(encode_bitmap(all.slice(3, 9).as_any().downcast_ref().unwrap()), [0xff, 0x01]);
        assert_eq!(encode_bitmap(&BooleanArray::from(vec![Some(true), None, Some(false), Some(true)])), [0b1001]);
        assert_eq!(encode_bitmap(&BooleanArray::from(vec![true; 8])), [0xff]);
        assert_eq!(encode_bitmap(&BooleanArray::from(Vec::<bool>::new())), [0u8; 0]);
    }
}
