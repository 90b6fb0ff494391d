//! Columns that grow value by value while foreign bytes are read, and shrink again where a record turns out to be bad.
//!
//! What they may cost is bounded ahead of each value ([`Room`]): a few bytes can ask for millions of nulls.

use std::sync::Arc;

use arrow_array::{
    ArrayRef, BinaryArray, ListArray, MapArray, NullArray, RecordBatch, RecordBatchOptions, StringArray, StructArray,
    make_array,
};
use arrow_buffer::{ArrowNativeType, BooleanBuffer, Buffer, NullBuffer, OffsetBuffer, ScalarBuffer, i256};
use arrow_data::ArrayData;
use arrow_schema::{ArrowError, DataType, Schema};

use super::fault::Fault;

/// Most bytes of one record, unpacked: far above what brokers take, and still a fraction of a small budget.
pub(super) const RECORD_BYTES_MAX: usize = 256 << 20;

/// Most bytes of the records of one batch, unpacked. Records that come to more are not the usual.
pub(super) const BATCH_BYTES_MAX: usize = 1 << 30;

/// What a value costs at least: one without a byte of its own still takes time.
const CELL_BYTES_MIN: usize = 4;

/// What columns may still cost.
#[derive(Debug)]
pub(super) struct Room {
    /// Bytes of this record.
    record: usize,
    /// Bytes of this batch.
    batch: usize,
    /// Those that were left of it before this record.
    before: usize,
}

impl Room {
    /// That of a new batch.
    pub(super) fn new() -> Self {
        Self { record: RECORD_BYTES_MAX, batch: BATCH_BYTES_MAX, before: BATCH_BYTES_MAX }
    }

    /// The next record begins.
    pub(super) fn next_record(&mut self) {
        self.record = RECORD_BYTES_MAX;
        self.before = self.batch;
    }

    /// This record is refused, and what it took is free again.
    pub(super) fn give_back(&mut self) {
        self.batch = self.before;
    }

    /// Takes bytes, if they are left.
    pub(super) fn take(&mut self, bytes: usize) -> Result<(), Fault> {
        let bytes = bytes.max(CELL_BYTES_MIN);
        let record = self.record.checked_sub(bytes).ok_or_else(too_large)?;
        let batch = self.batch.checked_sub(bytes).ok_or_else(batch_too_large)?;
        (self.record, self.batch) = (record, batch);
        Ok(())
    }
}

/// A record that is larger than it may be.
pub(super) fn too_large() -> Fault {
    Fault { code: "too-large", message: format!("the record unpacks to more than {RECORD_BYTES_MAX} bytes") }
}

/// Records of one batch that are together larger than they may be.
pub(super) fn batch_too_large() -> Fault {
    let message =
        format!("the records of one batch unpack to more than {BATCH_BYTES_MAX} bytes; lower source.batch_size");
    Fault { code: "batch-too-large", message }
}

/// One value that is not made of others.
#[derive(Clone, Copy, Debug)]
pub(super) enum Cell<'a> {
    /// True or false.
    Boolean(bool),
    /// Also a date, or a time of day in milliseconds.
    Int32(i32),
    /// Also a timestamp, or a finer time of day.
    Int64(i64),
    /// Without a sign.
    UInt32(u32),
    /// Without a sign.
    UInt64(u64),
    /// Single precision.
    Float32(f32),
    /// Double precision.
    Float64(f64),
    /// Unscaled.
    Decimal128(i128),
    /// Unscaled.
    Decimal256(i256),
    /// Bytes, or text that is known to be UTF-8.
    Bytes(&'a [u8]),
}

/// A column under construction.
#[derive(Debug)]
pub(super) struct Column {
    /// Its type.
    data_type: DataType,
    /// For each value whether it is not null.
    valid: Vec<bool>,
    /// The values.
    data: Data,
}

