//! Reads a plain stream as a whole: the header check first, then `arrow_ipc`, then the caps once more.

use std::{
    collections::HashSet,
    panic::{AssertUnwindSafe, catch_unwind},
};

use arrow_array::{Array, RecordBatch, cast::AsArray};
use arrow_buffer::Buffer;
use arrow_ipc::{Message, MessageHeader, MetadataVersion, convert::try_fb_to_schema, reader::StreamDecoder};
use arrow_schema::{DataType, Schema};

use super::{
    Caps, Refused, Writer,
    types::{check_schema, fixed_width},
    walk::{Body, walk_dictionary, walk_rows},
};

/// Begins every message of the stream format.
pub(super) const CONTINUATION: [u8; 4] = [0xff; 4];
/// Ends a stream; a stream may also just end.
pub(super) const END_OF_STREAM: [u8; 8] = [0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0];
/// Bytes of one message's header; a schema of 10,000 columns has less.
pub(super) const HEADER_BYTES_MAX: usize = 1 << 20;
/// Record batches in one stream; a plugin answers one or a few.
const BATCHES_MAX: usize = 1024;

/// Reads a stream that holds only a schema, as a plugin answers one. Columns of `input` may be in it, whatever their types.
pub fn read_schema(stream: &[u8], input: &Schema) -> Result<Schema, Refused> {
    let (schema, rest) = take_schema(stream)?;
    check_schema(&schema, Writer::Plugin, Some(input))?;
    if rest.is_empty() || rest == END_OF_STREAM {
        Ok(schema)
    } else {
        Err(Refused::new("more than a schema as its output schema"))
    }
}

/// Reads a plain stream of rows, after `accept` has agreed to its schema.
pub fn read_rows<E: From<Refused>>(
    mut stream: Vec<u8>,
    writer: Writer,
    caps: Caps,
    accept: impl FnOnce(&Schema) -> Result<(), E>,
) -> Result<Vec<RecordBatch>, E> {
    if stream.len() > caps.bytes {
        return Err(Refused::TooManyBytes(caps.bytes).into());
    }
    let (schema, rest) = take_schema(&stream)?;
    check_schema(&schema, writer, None)?;
    accept(&schema)?;
    check_messages(schema, rest, writer, caps)?;
    if !stream.ends_with(&END_OF_STREAM) {
        // arrow_ipc leaves a last message without a body undone until more bytes come.
        stream.extend(END_OF_STREAM);
    }
    let batches = guarded(|| {
        let batches = decode(stream)?;
        check_unpacked_bytes(&batches, caps)?;
        Ok(batches)
    })?;
    Ok(batches)
}

/// The second line: a panic of `arrow_ipc` becomes a refusal.
pub(super) fn guarded<T>(read: impl FnOnce() -> Result<T, Refused>) -> Result<T, Refused> {
    catch_unwind(AssertUnwindSafe(read))
        .unwrap_or_else(|_| Err(Refused::new("an Arrow IPC stream that the decoder cannot cope with")))
}

/// Takes the schema message off the front of a stream.
pub(super) fn take_schema(stream: &[u8]) -> Result<(Schema, &[u8]), Refused> {
    let Some((message, rest)) = take_message(stream)? else {
        return Err(Refused::new("an Arrow IPC stream without a schema"));
    };
    let Some(header) = message.header_as_schema() else {
        return Err(Refused::new("an Arrow IPC stream that does not begin with a schema"));
    };
    if message.bodyLength() != 0 {
        return Err(Refused::new("a schema message with a body"));
    }
    if header.endianness() != arrow_ipc::Endianness::Little {
        return Err(Refused::new("an Arrow IPC stream that is not little-endian"));
    }
    let words = |error| Refused::new(format!("an Arrow schema that cannot be read: {error}"));
    let schema = catch_unwind(AssertUnwindSafe(|| try_fb_to_schema(header)))
        .map_err(|_| Refused::new("an Arrow schema that cannot be read"))?
        .map_err(words)?;
    Ok((schema, rest))
}

