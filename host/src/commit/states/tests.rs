//! State in a real folder, by way of a committer.

use std::time::Instant;

use super::*;
use crate::{
    batch::ClosedGeneration,
    checkpoint::CheckpointDelta,
    commit::{Claim, Committer, Ledger, ledger::audit},
    config::DeadLetterConfig,
    error::Verdict,
    memory::MemoryBudget,
    store::tests::in_folder,
    telemetry::metrics::Metrics,
};

/// A lane that has claimed partitions.
struct Lane {
    /// Its hold on the ledger.
    recovery: Recovery,
    /// Commits.
    committer: Committer,
    /// Where it goes on.
    claim: Claim,
    /// Generations so far.
    sequence: i64,
}

/// Partition `n` of the topic.
fn partition(number: i32) -> SourcePartition {
    SourcePartition::new("orders", number)
}

/// State of one plugin.
fn state(number: i32, bytes: impl Into<Bytes>) -> ChainState {
    let state = PluginState { plugin: "windows".into(), component: "ab".to_owned(), bytes: bytes.into() };
    ChainState { partition: partition(number), dataset: "orders".into(), plugins: vec![state] }
}

impl Lane {
    /// Claims the partitions 0 and 1.
    async fn start(store: &Store) -> Self {
        let writer = LedgerWriter::new(Ledger::open(store.clone()).await.unwrap());
        let context = CommitContext {
            store: store.clone(),
            pipeline: "orders".into(),
            lane: 0,
            writer_mark: writer.mark().into(),
            dead_letter: DeadLetterConfig::None,
            metrics: Metrics::detached(),
        };
        let recovery = Recovery::new(writer.clone(), store.clone(), true);
        let claim = recovery.claim(&[partition(0), partition(1)], &BTreeMap::new()).await.unwrap();
        let sequence = claim.positions.get(&partition(0)).copied().unwrap_or_default();
        Self { recovery, committer: Committer::new(context, Some(writer)), claim, sequence }
    }

    /// Commits the next offset of each partition that has a state, with it.
    async fn commit(&mut self, states: Vec<ChainState>) -> Result<(), PipelineError> {
        let mut delta = CheckpointDelta::default();
        for state in &states {
            delta.extend(&state.partition, self.sequence, self.sequence + 1).unwrap();
        }
        self.sequence += 1;
        let generation = ClosedGeneration {
            sequence: 0,
            delta,
            files: Vec::new(),
            dead_letters: Vec::new(),
            states,
            closed_at: Instant::now(),
            memory: MemoryBudget::new(1 << 20).hold(0),
        };
        self.committer.commit(generation).await.map(drop)
    }

    /// The state of a partition as it was claimed.
    async fn read(&self, number: i32) -> Result<Vec<Bytes>, PipelineError> {
        let states = self.claim.states.get(&partition(number)).cloned().unwrap_or_default();
        let read = self.recovery.read_states(&partition(number), &states).await?;
        Ok(read.into_iter().map(|state| state.bytes).collect())
    }
}

/// The objects with state.
async fn objects(store: &Store) -> Vec<Path> {
    store.list(&store.own_name(states::STATES)).await.unwrap().into_iter().map(|(path, _)| path).collect()
}

/// Scenario: two partitions are committed with state, then one again with the same and the other with nothing.
/// Guarantees: both share an object, what did not change is not written anew, and who claims next reads what was said last.
#[tokio::test(flavor = "multi_thread")]
async fn the_next_claim_reads_what_was_said_last() {
    let folder = tempfile::tempdir().unwrap();
    let store = in_folder(folder.path());
    let mut first = Lane::start(&store).await;
    assert_eq!(first.read(0).await.unwrap(), Vec::<Bytes>::new());
    first.commit(vec![state(0, "ten"), state(1, "eleven")]).await.unwrap();
    assert_eq!(objects(&store).await.len(), 1);
    first.commit(vec![state(0, "ten"), state(1, "")]).await.unwrap();
    assert_eq!(objects(&store).await.len(), 1);
    let mut second = Lane::start(&store).await;
    assert_eq!(second.read(0).await.unwrap(), ["ten"]);
    assert_eq!(second.read(1).await.unwrap(), [""]);
    second.commit(vec![state(0, "twelve")]).await.unwrap();
    let third = Lane::start(&store).await;
    assert_eq!((third.read(0).await.unwrap()[0].as_ref(), third.read(1).await.unwrap()[0].len()), (&b"twelve"[..], 0));
    assert_eq!(audit::verify(&store, audit::Offsets::Dense).await.unwrap().findings, Vec::<String>::new());
}

/// Scenario: the plugin gives something out and changes its state though no record came, and the other dataset of a replayed
/// partition says nothing.
/// Guarantees: the state is recorded without offsets, and that of the other dataset stays.
#[tokio::test(flavor = "multi_thread")]
async fn state_may_change_without_a_record() {
    let folder = tempfile::tempdir().unwrap();
    let store = in_folder(folder.path());
    let mut lane = Lane::start(&store).await;
    let clicks = ChainState { dataset: "clicks".into(), ..state(0, "clicks") };
    lane.commit(vec![state(0, "orders")]).await.unwrap();
    for chain in [clicks, state(0, "later")] {
        let mut generation = ClosedGeneration {
            sequence: 0,
            delta: CheckpointDelta::default(),
            files: Vec::new(),
            dead_letters: Vec::new(),
            states: Vec::new(),
            closed_at: Instant::now(),
            memory: MemoryBudget::new(1 << 20).hold(0),
        };
        generation.states.push(chain);
        lane.committer.commit(generation).await.unwrap();
    }
    let next = Lane::start(&store).await;
    assert_eq!(next.claim.positions.get(&partition(0)), Some(&1));
    assert_eq!(next.read(0).await.unwrap(), ["clicks", "later"]);
}

