//! What the records of a ledger add up to. Pure: no I/O, no clock.
//!
//! Comes in: records in the order of their sequence. Goes out: for each source partition its owner and the next offset to
//! read, with the state of its plugins there; the commits whose files are not known to be visible; and whether a writer may
//! append what it wants to.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::{
    record::{Action, Merge, Partition, Range, Record, RecordedFile},
    states::{self, PartitionState, StateRef},
};

/// The sum of all records below `next`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct State {
    /// Sequence of the next record.
    pub next: u64,
    /// Every partition that a record has named.
    #[serde(with = "as_list")]
    pub partitions: BTreeMap<Partition, Position>,
    /// Commits whose files are not known to be visible, by sequence.
    pub pending: BTreeMap<u64, Pending>,
    /// The nonces of the last records, by sequence.
    pub recent: BTreeMap<u64, String>,
    /// The ids of the topics that were claimed last, where their source has some.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub topic_ids: BTreeMap<String, String>,
    /// Who merges files, and what.
    #[serde(default)]
    pub compaction: Compaction,
}

/// Who merges files, and what. One merge at a time: so no file can be merged into two.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Compaction {
    /// Who may merge; nobody after a release.
    pub owner: Option<String>,
    /// The merge that is recorded and not known to be finished, with its sequence.
    pub pending: Option<(u64, Merge)>,
    /// Sequence of the last record of a compactor.
    pub last: u64,
}

/// One partition.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Position {
    /// Who may commit it; nobody after a release.
    pub owner: Option<String>,
    /// The next offset to read; unknown before the first commit.
    pub next_offset: Option<i64>,
    /// How many offsets the source deleted before they were read.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub missing: i64,
    /// The state of plugins at the next offset, where they have some.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub state: Vec<StateRef>,
}

/// Whether there is nothing to write.
#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
fn is_zero(number: &i64) -> bool {
    *number == 0
}

/// A commit whose files are not known to be visible.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pending {
    /// What it covers.
    pub ranges: Vec<Range>,
    /// Its files.
    pub files: Vec<RecordedFile>,
    /// The state of plugins before it, of each of its partitions, where there is some before or after.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub before: Vec<PartitionState>,
}

impl Pending {
    /// The partitions that it is about.
    #[must_use]
    pub fn partitions(&self) -> Vec<Partition> {
        states::partitions(&self.ranges, &self.before)
    }
}

/// Why a record may not be appended.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// Another writer has claimed a partition meanwhile.
    #[error("{topic}[{partition}] was claimed by another writer ({owner}): this one is fenced off")]
    Fenced {
        /// Topic of the partition.
        topic: String,
        /// Its number.
        partition: i32,
        /// Who owns it now, or `nobody`.
        owner: String,
    },
    /// The range begins before what is committed already.
    #[error(
        "{topic}[{partition}]: offsets {from}..{to} are to be committed, but everything below {next_offset} is already"
    )]
    Behind {
        /// Topic of the partition.
        topic: String,
        /// Its number.
        partition: i32,
        /// First offset.
        from: i64,
        /// Next offset.
        to: i64,
        /// What is committed.
        next_offset: i64,
    },
    /// The offsets that are committed are those of another topic of the same name.
    #[error(
        "{topic}: the topic has the id {found}, and the one that was read so far had the id {known}: it was deleted and made \
         anew, so the recorded offsets mean nothing in it and nothing is read. To read the new one from its start, give the \
         pipeline another `name` (a ledger of its own)"
    )]
    MadeAnew {
        /// The topic.
        topic: String,
        /// The id that the ledger has.
        known: String,
        /// The id that the source has now.
        found: String,
    },
    /// There is no such commit, or its files are visible.
    #[error("commit {0} is not waiting for files")]
    NotPending(u64),
    /// Another one merges files.
    #[error("files are merged by another writer now ({owner})")]
    NotCompactor {
        /// Who, or `nobody`.
        owner: String,
    },
    /// There is no such merge, or it is finished; or one has to be finished first.
    #[error("merge {0:?} is not the one that is waiting to be finished")]
    OtherMerge(Option<u64>),
}

