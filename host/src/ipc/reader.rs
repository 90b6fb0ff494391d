//! Reads a stream or a file message by message, with one record batch in memory at a time.

use std::{
    collections::VecDeque,
    io::{self, Read},
};

use arrow_array::RecordBatch;
use arrow_buffer::Buffer;
use arrow_ipc::{Message, MessageHeader, reader::StreamDecoder, root_as_message};
use arrow_schema::Schema;

use super::{
    Caps, Refused, Writer,
    check::{
        CONTINUATION, Checker, END_OF_STREAM, HEADER_BYTES_MAX, check_unpacked_bytes, guarded, take_body, take_message,
        take_schema,
    },
    framing::{FILE_HEADER_BYTES, FILE_MAGIC, FILE_PADDING_MAX, is_compressed, unpack},
    types::check_schema,
};

/// Longest footer of a file: it names every record batch, and 64 bytes for each of a million are as much.
const FOOTER_BYTES_MAX: u64 = 64 << 20;

/// Why the next batch cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The bytes do not come.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// The bytes are not what they should be.
    #[error("{0}")]
    Refused(#[from] Refused),
}

/// Record batches of a stream or a file, one after the other.
#[derive(Debug)]
pub struct BatchReader<R> {
    /// The bytes.
    input: R,
    /// Most bytes of one record batch.
    bytes_max: usize,
    /// Whether a footer follows the stream.
    is_file: bool,
    /// What was said so far.
    checker: Checker,
    /// Bytes to batches.
    decoder: StreamDecoder,
    /// Decoded and not yet asked for.
    waiting: VecDeque<RecordBatch>,
    /// Whether the stream has ended.
    is_over: bool,
}

impl<R: Read> BatchReader<R> {
    /// Reads up to the schema. A record batch of more than `bytes_max` bytes, as written or unpacked, will be refused.
    pub fn new(mut input: R, bytes_max: usize) -> Result<Self, ReadError> {
        let mut start = [0; FILE_HEADER_BYTES];
        let read = read_up_to(&mut input, &mut start)?;
        let is_file = start.starts_with(FILE_MAGIC);
        let mut message = start.get(..read).unwrap_or_default().to_vec();
        if is_file {
            message = skip_padding(&mut input)?;
        }
        if !read_message(&mut input, &mut message, bytes_max)? {
            return Err(Refused::new("no Arrow schema, where a stream begins with one").into());
        }
        let (schema, _) = take_schema(&message)?;
        check_schema(&schema, Writer::Producer, None)?;
        let mut reader = Self {
            input,
            bytes_max,
            is_file,
            checker: Checker::new(
                schema,
                Writer::Producer,
                Caps { rows: usize::MAX, bytes: bytes_max, logical_bytes: bytes_max },
            ),
            decoder: StreamDecoder::new(),
            waiting: VecDeque::new(),
            is_over: false,
        };
        reader.decode(message)?;
        Ok(reader)
    }

    /// The schema.
    pub fn schema(&self) -> &Schema {
        self.checker.schema()
    }

    /// The next record batch; `None` at the end.
    pub fn next_batch(&mut self) -> Result<Option<RecordBatch>, ReadError> {
        loop {
            if let Some(batch) = self.waiting.pop_front() {
                return Ok(Some(batch));
            }
            if self.is_over {
                return Ok(None);
            }
            let mut message = Vec::new();
            if read_message(&mut self.input, &mut message, self.bytes_max)? {
                let message = self.check(message)?;
                self.decode(message)?;
            } else {
                self.is_over = true;
                self.end(&message)?;
                // A last batch without rows has waited for more bytes.
                self.decode(END_OF_STREAM.to_vec())?;
            }
        }
    }

    /// Checks a message; its bytes without compression.
    fn check(&mut self, bytes: Vec<u8>) -> Result<Vec<u8>, Refused> {
        let mut unpacked = Vec::new();
        if let Some((message, behind)) = take_message(&bytes)? {
            let (body, _) = take_body(&message, behind)?;
            if is_compressed(&message) {
                unpack(&message, body, self.bytes_max, &mut unpacked)?;
            }
        }
        let bytes = if unpacked.is_empty() { bytes } else { unpacked };
        if let Some((message, behind)) = take_message(&bytes)? {
            if message.header_type() == MessageHeader::Schema {
                return Err(Refused::new("an Arrow IPC stream with a second schema"));
            }
            let (body, _) = take_body(&message, behind)?;
            self.checker.forget();
            self.checker.check(&message, body)?;
        }
        Ok(bytes)
    }

