//! What is wrong with a configuration: every fault at once, each with its place.

use std::{cell::RefCell, fmt, sync::Arc};

/// Where a value came from.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Place {
    /// A line of a file.
    Line(Arc<str>, usize),
    /// An environment variable, a flag, or the whole configuration.
    Other(Arc<str>),
}

impl fmt::Display for Place {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Line(file, line) => write!(formatter, "{file}:{line}"),
            Self::Other(name) => formatter.write_str(name),
        }
    }
}

/// One thing that is wrong.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Fault {
    /// Where.
    pub place: Place,
    /// The key, dotted from the top.
    pub path: String,
    /// What is wrong and what to do.
    pub message: String,
}

impl fmt::Display for Fault {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { place, path, message } = self;
        if path.is_empty() {
            write!(formatter, "{place}: {message}")
        } else {
            write!(formatter, "{place}: {path}: {message}")
        }
    }
}

/// Everything that is wrong, a line each.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Faults(pub Vec<Fault>);

impl fmt::Display for Faults {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let lines: Vec<_> = self.0.iter().map(ToString::to_string).collect();
        formatter.write_str(&lines.join("\n"))
    }
}

impl std::error::Error for Faults {}

/// Collects faults while a configuration is read.
#[derive(Debug, Default)]
pub(super) struct Collector(RefCell<Vec<Fault>>);

impl Collector {
    /// Notes a fault.
    pub(super) fn add(&self, place: &Place, path: &str, message: impl Into<String>) {
        let fault = Fault { place: place.clone(), path: path.to_owned(), message: message.into() };
        let mut faults = self.0.borrow_mut();
        if !faults.contains(&fault) {
            faults.push(fault);
        }
    }

    /// All of them, in the order of the file; an error if there is any.
    pub(super) fn finish<T>(self, value: Option<T>) -> Result<T, Faults> {
        let mut faults = self.0.into_inner();
        faults.sort();
        match value {
            Some(value) if faults.is_empty() => Ok(value),
            _ => Err(Faults(faults)),
        }
    }
}

/// The known word that is nearest to a word, if it is near enough to be what was meant.
pub(super) fn nearest<'a>(word: &str, known: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    known
        .map(|candidate| (distance(&word.to_lowercase(), candidate), candidate))
        .filter(|(distance, candidate)| *distance <= 1 + candidate.len() / 4)
        .min()
        .map(|(_, candidate)| candidate)
}

/// Insertions, deletions, replacements and swaps of neighbours between two words (optimal string alignment).
fn distance(left: &str, right: &str) -> usize {
    let (left, right): (Vec<char>, Vec<char>) = (left.chars().take(64).collect(), right.chars().take(64).collect());
    let mut rows = vec![vec![0usize; right.len() + 1]; left.len() + 1];
    let at = |rows: &Vec<Vec<usize>>, i: usize, j: usize| rows.get(i).and_then(|row| row.get(j)).copied().unwrap_or(0);
    for i in 0..=left.len() {
        for j in 0..=right.len() {
            let value = if i == 0 || j == 0 {
                i + j
            } else {
                let same = usize::from(left.get(i - 1) != right.get(j - 1));
                let mut best =
                    (at(&rows, i - 1, j) + 1).min(at(&rows, i, j - 1) + 1).min(at(&rows, i - 1, j - 1) + same);
                if i > 1 && j > 1 && left.get(i - 1) == right.get(j - 2) && left.get(i - 2) == right.get(j - 1) {
                    best = best.min(at(&rows, i - 2, j - 2) + 1);
                }
                best
            };
            if let Some(slot) = rows.get_mut(i).and_then(|row| row.get_mut(j)) {
                *slot = value;
            }
        }
    }
    at(&rows, left.len(), right.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn near_misses_are_found_and_far_ones_are_not() {
        let known = ["topics", "group_id", "bootstrap_servers"];
        assert_eq!(nearest("topcis", known.into_iter()), Some("topics"));
        assert_eq!(nearest("Bootstrap_server", known.into_iter()), Some("bootstrap_servers"));
        assert_eq!(nearest("colour", known.into_iter()), None);
    }
}
