//! What a file holds, by its first bytes: its name may say anything.
//!
//! Compressed input is unpacked as it is read, so however far it unpacks, no more of it is in memory than a line, a record
//! batch, or a buffer.

use std::{
    fs::File,
    io::{self, BufRead, BufReader, Read},
};

use flate2::bufread::MultiGzDecoder;

use crate::{error::PipelineError, ipc};

/// What is read of a file at once.
const BUFFER_BYTES: usize = 1 << 20;

/// Most memory that a zstd stream may ask for, as a power of two: what `zstd` itself takes without being told.
const WINDOW_LOG_MAX: u32 = 27;

/// The first bytes of each kind.
const GZIP: &[u8] = &[0x1f, 0x8b];
/// A zstd frame.
const ZSTD: &[u8] = &[0x28, 0xb5, 0x2f, 0xfd];
/// The rest of the mark of a frame that zstd skips; before it comes 0x50 to 0x5f.
const ZSTD_SKIPPABLE: &[u8] = &[0x2a, 0x4d, 0x18];
/// A Parquet file.
const PARQUET: &[u8] = b"PAR1";
/// A Parquet file whose footer is encrypted.
const PARQUET_ENCRYPTED: &[u8] = b"PARE";
/// A byte order mark.
pub(super) const BYTE_ORDER_MARK: &[u8] = &[0xef, 0xbb, 0xbf];

/// Bytes to be read, unpacked.
pub(super) type Input = BufReader<Box<dyn Read + Send>>;

/// What a file holds.
pub(super) enum Content {
    /// Lines of records.
    Lines(Input),
    /// Arrow IPC, as a stream or a file.
    Arrow(Input),
    /// Parquet, which is read from its end.
    Parquet(File),
}

/// Opens a file; an error names it.
pub(super) fn open(path: &str) -> Result<Content, PipelineError> {
    let failed = |error: io::Error| PipelineError::stop(format!("{path}: the file cannot be read")).because(error);
    let mut file = BufReader::with_capacity(BUFFER_BYTES, File::open(path).map_err(failed)?);
    let start = file.fill_buf().map_err(failed)?;
    if start.starts_with(PARQUET) || start.starts_with(PARQUET_ENCRYPTED) {
        return File::open(path).map(Content::Parquet).map_err(failed);
    }
    look(file).map_err(failed)
}

/// Unpacks input and looks what it is.
pub(super) fn look(mut packed: impl BufRead + Send + 'static) -> io::Result<Content> {
    let start = packed.fill_buf()?;
    let is_skippable = start.first().is_some_and(|first| first & 0xf0 == 0x50)
        && start.get(1..).is_some_and(|rest| rest.starts_with(ZSTD_SKIPPABLE));
    let plain: Box<dyn Read + Send> = if start.starts_with(GZIP) {
        Box::new(MultiGzDecoder::new(packed))
    } else if start.starts_with(ZSTD) || is_skippable {
        let mut decoder = zstd::stream::read::Decoder::with_buffer(packed)?;
        decoder.window_log_max(WINDOW_LOG_MAX)?;
        Box::new(decoder)
    } else {
        Box::new(packed)
    };
    let mut input = BufReader::with_capacity(BUFFER_BYTES, plain);
    let start = input.fill_buf()?;
    if start.starts_with(PARQUET) {
        let message =
            "a Parquet file is read from its end, which is not possible here: give it as a file, and unpacked";
        return Err(io::Error::new(io::ErrorKind::Unsupported, message));
    }
    Ok(if ipc::is_ipc(start) { Content::Arrow(input) } else { Content::Lines(input) })
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    /// What bytes are, and what they hold.
    fn content(bytes: Vec<u8>) -> (&'static str, Vec<u8>) {
        let read = |mut input: Input| {
            let mut all = Vec::new();
            input.read_to_end(&mut all).unwrap();
            all
        };
        match look(io::Cursor::new(bytes)).unwrap() {
            Content::Lines(input) => ("lines", read(input)),
            Content::Arrow(input) => ("arrow", read(input)),
            Content::Parquet(_) => ("parquet", Vec::new()),
        }
    }

    /// A member of a gzip file.
    fn gzip(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }

    #[test]
    fn the_first_bytes_tell_what_it_is() {
        let zstd = |bytes: &[u8]| zstd::stream::encode_all(bytes, 1).unwrap();
        assert_eq!(content(b"{}\n".to_vec()), ("lines", b"{}\n".to_vec()));
        assert_eq!(content(Vec::new()), ("lines", Vec::new()));
        assert_eq!(content(gzip(b"{}\n")), ("lines", b"{}\n".to_vec()));
        assert_eq!(content([gzip(b"1\n"), gzip(b"2\n")].concat()), ("lines", b"1\n2\n".to_vec()), "two members");
        assert_eq!(content([zstd(b"1\n"), zstd(b"2\n")].concat()), ("lines", b"1\n2\n".to_vec()), "two frames");
        let skipped = [&[0x5a, 0x2a, 0x4d, 0x18, 1, 0, 0, 0, 9], zstd(b"1\n").as_slice()].concat();
        assert_eq!(content(skipped), ("lines", b"1\n".to_vec()), "a frame to skip");
        assert_eq!(content(b"\xff\xff\xff\xffrest".to_vec()).0, "arrow");
        assert_eq!(content(zstd(b"ARROW1\0\0")).0, "arrow");
        let message = look(io::Cursor::new(gzip(b"PAR1"))).err().unwrap().to_string();
        assert!(message.starts_with("a Parquet file is read from its end"), "{message}");
    }
}
