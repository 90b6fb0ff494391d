//! Rows that wait in memory for a file.
//!
//! Comes in: rows of directories that have no open file. Goes out: all waiting rows of one directory, in their order, once
//! they are worth a file or have to leave. Promises: no row is lost or comes out twice, and what [`Waiting::bytes`] says is
//! what the rows take. Pure.
//!
//! An open file takes memory for each of its columns, however few rows it has, and so does each Arrow batch. Rows that wait
//! take little more than their own size: what came in one call is copied together into one piece, whatever directories it is
//! of, and a directory remembers which rows of which piece are its own.

use std::{collections::BTreeMap, sync::Arc};

use arrow_array::{RecordBatch, UInt64Array};
use arrow_schema::{ArrowError, SchemaRef};
use arrow_select::{concat::concat_batches, take::take_record_batch};

use crate::checkpoint::CheckpointDelta;

/// So many rows of one directory are worth an open file: below, a file's fixed cost is larger than what encoding saves.
pub(super) const ROWS_WORTH_A_FILE: usize = 1024;

/// So many bytes of one directory are worth an open file, however few rows they are.
const BYTES_WORTH_A_FILE: usize = 1 << 20;

/// Small pieces are brought together up to so many rows: each takes about 500 bytes a column.
const PIECE_ROWS: usize = 8192;

/// The same in bytes: copying much for each small batch would cost more than it saves.
const PIECE_BYTES: usize = 16 << 20;

/// What a directory takes besides its rows: its name and its entry.
const ENTRY_BYTES: usize = 256;

/// What a stretch of rows takes besides the rows.
const STRETCH_BYTES: usize = size_of::<Stretch>();

/// The rows of one dataset that wait. All have one schema.
#[derive(Debug, Default)]
pub(super) struct Waiting {
    /// The schema of the rows; `None` before the first.
    schema: Option<SchemaRef>,
    /// Rows in the order in which they came.
    pieces: Vec<Piece>,
    /// Rows that came since, and still share the memory of the batches that they were cut from.
    cut: Vec<RecordBatch>,
    /// The directories of those.
    touched: Vec<Arc<str>>,
    /// Rows in pieces, waiting or not.
    settled_rows: usize,
    /// Rows in pieces and behind them.
    rows: usize,
    /// Those that still wait.
    live_rows: usize,
    /// Bytes of the pieces.
    piece_bytes: usize,
    /// Stretches of all directories.
    stretches: usize,
    /// Who waits.
    directories: BTreeMap<Arc<str>, Entry>,
}

/// Rows of any directories.
#[derive(Debug)]
struct Piece {
    /// The number of its first row.
    from: usize,
    /// The rows.
    rows: RecordBatch,
    /// What they take.
    bytes: usize,
}

/// A directory.
#[derive(Debug)]
struct Entry {
    /// Where its rows come from.
    origin: Origin,
    /// Its rows, in their order.
    stretches: Vec<Stretch>,
    /// How many.
    rows: usize,
}

/// Rows next to each other.
#[derive(Clone, Copy, Debug)]
struct Stretch {
    /// The number of the first.
    from: usize,
    /// How many.
    rows: usize,
}

/// Where the rows of a directory come from.
#[derive(Clone, Debug, Default)]
pub(super) struct Origin {
    /// What the generation covered before the batch of the first row.
    pub(super) begins_after: Arc<CheckpointDelta>,
    /// The batch, counted in the generation, of the newest row.
    pub(super) last_batch: u64,
}

/// All waiting rows of a directory, taken out: an iterator over them in batches that are large enough to encode well.
#[derive(Debug)]
pub(super) struct Taken {
    /// Where they come from.
    pub(super) origin: Origin,
    /// Their schema.
    pub(super) schema: SchemaRef,
    /// In reverse order.
    slices: Vec<RecordBatch>,
}

impl Waiting {
    /// Whether no directory waits.
    pub(super) fn is_empty(&self) -> bool {
        self.directories.is_empty()
    }

    /// How many directories wait.
    pub(super) fn len(&self) -> usize {
        self.directories.len()
    }

