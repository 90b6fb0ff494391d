//! The pipelines of a process, as its configuration changes.
//!
//! Comes in: what was loaded of the configuration, once and then again and again. Goes out: pipelines that run, and one exit code
//! for all of them. Promises: who is not changed is not touched; a pipeline that is changed, or whose plugin's file is, drains
//! (its calls finish, everything read is committed) before it begins anew from what is committed; what is wrong is refused in
//! words, and what ran before goes on: a file with a fault, a plugin that does not load or open, and a changed pipeline that
//! fails before its first commit. After the word to stop nothing is started.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use futures::{StreamExt as _, stream};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::{
    BAD_CONFIGURATION, DONE, FAILED, tell,
    watch::{Seen, look_at},
    worse,
};
use crate::{
    config::{PipelineConfig, fault::Faults, load::Loaded},
    error::PipelineError,
    pipeline::{self, Prepared, Runtime, Totals},
    telemetry::{PipelineState, Reloads},
};

/// Pipelines whose plugins are loaded at the same time: some, so that one that compiles for long does not hold up the others. Of
/// each tenant at least one, so that it does not hold up another tenant's either.
const PREPARED_AT_ONCE: usize = 4;

/// A pipeline that was asked to drain and is not done so long after its `shutdown_timeout` is dropped.
const GIVE_UP_AFTER: Duration = Duration::from_secs(5);

/// Runs pipelines.
pub(super) struct Supervisor {
    /// What every pipeline is given. Its `stop` asks all of them to drain.
    runtime: Runtime,
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
    /// What is counted.
    reloads: Reloads,
}

/// A pipeline that may run.
#[derive(Clone)]
struct Plan {
    /// What it is.
    prepared: Prepared,
    /// The file that says so.
    file: Arc<str>,
    /// What the files of its plugins looked like before they were loaded.
    seen: Vec<Seen>,
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
            runtime,
            running: BTreeMap::new(),
            ended: BTreeMap::new(),
            tasks: JoinSet::new(),
            wrong: BTreeMap::new(),
            refused: BTreeMap::new(),
            reloads: Reloads::new(),
        }
    }

    /// Whether nothing runs.
    pub(super) fn is_idle(&self) -> bool {
        self.tasks.is_empty()
    }

    /// The longest time that a pipeline may take to drain.
    pub(super) fn patience(&self) -> Duration {
        self.running.values().map(|one| one.plan.prepared.config().run.shutdown_timeout).max().unwrap_or_default()
    }

    /// The files of plugins, for whoever watches them.
    pub(super) fn plugin_files(&self) -> Vec<std::path::PathBuf> {
        let plans = self.running.values().map(Running::newest);
        plans
            .flatten()
            .flat_map(|plan| plan.prepared.config().plugins.iter().flat_map(|plugin| plugin.files()))
            .map(std::path::Path::to_owned)
            .collect()
    }

    /// The exit code of everything so far.
    pub(super) fn code(&self) -> u8 {
        let wrong = if self.wrong.is_empty() { DONE } else { BAD_CONFIGURATION };
        self.ended.values().map(|end| end.code).fold(wrong, worse)
    }

    /// Waits until a pipeline ends, and does what comes after it. Cancel-safe.
    pub(super) async fn next_end(&mut self) {
        if let Some(Ok((name, code))) = self.tasks.join_next().await {
            self.ended(&name, code);
        }
    }

    /// A configuration could not be loaded at all: what runs goes on.
    pub(super) fn refuse(&mut self, words: &str) {
        self.reloads.refused(1);
        tracing::error!("the changed configuration is refused, and everything goes on as before: {words}");
    }

    /// Makes what runs as the configuration says; returns when everything that is new is under way.
    pub(super) async fn apply(&mut self, loaded: Loaded) {
        let Loaded { config, files, wrong } = loaded;
        let is_first = self.running.is_empty() && self.ended.is_empty();
        self.runtime.tenants.set(&config.tenants);
        self.refused.clear();
        self.wrong = wrong;
        let mut outcome = Outcome { refused: self.wrong.len(), ..Outcome::default() };
        let wanted: BTreeSet<_> = config.pipelines.iter().map(|one| Arc::clone(&one.name)).collect();
        outcome.removed = self.remove_all_but(|name| wanted.contains(name));
        let mut changed = Vec::new();
        for pipeline in config.pipelines {
            let file = files.get(&pipeline.name).map_or_else(|| Arc::from("the configuration"), Arc::clone);
            match self.is_as_wanted(&pipeline, &file) {
                Ok(true) => {}
                Ok(false) => changed.push((pipeline, file)),
                Err(words) => {
                    outcome.refused += 1;
                    self.refuse_change(&pipeline.name, &file, &words);
                }
            }
        }
        let (engine, tenants) = (self.runtime.engine.clone(), self.runtime.tenants.clone());
        let mut of_tenants: BTreeMap<_, Vec<_>> = BTreeMap::new();
        for (pipeline, file) in changed {
            let (engine, tenants, seen) = (engine.clone(), tenants.clone(), look_at_plugins(&pipeline));
            let (name, tenant) = (Arc::clone(&pipeline.name), Arc::clone(&pipeline.tenant));
            let prepare = async move { (name, file, seen, pipeline::prepare(pipeline, &engine, &tenants).await) };
            of_tenants.entry(tenant).or_default().push(prepare);
        }
        let at_once = (PREPARED_AT_ONCE / of_tenants.len().max(1)).max(1);
        let of_tenants = of_tenants.into_values().map(|one| stream::iter(one).buffer_unordered(at_once).boxed());
        let mut preparing = stream::select_all(of_tenants);
        let stop = self.runtime.stop.clone();
        loop {
            tokio::select! {
                biased;
                () = stop.cancelled() => break,
                Some(ended) = self.tasks.join_next() => {
                    if let Ok((name, code)) = ended {
                        self.ended(&name, code);
                    }
                }
                prepared = preparing.next() => match prepared {
                    None => break,
                    Some((name, file, seen, Ok(prepared))) => self.take(&name, Plan { prepared, file, seen }, &mut outcome),
                    Some((name, file, _, Err(error))) => {
                        outcome.refused += 1;
                        self.cannot_run(&name, &file, &error);
                    }
                }
            }
        }
        self.tell(outcome, is_first);
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
    fn take(&mut self, name: &Arc<str>, plan: Plan, outcome: &mut Outcome) {
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

    /// Tells what a reload came to.
    fn tell(&self, outcome: Outcome, is_first: bool) {
        let Outcome { started, changed, removed, refused } = outcome;
        self.reloads.wrong_files(self.wrong.len());
        self.tell_health();
        if is_first {
            return;
        }
        self.reloads.refused(refused);
        self.reloads.applied();
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

/// What the files of the plugins of a pipeline look like now.
fn look_at_plugins(config: &PipelineConfig) -> Vec<Seen> {
    config.plugins.iter().flat_map(|plugin| plugin.files()).map(look_at).collect()
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
