//! What is expected of a plugin: lines of JSON, the rows that come out and behind them what was refused.
//!
//! Rows are compared by their values, so the order of keys does not matter and 1 is not 1.0. A refusal is
//! `{"$rejected": {"code": ..., "message": ..., "records": [...]}}`.

use std::{collections::BTreeMap, fmt::Write as _, fs, io, path::Path};

use serde_json::{Value, json};

use super::trial::{Rejected, Trial};

/// Bytes of a file with what is expected.
const FILE_BYTES_MAX: u64 = 256 << 20;
/// Differences that are shown.
const DIFFERENCES_MAX: usize = 20;
/// Lines between the first and the last difference that are held against each other, each with each.
const ALIGNED_MAX: usize = 1_000;
/// Letters of a line in a difference.
const LINE_LETTERS_MAX: usize = 400;

/// What came out, as lines of a snapshot.
pub(super) fn lines(trial: &Trial) -> Vec<Value> {
    let rows = trial.rows.iter().cloned().map(Value::Object);
    let rejected = trial.rejected.iter().map(|Rejected { code, message, records, .. }| {
        json!({"$rejected": {"code": code, "message": message, "records": records}})
    });
    rows.chain(rejected).collect()
}

/// Writes a snapshot, whole or not at all.
pub(super) fn write(path: &Path, lines: &[Value]) -> io::Result<()> {
    let mut text = String::new();
    for line in lines {
        // Writing to a String cannot fail.
        let _ = writeln!(text, "{line}");
    }
    let mut temporary = path.as_os_str().to_owned();
    temporary.push(".new");
    fs::write(&temporary, text)?;
    fs::rename(&temporary, path)
}

/// Reads a snapshot.
pub(super) fn read(path: &Path) -> Result<Vec<Value>, String> {
    let shown = path.display();
    let failed = |error: io::Error| match error.kind() {
        io::ErrorKind::NotFound => format!("{shown} does not exist; --update writes it"),
        _ => format!("{shown} cannot be read: {error}"),
    };
    if fs::metadata(path).map_err(failed)?.len() > FILE_BYTES_MAX {
        return Err(format!("{shown} is larger than {} MiB", FILE_BYTES_MAX >> 20));
    }
    let text = fs::read_to_string(path).map_err(failed)?;
    let lines = text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty());
    lines
        .map(|(number, line)| {
            serde_json::from_str(line).map_err(|error| format!("{shown}: line {}: not JSON: {error}", number + 1))
        })
        .collect()
}

/// How what came out differs from what was expected, in lines for people; none where it does not.
pub(super) fn differences(expected: &[Value], found: &[Value]) -> Vec<String> {
    let same_before = expected.iter().zip(found).take_while(|(left, right)| left == right).count();
    let (left, right) = (expected.get(same_before..).unwrap_or(&[]), found.get(same_before..).unwrap_or(&[]));
    let same_behind = left.iter().rev().zip(right.iter().rev()).take_while(|(left, right)| left == right).count();
    let left = left.get(..left.len() - same_behind).unwrap_or(&[]);
    let right = right.get(..right.len() - same_behind).unwrap_or(&[]);
    let pairs = align(left, right);
    let (mut told, mut count, mut number) = (Vec::new(), 0_usize, same_before);
    for pair in pairs {
        number += usize::from(pair.1.is_some());
        if pair.0 == pair.1 {
            continue;
        }
        count += 1;
        if count <= DIFFERENCES_MAX {
            tell(pair, number, &mut told);
        }
    }
    if count > DIFFERENCES_MAX {
        told.push(format!("... and {} differences more", count - DIFFERENCES_MAX));
    }
    told
}

/// One difference. `number`: of the line that came out, from 1, or of the one before it.
fn tell(pair: (Option<&Value>, Option<&Value>), number: usize, told: &mut Vec<String>) {
    match pair {
        (Some(Value::Object(expected)), Some(Value::Object(found))) => {
            told.push(format!("line {number} differs:"));
            let mut columns: BTreeMap<&str, (Option<&Value>, Option<&Value>)> = BTreeMap::new();
            for (key, value) in expected {
                columns.entry(key).or_default().0 = Some(value);
            }
            for (key, value) in found {
                columns.entry(key).or_default().1 = Some(value);
            }
            let shown = |value: Option<&Value>| value.map_or_else(|| "nothing".to_owned(), shorten);
            for (key, (expected, found)) in columns.into_iter().filter(|(_, (expected, found))| expected != found) {
                told.push(format!("  {}: expected {}, got {}", clean(key), shown(expected), shown(found)));
            }
        }
        (Some(expected), Some(found)) => {
            told.push(format!("line {number} differs:"));
            told.push(format!("  - {}", shorten(expected)));
            told.push(format!("  + {}", shorten(found)));
        }
        (Some(expected), None) => told.push(format!("missing behind line {number}: {}", shorten(expected))),
        (None, Some(found)) => told.push(format!("not expected, line {number}: {}", shorten(found))),
        (None, None) => {}
    }
}

