//! The pipelines of a process, as its configuration changes.
//!
//! Comes in: what was loaded of the configuration, once and then again and again. Goes out: pipelines that run, and one exit code
//! for all of them. Promises: who is not changed is not touched; a pipeline that is changed, or whose plugin's file is, drains
//! (its calls finish, everything read is committed) before it begins anew from what is committed; what is wrong is refused in
//! words, and what ran before goes on: a file with a fault, a plugin that does not load or open, and a changed pipeline that
//! fails before its first commit. After the word to stop nothing is started.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
    sync::Arc,
    time::Duration,
};

use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::{
    BAD_CONFIGURATION, DONE, FAILED,
    preparing::{Answer, Plan, Preparing, look_at_plugins, plugin_files},
    tell, worse,
};
use crate::{
    config::{PipelineConfig, fault::Faults, load::Loaded},
    error::PipelineError,
    pipeline::{self, Prepared, Runtime, Totals},
    telemetry::{PipelineState, Reloads},
};

/// A pipeline that was asked to drain and is not done so long after its `shutdown_timeout` is dropped.
const GIVE_UP_AFTER: Duration = Duration::from_secs(5);

/// Runs pipelines.
pub(super) struct Supervisor {
    /// What every pipeline is given. Its `stop` asks all of them to drain.
    runtime: Runtime,
    /// Those that are to run, or to run as they are wanted now.
    preparing: Preparing,
    /// Those that run, by name.
    running: BTreeMap<Arc<str>, Running>,
    /// Those that do not any more, or never did.
    ended: BTreeMap<Arc<str>, End>,
    /// One for each that runs.
    tasks: JoinSet<(Arc<str>, u8)>,
    /// Files that were wrong when they were last read.
    wrong: BTreeMap<Arc<str>, Faults>,
    /// Changes that were refused since the last reload, by pipeline.
    refused: BTreeMap<Arc<str>, String>,
    /// The files of the plugins in the configuration.
    plugin_files: Vec<PathBuf>,
    /// What the reload comes to, until everything that it wanted is under way or refused.
    outcome: Option<Outcome>,
    /// Whether there was a configuration already.
    has_begun: bool,
    /// What is counted.
    reloads: Reloads,
}

/// A pipeline that runs.
struct Running {
    /// What runs.
    plan: Plan,
    /// Asks it to drain.
    stop: CancellationToken,
    /// What it has done.
    totals: Arc<Totals>,
    /// What ran before it, to go back to.
    before: Option<Box<Plan>>,
    /// What comes after it has drained.
    then: Then,
}

/// What comes after a pipeline.
enum Then {
    /// Nothing: it was not asked to end.
    Nothing,
    /// It was taken out of the configuration.
    Gone,
    /// It was changed.
    Next(Box<Plan>),
}

/// A pipeline that does not run any more, or never did.
struct End {
    /// What it was, where that could run.
    plan: Option<Plan>,
    /// The file that says so.
    file: Arc<str>,
    /// How it ended.
    code: u8,
}

/// What a reload came to.
#[derive(Clone, Copy, Debug, Default)]
struct Outcome {
    /// Reloads that it is of.
    reloads: usize,
    /// New pipelines.
    started: usize,
    /// Pipelines that drain and begin anew.
    changed: usize,
    /// Pipelines that drain and are gone.
    removed: usize,
    /// Changes that were refused.
    refused: usize,
}

impl Supervisor {
    /// Nothing runs yet.
    pub(super) fn new(runtime: Runtime) -> Self {
        Self {
            preparing: Preparing::new(runtime.engine.clone(), runtime.tenants.clone()),
            runtime,
            running: BTreeMap::new(),
            ended: BTreeMap::new(),
            tasks: JoinSet::new(),
            wrong: BTreeMap::new(),
            refused: BTreeMap::new(),
            plugin_files: Vec::new(),
            outcome: None,
            has_begun: false,
            reloads: Reloads::new(),
        }
    }

    /// Whether nothing runs or is about to.
    pub(super) fn is_idle(&self) -> bool {
        self.tasks.is_empty() && self.preparing.is_empty()
    }