/// Scenario: states of 700 KB.
/// Guarantees: they do not share an object, and each is read back.
#[tokio::test(flavor = "multi_thread")]
async fn large_states_have_objects_of_their_own() {
    let folder = tempfile::tempdir().unwrap();
    let store = in_folder(folder.path());
    let large = |byte: u8| vec![byte; 700_000];
    Lane::start(&store).await.commit(vec![state(0, large(1)), state(1, large(2))]).await.unwrap();
    assert_eq!(objects(&store).await.len(), 2);
    let next = Lane::start(&store).await;
    assert_eq!((next.read(0).await.unwrap()[0][0], next.read(1).await.unwrap()[0][699_999]), (1, 2));
}

/// Scenario: a writer that was fenced off commits; another one dies between its object and its record.
/// Guarantees: the first one removes its object, the next claim that of the other, and what is needed stays.
#[tokio::test(flavor = "multi_thread")]
async fn objects_without_a_record_are_removed() {
    let folder = tempfile::tempdir().unwrap();
    let store = in_folder(folder.path());
    let mut fenced = Lane::start(&store).await;
    fenced.commit(vec![state(0, "ten")]).await.unwrap();
    let dead = Lane::start(&store).await;
    let needed = objects(&store).await;
    let error = fenced.commit(vec![state(0, "never")]).await.unwrap_err();
    assert_eq!((error.verdict(), objects(&store).await), (Verdict::Restart, needed.clone()));
    let written = write(&dead.committer.context, &dead.recovery.writer, vec![state(0, "lost")]).await.unwrap();
    assert_eq!((written.states.len(), objects(&store).await.len()), (1, 2));
    // The one that wrote it still has the partitions, and may record it.
    dead.recovery.abort_leftovers().await;
    assert_eq!(objects(&store).await.len(), 2);
    let next = Lane::start(&store).await;
    next.recovery.abort_leftovers().await;
    assert_eq!(objects(&store).await, needed);
    assert_eq!(next.read(0).await.unwrap(), ["ten"]);
}

/// Scenario: 400 commits with another state each, while another partition keeps the one that it began with.
/// Guarantees: few objects are left, among them those that are needed, also for one who starts.
#[tokio::test(flavor = "multi_thread")]
async fn old_state_is_deleted_behind_snapshots() {
    let folder = tempfile::tempdir().unwrap();
    let store = in_folder(folder.path());
    let mut lane = Lane::start(&store).await;
    lane.commit(vec![state(1, "kept")]).await.unwrap();
    for number in 0..400 {
        lane.commit(vec![state(0, format!("state {number}"))]).await.unwrap();
    }
    let left = objects(&store).await.len();
    assert!((64..=140).contains(&left), "{left} objects are left of 401");
    let next = Lane::start(&store).await;
    assert_eq!(
        (next.read(0).await.unwrap(), next.read(1).await.unwrap()),
        (vec!["state 399".into()], vec!["kept".into()])
    );
    // A process that has seen nothing reads the records to know what they name.
    let mut next = next;
    for number in 0..130 {
        next.commit(vec![state(0, format!("later {number}"))]).await.unwrap();
    }
    let left = objects(&store).await.len();
    assert!((64..=140).contains(&left), "{left} objects are left");
}

/// Scenario: an object is cut short, changed, and deleted; by somebody, and since another writer went on.
/// Guarantees: each is told in words; only the last one lets the lane begin anew.
#[tokio::test(flavor = "multi_thread")]
async fn state_that_is_not_what_was_written_is_not_used() {
    let folder = tempfile::tempdir().unwrap();
    let store = in_folder(folder.path());
    Lane::start(&store).await.commit(vec![state(0, "state")]).await.unwrap();
    let lane = Lane::start(&store).await;
    let path = objects(&store).await.remove(0);
    let file = folder.path().join(path.as_ref());
    for (bytes, words) in
        [("stat", "it has 4 bytes where 5 were written"), ("State", "its bytes are not those that were")]
    {
        std::fs::write(&file, bytes).unwrap();
        let error = lane.read(0).await.unwrap_err();
        let message = error.full_message();
        assert!(
            message.starts_with("the state of plugin windows for orders[0] cannot be read from _fs_data_sink/"),
            "{message}"
        );
        assert!(message.contains(words), "{message}");
        assert_eq!(error.verdict(), Verdict::Stop);
    }
    let found = audit::verify(&store, audit::Offsets::Dense).await.unwrap().findings;
    assert_eq!(found, Vec::<String>::new(), "its length is right");
    std::fs::remove_file(&file).unwrap();
    let found = audit::verify(&store, audit::Offsets::Dense).await.unwrap().findings;
    assert_eq!(found, [format!("{path}: the state of plugin windows for orders[0] is not there")]);
    let error = lane.read(0).await.unwrap_err();
    assert!(error.full_message().ends_with("it is not there"), "{}", error.full_message());
    assert_eq!(error.verdict(), Verdict::Stop);
    let _other = Lane::start(&store).await;
    let error = lane.read(0).await.unwrap_err();
    assert_eq!(error.verdict(), Verdict::Restart, "{}", error.full_message());
}