    /// What the rows take.
    pub(super) fn bytes(&self) -> usize {
        self.piece_bytes + self.directories.len() * ENTRY_BYTES + self.stretches * STRETCH_BYTES
    }

    /// The directories that wait, in their order.
    pub(super) fn directories(&self) -> Vec<Arc<str>> {
        self.directories.keys().map(Arc::clone).collect()
    }

    /// Whether rows of a directory wait.
    pub(super) fn has(&self, directory: &str) -> bool {
        self.directories.contains_key(directory)
    }

    /// Whether rows of a schema may wait beside those that do.
    pub(super) fn takes(&self, schema: &SchemaRef) -> bool {
        self.is_empty() || self.schema.as_ref().is_none_or(|known| Arc::ptr_eq(known, schema) || known == schema)
    }

    /// Adds rows of a directory. They are not counted before [`Waiting::settle`].
    pub(super) fn push(&mut self, directory: &Arc<str>, rows: RecordBatch, origin: Origin) {
        if self.is_empty() {
            self.clear();
            self.schema = Some(rows.schema());
        }
        let stretch = Stretch { from: self.rows, rows: rows.num_rows() };
        self.rows += stretch.rows;
        self.live_rows += stretch.rows;
        self.stretches += 1;
        let Origin { begins_after, last_batch } = origin;
        let entry = self.directories.entry(Arc::clone(directory)).or_insert_with(|| Entry {
            origin: Origin { begins_after, last_batch },
            stretches: Vec::with_capacity(1),
            rows: 0,
        });
        entry.origin.last_batch = last_batch;
        entry.rows += stretch.rows;
        entry.stretches.push(stretch);
        self.cut.push(rows);
        self.touched.push(Arc::clone(directory));
    }

    /// Copies what came since the last call together, so that it no longer holds on to whole batches, and counts it; the
    /// directories of it that are worth a file by now, or fill one of so many bytes and rows.
    pub(super) fn settle(&mut self, is_full: impl Fn(usize, u64) -> bool) -> Result<Vec<Arc<str>>, ArrowError> {
        self.join_cut()?;
        let mut touched = std::mem::take(&mut self.touched);
        touched.sort_unstable();
        touched.dedup();
        touched.retain(|directory| {
            let (rows, bytes) = self.size(directory);
            rows >= ROWS_WORTH_A_FILE || bytes >= BYTES_WORTH_A_FILE || is_full(bytes, rows as u64)
        });
        Ok(touched)
    }

    /// Rows of a directory, and about how many bytes they take.
    pub(super) fn size(&self, directory: &str) -> (usize, usize) {
        let rows = self.directories.get(directory).map_or(0, |entry| entry.rows);
        (rows, self.piece_bytes / self.rows.max(1) * rows)
    }

    /// Takes all rows of a directory out. Their memory is given back by [`Waiting::tidy`]. Only when all is settled.
    pub(super) fn take(&mut self, directory: &str) -> Option<Taken> {
        let schema = self.schema.clone()?;
        let Entry { origin, stretches, rows } = self.directories.remove(directory)?;
        self.live_rows -= rows;
        self.stretches -= stretches.len();
        let slices = stretches.iter().rev().filter_map(|stretch| self.slice(*stretch)).collect();
        Some(Taken { origin, schema, slices })
    }

    /// Gives memory back once most of the rows that came were taken out.
    pub(super) fn tidy(&mut self) -> Result<(), ArrowError> {
        if self.is_empty() {
            self.clear();
        } else if self.rows - self.live_rows > self.live_rows.max(PIECE_ROWS) {
            let mut tidied = Self { schema: self.schema.clone(), ..Self::default() };
            for (directory, Entry { origin, stretches, .. }) in std::mem::take(&mut self.directories) {
                for rows in stretches.iter().filter_map(|stretch| self.slice(*stretch)) {
                    tidied.push(&directory, rows, origin.clone());
                    if tidied.rows - tidied.settled_rows >= PIECE_ROWS {
                        tidied.join_cut()?;
                    }
                }
            }
            tidied.join_cut()?;
            tidied.touched.clear();
            *self = tidied;
        }
        Ok(())
    }

    /// Forgets everything.
    pub(super) fn clear(&mut self) {
        *self = Self::default();
    }

