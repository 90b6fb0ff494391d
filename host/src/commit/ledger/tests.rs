//! The ledger in a real folder.

use super::*;
use crate::{
    commit::{Claim, LedgerWriter, Recovery},
    error::Verdict,
    store::{StagedFile, tests::in_folder as store},
};

/// A file in the store that nobody sees yet.
async fn staged(store: &Store, path: &str) -> StagedFile {
    let mut writer = store.stage_durably(Path::parse(path).unwrap());
    writer.write(Bytes::from_static(b"rows")).await.unwrap();
    writer.finish().await.unwrap()
}

/// The same as a record names it.
fn recorded(file: &StagedFile, delta: &CheckpointDelta) -> RecordedFile {
    RecordedFile {
        path: file.path.to_string(),
        bytes: file.bytes,
        rows: 1,
        staged: file.staged_at().unwrap(),
        sources: Range::all(delta),
    }
}

/// Offsets of partition 3.
fn offsets(from: i64, to: i64) -> CheckpointDelta {
    let mut delta = CheckpointDelta::default();
    delta.extend(&SourcePartition::new("orders", 3), from, to).unwrap();
    delta
}

/// Scenario: two processes open the ledger, and the second one claims what the first one had.
/// Guarantees: the first one's commit is refused with the name of the other, and leaves no trace.
#[tokio::test(flavor = "multi_thread")]
async fn a_writer_that_was_taken_for_dead_commits_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let partitions = [SourcePartition::new("orders", 3)];
    let (first, second) =
        (Ledger::open(store(folder.path())).await.unwrap(), Ledger::open(store(folder.path())).await.unwrap());
    first.claim("first", &partitions, &BTreeMap::new()).await.unwrap();
    first.commit("first", &offsets(0, 10), Vec::new(), Vec::new(), Vec::new()).await.unwrap();
    let claimed = second.claim("second", &partitions, &BTreeMap::new()).await.unwrap();
    assert_eq!(claimed.positions.get(&partitions[0]), Some(&10));
    let error = first.commit("first", &offsets(10, 20), Vec::new(), Vec::new(), Vec::new()).await.unwrap_err();
    assert_eq!(error.verdict(), Verdict::Restart);
    assert!(error.full_message().contains("orders[3] was claimed by another writer (second)"), "{error:?}");
    second.commit("second", &offsets(10, 15), Vec::new(), Vec::new(), Vec::new()).await.unwrap();
    let error = second.commit("second", &offsets(12, 20), Vec::new(), Vec::new(), Vec::new()).await.unwrap_err();
    assert!(error.full_message().contains("everything below 15 is already"), "{error:?}");
}

/// Scenario: a process dies between commit and publish; another dies likewise, and its staged file is deleted.
/// Guarantees: the next claim publishes the one and reports the other with the offsets to read again.
#[tokio::test(flavor = "multi_thread")]
async fn the_next_claim_finishes_what_was_committed() {
    let folder = tempfile::tempdir().unwrap();
    let store = store(folder.path());
    let partitions = [SourcePartition::new("orders", 3)];
    let ledger = Ledger::open(store.clone()).await.unwrap();
    ledger.claim("dead", &partitions, &BTreeMap::new()).await.unwrap();
    let (kept, lost) = (staged(&store, "orders/a.parquet").await, staged(&store, "orders/b.parquet").await);
    for (file, delta) in [(&kept, offsets(0, 10)), (&lost, offsets(10, 20))] {
        ledger.commit("dead", &delta, vec![recorded(file, &delta)], Vec::new(), Vec::new()).await.unwrap();
    }
    store.abort(&lost).await;
    assert_eq!(audit::verify(&store, audit::Offsets::Dense).await.unwrap().findings.len(), 2);
    let recovery = Recovery::new(LedgerWriter::new(Ledger::open(store.clone()).await.unwrap()), store.clone(), false);
    let Claim { positions, lost: found, .. } = recovery.claim(&partitions, &BTreeMap::new()).await.unwrap();
    assert_eq!(positions.get(&partitions[0]), Some(&20));
    assert!(folder.path().join("orders/a.parquet").is_file());
    assert_eq!(found.len(), 1);
    assert_eq!((found[0].path.as_ref(), &found[0].sources), ("orders/b.parquet", &offsets(10, 20)));
    let again = staged(&store, "orders/b.parquet").await;
    recovery.restore(&found[0], &again, 1).await.unwrap();
    assert!(folder.path().join("orders/b.parquet").is_file());
    assert_eq!(audit::verify(&store, audit::Offsets::Dense).await.unwrap().findings, Vec::<String>::new());
    std::fs::remove_file(folder.path().join("orders/a.parquet")).unwrap();
    std::fs::write(folder.path().join("orders/c.parquet"), b"of somebody else").unwrap();
    let findings = audit::verify(&store, audit::Offsets::Dense).await.unwrap().findings;
    assert_eq!(findings.len(), 2, "{findings:?}");
}

