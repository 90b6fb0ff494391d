//! Walks the field tree of one record batch header and checks every number in it against the bytes of its body.
//!
//! Comes in: a header as flatbuffers, its body, the schema. Promises: afterwards each node has the length that its
//! parent gives it, each buffer lies in the body, behind the one before and long enough for its rows, and offsets
//! ascend within what they point into. So the decoder neither slices out of range nor counts a byte twice.

use arrow_ipc::RecordBatch as Header;
use arrow_schema::{DataType, Field, Schema};

use super::{failure::BadOutput, types::fixed_width};

/// The numbers of a record batch header, with the bytes that they speak of.
pub(super) struct Body<'a> {
    /// Rows of the batch, or values of the dictionary.
    rows: usize,
    /// Length and null count of each array, in pre-order.
    nodes: Vec<(i64, i64)>,
    /// Offset and length of each buffer, in the same order.
    buffers: Vec<(i64, i64)>,
    /// The body.
    bytes: &'a [u8],
}

impl<'a> Body<'a> {
    /// Copies the numbers out and refuses what has no place in an answer: compression and views.
    pub(super) fn new(header: &Header<'_>, bytes: &'a [u8]) -> Result<Self, BadOutput> {
        if header.compression().is_some() {
            return Err(BadOutput::new("answered compressed Arrow data; it must not be compressed"));
        }
        if header.variadicBufferCounts().is_some_and(|counts| !counts.is_empty()) {
            return Err(BadOutput::new("answered Arrow data with view buffers"));
        }
        let rows = usize::try_from(header.length())
            .map_err(|_| BadOutput::new(format!("answered a batch of {} rows", header.length())))?;
        let nodes = header.nodes().into_iter().flatten().map(|node| (node.length(), node.null_count())).collect();
        let buffers = header.buffers().into_iter().flatten().map(|buffer| (buffer.offset(), buffer.length())).collect();
        Ok(Self { rows, nodes, buffers, bytes })
    }
}

/// Checks a record batch; answers its number of rows.
pub(super) fn walk_rows(schema: &Schema, body: &Body<'_>) -> Result<usize, BadOutput> {
    let mut walk = Walk::new(body);
    for field in schema.fields() {
        let nulls = walk.array(field, Rows::Exactly(body.rows))?;
        if nulls > 0 && !field.is_nullable() {
            return Err(BadOutput::new(format!("answered nulls in column `{}`, which has none", field.name())));
        }
    }
    walk.finish()?;
    if schema.fields().is_empty() && body.rows > 0 {
        return Err(BadOutput::new("answered rows without a column"));
    }
    Ok(body.rows)
}

/// Checks the values of one dictionary.
pub(super) fn walk_dictionary(schema: &Schema, id: i64, body: &Body<'_>) -> Result<(), BadOutput> {
    #[expect(deprecated, reason = "the id is how arrow_ipc itself finds the field of a dictionary")]
    let users = schema.fields_with_dict_id(id);
    let [field] = users.as_slice() else {
        return Err(BadOutput::new(format!("answered a dictionary that {} columns use; it must be one", users.len())));
    };
    let DataType::Dictionary(_, values) = field.data_type() else {
        return Err(BadOutput::new("answered a dictionary for a column that has none"));
    };
    let mut walk = Walk::new(body);
    let values = Field::new("values", values.as_ref().clone(), true);
    walk.array(&values, Rows::Exactly(body.rows))?;
    walk.finish()
}

/// How many rows a parent gives its child.
#[derive(Clone, Copy)]
enum Rows {
    /// As many as it has itself.
    Exactly(usize),
    /// As many as its last offset says, or more that nothing points to.
    AtLeast(usize),
}

/// The state of a walk.
struct Walk<'a> {
    /// Arrays that are still to come.
    nodes: std::slice::Iter<'a, (i64, i64)>,
    /// Buffers that are still to come.
    buffers: std::slice::Iter<'a, (i64, i64)>,
    /// The body.
    bytes: &'a [u8],
    /// Where the buffer before ended.
    end: usize,
}

impl<'a> Walk<'a> {
    /// A walk from the start.
    fn new(body: &'a Body<'_>) -> Self {
        Self { nodes: body.nodes.iter(), buffers: body.buffers.iter(), bytes: body.bytes, end: 0 }
    }

    /// Refuses numbers that no field asked for.
    fn finish(mut self) -> Result<(), BadOutput> {
        if self.nodes.next().is_none() && self.buffers.next().is_none() {
            Ok(())
        } else {
            Err(BadOutput::new("answered Arrow data with more buffers than its schema has"))
        }
    }

