//! Out of every form in which Arrow IPC is written, a plain stream: no file around it, no compression inside.
//!
//! A file is a stream between its mark and its footer, so the footer is not read: what it says is in the stream too.
//! Compressed buffers declare how long they are unpacked. They are unpacked step by step and no further than that, so a
//! lie costs what is really there.

use std::io::Read;

use arrow_ipc::{
    Buffer, CompressionType, DictionaryBatchBuilder, FieldNode, Message, MessageBuilder, MessageHeader,
    MetadataVersion, RecordBatch as Header, RecordBatchBuilder,
};
use flatbuffers::FlatBufferBuilder;

use super::{
    Caps, Refused,
    check::{CONTINUATION, END_OF_STREAM, take_body, take_message, unreadable},
};

/// Begins and ends the file format.
pub const FILE_MAGIC: &[u8; 6] = b"ARROW1";

/// Where the stream begins in a file.
pub(super) const FILE_HEADER_BYTES: usize = 8;

/// Most zeros between the mark and the stream: buffers are aligned to 64 bytes at most.
pub(super) const FILE_PADDING_MAX: usize = 64;

/// Whether bytes begin as a stream or a file does.
#[must_use]
pub fn is_ipc(start: &[u8]) -> bool {
    start.starts_with(FILE_MAGIC) || start.starts_with(&CONTINUATION)
}

/// The same messages as a plain stream.
pub fn plain_stream(bytes: &[u8], caps: Caps) -> Result<Vec<u8>, Refused> {
    if bytes.is_empty() {
        return Err(Refused::new("no bytes, where an Arrow IPC stream has a schema at least"));
    }
    let mut rest = stream_in(bytes)?;
    let mut plain = Vec::with_capacity(rest.len() + END_OF_STREAM.len());
    while let Some((message, behind)) = take_message(rest)? {
        let (body, next) = take_body(&message, behind)?;
        if is_compressed(&message) {
            let room = caps.bytes.saturating_sub(plain.len());
            unpack(&message, body, room, &mut plain)?;
        } else {
            let length = rest.len() - next.len();
            plain.extend_from_slice(rest.get(..length).unwrap_or_default());
        }
        if plain.len() > caps.bytes {
            return Err(Refused::TooManyBytes(caps.bytes));
        }
        rest = next;
    }
    plain.extend(END_OF_STREAM);
    Ok(plain)
}

/// The stream in a file; what is no file, as it is.
fn stream_in(bytes: &[u8]) -> Result<&[u8], Refused> {
    if !bytes.starts_with(FILE_MAGIC) {
        return Ok(bytes);
    }
    let cut = || Refused::new("an Arrow IPC file that is cut short");
    let inner = bytes.get(FILE_HEADER_BYTES..).and_then(|inner| inner.strip_suffix(FILE_MAGIC)).ok_or_else(cut)?;
    let (inner, footer) = inner.split_last_chunk::<4>().ok_or_else(cut)?;
    let end = inner.len().checked_sub(u32::from_le_bytes(*footer) as usize).ok_or_else(cut)?;
    let inner = inner.get(..end).ok_or_else(cut)?;
    // Writers fill up to where their buffers are aligned.
    let padding = inner.iter().take_while(|byte| **byte == 0).count().min(FILE_PADDING_MAX);
    inner.get(padding..).ok_or_else(cut)
}

/// The numbers of a message with rows or values, and its dictionary.
fn header<'a>(message: &Message<'a>) -> Option<(Header<'a>, Option<(i64, bool)>)> {
    match message.header_type() {
        MessageHeader::RecordBatch => Some((message.header_as_record_batch()?, None)),
        MessageHeader::DictionaryBatch => {
            let dictionary = message.header_as_dictionary_batch()?;
            Some((dictionary.data()?, Some((dictionary.id(), dictionary.isDelta()))))
        }
        _ => None,
    }
}

/// Whether the buffers of a message are compressed.
pub(super) fn is_compressed(message: &Message<'_>) -> bool {
    header(message).is_some_and(|(header, _)| header.compression().is_some())
}

