//! Avro files: several records behind the schema that they were written with. Here each is the value of one record of the source.
//!
//! The format is "Object Container Files" of Avro's specification: a mark, a map with the schema and the codec, then blocks, each with a
//! count, a length, bytes, and a second mark that the file has chosen.

use std::io::Read as _;

use flate2::read::DeflateDecoder;

use super::{
    super::{
        cells::{Column, Room},
        fault::Fault,
    },
    read::{self, Values, bad},
    schema::Node,
};

/// What a file begins with. A record behind a schema's number begins with a zero.
const MARK: &[u8] = b"Obj\x01";

/// Most bytes of one block, unpacked: what a record may have at most.
const BLOCK_BYTES_MAX: u64 = 256 << 20;

/// Most entries of the map at the beginning.
const ENTRIES_MAX: u64 = 1_000;

/// A file whose head is read.
#[derive(Debug)]
pub(super) struct Container<'a> {
    /// The schema's text.
    pub(super) schema: &'a str,
    /// How blocks are packed.
    codec: Codec,
    /// What stands behind each block.
    sync: &'a [u8],
    /// The blocks.
    blocks: Values<'a>,
}

/// How blocks are packed.
#[derive(Clone, Copy, Debug)]
enum Codec {
    /// Not at all.
    Null,
    /// Deflate without a head.
    Deflate,
    /// Zstandard.
    Zstandard,
}

/// Whether a value is such a file.
pub(super) fn is_container(value: &[u8]) -> bool {
    value.starts_with(MARK)
}

impl<'a> Container<'a> {
    /// Reads the head.
    pub(super) fn open(value: &'a [u8]) -> Result<Self, Fault> {
        let mut bytes = Values::new(value);
        bytes.0.take(MARK.len())?;
        let (mut schema, mut codec, mut entries) = (None, &b"null"[..], 0);
        loop {
            let count = bytes.count()?;
            entries += count;
            if entries > ENTRIES_MAX {
                return Err(bad("more than a thousand entries at its beginning"));
            }
            if count == 0 {
                break;
            }
            for _ in 0..count {
                let (key, entry) = (bytes.sized()?, bytes.sized()?);
                match key {
                    b"avro.schema" => schema = Some(entry),
                    b"avro.codec" => codec = entry,
                    _ => {}
                }
            }
        }
        let schema = schema.ok_or_else(|| bad("a file without a schema"))?;
        let schema = std::str::from_utf8(schema).map_err(|_| bad("a schema that is not UTF-8"))?;
        let codec = match codec {
            b"null" | b"" => Codec::Null,
            b"deflate" => Codec::Deflate,
            b"zstandard" => Codec::Zstandard,
            other => {
                let message = format!(
                    "the codec {:?}; those that are read are null, deflate and zstandard",
                    super::super::fault::excerpt(&String::from_utf8_lossy(other))
                );
                return Err(Fault { code: "unsupported-codec", message });
            }
        };
        let sync = bytes.0.take(16)?;
        Ok(Self { schema, codec, sync, blocks: bytes })
    }

    /// Reads all records into rows.
    pub(super) fn read(mut self, node: &Node, rows: &mut Column, room: &mut Room) -> Result<(), Fault> {
        while !self.blocks.0.is_empty() {
            let count = self.blocks.long()?;
            let packed = self.blocks.sized()?;
            let unpacked = self.codec.unpack(packed)?;
            let mut bytes = Values::new(unpacked.as_deref().unwrap_or(packed));
            let count = u64::try_from(count).map_err(|_| bad(&format!("a block of {count} records")))?;
            for _ in 0..count {
                read::value(node, &mut bytes, rows, room)?;
            }
            if !bytes.0.is_empty() {
                return Err(bad(&format!("{} bytes behind the records of a block", bytes.0.rest().len())));
            }
            if self.blocks.0.take(self.sync.len())? != self.sync {
                return Err(bad("a block that does not end with the file's mark"));
            }
        }
        Ok(())
    }
}

impl Codec {
    /// The bytes of a block; `None` where they are as they are.
    fn unpack(self, packed: &[u8]) -> Result<Option<Vec<u8>>, Fault> {
        let mut unpacked = Vec::new();
        let read = match self {
            Self::Null => return Ok(None),
            Self::Deflate => DeflateDecoder::new(packed).take(BLOCK_BYTES_MAX + 1).read_to_end(&mut unpacked),
            Self::Zstandard => zstd::stream::read::Decoder::new(packed)
                .and_then(|decoder| decoder.take(BLOCK_BYTES_MAX + 1).read_to_end(&mut unpacked)),
        };
        read.map_err(|error| bad(&format!("a block that cannot be unpacked: {error}")))?;
        if unpacked.len() as u64 > BLOCK_BYTES_MAX {
            let message = format!("a block unpacks to more than {BLOCK_BYTES_MAX} bytes");
            return Err(Fault { code: "too-large", message });
        }
        Ok(Some(unpacked))
    }
}