/// Values, by how they lie in memory.
#[derive(Debug)]
enum Data {
    /// Nothing but nulls.
    Null,
    /// See [`Cell`].
    Boolean(Vec<bool>),
    /// See [`Cell`].
    Int32(Vec<i32>),
    /// See [`Cell`].
    Int64(Vec<i64>),
    /// See [`Cell`].
    UInt32(Vec<u32>),
    /// See [`Cell`].
    UInt64(Vec<u64>),
    /// See [`Cell`].
    Float32(Vec<f32>),
    /// See [`Cell`].
    Float64(Vec<f64>),
    /// See [`Cell`].
    Decimal128(Vec<i128>),
    /// See [`Cell`].
    Decimal256(Vec<i256>),
    /// One behind the other, and where each ends.
    Bytes(Vec<i32>, Vec<u8>),
    /// Elements, and where each list of them ends.
    List(Vec<i32>, Box<Column>),
    /// Keys and values, and where each map of them ends.
    Map(Vec<i32>, Box<(Column, Column)>),
    /// A column for each field.
    Struct(Vec<Column>),
}

impl Column {
    /// A column without a value; `None` for types that are not built here.
    pub(super) fn new(data_type: &DataType) -> Option<Self> {
        let data = match data_type {
            DataType::Null => Data::Null,
            DataType::Boolean => Data::Boolean(Vec::new()),
            DataType::Int32 | DataType::Date32 | DataType::Time32(_) => Data::Int32(Vec::new()),
            DataType::Int64 | DataType::Time64(_) | DataType::Timestamp(..) => Data::Int64(Vec::new()),
            DataType::UInt32 => Data::UInt32(Vec::new()),
            DataType::UInt64 => Data::UInt64(Vec::new()),
            DataType::Float32 => Data::Float32(Vec::new()),
            DataType::Float64 => Data::Float64(Vec::new()),
            DataType::Decimal128(..) => Data::Decimal128(Vec::new()),
            DataType::Decimal256(..) => Data::Decimal256(Vec::new()),
            DataType::Utf8 | DataType::Binary => Data::Bytes(Vec::new(), Vec::new()),
            DataType::List(item) => Data::List(Vec::new(), Box::new(Self::new(item.data_type())?)),
            DataType::Map(entries, _) => {
                let (key, value) = super::types::pair(entries)?;
                Data::Map(Vec::new(), Box::new((Self::new(key.data_type())?, Self::new(value.data_type())?)))
            }
            DataType::Struct(fields) => {
                Data::Struct(fields.iter().map(|field| Self::new(field.data_type())).collect::<Option<_>>()?)
            }
            _ => return None,
        };
        Some(Self { data_type: data_type.clone(), valid: Vec::new(), data })
    }

    /// How many values there are.
    pub(super) fn len(&self) -> usize {
        self.valid.len()
    }

    /// Its type.
    pub(super) fn data_type(&self) -> &DataType {
        &self.data_type
    }

    /// A null.
    pub(super) fn null(&mut self, room: &mut Room) -> Result<(), Fault> {
        room.take(1 + self.data.width())?;
        match &mut self.data {
            Data::Null => {}
            Data::Boolean(values) => values.push(false),
            Data::Int32(values) => values.push(0),
            Data::Int64(values) => values.push(0),
            Data::UInt32(values) => values.push(0),
            Data::UInt64(values) => values.push(0),
            Data::Float32(values) => values.push(0.0),
            Data::Float64(values) => values.push(0.0),
            Data::Decimal128(values) => values.push(0),
            Data::Decimal256(values) => values.push(i256::ZERO),
            Data::Bytes(ends, _) | Data::List(ends, _) | Data::Map(ends, _) => ends.push(last(ends)),
            Data::Struct(columns) => columns.iter_mut().try_for_each(|column| column.null(room))?,
        }
        self.valid.push(false);
        Ok(())
    }