/// Takes one message header off the front; `None` at the end of the stream. The body is left in front of the rest.
pub(super) fn take_message(stream: &[u8]) -> Result<Option<(Message<'_>, &[u8])>, Refused> {
    if stream.is_empty() {
        return Ok(None);
    }
    let truncated = || Refused::new("an Arrow IPC stream that is cut short");
    let (mark, rest) = stream.split_at_checked(4).ok_or_else(truncated)?;
    if mark != CONTINUATION {
        return Err(Refused::new("bytes that are not an Arrow IPC stream"));
    }
    let (length, rest) = rest.split_first_chunk::<4>().ok_or_else(truncated)?;
    let length = u32::from_le_bytes(*length) as usize;
    if length == 0 {
        return if rest.is_empty() {
            Ok(None)
        } else {
            Err(Refused::new("bytes behind the end of an Arrow IPC stream"))
        };
    }
    if length > HEADER_BYTES_MAX || !length.is_multiple_of(8) {
        return Err(Refused::new(format!("an Arrow IPC header of {length} bytes")));
    }
    let (header, rest) = rest.split_at_checked(length).ok_or_else(truncated)?;
    let message = arrow_ipc::root_as_message(header)
        .map_err(|error| Refused::new(format!("an Arrow IPC header that cannot be read: {error}")))?;
    if message.version() != MetadataVersion::V5 {
        return Err(Refused::new("an Arrow IPC stream of an old version; V5 is needed"));
    }
    Ok(Some((message, rest)))
}

/// Checks all messages behind the schema.
fn check_messages(schema: Schema, mut rest: &[u8], writer: Writer, caps: Caps) -> Result<(), Refused> {
    let mut checker = Checker::new(schema, writer, caps);
    while let Some((message, behind)) = take_message(rest)? {
        let (body, behind) = take_body(&message, behind)?;
        checker.check(&message, body)?;
        if checker.batches > BATCHES_MAX {
            return Err(Refused::new(format!("more than {BATCHES_MAX} record batches in one stream")));
        }
        rest = behind;
    }
    Ok(())
}

/// Takes the body of a message off the front.
pub(super) fn take_body<'a>(message: &Message<'_>, behind: &'a [u8]) -> Result<(&'a [u8], &'a [u8]), Refused> {
    usize::try_from(message.bodyLength())
        .ok()
        .and_then(|length| behind.split_at_checked(length))
        .ok_or_else(|| Refused::new("an Arrow IPC stream that is cut short"))
}

/// What has to be remembered from message to message.
#[derive(Debug)]
pub(super) struct Checker {
    /// The schema of the stream.
    schema: Schema,
    /// Who wrote it.
    writer: Writer,
    /// Most rows of all batches, and most bytes that their views point to.
    caps: Caps,
    /// Rows so far.
    rows: usize,
    /// Bytes that views pointed to so far.
    view_bytes: usize,
    /// Record batches so far.
    batches: usize,
    /// Dictionaries so far.
    dictionaries: HashSet<i64>,
}

impl Checker {
    /// Before the first message behind the schema.
    pub(super) fn new(schema: Schema, writer: Writer, caps: Caps) -> Self {
        Self { schema, writer, caps, rows: 0, view_bytes: 0, batches: 0, dictionaries: HashSet::new() }
    }

    /// From here on the caps are those of a new stream: its batches are gone by now.
    pub(super) fn forget(&mut self) {
        (self.rows, self.view_bytes) = (0, 0);
    }

    /// The schema of the stream.
    pub(super) fn schema(&self) -> &Schema {
        &self.schema
    }