    /// Checks one array with all below it; answers its number of nulls.
    fn array(&mut self, field: &Field, wanted: Rows) -> Result<usize, BadOutput> {
        let (rows, nulls) = self.node(field, wanted)?;
        self.validity(field, rows, nulls)?;
        match field.data_type() {
            DataType::Boolean => drop(self.buffer(field, rows.div_ceil(8))?),
            DataType::Utf8 | DataType::Binary => self.bytes_of::<4>(field, rows)?,
            DataType::LargeUtf8 | DataType::LargeBinary => self.bytes_of::<8>(field, rows)?,
            DataType::List(item) | DataType::Map(item, _) => {
                let last = self.offsets::<4>(field, rows)?;
                self.array(item, Rows::AtLeast(last))?;
            }
            DataType::LargeList(item) => {
                let last = self.offsets::<8>(field, rows)?;
                self.array(item, Rows::AtLeast(last))?;
            }
            DataType::FixedSizeList(item, size) => {
                let items = usize::try_from(*size).ok().and_then(|size| rows.checked_mul(size));
                let items = items.ok_or_else(|| out_of_range(field))?;
                self.array(item, Rows::Exactly(items))?;
            }
            DataType::Struct(children) => {
                for child in children {
                    self.array(child, Rows::Exactly(rows))?;
                }
            }
            DataType::Dictionary(keys, _) => self.values(field, keys, rows)?,
            flat => self.values(field, flat, rows)?,
        }
        Ok(nulls)
    }

    /// The next node, with the length that the parent wants.
    fn node(&mut self, field: &Field, wanted: Rows) -> Result<(usize, usize), BadOutput> {
        let (rows, nulls) = self.nodes.next().ok_or_else(|| out_of_range(field))?;
        let rows = usize::try_from(*rows).map_err(|_| out_of_range(field))?;
        let nulls = usize::try_from(*nulls).map_err(|_| out_of_range(field))?;
        let fits = match wanted {
            Rows::Exactly(wanted) => rows == wanted,
            Rows::AtLeast(wanted) => rows >= wanted,
        };
        if fits && nulls <= rows { Ok((rows, nulls)) } else { Err(out_of_range(field)) }
    }

    /// The next buffer; it must lie in the body, behind the one before, and have `least` bytes.
    fn buffer(&mut self, field: &Field, least: usize) -> Result<&'a [u8], BadOutput> {
        let (offset, length) = self.buffers.next().ok_or_else(|| out_of_range(field))?;
        let offset = usize::try_from(*offset).map_err(|_| out_of_range(field))?;
        let length = usize::try_from(*length).map_err(|_| out_of_range(field))?;
        let end = offset.checked_add(length).ok_or_else(|| out_of_range(field))?;
        let bytes = self.bytes.get(offset..end).ok_or_else(|| out_of_range(field))?;
        let behind = length == 0 || offset >= self.end;
        if offset % 8 != 0 || !behind || length < least {
            return Err(out_of_range(field));
        }
        self.end = self.end.max(end);
        Ok(bytes)
    }

    /// The validity bitmap, which may be left out where nothing is null.
    fn validity(&mut self, field: &Field, rows: usize, nulls: usize) -> Result<(), BadOutput> {
        let least = if nulls == 0 { 0 } else { rows.div_ceil(8) };
        self.buffer(field, least).map(drop)
    }

    /// Values of one width.
    fn values(&mut self, field: &Field, data_type: &DataType, rows: usize) -> Result<(), BadOutput> {
        let width = fixed_width(data_type).ok_or_else(|| out_of_range(field))?;
        let least = rows.checked_mul(width).ok_or_else(|| out_of_range(field))?;
        let bytes = self.buffer(field, least)?;
        // A padded length is fine for fixed-size binary; for numbers it would leave half a value at the end.
        if width.is_power_of_two() && bytes.len() % width != 0 && !matches!(data_type, DataType::FixedSizeBinary(_)) {
            return Err(out_of_range(field));
        }
        Ok(())
    }

    /// Offsets, then the bytes that they point into.
    fn bytes_of<const WIDTH: usize>(&mut self, field: &Field, rows: usize) -> Result<(), BadOutput> {
        let last = self.offsets::<WIDTH>(field, rows)?;
        self.buffer(field, last).map(drop)
    }

    /// Ascending offsets that begin at 0 or later; answers the last one.
    fn offsets<const WIDTH: usize>(&mut self, field: &Field, rows: usize) -> Result<usize, BadOutput> {
        let least =
            rows.checked_add(1).and_then(|count| count.checked_mul(WIDTH)).ok_or_else(|| out_of_range(field))?;
        // An array without rows may leave its only offset out.
        let bytes = self.buffer(field, if rows == 0 { 0 } else { least })?;
        if bytes.len() % WIDTH != 0 {
            return Err(out_of_range(field));
        }
        let mut last = 0;
        for offset in bytes.chunks_exact(WIDTH).take(rows + 1) {
            let offset = signed_offset(offset);
            if offset < last {
                return Err(BadOutput::new(format!(
                    "answered offsets in column `{}` that do not ascend",
                    field.name()
                )));
            }
            last = offset;
        }
        usize::try_from(last).map_err(|_| out_of_range(field))
    }
}

/// A little-endian signed number of four or eight bytes.
fn signed_offset(bytes: &[u8]) -> i64 {
    let narrow = bytes.try_into().map(|bytes| i32::from_le_bytes(bytes).into());
    narrow.or_else(|_| bytes.try_into().map(i64::from_le_bytes)).unwrap_or(-1)
}

/// The words for numbers that do not fit.
fn out_of_range(field: &Field) -> BadOutput {
    BadOutput::new(format!("answered Arrow buffers of column `{}` that do not fit its rows or its data", field.name()))
}