    /// A value.
    pub(super) fn push(&mut self, cell: Cell<'_>, room: &mut Room) -> Result<(), Fault> {
        room.take(1 + self.data.width())?;
        match (&mut self.data, cell) {
            (Data::Boolean(values), Cell::Boolean(value)) => values.push(value),
            (Data::Int32(values), Cell::Int32(value)) => values.push(value),
            (Data::Int64(values), Cell::Int64(value)) => values.push(value),
            (Data::UInt32(values), Cell::UInt32(value)) => values.push(value),
            (Data::UInt64(values), Cell::UInt64(value)) => values.push(value),
            (Data::Float32(values), Cell::Float32(value)) => values.push(value),
            (Data::Float64(values), Cell::Float64(value)) => values.push(value),
            (Data::Decimal128(values), Cell::Decimal128(value)) => values.push(value),
            (Data::Decimal256(values), Cell::Decimal256(value)) => values.push(value),
            (Data::Bytes(ends, bytes), Cell::Bytes(value)) => {
                room.take(value.len())?;
                bytes.extend_from_slice(value);
                ends.push(position(bytes.len()));
            }
            _ => return Err(self.mismatch()),
        }
        self.valid.push(true);
        Ok(())
    }

    /// Where the elements of the next list go; [`Column::close`] ends it.
    pub(super) fn elements(&mut self) -> Result<&mut Self, Fault> {
        match &mut self.data {
            Data::List(_, item) => Ok(item),
            _ => Err(Fault { code: "decode-failed", message: "a list where its column has none".to_owned() }),
        }
    }

    /// Where keys and values of the next map go; [`Column::close`] ends it.
    pub(super) fn entries(&mut self) -> Result<&mut (Self, Self), Fault> {
        match &mut self.data {
            Data::Map(_, entries) => Ok(entries),
            _ => Err(Fault { code: "decode-failed", message: "a map where its column has none".to_owned() }),
        }
    }

    /// Where the fields of the next struct go, one value into each; [`Column::close`] ends it.
    pub(super) fn fields(&mut self) -> Result<&mut [Self], Fault> {
        match &mut self.data {
            Data::Struct(columns) => Ok(columns),
            _ => Err(Fault { code: "decode-failed", message: "a struct where its column has none".to_owned() }),
        }
    }

    /// The list, map or struct has all its values.
    pub(super) fn close(&mut self, room: &mut Room) -> Result<(), Fault> {
        room.take(1 + self.data.width())?;
        match &mut self.data {
            Data::List(ends, item) => ends.push(position(item.len())),
            Data::Map(ends, entries) => ends.push(position(entries.0.len())),
            Data::Struct(_) => {}
            _ => return Err(self.mismatch()),
        }
        self.valid.push(true);
        Ok(())
    }

    /// Cuts off what is behind so many values, and what a bad record left halfway.
    pub(super) fn truncate(&mut self, len: usize) {
        self.valid.truncate(len);
        match &mut self.data {
            Data::Null => {}
            Data::Boolean(values) => values.truncate(len),
            Data::Int32(values) => values.truncate(len),
            Data::Int64(values) => values.truncate(len),
            Data::UInt32(values) => values.truncate(len),
            Data::UInt64(values) => values.truncate(len),
            Data::Float32(values) => values.truncate(len),
            Data::Float64(values) => values.truncate(len),
            Data::Decimal128(values) => values.truncate(len),
            Data::Decimal256(values) => values.truncate(len),
            Data::Bytes(ends, bytes) => {
                ends.truncate(len);
                bytes.truncate(last(ends).as_usize());
            }
            Data::List(ends, item) => {
                ends.truncate(len);
                item.truncate(last(ends).as_usize());
            }
            Data::Map(ends, entries) => {
                ends.truncate(len);
                entries.0.truncate(last(ends).as_usize());
                entries.1.truncate(last(ends).as_usize());
            }
            Data::Struct(columns) => columns.iter_mut().for_each(|column| column.truncate(len)),
        }
    }

    /// The rows of a column of structs, which is left empty.
    pub(super) fn take_rows(&mut self) -> Result<RecordBatch, ArrowError> {
        let empty = Self::new(&self.data_type).ok_or_else(|| ArrowError::SchemaError("not a struct".to_owned()))?;
        let whole = std::mem::replace(self, empty);
        let (len, DataType::Struct(fields), Data::Struct(columns)) = (whole.len(), whole.data_type, whole.data) else {
            return Err(ArrowError::SchemaError("not a struct".to_owned()));
        };
        let columns = columns.into_iter().map(Self::finish).collect::<Result<Vec<_>, _>>()?;
        let options = RecordBatchOptions::new().with_row_count(Some(len));
        RecordBatch::try_new_with_options(Arc::new(Schema::new(fields)), columns, &options)
    }

