//! Rows of records that were written with several schemas: one column of structs for each schema, as typed parts in the end.

use std::sync::Arc;

use arrow_schema::DataType;

use super::{
    cells::{Column, Room},
    fault::Fault,
    parts::Parts,
    typed::{Part, Source},
};

/// Rows of one schema under construction.
struct Group<T> {
    /// Their schema.
    schema: Arc<T>,
    /// Them.
    rows: Column,
    /// The record of each.
    records: Vec<u32>,
}

/// Rows of all schemas of a batch.
pub(super) struct Groups<T>(Vec<Group<T>>);

impl<T> Groups<T> {
    /// None yet.
    pub(super) fn new() -> Self {
        Self(Vec::new())
    }

    /// Reads a record into the rows of its schema, which become this type; what a record that is refused left is cut off.
    pub(super) fn read(
        &mut self,
        (schema, data_type): (&Arc<T>, &DataType),
        number: u32,
        room: &mut Room,
        read: impl FnOnce(&mut Column, &mut Room) -> Result<(), Fault>,
    ) -> Result<(), Fault> {
        let known = self.0.iter().position(|group| Arc::ptr_eq(&group.schema, schema));
        let position = known.unwrap_or(self.0.len());
        if known.is_none() {
            self.0.push(Group { schema: Arc::clone(schema), rows: new_column(data_type)?, records: Vec::new() });
        }
        let Some(group) = self.0.get_mut(position) else { return Ok(()) };
        room.next_record();
        let read = read(&mut group.rows, room);
        if read.is_ok() {
            group.records.push(number);
        } else {
            group.rows.truncate(group.records.len());
            room.give_back();
        }
        read
    }

    /// Adds the rows to those that are typed already; records that cannot become rows are refused.
    pub(super) fn finish(self, read: &mut Parts) {
        for mut group in self.0 {
            match group.rows.take_rows() {
                Ok(rows) => read.typed.push(Part { rows, source: Source::Each(group.records) }),
                Err(error) => {
                    let fault = Fault { code: "decode-failed", message: error.to_string() };
                    read.refused.extend(group.records.into_iter().map(|record| (record, fault.clone())));
                }
            }
        }
    }
}

/// A column for rows.
pub(super) fn new_column(data_type: &DataType) -> Result<Column, Fault> {
    Column::new(data_type).ok_or_else(|| Fault {
        code: "unsupported-type",
        message: "the schema has a type that no column holds".to_owned(),
    })
}