    /// Checks one message that is not compressed.
    pub(super) fn check(&mut self, message: &Message<'_>, body: &[u8]) -> Result<(), Refused> {
        match message.header_type() {
            MessageHeader::RecordBatch => {
                let header = message.header_as_record_batch().ok_or_else(unreadable)?;
                let room = self.caps.logical_bytes - self.view_bytes;
                let weight = walk_rows(&self.schema, &Body::new(&header, body)?, room)?;
                self.rows = self.rows.saturating_add(weight.rows);
                self.view_bytes += weight.view_bytes;
                self.batches += 1;
            }
            MessageHeader::DictionaryBatch => {
                let header = message.header_as_dictionary_batch().ok_or_else(unreadable)?;
                // What was said of a dictionary again costs its own bytes; a delta costs those of all before it, too.
                let is_again = !self.dictionaries.insert(header.id());
                if header.isDelta() || (is_again && self.writer == Writer::Plugin) {
                    return Err(Refused::new("a dictionary twice or in parts"));
                }
                let data = header.data().ok_or_else(unreadable)?;
                walk_dictionary(&self.schema, header.id(), &Body::new(&data, body)?)?;
            }
            other => return Err(Refused::new(format!("an Arrow IPC message of type {other:?}"))),
        }
        if self.rows > self.caps.rows { Err(Refused::TooManyRows(self.caps.rows)) } else { Ok(()) }
    }
}

/// The words for a header whose type tag lies.
pub(super) fn unreadable() -> Refused {
    Refused::new("an Arrow IPC header that cannot be read")
}

/// Decodes a checked stream. `arrow_ipc` validates every array in full here (UTF-8, offsets, keys, null counts).
fn decode(stream: Vec<u8>) -> Result<Vec<RecordBatch>, Refused> {
    let mut decoder = StreamDecoder::new();
    let mut bytes = Buffer::from_vec(stream);
    let mut batches = Vec::new();
    let words = |error| Refused::new(format!("an Arrow IPC stream that cannot be read: {error}"));
    while !bytes.is_empty() {
        batches.extend(decoder.decode(&mut bytes).map_err(words)?);
    }
    decoder.finish().map_err(words)?;
    Ok(batches)
}

/// Refuses dictionaries that unpack to more than the cap; all other types cost their bytes on the wire, or were counted.
pub(super) fn check_unpacked_bytes(batches: &[RecordBatch], caps: Caps) -> Result<(), Refused> {
    if unpacked_bytes(batches) > caps.logical_bytes {
        return Err(Refused::TooManyLogicalBytes(caps.logical_bytes));
    }
    Ok(())
}

/// Bytes that dictionaries and views of these rows stand for, beyond those that they take.
#[must_use]
pub fn unpacked_bytes(batches: &[RecordBatch]) -> usize {
    let columns = batches.iter().flat_map(RecordBatch::columns);
    columns.map(|column| unpacked_bytes_of(column)).fold(0, usize::saturating_add)
}

/// The same for one array.
fn unpacked_bytes_of(array: &dyn Array) -> usize {
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
        DataType::Utf8View => array.as_string_view().views().iter().map(view_length).fold(0, usize::saturating_add),
        DataType::BinaryView => array.as_binary_view().views().iter().map(view_length).fold(0, usize::saturating_add),
        DataType::Struct(_) => array.as_struct().columns().iter().map(|child| unpacked_bytes_of(child)).sum(),
        DataType::List(_) => unpacked_bytes_of(array.as_list::<i32>().values()),
        DataType::LargeList(_) => unpacked_bytes_of(array.as_list::<i64>().values()),
        DataType::FixedSizeList(..) => unpacked_bytes_of(array.as_fixed_size_list().values()),
        DataType::Map(..) => array.as_map().entries().columns().iter().map(|child| unpacked_bytes_of(child)).sum(),
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
        flat => fixed_width(flat).unwrap_or(0),
    };
    (0..values.len()).map(lengths).collect()
}

/// The length of what a view points to: its low half word.
fn view_length(view: &u128) -> usize {
    usize::try_from(*view & u128::from(u32::MAX)).unwrap_or(usize::MAX)
}