    /// Copies what was cut off into a piece, and joins that with its neighbour as long as both are small.
    fn join_cut(&mut self) -> Result<(), ArrowError> {
        let cut = std::mem::take(&mut self.cut);
        let Some(schema) = self.schema.clone().filter(|_| !cut.is_empty()) else { return Ok(()) };
        let joined = match cut.as_slice() {
            // One alone would not be copied.
            [one] => take_record_batch(one, &UInt64Array::from_iter_values(0..one.num_rows() as u64)),
            several => concat_batches(&schema, several),
        };
        match joined {
            Ok(joined) => self.add_piece(self.settled_rows, joined),
            // More text than one column of one batch can hold.
            Err(ArrowError::OffsetOverflowError(_)) => {
                let mut from = self.settled_rows;
                for rows in cut {
                    let next = from + rows.num_rows();
                    self.add_piece(from, rows);
                    from = next;
                }
            }
            Err(error) => return Err(error),
        }
        self.settled_rows = self.rows;
        while let [.., left, right] = self.pieces.as_slice() {
            // Each row is copied a few times at most, since both are about as large.
            let are_alike = left.rows.num_rows() <= 2 * right.rows.num_rows();
            let are_small =
                left.rows.num_rows() + right.rows.num_rows() <= PIECE_ROWS && left.bytes + right.bytes <= PIECE_BYTES;
            if !are_alike || !are_small {
                break;
            }
            let (from, joined) = (left.from, concat_batches(&schema, [&left.rows, &right.rows])?);
            for piece in [self.pieces.pop(), self.pieces.pop()].into_iter().flatten() {
                self.piece_bytes -= piece.bytes;
            }
            self.add_piece(from, joined);
        }
        Ok(())
    }

    /// Adds a piece behind all others.
    fn add_piece(&mut self, from: usize, rows: RecordBatch) {
        let bytes = rows.get_array_memory_size();
        self.piece_bytes += bytes;
        self.pieces.push(Piece { from, rows, bytes });
    }

    /// The rows of a stretch, which lies in one piece: pieces are only ever joined.
    fn slice(&self, stretch: Stretch) -> Option<RecordBatch> {
        let at = self.pieces.partition_point(|piece| piece.from <= stretch.from).checked_sub(1)?;
        let piece = self.pieces.get(at)?;
        Some(piece.rows.slice(stretch.from - piece.from, stretch.rows))
    }
}

impl Iterator for Taken {
    type Item = Result<RecordBatch, ArrowError>;

    fn next(&mut self) -> Option<Self::Item> {
        let mut batch = vec![self.slices.pop()?];
        let mut rows = batch.iter().map(RecordBatch::num_rows).sum::<usize>();
        while let Some(next) = self.slices.last().filter(|next| rows + next.num_rows() <= ROWS_WORTH_A_FILE) {
            rows += next.num_rows();
            batch.extend(self.slices.pop());
        }
        match concat_batches(&self.schema, &batch) {
            // More text than one column of one batch can hold.
            Err(ArrowError::OffsetOverflowError(_)) => {
                self.slices.extend(batch.into_iter().rev());
                self.slices.pop().map(Ok)
            }
            joined => Some(joined),
        }
    }
}

#[cfg(test)]
mod tests {
    use arrow_array::{Int64Array, StringArray, cast::AsArray as _, types::Int64Type};
    use proptest::prelude::*;

    use super::*;

    /// Rows with these numbers and some text.
    fn rows(from: i64, count: i64) -> RecordBatch {
        let text = (from..from + count).map(|number| format!("text of row {number}"));
        RecordBatch::try_from_iter([
            ("id", Arc::new(Int64Array::from_iter_values(from..from + count)) as _),
            ("text", Arc::new(StringArray::from_iter_values(text)) as _),
        ])
        .unwrap()
    }

    /// Files of any size.
    fn never_full(_bytes: usize, _rows: u64) -> bool {
        false
    }

    /// From a batch.
    fn origin(last_batch: u64) -> Origin {
        Origin { begins_after: Arc::default(), last_batch }
    }

