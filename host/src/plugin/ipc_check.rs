//! Reads an Arrow IPC stream that a plugin wrote.
//!
//! Comes in: bytes of any content. Goes out: a schema, or record batches that were validated in full. Nothing in the
//! bytes can panic, abort or make the host spend more than in proportion to their number: the message headers are
//! checked here before `arrow_ipc` sees them (it slices buffers by unchecked numbers and trusts declared lengths),
//! and what it decodes then is bounded by the caps. `catch_unwind` stands behind as a second line.

use std::{
    collections::HashSet,
    panic::{AssertUnwindSafe, catch_unwind},
};

use arrow_array::{Array, RecordBatch, cast::AsArray};
use arrow_buffer::Buffer;
use arrow_ipc::{Message, MessageHeader, MetadataVersion, convert::try_fb_to_schema, reader::StreamDecoder};
use arrow_schema::{DataType, Schema};

use super::{
    failure::BadOutput,
    ipc_walk::{Body, walk_dictionary, walk_rows},
    types::check_output_schema,
};

/// Begins every message of the stream format.
const CONTINUATION: [u8; 4] = [0xff; 4];
/// Ends a stream; a stream may also just end.
const END_OF_STREAM: [u8; 8] = [0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0];
/// Bytes of one message's header; a schema of 10,000 columns has less.
const HEADER_BYTES_MAX: usize = 1 << 20;
/// Record batches in one stream; a plugin answers one or a few.
const BATCHES_MAX: usize = 1024;

/// What one answer may hold.
#[derive(Clone, Copy, Debug)]
pub(super) struct Caps {
    /// Rows of all batches together.
    pub(super) rows: usize,
    /// Bytes as sent, and again as they would be with dictionaries unpacked.
    pub(super) bytes: usize,
}

/// Reads a stream that holds only a schema. Columns of `input` may be in it, whatever their types.
pub(super) fn read_schema(stream: &[u8], input: &Schema) -> Result<Schema, BadOutput> {
    let (schema, rest) = take_schema(stream)?;
    check_output_schema(&schema, Some(input))?;
    if rest.is_empty() || rest == END_OF_STREAM {
        Ok(schema)
    } else {
        Err(BadOutput::new("answered more than a schema as its output schema"))
    }
}

/// Reads a stream of rows, after `accept` has agreed to its schema.
pub(super) fn read_rows(
    mut stream: Vec<u8>,
    caps: Caps,
    accept: impl FnOnce(&Schema) -> Result<(), BadOutput>,
) -> Result<Vec<RecordBatch>, BadOutput> {
    if stream.len() > caps.bytes {
        return Err(too_many_bytes(caps));
    }
    let (schema, rest) = take_schema(&stream)?;
    check_output_schema(&schema, None)?;
    accept(&schema)?;
    check_messages(&schema, rest, caps)?;
    if !stream.ends_with(&END_OF_STREAM) {
        // arrow_ipc leaves a last message without a body undone until more bytes come.
        stream.extend(END_OF_STREAM);
    }
    catch_unwind(AssertUnwindSafe(|| {
        let batches = decode(stream)?;
        check_unpacked_bytes(&batches, caps)?;
        Ok(batches)
    }))
    .map_err(|_| BadOutput::new("answered an Arrow IPC stream that the decoder cannot cope with"))?
}

/// The words for an answer that is too long.
pub(super) fn too_many_bytes(caps: Caps) -> BadOutput {
    BadOutput::new(format!("answered more than {} bytes (limits.output_bytes)", caps.bytes))
}

/// The words for an answer of too many rows.
pub(super) fn too_many_rows(caps: Caps) -> BadOutput {
    BadOutput::new(format!("answered more than {} rows (limits.output_rows)", caps.rows))
}

/// Takes the schema message off the front of a stream.
fn take_schema(stream: &[u8]) -> Result<(Schema, &[u8]), BadOutput> {
    let Some((message, rest)) = take_message(stream)? else {
        return Err(BadOutput::new("answered an Arrow IPC stream without a schema"));
    };
    let Some(header) = message.header_as_schema() else {
        return Err(BadOutput::new("answered an Arrow IPC stream that does not begin with a schema"));
    };
    if message.bodyLength() != 0 {
        return Err(BadOutput::new("answered a schema message with a body"));
    }
    if header.endianness() != arrow_ipc::Endianness::Little {
        return Err(BadOutput::new("answered an Arrow IPC stream that is not little-endian"));
    }
    let schema = catch_unwind(AssertUnwindSafe(|| try_fb_to_schema(header)))
        .map_err(|_| BadOutput::new("answered an Arrow schema that cannot be read"))?
        .map_err(|error| BadOutput::new(format!("answered an Arrow schema that cannot be read: {error}")))?;
    Ok((schema, rest))
}