impl State {
    /// Whether a writer may append an action after all records so far.
    pub fn allows(&self, writer: &str, action: &Action) -> Result<(), Refusal> {
        match action {
            Action::Claim { topic_ids, .. } => topic_ids.iter().try_for_each(|(topic, id)| self.is_same(topic, id)),
            Action::CompactClaim {} => Ok(()),
            Action::Commit { ranges, states, .. } => {
                states.iter().try_for_each(|state| self.owned(writer, &state.topic, state.partition))?;
                self.may_cover(writer, ranges)
            }
            Action::Skip { ranges } => self.may_cover(writer, ranges),
            // The first partition speaks for the commit, so that two who own parts of it do not both write it again.
            Action::Repair { sequence, .. } => {
                let pending = self.pending.get(sequence).ok_or(Refusal::NotPending(*sequence))?;
                let partitions = pending.partitions();
                let first = partitions.first().ok_or(Refusal::NotPending(*sequence))?;
                self.owned(writer, &first.topic, first.partition)
            }
            Action::Release { partitions, .. } => {
                partitions.iter().try_for_each(|partition| self.owned(writer, &partition.topic, partition.partition))
            }
            Action::Compact(_) | Action::CompactRelease {} => self.compaction.allows(writer, None),
            Action::Compacted { sequence } | Action::CompactAbandoned { sequence, .. } => {
                self.compaction.allows(writer, Some(*sequence))
            }
        }
    }

    /// Whether a writer may commit ranges.
    fn may_cover(&self, writer: &str, ranges: &[Range]) -> Result<(), Refusal> {
        ranges.iter().try_for_each(|range| {
            self.owned(writer, &range.topic, range.partition)?;
            self.follows(range)
        })
    }

    /// Whether a topic is the one whose offsets are recorded; where none are, it may be any.
    fn is_same(&self, topic: &str, found: &str) -> Result<(), Refusal> {
        let has_offsets =
            |(partition, position): (&Partition, &Position)| partition.topic == topic && position.next_offset.is_some();
        match self.topic_ids.get(topic) {
            Some(known) if known != found && self.partitions.iter().any(has_offsets) => {
                Err(Refusal::MadeAnew { topic: topic.to_owned(), known: known.clone(), found: found.to_owned() })
            }
            _ => Ok(()),
        }
    }

    /// Whether a partition is a writer's.
    fn owned(&self, writer: &str, topic: &str, partition: i32) -> Result<(), Refusal> {
        let key = Partition { topic: topic.to_owned(), partition };
        let owner = self.partitions.get(&key).and_then(|position| position.owner.as_deref());
        if owner == Some(writer) {
            return Ok(());
        }
        Err(Refusal::Fenced { topic: key.topic, partition, owner: owner.unwrap_or("nobody").to_owned() })
    }

    /// Whether a range lies behind what is committed.
    fn follows(&self, range: &Range) -> Result<(), Refusal> {
        let Range { topic, partition, from, to } = range;
        let key = Partition { topic: topic.clone(), partition: *partition };
        match self.partitions.get(&key).and_then(|position| position.next_offset) {
            Some(next_offset) if *from < next_offset => {
                Err(Refusal::Behind { topic: key.topic, partition: *partition, from: *from, to: *to, next_offset })
            }
            _ => Ok(()),
        }
    }

    /// Adds the next record. It was allowed when it was appended; one that was not is a damaged ledger.
    pub fn apply(&mut self, record: &Record) -> Result<(), Refusal> {
        self.allows(&record.writer, &record.action)?;
        match &record.action {
            Action::Claim { partitions, topic_ids } => {
                self.topic_ids.extend(topic_ids.clone());
                for partition in partitions {
                    self.partitions.entry(partition.clone()).or_default().owner = Some(record.writer.clone());
                }
            }
            Action::Commit { ranges, files, published, states } => {
                if !files.is_empty() {
                    let before = self.states_before(ranges, states);
                    let pending = Pending { ranges: ranges.clone(), files: files.clone(), before };
                    self.pending.insert(self.next, pending);
                }
                for Range { topic, partition, to, .. } in ranges {
                    let key = Partition { topic: topic.clone(), partition: *partition };
                    self.partitions.entry(key).or_default().next_offset = Some(*to);
                }
                for state in states {
                    self.partitions.entry(state.key()).or_default().state.clone_from(&state.plugins);
                }
                self.forget(published);
            }
            Action::Skip { ranges } => {
                for Range { topic, partition, from, to } in ranges {
                    let key = Partition { topic: topic.clone(), partition: *partition };
                    let position = self.partitions.entry(key).or_default();
                    position.next_offset = Some(*to);
                    position.missing += to - from;
                }
            }
            Action::Repair { sequence, file } => {
                if let Some(pending) = self.pending.get_mut(sequence)
                    && let Some(old) = pending.files.iter_mut().find(|old| old.path == file.path)
                {
                    old.clone_from(file);
                }
            }
            Action::Release { partitions, published } => {
                for partition in partitions {
                    self.partitions.entry(partition.clone()).or_default().owner = None;
                }
                self.forget(published);
            }
            Action::CompactClaim {} => self.compaction.owner = Some(record.writer.clone()),
            Action::Compact(merge) => self.compaction.pending = Some((self.next, merge.clone())),
            Action::Compacted { .. } | Action::CompactAbandoned { .. } => self.compaction.pending = None,
            Action::CompactRelease {} => self.compaction.owner = None,
        }
        if record.action.is_of_compactor() {
            self.compaction.last = self.next;
        }
        self.recent.insert(self.next, record.nonce.clone());
        self.next += 1;
        Ok(())
    }

