//! What came of a trial, for people and for programs.

use std::{fmt::Write as _, time::Duration};

use serde_json::{Map, Value, json};

use super::{
    input::Input,
    snapshot::clean,
    trial::{Rejected, Trial},
};

/// Letters of one cell.
const CELL_LETTERS_MAX: usize = 32;
/// Records that are named of one refusal.
const RECORDS_MAX: usize = 10;
/// Refusals that are shown.
const REJECTED_MAX: usize = 50;

/// One JSON object, for programs. `differences`: from what was expected, where something was.
pub(super) fn as_json(input: &Input, trial: &Trial, logs: &[String], differences: Option<&[String]>) -> Value {
    let rejected = trial.rejected.iter().map(|Rejected { stage, code, message, rows, records }| {
        json!({"stage": stage, "code": code, "message": message, "rows": rows, "records": records})
    });
    let columns = trial.columns.iter().map(|(name, data_type)| json!({"name": name, "type": data_type}));
    json!({
        "records": input.records,
        "rows_in": input.rows(),
        "rows_out": trial.rows.len(),
        "rows_filtered": trial.filtered,
        "columns": columns.collect::<Vec<_>>(),
        "rows": trial.rows,
        "rejected": rejected.collect::<Vec<_>>(),
        "logs": logs,
        "start_seconds": trial.start.as_secs_f64(),
        "call_seconds": trial.calls.as_secs_f64(),
        "memory_bytes": trial.memory_bytes,
        "failed": trial.failed,
        "differences": differences,
    })
}

/// For people. Writing to a String cannot fail.
pub(super) fn as_text(input: &Input, trial: &Trial, logs: &[String], rows_max: usize) -> String {
    let mut text = table(&trial.columns, &trial.rows, rows_max);
    if trial.rows.len() > rows_max {
        let _ = writeln!(text, "... and {} rows more (--rows 0 shows all)", trial.rows.len() - rows_max);
    }
    if !trial.rejected.is_empty() {
        let _ = writeln!(text, "\nrefused:");
        for Rejected { stage, code, message, rows, records } in trial.rejected.iter().take(REJECTED_MAX) {
            let named: Vec<_> = records.iter().take(RECORDS_MAX).map(ToString::to_string).collect();
            let more = if records.len() > RECORDS_MAX { ", ..." } else { "" };
            let place = if named.is_empty() { String::new() } else { format!(" (records {}{more})", named.join(", ")) };
            let _ = writeln!(text, "  {stage}: {code}: {rows} rows{place}: {}", clean(message));
        }
        if let Some(more) = trial.rejected.len().checked_sub(REJECTED_MAX).filter(|more| *more > 0) {
            let _ = writeln!(text, "  ... and {more} reasons more");
        }
    }
    if !logs.is_empty() {
        let _ = writeln!(text, "\nlog:");
        for line in logs {
            let _ = writeln!(text, "  {}", clean(line));
        }
    }
    let refused: usize = trial.of_plugin().map(|rejected| rejected.rows).sum();
    let filtered = trial.filtered.map_or_else(String::new, |filtered| format!(", {filtered} filtered"));
    let cut = if input.is_cut { ", more records were not read (--records 0 reads all)" } else { "" };
    let _ = write!(
        text,
        "\n{} rows in, {} out{filtered}, {refused} refused{cut}\nstart {}, calls {} in {} batches, memory {}\n",
        input.rows(),
        trial.rows.len(),
        time(trial.start),
        time(trial.calls),
        input.batches.len(),
        memory(trial.memory_bytes),
    );
    text
}

/// A table of the first rows.
fn table(columns: &[(String, String)], rows: &[Map<String, Value>], rows_max: usize) -> String {
    let rows: Vec<Vec<String>> = rows
        .iter()
        .take(rows_max)
        .map(|row| columns.iter().map(|(name, _)| row.get(name).map_or_else(String::new, cell)).collect())
        .collect();
    let heads: Vec<String> = columns.iter().map(|(name, _)| shorten(&clean(name))).collect();
    let types: Vec<String> = columns.iter().map(|(_, data_type)| shorten(&clean(data_type))).collect();
    let mut widths = vec![0; columns.len()];
    for row in rows.iter().chain([&heads, &types]) {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = cell.chars().count().max(*width);
        }
    }
    let mut text = String::new();
    let rule: Vec<String> = widths.iter().map(|width| "-".repeat(*width)).collect();
    for row in [&heads, &types, &rule].into_iter().chain(&rows) {
        let cells: Vec<_> = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}")).collect();
        let _ = writeln!(text, "{}", cells.join("  ").trim_end());
    }
    text
}

/// A value in a cell: texts as they are, all else as JSON.
fn cell(value: &Value) -> String {
    match value {
        Value::String(text) => shorten(&clean(text)),
        value => shorten(&clean(&value.to_string())),
    }
}

/// Text that fits a cell.
fn shorten(text: &str) -> String {
    match text.char_indices().nth(CELL_LETTERS_MAX) {
        Some(_) => text.chars().take(CELL_LETTERS_MAX - 1).chain(['…']).collect(),
        None => text.to_owned(),
    }
}

/// A time for people.
pub(super) fn time(time: Duration) -> String {
    match time.as_secs_f64() {
        seconds if seconds >= 1.0 => format!("{seconds:.2} s"),
        seconds if seconds >= 1e-3 => format!("{:.1} ms", seconds * 1e3),
        seconds => format!("{:.1} us", seconds * 1e6),
    }
}

/// Bytes for people, in tenths of a MiB.
pub(super) fn memory(bytes: usize) -> String {
    let tenths = bytes.saturating_mul(10).div_ceil(1 << 20);
    format!("{}.{} MiB", tenths / 10, tenths % 10)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_is_aligned_and_steers_no_terminal() {
        let columns = [("n".to_owned(), "Int64".to_owned()), ("text\u{1b}".to_owned(), "Utf8".to_owned())];
        let row = |n: u64, text: Value| Map::from_iter([("n".to_owned(), n.into()), ("text\u{1b}".to_owned(), text)]);
        let rows = [row(1, "a\nb".into()), row(200_000, Value::Null), row(3, "x".repeat(100).into())];
        let text = table(&columns, &rows, 3);
        let long = format!("{}…", "x".repeat(31));
        let expected = format!(
            "n       text\nInt64   Utf8\n------  {}\n1       a b\n200000  null\n3       {long}\n",
            "-".repeat(32)
        );
        assert_eq!(text, expected);
        assert_eq!(table(&columns, &rows, 0).lines().count(), 3);
    }

    #[test]
    fn times_and_bytes_are_for_people() {
        let times = [1_500_000, 1_500, 15].map(|micros| time(Duration::from_micros(micros)));
        assert_eq!(times, ["1.50 s", "1.5 ms", "15.0 us"]);
        assert_eq!([memory(0), memory(1), memory(3 << 20)], ["0.0 MiB", "0.1 MiB", "3.0 MiB"]);
    }
}
