//! Rows as a plugin may see them.
//!
//! Comes in: an array of a plain type, maybe a slice of a larger one. Goes out: an equal array whose buffers hold the values of
//! these rows and nothing else: slices are copied, what lies in the slots of nulls is zero or empty, below a null too, and so are
//! the bits behind the last row. Arrow leaves all of that undefined, so it may hold rows that the plugin was not given.

use arrow_array::OffsetSizeTrait;
use arrow_buffer::{BooleanBuffer, Buffer, MutableBuffer, NullBuffer};
use arrow_data::{ArrayData, transform::MutableArrayData};
use arrow_schema::{ArrowError, DataType};

use crate::ipc::fixed_width;

/// The same values without bytes of anything else.
pub(super) fn only_given(array: ArrayData) -> Result<ArrayData, ArrowError> {
    let array = if is_compact(&array) {
        array
    } else {
        let mut copy = MutableArrayData::new(vec![&array], false, array.len());
        copy.try_extend(0, 0, array.len())?;
        copy.freeze()
    };
    if has_nulls(&array) { without_hidden(&array, None) } else { Ok(array) }
}

/// Whether the buffers of an array without children hold its own rows and nothing else, but for what nulls hide.
fn is_compact(array: &ArrayData) -> bool {
    let bits_end = |bits: &[u8]| {
        let spare = array.len() % 8;
        bits.len() == array.len().div_ceil(8) && (spare == 0 || bits.last().is_none_or(|last| last >> spare == 0))
    };
    let nulls_fit = array.nulls().is_none_or(|nulls| nulls.offset() == 0 && bits_end(nulls.buffer().as_slice()));
    let values_fit = match (array.data_type(), array.buffers()) {
        (DataType::Boolean, [bits]) => bits_end(bits.as_slice()),
        (DataType::Utf8 | DataType::Binary, [offsets, values]) => {
            let offsets = offsets.typed_data::<i32>();
            offsets.len() == array.len() + 1
                && offsets.first() == Some(&0)
                && offsets.last().and_then(|last| usize::try_from(*last).ok()) == Some(values.len())
        }
        (flat, [values]) => fixed_width(flat).is_some_and(|width| values.len() == array.len() * width),
        _ => false,
    };
    array.offset() == 0 && nulls_fit && values_fit
}

/// Whether there is a null in it or below it.
fn has_nulls(array: &ArrayData) -> bool {
    array.null_count() > 0 || array.child_data().iter().any(has_nulls)
}

/// A compact array without what its nulls, or those above it, hide.
fn without_hidden(array: &ArrayData, above: Option<&NullBuffer>) -> Result<ArrayData, ArrowError> {
    let shown = NullBuffer::union(array.nulls(), above).filter(|shown| shown.null_count() > 0);
    let builder = array.clone().into_builder();
    match (array.data_type(), array.buffers(), array.child_data()) {
        (DataType::Struct(_), _, children) => {
            let children = children.iter().map(|child| without_hidden(child, shown.as_ref()));
            builder.child_data(children.collect::<Result<_, _>>()?).build()
        }
        (DataType::FixedSizeList(_, size), _, [items]) => {
            let size = usize::try_from(*size).unwrap_or(0);
            let shown = shown.map(|shown| shown.expand(size));
            builder.child_data(vec![without_hidden(items, shown.as_ref())?]).build()
        }
        (DataType::List(_) | DataType::Map(..), [offsets], [items]) => {
            let (offsets, items) = shown_items::<i32>(offsets.typed_data(), items, array.len(), shown.as_ref())?;
            builder.buffers(vec![offsets]).child_data(vec![without_hidden(&items, None)?]).build()
        }
        (DataType::LargeList(_), [offsets], [items]) => {
            let (offsets, items) = shown_items::<i64>(offsets.typed_data(), items, array.len(), shown.as_ref())?;
            builder.buffers(vec![offsets]).child_data(vec![without_hidden(&items, None)?]).build()
        }
        (data_type, buffers, []) => match shown {
            Some(shown) => builder.buffers(shown_values(data_type, buffers, &shown)).build(),
            None => Ok(array.clone()),
        },
        _ => Ok(array.clone()),
    }
}