    /// The state of the partitions of a commit before it; none where no plugin has any.
    fn states_before(&self, ranges: &[Range], states: &[PartitionState]) -> Vec<PartitionState> {
        let state_of = |partition: Partition| {
            let plugins = self.state_of(&partition).to_vec();
            PartitionState { topic: partition.topic, partition: partition.partition, plugins }
        };
        let before: Vec<_> = states::partitions(ranges, states).into_iter().map(state_of).collect();
        if states.is_empty() && before.iter().all(|state| state.plugins.is_empty()) { Vec::new() } else { before }
    }

    /// The state of the plugins of a partition at its next offset.
    #[must_use]
    pub fn state_of(&self, partition: &Partition) -> &[StateRef] {
        self.partitions.get(partition).map_or(&[], |position| &position.state)
    }

    /// Whether any plugin has, or ever had, state.
    #[must_use]
    pub fn has_state(&self) -> bool {
        self.partitions.values().any(|position| !position.state.is_empty())
            || self.pending.values().any(|pending| !pending.before.is_empty())
    }

    /// The sequence of a record, if it is one of the last.
    #[must_use]
    pub fn sequence_of(&self, nonce: &str) -> Option<u64> {
        self.recent.iter().find(|(_, known)| *known == nonce).map(|(sequence, _)| *sequence)
    }

    /// Whether the nonces from a sequence on are all remembered.
    #[must_use]
    pub fn remembers(&self, sequence: u64) -> bool {
        sequence >= self.next || self.recent.first_key_value().is_some_and(|(first, _)| *first <= sequence)
    }

    /// Forgets all nonces but those of the last so many records.
    pub fn forget_nonces(&mut self, keep: u64) {
        self.recent = self.recent.split_off(&self.next.saturating_sub(keep));
    }

    /// These commits are visible.
    fn forget(&mut self, published: &[u64]) {
        for sequence in published {
            self.pending.remove(sequence);
        }
    }

    /// Files of commits that are not known to be visible; whoever recovers such a commit looks for them, so they must not be merged
    /// and their uploads not be aborted. To be asked after the files were listed: a commit is recorded before its files are
    /// visible, so a file that was listed and is not among these never will be.
    #[must_use]
    pub fn unsettled(&self) -> BTreeSet<&str> {
        self.pending.values().flat_map(|pending| &pending.files).map(|file| file.path.as_str()).collect()
    }

    /// Commits of which a file may not be visible yet and that cover one of these partitions.
    #[must_use]
    pub fn pending_of(&self, partitions: &[Partition]) -> Vec<(u64, Pending)> {
        let covers = |pending: &Pending| pending.partitions().iter().any(|partition| partitions.contains(partition));
        let found = self.pending.iter().filter(|(_, pending)| covers(pending));
        found.map(|(sequence, pending)| (*sequence, pending.clone())).collect()
    }
}

impl Compaction {
    /// Whether a writer merges files, and this merge, or none, is waiting to be finished.
    fn allows(&self, writer: &str, waiting: Option<u64>) -> Result<(), Refusal> {
        if self.owner.as_deref() != Some(writer) {
            return Err(Refusal::NotCompactor { owner: self.owner.as_deref().unwrap_or("nobody").to_owned() });
        }
        match &self.pending {
            None if waiting.is_none() => Ok(()),
            Some((sequence, _)) if waiting == Some(*sequence) => Ok(()),
            _ => Err(Refusal::OtherMerge(waiting)),
        }
    }
}

/// JSON has no maps with such keys: a list of pairs.
mod as_list {
    use std::collections::BTreeMap;

    use serde::{Deserialize as _, Deserializer, Serializer};

    use super::{Partition, Position};

    /// As pairs.
    pub(super) fn serialize<S: Serializer>(
        partitions: &BTreeMap<Partition, Position>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(partitions)
    }

    /// From pairs.
    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<BTreeMap<Partition, Position>, D::Error> {
        Ok(Vec::<(Partition, Position)>::deserialize(deserializer)?.into_iter().collect())
    }
}
