//! Pipelines whose plugins are loaded and tried, before they may run.
//!
//! Comes in: pipelines that are wanted. Goes out: each of them ready to run, or why it cannot. Promises: a tenant's plugins that
//! compile for long hold up the pipelines of no other tenant, whenever those are asked for; of what is asked for twice, only the
//! newer one comes out.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
    sync::Arc,
};

use futures::{FutureExt as _, StreamExt as _, future::BoxFuture, stream::FuturesUnordered};

use super::watch::{Seen, look_at};
use crate::{
    config::PipelineConfig,
    error::PipelineError,
    pipeline::{self, Prepared},
    plugin::PluginEngine,
    tenant::Tenants,
};

/// Pipelines that are prepared at the same time: some, so that one that compiles for long does not hold up the others. Of each
/// tenant at least one, so that it does not hold up another tenant's either.
const AT_ONCE: usize = 4;

/// A pipeline that may run.
#[derive(Clone)]
pub(super) struct Plan {
    /// What it is.
    pub(super) prepared: Prepared,
    /// The file that says so.
    pub(super) file: Arc<str>,
    /// What the files of its plugins looked like before they were loaded.
    pub(super) seen: Vec<Seen>,
}

/// A pipeline that was wanted.
pub(super) struct Answer {
    /// Its name.
    pub(super) name: Arc<str>,
    /// The file that says so.
    pub(super) file: Arc<str>,
    /// It, or why it cannot run.
    pub(super) plan: Result<Plan, PipelineError>,
}

/// All that are wanted and not yet there.
pub(super) struct Preparing {
    /// What they are loaded with.
    engine: PluginEngine,
    /// Whose they are.
    tenants: Tenants,
    /// The newest that is wanted under each name.
    wanted: BTreeMap<Arc<str>, Wanted>,
    /// How many of each tenant are under way, those that nobody wants any more included.
    under_way: BTreeMap<Arc<str>, usize>,
    /// Those.
    tasks: FuturesUnordered<BoxFuture<'static, Tried>>,
    /// Number of the last that was wanted.
    number: u64,
}

/// A pipeline that is wanted.
struct Wanted {
    /// Tells it from what was wanted under its name before.
    number: u64,
    /// What it is.
    config: PipelineConfig,
    /// The file that says so.
    file: Arc<str>,
    /// What the files of its plugins looked like.
    seen: Vec<Seen>,
    /// Whether it is tried now.
    is_under_way: bool,
}

/// What was tried.
struct Tried {
    /// Whose it is.
    tenant: Arc<str>,
    /// Its name.
    name: Arc<str>,
    /// Its number.
    number: u64,
    /// What came of it.
    prepared: Result<Prepared, PipelineError>,
}

impl Preparing {
    /// Nothing is wanted yet.
    pub(super) fn new(engine: PluginEngine, tenants: Tenants) -> Self {
        let (wanted, under_way) = (BTreeMap::new(), BTreeMap::new());
        Self { engine, tenants, wanted, under_way, tasks: FuturesUnordered::new(), number: 0 }
    }

    /// Whether nothing is wanted that is not there.
    pub(super) fn is_empty(&self) -> bool {
        self.wanted.is_empty()
    }

    /// What is wanted.
    pub(super) fn configs(&self) -> impl Iterator<Item = &PipelineConfig> {
        self.wanted.values().map(|wanted| &wanted.config)
    }

    /// Wants a pipeline in the place of what was wanted under its name; if it is the same, that goes on. Whoever has wanted all
    /// calls `start`.
    pub(super) fn want(&mut self, config: PipelineConfig, file: Arc<str>) {
        let (name, seen) = (Arc::clone(&config.name), look_at_plugins(&config));
        if let Some(known) = self.wanted.get_mut(&name)
            && known.config == config
            && known.seen == seen
        {
            known.file = file;
            return;
        }
        self.number += 1;
        self.wanted.insert(name, Wanted { number: self.number, config, file, seen, is_under_way: false });
    }

    /// Forgets what is not wanted any more, by name and file; their names.
    pub(super) fn forget_all_but(&mut self, is_wanted: impl Fn(&str, &str) -> bool) -> Vec<Arc<str>> {
        self.wanted.extract_if(.., |name, wanted| !is_wanted(name, &wanted.file)).map(|(name, _)| name).collect()
    }

    /// Forgets one, since what runs is what is wanted.
    pub(super) fn forget(&mut self, name: &str) {
        self.wanted.remove(name);
    }

    /// The next that is there; none where nothing is under way. Cancel-safe.
    pub(super) async fn next(&mut self) -> Option<Answer> {
        loop {
            let Tried { tenant, name, number, prepared } = self.tasks.next().await?;
            if let Some(under_way) = self.under_way.get_mut(&tenant) {
                *under_way = under_way.saturating_sub(1);
            }
            let is_wanted = self.wanted.get(&name).is_some_and(|wanted| wanted.number == number);
            let wanted = if is_wanted { self.wanted.remove(&name) } else { None };
            self.start();
            if let Some(Wanted { file, seen, .. }) = wanted {
                let plan = prepared.map(|prepared| Plan { prepared, file: Arc::clone(&file), seen });
                return Some(Answer { name, file, plan });
            }
        }
    }

    /// Puts as many under way as may be.
    pub(super) fn start(&mut self) {
        self.under_way.retain(|_, under_way| *under_way > 0);
        let of_wanted = self.wanted.values().map(|wanted| &wanted.config.tenant);
        let tenants = of_wanted.chain(self.under_way.keys()).collect::<BTreeSet<_>>().len();
        let at_once = (AT_ONCE / tenants.max(1)).max(1);
        for (name, wanted) in self.wanted.iter_mut().filter(|(_, wanted)| !wanted.is_under_way) {
            let tenant = Arc::clone(&wanted.config.tenant);
            let under_way = self.under_way.entry(Arc::clone(&tenant)).or_default();
            if *under_way >= at_once {
                continue;
            }
            *under_way += 1;
            wanted.is_under_way = true;
            let (name, number, config) = (Arc::clone(name), wanted.number, wanted.config.clone());
            let (engine, tenants) = (self.engine.clone(), self.tenants.clone());
            let tried = async move {
                let prepared = pipeline::prepare(config, &engine, &tenants).await;
                Tried { tenant, name, number, prepared }
            };
            self.tasks.push(tried.boxed());
        }
    }
}

/// The files of the plugins of a pipeline.
pub(super) fn plugin_files(config: &PipelineConfig) -> impl Iterator<Item = PathBuf> {
    config.plugins.iter().flat_map(|plugin| plugin.files()).map(Path::to_owned)
}

/// What they look like now.
pub(super) fn look_at_plugins(config: &PipelineConfig) -> Vec<Seen> {
    config.plugins.iter().flat_map(|plugin| plugin.files()).map(look_at).collect()
}