/// The offsets and items of lists, without the items of lists that are hidden.
fn shown_items<O: OffsetSizeTrait>(
    offsets: &[O],
    items: &ArrayData,
    rows: usize,
    shown: Option<&NullBuffer>,
) -> Result<(Buffer, ArrayData), ArrowError> {
    let mut copy = MutableArrayData::new(vec![items], false, items.len());
    let ranges = shown_ranges(offsets, rows, shown, |from, to| copy.try_extend(0, from, to))?;
    Ok((ranges, copy.freeze()))
}

/// The buffers of values without children, with zeros, or nothing, in the place of hidden ones.
fn shown_values(data_type: &DataType, buffers: &[Buffer], shown: &NullBuffer) -> Vec<Buffer> {
    match (data_type, buffers) {
        (DataType::Boolean, [bits]) => {
            vec![(&BooleanBuffer::new(bits.clone(), 0, shown.len()) & shown.inner()).sliced()]
        }
        (DataType::Utf8 | DataType::Binary, [offsets, values]) => {
            shown_bytes::<i32>(offsets.typed_data(), values, shown)
        }
        (DataType::LargeUtf8 | DataType::LargeBinary, [offsets, values]) => {
            shown_bytes::<i64>(offsets.typed_data(), values, shown)
        }
        (flat, [values]) => {
            let Some(width) = fixed_width(flat) else { return buffers.to_vec() };
            let mut cleared = MutableBuffer::from_len_zeroed(values.len());
            let slots = cleared.chunks_exact_mut(width).zip(values.chunks_exact(width)).zip(shown.iter());
            slots.filter(|(_, is_shown)| *is_shown).for_each(|((slot, value), _)| slot.copy_from_slice(value));
            vec![cleared.into()]
        }
        _ => buffers.to_vec(),
    }
}

/// Offsets and bytes of strings, without the bytes of hidden ones.
fn shown_bytes<O: OffsetSizeTrait>(offsets: &[O], values: &[u8], shown: &NullBuffer) -> Vec<Buffer> {
    let mut kept = MutableBuffer::with_capacity(values.len());
    let keep = |from: usize, to: usize| {
        kept.extend_from_slice(values.get(from..to).unwrap_or_default());
        Ok(())
    };
    // Only `keep` could fail, and it does not.
    let offsets = shown_ranges(offsets, shown.len(), Some(shown), keep).unwrap_or_default();
    vec![offsets, kept.into()]
}

