//! Walks the field tree of one record batch header and checks every number in it against the bytes of its body.
//!
//! Comes in: a header as flatbuffers, its body, the schema. Promises: afterwards each node has the length that its
//! parent gives it, each buffer lies in the body, behind the one before and long enough for its rows, and offsets
//! ascend within what they point into. So the decoder neither slices out of range nor counts a byte twice.

use arrow_ipc::RecordBatch as Header;
use arrow_schema::{DataType, Field, Schema};

use super::{Refused, types::fixed_width};

/// Bytes of a view.
const VIEW_BYTES: usize = 16;
/// Values up to this length are in their views.
const VIEW_INLINE_MAX: usize = 12;

/// The numbers of a record batch header, with the bytes that they speak of.
pub(super) struct Body<'a> {
    /// Rows of the batch, or values of the dictionary.
    rows: usize,
    /// Length and null count of each array, in pre-order.
    nodes: Vec<(i64, i64)>,
    /// Offset and length of each buffer, in the same order.
    buffers: Vec<(i64, i64)>,
    /// For each array of views how many buffers it has beside its views.
    view_buffers: Vec<i64>,
    /// The body.
    bytes: &'a [u8],
}

impl<'a> Body<'a> {
    /// Copies the numbers out and refuses compression.
    pub(super) fn new(header: &Header<'_>, bytes: &'a [u8]) -> Result<Self, Refused> {
        if header.compression().is_some() {
            return Err(Refused::new("compressed Arrow data; it must not be compressed"));
        }
        let rows = usize::try_from(header.length())
            .map_err(|_| Refused::new(format!("a batch of {} rows", header.length())))?;
        let nodes = header.nodes().into_iter().flatten().map(|node| (node.length(), node.null_count())).collect();
        let buffers = header.buffers().into_iter().flatten().map(|buffer| (buffer.offset(), buffer.length())).collect();
        let view_buffers = header.variadicBufferCounts().into_iter().flatten().collect();
        Ok(Self { rows, nodes, buffers, view_buffers, bytes })
    }
}

/// What a record batch or a dictionary holds.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Weight {
    /// Its rows.
    pub(super) rows: usize,
    /// Bytes that its views point to, however often they are the same.
    pub(super) view_bytes: usize,
}

/// Checks a record batch, whose views may point to so many bytes.
pub(super) fn walk_rows(schema: &Schema, body: &Body<'_>, view_bytes_max: usize) -> Result<Weight, Refused> {
    let mut walk = Walk::new(body, view_bytes_max);
    for field in schema.fields() {
        let nulls = walk.array(field, Rows::Exactly(body.rows))?;
        if nulls > 0 && !field.is_nullable() {
            return Err(Refused::new(format!("nulls in column `{}`, which has none", field.name())));
        }
    }
    let view_bytes = walk.finish()?;
    if schema.fields().is_empty() && body.rows > 0 {
        return Err(Refused::new("rows without a column"));
    }
    Ok(Weight { rows: body.rows, view_bytes })
}

/// Checks the values of one dictionary.
pub(super) fn walk_dictionary(schema: &Schema, id: i64, body: &Body<'_>) -> Result<(), Refused> {
    #[expect(deprecated, reason = "the id is how arrow_ipc itself finds the field of a dictionary")]
    let users = schema.fields_with_dict_id(id);
    let [field] = users.as_slice() else {
        return Err(Refused::new(format!("a dictionary that {} columns use; it must be one", users.len())));
    };
    let DataType::Dictionary(_, values) = field.data_type() else {
        return Err(Refused::new("a dictionary for a column that has none"));
    };
    let mut walk = Walk::new(body, 0);
    let values = Field::new("values", values.as_ref().clone(), true);
    walk.array(&values, Rows::Exactly(body.rows))?;
    walk.finish().map(drop)
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
    /// Arrays of views that are still to come.
    view_buffers: std::slice::Iter<'a, i64>,
    /// Bytes that views pointed to so far.
    view_bytes: usize,
    /// How many they may be.
    view_bytes_max: usize,
}

impl<'a> Walk<'a> {
    /// A walk from the start.
    fn new(body: &'a Body<'_>, view_bytes_max: usize) -> Self {
        Self {
            nodes: body.nodes.iter(),
            buffers: body.buffers.iter(),
            bytes: body.bytes,
            end: 0,
            view_buffers: body.view_buffers.iter(),
            view_bytes: 0,
            view_bytes_max,
        }
    }

