//! The records of a batch as typed rows, read one by one: what Arrow, Avro and Protobuf have in common.

use super::{
    Decoded,
    fault::Fault,
    shape::Shape,
    tombstone::{self, Tombstone},
    typed::{Part, Source, TypedDecoder},
};
use crate::batch::Envelope;

/// What came of the values of a batch.
#[derive(Debug, Default)]
pub(super) struct Parts {
    /// Rows, and the records that they are of.
    pub(super) typed: Vec<Part>,
    /// Refused records and why.
    pub(super) refused: Vec<(u32, Fault)>,
    /// How many records without a value were passed over.
    skipped: u64,
}

impl Parts {
    /// Reads the value of each record; one without a value becomes what `source.on_tombstone` says.
    pub(super) fn read(
        shape: &Shape,
        envelope: &Envelope,
        mut read: impl FnMut(u32, &[u8], &mut Vec<Part>) -> Result<(), Fault>,
    ) -> Self {
        let Self { mut typed, mut refused, mut skipped } = Self::default();
        for (number, value) in (0u32..).zip(envelope.values()) {
            match value {
                Some(value) => refused.extend(read(number, value, &mut typed).err().map(|fault| (number, fault))),
                None => match tombstone::judge(shape) {
                    Tombstone::Skip => skipped += 1,
                    Tombstone::Row(rows) => typed.push(Part { rows, source: Source::Record(number) }),
                    Tombstone::Refused(fault) => refused.push((number, fault)),
                },
            }
        }
        Self { typed, refused, skipped }
    }

    /// Brings the rows into the dataset's schema.
    pub(super) fn decode(self, decoder: &mut TypedDecoder, shape: &mut Shape, envelope: &Envelope) -> Decoded {
        let Self { typed, refused, skipped } = self;
        Decoded { skipped, ..decoder.decode(shape, envelope, typed, refused) }
    }
}