/// New offsets for the ranges that are shown, each of which is handed to `keep`.
fn shown_ranges<O: OffsetSizeTrait>(
    offsets: &[O],
    rows: usize,
    shown: Option<&NullBuffer>,
    mut keep: impl FnMut(usize, usize) -> Result<(), ArrowError>,
) -> Result<Buffer, ArrowError> {
    let mut end = O::default();
    let mut kept = vec![end];
    // An empty array may have no offset at all.
    for (row, range) in offsets.array_windows::<2>().take(rows).enumerate() {
        let [from, to] = *range;
        if shown.is_none_or(|shown| shown.is_valid(row)) && from < to {
            // Offsets of an array are never negative.
            keep(from.as_usize(), to.as_usize())?;
            end += to - from;
        }
        kept.push(end);
    }
    Ok(Buffer::from_vec(kept))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow_array::{
        Array, ArrayRef, BooleanArray, FixedSizeListArray, Int64Array, LargeListArray, LargeStringArray, ListArray,
        MapArray, RecordBatch, StringArray, StructArray, make_array,
    };
    use arrow_buffer::{OffsetBuffer, ScalarBuffer};
    use arrow_ipc::writer::StreamWriter;
    use arrow_schema::{Field, Fields};
    use proptest::prelude::*;

    use super::*;

    /// What no plugin may see, in every slot that a null hides.
    const SECRET: &str = "secret!!";

    /// The same as a number.
    fn secret_number() -> i64 {
        i64::from_le_bytes(*b"secret!!")
    }

    /// Nulls at the rows that are `false`.
    fn nulls(valid: &[bool]) -> NullBuffer {
        NullBuffer::from(valid.to_vec())
    }

    /// The text, or the secret where it is null.
    fn texts(valid: &[bool]) -> Vec<&'static str> {
        valid.iter().map(|valid| if *valid { "seen" } else { SECRET }).collect()
    }

    /// Strings whose nulls hide the secret.
    fn strings(valid: &[bool]) -> ArrayRef {
        let all = StringArray::from(texts(valid));
        let (offsets, values, _) = all.into_parts();
        Arc::new(StringArray::new(offsets, values, Some(nulls(valid))))
    }

    /// Numbers whose nulls hide it.
    fn numbers(valid: &[bool]) -> ArrayRef {
        let values = valid.iter().map(|valid| if *valid { 7 } else { secret_number() }).collect::<Vec<_>>();
        Arc::new(Int64Array::new(ScalarBuffer::from(values), Some(nulls(valid))))
    }

    /// A column of every shape; `valid` says which rows are there, each row's secrets are in it and below it.
    fn columns(valid: &[bool]) -> Vec<ArrayRef> {
        let rows = valid.len();
        let shown = vec![true; rows];
        // Below: values that are not null themselves, but a secret where the row is null.
        let below = || Arc::new(StringArray::from(texts(valid))) as ArrayRef;
        let inner = StructArray::new(
            Fields::from(vec![Field::new("s", DataType::Utf8, false), Field::new("n", DataType::Int64, true)]),
            vec![below(), numbers(valid)],
            Some(nulls(valid)),
        );
        let item = |array: &dyn Array| Arc::new(Field::new("item", array.data_type().clone(), true));
        let offsets = OffsetBuffer::<i32>::from_lengths(std::iter::repeat_n(1, rows));
        let large = OffsetBuffer::<i64>::from_lengths(std::iter::repeat_n(1, rows));
        let entries = StructArray::new(
            Fields::from(vec![Field::new("key", DataType::Utf8, false), Field::new("value", DataType::Utf8, true)]),
            vec![below(), below()],
            None,
        );
        let map = Arc::new(Field::new("entries", entries.data_type().clone(), false));
        let text = below();
        vec![
            strings(valid),
            Arc::new(LargeStringArray::from(
                texts(valid).into_iter().zip(valid).map(|(text, valid)| valid.then_some(text)).collect::<Vec<_>>(),
            )),
            numbers(valid),
            Arc::new(BooleanArray::new(BooleanBuffer::from(shown), Some(nulls(valid)))),
            Arc::new(ListArray::new(item(&text), offsets.clone(), below(), Some(nulls(valid)))),
            Arc::new(LargeListArray::new(item(&inner), large, Arc::new(inner.clone()), Some(nulls(valid)))),
            Arc::new(FixedSizeListArray::new(item(&inner), 1, Arc::new(inner.clone()), Some(nulls(valid)))),
            Arc::new(MapArray::new(map, offsets, entries, Some(nulls(valid)), false)),
            Arc::new(inner),
        ]
    }

    /// Everything that would cross over for a column.
    fn crossing(array: &ArrayData) -> Vec<u8> {
        let rows = RecordBatch::try_from_iter([("c", make_array(array.clone()))]).unwrap();
        let mut writer = StreamWriter::try_new(Vec::new(), rows.schema_ref()).unwrap();
        writer.write(&rows).unwrap();
        writer.into_inner().unwrap()
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn nothing_that_is_hidden_crosses_over(
            valid in proptest::collection::vec(any::<bool>(), 1..40), from in 0_usize..40, length in 0_usize..40
        ) {
            let from = from.min(valid.len());
            let length = length.min(valid.len() - from);
            for column in columns(&valid) {
                let given = column.slice(from, length);
                let clean = only_given(given.to_data()).unwrap();
                clean.validate_full().unwrap();
                prop_assert_eq!(&make_array(clean.clone()), &given);
                let bytes = crossing(&clean);
                prop_assert!(!bytes.windows(8).any(|bytes| bytes == SECRET.as_bytes()), "{}", given.data_type());
            }
        }
    }

    #[test]
    fn the_secret_is_there_without_it() {
        let hidden = columns(&[true, false]).into_iter().map(|column| crossing(&column.to_data()));
        let found = hidden.filter(|bytes| bytes.windows(8).any(|bytes| bytes == SECRET.as_bytes())).count();
        assert_eq!(found, 7, "all but the booleans and the large strings, which have none");
    }

    #[test]
    fn flags_of_nulls_are_cleared_and_what_is_clean_is_not_copied() {
        let flags = BooleanArray::new(BooleanBuffer::from(vec![true; 3]), Some(nulls(&[true, false, true])));
        let clean = only_given(flags.to_data()).unwrap();
        assert_eq!(clean.buffers()[0].as_slice(), [0b101]);
        let clean = Int64Array::from(vec![1, 2, 3]).to_data();
        assert!(only_given(clean.clone()).unwrap().ptr_eq(&clean));
    }
}
