//! Records of Arrow IPC: each value is a stream or a file with any number of record batches.
//!
//! A producer is trusted with nothing: its bytes are read by the rules of [`crate::ipc`], and a record that breaks one is
//! refused alone. A record's rows go on together or not at all.

use super::{
    Decoded,
    cells::{BATCH_BYTES_MAX, RECORD_BYTES_MAX, batch_too_large, too_large},
    fault::Fault,
    parts::Parts,
    shape::Shape,
    typed::{Part, Source, TypedDecoder},
};
use crate::{
    batch::Envelope,
    ipc::{self, Caps, Refused, Writer},
};

/// Most rows of one record; as many as `source.batch_size` may be.
const ROWS_MAX: usize = 1_000_000;

/// Decodes the records of a batch.
pub(super) fn decode(typed: &mut TypedDecoder, shape: &mut Shape, envelope: &Envelope) -> Decoded {
    let mut room = BATCH_BYTES_MAX;
    let parts = Parts::read(shape, envelope, |number, value, parts| {
        let batches = read(value, &mut room)?;
        parts.extend(batches.into_iter().map(|rows| Part { rows, source: Source::Record(number) }));
        Ok(())
    });
    parts.decode(typed, shape, envelope)
}

/// The record batches of one record; takes their bytes from `room`.
fn read(value: &[u8], room: &mut usize) -> Result<Vec<arrow_array::RecordBatch>, Fault> {
    let bytes = RECORD_BYTES_MAX.min(*room);
    let caps = Caps { rows: ROWS_MAX, bytes, logical_bytes: bytes };
    let stream = ipc::plain_stream(value, caps).map_err(|refused| words(refused, caps))?;
    *room = room.saturating_sub(stream.len());
    let bytes = caps.bytes.min(*room).max(stream.len());
    let caps = Caps { bytes, logical_bytes: bytes, ..caps };
    let batches = ipc::read_rows::<Refused>(stream, Writer::Producer, caps, |_| Ok(()));
    let batches = batches.map_err(|refused| words(refused, caps))?;
    *room = room.saturating_sub(ipc::unpacked_bytes(&batches));
    Ok(batches)
}

/// A refusal as a fault.
fn words(refused: Refused, caps: Caps) -> Fault {
    match refused {
        Refused::Words(words) => Fault { code: "bad-arrow", message: format!("expected Arrow IPC, found {words}") },
        Refused::Type { .. } => Fault { code: "unsupported-type", message: refused.to_string() },
        Refused::TooManyRows(_) => Fault { code: "too-many-rows", message: format!("the record has {refused}") },
        Refused::TooManyBytes(_) | Refused::TooManyLogicalBytes(_) if caps.bytes < RECORD_BYTES_MAX => {
            batch_too_large()
        }
        Refused::TooManyBytes(_) | Refused::TooManyLogicalBytes(_) => too_large(),
    }
}