/// A value on one line, not too long.
fn shorten(value: &Value) -> String {
    let text = clean(&value.to_string());
    match text.char_indices().nth(LINE_LETTERS_MAX) {
        Some((end, _)) => format!("{}...", text.get(..end).unwrap_or_default()),
        None => text,
    }
}

/// Text without what could steer a terminal.
pub(super) fn clean(text: &str) -> String {
    text.chars().map(|letter| if letter.is_control() { ' ' } else { letter }).collect()
}

/// Pairs of lines that belong together: those of the longest common sequence, and what lies between them one by one.
fn align<'a>(left: &'a [Value], right: &'a [Value]) -> Vec<(Option<&'a Value>, Option<&'a Value>)> {
    if left.len() > ALIGNED_MAX || right.len() > ALIGNED_MAX {
        return one_by_one(left, right);
    }
    let width = right.len() + 1;
    // common[i * width + j]: the longest common sequence of what begins at `i` and at `j`.
    let mut common = vec![0_u32; (left.len() + 1) * width];
    let at = |common: &[u32], i: usize, j: usize| common.get(i * width + j).copied().unwrap_or(0);
    for (i, one) in left.iter().enumerate().rev() {
        for (j, other) in right.iter().enumerate().rev() {
            let best = if one == other {
                at(&common, i + 1, j + 1) + 1
            } else {
                at(&common, i + 1, j).max(at(&common, i, j + 1))
            };
            if let Some(place) = common.get_mut(i * width + j) {
                *place = best;
            }
        }
    }
    let (mut pairs, mut i, mut j) = (Vec::new(), 0, 0);
    let (mut begin_left, mut begin_right) = (0, 0);
    let between = |from: usize, to: usize, lines: &'a [Value]| lines.get(from..to).unwrap_or(&[]);
    while let (Some(one), Some(other)) = (left.get(i), right.get(j)) {
        if one == other {
            pairs.extend(one_by_one(between(begin_left, i, left), between(begin_right, j, right)));
            pairs.push((Some(one), Some(other)));
            (i, j) = (i + 1, j + 1);
            (begin_left, begin_right) = (i, j);
        } else if at(&common, i + 1, j) >= at(&common, i, j + 1) {
            i += 1;
        } else {
            j += 1;
        }
    }
    pairs.extend(one_by_one(between(begin_left, left.len(), left), between(begin_right, right.len(), right)));
    pairs
}

/// The first with the first, and so on.
fn one_by_one<'a>(left: &'a [Value], right: &'a [Value]) -> Vec<(Option<&'a Value>, Option<&'a Value>)> {
    (0..left.len().max(right.len())).map(|at| (left.get(at), right.get(at))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Lines of numbered rows.
    fn rows(numbers: impl IntoIterator<Item = u64>) -> Vec<Value> {
        numbers.into_iter().map(|number| json!({"n": number, "s": "x"})).collect()
    }

    #[test]
    fn differences_are_told_by_line_and_column() {
        assert_eq!(differences(&rows(0..5), &rows(0..5)), Vec::<String>::new());
        assert_eq!(differences(&[json!({"a": 1, "b": 2})], &[json!({"b": 2, "a": 1})]), Vec::<String>::new());
        assert_eq!(differences(&rows([0, 1, 2]), &rows([0, 2])), [r#"missing behind line 1: {"n":1,"s":"x"}"#]);
        assert_eq!(differences(&rows([0, 2]), &rows([0, 1, 2])), [r#"not expected, line 2: {"n":1,"s":"x"}"#]);
        assert_eq!(differences(&rows([0, 1, 2]), &rows([0, 7, 2])), ["line 2 differs:", "  n: expected 1, got 7"]);
        assert_eq!(
            differences(&[json!({"a": 1})], &[json!({"a": 1, "b": null})]),
            ["line 1 differs:", "  b: expected nothing, got null"]
        );
        assert_eq!(differences(&[json!(1)], &[json!(1.0)]), ["line 1 differs:", "  - 1", "  + 1.0"]);
        // A row that is missing in the middle does not make all behind it differ.
        let told = differences(&rows((0..100).filter(|n| *n != 50)), &rows(0..99));
        assert_eq!(told, [r#"not expected, line 51: {"n":50,"s":"x"}"#, r#"missing behind line 99: {"n":99,"s":"x"}"#]);
    }

    #[test]
    fn many_differences_are_cut_and_long_files_are_compared_line_by_line() {
        let told = differences(&rows(0..50), &rows(100..150));
        assert_eq!((told.len(), told.last().unwrap().as_str()), (41, "... and 30 differences more"));
        let told = differences(&rows(0..5_000), &rows(1..5_001));
        assert_eq!(told.last().unwrap(), "... and 4980 differences more");
        assert_eq!(clean("a\u{1b}[31mb"), "a [31mb");
    }

    #[test]
    fn a_snapshot_is_written_and_read_and_bad_ones_are_told_by_line() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("out.ndjson");
        assert!(read(&path).unwrap_err().ends_with("does not exist; --update writes it"));
        write(&path, &rows(0..3)).unwrap();
        assert_eq!(read(&path).unwrap(), rows(0..3));
        fs::write(&path, "{}\n\nnope\n").unwrap();
        assert!(read(&path).unwrap_err().contains("line 3: not JSON"));
    }
}
