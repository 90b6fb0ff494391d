//! Merges over a real folder and over multipart uploads, stopped anywhere.

use bytes::Bytes;

use super::*;
use crate::{
    commit::ledger::{audit, is_refused},
    error::Verdict,
    store::tests::{in_folder, in_memory},
};

/// A store with two files, and a merge of them that is staged.
struct Fixture {
    /// The store.
    store: Store,
    /// Its ledger.
    ledger: Ledger,
}

/// Where the files are.
const INPUTS: [&str; 2] = ["orders/a.parquet", "orders/b.parquet"];

/// Where the merged file is to be.
const MERGED: &str = "orders/m.parquet";

impl Fixture {
    /// Over a store.
    async fn new(store: Store) -> Self {
        for path in INPUTS {
            store.put(&Path::from(path), Bytes::from_static(b"rows")).await.unwrap();
        }
        let ledger = Ledger::open(store.clone()).await.unwrap();
        Self { store, ledger }
    }

    /// Claims.
    async fn compactor(&self) -> Compactor {
        let ledger = Ledger::open(self.store.clone()).await.unwrap();
        Compactor::claim(self.store.clone(), ledger).await.unwrap()
    }

    /// Stages the merged file.
    async fn stage(&self, compactor: &Compactor, visibility: MergeVisibility) -> Merge {
        let entry = |path: &str, bytes| FileEntry { path: path.to_owned(), bytes, rows: bytes / 4 };
        let staged = compactor.staging_path();
        self.store.put(&staged, Bytes::from_static(b"rowsrows")).await.unwrap();
        Merge {
            inputs: INPUTS.map(|path| entry(path, 4)).to_vec(),
            file: entry(MERGED, 8),
            staged: staged.to_string(),
            visibility,
        }
    }

    /// The names of all files but the ledger's.
    async fn names(&self) -> Vec<String> {
        let found = self.store.list(&Path::default()).await.unwrap();
        found.into_iter().map(|(path, _)| path.to_string()).filter(|path| !path.contains("/ledger/")).collect()
    }

    /// The files are merged, and nothing is left of it.
    async fn expect_merged(&self) {
        assert_eq!(self.names().await, [MERGED]);
        assert_eq!(audit::verify(&self.store, audit::Offsets::Dense).await.unwrap().findings, Vec::<String>::new());
        assert_eq!(self.ledger.look().await.unwrap().compaction.pending, None);
    }
}

/// Both orders.
const BOTH: [MergeVisibility; 2] = [MergeVisibility::Doubled, MergeVisibility::Missing];

/// Scenario: a merge runs to its end, in either order, over uploads and over a folder.
/// Guarantees: the merged file is in the place of the others, and the ledger agrees.
#[tokio::test(flavor = "multi_thread")]
async fn a_merge_replaces_its_files() {
    for visibility in BOTH {
        let folder = tempfile::tempdir().unwrap();
        for store in [in_memory().0, in_folder(folder.path())] {
            let fixture = Fixture::new(store).await;
            let compactor = fixture.compactor().await;
            let merge = fixture.stage(&compactor, visibility).await;
            compactor.merge(merge).await.unwrap();
            fixture.expect_merged().await;
            compactor.release().await.unwrap();
            assert_eq!(fixture.ledger.look().await.unwrap().compaction.owner, None);
        }
    }
}

/// What a dead process has done of a recorded merge.
#[derive(Clone, Copy, Debug)]
enum Done {
    /// Nothing.
    Recorded,
    /// The first step: the file is visible, or an input is gone.
    Begun,
    /// All steps.
    All,
}

