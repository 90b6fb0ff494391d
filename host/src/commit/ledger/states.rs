//! What records say of the state of plugins: where it lies, and which of it is needed. Pure.
//!
//! A state is of one source partition: what its plugins keep after all records below its next offset, and after the commits whose
//! files hold everything that they have given out until then. So it changes in the record that commits, and there alone: who
//! claims the partition finds offset and state of one moment.
//!
//! The bytes lie in objects under `_fs_data_sink/<pipeline>/state/`, written before the record and never changed. An object is
//! needed while a partition has it, and while a commit is pending that came after it: a lost file of that commit is written
//! again from the state before (`pipeline/restore.rs`). [`no_longer_needed`] says when one may be deleted.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use super::{
    record::{Action, Partition, Range},
    state::State,
};

/// The state of all plugins of a partition, from a commit on. Takes the place of the one before, whole.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PartitionState {
    /// Kafka topic, Redis key or path of a file.
    pub topic: String,
    /// Kafka partition number; 0 for the others.
    pub partition: i32,
    /// Of each dataset and plugin that has some.
    pub plugins: Vec<StateRef>,
}

/// The state of one plugin, and where it lies.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StateRef {
    /// The dataset whose records the plugin was given: one a partition, but for replayed dead letters.
    pub dataset: String,
    /// The plugin's name in the configuration.
    pub plugin: String,
    /// SHA-256 of the component that gave it, for people.
    pub component: String,
    /// Name of the object in the folder `state`; empty where there are no bytes.
    pub object: String,
    /// The object's length.
    pub object_bytes: u64,
    /// Where in the object it begins.
    pub from: u64,
    /// How long it is.
    pub bytes: u64,
    /// SHA-256 of it.
    pub sha256: String,
}

impl PartitionState {
    /// The partition that it is of.
    #[must_use]
    pub fn key(&self) -> Partition {
        Partition { topic: self.topic.clone(), partition: self.partition }
    }

    /// What is wrong with it, in words; only what our program would never write.
    pub(super) fn fault(&self) -> Option<String> {
        let Self { topic, partition, plugins } = self;
        let wrong = plugins.iter().find(|state| !state.is_sound())?;
        Some(format!("{topic}[{partition}]: the state of plugin {} is at no place that can be", wrong.plugin))
    }
}

impl StateRef {
    /// Whether it can lie where it says: an object of our folder, and a stretch inside of it.
    fn is_sound(&self) -> bool {
        let is_name = self.object.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'.');
        let ends = self.from.checked_add(self.bytes);
        is_name
            && !self.object.starts_with('.')
            && ends.is_some_and(|end| end <= self.object_bytes)
            && (self.bytes == 0 || !self.object.is_empty())
    }
}

/// The folder of ours in which the objects lie.
pub const STATES: &str = "state";

/// Where an object lies, in our folder.
#[must_use]
pub fn name(object: &str) -> String {
    format!("{STATES}/{object}")
}

/// The partitions that a commit is about, in the order in which it names them: those of its ranges, and those of which it
/// tells the state alone, since a plugin gave something out without a new record.
pub(super) fn partitions(ranges: &[Range], states: &[PartitionState]) -> Vec<Partition> {
    let of_ranges = ranges.iter().map(|range| Partition { topic: range.topic.clone(), partition: range.partition });
    let mut partitions: Vec<Partition> = of_ranges.collect();
    for state in states {
        if !partitions.contains(&state.key()) {
            partitions.push(state.key());
        }
    }
    partitions
}

/// The objects that a state of the ledger needs: those that partitions have, and those from before pending commits.
#[must_use]
pub fn needed(state: &State) -> BTreeSet<&str> {
    let of_partitions = state.partitions.values().flat_map(|position| &position.state);
    let before = state.pending.values().flat_map(|pending| &pending.before).flat_map(|before| &before.plugins);
    of_partitions.chain(before).filter(|state| !state.object.is_empty()).map(|state| state.object.as_str()).collect()
}

/// The objects that a record names.
pub(super) fn named(action: &Action) -> BTreeSet<&str> {
    match action {
        Action::Commit { states, .. } => {
            let plugins = states.iter().flat_map(|state| &state.plugins);
            plugins.filter(|state| !state.object.is_empty()).map(|state| state.object.as_str()).collect()
        }
        _ => BTreeSet::new(),
    }
}

/// The objects that nobody needs any more, once a snapshot is taken. `old`: what older snapshots need and what records name that
/// are about to be deleted. `kept`: what the records name that stay. One that was needed within the last stretch of records stays
/// until the next time, unless an older snapshot had it: who had it then was fenced off before it was replaced, and reads no
/// more than the words that it was.
#[must_use]
pub fn no_longer_needed(now: &State, old: BTreeSet<String>, kept: &BTreeSet<String>) -> Vec<String> {
    let needed = needed(now);
    old.into_iter().filter(|object| !needed.contains(object.as_str()) && !kept.contains(object)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A state in an object.
    fn state(object: &str, object_bytes: u64, from: u64, bytes: u64) -> StateRef {
        let text = |text: &str| text.to_owned();
        StateRef {
            dataset: text("orders"),
            plugin: text("windows"),
            component: text("ab"),
            object: text(object),
            object_bytes,
            from,
            bytes,
            sha256: text("cd"),
        }
    }

    #[test]
    fn a_state_lies_inside_of_an_object_of_our_folder() {
        for sound in [state("019ab3f0-9f86d081.bin", 10, 4, 6), state("", 0, 0, 0)] {
            assert!(sound.is_sound(), "{sound:?}");
        }
        for wrong in [
            state("../../secret", 10, 0, 10),
            state("..", 10, 0, 10),
            state("a/../../secret", 10, 0, 10),
            state("a", 10, 5, 6),
            state("a", u64::MAX, u64::MAX, 1),
            state("", 6, 0, 6),
        ] {
            assert!(!wrong.is_sound(), "{wrong:?}");
        }
    }
}