    /// The column as an array.
    fn finish(self) -> Result<ArrayRef, ArrowError> {
        let Self { data_type, valid, data } = self;
        let len = valid.len();
        let nulls = Some(NullBuffer::from(valid)).filter(|nulls| nulls.null_count() > 0);
        let flat = |values: Buffer| {
            let data = ArrayData::builder(data_type.clone()).len(len).nulls(nulls.clone()).add_buffer(values).build();
            data.map(make_array)
        };
        Ok(match data {
            Data::Null => Arc::new(NullArray::new(len)),
            Data::Boolean(values) => flat(BooleanBuffer::from(values).into_inner())?,
            Data::Int32(values) => flat(Buffer::from_vec(values))?,
            Data::Int64(values) => flat(Buffer::from_vec(values))?,
            Data::UInt32(values) => flat(Buffer::from_vec(values))?,
            Data::UInt64(values) => flat(Buffer::from_vec(values))?,
            Data::Float32(values) => flat(Buffer::from_vec(values))?,
            Data::Float64(values) => flat(Buffer::from_vec(values))?,
            Data::Decimal128(values) => flat(Buffer::from_vec(values))?,
            Data::Decimal256(values) => flat(Buffer::from_vec(values))?,
            Data::Bytes(ends, bytes) if data_type == DataType::Utf8 => {
                Arc::new(StringArray::try_new(offsets(ends), Buffer::from_vec(bytes), nulls)?)
            }
            Data::Bytes(ends, bytes) => Arc::new(BinaryArray::try_new(offsets(ends), Buffer::from_vec(bytes), nulls)?),
            Data::List(ends, item) => {
                let DataType::List(field) = data_type else { return Err(lost()) };
                Arc::new(ListArray::try_new(field, offsets(ends), item.finish()?, nulls)?)
            }
            Data::Map(ends, entries) => {
                let DataType::Map(field, is_sorted) = data_type else { return Err(lost()) };
                let DataType::Struct(pair) = field.data_type().clone() else { return Err(lost()) };
                let (keys, values) = *entries;
                let entries = StructArray::try_new(pair, vec![keys.finish()?, values.finish()?], None)?;
                Arc::new(MapArray::try_new(field, offsets(ends), entries, nulls, is_sorted)?)
            }
            Data::Struct(columns) => {
                let DataType::Struct(fields) = data_type else { return Err(lost()) };
                let columns = columns.into_iter().map(Self::finish).collect::<Result<Vec<_>, _>>()?;
                Arc::new(StructArray::try_new_with_length(fields, columns, nulls, len)?)
            }
        })
    }

    /// A value of another kind than the column's: a mistake of ours.
    fn mismatch(&self) -> Fault {
        Fault { code: "decode-failed", message: format!("a value of another kind than {}", self.data_type) }
    }
}

impl Data {
    /// Bytes of one value, those of texts and of what is inside not counted.
    fn width(&self) -> usize {
        match self {
            Self::Null | Self::Boolean(_) | Self::Struct(_) => 1,
            Self::Int32(_) | Self::UInt32(_) | Self::Float32(_) | Self::Bytes(..) | Self::List(..) | Self::Map(..) => 4,
            Self::Int64(_) | Self::UInt64(_) | Self::Float64(_) => 8,
            Self::Decimal128(_) => 16,
            Self::Decimal256(_) => 32,
        }
    }
}

/// Where the last list ends.
fn last(ends: &[i32]) -> i32 {
    ends.last().copied().unwrap_or(0)
}

/// A position in a column, which [`Room`] keeps far below the largest.
fn position(len: usize) -> i32 {
    i32::try_from(len).unwrap_or(i32::MAX)
}

/// Ends as offsets: they only grow.
fn offsets(ends: Vec<i32>) -> OffsetBuffer<i32> {
    let all: Vec<i32> = std::iter::once(0).chain(ends).collect();
    OffsetBuffer::new(ScalarBuffer::from(all))
}

/// A type that is not that of its data: a mistake of ours.
fn lost() -> ArrowError {
    ArrowError::SchemaError("a column has another type than its values".to_owned())
}