/// Appends a compressed message as a plain one, of at most so many bytes.
pub(super) fn unpack(message: &Message<'_>, body: &[u8], room: usize, out: &mut Vec<u8>) -> Result<(), Refused> {
    let (header, dictionary) = header(message).ok_or_else(unreadable)?;
    let codec = header.compression().map(|compression| compression.codec()).ok_or_else(unreadable)?;
    let (mut plain, mut buffers) = (Vec::new(), Vec::new());
    for buffer in header.buffers().into_iter().flatten() {
        let packed = usize::try_from(buffer.offset()).ok().zip(usize::try_from(buffer.length()).ok());
        let packed = packed.and_then(|(offset, length)| body.get(offset..offset.checked_add(length)?));
        let packed =
            packed.ok_or_else(|| Refused::new("compressed Arrow buffers that lie outside of their message"))?;
        let start = plain.len();
        unpack_buffer(codec, packed, room, &mut plain)?;
        buffers.push(Buffer::new(number(start)?, number(plain.len() - start)?));
        plain.resize(plain.len().next_multiple_of(8), 0);
    }
    let nodes: Vec<FieldNode> = header.nodes().into_iter().flatten().copied().collect();
    let view_buffers: Vec<i64> = header.variadicBufferCounts().into_iter().flatten().collect();
    let numbers = Numbers { rows: header.length(), nodes, buffers, view_buffers };
    append(&numbers, dictionary, &plain, out)
}

/// Appends the bytes of one buffer.
fn unpack_buffer(codec: CompressionType, packed: &[u8], room: usize, plain: &mut Vec<u8>) -> Result<(), Refused> {
    if packed.is_empty() {
        return Ok(());
    }
    let (declared, packed) = packed
        .split_first_chunk::<8>()
        .ok_or_else(|| Refused::new("a compressed Arrow buffer that is too short to tell its length"))?;
    let declared = i64::from_le_bytes(*declared);
    // -1: not worth compressing, so it is there as it is.
    let length = if declared == -1 { Ok(packed.len()) } else { usize::try_from(declared) };
    let length = length.map_err(|_| Refused::new(format!("a compressed Arrow buffer of {declared} bytes")))?;
    if plain.len().checked_add(length).is_none_or(|end| end > room) {
        return Err(Refused::TooManyBytes(room));
    }
    if declared == -1 {
        plain.extend_from_slice(packed);
        return Ok(());
    }
    // One byte more than declared, to see that there is none.
    let limit = length as u64 + 1;
    let read = match codec {
        CompressionType::ZSTD => {
            zstd::stream::read::Decoder::with_buffer(packed).and_then(|input| input.take(limit).read_to_end(plain))
        }
        CompressionType::LZ4_FRAME => lz4_flex::frame::FrameDecoder::new(packed).take(limit).read_to_end(plain),
        other => return Err(Refused::new(format!("Arrow data compressed with {other:?}"))),
    };
    match read {
        Ok(read) if read == length => Ok(()),
        Ok(_) => Err(Refused::new("a compressed Arrow buffer that is not as long as it says")),
        Err(error) => Err(Refused::new(format!("a compressed Arrow buffer that cannot be unpacked: {error}"))),
    }
}

/// What a message says of its body.
struct Numbers {
    /// Rows or values.
    rows: i64,
    /// Each array.
    nodes: Vec<FieldNode>,
    /// Each buffer.
    buffers: Vec<Buffer>,
    /// For each array of views how many buffers it has beside its views.
    view_buffers: Vec<i64>,
}

/// Appends a message with these numbers and this body.
fn append(numbers: &Numbers, dictionary: Option<(i64, bool)>, body: &[u8], out: &mut Vec<u8>) -> Result<(), Refused> {
    let mut builder = FlatBufferBuilder::new();
    let nodes = builder.create_vector(&numbers.nodes);
    let buffers = builder.create_vector(&numbers.buffers);
    let view_buffers = builder.create_vector(&numbers.view_buffers);
    let mut batch = RecordBatchBuilder::new(&mut builder);
    batch.add_length(numbers.rows);
    batch.add_nodes(nodes);
    batch.add_buffers(buffers);
    batch.add_variadicBufferCounts(view_buffers);
    let batch = batch.finish();
    let (kind, header) = match dictionary {
        None => (MessageHeader::RecordBatch, batch.as_union_value()),
        Some((id, is_delta)) => {
            let mut dictionary = DictionaryBatchBuilder::new(&mut builder);
            dictionary.add_id(id);
            dictionary.add_data(batch);
            dictionary.add_isDelta(is_delta);
            (MessageHeader::DictionaryBatch, dictionary.finish().as_union_value())
        }
    };
    let mut message = MessageBuilder::new(&mut builder);
    message.add_version(MetadataVersion::V5);
    message.add_header_type(kind);
    message.add_header(header);
    message.add_bodyLength(number(body.len())?);
    let message = message.finish();
    builder.finish(message, None);
    let header = builder.finished_data();
    let length = header.len().next_multiple_of(8);
    let prefix = u32::try_from(length).map_err(|_| unreadable())?;
    out.extend(CONTINUATION);
    out.extend(prefix.to_le_bytes());
    out.extend_from_slice(header);
    out.resize(out.len() + length - header.len(), 0);
    out.extend_from_slice(body);
    Ok(())
}

/// A number as Arrow writes it.
fn number(count: usize) -> Result<i64, Refused> {
    i64::try_from(count).map_err(|_| unreadable())
}
