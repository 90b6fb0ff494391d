//! Merges small files: once, for the command, or beside the lanes of a running pipeline.
//!
//! Comes in: a sink with files. Goes out: fewer files with the same rows. Here the rooms meet: which files (`file/merge/plan.rs`),
//! their rows in one file (`file/merge/mod.rs`), and that file in their place (`commit/compaction.rs`).
//!
//! Several processes of one pipeline take turns: who finds that another one is at work waits until it is done, or has shown no
//! sign for a while (`background.rs`); the command takes over at once.

use std::{
    collections::HashMap,
    sync::Arc,
    time::{Duration, Instant},
};

use chrono::Utc;
use tokio::runtime::Handle;
use tokio_util::sync::CancellationToken;

use super::open_ledger;
use crate::{
    commit::{
        Compactor, Ledger,
        ledger::{
            is_refused,
            record::{FileEntry, Merge},
            state::State,
        },
    },
    config::{Delivery, PipelineConfig},
    error::PipelineError,
    file::merge::{Candidate, Damage, Facts, Group, MergeRules, MergedFile, Merger, Outcome, is_merged},
    store::{HttpClients, Path, Store},
    telemetry::metrics::Metrics,
};

mod background;

pub(super) use background::start;

/// A merged file is copied by one request where the store cannot rename: S3 copies up to 5 GB.
const TARGET_BYTES_MAX: u64 = 4 << 30;

/// Where a move is a copy, a merged file is merged again, and deleted, no sooner than so long after it was written: by then no copy
/// of a process that was taken over is under way any more that would bring it back. A quarter of an hour for clocks that differ,
/// and one for the copy.
const AGAIN_AFTER: Duration = Duration::from_mins(30);

/// Rounds of a pass: what was merged may be merged again with others, and each round leaves fewer files. No more, since beside
/// a fast writer there would always be one more.
const ROUNDS_MAX: usize = 3;

/// A merge that was carried out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MergeReport {
    /// The merged file.
    pub path: String,
    /// Files that became it.
    pub files: usize,
    /// Rows in it.
    pub rows: u64,
    /// Bytes of the files.
    pub bytes_before: u64,
    /// Its bytes.
    pub bytes: u64,
}

/// How a pass ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Pass {
    /// Everything that was due is done.
    Done,
    /// Another process merges the files of this pipeline.
    Busy,
}

/// How the command ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Compacted {
    /// Everything that was due is done; so many files are left alone.
    Done {
        /// Files that cannot be read or are not ours.
        left_alone: usize,
    },
    /// Another process has taken over.
    TakenOver,
}

/// Merges everything that is due of one pipeline, once. `is_all`: also periods that are not over. Each merge is told.
pub async fn compact(
    config: PipelineConfig,
    io: Handle,
    is_all: bool,
    mut tell: impl FnMut(&MergeReport) + Send,
) -> Result<Compacted, PipelineError> {
    let metrics = Metrics::new(&config.name, &config.tenant, config.source.kind.as_str(), config.sink.kind.as_str());
    let store = Store::open(&config.sink, &config.name, metrics.clone(), io, &HttpClients::default())?;
    store.check().await?;
    let ledger = open_ledger(&store).await?;
    let mut merging = Merging::new(&config, store, ledger, metrics);
    merging.rules.is_running_too |= is_all;
    match merging.pass(Duration::ZERO, &CancellationToken::new(), &mut tell).await {
        Ok(_) => Ok(Compacted::Done { left_alone: merging.facts.values().filter(|facts| facts.is_none()).count() }),
        Err(error) if is_refused(&error) => Ok(Compacted::TakenOver),
        Err(error) => Err(error),
    }
}

/// What merging knows from pass to pass.
#[derive(Debug)]
struct Merging {
    /// Where the files are.
    store: Store,
    /// Where merges are recorded.
    ledger: Ledger,
    /// Writes the files.
    merger: Merger,
    /// Which are merged.
    rules: MergeRules,
    /// What comes first.
    visibility: crate::config::MergeVisibility,
    /// Counts.
    metrics: Metrics,
    /// Files that were looked at; nothing of those that are to be left alone. Only of files that are there and due.
    facts: HashMap<Path, Option<Facts>>,
    /// Another process that was seen at work: who, its last record, and since when there is no newer one.
    other: Option<(String, u64, Instant)>,
}

impl Merging {
    /// Nothing is known yet.
    fn new(config: &PipelineConfig, store: Store, ledger: Ledger, metrics: Metrics) -> Self {
        let is_once = config.run.delivery == Delivery::ExactlyOnce;
        let merge = config.sink.merge;
        // Without commits in the ledger nobody can tell whether a file is still being published: it is when its publisher has
        // given up.
        let settle = config.run.commit_interval + if is_once { Duration::ZERO } else { config.sink.retry_timeout };
        let rules = MergeRules {
            period: merge.period,
            files_min: merge.files_min,
            target_bytes: (config.run.target_file_size_bytes as u64).min(TARGET_BYTES_MAX),
            settle,
            is_running_too: merge.on_flush && is_once,
        };
        let merger = Merger::new(store.clone(), &config.sink.parquet, Arc::clone(&config.name), metrics.clone());
        let visibility = merge.visibility;
        Self { store, ledger, merger, rules, visibility, metrics, facts: HashMap::new(), other: None }
    }