    /// The numbers of the rows of a directory, taken out.
    fn take(waiting: &mut Waiting, directory: &str) -> Vec<i64> {
        let taken = waiting.take(directory).unwrap();
        taken.flat_map(|batch| batch.unwrap().column(0).as_primitive::<Int64Type>().values().to_vec()).collect()
    }

    #[test]
    fn a_directory_is_worth_a_file_by_its_rows_or_its_bytes() {
        let (mut waiting, many, few) = (Waiting::default(), Arc::from("many"), Arc::from("few"));
        waiting.push(&many, rows(0, 1000), origin(1));
        waiting.push(&few, rows(1000, 10), origin(1));
        assert!(waiting.settle(never_full).unwrap().is_empty());
        waiting.push(&many, rows(1010, 30), origin(2));
        assert_eq!(waiting.settle(never_full).unwrap(), [Arc::clone(&many)]);
        let large = RecordBatch::try_from_iter([("text", Arc::new(StringArray::from(vec!["x".repeat(2 << 20)])) as _)]);
        let mut waiting = Waiting::default();
        waiting.push(&few, large.unwrap(), origin(1));
        assert_eq!(waiting.settle(never_full).unwrap(), [few]);
    }

    #[test]
    fn what_waits_is_counted_and_not_the_batch_that_it_was_cut_from() {
        let (mut waiting, whole) = (Waiting::default(), rows(0, 8000));
        waiting.push(&Arc::from("a"), whole.slice(17, 4), origin(1));
        waiting.settle(never_full).unwrap();
        assert!(waiting.bytes() < 4096, "{}", waiting.bytes());
        let piece = waiting.pieces[0].rows.get_array_memory_size();
        assert!(piece < whole.get_array_memory_size() / 100, "{piece}");
    }

    #[test]
    fn ten_thousand_directories_take_little_more_than_their_rows() {
        let mut waiting = Waiting::default();
        for batch in 0..50_i64 {
            let whole = rows(batch * 2000, 2000);
            for row in 0..2000 {
                let directory = Arc::from(format!("key={:05}", (batch * 2000 + row) % 10_000));
                let row = usize::try_from(row).unwrap();
                waiting.push(&directory, whole.slice(row, 1), origin(u64::try_from(batch).unwrap()));
            }
            waiting.settle(never_full).unwrap();
        }
        assert_eq!(waiting.len(), 10_000);
        let plain = rows(0, 100_000).get_array_memory_size();
        assert!(waiting.bytes() < plain + 10_000 * ENTRY_BYTES + 100_000 * 16 + plain / 2, "{}", waiting.bytes());
    }

    proptest! {
        #[test]
        fn every_row_comes_out_once_and_in_order(
            writes in proptest::collection::vec((0_u8..6, 1_i64..3000, any::<bool>(), proptest::option::of(0_u8..6)), 1..60),
        ) {
            let mut waiting = Waiting::default();
            let (mut expected, mut next) = (BTreeMap::<Arc<str>, Vec<i64>>::new(), 0);
            for (batch, (directory, count, settles, taken)) in (0..).zip(writes) {
                let directory: Arc<str> = Arc::from(format!("d={directory}"));
                waiting.push(&directory, rows(next, count), origin(batch));
                expected.entry(directory).or_default().extend(next..next + count);
                next += count;
                if settles {
                    waiting.settle(never_full).unwrap();
                    let directory = taken.map(|taken| format!("d={taken}"));
                    if let Some(rows) = directory.and_then(|directory| expected.remove_entry(directory.as_str())) {
                        prop_assert_eq!(take(&mut waiting, &rows.0), rows.1);
                    }
                    waiting.tidy().unwrap();
                    prop_assert!(waiting.rows <= 2 * waiting.live_rows + PIECE_ROWS);
                }
            }
            waiting.settle(never_full).unwrap();
            prop_assert_eq!(waiting.directories(), expected.keys().map(Arc::clone).collect::<Vec<_>>());
            for (directory, rows) in expected {
                prop_assert_eq!(take(&mut waiting, &directory), rows);
            }
            waiting.tidy().unwrap();
            prop_assert_eq!((waiting.bytes(), waiting.live_rows), (0, 0));
        }
    }
}