/// Takes one message header off the front; `None` at the end of the stream. The body is left in front of the rest.
fn take_message(stream: &[u8]) -> Result<Option<(Message<'_>, &[u8])>, BadOutput> {
    if stream.is_empty() {
        return Ok(None);
    }
    let truncated = || BadOutput::new("answered an Arrow IPC stream that is cut short");
    let (mark, rest) = stream.split_at_checked(4).ok_or_else(truncated)?;
    if mark != CONTINUATION {
        return Err(BadOutput::new("answered bytes that are not an Arrow IPC stream"));
    }
    let (length, rest) = rest.split_first_chunk::<4>().ok_or_else(truncated)?;
    let length = u32::from_le_bytes(*length) as usize;
    if length == 0 {
        return if rest.is_empty() {
            Ok(None)
        } else {
            Err(BadOutput::new("answered bytes behind the end of an Arrow IPC stream"))
        };
    }
    if length > HEADER_BYTES_MAX || !length.is_multiple_of(8) {
        return Err(BadOutput::new(format!("answered an Arrow IPC header of {length} bytes")));
    }
    let (header, rest) = rest.split_at_checked(length).ok_or_else(truncated)?;
    let message = arrow_ipc::root_as_message(header)
        .map_err(|error| BadOutput::new(format!("answered an Arrow IPC header that cannot be read: {error}")))?;
    if message.version() != MetadataVersion::V5 {
        return Err(BadOutput::new("answered an Arrow IPC stream of an old version; V5 is needed"));
    }
    Ok(Some((message, rest)))
}

/// Checks all messages behind the schema.
fn check_messages(schema: &Schema, mut rest: &[u8], caps: Caps) -> Result<(), BadOutput> {
    let mut rows = 0;
    let mut batches = 0;
    let mut dictionaries = HashSet::new();
    while let Some((message, behind)) = take_message(rest)? {
        let (body, behind) = usize::try_from(message.bodyLength())
            .ok()
            .and_then(|length| behind.split_at_checked(length))
            .ok_or_else(|| BadOutput::new("answered an Arrow IPC stream that is cut short"))?;
        match message.header_type() {
            MessageHeader::RecordBatch => {
                let header = message.header_as_record_batch().ok_or_else(unreadable)?;
                rows += walk_rows(schema, &Body::new(&header, body)?)?;
                batches += 1;
            }
            MessageHeader::DictionaryBatch => {
                let header = message.header_as_dictionary_batch().ok_or_else(unreadable)?;
                if header.isDelta() || !dictionaries.insert(header.id()) {
                    return Err(BadOutput::new("answered a dictionary twice or in parts"));
                }
                let data = header.data().ok_or_else(unreadable)?;
                walk_dictionary(schema, header.id(), &Body::new(&data, body)?)?;
            }
            other => return Err(BadOutput::new(format!("answered an Arrow IPC message of type {other:?}"))),
        }
        if rows > caps.rows {
            return Err(too_many_rows(caps));
        }
        if batches > BATCHES_MAX {
            return Err(BadOutput::new(format!("answered more than {BATCHES_MAX} record batches in one stream")));
        }
        rest = behind;
    }
    Ok(())
}

/// The words for a header whose type tag lies.
fn unreadable() -> BadOutput {
    BadOutput::new("answered an Arrow IPC header that cannot be read")
}

/// Decodes a checked stream. `arrow_ipc` validates every array in full here (UTF-8, offsets, keys, null counts).
fn decode(stream: Vec<u8>) -> Result<Vec<RecordBatch>, BadOutput> {
    let mut decoder = StreamDecoder::new();
    let mut bytes = Buffer::from_vec(stream);
    let mut batches = Vec::new();
    let words = |error| BadOutput::new(format!("answered an Arrow IPC stream that cannot be read: {error}"));
    while !bytes.is_empty() {
        batches.extend(decoder.decode(&mut bytes).map_err(words)?);
    }
    decoder.finish().map_err(words)?;
    Ok(batches)
}

/// Refuses dictionaries that unpack to more than the cap; all other types cost their bytes on the wire.
fn check_unpacked_bytes(batches: &[RecordBatch], caps: Caps) -> Result<(), BadOutput> {
    let columns = batches.iter().flat_map(RecordBatch::columns);
    let unpacked: usize = columns.map(|column| unpacked_bytes(column)).fold(0, usize::saturating_add);
    if unpacked > caps.bytes { Err(too_many_bytes(caps)) } else { Ok(()) }
}

/// Bytes that the dictionaries in an array unpack to.
fn unpacked_bytes(array: &dyn Array) -> usize {
    match array.data_type() {
        DataType::Dictionary(..) => {
            let dictionary = array.as_any_dictionary();
            if dictionary.values().is_empty() {
                return 0;
            }
            let lengths = value_lengths(dictionary.values());
            let keys = dictionary.normalized_keys();
            keys.iter()
                .enumerate()
                .filter(|(row, _)| array.is_valid(*row))
                .filter_map(|(_, key)| lengths.get(*key))
                .fold(0, |sum: usize, length| sum.saturating_add(*length))
        }
        DataType::Struct(_) => array.as_struct().columns().iter().map(|child| unpacked_bytes(child)).sum(),
        DataType::List(_) => unpacked_bytes(array.as_list::<i32>().values()),
        DataType::LargeList(_) => unpacked_bytes(array.as_list::<i64>().values()),
        DataType::FixedSizeList(..) => unpacked_bytes(array.as_fixed_size_list().values()),
        DataType::Map(..) => array.as_map().entries().columns().iter().map(|child| unpacked_bytes(child)).sum(),
        _ => 0,
    }
}

/// The length of each string or byte string.
fn value_lengths(values: &dyn Array) -> Vec<usize> {
    let lengths = |row: usize| match values.data_type() {
        DataType::Utf8 => values.as_string::<i32>().value(row).len(),
        DataType::LargeUtf8 => values.as_string::<i64>().value(row).len(),
        DataType::Binary => values.as_binary::<i32>().value(row).len(),
        DataType::LargeBinary => values.as_binary::<i64>().value(row).len(),
        _ => 0,
    };
    (0..values.len()).map(lengths).collect()
}