/// Scenario: 300 commits, with a file each.
/// Guarantees: few objects are left of them, a start reads the same state from a snapshot, and every file is still known.
#[tokio::test(flavor = "multi_thread")]
async fn snapshots_keep_a_start_short() {
    let folder = tempfile::tempdir().unwrap();
    let store = store(folder.path());
    let ledger = Ledger::open(store.clone()).await.unwrap();
    ledger.claim("writer", &[SourcePartition::new("orders", 3)], &BTreeMap::new()).await.unwrap();
    for number in 0..300_i64 {
        let delta = offsets(number, number + 1);
        let file = staged(&store, &format!("orders/{number:03}.parquet")).await;
        let before = u64::try_from(number).unwrap();
        ledger.commit("writer", &delta, vec![recorded(&file, &delta)], vec![before], Vec::new()).await.unwrap();
        store.publish(&file).await.unwrap();
    }
    let objects = store.list(&store.own_name("ledger")).await.unwrap().len();
    assert!(objects < 3 * 64, "{objects} objects");
    assert_eq!(load(&store).await.unwrap(), ledger.state().await);
    assert_eq!(audit::verify(&store, audit::Offsets::Dense).await.unwrap().findings, Vec::<String>::new());
    let report = audit::show(&store).await.unwrap();
    assert_eq!((report.next, report.files, report.rows, report.pending), (301, 300, 300, vec![300]));
}

/// Scenario: who was to take the first snapshot died before.
/// Guarantees: whoever takes the next one makes up for it: no file is forgotten, and few objects are left.
#[tokio::test(flavor = "multi_thread")]
async fn a_snapshot_that_was_not_taken_is_made_up_for() {
    let folder = tempfile::tempdir().unwrap();
    let store = store(folder.path());
    for (first, end) in [(0, 70), (70, 250)] {
        let ledger = Ledger::open(store.clone()).await.unwrap();
        ledger.claim("writer", &[SourcePartition::new("orders", 3)], &BTreeMap::new()).await.unwrap();
        for number in first..end {
            let delta = offsets(number, number + 1);
            let file = staged(&store, &format!("orders/{number:03}.parquet")).await;
            ledger.commit("writer", &delta, vec![recorded(&file, &delta)], Vec::new(), Vec::new()).await.unwrap();
            store.publish(&file).await.unwrap();
        }
        if end == 70 {
            for name in ["files", "snapshot"] {
                let made = folder.path().join(store.own_name(&format!("ledger/{name}")).as_ref());
                std::fs::remove_dir_all(made).unwrap();
            }
        }
    }
    assert_eq!(audit::verify(&store, audit::Offsets::Dense).await.unwrap().findings, Vec::<String>::new());
    assert_eq!(audit::show(&store).await.unwrap().files, 250);
    let objects = store.list(&store.own_name("ledger")).await.unwrap().len();
    assert!(objects < 3 * 64, "{objects} objects");
}