    /// Decodes checked bytes.
    fn decode(&mut self, bytes: Vec<u8>) -> Result<(), Refused> {
        let Self { decoder, waiting, bytes_max, .. } = self;
        let caps = Caps { rows: usize::MAX, bytes: *bytes_max, logical_bytes: *bytes_max };
        guarded(|| {
            let mut bytes = Buffer::from_vec(bytes);
            while !bytes.is_empty() {
                let words = |error| Refused::new(format!("an Arrow IPC stream that cannot be read: {error}"));
                if let Some(batch) = decoder.decode(&mut bytes).map_err(words)? {
                    check_unpacked_bytes(std::slice::from_ref(&batch), caps)?;
                    waiting.push_back(batch);
                }
            }
            Ok(())
        })
    }

    /// Sees that a file ends as a file does; `begun` is what was read of its footer already.
    fn end(&mut self, begun: &[u8]) -> Result<(), ReadError> {
        let mut rest = begun.to_vec();
        self.input.by_ref().take(FOOTER_BYTES_MAX).read_to_end(&mut rest)?;
        if self.is_file && !rest.ends_with(FILE_MAGIC) {
            return Err(Refused::new("an Arrow IPC file that is cut short").into());
        }
        if !self.is_file && !rest.is_empty() {
            return Err(Refused::new("bytes behind the end of an Arrow IPC stream").into());
        }
        Ok(())
    }
}

/// Passes over the zeros between the mark of a file and the stream; what was read of the stream.
fn skip_padding(input: &mut impl Read) -> Result<Vec<u8>, ReadError> {
    for _ in 0..=FILE_PADDING_MAX / 8 {
        let mut bytes = [0; 8];
        let read = read_up_to(input, &mut bytes)?;
        if read < bytes.len() || bytes != [0; 8] {
            return Ok(bytes.get(..read).unwrap_or_default().to_vec());
        }
    }
    Ok(Vec::new())
}

/// Reads one message with its body behind what `bytes` holds of it already; `false` at the end of the stream, with
/// what was read of what follows it in `bytes`.
fn read_message(input: &mut impl Read, bytes: &mut Vec<u8>, bytes_max: usize) -> Result<bool, ReadError> {
    let cut = || Refused::new("an Arrow IPC stream that is cut short");
    let mut prefix = [0; 8];
    let begun = bytes.len().min(prefix.len());
    if let (Some(to), Some(from)) = (prefix.get_mut(..begun), bytes.get(..begun)) {
        to.copy_from_slice(from);
    }
    let read = begun + read_up_to(input, prefix.get_mut(begun..).unwrap_or_default())?;
    *bytes = prefix.get(..read).unwrap_or_default().to_vec();
    if read == 0 || prefix == END_OF_STREAM {
        bytes.clear();
        return Ok(false);
    }
    if !prefix.starts_with(&CONTINUATION) {
        // The footer of a file whose writer leaves the end mark out, or no Arrow at all: the caller knows.
        return Ok(false);
    }
    let Some(length) = bytes.get(4..8).and_then(|length| length.try_into().ok()).map(u32::from_le_bytes) else {
        return Err(cut().into());
    };
    let length = length as usize;
    if length > HEADER_BYTES_MAX {
        return Err(Refused::new(format!("an Arrow IPC header of {length} bytes")).into());
    }
    extend(input, bytes, length)?;
    let body = {
        let header = bytes.get(8..).unwrap_or_default();
        let message: Message<'_> = root_as_message(header)
            .map_err(|error| Refused::new(format!("an Arrow IPC header that cannot be read: {error}")))?;
        usize::try_from(message.bodyLength()).map_err(|_| cut())?
    };
    if body > bytes_max {
        return Err(Refused::new(format!(
            "a record batch of {body} bytes; more than {bytes_max} do not fit the memory: write smaller record batches"
        ))
        .into());
    }
    extend(input, bytes, body)?;
    Ok(true)
}

/// Appends exactly so many bytes; memory grows as they come.
fn extend(input: &mut impl Read, bytes: &mut Vec<u8>, length: usize) -> Result<(), ReadError> {
    let read = input.take(length as u64).read_to_end(bytes)?;
    if read == length { Ok(()) } else { Err(Refused::new("an Arrow IPC stream that is cut short").into()) }
}

/// Fills a slice as far as there are bytes; how far.
fn read_up_to(input: &mut impl Read, bytes: &mut [u8]) -> io::Result<usize> {
    let mut filled = 0;
    while let Some(rest) = bytes.get_mut(filled..).filter(|rest| !rest.is_empty()) {
        match input.read(rest) {
            Ok(0) => break,
            Ok(read) => filled += read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(filled)
}