/// Scenario: a process dies at any step of a recorded merge.
/// Guarantees: the next claim finishes it.
#[tokio::test(flavor = "multi_thread")]
async fn the_next_claim_finishes_what_a_dead_process_recorded() {
    for visibility in BOTH {
        for done in [Done::Recorded, Done::Begun, Done::All] {
            let fixture = Fixture::new(in_memory().0).await;
            let dead = fixture.compactor().await;
            let merge = fixture.stage(&dead, visibility).await;
            dead.ledger.compact(&dead.writer, merge.clone()).await.unwrap();
            let reveal = || async {
                fixture.store.reveal(&Path::from(merge.staged.as_str()), &Path::from(MERGED), 8).await.unwrap()
            };
            match (done, visibility) {
                (Done::Recorded, _) => {}
                (Done::Begun, MergeVisibility::Doubled) => _ = reveal().await,
                (Done::Begun, MergeVisibility::Missing) => fixture.store.remove(&Path::from(INPUTS[0])).await.unwrap(),
                (Done::All, _) => {
                    reveal().await;
                    dead.delete_inputs(&merge).await.unwrap();
                }
            }
            let findings = audit::verify(&fixture.store, audit::Offsets::Dense).await.unwrap().findings;
            assert!(
                findings.len() == 1 && findings[0].contains("are being merged into orders/m.parquet"),
                "{findings:?}"
            );
            let next = fixture.compactor().await;
            fixture.expect_merged().await;
            // The dead one was only asleep, and goes on: it says so, and changes nothing.
            let again = fixture.stage(&next, visibility).await;
            let error = dead.merge(again).await.unwrap_err();
            assert!(is_refused(&error), "{visibility:?} {done:?}: {}", error.full_message());
            fixture.store.remove(&Path::from(MERGED)).await.unwrap();
            let error = dead.finish(1, &merge).await.unwrap_err();
            assert_eq!(error.verdict(), Verdict::Restart, "{}", error.full_message());
            assert!(!fixture.names().await.contains(&MERGED.to_owned()), "a sleeper brought a file back");
        }
    }
}

/// Scenario: a process was taken for dead before it recorded its merge.
/// Guarantees: it is refused, what it staged is deleted by the next claim, and the files are as they were.
#[tokio::test(flavor = "multi_thread")]
async fn a_sleeper_records_nothing() {
    let fixture = Fixture::new(in_memory().0).await;
    let sleeper = fixture.compactor().await;
    let merge = fixture.stage(&sleeper, MergeVisibility::Doubled).await;
    fixture.compactor().await;
    assert_eq!(fixture.names().await, INPUTS);
    let error = sleeper.merge(merge.clone()).await.unwrap_err();
    assert!(is_refused(&error), "{}", error.full_message());
    let late = fixture.stage(&sleeper, MergeVisibility::Doubled).await;
    let error = sleeper.merge(late).await.unwrap_err();
    assert!(is_refused(&error) && error.full_message().contains("merged by another writer now"), "{error:?}");
    fixture.compactor().await;
    assert_eq!(fixture.names().await, INPUTS);
}

/// Scenario: somebody deletes the merged file before it is visible; in one case some of the others too.
/// Guarantees: where all others are there, they stay and count again; where one is gone, that is told, and nothing is deleted.
#[tokio::test(flavor = "multi_thread")]
async fn a_merged_file_that_was_lost_is_given_up_only_where_all_others_are_there() {
    for visibility in BOTH {
        let fixture = Fixture::new(in_memory().0).await;
        let dead = fixture.compactor().await;
        let merge = fixture.stage(&dead, visibility).await;
        dead.ledger.compact(&dead.writer, merge.clone()).await.unwrap();
        fixture.store.remove(&Path::from(merge.staged.as_str())).await.unwrap();
        fixture.store.remove(&Path::from(INPUTS[1])).await.unwrap();
        let error = Compactor::claim(fixture.store.clone(), fixture.ledger.clone()).await.unwrap_err();
        assert!(
            error.full_message().contains("neither orders/m.parquet nor orders/b.parquet"),
            "{}",
            error.full_message()
        );
        assert_eq!(fixture.names().await, INPUTS[..1]);
        fixture.store.put(&Path::from(INPUTS[1]), Bytes::from_static(b"rows")).await.unwrap();
        fixture.compactor().await;
        assert_eq!(fixture.names().await, INPUTS);
        assert_eq!(audit::verify(&fixture.store, audit::Offsets::Dense).await.unwrap().findings, Vec::<String>::new());
    }
}

/// Scenario: the rows of a merged file are not those of its inputs, or it is shorter than said.
/// Guarantees: nothing is recorded and nothing deleted.
#[tokio::test(flavor = "multi_thread")]
async fn a_merge_that_does_not_add_up_is_not_recorded() {
    let fixture = Fixture::new(in_memory().0).await;
    let compactor = fixture.compactor().await;
    let merge = fixture.stage(&compactor, MergeVisibility::Missing).await;
    let mut fewer = merge.clone();
    fewer.file.rows = 1;
    assert!(compactor.merge(fewer).await.unwrap_err().full_message().contains("they stay as they are"));
    let mut shorter = merge;
    shorter.file.bytes = 9;
    assert!(compactor.merge(shorter).await.unwrap_err().full_message().contains("is not whole"));
    assert_eq!(fixture.ledger.look().await.unwrap().next, 1);
    assert!(fixture.names().await.contains(&INPUTS[0].to_owned()));
}