    /// The longest time that a pipeline may take to drain.
    pub(super) fn patience(&self) -> Duration {
        let running = self.running.values().map(|one| one.plan.prepared.config());
        running.chain(self.preparing.configs()).map(|one| one.run.shutdown_timeout).max().unwrap_or_default()
    }

    /// The files of plugins, for whoever watches them: those in the configuration, and those of pipelines that go on though their
    /// file is wrong.
    pub(super) fn plugin_files(&self) -> Vec<PathBuf> {
        let running = self.running.values().filter_map(Running::newest);
        let running = running.flat_map(|plan| plugin_files(plan.prepared.config()));
        self.plugin_files.iter().cloned().chain(running).collect()
    }

    /// The exit code of everything so far.
    pub(super) fn code(&self) -> u8 {
        let wrong = if self.wrong.is_empty() { DONE } else { BAD_CONFIGURATION };
        self.ended.values().map(|end| end.code).fold(wrong, worse)
    }

    /// Waits until a pipeline is prepared or ends, and does what comes after it; after the word to stop nothing is started.
    /// Cancel-safe.
    pub(super) async fn next(&mut self) {
        let stop = self.runtime.stop.clone();
        tokio::select! {
            biased;
            () = stop.cancelled(), if !self.preparing.is_empty() => {
                self.preparing.forget_all_but(|_, _| false);
                self.tell();
            }
            Some(ended) = self.tasks.join_next() => {
                if let Ok((name, code)) = ended {
                    self.ended(&name, code);
                }
            }
            Some(answer) = self.preparing.next() => {
                self.answered(answer);
                self.tell();
            }
            else => {}
        }
    }

    /// A configuration could not be loaded at all: what runs goes on.
    pub(super) fn refuse(&mut self, words: &str) {
        self.reloads.refused(1);
        tracing::error!("the changed configuration is refused, and everything goes on as before: {words}");
    }

    /// Begins to make what runs as the configuration says; `next` does the rest.
    pub(super) fn apply(&mut self, loaded: Loaded) {
        let Loaded { config, files, wrong } = loaded;
        self.runtime.tenants.set(&config.tenants);
        self.refused.clear();
        self.wrong = wrong;
        self.plugin_files = config.pipelines.iter().flat_map(plugin_files).collect();
        // What the reload before has not come to yet is told with this one.
        let mut outcome = self.outcome.take().unwrap_or_default();
        outcome.reloads += usize::from(std::mem::replace(&mut self.has_begun, true));
        outcome.refused += self.wrong.len();
        let wanted: BTreeSet<_> = config.pipelines.iter().map(|one| Arc::clone(&one.name)).collect();
        let wrong = &self.wrong;
        for name in self.preparing.forget_all_but(|name, file| wanted.contains(name) || wrong.contains_key(file)) {
            if !self.running.contains_key(&name) {
                self.runtime.health.remove(&name);
            }
        }
        outcome.removed += self.remove_all_but(|name| wanted.contains(name));
        for pipeline in config.pipelines {
            let file = files.get(&pipeline.name).map_or_else(|| Arc::from("the configuration"), Arc::clone);
            match self.is_as_wanted(&pipeline, &file) {
                Ok(true) => self.preparing.forget(&pipeline.name),
                Ok(false) => self.preparing.want(pipeline, file),
                Err(words) => {
                    self.preparing.forget(&pipeline.name);
                    outcome.refused += 1;
                    self.refuse_change(&pipeline.name, &file, &words);
                }
            }
        }
        self.preparing.start();
        self.outcome = Some(outcome);
        self.tell();
    }

    /// A pipeline may run, or cannot.
    fn answered(&mut self, Answer { name, file, plan }: Answer) {
        match plan {
            Ok(plan) => self.take(&name, plan),
            Err(error) => {
                self.outcome.get_or_insert_default().refused += 1;
                self.cannot_run(&name, &file, &error);
            }
        }
    }

