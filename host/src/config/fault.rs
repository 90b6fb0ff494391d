//! What is wrong with a configuration: every fault at once, each with its place.

use std::{cell::RefCell, collections::BTreeSet, fmt, sync::Arc};

/// Where a value came from.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Place {
    /// A line of a file.
    Line(Arc<str>, usize),
    /// An environment variable, a flag, or the whole configuration.
    Other(Arc<str>),
}

impl Place {
    /// Something that is no line of a file.
    pub(super) fn other(name: impl Into<Arc<str>>) -> Self {
        Self::Other(name.into())
    }
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
        let separator = if path.is_empty() { "" } else { ": " };
        write!(formatter, "{place}: {path}{separator}{message}")
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

/// A key that nobody asked for; what to say about it is known once everything was read.
#[derive(Debug)]
pub(super) struct UnknownKey {
    /// Where it stands.
    pub(super) place: Place,
    /// The key, dotted from the top.
    pub(super) path: String,
    /// The key itself.
    pub(super) key: String,
    /// What is known in its section.
    pub(super) known: BTreeSet<&'static str>,
}

/// Collects faults while a configuration is read.
#[derive(Debug, Default)]
pub(super) struct Collector {
    /// So far.
    faults: RefCell<Vec<Fault>>,
    /// Keys that some section was asked for, dotted from the top of a pipeline, without indices and free names.
    asked: RefCell<BTreeSet<String>>,
    /// Keys that nobody asked for.
    unknown: RefCell<Vec<UnknownKey>>,
}

impl Collector {
    /// Notes a fault.
    pub(super) fn add(&self, place: &Place, path: &str, message: impl Into<String>) {
        let fault = Fault { place: place.clone(), path: path.to_owned(), message: message.into() };
        let mut faults = self.faults.borrow_mut();
        if !faults.contains(&fault) {
            faults.push(fault);
        }
    }

    /// Whether nothing is wrong so far.
    pub(super) fn is_empty(&self) -> bool {
        self.faults.borrow().is_empty() && self.unknown.borrow().is_empty()
    }

    /// Notes a key that exists.
    pub(super) fn note_asked(&self, plain_path: String) {
        self.asked.borrow_mut().insert(plain_path);
    }

    /// Notes a key that nobody asked for.
    pub(super) fn note_unknown(&self, unknown: UnknownKey) {
        self.unknown.borrow_mut().push(unknown);
    }

    /// All faults, in the order of the file; an error if there is any.
    pub(super) fn finish<T>(self, value: Option<T>) -> Result<T, Faults> {
        for unknown in self.unknown.take() {
            let message = unknown.message(&self.asked.borrow());
            self.add(&unknown.place, &unknown.path, message);
        }
        let mut faults = self.faults.into_inner();
        faults.sort();
        match value {
            Some(value) if faults.is_empty() => Ok(value),
            _ => Err(Faults(faults)),
        }
    }
}

impl UnknownKey {
    /// What to do about it: a typing error first, then a key of another section, then a distant likeness.
    fn message(&self, asked: &BTreeSet<String>) -> String {
        let Self { key, known, .. } = self;
        let near = nearest(key, known.iter().copied());
        if let Some(near) = near.filter(|near| distance(key, near) <= 1) {
            return format!("unknown key; did you mean `{near}`?");
        }
        let ends_so = |path: &&String| path.rsplit('.').next() == Some(key);
        let elsewhere: Vec<_> = asked.iter().filter(ends_so).map(|path| format!("`{path}`")).collect();
        if !elsewhere.is_empty() {
            return format!("unknown key here; did you mean {}?", elsewhere.join(" or "));
        }
        if let Some(near) = near {
            return format!("unknown key; did you mean `{near}`?");
        }
        let known: Vec<_> = known.iter().copied().collect();
        format!("unknown key; known here: {}", known.join(", "))
    }
}

/// The known word that is nearest to a word, if it is near enough to be what was meant.
pub(super) fn nearest<'a>(word: &str, known: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let word = word.to_lowercase();
    known
        .map(|candidate| (distance(&word, &candidate.to_lowercase()), candidate))
        .filter(|(distance, candidate)| *distance <= candidate.chars().count().div_ceil(4))
        .min()
        .map(|(_, candidate)| candidate)
}

/// `did you mean ...?` with a leading `; `, or nothing.
pub(super) fn hint<'a>(word: &str, known: impl Iterator<Item = &'a str>) -> String {
    nearest(word, known).map(|near| format!("; did you mean {near}?")).unwrap_or_default()
}

/// The same as the end of a sentence.
pub(super) fn hint_or_stop<'a>(word: &str, known: impl Iterator<Item = &'a str>) -> String {
    Some(hint(word, known)).filter(|hint| !hint.is_empty()).unwrap_or_else(|| ".".to_owned())
}

/// Insertions, deletions, replacements and swaps of neighbours between two words (optimal string alignment). Of long
/// words only the beginning counts.
fn distance(left: &str, right: &str) -> usize {
    let (left, right): (Vec<char>, Vec<char>) = (left.chars().take(64).collect(), right.chars().take(64).collect());
    let mut rows = vec![vec![0usize; right.len() + 1]; left.len() + 1];
    let at = |rows: &Vec<Vec<usize>>, i: usize, j: usize| rows.get(i).and_then(|row| row.get(j)).copied().unwrap_or(0);
    for i in 0..=left.len() {
        for j in 0..=right.len() {
            let value = if i == 0 || j == 0 {
                i + j
            } else {
                let replaced = at(&rows, i - 1, j - 1) + usize::from(left.get(i - 1) != right.get(j - 1));
                let mut best = (at(&rows, i - 1, j) + 1).min(at(&rows, i, j - 1) + 1).min(replaced);
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
        let known = ["topics", "group_id", "bootstrap_servers", "name"];
        assert_eq!(nearest("topcis", known.into_iter()), Some("topics"));
        assert_eq!(nearest("Bootstrap_server", known.into_iter()), Some("bootstrap_servers"));
        assert_eq!(nearest("colour", known.into_iter()), None);
        assert_eq!(nearest("lanes", known.into_iter()), None);
    }

    #[test]
    fn the_distance_counts_edits() {
        assert_eq!(distance("", "abc"), 3);
        assert_eq!(distance("kafak", "kafka"), 1);
        assert_eq!(distance("zsdt", "zstd"), 1);
        assert_eq!(distance("sink", "source"), 5);
        assert_eq!(distance(&"x".repeat(10_000), &"x".repeat(10_000)), 0);
    }
}
