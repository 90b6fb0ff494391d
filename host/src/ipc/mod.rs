//! Reads Arrow IPC that somebody else wrote: a plugin, a producer, a file.
//!
//! Comes in: bytes of any content. Goes out: a schema, or record batches that were validated in full. Promises: nothing in
//! the bytes can panic, abort or make the host spend more than in proportion to their number and to the caps. The message
//! headers are checked here before `arrow_ipc` sees them (it slices buffers by unchecked numbers and trusts declared
//! lengths); compressed bodies are unpacked here, each buffer no further than it declares and all of them no further than
//! the cap; what is decoded then is bounded. `catch_unwind` stands behind as a second line.
//!
//! `check` reads a whole plain stream, `walk` holds the numbers of one header against its body, `types` is the closed list
//! of types, `framing` takes the stream out of a file and unpacks it, `reader` reads message by message from a file.

use arrow_schema::DataType;

mod check;
mod framing;
mod reader;
#[cfg(test)]
mod tests;
mod types;
mod walk;

pub use check::{read_rows, read_schema, unpacked_bytes};
pub use framing::{FILE_MAGIC, is_ipc, plain_stream};
pub use reader::{BatchReader, ReadError};
pub use types::{check_schema, fixed_width};

/// What one stream may hold.
#[derive(Clone, Copy, Debug)]
pub struct Caps {
    /// Rows of all batches together.
    pub rows: usize,
    /// Bytes as sent, and as unpacked where they are compressed.
    pub bytes: usize,
    /// Bytes that dictionaries and views stand for.
    pub logical_bytes: usize,
}

/// Who wrote a stream, which decides what it may hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Writer {
    /// A plugin: what our SDKs write.
    Plugin,
    /// A producer of records or files: also views, columns of type null, dictionaries of numbers, and dictionaries that are
    /// sent anew in the middle of a stream.
    Producer,
}

/// Why a stream is refused; the words are a noun that follows a verb such as "answered".
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// What is wrong with it.
    #[error("{0}")]
    Words(String),
    /// A type that is not on the list.
    #[error("column `{column}` of type {data_type}, which is not supported")]
    Type {
        /// The column.
        column: String,
        /// Its type.
        data_type: DataType,
    },
    /// More rows than the cap.
    #[error("more than {0} rows")]
    TooManyRows(usize),
    /// More bytes than the cap.
    #[error("more than {0} bytes")]
    TooManyBytes(usize),
    /// Dictionaries or views that stand for more bytes than the cap.
    #[error("more than {0} bytes, with dictionaries and views unpacked")]
    TooManyLogicalBytes(usize),
}

impl Refused {
    /// What is wrong, in words.
    fn new(message: impl Into<String>) -> Self {
        Self::Words(message.into())
    }
}