/// Scenario: a record is cut off, or missing in the middle, or of a newer program.
/// Guarantees: the ledger does not open, and the words name the object.
#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_ledger_does_not_open() {
    let folder = tempfile::tempdir().unwrap();
    let ledger = Ledger::open(store(folder.path())).await.unwrap();
    for _ in 0..3 {
        ledger.claim("writer", &[SourcePartition::new("orders", 3)], &BTreeMap::new()).await.unwrap();
    }
    let record = |sequence: u64| folder.path().join(record_path(&store(folder.path()), sequence).as_ref());
    let whole = std::fs::read_to_string(record(1)).unwrap();
    let newer = whole.replace("\"version\":1", "\"version\":9");
    for (content, words) in [(whole.get(..20).unwrap(), "is damaged"), (newer.as_str(), "has version 9")] {
        std::fs::write(record(1), content).unwrap();
        let error = Ledger::open(store(folder.path())).await.unwrap_err().full_message();
        assert!(error.contains(words) && error.contains("00000000000000000001.json"), "{error}");
    }
    std::fs::remove_file(record(1)).unwrap();
    let error = Ledger::open(store(folder.path())).await.unwrap_err().full_message();
    assert!(error.contains("00000000000000000001.json is missing"), "{error}");
}

/// Scenario: a topic is claimed, committed, and claimed again under another id; another one was never committed.
/// Guarantees: offsets of a topic that is gone are not used for one that took its name, and the words say what to do; a topic
/// without recorded offsets may be any; the id outlives a load.
#[tokio::test(flavor = "multi_thread")]
async fn a_topic_that_was_made_anew_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let store = store(folder.path());
    let ledger = Ledger::open(store.clone()).await.unwrap();
    let orders = [SourcePartition::new("orders", 3)];
    let id = |id: &str| BTreeMap::from([(Arc::from("orders"), id.to_owned())]);
    ledger.claim("first", &orders, &id("old")).await.unwrap();
    ledger.claim("second", &orders, &id("older")).await.unwrap();
    let mut delta = CheckpointDelta::default();
    delta.extend(&orders[0], 0, 10).unwrap();
    ledger.commit("second", &delta, Vec::new(), Vec::new(), Vec::new()).await.unwrap();
    let ledger = Ledger::open(store).await.unwrap();
    let error = ledger.claim("third", &orders, &id("new")).await.unwrap_err();
    assert_eq!(error.verdict(), Verdict::Stop);
    let words = error.full_message();
    assert!(words.contains("orders: the topic has the id new") && words.contains("the id older"), "{words}");
    ledger.claim("third", &orders, &BTreeMap::new()).await.unwrap();
    ledger.claim("third", &orders, &id("older")).await.unwrap();
}

/// Scenario: the source has deleted offsets before they were read; two others are in no commit.
/// Guarantees: reading goes on behind those that were deleted, they are counted for good, and they are a note; the two that were
/// lost are a finding.
#[tokio::test(flavor = "multi_thread")]
async fn what_the_source_deleted_is_noted() {
    let folder = tempfile::tempdir().unwrap();
    let store = store(folder.path());
    let ledger = Ledger::open(store.clone()).await.unwrap();
    let orders = [SourcePartition::new("orders", 3)];
    ledger.claim("first", &orders, &BTreeMap::new()).await.unwrap();
    for (from, to, is_missing) in [(0, 10, false), (10, 25, true), (27, 30, false)] {
        let mut delta = CheckpointDelta::default();
        delta.extend(&orders[0], from, to).unwrap();
        if is_missing {
            ledger.skip("first", &delta).await.unwrap();
        } else {
            ledger.commit("first", &delta, Vec::new(), Vec::new(), Vec::new()).await.unwrap();
        }
    }
    let audit::Verified { findings, notes } = audit::verify(&store, audit::Offsets::Dense).await.unwrap();
    assert_eq!(findings, ["orders[3]: record 3: no commit covers offsets 25..27"]);
    assert_eq!(notes.len(), 1, "{notes:?}");
    assert!(notes[0].starts_with("orders[3]: 15 offsets were deleted by the source"), "{notes:?}");
    let claimed = Ledger::open(store).await.unwrap().claim("next", &orders, &BTreeMap::new()).await.unwrap();
    assert_eq!(claimed.positions[&orders[0]], 30);
}