    /// Refuses numbers that no field asked for; answers how many bytes views pointed to.
    fn finish(mut self) -> Result<usize, Refused> {
        if self.nodes.next().is_none() && self.buffers.next().is_none() && self.view_buffers.next().is_none() {
            Ok(self.view_bytes)
        } else {
            Err(Refused::new("Arrow data with more buffers than its schema has"))
        }
    }

    /// Checks one array with all below it; answers its number of nulls.
    fn array(&mut self, field: &Field, wanted: Rows) -> Result<usize, Refused> {
        let (rows, nulls) = self.node(field, wanted)?;
        if *field.data_type() == DataType::Null {
            // It has no buffers, and says nothing.
            return Ok(0);
        }
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
            DataType::Utf8View | DataType::BinaryView => self.views(field, rows)?,
            DataType::Dictionary(keys, _) => self.values(field, keys, rows)?,
            flat => self.values(field, flat, rows)?,
        }
        Ok(nulls)
    }

    /// The next node, with the length that the parent wants.
    fn node(&mut self, field: &Field, wanted: Rows) -> Result<(usize, usize), Refused> {
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
    fn buffer(&mut self, field: &Field, least: usize) -> Result<&'a [u8], Refused> {
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
    fn validity(&mut self, field: &Field, rows: usize, nulls: usize) -> Result<(), Refused> {
        let least = if nulls == 0 { 0 } else { rows.div_ceil(8) };
        self.buffer(field, least).map(drop)
    }

    /// Values of one width.
    fn values(&mut self, field: &Field, data_type: &DataType, rows: usize) -> Result<(), Refused> {
        let width = fixed_width(data_type).ok_or_else(|| out_of_range(field))?;
        let least = rows.checked_mul(width).ok_or_else(|| out_of_range(field))?;
        let bytes = self.buffer(field, least)?;
        // A padded length is fine for fixed-size binary; for numbers it would leave half a value at the end.
        if width.is_power_of_two() && bytes.len() % width != 0 && !matches!(data_type, DataType::FixedSizeBinary(_)) {
            return Err(out_of_range(field));
        }
        Ok(())
    }

    /// Views, then the buffers that they point into. Many views may point to the same bytes, which are looked at again for
    /// each: so their lengths are added up.
    fn views(&mut self, field: &Field, rows: usize) -> Result<(), Refused> {
        let least = rows.checked_mul(VIEW_BYTES).ok_or_else(|| out_of_range(field))?;
        let views = self.buffer(field, least)?;
        if views.len() % VIEW_BYTES != 0 {
            return Err(out_of_range(field));
        }
        let count = self.view_buffers.next().ok_or_else(|| out_of_range(field))?;
        let mut lengths = Vec::new();
        for _ in 0..*count {
            lengths.push(self.buffer(field, 0)?.len());
        }
        for view in views.chunks_exact(VIEW_BYTES).take(rows) {
            let number = |at: usize| {
                let bytes = view.get(at..at + 4).and_then(|bytes| bytes.try_into().ok());
                bytes.map_or(usize::MAX, |bytes| u32::from_le_bytes(bytes) as usize)
            };
            let (length, buffer, offset) = (number(0), number(8), number(12));
            let fits = length <= VIEW_INLINE_MAX
                || lengths.get(buffer).is_some_and(|bytes| offset.checked_add(length).is_some_and(|end| end <= *bytes));
            if !fits {
                return Err(out_of_range(field));
            }
            self.view_bytes = self.view_bytes.saturating_add(length);
            if self.view_bytes > self.view_bytes_max {
                return Err(Refused::TooManyLogicalBytes(self.view_bytes_max));
            }
        }
        Ok(())
    }

    /// Offsets, then the bytes that they point into.
    fn bytes_of<const WIDTH: usize>(&mut self, field: &Field, rows: usize) -> Result<(), Refused> {
        let last = self.offsets::<WIDTH>(field, rows)?;
        self.buffer(field, last).map(drop)
    }

    /// Ascending offsets that begin at 0 or later; answers the last one.
    fn offsets<const WIDTH: usize>(&mut self, field: &Field, rows: usize) -> Result<usize, Refused> {
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
                return Err(Refused::new(format!("offsets in column `{}` that do not ascend", field.name())));
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
fn out_of_range(field: &Field) -> Refused {
    Refused::new(format!("Arrow buffers of column `{}` that do not fit its rows or its data", field.name()))
}