    /// Asks pipelines to drain and be gone that are not wanted any more; how many. Those of files that are wrong go on.
    fn remove_all_but(&mut self, is_wanted: impl Fn(&str) -> bool) -> usize {
        let (wrong, health) = (&self.wrong, &self.runtime.health);
        self.ended.retain(|name, end| {
            let stays = is_wanted(name) || wrong.contains_key(&end.file);
            if !stays {
                health.remove(name);
            }
            stays
        });
        let mut removed = 0;
        for (name, running) in &mut self.running {
            if !is_wanted(name) && !wrong.contains_key(&running.plan.file) && !matches!(running.then, Then::Gone) {
                running.then = Then::Gone;
                running.stop.cancel();
                removed += 1;
                tracing::info!(pipeline = %name, "the pipeline is not in the configuration any more: it drains");
            }
        }
        removed
    }

    /// Whether a pipeline runs, or has ended well, as it is wanted, plugins included; or in words why it may not be changed.
    fn is_as_wanted(&mut self, wanted: &PipelineConfig, file: &Arc<str>) -> Result<bool, String> {
        let newest = match self.running.get_mut(&wanted.name) {
            Some(running) => running.newest_mut(),
            None => self.ended.get_mut(&wanted.name).filter(|end| end.code == DONE).and_then(|end| end.plan.as_mut()),
        };
        let Some(plan) = newest else { return Ok(false) };
        if plan.file != *file && self.wrong.contains_key(&plan.file) {
            return Err(format!("a pipeline of this name is of {}, which is wrong now", plan.file));
        }
        let is_same = plan.prepared.config() == wanted && plan.seen == look_at_plugins(wanted);
        if is_same {
            plan.file = Arc::clone(file);
        }
        Ok(is_same)
    }

    /// Takes a pipeline that may run in the place of what ran under its name.
    fn take(&mut self, name: &Arc<str>, plan: Plan) {
        let outcome = self.outcome.get_or_insert_default();
        let Some(running) = self.running.get_mut(name) else {
            outcome.started += 1;
            self.ended.remove(name);
            self.start(plan, None);
            return;
        };
        // A plugin's file may have been written anew with what was in it.
        if let Some(newest) = running.newest_mut()
            && newest.prepared.config() == plan.prepared.config()
            && newest.prepared.digests() == plan.prepared.digests()
        {
            newest.seen = plan.seen;
            return;
        }
        outcome.changed += 1;
        tracing::info!(pipeline = %name, "the pipeline is changed: it drains and begins anew");
        running.then = Then::Next(Box::new(plan));
        running.stop.cancel();
    }

    /// A pipeline cannot run as it is wanted.
    fn cannot_run(&mut self, name: &Arc<str>, file: &Arc<str>, error: &PipelineError) {
        let words = error.full_message();
        tell(&format!("{name}: {words}"));
        if self.running.contains_key(name) {
            self.refuse_change(name, file, &words);
            return;
        }
        tracing::error!(pipeline = %name, error = words, "the pipeline cannot run; others do not notice");
        self.runtime.health.set_pipeline(name, PipelineState::Failed(words));
        self.ended.insert(Arc::clone(name), End { plan: None, file: Arc::clone(file), code: BAD_CONFIGURATION });
    }

    /// A change is refused, and what runs goes on.
    fn refuse_change(&mut self, name: &Arc<str>, file: &Arc<str>, words: &str) {
        tracing::error!(pipeline = %name, %file, "the changed pipeline is refused, and goes on as before: {words}");
        self.refused.insert(Arc::clone(name), words.to_owned());
    }

    /// Starts a pipeline. `before`: what ran under its name until now.
    fn start(&mut self, plan: Plan, before: Option<Box<Plan>>) {
        let name = Arc::clone(&plan.prepared.config().name);
        let (stop, totals) = (self.runtime.stop.child_token(), Arc::new(Totals::default()));
        let runtime = Runtime { stop: stop.clone(), totals: Arc::clone(&totals), ..self.runtime.clone() };
        self.runtime.health.set_pipeline(&name, PipelineState::Starting);
        self.tasks.spawn(run_one(plan.prepared.clone(), runtime));
        self.running.insert(name, Running { plan, stop, totals, before, then: Then::Nothing });
    }