    /// Merges everything that is due. Claims nothing where nothing is.
    async fn pass(
        &mut self,
        patience: Duration,
        stop: &CancellationToken,
        tell: &mut (dyn FnMut(&MergeReport) + Send),
    ) -> Result<Pass, PipelineError> {
        let (state, lists) = self.plan().await?;
        if lists.is_empty() && state.compaction.pending.is_none() {
            return Ok(Pass::Done);
        }
        if self.is_busy(&state, patience) {
            return Ok(Pass::Busy);
        }
        let compactor = Compactor::claim(self.store.clone(), self.ledger.clone()).await?;
        'rounds: for _ in 0..ROUNDS_MAX {
            // Anew, since another one may have merged until the claim.
            let (_, lists) = self.plan().await?;
            if lists.is_empty() {
                break;
            }
            for files in lists {
                let staged = compactor.staging_path();
                let outcome = tokio::select! {
                    biased;
                    () = stop.cancelled() => break 'rounds,
                    outcome = self.merger.merge(files, &staged) => outcome?,
                };
                match outcome {
                    Outcome::Merged(merged) => tell(&self.replace(&compactor, merged, &staged).await?),
                    Outcome::Damaged(path, damage) => self.leave_alone(path, damage),
                }
            }
        }
        compactor.release().await?;
        Ok(Pass::Done)
    }

    /// Whether another process seems to be at work.
    fn is_busy(&mut self, state: &State, patience: Duration) -> bool {
        let Some(owner) = &state.compaction.owner else { return false };
        let last = state.compaction.last;
        match &self.other {
            Some((known, record, since)) if known == owner && *record == last => since.elapsed() < patience,
            _ => {
                self.other = Some((owner.clone(), last, Instant::now()));
                !patience.is_zero()
            }
        }
    }

    /// The files that are to be merged now, as they are listed and as the ledger tells afterwards.
    async fn plan(&mut self) -> Result<(State, Vec<Vec<Candidate>>), PipelineError> {
        let listed = self.store.list_with_ages().await?;
        let state = self.ledger.look().await?;
        let (unsettled, is_safe) = (state.unsettled(), self.store.moves_at_once());
        let listed = listed.into_iter().filter(|(path, _, age)| {
            !unsettled.contains(path.as_ref()) && (is_safe || *age >= AGAIN_AFTER || !is_merged(path))
        });
        let groups = self.rules.due(listed.map(|(path, bytes, _)| (path, bytes)).collect(), Utc::now());
        let mut known = HashMap::new();
        let mut lists = Vec::new();
        for Group { files, is_over } in groups {
            self.look(&files).await?;
            let good = files.iter().filter_map(|file| {
                let facts = self.facts.remove(&file.path)?;
                known.insert(file.path.clone(), facts);
                Some((file.clone(), facts?.schema))
            });
            let good: Vec<_> = good.collect();
            lists.extend(self.rules.lists(&good, is_over));
        }
        self.facts = known;
        Ok((state, lists))
    }

    /// Looks at those files that are not known yet.
    async fn look(&mut self, files: &[Candidate]) -> Result<(), PipelineError> {
        let new: Vec<_> = files.iter().filter(|file| !self.facts.contains_key(&file.path)).cloned().collect();
        let looked = self.merger.look(new.clone()).await?;
        for (file, looked) in new.into_iter().zip(looked) {
            match looked {
                Ok(facts) => drop(self.facts.insert(file.path, Some(facts))),
                Err(damage) => self.leave_alone(file.path, damage),
            }
        }
        Ok(())
    }

    /// A file is not merged, now and later.
    fn leave_alone(&mut self, path: Path, damage: Damage) {
        match damage {
            Damage::Gone => drop(self.facts.remove(&path)),
            Damage::Unreadable(why) => {
                tracing::warn!(file = %path, why, "a file is left as it is and not merged");
                self.metrics.left_unmerged();
                self.facts.insert(path, None);
            }
        }
    }

    /// Puts a merged file in the place of those that are merged.
    async fn replace(
        &self,
        compactor: &Compactor,
        merged: MergedFile,
        staged: &Path,
    ) -> Result<MergeReport, PipelineError> {
        let MergedFile { path, bytes, rows, inputs } = merged;
        let entry = |path: &Path, bytes, rows| FileEntry { path: path.to_string(), bytes, rows };
        let report = MergeReport {
            path: path.to_string(),
            files: inputs.len(),
            rows,
            bytes_before: inputs.iter().map(|(file, _)| file.bytes).sum(),
            bytes,
        };
        let merge = Merge {
            inputs: inputs.iter().map(|(file, rows)| entry(&file.path, file.bytes, *rows)).collect(),
            file: entry(&path, bytes, rows),
            staged: staged.to_string(),
            visibility: self.visibility,
        };
        compactor.merge(merge).await?;
        self.metrics.merged(report.files as u64);
        Ok(report)
    }
}