    /// A pipeline has ended.
    fn ended(&mut self, name: &Arc<str>, code: u8) {
        let Some(Running { plan, totals, before, then, .. }) = self.running.remove(name) else { return };
        let is_stopping = self.runtime.stop.is_cancelled();
        match (then, before) {
            (Then::Next(next), _) if !is_stopping => self.start(*next, Some(Box::new(plan))),
            (Then::Gone, _) => {
                self.runtime.health.remove(name);
                tracing::info!(pipeline = %name, "the pipeline is gone");
            }
            (Then::Nothing, Some(before)) if code != DONE && !is_stopping && !totals.has_committed() => {
                let words = "it failed before its first commit (see above)";
                self.refuse_change(name, &plan.file, words);
                self.reloads.refused(1);
                self.start(*before, None);
                self.tell_health();
            }
            _ => {
                let file = Arc::clone(&plan.file);
                self.ended.insert(Arc::clone(name), End { plan: Some(plan), file, code });
            }
        }
    }

    /// Tells what a reload came to, once everything that it wanted is under way or refused.
    fn tell(&mut self) {
        self.reloads.wrong_files(self.wrong.len());
        self.tell_health();
        if !self.preparing.is_empty() {
            return;
        }
        let Some(Outcome { reloads, started, changed, removed, refused }) = self.outcome.take() else { return };
        if reloads == 0 {
            return;
        }
        self.reloads.refused(refused);
        self.reloads.applied(reloads);
        let unchanged = self.running.len().saturating_sub(started + changed + removed);
        tracing::info!(started, changed, removed, refused, unchanged, "the configuration was read again");
    }

    /// Tells whoever looks at the page what is refused.
    fn tell_health(&self) {
        let first = |faults: &Faults| faults.0.first().map(ToString::to_string).unwrap_or_default();
        let wrong = self.wrong.values().map(|faults| format!("refused: {}", first(faults)));
        let changes =
            self.refused.iter().map(|(name, words)| format!("refused: {name}, which goes on as before: {words}"));
        self.runtime.health.set_notes(wrong.chain(changes).collect());
    }
}

impl Running {
    /// What it is to become, unless it is to be gone.
    fn newest(&self) -> Option<&Plan> {
        match &self.then {
            Then::Nothing => Some(&self.plan),
            Then::Next(plan) => Some(plan),
            Then::Gone => None,
        }
    }

    /// The same, to change it.
    fn newest_mut(&mut self) -> Option<&mut Plan> {
        match &mut self.then {
            Then::Nothing => Some(&mut self.plan),
            Then::Next(plan) => Some(plan),
            Then::Gone => None,
        }
    }
}

/// One pipeline; its name and exit code.
async fn run_one(prepared: Prepared, runtime: Runtime) -> (Arc<str>, u8) {
    let (name, patience) =
        (Arc::clone(&prepared.config().name), prepared.config().run.shutdown_timeout + GIVE_UP_AFTER);
    let (stop, health) = (runtime.stop.clone(), runtime.health.clone());
    let mut running = tokio::spawn(pipeline::run(prepared, runtime));
    let given_up = async {
        stop.cancelled().await;
        tokio::time::sleep(patience).await;
    };
    let ended = tokio::select! {
        ended = &mut running => ended,
        () = given_up => {
            running.abort();
            running.await
        }
    };
    let code = match ended {
        Ok(Ok(summary)) => {
            let pipeline::Summary { records_read, bytes_read, rows_written, records_rejected, rows_filtered, .. } =
                summary;
            tracing::info!(pipeline = %name, records_read, bytes_read, rows_written, records_rejected, rows_filtered,
                files = summary.files, file_bytes = summary.file_bytes, "pipeline ended");
            DONE
        }
        Ok(Err(error)) => {
            tracing::error!(pipeline = %name, error = %error.full_message(), "pipeline failed");
            FAILED
        }
        Err(error) => {
            let words = if error.is_cancelled() {
                "did not drain in time; what it did not commit is read again"
            } else {
                "ended abnormally"
            };
            tracing::error!(pipeline = %name, %error, "the pipeline {words}");
            health.set_pipeline(&name, PipelineState::Failed(words.to_owned()));
            FAILED
        }
    };
    (name, code)
}
